"""The rows of an operator as dense blocks, one after the other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from sys import maxsize

from ketcore.array_types import AnyArray


@dataclass(frozen=True)
class RowBlocks:
    """Dense blocks of rows, from row 0 on; what `iter_row_blocks` returns.

    Parameters
    ----------
    rows : int
        How many rows there are.
    size : int
        Rows of a block; the last one may have fewer.
    read : callable
        Takes (start, stop) to an array (stop - start, columns).

    Notes
    -----
    Iterating again starts again, and each block is an array of its own.  `len()` is the number of blocks.

    Examples
    --------
    >>> blocks = RowBlocks(5, 2, lambda start, stop: list(range(start, stop)))
    >>> len(blocks), list(blocks)
    (3, [[0, 1], [2, 3], [4]])
    """

    rows: int
    size: int
    read: Callable[[int, int], AnyArray]

    def __len__(self) -> int:
        count = -(-self.rows // self.size)
        if count > maxsize:
            raise OverflowError(f"the number of blocks must be at most {maxsize} for len(), got {count}")
        return count

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[AnyArray]:
        for start in range(0, self.rows, self.size):
            yield self.read(start, min(start + self.size, self.rows))
