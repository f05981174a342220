"""EmbeddingBagKet and EmbeddingBagKetXS: nn.EmbeddingBag on their dense tables is what defines them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.require import imported

torch = imported("torch")

from tests.torch_problems import (  # noqa: E402  (after the skip where torch is missing)
    BAG,
    BAG_XS,
    assert_same,
    bags,
    kron_table,
    kt,
    layers,
)

embedding_bag = torch.nn.functional.embedding_bag


@given(data=st.data(), mode=st.sampled_from(["sum", "mean", "max"]))
def test_bags_are_those_of_nn_embedding_bag(data, mode):
    layer = data.draw(layers((BAG_XS, BAG), frequency=False))
    ids, offsets, include_last = data.draw(bags(layer.num_embeddings))
    layer.mode, layer.include_last_offset = mode, include_last
    weights = None
    if mode == "sum" and data.draw(st.booleans()):
        weights = torch.randn(ids.shape, dtype=torch.float64, requires_grad=True)
    options = {"include_last_offset": include_last, "padding_idx": layer.padding_idx}
    options |= {"per_sample_weights": weights, "mode": mode}
    expected = embedding_bag(ids, kron_table(layer), offsets, **options)
    found = layer(ids, offsets, weights)
    assert_same(layer, found, expected)
    if weights is not None:
        pair = [
            torch.autograd.grad(rows.sum(), weights)[0] for rows in (layer(ids, offsets, weights), expected)
        ]
        torch.testing.assert_close(*pair)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("name", [BAG_XS, BAG])
def test_max_norm(name, mode):
    layer = getattr(kt, name)(9, 10, 0.5, 1.0, mode=mode, order=2, rank=2, dtype=torch.float64)
    ids, offsets = torch.tensor([1, 8, 1, 5]), torch.tensor([0, 3])
    table = kron_table(layer).detach().clone()
    expected = embedding_bag(ids, table, offsets, 0.5, 1.0, mode=mode)
    torch.testing.assert_close(layer(ids, offsets), expected)


@pytest.mark.parametrize("name", [BAG_XS, BAG])
def test_the_default_is_the_mean_and_the_order_of_arguments_is_that_of_torch(name):
    ours = getattr(kt, name)(9, 10, None, 2.0, False, "sum", False, None, True, -1, "cpu", torch.float64)
    theirs = torch.nn.EmbeddingBag(
        9, 10, None, 2.0, False, "sum", False, None, True, -1, "cpu", torch.float64
    )
    for option in ("mode", "include_last_offset", "padding_idx", "max_norm", "norm_type", "sparse"):
        assert getattr(ours, option) == getattr(theirs, option)
    assert getattr(kt, name)(9, 10).mode == torch.nn.EmbeddingBag(9, 10).mode


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("name", [BAG_XS, BAG])
def test_no_bags_and_no_ids(name, mode):
    layer = getattr(kt, name)(9, 10, mode=mode, padding_idx=3)
    none = torch.zeros(0, dtype=torch.int64)
    assert layer(none, none).shape == (0, 10)
    assert torch.equal(layer(none.reshape(3, 0)), torch.zeros(3, 10))
    assert torch.equal(layer(none, torch.tensor([0, 0])), torch.zeros(2, 10))
    assert torch.equal(layer(torch.tensor([[3, 3], [3, 3]])), torch.zeros(2, 10))
    layer.include_last_offset = True
    assert layer(none, torch.tensor([0])).shape == (0, 10)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_ids_after_the_last_offset_are_in_no_bag(mode):
    layer = kt.EmbeddingBagKetXS(9, 10, mode=mode, include_last_offset=True)
    ids = torch.tensor([1, 2, 3, 4])
    torch.testing.assert_close(layer(ids, torch.tensor([0, 2, 3])), layer(ids[:3], torch.tensor([0, 2, 3])))


def test_long_bags_of_half_precision_keep_their_digits():
    layer = kt.EmbeddingBagKetXS(9, 4, mode="sum", dtype=torch.float16)
    ids = torch.full((1, 4096), 3)
    torch.testing.assert_close(layer(ids), (4096 * layer.to_dense()[3].double()).half()[None])


ONE, PAIR, ROW = torch.tensor([1]), torch.tensor([0, 2]), torch.tensor([[1]])
BAD_CALLS = [
    ((ROW, ONE), ValueError, "offsets must be None for two-dimensional input, got a tensor"),
    ((ONE,), TypeError, "offsets must be a tensor of integers, got NoneType"),
    ((ONE[0], PAIR), ValueError, r"input must have one or two dimensions, got shape \(\)"),
    ((ONE, ONE[0]), ValueError, r"offsets must be a vector with a number for each bag, got \(\)"),
    ((ONE, ONE[:0]), ValueError, r"offsets must be a vector with a number for each bag, got \(0,\)"),
    ((ONE, ONE.float()), TypeError, "offsets must have an integer dtype, got torch.float32"),
    ((ONE, ONE), ValueError, r"offsets must ascend from 0 to at most 1, got \[1\]"),
    ((ONE, PAIR), ValueError, r"offsets must ascend from 0 to at most 1, got \[0, 2\]"),
    ((ONE.expand(3), torch.tensor([0, 2, 1])), ValueError, "offsets must ascend from 0 to at most 3"),
    ((ROW.float(),), TypeError, "input must have an integer dtype, got torch.float32"),
    ((9 * ROW,), IndexError, r"ids must lie in \[0, 9\), got 9"),
    ((ROW, None, torch.ones(1)), ValueError, r"per_sample_weights must have shape \(1, 1\), got \(1,\)"),
    ((ROW, None, ROW.double()), TypeError, "per_sample_weights must have dtype torch.float32, got"),
    ((ROW, None, [[1.0]]), TypeError, "per_sample_weights must be a tensor, got list"),
    ((ROW.to("meta"),), TypeError, "input must lie on the device of the parameters, got meta and cpu"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), BAD_CALLS)
@pytest.mark.parametrize("name", [BAG_XS, BAG])
def test_calls_are_refused(name, arguments, error, text):
    with pytest.raises(error, match=f"^{text}"):
        getattr(kt, name)(9, 10, mode="sum")(*arguments)


@pytest.mark.parametrize("name", [BAG_XS, BAG])
def test_modes_are_refused(name):
    with pytest.raises(ValueError, match=r"^mode must be one of \('sum', 'mean', 'max'\), got 'min'$"):
        getattr(kt, name)(9, 10, mode="min")
    with pytest.raises(ValueError, match=r"^per_sample_weights must be None unless .* got mode mean$"):
        getattr(kt, name)(9, 10)(torch.tensor([[1]]), None, torch.ones(1, 1))
    complex_layer = getattr(kt, name)(9, 10, mode="max", dtype=torch.complex64)
    with pytest.raises(TypeError, match=r"^mode must be sum or mean for complex rows, got max"):
        complex_layer(torch.tensor([[1]]))
    nested = torch.nested.nested_tensor([torch.tensor([1])], layout=torch.jagged)
    with pytest.raises(TypeError, match=r"^input must be no nested tensor, got one"):
        getattr(kt, name)(9, 10)(nested)
