"""Products of NumPy arrays by the compiled kernels of `ketcore.native`: chains of small steps.

A plan says whether it runs here (`MatmulPlan.native`), which it may where there is no `obstacle`.
Terms run one after the other, each through all steps, on rows that stay in a cache.  Of one large row the
first step runs apart, in pieces of what lies behind its modes; what it leaves is a batch for the others.
"""

from collections.abc import Callable, Sequence
from struct import Struct

import numpy as np

from ketcore.arrays.elementary import padded
from ketcore.arrays.threads import run_chunks
from ketcore.native import loader
from ketcore.products.plans import MatmulPlan

# The members of ProductNumbers in native/product.hpp.
_NUMBERS = Struct("=10q")

# Factors and steps of one product.
_MOST = 32

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

# Entries of a product from which threads of our own pay, and so does a first step apart.
_WORTH_THREADS = 1 << 17

_FAILED = "there is no memory to multiply"

# Columns of a unit of a first step that runs apart, UNIT in native/product.hpp, and the most pieces that all
# units, and all blocks that they leave, are cut into.
_UNIT = 64
_PIECES = 16

# Entries of a product that is over before another thread could want Python: one call instead of three.
_AT_ONCE = 1 << 12


def obstacle(factors: Sequence[np.ndarray], x: np.ndarray) -> str:
    """Why products of these arrays cannot run here, in words; empty if they can."""
    if type(x) is not np.ndarray or x.dtype not in _DTYPES:
        return "must be arrays of NumPy in float32 or float64"
    if len(factors) > _MOST:
        return f"must be at most {_MOST} factors, got {len(factors)}"
    return (
        "" if loader.active() else f"must have the compiled library: {loader.found()[1] or 'it is not used'}"
    )


def apply(
    factors: Sequence[np.ndarray], x: np.ndarray, plan: MatmulPlan, columns: int, out: np.ndarray | None
) -> np.ndarray:
    """As `forward.apply`."""
    batch, _, trail = x.shape
    if out is None:
        out = np.empty((batch, columns, trail), x.dtype)
    native = loader.loaded()
    if not _is_apart(plan, batch):
        _run(factors, plan, (_plain(x), out), ((native.multiply, batch, plan.chunk),))
        return out
    x = padded(np, x, plan.steps[0].size_in // trail, 1)
    units, blocks, *sizes = _pieces(plan)
    passes = zip((native.multiply_first, native.multiply_behind), (units, blocks), sizes, strict=True)
    _run(factors, plan, (_plain(x), out), list(passes))
    return out


def apply_vjp(
    factors: Sequence[np.ndarray], x: np.ndarray, cotangent: np.ndarray, plan: MatmulPlan
) -> tuple[list[np.ndarray], np.ndarray]:
    """The gradients of the merged factors of each step, (R, p, q), and of x.

    Where there is one step, its terms are added up: its gradient is that of the sum, (1, p, q).
    """
    batch, rows, trail = x.shape
    native, passes = loader.loaded(), []
    if _is_apart(plan, batch):
        first, last = plan.steps[0].size_in // trail, plan.steps[-1].size_out // trail
        x, cotangent, chunks = padded(np, x, first, 1), padded(np, cotangent, last, 1), _PIECES
        units, blocks, unit_size, block_size = _pieces(plan)
        passes.append((native.multiply_first, units, unit_size))
        passes.append(_by_chunks(native.multiply_behind_back, blocks, block_size))
        passes.append(_by_chunks(native.multiply_first_back, units, unit_size))
    else:
        chunks = -(-batch // plan.chunk)
        passes.append(_by_chunks(native.multiply_back, batch, plan.chunk))
    to_x, terms = np.empty(x.shape, x.dtype), 1 if len(plan.steps) == 1 else factors[0].shape[0]
    sizes = [step.rows * step.columns for step in plan.steps]
    sums = np.zeros((chunks, terms, sum(sizes)))
    _run(factors, plan, (_plain(x), _plain(cotangent), to_x, sums), passes)
    # In the order of the chunks, whatever thread had them.
    total = (sums.sum(axis=0) if chunks > 1 else sums[0]).astype(x.dtype)
    found, start = [], 0
    for step, size in zip(plan.steps, sizes, strict=True):
        found.append(total[:, start : start + size].reshape(terms, step.rows, step.columns))
        start += size
    return found, to_x[:, :rows, :]


def _plain(x):
    """An array in C order, as the library walks through it."""
    flags = x.flags
    return x if flags.c_contiguous and flags.aligned else np.array(x, order="C")


def _is_apart(plan, batch):
    """Whether the first step of the only row runs apart: a matter of sizes, since sums are cut by it."""
    if batch != 1 or plan.largest < _WORTH_THREADS or not plan.nested or len(plan.steps) < 2:
        return False
    first, second = plan.steps[:2]
    return first.outer == 1 and first.inner >= _UNIT and second.outer > 1


def _pieces(plan):
    """How many units and blocks there are of a first step that runs apart, and how many make a piece."""
    totals = plan.steps[0].inner // _UNIT, plan.steps[1].outer
    return *totals, *[-(-total // _PIECES) for total in totals]


def _by_chunks(function, total, size):
    """A pass whose pieces are numbered, because each has sums of its own."""

    def work(handle, start, stop):
        return next(filter(None, (function(handle, size, chunk) for chunk in range(start, stop))), 0)

    return work, -(-total // size), 1


def _run(
    factors: Sequence[np.ndarray],
    plan: MatmulPlan,
    arrays: Sequence[np.ndarray],
    passes: Sequence[tuple[Callable[[int, int, int], int], int, int]],
) -> None:
    """Describe a product to the library, and run the passes over it one after the other.

    Arrays are x and the result, or x, the cotangent and the gradients.  A pass is a function of the library
    that takes a handle, start and stop; the total that it is for; and the size of a piece.
    """
    x, y = arrays[:2]
    batch, rows, trail = x.shape
    numbers = (
        _NUMBERS.pack(
            len(factors),
            x.itemsize == 8,
            factors[0].shape[0],
            batch,
            rows * trail,
            y.shape[1] * trail,
            plan.nested,
            len(plan.steps),
            len(arrays) > 2,
            len(passes) > 1,
        )
        + plan.native
    )
    native, capsules = loader.loaded(), loader.capsules((*factors, *arrays))
    if len(passes) == 1 and batch <= plan.chunk and batch * plan.largest <= _AT_ONCE:
        loader.check(native.multiply_at_once(numbers, capsules), _FAILED)
        return
    handle = native.product(numbers, capsules)
    loader.check(not handle, _FAILED)
    alone = batch * plan.largest < _WORTH_THREADS
    try:
        for function, total, size in passes:

            def work(start, stop, function=function):
                loader.check(function(handle, start, stop), _FAILED)

            run_chunks(work, total, size, alone=alone)
    finally:
        native.forget_product(handle)
