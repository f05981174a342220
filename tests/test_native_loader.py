"""How the compiled library is built, found and chosen; one that is broken is a reason, and no error."""

import ctypes
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import ketcore as kc
from ketcore.environment import environment
from ketcore.native import build, loader
from tests.processes import run_python
from tests.require import require

FOLDER = Path(loader.__file__).parent
ROOT = Path(__file__).parent.parent
HERE = next(FOLDER.glob("_kernels.*"), None)
linux = pytest.mark.skipif(sys.platform != "linux", reason="the words are those of Linux")


@pytest.fixture
def native():
    """The library of this process."""
    found, reason = loader.found()
    require("native", found is not None, reason)
    return found


@pytest.fixture
def reason(tmp_path, monkeypatch):
    """Why a library of these bytes is not taken."""

    def look(content):
        (tmp_path / "_kernels.so.1").write_bytes(content)
        monkeypatch.setattr(loader, "_FOLDER", tmp_path)
        found, said = loader.found.__wrapped__()
        assert found is None
        assert str(tmp_path) not in said
        return said

    return look


def test_what_is_here_is_said(native):
    assert "native" in kc.engines() or os.environ.get("KETCORE_ENGINE")
    assert native.instructions in native.available
    if "native" in kc.engines():
        assert f"native by {native.instructions}, of {', '.join(native.available)}" in environment()


def test_what_is_missing_is_said_by_name():
    found = kc.engines()
    assert set(found) | set(found.missing) == {"cuda", "native", "numpy", "arrays"}
    assert not set(found) & set(found.missing)
    for name, why in found.missing.items():
        assert f"no {name}: {why}" in environment()


def test_no_library(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "_FOLDER", tmp_path)
    assert loader.found.__wrapped__() == (None, "it was not compiled when ketcore was installed")


@linux
@pytest.mark.parametrize(
    ("content", "said"), [(b"", "file too short"), (b"text\n" * 1000, "invalid ELF header")]
)
def test_what_is_no_library(reason, content, said):
    assert reason(content) == f"_kernels.so.1 cannot be used: {said}"


@linux
def test_a_library_that_is_cut_short(native, reason):
    """To map what is not in the file, and to touch it, would end the process."""
    whole = HERE.read_bytes()
    for part in (20, 60, 100, 5000, len(whole) // 2, len(whole) * 3 // 4):
        assert reason(whole[:part]) == "_kernels.so.1 cannot be used: it is cut short"


@linux
@pytest.mark.parametrize("size", [0, 1, 39])
def test_a_library_whose_header_is_broken(native, reason, size):
    """Descriptions of segments that are too short to have what is read from them."""
    broken = bytearray(HERE.read_bytes())
    broken[54:56] = struct.pack("=H", size)
    assert reason(bytes(broken)) == "_kernels.so.1 cannot be used: it is cut short"


@linux
def test_a_library_for_another_processor(native, reason):
    other = bytearray(HERE.read_bytes())
    other[18:20] = struct.pack("=H", 8)
    assert reason(bytes(other)) == "_kernels.so.1 cannot be used: it is for another kind of processor"


@linux
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "undefined symbol: ketcore_version"),
        (
            'extern "C" int ketcore_version() { return 0; }',
            f"it is version 0, and {loader.VERSION} is needed",
        ),
    ],
)
def test_a_library_of_something_else(reason, tmp_path, source, said):
    require("native", shutil.which("g++") is not None, "there is no g++")
    path = tmp_path / "other.so"
    command = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", path]
    subprocess.run(command, input=source, encoding="utf-8", check=True)
    assert reason(path.read_bytes()) == f"_kernels.so.1 cannot be used: {said}"


def test_each_instruction_set_can_be_chosen(native):
    code = """
import ketcore as kc
from ketcore.native import loader
print(loader.found()[0].instructions, "native" in kc.engines())"""
    for name in native.available:
        done = run_python(code, KETCORE_INSTRUCTIONS=name, KETCORE_ENGINE="")
        assert done.stdout.split() == [name, "True"], done.stderr


def test_every_feature_of_an_instruction_set_is_asked_for():
    """What a virtual machine hides from its guests would be an illegal instruction there."""
    text = (build.SOURCES / "api.cpp").read_text(encoding="utf-8")
    named, asked = re.findall(r'BEGIN_SET\("([^"]*)"\)', text), set()
    tests = dict(re.findall(r"static bool has_(v\d)\(\) \{(.*?)\}", text, flags=re.DOTALL))
    assert len(named) == len(tests) == 3
    # Each asks for the features of the lesser one too.
    for features, (name, body) in zip(named, sorted(tests.items()), strict=True):
        assert name == "v2" or f"has_v{int(name[1:]) - 1}()" in body
        asked |= set(re.findall(r'__builtin_cpu_supports\("([^"]*)"\)', body))
        assert asked >= set(features.split(","))


def test_an_instruction_set_that_is_not_there(native, monkeypatch):
    monkeypatch.setenv("KETCORE_INSTRUCTIONS", "sparc")
    names = ", ".join(native.available)
    assert loader.found.__wrapped__() == (None, f"KETCORE_INSTRUCTIONS must be one of {names}, got 'sparc'")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("false", "the C++ compiler false has failed with status 1"),
        (
            "no-such-compiler -O1",
            "the C++ compiler no-such-compiler cannot be run: No such file or directory",
        ),
    ],
)
@linux
def test_a_compiler_that_fails(tmp_path, monkeypatch, command, said):
    monkeypatch.setenv("CXX", command)
    with pytest.raises(RuntimeError, match=f"^{re.escape(said)}$"):
        build.build(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_where_no_compiler_will_do(monkeypatch):
    monkeypatch.setenv("CXX", "")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for system, said in (
        ("linux", "there is no C++ compiler: neither CXX is set, nor is there c++, g++ or clang++"),
        ("win32", "there are no kernels for Windows, whose compiler has no vector types"),
    ):
        monkeypatch.setattr(sys, "platform", system)
        with pytest.raises(RuntimeError, match=f"^{re.escape(said)}$"):
            build.compiler()


def test_the_library_is_of_the_sources_beside_it(native):
    """One that was compiled before they changed is used like any other, and gives the results of then."""
    named = ctypes.CDLL(HERE).ketcore_sources
    named.restype = ctypes.c_char_p
    assert named().decode() == build.fingerprint(), "run python -m ketcore.native.build"


def test_a_library_is_taken_for_current_by_what_it_was_compiled_from(native, tmp_path, monkeypatch):
    assert build.is_current(HERE)
    assert not build.is_current(tmp_path / build.NAME)
    monkeypatch.setattr(build, "fingerprint", lambda: "f" * 16)
    assert not build.is_current(HERE)


def test_the_fingerprint_is_of_all_sources_the_flags_and_the_machine(tmp_path, monkeypatch):
    shutil.copytree(build.SOURCES, tmp_path / "native", ignore=shutil.ignore_patterns("_kernels.*"))
    assert build.fingerprint(tmp_path / "native") == build.fingerprint()
    for path in [*tmp_path.glob("native/*.?pp")]:
        before = path.read_text(encoding="utf-8")
        path.write_text(before + "\n", encoding="utf-8")
        assert build.fingerprint(tmp_path / "native") != build.fingerprint()
        path.write_text(before, encoding="utf-8")
    here = build.fingerprint()
    with monkeypatch.context() as patched:
        patched.setattr(platform, "machine", lambda: "another")
        assert build.fingerprint() != here
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-O1"))
    assert build.fingerprint() != here


@linux
def test_setup_compiles_nothing_twice(native, tmp_path):
    known = find_spec("setuptools") is not None and find_spec("setuptools.command.bdist_wheel") is not None
    require("setuptools", known, "setuptools is not installed, or makes no wheels itself")
    shutil.copytree(ROOT / "ketcore", tmp_path / "ketcore", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "made"]
    given = os.environ | {"CXX": "false", "KETCORE_NATIVE": "require"}

    def compile_it():
        return subprocess.run(
            command, cwd=tmp_path, env=given, capture_output=True, text=True, encoding="utf-8", check=False
        )

    done, made = compile_it(), tmp_path / "made/ketcore/native" / build.NAME
    assert (done.returncode, made.read_bytes()) == (0, HERE.read_bytes()), done.stderr
    with Path(tmp_path, "ketcore/native/array.hpp").open("a", encoding="utf-8") as file:
        file.write("\n")
    done = compile_it()
    assert done.returncode
    assert "the C++ compiler false has failed" in done.stderr
    assert not made.exists()


@linux
def test_the_library_shows_nothing_but_its_own(native):
    """Its copy of the C++ library would otherwise take the place of that of others."""
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", HERE], capture_output=True, encoding="utf-8", check=True
    )
    # Weak are the templates that it has made of its own.
    kinds = [line.split()[1:] for line in listed.stdout.splitlines()]
    assert [name for kind, name in kinds if kind != "W" and not name.startswith("ketcore_")] == []
