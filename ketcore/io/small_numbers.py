"""Arrays of 8, 4 or 2 bits a number as tensors of a file, and back.

factors.0.values, factors.0.scales      of a QuantizedArray in the place of factors.0, with
["factors.0", bits, block, shape]       in the list `quantized` of the metadata
"""

from collections.abc import Collection, Mapping, Sequence
from reprlib import repr as shortened
from typing import Any

from ketcore.array_types import AnyArray
from ketcore.arrays.quantized import QuantizedArray
from ketcore.io.tensor_header import Tensor

# The first words of the names of tensors that may be quantized.
_MAY_BE = ("packed", "factors", "codebooks", "decoder", "row_scale")
# What the format calls the dtypes of the tensors.
_DTYPES = {"values": ("I8", "U8"), "scales": ("F16", "F32")}


def quantized_entries(arrays: Mapping[str, Any]) -> list[list[Any]]:
    """The entries of the metadata, one for each array that is quantized."""
    found = {name: array for name, array in arrays.items() if isinstance(array, QuantizedArray)}
    return [[name, array.bits, array.block, list(array.shape)] for name, array in found.items()]


def quantized_version(entries: Sequence[Sequence[Any]]) -> int:
    """The oldest version of files that describes these entries."""
    if any(bits == 2 or name == "row_scale" for name, bits, *_ in entries):
        return 3
    return 2 if entries else 1


def split(arrays: Mapping[str, Any]) -> dict[str, AnyArray]:
    """The arrays by name, with two for each that is quantized."""
    found: dict[str, AnyArray] = {}
    for name, array in arrays.items():
        quantized = isinstance(array, QuantizedArray)
        found |= {f"{name}.{part}": getattr(array, part) for part in _DTYPES} if quantized else {name: array}
    return found


def check_described(entries: Sequence[Any], tensors: Mapping[str, Tensor]) -> dict[str, tuple[Any, ...]]:
    """Bits, block and shape by the names of quantized arrays; ValueError on tensors."""
    found: dict[str, tuple[Any, ...]] = {}
    for entry in entries:
        named = isinstance(entry, list) and len(entry) == 4 and isinstance(entry[0], str)
        if not named or entry[0].partition(".")[0] not in _MAY_BE or not isinstance(entry[3], list):
            rule = f"lists [name, bits, block, shape] with names of {', '.join(_MAY_BE)}"
            raise ValueError(f"quantized must be {rule}, got {shortened(entry)}")
        name = entry[0]
        if name in found or name in tensors:
            raise ValueError(f"quantized must have each name once, and no tensor's, got {shortened(name)}")
        for part, dtypes in _DTYPES.items():
            tensor = tensors.get(f"{name}.{part}")
            if tensor is None or tensor.dtype not in dtypes:
                got = "none" if tensor is None else tensor.dtype
                raise ValueError(f"tensor {name}.{part} must be there in {' or '.join(dtypes)}, got {got}")
        found[name] = tuple(entry[1:])
    return found


def parts_of(names: Collection[str]) -> set[str]:
    """The names of the tensors of these quantized arrays."""
    return {f"{name}.{part}" for name in names for part in _DTYPES}


def with_quantized(arrays: Mapping[str, AnyArray], known: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """The arrays by name, of what a file has; ValueError or TypeError on sizes that do not fit."""
    found: dict[str, Any] = {name: array for name, array in arrays.items() if name not in parts_of(known)}
    for name, (bits, block, shape) in known.items():
        values, scales = (arrays[f"{name}.{part}"] for part in _DTYPES)
        found[name] = QuantizedArray(values, scales, shape, bits, block)
    return found
