"""Embedding tables of 256 columns that take at most so many bytes, those of the demo and more.

Each is the largest of its kind that fits.  Those that start from the dense table of the same seed say so.

Sources: word2ket, Panahi, Saeedi, Arodz, ICLR 2020; TT-Rec, Yin et al., MLSys 2021, by tensorly-torch; hash
embeddings, Svenstrup, Hansen, Winther, NeurIPS 2017; codes, see `ketcore.fit_codebooks`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

import ketcore as kc
from ketcore.demo.tables import (
    COLUMNS,
    KET_RATE,
    SCALE_RATE,
    START_STD,
    XS_RATE,
    Table,
    Teacher,
    halved,
    leaf_std,
    normal,
    wide,
)

Array = np.ndarray

# Bytes of a number that is stored in 16 bits, and of the scale of a row.
HALF = 2
NARROW_RATES, LEARNED_RATES, LOW_RANK_RATES, CODE_RATES = (
    (1.0, 0.01),
    (0.03, 0.003),
    (0.03, 0.03),
    (0.01, 0.01),
)
HASHES = 4
# The lessons of a table that starts from the dense one, and is trained as long as the others.
EVERY_EPOCH = 1 << 20
# The widths and sizes of codebooks that are tried, the largest number of codes for each; what its fit leaves
# decides.
CODE_WIDTHS, CODEBOOK_SIZES = (16, 32, 64), (16, 256)


def contestants(words: int, nbytes: int, counts: Array, teacher: Array) -> Iterator[Table]:
    """All tables of at most `nbytes`, of words that the training split has `counts` times.

    Parameters
    ----------
    words, nbytes : int
        Rows, and the bytes that a file may hold.
    counts : array, (words,)
        For orders and weights.
    teacher : array, (words, 256)
        The trained dense table of this seed; "learned" is what starts from it.
    """
    row_dims = kc.suggest_dims(words, 2), kc.suggest_dims(COLUMNS, 2)
    orders = {
        "": None,
        ", by frequency": np.argsort(np.argsort(-counts, kind="stable"), kind="stable"),
        ", permuted": kc.vocabulary_permutation(teacher, row_dims[0], weights=np.maximum(counts, 0.5)),
    }
    for bits in (4, 2):
        yield from narrow_tables(words, nbytes, bits)
    yield from low_rank_tables(words, nbytes)
    yield from hash_tables(words, nbytes)
    yield from tt_tables(words, nbytes)
    for name, order in orders.items():
        for scaled in (False, True):
            yield from xs_tables(words, nbytes, scaled, name, order)
    yield from xs_tables(words, nbytes, False, ", permuted, learned", orders[", permuted"], teacher)
    yield from ket_tables(words, nbytes)
    yield from code_tables(words, nbytes, counts)


def narrow_tables(words: int, nbytes: int, bits: int) -> Iterator[Table]:
    """Rows of few numbers of 4 or 2 bits and a scale, times a matrix; from scratch, and learned."""
    # A row takes `width * bits / 8` bytes and its scale, the matrix 2 COLUMNS for each of the numbers.
    width = _most(lambda width: words * (-(-width * bits // 8) + HALF) + HALF * COLUMNS * width, nbytes)
    if not width:
        return

    def rounded(values):
        return kc.quantize(values, bits, width).dequantize()

    def rows(parameters, ids):
        values, matrix = parameters
        if isinstance(values, kc.QuantizedArray):
            return values.dequantize()[ids] @ wide(matrix)
        return rounded(values[ids]) @ wide(matrix)

    def vjp(parameters, ids, cotangent):
        values, matrix = parameters
        gradient = np.zeros_like(values)
        gradient[ids] = cotangent @ matrix.T
        return gradient, rounded(values[ids]).T @ cotangent

    def stored(parameters):
        values, matrix = parameters
        return kc.quantize(values, bits, width), matrix.astype(np.float16)

    def start(rng, teacher):
        if teacher is not None:
            return components(teacher, width)
        values = normal([(words, width)], 1.0)(rng, None)
        return *values, *normal([(width, COLUMNS)], START_STD / width**0.5)(rng, None)

    table = Table(f"narrow int{bits}", None, None, NARROW_RATES, start, rows, vjp, stored)
    yield table
    yield replace(table, name=f"narrow int{bits}, learned", rates=LEARNED_RATES, lessons=EVERY_EPOCH)


def components(teacher: Teacher, width: int) -> tuple[Array, Array]:
    """The factors (words, w) and (w, 256) of the nearest matrix of this rank, words by their counts."""
    weights = np.sqrt(np.maximum(teacher.counts, 0.5))[:, None].astype(np.float32)
    _, vectors = np.linalg.eigh((teacher.table * weights).T @ (teacher.table * weights))
    matrix = np.ascontiguousarray(vectors[:, ::-1][:, :width].T, np.float32)
    return teacher.table @ matrix.T, matrix


def low_rank_tables(words: int, nbytes: int) -> Iterator[Table]:
    """Two matrices in float16; from scratch, and learned."""
    rank = _most(lambda rank: HALF * rank * (words + COLUMNS), nbytes)
    if not rank:
        return

    def rows(parameters, ids):
        left, right = parameters
        return wide(left[ids]) @ wide(right)

    def vjp(parameters, ids, cotangent):
        left, right = parameters
        gradient = np.zeros_like(left)
        gradient[ids] = cotangent @ right.T
        return gradient, left[ids].T @ cotangent

    def start(rng, teacher):
        if teacher is not None:
            return components(teacher, rank)
        std = (START_STD / rank**0.5) ** 0.5
        return normal([(words, rank), (rank, COLUMNS)], std)(rng, None)

    table = Table("low rank", None, rank, LOW_RANK_RATES, start, rows, vjp, halved)
    yield table
    yield replace(table, name="low rank, learned", lessons=EVERY_EPOCH)


def hash_tables(words: int, nbytes: int) -> Iterator[Table]:
    """A hash embedding whose shared rows take what the weights of words, in 8 bits, leave."""
    from ketcore.demo.equal_bytes import hash_table

    # Blocks of 512 weights have one scale.
    buckets = (nbytes - words * HASHES - HALF * -(-words * HASHES // 512)) // (HALF * COLUMNS)
    if buckets > 1:
        yield hash_table(words, buckets)


def tt_tables(words: int, nbytes: int) -> Iterator[Table]:
    """Tensor trains of three cores, by tensorly-torch, in float16."""
    import torch
    from tltorch import FactorizedEmbedding

    # The number of words may have no three factors: there are as many rows as the next one that has.
    row_dims, col_dims = kc.suggest_dims(words, 3), kc.suggest_dims(COLUMNS, 3)

    def made(rank):
        options = {"auto_tensorize": False, "factorization": "blocktt", "rank": rank}
        options |= {"tensorized_num_embeddings": row_dims, "tensorized_embedding_dim": col_dims}
        return FactorizedEmbedding(prod(row_dims), COLUMNS, **options)

    def count(rank):
        return sum(each.numel() for each in made(rank).parameters())

    rank = _most(lambda rank: HALF * count(rank), nbytes, 256)
    if not rank:
        return
    module = made(rank)
    names = [name for name, _ in module.named_parameters()]

    def looked_up(tensors, ids):
        return torch.func.functional_call(
            module, dict(zip(names, tensors, strict=True)), (torch.from_numpy(ids),)
        )

    def rows(parameters, ids):
        with torch.no_grad():
            return looked_up([torch.from_numpy(wide(each)) for each in parameters], ids).numpy()

    def vjp(parameters, ids, cotangent):
        tensors = [torch.from_numpy(each).requires_grad_() for each in parameters]
        found = torch.autograd.grad(looked_up(tensors, ids), tensors, torch.from_numpy(cotangent))
        return tuple(each.numpy() for each in found)

    # A row is a sum of rank^2 products of three.
    shapes = [tuple(each.shape) for each in module.parameters()]
    start = normal(shapes, (START_STD / rank) ** (1 / 3))
    yield Table("tensor train", 3, rank, (XS_RATE,) * 3, start, rows, vjp, halved)


def xs_tables(
    words: int,
    nbytes: int,
    scaled: bool,
    name: str,
    order: Array | None,
    teacher: Array | None = None,
) -> Iterator[Table]:
    """word2ketXS of two modes in float16, with one number a row or without, of words in an order."""
    shape, pair = (
        (words, COLUMNS),
        list(zip(kc.suggest_dims(words, 2), kc.suggest_dims(COLUMNS, 2), strict=True)),
    )
    rank = (nbytes - HALF * words * scaled) // (HALF * sum(p * q for p, q in pair))
    if rank < 1:
        return
    # Where a word stands, and the word that stands there.
    place = np.arange(words) if order is None else order
    word = np.argsort(place)

    def split(parameters):
        return (parameters[:2], parameters[2]) if scaled else (parameters, None)

    def start(rng, given):
        if given is not None:
            fit = kc.nearest_kronecker(given.table[word], *zip(*pair, strict=True), rank=rank)
            return tuple(factor.astype(np.float32) for factor in fit.value.factors)
        factors = normal([(rank, p, q) for p, q in pair], leaf_std(2, rank))(rng, None)
        return (*factors, np.ones(words, np.float32)) if scaled else factors

    def rows(parameters, ids):
        factors, scale = split(parameters)
        return wide(kc.rows(factors, place[ids], shape, row_scale=scale))

    def vjp(parameters, ids, cotangent):
        factors, scale = split(parameters)
        if scale is None:
            return kc.rows_vjp(factors, place[ids], cotangent, shape)
        gradients, to_scale = kc.rows_vjp(factors, place[ids], cotangent, shape, row_scale=scale)
        return (*gradients, to_scale)

    rates = (XS_RATE,) * 2 + (SCALE_RATE,) * scaled
    found = Table(f"XS 2/{rank}{' scaled' * scaled}{name}", 2, rank, rates, start, rows, vjp, halved)
    yield found if teacher is None else replace(found, lessons=EVERY_EPOCH)


def ket_tables(words: int, nbytes: int) -> Iterator[Table]:
    """word2ket of as few modes as fit, and of as many terms, in float16."""
    for order in (2, 4, 8):
        dims = kc.suggest_dims(COLUMNS, order)
        rank = nbytes // (HALF * words * sum(dims))
        if rank:
            yield _ket_table(words, dims, rank)
            return


def _ket_table(words, dims, rank):
    def rows(parameters, ids):
        return wide(kc.ket_rows(parameters[0], ids, dims))

    def vjp(parameters, ids, cotangent):
        return (kc.ket_rows_vjp(parameters[0], ids, cotangent, dims),)

    order = len(dims)
    start = normal([(words, rank, sum(dims))], leaf_std(order, rank))
    return Table(f"word2ket {order}/{rank}", order, rank, (KET_RATE,), start, rows, vjp, halved)


def code_tables(words: int, nbytes: int, counts: Array) -> Iterator[Table]:
    """Codes of the dense table, as they are, and with codebooks and decoder trained on."""

    def sizes():
        for size in CODEBOOK_SIZES:
            bits = size.bit_length() - 1
            for width in CODE_WIDTHS:
                number = _most(
                    lambda number, bits=bits, size=size, width=width: (
                        -(-number * bits // 8) * words + HALF * (number * size * width + width * COLUMNS)
                    ),
                    nbytes,
                )
                if number and size < words:
                    yield number, size, width

    def start(rng, teacher):
        weights = np.sqrt(np.maximum(counts, 0.5))
        fits = [
            kc.fit_codebooks(teacher.table, *given, weights=weights, packed=given[1] < 256, rng=0)
            for given in sizes()
        ]
        value = min(fits, key=lambda fit: fit.error).value
        (codebooks,) = value.codebooks
        return codebooks, value.decoder, value.codes

    def picked(codes, ids):
        if isinstance(codes, kc.PackedCodes):
            return kc.PackedCodes(codes.packed[ids], codes.order, codes.rank, codes.bits).unpack()
        return codes[..., ids]

    def rows(parameters, ids):
        codebooks, decoder, codes = parameters
        return wide(kc.codebook_rows([codebooks], None, decoder, picked(codes, ids)))

    def vjp(parameters, ids, cotangent):
        codebooks, decoder, codes = parameters
        (gradient,), _, to_decoder = kc.codebook_rows_vjp(
            [codebooks], None, decoder, picked(codes, ids), cotangent
        )
        return gradient, to_decoder, None

    def stored(parameters):
        codebooks, decoder, codes = parameters
        return *halved((codebooks, decoder)), codes

    if any(sizes()):
        table = Table("codes", None, None, (*CODE_RATES, 0.0), start, rows, vjp, stored, lessons=0)
        yield table
        yield replace(table, name="codes, learned", lessons=EVERY_EPOCH)


def _most(size: Callable[[int], Any], nbytes: int, most: int = COLUMNS) -> int:
    """The largest number from 0 to `most` whose size, which ascends, is at most `nbytes`."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(middle) <= nbytes else (low, middle - 1)
    return low
