"""LoKr layers equal a linear layer of their dense product."""

import copy
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.require import imported

torch = imported("torch")

from torch import nn  # noqa: E402

from ketcore.torch import LoKrLinear, LoKrWeights, lokr_conv2d, lokr_linear  # noqa: E402
from tests.lokr_problems import assert_same  # noqa: E402


def drawn(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def part(name, sizes, rank):
    """A matrix of these sizes, or a pair of this rank."""
    if rank is None:
        return {f"lokr_{name}": drawn(*sizes)}
    return {f"lokr_{name}_a": drawn(sizes[0], rank), f"lokr_{name}_b": drawn(rank, sizes[1])}


def whole(part, name):
    key = f"lokr_{name}"
    return part[key] if key in part else part[f"{key}_a"] @ part[f"{key}_b"]


def gradients(result, inputs):
    torch.manual_seed(1)
    return torch.autograd.grad(result, inputs, torch.randn_like(result), materialize_grads=True)


pairs = st.tuples(st.integers(1, 6), st.integers(1, 6))
ranks = st.none() | st.integers(1, 4)


@given(pairs, pairs, ranks, ranks, st.lists(st.integers(0, 3), max_size=2))
def test_linear_equals_its_dense_product(sizes1, sizes2, rank1, rank2, batch):
    parts = part("w1", sizes1, rank1) | part("w2", sizes2, rank2)
    weights = LoKrWeights(0.7, **parts)
    x = drawn(*batch, sizes1[1] * sizes2[1])
    dense = 0.7 * torch.kron(whole(parts, "w1"), whole(parts, "w2"))
    found, expected = lokr_linear(x, weights), nn.functional.linear(x, dense)
    inputs = [x, *parts.values()]
    assert weights.shape == dense.shape
    assert_same([found, weights.delta().to_dense()], [expected, dense])
    assert_same(gradients(found, inputs), gradients(expected, inputs))


def conv_part(kind, sizes, kernel, rank=2):
    (c, d), area = sizes, kernel[0] * kernel[1]
    if kind == "whole":
        return {"lokr_w2": drawn(c, d, *kernel)}
    if kind == "pair":
        return {"lokr_w2_a": drawn(c, rank), "lokr_w2_b": drawn(rank, d * area)}
    core = {"lokr_t2": drawn(rank, rank, *kernel)}
    return {"lokr_w2_a": drawn(rank, c), "lokr_w2_b": drawn(rank, d), **core}


def conv_dense(kind, part, sizes, kernel):
    if kind == "whole":
        return part["lokr_w2"]
    if kind == "pair":
        return (part["lokr_w2_a"] @ part["lokr_w2_b"]).reshape(*sizes, *kernel)
    return torch.einsum("ijkl,ip,jq->pqkl", part["lokr_t2"], part["lokr_w2_a"], part["lokr_w2_b"])


OPTIONS = ({}, {"stride": (2, 1), "padding": (1, 2), "dilation": 2}, {"padding": "same"})


@pytest.mark.parametrize("kind", ["whole", "pair", "core"])
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "strided", "same"])
@pytest.mark.parametrize("batch", [(3,), (0,)])
def test_convolution_equals_its_dense_product(kind, rank, options, batch):
    kernel, sizes = (3, 5), (4, 3)
    parts = part("w1", (2, 3), rank) | conv_part(kind, sizes, kernel)
    x = drawn(*batch, 9, 8, 7)
    dense = conv_dense(kind, parts, sizes, kernel)
    dense = 0.7 * torch.einsum("ab,cdkl->acbdkl", whole(parts, "w1"), dense).reshape(8, 9, *kernel)
    expected = nn.functional.conv2d(x, dense, **options)
    found = lokr_conv2d(x, LoKrWeights(0.7, **parts), kernel, **options)
    inputs = [x, *parts.values()]
    assert_same([found], [expected])
    assert_same(gradients(found, inputs), gradients(expected, inputs))
    assert_same([lokr_conv2d(image, LoKrWeights(0.7, **parts), kernel, **options) for image in x], found)


def layer(rank=2, dtype=torch.float64, **options):
    torch.manual_seed(0)
    made = LoKrLinear(nn.Linear(36, 60, dtype=dtype), rank, 3.0, **options)
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    return made


def test_a_layer_starts_at_its_base():
    base = nn.Linear(36, 60)
    made = LoKrLinear(base, 2)
    x = torch.randn(4, 36)
    assert torch.equal(made(x), base(x))
    made(x).square().sum().backward()
    # It would never leave zero if all gradients were zero.
    assert made.lokr_w2_a.grad.abs().max() == 0
    assert made.lokr_w2_b.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "names", "shape"),
    [
        ({}, ["lokr_w1", "lokr_w2_a", "lokr_w2_b"], (6, 6)),
        ({"decompose_both": True}, ["lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"], (6, 6)),
        ({"decompose_factor": 4}, ["lokr_w1", "lokr_w2_a", "lokr_w2_b"], (4, 4)),
        ({"rank": 50, "decompose_both": True}, ["lokr_w1", "lokr_w2"], (6, 6)),
    ],
)
def test_layers(options, names, shape):
    made = layer(**options)
    assert [name for name, _ in made.named_parameters() if "lokr" in name] == names
    w1 = (made.weights.lokr_w1,) if made.lokr_w1 is not None else made.weights[2:4]
    assert (w1[0].shape[0], w1[-1].shape[1]) == shape
    x = torch.randn(2, 3, 36, dtype=torch.float64)
    expected = nn.functional.linear(x, made.base.weight + made.delta().to_dense(), made.base.bias)
    assert made.scale == 3.0 / options.get("rank", 2)
    assert_same([made(x), made.to_linear()(x)], [expected, expected])


def test_second_order():
    made = layer()
    names = [name for name, _ in made.named_parameters() if "lokr" in name]

    def function(x, *values):
        return torch.func.functional_call(made, dict(zip(names, values, strict=True)), (x,))

    inputs = [drawn(1, 36), *(getattr(made, name).detach().clone().requires_grad_() for name in names)]
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_copies_and_checkpoints():
    made, x = layer(), torch.randn(2, 36, dtype=torch.float64)
    loaded = LoKrLinear(nn.Linear(36, 60, dtype=torch.float64), 2, 3.0)
    loaded.load_state_dict(made.state_dict())
    again = LoKrLinear.from_weights(made.base, made.weights)
    for other in (loaded, again, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(other(x), made(x))
        assert other.lokr_w1 is not made.lokr_w1
    meta = LoKrLinear(nn.Linear(36, 60, device="meta"), 2)
    assert meta(torch.empty(2, 36, device="meta")).shape == (2, 60)
    meta.to_empty(device="cpu").load_state_dict(made.float().state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    made, x = layer(dtype=torch.float32), torch.randn(4, 36)
    expected = made(x)
    bound = 0.02 * expected.abs().max()
    with torch.autocast("cpu", dtype=dtype):
        assert (made(x).float() - expected).abs().max() <= bound
    found = made.to(dtype)(x.to(dtype))
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() <= bound


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: LoKrLinear(nn.Identity()), TypeError, "base must be a torch.nn.Linear, got Identity"),
        (lambda: layer(rank=0), ValueError, "rank must be at least 1, got 0"),
        (lambda: layer(decompose_factor=0), ValueError, "decompose_factor must be at least 1, got 0"),
        (
            lambda: layer()(torch.ones(2, 36)),
            TypeError,
            "x and the adapter must have one dtype, got torch.float32, torch.float64",
        ),
        (
            lambda: layer()(torch.ones(2, 36, device="meta", dtype=torch.float64)),
            TypeError,
            "x and the adapter must lie on one device, got meta, cpu",
        ),
        (
            lambda: LoKrLinear.from_weights(nn.Linear(4, 4), LoKrWeights(1.0, lokr_w1=torch.eye(2))),
            ValueError,
            "weights must hold lokr_w2, or lokr_w2_a and lokr_w2_b of one rank, "
            "got shapes [None, None, None]",
        ),
    ],
)
def test_other_refusals(call, error, text):
    with pytest.raises(error, match=re.escape(text)):
        call()


@pytest.mark.parametrize(
    ("w1", "error", "text"),
    [
        (torch.ones(2, 2).int(), TypeError, "weights must be floating tensors of one dtype, got torch.f"),
        (torch.ones(2, 2).double(), TypeError, "weights must be floating tensors of one dtype, got torch.f"),
        (5, TypeError, "weights must be floating tensors of one dtype, got int, torch.float32"),
    ],
)
def test_weights_of_other_kinds_are_refused(w1, error, text):
    weights = LoKrWeights(1.0, lokr_w1=w1, lokr_w2=torch.ones(4, 6))
    with pytest.raises(error, match=f"^{text}"):
        LoKrLinear.from_weights(nn.Linear(12, 8), weights)


def test_scales_and_bases_that_are_refused():
    base = nn.Linear(12, 8)
    with pytest.raises(TypeError, match=r"^weights must be LoKrWeights, got int$"):
        LoKrLinear.from_weights(base, 5)
    with pytest.raises(TypeError, match=r"^alpha must be a real number, got 'a'$"):
        LoKrLinear(base, alpha="a")
    with pytest.raises(ValueError, match=r"^alpha must be finite, got nan$"):
        LoKrLinear(base, alpha=float("nan"))
    with pytest.raises(ValueError, match=r"^base must have a shape, got a lazy layer that was not called$"):
        LoKrLinear(nn.LazyLinear(8))
