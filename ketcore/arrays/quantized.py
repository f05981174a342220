"""Arrays of 8, 4 or 2 bits a number, with one scale for each block, and where they are decoded.

    x[..., i] ~ scales[..., i // block] v[..., i]

v are integers, |v| <= 127 of 8 bits and <= 7 of 4 bits, and -3, -1, 1 or 3 of 2 bits.

A line is what i counts: the last axis, or several of the last axes in C order.

Of 4 bits two numbers lie in one byte, as v + 8, of 2 bits four, as (v + 3) / 2: the first one in the lowest
bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from ketcore.array_types import AnyArray, ArrayT
from ketcore.arrays.autodiff import as_leaf_view, from_leaf_view
from ketcore.arrays.elementary import as_dtype, itemsize, reshaped
from ketcore.arrays.namespaces import (
    device_of,
    dtype_name,
    is_array,
    is_numpy,
    namespace,
    namespace_of,
    quiet,
    to_host,
)
from ketcore.shapes import check_int, shown

# The largest integer that a number is stored as: -128 and -8 have no opposite, and are not made.
_LARGEST = {8: 127, 4: 7, 2: 3}
# Of a scale: times an integer of 7 bits it is a number of float32, so that what is decoded is exact, and is
# stored as the same integers and scales once more.
_SCALE_BITS = 17
# By as much of it a number stays below the largest of float32: its scale is rounded up by less.
_MARGIN = 2.0**-15
# Numbers that are encoded at once: what is made of them on the way stays in the cache.
_CHUNK_NUMBERS = 1 << 16


@dataclass(frozen=True, init=False, repr=False, eq=False)
class QuantizedArray(Generic[ArrayT]):
    """An array of 8, 4 or 2 bits a number, with one scale for each block of them.

    With integers v, of which `values` has each in a byte, or two in one, and lines of n numbers that i
    counts::

        x[..., i] = scales[..., i // block] v[..., i]

    `quantize` makes it of an array.  It stands wherever a function takes a floating array, which then
    computes with what it decodes to.

    Parameters
    ----------
    values : array, (..., n), (..., ceil(n / 2)) or (..., ceil(n / 4))
        Of int8 with 8 bits.  With 4 bits of uint8: the number i of a line is v + 8, in the low half of the
        byte ``i // 2`` where i is even, in its high half where i is odd.  With 2 bits of uint8: it is
        ``(v + 3) / 2``, v one of -3, -1, 1 and 3, in the byte ``i // 4`` from bit ``2 (i % 4)`` on.  Bits
        that are left over count for nothing.
    scales : array, (..., ceil(n / block))
        Of float16 or float32.
    shape : sequence of ints, (..., n)
        Of what it decodes to.  A line may be several axes, whose sizes multiply to n, in C order.
    bits : {8, 4, 2}, default 8
        What a number takes.
    block : int, default 32
        The numbers that share a scale, >= 1; the last block of a line may have fewer.

    Attributes
    ----------
    values : array
    scales : array
    shape : tuple of ints
    bits : int
    block : int

    Raises
    ------
    TypeError
        On dtypes, and on mixed libraries or devices.
    ValueError
        On shapes, on bits and on block.

    See Also
    --------
    quantize : Makes one, and objects of them.

    Notes
    -----
    Immutable; `==` is identity, and arrays are kept, not copied.  It decodes to float32, whatever it was
    made of, in one multiplication for each number.  Operations decode it once a call, as a whole, `ket_rows`
    of few ids too; a `Ket` that holds it picks first.  To an operation it is a float32 array, with which sums
    and derivatives are those of float32.  A gradient is that of the decoded array.  What takes none says so:
    `dequantize()` serves instead.

    Values are not looked at: scales that are not finite give numbers that are not.

    Examples
    --------
    >>> values, scales = np.array([127, -64, 1], np.int8), np.array([0.5, 2.0], np.float32)
    >>> q = QuantizedArray(values, scales, (3,), block=2)
    >>> q.dequantize().tolist(), q.nbytes
    ([63.5, -32.0, 2.0], 11)
    """

    values: ArrayT
    scales: ArrayT
    shape: tuple[int, ...]
    bits: int
    block: int

    def __init__(
        self, values: ArrayT, scales: ArrayT, shape: Sequence[int], bits: int = 8, block: int = 32
    ) -> None:
        bits, block = check_bits(bits), check_int("block", block, 1)
        if not isinstance(shape, list | tuple):
            raise TypeError(f"shape must be a tuple of ints, got {shown(shape)}")
        shape = tuple([check_int("shape", size, 0) for size in shape])
        for name, array in (("values", values), ("scales", scales)):
            if not is_array(array) or isinstance(array, np.ma.MaskedArray):
                raise TypeError(f"{name} must be an array without a mask, got {type(array).__name__}")
        namespace("values and scales", (values, scales))
        stored, known = ("int8" if bits == 8 else "uint8"), dtype_name(scales.dtype)
        if dtype_name(values.dtype) != stored:
            raise TypeError(f"values must have dtype {stored} with {bits} bits, got {values.dtype}")
        if known not in ("float16", "float32"):
            raise TypeError(f"scales must have dtype float16 or float32, got {scales.dtype}")
        lead, last = shape[: values.ndim - 1], prod(shape[values.ndim - 1 :])
        if not 0 < values.ndim <= len(shape):
            rule = f"have at least as many axes as values, {max(values.ndim, 1)}"
            raise ValueError(f"shape must {rule}, got {shown(shape)}")
        lengths = {"values": -(-last * bits // 8), "scales": -(-last // block)}
        for name, array in (("values", values), ("scales", scales)):
            if tuple(array.shape) != (*lead, lengths[name]):
                rule = f"have shape {shown((*lead, lengths[name]))}"
                why = f"for shape {shown(shape)}, {bits} bits and block {shown(block)}"
                raise ValueError(f"{name} must {rule} {why}, got {tuple(array.shape)}")
        named = {"values": values, "scales": scales, "shape": shape, "bits": bits, "block": block}
        for name, value in named.items():
            object.__setattr__(self, name, value)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return prod(self.shape)

    @property
    def dtype(self) -> Any:
        """The dtype that it decodes to: float32 of its library."""
        return self.like().dtype

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return sum(prod(array.shape) * itemsize(array) for array in (self.values, self.scales))

    def like(self) -> ArrayT:
        """An array without numbers of the library, the device and the dtype that it decodes to.

        Returns
        -------
        array, (0,)
        """
        xp: Any = namespace_of(self.scales)
        empty: Any = xp.zeros((0,), dtype=xp.float32, device=device_of(self.scales))
        return empty

    @quiet
    def dequantize(self) -> ArrayT:
        """The numbers as a new array of float32.

        Returns
        -------
        array, (..., n)

        Notes
        -----
        Cost: one multiplication a number; memory that of the result, and as much again with 4 or 2 bits or
        in other libraries than NumPy.

        Examples
        --------
        >>> from ketcore import quantize
        >>> quantize([0.0, 1.0, -2.0], bits=4).dequantize().round(2)
        array([ 0.  ,  0.86, -2.  ], dtype=float32)
        """
        xp, last = namespace_of(self.values), prod(self.shape[self.values.ndim - 1 :])
        integers = self.values if self.bits == 8 else _unpacked(xp, self.values, last, self.bits)
        scales = as_dtype(xp, self.scales, self.dtype)
        width = max(1, min(self.block, last))
        if is_numpy(integers) and last and not last % width:
            found: Any = np.ascontiguousarray(integers, np.float32)
            blocks = found.reshape((*scales.shape, width))
            blocks *= scales[..., None]
        else:
            found = as_dtype(xp, integers, self.dtype) * _spread(xp, scales, width, last)
        return reshaped(xp, found, self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """What `np.asarray` makes of it: the numbers, in host memory."""
        if copy is False:
            raise ValueError("copy must be None or True for a QuantizedArray, got False (see dequantize)")
        found = to_host(self.dequantize())
        return found if dtype is None else found.astype(dtype, copy=False)

    # Checkers are told of no attribute and no operator that is not there.
    if not TYPE_CHECKING:

        def __getattr__(self, name):
            text = f"a QuantizedArray has no {name}: dequantize() makes an array"
            raise AttributeError(text, name=name, obj=self)

        def _refuse(self, *operands):
            """No arithmetic, and no elements: it would be decoded once for each."""
            raise TypeError("a QuantizedArray must be made an array by dequantize(), got an operation on it")

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
        __matmul__ = __rmatmul__ = __neg__ = __getitem__ = __len__ = __float__ = _refuse

    def __repr__(self) -> str:
        sizes = f"shape={self.shape}, bits={self.bits}, block={self.block}"
        return f"QuantizedArray({sizes}, scales={self.scales.dtype}, bytes={self.nbytes:,})"

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {name: as_leaf_view(getattr(self, name)) for name in ("values", "scales")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {name: from_leaf_view(state[name]) for name in ("values", "scales")})


def check_bits(bits: Any) -> int:
    """`bits` as 8, 4 or 2; TypeError or ValueError that names it otherwise."""
    found = check_int("bits", bits, 1)
    if found not in _LARGEST:
        raise ValueError(f"bits must be 8, 4 or 2, got {shown(bits)}")
    return found


def decoded(array: Any) -> Any:
    """What a QuantizedArray decodes to; all else as it is."""
    return array.dequantize() if isinstance(array, QuantizedArray) else array


def is_quantized(arrays: Sequence[Any]) -> bool:
    """Whether any of these is."""
    return any(isinstance(array, QuantizedArray) for array in arrays)


def like_of(array: Any) -> AnyArray:
    """An array of the library, the device and the dtype of what this decodes to; an array as it is."""
    return array.like() if isinstance(array, QuantizedArray) else array


def nbytes_of(array: Any) -> int:
    """Bytes of an array as it is stored."""
    return array.nbytes if isinstance(array, QuantizedArray) else prod(array.shape) * itemsize(array)


def as_kept(xp: ModuleType, arrays: Sequence[Any], dtype: Any = None) -> tuple[Any, ...]:
    """What an object keeps of arrays that promote to `dtype`, some of them quantized: cast to it.

    Those that are quantized stay so where they decode to it.  With None each has the dtype that it has.
    """
    return tuple([array if dtype is None else _cast(xp, array, dtype) for array in arrays])


def _cast(xp, array, dtype):
    if isinstance(array, QuantizedArray) and array.dtype == dtype:
        return array
    return xp.astype(decoded(array), dtype, copy=False)


def with_axes(array: Any, ndim: int) -> Any:
    """With axes of one in front, up to `ndim`; of any kind of array."""
    ones = (1,) * (ndim - array.ndim)
    if not isinstance(array, QuantizedArray):
        return reshaped(namespace_of(array), array, (*ones, *array.shape))
    return recast(array, lambda xp, part: reshaped(xp, part, (*ones, *part.shape))) if ones else array


def recast(
    array: QuantizedArray[Any], change: Callable[[ModuleType, AnyArray], AnyArray]
) -> QuantizedArray[Any]:
    """The array of changed values and scales, the lines of which stay."""
    xp = namespace_of(array.values)
    values, scales, line = change(xp, array.values), change(xp, array.scales), array.values.ndim - 1
    return QuantizedArray(values, scales, (*values.shape[:-1], *array.shape[line:]), array.bits, array.block)


def encoded(name: str, x: Any, bits: int, block: int, lead: int, half: bool) -> tuple[np.ndarray, np.ndarray]:
    """Values and scales of a real array of NumPy: each number to the nearest one that its scale allows.

    Lines are all axes but the first `lead`.  A scale is |max| of its block over the largest integer, so that
    no number is cut, and of 2 bits that of least squares; it is rounded up.  With `half` scales are float16
    where those that are not zero are normal numbers of that, else float32.  ValueError on what is not finite,
    and on what float32 does not hold.
    """
    x = np.ascontiguousarray(x)
    sizes, last = x.shape[:lead], prod(x.shape[lead:])
    width, largest = max(1, min(block, last)), _LARGEST[bits]
    lines, blocks = x.reshape((prod(sizes), last)), -(-last // block)
    tops, best = np.zeros((len(lines), blocks)), np.zeros((len(lines), blocks))
    values = np.zeros((len(lines), -(-last * bits // 8)), np.int8 if bits == 8 else np.uint8)
    counts = np.minimum(width, last - width * np.arange(blocks))
    step = max(1, _CHUNK_NUMBERS // max(1, last))
    for start in range(0, len(lines) if last else 0, step):
        padded = _in_blocks(lines[start : start + step], blocks, width)
        tops[start : start + step] = np.abs(padded).max(axis=-1)
        if bits == 2:
            best[start : start + step] = _best_of_two_bits(padded, counts)
    _check_finite(name, x, tops, bits)
    scales = _rounded_up(best if bits == 2 else tops / largest, half)
    for start in range(0, len(lines) if last else 0, step):
        padded = _in_blocks(lines[start : start + step], blocks, width)
        scale = scales[start : start + step].astype(np.float64)
        # A block of zeros has the scale 0.
        inverse = np.divide(1.0, scale, out=np.zeros(scale.shape), where=scale > 0)
        multiples = (padded * inverse[..., None]).reshape((len(padded), blocks * width))[:, :last]
        if bits == 2:
            codes = np.where(multiples < 0, 1 - (multiples < -2), 2 + (multiples > 2))
            values[start : start + step] = _packed(codes, bits)
        else:
            rounded = np.rint(multiples)
            values[start : start + step] = rounded if bits == 8 else _packed(rounded + 8, bits)
    return values.reshape((*sizes, values.shape[1])), scales.reshape((*sizes, blocks))


def _in_blocks(lines, blocks, width):
    """Lines (b, n) in float64 as blocks (b, blocks, width), with zeros behind the last number."""
    padded = np.zeros((len(lines), blocks * width))
    padded[:, : lines.shape[1]] = lines
    return padded.reshape((len(lines), blocks, width))


def _best_of_two_bits(padded, counts):
    """The scales (b, blocks) that leave the least sum of squares, of blocks (b, blocks, width).

    Of n numbers let the k largest be 3 times the scale and all others once, in absolute value, and t_k be
    their sum in which those k count thrice.  The best scale is ``t_k / (n + 8 k)``, and takes
    ``t_k^2 / (n + 8 k)`` from the sum of squares.  All k are tried but n, which is the same as 0: what is
    decoded then has these scales once more.
    """
    sizes = np.sort(np.abs(padded), axis=-1)[..., ::-1]
    k = np.arange(sizes.shape[-1])
    above = np.cumsum(sizes, axis=-1) - sizes
    weights = counts[:, None] + 8.0 * k
    scales = (sizes.sum(axis=-1, keepdims=True) + 2 * above) / weights
    gains = np.where(k < counts[:, None], scales * scales * weights, -1.0)
    best = np.argmax(gains, axis=-1)[..., None]
    return np.take_along_axis(scales, best, axis=-1)[..., 0]


def _check_finite(name, x, tops, bits):
    """ValueError, with the place of the first, on numbers, of the largest `tops`, that decode to none."""
    most = float(np.finfo(np.float32).max) * (1 - _MARGIN)
    if bits == 2:
        # Three times a scale is at most 3 / 2 of the largest number.
        most *= 2 / 3
    if np.all(tops <= most):
        return
    wrong = np.argwhere(~(np.abs(x.astype(np.float64)) <= most))[0].tolist()
    rule = "be finite, and within the range of float32"
    raise ValueError(f"{name} must {rule}, got {x[tuple(wrong)]} at {wrong}")


def _rounded_up(exact, half):
    """Numbers as the next ones above, of float16 where `half` allows it, or of float32."""
    wide, known = _ceiled(exact, _SCALE_BITS), np.finfo(np.float16)
    some = wide[wide > 0]
    if half and np.all((some >= known.tiny) & (some <= known.max)):
        return _ceiled(wide, known.nmant + 1).astype(np.float16)
    found = wide.astype(np.float32)
    # Below the normal numbers float32 has fewer bits.
    return np.where(found < exact, np.nextafter(found, np.float32(np.inf)), found)


def _ceiled(numbers, bits):
    """The next numbers above of so many significant bits."""
    fractions, exponents = np.frexp(numbers)
    return np.ldexp(np.ceil(np.ldexp(fractions, bits)), exponents - bits)


def _packed(codes, bits):
    """Numbers (b, n) of 4 or 2 bits as bytes, the first one in the lowest bits."""
    number = 8 // bits
    even = np.zeros((len(codes), number * -(-codes.shape[1] // number)), np.uint8)
    even[:, : codes.shape[1]] = codes
    return reduce(np.bitwise_or, [even[:, m::number] << bits * m for m in range(number)])


def _unpacked(xp, values, last, bits):
    """The `last` integers of each line of bytes, as int8."""
    number, mask = 8 // bits, 2**bits - 1
    parts = xp.stack([(values >> bits * m) & mask for m in range(number)], axis=-1)
    parts = reshaped(xp, parts, (*values.shape[:-1], number * values.shape[-1]))[..., :last]
    codes = as_dtype(xp, parts, xp.int8)
    return codes - 8 if bits == 4 else 2 * codes - 3


def _spread(xp, scales, width, last):
    """The scale of each number (..., last), of scales (..., blocks)."""
    spread = xp.broadcast_to(scales[..., None], (*scales.shape, width))
    return reshaped(xp, spread, (*scales.shape[:-1], scales.shape[-1] * width))[..., :last]
