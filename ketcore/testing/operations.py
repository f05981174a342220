"""Operations for an adapter, found by their names in modules of a library and tried on a small product."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, reduce
from typing import Any

import numpy as np

from ketcore.testing.adapters import OPERATIONS, Adapter
from ketcore.testing.dense import tolerance

__tracebackhide__ = True

# Positive definite, so that every operation has a value; their order shows.
_A = np.array([[2.0, 1.0], [1.0, 3.0]])
_B = np.array([[4.0, 0.0, 1.0], [0.0, 5.0, 0.0], [1.0, 0.0, 6.0]])
_X = np.arange(1.0, 7.0)
# What rounding of float32 leaves of a determinant or of eigenvalues.
_TOLERANCE = 100 * tolerance("float32")


def named_operations(
    *modules: Any, make: Callable[[Sequence[np.ndarray]], Any] | Adapter | None = None
) -> dict[str, Callable[..., Any]]:
    """Operations that modules have under the names of the adapter's fields: the first that works counts.

    Parameters
    ----------
    *modules : module or object
        Modules, or whatever has functions as attributes.
    make : callable or Adapter, optional
        What the operations are for: a function of matrices as in `Adapter`, or an adapter, whose `asarray`
        and `to_dense` are used as well; by default dense arrays, by `asarray` of the first module that has
        one.

    Returns
    -------
    dict of str to callable
        {name: function}, to pass on by `Adapter(make, **found)`.

    Notes
    -----
    Each function is called with a real, positive definite product.  One that raises or gives a wrong value is
    taken for something else of that name and left out, so that a default of the adapter stays:
    torch.transpose wants two numbers of axes, and `.T` does not.  A function for which there is no default is
    kept where `make` is not given and it raises: it may be for objects that are not arrays.  What is to be
    tested although it is wrong goes to `Adapter` by itself.

    Examples
    --------
    >>> sorted(named_operations(np.linalg))[:4]
    ['cholesky', 'det', 'eigvals', 'eigvalsh']
    >>> class Library:
    ...     det = np.linalg.det
    ...     def transpose(a, first, second):
    ...         return a.swapaxes(first, second)
    >>> sorted(named_operations(Library))
    ['det']
    """
    library = _library(modules, make)
    found: dict[str, Callable[..., Any]] = {}
    # Kronecker sums first, since exponentials are tried on them.
    for name in sorted(OPERATIONS, key=lambda name: name != "kron_sum"):
        lenient = make is None and getattr(library, name) is None
        functions = (getattr(module, name, None) for module in modules)
        works = next((f for f in functions if callable(f) and _works(name, f, library, found, lenient)), None)
        if works is not None:
            found[name] = works
    return found


def _library(modules, make):
    """An adapter that makes what operations are tried on."""
    if isinstance(make, Adapter):
        return make
    if make is not None:
        return Adapter(make)
    asarray = next((m.asarray for m in modules if callable(getattr(m, "asarray", None))), np.asarray)
    return Adapter(lambda matrices: asarray(reduce(np.kron, matrices)), asarray=asarray)


def _works(name, function, library, found, lenient):
    """Whether a function has the right value; `lenient` is what to say where it raises."""
    kron_sum = found.get("kron_sum", library.kron_sum)
    if name == "expm" and kron_sum is None:
        # There is nothing to try it on, and no law without Kronecker sums.
        return True
    try:
        result = function(*_arguments(name, replace(library, kron_sum=kron_sum)))
        parts = result if name == "slogdet" else (result,)
        values = np.array([library.to_dense(part) for part in parts])
    except Exception:
        return lenient
    return _is_right(name, values if name == "slogdet" else values[0])


def _arguments(name, library):
    """What to call an operation with."""
    if name == "commutation":
        return 2, 3
    if name in ("kron_sum", "expm"):
        matrices = [_A / 4, _B / 4]
        return [library.kron_sum(matrices)] if name == "expm" else [matrices]
    if name in ("khatri_rao", "face_splitting"):
        pair = (_A, _B[:, :2]) if name == "khatri_rao" else (_A.T, _B[:, :2].T)
        return [library.asarray(matrix.copy()) for matrix in pair]
    if name == "embed":
        return _A.copy(), (2, 3), (0,)
    # A transpose shows in a matrix that is not symmetric alone.
    first = np.triu(_A) if name in ("transpose", "adjoint") else _A.copy()
    k, x = library.make([first, _B.copy()]), library.asarray(_X.copy())
    others = {
        "apply": (k, x),
        "apply_left": (x, k),
        "solve": (k, x),
        "scale": (k, 2.0),
        "matrix_power": (k, 2),
    }
    others |= {"partial_trace": (k, (2, 3), (1,)), "permute": (k, (2, 3), (2, 3), (1, 0))}
    others |= {"row": (k, 1), "element": (k, 1, 2)}
    others |= dict.fromkeys(("matmul", "add", "kron", "multiply", "vdot"), (k, k))
    return others.get(name, (k,))


@lru_cache(maxsize=1)
def _expected():
    """The values by NumPy."""
    from scipy.linalg import expm

    dense, eyes = np.kron(_A, _B), (np.eye(2), np.eye(3))
    columns = np.einsum("ij,kj->ikj", _A, _B[:, :2]).reshape(6, 2)
    found = {
        "apply": dense @ _X,
        "apply_left": _X @ dense,
        "kron": np.kron(dense, dense),
        "multiply": dense * dense,
        "vdot": np.vdot(dense, dense),
        "trace": np.trace(dense),
        "det": np.linalg.det(dense),
        "slogdet": np.array(np.linalg.slogdet(dense)),
        "logdet": np.linalg.slogdet(dense)[1],
        "norm": np.linalg.norm(dense),
        "matrix_rank": 6,
        "solve": np.linalg.solve(dense, _X),
        "kron_sum": np.kron(_A / 4, eyes[1]) + np.kron(eyes[0], _B / 4),
        "expm": np.kron(expm(_A / 4), expm(_B / 4)),
        "khatri_rao": columns,
        "face_splitting": columns.T,
        "partial_trace": np.trace(_B) * _A,
        "permute": np.kron(_B, _A),
        "embed": np.kron(_A, eyes[1]),
        "commutation": np.eye(6).reshape(2, 3, 6).swapaxes(0, 1).reshape(6, 6),
        "row": dense[1],
        "element": dense[1, 2],
        "conj": dense,
    }
    found |= dict.fromkeys(("matmul", "matrix_power"), dense @ dense) | dict.fromkeys(
        ("add", "scale"), 2 * dense
    )
    found |= dict.fromkeys(("transpose", "adjoint"), np.kron(np.tril(_A), _B))
    found |= dict.fromkeys(("inv", "pinv"), np.linalg.inv(dense))
    found |= dict.fromkeys(("eigvals", "eigvalsh", "svdvals"), np.linalg.eigvalsh(dense))
    return found | dict.fromkeys(("cholesky", "sqrtm"), dense)


def _is_right(name, found):
    """Whether a value is the expected one; either triangle and any order of eigenvalues are."""
    if name == "cholesky":
        return _is_near(found @ found.T, name) or _is_near(found.T @ found, name)
    if name == "sqrtm":
        found = found @ found
    if name in ("eigvals", "eigvalsh", "svdvals") and found.ndim == 1:
        found = np.sort(found.real)
    return _is_near(found, name)


def _is_near(found, name):
    expected = np.asarray(_expected()[name])
    scale = np.abs(expected).max()
    return found.shape == expected.shape and bool((np.abs(found - expected) <= _TOLERANCE * scale).all())
