"""Training with the numbers that are stored in 8, 4 or 2 bits: what a layer gives, gradients, mistakes."""

import copy

import pytest

import ketcore as kc
from tests.require import imported

torch = imported("torch")

from torch import nn  # noqa: E402

import ketcore.torch as kt  # noqa: E402

LAYERS = {
    "xs": lambda **more: kt.EmbeddingKetXS(50, 12, rank=3, row_scale=True, padding_idx=1, **more),
    "bag": lambda **more: kt.EmbeddingBagKetXS(50, 12, rank=3, mode="sum", **more),
    "codes": lambda **more: kt.EmbeddingCodebook(50, 12, codebook_size=7, width=5, **more),
    "ket": lambda **more: kt.EmbeddingKet(50, 12, order=2, **more),
}
each = pytest.mark.parametrize("name", LAYERS)
IDS = torch.tensor([[3, 1], [49, 3]])


def made(name, **more):
    torch.manual_seed(0)
    return LAYERS[name](**more)


def stored(layer, bits, block):
    """What `quantize` stores of the object that the layer gives."""
    way = next(name for name in ("to_table", "matrix", "ket") if hasattr(layer, name))
    with torch.no_grad():
        small = kc.quantize(getattr(layer, way)(), bits, block)
    if way == "ket":
        return [small.stored]
    return [*([small.stored_decoder] if way == "to_table" else []), *small.stored]


@each
@pytest.mark.parametrize(("bits", "block"), [(8, 32), (4, 5), (2, 7)])
def test_a_layer_computes_with_what_is_stored(name, bits, block):
    """Bit for bit, and its parameters have the gradients of a layer of these numbers."""
    plain, layer = made(name), kt.fake_quantize(made(name), bits, block)
    trained = [p for p in plain.parameters() if p.ndim > 1]
    arrays = stored(plain, bits, block), stored(layer, bits, block)
    with torch.no_grad():
        for one, other, parameter in zip(*arrays, trained, strict=True):
            assert torch.equal(one.values, other.values)
            assert torch.equal(one.scales, other.scales)
            assert one.scales.dtype == other.scales.dtype
            assert not torch.equal(one.dequantize(), parameter)
            parameter.copy_(one.dequantize())
    out, expected = layer(IDS), plain(IDS)
    assert torch.equal(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    pairs = dict(plain.named_parameters())
    for key, parameter in layer.named_parameters():
        key = key.removesuffix(".original").replace("parametrizations.", "")
        assert torch.equal(parameter.grad, pairs[key].grad)


@each
def test_it_trains_and_is_carried(name):
    layer, target = kt.fake_quantize(made(name), 4), torch.ones(12)
    optimizer, losses = torch.optim.Adam(layer.parameters(), 0.02), []
    for _ in range(30):
        loss = (layer(IDS) - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    other = kt.fake_quantize(LAYERS[name](), 4)
    other.load_state_dict(layer.state_dict())
    if name == "codes":
        assert torch.equal(other.codes, layer.codes)
    for moved in (other, copy.deepcopy(layer), torch.compile(layer, backend="eager", fullgraph=True)):
        assert torch.equal(moved(IDS), layer(IDS))


def test_other_dtypes_and_devices():
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        layer = kt.fake_quantize(made("xs", dtype=dtype))
        assert layer(IDS).dtype == dtype
        with torch.no_grad():
            small = kc.quantize(made("xs", dtype=dtype).matrix()).dequantize().factors
        assert all(torch.equal(f, s.to(dtype)) for f, s in zip(layer.factors, small, strict=True))
    assert kt.fake_quantize(made("codes", device="meta"))(IDS.to("meta")).shape == (2, 2, 12)


def test_all_layers_of_a_model_once():
    embedding = made("xs")
    model = nn.ModuleList([embedding, kt.TiedHead(embedding), nn.Linear(3, 3), made("ket")])
    assert kt.fake_quantize(model) is model
    found = [name for name, _ in model.named_parameters() if name.endswith(".original")]
    assert len(found) == 3
    assert "bits=8, block=32" in repr(model)
    with pytest.raises(ValueError, match=r"^module must be or have .* without a parametrization, got M"):
        kt.fake_quantize(model, 4)


def test_mistakes():
    layer = made("xs")
    for call, kind, text in (
        (lambda: kt.fake_quantize(layer, 3), ValueError, "bits must be 8, 4 or 2, got 3"),
        (lambda: kt.fake_quantize(layer, block=0), ValueError, "block must be at least 1, got 0"),
        (lambda: kt.fake_quantize(torch.ones(3)), TypeError, "module must be a Module, got Tensor"),
        (lambda: kt.fake_quantize(nn.Linear(2, 2)), ValueError, "module must be or have .*, got Linear"),
        (
            lambda: kt.fake_quantize(made("xs", dtype=torch.complex64)),
            TypeError,
            "must have a real dtype, got",
        ),
    ):
        with pytest.raises(kind, match=text):
            call()
    kt.fake_quantize(layer)
    with torch.no_grad():
        layer.factors.parametrizations["0"].original[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"must be finite, .* got nan at \[0, 0\]"):
        layer(IDS)
