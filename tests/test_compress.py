"""`ketcore compress`, `decompress`, `inspect`: what is written is what was measured; what may go wrong."""

import json
import os
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import cli
from ketcore.compress import (
    bars,
    command,
    dense_files,
    frames,
    job_options,
    measures,
    methods,
    product_tables,
    verdicts,
)
from ketcore.compress.measures import Measures, Probe
from ketcore.compress.table_files import Table

WORDS, COLUMNS = 400, 24
RNG = np.random.default_rng(5)
# Some columns more than others, as of trained tables.
DENSE = (RNG.standard_normal((WORDS, COLUMNS)) * np.linspace(2, 0.2, COLUMNS)).astype(np.float32)
NAMES = [f"word{n}" for n in range(WORDS)]
BUDGETS = {"int8": 3, "int4": 6, "int2": 8, "pq": 4, "codebooks": 4, "lowrank": 3}
# What they lose at these ratios, with a little room.
ERRORS = {"int8": 0.007, "int4": 0.12, "int2": 0.41, "pq": 0.13, "codebooks": 0.33, "lowrank": 0.28}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """So many are for shares that are known to a hundredth."""
    monkeypatch.setattr(measures, "PAIRS", 2000)
    monkeypatch.setattr(measures, "QUERIES", 50)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.npy"
    np.save(path, DENSE)
    return str(path)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "table.vec"
    lines = [f"{name} {' '.join(map(str, row))}" for name, row in zip(NAMES, DENSE, strict=True)]
    path.write_text(f"{WORDS} {COLUMNS}\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def error_of(capsys):
    return capsys.readouterr().err


@pytest.mark.parametrize("name", BUDGETS)
def test_a_file_is_what_was_measured(name, table, tmp_path, capsys):
    out, records = tmp_path / "out", tmp_path / "records"
    ratio = BUDGETS[name]
    assert run("compress", table, "--ratio", ratio, "--method", name, "--output", out, "--json", records) == 0
    found, record = kc.load(out), json.loads(records.read_text(encoding="utf-8"))
    result = record["results"][0]
    assert result["name"] == name
    assert result["nbytes"] == found.nbytes <= DENSE.nbytes / ratio
    rows = found.rows(np.arange(WORDS))
    error = np.linalg.norm(rows - DENSE) / np.linalg.norm(DENSE)
    np.testing.assert_allclose(result["error"], error, rtol=1e-5)
    assert error < ERRORS[name]
    np.testing.assert_array_equal(kc.load(out, "r").rows([7, 3]), rows[[7, 3]])
    assert f"{out}: {name}, {found.nbytes:,} bytes" in capsys.readouterr().out


def test_all_methods_are_compared_and_the_best_is_taken(text, tmp_path, capsys):
    out, records, counts = tmp_path / "out", tmp_path / "records", tmp_path / "counts"
    counts.write_text("".join(f"{WORDS - n}\n" for n in range(WORDS)), encoding="ascii")
    options = "--ratio", 5, "--weights", counts, "--json", records, "--output", out
    assert run("compress", text, *options) == 0
    printed, record = capsys.readouterr().out, json.loads(records.read_text(encoding="utf-8"))
    results = {result["name"]: result for result in record["results"]}
    assert [*results][-2:] == ["pruned", "random"]
    assert all(results[name]["control"] == (name in ("pruned", "random")) for name in results)
    assert all(result["nbytes"] <= 4 * DENSE.size / 5 for result in results.values())
    scores = {n: r["cosines"] + r["neighbours"] for n, r in results.items() if not r["control"]}
    best = max(scores, key=scores.get)
    assert f"{out}: {best}, " in printed
    assert record["verdict"] in printed
    assert abs(results["random"]["cosines"]) < 0.1
    assert kc.load_words(out) == NAMES
    assert [line.split()[0] for line in printed.splitlines() if "(control)" in line] == ["pruned", "random"]
    assert len(record["energy"]) == COLUMNS
    assert record["energy"][-1] == pytest.approx(1)


def test_words_that_are_held_out_are_measured_and_not_fitted(table, tmp_path, monkeypatch):
    seen = []
    make = methods.METHODS[3].make

    def kept(frame, *rest):
        seen.append(np.flatnonzero(frame.weights == 0))
        return make(frame, *rest)

    replaced = [m._replace(make=kept) if m.name == "pq" else m for m in methods.METHODS]
    monkeypatch.setattr(command, "METHODS", tuple(replaced))
    probes = []
    monkeypatch.setattr(command, "Probe", lambda *a: probes.append(a) or Probe(*a))
    out, records = tmp_path / "out", tmp_path / "records"
    options = "--ratio", 4, "--method", "pq", "--holdout", 0.25, "--output", out, "--json", records
    assert run("compress", table, *options) == 0
    first, second = seen
    assert len(first) == WORDS / 4
    np.testing.assert_array_equal(first, probes[0][3])
    results = {
        result["name"]: result for result in json.loads(records.read_text(encoding="utf-8"))["results"]
    }
    # Rows of words that are held out may be kept.
    assert results["pruned"]["neighbours"] > 0.05
    assert not len(second)
    assert run("compress", table, "--ratio", 4, "--method", "pq", "--output", tmp_path / "all") == 0
    np.testing.assert_array_equal(kc.load(out).to_dense(), kc.load(tmp_path / "all").to_dense())


def test_controls_are_those_of_their_definitions():
    weights = RNG.permutation(WORDS) + 1.0
    frame = frames.framed(Table(DENSE, None, "float32"), weights, np.random.default_rng(0))
    heaviest, others = np.split(np.argsort(-weights), [10])
    rows = methods.pruned_rows(frame, 10 * (2 * COLUMNS + 4))(np.arange(WORDS))
    np.testing.assert_array_equal(rows[heaviest], DENSE[heaviest])
    mean = np.broadcast_to(weights @ DENSE / weights.sum(), (len(others), COLUMNS))
    np.testing.assert_allclose(rows[others], mean, rtol=1e-4, atol=1e-4)
    read = methods.random_rows(frame, np.random.default_rng(0))
    rows = read(np.arange(WORDS))
    np.testing.assert_array_equal(rows[[7, 3]], read(np.array([7, 3])))
    assert np.sqrt(np.square(rows).mean()) == pytest.approx(frame.unit, rel=0.1)
    squares = (weights @ np.square(DENSE)).sum() / (weights.sum() * COLUMNS)
    assert frame.unit == pytest.approx(squares**0.5, rel=1e-4)
    assert len(np.unique(rows, axis=0)) == WORDS


def test_codebooks_of_held_out_words_know_nothing_of_them():
    other = DENSE.copy()
    other[::4] = 100
    weights = np.where(np.arange(WORDS) % 4, 1.0, 0.0)
    for method in methods.METHODS[:5]:
        books = []
        for dense in (DENSE, other):
            frame = frames.framed(Table(dense, None, "float32"), weights, np.random.default_rng(0))
            made = method.make(frame, method.sizes(frame, DENSE.nbytes / 14), np.random.default_rng(0))
            books.append(made.decoder if made.codes is None else made.codebooks[-1])
        known, other_known = [book.astype(np.float64) for book in books]
        # Sums are rounded otherwise, and one point of k-means may fall to the other side.
        assert np.linalg.norm(known - other_known) < 0.1 * np.linalg.norm(known), method.name


def test_measures_are_those_of_their_definitions():
    near = DENSE + 0.3 * RNG.standard_normal(DENSE.shape).astype(np.float32)
    weights = RNG.uniform(0.1, 1, WORDS)
    probe = Probe(lambda ids: DENSE[ids], WORDS, weights, np.arange(WORDS), np.random.default_rng(0))
    found = probe.measure(lambda ids: near[ids])
    gap, norm = [weights @ np.square(x).sum(axis=1) for x in (DENSE - near, DENSE)]
    np.testing.assert_allclose(found.error, (gap / norm) ** 0.5, rtol=1e-5)
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (DENSE, near)]
    scores = [u @ u.T - 2 * np.eye(WORDS) for u in units]
    nearest = [np.argsort(-s, axis=1)[probe.queries, :10] for s in scores]
    kept = np.mean([len({*a} & {*b}) / 10 for a, b in zip(*nearest, strict=True)])
    np.testing.assert_allclose(found.neighbours, kept, atol=1e-3)
    pairs = [s[tuple(probe.pairs)] for s in scores]
    ranks = [np.argsort(np.argsort(p)) for p in pairs]
    np.testing.assert_allclose(found.cosines, np.corrcoef(*ranks)[0, 1], atol=0.02)
    assert probe.measure(lambda ids: DENSE[ids]) == Measures(0.0, 1.0, 1.0)
    asked = np.arange(0, WORDS, 9)
    some = Probe(lambda ids: DENSE[ids], WORDS, weights, asked, np.random.default_rng(0))
    assert np.isin(some.pairs, asked).all()
    np.testing.assert_array_equal(some.queries, asked)
    gap, norm = [weights[asked] @ np.square(x[asked]).sum(axis=1) for x in (DENSE - near, DENSE)]
    np.testing.assert_allclose(some.measure(lambda ids: near[ids]).error, (gap / norm) ** 0.5, rtol=1e-5)
    assert probe.measure(lambda ids: np.zeros_like(DENSE[ids])).cosines == 0
    # Rows of zeros, and of one value: they have no order of pairs, and keep what there is of it.
    for dense in (np.zeros((20, 4), np.float32), np.ones((20, 4), np.float32)):
        flat = Probe(lambda ids, d=dense: d[ids], 20, np.ones(20), np.arange(20), np.random.default_rng(0))
        assert flat.measure(lambda ids, d=dense: d[ids]) == Measures(0.0, 1.0, 1.0)
        assert flat.measure(lambda ids: DENSE[ids, :4]).cosines == 0


@given(st.integers(2, 90), st.integers(1, 12), st.integers(1, 25), st.integers(0, 2**32 - 1))
def test_the_nearest_are_those_of_all_scores(words, columns, size, seed):
    """Few values give equal scores and rows of zeros, of which the first words are taken."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(-1, 2, (words, columns)).astype(np.float32)
    queries = np.arange(0, words, 16)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(measures, "_BLOCK", size * max(len(queries), columns))
        found = measures._nearest(lambda ids: dense[ids], words, queries)
    units = dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-9)
    scores = (units[queries] @ units.T).round(5)
    scores[np.arange(len(queries)), queries] = -np.inf
    kept = np.take_along_axis(scores, found, 1)
    wanted = np.sort(scores, axis=1)[:, ::-1][:, : min(10, words - 1)]
    np.testing.assert_allclose(-np.sort(-kept, axis=1), wanted, atol=1e-4)
    assert all(len({*row}) == len(row) for row in found)
    zeros = np.flatnonzero(~dense[queries].any(axis=1))
    for place in zeros:
        others = np.delete(np.arange(words), queries[place])
        np.testing.assert_array_equal(np.sort(found[place]), others[: found.shape[1]])


@pytest.mark.parametrize("kind", ["zeros", "one row", "few words", "huge", "tiny", "column"])
def test_tables_at_the_edges(kind, tmp_path):
    tables = {
        "zeros": np.zeros((20, 4)),
        "one row": np.ones((20, 4)),
        "few words": DENSE[:5, :3],
        "huge": DENSE[:50].astype(np.float64) * 1e15,
        "tiny": DENSE[:50].astype(np.float64) * 1e-15,
        "column": DENSE[:, :1],
    }
    path, out = tmp_path / "table.npy", tmp_path / "out"
    np.save(path, tables[kind])
    assert run("compress", path, "--ratio", 1.5, "--output", out) == 0
    found = kc.load(out).to_dense()
    assert np.linalg.norm(found - tables[kind]) <= 0.2 * np.linalg.norm(tables[kind])


def test_decompress_gives_rows_and_words_back(text, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("compress", text, "--ratio", 4, "--method", "int4", "--output", out) == 0
    rows = kc.load(out).to_dense()
    for ending in ("npy", "safetensors", "txt"):
        dense = tmp_path / f"dense.{ending}"
        assert run("decompress", out, "--output", dense, "--words", tmp_path / ending) == 0
        table = command.read_table(str(dense))
        np.testing.assert_array_equal(table.rows(slice(None)), rows)
        assert table.words == (NAMES if ending == "txt" else None)
        assert (tmp_path / ending).read_text(encoding="utf-8").split() == NAMES
    assert run("decompress", out, "--output", tmp_path / "half.npy", "--dtype", "float16") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "half.npy"), rows.astype(np.float16))
    capsys.readouterr()
    assert run("inspect", out) == 0
    printed = capsys.readouterr().out
    for part in (
        "CodebookTable(shape=(400, 24)",
        "words: 'word0', 'word1'",
        "U8 [1, 400, ",
        "in float32 38,400: a ratio of ",
    ):
        assert part in printed


def test_wrong_outputs_are_named_and_nothing_is_lost(table, tmp_path, capsys):
    there = tmp_path / "there"
    there.write_bytes(b"mine")
    link = tmp_path / "link"
    os.link(table, link)
    for path, said in (
        (there, "which is there (--force replaces it)"),
        (tmp_path, "and not of a folder"),
        (table, "another file than those of other options and of what is read"),
        (link, "another file than those"),
        ("a\0b", "must be the name of a file, and"),
        ("", "must be the name of a file, and"),
        (tmp_path / "no" / "file", "must lie in a folder that is there"),
    ):
        assert (
            run(
                "compress",
                table,
                "--ratio",
                4,
                "--output",
                path,
                "--force"[: 7 * (path != there)] or "--seed=0",
            )
            == 1
        )
        assert said in error_of(capsys)
    assert there.read_bytes() == b"mine"
    assert run("compress", table, "--ratio", 4, "--method", "pq", "--json", there) == 1
    assert run("compress", table, "--ratio", 4, "--method", "pq", "--output", there, "--force") == 0
    assert kc.load(there).shape == DENSE.shape
    assert run("decompress", there, "--output", tmp_path / "x.csv") == 1
    assert "--output must end in one of .npy" in error_of(capsys)
    assert run("decompress", there, "--output", tmp_path / "x.txt") == 1
    assert "FILE must have words for --output" in error_of(capsys)
    assert run("decompress", table, "--output", tmp_path / "x.npy") == 1
    assert "must be a file of ketcore.save" in error_of(capsys)
    assert run("inspect", tmp_path / "missing") == 1
    assert "No such file" in error_of(capsys)
    kc.save(there, kc.ket([1.0, 2.0]))
    assert run("decompress", there, "--output", tmp_path / "x.npy") == 1
    assert "must hold a table of words, got" in error_of(capsys)


def test_wrong_ratios_say_the_largest(table, tmp_path, capsys):
    assert run("compress", table, "--ratio", 1e6) == 1
    found = error_of(capsys)
    most = float(found.split("at most ")[1].split()[0].replace(",", ""))
    frame = frames.framed(Table(DENSE, None, "float32"), np.ones(WORDS), np.random.default_rng(0))
    reached = [m for m in methods.METHODS if m.sizes(frame, DENSE.nbytes / (most * 0.999))]
    assert reached
    assert not [m for m in methods.METHODS if m.sizes(frame, DENSE.nbytes / (most * 1.01))]
    for words in range(50, 400, 100):
        np.save(table, DENSE[:words])
        assert run("compress", table, "--ratio", 1e6, "--method", "int2") == 1
        most = error_of(capsys).split("at most ")[1].split()[0].replace(",", "")
        assert run("compress", table, "--ratio", most, "--method", "int2") == 0
    for option in (
        ["--ratio", "0.5"],
        ["--ratio", "nan"],
        ["--ratio", "x"],
        ["--ratio", "4", "--holdout", "1"],
    ):
        with pytest.raises(SystemExit) as stopped:
            run("compress", table, *option)
        assert stopped.value.code == 2


def test_an_output_that_nobody_reads_costs_no_file(table, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def closed(text, **_):
        if text.startswith("method"):
            raise BrokenPipeError

    monkeypatch.setattr(command, "print", closed, raising=False)
    monkeypatch.setattr(cli, "drop", lambda _: None)
    assert run("compress", table, "--ratio", 4, "--method", "int4", "--output", out) == 141
    assert kc.load(out).shape == DENSE.shape


def test_what_was_measured_is_said_where_nothing_can_be_written(table, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "save", full)
    assert run("compress", table, "--ratio", 4, "--method", "int4", "--output", tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "Take int4" in said.out
    assert "No space left on device" in said.err


@pytest.mark.parametrize("where", ["fit", "write", "decompress"])
def test_an_interrupted_run_leaves_no_half_file(where, table, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert run("compress", table, "--ratio", 4, "--method", "int4", "--output", out) == 0
    before, names = out.read_bytes(), {*os.listdir(tmp_path)}

    def interrupt(*_):
        raise KeyboardInterrupt

    if where == "decompress":
        monkeypatch.setattr(dense_files, "_write", lambda file, *_: file.write(b"half") and interrupt())
        assert run("decompress", out, "--output", tmp_path / "x.npy") == 130
    else:
        place = (np.linalg, "qr") if where == "fit" else (os, "fsync")
        monkeypatch.setattr(*place, interrupt)
        arguments = "compress", table, "--ratio", 12, "--method", "int4", "--output", out, "--force"
        assert run(*arguments) == 130
    monkeypatch.undo()
    assert out.read_bytes() == before
    assert {*os.listdir(tmp_path)} == names
    assert "interrupted" in capsys.readouterr().out


def test_a_method_without_its_package_is_left_out(table, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    assert run("compress", table, "--ratio", 4) == 0
    assert "left out: pq: " in capsys.readouterr().out
    assert run("compress", table, "--ratio", 4, "--method", "pq") == 1
    assert "pip install" in error_of(capsys)


def test_a_picture_is_saved(table, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "picture.png"
    assert run("compress", table, "--ratio", 6, "--method", "int2", "--plot", path) == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_bars_are_for_terminals_alone(monkeypatch, capsys):
    with bars.progress("reading", 3) as tick:
        tick(3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with bars.progress("reading", 3) as tick:
        tick(3)
    assert "reading" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with bars.progress("reading", 3) as tick:
        tick(3)
    assert capsys.readouterr().err == "reading ...\n"


def test_sentences_follow_their_thresholds():
    def said(neighbours, cosines):
        result = verdicts.Result("pq", 1, Measures(0.5, cosines, neighbours), 1.0)
        return verdicts.verdict(result, 25.0)

    near, far = [verdicts.Result("pq", 1, Measures(0.5, share, share), 1.0) for share in (0.9, 0.2)]
    assert verdicts.best_result([near._replace(control=True), far, far._replace(name="int2")]) == far
    assert verdicts.best_result([far, near]) == near
    for neighbours, cosines, text in verdicts.LEVELS:
        assert said(neighbours, cosines) == f"Take pq: {text}."
        assert text not in said(neighbours - 0.01, cosines)
        assert text not in said(neighbours, cosines - 0.01)
    alone = verdicts.verdict(verdicts.Result("pq", 1, Measures(0.5, 0.5, 0.1), 1.0), 25.0, alone=True)
    assert alone.startswith("At 25x pq is not worth having: it keeps 10% of")
    assert said(0.1, 0.5).startswith("Nothing at 25x is worth having: the best, pq, keeps 10% of")
    assert "is low-rank: 1 of 8" in verdicts.low_rank_sentence(np.array([0.95, *[0.05 / 7] * 7]))
    assert "not low-rank: 90% of its energy takes 8 of 8" in verdicts.low_rank_sentence(np.full(8, 1 / 8))


def test_every_method_can_be_named():
    assert [*job_options.NAMES] == ["auto", *(method.name for method in methods.METHODS)]


@pytest.mark.parametrize(("columns", "pieces"), [(1, 1), (5, 2), (5, 4), (7, 3), (7, 7), (24, 5)])
def test_products_of_pieces_are_exact_where_there_are_vectors_enough(columns, pieces):
    """Pieces of any length, in as many bytes as was said."""
    dense = RNG.integers(-3, 4, (16, columns)).astype(np.float32)
    frame = frames.framed(Table(dense, None, "float32"), np.ones(16), np.random.default_rng(0))
    sizes = product_tables.ProductSizes(pieces, 16)
    found = product_tables.product_table(frame, sizes, np.random.default_rng(0))
    assert found.nbytes == product_tables.product_bytes(frame, sizes)
    # Vectors are rounded to float16, each number once.
    np.testing.assert_allclose(found.to_dense(), dense, atol=4e-3)
