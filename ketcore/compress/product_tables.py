"""Product quantisation: each row is cut into m pieces, and of each piece the nearest of K vectors is stored.

    row i = e_1 (x) C[1, i_1] + e_2 (x) C[2, i_2] + ... + e_m (x) C[m, i_m]

e_k the unit vectors, which put a piece at its place and take no codes; C[k] the K vectors of piece k.  Where
m does not divide the columns, some pieces end in a zero, which a decoder of ones and zeros takes off.  Its
numbers are of 4 bits with one scale, 1, and so exact.

H. Jegou, M. Douze and C. Schmid, Product quantization for nearest neighbor search, IEEE TPAMI 33 (2011).
"""

from itertools import pairwise
from math import log2
from typing import Any, NamedTuple

import numpy as np

from ketcore.arrays.quantized import QuantizedArray
from ketcore.arrays.threads import run_chunks
from ketcore.compress.frames import Frame
from ketcore.fit.kmeans import cluster, nearest, piece_rows, prepared
from ketcore.objects.codebook_table import CodebookTable
from ketcore.objects.packed_codes import PackedCodes, packed_bytes, packed_lines

# Vectors of a codebook, and the bits of a code.
_ENTRIES = {256: 8, 16: 4, 4: 2}
_SWEEPS = 12


class ProductSizes(NamedTuple):
    """How many pieces there are, of how many vectors."""

    pieces: int
    entries: int


def product_bytes(frame: Frame, sizes: ProductSizes) -> int:
    """What such a table takes."""
    (words, columns), size = frame.shape, frame.half.itemsize
    pieces, entries = sizes
    width = -(-columns // pieces)
    decoder = -(-pieces * width * columns // 2) + 2 if pieces * width > columns else 0
    numbers = pieces * entries * width + pieces * pieces
    return words * packed_bytes(pieces, _ENTRIES[entries]) + size * numbers + decoder


def product_sizes(frame: Frame, budget: float) -> ProductSizes | None:
    """The most bits of codes a word that fit, large codebooks preferred; None where none do.

    Of as many bits 256 vectors lose less than 16.
    """
    words, columns = frame.shape
    found = [
        (pieces * log2(entries) * (10 + log2(entries)), ProductSizes(pieces, entries))
        for entries in _ENTRIES
        for pieces in range(1, columns + 1)
        if entries <= words and product_bytes(frame, ProductSizes(pieces, entries)) <= budget
    ]
    return max(found)[1] if found else None


def product_table(frame: Frame, sizes: ProductSizes, rng: np.random.Generator) -> Any:
    """The table of these sizes whose codebooks are fitted to the sample."""
    (words, columns), (pieces, entries) = frame.shape, sizes
    bits, width, unit = _ENTRIES[entries], -(-columns // pieces), np.float32(frame.unit)
    cuts = np.arange(pieces + 1) * columns // pieces
    parts = [slice(start, stop) for start, stop in pairwise(cuts)]
    rows, weights = frame.sample.rows / unit, frame.sample.weights
    books = np.zeros((pieces, entries, width), frame.half)
    for book, part in zip(books, parts, strict=True):
        piece = np.ascontiguousarray(rows[:, part])
        found = cluster(piece, weights, min(entries, len(rows)), rng, _SWEEPS).centres
        book[: len(found), : found.shape[1]] = found * unit
        frame.tick(0)
    # Where the sample has fewer rows than there are vectors, those beyond are zeros, which may be taken too.
    centres = [
        prepared(np.ascontiguousarray(book[:, : part.stop - part.start], np.float32))
        for book, part in zip(books, parts, strict=True)
    ]
    lines = np.empty((words, packed_bytes(pieces, bits)), np.uint8)
    step = piece_rows(entries)
    for here, block in frame.blocks():
        codes = np.empty((len(block), pieces), np.uint8)

        def work(first, last, block=block, codes=codes):
            for start in range(first * step, min(last * step, len(block)), step):
                some = slice(start, start + step)
                for k, (each, part) in enumerate(zip(centres, parts, strict=True)):
                    codes[some, k] = nearest(block[some, part], each)[0]

        run_chunks(work, -(-len(block) // step), 1, limit_blas=True)
        lines[here] = codes if bits == 8 else packed_lines(codes, bits)
    places = np.eye(pieces, dtype=frame.half)[:, None, :]
    stored: Any = lines.T[None] if bits == 8 else PackedCodes(lines, 1, pieces, bits)
    return CodebookTable((places, books), stored, None, _decoder(cuts, width))


def _decoder(cuts, width):
    """What takes the zeros of short pieces off: (pieces width, columns); None where all have one length."""
    pieces, columns = len(cuts) - 1, cuts[-1]
    if pieces * width == columns:
        return None
    found = np.zeros((pieces * width, columns), np.uint8)
    owners = np.repeat(np.arange(pieces), np.diff(cuts))
    found[owners * width + np.arange(columns) - cuts[owners], np.arange(columns)] = 1
    # Two numbers a byte, each as itself and 8; one more may be left over.
    pairs = np.append(found, np.zeros(found.size % 2, np.uint8)).reshape(-1, 2) + np.uint8(8)
    return QuantizedArray(pairs[:, 0] | pairs[:, 1] << 4, np.ones(1, np.float16), found.shape, 4, found.size)
