"""One trial of a law: matrices drawn from a seed, calls of an adapter, a comparison that names the law.

What is drawn is kept, and a trial can be run again with simpler draws in its place (see `shrinking`).
"""

from collections.abc import Callable, Sequence
from functools import reduce
from math import inf
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from ketcore.testing.adapters import Adapter
from ketcore.testing.dense import compared, tolerance
from ketcore.testing.recorder import Recorder
from ketcore.testing.shrinking import Draw

__tracebackhide__ = True

# Sums in a trial have at most a few hundred terms, and a few roundings follow one another.
_TERMS = 256
# A message is to be read at a glance; no law calls more functions for one value.
_LINES = 12


class Rule(NamedTuple):
    """A law before it is tied to an adapter.

    Attributes
    ----------
    name : str
        A few words.
    formula : str
        The identity, (x) for the Kronecker product.
    needs : tuple of str
        Names of the operations of the adapter that it calls.
    body : callable
        The trial of it: draws matrices, calls operations, compares.
    kinds : str
        Of the dtypes it is about: "fc" floating and complex.
    """

    name: str
    formula: str
    needs: tuple[str, ...]
    body: Callable[["Trial"], None]
    kinds: str = "fc"


class Settings(NamedTuple):
    """What a trial is told beside its law.

    Attributes
    ----------
    dtype : str
        Of the matrices.
    seed : tuple of ints
        What all draws come from, and the number of the trial among those of the law.
    rtol, atol : float or None
        Allowed errors; None for what `tolerance` says, and for 0.
    """

    dtype: str
    seed: tuple[int, int]
    rtol: float | None = None
    atol: float | None = None


class Trial:
    """Matrices of one dtype, and what was drawn and called so far, for the message of a failure.

    Attributes
    ----------
    rule, adapter, dtype
        Of this trial; the adapter writes down its calls.
    rng
        What all draws come from.
    replay
        Draws that stand in for those of the rng, in their order, as far as they fit.
    draws, shapes
        Sizes and arrays that were drawn, and the shapes of the arrays.
    reason
        In which way the trial failed: "value", or the name of what the library raised; "" if it did not.
    """

    def __init__(self, rule: Rule, adapter: Adapter, settings: Settings, replay: Sequence[Draw] = ()):
        self.rule, self.settings, self.dtype = rule, settings, np.dtype(settings.dtype)
        self.adapter: Any = Recorder(adapter)
        self.draws: list[Draw] = []
        self.shapes: list[tuple[int, ...]] = []
        self.replay = replay
        self.reason, self._got = "", ""
        self._values_compared: tuple[np.ndarray, np.ndarray] | None = None
        self._raised: Exception | None = None
        # Each law has matrices of its own.
        self.rng = np.random.default_rng((crc32(rule.name.encode()), *settings.seed))

    def run(self) -> bool:
        """Run the law; whether it failed, for which `error` then is the reason."""
        try:
            self.rule.body(self)
        except Exception as error:
            # Otherwise it is what `fail` raised.
            if not self.reason:
                # The library raised, an assertion of its own perhaps.
                self.reason, self._raised = type(error).__name__, error
                self._got = f"{self.reason}: {error}"
        return bool(self.reason)

    def error(self, more: str) -> AssertionError:
        """The error: the law, what it got, the shapes drawn, the calls that led there, and `more`."""
        law = f"{self.rule.name} must hold: {self.rule.formula}"
        lines = self.adapter.lines()
        if len(lines) > _LINES:
            lines = [*lines[:2], f"... {len(lines) - _LINES} more", *lines[2 - _LINES :]]
        lines += compared(*self._values_compared) if self._values_compared else []
        text = "".join(f"\n    {line}" for line in (*lines, more))
        error = AssertionError(f"{law}; got {self._got} ({self.dtype}, shapes {self.drawn()}){text}")
        error.__cause__ = self._raised
        return error

    def drawn(self) -> str:
        """The shapes drawn; of many, those at the ends."""
        shapes = [str(shape) for shape in self.shapes]
        return ", ".join(shapes if len(shapes) <= 8 else [*shapes[:2], "...", *shapes[-2:]])

    @property
    def complex(self) -> bool:
        """Whether matrices are complex."""
        return self.dtype.kind == "c"

    def size(self, least: int = 1) -> int:
        """A size up to 4."""
        size = int(self.rng.integers(least, 5))
        found = self._replayed()
        size = found if isinstance(found, int) and found >= least else size
        self.draws.append(size)
        return size

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal values; in every third of four trials 0, 1, -1, 2 and -2."""
        values = self._values(shape)
        if self.settings.seed[1] % 4 == 2:
            values = np.clip(np.round(values.real), -2, 2) + (
                1j * np.round(values.imag) if self.complex else 0
            )
        return self._drawn(values, lambda a: True)

    def matrix(self) -> np.ndarray:
        """A matrix of any shape, but square where the library has no others."""
        return self.with_rows(self.size())

    def with_rows(self, rows: int) -> np.ndarray:
        """A matrix of as many rows."""
        return self.normal(rows, rows if self.adapter.square else self.size())

    def with_columns(self, columns: int) -> np.ndarray:
        """A matrix of as many columns."""
        return self.normal(columns if self.adapter.square else self.size(), columns)

    def square(self, n: int | None = None) -> np.ndarray:
        """A square matrix, neither symmetric nor positive, with singular values between 1 and 2."""
        n = self.size() if n is None else n
        left = self._unitary(n) * self.rng.uniform(1, 2, n)
        # Simple ones such as [[1, 1], [0, 1]] are allowed a little more.
        return self._drawn(left @ self._unitary(n), lambda a: _within(np.linalg.svdvals(a), 0.5, 2.5))

    def of_rank(self, n: int, rank: int) -> np.ndarray:
        """A square matrix of this rank, with singular values 1 and 0."""
        values = self._unitary(n)[:, :rank] @ self._unitary(n)[:rank]

        def valid(a):
            found = np.linalg.svdvals(a)
            return _within(found[:rank], 0.5, 2.5) and _within(found[rank:], 0, 1e-6)

        return self._drawn(values, valid)

    def hermitian(self, n: int | None = None) -> np.ndarray:
        """A Hermitian matrix with eigenvalues between -2 and 2."""
        n = self.size() if n is None else n
        return self._drawn(self._of_eigenvalues(self.rng.uniform(-2, 2, n)), _is_hermitian)

    def positive(self) -> np.ndarray:
        """A Hermitian matrix with eigenvalues between 1 and 2."""

        def valid(a):
            return _is_hermitian(a) and _within(np.linalg.eigvalsh(a), 0.3, 3.1)

        return self._drawn(self._of_eigenvalues(self.rng.uniform(1, 2, self.size())), valid)

    def wide(self, array: np.ndarray) -> np.ndarray:
        """The array in float64 or complex128, for the side of a law that NumPy computes."""
        return np.asarray(array).astype(np.complex128 if self.complex else np.float64)

    def make(self, *matrices: np.ndarray) -> Any:
        """The library's Kronecker product of copies of the matrices."""
        return self.adapter.make([matrix.copy() for matrix in matrices])

    def array(self, values: np.ndarray) -> Any:
        """An array of the library."""
        return self.adapter.asarray(values.copy())

    def dense(self, *matrices: np.ndarray) -> np.ndarray:
        """The Kronecker product by NumPy, wide."""
        return reduce(np.kron, [self.wide(matrix) for matrix in matrices])

    def equal(self, found: Any, expected: Any, growth: float = 1.0, relative: bool = False) -> None:
        """Fail unless `found`, made dense, has the shape and the values of `expected`.

        Parameters
        ----------
        found, expected
            What the library and what the law says.
        growth : float, default 1.0
            Factor on the tolerance: a condition number.
        relative : bool, default False
            True: each entry counts against its own size, rather than the largest one or 1.
        """
        found, expected = self.adapter.to_dense(found), np.asarray(expected)
        if found.shape != expected.shape:
            self.fail(f"shape {found.shape} for {expected.shape}")
        # Equal infinities differ by NaN.
        same = found == expected
        with np.errstate(invalid="ignore"):
            error = np.where(same, 0.0, np.abs(found.astype(np.result_type(found, expected)) - expected))
        largest = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
        scale = np.abs(expected) if relative else largest
        rtol, atol = self.settings.rtol, self.settings.atol or 0.0
        allowed = (tolerance(self.dtype, _TERMS) if rtol is None else rtol) * growth * scale + atol
        allowed = np.broadcast_to(allowed, error.shape)
        wrong = ~(error <= np.where(np.isfinite(allowed), allowed, 0.0))
        if wrong.any():
            at = np.unravel_index(np.argmax(np.where(wrong, np.nan_to_num(error, nan=inf), -1)), error.shape)
            where = f" at {tuple(int(i) for i in at)}" if at else ""
            size = f"error {error[at]:.3g}, allowed {allowed[at]:.3g}"
            self._values_compared = found, expected
            self.fail(f"{found[at]} for {expected[at]}{where}: {size}")
        self.adapter.compared()

    def same_set(self, found: Any, expected: np.ndarray, growth: float = 1.0, relative: bool = False) -> None:
        """`equal` for two vectors in any order."""
        from scipy.optimize import linear_sum_assignment

        found, expected = self.adapter.to_dense(found).reshape(-1), np.asarray(expected).reshape(-1)
        if found.shape != expected.shape or not np.isfinite(found).all():
            return self.equal(found, expected)
        _, order = linear_sum_assignment(np.abs(expected[:, None] - found[None, :]))
        return self.equal(found[order], expected, growth, relative)

    def raises(self, call: Callable[..., Any], what: str) -> None:
        """Fail unless `call` raises."""
        try:
            value = call()
            value = self.adapter.to_dense(value)
        except Exception:
            return
        self.fail(f"{np.array2string(value, threshold=6, edgeitems=2)} for {what}, which must be an error")

    def fail(self, got: str) -> None:
        """End this trial."""
        self.reason, self._got = "value", got
        raise AssertionError(got)

    def _replayed(self):
        return self.replay[len(self.draws)] if len(self.draws) < len(self.replay) else None

    def _drawn(self, values, valid):
        """`values` in the dtype, or what is replayed in their place, cropped to their shape."""
        array, found = values.astype(self.dtype), self._replayed()
        if isinstance(found, np.ndarray):
            fits = found.ndim == array.ndim and all(
                a >= b for a, b in zip(found.shape, array.shape, strict=True)
            )
            choices = [found[tuple(map(slice, array.shape))]] if fits else []
            # A leading block may be singular.
            choices += [np.eye(*array.shape, dtype=self.dtype)] if array.ndim == 2 else []
            array = next((choice for choice in choices if valid(choice)), array)
        self.draws.append(array)
        self.shapes.append(array.shape)
        return array.copy()

    def _values(self, shape):
        values = self.rng.standard_normal(shape)
        return values + 1j * self.rng.standard_normal(shape) if self.complex else values

    def _unitary(self, n):
        """An orthogonal or unitary matrix."""
        return np.linalg.qr(self._values((n, n)))[0]

    def _of_eigenvalues(self, eigenvalues):
        vectors = self._unitary(len(eigenvalues))
        matrix = (vectors * eigenvalues) @ vectors.conj().T
        return (matrix + matrix.conj().T) / 2


def _within(values, least, most):
    return bool(((values >= least) & (values <= most)).all())


def _is_hermitian(array):
    return np.array_equal(array, array.conj().T)
