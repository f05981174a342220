"""Prefixes of a mixed-radix range as boxes of digits.  Standard library, integers of any size, no arrays.

The numbers [0, count) are the leading rows of a cropped matrix.  They split into at most N boxes, in
each of which every digit runs over a range of its own; over a box a sum of Kronecker products is the
sum of the products of the restricted factors, so that sums over cropped matrices stay factored.
"""

from collections.abc import Sequence
from math import prod

from ketcore.shapes import strides

Box = tuple[tuple[int, int], ...]


def prefix_boxes(count: int, radices: Sequence[int]) -> list[Box]:
    """Disjoint boxes of digits whose union is [0, count).

    count    int in [0, prod(radices)]
    radices  N ints >= 1
    returns  at most N boxes, in ascending order; a box is N pairs (start, stop), one per digit

    >>> prefix_boxes(6, (2, 3))
    [((0, 2), (0, 3))]
    >>> prefix_boxes(5, (2, 3))
    [((0, 1), (0, 3)), ((1, 2), (0, 2))]
    """
    whole = [(0, radix) for radix in radices]
    if count == prod(radices):
        return [tuple(whole)]
    boxes, fixed, rest = [], [], count
    for mode, stride in enumerate(strides(radices)):
        digit, rest = divmod(rest, stride)
        if digit:
            boxes.append((*fixed, (0, digit), *whole[mode + 1 :]))
        fixed.append((digit, digit + 1))
    return boxes
