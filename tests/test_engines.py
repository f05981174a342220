"""Engines: each has what the protocol asks for, all give the same, and KETCORE_ENGINE chooses among them."""

from contextlib import suppress
from inspect import getmembers, isfunction, signature

import numpy as np
import pytest
from hypothesis import assume, given

import ketcore as kc
from ketcore.lookups import gather, on_arrays, on_native, on_numpy
from ketcore.lookups.leaves import packed_views
from ketcore.lookups.lookup import make_lookup, remade
from ketcore.native import loader
from tests import run_engines
from tests.kernel_problems import cotangent_of, lookups
from tests.processes import ROOT, run_python
from tests.require import require

every_engine = pytest.mark.parametrize("name", gather.ENGINES)


def parameters(function):
    return [name for name in signature(function).parameters if name != "self"]


@every_engine
def test_an_engine_has_the_functions_of_the_protocol(name):
    for asked, function in getmembers(gather.Engine, isfunction):
        if not asked.startswith("_"):
            assert parameters(getattr(gather.ENGINES[name], asked)) == parameters(function), (name, asked)


@every_engine
def test_what_an_engine_cannot_take_it_says_in_words(name):
    table = np.ones((1, 2, 2), object)
    lookup = make_lookup((table,), np.zeros(1, int), "same", 2, True, 2, False, 0.0, 0, table.dtype)
    reason = gather.ENGINES[name].obstacle(lookup)
    assert not reason or (reason.startswith("must ") and ", got " in reason)


@pytest.fixture(params=["native", "numpy"])
def engine(request):
    """Each engine for arrays of NumPy that is not the array code which all are compared with."""
    found = gather.ENGINES[request.param]
    require(request.param, not found.missing(), found.missing())
    return found


def answers(engine, lookup):
    """Everything that an engine says to a lookup, as a flat list of arrays."""
    cotangent, rng = cotangent_of(lookup), np.random.default_rng(0)
    # Of one half with the tables themselves, and of the other without: each mode has a tangent of its own.
    tangents = [(t + rng.integers(-1, 2, t.shape)).astype(t.dtype) for t in lookup.tables]
    found = [engine.expand(lookup, None), engine.push(lookup, tangents)]
    found += [engine.records(lookup, cotangent), *engine.pull(lookup, cotangent, True)]
    if lookup.kind == "same":
        wider = [width + 1 for width in lookup.widths]
        found.append(engine.pull_packed(lookup, wider, cotangent, True))
        found += engine.pull_ids(lookup, cotangent)
    return found


# Kernels alone take a right half without modes, which no operation asks for.
@given(lookup=lookups().filter(lambda lookup: lookup.split < len(lookup.tables)))
def test_engines_give_what_array_code_gives(engine, lookup):
    """Bad indices, crops, LayerNorm and every kind among them."""
    tables = tuple(table.astype(np.float64) for table in lookup.tables)
    exact = remade(lookup, tables=tables, dtype=np.dtype(np.float64))
    assume(not engine.obstacle(lookup))
    for found, expected in zip(answers(engine, exact), answers(on_arrays, exact), strict=True):
        # Rounding, which LayerNorm enlarges, is far below this, and bugs are far above.
        size = 1e-8 * np.nanmax(np.abs(expected), initial=1.0)
        np.testing.assert_allclose(found, expected, rtol=0, atol=size)
    for found, expected in zip(answers(engine, lookup), answers(on_arrays, lookup), strict=True):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)


@pytest.mark.parametrize("size", [0, 1 << 60], ids=["stacked", "mode by mode"])
@given(lookup=lookups().filter(lambda lookup: lookup.split < len(lookup.tables)))
def test_tangents_by_compiled_kernels(size, lookup):
    """Both ways, whichever sizes would choose, from tangents of other dtypes and strides too."""
    require("native", not on_native.missing(), on_native.missing())
    assume(not on_native.obstacle(lookup))
    rng = np.random.default_rng(0)
    for dtype in (lookup.dtype, np.dtype(np.float64)):
        tangents = [rng.standard_normal(t.shape).astype(dtype)[:, ::-1] for t in lookup.tables]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(on_native, "_stacked_size", lambda _: size)
            found = on_native.push(lookup, tangents)
        expected = on_arrays.push(lookup, tangents)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        wide = expected.astype(np.float64)
        allowed = kc.testing.tolerance(lookup.dtype, 64) * np.nanmax(np.abs(wide), initial=1.0)
        np.testing.assert_allclose(found.astype(np.float64), wide, rtol=0, atol=allowed)


@pytest.mark.parametrize("size", [0, 1 << 60], ids=["stacked", "mode by mode"])
def test_tangents_that_are_not_finite_are_sums_over_modes(size, monkeypatch):
    """NaN, and each infinity, where the sum of rows has them, each of one mode with its tangents."""
    require("native", not on_native.missing(), on_native.missing())
    monkeypatch.setattr(on_native, "_stacked_size", lambda _: size)
    rng, ids = np.random.default_rng(0), np.arange(8)
    for _ in range(40):
        factors, tangents = ([rng.standard_normal((2, 2, 3)) for _ in range(3)] for _ in range(2))
        for table in (*factors, *tangents):
            table.flat[rng.integers(12)] = rng.choice([np.inf, -np.inf, np.nan, 0, 0, 1])
        with gather.only("native"):
            found = kc.rows_jvp(factors, ids, tangents)
        places = [[*factors[:n], tangents[n], *factors[n + 1 :]] for n in range(3)]
        with np.errstate(invalid="ignore"):
            expected = sum(kc.ops.rows_dense(tables, ids) for tables in places)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_rows_are_written_into_out_by_every_engine():
    leaves = np.arange(12.0).reshape(3, 1, 4)
    tables = packed_views(np, leaves, (2, 2))
    index = np.array([2, 3, 0])
    lookup = make_lookup(tables, index, "same", 3, False, 4, False, 0.0, 1, leaves.dtype, leaves)
    expected = [[80, 88, 90, 99], [np.nan] * 4, [0, 0, 2, 3]]
    for engine in (on_native, on_numpy, on_arrays):
        if engine.missing():
            continue
        out = np.empty((3, 4))
        assert engine.expand(lookup, out) is out
        np.testing.assert_array_equal(out, expected)


def test_the_engines_of_this_process():
    found = kc.engines()
    assert found[-2:] == ("numpy", "arrays")
    assert set(found) <= set(gather.ENGINES)


def test_only_one_engine_within_a_context(monkeypatch):
    def rows():
        return kc.rows((np.ones((1, 1, 1)),), [0]).item()

    before = kc.engines()
    for number, name in enumerate(("numpy", "arrays")):
        monkeypatch.setattr(gather.ENGINES[name], "expand", lambda *_, n=number: np.array([[float(n)]]))
    with gather.only("arrays"):
        assert (kc.engines(), rows()) == (("arrays",), 1.0)
        with gather.only("numpy"):
            assert (kc.engines(), rows()) == (("numpy",), 0.0)
        with suppress(KeyError), gather.only("numpy"):
            raise KeyError
        assert rows() == 1.0
    assert kc.engines() == before


def test_the_runs_on_fewer_engines():
    names = {path.stem for path in (ROOT / "tests").glob("test_*.py")}
    assert {*run_engines.SHORT, *run_engines.COMPILED} <= names
    without, *lesser = run_engines.plan().values()
    assert without == {"KETCORE_ENGINE": "numpy,arrays"}
    found = loader.found()[0]
    others = {*found.available} - {found.instructions} if found else set()
    assert {each["KETCORE_INSTRUCTIONS"] for each in lesser} == others


def run(code, engine):
    """What a process that is set to `engine` prints, or the last line of its error."""
    done = run_python(code, KETCORE_ENGINE=engine)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("name", ["numpy", "arrays"])
def test_the_engine_of_a_process_is_chosen_by_its_environment(name):
    code = """
import numpy as np, ketcore as kc
from ketcore.lookups import gather
gather.ENGINES["numpy"].__dict__["expand"] = lambda *_: np.array([[1.0]])
gather.ENGINES["arrays"].__dict__["expand"] = lambda *_: np.array([[2.0]])
print(kc.engines(), kc.rows((np.ones((1, 1, 1)),), [0]).item())
"""
    assert run(code, name) == f"('{name}',) {1.0 if name == 'numpy' else 2.0}"


ROWS = "import numpy as np, ketcore as kc; kc.rows((np.ones((1, 2, 2)),), [0])"
TORCH = "import torch, ketcore as kc; kc.rows((torch.ones((1, 2, 2)),), [0])"


@pytest.mark.parametrize(
    ("engine", "code", "error"),
    [
        (
            "gpu",
            "import ketcore",
            f"KETCORE_ENGINE must be some of {tuple(gather.ENGINES)}, by commas, got 'gpu'",
        ),
        (
            "cuda",
            ROWS,
            "KETCORE_ENGINE must be an engine for the tables, "
            "which for 'cuda' must be arrays of CuPy, got numpy",
        ),
        (
            "numpy",
            TORCH,
            "KETCORE_ENGINE must be an engine for the tables, "
            "which for 'numpy' must be arrays of NumPy, got torch",
        ),
    ],
)
def test_what_cannot_be_chosen_is_an_error(engine, code, error):
    if "torch" in code:
        pytest.importorskip("torch")
    assert run(code, engine) == f"ValueError: {error}"


def test_operations_run_on_the_array_engine():
    """Every operation that looks something up, on NumPy arrays, with nothing but array code."""
    code = """
import sys, pytest
chosen = "numpy and not awkward and (rows or row_kets or gather)"
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", sys.argv[1], "-k", chosen]))
"""
    done = run_python(code, ROOT / "tests" / "test_ops.py", KETCORE_ENGINE="arrays")
    assert done.returncode == 0, done.stdout[-2000:]
