"""A matrix rearranged so that its Kronecker products are outer products.

With the modes split in a left and a right half (each Kronecker factor being that of its half),

    T[(i, j), (k, l)] = A[i p_right + k, j q_right + l],    kron(B, C) -> vec(B) vec(C)^T

(Van Loan and Pitsianis, "Approximation with Kronecker products", 1993).  `Halves` multiplies T and its
transpose by the tables of either half, from memory or by blocks of rows.  Rows may be scaled: `roots` are
square roots of weights, so that the norm of scaled T is the weighted norm of A.

Letters: p_left, q_left rows and columns of the left half; a table (R, p q) holds one half of every term.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import frexp, hypot, isfinite, prod

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import conjugated
from ketcore.arrays.namespaces import device_of
from ketcore.fit.flat_leaves import kron_of_leaves, length
from ketcore.fit.sources import Rows
from ketcore.shapes import halves_split

# Elements that a pass takes at a time: temporaries stay in a few megabytes.
_CHUNK = 1 << 19
# Up to so many elements T is kept in memory, whatever A is read from: 8 MB of float64.
_SMALL = 1 << 20


@dataclass(frozen=True)
class Halves:
    """T of a matrix with dims, zero outside the matrix.

    Attributes
    ----------
    rows : Rows
        Where A comes from.
    row_dims, col_dims : tuple of N >= 2 ints
        p_n and q_n.
    scale : array, (P,), or None
        Each row of A is multiplied by its entry; None for 1.
    roots : array, (p_left, p_right), or None
        Square roots of weights, already in `scale`, of a problem whose weights do not separate; the model is
        to be multiplied by them.  None where it is not.
    columns : array, (q_left, q_right), or None
        1 for columns within A, 0 outside; None unless `roots` are given.
    factor : float
        T is A times this power of two.
    """

    rows: Rows
    row_dims: tuple[int, ...]
    col_dims: tuple[int, ...]
    scale: AnyArray | None = None
    roots: AnyArray | None = None
    columns: AnyArray | None = None
    factor: float = 1.0

    @cached_property
    def split(self) -> int:
        """The number of modes in the left half: halves of the nearest sizes."""
        return halves_split(tuple(p * q for p, q in zip(self.row_dims, self.col_dims, strict=True)))

    @cached_property
    def sides(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(p_left, q_left) and (p_right, q_right)."""
        halves = slice(self.split), slice(self.split, None)
        left, right = ((prod(self.row_dims[half]), prod(self.col_dims[half])) for half in halves)
        return left, right

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of T."""
        return prod(self.sides[0]), prod(self.sides[1])

    @cached_property
    def held(self) -> AnyArray | None:
        """T times the roots in memory, where A is or is small: what is multiplied by tables."""
        if not self.rows.held and prod(self.shape) > _SMALL:
            return None
        return self._weighed(self._read(0, self.sides[0][0]), 0)

    @cached_property
    def norm(self) -> float:
        """The weighted norm of A times `factor`; NaN or infinity where A has one."""
        total = 0.0
        for _, piece in self._pieces():
            total = hypot(total, length(piece))
        return total

    def scaled_to_one(self) -> "Halves":
        """The same T times the power of two that brings its norm near 1; ValueError unless A is finite."""
        if not isfinite(self.norm):
            raise ValueError(f"A must hold finite values, got {self.rows.not_finite()}")
        if not self.norm:
            return self
        # The power must itself be a number of the dtype.
        most = frexp(float(self.rows.xp.finfo(self.rows.sample.dtype).max))[1] - 4
        return replace(self, factor=2.0 ** -max(-most, min(most, frexp(self.norm)[1])))

    def onto_left(self, right: AnyArray) -> AnyArray:
        """(R, p_left q_left): T contracted with conjugate right tables (R, p_right q_right)."""
        xp = self.rows.xp
        turned = xp.permute_dims(conjugated(right), (1, 0))
        if self.held is not None:
            return xp.permute_dims(self.held @ turned, (1, 0))
        parts = [self._weighed(piece, start) @ turned for start, piece in self._pieces()]
        return xp.permute_dims(xp.concat(parts, axis=0), (1, 0))

    def onto_right(self, left: AnyArray) -> AnyArray:
        """(R, p_right q_right): T contracted with conjugate left tables (R, p_left q_left)."""
        turned = conjugated(left)
        if self.held is not None:
            return turned @ self.held
        total = 0.0
        for start, piece in self._pieces():
            first = start * self.sides[0][1]
            total = total + turned[:, first : first + piece.shape[0]] @ self._weighed(piece, start)
        return total

    def residual(self, left: AnyArray, right: AnyArray) -> float:
        """The norm of T minus the outer products of tables, measured element by element."""
        xp, total = self.rows.xp, 0.0
        for start, piece in self._pieces():
            first = start * self.sides[0][1]
            model = xp.permute_dims(left[:, first : first + piece.shape[0]], (1, 0)) @ right
            total = hypot(total, length(piece - self._weighed(model, start)))
        return total

    def table(self, leaves: Sequence[AnyArray], side: int) -> AnyArray:
        """The leaves (R, p_n q_n) of the left (0) or right (1) half multiplied out: (R, p q).

        Within a half all rows come before all columns, so that blocks of rows of A are blocks of T.
        """
        xp, dims = self.rows.xp, self._dims(side)
        own = leaves[: self.split] if side == 0 else leaves[self.split :]
        table = xp.reshape(kron_of_leaves(xp, own), (-1, *(size for pair in dims for size in pair)))
        order = (0, *range(1, 2 * len(dims), 2), *range(2, 2 * len(dims) + 1, 2))
        return xp.reshape(xp.permute_dims(table, order), (table.shape[0], prod(self.sides[side])))

    def by_modes(self, table: AnyArray, side: int) -> AnyArray:
        """A table (R, p q) of the left (0) or right (1) half as an array (R, d_a, ...), d_n = p_n q_n."""
        xp, dims = self.rows.xp, self._dims(side)
        count = len(dims)
        shaped = xp.reshape(table, (-1, *(p for p, _ in dims), *(q for _, q in dims)))
        pairs = (axis for n in range(count) for axis in (1 + n, 1 + count + n))
        return xp.reshape(xp.permute_dims(shaped, (0, *pairs)), (-1, *map(prod, dims)))

    def _dims(self, side):
        """The pairs (p_n, q_n) of one half."""
        pairs = tuple(zip(self.row_dims, self.col_dims, strict=True))
        return pairs[: self.split] if side == 0 else pairs[self.split :]

    def _weighed(self, block, start):
        """A block of T, or of a model of T, times the roots of its rows and the mask of the columns."""
        if self.roots is None:
            return block
        xp = self.rows.xp
        (_, q_left), (p_right, q_right) = self.sides
        roots = self.roots[start : start + block.shape[0] // q_left, None, :, None]
        shaped = xp.reshape(block, (-1, q_left, p_right, q_right))
        if self.columns is not None:
            shaped = shaped * self.columns[:, None, :]
        return xp.reshape(shaped * roots, block.shape)

    def _pieces(self) -> Iterator[tuple[int, AnyArray]]:
        """Consecutive rows of T, unweighed, each piece with the left row of A at which it begins."""
        count, (p_right, _) = self.sides[0][0], self.sides[1]
        step = max(1, _CHUNK // (p_right * prod(self.col_dims)))
        for start in range(0, count, step):
            yield start, self._read(start, min(start + step, count))

    def _read(self, start, stop):
        """The rows of T of the left rows start..stop of A, with zeros outside A."""
        xp, rows = self.rows.xp, self.rows
        (_, q_left), (p_right, q_right) = self.sides
        first, last = (min(edge * p_right, rows.shape[0]) for edge in (start, stop))
        block = rows.read(first, last) * self.factor
        if self.scale is not None:
            block = block * self.scale[first:last, None]
        block = padded_block(xp, block, ((stop - start) * p_right, q_left * q_right))
        block = xp.reshape(block, (stop - start, p_right, q_left, q_right))
        return xp.reshape(xp.permute_dims(block, (0, 2, 1, 3)), ((stop - start) * q_left, p_right * q_right))


def padded_block(xp, block, shape):
    """A block with zeros below and to the right."""
    rows, columns = block.shape
    where = {"dtype": block.dtype, "device": device_of(block)}
    if columns < shape[1]:
        block = xp.concat([block, xp.zeros((rows, shape[1] - columns), **where)], axis=1)
    if rows < shape[0]:
        block = xp.concat([block, xp.zeros((shape[0] - rows, shape[1]), **where)], axis=0)
    return block
