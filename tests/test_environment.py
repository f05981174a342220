"""`python -m ketcore`: what a report of a bug needs, whatever is broken, and nothing that is private."""

import getpass
import io
import os
import platform
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy
import threadpoolctl

import ketcore as kc
from ketcore import cli
from ketcore.cuda import devices, library
from ketcore.environment import environment
from ketcore.lookups import gather
from tests.processes import ROOT, run_python

# What the parts of CuPy that are asked say on a machine with a GPU.
HEALTHY = """
from . import cuda
print("a greeting")
"""
RUNTIME = """
def getDeviceCount(): return 2
def getDeviceProperties(number):
    return {"name": b"NVIDIA \\xc3\\x84 %d" % number, "major": 9, "minor": number}
def driverGetVersion(): return 12080
def runtimeGetVersion(): return 13000
"""


def said(text):
    """The report as label: texts."""
    found, label = {}, ""
    for line in text.splitlines():
        rest = line
        if not line.startswith(" "):
            label, _, rest = line.partition(":")
        found.setdefault(label, []).append(rest.strip())
    return found


@pytest.fixture
def no_cupy(monkeypatch):
    """No process that asks the GPU."""
    monkeypatch.setattr(library, "find_spec", lambda name: None)


@pytest.fixture
def cupy(tmp_path, monkeypatch):
    """Puts a CuPy on the path, of the text of its package and that of its runtime."""

    def put(package, runtime=RUNTIME, nvrtc="def getVersion(): return 12, 9\n"):
        folder = tmp_path / "cupy" / "cuda"
        folder.mkdir(parents=True)
        (tmp_path / "cupy" / "__init__.py").write_text(package, encoding="utf-8")
        (folder / "__init__.py").write_text("from . import nvrtc, runtime\n", encoding="utf-8")
        (folder / "runtime.py").write_text(runtime, encoding="utf-8")
        (folder / "nvrtc.py").write_text(nvrtc, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)

    return put


@pytest.mark.usefixtures("no_cupy")
def test_what_it_says():
    text = environment()
    found = said(text)
    assert found["ketcore"] == [kc.__version__]
    assert platform.python_version() in found["Python"][0]
    for module in (np, scipy):
        assert f"{module.__name__} {module.__version__}" in found["requires"][0]
    assert f"hypothesis {pytest.importorskip('hypothesis').__version__}" in found["optional"][0]
    assert found["engines"][0].startswith(", ".join(kc.engines()))
    assert "no cuda: CuPy is not installed" in found["engines"]
    assert found["GPU"] == ["none: CuPy is not installed"]
    assert len(text.splitlines()) <= 25
    assert max(map(len, text.splitlines())) <= 160


def test_nothing_in_it_is_private(cupy):
    cupy(f"raise ImportError({str(Path.home() / 'lib.so')!r})")
    text = environment()
    assert found_paths(text) == []
    for private in (str(ROOT), str(Path.home()), socket.gethostname(), getpass.getuser()):
        assert private not in text.split()


def found_paths(text):
    return [word for word in text.split() if {*"/\\"} & {*word[:-1]}]


@pytest.mark.usefixtures("no_cupy")
def test_threads_and_blas():
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        found = said(environment())
    assert found["threads"] == ["1 at most in a call of ketcore"]
    infos = [each for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"]
    for info in infos:
        assert [line for line in found["BLAS"] if f"{info['internal_api']} {info['version']}" in line]


@pytest.mark.usefixtures("no_cupy")
@pytest.mark.parametrize(
    ("path", "lines"),
    [
        ("numpy.libs", ["NumPy: mkl of unknown version, 3 threads", "SciPy: made, threads unknown"]),
        ("shared", ["shared: mkl of unknown version, 3 threads"]),
        (None, ["NumPy: made, threads unknown", "SciPy: made, threads unknown"]),
    ],
)
def test_a_blas_that_says_little(monkeypatch, path, lines):
    """Accelerate cannot be asked; of MKL and BLIS less is known than of OpenBLAS."""
    info = {"user_api": "blas", "internal_api": "mkl", "version": None, "num_threads": 3}
    info["filepath"] = os.path.join("numpy", "site-packages", str(path), "a.so")
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: [info] if path else [])
    for module in (np, scipy):
        made = {"Build Dependencies": {"blas": {"name": "made", "lib directory": "private"}}}
        monkeypatch.setattr(module, "show_config", lambda mode, made=made: made)
    assert said(environment())["BLAS"] == lines
    monkeypatch.setattr(np, "show_config", lambda mode: {})
    environment()


@pytest.mark.usefixtures("no_cupy")
def test_an_engine_alone_says_why_the_others_are_missing(monkeypatch):
    monkeypatch.setenv("KETCORE_ENGINE", "arrays")
    with gather.only("arrays"):
        found = said(environment())["engines"]
    assert found[0] == "arrays; KETCORE_ENGINE is arrays"
    assert found[-1] == "no numpy: KETCORE_ENGINE names others"


def test_gpus(cupy):
    cupy(HEALTHY)
    assert devices.gpus() == [
        "NVIDIA \u00c4 0, compute capability 9.0",
        "NVIDIA \u00c4 1, compute capability 9.1",
        "CUDA: driver 12.8, runtime 13.0, NVRTC 12.9",
    ]
    assert "cupy" not in sys.modules


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("def f(:", "unknown: CuPy cannot be imported: SyntaxError: "),
        ("import ctypes; raise OSError('libcuda.so.1: no file')", "OSError: libcuda.so.1: no file"),
        ("raise ImportError('/home/somebody/lib')", "unknown: CuPy cannot be imported: ImportError"),
        (
            "try: raise OSError('no driver')\nexcept OSError as e: raise ImportError('=' * 99) from e",
            "OSError: no driver",
        ),
        ("import os; os._exit(3)", "unknown: the process that asked CuPy ended with status 3"),
        ("", "unknown: CuPy cannot be imported: "),
    ],
    ids=["syntax", "library", "path", "cause", "crash", "empty"],
)
def test_a_broken_cupy_gives_a_line(cupy, capfd, package, line):
    cupy(package)
    if not package:
        os.remove(Path(sys.path[0], "cupy", "cuda", "runtime.py"))
    (found,) = said(environment())["GPU"]
    assert line in found
    assert found_paths(found) == []
    assert capfd.readouterr() == ("", "")


def test_a_cupy_without_a_gpu_or_nvrtc(cupy):
    cupy(HEALTHY, nvrtc="", runtime=RUNTIME.replace("return 2", "return 0"))
    assert devices.gpus() == ["CUDA: driver 12.8, runtime 13.0, no NVRTC"]
    fails = RUNTIME.replace("return 2", "raise RuntimeError('cudaErrorInsufficientDriver: too old')")
    Path(sys.path[0], "cupy", "cuda", "runtime.py").write_text(fails, encoding="utf-8")
    assert devices.gpus() == ["none: RuntimeError: cudaErrorInsufficientDriver: too old"]


def test_a_cupy_that_hangs_is_given_up(cupy):
    cupy("import time; time.sleep(600)")
    assert devices.gpus(timeout=0.5) == ["unknown: CuPy has not answered within 0.5 seconds"]


def test_a_process_that_cannot_be_started(cupy, monkeypatch):
    cupy(HEALTHY)
    monkeypatch.setattr(sys, "executable", "no such program")
    assert devices.gpus() == ["unknown: no process can be started for CuPy (FileNotFoundError)"]


def test_every_distribution_of_cupy_is_named(tmp_path, monkeypatch):
    names = ("cupy_cuda12x-14.0.0.dist-info", "cupy_cuda13x-14.1.0.dist-info", "cupyd-1.0.dist-info")
    for name in (*names, "cupy_rocm_5_0-14.0.0.egg-info", "cupy-1.0.data"):
        (tmp_path / name).mkdir()
        package, _, version = name.removesuffix(".dist-info").replace("_", "-").rpartition("-")
        text = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        (tmp_path / name / "METADATA").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "missing"), __file__])
    assert devices.distributions() == ["cupy-cuda12x", "cupy-cuda13x", "cupy-rocm-5-0"]
    assert "cupy-cuda12x 14.0.0, cupy-cuda13x 14.1.0" in said(environment())["optional"][0]


def module(monkeypatch, *words):
    """The status of `python -m ketcore` with these words, in this process."""
    monkeypatch.setattr(sys, "argv", ["", *words])
    monkeypatch.delitem(sys.modules, "ketcore.__main__", raising=False)  # other tests import it
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("ketcore", run_name="__main__", alter_sys=False)
    return ended.value.code


def test_python_m_ketcore_prints_the_report():
    command = [sys.executable, "-W", "error", "-m", "ketcore"]
    given = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=given, capture_output=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, b"")
    assert [*said(done.stdout.decode())][:2] == ["ketcore", "Python"]


def test_python_m_ketcore_takes_the_words_of_the_command_line(monkeypatch, capfd):
    monkeypatch.setattr("ketcore.environment.environment", lambda: "the report")
    assert module(monkeypatch) == module(monkeypatch, "info") == 0
    assert capfd.readouterr().out.splitlines() == ["the report"] * 2
    assert module(monkeypatch, "--version") == 0
    assert capfd.readouterr().out.split() == ["ketcore", kc.__version__]
    assert module(monkeypatch, "demo", "--help") == 0
    assert "--epochs" in capfd.readouterr().out
    assert module(monkeypatch, "nothing") == 2
    assert "invalid choice: 'nothing'" in capfd.readouterr().err


@pytest.mark.usefixtures("no_cupy")
@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "Linux-\u4f59"), ("ascii", r"Linux-\u4f59"), ("cp1252", r"Linux-\u4f59")],
)
def test_what_a_terminal_cannot_print(monkeypatch, encoding, shown):
    """The name of a processor or a platform may be any text."""
    monkeypatch.setattr(platform, "platform", lambda: "Linux-\u4f59")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert cli.main(["info"]) == 0
    assert said(terminal.buffer.getvalue().decode(encoding))["platform"] == [shown]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("flags : a\nmodel name\t: A processor @ 2 GHz\n", "A processor @ 2 GHz"),
        ("flags : a\n", "knows"),
        (None, "knows"),
    ],
)
def test_the_processor_is_named_where_linux_or_python_knows_it(tmp_path, monkeypatch, text, name):
    file = tmp_path / "cpuinfo"
    if text:
        file.write_text(text, encoding="utf-8")
    monkeypatch.setattr("ketcore.environment._CPUINFO", str(file))
    monkeypatch.setattr(platform, "processor", lambda: "knows")
    assert said(environment())["processor"][0].startswith(f"{name}, ")


def test_the_report_imports_no_framework():
    code = "import sys; from ketcore.environment import environment; environment(); print(*sys.modules)"
    done = run_python(code)
    assert not {"torch", "jax", "hypothesis", "transformers", "cupy"} & set(done.stdout.split())
