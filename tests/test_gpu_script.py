"""The GPU run without a GPU: its steps, its cases and checks on the host, its table from made-up numbers."""

import doctest
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from time import sleep
from types import SimpleNamespace

import numpy as np
import pytest

from bench.gpu import __main__ as command
from bench.gpu import cases, compiled, device, race, report
from bench.gpu.cases import Case, least_bytes
from bench.gpu.compiled import Compiler
from bench.workloads import Workload
from ketcore.cuda import table
from tests.cupy_host import process

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "bench" / "gpu.sh"
ROWS, KETS = Workload("rows", 60, 15, 2, 3), Workload("kets", 50, 16, 4, 2, layernorm=True)

needs_bash = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "timeout"))), reason="there is no bash, or no timeout"
)


# ---- cases and contestants ----


def test_cases_are_those_that_are_promised():
    found = cases.cases()
    assert len(found) == len(set(found)) == (8 + 2) * 2 * 3
    assert {case.batch for case in found} == {1024, 16384, 131072}
    assert {case.dtype for case in found if case.workload.kind == "kets"} == {"float32"}
    assert any(case.workload.layernorm for case in found)


def test_least_bytes():
    # 60 x 15 at order 2: leaves of 8 x 4 in each of 3 terms; ids of 8 bytes.
    table = 3 * 2 * 8 * 4 * 4
    assert least_bytes(Case(ROWS, 10, "float32", "forward")) == 10 * 15 * 4 + table + 80
    assert least_bytes(Case(ROWS, 10, "float32", "backward")) == 2 * 10 * 15 * 4 + 2 * table + 80
    # A record of 2 terms of 4 leaves of 2; no more of them are read than there are words.
    record = 2 * 8 * 2
    assert least_bytes(Case(KETS, 70, "float16", "forward")) == 70 * 16 * 2 + 50 * record + 70 * 8
    assert least_bytes(Case(KETS, 7, "float16", "backward")) == 2 * 7 * 16 * 2 + (7 + 50) * record + 7 * 8
    assert cases.dense_bytes(Case(ROWS, 10, "float32", "forward")) == 2 * 10 * 15 * 4 + 80
    assert cases.dense_bytes(Case(ROWS, 90, "float32", "backward")) == 2 * 90 * 60 + 90 * 8 + 2 * 60 * 60


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("workload", [ROWS, KETS], ids=lambda workload: workload.kind)
def test_the_steps_on_the_host(workload, dtype, tmp_path):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    todo = [Case(workload, 40, dtype, task) for task in cases.TASKS]
    results = command.measure(
        device.Host(), todo, {"name": "no GPU"}, 1e3, tmp_path, rounds=4, compiler=Compiler("not here")
    )
    assert not command.failed(results)
    assert json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8")) == results
    for record in results["cases"]:
        names = [contestant["name"] for contestant in record["contestants"]]
        assert names[0] == "ketcore"
        assert ("torch eager" in names) == ("nn.Embedding" in names) == device.has_torch()
        for contestant in record["contestants"]:
            assert contestant["status"] == "ok"
            assert contestant["how"] == "no graph: the host has no graphs"
            assert contestant["device"]["samples"] == 4
            assert contestant["share"] > 0
    table = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert table.count("\n| " + workload.name) == 2
    assert "- not here\n" in table


def test_a_time_limit_ends_the_benchmark(tmp_path):
    todo = [Case(ROWS, 4, "float32", "forward")] * 2
    results = command.measure(device.Host(), todo, {"name": "no GPU"}, 0, tmp_path, compiler=Compiler("no"))
    assert [note.split(":")[0] for note in results["notes"][:2]] == ["not run, no time left"] * 2
    assert command.failed(results)


def contestant(name, rows, gradients=()):
    return cases.Contestant(name, lambda: (rows, gradients), "numpy", 8)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda rows: rows, "ok"),
        (lambda rows: rows * (1 + 1e-4), "ok"),
        (lambda rows: rows * 1.1, "disagrees by"),
        (lambda rows: rows * np.nan, "disagrees by nan"),
        (lambda rows: rows[:-1], "failed: ValueError: result must have shape"),
    ],
)
def test_who_disagrees_is_not_timed(change, status, monkeypatch):
    case = Case(ROWS, 12, "float32", "forward")
    rows = cases.make_problem(case, device.Host()).rows()
    monkeypatch.setattr(race, "contestants", lambda *given: [contestant("other", change(rows))])
    (timing,) = race.race(case, device.Host(), Compiler("no"), rounds=2)
    assert timing.status.startswith(status)
    assert bool(timing.device) == (timing.status == "ok") == ("share" in timing.record(1.0))


def test_gradients_are_compared_too(monkeypatch):
    case = Case(ROWS, 12, "float32", "backward")
    problem = cases.make_problem(case, device.Host())
    first, second = problem.gradients()
    wrong = contestant("other", problem.rows(), (first, 2 * second))
    monkeypatch.setattr(race, "contestants", lambda *given: [wrong])
    (timing,) = race.race(case, device.Host(), Compiler("no"), rounds=2)
    assert timing.error == pytest.approx(1, rel=1e-3)


# ---- torch.compile ----


def test_compiling_has_a_limit(monkeypatch):
    monkeypatch.setattr(compiled, "PATIENCE", 0.05)
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: object())
    compiler = Compiler()
    assert not compiler.reason
    with pytest.raises(TimeoutError, match=r"^took more than 0\.05 s$"), compiler.patient():
        sleep(5)
    assert compiler.reason == "torch.compile took more than 0.05 s"
    with Compiler().patient():
        pass


def test_compiling_needs_triton(monkeypatch):
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None)
    assert Compiler().reason == "Triton is not installed"


# ---- the device, with NumPy in place of CuPy ----


class FakeCupy:
    """NumPy under the names of CuPy that `bench.gpu.device` uses; events are a hundred microseconds apart."""

    def __init__(self):
        self.log, self.allocator = [], None
        self.cuda = SimpleNamespace(
            Stream=lambda non_blocking: FakeStream(self.log),
            Event=lambda: SimpleNamespace(record=lambda stream: None, synchronize=lambda: None),
            get_elapsed_time=lambda start, end: 0.1,
            MemoryPool=lambda: SimpleNamespace(malloc=object()),
            using_allocator=lambda malloc: FakeStream(self.log),
            runtime=SimpleNamespace(
                memGetInfo=lambda: (1 << 20, 1 << 21), deviceSynchronize=lambda: self.log.append("wait")
            ),
        )

    def __getattr__(self, name):
        return getattr(np, name)

    def get_default_memory_pool(self):
        return SimpleNamespace(free_all_blocks=lambda: self.log.append("free"))


class FakeStream:
    ptr = 1

    def __init__(self, log):
        self.log = log

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def synchronize(self):
        self.log.append("synchronize")

    def begin_capture(self):
        self.log.append("begin")

    def end_capture(self):
        self.log.append("end")
        return SimpleNamespace(launch=lambda stream: self.log.append("launch"))


@pytest.fixture
def gpu(monkeypatch):
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(device, "FLUSH_BYTES", 64)
    monkeypatch.setattr(device, "has_torch", lambda torch_device: False)
    return device.Cuda()


def test_graphs_are_captured_after_a_call_and_replayed(gpu):
    with gpu.active():
        replay = gpu.captured(lambda: gpu.xp.log.append("call"), "cupy")
        replay()
    assert gpu.xp.log == ["call", "synchronize", "begin", "call", "end", "launch"]


def test_what_cannot_be_captured_says_why(gpu):
    def fail():
        raise ValueError("no such thing\nand more")

    with pytest.raises(RuntimeError, match=r"^ValueError: no such thing$"):
        gpu.captured(fail, "cupy")
    assert gpu.xp.log == ["wait"]
    with pytest.raises(RuntimeError, match=r"^CuPy does not capture cuBLAS$"):
        gpu.captured(fail, "cublas")


def test_times_of_events_are_milliseconds(gpu):
    assert gpu.timed(lambda: None) == pytest.approx(1e-4)
    gpu.clean()
    assert gpu.called(lambda: gpu.xp.log.append("call"), 3) > 0
    assert gpu.xp.log == ["free", "synchronize", "call", "call", "call", "synchronize"]


# ---- the table ----

# Nothing below was measured: the figures are powers of ten, of a device that there is not.
SECONDS = {"median": 1e-5, "quartiles": [1e-6, 1e-4], "samples": 3}


def made_up(name, **changes):
    found = {"name": name, "status": "ok", "error": 0.0, "bytes": 10, "share": 0.5, "how": "graph"}
    return found | {"device": SECONDS, "call": SECONDS} | changes


def test_table():
    torch = made_up("torch eager", device=SECONDS | {"median": 1e-3}, how="no graph: it refuses")
    slow = {"name": "torch.compile", "status": "failed: TimeoutError: took more than 60 s"}
    timings = [made_up("ketcore"), torch, slow]
    record = {"name": "an imaginary case", "kind": "lookups", "contestants": timings}
    copy = SECONDS | {"bytes": 10**9, "rate": 1e9}
    about = {"name": "an imaginary GPU", "driver": 0, "cupy": "0", "torch": None}
    results = {"about": about, "copy": copy, "cases": [record], "notes": ["a note"]}
    lines = report.markdown(results).splitlines()
    assert lines[0] == "# an imaginary GPU"
    assert lines[2] == "cupy 0. Copy bandwidth, read and written: 1 GB/s, from 3 copies of 1 GB."
    (row,) = (line for line in lines if line.startswith("| an imaginary"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert cells == [
        "10 (1 to 100) 50 %<br>10",
        "",
        "1e+03* (1 to 100) 50 %<br>10",
        "failed",
        "",
        "100.00",
    ]
    assert lines[-3:] == [
        "- an imaginary case, torch eager: no graph: it refuses",
        "- an imaginary case, torch.compile: failed: TimeoutError: took more than 60 s",
        "- a note",
    ]
    assert not command.failed(results)
    assert command.failed({"cases": [{"contestants": [made_up("ketcore, atomics", status="failed: x")]}]})


def test_doctests():
    assert doctest.testmod(race).failed == 0


# ---- the script ----


def run(*arguments, **environment):
    """The script, with nothing in the environment that says what to require."""
    given = {name: value for name, value in os.environ.items() if name not in ("KETCORE_REQUIRE", "WHEELS")}
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)],
        env=given | {"PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )


@needs_bash
def test_syntax_of_the_script():
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0
    assert run().returncode == 2
    assert run("--dry-run").returncode == 2


@needs_bash
def test_dry_run_names_every_step_and_writes_nothing(tmp_path):
    done = run("--dry-run", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    steps = dict(line.split(" (at most ", 1) for line in done.stdout.splitlines())
    tools = {"memcheck", "racecheck", "synccheck", "initcheck"}
    assert set(steps) == {"wheels", "facts", "suite", "gpu", "bench"} | tools | {
        f"compile-{batch}" for batch in cases.BATCHES
    }
    kernels_named = [f"kernel_substring={kernel}" in steps["racecheck"] for kernel, _, _ in table.TABLE]
    assert all(kernels_named)
    assert all("-k small" in steps[tool] and f"--tool {tool} " in steps[tool] for tool in tools)
    assert "-m gpu" in steps["suite"]
    assert not (tmp_path / "out").exists()


STUB = """#!/bin/sh
# Stands for Python: answers what the script asks, and fails in the steps named in $FAIL.
case "$*" in
  - | -\\ *) exec {python} "$@" ;;
  *"bench.gpu bench"*) echo "# a table" >"$4/gpu.md"; step=bench ;;
  *"bench.gpu"*) step=$3 ;;
  *"--ignore"*) step=suite ;;
  *"-k small"*) step=small ;;
  *) step=gpu ;;
esac
echo "this is $step with $KETCORE_REQUIRE"
case ",$FAIL," in *",$step,"*) exit 1 ;; *",$step=78,"*) exit 78 ;; esac
"""
SANITIZER = '#!/bin/sh\nwhile [ "$1" != "$PYTHON" ]; do shift; done\nexec "$@"\n'


@pytest.fixture
def stubs(tmp_path):
    """Folder of a Python and a compute-sanitizer that do nothing."""
    for name, text in (("python", STUB.format(python=sys.executable)), ("compute-sanitizer", SANITIZER)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    # The script looks for modules; these need not be what they are called.
    for name in ("cupy", "ml_dtypes"):
        (tmp_path / "lib").mkdir(exist_ok=True)
        (tmp_path / "lib" / f"{name}.py").touch()
    return tmp_path


def run_stubbed(stubs, **environment):
    given = {"PYTHON": str(stubs / "bin" / "python"), "PYTHONPATH": str(stubs / "lib")}
    path = f"{stubs / 'bin'}:{os.environ['PATH']}"
    done = run(stubs / "out", PATH=path, **given, **environment)
    summary = (stubs / "out" / "summary.txt").read_text(encoding="utf-8").splitlines()
    return done, {line.split()[0]: line.split(" s  ")[1] for line in summary}


@needs_bash
def test_all_steps_run(stubs):
    done, summary = run_stubbed(stubs)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(summary) == 12
    assert set(summary.values()) == {"ok"}
    log = (stubs / "out" / "log.txt").read_text(encoding="utf-8")
    assert "==== suite ====\nthis is suite with cupy\n" in log
    assert log.count("this is small with cupy") == 4
    assert "# a table" in done.stdout
    assert sorted(path.name for path in (stubs / "out").iterdir()) == ["gpu.md", "log.txt", "summary.txt"]


@needs_bash
def test_a_step_that_fails_does_not_stop_the_next(stubs):
    done, summary = run_stubbed(stubs, FAIL="suite,small")
    assert done.returncode == 1
    assert summary["suite"] == summary["memcheck"] == "failed: exit status 1"
    assert summary["gpu"] == summary["bench"] == "ok"
    assert "==== suite ====\nthis is suite" in done.stdout


@needs_bash
def test_without_a_gpu_nothing_else_runs(stubs):
    done, summary = run_stubbed(stubs, FAIL="facts=78")
    assert done.returncode == 1
    assert summary == {"wheels": "ok", "facts": "failed: exit status 78"}


@needs_bash
@pytest.mark.parametrize(("required", "status"), [("", 0), ("sanitizer", 1)])
def test_a_missing_sanitizer_is_said(stubs, required, status):
    (stubs / "bin" / "compute-sanitizer").unlink()
    if shutil.which("compute-sanitizer") or list(Path("/usr/local").glob("cuda*/bin/compute-sanitizer")):
        pytest.skip("there is one here")
    done, summary = run_stubbed(stubs, KETCORE_REQUIRE=required)
    assert done.returncode == status
    assert summary["racecheck"] == "not run: compute-sanitizer was not found"


@needs_bash
def test_a_missing_package_is_named(stubs, tmp_path):
    (stubs / "lib" / "cupy.py").unlink()
    blocked = stubs / "lib" / "sitecustomize.py"
    blocked.write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'cupy' else find(name, *rest)\n",
        encoding="utf-8",
    )
    done, summary = run_stubbed(stubs)
    assert done.returncode == 1
    assert summary["wheels"] == "failed: exit status 1"
    assert "needed, and missing: cupy;" in (stubs / "out" / "log.txt").read_text(encoding="utf-8")


# It is told what to watch, and watches nothing; one of the four tools is enough.
WATCHES_NOTHING = """#!/bin/sh
case "$*" in *"--tool memcheck"*) ;; *) exit 0 ;; esac
while [ "$1" != "$PYTHON" ]; do shift; done
exec "$@"
"""


@needs_bash
def test_every_step_on_the_stand_ins(tmp_path):
    """The script to its end on CuPy itself, whose stand-ins for a GPU are not taken for one."""
    process.require_stand_ins()
    sanitizer = tmp_path / "bin" / "compute-sanitizer"
    sanitizer.parent.mkdir()
    sanitizer.write_text(WATCHES_NOTHING, encoding="utf-8")
    sanitizer.chmod(sanitizer.stat().st_mode | stat.S_IXUSR)
    environment = {
        "PATH": f"{sanitizer.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "tests" / "cupy_host" / "shim"),
        "OPENBLAS_NUM_THREADS": "1",
    }
    whole, small = tmp_path / "whole", tmp_path / "small"
    assert run(whole, **environment).returncode == 1
    assert "facts" in (whole / "summary.txt").read_text(encoding="utf-8").splitlines()[-1]
    assert "which is for --small" in (whole / "log.txt").read_text(encoding="utf-8")
    done = run("--small", small, **environment)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    files = {"env.json", "small.json", "small.md", "log.txt", "summary.txt"}
    assert {path.name for path in small.iterdir()} == files
    for name in files - {"log.txt", "summary.txt"}:
        assert "no GPU" in (small / name).read_text(encoding="utf-8")
    summary = (small / "summary.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in summary if "not run" in line] == ["compile-16"]
    results = json.loads((small / "small.json").read_text(encoding="utf-8"))
    everyone = [(one["name"], one["how"]) for case in results["cases"] for one in case["contestants"]]
    assert len(everyone) == 2 * 3 + 2 * 2
    # The gradients of products are by cuBLAS.
    assert sum(how == "graph" for _, how in everyone) == 2 * 3 + 1


@needs_bash
def test_small_cases_are_not_put_among_results():
    assert run("--small", ROOT / "bench" / "results" / "no GPU").returncode == 2
    assert not (ROOT / "bench" / "results" / "no GPU").exists()
