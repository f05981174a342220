"""CuPy itself on stand-ins for CUDA: tests in a process of its own, by tests.cupy_host."""

import sys

from tests.cupy_host import process, wheels
from tests.require import imported

TESTS = (
    *(
        f"tests/cupy_host/{name}.py"
        for name in ("values", "counts", "captures", "objects", "binding", "dtypes")
    ),
    "tests/test_gpu.py::test_small_products",
)
# cuSOLVER, which these take, has no stand-in.
OPERATIONS = "cupy and dense_definition and not (solve or slogdet or likelihood)"


def check(arguments):
    result = process.run(["-q", *arguments])
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " passed" in result.stdout


def test_on_the_stand_ins():
    process.require_stand_ins()
    check(TESTS)
    check(["-m", "gpu", "--hypothesis-profile=short", "tests/test_ops.py", "-k", OPERATIONS])


def test_torch_on_the_stand_ins():
    process.require_stand_ins()
    imported("torch")
    check(["tests/cupy_host/tensors.py"])


def test_other_tests_do_not_see_the_stand_ins():
    # Where all files of tests are collected, and so imported, CuPy must be as missing as it is.
    assert str(wheels.folder() / "site") not in sys.path
