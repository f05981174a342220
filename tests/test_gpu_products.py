"""The GPU benchmark of products with Kronecker matrices, without a GPU: cases, checks, table."""

import numpy as np
import pytest

from bench.gpu import __main__ as command
from bench.gpu import cases as lookups
from bench.gpu import device, products, report
from bench.gpu.compiled import Compiler
from bench.gpu.products import Product

UNEVEN = (((2, 3), (3, 2), (4, 4)), 2)


def test_cases_are_those_that_are_promised():
    found = products.cases()
    assert len(found) == len(set(found)) == (8 + 2) * 2 * 2
    assert {case.dtype for case in found} == {"float32", "float16", "bfloat16"}
    assert any(max(max(pair) for pair in case.dims) > 16 for case in found)
    assert {case.rank for case in found} == {1, 4, 10}


def test_least_bytes():
    case = Product(*UNEVEN, 240, "float32", "forward")
    factors = 2 * (6 + 6 + 16)
    assert case.batch == 10
    assert case.least_bytes == 4 * (10 * (24 + 24) + factors)
    back = Product(*UNEVEN, 240, "float16", "backward")
    assert back.least_bytes == 2 * (10 * (24 + 24) + factors + 10 * 3 * 24 + 2 * factors)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_steps_on_the_host(dtype, tmp_path):
    todo = [Product(*UNEVEN, 240, dtype, task) for task in lookups.TASKS]
    results = command.measure(
        device.Host(), todo, {"name": "no GPU"}, 1e3, tmp_path, rounds=4, compiler=Compiler("not here")
    )
    assert not command.failed(results)
    for record in results["cases"]:
        assert {found["status"] for found in record["contestants"]} == {"ok"}
        names = [found["name"] for found in record["contestants"]]
        assert names == ["ketcore"] + ["torch eager"] * device.has_torch()
    assert (tmp_path / "gpu.md").read_text(encoding="utf-8").count("\n| 2x3 3x2 4x4 rank 2") == 2


def test_the_kernel_takes_part_where_it_can(monkeypatch):
    monkeypatch.setattr("ketcore.cuda.launcher.launcher_for", lambda array: object())
    small, large = (Product(((side, side),), 1, 60, "float32", "forward") for side in (4, 20))
    for case, fused in ((small, True), (large, False)):
        found = case.problem(device.Host()).contestants(device.Host())
        assert ("ketcore, fused" in [contestant.name for contestant in found]) == fused


def test_problems_are_those_of_the_case():
    problem = Product(*UNEVEN, 240, "float16", "forward").problem(device.Host())
    assert {array.dtype for array in (*problem.factors, problem.x)} == {np.dtype(np.float16)}
    assert (problem.x.shape, problem.cotangent.shape) == ((10, 24), (10, 24))
    assert 0.5 < float(np.std(problem.wide().rows())) < 2


def test_table():
    # Nothing here was measured: the figures are powers of ten, of a device that there is not.
    def timed(name, seconds):
        spread = {"median": seconds, "quartiles": [seconds, seconds], "samples": 3}
        given = {"name": name, "status": "ok", "error": 0.0, "bytes": 10, "share": 0.5, "how": "graph"}
        return given | {"device": spread, "call": spread}

    contestants = [timed("ketcore", 1e-3), timed("ketcore, fused", 1e-5), timed("torch eager", 1e-4)]
    record = {"name": "an imaginary product", "kind": "products", "contestants": contestants}
    copy = {"median": 1.0, "quartiles": [1.0, 1.0], "samples": 3, "bytes": 10**9, "rate": 1e9}
    results = {"about": {"name": "an imaginary GPU"}, "copy": copy, "cases": [record], "notes": []}
    lines = report.markdown(results).splitlines()
    assert "| case | ketcore | ketcore, fused | torch eager | ratio |" in lines
    (row,) = (line for line in lines if line.startswith("| an imaginary"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[2] == "10 (10 to 10) 50 %<br>10"
    assert cells[-1] == "100.00"
    del contestants[1]
    assert report.ratio(record) is None
