"""What a failing law says: its name, simple matrices, the calls, how to repeat it; options of the laws."""

import sys
from dataclasses import replace
from functools import reduce
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest

from ketcore import testing
from ketcore.testing import (
    Adapter,
    assert_adjoint,
    assert_dense_equal,
    assert_jvp,
    assert_second_order,
    assert_vjp,
    check_identities,
    kronecker_identities,
    named_operations,
)
from ketcore.testing.adapters import to_dense
from ketcore.testing.shrinking import simplest
from tests.identity_adapters import DENSE, kron_all
from tests.processes import ROOT, run_python
from tests.require import require


def failure(name, **wrong):
    """The message of a law for dense NumPy with wrong operations."""
    (law,) = (law for law in kronecker_identities(replace(DENSE, **wrong)) if law.name == name)
    with pytest.raises(AssertionError) as caught:
        law.check()
    text = str(caught.value)
    assert len(text.splitlines()) <= 20
    return text


def test_a_product_that_is_wrong_for_rectangular_factors():
    text = failure("mixed product", matmul=lambda a, b: a @ b * (1 if a.shape[0] == a.shape[1] else 2))
    lines = text.splitlines()
    assert lines[0].startswith("mixed product must hold: (A (x) B)(C (x) D) = AC (x) BD; got ")
    calls = [line.strip() for line in lines[1:4]]
    assert calls[0].startswith("K = make([[[")
    assert calls[1].startswith("L = make([[[")
    assert calls[2] == "matmul(K, L)"
    # One entry 1 in each factor, and a column or row of zeros that makes one of them rectangular.
    assert set("".join(calls[:2])) <= set("KL = make([0.1,])")
    assert [line.split()[0] for line in lines[4:7]] == ["actual", "expected", "difference"]
    assert lines[7].startswith("    repeat with check(seed=0, examples=4), simplified from shapes ")


def test_a_wrong_sign_of_slogdet():
    text = failure("slogdet, every sign", slogdet=lambda a: (1.0, np.linalg.slogdet(a)[1]))
    assert "got 1.0 for -1.0" in text
    assert "slogdet(K)" in text


def test_a_transposed_vec():
    text = failure("vec by rows", apply=lambda a, x: a @ (x[::-1] if x.ndim == 1 else x))
    call = text.splitlines()[2].strip()
    assert call.startswith("apply(K, [")
    # One entry 1 at the wrong end.
    assert call.count("1.0") == 1
    assert set(call) <= set("apply(K, [0.1])")


def test_a_dropped_conjugate_shrinks_to_i():
    text = failure("adjoint", adjoint=lambda a: a.T)
    assert "make([[[(1+0j)]], [[1j]]])" in text or "make([[[1j]], [[(1+0j)]]])" in text
    assert "(complex64, shapes (1, 1), (1, 1))" in text


def test_what_a_library_raises_is_shown_with_the_calls():
    def refuse(a):
        raise NotImplementedError("no determinants today")

    text = failure("determinant, every sign", det=refuse)
    assert "got NotImplementedError: no determinants today" in text
    assert text.splitlines()[-2].strip() == "det(K)"


def test_simplest_keeps_the_kind_of_failure_and_ends():
    class Run:
        def __init__(self, draws):
            self.draws = list(draws)

    def run(draws):
        """Fails where the array has a number above 2 in a row of its own."""
        size, array = draws
        array = array[:size]
        return Run([size, array]) if (array > 2).any() else None

    found = simplest(run([4, np.arange(8.0).reshape(4, 2) + 0.5]), run)
    assert found.draws[0] == 2
    assert found.draws[1].tolist() in (
        [[0, 0], [0, 4]],
        [[0, 0], [3, 0]],
        [[0, 0], [2.5, 0]],
        [[0, 0], [0, 3.5]],
    )


def test_tolerances_of_the_laws():
    loose = replace(DENSE, trace=lambda a: np.trace(a) * (1 + 1e-4))
    (law,) = (law for law in kronecker_identities(loose) if law.name == "trace")
    law.check(rtol=1e-3)
    law.check(atol=0.1)
    with pytest.raises(AssertionError, match=r"repeat with check\(seed=3, examples=2, rtol=1e-06\)"):
        law.check(3, examples=2, rtol=1e-6)
    with pytest.raises(ValueError, match=r"^examples must be at least 1, got 0$"):
        law.check(examples=0)


def test_tolerances_of_the_assertions():
    a = np.arange(1.0, 4.0)
    off = lambda a, c: 2 * a * c * (1 + 1e-4)  # noqa: E731
    calls = [
        lambda **t: assert_dense_equal(a * (1 + 1e-4), a, **t),
        lambda **t: assert_adjoint(lambda x: 2 * x, lambda y: 2.0002 * y, a, a, **t),
        lambda **t: assert_vjp(np.square, off, [a], **t),
        lambda **t: assert_jvp(np.square, off, [a], **t),
        lambda **t: assert_second_order(
            np.square, lambda a, c: 2 * a * c, [a], vjp_jvp=lambda a, c, t: 2.0002 * t * c, **t
        ),
    ]
    for call in calls:
        call(rtol=1e-3)
        call(atol=0.1)
        for strict in ({}, {"rtol": 1e-6}, {"atol": 1e-6}, {"rtol": 0.0, "atol": 0.0}):
            with pytest.raises(AssertionError):
                call(**strict)


def test_all_laws_at_once():
    seen = []
    check_identities(DENSE.make, examples=1, progress=lambda *told: seen.append(told))
    names = [law.name for law in kronecker_identities(DENSE.make)]
    assert seen == [(name, n, len(names)) for n, name in enumerate(names, 1)]
    wrong = Adapter(kron_all, matmul=None, transpose=lambda a: a.conj().T)
    with pytest.raises(AssertionError) as caught:
        check_identities(wrong, examples={"transpose": 3})
    first, _, rest = str(caught.value).partition("\n\n")
    assert first == "the library must keep all laws, got 1 of 11 that fail: transpose"
    assert "check(seed=0, examples=3)" in rest
    with pytest.raises(ValueError, match=r"^examples must be for names of laws, got \['transpos'\]$"):
        check_identities(wrong, examples={"transpos": 3})


def test_examples_are_as_many_for_each_law_as_asked_for():
    made = []
    watched = replace(DENSE, trace=lambda a: made.append(a) or np.trace(a), dtypes=("float64",))
    (law,) = (law for law in kronecker_identities(watched) if law.name == "trace")
    law.check(examples=7)
    assert len(made) == 7


@pytest.mark.parametrize("installed", [True, False])
def test_progress_is_a_bar_or_lines(installed, capsys, monkeypatch):
    if installed:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    check_identities(Adapter(kron_all, dtypes=("float32",)), examples=1, progress=True)
    text = capsys.readouterr().err
    assert ("16/16" if installed else "16 of 16: arguments untouched") in text


class Toy:
    """A namespace whose functions of some names are something else, or wrong."""

    det = staticmethod(np.linalg.det)
    norm = staticmethod(lambda a: np.linalg.norm(a, 2))
    kron = staticmethod(lambda a: a)
    add = staticmethod(np.subtract)
    scale = staticmethod(np.multiply)
    eigvals = staticmethod(lambda a: np.linalg.eigvals(a)[::-1])

    @staticmethod
    def transpose(a, first, second):
        return a.swapaxes(first, second)


def test_operations_that_are_something_else_are_not_taken():
    assert sorted(named_operations(Toy, make=kron_all)) == ["det", "eigvals", "scale"]
    # Where a function may be for objects that are not there, it is kept; but no default is overridden.
    assert sorted(named_operations(Toy)) == ["det", "eigvals", "kron", "scale"]
    # A later module has what is right.
    found = named_operations(Toy, np.linalg, np, make=kron_all)
    assert (found["add"], found["norm"], found["transpose"]) == (np.add, np.linalg.norm, np.transpose)
    check_identities(Adapter(kron_all, **named_operations(Toy, make=kron_all)), examples=1)


def test_operations_of_torch_and_jax():
    require("torch", find_spec("torch") is not None, "torch is not installed")
    torch = import_module("torch")
    found = named_operations(torch.linalg, torch)
    assert "transpose" not in found
    assert {"det", "slogdet", "trace", "kron", "matmul"} <= set(found)
    adapter = Adapter(
        lambda matrices: reduce(torch.kron, map(torch.tensor, matrices)), asarray=torch.tensor, **found
    )
    laws = {law.name: law for law in kronecker_identities(adapter)}
    for name in ("transpose", "slogdet, every sign"):
        laws[name].check(examples=1)
    if find_spec("jax") is not None:
        assert {"det", "transpose", "kron"} <= set(
            named_operations(import_module("jax.numpy").linalg, import_module("jax.numpy"))
        )


def test_only_hypothesis_is_needed_and_a_failure_shows_the_line_of_the_user(tmp_path):
    (tmp_path / "test_user.py").write_text(
        """
import numpy as np
from hypothesis import given, settings
from ketcore.testing import Adapter, assert_vjp, check_identities, kronecker_identities, kronecker_matrices
from functools import reduce

def product(matrices):
    return reduce(np.kron, matrices)

def test_right():
    check_identities(product, examples=1)

@settings(max_examples=5, deadline=None)
@given(kronecker_matrices())
def test_drawn(matrix):
    assert matrix.rank

def test_wrong_law():
    laws = {law.name: law for law in kronecker_identities(Adapter(product, transpose=lambda a: a))}
    laws["transpose"].check()

def test_wrong_vjp():
    assert_vjp(np.square, lambda a, c: a * c, [np.ones(3)])
""",
        encoding="utf-8",
    )
    code = """
import sys
for name in ("array_api_strict", "ml_dtypes", "torch", "jax", "cupy", "tqdm", "matplotlib"):
    sys.modules[name] = None
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", sys.argv[1], sys.argv[1]]))
"""
    done = run_python(code, tmp_path)
    assert "2 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert '>       laws["transpose"].check()' in done.stdout
    assert ">       assert_vjp(np.square" in done.stdout
    assert "ketcore/testing" not in done.stdout


def test_every_module_of_the_kit_is_hidden_from_tracebacks():
    for path in (ROOT / "ketcore" / "testing").glob("*.py"):
        name = path.stem
        assert name == "__init__" or getattr(testing, name).__tracebackhide__ is True


class Product:
    """What a new package may begin with: products of matrices that NumPy can read."""

    def __init__(self, matrices):
        self.matrices = matrices

    def __array__(self, dtype=None, copy=None):
        return kron_all(self.matrices)

    @property
    def T(self):  # noqa: N802  (as arrays have it)
        return Product([matrix.T for matrix in self.matrices])


def test_results_are_read_by_their_array_and_others_are_told_what_they_lack():
    lacks = dict.fromkeys(("matmul", "apply", "apply_left", "add", "scale"))
    library = Adapter(Product, **lacks)
    check_identities(library, examples=1)
    with pytest.raises(AssertionError) as caught:
        check_identities(replace(library, make=lambda matrices: object()), examples=1)
    text = "results must be numbers, arrays or have toarray, to_dense, todense or __array__, got object"
    assert text in str(caught.value)
    assert [to_dense(value).tolist() for value in (True, 2, 0.5, 1j, np.float32(3))] == [True, 2, 0.5, 1j, 3]


def test_arguments_of_the_laws_are_checked():
    for error, text, options in (
        (TypeError, r"^rtol must be a real number, got 'a'", {"rtol": "a"}),
        (ValueError, r"^atol must be at least 0 and finite, got nan", {"atol": np.nan}),
        (ValueError, r"^seed must be at least 0, got -1", {"seed": -1}),
        (TypeError, r"^seed must be an int, got 'x'", {"seed": "x"}),
        (TypeError, r"^progress must be True, False or a function, got 'yes'", {"progress": "yes"}),
    ):
        with pytest.raises(error, match=text):
            check_identities(kron_all, **options)


def test_assertions_on_derivatives_print_their_seed():
    a = np.arange(3.0)
    for call in (
        lambda seed: assert_vjp(np.sin, lambda a, c: c, [a], seed=seed),
        lambda seed: assert_jvp(np.sin, lambda a, t: t, [a], seed=seed),
        lambda seed: assert_second_order(
            np.square, lambda a, c: 2 * a * c, [a], vjp_jvp=lambda a, c, t: t * c, seed=seed
        ),
    ):
        with pytest.raises(AssertionError, match=r", allowed [^ ]+ \(seed=7\)$"):
            call(7)
