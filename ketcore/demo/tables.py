"""The embedding tables that the demo compares: word vectors of 256 numbers, stored in different ways.

A table is some functions: how its parameters start, the rows of some ids, the vjp of those rows, and what a
file holds of it.  For the Kronecker tables rows and vjp are one call to ketcore each, and the (words, 256)
numbers of a dense table never exist.

Source: Panahi, Saeedi, Arodz, "word2ket", ICLR 2020.
Letters: N order, R rank, p_n and q_n rows and columns of factor n.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import ketcore as kc

Array = np.ndarray

COLUMNS = 256
# Chosen on the validation split, as are the rates and the word dropout of all tables.
START_STD = 0.1
# Leaves are larger than the products they make, and want a higher rate than the rows of a dense table.
DENSE_RATE, KET_RATE, XS_RATE, SCALE_RATE = 0.01, 0.03, 0.1, 0.01


class Teacher(NamedTuple):
    """A trained dense table (words, 256), and how many training sentences have each word, (words,)."""

    table: Array
    counts: Array


def copied(parameters: Sequence[Array]) -> tuple[Array, ...]:
    """What a file holds of parameters that are stored as they are trained."""
    return tuple(parameter.copy() for parameter in parameters)


@dataclass(frozen=True)
class Table:
    """An embedding table.

    Attributes
    ----------
    name : str
        What the report calls it.
    order, rank : int or None
        Of the factorisation; None for a table without one.
    rates : tuple of float
        The learning rate of each parameter.
    start : callable
        (rng, teacher) -> tuple of arrays, the parameters: float32, and codes, which are not trained.
    rows : callable
        (parameters, ids) -> (len(ids), 256) float32, of parameters as they are trained or as they are stored.
    vjp : callable
        (parameters, ids, cotangent) -> tuple, the gradient of each parameter, and None of codes.
    stored : callable
        (parameters) -> tuple of what a file holds of each, in the types that it has there.
    dropout : float, default 0
        The share of words that a sentence loses while training.
    lessons : int or None, default None
        The epochs of a table that starts from a trained dense one, and takes its linear layer too; None for
        one that is trained from scratch, with a `teacher` of None.
    """

    name: str
    order: int | None
    rank: int | None
    rates: tuple[float, ...]
    start: Callable[[np.random.Generator, Teacher | None], tuple[Array, ...]]
    rows: Callable[[Sequence[Any], Array], Array]
    vjp: Callable[[Sequence[Array], Array, Array], tuple[Array | None, ...]]
    stored: Callable[[Sequence[Array]], tuple[Any, ...]] = copied
    dropout: float = 0.0
    lessons: int | None = None


def dense_table(words: int) -> Table:
    """An ordinary table: one array (words, 256)."""

    def vjp(parameters, ids, cotangent):
        gradient = np.zeros_like(parameters[0])
        np.add.at(gradient, ids, cotangent)
        return (gradient,)

    start = normal([(words, COLUMNS)], START_STD)
    return Table("dense", None, None, (DENSE_RATE,), start, lambda parameters, ids: parameters[0][ids], vjp)


def xs_table(words: int, order: int, rank: int, dropout: float = 0.0) -> Table:
    """word2ketXS: the table is one Kronecker-factorised matrix; its parameters are the N factors."""
    shape = (words, COLUMNS)
    start = normal(_factor_shapes(words, order, rank), leaf_std(order, rank))

    def rows(factors, ids):
        return kc.rows(factors, ids, shape)

    def vjp(factors, ids, cotangent):
        return kc.rows_vjp(factors, ids, cotangent, shape)

    name = f"XS {order}/{rank}"
    return Table(name, order, rank, (XS_RATE,) * order, start, rows, vjp, dropout=dropout)


def scaled_xs_table(words: int, order: int, rank: int, dropout: float = 0.0) -> Table:
    """word2ketXS with one number a row, stored in float16: its parameters are the N factors and the scale."""
    shape = (words, COLUMNS)
    start_factors = normal(_factor_shapes(words, order, rank), leaf_std(order, rank))

    def start(rng, teacher):
        return (*start_factors(rng, teacher), np.ones(words, np.float32))

    def rows(parameters, ids):
        *factors, scale = parameters
        return wide(kc.rows(factors, ids, shape, row_scale=scale))

    def vjp(parameters, ids, cotangent):
        *factors, scale = parameters
        gradients, to_scale = kc.rows_vjp(factors, ids, cotangent, shape, row_scale=scale)
        return (*gradients, to_scale)

    name, rates = f"XS {order}/{rank} scaled", (XS_RATE,) * order + (SCALE_RATE,)
    return Table(name, order, rank, rates, start, rows, vjp, halved, dropout)


def _factor_shapes(words, order, rank):
    pairs = zip(kc.suggest_dims(words, order), kc.suggest_dims(COLUMNS, order), strict=True)
    return [(rank, p, q) for p, q in pairs]


def ket_table(words: int, order: int, rank: int, dropout: float = 0.0) -> Table:
    """word2ket: every word has a ket of its own; its parameters are one packed array (words, R, sum q_n)."""
    dims = kc.suggest_dims(COLUMNS, order)
    start = normal([(words, rank, sum(dims))], leaf_std(order, rank))

    def rows(parameters, ids):
        return kc.ket_rows(parameters[0], ids, dims)

    def vjp(parameters, ids, cotangent):
        return (kc.ket_rows_vjp(parameters[0], ids, cotangent, dims),)

    return Table(f"word2ket {order}/{rank}", order, rank, (KET_RATE,), start, rows, vjp, dropout=dropout)


def leaf_std(order: int, rank: int) -> float:
    """The standard deviation of leaves whose sum of `rank` products of `order` has entries of START_STD.

    >>> round(leaf_std(2, 4), 3), round((leaf_std(2, 4) ** 2) * 4 ** 0.5, 3)
    (0.224, 0.1)
    """
    return (START_STD / rank**0.5) ** (1 / order)


def wide(array: Array) -> Array:
    """An array of 16-bit numbers as float32, any other as it is."""
    return array.astype(np.result_type(array, np.float32), copy=False)


def halved(parameters: Sequence[Array]) -> tuple[Array, ...]:
    """What a file holds of parameters that are stored in float16."""
    return tuple(parameter.astype(np.float16) for parameter in parameters)


def normal(shapes: Sequence[tuple[int, ...]], std: float) -> Callable:
    """A `start` that draws float32 arrays of these shapes from a normal distribution."""

    def start(rng, teacher):
        return tuple(np.float32(std) * rng.standard_normal(shape, dtype=np.float32) for shape in shapes)

    return start


def stored_bytes(stored: Sequence[Any]) -> int:
    """The bytes of what a file holds of a table."""
    return sum(array.nbytes for array in stored)
