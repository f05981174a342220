"""Wrong calls have errors of ours: all arguments of all functions, with values that are none for them."""

import operator
import re

import numpy as np
import pytest

import ketcore as kc
from tests.wrong_calls import KET, KETS, OPERATORS, PERMUTATION, SQUARE, WrongCall, calls, found
from tests.wrong_values import DEFENDED, VALUES

# What operators of Python say where neither side knows the other.
PYTHONS = re.compile(
    r"unsupported operand type\(s\) for \S+: '\w+' and '\w+'$|can't multiply sequence by non-int of type"
    r"|can only concatenate str|can't concat \w+ to bytes"
)
# Of shapes of lists of lists of matrices.
LONGEST = 300


@pytest.fixture(scope="module")
def outcomes():
    return found()


def test_the_calls_that_are_spoiled_are_good_ones():
    for _, call in calls():
        call()
    assert len(list(calls())) >= 199


def test_errors_are_of_ours(outcomes):
    raw = {str(wrong): text for wrong, text in outcomes["raw"] if not _is_pythons(wrong, text)}
    assert raw == {}
    assert len(outcomes["good"]) > 20_000


def _is_pythons(wrong, text):
    """Whether it is an operator of Python that speaks."""
    sign = [part for part in wrong.name.split() if part in OPERATORS]
    return bool(sign) and PYTHONS.search(text) is not None


def test_messages_show_no_contents_of_arrays_and_are_short(outcomes):
    texts = {str(wrong): text for wrong, text in outcomes["good"]}
    assert {name: text for name, text in texts.items() if "array([" in text or len(text) > LONGEST} == {}


def test_what_returns_is_defended(outcomes):
    silent = {(wrong.argument, wrong.label) for wrong, _ in outcomes["silent"]}
    assert silent == DEFENDED.keys()
    assert all(DEFENDED.values())
    # That values are not looked at holds for operations alone.
    of_shifts = [wrong.name for wrong, _ in outcomes["silent"] if wrong.argument == "shift"]
    assert all(name.startswith("kron_") for name in of_shifts)


@pytest.mark.parametrize("label", ["None", "'a'", "{}", "object()"])
def test_what_python_says_beside_operators(label):
    for binary in (operator.add, operator.sub, operator.mul, operator.truediv, operator.matmul):
        for pair in ((SQUARE, VALUES[label]), (VALUES[label], SQUARE)):
            with pytest.raises(TypeError, match=PYTHONS):
                binary(*pair)


PYTHON_OWN = {
    "comparison": (lambda: SQUARE < SQUARE, TypeError, "'<' not supported between instances"),
    "power": (lambda: SQUARE**2, TypeError, "unsupported operand"),
    "float": (lambda: float(SQUARE), TypeError, "must be a string or a real number, not 'KroneckerMatrix'"),
    "attribute": (lambda: SQUARE.nothing, AttributeError, "has no attribute 'nothing'"),
    "assignment": (
        lambda: setattr(SQUARE, "shape", (1, 1)),
        AttributeError,
        "cannot assign to field 'shape'",
    ),
    "item": (lambda: operator.setitem(SQUARE, 0, 1.0), TypeError, "does not support item assignment"),
    "missing": (lambda: kc.rows(SQUARE.factors), TypeError, "missing 1 required positional argument: 'ids'"),
    "unexpected": (lambda: SQUARE.sum(bogus=1), TypeError, "unexpected keyword argument 'bogus'"),
    "no file": (lambda: kc.load("/nothing/here"), FileNotFoundError, "No such file"),
}


@pytest.mark.parametrize("name", PYTHON_OWN)
def test_what_is_left_to_python(name):
    call, error, text = PYTHON_OWN[name]
    with pytest.raises(error, match=re.escape(text)):
        call()


def test_a_wrong_call_is_classified():
    """A raw error, one of ours, and none."""

    def function(x):
        if x is None:
            kc.eye(x)
        return int(x)

    def outcome(value):
        call = next(call for _, call in calls())._replace(function=function, arguments={"x": 1}, spread="")
        return WrongCall("function", "x", "value", call, value).outcome()

    assert outcome("a")[0] == "raw"
    assert outcome(None) == ("good", "TypeError: dims must be a sequence of ints, got None")
    assert outcome(1.5) == ("silent", "int")


FLAGS = {
    "check": lambda flag: kc.rows(SQUARE.factors, [0], check=flag),
    "layernorm": lambda flag: kc.ket_rows(np.ones((1, 1, 4)), [0], (2, 2), flag),
    "lower": lambda flag: kc.linalg.cholesky(SQUARE, flag),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_are_bools(name):
    """Of Python and of NumPy: 1 and "yes" were true, and an array was an error of NumPy."""
    for flag in (True, False, np.True_, np.False_):
        FLAGS[name](flag)
    for flag in (1, 0, "yes", [], np.ones(2), np.array(True)):
        with pytest.raises(TypeError, match=f"^{name} must be True(,| or) False"):
            FLAGS[name](flag)


@pytest.mark.parametrize("seed", [True, "a", 1.5, [], [True], [[1, 2], [3]], np.ones(2), np.zeros(0, int)])
def test_a_seed_is_an_int_or_ints(seed):
    rule = "^rng must be None, a seed >= 0 or a Generator, got "
    for call in (kc.Ket.random, lambda dims, rng: kc.recompress(SQUARE, 1, rng=rng)):
        with pytest.raises(TypeError, match=rule):
            call((2,), rng=seed)
    with pytest.raises(ValueError, match=rule):
        kc.Ket.random((2,), rng=-1)
    good = (None, 0, np.int64(3), [1, 2], np.arange(2), np.random.SeedSequence(1), np.random.PCG64(1))
    for each in (*good, np.random.default_rng(1)):
        kc.Ket.random((2,), rng=each)


def test_axes_by_any_int():
    for axes in ((1, 0), [np.int64(1), 0], None, ()):
        assert PERMUTATION.transpose(axes).order == PERMUTATION.T.order
    for axes in ((0, 1), (True, False), np.array([1, 0, 2]), "10"):
        with pytest.raises(ValueError, match=r"^axes must be None or \(1, 0\), got "):
            PERMUTATION.transpose(axes)
    for axis in (1.0, True, np.ones(2), "0"):
        with pytest.raises(ValueError, match=r"^axis must be None, 0 or 1"):
            SQUARE.sum(axis)
    assert SQUARE.sum(np.int64(-1)).shape == (6,)


def test_a_transposed_tangent_of_a_real_shift_is_real():
    """An imaginary part was dropped in silence."""
    factors = (np.eye(2)[None],)
    with pytest.raises(TypeError, match=r"^shift_tangent must be real as the primals are, got complex128"):
        kc.kron_slogdet_jvp(factors, 1.0, factors, 1j)
    with pytest.raises(TypeError, match=r"^shift_tangent must be real as the primals are, got complex128"):
        kc.kron_log_likelihood_jvp(factors, np.ones(2), 1.0, factors, np.ones(2), 1j)


@pytest.mark.parametrize("dims", [{2, 3}, {2: 3}, "23", b"23", (True, 3), (2.0, 3), np.ones(2), None])
def test_dims_are_a_sequence_of_ints(dims):
    """Sets are in no order, bools no sizes, and bytes would be ints."""
    for call in (kc.Ket.random, kc.Permutation, kc.eye):
        more = ((0, 1),) if call is kc.Permutation else ()
        with pytest.raises(TypeError, match=r"^dims must be a sequence of ints, got "):
            call(dims, *more)
    with pytest.raises(TypeError, match=r"^where must be an int, got |^dims must"):
        kc.embed(np.eye(6), (2, 3), dims)


def test_huge_numbers_are_refused_by_name():
    """10**5000 has more digits than Python writes out."""
    for call, error, text in (
        (lambda: kc.suggest_dims(6, 10**5000), ValueError, r"order must be at most 1048576, got an int of"),
        (lambda: kc.kron_power(SQUARE, 10**5000), ValueError, r"k must be at most 1048576, got an int of"),
        (lambda: kc.eye(10**5000), MemoryError, r"the result must have at most \d+ elements, got shape \(an"),
        (lambda: SQUARE[10**5000], IndexError, r"key must lie in \[-6, 6\) on axis 0, got an int of"),
        (lambda: kc.Ket.random((2,), 10**5000), MemoryError, r"the result must have at most"),
        (lambda: SQUARE.to_dense(float("nan")), TypeError, r"max_bytes must be a number of bytes, got nan"),
    ):
        with pytest.raises(error, match=f"^{text}"):
            call()
    assert kc.suggest_dims(6, 2**12)[-1] == 2


@pytest.mark.parametrize("dtype", [None, "foo", "a", [], {}, object, KET, np.ones(2), np.float64(1), int])
def test_a_dtype_is_named(dtype):
    """None and what merely has a dtype counted as one."""
    for call in (KET.astype, lambda dtype: kc.eye(2, dtype), lambda dtype: kc.Ket.random((2,), dtype=dtype)):
        with pytest.raises(TypeError, match=r"^dtype must be floating or complex, got "):
            call(dtype)
    for good in ("float32", np.float32, np.dtype(">f4"), complex, "e"):
        assert KET.astype(good).dtype == np.dtype(good).newbyteorder("=")


def test_methods_for_solvers_say_what_they_take():
    """Where an operator leaves the other side to decide, a method has no other side."""
    for name in ("dot", "matvec", "rmatvec", "matmat", "rmatmat"):
        for own in (SQUARE, PERMUTATION):
            with pytest.raises(TypeError, match=r"^other must be of a kind that \w+ multiplies by @"):
                getattr(own, name)(None)


def test_slices_and_lists_of_keys():
    for key, error, text in (
        (
            slice(0, 2, 0),
            ValueError,
            r"key must have slices of ints and None, of steps other than 0, got slice",
        ),
        (slice("a", None), TypeError, r"key must have slices of ints"),
        ([[0], [1, 2]], ValueError, r"key must be integers, .*, got ragged lists"),
    ):
        for own in (SQUARE, KETS, PERMUTATION):
            with pytest.raises(error, match=text):
                own[key]
