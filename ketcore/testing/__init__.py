"""Property tests for code on tensor products: hypothesis strategies; assertions on values and derivatives.

Made for other people's code as much as for this package's own: an assertion takes plain callables and arrays
of any array-API library (NumPy, CuPy, torch, jax, array-api-strict), a strategy draws NumPy arrays or what
`asarray` makes of them::

    tolerance                   the one place where precision is decided: from dtype and length of the sums
    assert_dense_equal          values against a dense definition
    assert_vjp, assert_jvp      first derivatives: exact transpose, and finite differences in float64
    assert_second_order         derivatives of a vjp
    assert_adjoint              <A x, y> = <x, A^H y>
    factors, indices, kets, kronecker_matrices, ...     what to call them with
    kronecker_identities        laws of Kronecker products, to run on any library's type through an Adapter
    check_identities            all of them at once; named_operations finds operations for an Adapter

Letters: primals are the arrays that are differentiated; a jvp maps `(*primals, *tangents)` to the tangent of
the output; a vjp maps `(*primals, cotangent)` to one gradient per primal.  The pairing of a cotangent c with
an output y is Re(sum(c * y)): nothing is conjugated, and a vjp is the plain transpose of the jvp, also for
complex arrays.

hypothesis, which is all that is needed beside ketcore, comes with an extra: pip install "ketcore[testing]".
"""

try:
    import hypothesis  # noqa: F401  (what is imported below needs it, and would not say how to get it)
except ImportError as error:
    raise ImportError('ketcore.testing must find hypothesis: pip install "ketcore[testing]"') from error

from ketcore.testing.adapters import Adapter
from ketcore.testing.adjoint import assert_adjoint
from ketcore.testing.dense import assert_dense_equal, tolerance
from ketcore.testing.derivatives import assert_jvp, assert_vjp
from ketcore.testing.identities import Law, check_identities, identities_left_out, kronecker_identities
from ketcore.testing.operations import named_operations
from ketcore.testing.second_order import assert_second_order
from ketcore.testing.strategies import (
    arrays,
    crops,
    dtypes,
    factors,
    half_dtypes,
    indices,
    kets,
    kronecker_matrices,
    leaves,
    mode_dims,
)
from ketcore.testing.values import from_numpy, to_numpy

__all__ = [
    "Adapter",
    "Law",
    "arrays",
    "assert_adjoint",
    "assert_dense_equal",
    "assert_jvp",
    "assert_second_order",
    "assert_vjp",
    "check_identities",
    "crops",
    "dtypes",
    "factors",
    "from_numpy",
    "half_dtypes",
    "identities_left_out",
    "indices",
    "kets",
    "kronecker_identities",
    "kronecker_matrices",
    "leaves",
    "mode_dims",
    "named_operations",
    "to_numpy",
    "tolerance",
]


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
