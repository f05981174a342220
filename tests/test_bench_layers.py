"""The benchmark of layers in training and of what a call takes: cases of a size that takes no time."""

import numpy as np
import pytest

from tests.require import imported

torch = imported("torch")

from bench import families, measure, overhead, report, worker  # noqa: E402
from bench.layers import linear_peers, peers, workloads  # noqa: E402
from bench.layers import report as layer_report  # noqa: E402
from bench.workloads import Workload  # noqa: E402

TABLES = (workloads.Embedding("rows", 30, 9, 2, 2), workloads.Embedding("kets", 30, 9, 2, 2))
LINEAR = (workloads.Linear((3, 2), (4, 5), 2), workloads.Linear((3, 2), (4, 5), 1))


def entrants(case):
    """Those who are there; compiling them takes a while."""
    found = []
    for name, build in peers.builders().items():
        try:
            made = None if name.endswith("compiled") else build(case)
        except ImportError:
            continue
        found += [] if made is None else [made]
    return found


@pytest.mark.parametrize("workload", TABLES + LINEAR, ids=lambda workload: workload.name)
def test_contestants_agree(workload):
    case = workloads.make_case(workload, 7, "float32", "step")
    timings = measure.race(entrants(case), {}, "float32", 1, 0.01)
    assert {"ketcore", "torch code"} <= {timing.name for timing in timings}
    assert {timing.name: timing.status for timing in timings} == {timing.name: "ok" for timing in timings}


@pytest.mark.parametrize("workload", LINEAR, ids=lambda workload: workload.name)
def test_linear_layers_compute_what_the_dense_matrix_does(workload):
    case = workloads.make_case(workload, 7, "float32", "step")
    entrant = linear_peers.ketcore(case, "ours")
    y, (to_x, *_) = entrant.collect(entrant.call())
    matrix = linear_peers.dense_weight(case)
    np.testing.assert_allclose(y, case.x @ matrix + case.bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_x, case.cotangent @ matrix.T, rtol=1e-4, atol=1e-5)


def test_a_step_trains():
    case = workloads.make_case(TABLES[0], 7, "float32", "step")
    entrant = peers.builders()["ketcore"](case)
    first, second = (entrant.collect(entrant.call())[0] for _ in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_allclose(first, second, atol=1e-4)
    # Factors (2, 6, 3), and two moments of each.
    assert entrant.held == 3 * 2 * 36 * 4


def test_no_extra_contestant():
    with pytest.raises(ValueError, match="extra and before must be empty for layers"):
        peers.builders(("mine.py",))


def test_records_and_table(monkeypatch):
    monkeypatch.setattr(TABLES[0].__class__, "batches", (7,))
    options = type("Options", (), {"seconds": 0.01, "batch": [7], "dtype": ["float32"], "quick": False})
    builders = {
        name: build for name, build in peers.builders().items() if name in ("ketcore", "torch code", "nn")
    }
    records = worker._workload(TABLES[0], families.FAMILIES["layers"], 1, builders, set(), options)
    (record,) = records
    names = {contestant["name"]: contestant for contestant in record["contestants"]}
    assert set(names) == {"ketcore", "torch code", "nn.Embedding"}
    for contestant in names.values():
        # At the least the output of 7 rows of 9 numbers.
        assert contestant["memory"] >= 4 * 7 * 9
    assert names["nn.Embedding"]["held"] == 3 * 4 * 30 * 9
    about = {"processor": "a processor", "cores": 2, "python": "3", "versions": {"numpy": "2"}}
    part = {"machine": about, "missing": ["word2ket"], "status": 0, "records": records}
    text = layer_report.table(report.merge([part]))
    assert "rows 30x9 2/2, batch 7" in text
    assert "nn.Embedding *" in text
    assert "word2ket: not installed" in text
    assert "faster than ketcore: " in text


def test_losses_are_named():
    timed = {"status": "ok", "quartiles": [1e-3, 2e-3], "samples": 5, "memory": 1000, "held": 10}
    contestants = [
        {"name": "ketcore", "kind": "ours", "median": 2e-3, **timed},
        {"name": "torch code", "kind": "code", "median": 1e-3, **timed},
        {"name": "nn.Embedding", "kind": "yardstick", "median": 1e-4, **timed},
        {"name": "word2ket", "kind": "package", "status": "failed: MemoryError: none"},
    ]
    record = {"workload": "rows", "batch": 7, "dtype": "float32", "task": "step", "threads": 1}
    about = {"processor": "a processor", "cores": 2, "python": "3", "versions": {}}
    part = {"machine": about, "missing": [], "status": 0, "records": [record | {"contestants": contestants}]}
    text = layer_report.table(report.merge([part]))
    assert "faster than ketcore: 1 times in 1 cases\n    torch code 0.5: rows, batch 7" in text
    assert "smaller than ketcore: 0 times in 1 cases" in text
    assert "not timed: word2ket: failed: MemoryError: none" in text


def test_overhead():
    threads = torch.get_num_threads()
    try:
        record = overhead._record(Workload("rows", 30, 9, 2, 2), 7, 0.01)
    finally:
        torch.set_num_threads(threads)
    assert len(record["times"]) == 6
    assert all(ratio > 0 for ratio in record["ratio"])
    assert overhead._text(record).startswith("rows 30x9 2/2, 7 ids\n")
