"""Laws of products, sums and transposes of Kronecker products."""

import numpy as np

from ketcore.testing.trials import Rule

__tracebackhide__ = True


def _definition(t):
    a, b, c = t.matrix(), t.matrix(), t.matrix()
    rows, columns = a.shape[0] * b.shape[0], a.shape[1] * b.shape[1]
    pair = np.einsum("ij,kl->ikjl", t.wide(a), t.wide(b)).reshape(rows, columns)
    t.equal(t.make(a, b), pair)
    shape = rows * c.shape[0], columns * c.shape[1]
    t.equal(t.make(a, b, c), np.einsum("ij,kl->ikjl", pair, t.wide(c)).reshape(shape))


def _neutral(t):
    a, one = t.matrix(), np.ones((1, 1), t.dtype)
    for factors in ((a,), (a, one), (one, a), (one, a, one)):
        t.equal(t.make(*factors), a)


def _pairs(t, order):
    """Two lists of matrices whose products exist mode by mode."""
    left = [t.matrix() for _ in range(order)]
    return left, [t.with_rows(a.shape[1]) for a in left]


def _mixed_product(t):
    for order in (2, 3):
        left, right = _pairs(t, order)
        products = [t.wide(a) @ t.wide(b) for a, b in zip(left, right, strict=True)]
        t.equal(t.adapter.matmul(t.make(*left), t.make(*right)), t.dense(*products))


def _misaligned(t):
    a, b, c = t.matrix(), t.matrix(), t.matrix()
    d, e = t.with_rows(a.shape[1]), t.with_rows(b.shape[1] * c.shape[1])
    t.equal(
        t.adapter.matmul(t.make(a, b, c), t.make(d, e)),
        t.dense(t.wide(a) @ t.wide(d), t.dense(b, c) @ t.wide(e)),
    )
    d, e = t.with_columns(a.shape[0] * b.shape[0]), t.with_columns(c.shape[0])
    t.equal(
        t.adapter.matmul(t.make(d, e), t.make(a, b, c)),
        t.dense(t.wide(d) @ t.dense(a, b), t.wide(e) @ t.wide(c)),
    )


def _product_associates(t):
    (a, b), (c, d) = _pairs(t, 2)
    left, right, matmul = t.make(a, b), t.make(c, d), t.adapter.matmul
    last = t.make(t.with_rows(c.shape[1]), t.with_rows(d.shape[1]))
    outer, inner = matmul(matmul(left, right), last), matmul(left, matmul(right, last))
    t.equal(outer, t.adapter.to_dense(inner), growth=64)


def _kron(t):
    a, b, c = t.matrix(), t.matrix(), t.matrix()
    t.equal(t.adapter.kron(t.make(a, b), t.make(c)), t.dense(a, b, c))
    t.equal(t.adapter.kron(t.make(a), t.make(b, c)), t.dense(a, b, c))


def _kron_associates(t):
    a, b, c, kron = t.make(t.matrix()), t.make(t.matrix()), t.make(t.matrix()), t.adapter.kron
    t.equal(kron(kron(a, b), c), t.adapter.to_dense(kron(a, kron(b, c))))


def _bilinear(t):
    a, c = t.matrix(), t.matrix()
    b, d = t.normal(*a.shape), t.normal(*c.shape)
    add = t.adapter.add
    t.equal(add(t.make(a, c), t.make(b, c)), t.dense(t.wide(a) + t.wide(b), c))
    t.equal(add(t.make(a, c), t.make(a, d)), t.dense(a, t.wide(c) + t.wide(d)))
    t.equal(add(t.make(a, c), t.make(b, d)), t.dense(a, c) + t.dense(b, d))


def _scalars(t):
    a, b = t.matrix(), t.matrix()
    for number in (-2.0, 0.5) + ((1.5j,) if t.complex else ()):
        t.equal(t.adapter.scale(t.make(a, b), number), number * t.dense(a, b))


def _distributes(t):
    left, right = _pairs(t, 2)
    other = [t.normal(*b.shape) for b in right]
    op = t.adapter
    t.equal(
        op.matmul(t.make(*left), op.add(t.make(*right), t.make(*other))),
        t.dense(*left) @ (t.dense(*right) + t.dense(*other)),
    )
    other = [t.normal(*a.shape) for a in left]
    t.equal(
        op.matmul(op.add(t.make(*left), t.make(*other)), t.make(*right)),
        (t.dense(*left) + t.dense(*other)) @ t.dense(*right),
    )


def _apply(t):
    a, b, c = t.matrix(), t.matrix(), t.matrix()
    dense = t.dense(a, b, c)
    for shape in (dense.shape[1:], (dense.shape[1], 3)):
        x = t.normal(*shape)
        t.equal(t.adapter.apply(t.make(a, b, c), t.array(x)), dense @ t.wide(x))


def _apply_left(t):
    a, b = t.matrix(), t.matrix()
    dense = t.dense(a, b)
    for shape in (dense.shape[:1], (3, dense.shape[0])):
        x = t.normal(*shape)
        t.equal(t.adapter.apply_left(t.array(x), t.make(a, b)), t.wide(x) @ dense)


def _vec_rows(t):
    a, b = t.matrix(), t.matrix()
    x = t.normal(a.shape[1], b.shape[1])
    expected = t.wide(a) @ t.wide(x) @ t.wide(b).T
    t.equal(t.adapter.apply(t.make(a, b), t.array(x.reshape(-1))), expected.reshape(-1))


def _vec_columns(t):
    a, b = t.matrix(), t.matrix()
    x = t.normal(a.shape[1], b.shape[0])
    expected = t.wide(a) @ t.wide(x) @ t.wide(b)
    found = t.adapter.apply(t.make(b.T, a), t.array(x.reshape(-1, order="F")))
    t.equal(found, expected.reshape(-1, order="F"))


def _transpose(t):
    a, b, c = t.matrix(), t.matrix(), t.matrix()
    t.equal(t.adapter.transpose(t.make(a, b, c)), t.dense(a, b, c).T)


def _transpose_of_product(t):
    ((a, b), (c, d)), op = _pairs(t, 2), t.adapter
    product = op.matmul(op.transpose(t.make(c, d)), op.transpose(t.make(a, b)))
    t.equal(op.transpose(op.matmul(t.make(a, b), t.make(c, d))), op.to_dense(product))
    t.equal(product, (t.dense(a, b) @ t.dense(c, d)).T)


def _conj(t):
    a, b = t.matrix(), t.matrix()
    t.equal(t.adapter.conj(t.make(a, b)), t.dense(a, b).conj())


def _adjoint(t):
    a, b = t.matrix(), t.matrix()
    t.equal(t.adapter.adjoint(t.make(a, b)), t.dense(a, b).conj().T)


def _adjoint_test(t):
    a, b, op = t.matrix(), t.matrix(), t.adapter
    x, y = t.normal(a.shape[1] * b.shape[1]), t.normal(a.shape[0] * b.shape[0])
    forward = op.to_dense(op.apply(t.make(a, b), t.array(x)))
    backward = op.to_dense(op.apply(op.adjoint(t.make(a, b)), t.array(y)))
    for found in (np.vdot(forward, y), np.vdot(x, backward)):
        t.equal(found, np.vdot(t.dense(a, b) @ t.wide(x), t.wide(y)), growth=16)


def _power(t):
    a, b = t.square(), t.square()
    for exponent in (0, 1, 3):
        expected = np.linalg.matrix_power(t.dense(a, b), exponent)
        t.equal(t.adapter.matrix_power(t.make(a, b), exponent), expected)


RULES = (
    Rule("definition", "(A (x) B)[i p + k, j q + l] = A[i, j] B[k, l]", (), _definition),
    Rule("neutral factor", "A (x) [[1]] = [[1]] (x) A = A", (), _neutral),
    Rule("mixed product", "(A (x) B)(C (x) D) = AC (x) BD", ("matmul",), _mixed_product),
    Rule("misaligned product", "(A (x) B (x) C)(D (x) E) = AD (x) (B (x) C)E", ("matmul",), _misaligned),
    Rule("products associate", "(KL)M = K(LM)", ("matmul",), _product_associates),
    Rule("Kronecker product", "K (x) L has the factors of K, then those of L", ("kron",), _kron),
    Rule("Kronecker products associate", "(A (x) B) (x) C = A (x) (B (x) C)", ("kron",), _kron_associates),
    Rule("bilinearity", "(A + B) (x) C = A (x) C + B (x) C, and in the other factor", ("add",), _bilinear),
    Rule("scalars", "c (A (x) B) = cA (x) B", ("scale",), _scalars),
    Rule("distributivity", "K(L + M) = KL + KM, (K + L)M = KM + LM", ("matmul", "add"), _distributes),
    Rule("product with dense", "(A (x) B (x) C) X, X a vector or a matrix", ("apply",), _apply),
    Rule("dense times", "x (A (x) B), x a vector or a matrix", ("apply_left",), _apply_left),
    Rule("vec by rows", "(A (x) B) vec(X) = vec(A X B^T), vec stacks rows", ("apply",), _vec_rows),
    Rule("vec by columns", "(B^T (x) A) vec(X) = vec(A X B), vec stacks columns", ("apply",), _vec_columns),
    Rule("transpose", "(A (x) B)^T = A^T (x) B^T", ("transpose",), _transpose),
    Rule("transpose of a product", "(KL)^T = L^T K^T", ("transpose", "matmul"), _transpose_of_product),
    Rule("conjugate", "conj(A (x) B) = conj(A) (x) conj(B)", ("conj",), _conj),
    Rule("adjoint", "(A (x) B)^H = A^H (x) B^H", ("adjoint",), _adjoint),
    Rule("adjoint test", "<K x, y> = <x, K^H y>", ("apply", "adjoint"), _adjoint_test),
    Rule("powers", "(A (x) B)^n = A^n (x) B^n", ("matrix_power",), _power),
)
