"""Some lines of a QuantizedArray, decoded alone: only their bytes and scales are read.

    x (a, b, c) is a b lines of c numbers; line f of them begins at the number f c

Numbers lie as `quantized` says, in lines of its own: such a line holds some of these, one after the other.
"""

from math import prod

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import as_dtype, flattened, reshaped
from ketcore.arrays.namespaces import device_of, namespace_of
from ketcore.arrays.quantized import QuantizedArray
from ketcore.tracing import is_symbol

# Lines are picked where there are more than so many times as many as picks, which may repeat one: a number
# that is picked costs more than one that is decoded beside its neighbours.
_TIMES = 4
# And where to decode all would take longer than the calls that pick: of so many numbers.
_NUMBERS = 1 << 13


def are_few(array: object, picks: int, lines: int) -> bool:
    """Whether so many picks of an array of so many lines, each of a part of it, are to be decoded alone.

    Not where their number is a symbol, in a graph for all numbers.
    """
    if not isinstance(array, QuantizedArray) or array.size < _NUMBERS or is_symbol(picks):
        return False
    return 0 < _TIMES * picks < lines


def rows_of_terms(table: QuantizedArray[AnyArray], index: AnyArray) -> AnyArray:
    """(R, b, q) of a table (R, t, q): the rows of every term by a valid index (b,), or (R, b)."""
    xp, (rank, length, width) = namespace_of(table.values), table.shape
    terms = xp.arange(rank, dtype=index.dtype, device=device_of(index))
    return lines_at(table, terms[:, None] * length + index, width)


def records_of(packed: QuantizedArray[AnyArray], ids: AnyArray) -> AnyArray:
    """(b, R, S) of packed kets (t, R, S): the records of valid ids (b,)."""
    _, rank, width = packed.shape
    xp = namespace_of(packed.values)
    if packed.values.ndim < 3:
        return reshaped(xp, lines_at(packed, ids, rank * width), (*ids.shape, rank, width))
    terms = xp.arange(rank, dtype=ids.dtype, device=device_of(ids))
    return lines_at(packed, ids[:, None] * rank + terms, width)


def lines_at(array: QuantizedArray[AnyArray], index: AnyArray, width: int) -> AnyArray:
    """Lines (..., width) of an array that is cut into lines of `width` numbers, by a valid index (...).

    The lines in which it is stored hold a whole number of these.
    """
    xp, bits = namespace_of(array.values), array.bits
    length = prod(array.shape[array.values.ndim - 1 :])
    block, number, each = max(1, min(array.block, length)), 8 // bits, length // max(1, width)
    values, scales = (reshaped(xp, part, (-1, part.shape[-1])) for part in (array.values, array.scales))
    shape = (*index.shape, width)
    if each == 1:
        parts = _taken(xp, values, index), _taken(xp, scales, index)
    elif not width % number and not width % block:
        cut = (reshaped(xp, part, (-1, part.shape[-1] // each)) for part in (values, scales))
        parts = tuple([_taken(xp, part, index) for part in cut])
    elif not width % number and not block % width:
        place = index // each * scales.shape[1] + index % each * width // block
        parts = (
            _taken(xp, reshaped(xp, values, (-1, width // number)), index),
            _taken(xp, reshaped(xp, scales, (-1, 1)), place),
        )
        block = width
    else:
        # Lines that begin within a byte or a block: number by number, each with its own byte and scale.
        steps = xp.arange(width, dtype=index.dtype, device=device_of(index))
        line, place = (index // each)[..., None], (index % each)[..., None] * width + steps
        byte = line * values.shape[1] + place // number
        found = _taken(xp, reshaped(xp, values, (-1, 1)), byte)
        if bits < 8:
            # Of each byte the bits of this number, in the lowest place: what is left over counts for nothing.
            found = found >> as_dtype(xp, place % number * bits, found.dtype)[..., None]
        where = line * scales.shape[1] + place // block
        parts, block = (found, _taken(xp, reshaped(xp, scales, (-1, 1)), where)), 1
        return reshaped(xp, QuantizedArray(*parts, (*shape, 1), bits, block).dequantize(), shape)
    return QuantizedArray(*parts, shape, bits, block).dequantize()


def _taken(xp, lines, index):
    """Lines (..., n) of (m, n) by an index (...); of what is mapped only these are read."""
    found = xp.take(lines, flattened(xp, index), axis=0)
    return reshaped(xp, found, (*index.shape, lines.shape[1]))
