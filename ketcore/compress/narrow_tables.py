"""Tables of few bits a number, and of few columns: what is stored of a row x is Q(x B), of which D makes x.

    B = V_r R / u,  D = u R^T V_r^T

V_r the r leading components, R a rotation that gives all r columns one variance, so that one scale a row
serves them; u their unit; Q rounds to 8, 4 or 2 bits.  Where all columns fit there is neither B nor D.
Without rounding it is a table of low rank.

The rotation is that of a QR decomposition of random numbers.
"""

from typing import Any

import numpy as np

from ketcore.arrays.quantized import QuantizedArray
from ketcore.compress.frames import Frame
from ketcore.objects.codebook_table import CodebookTable
from ketcore.objects.quantization import quantize

# Blocks of numbers with one scale that are tried where all columns are stored, the smallest first.
_BLOCKS = (32, 64, 128)


def narrow_width(frame: Frame, bits: int, budget: float) -> tuple[int, int]:
    """How many columns fit, and the numbers that share a scale; 0 columns where none do."""
    words, columns = frame.shape
    for block in (*(size for size in _BLOCKS if size < columns), columns):
        if narrow_bytes(frame, bits, columns, block) <= budget:
            return columns, block
    most = min(columns - 1, words)
    width = next((r for r in range(most, 0, -1) if narrow_bytes(frame, bits, r, r) <= budget), 0)
    return width, max(width, 1)


def narrow_bytes(frame: Frame, bits: int, width: int, block: int) -> int:
    """What a table of so many columns takes, with a decoder unless these are all."""
    words, columns = frame.shape
    scales = 2 * -(-width // block) if bits < 16 else 0
    decoder = width * columns * frame.half.itemsize if width < columns else 0
    return words * (-(-width * bits // 8) + scales) + decoder


def narrow_table(frame: Frame, bits: int, width: int, block: int, rng: np.random.Generator) -> Any:
    """A table of so many columns of 8, 4 or 2 bits."""
    words, columns = frame.shape
    unit, decoder = frame.unit, None
    if width < columns:
        turned = np.linalg.qr(rng.standard_normal((width, width)))[0]
        basis = frame.vectors[:, :width] @ turned
        # A row of the table may have any length: its own scale is in float16, as that of others is.
        unit *= np.sqrt(frame.energy[:width].sum() * columns / width) or 1.0
        decoder = (basis.T * unit).astype(frame.half)
        basis = (basis / unit).astype(np.float32)
    values = np.empty((1, words, -(-width * bits // 8)), np.int8 if bits == 8 else np.uint8)
    wanted = np.dtype(np.float16) if decoder is not None else frame.half
    scales = np.empty((1, words, -(-width // block)), wanted)
    for here, rows in frame.blocks():
        found = quantize(rows if decoder is None else rows @ basis, bits, block)
        values[0, here] = found.values
        with np.errstate(over="ignore"):
            scales[0, here] = np.minimum(found.scales, np.finfo(wanted).max)
    stored = QuantizedArray(values, scales, (1, words, width), bits, block)
    return CodebookTable((stored,), None, None, decoder)


def low_rank_table(frame: Frame, width: int) -> Any:
    """The leading components of rows, in float16."""
    words, _ = frame.shape
    basis = frame.vectors[:, :width].astype(np.float32)
    values = np.empty((1, words, width), frame.half)
    for here, rows in frame.blocks():
        values[0, here] = rows @ basis
    return CodebookTable((values,), None, None, basis.T.astype(frame.half))
