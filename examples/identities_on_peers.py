"""Runs the laws of `ketcore.testing.kronecker_identities` on other packages of Kronecker products.

    pip install linear_operator cola-ml pykronecker pylops
    python examples/identities_on_peers.py

Prints for each package that is installed how many laws it keeps, and for each law that it does not keep what
it gave.  An adapter has only operations that the package documents for any matrix; what it lacks is left out
and counted.  This is a check of one version on small matrices, not a review.
"""

import operator
import sys
import warnings
from functools import reduce
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from ketcore.testing import Adapter, identities_left_out, kronecker_identities, named_operations


def numpy_and_scipy():
    import scipy.linalg

    return Adapter(
        make=lambda matrices: reduce(np.kron, matrices),
        row=lambda a, i: a[i],
        element=lambda a, i, j: a[i, j],
        **named_operations(np.linalg, np, scipy.linalg),
    )


def linear_operator():
    import torch
    from linear_operator.operators import KroneckerProductLinearOperator

    return Adapter(
        make=lambda matrices: KroneckerProductLinearOperator(*map(torch.tensor, matrices)),
        asarray=torch.tensor,
        # It is for real matrices.
        dtypes=("float32", "float64"),
        inv=lambda a: a.inverse(),
        solve=lambda a, b: a.solve(b),
        logdet=lambda a: a.logdet(),
        cholesky=lambda a: a.cholesky(),
        eigvalsh=lambda a: a.eigvalsh(),
        svdvals=lambda a: a.svd()[1],
        row=lambda a, i: a[i],
        element=lambda a, i, j: a[i, j],
    )


def cola():
    import cola
    import torch
    from cola.linalg.decompositions import decompositions

    return Adapter(
        make=lambda matrices: cola.ops.Kronecker(*map(torch.tensor, matrices)),
        asarray=torch.tensor,
        adjoint=lambda a: a.H,
        kron=cola.kron,
        trace=cola.trace,
        slogdet=cola.linalg.slogdet,
        inv=cola.inv,
        solve=lambda a, b: cola.inv(a) @ b,
        pinv=cola.pinv,
        cholesky=lambda a: decompositions.cholesky(cola.PSD(a)),
        sqrtm=cola.sqrt,
        kron_sum=lambda matrices: cola.ops.KronSum(*map(torch.tensor, matrices)),
        expm=cola.exp,
        row=lambda a, i: a[i],
        element=lambda a, i, j: a[i, j],
    )


def pykronecker():
    from contextlib import suppress

    from pykronecker import KroneckerProduct, KroneckerSum

    # It computes by JAX where that is installed, which is float32 unless told otherwise.
    with suppress(ImportError):
        import jax

        jax.config.update("jax_enable_x64", True)

    return Adapter(
        make=KroneckerProduct,
        to_dense=lambda a: np.asarray(a.to_array() if hasattr(a, "to_array") else a),
        square=True,
        conj=lambda a: a.conj(),
        adjoint=lambda a: a.H,
        inv=lambda a: a.inv(),
        kron_sum=KroneckerSum,
        multiply=operator.mul,
        row=lambda a, i: a[i],
        element=lambda a, i, j: a[i, j],
    )


def pylops():
    from pylops import Kronecker, MatrixMult

    def make(matrices):
        operators = [MatrixMult(a, dtype=a.dtype) for a in matrices]
        return reduce(lambda a, b: Kronecker(a, b, dtype=a.dtype), operators)

    return Adapter(
        make=make,
        to_dense=lambda a: a.todense() if hasattr(a, "todense") else np.asarray(a),
        apply_left=None,
        conj=lambda a: a.conj(),
        adjoint=lambda a: a.H,
        # The default is a random estimate.
        trace=lambda a: a.trace(method="explicit"),
    )


PEERS = {
    "numpy": numpy_and_scipy,
    "linear_operator": linear_operator,
    "cola-ml": cola,
    "pykronecker": pykronecker,
    "pylops": pylops,
}


def report(name: str, adapter: Adapter) -> None:
    """Print what a package keeps and what it does not."""
    failures = {}
    laws = kronecker_identities(adapter)
    for law in laws:
        try:
            law.check()
        except AssertionError as failure:
            # What follows is the calls.
            failures[law.name] = str(failure).partition("\n    ")[0].partition("; ")[2]
    left, kept = len(identities_left_out(adapter)), len(laws) - len(failures)
    print(f"\n{name} {version(name)}: keeps {kept} of {len(laws)} laws, {left} left out")
    for law, got in failures.items():
        print(f"  {law}: {' '.join(got.split())[:300]}")


def main() -> None:
    """All packages that are installed, or those named on the command line."""
    # Peers warn of their own slow paths and deprecations.
    warnings.simplefilter("ignore")
    for name in sys.argv[1:] or PEERS:
        try:
            version(name)
        except PackageNotFoundError:
            print(f"\n{name}: not installed, skipped")
            continue
        report(name, PEERS[name]())


if __name__ == "__main__":
    main()
