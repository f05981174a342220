"""Rows through two half tables on NumPy: the products of the left factors, and of the right ones, for all digits.

A batch of rows picks from them again and again, so that each half is multiplied out once per call and not once
per row.  Worth it when the batch is not much smaller than a half table; without LayerNorm only.
"""

from math import prod

import numpy as np

from ketcore.backend import accumulation_dtype, run_chunks, segment_sum
from ketcore.ops import tree
from ketcore.ops.lookup import Lookup


def pay(lookup: Lookup) -> bool:
    """Whether half tables cost less than the halves of each row."""
    if lookup.kind != "digits" or lookup.layernorm:
        return False
    return 2 * lookup.batch >= max(_lengths(lookup))


def source(lookup: Lookup):
    """A function of (start, stop): left (b, kept, R), right (b, R, qb) of these rows, and no bias."""
    left, right = _tables(lookup)
    length = right.shape[0]

    def pick(start, stop):
        high, low = np.divmod(lookup.index[start:stop], length)
        return left.take(high, axis=0), right.take(low, axis=0), None

    return pick


def contract(lookup: Lookup, cotangent: np.ndarray, chunk: int) -> tuple[np.ndarray, ...]:
    """Pull `cotangent` (B, columns) back to the factors: N arrays (R, t_n, q_n)."""
    left, right = _tables(lookup)
    high, low = np.divmod(lookup.index, right.shape[0])
    to_left = np.empty((lookup.batch, *left.shape[1:]), left.dtype)
    to_right = np.empty((lookup.batch, *right.shape[1:]), right.dtype)
    kept, width = left.shape[1], right.shape[2]

    def work(start, stop):
        grid = _grid(cotangent[start:stop], kept, width)
        np.matmul(grid, right.take(low[start:stop], axis=0).swapaxes(1, 2), out=to_left[start:stop])
        np.matmul(left.take(high[start:stop], axis=0).swapaxes(1, 2), grid, out=to_right[start:stop])

    run_chunks(work, lookup.batch, chunk)
    left_sums = _sums(to_left, high, left.shape[0])
    right_sums = _sums(to_right, low, right.shape[0])
    split, leaves = lookup.split, _leaves(lookup)
    return (
        *_chain(leaves[:split], _padded(left_sums.transpose(1, 0, 2), prod(lookup.widths[:split]))),
        *_chain(leaves[split:], right_sums.transpose(2, 0, 1)),
    )


def _lengths(lookup):
    lengths = [table.shape[1] for table in lookup.tables]
    return prod(lengths[: lookup.split]), prod(lengths[lookup.split :])


def _leaves(lookup):
    """The factors as leaves for all digits at once: (q_n, 1, ..., t_n, ..., 1, R), an axis per mode of its half."""
    dtype = accumulation_dtype(np, lookup.dtype)
    shaped = []
    for mode, table in enumerate(lookup.tables):
        first, last = (0, lookup.split) if mode < lookup.split else (lookup.split, len(lookup.tables))
        axes = [1] * (last - first)
        axes[mode - first] = table.shape[1]
        leaf = np.ascontiguousarray(table.transpose(2, 1, 0), dtype)
        shaped.append(leaf.reshape(table.shape[2], *axes, table.shape[0]))
    return shaped


def _tables(lookup):
    """Left (T, kept, R) and right (T, R, qb), each row contiguous."""
    leaves, split, (high, low) = _leaves(lookup), lookup.split, _lengths(lookup)
    right = tree.product(np, leaves[split:], None)
    right = right.reshape(right.shape[0], low, lookup.rank)
    if split:
        left = tree.product(np, leaves[:split], None)[: lookup.kept]
        left = left.reshape(lookup.kept, high, lookup.rank)
    else:
        left = np.ones((1, 1, lookup.rank), right.dtype)
    return np.ascontiguousarray(left.transpose(1, 0, 2)), np.ascontiguousarray(right.transpose(1, 2, 0))


def _grid(cotangent, kept, width):
    """Rows (b, columns) as grids (b, kept, width), zero beyond the crop."""
    batch, columns = cotangent.shape
    if columns == kept * width:
        return cotangent.reshape(batch, kept, width)
    padded = np.zeros((batch, kept * width), cotangent.dtype)
    padded[:, :columns] = cotangent
    return padded.reshape(batch, kept, width)


def _sums(values, index, length):
    batch = values.shape[0]
    return segment_sum(np, values.reshape(batch, prod(values.shape[1:])), index, length).reshape(length, *values.shape[1:])


def _padded(sums, width):
    """`sums` (kept, T, R) with zeros up to (width, T, R): what lies beyond the crop has no gradient."""
    if sums.shape[0] == width:
        return sums
    return np.concatenate([sums, np.zeros((width - sums.shape[0], *sums.shape[1:]), sums.dtype)])


def _chain(leaves, sums):
    """The gradient of a half table, (q, T, R), pulled back to its factors: arrays (R, t_n, q_n)."""
    if not leaves:
        return ()
    lengths = [leaf.shape[1 + mode] for mode, leaf in enumerate(leaves)]
    cotangent = sums.reshape(sums.shape[0], *lengths, sums.shape[-1])
    found = tree.product_vjp(np, leaves, cotangent, None)
    others = [tuple(1 + m for m in range(len(leaves)) if m != mode) for mode in range(len(leaves))]
    return tuple(g.sum(axis=axes).transpose(2, 1, 0) for g, axes in zip(found, others, strict=True))
