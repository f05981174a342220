"""Values for the arrays that strategies draw: simple ones, generic ones, huge and tiny ones; they shrink.

An entry is a code of eight bits that a table turns into a value, in the order of the table: 0, 1, -1, 2, ...
So a whole array is one draw of bytes, which costs what a single number does, and hypothesis shrinks it
entry by entry, toward 0, then 1.  Which table it is, is drawn before: most often the generic one, to which it
shrinks.
"""

from functools import lru_cache
from math import prod
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np
from hypothesis import strategies as st

from ketcore.array_types import Host
from ketcore.testing.values import dtype_name

__tracebackhide__ = True

Elements: TypeAlias = Literal["wide", "normal", "extreme"] | st.SearchStrategy[Any]

_SIMPLE = (0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5)
# By the name of the real dtype: exponents of the first power of two beyond the range, of the smallest normal
# number and of the smallest number.
_EXPONENTS = {
    "float16": (16, -14, -24),
    "bfloat16": (128, -126, -133),
    "float32": (128, -126, -149),
    "float64": (1024, -1022, -1074),
}
# Twice this part of the exponents leaves a quarter of them to sums of squares of products.
_PART = 3 / 8
# hypothesis refuses examples of more than 8 kB: this leaves room for dozens of arrays of up to 5 x 5 x 5.
_LONGEST = 128
_CODES = 256
# Half of the arrays are generic ones.
_TABLES = st.sampled_from((0, 0, 0, 0, 1, 1, 2, 3))
_BYTES = st.binary(min_size=_LONGEST, max_size=_LONGEST)
_SEEDS = st.integers(0, 2**32 - 1)


def huge_exponent(dtype: Any, order: int = 1) -> int:
    """The exponent of the power of two that counts as huge: squares of products of `order` of it are finite.

    >>> huge_exponent("float32"), huge_exponent("float32", 4), huge_exponent("complex128", 4)
    (48, 12, 96)
    """
    return int(_EXPONENTS[_real_name(dtype)][0] * _PART / max(order, 1))


def draw_elements(
    draw: st.DrawFn, shape: tuple[int, ...], dtype: np.dtype, elements: Elements = "wide", order: int = 1
) -> Host:
    """An array of `shape` and `dtype` with entries as `arrays` describes them."""
    if isinstance(elements, st.SearchStrategy):
        return draw(_by_strategy(shape, dtype, elements))
    if elements not in ("wide", "normal", "extreme"):
        names = "'wide', 'normal', 'extreme' or a strategy of numbers"
        raise ValueError(f"elements must be {names}, got {elements!r}")
    if elements == "normal":
        rng = np.random.default_rng(draw(_SEEDS))
        values = rng.standard_normal(shape)
        imaginary = rng.standard_normal(shape) if dtype.kind == "c" else None
    elif _real_name(dtype) not in _EXPONENTS:
        # Small enough for every integer and for bool.
        values, imaginary = _codes(draw, shape) % 10, None
    else:
        table = _tables(_real_name(dtype), elements, order)[draw(_TABLES)]
        values = table[_codes(draw, shape)]
        imaginary = table[_codes(draw, shape)] if dtype.kind == "c" else None
    return np.asarray(values if imaginary is None else values + 1j * imaginary).astype(dtype)


def _codes(draw, shape):
    """Codes of entries; those of a large array follow from a seed, where 0 has zeros alone and 1 ones."""
    if prod(shape) <= _LONGEST:
        # Always as many, whatever the shape: hypothesis keeps them while it tries smaller shapes.
        return np.frombuffer(draw(_BYTES), np.uint8)[_places(shape)]
    seed = draw(_SEEDS)
    return np.random.default_rng(seed).integers(_CODES, size=shape) if seed > 1 else np.full(shape, seed)


@lru_cache(maxsize=1024)
def _places(shape):
    """Where the code of each entry is among all codes: cropping a shape moves none, and the corner is last.

    Entries are counted by their largest index first.  hypothesis sorts bytes as it shrinks them, so that what
    is not zero goes to the end, which is the corner that is left when a shape is cropped.
    """
    side = max(shape, default=1)
    whole = (side,) * len(shape) if side ** len(shape) <= _LONGEST else shape
    index = np.indices(whole).reshape(len(whole), -1)
    # Without axes there is one entry, and no index.
    order = np.lexsort((*index[::-1], index.max(axis=0))) if len(whole) else np.zeros(1, int)
    places = np.empty(len(order), int)
    places[order] = np.arange(len(order))
    return _LONGEST - 1 - places.reshape(whole)[tuple(slice(size) for size in shape)]


def _by_strategy(shape, dtype, elements):
    from hypothesis.extra.numpy import arrays

    if dtype_name(dtype) == "bfloat16":
        return arrays(np.float32, shape, elements=elements).map(lambda found: found.astype(dtype))
    return arrays(dtype, shape, elements=elements)


def _real_name(dtype):
    return {"complex64": "float32", "complex128": "float64"}.get(name := dtype_name(dtype), name)


@lru_cache(maxsize=64)
def _tables(name, elements, order):
    """Tables of values, all of which begin with the simple ones."""
    beyond, normal, smallest = _EXPONENTS[name]
    huge = 2.0 ** huge_exponent(name, order)
    # The largest number; the smallest one with full precision; the smallest one.
    ends = [np.ldexp(1 - 2.0**-7, beyond), 2.0**normal, 2.0**smallest]
    ends += [-end for end in ends]
    simple = _SIMPLE if elements == "wide" else (*_SIMPLE, *ends)
    count = _CODES - len(simple)
    quantiles = [NormalDist().inv_cdf((k + 0.5) / count) for k in range(count)]
    # The nearest to zero first, so that entries become smaller as they shrink.
    generic, few = np.array([*simple, *sorted(quantiles, key=abs)]), np.resize(_SIMPLE[:5], _CODES)
    if elements == "wide":
        # Throughout: beside a huge entry rounding hides what the others should be.
        return generic, few, generic * huge, generic / huge
    return generic, few, np.resize(simple, _CODES), np.resize((*_SIMPLE[:2], *ends), _CODES)
