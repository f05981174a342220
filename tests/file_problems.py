"""Objects to be saved, and files that are written by hand."""

import json
from pathlib import Path

import numpy as np
import scipy.sparse

import ketcore as kc

# How an error of a file begins.
FILE = r"path must be a file of ketcore\.save, got '.*', in which "


def same(found, expected):
    """Whether two objects are of one kind, sizes and dtype, with the same bytes in their arrays."""
    assert type(found) is type(expected)
    names = ("shape", "dims", "row_dims", "col_dims", "order", "rank", "dtype", "term_identities", "size")
    for name in names:
        assert getattr(found, name, None) == getattr(expected, name, None), name
    for one, other in zip(contents(found), contents(expected), strict=True):
        assert type(one) is type(other)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            assert one.tobytes() == other.tobytes()
        else:
            assert one == other


def contents(obj):
    """All that is in an object, sparse parts by their arrays."""
    if isinstance(obj, kc.KroneckerProduct):
        for part in obj.parts:
            yield type(part).__name__
            yield from contents(part)
    elif hasattr(obj, "tocsr"):
        yield from (obj.shape, obj.data, obj.indices, obj.indptr)
    elif isinstance(obj, np.ndarray):
        yield obj
    elif isinstance(obj, kc.CodebookTable):
        yield from (*obj.codebooks, getattr(obj.codes, "packed", obj.codes))
        yield obj.code_width
        yield from (each for each in (obj.row_scale, obj.decoder) if each is not None)
    else:
        yield from getattr(obj, "factors", [getattr(obj, "values", None)])


def sparse_parts():
    csr = scipy.sparse.random_array((3, 4), density=0.5, format="csr", rng=0)
    return [
        csr,
        csr.T,
        scipy.sparse.csr_matrix(csr),
        scipy.sparse.csc_matrix(1j * csr),
        csr.tocoo(),
        csr.todia(),
    ]


A, B = np.arange(6.0).reshape(2, 3), np.array([[1.0, -0.0], [np.nan, np.inf]])
OBJECTS = {
    "ket": kc.ket([1.0, 2.0], [3.0]),
    "kets": kc.Ket.random((2, 3), rank=2, batch_shape=(4, 1), rng=0, dtype="complex64"),
    "no kets": kc.Ket.random((2, 3), batch_shape=(0, 2), rng=0),
    "no terms": kc.Ket.random((2, 3), rank=0, rng=0, dtype="complex128"),
    "matrix": kc.KroneckerMatrix([A, B]),
    "turned": kc.KroneckerMatrix([A, 1j * A]).H,
    "cropped": kc.KroneckerMatrix.random((95, 17), order=3, rank=2, rng=0, dtype="float16"),
    "no matrix": kc.KroneckerMatrix.random((4, 4), order=2, rank=0, rng=0),
    "eye": kc.eye((2, 3), dtype="float32"),
    "chain": kc.KroneckerSum([B, B, np.eye(3)]).to_kronecker(),
    "huge": kc.KroneckerMatrix([np.ones((2, 1))] * 200),
    "sum": kc.KroneckerSum([B, 1j * np.eye(3)]),
    "product": kc.KroneckerProduct([A, kc.Diagonal([1.0, 2.0j]), kc.Identity(10**6), A.astype(np.float32).T]),
    "sparse": kc.KroneckerProduct([A, *sparse_parts(), kc.Identity(2)]),
    "identities": kc.KroneckerProduct([kc.Identity(2)]),
    "permutation": kc.Permutation((2, 1, 3), (2, 0, 1)),
    "long permutation": kc.Permutation((2**80, 2**63, 3), (1, 2, 0)),
    "diagonal": kc.Diagonal(np.ones(3, np.float32)),
    "identity": kc.Identity(2**70),
    "codes": kc.CodebookTable([B[None], A], np.arange(10, dtype=np.uint16).reshape(2, 1, 5) % 2),
    "packed codes": kc.CodebookTable([A, B], kc.PackedCodes.pack([[[0, 1, 1]], [[1, 0, 1]]], 1)),
    "decoded codes": kc.CodebookTable(
        [A[None].astype(np.float32)],
        np.array([[[0, 1, 1]]], np.int8),
        np.ones(3, np.float16),
        np.ones((3, 2), np.complex64),
    ),
}


def header_of(tensors, size, **metadata):
    """The first bytes of a file of a KroneckerMatrix of these tensors."""
    sizes = [shape for name, (_, shape) in tensors.items()]
    rows, columns = [s[1] for s in sizes], [s[2] for s in sizes]
    shape = [int(np.prod(rows)), int(np.prod(columns))]
    about = {"shape": shape, "row_dims": rows, "col_dims": columns}
    about = {"ketcore_format": "1", "kind": "KroneckerMatrix"} | {k: json.dumps(v) for k, v in about.items()}
    entries, at = {"__metadata__": about | metadata}, 0
    for name, (dtype, shape) in tensors.items():
        end = at + int(np.prod(shape)) * {"F64": 8, "F32": 4, "BOOL": 1}[dtype]
        entries[name], at = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}, end
    assert at == size
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def raw(text):
    return len(text).to_bytes(8, "little") + text


def written(path, header, data=bytes(16)):
    Path(path).write_bytes(header + data)
    return path
