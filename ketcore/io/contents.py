"""What a file holds of an object of each kind, and the object that this makes.

    Ket                             packed                     (..., R, sum q_n)
    KroneckerMatrix, KroneckerSum   factors.0, factors.1, ...
    KroneckerMatrix                 identities                 (R, N), the factors that are known to be one
    KroneckerProduct                parts.0, parts.1, ...      of dense and of diagonal parts, whose values
                                    parts.0.data, .indices, .indptr    of sparse ones
    Diagonal                        values
    CodebookTable                   codebooks.0, codebooks.1, ...
                                    codes                      (words, N, R), those of a word together;
                                                               N counts the codebooks that have codes
                                    row_scale, decoder         where it has them
                                    code_bits                  (1,), of packed codes (words, bytes), or
                                                               (2,) with N, where some have no codes
    Permutation, Identity           nothing but their sizes

Leaves, codebooks, decoders and row scales stand there as they are kept, and may be quantized.

Reading makes an object of what was checked to be there; its constructor checks the rest.
"""

from collections.abc import Mapping, Sequence
from math import prod
from reprlib import repr as shortened
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import permuted
from ketcore.arrays.namespaces import namespace_of
from ketcore.objects.codebook_table import CodebookTable
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import KroneckerProduct
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.objects.packed_codes import PackedCodes
from ketcore.objects.parts import Diagonal, Identity, is_sparse
from ketcore.objects.permutation import Permutation

# The sizes of each kind that a file says: attributes of the object.
SIZES: dict[type, tuple[str, ...]] = {
    Ket: ("shape", "dims"),
    KroneckerMatrix: ("shape", "row_dims", "col_dims"),
    KroneckerSum: ("shape", "dims"),
    KroneckerProduct: ("shape", "row_dims", "col_dims"),
    Permutation: ("shape", "dims", "order"),
    Diagonal: ("shape",),
    Identity: ("shape",),
    CodebookTable: ("shape", "dims"),
}
# Tensors that a file of a kind may have or not.
OPTIONAL: dict[type, tuple[str, ...]] = {
    KroneckerMatrix: ("identities",),
    CodebookTable: ("codes", "row_scale", "decoder", "code_bits"),
}
_SPARSE = ("csr_array", "csc_array", "csr_matrix", "csc_matrix")
_PARTS = ("dense", "diagonal", "identity", *_SPARSE)
# What is no number of the object, and stays in the host's memory.
_COUNTS = ("identities", "indices", "indptr", "codes", "code_bits")


def is_count(name: str) -> bool:
    """Whether a tensor of this name says where numbers are, and is none of them."""
    return name.rpartition(".")[2] in _COUNTS


def named_arrays(obj: Any) -> dict[str, AnyArray]:
    """The arrays of an object, by the names that they have in a file."""
    if isinstance(obj, Ket):
        return {"packed": obj.stored}
    if isinstance(obj, Diagonal):
        return {"values": obj.values}
    if isinstance(obj, CodebookTable):
        return _of_codebooks(obj)
    if isinstance(obj, KroneckerProduct):
        return {name: array for n, part in enumerate(obj.parts) for name, array in _of_part(n, part)}
    if not isinstance(obj, KroneckerMatrix | KroneckerSum):
        return {}
    found = {f"factors.{n}": factor for n, factor in enumerate(obj.stored)}
    if isinstance(obj, KroneckerMatrix) and any(obj.term_identities):
        known = np.zeros((obj.rank, obj.order), np.bool)
        for term, modes in zip(known, obj.term_identities, strict=True):
            term[list(modes)] = True
        found["identities"] = known
    return found


def _of_codebooks(table):
    """The arrays of a table of codes."""
    found = {f"codebooks.{n}": book for n, book in enumerate(table.stored)}
    if isinstance(table.codes, PackedCodes):
        # How many codebooks have codes: those of a word fill whole bytes, which do not tell.
        counts = [table.codes.bits, table.codes.order][: 1 + lacks_codes(table)]
        found |= {"codes": table.codes.packed, "code_bits": np.array(counts, np.uint8)}
    elif table.codes is not None:
        found["codes"] = permuted(namespace_of(table.codes), table.codes, (2, 0, 1))
    named = {"row_scale": table.stored_row_scale, "decoder": table.stored_decoder}
    return found | {name: array for name, array in named.items() if array is not None}


def lacks_codes(obj: Any) -> bool:
    """Whether an object is a table of codes, some of which are left out."""
    return isinstance(obj, CodebookTable) and (obj.codes is None or obj.codes.shape[0] < obj.order)


def _of_part(n, part):
    """The names and arrays under which a part is stored."""
    if is_sparse(part):
        # Behind the last number that counts there may be room for more.
        count = int(part.indptr[-1])
        return [
            (f"parts.{n}.data", part.data[:count]),
            (f"parts.{n}.indices", part.indices[:count]),
            (f"parts.{n}.indptr", part.indptr),
        ]
    if isinstance(part, Identity):
        return []
    return [(f"parts.{n}", part.values if isinstance(part, Diagonal) else part)]


def part_kinds(product: KroneckerProduct[Any]) -> list[str]:
    """What a file calls each part."""
    return [_part_kind(part) for part in product.parts]


def _part_kind(part):
    if is_sparse(part):
        names = [base.__name__ for base in type(part).__mro__]
        return next((name for name in names if name in _SPARSE), f"{part.format}_array")
    return type(part).__name__.lower() if isinstance(part, Diagonal | Identity) else "dense"


def tensor_names(kind: type, sizes: Mapping[str, Sequence[int]], parts: Sequence[Any]) -> list[str]:
    """The tensors that a file of this kind has, but for those of `OPTIONAL`; ValueError on `parts`."""
    if kind is Ket or kind is Diagonal:
        return ["packed" if kind is Ket else "values"]
    if kind is KroneckerMatrix or kind is KroneckerSum:
        count = len(sizes["dims" if kind is KroneckerSum else "row_dims"])
        return [f"factors.{n}" for n in range(count)]
    if kind is CodebookTable:
        return [f"codebooks.{n}" for n in range(len(sizes["dims"]))]
    if kind is not KroneckerProduct:
        return []
    orders = {len(parts), len(sizes["row_dims"]), len(sizes["col_dims"])}
    if len(orders) > 1 or not all(isinstance(part, str) and part in _PARTS for part in parts):
        rule = f"{len(sizes['row_dims'])} kinds among {', '.join(_PARTS)}, for the row_dims and col_dims"
        raise ValueError(f"parts must be {rule}, got {shortened(parts)}")
    found = []
    for n, part in enumerate(parts):
        if part in _SPARSE:
            found += [f"parts.{n}.{name}" for name in ("data", "indices", "indptr")]
        elif part != "identity":
            found.append(f"parts.{n}")
    return found


def rebuilt(
    kind: type, sizes: Mapping[str, Sequence[int]], parts: Sequence[str], arrays: Mapping[str, AnyArray]
) -> Any:
    """The object of these arrays; ValueError where its sizes are others, and what its constructor raises."""
    made = _made(kind, sizes, parts, arrays)
    for name in SIZES[kind]:
        found = getattr(made, name)
        if tuple(found) != tuple(sizes[name]):
            raise ValueError(
                f"{name} must be {shortened(found)}, as of the tensors, got {shortened(sizes[name])}"
            )
    return made


def _made(kind, sizes, parts, arrays):
    """An object of one kind, of what a file holds."""
    if kind is Ket:
        return Ket.from_packed(arrays["packed"], sizes["dims"])
    if kind is Permutation:
        return Permutation(sizes["dims"], sizes["order"])
    if kind is Identity:
        return Identity(prod(sizes["shape"][:1]))
    if kind is Diagonal:
        return Diagonal(arrays["values"])
    if kind is KroneckerProduct:
        return KroneckerProduct([_part(n, part, sizes, arrays) for n, part in enumerate(parts)])
    if kind is CodebookTable:
        return _codebook_table(sizes, arrays)
    factors = [arrays[name] for name in tensor_names(kind, sizes, parts)]
    if kind is KroneckerSum:
        return KroneckerSum(factors)
    if any(factor.ndim != 3 for factor in factors):
        shapes = [tuple(factor.shape) for factor in factors]
        raise ValueError(f"factors must be arrays (rank, rows, columns), got shapes {shortened(shapes)}")
    return KroneckerMatrix(factors, sizes["shape"], _identities(arrays, factors))


def _codebook_table(sizes, arrays):
    """A table of codes, of which it keeps the memory that they lie in."""
    codes, bits = arrays.get("codes"), arrays.get("code_bits")
    codebooks = [arrays[f"codebooks.{n}"] for n in range(len(sizes["dims"]))]
    if codes is None:
        if bits is not None:
            raise ValueError("code_bits must stand beside codes, got none")
    elif bits is None:
        if codes.ndim != 3:
            raise ValueError(f"codes must have shape (words, N, R), got {codes.shape}")
        codes = codes.transpose(1, 2, 0)
    else:
        if bits.shape not in ((1,), (2,)) or bits.dtype != np.uint8:
            raise ValueError(f"code_bits must be one or two uint8, got {bits.dtype} {bits.shape}")
        rank = codebooks[0].shape[0] if codebooks and codebooks[0].ndim == 3 else 1
        codes = PackedCodes(codes, int(bits[1]) if len(bits) > 1 else len(codebooks), rank, int(bits[0]))
    return CodebookTable(codebooks, codes, arrays.get("row_scale"), arrays.get("decoder"))


def _identities(arrays, factors):
    """For each term its modes that are identities; none where the file does not say."""
    known = arrays.get("identities")
    if known is None:
        return ()
    shape = factors[0].shape[0] if factors else 0, len(factors)
    if known.shape != shape or known.dtype != np.uint8 or np.max(known, initial=0) > 1:
        got = f"{known.dtype} {known.shape}"
        raise ValueError(
            f"identities must be truth values {shape}, got {got} up to {np.max(known, initial=0)}"
        )
    return tuple(frozenset(np.flatnonzero(term).tolist()) for term in known)


def _part(n, part, sizes, arrays):
    """The part that a file holds under number n."""
    if part == "identity":
        return Identity(sizes["row_dims"][n])
    if part == "diagonal":
        return Diagonal(arrays[f"parts.{n}"])
    if part == "dense":
        return arrays[f"parts.{n}"]
    fields = [arrays[f"parts.{n}.{name}"] for name in ("data", "indices", "indptr")]
    return _sparse(f"parts[{n}]", part, fields, (sizes["row_dims"][n], sizes["col_dims"][n]))


def _sparse(what, kind, fields, shape):
    """A sparse matrix; all that compiled code of SciPy takes for granted is looked at."""
    from scipy import sparse

    data, indices, indptr = fields
    lines, length = shape if kind.startswith("csr") else shape[::-1]
    if any(field.dtype not in (np.int32, np.int64) for field in (indices, indptr)):
        got = f"{indices.dtype} and {indptr.dtype}"
        raise ValueError(f"{what} must have indices and indptr of int32 or int64, got {got}")
    if data.ndim != 1 or indices.shape != data.shape or indptr.shape != (lines + 1,):
        rule = f"data and indices of one length and indptr ({lines + 1},)"
        got = f"shapes {data.shape}, {indices.shape} and {indptr.shape}"
        raise ValueError(f"{what} must have {rule}, got {got}")
    if indptr[0] != 0 or indptr[-1] != len(data) or np.any(indptr[1:] < indptr[:-1]):
        raise ValueError(
            f"{what} must have indptr that ascends from 0 to {len(data)}, got {shortened(indptr)}"
        )
    if len(indices) and not (indices.min() >= 0 and indices.max() < length):
        got = f"{indices.min()} to {indices.max()}"
        raise ValueError(f"{what} must have indices in [0, {length}), got {got}")
    return getattr(sparse, kind)((data, indices, indptr), shape=shape)
