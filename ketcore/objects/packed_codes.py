"""Codes of fewer than 8 bits, several a byte: those of a word are whole bytes that lie together.

    code (n, k) of a word  =  (byte[j // m] >> b (j % m)) mod 2^b,    j = n R + k,  m = 8 / b

b bits of a code, N order, R rank.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray, Index
from ketcore.arrays.checks import as_integers
from ketcore.arrays.elementary import permuted, reshaped
from ketcore.arrays.namespaces import device_of, extremes, namespace_of
from ketcore.shapes import check_int, shown

# Of these a byte holds a whole number.
WIDTHS = (1, 2, 4)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class PackedCodes:
    """Codes (N, R, words) of 1, 2 or 4 bits, in the place of the array of codes of a `CodebookTable`.

    Parameters
    ----------
    packed : array of uint8, (words, bytes)
        The codes of each word, in the bytes that ``N R`` codes take, from the lowest bits of the first byte
        on; bits behind the last one are not looked at.  A memory map stays one.
    order : int
        N, the number of codebooks of the table.
    rank : int
        R, its number of terms, >= 0.
    bits : int, default 4
        Those of a code: 1, 2 or 4.

    Attributes
    ----------
    packed : array of uint8, (words, bytes)
    order : int
    rank : int
    bits : int

    Raises
    ------
    TypeError, ValueError
        On kinds, dtypes and sizes.

    See Also
    --------
    CodebookTable : What takes them.
    fit_codebooks : Makes them, with ``packed=True``.

    Notes
    -----
    Immutable; `==` is identity.  The array is kept, not copied.  A call unpacks the codes of its words, a
    byte each.

    Examples
    --------
    >>> codes = PackedCodes.pack([[[1, 15, 3], [2, 0, 4]]])
    >>> codes.packed.tolist(), codes.shape, codes.nbytes
    ([[33], [15], [67]], (1, 2, 3), 3)
    >>> table = np.arange(32.0).reshape(2, 16, 1)
    >>> from ketcore import CodebookTable
    >>> CodebookTable([table], codes).rows([0, 2]).tolist()
    [[19.0], [23.0]]
    """

    packed: Any
    order: int
    rank: int
    bits: int

    def __init__(self, packed: Any, order: int, rank: int, bits: int = 4) -> None:
        if isinstance(packed, np.ndarray) and not isinstance(packed, np.ma.MaskedArray):
            packed = packed.view(np.ndarray)
        else:
            packed = as_integers("packed", packed)
        if packed.dtype != namespace_of(packed).uint8:
            raise TypeError(f"packed must have dtype uint8, got {packed.dtype}")
        order, rank, bits = check_int("order", order, 1), check_int("rank", rank, 0), check_width(bits)
        size = packed_bytes(order * rank, bits)
        if packed.ndim != 2 or packed.shape[1] != size or not packed.shape[0]:
            codes = f"{shown(order * rank)} codes of {bits} bits"
            rule = f"have shape (words, {shown(size)}), for {codes}, and a word"
            raise ValueError(f"packed must {rule}, got {tuple(packed.shape)}")
        object.__setattr__(self, "packed", packed)
        object.__setattr__(self, "order", order)
        object.__setattr__(self, "rank", rank)
        object.__setattr__(self, "bits", bits)

    @classmethod
    def pack(cls, codes: Index, bits: int = 4) -> "PackedCodes":
        """Codes in so many bits each.

        Parameters
        ----------
        codes : array of ints, (N, R, words)
            At least 0, and below ``2**bits``.
        bits : int, default 4
            As of the constructor.

        Returns
        -------
        PackedCodes
            Of the library and device of `codes`.

        Raises
        ------
        TypeError, ValueError, IndexError
            On kinds, shapes, and codes out of range.

        Notes
        -----
        Cost: a copy of `codes` in bytes.

        Examples
        --------
        >>> PackedCodes.pack([[[1, 0, 1]], [[0, 1, 1]]], bits=1).packed.tolist()
        [[1], [2], [3]]
        """
        bits, given = check_width(bits), as_integers("codes", codes)
        if given.ndim != 3 or 0 in (given.shape[0], given.shape[2]):
            rule = "have shape (N, R, words), with at least one codebook and one word"
            raise ValueError(f"codes must {rule}, got {tuple(given.shape)}")
        found = extremes(given) if given.shape[1] else None
        if found is not None and not 0 <= found[0] <= found[1] < 2**bits:
            got = found[0] if found[0] < 0 else found[1]
            raise IndexError(f"codes must lie in [0, {2**bits}), got {got}")
        xp, (order, rank, words) = namespace_of(given), given.shape
        lines = reshaped(xp, permuted(xp, given, (2, 0, 1)), (words, order * rank))
        return cls(packed_lines(xp.astype(lines, xp.uint8), bits), order, rank, bits)

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, R and the number of words."""
        return self.order, self.rank, self.packed.shape[0]

    @property
    def ndim(self) -> int:
        """The number 3 of axes."""
        return 3

    @property
    def nbytes(self) -> int:
        """The bytes of the packed codes."""
        return self.packed.shape[0] * self.packed.shape[1]

    def __repr__(self) -> str:
        return f"PackedCodes(shape={self.shape}, bits={self.bits})"

    def __array__(self, *args: Any, **options: Any) -> Any:
        """Nothing is unpacked silently."""
        raise TypeError("PackedCodes must be unpacked by unpack(), got an implicit conversion")

    def unpack(self) -> Any:
        """All codes, a byte each.

        Returns
        -------
        array of uint8, (N, R, words)

        Notes
        -----
        Cost: that of the result, of which the codes of a word lie together.

        Examples
        --------
        >>> PackedCodes.pack([[[1, 15, 3], [2, 0, 4]]]).unpack().tolist()
        [[[1, 15, 3], [2, 0, 4]]]
        """
        return unpacked(self.packed, self)


def unpacked(lines: Any, like: PackedCodes) -> Any:
    """The codes (N, R, ...) in lines (..., bytes) of packed ones."""
    xp, batch, bits = namespace_of(lines), tuple(lines.shape[:-1]), like.bits
    parts = [(lines >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    codes = reshaped(xp, xp.stack(parts, axis=-1), (*batch, len(parts) * lines.shape[-1]))
    codes = reshaped(xp, codes[..., : like.order * like.rank], (*batch, like.order, like.rank))
    last = len(batch)
    return permuted(xp, codes, (last, last + 1, *range(last)))


def check_width(bits: Any) -> int:
    """`bits` as one of `WIDTHS`."""
    found = check_int("bits", bits, 1)
    if found not in WIDTHS:
        raise ValueError(f"bits must be 1, 2 or 4, got {shown(found)}")
    return found


def packed_bytes(count: int, bits: int) -> int:
    """The bytes that so many codes of a word take.

    >>> packed_bytes(5, 4)
    3
    """
    return -(-count * bits // 8)


def packed_lines(lines: AnyArray, bits: int) -> AnyArray:
    """Codes (words, count) of uint8, below 2^bits, as bytes (words, packed_bytes(count, bits)).

    >>> packed_lines(np.array([[1, 2, 3]], np.uint8), 4).tolist()
    [[33, 3]]
    """
    xp, (words, count) = namespace_of(lines), lines.shape
    number = 8 // bits
    short = -count % number
    if short:
        rest = xp.zeros((words, short), dtype=lines.dtype, device=device_of(lines))
        lines = xp.concat([lines, rest], axis=1)
    found = lines[:, ::number]
    for m in range(1, number):
        found = found | (lines[:, m::number] << (bits * m))
    return found
