"""The parts of a KroneckerProduct: dense matrices, `Diagonal`, `Identity`, sparse matrices of SciPy or CuPy.

What the four kinds do differently is here, one visible `if` per kind in each function.

Letters: p and q rows and columns of a part, P and Q of the product of some.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from types import ModuleType
from typing import Any, Generic, overload

import numpy as np

from ketcore import ops
from ketcore.array_types import AnyArray, ArrayT, ForeignT, Host, Lists, Untyped
from ketcore.arrays import scale
from ketcore.arrays.checks import check_floating, to_namespace_of
from ketcore.arrays.elementary import conjugated, identity
from ketcore.arrays.namespaces import (
    accumulation_dtype,
    device_of,
    is_array,
    is_numpy,
    namespace,
    namespace_of,
)
from ketcore.objects import arithmetic, operands
from ketcore.shapes import check_int


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Diagonal(Generic[ArrayT]):
    """A diagonal matrix (n, n) as a part of a KroneckerProduct.

    values   (n,) floating or complex, n >= 1
    raises   TypeError, ValueError on kinds and shapes
    cost     n numbers; a product is one multiplication per entry of the operand

    >>> Diagonal([1.0, 2.0]).shape
    (2, 2)
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
        """(n, n)."""
        return self.values.shape[0], self.values.shape[0]


@dataclass(frozen=True, init=False, eq=False)
class Identity:
    """The identity matrix (n, n) as a part of a KroneckerProduct: no numbers are stored.

    size     n, an int >= 1; TypeError, ValueError otherwise

    >>> Identity(10**9).shape
    (1000000000, 1000000000)
    """

    size: int

    def __init__(self, size: int):
        object.__setattr__(self, "size", check_int("size", size, 1))

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.size, self.size


def is_sparse(part: Any) -> bool:
    """Whether `part` is a sparse matrix of SciPy or CuPy, by what all of those have."""
    return hasattr(part, "tocsr")


def as_part(n: int, part: Any) -> Any:
    """A part as it is kept: `Diagonal`, `Identity`, an array, a CSR or (its transpose) CSC matrix."""
    if isinstance(part, Diagonal | Identity):
        return part
    if not is_sparse(part):
        part = operands.as_array(f"parts[{n}]", part)
    elif part.format not in ("csr", "csc"):
        part = part.tocsr()
    if part.ndim != 2 or min(part.shape) < 1:
        raise ValueError(f"parts[{n}] must be a matrix of at least (1, 1), got shape {tuple(part.shape)}")
    check_floating(f"parts[{n}]", values_of([part]))
    return part


def values_of(parts: Sequence[Any]) -> list[AnyArray]:
    """The arrays that the parts hold: one each, none for an identity."""
    found = []
    for part in parts:
        if isinstance(part, Diagonal):
            found.append(part.values)
        elif not isinstance(part, Identity):
            found.append(part.data if is_sparse(part) else part)
    return found


def kind_of(parts: Sequence[Any]) -> tuple[ModuleType, AnyArray, Any]:
    """The namespace, a zero of the library, device and dtype of results, and that dtype."""
    xp, values, dtype = check_floating("parts", values_of(parts) or [np.zeros(())])
    return xp, xp.zeros((), dtype=dtype, device=device_of(values[0])), dtype


def transposed_part(part: Any) -> Any:
    """The transpose of a part."""
    if isinstance(part, Diagonal | Identity):
        return part
    return part.T


def conjugated_part(part: Any) -> Any:
    """The complex conjugate of a part."""
    if isinstance(part, Identity):
        return part
    if isinstance(part, Diagonal):
        return Diagonal(conjugated(part.values))
    return part.conj(copy=False) if is_sparse(part) else conjugated(part)


def scaled_part(part: Any, scalar: Any, divide: bool) -> Any:
    """A part times, or over, a number, in the precision of the part; an identity becomes a `Diagonal`."""
    if isinstance(part, Identity):
        part = Diagonal(np.ones(part.size))
    if isinstance(part, Diagonal):
        return Diagonal(arithmetic.scaled(part.values, scalar, divide))
    if not is_sparse(part):
        return arithmetic.scaled(part, scalar, divide)
    part = part.copy()
    # Scaled by the rule of all objects: the precision is that of the part.
    part.data = arithmetic.scaled(part.data, scalar, divide)
    return part


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
    return [p if isinstance(p, Identity) else _times_power(p, int(next(rest)[0]), wide) for p in parts]


def _times_power(part, shift, dtype):
    """A part times 2^shift."""
    if isinstance(part, Diagonal):
        return Diagonal(_times_power(part.values, shift, dtype))
    if not is_sparse(part):
        return scale.times_power(part.astype(dtype, copy=False), shift)
    part = part.copy()
    part.data = _times_power(part.data, shift, dtype)
    return part


def as_dense(part: Any, like: AnyArray) -> AnyArray:
    """The part as an array beside `like`."""
    if isinstance(part, Identity):
        return identity(part.size, like)
    if isinstance(part, Diagonal):
        xp, values = namespace_of(like), part.values
        # A product with the identity would spread what is not finite.
        return xp.where(identity(part.shape[0], like, xp.bool), values, xp.zeros_like(values))
    return part.toarray() if is_sparse(part) else part


def diagonal_of(part: Any, like: AnyArray) -> AnyArray:
    """The diagonal (n,) of a square part, beside `like`."""
    xp = namespace_of(like)
    if isinstance(part, Identity):
        return xp.ones(part.size, dtype=like.dtype, device=device_of(like))
    if isinstance(part, Diagonal):
        return part.values
    return part.diagonal() if is_sparse(part) else xp.linalg.diagonal(part)


def picked_rows(part: Any, index: np.ndarray, like: AnyArray) -> AnyArray:
    """The rows (b, q) of a part, in the dtype and beside `like`."""
    xp, device = namespace_of(like), device_of(like)
    if is_sparse(part):
        return xp.astype(part.tocsr()[index].toarray(), like.dtype)
    index = to_namespace_of(index, xp, like)
    if isinstance(part, Identity | Diagonal):
        at = index[:, None] == xp.arange(part.shape[1], device=device)
        if isinstance(part, Identity):
            return xp.astype(at, like.dtype)
        # Not a product with zeros, which infinity turns to NaN.
        return xp.where(at, xp.astype(part.values, like.dtype), xp.zeros_like(like))
    return xp.astype(xp.take(part, index, axis=0), like.dtype)


def multiplied(parts: Sequence[Any], x: AnyArray) -> AnyArray:
    """M x for x (lead, Q, trail): part by part, those that shrink it most first."""
    xp = namespace("parts and x", (*values_of(parts), x))
    dtype = xp.result_type(*values_of(parts), x)
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


def on_rows(part: Any, rows: AnyArray) -> AnyArray:
    """A part along the last axis of rows (..., q)."""
    width, size = part.shape
    return operands.applied_right(rows, size, width, lambda x: multiplied([part], x))


def _units(parts):
    """Runs of neighbouring dense parts, which are applied together, and all others one by one."""
    units = []
    for dense, run in groupby(parts, is_array):
        run = list(run)
        units += [run] if dense else [[part] for part in run]
    return units


def _times(xp, unit, x):
    """One unit along the middle axis of x (lead, q, trail), which has the accumulation dtype."""
    part = unit[0]
    if isinstance(part, Identity):
        return x
    if isinstance(part, Diagonal):
        return x * xp.astype(part.values, x.dtype, copy=False)[:, None]
    if is_sparse(part):
        lead, _, trail = x.shape
        flat = xp.reshape(xp.permute_dims(x, (1, 0, 2)), (part.shape[1], lead * trail))
        flat = part.astype(x.dtype, copy=False) @ flat
        return xp.permute_dims(xp.reshape(flat, (part.shape[0], lead, trail)), (1, 0, 2))
    factors = [xp.astype(matrix, x.dtype, copy=False).T[None, ...] for matrix in unit]
    if x.shape[-1] == 1:
        return ops.kron_matmul(factors, x[..., 0])[..., None]
    return ops.kron_matmul(factors, x, axis=-2)


def name_of(part: Any) -> str:
    """What `repr` calls a part."""
    return "sparse" if is_sparse(part) else "dense" if is_array(part) else type(part).__name__
