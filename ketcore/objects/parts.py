"""The parts of a KroneckerProduct: dense, `Diagonal`, `Identity`, sparse of SciPy or CuPy, linear operators.

What the five kinds do differently is here, one visible `if` per kind in each function.

Letters: p and q rows and columns of a part, P and Q of the product of some.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import groupby
from math import prod
from operator import mul
from types import ModuleType
from typing import Any, Generic, overload

import numpy as np

from ketcore import ops
from ketcore.array_types import AnyArray, ArrayT, ForeignT, Host, Lists, Untyped
from ketcore.arrays import scale
from ketcore.arrays.checks import as_sequence, check_floating, to_namespace_of
from ketcore.arrays.elementary import beside, chosen, conjugated, identity, itemsize, widened
from ketcore.arrays.namespaces import (
    accumulation_dtype,
    device_of,
    is_array,
    is_numpy,
    namespace,
    namespace_of,
    quiet,
)
from ketcore.objects import arithmetic
from ketcore.objects.operator import BarePart, Operator, Scalable, Structured
from ketcore.objects.part_operators import (
    changed_operator,
    check_operator,
    check_products,
    conjugated_operator,
    is_operator,
    operator_arrays,
    operator_times,
    transposed_operator,
)
from ketcore.shapes import check_dense_size, check_int, check_result_size


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Diagonal(BarePart, Generic[ArrayT]):
    """A diagonal matrix (n, n) as a part of a KroneckerProduct, which alone multiplies and adds.

    Parameters
    ----------
    values : array, (n,)
        The diagonal, n >= 1; integers become float64.

    Raises
    ------
    TypeError
        On dtypes.
    ValueError
        On shapes.

    Notes
    -----
    Cost: n numbers; a product is one multiplication per entry of the operand.

    Examples
    --------
    >>> Diagonal([1.0, 2.0]).shape
    (2, 2)
    >>> from ketcore import KroneckerProduct
    >>> (KroneckerProduct([Diagonal([1.0, 2.0])]) @ [3, 4]).tolist()
    [3.0, 8.0]
    """

    values: ArrayT

    @overload
    def __init__(self: "Diagonal[Any]", values: Untyped) -> None: ...
    @overload
    def __init__(self: "Diagonal[Host]", values: Host | Lists) -> None: ...
    @overload
    def __init__(self: "Diagonal[ForeignT]", values: ForeignT) -> None: ...
    def __init__(self, values: Any) -> None:
        _, (values,), _ = check_floating("values", (values,))
        if values.ndim != 1 or not values.shape[0]:
            raise ValueError(f"values must have shape (n,) with n >= 1, got {tuple(values.shape)}")
        object.__setattr__(self, "values", values)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and of columns, (n, n)."""
        return self.values.shape[0], self.values.shape[0]

    def _facts(self):
        return {"shape": self.shape, "dtype": self.values.dtype}


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Identity(BarePart):
    """The identity matrix (n, n) as a part of a KroneckerProduct: no numbers are stored.

    Parameters
    ----------
    size : int
        The number n of rows, >= 1.

    Raises
    ------
    TypeError
        Unless `size` is an int.
    ValueError
        Where it is less than 1.

    Examples
    --------
    >>> Identity(10**9).shape
    (1000000000, 1000000000)
    """

    size: int

    def __init__(self, size: int):
        object.__setattr__(self, "size", check_int("size", size, 1))

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and of columns, (n, n)."""
        return self.size, self.size

    def _facts(self):
        return {"size": self.size}


def is_sparse(part: Any) -> bool:
    """Whether `part` is a sparse matrix of SciPy or CuPy, by what all of those have."""
    return hasattr(part, "tocsr")


def as_parts(parts: Any) -> tuple[Any, ...]:
    """Parts as they are kept.

    A list is an array, integers are floating, a sparse matrix is CSR or (its transpose) CSC; all others stay
    as they are.
    """
    parts = [_readable(n, part) for n, part in enumerate(as_sequence("parts", parts))]
    if not parts:
        raise ValueError("parts must hold at least one matrix, got none")
    others = kind_arrays(parts)
    found = tuple(_as_part(n, part, others) for n, part in enumerate(parts))
    kind_of(found)
    return found


def _readable(n, part):
    """A part whose arrays, dtype and shape can be asked for."""
    if is_sparse(part):
        return part if part.format in ("csr", "csc") else part.tocsr()
    if is_operator(part):
        check_operator(f"parts[{n}]", part)
    elif not is_array(part):
        check_products(f"parts[{n}]", part)
    return part


def _as_part(n, part, others):
    """A part as it is stored: a matrix in the dtype of floating numbers, or what holds no values."""
    if isinstance(part, Diagonal) or not holds_values(part):
        return part
    _, (values,), dtype = check_floating(f"parts[{n}]", values_of([part]), others)
    part = part.astype(dtype, copy=False) if is_sparse(part) else values
    if part.ndim != 2 or min(part.shape) < 1:
        raise ValueError(f"parts[{n}] must be a matrix of at least (1, 1), got shape {tuple(part.shape)}")
    return part


def values_of(parts: Sequence[Any]) -> list[AnyArray]:
    """The arrays that the parts hold: one each, none for an identity or an operator."""
    found = []
    for part in parts:
        if isinstance(part, Diagonal):
            found.append(part.values)
        elif holds_values(part):
            found.append(part.data if is_sparse(part) else part)
    return found


def holds_values(part: Any) -> bool:
    """Whether the entries of a part are in an array of its own."""
    return type(part) is np.ndarray or not (isinstance(part, Identity) or is_operator(part))


def kind_arrays(parts: Sequence[Any]) -> list[AnyArray]:
    """Arrays that tell library, device and dtype of the parts; none for identities."""
    found = values_of(parts)
    if len(found) < len(parts):
        operators = [part for part in parts if not isinstance(part, Identity) and is_operator(part)]
        found += [array for part in operators for array in operator_arrays(part)]
    return found


def kind_of(parts: Sequence[Any]) -> tuple[ModuleType, AnyArray, Any]:
    """The namespace, a zero of the library, device and dtype of results, and that dtype."""
    xp, arrays, dtype = check_floating("parts", kind_arrays(parts) or [np.zeros(())])
    return xp, xp.zeros((), dtype=dtype, device=device_of(arrays[0])), dtype


def transposed_part(part: Any) -> Any:
    """The transpose of a part."""
    if isinstance(part, Diagonal | Identity):
        return part
    return transposed_operator(part) if is_operator(part) else part.T


def conjugated_part(part: Any) -> Any:
    """The complex conjugate of a part."""
    if is_operator(part):
        return conjugated_operator(part)
    return part.conj(copy=False) if is_sparse(part) else changed(part, conjugated)


def scaled_part(part: Any, scalar: Any, divide: bool) -> Any:
    """A part that is no identity times, or over, a number, in the precision of the part."""
    if isinstance(part, Scalable):
        return part / scalar if divide else part * scalar
    return changed(part, partial(arithmetic.scaled, scalar=scalar, divide=divide))


def unit_diagonal(size: int, like: AnyArray) -> "Diagonal[Any]":
    """The identity as numbers beside `like`, which can be changed; MemoryError above 2**30 bytes."""
    check_result_size("identities", (size,), itemsize(like), like.dtype, "a part Diagonal([number])")
    return Diagonal(namespace_of(like).ones(size, dtype=like.dtype, device=device_of(like)))


def changed(part: Any, change: Callable[[AnyArray], AnyArray]) -> Any:
    """A part whose entries go through `change`, linear and elementwise; an identity as it is."""
    if isinstance(part, Identity):
        return part
    if isinstance(part, Diagonal):
        return Diagonal(change(part.values))
    if is_operator(part):
        return changed_operator(part, change)
    if not is_sparse(part):
        return change(part)
    part = part.copy()
    part.data = change(part.data)
    return part


def together(parts: Sequence[Any], change: Callable[[list[AnyArray]], Sequence[AnyArray]]) -> list[Any]:
    """Parts whose entries change together: `change` takes leaves (1, n), one per part that holds values."""
    values = values_of(parts)
    if not values:
        return list(parts)
    xp = namespace("parts", values)
    # A sparse matrix that stores nothing counts as a zero.
    leaves = [xp.reshape(v, (1, -1)) if prod(v.shape) else xp.zeros_like(v, shape=(1, 1)) for v in values]
    found = iter(change(leaves))

    def replaced(array):
        size = prod(array.shape)
        return xp.reshape(next(found)[:, :size], tuple(array.shape))

    return [changed(part, replaced) if holds_values(part) else part for part in parts]


def stored_parts(parts: Sequence[Any], dtype: Any) -> list[Any]:
    """Parts in another dtype, at one level first where one leaves its range; operators as they are."""
    return together(parts, lambda leaves: scale.stored(leaves, dtype, -1))


def wide_parts(parts: Sequence[Any]) -> list[Any]:
    """Parts in their accumulation dtype, at one level where they are NumPy's; operators as they are."""
    return together(parts, lambda leaves: list(scale.level([widened(leaf) for leaf in leaves], -1)[0]))


def level_parts(parts: Sequence[Any]) -> Sequence[Any]:
    """Parts of the same product at one level, where they are NumPy's; see `ketcore.arrays.scale`."""
    values = values_of(parts)
    if len(values) < 2 or not is_numpy(values[0]):
        return parts
    wide = accumulation_dtype(np, np.result_type(*values))
    _, shifts = scale.level([v.ravel("K").astype(wide, copy=False) for v in values], -1)
    if shifts is None:
        return parts
    rest: Any = iter(shifts)

    def times_power(array):
        return scale.times_power(array.astype(wide, copy=False), int(next(rest)[0]))

    return [changed(part, times_power) if holds_values(part) else part for part in parts]


def as_dense(part: Any, like: AnyArray) -> AnyArray:
    """The part as an array beside `like`."""
    if isinstance(part, Identity):
        return identity(part.size, like)
    if isinstance(part, Diagonal):
        xp, values = namespace_of(like), part.values
        # A product with the identity would spread what is not finite.
        return chosen(xp, identity(part.shape[0], like, xp.bool), values, xp.zeros_like(values))
    if is_operator(part):
        return _columns(part, identity(part.shape[1], like))
    return part.toarray() if is_sparse(part) else part


def _columns(operator, units):
    """The columns (p, n) of an operator that some of the identity's pick, in the precision of products."""
    wide = widened(units)
    return namespace_of(units).astype(operator_times(operator, wide), units.dtype, copy=False)


def diagonal_of(part: Any, like: AnyArray) -> AnyArray:
    """The diagonal (n,) of a square part, beside `like`.

    MemoryError where a linear operator that is not one of ours is too large to be made dense.
    """
    xp = namespace_of(like)
    if isinstance(part, Identity):
        return xp.ones(part.size, dtype=like.dtype, device=device_of(like))
    if isinstance(part, Diagonal):
        return part.values
    if isinstance(part, Operator):
        return beside(part.diagonal(), like)  # type: ignore[attr-defined]
    if is_operator(part):
        check_operator_size(part, like)
        return xp.linalg.diagonal(as_dense(part, like))
    return part.diagonal() if is_sparse(part) else xp.linalg.diagonal(part)


def trace_of(part: Any, like: AnyArray) -> Any:
    """The trace of a square part, in the dtype of `like`."""
    xp = namespace_of(like)
    is_identity = isinstance(part, Identity)
    return float(part.size) if is_identity else xp.sum(xp.astype(diagonal_of(part, like), like.dtype))


def product_over_modes(number: Callable[..., Any], like: AnyArray, *sides: Sequence[Any]) -> AnyArray:
    """The product over the modes of a number of the part there, or of the parts of two sides.

    It has the dtype of `like`, and is beside it.
    """
    return reduce(
        mul, [number(*parts, like) for parts in zip(*sides, strict=True)], namespace_of(like).ones_like(like)
    )


def sum_of(part: Any, like: AnyArray) -> Any:
    """The sum of all entries, in the dtype of `like`."""
    xp = namespace_of(like)
    return float(part.size) if isinstance(part, Identity) else xp.sum(column_sums(part, like))


def column_sums(part: Any, like: AnyArray) -> AnyArray:
    """The sums (q,) over the rows of a part, beside `like`."""
    ones = namespace_of(like).ones(part.shape[0], dtype=like.dtype, device=device_of(like))
    return on_rows(transposed_part(part), ones)


def numbers_of(part: Any, like: AnyArray) -> AnyArray:
    """All entries of a part that may be other than zero, (m,); none of an identity.

    MemoryError where a linear operator is too large to be made dense.
    """
    if isinstance(part, Diagonal):
        return part.values
    if is_operator(part):
        check_operator_size(part, like)
        part = as_dense(part, like)
    elif is_sparse(part):
        # What is stored twice at one place counts by its sum.
        part = part.copy()
        part.sum_duplicates()
        return part.data if part.data.shape[0] else namespace_of(like).reshape(like * 0, (1,))
    return namespace_of(part).reshape(part, (-1,))


def check_operator_size(operator: Any, like: AnyArray) -> None:
    """MemoryError, naming the size, where an operator that is to be made dense is above 2**30 bytes."""
    what = f"part {tuple(operator.shape)} of {like.dtype}"
    check_dense_size(prod(operator.shape), itemsize(like), what, 2**30)


def hadamard_part(left: Any, right: Any, like: AnyArray) -> Any:
    """The elementwise product of two parts of one shape: diagonal or sparse where one of them is.

    MemoryError where a linear operator is too large to be made dense.
    """
    if isinstance(left, Identity) and isinstance(right, Identity):
        return left
    pair = [left, right]
    if any(isinstance(part, Identity | Diagonal) for part in pair):
        return Diagonal(reduce(mul, [diagonal_of(p, like) for p in pair if not isinstance(p, Identity)]))
    for n, part in enumerate(pair):
        if is_operator(part):
            check_operator_size(part, like)
            pair[n] = as_dense(part, like)
    # Sparse matrices have a method for it, since their `*` may be that of matrices.
    first, second = sorted(pair, key=is_sparse, reverse=True)
    return first.multiply(second) if is_sparse(first) else first * second


def picked(part: Any, rows: np.ndarray, columns: np.ndarray | range, like: AnyArray) -> AnyArray:
    """The block (b, c) of the entries of a part at some rows and columns, in the dtype and beside `like`.

    `columns` are indices, or a range for all of them.
    """
    xp = namespace_of(like)
    every = isinstance(columns, range)
    if is_sparse(part):
        block = part.tocsr()[rows]
        block = block if every else block.tocsc()[:, columns]
        return xp.astype(block.toarray(), like.dtype)
    row_index = to_namespace_of(rows, xp, like)
    column_index = to_namespace_of(np.asarray(columns), xp, like)
    if isinstance(part, Identity | Diagonal):
        at = row_index[:, None] == column_index
        if isinstance(part, Identity):
            return xp.astype(at, like.dtype)
        values = xp.take(xp.astype(part.values, like.dtype), column_index)
        # Not a product with zeros, which infinity turns to NaN.
        return chosen(xp, at, values, xp.zeros_like(values))
    if is_operator(part):
        return _picked_of_operator(part, row_index, column_index, like)
    block = xp.take(part, row_index, axis=0)
    return xp.astype(block if every else xp.take(block, column_index, axis=1), like.dtype)


def _picked_of_operator(operator, rows, columns, like):
    """By its product with as many columns of an identity as there are rows, or columns, to pick."""
    xp = namespace_of(like)
    if rows.shape[0] < columns.shape[0]:
        return xp.matrix_transpose(_picked_of_operator(transposed_operator(operator), columns, rows, like))
    every = xp.arange(operator.shape[1], device=device_of(like))
    units = xp.astype(every[:, None] == columns, like.dtype)
    return xp.take(_columns(operator, units), rows, axis=0)


def multiplied(parts: Sequence[Any], x: AnyArray) -> AnyArray:
    """M x for x (lead, Q, trail): part by part, those that shrink it most first."""
    arrays = kind_arrays(parts)
    xp = namespace("parts and x", (*arrays, x))
    dtype = xp.result_type(*arrays, x)
    x = xp.astype(x, accumulation_dtype(xp, dtype), copy=False)
    lead, _, trail = x.shape
    units = _units(level_parts(parts))
    sizes = [prod([part.shape[1] for part in unit]) for unit in units]
    results = [prod([part.shape[0] for part in unit]) for unit in units]
    for n in sorted(range(len(units)), key=lambda n: results[n] / sizes[n]):
        spread = xp.reshape(x, (lead * prod(sizes[:n]), sizes[n], prod(sizes[n + 1 :]) * trail))
        x = _times(xp, units[n], spread)
        sizes[n] = results[n]
    return xp.reshape(xp.astype(x, dtype, copy=False), (lead, prod(sizes), trail))


@quiet
def on_rows(part: Any, rows: AnyArray) -> AnyArray:
    """A part along the last axis of rows (..., q)."""
    xp, lead, (width, size) = namespace_of(rows), rows.shape[:-1], part.shape
    found = multiplied([part], xp.reshape(rows, (prod(lead), size, 1)))
    return xp.reshape(found, (*lead, width))


def _units(parts):
    """Runs of neighbouring dense parts, which are applied together, and all others one by one."""
    units = []
    for dense, run in groupby(parts, _is_dense):
        run = list(run)
        units += [run] if dense else [[part] for part in run]
    return units


def _is_dense(part):
    """Whether a part is an array: objects, of which that is known, are not asked for what arrays have."""
    return type(part) is np.ndarray or (not isinstance(part, Structured) and is_array(part))


def _times(xp, unit, x):
    """One unit along the middle axis of x (lead, q, trail), which has the accumulation dtype."""
    part = unit[0]
    if isinstance(part, Identity):
        return x
    if isinstance(part, Diagonal):
        return x * xp.astype(part.values, x.dtype, copy=False)[:, None]
    if not is_array(part):
        lead, _, trail = x.shape
        flat = xp.reshape(xp.permute_dims(x, (1, 0, 2)), (part.shape[1], lead * trail))
        sparse = is_sparse(part)
        flat = part.astype(x.dtype, copy=False) @ flat if sparse else operator_times(part, flat)
        return xp.permute_dims(xp.reshape(flat, (part.shape[0], lead, trail)), (1, 0, 2))
    factors = [xp.astype(matrix, x.dtype, copy=False).T[None, ...] for matrix in unit]
    if x.shape[-1] == 1:
        return ops.kron_matmul(factors, x[..., 0])[..., None]
    return ops.kron_matmul(factors, x, axis=-2)


def name_of(part: Any) -> str:
    """What `repr` calls a part."""
    return "sparse" if is_sparse(part) else "dense" if is_array(part) else type(part).__name__
