"""The benchmark's arithmetic, its race between contestants and its report; no peer is needed."""

import doctest
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import sleep

import numpy as np
import pytest

import ketcore as kc
from bench import machine, measure, memory, records, report, small, workloads
from bench.peers import Contestant, before_peer, builders, floor_peer, ketcore_peer, warm_floor_peer
from bench.workloads import Workload, make_case

TINY = Workload("rows", 30, 9, 2, 2)

# The interface of --extra, by one einsum over the digits or the packed words.
EXTRA = """
import numpy as np

def n(operation, spec):
    rows = operation.startswith("xs")
    tables = spec["factors"] if rows else spec["leaves"]
    left, right = tables
    def picked():
        first, second = np.divmod(spec["ids"], right.shape[1]) if rows else (spec["ids"], spec["ids"])
        return first, second, left[:, first], right[:, second]
    def forward():
        *_, a, b = picked()
        return np.einsum("rbi,rbj->bij", a, b).reshape(len(spec["ids"]), -1)[:, :spec["p"]]
    def both():
        first, second, a, b = picked()
        cotangent = spec["cot"].reshape(len(a[0]), a.shape[2], b.shape[2])
        gradients = np.zeros_like(left), np.zeros_like(right)
        np.add.at(gradients[0], (slice(None), first), np.einsum("bij,rbj->rbi", cotangent, b))
        np.add.at(gradients[1], (slice(None), second), np.einsum("bij,rbi->rbj", cotangent, a))
        if rows:
            return forward(), gradients
        unique = np.unique(spec["ids"])
        return forward(), [(unique, gradient[:, unique]) for gradient in gradients]
    return both if operation.endswith("_fb") else forward
"""


class Clock:
    """A time that only sleeping makes pass, so that a busy machine measures what an idle one does."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(measure, "clock", lambda threads: self.time)
        monkeypatch.setattr(measure, "perf_counter", self.time)
        monkeypatch.setattr(measure, "sleep", self.sleep)

    def time(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def contestant(name, value, kind="package", seconds=0.0, sleep=sleep):
    def call():
        sleep(seconds)
        return value

    return Contestant(name, kind, call, lambda result: (result, []))


def record(**changes):
    timed = {"quartiles": [1e-3, 2e-3], "samples": 5}
    contestants = [
        {"name": "ketcore", "kind": "ours", "status": "ok", "median": 1e-3, **timed},
        {"name": "word2ket", "kind": "package", "status": "bound", "median": 0.5, **timed},
        {"name": "torch code", "kind": "code", "status": "ok", "median": 5e-4, **timed},
        {"name": "nn.Embedding", "kind": "yardstick", "status": "ok", "median": 2e-4, **timed},
        {"name": "ketcore numpy", "kind": "numpy", "status": "ok", "median": 3e-3, **timed},
        {"name": "warm floor", "kind": "warm floor", "status": "ok", "median": 5e-5, **timed},
        {"name": "mine", "kind": "extra", "status": "ok", "median": 2e-3, **timed},
        {"name": "other", "kind": "package", "status": "disagrees: rows by 1.0e+00 of its largest entry"},
    ]
    made = {
        "workload": TINY.name,
        "kind": "rows",
        "rank": 2,
        "batch": 32,
        "dtype": "float32",
        "task": "forward",
        "threads": 1,
    }
    return made | {"floor": 1e-4, "memory": 2.5, "contestants": contestants} | changes


def results(*records):
    about = {"processor": "a processor", "cores": 2, "python": "3", "versions": {"numpy": "2", "jax": None}}
    return report.merge([{"machine": about, "missing": ["jax"], "status": 0, "records": list(records)}])


@pytest.mark.parametrize("module", [workloads, records])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("degree", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("number", [1, 2, 255, 256, 257, 118655])
def test_ceil_root(number, degree):
    root = workloads.ceil_root(number, degree)
    assert root**degree >= number
    assert (root - 1) ** degree < number


def test_workloads():
    found = workloads.workloads()
    assert len(found) == 16
    assert len({workload.name for workload in found}) == 16
    for workload in found:
        assert np.prod(workload.dims) >= workload.dim
        assert np.prod(workload.radices) >= workload.vocab
        assert ("sparse" in workload.tasks) == (workload.kind == "kets")


@pytest.mark.parametrize("kind", ["rows", "kets"])
def test_make_case_is_reproducible(kind):
    workload = replace(TINY, kind=kind)
    case, again = (make_case(workload, 7, "float32", "backward") for _ in range(2))
    np.testing.assert_array_equal(case.ids, again.ids)
    np.testing.assert_array_equal(case.cotangent, again.cotangent)
    assert case.cotangent.shape == (7, 9)
    assert [table.shape for table in case.tables] == ([(2, 6, 3)] * 2 if kind == "rows" else [(30, 2, 6)])
    assert {table.dtype for table in case.tables} == {np.dtype(np.float32)}
    assert case.output_bytes == 7 * 9 * 4


@pytest.mark.parametrize("threads", [1, 2])
def test_machine_rates(threads):
    assert 0 < machine.copy_seconds(1000, threads) < machine.copy_seconds(1 << 24, threads)


@pytest.mark.parametrize("kind", ["rows", "kets"])
def test_a_floor_reads_what_a_forward_picks(kind):
    """Of factors with six leaves all that are there, of 30 kets each one once."""
    case = make_case(replace(TINY, kind=kind), 40, "float32", "forward")
    distinct = len(np.unique(case.ids))
    assert distinct < 30
    found = [len(array) for array in floor_peer.picked(case)]
    assert found == ([2 * 6 * 3] * 2 if kind == "rows" else [distinct * 2 * 6])


def test_floors_write_what_a_forward_writes(monkeypatch):
    written = []
    monkeypatch.setattr(floor_peer, "run_chunks", lambda work, total, chunk: written.append(total))
    case = make_case(TINY, 10, "float64", "backward")
    floor_peer.build(case).call()
    warm_floor_peer.build(replace(case, task="vjp")).call()
    assert written == [720, 90, 36, 36, 90]


def test_a_floor_decides_nothing(monkeypatch):
    """It is the fastest, and those that work are slow beside it, but not among themselves."""
    sleep = Clock(monkeypatch).sleep
    floor = Contestant("floor", "floor", lambda: sleep(1e-6), lambda result: None)
    entrants = [contestant("ketcore", np.ones((2, 2)), "ours", 1e-3, sleep), floor]
    entrants.append(contestant("near", np.ones((2, 2)), seconds=2e-3, sleep=sleep))
    timings = measure.race(entrants, {}, "float64", 2, 0.01)
    assert [len(timing.samples) >= 3 for timing in timings] == [True] * 3


def test_a_contestant_is_called_in_its_context():
    inside, seen = [False], []

    @contextmanager
    def around():
        inside[0] = True
        yield
        inside[0] = False

    def call():
        seen.append(inside[0])
        return np.ones((2, 2))

    entrant = Contestant("mine", "ours", call, lambda result: (result, []), around)
    assert measure.race([entrant], {}, "float64", 1, 0.0)[0].status == "ok"
    assert len(seen) > 3
    assert all(seen)


def test_another_ketcore_takes_part_in_the_same_process(tmp_path):
    package = tmp_path / "ketcore"
    package.mkdir()
    with pytest.raises(ValueError, match="before must be a folder with a ketcore in it, got "):
        before_peer.other(str(tmp_path))
    (package / "__init__.py").write_text("from ketcore.shapes import rows\n", encoding="utf-8")
    (package / "shapes.py").write_text("def rows(*_): return 'before'\n", encoding="utf-8")
    ours = sys.modules["ketcore.shapes"]
    entrant = before_peer.builder(ketcore_peer.build, str(tmp_path))(make_case(TINY, 7, "float32", "forward"))
    assert (entrant.name, entrant.call()[0]) == ("before", "before")
    assert (sys.modules["ketcore"], sys.modules["ketcore.shapes"]) == (kc, ours)
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("kind", "task"), [(kind, task) for kind in ("rows", "kets") for task in replace(TINY, kind=kind).tasks]
)
def test_ketcore_agrees_with_an_extra_contestant(tmp_path, kind, task):
    path = tmp_path / "mine.py"
    path.write_text(EXTRA, encoding="utf-8")
    case = make_case(replace(TINY, kind=kind), 40, "float64", task)
    everyone = builders((str(path),))
    chosen = ["ketcore", "numpy", "floor", "warm_floor", str(path)]
    entrants = [entrant for name in chosen if (entrant := everyone[name](case)) is not None]
    assert len(entrants) == 5 - (task == "vjp" or (kind == "kets" and task == "backward"))
    timings = measure.race(entrants, {}, "float64", 1, 0.01)
    assert [timing.status for timing in timings] == ["ok"] * len(entrants)
    assert all(timing.median > 0 and len(timing.samples) >= 3 for timing in timings)


def test_ketcore_with_layernorm():
    case = make_case(replace(TINY, kind="kets", layernorm=True), 40, "float32", "backward")
    (timing,) = measure.race([ketcore_peer.build(case)], {}, "float32", 1, 0.01)
    assert timing.status == "ok"


def test_disagreement_looks_at_all_of_large_arrays():
    wanted = np.ones((5, measure.PIECE // 2))
    found = wanted.copy()
    found[-1, -1] = 3
    assert measure.disagreement((wanted, []), (wanted, []), "float64") is None
    expected = "disagrees: rows by 2.0e+00 of its largest entry"
    assert measure.disagreement((found, []), (wanted, []), "float64") == expected
    assert measure.disagreement((wanted, [found]), (wanted, [wanted]), "float64").startswith(
        "disagrees: gradient 0"
    )


def test_race_says_who_disagrees_and_who_fails():
    def broken():
        raise RuntimeError("no\nmemory")

    entrants = [
        contestant("ketcore", np.ones((2, 2)), "ours"),
        contestant("same", np.ones((2, 2)) + 1e-12),
        contestant("wrong", np.full((2, 2), 1.5)),
        contestant("poisoned", np.full((2, 2), np.nan)),
        contestant("cropped", np.ones((2, 1))),
        Contestant("broken", "package", broken, None),
    ]
    found = {timing.name: timing for timing in measure.race(entrants, {}, "float64", 1, 0.01)}
    assert [name for name, timing in found.items() if timing.timed] == ["ketcore", "same"]
    assert found["wrong"].status == "disagrees: rows by 5.0e-01 of its largest entry"
    assert found["poisoned"].status == "disagrees: rows by nan of its largest entry"
    assert found["cropped"].status == "disagrees: rows of shape (2, 1), not (2, 2)"
    assert found["broken"].status == "failed: RuntimeError: no"


def test_race_spares_the_slow(monkeypatch):
    sleep = Clock(monkeypatch).sleep
    entrants = [
        contestant("ketcore", np.ones((2, 2)), "ours", 1e-4, sleep),
        contestant("slow", np.ones((2, 2)), seconds=0.03, sleep=sleep),
        contestant("known", np.zeros((2, 2)), seconds=1.0, sleep=sleep),
    ]
    ours, slow, known = measure.race(entrants, {"known": 5.0}, "float64", 2, 0.01, patience=0.02)
    assert len(ours.samples) >= 3
    assert len(slow.samples) == 1
    assert (known.status, known.samples) == ("bound", [5.0])


def test_race_repeats_the_slow_that_are_near_the_fastest(monkeypatch):
    sleep = Clock(monkeypatch).sleep
    entrants = [
        contestant("ketcore", np.ones((2, 2)), "ours", 0.03, sleep),
        contestant("near", np.ones((2, 2)), seconds=0.05, sleep=sleep),
        contestant("far", np.ones((2, 2)), seconds=0.2, sleep=sleep),
    ]
    timings = measure.race(entrants, {}, "float64", 2, 0.01, patience=0.02)
    assert [len(timing.samples) >= 3 for timing in timings] == [True, True, False]


def test_race_compares_with_a_definition():
    entrants = [contestant("ketcore", np.ones((2, 2)), "ours"), contestant("right", np.zeros((2, 2)))]
    ours, right = measure.race(entrants, {}, "float64", 1, 0.01, reference=(np.zeros((2, 2)), []))
    assert ours.status.startswith("disagrees: rows by ")
    assert right.status == "ok"
    (alone,) = measure.race(entrants[:1], {}, "float64", 1, 0.01, reference=(np.zeros((2, 2)), []))
    assert not alone.timed


def test_hopeless():
    def timing(name, seconds, kind="package", status="ok"):
        return measure.Timing(name, kind, status, [seconds])

    timings = [timing("us", 0.01, "ours"), timing("mine", 1e-4, "extra"), timing("near", 0.07)]
    timings += [timing("far", 0.09, "code"), timing("known", 9.0, status="bound"), timing("best", 0.04)]
    assert list(measure.hopeless(timings, 1, 10)) == ["far"]
    assert list(measure.hopeless(timings, 10, 100)) == ["near", "far"]
    assert measure.hopeless(timings, 10, 20) == {}
    slow = [timing("us", 9.0, "ours"), timing("best", 0.9), timing("next", 1.3), timing("last", 1.4)]
    assert list(measure.hopeless([timing("code", 0.01, "code"), *slow], 10, 100)) == ["last"]


def test_peak_memory():
    size = 1 << 20
    assert (
        2 * size
        <= measure.peak_memory(lambda: np.ones(size, np.uint8) + np.ones(size, np.uint8)[:1])
        < 3.1 * size
    )


def test_table():
    slower = record(batch=1024, contestants=record()["contestants"][:2], memory=None)
    text = report.table(results(record(), slower, record(threads=2)))
    line = next(line for line in text.splitlines() if line.startswith(TINY.name))
    shown = "32 f32 forward 1ms 1ms..2ms word2ket >500ms torch code 500us 0.5 0.2 3 10 20 2.50! 2ms, x0.5"
    assert " ".join(line.split()) == f"{TINY.name} {shown}"
    assert "1 thread, CPU time" in text
    assert "2 threads, wall time" in text
    assert "rows: ahead of every package in 2 of 2 cases (100%), 500 times in the geometric mean" in text
    assert "  forward: ahead in 2 of 2, least 500, median 500" in text
    assert "rows: ahead of code in torch or jax in 0 of 1 cases (0%), 0.5 times in the geometric" in text
    assert "torch code 500us wins 0.5: rows 30x9 2/2 batch 32 float32 forward" in text
    assert "mine: ketcore takes 0.5 of its time in the mean of 1 cases, 0.5 at most" in text
    assert "jax: not installed" in text
    assert (
        "not timed: other: disagrees: rows by 1.0e+00 of its largest entry (2 cases, first rows 30x9" in text
    )


def test_table_without_ketcore_or_peers():
    everyone = record()["contestants"]
    for contestants in (everyone[:1], everyone[1:], []):
        assert TINY.name in report.table(results(record(contestants=contestants)))


def test_plot(tmp_path):
    report.plot(results(record(), record(threads=2, dtype="float64")), str(tmp_path / "picture.png"))
    report.plot(results(record(contestants=[])), str(tmp_path / "empty.png"))
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_every_contestant_has_a_module():
    assert next(iter(builders())) == "ketcore"
    assert len(builders()) == 10


def test_the_memory_of_a_forward(capsys, monkeypatch):
    monkeypatch.setattr(memory, "TRIES", 1)
    memory._shown(TINY, 16384, "float64")
    line = capsys.readouterr().out.split()
    assert line[:5] == ["rows", "30x9", "2/2", "16384", "float64"]
    assert float(line[5]) >= 1
    if memory.RESET.exists():
        size = 1 << 25
        assert memory._peak_resident(lambda: np.ones(size, np.uint8)) > 0.9 * size


def test_calls_on_few_rows():
    calls = small._calls(small._arrays(2))
    assert all(0 < small._sample(call) < 1 for call in calls.values())
    options = ["--against", ".", "--batch", "1", "--only", "gather", "--rounds", "1"]
    run = [sys.executable, "-m", "bench.small", *options]
    root = Path(small.__file__).parents[1]
    lines = subprocess.run(
        run, cwd=root, check=True, capture_output=True, encoding="utf-8"
    ).stdout.splitlines()
    assert lines[0].split() == ["call", "rows", "us", "other", "us", "ratio"]
    assert [line.split()[:2] for line in lines[1:]] == [
        [f"gather_kron{end}", "1"] for end in ("", "_vjp", "_jvp")
    ]
