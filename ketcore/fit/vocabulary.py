"""An order of the words of a table in which similar words share digits.

    A[word] ~ M[permutation[word]],    M = sum_k F_0[k] (x) ... (x) F_{N-1}[k]

The words are split in as many groups as one mode has digits, the last mode unless told otherwise: in two
parts, each of them in two, and so on.  A part is cut where it has its share of the words, along the
difference of the means of its two halves, which starts as its leading principal component and settles in a
few rounds (k-means of two clusters of given sizes).  Within a group words are sorted along its leading
principal component and cut into runs, one for each digit of a second mode, and within a run along the next
component.  So a factor of the one mode holds the means and the directions of the groups, and the other
factors, which all groups share, how far along them a word lies.

Letters: P = prod p_n; n words, k components of them.
"""

from collections.abc import Sequence
from math import frexp, prod, sqrt
from typing import Any

import numpy as np

from ketcore.array_types import Array, Host, Lists
from ketcore.arrays.checks import check_constant
from ketcore.arrays.namespaces import quiet, to_host
from ketcore.fit.samples import peak_of
from ketcore.fit.sources import Rows, open_rows
from ketcore.fit.weights import check_row_weights
from ketcore.shapes import check_dims, shown

# Of wider tables so many principal components are looked at.  All 50 of GloVe's vectors take half a percent
# off the error of a fit, and more time.
_COMPONENTS = 32
# From so many words the components are taken, and from so many the direction in which a part is cut.
_SAMPLE, _CUT_SAMPLE = 4096, 1024
# Of wide tables the first are fewer: 16 MB of float64.
_SAMPLE_ELEMENTS = 1 << 21
# Rounds: of power iteration, and of moving a cut to where the means of its halves lie.
_POWERS, _ROUNDS = 3, 4
# In the place of a width of 0, by which is divided.
_NOTHING = float(np.finfo(np.float32).tiny)
# The longest of so many rows is where power iteration starts.
_FIRST = 64
# Elements that are read at a time: a megabyte of float32.
_CHUNK = 1 << 18


@quiet
def vocabulary_permutation(
    table: Any,
    row_dims: Sequence[int],
    weights: Array | Lists | None = None,
    *,
    col_dims: Sequence[int] | None = None,
) -> Host:
    """Places for the words of a table, such that similar words share digits.

    A sum of few Kronecker products is nearer to the table in this order, mostly by far: it is for
    `permutation` of `nearest_kronecker`, `from_dense` and the embedding layers of `ketcore.torch`, or for a
    vocabulary that is put in this order once and for all.

    Parameters
    ----------
    table : array, (words, columns), or operator
        Floating or complex, finite: an array of any library, or what is read by blocks of rows, as of
        `nearest_kronecker`.
    row_dims : sequence of N ints
        The dims of the rows of the result to come: words <= P = prod row_dims.
    weights : array, (words,), optional
        Real and above 0: how much a word counts in means and principal components, such as its number in a
        corpus.  None: 1 for all.
    col_dims : sequence of N ints, optional
        The dims of the columns of the result to come.  The mode with the most columns has the digit that is
        chosen first, and by which words are nearest one another; of equal ones, and for None, the last mode.

    Returns
    -------
    array of NumPy, (words,), intp
        Word i is row ``permutation[i]`` of the table in its new order, whose rows are
        ``table[numpy.argsort(permutation)]``.  It holds every number below `words` once: where P is larger,
        the free rows are the last ones.

    Raises
    ------
    TypeError, ValueError
        On kinds, shapes and values; NaN and infinity are refused with the row in which they stand.

    See Also
    --------
    nearest_kronecker : What is nearer to the table with this `permutation`.

    Notes
    -----
    Cost: O(n (columns + log p) k), with the k = 32 leading principal components of a table of more columns,
    and some 0.2 ms for each digit of the first mode.  Memory: four arrays (n, k) of float32; the table is
    read twice, by blocks of rows.  The same table gives the same permutation: what is drawn, samples of large
    parts, is drawn from a fixed seed.

    The order is good, not the best: to find that is as hard as k-means with clusters of given sizes.

    References
    ----------
    J. L. Bentley, Multidimensional binary search trees used for associative searching, Communications of the
    ACM 18 (1975) (splits at medians).

    Examples
    --------
    Words of two kinds, in turn: in the new order the last digit tells the kind.

    >>> table = np.array([[1.0, 0.0], [0.0, 1.0], [1.1, 0.0], [0.0, 1.1]])
    >>> permutation = vocabulary_permutation(table, (2, 2))
    >>> table[np.argsort(permutation)].tolist()
    [[0.0, 1.0], [1.0, 0.0], [0.0, 1.1], [1.1, 0.0]]
    """
    row_dims = check_dims("row_dims", row_dims)
    check_constant("table", [table], "vocabulary_permutation")
    check_constant("weights", [weights], "vocabulary_permutation")
    rows = open_rows(table, "table")
    words = rows.shape[0]
    if prod(row_dims) < words:
        raise ValueError(f"row_dims must have a product of at least {words}, got {shown(row_dims)}")
    modes = _modes(row_dims, col_dims)
    shares = _positive(weights, words)
    if len(modes) < 2:
        _sample(rows, 1)
        return np.arange(words)
    places, digits = _places(words, row_dims, modes)
    components = _components(rows, shares)
    permutation = np.empty(words, np.intp)
    permutation[_arranged(components, shares, digits)] = places
    return permutation


def _modes(row_dims, col_dims):
    """The modes of more than one row, that whose digit is chosen first in front."""
    widths = (1,) * len(row_dims) if col_dims is None else check_dims("col_dims", col_dims)
    if len(widths) != len(row_dims):
        got = f"got {shown(row_dims)} and {shown(widths)}"
        raise ValueError(f"row_dims and col_dims must have one length, {got}")
    wide = [n for n in range(len(row_dims)) if row_dims[n] > 1]
    return sorted(wide, key=lambda n: (widths[n], n), reverse=True)


def _places(words, row_dims, modes):
    """All rows in the order of the digits of `modes`, and the first two of these digits, (2, words)."""
    row, digits = np.arange(words), {}
    for n in reversed(range(len(row_dims))):
        # A dim beyond all rows, which int64 may not hold, has one digit: the row itself.
        row, digits[n] = np.divmod(row, min(row_dims[n], words))
    order = np.lexsort([digits[n] for n in reversed(modes)])
    return order, np.stack([digits[n][order] for n in modes[:2]])


def _positive(weights, words):
    """Weights as float64 on the host, 1 the largest, or None."""
    found = check_row_weights(weights, words, positive=True)
    if found is None:
        return None
    # The least quotient is rounded to 0, by which a sum of weights would be divided.
    return np.maximum(found / found.max(), np.finfo(np.float64).tiny)


def _blocks(rows: Rows):
    """The rows as arrays of real numbers of NumPy, each with its first row."""
    step = max(1, _CHUNK // rows.shape[1])
    for start in range(0, rows.shape[0], step):
        block = to_host(rows.read(start, min(start + step, rows.shape[0])))
        if block.dtype.kind == "c":
            block = np.ascontiguousarray(block)
            block = block.view(block.real.dtype)
        yield start, block


def _sample(rows, count):
    """A sample of the words, sorted, their rows, and the power of two that brings the largest element near 1.

    ValueError unless all rows are finite.
    """
    some = np.sort(np.random.default_rng(0).permutation(rows.shape[0])[:count])
    picked, most = [], 0.0
    for start, block in _blocks(rows):
        most = max(most, peak_of(block, start))
        inside = slice(*np.searchsorted(some, (start, start + len(block))))
        picked.append(block[some[inside] - start])
    # The power must itself be a number of the dtype.
    limit = np.finfo(picked[0].dtype).maxexp - 4
    scale = 2.0 ** -max(-limit, min(limit, frexp(most)[1]))
    return some, np.concatenate(picked).astype(np.float64, copy=False) * scale, scale


def _components(rows, shares):
    """Leading principal components (n, k) of the words, of float32; all columns where they are few."""
    some, sample, scale = _sample(rows, min(_SAMPLE, max(_CUT_SAMPLE, _SAMPLE_ELEMENTS // rows.shape[1])))
    center = np.average(sample, axis=0, weights=None if shares is None else shares[some])
    basis = None
    if sample.shape[1] > _COMPONENTS:
        sample = (sample - center).astype(np.float32)
        if shares is not None:
            sample *= np.sqrt(shares[some] / shares[some].max())[:, None].astype(np.float32)
        basis = _basis(sample)
    found = np.empty((rows.shape[0], min(sample.shape[1], _COMPONENTS)), np.float32)
    for start, block in _blocks(rows):
        moved = block * block.dtype.type(scale)
        moved -= center.astype(block.dtype)
        moved = moved.astype(np.float32, copy=False)
        found[start : start + len(block)] = moved if basis is None else moved @ basis
    return found


def _basis(sample):
    """An orthonormal basis (columns, k) near the leading principal components of a sample."""
    basis = np.random.default_rng(0).standard_normal((sample.shape[1], _COMPONENTS)).astype(np.float32)
    for _ in range(_POWERS):
        basis = np.linalg.qr(sample.T @ (sample @ basis))[0]
    return basis


def _arranged(components, shares, digits):
    """The words in the order of their places, of which the first two digits (2, n) are given."""
    group, second = digits
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    sizes = np.diff(starts, append=len(group))
    parts = list(_parts(components, shares, sizes))
    first, along = _coordinates(components, shares, parts)
    order = _sorted(first, group)
    # The first digit is that of the most rows.
    widths, most = np.sqrt([first @ first, along @ along]), int(sizes[0])
    if second[most - 1] == most - 1:
        # It is the only digit left, in which runs stand for a coarse part.  A run is as wide as it is long.
        runs = min(max(round(sqrt(most * widths[0] / max(widths[1], _NOTHING))), 1), most)
        second = (np.arange(len(group)) - np.repeat(starts, sizes)) * runs // most
    runs = int(second.max()) + 1
    if widths[0] > runs * widths[1]:
        along = first
    order = order[_sorted(along[order], second, group)]
    return np.concatenate(parts)[order]


def _sorted(numbers, *digits):
    """As np.lexsort, by digits before all numbers."""
    order = numbers.argsort(kind="stable")
    for each in digits:
        # Integers of 16 bits are sorted by radix.
        narrow = each.astype(np.uint16) if len(each) <= 1 << 16 else each
        order = order[narrow[order].argsort(kind="stable")]
    return order


def _parts(components, shares, sizes):
    """The words of groups of given sizes."""
    generator = np.random.default_rng(0)
    # What is still to be split: words, their components, the sizes of their groups.
    left = [(np.arange(len(components)), components, sizes)]
    while left:
        words, values, sizes = left.pop()
        # One that is the largest of its part is 1, so that none of them vanishes in float32.
        weights = None if shares is None else (shares[words] / shares[words].max()).astype(np.float32)
        if len(sizes) > 1:
            low, high = _halves(values, weights, sizes, generator)
            middle = len(sizes) // 2
            # The components of a group are not needed.
            for part, known in ((high, sizes[middle:]), (low, sizes[:middle])):
                kept = values.take(part, axis=0) if len(known) > 1 else None
                left.append((words[part], kept, known))
        else:
            yield words


def _halves(values, shares, sizes, generator):
    """The words of the lower and of the upper half of the groups."""
    count, lower = len(values), int(sizes[: len(sizes) // 2].sum())
    some = values
    if count > _CUT_SAMPLE:
        drawn = generator.integers(0, count, _CUT_SAMPLE)
        some, shares = values[drawn], None if shares is None else shares[drawn]
    along = values @ _cut_direction(some, shares, lower / count)
    cut = _ranked(along, lower)
    low = along < cut
    # Of words on the cut the first ones are low.
    low[(along == cut).nonzero()[0][: lower - np.count_nonzero(low)]] = True
    return low.nonzero()[0], (~low).nonzero()[0]


def _cut_direction(values, shares, part):
    """The difference of the means of two parts, the lower of which has this part of the words."""
    values, roots = _centered(values, shares)
    direction = _leading((values if roots is None else values * roots)[None])[0]
    lower = min(max(round(part * len(values)), 1), len(values) - 1)
    counts = np.ones(len(values), np.float32) if shares is None else shares
    for _ in range(_ROUNDS):
        along = values @ direction
        upper = counts * (along >= _ranked(along, lower))
        # Of centered values the means of both parts lie on one line through 0.
        direction = upper @ values
    return direction


def _ranked(values, place):
    """The number that stands at this place of the sorted ones."""
    found = values.copy()
    found.partition(place)
    return found[place]


def _coordinates(components, shares, parts):
    """How far along the two leading principal components of their group the words of all lie, (2, n)."""
    found, start = [], 0
    while start < len(parts):
        # Groups of one size are taken together, as many as stay in the cache.
        size, number = len(parts[start]), 1
        most = max(1, _CHUNK // (size * components.shape[1]))
        while number < most and start + number < len(parts) and len(parts[start + number]) == size:
            number += 1
        words = np.concatenate(parts[start : start + number])
        values = components.take(words, axis=0).reshape((number, size, -1))
        found.append(_of_groups(values, None if shares is None else shares[words].reshape((number, size))))
        start += number
    return np.concatenate(found, axis=1)


def _of_groups(values, shares):
    """`_coordinates` (2, g n) of groups of one size (g, n, k)."""
    if shares is not None:
        shares = (shares / shares.max(axis=1, keepdims=True)).astype(np.float32)
    values, roots = _centered(values, shares)
    found = []
    for _ in range(2):
        component = _leading(values if roots is None else values * roots)
        found.append(np.matmul(values, component[..., None]))
        values = values - found[-1] * component[..., None, :]
    return np.stack(found).reshape((2, -1))


def _centered(values, shares):
    """Values (..., n, k) minus their mean, and roots (..., n, 1) of the weights (..., n) or None."""
    if shares is None:
        count = values.dtype.type(values.shape[-2])
        return values - np.add.reduce(values, axis=-2, keepdims=True) / count, None
    mean = np.matmul(shares[..., None, :], values) / shares.sum(axis=-1)[..., None, None]
    return values - mean, np.sqrt(shares)[..., None]


def _leading(values):
    """The leading principal components (g, k) of centered values (g, n, k), of length 1 or 0."""
    first = values[:, :_FIRST]
    squares = np.einsum("gij,gij->gi", first, first)
    if not squares.any(axis=1).all():
        squares = np.einsum("gij,gij->gi", values, values)
    directions = _unit(values[np.arange(len(values)), squares.argmax(axis=1)])
    for _ in range(_POWERS):
        along = np.matmul(values, directions[:, :, None])
        directions = _unit(np.matmul(along.transpose(0, 2, 1), values)[:, 0])
    return directions


def _unit(vectors):
    """Vectors (g, k) of length 1; those of zeros as they are."""
    sizes = np.sqrt(np.einsum("gi,gi->g", vectors, vectors))
    sizes[sizes == 0] = 1
    return vectors / sizes[:, None]
