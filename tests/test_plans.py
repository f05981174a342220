"""Plans of products: every mode once, sizes that fit one another, the paths that were asked for, costs."""

from itertools import pairwise
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketcore.products import plans
from ketcore.products.plans import Cost, matmul_cost, matmul_plan, rows_cost

SIZES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5)
PATHS = st.sampled_from((None, *plans.PATHS))


@given(SIZES, st.integers(1, 4), st.integers(1, 3000), st.integers(1, 3), st.booleans(), PATHS)
def test_steps_take_all_modes_once_and_fit(sizes, rank, batch, trail, marked, path):
    rows, columns = zip(*sizes, strict=True)
    idle = {n for n, (p, q) in enumerate(sizes) if p == q and marked}
    plan = matmul_plan(rows, columns, rank, batch, trail, idle, 4, path)
    modes = sorted(n for step in plan.steps for n in range(step.start, step.stop))
    assert len(set(modes)) == len(modes)
    assert set(range(len(sizes))) - set(modes) <= idle
    assert plan.path in plans.PATHS
    assert path in (None, plan.path)
    assert plan.chunk >= 1
    if not plan.steps:
        return
    assert plan.steps[0].size_in == prod(rows) * trail
    assert plan.steps[-1].size_out == prod(columns) * trail
    assert all(a.size_out == b.size_in for a, b in pairwise(plan.steps))
    assert plan.largest == max(max(step.size_in, step.size_out) for step in plan.steps)
    for step in plan.steps:
        # Chunks do not read the weights more often than what they multiply.
        weights = max(step.terms_in, step.terms_out) * step.rows * step.columns
        assert plan.chunk * (step.size_in + step.size_out) >= weights
        assert step.rows == prod(rows[step.start : step.stop])
        assert step.size_in == step.terms_in * step.outer * step.rows * step.inner
        assert {step.terms_in, step.terms_out} <= {1, rank}


@pytest.mark.parametrize(("path", "steps"), [("dense", 1), ("halves", 2), ("modes", 4)])
@pytest.mark.parametrize("rank", [1, 3])
def test_a_path_can_be_forced(path, steps, rank):
    plan = matmul_plan((40,) * 4, (40,) * 4, rank, 64, path=path)
    assert plan.path == path
    assert len(plan.steps) == steps


def test_what_is_chosen():
    def names(*sizes, **options):
        plan = matmul_plan(*sizes, **options)
        return plan.path, [step.rows for step in plan.steps]

    # Small modes are merged, large ones are not; a mode that shrinks comes before one that grows.
    assert names((2,) * 12, (2,) * 12, 1, 1024, itemsize=4) == ("modes", [16, 16, 16])
    assert names((64, 64), (64, 64), 1, 1024) == ("modes", [64, 64])
    assert names((52, 65), (50, 20), 1, 1024) == ("modes", [65, 52])
    # Many terms of small modes are added up first where there are many rows.
    assert names((16, 16), (16, 16), 10, 4096) == ("dense", [256])
    assert names((16, 16), (179, 179), 10, 32) == ("halves", [16, 16])
    # One gate of a circuit.
    assert names((2,) * 20, (2,) * 20, 1, 1, identities=set(range(20)) - {7}) == ("modes", [2])


def test_identities_alone_need_no_step():
    assert matmul_plan((2, 3), (2, 3), 5, 7, identities=(0, 1)).steps == ()


def test_numbers_beyond_64_bits():
    plan = matmul_plan((2,) * 200, (2,) * 200, 1, 1, identities=range(1, 200))
    assert [step.inner for step in plan.steps] == [2**199]
    assert matmul_cost((2**31, 2**33), (2**31, 2**33), 1, 1).flops == 2 * (2**95 + 2**97)
    assert matmul_plan((2**31,) * 40, (2**31,) * 40, 2, 2**40).path in plans.PATHS


def test_batches_of_close_sizes_share_a_plan():
    assert matmul_plan((4,) * 5, (4,) * 5, 1, 65) is matmul_plan((4,) * 5, (4,) * 5, 1, 128)


def test_the_rest_of_a_nested_plan_runs_on_rows():
    plan = matmul_plan((8,) * 4, (8,) * 4, 1, 1, 64, path="modes")
    assert plan.nested
    rest = plans.rest_of(plan, 8)
    rows = plan.steps[1].outer
    assert [step.size_in * rows for step in rest.steps] == [step.size_in for step in plan.steps[1:]]
    assert rest.steps[0].outer == 1


@given(SIZES, st.integers(1, 3), st.integers(1, 50))
def test_a_cost_counts_what_the_steps_do(sizes, rank, batch):
    rows, columns = zip(*sizes, strict=True)
    cost = matmul_cost(rows, columns, rank, batch, itemsize=4)
    least = batch * (prod(rows) + prod(columns)) * 4
    assert isinstance(cost, Cost)
    assert cost.bytes >= least
    assert cost.flops > 0
    assert matmul_cost(rows, columns, rank, 2 * batch, itemsize=4).bytes > cost.bytes


def test_costs():
    assert matmul_cost((64, 64), (64, 64), 1, 10) == Cost(10485760, 10 * 4 * 4096 * 8 + 2 * 4096 * 8, "modes")
    # A crop costs what it reaches.
    assert matmul_cost((64, 64), (64, 64), 1, 10, shape=(64, 64)).flops < 2 * 10 * 64 * 66
    assert matmul_cost((4, 4), (4, 4), 1, 10, identities=(0, 1)) == Cost(0, 0, "modes")
    assert rows_cost((9, 9), (4, 4), 3, 5, 16) == Cost(600, 2560, "halves")
