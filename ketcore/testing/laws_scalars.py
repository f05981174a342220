"""Laws of traces, norms and ranks, of inverses and roots, of eigenvalues and singular values."""

import numpy as np

from ketcore.testing.trials import Rule

__tracebackhide__ = True


def _trace(t):
    a, b, c = (t.normal(n, n) for n in (t.size(), t.size(), t.size()))
    t.equal(t.adapter.trace(t.make(a, b, c)), np.trace(a) * np.trace(t.wide(b)) * np.trace(t.wide(c)))


def _trace_cyclic(t):
    a, b, op = t.matrix(), t.matrix(), t.adapter
    k, m = (a, b), (t.normal(*a.shape[::-1]), t.normal(*b.shape[::-1]))
    expected = np.trace(t.dense(*k) @ t.dense(*m))
    for left, right in ((k, m), (m, k)):
        t.equal(op.trace(op.matmul(t.make(*left), t.make(*right))), expected)


def _norm(t):
    a, b = t.matrix(), t.matrix()
    t.equal(t.adapter.norm(t.make(a, b)), np.linalg.norm(t.wide(a)) * np.linalg.norm(t.wide(b)))


def _inner(t):
    a, b = t.matrix(), t.matrix()
    c, d = t.normal(*a.shape), t.normal(*b.shape)
    expected = np.vdot(t.wide(a), t.wide(c)) * np.vdot(t.wide(b), t.wide(d))
    t.equal(t.adapter.vdot(t.make(a, b), t.make(c, d)), expected)


def _rank(t):
    for first, second in ((1, 2), (2, 3), (4, 1)):
        matrices = t.of_rank(4, first), t.of_rank(4, second)
        t.equal(t.adapter.matrix_rank(t.make(*matrices)), first * second)


def _inv(t):
    a, b = t.square(), t.square()
    expected = t.dense(np.linalg.inv(t.wide(a)), np.linalg.inv(t.wide(b)))
    t.equal(t.adapter.inv(t.make(a, b)), expected, growth=16)


def _solve(t):
    _solve_with(t, t.square(), t.square())


def _solve_positive(t):
    _solve_with(t, t.positive(), t.positive())


def _solve_with(t, a, b):
    dense = t.dense(a, b)
    for shape in (dense.shape[:1], (dense.shape[0], 2)):
        x = t.normal(*shape)
        t.equal(t.adapter.solve(t.make(a, b), t.array(x)), np.linalg.solve(dense, t.wide(x)), growth=16)


def _pinv(t):
    a, b = t.square(3), t.square(4)
    if not t.adapter.square:
        a, b = a[:, : t.size() % 3 + 1], b[: t.size()]
    expected = t.dense(np.linalg.pinv(t.wide(a)), np.linalg.pinv(t.wide(b)))
    t.equal(t.adapter.pinv(t.make(a, b)), expected, growth=64)


def _cholesky(t):
    a, b = t.positive(), t.positive()
    found = t.wide(t.adapter.to_dense(t.adapter.cholesky(t.make(a, b))))
    # NumPy's is lower, SciPy's upper.
    lower = found if np.array_equal(found, np.tril(found)) else found.conj().T
    t.equal(lower, np.linalg.cholesky(t.dense(a, b)), growth=16)


def _sqrtm(t):
    a, b = t.positive(), t.positive()
    found = t.adapter.to_dense(t.adapter.sqrtm(t.make(a, b)))
    t.equal(t.wide(found) @ t.wide(found), t.dense(a, b), growth=64)
    t.equal(found, found.conj().T, growth=64)


def _eigvals(t):
    a, b = t.square(), t.square()
    expected = np.multiply.outer(np.linalg.eigvals(t.wide(a)), np.linalg.eigvals(t.wide(b)))
    # Eigenvalues of a matrix that is not normal move with the condition of their vectors.
    t.same_set(t.adapter.eigvals(t.make(a, b)), expected, growth=1e3)


def _eigvalsh(t):
    a, b = t.hermitian(3), t.hermitian()
    expected = np.multiply.outer(*(np.linalg.eigvalsh(t.wide(x)) for x in (a, b)))
    t.same_set(t.adapter.eigvalsh(t.make(a, b)), expected, growth=16)


def _small_eigenvalues(t):
    # Diagonal factors, so that no rounding hides how small the small ones are.
    first, second = np.array([1e-6, 1.0]), np.array([2.0, 3e-6, 1.0])
    matrices = [np.diag(values).astype(t.dtype) for values in (first, second)]
    t.shapes += [(2, 2), (3, 3)]
    expected = np.multiply.outer(first, second)
    t.same_set(t.adapter.eigvalsh(t.make(*matrices)), expected, growth=16, relative=True)


def _svdvals(t):
    a, b = t.matrix(), t.matrix()
    expected = np.linalg.svd(t.dense(a, b), compute_uv=False)
    found = t.adapter.to_dense(t.adapter.svdvals(t.make(a, b)))
    # Of rectangular factors there are fewer products than singular values of the whole: the rest are zero.
    found = np.append(found, np.zeros(max(0, len(expected) - len(found))))
    t.same_set(found, expected, growth=16)


RULES = (
    Rule("trace", "tr(A (x) B) = tr(A) tr(B)", ("trace",), _trace),
    Rule("trace is cyclic", "tr(KL) = tr(LK)", ("trace", "matmul"), _trace_cyclic),
    Rule("norm", "|A (x) B| = |A| |B|, Frobenius", ("norm",), _norm),
    Rule("inner product", "<A (x) B, C (x) D> = <A, C> <B, D>", ("vdot",), _inner),
    Rule("matrix rank", "rank(A (x) B) = rank(A) rank(B)", ("matrix_rank",), _rank),
    Rule("inverse", "(A (x) B)^-1 = A^-1 (x) B^-1", ("inv",), _inv),
    Rule("solve", "(A (x) B) x = b, b a vector or a matrix", ("solve",), _solve),
    Rule("solve, positive", "the same, A and B Hermitian positive", ("solve",), _solve_positive),
    Rule("pseudo-inverse", "(A (x) B)^+ = A^+ (x) B^+", ("pinv",), _pinv),
    Rule("Cholesky", "A (x) B = (L (x) M)(L (x) M)^H, a triangular root", ("cholesky",), _cholesky),
    Rule("square root", "sqrt(A (x) B) = sqrt(A) (x) sqrt(B), A and B positive", ("sqrtm",), _sqrtm),
    Rule("eigenvalues", "eigenvalues of A (x) B are products", ("eigvals",), _eigvals),
    Rule("eigenvalues, Hermitian", "of A (x) B they are products, negative too", ("eigvalsh",), _eigvalsh),
    Rule("eigenvalues, small", "none is clamped", ("eigvalsh",), _small_eigenvalues),
    Rule("singular values", "singular values of A (x) B are products", ("svdvals",), _svdvals),
)
