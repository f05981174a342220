"""Tables whose rows are sums of a few stored vectors: codebooks, by residual k-means.

    A_i ~ s_i (sum_k C_k[code(k, i)]) D,    min sum_i w_i |A_i - M_i|^2

C_k codebook k (codebook_size, width), code(k, i) what word i takes of it, D the decoder (width, Q), s_i the
scale of row i, w_i its weight.  The rows are turned into the leading components of the weighted second
moments, their mean is taken off, and each codebook is fitted to what those before it have left.  The first
one gives the mean back: every row takes one vector of it.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, NamedTuple, overload

import numpy as np

from ketcore.array_types import Array, ForeignT, Host, HostLike, Lists, Seed
from ketcore.arrays.checks import check_constant, check_flag
from ketcore.arrays.elementary import permuted
from ketcore.arrays.namespaces import device_of, is_complex, is_numpy, quiet, to_host
from ketcore.arrays.threads import run_chunks
from ketcore.fit.flat_leaves import like
from ketcore.fit.kmeans import Centres, cluster, k_means, nearest, piece_rows, prepared
from ketcore.fit.result import Callback, Fit, Options, check_options
from ketcore.fit.samples import Sample, blocks, components, draw, ordinary, squares
from ketcore.fit.sources import Rows, open_rows
from ketcore.fit.weights import check_row_weights
from ketcore.objects.codebook_table import CodebookTable
from ketcore.objects.packed_codes import WIDTHS, PackedCodes, packed_bytes, packed_lines
from ketcore.shapes import check_addressable, check_int, shown

# Codes of two bytes number so many vectors.
_MOST_ENTRIES = 1 << 16
_ENTRIES = 256
# So many codes of one bit are a number of float64.
_CODES_OF_A_NUMBER = 64
_WIDTH = 64
# NumPy has no finfo of it.
_LARGEST_BFLOAT16 = (2 - 2.0**-7) * 2.0**127


class CodebookSizes(NamedTuple):
    """What says how many codebooks there are, of what shape."""

    n_codes: int
    codebook_size: int
    width: int


class _Frame(NamedTuple):
    """How rows, times 2^-exponent, become points (n, width) of about unit entries.

    basis    (columns, width) with orthonormal columns, over `unit`; None where all columns are kept
    unit     what the points are measured in
    scaled   whether points have one length, the root of the width, and their rows a scale
    mean     (width,), which is taken off
    """

    basis: np.ndarray | None
    unit: float
    exponent: int
    scaled: bool
    mean: np.ndarray

    def points(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The points of rows, and the scales of these where they have such."""
        points = rows @ self.basis if self.basis is not None else rows / rows.dtype.type(self.unit)
        if not self.scaled:
            return points - self.mean, None
        scales = np.sqrt(np.einsum("iw,iw->i", points, points) / points.shape[1])
        points /= np.where(scales > 0, scales, 1)[:, None]
        return points - self.mean, scales


class _Stored(NamedTuple):
    """The codebooks and the decoder in the dtype and the library of the table."""

    codebooks: Any
    decoder: Any


@overload
def fit_codebooks(
    table: HostLike,
    n_codes: int = 8,
    codebook_size: int | None = None,
    width: int | None = None,
    *,
    weights: Array | Lists | None = None,
    row_scale: bool = False,
    packed: bool = False,
    iterations: int = 25,
    rng: Seed = None,
    callback: Callback | None = None,
) -> Fit[CodebookTable[Host]]: ...
@overload
def fit_codebooks(
    table: ForeignT,
    n_codes: int = 8,
    codebook_size: int | None = None,
    width: int | None = None,
    *,
    weights: Array | Lists | None = None,
    row_scale: bool = False,
    packed: bool = False,
    iterations: int = 25,
    rng: Seed = None,
    callback: Callback | None = None,
) -> Fit[CodebookTable[ForeignT]]: ...
@quiet
def fit_codebooks(
    table: Any,
    n_codes: int = 8,
    codebook_size: int | None = None,
    width: int | None = None,
    *,
    weights: Any = None,
    row_scale: bool = False,
    packed: bool = False,
    iterations: int = 25,
    rng: Any = None,
    callback: Callback | None = None,
) -> Fit[CodebookTable[Any]]:
    """Codebooks for the rows of a table: each row becomes a sum of one stored vector of each codebook.

    Parameters
    ----------
    table : array, (words, columns), or what is read by blocks of rows
        Real, finite.  As A of `nearest_kronecker`: np.memmap and whatever has `shape`, `dtype` and row slices
        is read by blocks, twice.  Integers become float64.
    n_codes : int, default 8
        How many codebooks, and codes of a word; at most 64 for each column.
    codebook_size : int, optional
        The vectors of a codebook, at most 65,536 and at most the words.  Codes are uint8 up to 256 of them,
        and uint16 beyond.  None: 256, or 16 where they are packed, or as many as there are words.
    width : int, optional
        The length of these vectors, at most the columns and the words: the rows lose all but so many of their
        weighted principal components.  None: 64, or as much as may be.
    weights : array, (words,), optional
        Real, above 0: `sum_i w_i |A_i - M_i|^2` is made small.  For word vectors, the square roots of how
        often the words occur.  None: 1 for all.
    row_scale : bool, default False
        Whether the codebooks are fitted to rows of one length, and each row has a number near 1 beside its
        codes: float16, or bfloat16 beside a table of that, or float32 where the library has no float16.
    packed : bool, default False
        Whether codes are `PackedCodes`, of the 1, 2 or 4 bits that up to 2, 4 or 16 vectors need.
    iterations : int, default 25
        The most sweeps of k-means for a codebook.
    rng : int, Generator or None, optional
        As of `nearest_kronecker`: it draws the rows that k-means is trained on, and where it starts.
    callback : callable, optional
        ``callback(sweeps, error)`` is called after each codebook with the number of sweeps so far, over all
        codebooks, and the relative error on the rows that k-means is trained on.

    Returns
    -------
    Fit, (value, error, converged, iterations)
        `value` has `codebooks`, one array (n_codes, codebook_size, width), and `decoder` (width, columns), in
        the dtype of the table; `codes` (1, n_codes, words), those of a word one after the other in memory;
        and `row_scale` (words,), or None.  There is no decoder where `width` is the number of columns.
        `error` is
        ``sqrt(sum_i w_i |A_i - M_i|^2 / sum_i w_i |A_i|^2)`` over all rows; `converged` says whether every
        k-means settled before its limit, `iterations` the number of sweeps in all.

    Raises
    ------
    TypeError, ValueError
        On kinds, shapes and values; NaN and infinity are refused with the row that has them, complex tables,
        and arrays that derivatives are recorded of.
    ImportError
        Without scikit-learn, the extra ``ketcore[codebooks]``, whose k-means this is.

    See Also
    --------
    from_dense : A sum of Kronecker products, which has no codes.

    Notes
    -----
    Cost: O(words n_codes codebook_size width + words columns width) for the codes, and at most `iterations`
    times O(n n_codes codebook_size width) for k-means, on n rows: 256 `codebook_size`, at least 65,536, at
    most 262,144, or all.  Memory: some copies of these n rows, the codes, and blocks of 8 MB of float32.
    Arrays of other libraries are computed on the host, block by block.

    The same seed gives the same codes, on any number of threads as far as BLAS sums alike on them: k-means
    keeps to one, and the codes of all rows take as many as there are.  A row is
    among the n by a chance that is proportional to its weight, or surely, and counts in k-means by its weight
    over its chance.

    A row takes the nearest vector of the first codebook, then of each next one that is nearest to what is
    left.  `error` belongs to the arrays as they are stored, be they of float16.

    References
    ----------
    H. Jegou, M. Douze and C. Schmid, Product quantization for nearest neighbor search, IEEE TPAMI 33 (2011).

    Y. Chen, T. Guan and C. Wang, Approximate nearest neighbor search by residual vector quantization, Sensors
    10 (2010).

    R. Shu and H. Nakayama, Compressing word embeddings via deep compositional code learning, ICLR 2018.

    Examples
    --------
    >>> table = np.array([[1.0, 2.0], [1.0, 2.0], [5.0, 0.0], [5.0, 0.0]])
    >>> value, error, *_ = fit_codebooks(table, n_codes=1, codebook_size=2, rng=0)
    >>> value.codes.shape, error < 1e-12
    ((1, 1, 4), True)
    >>> bool(value.codes[0, 0, 0] == value.codes[0, 0, 1] != value.codes[0, 0, 2])
    True
    """
    check_constant("table", [table], "fit_codebooks")
    check_constant("weights", [weights], "fit_codebooks")
    n_codes = check_int("n_codes", n_codes, 1)
    options = check_options(n_codes, None, 0, iterations, rng, callback)
    scaled, packed = check_flag("row_scale", row_scale), check_flag("packed", packed)
    rows = open_rows(table, "table")
    if is_complex(rows.xp, rows.dtype):
        raise TypeError(f"table must be real, got {rows.dtype}")
    sizes = codebook_sizes(rows.shape, n_codes, codebook_size, width, packed)
    each = check_row_weights(weights, rows.shape[0], positive=True)
    k_means()
    sample = draw(rows, np.ones(rows.shape[0]) if each is None else each, sizes.codebook_size, options.rng)
    frame, trained, converged, sweeps = _train(sample, sizes, scaled, options)
    stored = _kept(rows, frame, trained)
    bits = next(b for b in WIDTHS if sizes.codebook_size <= 2**b) if packed else None
    lines, row_scale, error = _encode(rows, each, frame, stored, sizes, bits)
    moved = _moved(rows)
    codes = _by_term(rows.xp, moved(lines), n_codes, bits)
    scales = None if row_scale is None else moved(row_scale)
    if scales is not None and _is_bfloat16(rows):
        scales = rows.xp.astype(scales, rows.dtype)
    value: CodebookTable[Any] = CodebookTable((stored.codebooks,), codes, scales, stored.decoder)
    return Fit(value, error, converged, sweeps)


def codebook_sizes(
    shape: tuple[int, int],
    n_codes: int,
    codebook_size: int | None,
    width: int | None,
    packed: bool = False,
) -> CodebookSizes:
    """The sizes of the codebooks of a table (words, columns), as `fit_codebooks` is told them."""
    words, columns = shape
    if n_codes > _CODES_OF_A_NUMBER * columns:
        rule = f"at most {_CODES_OF_A_NUMBER} for each of {columns} columns"
        raise ValueError(f"n_codes must be {rule}, got {shown(n_codes)}")
    # As many as can be, and as none are asked for.
    entries, few = (1 << WIDTHS[-1],) * 2 if packed else (_MOST_ENTRIES, _ENTRIES)
    most = min(words, entries)
    count = min(few, words) if codebook_size is None else check_int("codebook_size", codebook_size, 1)
    if count > most:
        rule = f"the number of words, {words}" if most == words else f"{most}{' for packed codes' * packed}"
        raise ValueError(f"codebook_size must be at most {rule}, got {shown(count)}")
    most = min(words, columns)
    length = min(_WIDTH, most) if width is None else check_int("width", width, 1)
    if length > most:
        name, size = ("columns", columns) if columns <= words else ("words", words)
        raise ValueError(f"width must be at most the number of {name}, {size}, got {shown(length)}")
    check_addressable((n_codes, max(words, count * length)))
    return CodebookSizes(n_codes, count, length)


def _train(sample: Sample, sizes: CodebookSizes, scaled: bool, options: Options):
    """How rows become points, codebooks without the mean, whether all settled, and the number of sweeps."""
    rows, weights, exponent = sample
    columns = rows.shape[1]
    basis = None if sizes.width == columns else components(sample, sizes.width)
    total = squares(rows, weights)
    kept = total if basis is None else squares(rows @ basis, weights)
    unit = sqrt(kept / (float(weights.sum(dtype=np.float64)) * sizes.width)) or 1.0
    basis = None if basis is None else basis / basis.dtype.type(unit)
    frame = _Frame(basis, unit, exponent, scaled, np.zeros(sizes.width, rows.dtype))
    points, scales = frame.points(rows)
    weights = weights if scales is None else weights * scales**2
    mean = weights @ points / (weights.sum() or 1)
    points -= mean
    norm, lost = sqrt(total) or 1.0, max(total - kept, 0.0)
    books, converged, sweeps = [], True, 0
    for _ in range(sizes.n_codes):
        found = cluster(points, weights, sizes.codebook_size, options.rng, options.iterations)
        points -= found.centres[found.codes]
        books.append(found.centres)
        converged, sweeps = converged and found.converged, sweeps + found.sweeps
        if options.callback is not None:
            options.callback(sweeps, sqrt(lost + unit**2 * squares(points, weights)) / norm)
    return frame._replace(mean=mean), np.stack(books), converged, sweeps


def _kept(rows: Rows, frame: _Frame, books) -> _Stored:
    """What is stored: the first codebook has the mean, and the decoder, or else all of them, the unit."""
    books = books.astype(np.float64)
    books[0] += frame.mean
    xp = rows.xp
    most = _LARGEST_BFLOAT16 if _is_bfloat16(rows) else float(xp.finfo(rows.dtype).max)

    def stored(values):
        # What is left of a row may be twice as large as any row.
        return xp.astype(like(xp, np.clip(values, -most, most), rows.sample), rows.dtype, copy=False)

    if frame.basis is None:
        return _Stored(stored(np.ldexp(books * frame.unit, frame.exponent)), None)
    # The basis is over the unit.
    decoder = np.ldexp(frame.basis.T * frame.unit**2, frame.exponent)
    return _Stored(stored(books), stored(decoder))


def _is_bfloat16(rows: Rows) -> bool:
    return "bfloat16" in str(rows.dtype)


def _rounding(rows: Rows) -> Callable[[np.ndarray], np.ndarray]:
    """What rounds scales on the host: to float16, or to numbers of bfloat16, which NumPy may not have."""
    if not _is_bfloat16(rows):
        most = float(np.finfo(np.float16).max)
        return lambda scales: np.clip(scales, -most, most).astype(np.float16)

    def rounded(scales):
        clipped = np.clip(scales, -_LARGEST_BFLOAT16, _LARGEST_BFLOAT16)
        narrow = rows.xp.astype(like(rows.xp, clipped, rows.sample), rows.dtype)
        return to_host(rows.xp.astype(narrow, rows.sample.dtype))

    return rounded


class _Encoder(NamedTuple):
    """What turns rows, times 2^-exponent of the frame, into codes and back.

    centres  for each codebook its vectors as points, and what finds the nearest of them
    vectors  (n_codes, codebook_size, width), whose sums the decoder turns into rows
    rounded  what rounds scales as they are stored
    """

    frame: _Frame
    centres: Sequence[Centres]
    vectors: np.ndarray
    decoder: np.ndarray | None
    rounded: Callable[[np.ndarray], np.ndarray]

    def encode(self, rows):
        """The codes of rows, their scales or None, and what they become."""
        points, scales = self.frame.points(rows)
        codes = np.empty((len(self.centres), len(rows)), np.intp)
        sums = np.zeros_like(points)
        for k, centres in enumerate(self.centres):
            codes[k] = nearest(points, centres)[0]
            points -= centres.values[codes[k]]
            sums += self.vectors[k, codes[k]]
        found = sums if self.decoder is None else sums @ self.decoder
        if scales is None:
            return codes, None, found
        # The best scale of what was found, which is not quite that of the row.
        lengths = np.einsum("iq,iq->i", found, found)
        best = np.einsum("iq,iq->i", rows, found) / np.where(lengths > 0, lengths, 1)
        scales = self.rounded(best)
        return codes, scales, found * scales.astype(found.dtype)[:, None]


def _encoder(rows: Rows, frame: _Frame, stored: _Stored) -> _Encoder:
    def wide(array):
        return to_host(rows.xp.astype(array, rows.sample.dtype, copy=False))

    vectors = wide(stored.codebooks)
    decoder = None
    if stored.decoder is None:
        vectors = ordinary(vectors, frame.exponent)
        books = vectors / vectors.dtype.type(frame.unit)
    else:
        decoder, books = ordinary(wide(stored.decoder), frame.exponent), vectors.copy()
    books[0] -= frame.mean
    return _Encoder(frame, [prepared(book) for book in books], vectors, decoder, _rounding(rows))


def _encode(rows: Rows, weights, frame: _Frame, stored: _Stored, sizes: CodebookSizes, bits: int | None):
    """Codes (words, n_codes), packed or not, scales (words,) or None, and the relative error: one pass."""
    words, count = rows.shape[0], sizes.n_codes
    narrow = np.uint8 if sizes.codebook_size <= _ENTRIES else np.uint16
    codes = np.empty((words, count if bits is None else packed_bytes(count, bits)), narrow)
    scales = np.empty(words, np.float32 if _is_bfloat16(rows) else np.float16) if frame.scaled else None
    weights = np.ones(words) if weights is None else weights / weights.max()
    encoder, step = _encoder(rows, frame, stored), piece_rows(sizes.codebook_size)
    total = np.zeros(2)
    for start, block in blocks(rows):
        block = ordinary(block, frame.exponent)
        pieces = -(-len(block) // step)
        sums = np.zeros((pieces, 2))

        def work(first, last, start=start, block=block, sums=sums):
            for n in range(first, last):
                piece = block[n * step : (n + 1) * step]
                here = slice(start + n * step, start + n * step + len(piece))
                found_codes, found_scales, found = encoder.encode(piece)
                lines = found_codes.T.astype(narrow)
                codes[here] = lines if bits is None else packed_lines(lines, bits)
                if scales is not None:
                    scales[here] = found_scales
                sums[n] = squares(piece - found, weights[here]), squares(piece, weights[here])

        run_chunks(work, pieces, 1, limit_blas=True)
        total += sums.sum(axis=0)
    gap, norm = total
    return codes, scales, float(np.sqrt(gap / norm)) if norm else 0.0


def _by_term(xp, lines, n_codes: int, bits: int | None):
    """Codes (1, n_codes, words) of those of each word (words, n_codes), which stay together in memory."""
    if bits is not None:
        return PackedCodes(lines, 1, n_codes, bits)
    return permuted(xp, lines, (1, 0))[None, ...]


def _moved(rows: Rows) -> Callable[[Any], Any]:
    """What makes arrays of NumPy arrays of the library and the device of the table."""
    xp = rows.xp
    if is_numpy(rows.sample):
        return lambda values: values

    def moved(values):
        known = hasattr(xp, values.dtype.name)
        return xp.asarray(values if known else values.astype(np.float32), device=device_of(rows.sample))

    return moved
