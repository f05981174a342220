"""What the laws need to know of a library of Kronecker products: an adapter of a few functions.

An object is whatever `make` returns; an array is what `asarray` makes of a NumPy array.  Results may be
objects, arrays or numbers: `to_dense` turns each into NumPy.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ketcore.testing.values import to_numpy

__tracebackhide__ = True

# All other fields are operations.
_BASIS = ("make", "to_dense", "asarray", "dtypes", "square")


def to_dense(value: Any) -> np.ndarray:
    """A result in NumPy, by the method or the protocol that it has.

    Parameters
    ----------
    value : number, array or object
        A number, an array of any library, or what has a method `toarray`, `to_dense` or `todense`, or
        `__array__`; the methods come first.

    Returns
    -------
    np.ndarray, (...)

    Raises
    ------
    TypeError
        On what has none of these.

    Examples
    --------
    >>> from ketcore import eye
    >>> to_dense(eye((2,))).tolist(), to_dense(3.0).tolist()
    ([[1.0, 0.0], [0.0, 1.0]], 3.0)
    """
    for name in ("toarray", "to_dense", "todense"):
        if hasattr(value, name):
            # torch tensors have to_dense() too, and return themselves.
            value = getattr(value, name)()
            break
    if isinstance(value, bool | int | float | complex) or hasattr(value, "__dlpack_device__"):
        return to_numpy(value)
    if not hasattr(value, "__array__"):
        rule = "results must be numbers, arrays or have toarray, to_dense, todense or __array__"
        raise TypeError(f"{rule}, got {type(value).__name__} (see to_dense of Adapter)")
    return np.array(value)


@dataclass(frozen=True)
class Adapter:
    """The functions of one library that the laws call.  None: the library has no such operation.

    Parameters
    ----------
    make : callable
        (matrices) -> object: A_0 (x) A_1 (x) ... of one or more 2-D NumPy arrays, A_0 the most significant;
        the only field that must be given.
    to_dense : callable, optional
        (result) -> NumPy array.
    asarray : callable, optional
        (NumPy array) -> array of the library.
    dtypes : sequence of str, default ("float32", "float64", "complex64", "complex128")
        Names of the dtypes to draw matrices in.
    square : bool, default False
        True: the library has square factors alone.
    matmul : callable or None, default operator.matmul
        (object, object) -> object.
    apply, apply_left : callable or None, default operator.matmul
        (object, array (Q,) or (Q, n)) -> array; (array (P,) or (n, P), object) -> array.
    add, scale : callable or None, optional
        (object, object) -> object, by default `+`; (object, number) -> object, by default `*`.
    transpose, conj, adjoint : callable or None, optional
        (object) -> object; the transpose is by default `.T`, the adjoint is the conjugate transpose.
    kron, multiply, vdot : callable, optional
        (object, object) -> object, object, number: the Kronecker product, the product by elements, the sum of
        conj(a) * b.
    trace, det, slogdet, logdet : callable, optional
        (object) -> number, of slogdet a pair; logdet is for libraries without slogdet.
    norm, matrix_rank : callable, optional
        (object) -> number; the norm is that of Frobenius.
    inv, pinv, cholesky, sqrtm : callable, optional
        (object) -> object; cholesky is lower or upper.
    matrix_power : callable, optional
        (object, int) -> object.
    solve : callable, optional
        (object, array (P,) or (P, n)) -> array.
    eigvals, eigvalsh, svdvals : callable, optional
        (object) -> vector, in any order, of what `kron_sum` returns too.
    kron_sum : callable, optional
        (square matrices) -> object: A (x) I + I (x) B, of two or more.
    expm : callable, optional
        (what `kron_sum` returns) -> object.
    khatri_rao, face_splitting : callable, optional
        (array, array) -> object or array: Kronecker products of their columns, of their rows.
    partial_trace : callable, optional
        (object, dims, where) -> object or array without the subsystems `where`, of sizes dims.
    permute : callable, optional
        (object, row_dims, col_dims, order) -> object: subsystem n of the result is order[n].
    embed : callable, optional
        (square matrix, dims, where) -> object: the matrix on `where`, the identity elsewhere.
    commutation : callable, optional
        (m, n) -> object or array K with K (u (x) v) = v (x) u, u of length m and v of n.
    row, element : callable, optional
        (object, i) -> vector; (object, i, j) -> number.

    Notes
    -----
    `Adapter(make)` takes the operators `@`, `+`, `*` and `.T` for granted; pass None for what is not there.

    Examples
    --------
    >>> from functools import reduce
    >>> Adapter(lambda matrices: reduce(np.kron, matrices), det=np.linalg.det).has("det", "matmul")
    True
    """

    make: Callable[[Sequence[np.ndarray]], Any]
    to_dense: Callable[..., Any] = to_dense
    asarray: Callable[..., Any] = np.asarray
    dtypes: Sequence[str] = ("float32", "float64", "complex64", "complex128")
    square: bool = False
    matmul: Callable[..., Any] | None = operator.matmul
    apply: Callable[..., Any] | None = operator.matmul
    apply_left: Callable[..., Any] | None = operator.matmul
    add: Callable[..., Any] | None = operator.add
    scale: Callable[..., Any] | None = operator.mul
    transpose: Callable[..., Any] | None = operator.attrgetter("T")
    conj: Callable[..., Any] | None = None
    adjoint: Callable[..., Any] | None = None
    kron: Callable[..., Any] | None = None
    multiply: Callable[..., Any] | None = None
    vdot: Callable[..., Any] | None = None
    trace: Callable[..., Any] | None = None
    det: Callable[..., Any] | None = None
    slogdet: Callable[..., Any] | None = None
    logdet: Callable[..., Any] | None = None
    norm: Callable[..., Any] | None = None
    matrix_rank: Callable[..., Any] | None = None
    inv: Callable[..., Any] | None = None
    pinv: Callable[..., Any] | None = None
    cholesky: Callable[..., Any] | None = None
    sqrtm: Callable[..., Any] | None = None
    matrix_power: Callable[..., Any] | None = None
    solve: Callable[..., Any] | None = None
    eigvals: Callable[..., Any] | None = None
    eigvalsh: Callable[..., Any] | None = None
    svdvals: Callable[..., Any] | None = None
    kron_sum: Callable[..., Any] | None = None
    expm: Callable[..., Any] | None = None
    khatri_rao: Callable[..., Any] | None = None
    face_splitting: Callable[..., Any] | None = None
    partial_trace: Callable[..., Any] | None = None
    permute: Callable[..., Any] | None = None
    embed: Callable[..., Any] | None = None
    commutation: Callable[..., Any] | None = None
    row: Callable[..., Any] | None = None
    element: Callable[..., Any] | None = None

    def has(self, *names: str) -> bool:
        """Whether the library has all of some operations.

        Parameters
        ----------
        *names : str
            Names of fields.

        Returns
        -------
        bool

        Raises
        ------
        AttributeError
            On a name that is no field.
        """
        return not self.missing(names)

    def missing(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of some operations that the library lacks.

        Parameters
        ----------
        names : sequence of str
            Names of fields.

        Returns
        -------
        tuple of str

        Raises
        ------
        AttributeError
            On a name that is no field.
        """
        return tuple(name for name in names if getattr(self, name) is None)


OPERATIONS = tuple(field.name for field in fields(Adapter) if field.name not in _BASIS)
