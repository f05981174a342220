"""Laws of Kronecker sums, Khatri-Rao and Hadamard products, subsystems, rows and elements, dtypes, purity."""

from contextlib import suppress

import numpy as np

from ketcore.testing.trials import Rule

__tracebackhide__ = True


def _sum_of(t, *matrices):
    """The Kronecker sum by NumPy: each matrix in its mode, identities elsewhere."""
    eyes = [np.eye(len(a)) for a in matrices]
    return sum(t.dense(*eyes[:n], a, *eyes[n + 1 :]) for n, a in enumerate(matrices))


def _kron_sum(t):
    a, b, c = t.square(), t.square(), t.square()
    t.equal(t.adapter.kron_sum([a, b]), _sum_of(t, a, b))
    t.equal(t.adapter.kron_sum([a, b, c]), _sum_of(t, a, b, c))


def _kron_sum_spectrum(t):
    a, b = t.square(), t.square()
    first, second = (np.linalg.eigvals(t.wide(x)) for x in (a, b))
    t.same_set(t.adapter.eigvals(t.adapter.kron_sum([a, b])), np.add.outer(first, second), growth=1e3)


def _expm(t):
    from scipy.linalg import expm

    a, b = t.square(), t.square()
    expected = t.dense(expm(t.wide(a)), expm(t.wide(b)))
    # The relative error of an exponential is that of its argument times its norm, here up to 4.
    t.equal(t.adapter.expm(t.adapter.kron_sum([a, b])), expected, growth=64)


def _kron_sum_trace(t):
    a, b = t.square(), t.square()
    expected = len(b) * np.trace(t.wide(a)) + len(a) * np.trace(t.wide(b))
    t.equal(t.adapter.trace(t.adapter.kron_sum([a, b])), expected)


def _columns(a, b):
    """Kronecker products of the columns of two matrices, by NumPy."""
    return np.einsum("ij,kj->ikj", a, b).reshape(-1, a.shape[1])


def _khatri_rao(t):
    a, c = t.matrix(), t.size()
    a, b = t.normal(len(a), c), t.normal(t.size(), c)
    t.equal(t.adapter.khatri_rao(t.array(a), t.array(b)), _columns(t.wide(a), t.wide(b)))


def _khatri_rao_mixed(t):
    (a, b), width, op = (t.matrix(), t.matrix()), t.size(), t.adapter
    c, d = t.normal(a.shape[1], width), t.normal(b.shape[1], width)
    dense = np.asarray(op.to_dense(op.khatri_rao(t.array(c), t.array(d))))
    expected = _columns(t.wide(a) @ t.wide(c), t.wide(b) @ t.wide(d))
    t.equal(op.apply(t.make(a, b), t.array(dense)), expected)


def _khatri_rao_gram(t):
    width = t.size()
    a, b = t.normal(t.size(), width), t.normal(t.size(), width)
    found = t.wide(t.adapter.to_dense(t.adapter.khatri_rao(t.array(a), t.array(b))))
    t.equal(found.T @ found, (t.wide(a).T @ t.wide(a)) * (t.wide(b).T @ t.wide(b)))


def _face_splitting(t):
    length = t.size()
    a, b = t.normal(length, t.size()), t.normal(length, t.size())
    found = t.adapter.face_splitting(t.array(a), t.array(b))
    t.equal(found, _columns(t.wide(a).T, t.wide(b).T).T)


def _face_splitting_mixed(t):
    length, op = t.size(), t.adapter
    a, b = t.normal(length, t.size()), t.normal(length, t.size())
    c, d = t.with_rows(a.shape[1]), t.with_rows(b.shape[1])
    dense = np.asarray(op.to_dense(op.face_splitting(t.array(a), t.array(b))))
    expected = _columns((t.wide(a) @ t.wide(c)).T, (t.wide(b) @ t.wide(d)).T).T
    t.equal(op.apply_left(t.array(dense), t.make(c, d)), expected)


def _hadamard(t):
    a, b = t.matrix(), t.matrix()
    c, d = t.normal(*a.shape), t.normal(*b.shape)
    expected = t.dense(t.wide(a) * t.wide(c), t.wide(b) * t.wide(d))
    t.equal(t.adapter.multiply(t.make(a, b), t.make(c, d)), expected)


def _partial_trace(t):
    factors = [t.normal(n, n) for n in (t.size(2), t.size(2), t.size(2))]
    dims, traces = tuple(map(len, factors)), [np.trace(t.wide(a)) for a in factors]
    for where in ((0,), (1,), (2,), (0, 2)):
        expected = np.prod([traces[n] for n in where])
        expected = expected * t.dense(*(a for n, a in enumerate(factors) if n not in where))
        t.equal(t.adapter.partial_trace(t.make(*factors), dims, where), expected)


def _permute(t):
    factors = [t.with_rows(t.size(2)) for _ in range(3)]
    row_dims, col_dims = zip(*(a.shape for a in factors), strict=True)
    for order in ((1, 0, 2), (1, 2, 0), (2, 0, 1)):
        found = t.adapter.permute(t.make(*factors), row_dims, col_dims, order)
        t.equal(found, t.dense(*(factors[n] for n in order)))


def _embed(t):
    dims = (t.size(2), t.size(2), t.size(2))
    for where in ((1,), (0, 1), (2, 0), (1, 2, 0)):
        sizes = [dims[n] for n in where]
        gate = t.square(int(np.prod(sizes)))
        # Beside the gate stand identities; then the subsystems go to their places.
        rest = [n for n in range(3) if n not in where]
        whole = t.dense(gate, *(np.eye(dims[n]) for n in rest))
        split = whole.reshape([dims[n] for n in (*where, *rest)] * 2)
        back = np.argsort((*where, *rest))
        expected = split.transpose((*back, *(3 + back))).reshape(whole.shape)
        t.equal(t.adapter.embed(gate.copy(), dims, where), expected)


def _commutation_of_vectors(t):
    u, v = t.normal(t.size(2)), t.normal(t.size(2))
    k = t.adapter.to_dense(t.adapter.commutation(len(u), len(v)))
    t.equal(k @ np.kron(u, v), np.kron(t.wide(v), t.wide(u)))


def _commutation(t):
    a, b, op = t.matrix(), t.matrix(), t.adapter
    left, right = (op.to_dense(op.commutation(m, n)) for m, n in zip(a.shape, b.shape, strict=True))
    dense = op.to_dense(t.make(a, b))
    t.equal(left @ dense @ right.T, t.dense(b, a))


def _commutation_orthogonal(t):
    m, n = t.size(2), t.size(2)
    t.shapes.append((m, n))
    k, back = (t.adapter.to_dense(t.adapter.commutation(*pair)) for pair in ((m, n), (n, m)))
    t.equal(k @ k.T, np.eye(m * n))
    t.equal(k @ back, np.eye(m * n))


def _rows(t):
    a, b = t.matrix(), t.matrix()
    dense = t.dense(a, b)
    for i in range(len(dense)):
        t.equal(t.adapter.row(t.make(a, b), i), dense[i])


def _elements(t):
    a, b = t.matrix(), t.matrix()
    for (i, j), value in np.ndenumerate(t.dense(a, b)):
        t.equal(t.adapter.element(t.make(a, b), i, j), value)


def _rows_outside(t):
    a, b = t.matrix(), t.matrix()
    rows = len(a) * len(b)
    for i in (rows, rows + 1, 2 * rows, -rows - 1):
        t.raises(lambda i=i: t.adapter.row(t.make(a, b), i), f"row {i} of {rows}")


def _elements_outside(t):
    a, b = t.matrix(), t.matrix()
    rows, columns = t.dense(a, b).shape
    for i, j in ((rows, 0), (0, columns), (-rows - 1, 0), (0, -columns - 1)):
        t.raises(lambda i=i, j=j: t.adapter.element(t.make(a, b), i, j), f"element {i, j} of {rows, columns}")


def _results(t, a, b):
    """Pairs (name, result) of operations that keep the dtype; one that raises has a law of its own."""
    op, size = t.adapter, len(a) * len(b)
    x = t.normal(size)
    one, two = t.make(a, b), t.make(b, a)
    calls = dict.fromkeys(("transpose", "conj", "adjoint", "inv", "trace", "det"), (one,))
    calls |= dict.fromkeys(("matmul", "add", "multiply", "vdot"), (one, one))
    calls |= {"kron": (one, two), "solve": (one, t.array(x)), "apply": (one, t.array(x)), "row": (one, 0)}
    calls |= {"apply_left": (t.array(x), one), "matrix_power": (one, 2), "scale": (one, 2.0)}
    calls |= {"element": (one, 0, 0), "kron_sum": ([a, b],)}
    found = [("make", op.to_dense(one))]
    for name, call in calls.items():
        with suppress(Exception):
            if op.has(name):
                found.append((name, op.to_dense(getattr(op, name)(*call))))
    return found


def _dtype_kept(t):
    for name, result in _results(t, t.square(2), t.square(3)):
        if result.dtype != t.dtype:
            t.fail(f"{result.dtype} for {t.dtype} from {name}")


def _untouched(t):
    drawn = [t.square(2), t.square(3)]
    before = [a.copy() for a in drawn]
    one, op = t.adapter.make(drawn), t.adapter
    dense = op.to_dense(one).copy()
    x = t.normal(len(dense))
    array = t.array(x)
    calls = dict.fromkeys(("transpose", "conj", "inv", "det", "slogdet", "norm"), (one,))
    calls |= {"scale": (one, 3.0), "add": (one, one), "matmul": (one, one), "kron_sum": (drawn,)}
    calls |= {"apply": (one, array), "apply_left": (array, one), "solve": (one, array)}
    for name, call in calls.items():
        with suppress(Exception):
            if op.has(name):
                getattr(op, name)(*call)
        pairs = zip((*drawn, op.to_dense(one), op.to_dense(array)), (*before, dense, x), strict=True)
        if not all(np.array_equal(now, then) for now, then in pairs):
            t.fail(f"an argument written to by {name}")


RULES = (
    Rule("Kronecker sum", "A (+) B = A (x) I + I (x) B, and of three", ("kron_sum",), _kron_sum),
    Rule("Kronecker sum, eigenvalues", "they are sums", ("kron_sum", "eigvals"), _kron_sum_spectrum),
    Rule("Kronecker sum, exponential", "exp(A (+) B) = exp(A) (x) exp(B)", ("kron_sum", "expm"), _expm),
    Rule("Kronecker sum, trace", "tr(A (+) B) = m tr(A) + n tr(B)", ("kron_sum", "trace"), _kron_sum_trace),
    Rule("Khatri-Rao", "column j of A kr B is A[:, j] (x) B[:, j]", ("khatri_rao",), _khatri_rao),
    Rule("Khatri-Rao, mixed", "(A (x) B)(C kr D) = AC kr BD", ("khatri_rao", "apply"), _khatri_rao_mixed),
    Rule("Khatri-Rao, Gram", "(A kr B)^T (A kr B) = A^T A * B^T B", ("khatri_rao",), _khatri_rao_gram),
    Rule("face-splitting", "row i of A fs B is A[i] (x) B[i]", ("face_splitting",), _face_splitting),
    Rule(
        "face-splitting, mixed", "(A fs B)(C (x) D) = AC fs BD", ("face_splitting", "apply_left"),
        _face_splitting_mixed,
    ),
    Rule("Hadamard", "(A (x) B) * (C (x) D) = (A * C) (x) (B * D)", ("multiply",), _hadamard),
    Rule("partial trace", "tr_1(A (x) B (x) C) = tr(B) A (x) C", ("partial_trace",), _partial_trace),
    Rule("permuted subsystems", "order (1, 0) of A (x) B is B (x) A", ("permute",), _permute),
    Rule("embedded", "G on the subsystems (2, 0), and the identity on all others", ("embed",), _embed),
    Rule("commutation of vectors", "K (u (x) v) = v (x) u", ("commutation",), _commutation_of_vectors),
    Rule("commutation", "K (A (x) B) K^T = B (x) A", ("commutation",), _commutation),
    Rule("commutation is orthogonal", "K(m, n) K(m, n)^T = I = K(m, n) K(n, m)", ("commutation",),
         _commutation_orthogonal),
    Rule("rows", "(A (x) B)[i] = A[i div p] (x) B[i mod p]", ("row",), _rows),
    Rule("elements", "(A (x) B)[i, j] is a product of elements", ("element",), _elements),
    Rule("rows outside", "a row number outside is an error, never wrapped", ("row",), _rows_outside),
    Rule("elements outside", "an index outside is an error, never wrapped", ("element",), _elements_outside),
    Rule("dtype kept", "results have the dtype of the factors", (), _dtype_kept),
    Rule("arguments untouched", "no operation writes to what it is given", (), _untouched),
)  # fmt: skip
