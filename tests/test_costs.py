"""What `cost` says of cropped and oblong matrices, beside the matrix products that are really made."""

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore.lookups import gather
from ketcore.native import loader
from ketcore.products.plans import Cost, matmul_cost, rows_cost
from ketcore.shapes import halves_split, reached_dims
from tests.matmul_problems import normal


@pytest.fixture(autouse=True)
def _by_numpy():
    """Of compiled kernels only the last tests here count."""
    with gather.only("numpy"):
        yield


@pytest.fixture
def counted(monkeypatch):
    """The flops of all matrix products of NumPy since the test began, which make all products."""
    total, matmul = [], np.matmul

    def counting(a, b, **options):
        result = matmul(a, b, **options)
        total.append(2 * result.size * a.shape[-1])
        return result

    monkeypatch.setattr(np, "matmul", counting)
    return total


# No two sizes are alike, so that none stands for another.
OBLONG = [
    ((40, 30), (20, 50), (1100, 900)),
    ((40, 30), (20, 50), (1200, 1000)),
    ((40, 30), (20, 50), (1200, 310)),
    ((40, 30), (20, 50), (95, 1000)),
    ((20, 50), (40, 30), (130, 1170)),
    ((61, 7), (5, 80), (300, 77)),
]
# The halves of its rows and those of its columns lie apart.
THREE = [((2, 3, 40), (30, 2, 3), (200, 171))]


def oblong(rows, columns, shape, rank=1):
    factors = [normal((rank, *pair), seed=n) for n, pair in enumerate(zip(rows, columns, strict=True))]
    return kc.KroneckerMatrix(factors, shape)


@pytest.mark.parametrize("sizes", OBLONG)
@pytest.mark.parametrize("count", [1, 3, 70])
def test_products_with_one_term(counted, sizes, count):
    m = oblong(*sizes)
    for name, multiply, size in (
        ("matmul", lambda x: m @ x.T, sizes[2][1]),
        ("rmatmul", lambda x: x @ m, sizes[2][0]),
    ):
        counted.clear()
        multiply(normal((count, size)))
        cost = m.cost(name, count)
        merged = 0 if cost.path == "modes" else cost.flops - sum(counted)
        assert sum(counted) == cost.flops - merged
        # Where modes are merged, their product is counted as well: a flop an entry.
        assert 0 <= merged <= prod(a * b for a, b in zip(*sizes[:2], strict=True))


@given(st.data())
def test_rows_and_columns_change_places(data):
    """A cost of A @ x is one of x @ A of the transpose; each crop goes to its own dims."""
    rows, columns = (data.draw(st.lists(st.integers(2, 40), min_size=2, max_size=2)) for _ in range(2))
    shape = data.draw(st.integers(1, prod(rows))), data.draw(st.integers(1, prod(columns)))
    m = oblong(rows, columns, shape, data.draw(st.integers(1, 3)))
    n = data.draw(st.integers(1, 50))
    reached = reached_dims(tuple(rows), shape[0]), reached_dims(tuple(columns), shape[1])
    cut = kc.KroneckerMatrix([f[:, :p, :q] for f, p, q in zip(m.factors, *reached, strict=True)])
    for name in ("matmul", "rmatmul"):
        # What the crop does not reach costs nothing.
        assert m.cost(name, n) == cut.cost(name, n)
    assert m.cost("matmul", n) == matmul_cost(columns, rows, m.rank, 1, n, shape[::-1])
    assert m.cost("rmatmul", n) == matmul_cost(rows, columns, m.rank, n, 1, shape)
    assert m.T.cost("rmatmul", n) == matmul_cost(columns, rows, m.rank, n, 1, shape[::-1])
    assert m.cost("matmul", n).bytes >= 8 * n * sum(shape)


def test_what_products_cost():
    """Three modes of one term apart, and two of two: 2 p q of what lies beside, for each."""
    m = oblong((40, 30), (20, 50), (1100, 900))
    # The crop reaches 37 of 40 row digits and 18 of 20 column digits.  Columns: 18 first, or 50 first.
    assert m.cost("matmul", 10).flops == 10 * min(
        2 * 18 * 37 * 50 + 2 * 50 * 30 * 37, 2 * 50 * 30 * 18 + 2 * 18 * 37 * 30
    )
    assert m.cost("rmatmul", 10).flops == 10 * min(
        2 * 37 * 18 * 30 + 2 * 30 * 50 * 18, 2 * 30 * 50 * 37 + 2 * 37 * 18 * 50
    )
    in_out, weights = 10 * (18 * 50 + 37 * 30), 37 * 18 + 30 * 50
    between = {10 * 2 * 37 * 50, 10 * 2 * 18 * 30}
    assert m.cost("matmul", 10).bytes in {8 * (in_out + size + weights) for size in between}


@pytest.mark.parametrize("sizes", OBLONG + THREE)
@pytest.mark.parametrize("rank", [1, 3])
def test_rows_and_dense_arrays(counted, sizes, rank):
    rows, columns, shape = sizes
    m = oblong(*sizes, rank)
    for name, call, count in (
        ("rows", lambda: m.rows(np.arange(9)), 9),
        ("to_dense", m.to_dense, shape[0]),
    ):
        counted.clear()
        call()
        cost = m.cost(name, 9)
        half = halves_split(tuple(columns))
        right = prod(columns[half:])
        left = -(-shape[1] // right)
        assert cost == rows_cost(rows, columns, rank, count, shape[1])
        # The halves of each row, and their products summed over the terms.
        assert cost.flops == count * rank * (2 * shape[1] + left + right)
        assert cost.bytes == 8 * count * (2 * rank * (left + right) + shape[1])
        # The halves may reach a little beyond the crop; one term is not multiplied by matrices.
        made = {left * right, left * right if left > 1 else shape[1]}
        assert sum(counted) in {2 * count * rank * size if rank > 1 else 0 for size in made}


@pytest.mark.parametrize("count", [1, 5])
def test_sums_of_few_modes(counted, count):
    """By parts; what is merged beforehand is counted for other libraries, and NumPy gathers it."""
    h = kc.KroneckerSum([normal((p, p), seed=p) for p in (3, 4, 5, 70)]).to_kronecker()
    for name, multiply in (("matmul", lambda x: h @ x.T), ("rmatmul", lambda x: x @ h)):
        counted.clear()
        multiply(normal((count, h.shape[0])))
        cost = h.cost(name, count)
        assert cost.path == "terms"
        added = (len(counted) - 1) * count * h.shape[0]
        assert 0 <= cost.flops - sum(counted) - added <= 4 * 60 * 60
    assert isinstance(cost, Cost)


@pytest.mark.skipif(loader.found()[0] is None, reason=loader.found()[1])
def test_products_name_their_engine():
    small, large = (kc.KroneckerMatrix.random((size**2, size**2), 2, rank=3, rng=0) for size in (16, 200))
    whole = small.astype(complex), small + kc.eye((16, 16))
    with gather.only(*gather.ENGINES):
        for name in ("matmul", "rmatmul"):
            cost = small.cost(name, 1000)
            assert cost.engine == "native"
            # Two steps for each of three terms.
            assert cost.flops == 3 * 2 * 2 * 16**3 * 1000
            assert [each.cost(name, 1000).engine for each in (large, *whole)] == ["numpy"] * 3
    assert small.cost("matmul", 1000).engine == "numpy"
