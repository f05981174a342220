"""Every operation on every kind of object: it is its dense definition, or its error names the way out."""

from pathlib import Path

import numpy as np
import pytest

import ketcore as kc
from ketcore.testing import to_numpy
from tests.operation_table import BARE, KINDS, ROWS, SIGNS, Arrays, definition, draw, make, page, way_of_pair

# Dims of rows and columns; kinds that are square have those of the rows.
CASES = [
    ((2, 3), (2, 3), "float32"),
    ((2, 3), (2, 3), "complex128"),
    ((2,), (2,), "complex64"),
    ((3, 2, 1), (3, 2, 1), "float64"),
    ((2, 3), (2, 4), "complex128"),
]
RECTANGULAR = {"KroneckerMatrix", "KroneckerProduct"}


def compare(found, expected, dtype):
    """Objects by their dense arrays; what is single precision to that."""
    found = found.to_dense() if hasattr(type(found), "to_dense") else found
    found = definition(found) if isinstance(found, kc.Diagonal | kc.Identity) else to_numpy(np.asarray(found))
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    tolerance = 1e-4 if np.finfo(dtype).bits == 32 else 1e-11
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ROWS)
def test_a_cell_works_or_names_the_way_out(name, kind):
    row = ROWS[name]
    for rows, columns, dtype in CASES:
        if rows == columns or kind in RECTANGULAR:
            dims = (rows[-1:], rows[-1:]) if kind in BARE else (rows, columns)
            # Its rows are in the other order.
            dims = (rows[::-1], rows) if kind == "Permutation" else dims
            check_cell(row, make(kind, rows, dtype, columns), row.ways.get(kind), dtype, dims)


def check_cell(row, x, way, dtype, dims):
    rng = np.random.default_rng(1)
    shape = x.shape[-2:]
    sides = (draw(rng, (size, 2), dtype) for size in (shape[0], shape[-1]))
    is_ket = isinstance(x, kc.Ket)
    arrays = Arrays(*sides, -1 if is_ket else None, dims[:1] if is_ket else dims)
    if way is not None:
        with pytest.raises((TypeError, AttributeError, IndexError)) as caught:
            row.call(x, arrays)
        assert way in str(caught.value)
        return
    a = definition(x)
    expected = _kron_of(x, a) if row.expected is None else row.expected(a, arrays)
    compare(row.call(x, arrays), expected, dtype)


def _kron_of(x, a):
    return np.stack([np.kron(row, row) for row in a]) if isinstance(x, kc.Ket) else np.kron(a, a)


@pytest.mark.parametrize("right", KINDS)
@pytest.mark.parametrize("left", KINDS)
@pytest.mark.parametrize("sign", SIGNS)
def test_two_kinds_work_or_name_the_way_out(sign, left, right):
    way = way_of_pair(sign, left, right)
    for dims in ((2, 3), (2, 1, 3)):
        for dtypes in (("float32", "float32"), ("float64", "complex128")):
            x, y = (
                make(kind, dims, dtype, seed=n)
                for n, (kind, dtype) in enumerate(zip((left, right), dtypes, strict=True))
            )
            if way is not None:
                with pytest.raises(TypeError) as caught:
                    SIGNS[sign](x, y)
                assert way in str(caught.value)
            elif sign == "@" and right == "Ket":
                compare(x @ y, definition(y) @ definition(x).T, dtypes[0])
            else:
                if (left, right, sign) == ("Permutation", "Permutation", "@"):
                    y = x.T
                compare(SIGNS[sign](x, y), SIGNS[sign](definition(x), definition(y)), dtypes[0])


def test_the_page_has_the_table():
    text = (Path(__file__).parent.parent / "docs" / "algebra.md").read_text(encoding="utf-8")
    assert page() in text
