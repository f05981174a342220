"""Checkpoints of the word2ket package, release 0.0.2, and layers near given tables.

The expected numbers are what the package itself computed of leaves -3, -1, 1, 3, 5, -3, ... in the C order of
(order, rank, t, q): layer, words, columns, shape of the leaves, ids, outputs.
"""

from itertools import product

import numpy as np
import pytest

from tests.require import imported

torch = imported("torch")

import ketcore as kc  # noqa: E402  (after the skip where torch is missing)
from ketcore.fit import rearranged  # noqa: E402
from ketcore.torch import nearest_tables  # noqa: E402
from tests.torch_problems import BAG_XS, KET, XS, kt  # noqa: E402

OUTPUTS = [
    (
        KET, 4, 6, (2, 2, 4, 3), [[3, 0], [1, 3]],
        [
            [[18, 26, -16, -12, -16, 10], [-16, 10, 6, -8, 6, 10]],
            [[-12, 18, 18, 0, 18, 26], [18, 26, -16, -12, -16, 10]],
        ],
    ),
    (
        KET, 3, 9, (4, 1, 3, 2), [[2, 0]],
        [[[15, 45, -15, -45, 5, 15, -5, -15, -9], [9, 15, 27, 45, -9, -15, -27, -45, 3]]],
    ),
    (KET, 3, 5, (8, 2, 3, 2), [[1, 2]], [[[-630, -990, 0, -540, -1350], [-1350, -720, -1350, 2340, 180]]]),
    (
        XS, 8, 6, (2, 2, 3, 3), [[7, 0], [5, 7]],
        [
            [[10, 2, -6, 2, 2, 2], [-4, 0, 34, -6, -14, -12]],
            [[18, -4, -6, 34, 0, -14], [10, 2, -6, 2, 2, 2]],
        ],
    ),
    (
        XS, 70, 9, (4, 2, 3, 2), [[69, 27]],
        [[[-30, 210, -152, 44, 60, 0, 66, -102, 60], [-32, -76, -6, -30, -60, -120, -6, -54, -60]]],
    ),
    (XS, 250, 5, (8, 1, 2, 2), [[249, 100]], [[[2025, 675, -1215, -405, 675], [135, 225, -81, -135, 405]]]),
]  # fmt: skip


def checkpoint(shape, prefix="", dtype=torch.float32):
    """The state dict of a layer of the package with leaves of a shape, beside another parameter."""
    count = torch.Size(shape).numel()
    leaves = (2 * (torch.arange(count) % 5) - 3).reshape(shape).to(dtype)
    return {f"{prefix}weight_leafs": leaves, "head.bias": torch.zeros(2)}


@pytest.mark.parametrize(("name", "words", "columns", "shape", "ids", "outputs"), OUTPUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_checkpoints_give_the_outputs_of_the_package(name, words, columns, shape, ids, outputs, dtype):
    saved = checkpoint(shape, "encoder.embed.", dtype)
    layer = kt.from_word2ket(saved, words, columns, "encoder.embed.", padding_idx=1)
    assert type(layer).__name__ == name
    assert (layer.order, layer.rank, layer.padding_idx) == (*shape[:2], 1)
    expected = torch.tensor(outputs, dtype=dtype)
    expected[torch.tensor(ids) == 1] *= name == KET
    assert torch.equal(layer(torch.tensor(ids)), expected)
    before = saved["encoder.embed.weight_leafs"].clone()
    with torch.no_grad():
        next(layer.parameters()).zero_()
    assert torch.equal(saved["encoder.embed.weight_leafs"], before)


@pytest.mark.parametrize(("name", "words", "columns", "shape", "ids", "outputs"), OUTPUTS)
def test_load_state_dict_takes_the_tensor_under_its_old_name(name, words, columns, shape, ids, outputs):
    order, rank, count, width = shape
    dims = {"dims": (width,) * order}
    if name == XS:
        dims = {"row_dims": (count,) * order, "col_dims": (width,) * order}
    model = torch.nn.ModuleDict({"embed": getattr(kt, name)(words, columns, rank=rank, **dims)})
    model["head"] = torch.nn.Linear(columns, 2)
    saved = checkpoint(shape, "embed.") | {"head.weight": torch.zeros(2, columns)}
    names = set(saved)
    model.load_state_dict(saved)
    assert torch.equal(model["embed"](torch.tensor(ids)), torch.tensor(outputs, dtype=torch.float32))
    assert set(saved) == names
    other = getattr(kt, name)(words, columns, rank=rank + 1, **dims)
    with pytest.raises(RuntimeError, match=r"size mismatch for (factors\.0|leaves)"):
        other.load_state_dict(checkpoint(shape))


class EmbeddingKetXS(torch.nn.Module):
    """What from_word2ket sees of a layer of the package."""

    num_embeddings, embedding_dim = 70, 9

    def __init__(self):
        super().__init__()
        self.weight_leafs = torch.nn.Parameter(checkpoint((4, 2, 3, 2))["weight_leafs"])


def test_the_layer_itself_knows_its_sizes():
    layer = kt.from_word2ket(EmbeddingKetXS())
    assert isinstance(layer, kt.EmbeddingKetXS)
    assert layer(torch.tensor([69]))[0, 1] == 210


SAVED = checkpoint((2, 1, 3, 4), "embed.")
BAD_CHECKPOINTS = [
    (
        (SAVED, 9, 16),
        ValueError,
        r"source must hold 'weight_leafs', got \['embed.weight_l.*, 'head.bias'\]",
    ),
    (
        ({"weight_leafs": torch.ones(3, 4)}, 9, 16),
        ValueError,
        r"source must hold a tensor \(order, rank, t, q\) ",
    ),
    (({"weight_leafs": 3}, 9, 16), ValueError, r"source must hold a tensor .* under 'weight_leafs', got int"),
    (([], 9, 16), TypeError, "source must be a state dict or a module, got list"),
    (
        (SAVED, 9, None, "embed."),
        TypeError,
        "num_embeddings and embedding_dim must be ints for a state dict",
    ),
    ((SAVED, 10, 16, "embed."), ValueError, r"layer must be one of .* leaves of shape \(2, 1, 3, 4\)"),
    ((SAVED, 9, 17, "embed."), ValueError, r"shape must be two ints from .* to \(9, 16\), got \(9, 17\)"),
    ((SAVED, 3, 17, "embed."), ValueError, r"shape must be \(3, at most 16\) for leaves of shape .*17"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), BAD_CHECKPOINTS)
def test_a_wrong_checkpoint_says_what_does_not_fit(arguments, error, text):
    with pytest.raises(error, match=f"^{text}"):
        kt.from_word2ket(*arguments)


@pytest.mark.parametrize(
    ("leafs", "got"), [(torch.ones(3, 4), r"\(3, 4\)"), (torch.tensor(1.0), r"\(\)"), (5, "int")]
)
@pytest.mark.parametrize("name", [XS, KET])
def test_what_are_no_leaves_in_a_checkpoint_is_named(name, leafs, got):
    model = torch.nn.Sequential(getattr(kt, name)(9, 16, order=2, rank=1))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    text = rf"0\.weight_leafs must be a tensor \(order, rank, words, q\), got {got}"
    with pytest.raises(RuntimeError, match=text):
        model.load_state_dict({"0.weight_leafs": leafs})
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def relative_error(layer, table):
    return float((layer.to_dense().detach() - table).norm() / table.norm())


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", ["EmbeddingKetXS", "EmbeddingKet", "EmbeddingBagKetXS", "EmbeddingBagKet"])
def test_layers_near_a_table_of_their_form_have_that_table(name, order):
    torch.manual_seed(0)
    options = {"rank": 2, "order": order, "dtype": torch.float64}
    table = getattr(kt, name)(12, 8, **options).to_dense().detach()
    layer = getattr(kt, name).from_pretrained(table, rank=2, order=order, padding_idx=0, freeze=False)
    assert layer.padding_idx == 0
    assert all(p.requires_grad and p.dtype == torch.float64 for p in layer.parameters())
    layer.padding_idx = None
    # Sweeps come near, and stop before they arrive.
    most = 1e-2 if hasattr(layer, "leaves") and order > 2 else 1e-6
    assert layer.relative_error < most
    assert relative_error(layer, table) < most
    assert not any(
        p.requires_grad for p in type(layer).from_pretrained(table, rank=2, order=order).parameters()
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "order"), list(product([XS, KET], [2, 3])))
def test_the_error_is_that_of_the_layer(name, order, dtype):
    torch.manual_seed(0)
    table = torch.randn(10, 7, dtype=dtype, requires_grad=True)
    layer = getattr(kt, name).from_pretrained(table, order=order, rank=1)
    exact = relative_error(layer.double(), table.detach().double())
    assert 0.02 < exact < 1
    assert abs(layer.relative_error - exact) < 1e-5
    more = getattr(kt, name).from_pretrained(table, order=order, rank=2)
    assert more.relative_error < layer.relative_error


@pytest.mark.parametrize("name", [XS, KET])
def test_a_table_of_fewer_terms_leaves_terms_that_can_train(name):
    torch.manual_seed(0)
    table = torch.kron(torch.randn(3, 2), torch.randn(4, 3))
    layer = getattr(kt, name).from_pretrained(table, order=2, rank=5, freeze=False)
    assert layer.rank == 5
    assert relative_error(layer, table) < 1e-5
    layer(torch.arange(12)).sum().backward()
    dims = (-2, -1) if name == XS else (0, -1)
    assert all((sum(p.grad.abs() for p in [p]).sum(dims) > 0).any() for p in layer.parameters())
    kept = [p.detach().clone() for p in layer.parameters()]
    torch.optim.SGD(layer.parameters(), 0.1).step()
    moved = sum((p - k).abs().sum(dims) for p, k in zip(layer.parameters(), kept, strict=True))
    assert (moved > 0).all()


@pytest.mark.parametrize("order", [2, 3])
def test_a_large_table_is_fitted_in_few_passes(order, monkeypatch):
    """Three digits of the error, and so of what the terms catch of a table of noise a good part."""
    monkeypatch.setattr(nearest_tables, "_LARGE", 0)
    products, onto_left = [], rearranged.Halves.onto_left
    monkeypatch.setattr(
        rearranged.Halves, "onto_left", lambda self, right: products.append(1) or onto_left(self, right)
    )
    torch.manual_seed(0)
    table = torch.randn(900, 900)
    dims = [kc.suggest_dims(900, order)] * 2
    layer = kt.EmbeddingKetXS.from_pretrained(table, order=order, rank=3, rng=0)
    quick = len(products)
    settled = kc.nearest_kronecker(table.numpy(), *dims, 3, rng=0, restarts=0)
    assert 2 * quick < len(products) - quick
    assert settled.error - 1e-6 <= layer.relative_error <= settled.error + 5e-4
    assert abs(layer.relative_error - relative_error(layer, table)) < 1e-5


def test_a_permuted_table():
    torch.manual_seed(0)
    order = torch.randperm(12)
    moved = torch.kron(torch.randn(3, 2), torch.randn(4, 3))
    layer = kt.EmbeddingKetXS.from_pretrained(moved[order], rank=1, permutation=order)
    assert relative_error(layer, moved[order]) < 1e-5


def test_a_table_in_the_order_of_similar_words():
    table = torch.tensor(9 * np.random.default_rng(0).standard_normal((20, 8)), dtype=torch.float32)
    table = table[np.random.default_rng(1).permutation(np.arange(600) % 20)]
    options = {"row_dims": (30, 20), "col_dims": (1, 8), "rank": 1}
    permutation = kc.vocabulary_permutation(table, options["row_dims"])
    for name in (XS, BAG_XS):
        given = getattr(kt, name).from_pretrained(table, **options)
        layer = getattr(kt, name).from_pretrained(table, permutation=permutation, **options)
        assert layer.relative_error < 1e-5 < 0.5 < given.relative_error
        assert torch.allclose(layer.to_dense(), table, atol=1e-4)


def test_zeros_and_complex_tables():
    for name, order in product([XS, KET], [2, 3]):
        zeros = getattr(kt, name).from_pretrained(torch.zeros(8, 8), order=order)
        assert zeros.relative_error == 0
        assert not zeros.to_dense().any()
    torch.manual_seed(0)
    for order in (2, 3):
        table = kt.EmbeddingKet(5, 8, order=order, rank=1, dtype=torch.complex128).to_dense().detach()
        assert kt.EmbeddingKet.from_pretrained(table, order=order).relative_error < 1e-6


BAD_TABLES = [
    ([[1.0]], TypeError, "embeddings must be a tensor, got list"),
    (
        torch.ones(3),
        ValueError,
        r"embeddings must have shape \(num_embeddings, embedding_dim\) and entries, got \(3,\)",
    ),
    (torch.ones(0, 3), ValueError, r"embeddings must have shape .* and entries, got \(0, 3\)"),
    (torch.ones(2, 3).int(), TypeError, "embeddings must have a floating or complex dtype, got torch.int32"),
    (torch.full((2, 3), float("nan")), ValueError, "embeddings must hold finite values, got nan in row 0"),
    (torch.ones(2, 3, device="meta"), ValueError, "embeddings must have values, got a tensor on meta"),
]


@pytest.mark.parametrize(("table", "error", "text"), BAD_TABLES)
@pytest.mark.parametrize("name", [XS, KET])
def test_tables_are_refused(name, table, error, text):
    with pytest.raises(error, match=f"^{text}"):
        getattr(kt, name).from_pretrained(table)
