"""One trial of a law: matrices drawn from a seed, calls of an adapter, a comparison that names the law."""

from collections.abc import Callable, Sequence
from functools import reduce
from math import inf
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from ketcore.testing.adapters import Adapter
from ketcore.testing.dense import tolerance

# Sums in a trial have at most a few hundred terms, and a few roundings follow one another.
_TERMS = 256


class Rule(NamedTuple):
    """A law before it is tied to an adapter.

    name     a few words
    formula  the identity, (x) for the Kronecker product
    needs    names of the operations of the adapter that it calls
    body     the trial of it: draws matrices, calls operations, compares
    kinds    of the dtypes it is about: "fc" floating and complex
    """

    name: str
    formula: str
    needs: tuple[str, ...]
    body: Callable[["Trial"], None]
    kinds: str = "fc"


class Trial:
    """Matrices of one dtype, and what was drawn so far, for the message of a failure.

    rule, adapter, dtype    of this trial
    rng                     what all draws come from
    shapes, failed          what was drawn, and whether `fail` was called
    """

    def __init__(self, rule: Rule, adapter: Adapter, dtype: str, seed: Sequence[int]):
        self.rule, self.adapter, self.dtype = rule, adapter, np.dtype(dtype)
        self.shapes: list[tuple[int, ...]] = []
        self.failed = False
        # Each law has matrices of its own.
        self.rng = np.random.default_rng((crc32(rule.name.encode()), *seed))

    @property
    def complex(self) -> bool:
        """Whether matrices are complex."""
        return self.dtype.kind == "c"

    def size(self, least: int = 1) -> int:
        """A size up to 4."""
        return int(self.rng.integers(least, 5))

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal values."""
        self.shapes.append(shape)
        return self._values(shape).astype(self.dtype)

    def matrix(self) -> np.ndarray:
        """A matrix of any shape, but square where the library has no others."""
        return self.with_rows(self.size())

    def with_rows(self, rows: int) -> np.ndarray:
        """A matrix of as many rows."""
        return self.normal(rows, rows if self.adapter.square else self.size())

    def with_columns(self, columns: int) -> np.ndarray:
        """A matrix of as many columns."""
        return self.normal(columns if self.adapter.square else self.size(), columns)

    def unitary(self, n: int) -> np.ndarray:
        """An orthogonal or unitary matrix, in the wide dtype."""
        return np.linalg.qr(self._values((n, n)))[0]

    def square(self, n: int | None = None) -> np.ndarray:
        """A square matrix, neither symmetric nor positive, with singular values between 1 and 2."""
        n = self.size() if n is None else n
        self.shapes.append((n, n))
        left = self.unitary(n) * self.rng.uniform(1, 2, n)
        return (left @ self.unitary(n)).astype(self.dtype)

    def hermitian(self, eigenvalues: Any) -> np.ndarray:
        """A Hermitian matrix of these eigenvalues."""
        vectors = self.unitary(len(eigenvalues))
        self.shapes.append(vectors.shape)
        matrix = (vectors * np.asarray(eigenvalues)) @ vectors.conj().T
        return ((matrix + matrix.conj().T) / 2).astype(self.dtype)

    def positive(self) -> np.ndarray:
        """A Hermitian matrix with eigenvalues between 1 and 2."""
        return self.hermitian(self.rng.uniform(1, 2, self.size()))

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

        growth    factor on the tolerance: a condition number
        relative  each entry counts against its own size, rather than the largest one or 1
        """
        found, expected = self.adapter.to_dense(found), np.asarray(expected)
        if found.shape != expected.shape:
            self.fail(f"shape {found.shape} for {expected.shape}")
        if not found.size:
            return
        # Equal infinities differ by NaN.
        same = found == expected
        with np.errstate(invalid="ignore"):
            error = np.where(same, 0.0, np.abs(found.astype(np.result_type(found, expected)) - expected))
        largest = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
        scale = np.abs(expected) if relative else largest
        allowed = np.broadcast_to(tolerance(self.dtype, _TERMS) * growth * scale, error.shape)
        wrong = ~(error <= np.where(np.isfinite(allowed), allowed, 0.0))
        if wrong.any():
            at = np.unravel_index(np.argmax(np.where(wrong, np.nan_to_num(error, nan=inf), -1)), error.shape)
            where = f" at {tuple(int(i) for i in at)}" if at else ""
            size = f"error {error[at]:.3g}, allowed {allowed[at]:.3g}"
            self.fail(f"{found[at]} for {expected[at]}{where}: {size}")

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

    def _values(self, shape):
        values = self.rng.standard_normal(shape)
        return values + 1j * self.rng.standard_normal(shape) if self.complex else values

    def fail(self, got: str) -> None:
        """Raise the AssertionError of this trial."""
        self.failed = True
        raise self.failure(got)

    def failure(self, got: str) -> AssertionError:
        """The error that names the law, what it got and the shapes drawn."""
        drawn = ", ".join(str(shape) for shape in self.shapes)
        law = f"{self.rule.name} must hold: {self.rule.formula}"
        return AssertionError(f"{law}; got {got} ({self.dtype}, shapes {drawn})")
