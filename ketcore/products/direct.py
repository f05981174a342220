"""Products of few rows of NumPy arrays by one term, where finding out how to multiply is most of a call.

All that follows from shapes, checks included, is kept as the steps of the plan, in the form in which NumPy
takes them.  What is computed is what `ketcore.products.forward` computes, bit by bit; whatever is not of the
plainest kind is left to `ketcore.products.call`, errors too.

Letters: p_n and q_n rows and columns of factor n.
"""

from typing import Any, NamedTuple

import numpy as np

from ketcore.arrays.checks import is_plain_block, shapes_of
from ketcore.arrays.scale import is_level
from ketcore.products import chains
from ketcore.products.call import sizes_of
from ketcore.products.forward import is_deep, merged_modes
from ketcore.products.plans import MatmulPlan, matmul_plan
from ketcore.tracing import kept

# The dtypes that are multiplied as they are.
_DTYPES = frozenset(map(np.dtype, ("float32", "float64", "complex64", "complex128")))


class _Product(NamedTuple):
    """One step: z in `shape` with its last axes swapped or not, and the matrix (p, q) of some modes.

    `turned` says that the transposed matrix stands on the left of z.
    """

    start: int
    stop: int
    shape: tuple[int, ...]
    swapped: bool
    turned: bool


class _Known(NamedTuple):
    """What follows from shapes: those of the result and of x as (batch, rows, trail), columns, what runs.

    By steps of NumPy, or by a plan for compiled kernels where `native` is not None.
    """

    result: tuple[int, ...]
    flat: tuple[int, int, int]
    columns: int
    products: tuple[_Product, ...]
    native: MatmulPlan | None


def small_product(factors: Any, x: Any, shape: Any, axis: Any) -> np.ndarray | None:
    """`kron_matmul` without identities, or None where that is not for here."""
    if type(x) is not np.ndarray or type(factors) not in (tuple, list) or not factors:
        return None
    # Nearly all others have several terms.
    if getattr(factors[0], "shape", ())[:1] != (1,):
        return None
    dtype = x.dtype
    for factor in factors:
        if type(factor) is not np.ndarray or factor.dtype is not dtype:
            return None
    if dtype not in _DTYPES or type(axis) is not int or not is_plain_block(shape):
        return None
    known = _known(shapes_of(factors), x.shape, axis, shape, dtype.itemsize, not chains.obstacle(factors, x))
    if known is None or not (len(factors) == 1 or is_level(factors, None)):
        return None
    if known.native is not None:
        x = x.reshape(known.flat)
        return chains.apply(factors, x, known.native, known.columns, None).reshape(known.result)
    return _in_steps(factors, x, known.products).reshape(known.result)


def _in_steps(factors, z, products):
    for start, stop, shape, swapped, turned in products:
        weight = factors[start][0] if stop - start == 1 else merged_modes(np, factors[start:stop])[0]
        z = z.reshape(shape)
        if turned:
            z = np.matmul(weight.swapaxes(0, 1), z)
        else:
            z = np.matmul(z.swapaxes(-1, -2) if swapped else z, weight)
    return z


@kept(1024)
def _known(shapes, given, axis, shape, itemsize, native):
    """All that; None for several terms, many rows, a crop, and wrong shapes."""
    if axis not in (-1, -2) or any(len(each) != 3 or each[0] != 1 for each in shapes):
        return None
    try:
        sizes = sizes_of(shapes, given, axis, shape)
    except (ValueError, MemoryError):
        return None
    if not sizes.uncropped or 0 in given:
        return None
    batch = sizes.count
    plan = matmul_plan(*sizes.reached, 1, batch, sizes.trail, (), itemsize, None, native)
    if batch > plan.chunk or (batch == 1 and is_deep(plan, itemsize)):
        return None
    flat, steps = (batch, sizes.rows, sizes.trail), plan.steps
    if plan.native:
        return _Known(sizes.result_shape, flat, sizes.columns, (), plan)
    products = tuple([_product(step, batch * step.outer) for step in steps])
    return _Known(sizes.result_shape, flat, sizes.columns, products, None)


def _product(step, outer):
    """As `forward.step_forward` multiplies `outer` arrays (p, inner)."""
    p, inner = step.rows, step.inner
    if step.cyclic:
        return _Product(step.start, step.stop, (p, inner) if outer == 1 else (outer, p, inner), True, False)
    if inner == 1:
        return _Product(step.start, step.stop, (outer, p), False, False)
    return _Product(step.start, step.stop, (p, inner) if outer == 1 else (outer, p, inner), False, True)
