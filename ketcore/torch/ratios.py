"""How large a layer may be that takes at most 1/ratio of the bytes of a dense table.

    a Kronecker matrix    R itemsize sum p_n q_n + order of the words
    a table of codes      n (words b + K w itemsize) + w Q itemsize

n codes of b bytes a word, K vectors of w numbers in each codebook, Q columns; scales of rows take
`words itemsize` more.  What is chosen depends on sizes alone, and on no entry of the table: a model that is
made again has the layers that a checkpoint fits.

Letters: N order, R rank, p_n and q_n rows and columns of factor n.
"""

from collections.abc import Sequence
from math import floor, inf, log2, log10
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from ketcore.fit.codebooks import CodebookSizes, codebook_sizes
from ketcore.shapes import check_size

Method: TypeAlias = Literal["kronecker", "codebooks", "auto"]
METHODS = ("kronecker", "codebooks", "auto")
# A row adds up a vector for each of its codes, and each code takes a run of k-means to fit.
_MOST_CODES = 64
# Of the powers of two for the vectors of a codebook those below 16 are left out, where there are others.
_SMALL = 4


class Sizes(NamedTuple):
    """A table: rows, columns, bytes of a number, and whether each row is to have a scale."""

    words: int
    columns: int
    itemsize: int
    row_scale: bool = False

    @property
    def nbytes(self) -> int:
        """What the dense table takes."""
        return self.words * self.columns * self.itemsize

    @property
    def scale_bytes(self) -> int:
        """What the scales of rows take."""
        return self.words * self.itemsize * self.row_scale


def check_ratio(ratio: Any) -> float:
    """A ratio as a float of at least 1.

    >>> check_ratio(30)
    30.0
    """
    number = check_size("ratio", ratio)
    if number < 1:
        raise ValueError(f"ratio must be at least 1, got {ratio}")
    return number


def check_alone(name: str, **others: Any) -> None:
    """ValueError unless all that `name` decides is left out."""
    for other, value in others.items():
        if value is not None:
            raise ValueError(f"{other} must be None where {name} is given, got {value!r}")


def kronecker_rank(
    sizes: Sizes, ratio: float, row_dims: Sequence[int], col_dims: Sequence[int], permuted: bool
) -> int:
    """The most terms that the ratio leaves.

    >>> kronecker_rank(Sizes(30000, 300, 4), 100, (174, 174), (18, 18), permuted=False)
    14
    """
    fixed = sizes.scale_bytes + permutation_bytes(sizes.words) * permuted
    term = sizes.itemsize * sum(p * q for p, q in zip(row_dims, col_dims, strict=True))
    rank = _count(sizes, ratio, fixed, term)
    if rank < 1:
        raise _unreachable(sizes, ratio, fixed + term)
    return rank


def is_permuted(sizes: Sizes, ratio: float, row_dims: Sequence[int], col_dims: Sequence[int]) -> bool:
    """Whether a ratio leaves room for the order of the words beside a term.

    >>> [is_permuted(Sizes(30000, 300, 4), ratio, (174, 174), (18, 18)) for ratio in (100, 1000)]
    [True, False]
    """
    fixed = sizes.scale_bytes + permutation_bytes(sizes.words)
    term = sizes.itemsize * sum(p * q for p, q in zip(row_dims, col_dims, strict=True))
    return _count(sizes, ratio, fixed, term) >= 1


def permutation_bytes(words: int) -> int:
    """What the order of the words takes in a state dict.

    >>> permutation_bytes(256), permutation_bytes(50000), permutation_bytes(10**6)
    (256, 100000, 4000000)
    """
    return words * next((size for size in (1, 2, 4) if words <= 256**size), 8)


def sizes_of_codes(
    sizes: Sizes, ratio: float, codebook_size: int | None = None, width: int | None = None
) -> CodebookSizes:
    """The codebooks that lose least of those that the ratio leaves, by `_lost`; sizes that are given stay.

    >>> sizes_of_codes(Sizes(50000, 300, 4), 100)
    CodebookSizes(n_codes=8, codebook_size=128, width=32)
    """
    given = codebook_sizes((sizes.words, sizes.columns), 1, codebook_size, width)
    most = min(sizes.words, sizes.columns)
    widths = _powers(most) if width is None else (given.width,)
    counts = _vectors(given.codebook_size) if codebook_size is None else (given.codebook_size,)
    found: list[tuple[float, CodebookSizes]] = []
    least = inf
    for length in widths:
        fixed = sizes.scale_bytes + sizes.itemsize * length * sizes.columns * (length < sizes.columns)
        for count in counts:
            each = sizes.words * (1 if count <= 256 else 2) + count * length * sizes.itemsize
            least = min(least, fixed + each)
            number = min(_count(sizes, ratio, fixed, each), _MOST_CODES)
            if number >= 1:
                lost = _lost(sizes.columns, length, number * log2(count))
                found.append((lost, CodebookSizes(number, count, length)))
    if not found:
        raise _unreachable(sizes, ratio, least)
    return min(found)[1]


def _powers(most):
    """The powers of two below a number, and the number."""
    return (*(1 << n for n in range((most - 1).bit_length())), most)


def _vectors(most):
    """How many vectors a codebook may have: as many as there may be, or a power of two."""
    return _powers(most)[min(_SMALL, (most - 1).bit_length()) :]


def _count(sizes, ratio, fixed, each):
    """How many parts of so many bytes fit, beside what is there in any case."""
    return int((sizes.nbytes / ratio - fixed) // each)


def _unreachable(sizes, ratio, least):
    """The error of a ratio beyond that of the smallest layer."""
    most = sizes.nbytes / least
    # Rounded down, such that what is said can be reached.
    step = 10.0 ** (floor(log10(most)) - 3)
    shape = (sizes.words, sizes.columns)
    return ValueError(f"ratio must lie in [1, {floor(most / step) * step:.4g}] for {shape}, got {ratio}")


def _lost(columns, width, bits):
    """What so many bits a word lose of the squares of rows, of which `width` components are kept.

    The squares of component j fall as j^-0.7, and the bits are shared out among the components in the best
    way there is (reverse water-filling).  The sizes that lose least by this were the best ones, or within
    half a percent of their errors, of 5 to 24 that were tried of each of seven tables: 2,000, 10,000 and
    50,000 vectors of GloVe, and random ones of 256 columns, at ratios from 10 to 100.
    """
    squares = np.arange(1, columns + 1) ** -0.7
    kept, logs = squares[:width], np.cumsum(np.log2(squares[:width]))
    number = np.arange(1, width + 1)
    level = 2 ** ((logs - 2 * bits) / number)
    # The most components whose squares all lie above what is left of each.
    filled = np.flatnonzero(level <= kept)
    last = int(filled[-1]) if filled.size else -1
    above = level[last] * (last + 1) if filled.size else 0.0
    return float(above + squares[last + 1 :].sum())
