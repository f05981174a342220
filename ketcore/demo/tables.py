"""The embedding tables that the demo compares: word vectors of 256 numbers, stored in different ways.

A table is three functions: how its parameters start, the rows of some ids, and the vjp of those rows.  For
the compressed tables each is one call to ketcore, and the (words, 256) numbers of a dense table never exist.

Source: Panahi, Saeedi, Arodz, "word2ket", ICLR 2020.
Letters: N order, R rank, p_n and q_n rows and columns of factor n.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

import ketcore as kc

Array = np.ndarray

COLUMNS = 256
# Chosen on the validation split, as are the rates below.
START_STD = 0.1
# Leaves are larger than the products they make, and want a higher rate than the rows of a dense table.
DENSE_RATE, HASHED_RATE, KET_RATE, XS_RATE = 0.01, 0.01, 0.03, 0.1


@dataclass(frozen=True)
class Table:
    """An embedding table.

    Attributes
    ----------
    name : str
        What the report calls it.
    order, rank : int or None
        Of the factorisation; None for a table without one.
    rate : float
        Learning rate of the parameters.
    start : callable
        (rng) -> tuple of float32 arrays, the parameters.
    rows : callable
        (parameters, ids) -> (len(ids), 256).
    vjp : callable
        (parameters, ids, cotangent) -> tuple of arrays, the gradient of each parameter.
    """

    name: str
    order: int | None
    rank: int | None
    rate: float
    start: Callable[[np.random.Generator], tuple[Array, ...]]
    rows: Callable[[Sequence[Array], Array], Array]
    vjp: Callable[[Sequence[Array], Array, Array], tuple[Array, ...]]


def all_tables(words: int) -> tuple[Table, ...]:
    """The eight tables of the report for a vocabulary of `words` words.

    >>> [table.name for table in all_tables(5056)]
    ['dense', 'XS 2/30', 'XS 2/10', 'XS 3/10', 'XS 4/8', 'XS 4/1', 'word2ket 4/1', 'hashed']
    """
    orders_and_ranks = ((2, 30), (2, 10), (3, 10), (4, 8), (4, 1))
    budget = count(xs_table(words, 2, 10))
    return (
        dense_table(words),
        *(xs_table(words, order, rank) for order, rank in orders_and_ranks),
        ket_table(words, 4, 1),
        hashed_table(words, round(budget / COLUMNS)),
    )


def dense_table(words: int) -> Table:
    """An ordinary table: one array (words, 256)."""

    def vjp(parameters, ids, cotangent):
        gradient = np.zeros_like(parameters[0])
        np.add.at(gradient, ids, cotangent)
        return (gradient,)

    start = _normal([(words, COLUMNS)], START_STD)
    return Table("dense", None, None, DENSE_RATE, start, lambda parameters, ids: parameters[0][ids], vjp)


def hashed_table(words: int, buckets: int) -> Table:
    """A dense table with fewer rows than words: words that fall into one bucket share its row."""
    dense = dense_table(buckets)
    # A fixed seed: which words collide belongs to the table, as the digits of an id do.
    bucket = np.random.default_rng(0).integers(buckets, size=words)

    def rows(parameters, ids):
        return dense.rows(parameters, bucket[ids])

    def vjp(parameters, ids, cotangent):
        return dense.vjp(parameters, bucket[ids], cotangent)

    return Table("hashed", None, None, HASHED_RATE, dense.start, rows, vjp)


def xs_table(words: int, order: int, rank: int) -> Table:
    """word2ketXS: the table is one Kronecker-factorised matrix; its parameters are the N factors."""
    shape = (words, COLUMNS)
    pairs = zip(kc.suggest_dims(words, order), kc.suggest_dims(COLUMNS, order), strict=True)
    start = _normal([(rank, p, q) for p, q in pairs], leaf_std(order, rank))

    def rows(factors, ids):
        return kc.rows(factors, ids, shape)

    def vjp(factors, ids, cotangent):
        return kc.rows_vjp(factors, ids, cotangent, shape)

    return Table(f"XS {order}/{rank}", order, rank, XS_RATE, start, rows, vjp)


def ket_table(words: int, order: int, rank: int) -> Table:
    """word2ket: every word has a ket of its own; its parameters are one packed array (words, R, sum q_n)."""
    dims = kc.suggest_dims(COLUMNS, order)
    start = _normal([(words, rank, sum(dims))], leaf_std(order, rank))

    def rows(parameters, ids):
        return kc.ket_rows(parameters[0], ids, dims)

    def vjp(parameters, ids, cotangent):
        return (kc.ket_rows_vjp(parameters[0], ids, cotangent, dims),)

    return Table(f"word2ket {order}/{rank}", order, rank, KET_RATE, start, rows, vjp)


def leaf_std(order: int, rank: int) -> float:
    """The standard deviation of leaves whose sum of `rank` products of `order` has entries of START_STD.

    >>> round(leaf_std(2, 4), 3), round((leaf_std(2, 4) ** 2) * 4 ** 0.5, 3)
    (0.224, 0.1)
    """
    return (START_STD / rank**0.5) ** (1 / order)


def count(table: Table) -> int:
    """The number of parameters of `table`."""
    return sum(parameter.size for parameter in table.start(np.random.default_rng(0)))


def _normal(shapes: Sequence[tuple[int, ...]], std: float) -> Callable:
    """A `start` that draws float32 arrays of these shapes from a normal distribution."""

    def start(rng):
        return tuple(np.float32(std) * rng.standard_normal(shape, dtype=np.float32) for shape in shapes)

    return start
