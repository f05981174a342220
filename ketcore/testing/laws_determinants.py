"""Laws of determinants and their logarithms: signs, phases, singular matrices, the range of a float."""

from itertools import product

import numpy as np

from ketcore.testing.trials import Rule

__tracebackhide__ = True

# Sizes whose exponents in det(A)^m det(B)^n are odd, even and mixed; 1 and 3 lose a sign that 2 forgives.
_SIZES = ((1, 1), (1, 3), (3, 1), (2, 3), (3, 2), (3, 3), (2, 2), (4, 3))


def _some(t, sizes):
    """A few of the sizes; four trials in each dtype see them all."""
    return [sizes[k] for k in t.rng.permutation(len(sizes))[:3]]


def _signed(t, m, n, signs):
    """Two square matrices whose determinants have these signs or phases."""
    found = []
    for size, sign in zip((m, n), signs, strict=True):
        matrix = t.wide(t.square(size))
        determinant = np.linalg.det(matrix)
        matrix[0] *= sign * (abs(determinant) / determinant)
        # Without zeros of either sign, which would only be hard to read.
        found.append((matrix + 0.0).astype(t.dtype))
    return found


def _slogdet(t, *matrices):
    """Sign and log by NumPy on the factors; the size of each exponent is that of the other factors."""
    signs, logs = zip(*(np.linalg.slogdet(t.wide(a)) for a in matrices), strict=True)
    total = int(np.prod([len(a) for a in matrices]))
    exponents = [total // len(a) for a in matrices]
    sign = np.prod([s**e for s, e in zip(signs, exponents, strict=True)])
    return sign, sum(log * e for log, e in zip(logs, exponents, strict=True))


def _det_of(t, sizes, phases):
    for (m, n), signs in product(_some(t, sizes), product(phases, repeat=2)):
        a, b = _signed(t, m, n, signs)
        sign, log = _slogdet(t, a, b)
        t.equal(t.adapter.det(t.make(a, b)), sign * np.exp(log), growth=16, relative=True)


def _slogdet_of(t, sizes, phases):
    for (m, n), signs in product(_some(t, sizes), product(phases, repeat=2)):
        a, b = _signed(t, m, n, signs)
        _check_slogdet(t, _slogdet(t, a, b), a, b)


def _check_slogdet(t, expected, *matrices, growth=16):
    sign, log = t.adapter.slogdet(t.make(*matrices))
    t.equal(sign, expected[0], growth=growth)
    t.equal(log, expected[1], growth=growth)


def _det_signs(t):
    _det_of(t, _SIZES, (1, -1))


def _det_phases(t):
    _det_of(t, _SIZES[:6], (1j, np.exp(2.5j)))


def _det_singular(t):
    a = np.zeros((3, 3), t.dtype)
    t.equal(t.adapter.det(t.make(a, t.square(2))), 0.0)
    t.equal(t.adapter.det(t.make(t.square(2), a)), 0.0)


def _slogdet_signs(t):
    _slogdet_of(t, _SIZES, (1, -1))


def _slogdet_phases(t):
    _slogdet_of(t, _SIZES[:6], (1j, np.exp(2.5j)))


def _slogdet_large(t):
    # The determinant, 1e-45 or 1e45 to the power of 8 and more, is no number of float32.
    for scale in (1e-15, 1e15):
        a, b = t.square(3) * t.dtype.type(scale), t.square(4)
        _check_slogdet(t, _slogdet(t, a, b), a, b)


def _slogdet_singular(t):
    for matrices in ((np.zeros((2, 2), t.dtype), t.square(3)), (t.square(3), np.zeros((1, 1), t.dtype))):
        _check_slogdet(t, (0.0, -np.inf), *matrices)


def _logdet_positive(t):
    a, b = t.positive(), t.positive()
    t.equal(t.adapter.logdet(t.make(a, b)), _slogdet(t, a, b)[1], growth=16)


def _logdet_small(t):
    matrices = [np.diag(values).astype(t.dtype) for values in ([1e-6, 1.0], [2.0, 3e-6, 1.0])]
    t.shapes += [(2, 2), (3, 3)]
    t.equal(t.adapter.logdet(t.make(*matrices)), _slogdet(t, *matrices)[1], growth=16)


def _logdet_general(t):
    for m, n in _some(t, _SIZES):
        a, b = _signed(t, m, n, (1, 1))
        t.equal(t.adapter.logdet(t.make(a, b)), _slogdet(t, a, b)[1], growth=16)


def _logdet_negative(t):
    a, b = _signed(t, 3, 3, (1, -1))
    try:
        found = t.adapter.to_dense(t.adapter.logdet(t.make(a, b)))
    except Exception:
        return
    if not np.isnan(found) and not np.iscomplexobj(found):
        t.fail(f"{found} for the logarithm of a negative determinant")


def _det_product(t):
    m, n, op = t.size(2), t.size(2), t.adapter
    a, b, c, d = t.square(m), t.square(n), t.square(m), t.square(n)
    found = op.to_dense(op.det(op.matmul(t.make(a, b), t.make(c, d))))
    expected = op.to_dense(op.det(t.make(a, b))) * op.to_dense(op.det(t.make(c, d)))
    t.equal(found, expected, growth=64, relative=True)


RULES = (
    Rule("determinant, every sign", "det(A (x) B) = det(A)^m det(B)^n, B m x m", ("det",), _det_signs),
    Rule("determinant, complex phase", "det(A (x) B) = det(A)^m det(B)^n", ("det",), _det_phases, "c"),
    Rule("determinant, singular", "det(0 (x) B) = 0", ("det",), _det_singular),
    Rule("determinant of a product", "det(KL) = det(K) det(L)", ("det", "matmul"), _det_product),
    Rule("slogdet, every sign", "det = sign exp(log)", ("slogdet",), _slogdet_signs),
    Rule("slogdet, complex phase", "det = sign exp(log)", ("slogdet",), _slogdet_phases, "c"),
    Rule("slogdet beyond the range", "log = m log|det A| + n log|det B|", ("slogdet",), _slogdet_large),
    Rule("slogdet, singular", "sign = 0, log = -inf", ("slogdet",), _slogdet_singular),
    Rule("log-determinant, positive", "log det(A (x) B), A and B positive", ("logdet",), _logdet_positive),
    Rule("log-determinant, small", "no eigenvalue is clamped", ("logdet",), _logdet_small),
    Rule("log-determinant, general", "not symmetric, det(A) > 0, det(B) > 0", ("logdet",), _logdet_general),
    Rule("log-determinant, negative", "det < 0 has NaN, or is an error", ("logdet",), _logdet_negative, "f"),
)
