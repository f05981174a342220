"""The demo: its data, the gradient of the whole classifier, the training, the command line."""

import dataclasses
import json
import re
import sys
from argparse import Namespace
from importlib.resources import files

import numpy as np
import pytest
from scipy.sparse import csr_array

from ketcore import PackedCodes, QuantizedArray, cli, quantize
from ketcore.demo import choice, data, equal_bytes, job, report, tables, train
from ketcore.testing import assert_vjp

FIELDS = ["name", "order", "rank", "params", "bytes", "ratio", "val_acc", "test_acc", "seconds"]
SMALL = {
    "dense": tables.dense_table(7),
    "hash": equal_bytes.hash_table(7, 3),
    "XS": tables.xs_table(7, 2, 3),
    "XS of odd order": tables.xs_table(7, 3, 2),
    "XS with a scale": tables.scaled_xs_table(7, 2, 3),
    "word2ket": tables.ket_table(7, 4, 2),
    "codes": equal_bytes.code_table(1),
    "narrow": equal_bytes.narrow_table(7),
}
# The bytes of the tables of the report.
SIZES = {
    "dense": 5177344,
    "XS 2/30": 274560,
    "XS 2/10": 91520,
    "XS 3/10": 13920,
    "XS 4/8": 4352,
    "XS 4/1": 544,
    "word2ket 4/1": 323584,
    "XS 2/10 scaled": 55872,
    "hash embedding": 55552,
    "narrow int4": 58752,
    "codes": 59008,
    "codes tuned": 59008,
}
# Seven words are few: each has its own codes, which fit them as they are.
TEACHER = tables.Teacher(np.random.default_rng(4).standard_normal((7, 256), dtype=np.float32), np.arange(7))


@pytest.fixture(autouse=True)
def few_codes(monkeypatch, request):
    """Sizes of codes that tables of seven words allow, where they are small."""
    if "name" in request.fixturenames:
        for name, size in (("CODES", 3), ("CODEBOOK_SIZE", 4), ("CODE_WIDTH", 5)):
            monkeypatch.setattr(equal_bytes, name, size)


def floats(parameters):
    """What is trained of parameters: codes, which come last, are not."""
    return [parameter for parameter in parameters if not isinstance(parameter, PackedCodes)]


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


@pytest.mark.parametrize("name", [name for name in SMALL if name != "narrow"])
def test_gradient_of_the_classifier(name):
    table, rng = SMALL[name], np.random.default_rng(1)
    # Some words twice, some never; the whole in float64, for finite differences.
    averages = csr_array(rng.dirichlet(np.ones(4), size=5) @ np.eye(7)[[0, 2, 2, 6]])
    intents = np.array([0, 2, 1, 1, 0])
    start = table.start(rng, TEACHER)
    # Codes stay as they are.
    learned = [parameter.astype(np.float64) for parameter in floats(start)]
    codes = start[len(learned) :]
    parameters = (*learned, 0.1 * rng.standard_normal((tables.COLUMNS, 3)), rng.standard_normal(3))

    def whole(parameters):
        return (*parameters[:-2], *codes, *parameters[-2:])

    def loss(*parameters):
        return np.asarray(train.loss_and_gradients(table, whole(parameters), averages, intents)[0])

    def loss_vjp(*arguments):
        *parameters, cotangent = arguments
        gradients = train.loss_and_gradients(table, whole(parameters), averages, intents)[1]
        return tuple(cotangent * gradient for gradient in gradients if gradient is not None)

    assert_vjp(loss, loss_vjp, parameters, multilinear=False)


def test_gradients_pass_the_rounding_of_narrow_rows_as_they_are():
    rng, ids = np.random.default_rng(1), np.array([2, 5, 2])
    values, matrix = SMALL["narrow"].start(rng, None)
    cotangent = rng.standard_normal((3, tables.COLUMNS), dtype=np.float32)
    rounded = quantize(values, 4, values.shape[1]).dequantize()
    to_values, to_matrix = SMALL["narrow"].vjp((values, matrix), ids, cotangent)
    expected = np.zeros_like(values)
    np.add.at(expected, ids, cotangent @ matrix.T)
    np.testing.assert_allclose(to_values, expected, rtol=1e-5)
    np.testing.assert_allclose(to_matrix, rounded[ids].T @ cotangent, rtol=1e-4, atol=1e-5)
    assert np.abs(values - rounded).max() > 0.01


@pytest.mark.parametrize("name", SMALL)
def test_repeated_ids_of_a_table_add_up(name):
    table, rng = SMALL[name], np.random.default_rng(2)
    parameters = table.start(rng, TEACHER)
    ids, cotangent = np.array([3, 3, 5]), rng.standard_normal((3, tables.COLUMNS), dtype=np.float32)
    assert table.rows(parameters, ids).shape == cotangent.shape
    both = table.vjp(parameters, ids, cotangent)
    single = [table.vjp(parameters, ids[[n]], cotangent[[n]]) for n in range(3)]
    assert len(both) == len(table.rates) == len(parameters)
    for gradient, parameter, *parts in zip(both, parameters, *single, strict=True):
        if gradient is None:
            continue
        assert gradient.dtype == parameter.dtype == np.float32
        np.testing.assert_allclose(gradient, sum(parts), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_rows_of_what_is_stored_are_those_of_parameters_to_its_rounding(name):
    table, rng = SMALL[name], np.random.default_rng(2)
    parameters = table.start(rng, TEACHER)
    stored = table.stored(parameters)
    assert len(stored) == len(parameters)
    for kept, mine in zip(stored, floats(parameters), strict=False):
        assert not np.shares_memory(kept.values if isinstance(kept, QuantizedArray) else kept, mine)
    rows, ids = table.rows(stored, np.arange(7)), np.array([6, 0, 0])
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, table.rows(parameters, np.arange(7)), atol=2e-3, rtol=2e-3)
    np.testing.assert_allclose(table.rows(stored, ids), rows[ids], rtol=1e-5, atol=1e-6)


def test_tables_start_with_the_same_spread_and_the_promised_sizes():
    every = {table.name: table for table in choice.all_tables(5056) if table.lessons is None}
    ids = np.arange(0, 5056, 10)
    size = {}
    for name, table in every.items():
        # The entries of a product of few leaves share them: their spread varies a lot from seed to seed.
        starts = [table.start(np.random.default_rng(seed), None) for seed in range(10)]
        size[name] = tables.stored_bytes(table.stored(starts[0]))
        variance = np.mean([np.square(table.rows(start, ids)).mean() for start in starts])
        assert variance**0.5 == pytest.approx(tables.START_STD, rel=0.3), name
    assert size["dense"] == 16 * size["word2ket 4/1"] == 4 * 5056 * 256
    for name in ("hash embedding", "narrow int4"):
        assert size[name] == pytest.approx(size["XS 2/10 scaled"], rel=0.06)


def test_codes_start_from_the_dense_table_and_take_its_bytes(corpus):
    rng = np.random.default_rng(0)
    table = 0.1 * rng.standard_normal((corpus.words, tables.COLUMNS), dtype=np.float32)
    teacher = tables.Teacher(table, np.bincount(corpus.train.averages.indices, minlength=corpus.words))
    codes = equal_bytes.code_table(0)
    stored = codes.stored(codes.start(rng, teacher))
    scaled = tables.scaled_xs_table(corpus.words, 2, 10)
    size = tables.stored_bytes(scaled.stored(scaled.start(rng, None)))
    assert tables.stored_bytes(stored) == pytest.approx(size, rel=0.06)
    # Of noise few codes keep little, but some.
    rows = codes.rows(stored, np.arange(corpus.words))
    assert np.square(rows - table).sum() < 0.95 * np.square(table).sum()


def test_words_are_dropped_from_sentences_but_never_all():
    rng = np.random.default_rng(5)
    averages = data.average_words(["a b c d", "a a b", "c"], {"a": 1, "b": 2, "c": 3, "d": 4})
    seen = np.zeros(averages.shape)
    for _ in range(300):
        dropped = train.drop_words(averages, 0.25, rng)
        dense = dropped.toarray()
        np.testing.assert_allclose(dense.sum(axis=1), 1, rtol=1e-6)
        assert dropped.dtype == np.float32
        assert not (dense[averages.toarray() == 0]).any()
        # What is left keeps its proportions.
        both = dense[1, 1] > 0 and dense[1, 2] > 0
        assert not both or dense[1, 1] == pytest.approx(2 * dense[1, 2])
        seen += dense > 0
    assert seen[2].tolist() == [0, 0, 0, 300, 0]
    assert 0.7 < seen[0, 1:].mean() / 300 < 0.8


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


def test_codes_are_those_of_the_trained_table_and_training_on_helps(corpus, tmp_path):
    train_split = data.Split(corpus.train.averages[::5], corpus.train.intents[::5])
    few = dataclasses.replace(corpus, train=train_split)
    options = Namespace(epochs=2, seed=3, seeds=1)
    chosen = choice.choose(choice.all_tables(corpus.words), ["codes", "codes tuned"])
    (codes,), (tuned,) = job.train_all(chosen, few, options)
    dense = train.fit(tables.dense_table(corpus.words), few, 2, 3, lambda line: None)
    np.testing.assert_array_equal(codes.parameters[-2], dense.parameters[-2])
    assert len(codes.losses) == 1
    assert len(tuned.losses) == 2
    assert tuned.validation_accuracy > codes.validation_accuracy
    assert isinstance(codes.parameters[2], PackedCodes)
    # The linear layer learns on, too.
    assert not np.array_equal(tuned.parameters[-2], dense.parameters[-2])


def test_words_are_dropped_where_a_table_says_so(corpus, monkeypatch):
    shares = []

    def drop_words(averages, share, rng):
        shares.append(share)
        return averages

    monkeypatch.setattr(train, "drop_words", drop_words)
    few = data.Split(corpus.train.averages[:300], corpus.train.intents[:300])
    for share in (0.0, 0.3):
        table, rng = tables.xs_table(corpus.words, 4, 1, share), np.random.default_rng(0)
        linear = np.zeros((tables.COLUMNS, 150), np.float32), np.zeros(150, np.float32)
        list(train.train_epochs(table, (*table.start(rng, None), *linear), few, 1, rng))
    # Two batches of the second.
    assert shares == [0.3, 0.3]


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


def test_without_scikit_learn_codes_are_left_out_in_words(monkeypatch, capsys):
    for name in ("sklearn", "sklearn.cluster"):
        monkeypatch.setitem(sys.modules, name, None)
    options = Namespace(epochs=1, seed=0, seeds=1, only=None, ask=None, plot=None, json=None)
    chosen, _ = job.prepare(options)
    assert [table.name for table in chosen] == list(SIZES)[:-2]
    assert "pip install 'ketcore[codebooks]'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["demo", "--only", "codes"])
    assert "--only must name tables without codes: " in capsys.readouterr().err


def test_labels_of_the_picture_do_not_overlap():
    agg = pytest.importorskip("matplotlib.backends.backend_agg")
    accuracies = (0.92, 0.917, 0.913, 0.896, 0.88, 0.86, 0.901, 0.915, 0.85, 0.888, 0.82, 0.9016)
    records = []
    for (name, size), accuracy in zip(SIZES.items(), accuracies, strict=True):
        records.append({"name": name, "bytes": size, "ratio": 5056 * 1024 / size, "test_acc": accuracy})
    assert list(SIZES) == [table.name for table in choice.all_tables(5056)]
    figure = report.draw_picture(records)
    canvas = agg.FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in axes.texts]
    assert len(boxes) == 12
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
