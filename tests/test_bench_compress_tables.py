"""The benchmark of compressed tables, on one that takes no time."""

import sys
from types import ModuleType

import numpy as np

from bench import compress_tables


def test_methods_are_measured_beside_what_people_said(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((300, 12)).astype(np.float32)
    np.save(tmp_path / "table.npy", dense)
    (tmp_path / "words").write_text("\n".join(f"w{n}" for n in range(300)), encoding="utf-8")
    units = dense / np.linalg.norm(dense, axis=1, keepdims=True)
    pairs = rng.integers(0, 300, (50, 2))
    said = [f"W{a}\tw{b}\t{units[a] @ units[b]}" for a, b in pairs]
    (tmp_path / "pairs.tsv").write_text("\n".join(["# a comment", "no\tword\t3", *said]), encoding="utf-8")

    class Decomposed:
        """That of compress-fasttext, of whose products there is no room here."""

        @staticmethod
        def compress(data, rank):
            left, values, right = np.linalg.svd(data, full_matrices=False)
            return (left[:, :rank] * values[:rank]) @ right[:rank]

    for name, value in (("decomposition", Decomposed), ("quantization", None)):
        module = ModuleType(f"compress_fasttext.{name}")
        module.DecomposedMatrix, module.quantize = value, value
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "compress_fasttext", ModuleType("compress_fasttext"))
    files = ["--words", str(tmp_path / "words"), "--similar", str(tmp_path / "pairs.tsv")]
    options = ["--ratio", "4", "--without", "pq"]
    compress_tables.main([str(tmp_path / "table.npy"), *files, *options])
    title, head, *lines = capsys.readouterr().out.splitlines()
    assert title == "300 words, 12 columns, as they are:  1.000 (50)"
    assert head.split()[-2:] == ["seconds", "pairs"]
    names = ["int8", "int4", "int2", "codebooks", "lowrank", "pruned", "compress-fasttext"]
    assert [line.split()[0] for line in lines] == names
    assert "svd, 5 components" in lines[-1]
    found = {line.split()[0]: float(line.split()[-1]) for line in lines}
    assert 1 > found["int4"] > found["lowrank"] > 0.2
