"""Tables of the bytes of a Kronecker table in float16: what else so few of them can hold.

Sources: hash embeddings, Svenstrup, Hansen, Winther, NeurIPS 2017; tables of codes, see `fit_codebooks`.
"""

from typing import Any

import numpy as np

import ketcore as kc
from ketcore.demo.tables import COLUMNS, START_STD, Array, Table, halved, normal, wide

# Of the tables below: sizes and rates, chosen on the validation split.
NARROW_WIDTH, NARROW_RATES = 16, (1.0, 0.01)
HASHES, HASH_RATES = 4, (0.03, 0.1)
CODES, CODEBOOK_SIZE, CODE_WIDTH, CODE_RATES = 12, 16, 32, (0.01, 0.01, 0.0)


def narrow_table(words: int, dropout: float = 0.0) -> Table:
    """A dense table of few columns with 4 bits a number and one scale a row, times a matrix in float16.

    While it is trained rows are rounded as they will be stored, and gradients pass the rounding as they are.
    """

    def start(rng, teacher):
        values = normal([(words, NARROW_WIDTH)], 1.0)(rng, teacher)
        return values + normal([(NARROW_WIDTH, COLUMNS)], START_STD / NARROW_WIDTH**0.5)(rng, teacher)

    def rows(parameters, ids):
        values, matrix = parameters
        return _narrow_rows(values, ids) @ wide(matrix)

    def vjp(parameters, ids, cotangent):
        values, matrix = parameters
        gradient = np.zeros_like(values)
        np.add.at(gradient, ids, cotangent @ matrix.T)
        return gradient, _narrow_rows(values, ids).T @ cotangent

    def stored(parameters):
        values, matrix = parameters
        return kc.quantize(values, 4, NARROW_WIDTH), matrix.astype(np.float16)

    return Table("narrow int4", None, None, NARROW_RATES, start, rows, vjp, stored, dropout)


def _narrow_rows(values: Any, ids: Array) -> Array:
    """Rows of 4 bits a number, decoded."""
    if isinstance(values, kc.QuantizedArray):
        return values.dequantize()[ids]
    return kc.quantize(values[ids], 4, NARROW_WIDTH).dequantize()


def hash_table(words: int, buckets: int, dropout: float = 0.0) -> Table:
    """A hash embedding: a word is a sum of shared rows that hashes pick, by weights of its own.

    The rows are stored in float16, the weights in 8 bits.
    """
    # A fixed seed: which words share a row belongs to the table, as the digits of an id do.
    picked = np.random.default_rng(0).integers(buckets, size=(words, HASHES))

    def start(rng, teacher):
        (shared,) = normal([(buckets, COLUMNS)], START_STD)(rng, teacher)
        signs = rng.choice([-1.0, 1.0], (words, HASHES))
        return shared, (signs / HASHES**0.5).astype(np.float32)

    def rows(parameters, ids):
        shared, weights = parameters
        if isinstance(weights, kc.QuantizedArray):
            weights = weights.dequantize().reshape(words, HASHES)
        return np.einsum("ih,ihq->iq", weights[ids], wide(shared)[picked[ids]])

    def vjp(parameters, ids, cotangent):
        shared, weights = parameters
        to_shared, to_weights = np.zeros_like(shared), np.zeros_like(weights)
        np.add.at(to_shared, picked[ids], weights[ids][:, :, None] * cotangent[:, None, :])
        np.add.at(to_weights, ids, np.einsum("ihq,iq->ih", shared[picked[ids]], cotangent))
        return to_shared, to_weights

    def stored(parameters):
        shared, weights = parameters
        # Blocks of many words: four weights with a scale of their own would take half as much again.
        return shared.astype(np.float16), kc.quantize(weights.reshape(-1), 8, 512)

    return Table("hash embedding", None, None, HASH_RATES, start, rows, vjp, stored, dropout)


def code_table(lessons: int, dropout: float = 0.0) -> Table:
    """Codes fitted to the trained dense table; codebooks and decoder, in float16, may be trained on."""

    def start(rng, teacher):
        # A word that the training split lacks counts as half a word.
        weights = np.sqrt(np.maximum(teacher.counts, 0.5))
        options = {"weights": weights, "packed": True, "rng": rng}
        fit = kc.fit_codebooks(teacher.table, CODES, CODEBOOK_SIZE, CODE_WIDTH, **options)
        (codebooks,) = fit.value.codebooks
        return codebooks, fit.value.decoder, fit.value.codes

    def rows(parameters, ids):
        codebooks, decoder, codes = parameters
        return wide(kc.codebook_rows([codebooks], None, decoder, _picked(codes, ids)))

    def vjp(parameters, ids, cotangent):
        codebooks, decoder, codes = parameters
        arguments = [codebooks], None, decoder, _picked(codes, ids), cotangent
        (gradient,), _, to_decoder = kc.codebook_rows_vjp(*arguments)
        return gradient, to_decoder, None

    def stored(parameters):
        codebooks, decoder, codes = parameters
        return *halved((codebooks, decoder)), codes

    name = "codes tuned" if lessons else "codes"
    return Table(name, None, None, CODE_RATES, start, rows, vjp, stored, dropout, lessons)


def _picked(codes: kc.PackedCodes, ids: Array) -> Array:
    """The codes (1, R, len(ids)) of some words."""
    return kc.PackedCodes(codes.packed[ids], codes.order, codes.rank, codes.bits).unpack()
