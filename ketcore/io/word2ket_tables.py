"""Tables of the word2ket package (release 0.0.2)."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np  # noqa: F401  (for the examples)

from ketcore.array_types import Host
from ketcore.arrays.autodiff import is_torch, is_traced
from ketcore.arrays.checks import as_sequence, check_floating
from ketcore.arrays.namespaces import is_array, is_numpy, opts_out, to_host
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.shapes import check_int, shown

_LAYERS = ("EmbeddingKet", "EmbeddingKetXS")
_LEAVES = "weight_leafs"


def load_word2ket(
    source: Any, shape: Sequence[int] | None = None, layer: str | None = None
) -> Ket[Host] | KroneckerMatrix[Host]:
    """The table of a layer of the word2ket package (release 0.0.2), with the numbers of its rows.

    Parameters
    ----------
    source : layer, mapping or array, (order, rank, t, q)
        The layer itself; or its state dict, which holds one array under `weight_leafs` (with any prefix); or
        that array, or nested lists.  Arrays of any library and device are read as their values: bfloat16 of
        PyTorch becomes float32, since NumPy has none of its own, and integers become float64.
    shape : (int, int), optional
        ``(num_embeddings, embedding_dim)`` of the layer.  By default as the layer itself knows it, or not
        cropped.
    layer : {"EmbeddingKet", "EmbeddingKetXS"}, optional
        Where t is the number of words, or where it is the number of leaves of a mode.  The arrays look alike,
        so that this is needed unless `source` or `shape` tells.

    Returns
    -------
    KroneckerMatrix or Ket
        Of EmbeddingKetXS a KroneckerMatrix of `shape`, where ``M.rows(ids)`` are the rows of the layer.  Of
        EmbeddingKet a Ket of batch shape (t,).  The package crops its vectors, which
        ``ket_rows(ket.packed, ids, ket.dims, columns=embedding_dim)`` does as well.

    Raises
    ------
    ValueError
        Where the layer cannot be told, and where `shape` does not fit the leaves.
    TypeError
        On wrong kinds and dtypes, and on arrays that are traced or sparse.

    Notes
    -----
    Both layers are in C order, the first leaf the most significant.  Two quirks are not reproduced: ids
    from num_embeddings up to ``t**order``, which the package answers with rows that were never trained, are
    errors here; and columns beyond embedding_dim, which it keeps with ``lazy=False``, are cropped.

    Examples
    --------
    >>> load_word2ket(np.ones((2, 3, 10, 4)), shape=(95, 16)).shape
    (95, 16)
    >>> load_word2ket({"embed.weight_leafs": np.ones((2, 3, 10, 4))}, layer="EmbeddingKet").shape
    (10, 16)
    """
    if layer is not None and not (isinstance(layer, str) and layer in _LAYERS):
        raise ValueError(f"layer must be one of {_LAYERS}, got {shown(layer)}")
    if hasattr(source, _LEAVES):
        layer = layer or next((c.__name__ for c in type(source).__mro__ if c.__name__ in _LAYERS), None)
        shape = _shape_of_layer(source) if shape is None else shape
    shape = None if shape is None else _checked_shape("shape", shape)
    leaves = _leaves(source)
    layer = layer or _told_by_shape(leaves.shape, shape)
    if layer == "EmbeddingKetXS":
        return KroneckerMatrix(tuple(leaves), shape)
    return _kets(leaves, shape)


def _shape_of_layer(layer):
    """The sizes that a layer says; those of its leaves where it says none."""
    names = "num_embeddings", "embedding_dim"
    sizes = [getattr(layer, name, None) for name in names]
    return None if sizes == [None, None] else _checked_shape("num_embeddings and embedding_dim", sizes)


def _checked_shape(name, sizes):
    rule = f"{name} must be two ints >= 1 (rows, columns)"
    try:
        found = tuple(check_int(name, size, 1) for size in as_sequence(name, sizes))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{rule}, got {shown(sizes)}") from None
    if len(found) != 2:
        raise ValueError(f"{rule}, got {shown(sizes)}")
    return found


def _leaves(source):
    """The leaf array (order, rank, t, q) in the host's memory."""
    if isinstance(source, Mapping):
        found = [key for key in source if key == _LEAVES or str(key).endswith("." + _LEAVES)]
        if len(found) != 1:
            raise ValueError(f"source must hold one array named {_LEAVES}, got {found} among {list(source)}")
        source = source[found[0]]
    source = getattr(source, _LEAVES, source)
    if is_array(source) and is_traced(source):
        raise TypeError("source must be known by its values, got an array that is traced")
    if is_torch(source):
        if str(source.layout) != "torch.strided":
            raise TypeError(f"source must be dense, got a tensor of layout {source.layout}")
        source = source.detach().cpu()
        # NumPy has it of ml_dtypes alone: what comes back should not depend on what is installed.
        source = source.float() if str(source.dtype) == "torch.bfloat16" else source
    if opts_out(source):
        raise TypeError(f"source must be a layer, a mapping or an array, got {type(source).__name__}")
    values = to_host(source) if is_array(source) and not is_numpy(source) else source
    _, (leaves,), _ = check_floating("source", (values,))
    if leaves.ndim != 4 or 0 in (leaves.shape[0], *leaves.shape[2:]):
        raise ValueError(f"source must hold leaves of shape (order, rank, t, q), got {leaves.shape}")
    return leaves


def _told_by_shape(leaves_shape, shape):
    """The layer that makes leaves of this shape for a table of `shape`."""
    order, _, count, _ = leaves_shape
    if shape is None:
        raise ValueError(
            f"layer must be one of {_LAYERS} where no shape tells, got leaves of shape {leaves_shape}"
        )
    words = shape[0]
    # The package's own rounding, which is not always the root that integers give; it has no roots beyond the
    # floats.
    fits = (count == words, words < 2**1023 and count == ceil(words ** (1 / order)))
    if fits[0] == fits[1]:
        raise ValueError(
            f"layer must be one of {_LAYERS} where shape {tuple(shape)} does not tell, "
            f"got leaves of shape {leaves_shape}"
        )
    return _LAYERS[0] if fits[0] else _LAYERS[1]


def _kets(leaves, shape):
    """Leaves in the order of word2ket as a ket with a batch of words."""
    order, rank, words, width = leaves.shape
    if shape is not None and (shape[0] != words or not 1 <= shape[1] <= width**order):
        raise ValueError(
            f"shape must be ({words}, at most {width**order}) for leaves of shape {leaves.shape}, "
            f"got {tuple(shape)}"
        )
    packed = leaves.transpose(2, 1, 0, 3).reshape(words, rank, order * width)
    return Ket.from_packed(packed, (width,) * order)
