"""That `tests.run_kernels` runs what it says it does."""

import json
import os
import subprocess

import pytest
import scipy.linalg  # noqa: F401  SciPy has a BLAS of its own
from threadpoolctl import threadpool_info

from tests import run_kernels


def test_blas_is_what_was_asked_for():
    if "KETCORE_BLAS" not in os.environ:
        pytest.skip("python -m tests.run_kernels runs this")
    said, threads = json.loads(os.environ["KETCORE_BLAS"])
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    assert sorted({str(library.get("architecture")) for library in found}) == said
    assert {library["num_threads"] for library in found} == {threads}


def test_every_file_is_there():
    names = {path.stem for path in (run_kernels.ROOT / "tests").glob("test_*.py")}
    assert set(run_kernels.FILES) <= names


def test_names_that_stand_for_one_another_run_once(monkeypatch):
    said = {None: ("Zen",), "Haswell": ("Haswell",), "Zen": ("Zen",), "SkylakeX": ("Haswell",)}
    monkeypatch.setattr(run_kernels, "architectures", lambda name: said.get(name, ()))
    assert run_kernels.distinct() == {("Zen",): "", ("Haswell",): "Haswell"}


@pytest.mark.parametrize(("short", "runs"), [(True, 3), (False, 4)])
def test_a_failure_is_reported(monkeypatch, capsys, short, runs):
    commands = []

    def pretend(command, *, env, **options):
        commands.append((env.get("OPENBLAS_CORETYPE"), env["OMP_NUM_THREADS"]))
        failed = env["OMP_NUM_THREADS"] == "2"
        return subprocess.CompletedProcess(command, int(failed), f"1 {'failed' if failed else 'passed'}", "")

    monkeypatch.setattr(run_kernels, "distinct", lambda: {("Zen",): "", ("Haswell",): "Haswell"})
    monkeypatch.setattr(run_kernels.subprocess, "run", pretend)
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert run_kernels.main(["--short"] if short else []) == 1
    assert set(commands) >= {(None, "1"), (None, "2"), ("Haswell", "1")}
    assert len(commands) == runs
    green = len(commands) - sum(threads == "2" for _, threads in commands)
    assert capsys.readouterr().out.endswith(f"{green} of {runs} kernels and numbers of threads are green\n")
