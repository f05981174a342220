"""Products by compiled kernels: the definition, threads, crops, strides, what is not finite."""

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketcore import ops
from ketcore.arrays import threads
from ketcore.lookups import gather
from ketcore.native import loader
from ketcore.products import chains, plans
from ketcore.testing import assert_dense_equal
from tests.matmul_problems import normal
from tests.processes import run_python

pytestmark = pytest.mark.skipif(loader.found()[0] is None, reason=loader.found()[1])

SMALL = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6)
LARGE = st.lists(st.tuples(st.integers(31, 33), st.integers(31, 33)), min_size=1, max_size=2)
DTYPES = ("float32", "float64")


@pytest.fixture(autouse=True)
def _compiled(monkeypatch):
    """Kernels take whatever they can, and threads are used as soon as there are two pieces."""
    monkeypatch.setattr(plans, "_NATIVE_CALL", -1e18)
    monkeypatch.setattr(chains, "_WORTH_THREADS", 1)
    plans._plan.cache_clear()
    yield
    plans._plan.cache_clear()


@st.composite
def products(draw):
    """Factors, x, a cotangent, and options of `kron_matmul`."""
    sizes = draw(st.one_of(SMALL, SMALL, LARGE))
    while max(map(prod, zip(*sizes, strict=True))) > 2500:
        sizes.pop()
    dtype, rank, seed = draw(st.sampled_from(DTYPES)), draw(st.integers(1, 3)), draw(st.integers(0, 99))
    factors = [drawn(draw, (rank, *pair), dtype, seed + n) for n, pair in enumerate(sizes)]
    full = tuple(map(prod, zip(*sizes, strict=True)))
    shape = tuple(draw(st.integers(1, size)) for size in full) if draw(st.booleans()) else full
    batch, trail = draw(st.sampled_from((0, 1, 7))), draw(st.sampled_from((1, 1, 2, 3, 8, 21)))
    behind = (trail,) if trail > 1 else ()
    x, c = (drawn(draw, (batch, size, *behind), dtype, seed + 50 + size) for size in shape)
    path = draw(st.sampled_from((None, *plans.PATHS)))
    return factors, x, c, {"shape": shape, "axis": -2 if behind else -1, "path": path}


def drawn(draw, shape, dtype, seed):
    """An array that may be read-only, in another order, or every second entry of one."""
    array, kind = normal(shape, dtype, seed), draw(st.sampled_from(("plain", "turned", "steps", "read-only")))
    if kind == "turned":
        array = np.asfortranarray(array)
    elif kind == "steps":
        array = np.repeat(array, 2, axis=-1)[..., ::2]
    array.flags.writeable = kind != "read-only"
    return array


def everything(factors, x, c, options):
    """The product, and the gradients of x and of all factors."""
    y = ops.kron_matmul(factors, x, **options)
    to_factors, to_x = ops.kron_matmul_vjp(factors, x, c, **options)
    return [y, to_x, *to_factors]


def plan_of(factors, batch, trail=1):
    rows, columns = zip(*(factor.shape[1:] for factor in factors), strict=True)
    rank, size = factors[0].shape[0], factors[0].itemsize
    return plans.matmul_plan(rows, columns, rank, batch, trail, (), size, None, True)


@given(products())
def test_products_and_gradients_are_those_of_the_definition(arguments):
    factors, x, c, options = arguments
    dense = {name: value for name, value in options.items() if name != "path"}
    y, to_x, *to_factors = everything(*arguments)
    right = ops.kron_matmul_dense(factors, x, **dense)
    assert_dense_equal(y, right, terms=4000, scale=np.abs(right).max(initial=0) + 1)
    wide = [factor.astype("float64") for factor in factors], x.astype("float64"), c.astype("float64"), options
    with gather.only("numpy"):
        _, to_x_right, *rights = everything(*wide)
    for found, expected in zip((to_x, *to_factors), (to_x_right, *rights), strict=True):
        assert found.dtype == x.dtype
        scale = np.abs(expected).max(initial=0) + 1
        assert_dense_equal(found, expected.astype(x.dtype), terms=4000, scale=scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("sizes", "rank", "rows"),
    [
        ([(8, 8)] * 4, 1, 300),
        ([(4, 4)] * 6, 2, 70),
        ([(5, 3), (7, 9), (11, 13), (8, 4)], 1, 90),
        ([(8, 8)] * 6, 1, 2),
        ([(8, 8)] * 6, 1, 1),
        ([(4, 4), (7, 7), (5, 5), (4, 4), (3, 3), (4, 4)], 3, 1),
    ],
)
def test_two_threads_give_the_same_bits_as_one(monkeypatch, dtype, sizes, rank, rows):
    factors = [normal((rank, *pair), dtype, n) for n, pair in enumerate(sizes)]
    p, q = map(prod, zip(*sizes, strict=True))
    x, c = normal((rows, p), dtype, 8), normal((rows, q), dtype, 9)
    assert plan_of(factors, rows).native
    answers = []
    for count in (1, 2, 3):
        monkeypatch.setattr(threads, "thread_count", lambda count=count: count)
        answers.append(everything(factors, x, c, {}))
    for other in answers[1:]:
        for one, same in zip(answers[0], other, strict=True):
            assert np.array_equal(one, same)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rank", "trail"), [(1, 1), (3, 1), (2, 5)])
@pytest.mark.parametrize("shape", [None, (700, 1001)])
def test_the_first_step_of_one_large_row_runs_apart(dtype, rank, trail, shape):
    factors = [normal((rank, size, size), dtype, size) for size in (4, 9, 5, 6)]
    shape = shape or (1080, 1080)
    assert chains._is_apart(plan_of(factors, 1, trail), 1)
    x, c = (normal((1, size, trail), dtype, size) for size in shape)
    options = {"shape": shape, "axis": -2}
    found = everything(factors, x, c, options)
    with gather.only("numpy"):
        rights = everything([factor.astype("float64") for factor in factors], *map(_wide, (x, c)), options)
    for one, right in zip(found, rights, strict=True):
        assert_dense_equal(one, right.astype(dtype), terms=4000, scale=np.abs(right).max())


def _wide(array):
    return array.astype("float64")


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_in_its_row(dtype):
    factors = [normal((2, 8, 8), dtype, n) for n in range(3)]
    x = normal((5, 512), dtype, 4)
    clean = ops.kron_matmul(factors, x)
    x[2, 100] = np.nan
    found = ops.kron_matmul(factors, x)
    assert np.isnan(found[2]).all()
    rows = [0, 1, 3, 4]
    assert np.array_equal(found[rows], clean[rows])


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_written_beside_the_result(dtype):
    factors = [normal((1, p, q), dtype, p) for p, q in ((3, 5), (2, 3), (3, 3))]
    x = normal((7, 18), dtype, 1)
    room = np.full(7 * 45 + 64, np.pi, dtype)
    out = room[32 : 32 + 7 * 45].reshape(7, 45)
    right = ops.kron_matmul(factors, x)
    assert ops.kron_matmul(factors, x, out=out) is out
    assert np.array_equal(out, right)
    assert np.all(room[:32] == room[0])
    assert np.all(room[-32:] == room[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 255, 2048, 4001, 4096])
@pytest.mark.parametrize("trail", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_large_rows_that_are_cropped(dtype, columns, trail, batch):
    factors = [normal((2, 16, 16), dtype, n) for n in range(3)]
    x = normal((batch, 3999, trail), dtype, 5)
    found = ops.kron_matmul(factors, x, (3999, columns), axis=-2)
    wide = [factor.astype("float64") for factor in factors]
    right = ops.kron_matmul(wide, x.astype("float64"), (3999, 4096), axis=-2)[:, :columns]
    assert_dense_equal(found, right.astype(dtype), terms=4096, scale=np.abs(right).max())


def test_many_terms_of_a_long_sum_keep_their_digits():
    factors = [normal((1, 4, 4), "float32", n) + 1 for n in range(3)]
    x, c = (np.abs(normal((40000, 64), "float32", n)) + 1 for n in (5, 6))
    found = ops.kron_matmul_vjp(factors, x, c)[0]
    wide = [factor.astype("float64") for factor in factors]
    right = ops.kron_matmul_vjp(wide, x.astype("float64"), c.astype("float64"))[0]
    for one, exact in zip(found, right, strict=True):
        assert np.abs(one - exact).max() <= 2e-6 * np.abs(exact).max()


def test_what_kernels_do_not_take():
    real, x = [normal((1, 2, 2))], normal((3, 2))
    assert chains.obstacle(real, x) == ""
    assert "float32 or float64" in chains.obstacle(real, x.astype(complex))
    assert "at most 32" in chains.obstacle(real * 33, x)


def test_another_engine_leaves_products_to_numpy():
    code = """
import numpy as np
from ketcore.products import chains
print(chains.obstacle([np.ones((1, 2, 2))], np.ones((3, 2))))
"""
    assert "must have the compiled library: it is not used" in run_python(code, KETCORE_ENGINE="numpy").stdout
