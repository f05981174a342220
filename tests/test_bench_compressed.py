"""The benchmark of tables compressed after training: its contestants, and a corpus that takes no time."""

import numpy as np
import pytest

from bench import compressed
from ketcore.demo.data import Corpus, Split, average_words, build_vocabulary

TEXTS = ["open the door", "open a window", "shut the door", "shut a window now"]
WORDS = 30


@pytest.fixture
def corpus(monkeypatch):
    vocabulary = build_vocabulary([*TEXTS, *(f"word{n}" for n in range(WORDS - 8))])
    split = Split(average_words(TEXTS, vocabulary), np.array([0, 0, 1, 1]))
    found = Corpus(split, split, split, ("open", "shut"), vocabulary)
    monkeypatch.setattr(compressed, "corpus", lambda: found)
    return found


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def test_a_low_rank_table_and_its_vjp():
    left, right, ids, cotangent = draw(5, 2), draw(2, 256), np.array([1, 4]), draw(2, 256)
    table = compressed.low_rank_table(5, 2)
    assert np.allclose(table.rows((left, right), ids), (left @ right)[ids])
    d_left, d_right = table.vjp((left, right), ids, cotangent)
    assert np.isclose(np.vdot(d_left, left), np.vdot(cotangent, table.rows((left, right), ids)))
    assert np.isclose(np.vdot(d_right, right), np.vdot(cotangent, table.rows((left, right), ids)))
    assert not d_left[[0, 2, 3]].any()


def test_a_table_of_codes_and_its_vjp():
    codes = np.array([[0, 1], [1, 1], [0, 0]])
    centroids, ids, cotangent = draw(2, 2, 128), np.array([0, 1, 2]), draw(3, 256)
    table = compressed.codes_table(codes)
    rows = table.rows((centroids,), ids)
    assert np.array_equal(rows[1], np.concatenate([centroids[0, 1], centroids[1, 1]]))
    (gradient,) = table.vjp((centroids,), ids, cotangent)
    assert np.isclose(np.vdot(gradient, centroids), np.vdot(cotangent, rows))
    assert np.allclose(gradient[1, 1], cotangent[0, 128:] + cotangent[1, 128:])


def test_a_truncated_svd_is_exact_where_the_rank_suffices_and_follows_weights():
    dense = draw(6, 2) @ draw(2, 256)
    left, right = compressed.truncated_svd(dense, np.arange(1.0, 7.0), 2)
    assert np.allclose(left @ right, dense)
    weights = np.array([1e6, 1.0])
    left, right = compressed.truncated_svd(draw(2, 256), weights, 1)
    assert np.allclose((left @ right)[0], draw(2, 256)[0], atol=1e-2)


def test_a_table_of_codebooks_and_its_vjp():
    codes, ids, cotangent = np.array([[0, 1, 1], [1, 0, 1]], np.uint8), np.array([0, 2, 2]), draw(3, 4)
    books, decoder = draw(2, 2, 3), draw(3, 4)
    table = compressed.codebooks_table(codes)
    rows = table.rows((books, decoder), ids)
    assert np.allclose(rows[0], (books[0, 0] + books[1, 1]) @ decoder)
    d_books, d_decoder = table.vjp((books, decoder), ids, cotangent)
    assert np.isclose(np.vdot(d_books, books), np.vdot(cotangent, rows))
    assert np.isclose(np.vdot(d_decoder, decoder), np.vdot(cotangent, rows))
    assert np.allclose(d_books[0, 1], (cotangent[1] + cotangent[2]) @ decoder.T)


@pytest.mark.parametrize("weights", [None, np.arange(1.0, 61.0)])
def test_codebooks_stay_within_the_budget(weights):
    dense = (draw(60, 5) @ draw(5, 256)).astype("float32")
    found = [compressed.with_codebooks("c", dense, weights, budget, 1) for budget in (20_000, 40_000)]
    gaps = []
    for start, budget in zip(found, (20_000, 40_000), strict=True):
        assert start.bytes <= budget
        gaps.append(np.linalg.norm(start.table.rows(start.parameters, np.arange(60)) - dense))
    assert gaps[1] < gaps[0] < np.linalg.norm(dense)
    assert compressed.with_codebooks("c", dense, weights, 10_000, 1) is None


# Of rows that repeat some are drawn twice, and one of two equal centroids stays without rows.
@pytest.mark.filterwarnings("ignore:One of the clusters is empty")
@pytest.mark.parametrize("budget", [3000, 6000])
def test_codes_stay_within_the_budget_and_are_exact_for_rows_that_repeat(budget):
    dense = np.repeat(draw(2, 256).astype("float32"), 10, axis=0)
    found = compressed.product_quantised(dense, budget, 1)
    assert found.bytes <= budget
    assert np.allclose(found.table.rows(found.parameters, np.arange(20)), dense)


def test_there_are_no_codes_where_the_budget_does_not_hold_two_rows():
    assert compressed.product_quantised(draw(20, 256), 2000, 0) is None


@pytest.mark.parametrize("size", [(2, 2), (3, 1)])
def test_a_race(corpus, size):
    dense = draw(corpus.words, 256).astype("float32")
    head = np.zeros((256, 2), "float32"), np.zeros(2, "float32")
    records = compressed.race((size, 0, 2, (dense, *head), 0.01))
    names = [record["name"] for record in records]
    assert names[0] == "from_dense"
    assert "XS from scratch" in names
    assert all(0 <= record["test_after"] <= 1 for record in records)
    # A linear layer of zeros tells nothing apart.
    assert records[0]["test_before"] == 0.5
    assert 0 < records[0]["error"] < 1
    lines = compressed.summary(records, 2).splitlines()
    assert len(lines) == 1 + len(records)
    assert lines[1].startswith(f"{size[0]}/{size[1]}")


def test_the_best_rate_is_that_of_the_best_validation():
    tried = [
        [{"name": "a", "rate": rate, "validation_after": accuracy}]
        for rate, accuracy in ((1, 0.2), (2, 0.4), (3, 0.3))
    ]
    assert compressed.best_rates(tried) == {"a": 2}
