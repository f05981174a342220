"""What alternating least squares fits: a rearranged matrix, with weights or without, or a sum of terms."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import array_api_compat

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import conjugated, elementwise_product
from ketcore.arrays.namespaces import device_of
from ketcore.fit.als import damped_solve, gram_of_others
from ketcore.fit.flat_leaves import inner_products, terms_norm
from ketcore.fit.rearranged import Halves
from ketcore.shapes import prefix_boxes


@dataclass(frozen=True)
class DenseTarget:
    """The matrix of `halves`, every element with the same weight."""

    halves: Halves

    @property
    def norm(self) -> float:
        """The norm of the matrix."""
        return self.halves.norm

    @property
    def groups(self) -> tuple[range, range]:
        """The modes of the left and of the right half."""
        split, order = self.halves.split, len(self.halves.row_dims)
        return range(split), range(split, order)

    def contract(self, group: Sequence[int], leaves: Sequence[AnyArray]) -> AnyArray:
        """One product of T with the table of the other half."""
        halves = self.halves
        if group[0] == 0:
            return halves.by_modes(halves.onto_left(halves.table(leaves, 1)), 0)
        return halves.by_modes(halves.onto_right(halves.table(leaves, 0)), 1)

    def solve(self, mode, leaves, right, before) -> tuple[AnyArray, AnyArray]:
        """One system for all elements of the leaves."""
        gamma = gram_of_others(mode, leaves)
        found = damped_solve(gamma, right, before)
        return found, gamma @ found

    def residual(self, leaves: Sequence[AnyArray]) -> float:
        """One pass over the matrix."""
        return self.halves.residual(self.halves.table(leaves, 0), self.halves.table(leaves, 1))


@dataclass(frozen=True)
class WeightedTarget(DenseTarget):
    """The matrix of `halves`, whose roots are square roots of weights that do not separate.

    Each row digit of a mode has a Gamma of its own, and where columns are cropped each pair of digits:

        Gamma_kl(i_n, j_n) = sum_{i_m, j_m, m != n} w(i) prod_{m != n} conj(f_mk(i_m, j_m)) f_ml(i_m, j_m)
    """

    def solve(self, mode, leaves, right, before) -> tuple[AnyArray, AnyArray]:
        """One system per row of the factor, or per element."""
        xp, halves = self.halves.rows.xp, self.halves
        gamma = self._gamma(mode, leaves)
        rank, (p, q) = right.shape[0], (halves.row_dims[mode], halves.col_dims[mode])
        lead, width = gamma.shape[1], q // gamma.shape[1]

        def split(flat):
            return xp.permute_dims(xp.reshape(flat, (rank, p, lead, width)), (1, 2, 0, 3))

        def joined(blocks):
            return xp.reshape(xp.permute_dims(blocks, (2, 0, 1, 3)), (rank, p * q))

        found = damped_solve(gamma, split(right), split(before))
        return joined(found), joined(gamma @ found)

    @cached_property
    def _weights(self):
        roots: Any = self.halves.roots
        return roots**2

    def _gamma(self, mode, leaves):
        """(p_n, 1 or q_n, R, R): a sum over the boxes of columns within the matrix."""
        xp, halves = self.halves.rows.xp, self.halves
        boxes = prefix_boxes(halves.rows.shape[1], halves.col_dims)
        total: Any = 0.0
        for box in boxes:
            part = self._box_gamma(mode, leaves, box)[:, None, :, :]
            if len(boxes) > 1 or box[mode] != (0, halves.col_dims[mode]):
                digits = xp.arange(halves.col_dims[mode], device=device_of(part))
                inside = (digits >= box[mode][0]) & (digits < box[mode][1])
                part = part * xp.astype(inside, part.dtype)[None, :, None, None]
            total = total + part
        return total

    def _box_gamma(self, mode, leaves, box):
        """(p_n, R, R) of the columns of one box: weights contracted with a Gram matrix per row digit."""
        xp, dims = self.halves.rows.xp, self.halves.row_dims
        rank, order = leaves[0].shape[0], len(dims)
        found = xp.reshape(self._weights, dims)
        found = xp.permute_dims(found, (mode, *(m for m in range(order) if m != mode)))
        found = xp.reshape(found, (-1, 1))
        for m in reversed([m for m in range(order) if m != mode]):
            leaf = xp.reshape(leaves[m], (rank, dims[m], -1))[:, :, box[m][0] : box[m][1]]
            leaf = xp.permute_dims(leaf, (1, 0, 2))
            grams = xp.reshape(conjugated(leaf) @ xp.permute_dims(leaf, (0, 2, 1)), (dims[m], rank * rank))
            found = xp.reshape(found, (-1, dims[m], found.shape[1]))
            found = _contract_digit(xp, found, grams)
        return xp.reshape(found, (dims[mode], rank, rank))


def _contract_digit(xp, found, grams):
    """Sum over digit i of found[..., i, :] grams[i, :]; the last axis of `found` is 1 or R R."""
    if found.shape[2] == 1:
        return xp.astype(found[:, :, 0], grams.dtype, copy=False) @ grams
    return xp.sum(found * grams, axis=1)


@dataclass(frozen=True)
class TermsTarget:
    """A sum of terms, by the inner products of its leaves (R', d_n) with those of the fit.

    Notes
    -----
    Cost: O(R R' sum d_n) a sweep; the residual O((R + R')^3 N), without cancellation.
    """

    leaves: Sequence[AnyArray]

    @cached_property
    def norm(self) -> float:
        """The norm of the sum."""
        return terms_norm(self.leaves)

    @property
    def groups(self) -> tuple[tuple[int], ...]:
        """Every mode by itself."""
        return tuple((mode,) for mode in range(len(self.leaves)))

    def contract(self, group: Sequence[int], leaves: Sequence[AnyArray]) -> AnyArray:
        """(R, d_n) of the one mode of `group`."""
        (mode,) = group
        pairs = zip(leaves, self.leaves, strict=True)
        others = [inner_products(a, b) for m, (a, b) in enumerate(pairs) if m != mode]
        return elementwise_product(others) @ self.leaves[mode]

    solve = DenseTarget.solve

    def residual(self, leaves: Sequence[AnyArray]) -> float:
        """The norm of the difference, as a sum of R + R' terms."""
        xp = array_api_compat.array_namespace(*leaves)
        both = [xp.concat([a, b], axis=0) for a, b in zip(self.leaves, leaves, strict=True)]
        negative = xp.concat([self.leaves[0], -leaves[0]], axis=0)
        return terms_norm([negative, *both[1:]])
