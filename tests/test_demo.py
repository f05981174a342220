"""The demo: its data, the gradient of the whole classifier, the training, the command line."""

import dataclasses
import json
import re
import sys
from importlib.resources import files

import numpy as np
import pytest
from scipy.sparse import csr_array

from ketcore import cli
from ketcore.demo import data, job, report, tables, train
from ketcore.testing import assert_vjp

FIELDS = ["name", "order", "rank", "params", "bytes", "ratio", "val_acc", "test_acc", "seconds"]
SMALL = {
    "dense": tables.dense_table(7),
    "hashed": tables.hashed_table(7, 3),
    "XS": tables.xs_table(7, 2, 3),
    "XS of odd order": tables.xs_table(7, 3, 2),
    "word2ket": tables.ket_table(7, 4, 2),
}


@pytest.fixture(scope="module")
def corpus():
    return data.load()


def test_data_are_complete(corpus):
    sizes = {"train": 100, "validation": 20, "test": 30}
    assert len(set(corpus.intents)) == 150
    for name, each in sizes.items():
        split = getattr(corpus, name)
        assert split.averages.shape == (150 * each, corpus.words)
        assert np.bincount(split.intents).tolist() == [each] * 150
        np.testing.assert_allclose(split.averages.sum(axis=1), 1, rtol=1e-6)
    for name in ("LICENSE.txt", "ATTRIBUTION.txt"):
        assert "CC BY 3.0" in (files("ketcore.data") / "clinc150" / name).read_text(encoding="utf-8")


def test_vocabulary_is_that_of_the_training_split(corpus):
    used = np.unique(corpus.train.averages.indices)
    assert used.tolist() == list(range(1, corpus.words))
    assert data.UNKNOWN in corpus.test.averages.indices


def test_data_match_their_text(corpus):
    texts = [text for split, _, text in data.read_lines() if split == "val"]
    intents = [intent for split, intent, _ in data.read_lines() if split == "val"]
    for number in (0, 1234, 2999):
        words = data.tokenize(texts[number])
        row = corpus.validation.averages[[number]]
        assert set(row.indices) == {corpus.vocabulary.get(word, data.UNKNOWN) for word in words}
        assert corpus.intents[corpus.validation.intents[number]] == intents[number]


@pytest.mark.parametrize("name", SMALL)
def test_gradient_of_the_classifier(name):
    table, rng = SMALL[name], np.random.default_rng(1)
    # Some words twice, some never; the whole in float64, for finite differences.
    averages = csr_array(rng.dirichlet(np.ones(4), size=5) @ np.eye(7)[[0, 2, 2, 6]])
    intents = np.array([0, 2, 1, 1, 0])
    start = [parameter.astype(np.float64) for parameter in table.start(rng)]
    parameters = (*start, 0.1 * rng.standard_normal((tables.COLUMNS, 3)), rng.standard_normal(3))

    def loss(*parameters):
        return np.asarray(train.loss_and_gradients(table, parameters, averages, intents)[0])

    def loss_vjp(*arguments):
        *parameters, cotangent = arguments
        gradients = train.loss_and_gradients(table, parameters, averages, intents)[1]
        return tuple(cotangent * gradient for gradient in gradients)

    assert_vjp(loss, loss_vjp, parameters, multilinear=False)


@pytest.mark.parametrize("name", SMALL)
def test_repeated_ids_of_a_table_add_up(name):
    table, rng = SMALL[name], np.random.default_rng(2)
    parameters = table.start(rng)
    ids, cotangent = np.array([3, 3, 5]), rng.standard_normal((3, tables.COLUMNS), dtype=np.float32)
    assert table.rows(parameters, ids).shape == cotangent.shape
    both = table.vjp(parameters, ids, cotangent)
    single = [table.vjp(parameters, ids[[n]], cotangent[[n]]) for n in range(3)]
    for gradient, parameter, *parts in zip(both, parameters, *single, strict=True):
        assert gradient.dtype == parameter.dtype == np.float32
        np.testing.assert_allclose(gradient, sum(parts), rtol=1e-4, atol=1e-5)


def test_tables_start_with_the_same_spread_and_the_promised_sizes():
    every = {table.name: table for table in tables.all_tables(5056)}
    ids = np.arange(0, 5056, 10)
    for name, table in every.items():
        # The entries of a product of few leaves share them: their spread varies a lot from seed to seed.
        starts = [table.start(np.random.default_rng(seed)) for seed in range(10)]
        variance = np.mean([np.square(table.rows(start, ids)).mean() for start in starts])
        assert variance**0.5 == pytest.approx(tables.START_STD, rel=0.3), name
    assert tables.count(every["hashed"]) == pytest.approx(tables.count(every["XS 2/10"]), rel=0.01)
    assert tables.count(every["dense"]) == 16 * tables.count(every["word2ket 4/1"]) == 5056 * 256


def test_adam_is_that_of_the_paper():
    rng = np.random.default_rng(3)
    # More than one of the pieces that an update is cut into.
    start = rng.standard_normal((3, 20000))
    found, moments = start.copy(), [(np.zeros_like(start), np.zeros_like(start))]
    mean, square, expected = 0.0, 0.0, start.copy()
    for step in (1, 2, 3):
        # Away from 0, where the 1e-8 in the denominator would count.
        gradient = rng.choice([-1.0, 1.0], start.shape) * rng.uniform(0.5, 1.5, start.shape)
        train.adam_step([found], [gradient], moments, step, [0.1])
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        unbiased = square / (1 - 0.999**step)
        expected -= 0.1 * mean / (1 - 0.9**step) / np.sqrt(unbiased)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_training_learns_and_repeats(corpus):
    table = tables.xs_table(corpus.words, 4, 1)
    lines = []
    first, second = (train.fit(table, corpus, 2, 5, lines.append) for _ in range(2))
    assert first.losses[1] < first.losses[0] < np.log(150)
    assert first.test_accuracy > 0.6
    assert len(lines) == 4
    assert first.losses == second.losses
    for one, other in zip(first.parameters, second.parameters, strict=True):
        np.testing.assert_array_equal(one, other)


def test_result_is_that_of_the_best_epoch(corpus, monkeypatch):
    accuracies = iter([0.2, 0.7, 0.5, 0.9])
    seen = []

    def measure(table, parameters, split):
        seen.append(parameters[-1].copy())
        return next(accuracies)

    monkeypatch.setattr(train, "measure", measure)
    few = data.Split(corpus.train.averages[:300], corpus.train.intents[:300])
    table = tables.xs_table(corpus.words, 4, 1)
    result = train.fit(table, dataclasses.replace(corpus, train=few), 3, 0, lambda line: None)
    assert (result.validation_accuracy, result.test_accuracy) == (0.7, 0.9)
    np.testing.assert_array_equal(result.parameters[-1], seen[1])
    np.testing.assert_array_equal(seen[3], seen[1])


def test_demo_writes_json_and_picture_and_answers(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    saved, picture = tmp_path / "results.json", tmp_path / "results.png"
    question = "please translate hello to xyzzy"
    words = ["demo", "--epochs", "1", "--only", "XS 4/1", "--ask", question]
    assert cli.main([*words, "--json", str(saved), "--plot", str(picture)]) == 0
    (record,) = json.loads(saved.read_text(encoding="utf-8"))
    assert list(record) == FIELDS
    assert record | {"seconds": 0, "val_acc": 0, "test_acc": 0} == {
        "name": "XS 4/1",
        "order": 4,
        "rank": 1,
        "params": 136,
        "bytes": 544,
        "ratio": 9517.2,
        "val_acc": 0,
        "test_acc": 0,
        "seconds": 0,
    }
    assert 0.4 < record["test_acc"] < 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert f"XS 4/1            136    544  9,517.2x          {record['test_acc']:.3f}" in printed
    assert f"{question} (unknown: xyzzy)\nXS 4/1  " in printed


def test_several_seeds_give_means_and_spreads(tmp_path, capsys):
    saved = tmp_path / "results.json"
    words = ["demo", "--epochs", "1", "--only", "xs 4/1", "--json", str(saved)]
    single = []
    for seed in ("3", "4"):
        cli.main([*words, "--seed", seed])
        single.append(json.loads(saved.read_text(encoding="utf-8"))[0]["test_acc"])
    cli.main([*words, "--seed", "3", "--seeds", "2"])
    (record,) = json.loads(saved.read_text(encoding="utf-8"))
    assert list(record) == [*FIELDS, "seeds", "val_acc_std", "test_acc_std"]
    assert record["test_acc"] == pytest.approx(np.mean(single))
    assert record["test_acc_std"] == pytest.approx(np.std(single, ddof=1))
    assert f"{record['test_acc']:.3f} +- {record['test_acc_std']:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "XS 4/1", "XS 5/1"], "--only must name tables among 'dense', .*, got 'XS 5/1'"),
        (["--ask", "xyzzy plugh"], "--ask must have a word of the training split, got 'xyzzy plugh'"),
        (["--ask", ""], "--ask must have a word of the training split, got ''"),
        (["--json", "{}/no/folder.json"], "--json must be a writable file, got .*: No such file"),
        (["--plot", "{}/no/folder.png"], "--plot must be a writable file, got .*: No such file"),
        (["--plot", "{}/picture.xyz"], "--plot must end in one of .*.png.*, got .*xyz"),
        (["--json", "{}"], "--json must be a writable file, got .*: Is a directory"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--epochs", "x"], "argument --epochs: invalid int value: 'x'"),
    ],
)
def test_bad_options_are_found_before_the_training(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(job, "fit", None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", *(word.format(tmp_path) for word in words)])
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_without_tqdm_and_matplotlib(tmp_path, monkeypatch, capsys):
    for name in ("tqdm", "matplotlib", "matplotlib.backend_bases"):
        monkeypatch.setitem(sys.modules, name, None)
    with job.progress_bar(2) as progress:
        progress("XS 4/1: epoch 1")
    assert capsys.readouterr().out == "XS 4/1: epoch 1\n"
    with pytest.raises(SystemExit):
        cli.main(["demo", "--plot", str(tmp_path / "picture.png")])
    assert "--plot must have matplotlib, got none installed" in capsys.readouterr().err


def test_labels_of_the_picture_do_not_overlap():
    agg = pytest.importorskip("matplotlib.backends.backend_agg")
    accuracies = (0.92, 0.917, 0.91, 0.889, 0.872, 0.855, 0.903, 0.65)
    records = []
    for table, accuracy in zip(tables.all_tables(5056), accuracies, strict=True):
        size = 4 * tables.count(table)
        ratio = 5056 * 1024 / size
        records.append({"name": table.name, "bytes": size, "ratio": ratio, "test_acc": accuracy})
    figure = report.draw_picture(records)
    canvas = agg.FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in axes.texts]
    assert len(boxes) == 8
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert axes.bbox.contains(*box.min)
        assert axes.bbox.contains(*box.max)


def test_command_line_without_a_command(capsys):
    assert cli.main([]) == 2
    assert "demo" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("ketcore ")
