"""The benchmark of tasks: sizes, derivatives and records of its contestants, on a small corpus."""

import json
import lzma
from importlib.util import find_spec

import numpy as np
import pytest

from bench.tasks import corpora, runs
from bench.tasks.__main__ import main
from bench.tasks.contestants import contestants, tt_tables
from ketcore.demo.data import Corpus, Split, average_words, build_vocabulary
from ketcore.demo.tables import COLUMNS, Teacher, stored_bytes
from tests.require import require

TEXTS = ["open the door", "open a window", "shut the door", "shut a window now"]
WORDS, RATIO = 200, 8
# What tensorly-torch does with PyTorch.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def of_few_codes(monkeypatch):
    monkeypatch.setattr("bench.tasks.contestants.CODE_WIDTHS", (16,))
    monkeypatch.setattr("bench.tasks.contestants.CODEBOOK_SIZES", (16,))


@pytest.fixture
def without_trains(monkeypatch):
    monkeypatch.setattr("bench.tasks.contestants.tt_tables", lambda words, nbytes: iter(()))


def corpus(folder=None):
    vocabulary = build_vocabulary([*TEXTS, *(f"word{n}" for n in range(WORDS - 9))])
    split = Split(average_words(TEXTS, vocabulary), np.array([0, 0, 1, 1]))
    return Corpus(split, split, split, ("open", "shut"), vocabulary)


COUNTS, NBYTES = RNG.integers(0, 9, WORDS), WORDS * COLUMNS * 4 // RATIO
TEACHER = Teacher(RNG.standard_normal((WORDS, COLUMNS), np.float32), COUNTS)


def test_contestants_of_all_kinds(without_trains):
    tables = list(contestants(WORDS, NBYTES, COUNTS, TEACHER.table))
    assert len({table.name for table in tables}) == len(tables) == 17
    check_bytes(tables)
    check_gradients(tables)


def test_a_tensor_train_of_torch():
    require("tensorly-torch", find_spec("tltorch") is not None, "tensorly-torch is not installed")
    tables = list(tt_tables(WORDS, NBYTES))
    assert [table.name for table in tables] == ["tensor train"]
    check_bytes(tables)
    check_gradients(tables)


def check_bytes(tables):
    """Each has at most so many bytes, and not far fewer; what is stored has its rows."""
    ids = np.array([3, 0, WORDS - 1])
    for table in tables:
        parameters = started(table)
        stored = table.stored(parameters)
        assert NBYTES / 2 < stored_bytes(stored) <= NBYTES, table.name
        rows = table.rows(parameters, ids)
        assert rows.shape == (3, COLUMNS), table.name
        np.testing.assert_allclose(table.rows(stored, ids), rows, rtol=0.02, atol=0.02 * np.abs(rows).max())


def started(table):
    return table.start(np.random.default_rng(0), TEACHER if table.lessons is not None else None)


def check_gradients(tables):
    """Those of rows, by differences."""
    ids, cotangent = np.array([5, 2]), RNG.standard_normal((2, COLUMNS), np.float32)
    for table in tables:
        # What is rounded has the gradient of what is not.
        if "int" in table.name:
            continue
        parameters = started(table)
        gradients = table.vjp(parameters, ids, cotangent)
        for n, gradient in enumerate(gradients):
            if gradient is None:
                continue
            step = 1e-2 * RNG.standard_normal(parameters[n].shape).astype(np.float32)
            moved = [
                table.rows([*parameters[:n], parameters[n] + sign * step, *parameters[n + 1 :]], ids)
                for sign in (1, -1)
            ]
            slope = np.vdot(cotangent, moved[0] - moved[1]) / 2
            scale = np.linalg.norm(cotangent) * np.linalg.norm(moved[0] - moved[1]) / 2
            assert abs(np.vdot(gradient, step) - slope) <= 1e-3 * scale + 1e-6, table.name


def test_a_run_that_is_stopped_goes_on(tmp_path, monkeypatch, capsys, without_trains):
    monkeypatch.setitem(corpora.TASKS, "imdb", (corpus, 1))
    file = tmp_path / "runs.json"
    command = ["run", "imdb", "--out", str(file), "--ratio", str(RATIO), "--seeds", "1"]
    command += ["--only", "low|^codes$"]

    def records():
        return json.loads(file.read_text(encoding="utf-8"))

    lines = runs.Runs("imdb", corpus(), file, 1).all(RATIO, 1, "low|^codes$")
    # The rates of the dense table are chosen first.
    next(lines)
    while sum(each["name"] == "low rank" for each in records()) < 2:
        next(lines)
    lines.close()
    done = records()
    main(command)
    assert records()[: len(done)] == done
    capsys.readouterr()
    main(command)
    assert capsys.readouterr().out == ""
    # As if it had stopped before the record of the dense table of a seed was written.
    whole = records()
    left = [each for each in whole if each["name"] != "dense" or each["seed"] == runs.TUNING_SEED]
    file.write_text(json.dumps(left), encoding="utf-8")
    main(command)
    keys = [(each["name"], each["factor"], each["seed"]) for each in records()]
    assert len(set(keys)) == len(keys) == len(whole)
    assert all(each["memory"] >= 0 and 0 <= each["test"] <= 1 for each in records())
    best = {
        name: max(each["validation"] for each in tuned(records(), name)) for name in ("dense", "low rank")
    }
    for name, accuracy in best.items():
        (reported,) = [each for each in records() if each["name"] == name and each["seed"] == 0]
        (chosen,) = [each for each in tuned(records(), name) if each["factor"] == reported["factor"]]
        assert chosen["validation"] == accuracy
    capsys.readouterr()
    main(["table", str(file)])
    table = capsys.readouterr().out.splitlines()
    # Dense, codes, two of low rank: of each the one seed that was not tuned on.
    assert len(table) == 2 + 4
    assert not any(str(runs.TUNING_SEED) in line for line in table)


def tuned(records, name):
    return [each for each in records if each["name"] == name and each["seed"] == runs.TUNING_SEED]


def test_reviews_of_a_folder(tmp_path):
    for part in ("train", "test"):
        with lzma.open(tmp_path / f"imdb_{part}.tsv.xz", "wt", encoding="utf-8") as file:
            file.writelines(f"{n % 2}\t7\tgood film {n % 3}\n" for n in range(20))
    found = corpora.imdb(str(tmp_path))
    assert (found.train.averages.shape[0], found.validation.averages.shape[0]) == (16, 4)
    assert set(found.vocabulary) == {"good", "film", "0", "1", "2"}
    assert found.test.intents.tolist() == [0, 1] * 10


@pytest.mark.parametrize("folder", [[], ["--data", "nowhere"]])
def test_a_folder_that_is_missing_is_named(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["run", "imdb", "--out", str(tmp_path / "runs.json"), *folder])
    assert ("nowhere" if folder else "--data must name the folder") in capsys.readouterr().err
