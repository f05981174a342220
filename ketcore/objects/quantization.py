"""Arrays and objects whose numbers take 8, 4 or 2 bits."""

from typing import Any, TypeVar, overload

from ketcore.array_types import ForeignT, Host, HostLike
from ketcore.arrays.checks import check_constant
from ketcore.arrays.conversions import as_array, as_floating
from ketcore.arrays.elementary import beside, widened
from ketcore.arrays.namespaces import is_complex, is_floating, namespace_of, quiet, to_host
from ketcore.arrays.quantized import QuantizedArray, check_bits, encoded
from ketcore.objects.codebook_table import CodebookTable
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.objects.operator import Structured
from ketcore.shapes import check_int

_ObjectT = TypeVar("_ObjectT", bound=Ket[Any] | KroneckerMatrix[Any] | KroneckerSum[Any] | CodebookTable[Any])


@overload
def quantize(x: _ObjectT, bits: int = 8, block: int = 32) -> _ObjectT: ...
@overload
def quantize(x: HostLike, bits: int = 8, block: int = 32) -> QuantizedArray[Host]: ...
@overload
def quantize(x: ForeignT, bits: int = 8, block: int = 32) -> QuantizedArray[ForeignT]: ...
@quiet
def quantize(x: Any, bits: int = 8, block: int = 32) -> Any:
    """An array, or an object, whose numbers take 8, 4 or 2 bits, with one scale for each block of them.

    Each number becomes the nearest multiple of the scale of its block, which is ``|max| / 127`` of 8 bits and
    ``|max| / 7`` of 4.  Of 2 bits it becomes -3, -1, 1 or 3 times a scale, that of least squares.

    Parameters
    ----------
    x : array, (..., n), Ket, KroneckerMatrix, KroneckerSum or CodebookTable
        Real; of integers and nested lists the numbers.  Of an object its leaves, or its codebooks and its
        decoder, become quantized; a row scale stays as it is, since one that is rounded to zero loses a row
        (``quantize(scale)`` stands in its place).
    bits : {8, 4, 2}, default 8
        What a number takes.
    block : int, default 32
        The neighbouring numbers that share a scale, >= 1; the last block may have fewer.  Of an array they
        stand along the last axis; of an object along all axes of a leaf in C order, but for terms, and for
        the batch of a ket, whose blocks may reach over two modes.

    Returns
    -------
    QuantizedArray, or an object of the class of `x`
        It decodes to float32 of the same library and device.

    Raises
    ------
    TypeError
        On other kinds, on complex numbers, and on arrays that require gradients or are traced.
    ValueError
        On an array without axes, on bits and on block, and on numbers that are not finite or beyond float32
        (of 2 bits beyond two thirds of it), with the place of the first.

    See Also
    --------
    QuantizedArray : What is stored, and what decodes it.
    save : Writes it as it is.

    Notes
    -----
    Cost: two passes on the host, of 2 bits with a sort of each block; memory that of the result, and some
    blocks of float64.

    A number differs from what it decodes to by at most half a scale; of 2 bits by at most one, but for the
    largest ones.  Of these zero is none of the four levels: only blocks of zeros, which have the scale 0,
    stay exact.  Scales are rounded up: to float16 where none of them is too large or too small for that, else
    to 17 significant bits as float32.  With float16 a number takes ``bits + 16 / block`` bits.

    To quantize what it decodes to gives the same integers and scales, unless some scales lie below the normal
    numbers of float32.

    Modes of a KroneckerMatrix that are marked as identities in all terms are kept as float32, and remain so;
    marks of single terms are dropped, since what is decoded is no exact identity.

    Examples
    --------
    >>> small = quantize([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]], bits=4)
    >>> small.nbytes, small.dequantize().round(2)
    (8, array([[0.  , 0.86, 2.  ],
           [0.  , 0.  , 0.  ]], dtype=float32))
    >>> matrix = KroneckerMatrix.random((5000, 64), order=2, rank=4, rng=0)
    >>> matrix.nbytes, quantize(matrix).nbytes, quantize(matrix, bits=4).nbytes
    (38400, 5104, 2704)
    """
    bits, block = check_bits(bits), check_int("block", block, 1)
    if not isinstance(x, Structured):
        return _quantized("x", x, bits, block, -1)
    if isinstance(x, Ket):
        return Ket.from_packed(_quantized("x.packed", x.packed, bits, block, x.ndim - 1), x.dims)
    if isinstance(x, CodebookTable):
        # Without codes a vector belongs to one word, which is to be decoded alone.
        books = _several("x.codebooks", x.codebooks, bits, block, 2 if x.codes is None else 1)
        decoder = None if x.decoder is None else _quantized("x.decoder", x.decoder, bits, block, 0)
        return CodebookTable(books, x.codes, x.stored_row_scale, decoder)
    if isinstance(x, KroneckerSum):
        return KroneckerSum(_several("x.factors", x.factors, bits, block, 0))
    if isinstance(x, KroneckerMatrix):
        return _matrix(x, bits, block)
    kinds = "an array, Ket, KroneckerMatrix, KroneckerSum or CodebookTable"
    raise TypeError(f"x must be {kinds}, got {type(x).__name__}")


def _several(name, arrays, bits, block, lead):
    return [_quantized(f"{name}[{n}]", array, bits, block, lead) for n, array in enumerate(arrays)]


def _matrix(x, bits, block):
    """A Kronecker matrix, but for the modes that are identities."""
    single = x.dequantize()
    xp = namespace_of(single.factors[0])
    found = [
        xp.astype(factor, xp.float32)
        if n in x.identities
        else _quantized(f"x.factors[{n}]", factor, bits, block, 1)
        for n, factor in enumerate(single.factors)
    ]
    return KroneckerMatrix(found, x.shape, x.identities)


def _quantized(name, x, bits, block, lead):
    """A real array, which is checked, with its numbers encoded; lines are its axes from `lead` on."""
    (array,) = as_floating(name, (as_array(name, x),))
    xp = namespace_of(array)
    if not is_floating(xp, array.dtype) or is_complex(xp, array.dtype):
        raise TypeError(f"{name} must have a real dtype, got {array.dtype}")
    check_constant(name, (array,), "quantize", "an array")
    if not array.ndim:
        raise ValueError(f"{name} must have at least one axis, got shape ()")
    # NumPy has no bfloat16.
    host = to_host(widened(array))
    lead = host.ndim - 1 if lead < 0 else lead
    values, scales = encoded(name, host, bits, block, lead, hasattr(xp, "float16"))
    return QuantizedArray(beside(values, array), beside(scales, array), tuple(host.shape), bits, block)
