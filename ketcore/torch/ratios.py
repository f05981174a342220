"""How large a layer may be that takes at most 1/ratio of the bytes of a dense table.

    a Kronecker matrix    R itemsize sum p_n q_n + order of the words
    a table of codes      n (words b + K w itemsize) + w Q itemsize

n codes of b bytes a word, K vectors of w numbers in each codebook, Q columns; scales of rows take
`words itemsize` more.  What is chosen depends on sizes alone, and on no entry of the table: a model that is
made again has the layers that a checkpoint fits.

Letters: N order, R rank, p_n and q_n rows and columns of factor n.
"""

from collections.abc import Sequence
from itertools import product
from math import floor, log2, log10
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from torch import Tensor

from ketcore.divisors import suggest_dims
from ketcore.fit.codebooks import CodebookSizes, codebook_sizes
from ketcore.shapes import check_size

Method: TypeAlias = Literal["kronecker", "codebooks", "auto"]
METHODS = ("kronecker", "codebooks", "auto")
# A row adds up a vector for each of its codes, and each code takes a run of k-means to fit.
_MOST_CODES = 64
# Of the powers of two for the vectors of a codebook those below 16 are left out, where there are others.
_SMALL = 4


class TableSizes(NamedTuple):
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


def table_sizes(table: Tensor, row_scale: bool = False) -> TableSizes:
    """Those of a table that is there.

    >>> table_sizes(Tensor([[1.0, 2.0], [3.0, 4.0]]))
    TableSizes(words=2, columns=2, itemsize=4, row_scale=False)
    """
    rows, columns = table.shape
    return TableSizes(rows, columns, table.element_size(), row_scale)


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


def kronecker_dims(words: int, columns: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The dims of rows and of columns of a matrix of order 2.

    >>> kronecker_dims(30000, 300)
    ((150, 200), (15, 20))
    """
    return suggest_dims(words, 2), suggest_dims(columns, 2)


def kronecker_rank(
    sizes: TableSizes, ratio: float, row_dims: Sequence[int], col_dims: Sequence[int], permuted: bool
) -> int:
    """The most terms that the ratio leaves.

    >>> kronecker_rank(TableSizes(30000, 300, 4), 100, (150, 200), (15, 20), permuted=False)
    14
    """
    fixed = sizes.scale_bytes + permutation_bytes(sizes.words) * permuted
    term = _term_bytes(sizes, row_dims, col_dims)
    rank = _count(sizes, ratio, fixed, term)
    if rank < 1:
        raise unreachable(sizes, ratio, sizes.nbytes / (fixed + term))
    return rank


def is_permuted(sizes: TableSizes, ratio: float) -> bool:
    """Whether a ratio leaves room for the order of the words beside a term of `kronecker_dims`.

    >>> [is_permuted(TableSizes(30000, 300, 4), ratio) for ratio in (100, 1000)]
    [True, False]
    """
    term = _term_bytes(sizes, *kronecker_dims(sizes.words, sizes.columns))
    return _count(sizes, ratio, sizes.scale_bytes + permutation_bytes(sizes.words), term) >= 1


def greatest_ratio(sizes: TableSizes, method: str) -> float:
    """That of one term of `kronecker_dims`, or of the smallest codebooks.

    >>> round(greatest_ratio(TableSizes(30000, 300, 4), "kronecker"))
    1440
    """
    if method == "kronecker":
        term = _term_bytes(sizes, *kronecker_dims(sizes.words, sizes.columns))
        return sizes.nbytes / (sizes.scale_bytes + term)
    return sizes.nbytes / min(fixed + each for fixed, each, _ in _codebooks(sizes, None, None))


def permutation_bytes(words: int) -> int:
    """What the order of the words takes in a state dict.

    >>> permutation_bytes(256), permutation_bytes(50000), permutation_bytes(10**6)
    (256, 100000, 4000000)
    """
    return words * next((size for size in (1, 2, 4) if words <= 256**size), 8)


def sizes_of_codes(
    sizes: TableSizes, ratio: float, codebook_size: int | None = None, width: int | None = None
) -> CodebookSizes:
    """The codebooks that lose least of those that the ratio leaves, by `_lost`; sizes that are given stay.

    >>> sizes_of_codes(TableSizes(50000, 300, 4), 100)
    CodebookSizes(n_codes=8, codebook_size=128, width=32)
    """
    choices = [*_codebooks(sizes, codebook_size, width)]
    found: list[tuple[float, CodebookSizes]] = []
    for fixed, each, one in choices:
        number = min(_count(sizes, ratio, fixed, each), _MOST_CODES)
        if number >= 1:
            lost = _lost(sizes.columns, one.width, number * log2(one.codebook_size))
            found.append((lost, one._replace(n_codes=number)))
    if not found:
        raise unreachable(sizes, ratio, sizes.nbytes / min(fixed + each for fixed, each, _ in choices))
    return min(found)[1]


def unreachable(sizes: TableSizes, ratio: float, greatest: float) -> ValueError:
    """The error of a ratio beyond the greatest one.

    >>> str(unreachable(TableSizes(4, 2, 4), 8.0, 16 / 3))
    'ratio must lie in [1, 5.333] for a table (4, 2), got 8.0'
    """
    # Rounded down, such that what is said can be reached.
    step = 10.0 ** (floor(log10(greatest)) - 3)
    most = f"{floor(greatest / step) * step:.4g}"
    return ValueError(
        f"ratio must lie in [1, {most}] for a table {(sizes.words, sizes.columns)}, got {ratio}"
    )


def _term_bytes(sizes, row_dims, col_dims):
    return sizes.itemsize * sum(p * q for p, q in zip(row_dims, col_dims, strict=True))


def _codebooks(sizes, codebook_size, width):
    """Bytes of what is there in any case, and of a codebook and its codes, for all that may be chosen."""
    given = codebook_sizes((sizes.words, sizes.columns), 1, codebook_size, width)
    widths = _powers(min(sizes.words, sizes.columns)) if width is None else (given.width,)
    counts = _vectors(given.codebook_size) if codebook_size is None else (given.codebook_size,)
    for length, count in product(widths, counts):
        decoder = length * sizes.columns * (length < sizes.columns)
        code = 1 if count <= 256 else 2
        each = sizes.words * code + count * length * sizes.itemsize
        yield sizes.scale_bytes + sizes.itemsize * decoder, each, CodebookSizes(1, count, length)


def _powers(most):
    """The powers of two below a number, and the number."""
    return (*(1 << n for n in range((most - 1).bit_length())), most)


def _vectors(most):
    """How many vectors a codebook may have: as many as there may be, or a power of two."""
    return _powers(most)[min(_SMALL, (most - 1).bit_length()) :]


def _count(sizes, ratio, fixed, each):
    """How many parts of so many bytes fit, beside what is there in any case."""
    return int((sizes.nbytes / ratio - fixed) // each)


def _lost(columns, width, bits):
    """What so many bits a word lose of the squares of rows, of which `width` components are kept.

    The squares of component j are taken to fall as j^-0.7, and the bits are shared out among the components
    in the best way there is (reverse water-filling).
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
