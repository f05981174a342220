"""Kronecker identities as a list of laws that any library can run on its own type, through an adapter.

Each law draws matrices from a seed, calls the library through the functions of an adapter, and compares with
NumPy on the dense matrices: real and complex, square and rectangular, sizes of 1 and odd ones.

    @pytest.mark.parametrize("law", kronecker_identities(make), ids=str)
    def test_identities(law):
        law.check()

Most laws are in C. F. Van Loan, "The ubiquitous Kronecker product", J. Comput. Appl. Math. 123 (2000) 85-100.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ketcore.testing import laws_determinants, laws_products, laws_scalars, laws_structure
from ketcore.testing.adapters import Adapter
from ketcore.testing.trials import Rule, Trial

_RULES = (
    *laws_products.RULES,
    *laws_determinants.RULES,
    *laws_scalars.RULES,
    *laws_structure.RULES,
)
# Sizes are drawn anew in each.
_TRIALS = 4


class Law(NamedTuple):
    """A law tied to an adapter; `str` gives its name.

    name     a few words
    formula  the identity
    check    (seed=0) raises AssertionError, with the name, the shapes drawn and the two values
    """

    name: str
    formula: str
    check: Callable[..., None]

    def __str__(self) -> str:
        return self.name


def kronecker_identities(make: Callable[..., Any] | Adapter) -> list[Law]:
    """The laws that a library of Kronecker products should keep, as far as its adapter has their operations.

    make     list of 2-D NumPy arrays -> the library's product of them, with `@`, `+`, `*` and `.T`; or an
             `Adapter`, which says what else it can do
    returns  laws, each with a name and a `check()`; see `identities_left_out` for the others

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

    >>> identities_left_out(lambda matrices: None)["determinant of a product"]
    ('det',)
    """
    adapter = _adapter(make)
    return {rule.name: missing for rule in _RULES if (missing := _missing(rule, adapter))}


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

    def check(seed: int = 0) -> None:
        """Raise AssertionError unless the law holds for the matrices that follow from the seed."""
        for dtype in _dtypes(rule, adapter):
            for number in range(_TRIALS):
                trial = Trial(rule, adapter, dtype, (seed, number))
                try:
                    rule.body(trial)
                except Exception as error:
                    if trial.failed:
                        raise
                    # The library raised, an assertion of its own perhaps.
                    raise trial.failure(f"{type(error).__name__}: {error}") from error

    return check
