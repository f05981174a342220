"""Tables of the word2ket package (release 0.0.2).

The expected rows are computed by the package's definition: EmbeddingKet multiplies w[0, k, word] (x) ... (x)
w[N-1, k, word] and sums over k; EmbeddingKetXS takes rows of the sum over k of the Kronecker products w[0, k]
(x) ... (x) w[N-1, k].  Both crop columns to embedding_dim.
The two small tables are what the package itself printed.
"""

from functools import reduce
from math import ceil
from types import SimpleNamespace

import numpy as np
import pytest

from ketcore.io import load_word2ket
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.ops import ket_rows
from tests.require import has_long_doubles

NAMES = ("EmbeddingKet", "EmbeddingKetXS")

# What the package answers for leaves 1, 2, ..., 16 of shape (2, 2, 2, 2), 3 columns and 3 or 2 words.
XS_TABLE = [[74.0, 80.0, 96.0], [86.0, 92.0, 112.0], [118.0, 128.0, 140.0]]
KET_TABLE = [[74.0, 80.0, 96.0], [138.0, 148.0, 164.0]]


def leaves_of(layer, words, columns, order, rank):
    """Leaves (order, rank, t, q) in the shapes that the package gives them."""
    count = words if layer == "EmbeddingKet" else ceil(words ** (1 / order))
    shape = (order, rank, count, ceil(columns ** (1 / order)))
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def rows_of(layer, leaves, words, columns):
    """The definition of the package, in float64."""
    leaves = leaves.astype(np.float64)
    order, rank, _, _ = leaves.shape
    if layer == "EmbeddingKetXS":
        table = sum(reduce(np.kron, [leaves[n, k] for n in range(order)]) for k in range(rank))
    else:
        table = np.stack([sum(reduce(np.kron, leaves[:, k, i]) for k in range(rank)) for i in range(words)])
    return table[:words, :columns]


def loaded_rows(table, columns, ids):
    if isinstance(table, KroneckerMatrix):
        return table.rows(ids)
    return ket_rows(table.packed, ids, table.dims, columns=columns)


@pytest.mark.parametrize("layer", NAMES)
@pytest.mark.parametrize(
    ("words", "columns", "order", "rank"), [(60, 20, 2, 3), (95, 16, 4, 2), (130, 300, 8, 1)]
)
def test_rows_are_those_of_the_package(layer, words, columns, order, rank):
    leaves = leaves_of(layer, words, columns, order, rank)
    table = load_word2ket({"encoder.embed.weight_leafs": leaves, "bias": np.ones(3)}, (words, columns))
    assert type(table) is {"EmbeddingKet": Ket, "EmbeddingKetXS": KroneckerMatrix}[layer]
    ids = np.arange(words)
    np.testing.assert_allclose(
        loaded_rows(table, columns, ids), rows_of(layer, leaves, words, columns), rtol=1e-4, atol=1e-4
    )


def test_numbers_of_the_package():
    leaves = np.arange(1.0, 17.0).reshape(2, 2, 2, 2)
    matrix = load_word2ket(leaves, (3, 3), layer="EmbeddingKetXS")
    assert matrix.to_dense().tolist() == XS_TABLE
    kets = load_word2ket(leaves, (2, 3), layer="EmbeddingKet")
    assert kets.to_dense()[:, :3].tolist() == KET_TABLE


def layer_like(name, leaves, words, columns):
    """What has the attributes of the package's layers, and the name of its class."""
    return type(name, (SimpleNamespace,), {})(
        weight_leafs=leaves, num_embeddings=words, embedding_dim=columns
    )


@pytest.mark.parametrize("layer", NAMES)
def test_sources_of_all_kinds(layer):
    leaves = leaves_of(layer, 60, 20, 2, 3)
    expected = load_word2ket(leaves, (60, 20), layer)
    module = layer_like(layer, leaves, 60, 20)
    derived = type("Mine", (type(module),), {})(**vars(module))
    sources = [module, derived]
    told = [load_word2ket(source) for source in sources]
    told += [load_word2ket({"weight_leafs": leaves}, (60, 20)), load_word2ket(leaves.tolist(), (60, 20))]
    for table in told:
        assert type(table) is type(expected)
        assert table.shape == expected.shape
        np.testing.assert_allclose(table.to_dense(), expected.to_dense(), rtol=1e-5, atol=1e-5)
    # Without a shape nothing is cropped.
    assert load_word2ket(leaves, layer=layer).shape[-1] == 25


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "complex64", "int32"])
def test_tensors_of_every_dtype_are_read_as_their_values(dtype):
    torch = pytest.importorskip("torch")
    leaves = torch.arange(16.0).reshape(2, 2, 2, 2).to(getattr(torch, dtype))
    table = load_word2ket({"e.weight_leafs": leaves}, (3, 3), "EmbeddingKetXS")
    # NumPy has no bfloat16 of its own; integers become float64 as everywhere.
    assert table.dtype == {"bfloat16": "float32", "int32": "float64"}.get(dtype, dtype)
    assert (
        table.to_dense().tolist()
        == load_word2ket(np.arange(16.0).reshape(leaves.shape), (3, 3)).to_dense().tolist()
    )
    trained = torch.nn.Parameter(leaves) if leaves.is_floating_point() else leaves
    assert load_word2ket(trained, (3, 3), "EmbeddingKetXS").dtype == table.dtype


def test_arrays_of_jax_are_read_as_their_values():
    jax = pytest.importorskip("jax")
    table = load_word2ket(jax.numpy.ones((2, 3, 10, 4), jax.numpy.bfloat16), (95, 16))
    assert isinstance(table.factors[0], np.ndarray)
    assert table.dtype == "bfloat16"
    with pytest.raises(TypeError, match="source must be known by its values, got an array that is traced"):
        jax.jit(lambda leaves: load_word2ket(leaves, (95, 16)).factors[0])(np.ones((2, 3, 10, 4)))


def test_tensors_without_values_are_refused():
    torch = pytest.importorskip("torch")
    leaves = torch.ones(2, 3, 10, 4)
    with pytest.raises(TypeError, match="source must be known by its values, got an array that is traced"):
        load_word2ket(leaves.to("meta"), (95, 16))
    with pytest.raises(TypeError, match=r"source must be dense, got a tensor of layout torch\.sparse_coo"):
        load_word2ket(leaves.to_sparse(), (95, 16))


def test_tensors_are_copied_to_the_host():
    torch = pytest.importorskip("torch")
    leaves = torch.nn.Parameter(torch.ones(2, 1, 3, 2))
    table = load_word2ket({"weight_leafs": leaves}, (8, 4))
    assert isinstance(table.factors[0], np.ndarray)
    assert table.to_dense().tolist() == np.ones((8, 4)).tolist()


LEAVES = np.ones((2, 3, 10, 4))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((LEAVES,), r"layer must be one of .* where no shape tells, got leaves of shape \(2, 3, 10, 4\)"),
        (({"weight_leafs": LEAVES},), "layer must be one of"),
        ((LEAVES, (40, 16)), r"layer must be one of .* where shape \(40, 16\) does not tell"),
        ((np.ones((2, 1, 2, 2)), (2, 4)), r"layer must be one of .* where shape \(2, 4\) does not tell"),
        ((LEAVES, (10, 16), "Embedding"), "layer must be one of .* got 'Embedding'"),
        (
            (LEAVES, (11, 16), "EmbeddingKet"),
            r"shape must be \(10, at most 16\) for leaves .* got \(11, 16\)",
        ),
        (
            (LEAVES, (10, 17)),
            r"shape must be \(10, at most 16\) for leaves of shape \(2, 3, 10, 4\), got \(10, 17\)",
        ),
        (
            (LEAVES, (101, 16), "EmbeddingKetXS"),
            r"shape must be two ints from \(1, 1\) to \(100, 16\), got \(101, 16\)",
        ),
        (
            ({"weight": LEAVES},),
            r"source must hold one array named weight_leafs, got \[\] among \['weight'\]",
        ),
        (({"a.weight_leafs": 1, "b.weight_leafs": 2},), r"got \['a.weight_leafs', 'b.weight_leafs'\] among"),
        ((np.ones((0, 3, 10, 4)), (10, 16)), r"source must hold leaves of shape .* got \(0, 3, 10, 4\)"),
        ((np.ones((3, 10, 4)),), r"source must hold leaves of shape \(order, rank, t, q\), got \(3, 10, 4\)"),
    ],
)
def test_what_cannot_be_told_is_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        load_word2ket(*arguments)


SHAPE = r"shape must be two ints >= 1 \(rows, columns\), got "


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        *(
            (shape, TypeError)
            for shape in (5, 95j, (95, 16j), (95.0, 16), (95, float("nan")), ("95", "16"), "ab")
        ),
        *(
            (shape, TypeError)
            for shape in ((True, 16), (None, 16), np.array([95.0, 16.0]), slice(3), [[95, 16]])
        ),
        *((shape, ValueError) for shape in ((95,), (95, 16, 1), (), (-95, 16), (95, 0))),
    ],
)
def test_shapes(shape, error):
    with pytest.raises(error, match=SHAPE):
        load_word2ket(LEAVES, shape)


def test_integers_of_numpy_are_sizes():
    for shape in ((np.int64(95), np.uint8(16)), np.array([95, 16]), [95, 16]):
        assert load_word2ket(LEAVES, shape).shape == (95, 16)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (
            ([[1, 2], [3]], (95, 16)),
            ValueError,
            "source must be arrays or regular nested lists, got ragged lists",
        ),
        ((None, (95, 16)), TypeError, "source must have a numeric dtype, got object"),
        (("abc", (95, 16)), TypeError, "source must have a numeric dtype, got <U3"),
        (({"weight_leafs": None}, (95, 16)), TypeError, "source must have a numeric dtype, got object"),
        ((5, (95, 16)), ValueError, r"source must hold leaves of shape \(order, rank, t, q\), got \(\)"),
        ((np.ones((2, 3, 0, 4)), (95, 16)), ValueError, r"source must hold leaves .* got \(2, 3, 0, 4\)"),
        ((np.ones((2, 3, 10, 0)), (95, 16)), ValueError, r"source must hold leaves .* got \(2, 3, 10, 0\)"),
        ((np.ma.masked_array(LEAVES), (95, 16)), TypeError, "source must have no mask, got MaskedArray"),
        (
            (KroneckerMatrix([np.eye(2)]), (95, 16)),
            TypeError,
            "source must be a layer, .* got KroneckerMatrix",
        ),
        pytest.param(
            (LEAVES.astype(np.longdouble), (95, 16)),
            TypeError,
            "source must have .* of at most double precision",
            marks=has_long_doubles,
        ),
        ((LEAVES, (10**400, 16)), ValueError, r"layer must be one of .* where shape .* does not tell"),
        ((LEAVES, (95, 16), 3), ValueError, "layer must be one of .* got 3"),
        (
            (LEAVES, (95, 16), LEAVES),
            ValueError,
            r"layer must be one of .* got a ndarray of shape",
        ),
        ((LEAVES, (95, 16), ["EmbeddingKet"]), ValueError, r"layer must be one of .* got \['EmbeddingKet'\]"),
        (
            (layer_like("EmbeddingKetXS", LEAVES, "a", 16),),
            TypeError,
            "num_embeddings and .* got \\['a', 16\\]",
        ),
        (
            (layer_like("EmbeddingKetXS", LEAVES, 95, None),),
            TypeError,
            "num_embeddings and .* got \\[95, None\\]",
        ),
        (
            (layer_like("EmbeddingKetXS", LEAVES, 95, -1),),
            ValueError,
            "num_embeddings and .* got \\[95, -1\\]",
        ),
        (
            (layer_like("EmbeddingKetXS", None, 95, 16),),
            TypeError,
            "source must have a numeric dtype, got object",
        ),
    ],
)
def test_wrong_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        load_word2ket(*arguments)
