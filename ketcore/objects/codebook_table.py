"""Tables of words that are stored as codes: which vectors of small codebooks each word adds up.

    row i = s_i (sum_k  C_0[k, i_0k] (x) C_1[k, i_1k] (x) ... (x) C_{N-1}[k, i_{N-1,k}]) D

Letters: N order, R rank, n mode, K_n and q_n rows and columns of codebook n, w = prod q_n, Q columns of D.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Generic, overload

import numpy as np

from ketcore.array_types import ArrayT, ForeignT, Host, HostLike, Index, Key, Lists
from ketcore.arrays.checks import (
    as_integers,
    check_out,
    check_table_shapes,
    shapes_of,
)
from ketcore.arrays.conversions import promoted
from ketcore.arrays.elementary import as_dtype, itemsize, reshaped, transposed, unboxed
from ketcore.arrays.namespaces import (
    accumulation_dtype,
    device_of,
    index_dtype,
    is_complex,
    is_integer,
    is_numpy,
    is_writeable_in_place,
    namespace,
    namespace_of,
    quiet,
)
from ketcore.arrays.quantized import (
    QuantizedArray,
    decoded,
    is_quantized,
    like_of,
    nbytes_of,
    with_axes,
)
from ketcore.arrays.quantized_lines import are_few
from ketcore.lookups.stored_tables import check_stored
from ketcore.objects import blocks, codebook_lookups, display
from ketcore.objects.indexing import parse_key
from ketcore.objects.operands import operand
from ketcore.objects.operator import Structured
from ketcore.objects.packed_codes import PackedCodes
from ketcore.objects.row_blocks import RowBlocks
from ketcore.ops.codebook_rows import check_decoder
from ketcore.shapes import (
    check_choice,
    check_dense_size,
    check_int,
    check_result_size,
    checked_length,
)

_FLOATING = "codebooks, row_scale and decoder"


@dataclass(frozen=True, init=False, repr=False, eq=False)
class CodebookTable(Structured, Generic[ArrayT]):
    """A table whose rows are sums of products of vectors that stored codes pick from codebooks.

    A code is the stored index of a vector in one small table of them, its codebook.  With a number s_i for
    each row, and one decoder D for all::

        row i = s_i (sum_k  C_0[k, i_0k] (x) C_1[k, i_1k] (x) ... (x) C_{N-1}[k, i_{N-1,k}]) D

    Parameters
    ----------
    codebooks : sequence of N arrays, (R, K_n, q_n)
        Floating or complex, one R for all, while K_n may differ; 2-D ones mean R = 1, and R = 0 rows of
        zeros.  Integers and nested lists become floating.
    codes : array of ints, (N, R, words), PackedCodes, or None
        Which vector each word takes of each codebook, of any integer dtype, in which it stays: narrow ones
        are never widened as a whole, and what is mapped into memory stays mapped.  Beside codebooks of
        another library they may be an array of NumPy, of which a call moves what it picks.  Codebooks of one
        vector leave no choice: the lines of all of them may be left out, and N here is the number of others.
        None: word i takes vector i of each of these others, which then have a vector for each word.
    row_scale : array, (words,), optional
        One number for each row, of any sign; by default there is none.
    decoder : array, (w, Q), optional
        A matrix that all rows of w = prod q_n numbers are multiplied by; by default there is none, and Q = w.

    Attributes
    ----------
    stored : tuple of N arrays, (R, K_n, q_n)
        The codebooks as they are kept; some may be of the kind QuantizedArray.
    codebooks : tuple of N arrays, (R, K_n, q_n)
        The same as arrays: where they are quantized, decoded at each use of the attribute.
    codes : array of ints, (N, R, words), PackedCodes, or None
        As it was given.
    stored_row_scale, row_scale : array, (words,), or None
        The numbers of rows as they are kept, and as an array.
    stored_decoder, decoder : array, (w, Q), or None
        The decoder as it is kept, and as an array.

    Raises
    ------
    TypeError
        On dtypes and on mixed libraries or devices.
    ValueError
        On shapes, and on codes of no word.

    See Also
    --------
    codebook_rows : The operation of which rows are results, with its derivatives.

    Notes
    -----
    Immutable; `==` is identity.  `np.asarray(table)` is refused: see `to_dense`.  Arrays are kept, not
    copied.

    Values of codes are looked at where they are read, not here, where a mapped file would be read as a whole:
    a code out of range is an IndexError that names its place, where codes lie in host memory, unless
    ``check=False``, by which its row is NaN.

    Codes are read word by word.  Those of one word lie together, so that a row of a mapped file costs one
    page, where `codes` is ``np.moveaxis(stored, 0, 2)`` of an array (words, N, R).  Without codes the vectors
    of the words of a call are picked before they are decoded, if a line of a QuantizedArray is one vector.

    Examples
    --------
    >>> books = np.array([[[1.0, 0.0], [0.0, 1.0]], [[10.0, 0.0], [0.0, 10.0]]])
    >>> table = CodebookTable([books], np.array([[[0, 1, 1], [1, 1, 0]]], np.uint8), [1.0, 2.0, 1.0])
    >>> table.shape, table.rows([1, 2]).tolist()
    ((3, 2), [[0.0, 22.0], [10.0, 1.0]])

    Without codes, a table of few columns and a matrix that makes them more:

    >>> CodebookTable([[[1.0], [3.0], [2.0]]], None, decoder=[[1.0, 10.0]]).rows([1]).tolist()
    [[3.0, 30.0]]
    """

    stored: tuple[ArrayT | QuantizedArray[ArrayT], ...]
    codes: Any
    stored_row_scale: ArrayT | QuantizedArray[ArrayT] | None
    stored_decoder: ArrayT | QuantizedArray[ArrayT] | None

    _PRODUCTS = "logits(x), which multiplies by the transpose, or to_dense()"
    _INSTEAD: ClassVar[dict[str, str]] = (
        dict.fromkeys(("T", "H", "mT", "transpose", "adjoint", "toarray"), "to_dense()")
        | dict.fromkeys(("matmul", "dot", "rmatmul", "matvec", "matmat"), "logits(x)")
        | {"astype": "a CodebookTable of other arrays", "factors": "codebooks"}
    )

    @overload
    def __init__(
        self: "CodebookTable[Host]",
        codebooks: Sequence[HostLike],
        codes: Index | PackedCodes | None,
        row_scale: HostLike | None = None,
        decoder: HostLike | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: "CodebookTable[ForeignT]",
        codebooks: Sequence[ForeignT],
        codes: Index | PackedCodes | None,
        row_scale: ForeignT | None = None,
        decoder: ForeignT | None = None,
    ) -> None: ...
    def __init__(self, codebooks: Any, codes: Any, row_scale: Any = None, decoder: Any = None) -> None:
        beside = [each for each in (row_scale, decoder) if each is not None]
        _, codebooks, _, kinds = check_stored("codebooks", codebooks, beside)
        books = tuple(with_axes(book, 3) if book.ndim == 2 else book for book in codebooks)
        check_table_shapes("codebooks", shapes_of(books))
        codes = _as_codes(codes, books)
        others, words = (*kinds, *beside), _words(codes, books)
        if row_scale is not None:
            row_scale = check_stored("row_scale", (row_scale,), others)[1][0]
            if tuple(row_scale.shape) != (words,):
                rule = f"have shape ({words},), one number for each word"
                raise ValueError(f"row_scale must {rule}, got {tuple(row_scale.shape)}")
        if decoder is not None:
            decoder = check_stored("decoder", (decoder,), others)[1][0]
            check_decoder(decoder, prod(book.shape[2] for book in books))
        object.__setattr__(self, "stored", books)
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "stored_row_scale", row_scale)
        object.__setattr__(self, "stored_decoder", decoder)
        arrays = self._floats()
        namespace(_FLOATING, arrays)
        promoted(_FLOATING, arrays)

    @property
    def codebooks(self: Any) -> tuple[ArrayT, ...]:
        """The codebooks as arrays (R, K_n, q_n): those of `stored`, decoded anew where they are quantized."""
        return tuple(map(decoded, self.stored))

    @property
    def row_scale(self: Any) -> ArrayT | None:
        """The numbers of rows as an array (words,), decoded anew where they are quantized; None without."""
        return decoded(self.stored_row_scale)

    @property
    def decoder(self: Any) -> ArrayT | None:
        """The decoder as an array (w, Q), decoded anew where it is quantized; None where there is none."""
        return decoded(self.stored_decoder)

    @property
    def dims(self) -> tuple[int, ...]:
        """The widths q_n of the codebooks."""
        return tuple([book.shape[2] for book in self.stored])

    @property
    def width(self) -> int:
        """The numbers w of a row before the decoder."""
        return prod(self.dims)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of words and of columns."""
        matrix = self.stored_decoder
        return _words(self.codes, self.stored), self.width if matrix is None else matrix.shape[1]

    @property
    def ndim(self) -> int:
        """The number 2 of axes."""
        return 2

    @property
    def size(self) -> int:
        """The number of elements of the dense table."""
        return prod(self.shape)

    @property
    def order(self) -> int:
        """The number N of modes."""
        return len(self.stored)

    @property
    def rank(self) -> int:
        """The number R of terms."""
        return self.stored[0].shape[0]

    @property
    def code_width(self) -> int:
        """The bits that a stored code takes; 0 where there are none."""
        if self.codes is None:
            return 0
        if isinstance(self.codes, PackedCodes):
            return self.codes.bits
        return int(namespace_of(self.codes).iinfo(self.codes.dtype).bits)

    @property
    def dtype(self) -> Any:
        """The dtype of rows: that which codebooks, scale and decoder promote to."""
        return promoted(_FLOATING, self._floats())

    @property
    def nbytes(self) -> int:
        """The bytes of codebooks, codes, scale and decoder, as they are stored."""
        numbers = sum(map(nbytes_of, self._stored()))
        if isinstance(self.codes, PackedCodes):
            return numbers + self.codes.nbytes
        return numbers if self.codes is None else numbers + prod(self.codes.shape) * self.code_width // 8

    def __len__(self) -> int:
        return checked_length(self.shape[0])

    def __bool__(self) -> bool:
        return True

    @quiet
    def rows(self, ids: Index, *, check: bool | None = None, out: ArrayT | None = None) -> ArrayT:
        """The rows of some words.

        Parameters
        ----------
        ids : int or array of ints, (...)
            Numbers of words, which count from 0 and are never negative.
        check : bool, optional
            Whether to look for ids and codes out of range: True raises on one, False gives a row of NaN for
            it.  By default as True where they lie in host memory, else as False.
        out : array, (..., Q), optional
            Of NumPy or CuPy: C-contiguous, of the shape and dtype of the result, which is written into it.

        Returns
        -------
        array, (..., Q)
            `out` where that is given.

        Raises
        ------
        TypeError, ValueError
            On kinds, and on an `out` that does not fit.
        IndexError
            On an id or a code out of range, where `check` looks for it.

        Notes
        -----
        Cost: ``O(|ids| w (R + Q))`` time; memory that of the codes and the rows of `ids`.

        Examples
        --------
        >>> table = CodebookTable([[[1.0, 2.0], [3.0, 4.0]]], [[[1, 0, 1]]])
        >>> table.rows([0, 1]).tolist()
        [[3.0, 4.0], [1.0, 2.0]]
        """
        words, bad = codebook_lookups.checked_ids(self, ids, check)
        table = self._for_words(prod(words.shape))
        found = codebook_lookups.rows_of(table, words, check, table.decoder, out)
        return codebook_lookups.with_nan(found, bad)

    @quiet
    def __getitem__(self, key: Key) -> ArrayT:
        """The dense row, rows, element or block that NumPy's rules choose.

        Parameters
        ----------
        key : int, slice, array of ints or of bools, or a pair of these
            As of `KroneckerMatrix`.

        Returns
        -------
        array
            A new one.

        Raises
        ------
        TypeError, IndexError
            On keys, and on a code out of range.
        MemoryError
            Naming the size, where slices or axes left whole make more than 2**30 bytes.

        Notes
        -----
        Cost: w (R + 1) for each element, at most; a block costs the rows of its words times its columns.

        Examples
        --------
        >>> table = CodebookTable([[[1.0, 2.0], [3.0, 4.0]]], [[[1, 0, 1]]])
        >>> table[-1].tolist(), table[:2, 1].tolist()
        ([3.0, 4.0], [4.0, 2.0])
        """
        row, column = parse_key(key, self.shape)
        pairs = not isinstance(row, range) and not isinstance(column, range)
        if not pairs and isinstance(row, int | range):
            found = (*blocks.shape_of(row), *blocks.shape_of(column))
            check_result_size("key", found, self._entry_bytes(), self.dtype, "iter_row_blocks(size)")
        table = self._for_words(prod(blocks.shape_of(row)))
        if pairs and not isinstance(row, int) and not isinstance(column, int):
            return codebook_lookups.dense_entries(table, row, column)
        return unboxed(codebook_lookups.dense_block(table, row, column))

    def to_dense(self: Any, max_bytes: float = 2**30, out: ArrayT | None = None) -> ArrayT:
        """The dense table.

        Parameters
        ----------
        max_bytes : float, default 2**30
            What the result may take; infinity for no limit.
        out : array, (words, Q), optional
            As of `rows`.

        Returns
        -------
        array, (words, Q)

        Raises
        ------
        MemoryError
            Naming the size, above `max_bytes`.
        TypeError, ValueError, IndexError
            As `rows`.

        Notes
        -----
        Cost: ``O(w (R + Q))`` time for each word.

        Examples
        --------
        >>> CodebookTable([[[1.0, 2.0], [3.0, 4.0]]], [[[1, 0, 1]]]).to_dense().tolist()
        [[3.0, 4.0], [1.0, 2.0], [3.0, 4.0]]
        """
        words, columns = self.shape
        xp, like, dtype = namespace_of(self._like()), self._like(), self.dtype
        what = f"{self.shape} array of {dtype}"
        check_dense_size(words * columns, self._entry_bytes(), what, max_bytes, "iter_row_blocks(size)")
        if out is None and not is_writeable_in_place(like):
            return self._read(0, words)
        return codebook_lookups.fill(self._ready(), check_out(out, self.shape, dtype, like, xp))

    def iter_row_blocks(self: Any, size: int) -> RowBlocks:
        """All rows as dense blocks of at most `size`, from row 0 on, for what is too large to be held.

        Parameters
        ----------
        size : int
            Rows of a block, >= 1; the last one may have fewer.

        Returns
        -------
        RowBlocks
            As of `KroneckerMatrix.iter_row_blocks`.

        Raises
        ------
        TypeError, ValueError
            On size.

        Examples
        --------
        >>> table = CodebookTable([[[1.0, 2.0], [3.0, 4.0]]], [[[1, 0, 1]]])
        >>> [block.shape for block in table.iter_row_blocks(2)]
        [(2, 2), (1, 2)]
        """
        return RowBlocks(self.shape[0], check_int("size", size, 1), self._for_words(size)._read)

    def _read(self, start, stop):
        table = self._for_words(stop - start)
        return codebook_lookups.rows_of(table, range(start, stop), decoder=table.decoder)

    @quiet
    def bag(
        self,
        ids: Index,
        offsets: Index | None = None,
        *,
        mode: str = "sum",
        weights: ArrayT | Lists | None = None,
        check: bool | None = None,
    ) -> ArrayT:
        """Sums or means of bags of rows, decoded after they are added up.

        Parameters
        ----------
        ids : array of ints, (bags, n) or (L,)
            The words of each bag; of all bags, one after the other, with `offsets`.
        offsets : array of ints, (bags,), optional
            Where each bag begins among the L ids; the first is 0.
        mode : {"sum", "mean"}, default "sum"
            What is made of the rows of a bag; one without ids gives zeros.
        weights : array, (bags, n) or (L,), optional
            A number for each id that its row is multiplied by, for sums.
        check : bool, optional
            As of `rows`.

        Returns
        -------
        array, (bags, Q)

        Raises
        ------
        TypeError, ValueError, IndexError
            On arguments, as `rows`, and on weights of means.

        See Also
        --------
        CodebookTable.expand : Rows before the decoder made once, with which bags cost less.

        Notes
        -----
        Cost: ``O(L R w + |bags| w Q)`` time: a decoder costs each bag, not each id.

        Examples
        --------
        >>> table = CodebookTable([[[1.0, 2.0], [3.0, 4.0]]], [[[1, 0, 1]]])
        >>> table.bag([[0, 1], [2, 2]]).tolist(), table.bag([0, 1, 2], [0, 1], mode="mean").tolist()
        ([[4.0, 6.0], [6.0, 8.0]], [[3.0, 4.0], [2.0, 3.0]])
        """
        check_choice("mode", mode, ("sum", "mean"))
        words = as_integers("ids", ids)
        table = self._for_words(prod(words.shape))
        return table._decoded(codebook_lookups.bags(table, words, offsets, mode, weights, check))

    def dequantize(self) -> "CodebookTable[ArrayT]":
        """The same table with codebooks and a decoder that are arrays; itself where they are.

        Returns
        -------
        CodebookTable

        Examples
        --------
        >>> from ketcore import quantize
        >>> table = quantize(CodebookTable([np.ones((1, 256, 64))], [[[1, 0, 1]]]))
        >>> table.codebooks[0].nbytes, table.stored[0].nbytes, table.dequantize().dtype
        (65536, 17408, dtype('float32'))
        """
        if not is_quantized(self._stored()):
            return self
        books: Any = self.codebooks
        decoder: Any = self.decoder
        row_scale: Any = self.row_scale
        table: Any = CodebookTable(books, self.codes, row_scale, decoder)
        return table

    def _ready(self) -> Any:
        """The table that lookups take: decoded, but for the vectors of words without codes."""
        return self if self.codes is None else self.dequantize()

    def expand(self: Any, max_bytes: float = 2**30) -> "CodebookTable[ArrayT]":
        """The same table with all rows made, but for the decoder: they are vectors of one codebook.

        Parameters
        ----------
        max_bytes : float, default 2**30
            What the new codebook may take, words w numbers; infinity for no limit.

        Returns
        -------
        CodebookTable
            Of order 1 and rank 1, with the decoder of this one and codes of 32 or 64 bits.

        Raises
        ------
        MemoryError
            Naming the size, above `max_bytes`.
        IndexError
            On a code out of range.

        Notes
        -----
        Cost: ``O(words R w)`` time; memory of ``words w`` numbers in the dtype of the table, and of a code
        a word.

        Examples
        --------
        >>> books, codes = [[[[1.0], [3.0]], [[10.0], [30.0]]]], [[[1, 0], [0, 1]]]
        >>> table = CodebookTable(books, codes, None, [[1.0, 2.0]])
        >>> table.expand().codebooks[0].tolist(), table.expand().rows([0]).tolist()
        ([[[13.0], [31.0]]], [[13.0, 26.0]])
        """
        xp, (words, _) = namespace_of(self._like()), self.shape
        books = [as_dtype(xp, book, self.dtype) for book in self.codebooks]
        made = CodebookTable(books, self.codes, self.row_scale).to_dense(max_bytes)
        dtype = xp.int32 if words < 2**31 else xp.int64
        codes = xp.arange(words, dtype=dtype, device=device_of(made))
        table: Any = CodebookTable([made[None, ...]], codes[None, None, :], None, self.stored_decoder)
        return table

    @quiet
    def logits(self, x: ArrayT | Lists) -> ArrayT:
        """The products of vectors with all rows, ``x @ table.to_dense().T``, without the table.

        Parameters
        ----------
        x : array, (..., Q)
            Floating or complex; integers and nested lists become floating.  Nothing is conjugated.

        Returns
        -------
        array, (..., words)
            In the dtype that x and the table promote to.

        Raises
        ------
        TypeError, ValueError
            On x.
        IndexError
            On a code out of range.

        Notes
        -----
        Cost, with B vectors: ``O(B R (w K + words))`` time for order 1, where a table of scores (R, K, B) is
        made first; otherwise ``O(words w (R + B))``, of which blocks are made.  The decoder costs
        ``O(B w Q)``.

        Examples
        --------
        >>> table = CodebookTable([[[1.0, 2.0], [3.0, 4.0]]], [[[1, 0, 1]]])
        >>> table.logits([1.0, 1.0]).tolist()
        [7.0, 3.0, 7.0]
        """
        table = self._ready()
        xp, vectors, batch, dtype = table._vectors(x)
        words = self.shape[0]
        if not vectors.shape[0]:
            return xp.zeros((*batch, words), dtype=dtype, device=device_of(vectors))
        found = list(codebook_lookups.scores(table, vectors))
        return reshaped(xp, as_dtype(xp, xp.concat(found, axis=1), dtype), (*batch, words))

    @quiet
    def topk(self, x: ArrayT | Lists, k: int) -> tuple[ArrayT, ArrayT]:
        """The k largest products of vectors with rows, and the words that have them.

        Parameters
        ----------
        x : array, (..., Q)
            As of `logits`; real, as the table must be.
        k : int
            How many, in [1, words].

        Returns
        -------
        values : array, (..., k)
            From the largest on; NaN stands behind all numbers.
        ids : array of ints, (..., k)
            Their words; which of equal ones are taken is not said.

        Raises
        ------
        TypeError, ValueError
            On x and k, and where the table or x is complex.
        IndexError
            On a code out of range.

        Notes
        -----
        Cost: that of `logits`; memory of a block of words.

        Examples
        --------
        >>> values, ids = CodebookTable([[[1.0, 2.0], [3.0, 4.0]]], [[[1, 0, 1]]]).topk([1.0, 1.0], 2)
        >>> values.tolist(), ids.tolist()
        ([7.0, 7.0], [0, 2])
        """
        k = check_int("k", k, 1, self.shape[0])
        table = self._ready()
        xp, vectors, batch, dtype = table._vectors(x)
        if is_complex(xp, dtype):
            raise TypeError(f"x must be real, as the table, for topk, got {dtype}")
        if not vectors.shape[0]:
            empty = xp.zeros((*batch, k), dtype=dtype, device=device_of(vectors))
            return empty, xp.astype(empty, index_dtype(xp))
        values, ids = codebook_lookups.best(table, vectors, k)
        return reshaped(xp, as_dtype(xp, values, dtype), (*batch, k)), reshaped(xp, ids, (*batch, k))

    def _for_words(self: Any, count: int) -> Any:
        """The table as calls of so many words read it: decoded, but for what is much longer than these."""
        if self.codes is None:
            return self
        known = [(book, book.shape[1]) for book in self.stored]
        known.append((self.stored_row_scale, self.shape[0]))
        few = [are_few(array, count, lines) for array, lines in known]
        if not any(few):
            return self.dequantize()
        *books, scale = [array if one else decoded(array) for (array, _), one in zip(known, few, strict=True)]
        return CodebookTable(books, self.codes, scale, self.decoder)

    def _vectors(self, x):
        """The namespace, x (B, w) before the decoder in the wide dtype, its batch, the dtype of products."""
        x = operand("x", x, self)
        arrays = (x, *self._floats())
        xp, dtype = namespace("x and codebooks", arrays), promoted("x and codebooks", arrays)
        if not x.ndim or x.shape[-1] != self.shape[1]:
            raise ValueError(f"x must have shape (..., Q) with Q = {self.shape[1]}, got {tuple(x.shape)}")
        batch, wide = tuple(x.shape[:-1]), accumulation_dtype(xp, dtype)
        x = reshaped(xp, as_dtype(xp, x, wide), (prod(batch), self.shape[1]))
        if self.decoder is not None:
            x = xp.matmul(x, transposed(as_dtype(xp, self.decoder, wide)))
        return xp, x, batch, dtype

    def _decoded(self, rows):
        """Rows (..., w) in the wide dtype times the decoder, in the dtype of the table."""
        xp = namespace_of(rows)
        if self.decoder is not None:
            rows = xp.matmul(rows, as_dtype(xp, self.decoder, rows.dtype))
        return as_dtype(xp, rows, self.dtype)

    def _stored(self):
        """All that is kept but the codes."""
        stored = (*self.stored, self.stored_row_scale, self.stored_decoder)
        return [each for each in stored if each is not None]

    def _floats(self):
        """Arrays of their libraries, devices and dtypes."""
        return [*map(like_of, self._stored())]

    def _entry_bytes(self):
        """Bytes of an element of a row."""
        like = self._like()
        return itemsize(namespace_of(like).empty((), dtype=self.dtype, device=device_of(like)))

    def _like(self):
        return like_of(self.stored[0])

    def _facts(self):
        """What `repr` shows; the ratio is one of bytes."""
        facts = {"shape": self.shape, "order": self.order, "rank": self.rank, "dims": self.dims}
        books = tuple(book.shape[1] for book in self.stored)
        numbers = sum(prod(array.shape) for array in self._stored())
        counts = display.sizes(numbers, self.nbytes, prod(self.shape) * self._entry_bytes())
        packed = isinstance(self.codes, PackedCodes)
        codes = f"{self.code_width} bits" if packed else getattr(self.codes, "dtype", "none")
        kinds = {"codes": codes, "dtype": self.dtype, **display.storage(self._stored())}
        return {**facts, "codebook_rows": books, **kinds, **counts}


def _as_codes(codes: Any, books: Any) -> Any:
    """Codes of the right kind and shape, in the memory and the dtype that they have."""
    if codes is None:
        counts = [book.shape[1] for book in books]
        if len({*counts, 1}) > 2:
            rule = "be there, or all codebooks have as many vectors as there are words, or one"
            raise ValueError(f"codes must {rule}, got None for {counts}")
        return None
    if isinstance(codes, PackedCodes):
        pass
    elif isinstance(codes, np.ndarray) and not isinstance(codes, np.ma.MaskedArray):
        # As a plain array in any byte order: the other one is turned where codes are picked.
        codes = codes.view(np.ndarray)
        if not is_integer(np, codes.dtype):
            raise TypeError(f"codes must have an integer dtype, got {codes.dtype}")
    else:
        codes = as_integers("codes", codes)
    lead, coded = (len(books), books[0].shape[0]), sum(book.shape[1] > 1 for book in books)
    leads = (lead, (coded or lead[0], lead[1]))
    if codes.ndim != 3 or tuple(codes.shape[:2]) not in leads or not codes.shape[2]:
        rule = f"have shape (N, R, words), for {lead} and at least one word"
        raise ValueError(f"codes must {rule}, got {tuple(codes.shape)}")
    stored = codes.packed if isinstance(codes, PackedCodes) else codes
    if not is_numpy(stored):
        namespace("codes and codebooks", (stored, like_of(books[0])))
    return codes


def _words(codes: Any, books: Any) -> int:
    """How many words there are."""
    return max(book.shape[1] for book in books) if codes is None else codes.shape[2]
