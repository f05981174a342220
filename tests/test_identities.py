"""The laws of Kronecker products pass right libraries, and each fails a library with the bug it is for."""

import re
import runpy
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np
import pytest

from ketcore.testing import Law, identities_left_out, kronecker_identities, named_operations
from tests.identity_adapters import DENSE, FACTORED, NAMED
from tests.identity_toys import BUGS

LAWS = kronecker_identities(DENSE)
NAMES = [law.name for law in LAWS]


def law_of(adapter, name) -> Law:
    (law,) = (law for law in kronecker_identities(adapter) if law.name == name)
    return law


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_dense_numpy_keeps_every_law(law):
    law.check()


@pytest.mark.parametrize("law", kronecker_identities(FACTORED), ids=str)
def test_ketcore_keeps_every_law(law):
    law.check(seed=1)


def test_ketcore_has_an_operation_for_every_law():
    assert not identities_left_out(FACTORED)


@pytest.mark.parametrize("name", NAMES)
def test_a_law_fails_a_library_with_a_bug(name):
    with pytest.raises(AssertionError, match=rf"^{name} must hold: .*; got .* \(\w+, shapes \("):
        law_of(replace(DENSE, **BUGS[name]), name).check()


def test_every_law_has_its_bug():
    assert set(BUGS) == set(NAMES)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", ["determinant, every sign", "slogdet, every sign", "eigenvalues, small"])
def test_bugs_are_caught_for_any_seed(name):
    for seed in range(5):
        with pytest.raises(AssertionError):
            law_of(replace(DENSE, **BUGS[name]), name).check(seed)


def test_operations_are_found_by_name():
    found = kronecker_identities(NAMED)
    assert len(found) > 45
    for law in found[::5]:
        law.check(seed=2)


def test_a_plain_function_is_enough():
    laws = kronecker_identities(lambda matrices: reduce(np.kron, matrices))
    assert {"mixed product", "bilinearity", "transpose", "vec by rows"} <= {law.name for law in laws}
    for law in laws:
        law.check()


def test_laws_are_left_out_with_what_they_lack():
    poor = replace(DENSE, matmul=None, trace=None, dtypes=("float32",))
    left, names = identities_left_out(poor), [law.name for law in kronecker_identities(poor)]
    assert left["mixed product"] == ("matmul",)
    assert left["trace is cyclic"] == ("trace", "matmul")
    assert left["determinant, complex phase"] == ("dtypes",)
    assert sorted([*left, *names]) == sorted(NAMES)
    assert set(names) >= {"determinant, every sign", "norm"}


def test_a_library_of_square_factors_gets_no_others():
    def make(matrices):
        assert all(a.shape[0] == a.shape[1] for a in matrices)
        return DENSE.make(matrices)

    for law in kronecker_identities(replace(DENSE, make=make, square=True)):
        law.check()


@pytest.mark.parametrize("found", [np.ones(3), np.full(12, np.nan)], ids=["too few", "NaN"])
def test_eigenvalues_must_be_as_many_and_finite(found):
    with pytest.raises(AssertionError, match="eigenvalues, Hermitian must hold"):
        law_of(replace(DENSE, eigvalsh=lambda a: found[: len(a)]), "eigenvalues, Hermitian").check()


def test_an_operation_that_raises_fails_the_law():
    def refuse(a):
        raise NotImplementedError("no determinants today")

    with pytest.raises(AssertionError, match="got NotImplementedError: no determinants today") as caught:
        law_of(replace(DENSE, det=refuse), "determinant, singular").check()
    assert isinstance(caught.value.__cause__, NotImplementedError)


def test_other_seeds_draw_other_matrices():
    seen = []
    watched = replace(DENSE, make=lambda matrices: seen.append(matrices) or DENSE.make(matrices))
    law = law_of(watched, "transpose")
    for seed in (0, 0, 1):
        law.check(seed)
    one, again, other = (seen[k * len(seen) // 3][0] for k in range(3))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_the_example_reports_what_a_package_keeps(capsys, monkeypatch):
    path = Path(__file__).parent.parent / "examples" / "identities_on_peers.py"
    example = runpy.run_path(str(path))
    wrong = replace(DENSE, **BUGS["trace"])
    example["report"]("numpy", wrong)
    monkeypatch.setattr("sys.argv", ["identities_on_peers.py", "no-such-package"])
    example["main"]()
    lines = capsys.readouterr().out.strip().splitlines()
    assert re.fullmatch(r"numpy [\d.]+: keeps \d+ of \d+ laws, 0 left out", lines[0])
    assert any(line.startswith("  trace: got ") for line in lines)
    assert lines[-1] == "no-such-package: not installed, skipped"


def test_mistakes_are_errors():
    message = r"^make must be a function of a list of matrices, or an Adapter, got 3$"
    with pytest.raises(TypeError, match=message):
        kronecker_identities(3)
    assert named_operations() == {}
