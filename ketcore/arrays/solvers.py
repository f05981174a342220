"""What solves systems iteratively: SciPy for arrays of NumPy, CuPy for its own."""

from collections.abc import Callable

from ketcore.array_types import AnyArray
from ketcore.arrays.namespaces import is_numpy, library_of
from ketcore.cuda import library


def linear_operator(like: AnyArray) -> type:
    """The LinearOperator class for arrays like this one: SciPy's for NumPy, CuPy's own for CuPy."""
    if library.is_cupy(like):
        return library.linear_operator_class()
    if not is_numpy(like):
        rule = "factors must be arrays of NumPy or CuPy for a LinearOperator"
        raise TypeError(f"{rule}, got {library_of(like)}")
    from scipy.sparse.linalg import LinearOperator

    return LinearOperator


def conjugate_gradients(like: AnyArray) -> Callable:
    """The `cg` of SciPy, or of CuPy for its own arrays, under SciPy's names of the options."""
    if library.is_cupy(like):
        return library.device_cg()
    from scipy.sparse.linalg import cg

    return cg
