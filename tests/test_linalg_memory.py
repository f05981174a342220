"""What would need a number for each of P eigenvalues is refused before it is allocated, or done without."""

import subprocess
import sys

import numpy as np
import pytest

import ketcore as kc
from ketcore import linalg, ops

# No more than this may a process take, libraries included; 2^40 numbers are 8 TiB.
LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
import numpy as np
import ketcore as kc
from ketcore import linalg
rng = np.random.default_rng(0)
K, S = (kind([np.eye(2)] * 40) for kind in (kc.KroneckerMatrix, kc.KroneckerSum))
G = kc.KroneckerMatrix([np.diag(rng.uniform(0.1, 1.0, 2)) for _ in range(80)])
ONE = np.array(1.0)
for call in {calls}:
    try:
        print(eval(call))
    except MemoryError as error:
        print(error)
"""


def limited(calls):
    """What each of the calls gives, or the text of its MemoryError."""
    pytest.importorskip("resource")
    run = [sys.executable, "-c", LIMITED.replace("{calls}", repr(calls))]
    found = subprocess.run(run, capture_output=True, encoding="utf-8", timeout=120)
    assert not found.stderr
    return found.stdout.splitlines()


def test_a_spectrum_that_does_not_fit_is_refused():
    calls = [
        "linalg.slogdet(K, 1.0)",
        "linalg.slogdet(K.astype('float32'), shift=1e-3)",
        "linalg.slogdet(kc.KroneckerProduct([kc.Identity(2)] * 40), 1.0)",
        "linalg.slogdet(S)",
        "linalg.slogdet(S, 1.0)",
        "linalg.det(S)",
        "kc.kron_slogdet(K.factors, 1.0)",
        "kc.kron_slogdet_vjp(K.factors, 1.0, (ONE, ONE))",
        "kc.kron_slogdet_jvp(K.factors, 1.0, K.factors, 1.0)",
    ]
    text = (
        "max_bytes must be at least 8796093022208 (8 TiB) to hold the dense spectrum (1099511627776,), got "
    )
    assert limited(calls) == [f"{text}{2**30}"] * len(calls)


def test_lists_that_do_not_fit_are_refused():
    refused = {
        "linalg.eigvalsh(S).to_dense()": "the dense (1099511627776,) array of float64, got",
        "linalg.svdvals(K).to_dense()": "the dense (1099511627776,) array of float64, got",
        "linalg.matrix_rank(G, max_bytes=1 << 24)": "the dense list of products of singular values, got",
        "linalg.pinv(G)": "the dense terms of a pseudo-inverse, one for each step of its cut, got",
        "linalg.pinv(kc.KroneckerMatrix([np.diag([1.0, 0.5])] * 80))": "the dense terms of a pseudo-inverse",
    }
    for found, text in zip(limited(list(refused)), refused.values(), strict=True):
        assert found.startswith("max_bytes must be at least ")
        assert text in found


def test_what_needs_no_such_list_is_done():
    done = {
        "linalg.matrix_rank(K)": 2**40,
        "linalg.matrix_rank(kc.KroneckerMatrix([np.eye(2)] * 80))": 2**80,
        "linalg.pinv(K, return_rank=True)[1]": 2**40,
        "tuple(map(float, linalg.slogdet(K)))": (1.0, 0.0),
        "float(linalg.det(K)), float(linalg.cond(K)), float(linalg.norm(S, 2))": (1.0, 1.0, 40.0),
        "linalg.eigh(S).eigenvalues.rank, linalg.expm(S).rank": (40, 1),
        "round(float(linalg.slogdet(kc.KroneckerMatrix([np.eye(2)] * 20), 1.0)[1]))": 726817,
    }
    assert limited(list(done)) == [str(answer) for answer in done.values()]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_the_limit_counts_the_numbers_as_they_are_computed(dtype):
    """In 64 bits per real number for a product, in the dtype of the factors for a sum."""
    factors = [np.eye(4, dtype=dtype)] * 5
    of_sum = 1024 * np.dtype(dtype).itemsize
    of_product = 1024 * (16 if dtype == "complex128" else 8)
    product, total = kc.KroneckerMatrix(factors), kc.KroneckerSum(factors)
    one, like = np.ones((), dtype), np.zeros((), dtype)
    for needed, call in (
        (of_product, lambda n: linalg.slogdet(product, 1.0, max_bytes=n)),
        (of_product, lambda n: ops.kron_slogdet(product.factors, 1.0, max_bytes=n)),
        (of_product, lambda n: ops.kron_slogdet_vjp(product.factors, 1.0, (like, one.real), max_bytes=n)),
        (of_product, lambda n: ops.kron_slogdet_jvp(product.factors, 1.0, product.factors, 1.0, max_bytes=n)),
        (of_sum, lambda n: linalg.slogdet(total, max_bytes=n)),
        (of_sum, lambda n: linalg.det(total, max_bytes=n)),
    ):
        call(needed)
        with pytest.raises(
            MemoryError, match=rf"^max_bytes must be at least {needed} \(.*, got {needed - 1}$"
        ):
            call(needed - 1)
    # Without a shift nothing is that long.
    linalg.slogdet(product, max_bytes=8 * 16)


@pytest.mark.parametrize("value", [None, True, "1", 1j])
def test_a_limit_that_is_no_number(value):
    product, total = kc.KroneckerMatrix([np.eye(2)] * 2), kc.KroneckerSum([np.eye(2)] * 2)
    for call in (
        lambda: linalg.slogdet(product, max_bytes=value),
        lambda: linalg.slogdet(product, 1.0, max_bytes=value),
        lambda: linalg.slogdet(kc.KroneckerProduct([kc.Identity(2)]), max_bytes=value),
        lambda: linalg.slogdet(total, max_bytes=value),
        lambda: linalg.det(product, max_bytes=value),
        lambda: linalg.det(total, max_bytes=value),
        lambda: linalg.matrix_rank(product, max_bytes=value),
        lambda: linalg.pinv(product, max_bytes=value),
        lambda: ops.kron_slogdet(product.factors, max_bytes=value),
        lambda: ops.kron_slogdet(product.factors, 1.0, max_bytes=value),
    ):
        with pytest.raises(TypeError, match=r"^max_bytes must be a number of bytes, got "):
            call()


def test_counting_takes_no_more_than_its_limit():
    rng = np.random.default_rng(0)
    a = kc.KroneckerMatrix([np.diag(rng.uniform(0.1, 1.0, 2)) for _ in range(24)])
    expected = linalg.matrix_rank(a, tol=1e-9)
    # Two lists of 2^12 products, 64 bytes each.
    assert linalg.matrix_rank(a, tol=1e-9, max_bytes=64 << 12) == expected
    with pytest.raises(MemoryError, match=r"^max_bytes must be at least .*, got 2048$"):
        linalg.matrix_rank(a, tol=1e-9, max_bytes=2048)
    a = kc.KroneckerMatrix(a.factors[:10])
    boxes = linalg.pinv(a, rtol=1e-2, return_rank=True)
    assert boxes[1] == linalg.matrix_rank(a, tol=1e-2 * float(linalg.norm(a, 2)))
    with pytest.raises(
        MemoryError, match=r"^max_bytes must be at least .* terms of a pseudo-inverse.*, got 99$"
    ):
        linalg.pinv(a, rtol=1e-2, max_bytes=99)


@pytest.mark.parametrize(
    ("modes", "scale"), [(60, 1.0), (60, 2.0), (60, 0.5), (70, 1.0), (70, 2.0), (1100, 1.0), (1100, 2.0)]
)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_powers_of_determinants_beyond_integers_of_64_bits(library, modes, scale):
    lib = pytest.importorskip(library)
    eye = lib.eye(2, dtype=lib.float64)
    a = kc.KroneckerMatrix([eye * scale, *[eye] * (modes - 1)])
    power = 2.0**modes if modes < 1000 else np.inf
    sign, logarithm = linalg.slogdet(a)
    expected = power * np.log(scale) if scale != 1 else 0.0
    assert (float(sign), float(logarithm)) == (1.0, pytest.approx(expected))
    assert float(linalg.det(a)) == {1.0: 1.0, 2.0: np.inf, 0.5: 0.0}[scale]
    gradient = ops.kron_slogdet_vjp(a.factors, None, (sign * 0, sign))[0][0]
    assert float(gradient[0, 0, 0]) == pytest.approx(power / 2 / scale)
    assert float(gradient[0, 0, 1]) == 0.0
    parts = kc.KroneckerProduct([kc.Identity(2)] * modes + [kc.Diagonal([1.0, 1.0])])
    assert (float(linalg.det(parts)), float(linalg.slogdet(parts)[1])) == (1.0, 0.0)
