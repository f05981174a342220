"""The lines below a table: who is ahead, by how much, and which cases miss an aim."""

import pytest

from bench.summary import summary


def record(
    workload="rows 30x9 2/2", batch=1024, dtype="float32", task="forward", memory=1.2, rank=2, **times
):
    """A record of contestants by their kind, with their times in microseconds."""
    contestants = [
        {"name": kind, "kind": kind.replace("_", " "), "status": "ok", "median": time * 1e-6}
        for kind, time in times.items()
    ]
    named = {"workload": workload, "kind": workload.split()[0], "rank": rank, "batch": batch, "dtype": dtype}
    return named | {"task": task, "floor": None, "memory": memory, "contestants": contestants}


def lines(*records):
    return [line.strip() for line in summary(list(records))]


def test_shares_are_of_one_dtype_and_every_loss_is_named():
    cases = [record(ours=10, package=20, code=8), record(ours=10, package=9, code=30, task="backward")]
    cases += [record(ours=10, package=20, code=30, batch=32), record(ours=10, package=20, dtype="float64")]
    found = lines(*cases)
    assert (found[0], found.count("float64")) == ("float32", 1)
    assert "rows: ahead of every package in 2 of 3 cases (67%), 1.53 times in the geometric mean" in found
    assert "package 9us wins 0.9: rows 30x9 2/2 batch 1024 float32 backward" in found
    assert "code 8us wins 0.8: rows 30x9 2/2 batch 1024 float32 forward" in found
    assert "backward: ahead in 0 of 1, least 0.9, median 0.9" in found
    assert "batch 1024: ahead in 1 of 2, least 0.9, median 1.45" in found
    share = "in 1 of 3 cases (33%); batches from 1024 on: 0 of 2 cases (0%)"
    assert f"all: ahead of every peer {share}" in found
    share = "in 1 of 1 cases (100%); batches from 1024 on: 1 of 1 cases (100%)"
    assert f"all: ahead of every package {share}" in found


def test_floors_count_where_a_forward_is_bound_by_memory():
    cases = [record(ours=20, floor=10, warm_floor=5), record(ours=90, floor=10, warm_floor=5, rank=11)]
    cases += [record(ours=90, floor=10, batch=32), record(ours=90, floor=10, task="backward")]
    found = lines(*cases)
    assert "rows: forward within 2.5 times the floor: 1 of 1 cases (100%), at most 2.00" in found
    assert "rows: forward within 2.5 times the warm floor: 0 of 1 cases (0%), at most 4.00" in found
    assert "4.00: rows 30x9 2/2 batch 1024 float32 forward" in found


def test_small_calls_embeddings_and_memory():
    cases = [record(ours=16, batch=32), record(ours=12, batch=32, task="vjp")]
    cases += [record(ours=30, yardstick=20, task="backward"), record("square 32^2", 1, ours=11)]
    cases += [record("kets 30x9 2/2", 16384, memory=1.2, ours=1)]
    found = lines(*cases)
    assert "rows batch 32 forward within 15us: 0 of 1 cases (0%), at most 16us" in found
    assert "rows batch 32 vjp within 30us: 1 of 1 cases (100%), at most 12us" in found
    assert "square 32^2 batch 1 forward within 12us: 1 of 1 cases (100%), at most 11us" in found
    words = "rows: forward and backward within the time of nn.Embedding"
    assert f"{words}: 0 of 1 cases (0%), at most 1.50" in found
    words = "forward of 16384 ids within 1.1 times the memory of its output"
    assert f"{words}: 0 of 1 cases (0%), at most 1.20" in found


@pytest.mark.parametrize(("batch", "size"), [(32, "small"), (1024, "large")])
def test_ketcore_beside_itself(batch, size):
    name = "kets 30x9 2/2 LayerNorm"
    found = lines(record(name, batch, ours=10, numpy=20, before=60))
    case = f"in the geometric mean, least {{}}: {name} batch {batch} float32 forward"
    start = f"kets LayerNorm, {size} batches: "
    assert f"{start}ketcore numpy / ketcore 2 {case.format(2)}" in found
    assert f"{start}before / ketcore 6 {case.format(6)}" in found
    assert f"{start}before / ketcore numpy 3 {case.format(3)}" in found


def test_nothing_timed_gives_no_lines():
    assert summary([record(memory=None)]) == []
    assert summary([]) == []
