"""What is not finite, or leaves the range of its dtype, propagates in silence from every public function.

Whether NumPy warns of it depends on the kernel that BLAS has for a processor, so that a test which waits for
warnings would see other ones on another machine.  Here every flag that NumPy knows of is an error, and each
public name has to have a call below, or stand among those that compute nothing.
"""

import re
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import linalg, ops
from tests.problems import problems

SPOILS = {
    "nan": np.nan,
    "inf": np.inf,
    "large": np.finfo(np.float64).max / 4,
    "subnormal": np.finfo(np.float64).smallest_subnormal,
}
OPS = {op.name: op for op in ops.OPS}


def spoiled(array, value):
    """The array with its first entry replaced; float32 where the value is no number of the dtype."""
    array = np.array(array)
    if array.size:
        large = float(np.finfo(array.dtype).max) / 4
        array[(0,) * array.ndim] = min(value, large) if np.isfinite(value) else value
    return array


@contextmanager
def refusals():
    """Values for which there is no result may be refused, in words of ketcore."""
    try:
        yield
    except (np.linalg.LinAlgError, ValueError) as error:
        if not re.match(r"[\w ]+ must .*, got ", str(error)):
            raise


@pytest.mark.parametrize("name", OPS)
def test_operations_are_silent(name):
    @given(problems(OPS[name]), st.sampled_from(sorted(SPOILS)))
    def check(problem, spoil):
        arrays = [spoiled(array, SPOILS[spoil]) for array in problem.arrays]
        with np.errstate(all="raise"), refusals():
            outputs = problem.forward(*arrays)
            problem.jvp(*arrays, *arrays)
            problem.vjp(*arrays, outputs)

    check()


def matrices(value):
    return [spoiled(np.array([[2.0, 1.0], [1.0, 3.0]]), value), np.array([[4.0, 1.0], [1.0, 2.0]])]


def of_objects(value):
    """Calls of all that computes, by the name that it has in ketcore or on a class."""
    a, b = matrices(value)
    A, S, D = kc.KroneckerMatrix([a, b]), kc.KroneckerSum([a, b]), kc.KroneckerProduct([kc.Diagonal(a[0]), b])
    x, many = spoiled(np.ones(4), value), spoiled(np.ones((4, 3)), value)
    return {
        **of_kets(a, b, A, S, x, many, value),
        **of_matrices(a, b, A, x, many, value),
        **of_sums(A, S, x, many, value),
        **of_products(D, x, many, value),
        **{name: call for M in (A, S, D) for name, call in of_operators(M, x, many).items()},
        **of_functions(a, b, A),
        **of_codebooks(a, b, x),
        **of_small_numbers(x),
        **{
            f"linalg.{name}": call
            for name, call in of_linalg(A, S, D, A + kc.KroneckerMatrix([b, b]), x).items()
        },
    }


def of_kets(a, b, A, S, x, many, value):
    k, kets = kc.ket(a[0], b[0]), kc.Ket([a[:, None, :], b[:, None, :]])
    return {
        "Ket + - * /": lambda: [k + k, k - k, -k, k * value, 2.0 * k, k / 3.0],
        "Ket @": lambda: [A @ k, S @ k],
        "Ket.astype": lambda: [k.astype(t) for t in ("float32", "float16", "complex64")],
        "Ket.balance": k.balance,
        "Ket.combine": lambda: kets.combine(x[:2]),
        "Ket.conj": k.conj,
        "Ket.contract": lambda: [k.contract(x), kets.contract(many)],
        "Ket.gram": lambda: kets.gram(kets),
        "Ket.inner": lambda: k.inner(k),
        "Ket.kron": lambda: k.kron(k),
        "Ket.norm": lambda: [k.norm(), kets.norm()],
        "Ket.normalize": lambda: [k.normalize(), kets.normalize()],
        "Ket.projector": k.projector,
        "Ket.to_column": k.to_column,
        "Ket.to_dense": lambda: [k.to_dense(), kets.to_dense()],
    }


def of_matrices(a, b, A, x, many, value):
    B, cropped = kc.KroneckerMatrix([b, b]), kc.KroneckerMatrix([a, b], (3, 3))
    two, k, kets = A + B, kc.ket(a[0], b[0]), kc.Ket([a[:, None, :], b[:, None, :]])
    return {
        "KroneckerMatrix + - * /": lambda: [A + A, A - B, -A, A * value, 2.0 * A, A / 3.0],
        "KroneckerMatrix @": lambda: [A @ x, A @ many, x @ A, A @ B, two @ x, cropped @ x[:3], A.H @ x],
        "[]": lambda: [A[0], A[:, 0], A[[0, 1], [1, 0]], A[1, 1], A[1:, :2], cropped[1:], kets[0]],
        "KroneckerMatrix.balance": A.balance,
        "KroneckerMatrix of two terms": lambda: [two.norm(), two.rows(np.arange(4)), A.sandwich(k, k)],
        "KroneckerMatrix cropped": lambda: [
            *(cropped.diagonal(), cropped.inner(cropped), cropped.norm(), cropped.to_dense()),
            *(cropped.sum(axis) for axis in (None, 0, 1)),
            cropped.trace(),
        ],
    }


def of_sums(A, S, x, many, value):
    return {
        "KroneckerSum + - * /": lambda: [S + S, S - S, -S, S * value, 2.0 * S, S / 3.0, S + A, A - S],
        "KroneckerSum @": lambda: [S @ x, S @ many, x @ S, S @ S, S @ A, A @ S],
        "KroneckerSum.to_kronecker": S.to_kronecker,
    }


def of_products(D, x, many, value):
    return {
        "KroneckerProduct + - * /": lambda: [-D, D * value, 2.0 * D, D / 3.0],
        "KroneckerProduct @": lambda: [D @ x, D @ many, x @ D],
        "Permutation @": lambda: [kc.swap((2, 2), 0, 1) @ x, x @ kc.swap((2, 2), 0, 1)],
        "KroneckerProduct.balance": D.balance,
        "KroneckerProduct.to_kronecker": D.to_kronecker,
        "KroneckerProduct[]": lambda: [D[0], D[:, 0], D[[0, 1], [1, 0]], D[1, 1], D[1:, :2]],
    }


def of_codebooks(a, b, x):
    table = kc.CodebookTable([a, b], [[[0, 1]], [[1, 0]]], x[:2], b.repeat(2, axis=0))
    return {
        "CodebookTable": lambda: [table.rows([0, 1]), table[0], table[[0, 1], [1, 0]], table.to_dense()],
        "CodebookTable.bag": lambda: [table.bag([[0, 1]]), table.bag([0, 1], [0, 1], mode="mean")],
        "CodebookTable.expand": lambda: table.expand().rows([0]),
        "CodebookTable.iter_row_blocks": lambda: list(table.iter_row_blocks(1)),
        "CodebookTable.logits": lambda: [table.logits(x[:2]), table.topk(x[:2], 2)],
        "CodebookTable.topk": lambda: kc.CodebookTable([a], [[[0, 1]]]).topk(x[:2], 1),
    }


def of_small_numbers(x):
    values = np.ones((1, len(x)), np.int8)
    with np.errstate(all="ignore"):
        scales = x[None, :].astype(np.float32)
    small = kc.QuantizedArray(values, scales, values.shape, block=1)
    kets = kc.Ket.from_packed(small, (len(x),))
    matrix, summed = (
        kc.KroneckerMatrix([small]),
        kc.KroneckerSum([kc.QuantizedArray(values[0], scales[0], (2, 2), 8, 1)]),
    )
    return {
        "QuantizedArray.dequantize": small.dequantize,
        "Ket.dequantize": lambda: kets.dequantize(),
        "KroneckerMatrix.dequantize": lambda: matrix.dequantize(),
        "KroneckerSum.dequantize": lambda: summed.dequantize(),
        "quantize": lambda: kc.quantize(x),
    }


def of_operators(M, x, many):
    """Calls of what all operators have."""
    calls = {
        "adjoint": M.adjoint,
        "astype": lambda: [M.astype(t) for t in ("float32", "float16", "complex64")],
        "conj": M.conj,
        "diagonal": M.diagonal,
        "dot": lambda: M.dot(x),
        "inner": lambda: M.inner(M),
        "iter_row_blocks": lambda: list(M.iter_row_blocks(3)),
        "kron": lambda: M.kron(M),
        "matmat": lambda: M.matmat(many),
        "matmul": lambda: M.matmul(x),
        "matvec": lambda: M.matvec(x),
        "norm": M.norm,
        "rmatmat": lambda: M.rmatmat(many),
        "rmatmul": lambda: M.rmatmul(x),
        "rmatvec": lambda: M.rmatvec(x),
        "row_kets": lambda: M.row_kets([0, 3]),
        "rows": lambda: M.rows([0, 3]),
        "sandwich": lambda: M.sandwich(x, x),
        "sum": lambda: [M.sum(axis) for axis in (None, 0, 1)],
        "to_dense": M.to_dense,
        "toarray": M.toarray,
        "trace": M.trace,
        "transpose": M.transpose,
    }
    return {f"{type(M).__name__}.{name}": call for name, call in calls.items()}


def of_functions(a, b, A):
    B, k = kc.KroneckerMatrix([b, b]), kc.ket(a[0], b[0])
    S, D = kc.KroneckerSum([a, b]), kc.KroneckerProduct([a, kc.Diagonal(b[0])])
    two = A + B
    return {
        "embed": lambda: [kc.embed(a, (2, 2, 2), 1), kc.embed(A.to_dense(), (2, 2, 2), (0, 2))],
        "face_splitting": lambda: kc.face_splitting(a, b).to_dense(),
        "fit_codebooks": lambda: kc.fit_codebooks(A.to_dense(), 2, 2, 2, row_scale=True, rng=0),
        "from_dense": lambda: kc.from_dense(A.to_dense(), order=2, rank=1),
        "hadamard": lambda: [kc.hadamard(A, B), kc.hadamard(D, D), kc.hadamard(S, D)],
        "allclose": lambda: [kc.allclose(A, B), kc.allclose(A, A)],
        "khatri_rao": lambda: kc.khatri_rao(a, b).to_dense(),
        "kron": lambda: kc.kron(a, b),
        "kron_power": lambda: kc.kron_power(a, 3),
        "nearest_kronecker": lambda: kc.nearest_kronecker(two.to_dense(), (2, 2), (2, 2), rank=1),
        "partial_trace": lambda: [kc.partial_trace(M, n) for M in (A, S, D, k) for n in (0, (0, 1))],
        "partial_transpose": lambda: [kc.partial_transpose(M, 0) for M in (A, S, D)],
        "permute_subsystems": lambda: kc.permute_subsystems(A, (1, 0)),
        "recompress": lambda: [kc.recompress(two, rank=1), kc.recompress(k + k, rank=1)],
        "vocabulary_permutation": lambda: kc.vocabulary_permutation(two.to_dense(), (2, 2)),
    }


def of_linalg(A, S, D, two, x):
    both = {
        name: (lambda name=name: [getattr(linalg, name)(M) for M in (A, S)])
        for name in ("eigh", "eigvalsh", "slogdet", "det", "norm")
    }
    of_two = [lambda name=name: getattr(linalg, name)(two) for name in ("slogdet", "det")]
    one = {
        name: (lambda name=name: getattr(linalg, name)(A))
        for name in ("cholesky", "cond", "eig", "eigvals", "matrix_rank", "qr", "sqrtm", "svd", "svdvals")
    }
    return (
        both
        | one
        | {
            "cg": lambda: linalg.cg(two, x, maxiter=3),
            "expm": lambda: linalg.expm(S),
            "gaussian_log_likelihood": lambda: [
                linalg.gaussian_log_likelihood(A, x, shift=0.5),
                linalg.gaussian_log_likelihood(two, x),
                *[call() for call in of_two],
            ],
            "gaussian_posterior": lambda: posterior(A, x),
            "inv": lambda: [linalg.inv(A), linalg.inv(D)],
            "lstsq": lambda: linalg.lstsq(A, x),
            "matrix_power": lambda: [linalg.matrix_power(A, n) for n in (7, -2)],
            "pinv": lambda: linalg.pinv(A),
            "solve": lambda: [linalg.solve(M, x) for M in (A, S, D, two)] + [linalg.solve(A, x, shift=0.5)],
        }
    )


def posterior(A, x):
    results = []
    for noise in (0.5, x):
        found = linalg.gaussian_posterior(A, x, noise)
        for other in (found, found.at(A, A)):
            results += [other.mean(), other.variance([0]), other.sample(2, rng=0)]
    return results


NAMES = sorted(of_objects(1.0))


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("name", NAMES)
def test_objects_and_linear_algebra_are_silent(name, spoil):
    with np.errstate(all="raise"), refusals():
        of_objects(SPOILS[spoil])[name]()


# Nothing is computed by these: they look at shapes, hold arrays, or make arrays of zeros and ones.
COMPUTE_NOTHING = {
    *("Diagonal", "Identity", "Ket", "KroneckerMatrix", "KroneckerProduct", "KroneckerSum", "Permutation"),
    "QuantizedArray",
    *("Op", "commutation", "digits", "engines", "eye", "ket", "linalg", "load_word2ket", "suggest_dims"),
    *("load", "load_words", "save", "PackedCodes", "QuantizedArray"),
    *("as_linear_operator", "cost", "from_packed", "from_terms", "random", "swap"),
}


def test_every_public_name_has_a_call():
    named = {name.rpartition(".")[2] for name in NAMES}
    functions = {name for name in dir(kc) if callable(getattr(kc, name))}
    functions -= {op.name + suffix for op in ops.OPS for suffix in ("", "_vjp", "_jvp", "_dense")}
    assert functions <= named | COMPUTE_NOTHING
    in_linalg = {f"linalg.{name}" for name in linalg.__all__ if not isinstance(getattr(linalg, name), type)}
    assert in_linalg <= set(NAMES)
    for kind in (kc.Ket, kc.KroneckerMatrix, kc.KroneckerSum, kc.KroneckerProduct):
        methods = {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}
        missing = {name for name in methods - COMPUTE_NOTHING if f"{kind.__name__}.{name}" not in NAMES}
        assert not missing, f"{kind.__name__} has no call of {missing}"


def test_operations_and_linear_algebra_are_quiet():
    """Also those whose every flag would come out of BLAS, which has none on some processors."""
    functions = [f for op in ops.OPS for f in (op.forward, op.vjp, op.jvp, op.dense)]
    functions += [getattr(linalg, name) for name in linalg.__all__]
    # `quiet` leaves the function that it wraps behind.
    loud = [f.__name__ for f in functions if not isinstance(f, type) and not hasattr(f, "__wrapped__")]
    assert not loud
