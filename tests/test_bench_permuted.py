"""The benchmark of tables in the order of similar words, on one that takes no time."""

import numpy as np
import pytest

from bench import permuted


def test_tables_of_groups_are_nearer_in_the_order_of_similar_words(tmp_path, capsys):
    rng = np.random.default_rng(0)
    table = 9 * rng.standard_normal((20, 9))[rng.permutation(np.arange(400) % 20)]
    np.save(tmp_path / "table.npy", table)
    permuted.main([str(tmp_path / "table.npy"), "--ratio", "5", "--ratio", "1e9"])
    title, head, line = capsys.readouterr().out.splitlines()
    assert title == "400 words, 9 columns"
    assert head.split() == ["dims", "rank", "ratio", "as", "given", "permuted", "seconds"]
    assert line.split()[:2] == ["20x20", "3x3"]
    rank, ratio, given, found, _ = map(float, line.split()[2:])
    # 20 x 3 numbers of each factor in a term.
    assert (rank, ratio) == (6, 5)
    assert found < 0.01 < 0.5 < given


def test_an_order_of_three(capsys):
    table = np.random.default_rng(0).standard_normal((27, 8)).astype("float32")
    (case,) = permuted.cases(table, ((3, 3, 3), (2, 2, 2)), [10])
    assert case.rank == 1
    assert case.ratio == pytest.approx(27 * 8 / 18)
    assert 0 < case.permuted < 1
