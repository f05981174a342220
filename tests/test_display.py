"""What objects say of themselves."""

import re

import numpy as np
import pytest

from ketcore.objects.display import as_html, as_text, sizes
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import Diagonal, Identity, KroneckerProduct
from ketcore.shapes import check_dense_size, in_words
from ketcore.structure import swap


def test_a_matrix_says_what_it_is():
    m = KroneckerMatrix.random((30428, 256), row_dims=(14,) * 4, col_dims=(4,) * 4, rng=0, dtype="float32")
    assert repr(m) == (
        "KroneckerMatrix(shape=(30428, 256), order=4, rank=1, row_dims=(14, 14, 14, 14), "
        "col_dims=(4, 4, 4, 4), dtype=float32, parameters=224, bytes=896, ratio=34,775x)"
    )
    page = m._repr_html_()
    for fact in ("order", "rank", "row_dims", "parameters", "bytes", "ratio"):
        assert f"<th>{fact}</th>" in page
    assert "<td>34,775x</td>" in page


def test_a_ket_says_what_it_is():
    v = Ket([np.ones((1000, 2, 4)), np.ones((1000, 2, 8))])
    assert repr(v) == (
        "Ket(shape=(1000, 32), order=2, rank=2, dims=(4, 8), dtype=float64, parameters=24,000, "
        "bytes=192,000, ratio=1.33x)"
    )
    rows = re.findall("<tr><th>(.*?)</th><td>(.*?)</td></tr>", v._repr_html_())
    assert dict(rows)["dims"] == "(4, 8)"
    assert [name for name, _ in rows][:3] == ["shape", "order", "rank"]


def test_other_operators_say_what_they_are():
    parts = KroneckerProduct([np.ones((2, 3)), Identity(4), Diagonal([1.0])])
    assert repr(parts) == "KroneckerProduct(dense(2, 3), Identity(4, 4), Diagonal(1, 1), dtype=float64)"
    assert "<th>parts</th><td>dense(2, 3), Identity(4, 4), Diagonal(1, 1)</td>" in parts._repr_html_()
    assert repr(swap((2, 3), 0, 1)) == "Permutation(dims=(2, 3), order=(1, 0))"
    assert "<th>order</th><td>(1, 0)</td>" in swap((2, 3), 0, 1)._repr_html_()


def test_a_subclass_is_named_by_its_own_name():
    class Own(KroneckerProduct):
        pass

    own = Own([np.ones((2, 3)), Identity(4)])
    assert repr(own) == "Own(dense(2, 3), Identity(4, 4), dtype=float64)"
    assert "<caption>Own</caption>" in own._repr_html_()


def test_html_is_escaped():
    assert as_html("<b>", {"a&b": "<i>"}) == (
        "<table><caption>&lt;b&gt;</caption><tr><th>a&amp;b</th><td>&lt;i&gt;</td></tr></table>"
    )
    assert as_text("Ket", {}) == "Ket()"


def test_ratios_of_any_size():
    assert sizes(10, 80, 40)["ratio"] == "0.5x"
    assert sizes(0, 0, 5)["ratio"] == "inf"
    assert sizes(1, 1, 2**2000)["ratio"].startswith(
        "114,813,069,527,425,452,423,283,320,117,768,198,402,231,770,"
    )
    assert repr(KroneckerMatrix([np.eye(2)] * 1100)).endswith("x)")


@pytest.mark.parametrize(
    ("nbytes", "words"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (2**30, "1 GiB"),
        (2**43, "8 TiB"),
    ],
)
def test_bytes_in_words(nbytes, words):
    assert in_words(nbytes) == words


def test_the_guard_names_the_size():
    check_dense_size(4, 8, "(4,) array of float64", 32)
    with pytest.raises(MemoryError) as error:
        check_dense_size(2**40, 8, "(1099511627776,) array of float64", 2**30)
    assert str(error.value) == (
        "max_bytes must be at least 8796093022208 (8 TiB) to hold the dense (1099511627776,) "
        "array of float64, got 1073741824"
    )
