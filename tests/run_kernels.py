"""Run the numerical tests with every kernel of OpenBLAS that this machine has, and with one and two threads.

    python -m tests.run_kernels [--short] [pytest arguments]

Kernels differ in the order in which they sum, in what flags they raise, and in how they cut work up for
threads.  Names stand for one another, and one that the processor cannot run falls back to another: what
counts is what threadpoolctl says.  --short takes few tests with few examples, with one thread, and with two
on the kernel of this machine.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORES = os.cpu_count() or 1
# Of OPENBLAS_CORETYPE, from the oldest; an architecture that is not this machine's is not taken.
NAMES = ("Prescott", "Core2", "Nehalem", "Barcelona", "Sandybridge", "Bulldozer", "Haswell", "Zen")
NAMES += ("SkylakeX", "Cooperlake", "Sapphirerapids", "ARMV8", "NEOVERSEN1", "NEOVERSEV1", "POWER10")
SHORT = ("test_options", "test_linalg_solving", "test_linalg_spectral", "test_kronecker_sum", "test_matmul")
FILES = (
    *SHORT, "test_fit_many", "test_fit_rank_one", "test_fit_recompress", "test_fit_two", "test_identities",
    "test_ket", "test_laws", "test_linalg_cg", "test_linalg_determinants", "test_linalg_functions",
    "test_linalg_gaussian", "test_linalg_limits", "test_linalg_norms", "test_linalg_sums",
    "test_linear_operator", "test_many_modes", "test_matrix", "test_matrix_products", "test_operands",
    "test_operator_ops", "test_ops", "test_precision", "test_product", "test_structure_functions",
    "test_subsystems", "test_testing", "test_threads",
)  # fmt: skip
# These have no BLAS, or one of their own.
LEFT_OUT = "not cusim and not torch and not jax and not awkward"
# What OpenBLAS is, in NumPy and in SciPy, after it has worked: a kernel may be one that the processor lacks.
PROBE = """
import json, numpy as np, scipy.linalg
from threadpoolctl import threadpool_info
for dtype in "fdFD":
    a = np.eye(65, dtype=dtype) + np.ones((65, 65), dtype)
    assert np.allclose(scipy.linalg.inv(a) @ a, np.eye(65), atol=1e-3)
    np.linalg.svd(a), np.linalg.eigh(a), np.linalg.qr(a)
found = [library for library in threadpool_info() if library["user_api"] == "blas"]
print(json.dumps(sorted({str(library.get("architecture")) for library in found})))
"""


def architectures(name: str | None) -> tuple[str, ...]:
    """What BLAS says it is where `name` is asked for; nothing where that does not run."""
    given = os.environ | ({"OPENBLAS_CORETYPE": name} if name else {})
    command = [sys.executable, "-W", "ignore", "-c", PROBE]
    done = subprocess.run(command, env=given, capture_output=True, text=True, encoding="utf-8", check=False)
    return tuple(json.loads(done.stdout)) if done.returncode == 0 else ()


def distinct() -> dict[tuple[str, ...], str]:
    """The name to ask for each kernel that is there, by what BLAS then says; this machine's own is first."""
    found = {architectures(None): ""}
    for name in NAMES:
        said = architectures(name)
        if said:
            found.setdefault(said, name)
    return found


def run_tests(name, environment, workers, arguments) -> bool:
    """Run pytest with an environment; print what it ends with, or all where it fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(workers)]
    command += ["--dist", "loadgroup", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    ended = (done.stdout.splitlines() or [done.stderr])[-1]
    print(f"{name}: {ended}", flush=True)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", flush=True)
    return done.returncode == 0


def run(said, name, threads, short, arguments) -> bool:
    """Run the tests with one kernel and so many threads."""
    profile = "short" if short else "normal"
    given = os.environ | {"KETCORE_BLAS": json.dumps([said, threads]), "HYPOTHESIS_PROFILE": profile}
    # What is compiled has no BLAS.
    given["KETCORE_ENGINE"] = "numpy,arrays"
    given |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    if name:
        given["OPENBLAS_CORETYPE"] = name
    paths = [f"tests/{file}.py" for file in (*(SHORT if short else FILES), "test_blas")]
    workers = max(1, CORES // threads)
    label = f"{' and '.join(said)}, {threads} threads"
    return run_tests(label, given, workers, ["-k", LEFT_OUT, *paths, *arguments])


def main(arguments) -> int:
    """Run all, and say at the end how many were green."""
    short = "--short" in arguments
    arguments = [argument for argument in arguments if argument not in ("--short", "--all")]
    kernels = distinct()
    plan = [(said, name, threads) for said, name in kernels.items() for threads in (1, 2)]
    if short:
        plan = [(said, name, threads) for said, name, threads in plan if threads == 1 or not name]
    results = [run(*each, short, arguments) for each in plan]
    print(f"{sum(results)} of {len(results)} kernels and numbers of threads are green")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
