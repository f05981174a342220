"""The checked arguments of a Kronecker matrix times a dense array, and what is multiplied for them.

Sizes depend on shapes alone and are kept between calls; a small product costs hardly more than its checks.

Letters: N order, R rank, p_n and q_n rows and columns of factor n, P = prod p_n, Q = prod q_n.
"""

from collections.abc import Sequence
from math import prod
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays import scale
from ketcore.arrays.checks import check_floating, check_identities, check_shape
from ketcore.arrays.conversions import plain_type
from ketcore.arrays.elementary import padded, reshaped
from ketcore.arrays.namespaces import accumulation_dtype, cast_gradient, namespace
from ketcore.cuda import launcher, library
from ketcore.products import fused, plans, term_plans
from ketcore.products.term_products import without_identities
from ketcore.shapes import Marks, check_addressable, check_axis, check_choice, reached_dims, shown
from ketcore.tracing import decided, kept

_PATHS = (None, *plans.PATHS, term_plans.TERMS, "fused")
_CAPTURED = "a CUDA graph is being captured"


class Sizes(NamedTuple):
    """What follows from the shapes of the factors, of x and of the crop.

    Attributes
    ----------
    dims : pair of tuples of N ints
        Of rows and of columns, of the whole factors.
    reached : pair of tuples of N ints
        The same of the factors as far as the crop reaches.
    uncropped : bool
        Whether that is all of them.
    batched : bool
        Whether the factors are batches of matrices.
    lead, count : tuple; int
        The leading axes of the result, and the product of these.
    rows, columns : int
        Of the crop.
    trail : int
        The size of what lies behind the axis that is multiplied.
    result_shape : tuple
        ``(*lead, columns)``, or ``(*lead, columns, n)``.
    """

    dims: tuple[tuple[int, ...], tuple[int, ...]]
    reached: tuple[tuple[int, ...], tuple[int, ...]]
    uncropped: bool
    batched: bool
    lead: tuple[int, ...]
    count: int  # type: ignore[assignment]  # nobody counts the fields of this tuple
    rows: int
    columns: int
    trail: int
    result_shape: tuple[int, ...]


class Call(NamedTuple):
    """The checked arguments of one call.

    Attributes
    ----------
    xp : module
        The namespace of the arrays.
    factors, x : tuple of N arrays; array
        As given, as arrays.
    dtype, wide : dtype
        Of the result, and of sums.
    sizes : Sizes
        What follows from shapes.
    marks : tuple of R frozensets
        The modes that are identities; none where nothing is known to be.
    path : str or None
        For the plan; None where that has a choice.
    launch : object
        What launches the CUDA kernel, where that is the path.
    """

    xp: ModuleType
    factors: Sequence[AnyArray]
    x: AnyArray
    dtype: Any
    wide: Any
    sizes: Sizes
    marks: Marks
    path: str | None
    launch: Any

    def in_wide(self, array: AnyArray, shape: tuple[int, ...]) -> AnyArray:
        """`array` in the dtype of sums and in another shape."""
        array = array if array.dtype == self.wide else self.xp.astype(array, self.wide)
        return reshaped(self.xp, array, shape)

    def rows_of(self, array: AnyArray) -> AnyArray:
        """An array like x as (batch, rows, trail), or (*lead, P, trail) for batches, in the dtype of sums."""
        sizes = self.sizes
        if not sizes.batched:
            return self.in_wide(array, (sizes.count, sizes.rows, sizes.trail))
        lead = self.x.shape[: self.x.ndim - len(sizes.result_shape) + len(sizes.lead)]
        array = self.in_wide(array, (*lead, sizes.rows, sizes.trail))
        return padded(self.xp, array, prod(sizes.reached[0]), -2)

    def columns_of(self, array: AnyArray) -> AnyArray:
        """An array like the result as (batch, columns, trail), or (*lead, Q, trail), in the dtype of sums."""
        sizes = self.sizes
        if not sizes.batched:
            return self.in_wide(array, (sizes.count, sizes.columns, sizes.trail))
        array = self.in_wide(array, (*sizes.lead, sizes.columns, sizes.trail))
        return padded(self.xp, array, prod(sizes.reached[1]), -2)

    def narrowed(self, arrays: Sequence[AnyArray]) -> Sequence[AnyArray]:
        """Arrays in the shapes of the factors as far as a crop reaches, in the dtype of sums."""
        if self.sizes.uncropped and all(array.dtype == self.wide for array in arrays):
            return arrays
        found = []
        for array, p, q in zip(arrays, *self.sizes.reached, strict=True):
            if array.shape[-2:] != (p, q):
                array = array[..., :p, :q]
            found.append(array if array.dtype == self.wide else self.xp.astype(array, self.wide))
        return found


class Operands(NamedTuple):
    """What a call multiplies.

    Attributes
    ----------
    factors : sequence of N arrays
        As far as the crop reaches, in the dtype of sums and at one level.
    x : array
        As by `Call.rows_of`, with the scale of M where that is out of range.
    shifts, carry : sequence of N arrays or None; int
        What levelled the factors and scaled x, see `ketcore.arrays.scale`.
    """

    factors: Sequence[AnyArray]
    x: AnyArray
    shifts: Sequence[AnyArray | None] | None
    carry: int

    def carried(self, x: AnyArray) -> AnyArray:
        """An array like x, or its gradient, scaled as x is."""
        return scale.times_power(x, self.carry) if self.carry else x

    def to_x(self, call: Call, gradient: AnyArray) -> AnyArray:
        """A gradient in the shape and dtype of x."""
        return _cast(call.xp, reshaped(call.xp, self.carried(gradient), tuple(call.x.shape)), call.x)

    def to_factors(self, call: Call, gradients: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
        """Gradients of what is multiplied as gradients of the factors."""
        xp, found = call.xp, []
        gradients = without_identities(xp, scale.shifted(gradients, self.shifts), call.marks)
        for gradient, factor in zip(gradients, call.factors, strict=True):
            if not call.sizes.uncropped:
                for axis in (-2, -1):
                    gradient = padded(xp, gradient, factor.shape[axis], axis)
            found.append(_cast(xp, gradient, factor))
        return tuple(found)


def checked(
    factors: Sequence[AnyArray], x: AnyArray, shape: Any, axis: int, identities: Any, path: str | None
) -> Call:
    """The arguments of `kron_matmul`; TypeError, ValueError as it says."""
    xp, factors, x, dtype = _check_arrays(factors, x)
    wide = dtype if xp is np and dtype.itemsize > 2 else accumulation_dtype(xp, dtype)
    shapes = tuple([tuple(factor.shape) for factor in factors])
    if shape is not None:
        _dims(shapes)
        shape = check_shape(shape, factors)
    axis = check_axis("axis", axis, (-1, -2), "-1 or -2")
    sizes = sizes_of(shapes, tuple(x.shape), axis, shape)
    marks: Marks = ()
    if type(identities) is not tuple or identities:
        marks = check_identities(identities, sizes.dims, shapes[0][-3])
    launch = None
    if path is not None:
        launch = _check_path(path, factors, x, sizes, marks)
        path = None if path == "fused" else path
    return Call(xp, factors, x, dtype, wide, sizes, marks, path, launch)


def capturable(call: Call) -> Call:
    """The call, by the CUDA kernel while a graph is being captured: CuPy refuses to call cuBLAS then.

    RuntimeError for what the kernel does not take.
    """
    if call.xp is np or call.launch is not None or not library.is_capturing(call.x):
        return call
    if call.path is not None:
        raise RuntimeError(f"path must be None or 'fused' while {_CAPTURED}, got {call.path!r}")
    reason = fused.obstacle(call.factors, call.x, term_plans.common(call.marks))
    if reason:
        raise RuntimeError(f"while {_CAPTURED}, factors and x {reason}")
    return call._replace(launch=launcher.launcher_for(call.x))


def check_not_captured(call: Call, function: str) -> None:
    """RuntimeError while a graph is being captured, of which `function` cannot be a part by any path."""
    if call.xp is not np and library.is_capturing(call.x):
        raise RuntimeError(f"{function} must not be called while {_CAPTURED}: it calls cuBLAS by every path")


def operands(call: Call) -> Operands:
    """What a call multiplies, but for the product by the CUDA kernel."""
    factors, shifts, carry = call.narrowed(call.factors), None, 0
    if call.xp is np and len(factors) > 1:
        factors, shifts, carry = scale.level_and_carry(factors, None, call.marks)
    x = call.rows_of(call.x)
    return Operands(factors, scale.times_power(x, carry) if carry else x, shifts, carry)


def _cast(xp, gradient, primal):
    return gradient if gradient.dtype == primal.dtype else cast_gradient(xp, gradient, primal)


def _check_arrays(factors, x):
    """The namespace, the factors, x, and the dtype of the result."""
    if type(factors) in (tuple, list) and factors:
        known = plain_type((*factors, x))
        if known is not None:
            return known[0], tuple(factors), x, known[1]
    _, factors, dtype = check_floating("factors", factors, (x,))
    _, (x,), x_dtype = check_floating("x", (x,), factors)
    xp = namespace("factors and x", (*factors, x))
    if dtype != x_dtype:
        _, _, dtype = check_floating("factors and x", (*factors, x))
    return xp, factors, x, dtype


@decided(1024)
def _dims(shapes):
    """Of factors of these shapes (row dims, column dims), (P, Q), and whether they are batches."""
    if any(len(shape) < 3 or shape[-3] != shapes[0][-3] for shape in shapes):
        raise ValueError(
            f"factors must be arrays (..., rank, rows, columns) of one rank, got shapes {shown(list(shapes))}"
        )
    dims = tuple(shape[-2] for shape in shapes), tuple(shape[-1] for shape in shapes)
    if min(*dims[0], *dims[1]) < 1:
        rule = "must have at least one row and one column each"
        raise ValueError(f"factors {rule}, got shapes {shown(list(shapes))}")
    return dims, (prod(dims[0]), prod(dims[1])), max(map(len, shapes)) > 3


@kept(1024)
def sizes_of(shapes: Any, given: tuple[int, ...], axis: int, shape: tuple[int, int] | None) -> Sizes:
    """The sizes of factors and x of these shapes; ValueError, MemoryError as `kron_matmul` says."""
    dims, full, batched = _dims(shapes)
    rows, columns = shape = shape or full
    if len(given) < -axis or given[axis] != rows:
        raise ValueError(f"x must have {rows} entries along axis {axis}, got shape {given}")
    behind = given[axis + 1 :] if axis == -2 else ()
    lead = given[: len(given) - 1 - len(behind)]
    lead = _broadcast(shapes, lead) if batched else lead
    reached = dims
    if shape != full:
        reached = reached_dims(dims[0], rows), reached_dims(dims[1], columns)
    result_shape = (*lead, columns, *behind)
    check_addressable(result_shape)
    uncropped = shape == full
    return Sizes(
        dims, reached, uncropped, batched, lead, prod(lead), rows, columns, prod(behind), result_shape
    )


def _check_path(path, factors, x, sizes, marks):
    """What launches the CUDA kernel, where that is the path."""
    check_choice("path", path, _PATHS)
    if sizes.batched:
        raise ValueError(f"path must be None for batches of matrices, got {path!r}")
    if path != "fused":
        return None
    launch = launcher.launcher_for(x)
    if launch is None:
        raise TypeError(f"path must not be 'fused' but for arrays of CuPy, got {type(x).__name__}")
    reason = fused.obstacle(factors, x, term_plans.common(marks))
    if reason:
        raise ValueError(f"factors and x {reason}")
    return launch


def _broadcast(shapes, lead):
    batches = [shape[:-3] for shape in shapes]
    try:
        return np.broadcast_shapes(*batches, lead)
    except ValueError:
        rule = "must have batches that broadcast against the leading axes of x"
        raise ValueError(f"factors {rule}, got {batches} and {lead}") from None
