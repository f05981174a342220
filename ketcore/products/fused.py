"""Products by the CUDA kernel of `matmul.cu`, one launch a pass: what `path="fused"` asks for.

A pass takes a few small modes; between passes lie arrays of all terms in the accumulation dtype.  Launchers
are those of `ketcore.cuda.launcher`.
"""

from collections.abc import Collection, Sequence
from math import prod
from typing import Any

from ketcore.array_types import AnyArray
from ketcore.cuda import library
from ketcore.cuda.structs import LARGEST_SIDE
from ketcore.cuda.table import STORAGE
from ketcore.products.fused_plan import filled_pass, fused_steps


def obstacle(factors: Sequence[AnyArray], x: AnyArray, identities: Collection[int] = ()) -> str:
    """Why the kernel cannot take these, in words that follow a name; empty if it can.

    `factors`, `x` and `identities` are those of `matmul`.
    """
    names = [array.dtype.name for array in (*factors, x)]
    if len(set(names)) > 1 or names[0] not in STORAGE:
        return f"must have one real floating dtype, got {', '.join(dict.fromkeys(names))}"
    if any(factor.ndim != 3 for factor in factors):
        return "must be arrays (rank, rows, columns) without a batch"
    if not factors or not factors[0].shape[0]:
        return "must have one mode and one term at least"
    if any(stride % factor.dtype.itemsize for factor in factors for stride in factor.strides):
        return "must have strides of whole entries"
    dims = [tuple(factor.shape[1:]) for factor in factors]
    if _steps(factors, 1, 1, identities) is None:
        return f"must have at most {LARGEST_SIDE} rows and columns in each mode, got {dims}"
    return ""


def matmul(
    launch: Any, factors: Sequence[AnyArray], x: AnyArray, identities: Collection[int] = ()
) -> AnyArray:
    """M^T x along the middle axis; `obstacle` says whether it can.

    Parameters
    ----------
    launch : object
        As by `ketcore.cuda.launcher`.
    factors : sequence of N arrays, (R, p_n, q_n)
        Any strides.
    x : array, (batch, P, trail)
        Of the same dtype; copied if it is not contiguous.
    identities : collection of ints, default ()
        Modes known to be identity matrices.

    Returns
    -------
    array, (batch, Q, trail)
        In that dtype; sums run in its accumulation dtype, in an order that sizes alone decide.
    """
    with library.on_device_of(x):
        return _passes(launch, factors, x, identities)


def _passes(launch, factors, x, identities):
    """The product, one launch after the other."""
    batch, _, trail = x.shape
    xp, storage = launch.xp, x.dtype.name
    shape = (batch, prod(factor.shape[2] for factor in factors), trail)
    if not batch or not trail:
        return xp.empty(shape, dtype=storage)
    wide = "float64" if storage == "float64" else "float32"
    # Stands for the arrays of the other type, which the kernel does not touch.
    unused = {name: xp.empty(0, dtype=name) for name in (storage, wide)}
    steps, z = _steps(factors, batch, trail, identities), xp.ascontiguousarray(x)
    assert steps is not None  # or there would be an obstacle
    for i, step in enumerate(steps):
        out = xp.empty(step.target, dtype=storage if i == len(steps) - 1 else wide)
        plan = filled_pass(step, factors, i > 0, i < len(steps) - 1)
        arrays = [a if a.dtype.name == name else unused[name] for a in (z, out) for name in (storage, wide)]
        size = step.launch
        launch("matmul", "multiply", (STORAGE[storage],), size.grid, size.block, (plan, *arrays), size.shared)
        z = out
    return z.reshape(shape)


def _steps(factors, batch, trail, identities):
    """The plan of the passes; None where the factors do not fit one."""
    rows, columns = (tuple(factor.shape[axis] for factor in factors) for axis in (1, 2))
    entry = max(4, factors[0].dtype.itemsize)
    return fused_steps(rows, columns, factors[0].shape[0], batch, trail, entry, frozenset(identities))
