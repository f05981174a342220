"""The benchmark's second family: cases, definition, contestants that need no package, paths."""

from dataclasses import replace
from itertools import permutations
from math import prod
from types import SimpleNamespace

import numpy as np
import pytest

from bench import machine, measure, paths, worker
from bench.algebra import definition, workloads
from bench.algebra.peers import builders, dense_peer, ketcore_peer, numpy_peer, plain_peer
from bench.algebra.workloads import Workload, make_case
from bench.families import FAMILIES
from bench.peers import extra_peer

TINY = (
    Workload("square", "2^3", (2, 2, 2), (2, 2, 2), batches=(3,)),
    Workload("rectangular", "(3.2)(2.5)", (3, 2), (2, 5), batches=(3,)),
    Workload("sum", "(2.3)(4.1)(1.2) r=3", (2, 4, 1), (3, 1, 2), 3, batches=(3,)),
    Workload("logits", "10x5 2/2", (3, 3), (4, 4), 2, (5, 10), batches=(3,)),
    Workload("solve", "3^2", (3, 3), (3, 3), batches=(3,)),
    Workload("gram", "2^2 r=3", (1, 1), (2, 2), 3, batches=(3,)),
)
BACKWARD = [workload for workload in TINY if len(workload.tasks) > 1]

# The interface of --extra, by the matrix written out.
EXTRA = """
import numpy as np

def matrix(factors):
    total = 0
    for k in range(len(factors[0])):
        term = np.ones((1, 1))
        for factor in factors:
            term = np.kron(term, factor[k])
        total = total + term
    return total

def n(operation, spec):
    if operation == "kron_mm":
        return lambda: spec["X"] @ matrix(spec["Fs"])
    if operation == "logits":
        return lambda: spec["H"] @ matrix(spec["factors"])[:spec["vocab"], :spec["p"]].T
    if operation == "solve":
        return lambda: np.linalg.solve(matrix([f[None] for f in spec["Fs"]]), spec["X"].T).T
    if operation == "gram":
        return lambda: (spec["V"][0] @ spec["W"][0].T) * (spec["V"][1] @ spec["W"][1].T)
"""


def matrix(factors, shape=None):
    """The matrix written out by its entries, another way than the definition's."""
    order = len(factors)
    letters = [chr(ord("a") + n) for n in range(2 * order)]
    inputs = ",".join("z" + p + q for p, q in zip(letters[:order], letters[order:], strict=True))
    full = np.einsum(f"{inputs}->{''.join(letters)}", *(np.float64(factor) for factor in factors))
    rows = prod(factor.shape[1] for factor in factors)
    full = full.reshape(rows, -1)
    return full if shape is None else full[: shape[0], : shape[1]]


@pytest.mark.parametrize("workload", TINY[:5], ids=lambda workload: workload.kind)
def test_definition_of_the_value(workload):
    factors, x, _ = workloads.numbers(workload, 3)
    value, _ = definition.value_and_gradients(workload, 3)
    wide = np.float64(x)
    if workload.kind == "solve":
        np.testing.assert_allclose(value @ matrix(factors).T, wide, atol=1e-12)
    else:
        np.testing.assert_allclose(value, wide @ matrix(factors, workload.shape), atol=1e-12)


def test_definition_of_a_gram_matrix():
    v, w, _ = workloads.numbers(TINY[5], 3)
    kets = [np.einsum("bra,brc->bac", *map(np.float64, ket)).reshape(3, -1) for ket in (v, w)]
    np.testing.assert_allclose(definition.value_and_gradients(TINY[5], 3)[0], kets[0] @ kets[1].T)


@pytest.mark.parametrize("largest", [1, 64])
@pytest.mark.parametrize("workload", BACKWARD, ids=lambda workload: workload.kind)
def test_definition_of_the_gradients(workload, largest, monkeypatch):
    """Against differences, exact up to rounding since the product is linear in each factor."""
    monkeypatch.setattr(definition, "LARGEST", largest)
    definition.value_and_gradients.cache_clear()
    factors, x, cotangent = workloads.numbers(workload, 3)
    _, (to_x, *to_factors) = definition.value_and_gradients(workload, 3)
    definition.value_and_gradients.cache_clear()
    np.testing.assert_allclose(to_x, cotangent @ matrix(factors).T, atol=1e-6)
    for n, (factor, gradient) in enumerate(zip(factors, to_factors, strict=True)):
        for place in np.ndindex(factor.shape):
            unit = np.zeros(factor.shape)
            unit[place] = 1
            # The terms are separate: all but one of them vanish where this factor does.
            moved = np.float64(x) @ matrix([*factors[:n], unit, *factors[n + 1 :]])
            np.testing.assert_allclose(gradient[place], np.sum(cotangent * moved), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("workload", TINY, ids=lambda workload: workload.kind)
def test_contestants_agree_with_the_definition(workload, dtype, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(EXTRA, encoding="utf-8")
    modules = (ketcore_peer, numpy_peer, plain_peer, dense_peer)
    everyone = [*(module.build for module in modules), extra_peer.builder(str(path))]
    for task in workload.tasks:
        case = make_case(workload, 3, dtype, task)
        entrants = [entrant for build in everyone if (entrant := build(case)) is not None]
        reference = FAMILIES["algebra"].definition(case)
        timings = measure.race(entrants, {}, dtype, 1, 0.0, reference)
        assert timings
        assert {timing.name: timing.status for timing in timings} == {t.name: "ok" for t in timings}
        assert len(reference[1]) == (0 if task == "forward" else 1 + len(workload.rows))


def test_cases():
    found = workloads.workloads()
    assert len({workload.name for workload in found}) == len(found)
    count = {}
    for workload in found:
        count[workload.kind] = count.get(workload.kind, 0) + len(workload.batches)
        assert len(workload.quick_batches) == 1
        assert set(workload.quick_batches) <= set(workload.batches)
        rows, columns = workload.sizes
        assert rows <= prod(workload.rows)
        assert columns <= prod(workload.columns)
        assert workload.batches[-1] * rows <= workloads.MOST_ELEMENTS
    assert count == {"square": 67, "rectangular": 18, "sum": 19, "logits": 12, "gram": 7, "solve": 12}
    names = [workload.name for workload in found]
    for name in ("square 2^12", "rectangular (8.16)^4", "sum (16.179)^2 r=10", "logits 118655x300 2/2"):
        assert name in names


def test_a_case_is_the_same_in_both_dtypes():
    single, double = (make_case(TINY[2], 3, dtype, "backward") for dtype in ("float32", "float64"))
    for one, other in zip((*single.factors, single.x), (*double.factors, double.x), strict=True):
        assert (one.dtype, other.dtype) == (np.dtype("float32"), np.dtype("float64"))
        np.testing.assert_array_equal(one, other)


def test_large_batches_are_float32_alone():
    (workload,) = (w for w in workloads.workloads() if w.name == "square 4^7")
    taken = [(batch, dtype) for batch in workload.batches for dtype in ("float32", "float64")]
    left_out = [case for case in taken if not workload.takes(*case)]
    assert left_out == [(128, "float64"), (1024, "float64")]
    assert replace(workload, batches=(1024,)).takes(1024, "float64")
    assert not workload.takes(17, "float32")


def test_flops():
    assert workloads.flops(TINY[0], 10) == min(3 * 2 * 10 * 8 * 2, 8 * 8 * 21)
    # The modes that shrink x first.
    modes = [(2, 9), (30, 2), (4, 5), (7, 7)]
    best = min(workloads._in_order(100, order) for order in permutations(modes))
    rows, columns = zip(*modes, strict=True)
    assert workloads.flops(replace(TINY[1], rows=rows, columns=columns), 100) == best
    assert workloads.flops(TINY[5], 4) == 16 * 2 * 4
    assert make_case(TINY[0], 10, "float32", "backward").flops == 3 * workloads.flops(TINY[0], 10)


def test_the_floor_is_the_slower_of_bytes_and_flops(monkeypatch):
    case = make_case(TINY[1], 3, "float64", "forward")
    monkeypatch.setattr(machine, "copy_seconds", lambda size, threads: size / 1e9)
    monkeypatch.setattr(machine, "gemm_rate", lambda dtype, threads: 1e12)
    assert machine.floor_seconds(case, 1) == case.copied_bytes / 1e9
    monkeypatch.setattr(machine, "gemm_rate", lambda dtype, threads: 1e3)
    assert machine.floor_seconds(case, 1) == case.flops / 1e3


def test_copied_bytes():
    assert make_case(TINY[1], 3, "float32", "forward").copied_bytes == 3 * (6 + 10) * 4 // 2
    assert make_case(TINY[1], 3, "float64", "backward").copied_bytes == 3 * (6 + 10) * 8
    assert make_case(TINY[5], 3, "float32", "forward").output_bytes == 3 * 3 * 4


def test_worker_leaves_out_the_hopeless(monkeypatch):
    monkeypatch.setattr(measure, "HOPELESS_SECONDS", 1e-9)
    workload = replace(TINY[0], batches=(2, 4, 8))
    contestants = {
        "ketcore": ketcore_peer.build,
        "plain": plain_peer.build,
        "slow": _slowly(plain_peer.build),
    }
    options = SimpleNamespace(seconds=0.01, quick=False, batch=None, dtype=["float64"])
    records = worker._workload(workload, FAMILIES["algebra"], 1, contestants, set(), options)
    assert [(record["batch"], record["task"]) for record in records] == [
        (2, "forward"),
        (2, "backward"),
        (4, "forward"),
        (4, "backward"),
        (8, "forward"),
        (8, "backward"),
    ]
    statuses = [{c["name"]: c["status"] for c in record["contestants"]} for record in records]
    assert statuses[0] == {"ketcore": "ok", "pykronecker's algorithm": "ok", "slow": "ok"}
    for status in (statuses[2], statuses[4]):
        assert status["slow"] == "left out: 3 times slower than the fastest on a smaller batch"
        assert status["pykronecker's algorithm"] == "ok"
    assert records[0]["floor"] > 0
    assert records[0]["memory"] > 0


def test_the_first_call_of_a_task_is_not_timed():
    called = []
    case = make_case(TINY[0], 3, "float64", "forward")
    entrant = replace(ketcore_peer.build(case), call=lambda: called.append(1))
    build = worker._warmed(lambda case: entrant if case.workload.kind == "square" else None)
    for changes in ({"workload": TINY[1]}, {}, {}, {"task": "backward"}):
        build(replace(case, **changes))
    assert len(called) == 2


def _slowly(build):
    def call_often(call):
        for _ in range(400):
            call()
        return call()

    def slow(case):
        entrant = build(case)
        return entrant and replace(entrant, name="slow", call=lambda: call_often(entrant.call))

    return slow


def test_paths():
    good = {"case": "one", "choice": "modes", "times": {"modes": 1.0, "dense": 2.0}, "ratio": 1.0}
    late = {"case": "two", "choice": "modes", "times": {"modes": 3.0, "dense": 2.0}, "ratio": 1.5}
    assert paths.verdict([good, late]) == [
        "the choice is within 15% of the best path in 1 of 2 cases",
        "    dense is 1.50 times as fast as modes: two",
    ]
    record = paths._record(make_case(TINY[2], 3, "float64", "backward"), 0.01)
    assert record["choice"] in record["times"]
    assert record["ratio"] >= 1
    assert record["case"] == "sum (2.3)(4.1)(1.2) r=3 batch 3 float64 backward"
    for task in ("forward", "backward"):
        with pytest.raises(ValueError, match="path must be"):
            paths._call(make_case(TINY[2], 3, "float64", task), "sideways")()


def test_every_contestant_has_a_module():
    assert next(iter(builders())) == "ketcore"
    assert len(builders()) == 12
