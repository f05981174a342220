"""The benchmark of codebooks, on tables that take no time."""

import sys

import numpy as np
import pytest

import ketcore as kc
from bench import codebooks


def test_the_lines_of_a_table():
    table = codebooks.decaying(300, 12, np.random.default_rng(0)).astype(np.float16)
    settings = ((1, 16, None, False), (2, 16, 4, True))
    head, *lines = (line.split() for line in codebooks.table_lines(table, settings))
    assert head == ["n_codes", "size", "width", "scale", "bytes", "ratio", "error", "SVD"]
    first, second = (dict(zip(head, line, strict=True)) for line in lines)
    # Codes of a byte; vectors in float16.
    assert first["bytes"] == str(300 + 2 * 16 * 12)
    assert second["bytes"] == f"{2 * 300 + 2 * 2 * 16 * 4 + 2 * 4 * 12 + 2 * 300:,}"
    assert float(first["ratio"]) == pytest.approx(4 * 300 * 12 / (300 + 2 * 16 * 12), abs=0.05)
    value = kc.fit_codebooks(table, 1, 16, 12, rng=0)
    assert float(first["error"]) == pytest.approx(value.error, abs=6e-4)
    assert 0 < float(second["SVD"]) < 1


def test_the_lines_of_a_file(tmp_path):
    first, second, third = codebooks.speed_lines(700, 8, 2, tmp_path)
    assert first.startswith("700 x 8 in float32, 2 codes: error 0.")
    assert second.endswith(" s of CPU time")
    assert " MB at most" in third


@pytest.mark.skipif(sys.platform != "linux", reason="it asks Linux for its pages")
def test_the_lines_of_mapped_codes(tmp_path, capsys):
    head, names, *times, resident, rows = codebooks.scale_lines(5000, tmp_path, ids=100)
    assert head == "5,000 words x 256: a file of 0 MB"
    assert names.split() == ["100", "words", "wall", "processor"]
    assert len(times) == 5
    assert all(line.endswith(" ms") for line in times)
    assert resident.startswith("resident memory grew by ")
    assert rows.endswith("the rows have 0 MB")
    assert capsys.readouterr().err.endswith("words written: 5,000 of 5,000\n")


def test_every_k_means_comes_as_near():
    lines = list(codebooks.kmeans_lines((400, 5), 8))
    assert lines[0].startswith("ketcore.fit.kmeans.cluster ")
    errors = [float(line.split()[-1]) for line in lines]
    assert max(errors) < 1.05 * min(errors)
    points = codebooks.decaying(400, 5, np.random.default_rng(0))
    (_, ours), (_, scipys), *_ = codebooks.kmeans_contestants(points, 8)
    assert np.allclose(ours(), scipys(), atol=1e-5)
