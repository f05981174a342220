"""Kronecker identities as a list of laws that any library can run on its own type, through an adapter.

Each law draws matrices from a seed, calls the library through the functions of an adapter, and compares with
NumPy on the dense matrices: real and complex, square and rectangular, sizes of 1 and odd ones, matrices with
zeros and ones.  Where it fails, simpler matrices are sought for which it fails as well.

    @pytest.mark.parametrize("law", kronecker_identities(make), ids=str)
    def test_identities(law):
        law.check()

Most laws are in C. F. Van Loan, "The ubiquitous Kronecker product", J. Comput. Appl. Math. 123 (2000) 85-100.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ketcore.shapes import check_int, check_size
from ketcore.testing import laws_determinants, laws_products, laws_scalars, laws_structure
from ketcore.testing.adapters import Adapter
from ketcore.testing.shrinking import Draw, simplest
from ketcore.testing.trials import Rule, Settings, Trial

__tracebackhide__ = True

_RULES = (
    *laws_products.RULES,
    *laws_determinants.RULES,
    *laws_scalars.RULES,
    *laws_structure.RULES,
)
# Sizes are drawn anew in each.
_EXAMPLES = 4


class Law(NamedTuple):
    """A law tied to an adapter; `str` gives its name.

    Attributes
    ----------
    name : str
        A few words.
    formula : str
        The identity.
    check : callable
        `check(seed=0, *, examples=4, rtol=None, atol=None)` raises AssertionError unless the law holds for as
        many examples in each dtype.  `rtol` is the error allowed relative to the largest entry, or to 1 if
        that is larger, and by default `tolerance` of the dtype; a law of what is ill-conditioned multiplies
        it. `atol` is added.  The message has the name and the formula, the simplest matrices found for which
        the law fails in the same way, the calls, and how to repeat it.

    Examples
    --------
    >>> law = kronecker_identities(Adapter(lambda matrices: np.kron(*matrices), transpose=lambda a: a))[-1]
    >>> law.name, law.formula
    ('arguments untouched', 'no operation writes to what it is given')
    >>> law.check(seed=1, examples=2)
    """

    name: str
    formula: str
    check: Callable[..., None]

    def __str__(self) -> str:
        return self.name


def kronecker_identities(make: Callable[..., Any] | Adapter) -> list[Law]:
    """The laws that a library of Kronecker products should keep, as far as its adapter has their operations.

    Parameters
    ----------
    make : callable or Adapter
        (list of 2-D NumPy arrays) -> the library's product of them, with `@`, `+`, `*` and `.T`; or an
        `Adapter`, which says what else the library can do.

    Returns
    -------
    list of Law
        Each has a name and a `check()`; see `identities_left_out` for the others.

    Raises
    ------
    TypeError
        On a `make` that is neither.

    References
    ----------
    C. F. Van Loan, "The ubiquitous Kronecker product", J. Comput. Appl. Math. 123 (2000) 85-100: most laws.

    Examples
    --------
    >>> from functools import reduce
    >>> laws = kronecker_identities(lambda matrices: reduce(np.kron, matrices))
    >>> for law in laws:
    ...     law.check()
    >>> wrong = kronecker_identities(lambda matrices: reduce(np.kron, matrices[::-1]))
    >>> dict((law.name, law.check) for law in wrong)["vec by rows"]()
    Traceback (most recent call last):
    AssertionError: vec by rows must hold: (A (x) B) vec(X) = vec(A X B^T), vec stacks rows; got ...
    """
    adapter = _adapter(make)
    return [Law(r.name, r.formula, _check(r, adapter)) for r in _RULES if not _missing(r, adapter)]


def identities_left_out(make: Callable[..., Any] | Adapter) -> dict[str, tuple[str, ...]]:
    """The laws that `kronecker_identities` leaves out, each with the operations that the adapter lacks.

    Parameters
    ----------
    make : callable or Adapter
        As of `kronecker_identities`.

    Returns
    -------
    dict of str to tuple of str
        {name of a law: names of operations}.

    Raises
    ------
    TypeError
        As `kronecker_identities`.

    Examples
    --------
    >>> identities_left_out(lambda matrices: None)["determinant of a product"]
    ('det',)
    """
    adapter = _adapter(make)
    return {rule.name: missing for rule in _RULES if (missing := _missing(rule, adapter))}


def check_identities(
    make: Callable[..., Any] | Adapter,
    *,
    seed: int = 0,
    examples: int | Mapping[str, int] = _EXAMPLES,
    rtol: float | None = None,
    atol: float | None = None,
    progress: bool | Callable[[str, int, int], Any] = False,
) -> None:
    """Fail unless a library keeps all of `kronecker_identities(make)`; all are run, whatever fails.

    Parameters
    ----------
    make : callable or Adapter
        As of `kronecker_identities`.
    seed : int, default 0
        Of all laws.
    examples : int or mapping of str to int, default 4
        How many examples each law gets in each dtype, or {name of a law: how many} for some of them.
    rtol, atol : float, optional
        Allowed errors, as `check` of `Law` takes them.
    progress : bool or callable, default False
        True for a bar of tqdm where that is installed, and lines on stderr where it is not; or a function
        (name, number, count), which is called before the law of that number.

    Raises
    ------
    AssertionError
        With the messages of all laws that fail.
    TypeError, ValueError
        On arguments, names that are not laws among them.

    Examples
    --------
    >>> from functools import reduce
    >>> check_identities(lambda matrices: reduce(np.kron, matrices), examples=1)
    >>> check_identities(lambda matrices: reduce(np.kron, matrices) + 1)
    Traceback (most recent call last):
    AssertionError: the library must keep all laws, got ... of 16 that fail: definition, neutral factor, ...
    """
    if not (progress is True or progress is False or callable(progress)):
        raise TypeError(f"progress must be True, False or a function, got {progress!r}")
    laws = kronecker_identities(make)
    counts = dict(examples) if isinstance(examples, Mapping) else {law.name: examples for law in laws}
    unknown = sorted(set(counts) - {rule.name for rule in _RULES})
    if unknown:
        raise ValueError(f"examples must be for names of laws, got {unknown}")
    failures = {}
    for law in _with_progress(laws, progress):
        try:
            law.check(seed, examples=counts.get(law.name, _EXAMPLES), rtol=rtol, atol=atol)
        except AssertionError as failure:
            failures[law.name] = str(failure)
    if failures:
        count = f"{len(failures)} of {len(laws)} that fail: {', '.join(failures)}"
        details = "\n\n".join(failures.values())
        raise AssertionError(f"the library must keep all laws, got {count}\n\n{details}")


def _with_progress(laws: list[Law], progress: bool | Callable[[str, int, int], Any]) -> Iterable[Law]:
    """The laws, each announced before it is taken."""
    if progress is True:
        try:
            from tqdm import tqdm
        except ImportError:
            progress = _write
        else:
            yield from tqdm(laws, unit="law")
            return
    for number, law in enumerate(laws, 1):
        if callable(progress):
            progress(law.name, number, len(laws))
        yield law


def _write(name, number, count):
    print(f"{number} of {count}: {name}", file=sys.stderr)


def _adapter(make):
    if isinstance(make, Adapter):
        return make
    if not callable(make):
        raise TypeError(f"make must be a function of a list of matrices, or an Adapter, got {make!r}")
    return Adapter(make)


def _missing(rule, adapter):
    """What the adapter lacks for a rule: operations, or dtypes of its kind."""
    dtypes = () if _dtypes(rule, adapter) else ("dtypes",)
    return adapter.missing(rule.needs) + dtypes


def _dtypes(rule: Rule, adapter: Adapter) -> list[str]:
    return [name for name in adapter.dtypes if np.dtype(name).kind in rule.kinds]


def _check(rule: Rule, adapter: Adapter) -> Callable[..., None]:
    """The check of a rule: some trials in every dtype."""

    def check(
        seed: int = 0, *, examples: int = _EXAMPLES, rtol: float | None = None, atol: float | None = None
    ) -> None:
        """Raise AssertionError unless the law holds for the matrices that follow from the seed."""
        check_int("examples", examples, 1)
        check_int("seed", seed, 0)
        for name, given in (("rtol", rtol), ("atol", atol)):
            if given is not None:
                check_size(name, given)
        for dtype in _dtypes(rule, adapter):
            for number in range(examples):
                trial = Trial(rule, adapter, Settings(dtype, (seed, number), rtol, atol))
                if trial.run():
                    options = {"examples": examples, "rtol": rtol, "atol": atol}
                    set_ones = [f"{name}={value}" for name, value in options.items() if value is not None]
                    raise _simplified(trial, f"check({', '.join((f'seed={seed}', *set_ones))})")

    return check


def _simplified(trial: Trial, call: str) -> AssertionError:
    """The error of the simplest trial that fails as this one does, with the call that repeats it."""

    def again(draws: Sequence[Draw]) -> Trial | None:
        simpler = Trial(trial.rule, trial.adapter.adapter, trial.settings, draws)
        return simpler if simpler.run() and simpler.reason == trial.reason else None

    found = simplest(trial, again)
    simplified = "" if found is trial else f", simplified from shapes {trial.drawn()}"
    return found.error(f"repeat with {call}{simplified}")
