"""KroneckerLinear equals a linear layer of its dense weight, and behaves like a module of PyTorch."""

import copy
import io
import pickle
import re
from functools import reduce
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketcore import nearest_kronecker
from ketcore.testing import tolerance
from tests.require import imported

torch = imported("torch")

from torch import nn  # noqa: E402

from ketcore.torch import KroneckerLinear  # noqa: E402

SIZES = {"in_features": 10, "out_features": 7}


def made(**options):
    torch.manual_seed(0)
    return KroneckerLinear(**{**SIZES, "rank": 2, "dtype": torch.float64, **options})


def dense_of(layer):
    """W by its definition."""
    terms = zip(*(factor.detach().numpy() for factor in layer.factors), strict=True)
    total = sum(reduce(np.kron, [matrix.T for matrix in term]) for term in terms)
    return torch.from_numpy(total)[: layer.out_features, : layer.in_features]


dims = st.integers(1, 3).flatmap(
    lambda order: st.tuples(*[st.lists(st.integers(1, 4), min_size=order, max_size=order)] * 2)
)


@given(dims, st.lists(st.integers(0, 3), max_size=3), st.integers(1, 3), st.booleans(), st.data())
def test_equals_a_linear_layer_of_its_weight(dims, batch, rank, bias, data):
    in_dims, out_dims = dims
    layer = KroneckerLinear(
        data.draw(st.integers(1, prod(in_dims))), data.draw(st.integers(1, prod(out_dims))), bias,
        order=len(in_dims), rank=rank, in_dims=in_dims, out_dims=out_dims, dtype=torch.float64,
    )  # fmt: skip
    x = torch.randn(*batch, layer.in_features, dtype=torch.float64, requires_grad=True)
    dense = layer.to_dense()
    assert torch.allclose(dense, dense_of(layer), rtol=1e-12, atol=1e-12)
    expected = nn.functional.linear(x, dense, layer.bias)
    found = layer(x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    cotangent = torch.randn_like(expected)
    inputs = [x, *layer.parameters()]
    both = [torch.autograd.grad(y, inputs, cotangent, materialize_grads=True) for y in (found, expected)]
    for mine, theirs in zip(*both, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_gradients_to_second_order():
    layer = made()
    names = [name for name, _ in layer.named_parameters()]

    def function(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    inputs = [torch.randn(2, 10, dtype=torch.float64), *(p.detach().clone() for p in layer.parameters())]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_variance_is_that_of_a_linear_layer(order, dtype):
    torch.manual_seed(1)
    weights = [KroneckerLinear(60, 50, order=order, rank=3, dtype=dtype).to_dense() for _ in range(40)]
    parts = 2 if dtype.is_complex else 1
    found = torch.stack(weights).abs().square().mean().item()
    assert found == pytest.approx(parts / (3 * 60), rel=0.1)


def test_one_factor_is_drawn_as_a_linear_layer():
    torch.manual_seed(2)
    layer = KroneckerLinear(40, 500, order=1)
    bound = 40**-0.5
    for drawn in (layer.to_dense(), layer.bias):
        assert 0.9 * bound < drawn.abs().max() <= bound


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_from_linear(dtype):
    torch.manual_seed(3)
    linear = nn.Linear(12, 10, dtype=dtype).eval()
    linear.weight.requires_grad_(False)
    state = torch.get_rng_state()
    layer = KroneckerLinear.from_linear(linear, rank=9)
    assert torch.equal(torch.get_rng_state(), state)
    assert layer.in_dims == (3, 4)
    assert layer.factors[0].dtype == dtype
    assert not layer.training
    assert not any(factor.requires_grad for factor in layer.factors)
    assert layer.bias.requires_grad
    assert torch.equal(layer.bias, linear.bias)
    assert layer.bias is not linear.bias
    error = (layer.to_dense() - linear.weight).abs().max()
    assert error <= tolerance(str(dtype).removeprefix("torch."), 9)


def test_from_linear_finds_the_nearest():
    torch.manual_seed(4)
    linear = nn.Linear(12, 10, bias=False, dtype=torch.float64)
    layer = KroneckerLinear.from_linear(linear, rank=2, in_dims=(2, 6), out_dims=(5, 2))
    nearest = nearest_kronecker(linear.weight.detach().numpy(), (5, 2), (2, 6), 2).value.to_dense()
    np.testing.assert_allclose(layer.to_dense().detach().numpy(), nearest, atol=1e-12)
    assert layer.bias is None


@pytest.mark.parametrize("weight", [torch.eye(4), torch.zeros(4, 4)])
def test_terms_that_from_linear_does_not_need_are_zero_and_train(weight):
    linear = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        linear.weight.copy_(weight)
    layer = KroneckerLinear.from_linear(linear, rank=3)
    torch.testing.assert_close(layer.to_dense(), weight)
    assert layer.factors[0].shape[0] == 3
    targets = torch.randn(9, 4)
    (layer(torch.randn(9, 4)) - targets).square().sum().backward()
    spare = layer.factors[-1].grad[1:].abs().amax((1, 2))
    assert bool((spare > 0.1).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    layer = made().to(dtype)
    x = torch.randn(5, 10, dtype=dtype)
    found = layer(x)
    wide = nn.functional.linear(x.double(), layer.double().to_dense(), layer.bias)
    assert found.dtype == dtype
    assert (found.double() - wide).abs().max() <= 4 * tolerance(str(dtype).removeprefix("torch."), 20)


def test_autocast_takes_inputs_of_other_dtypes():
    layer = made(dtype=torch.float32)
    x = torch.randn(5, 10)
    expected = nn.functional.linear(x, layer.to_dense(), layer.bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given_x in (x, x.bfloat16()):
            torch.testing.assert_close(layer(given_x).float(), expected, rtol=0.05, atol=0.05)


def test_meta_device_and_to_empty():
    layer = KroneckerLinear(10, 7, device="meta")
    assert layer(torch.empty(3, 10, device="meta")).shape == (3, 7)
    layer.to_empty(device="cpu")
    layer.load_state_dict(KroneckerLinear(10, 7).state_dict())
    layer.reset_parameters()
    assert layer(torch.ones(3, 10)).isfinite().all()


def test_copies_and_checkpoints():
    layer = made()
    x = torch.randn(4, 10, dtype=torch.float64)
    loaded = KroneckerLinear(**SIZES, rank=2, dtype=torch.float64)
    stream = io.BytesIO()
    torch.save(layer.state_dict(), stream)
    stream.seek(0)
    loaded.load_state_dict(torch.load(stream))
    assert list(layer.state_dict()) == ["bias", "factors.0", "factors.1"]
    for other in (loaded, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x))
        assert other.factors[0] is not layer.factors[0]
    with pytest.raises(RuntimeError, match=r"size mismatch for factors\.0"):
        made(rank=1).load_state_dict(layer.state_dict())


def test_the_matrix_shares_the_parameters():
    layer = made()
    matrix = layer.matrix()
    assert matrix.shape == (7, 10)
    assert matrix.col_dims == layer.in_dims
    assert matrix.row_dims == layer.out_dims
    with torch.no_grad():
        layer.factors[0].zero_()
    assert not matrix.to_dense().any()


def test_repr():
    text = "in_features=10, out_features=7, in_dims=(3, 4), out_dims=(2, 4), rank=2, bias=False"
    assert made(bias=False, in_dims=(3, 4), out_dims=(2, 4)).extra_repr() == text


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"in_features": 0}, ValueError, "in_features must be at least 1, got 0"),
        ({"out_features": 2.5}, TypeError, "out_features must be an int, got 2.5"),
        ({"order": 0}, ValueError, "order must be at least 1, got 0"),
        ({"rank": 0}, ValueError, "rank must be at least 1, got 0"),
        ({"in_dims": (3, 3)}, ValueError, "in_dims must have a product of at least 10, got (3, 3)"),
        ({"in_dims": (3, 4), "out_dims": (7,)}, ValueError, "out_dims must be 2 ints, got (7,)"),
        ({"out_dims": 7}, TypeError, "out_dims must be a sequence of ints, got 7"),
    ],
)
def test_sizes_that_are_refused(options, error, text):
    with pytest.raises(error, match=re.escape(text)):
        made(**options)


@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        (
            torch.ones(2, 10),
            TypeError,
            "x and factors must have one dtype, got torch.float32, torch.float64",
        ),
        (
            torch.ones(2, 10, device="meta", dtype=torch.float64),
            TypeError,
            "x and factors must lie on one device, got meta, cpu",
        ),
        (torch.ones(10).long(), TypeError, "x and factors must have one dtype, got torch.int64"),
        (np.ones(10), TypeError, "x must be a tensor, got ndarray"),
        (
            torch.ones(2, 9, dtype=torch.float64),
            ValueError,
            "x must have 10 entries along axis -1, got shape (2, 9)",
        ),
    ],
    ids=["dtype", "device", "integers", "NumPy", "width"],
)
def test_inputs_that_are_refused(x, error, text):
    with pytest.raises(error, match=re.escape(text)):
        made()(x)


def test_other_refusals():
    with pytest.raises(AttributeError, match="KroneckerLinear has no weight: to_dense"):
        _ = made().weight
    with pytest.raises(AttributeError, match="has no attribute 'weights'"):
        _ = made().weights
    with pytest.raises(TypeError, match=r"linear must be a torch\.nn\.Linear, got Identity"):
        KroneckerLinear.from_linear(nn.Identity())
    with pytest.raises(ValueError, match="linear must have values, got a weight on the meta device"):
        KroneckerLinear.from_linear(nn.Linear(2, 2, device="meta"))
    broken = nn.Linear(2, 2)
    with torch.no_grad():
        broken.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        KroneckerLinear.from_linear(broken)


def test_what_is_not_finite_propagates():
    x = torch.zeros(2, 10, dtype=torch.float64)
    x[0, 3] = float("nan")
    found = made()(x)
    assert found[0].isnan().all()
    assert not found[1].isnan().any()


def test_a_weight_too_large_to_form_is_refused():
    with pytest.raises(MemoryError, match="280 bytes"):
        made(dtype=torch.float32).to_dense(max_bytes=279)


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        (torch.int32, "dtype must be floating or complex, got torch.int32"),
        (torch.float8_e4m3fn, "dtype must have at least 16 bits, got torch.float8_e4m3fn"),
        ("float32", "dtype must be floating or complex, got float32"),
    ],
)
def test_dtypes_that_are_refused(dtype, text):
    with pytest.raises(TypeError, match=f"^{text}$"):
        KroneckerLinear(4, 4, dtype=dtype)


def test_weights_that_from_linear_refuses():
    linear = nn.Linear(4, 4)
    nn.init.constant_(linear.weight, float("nan"))
    with pytest.raises(ValueError, match=r"^linear must have a finite weight, got NaN or infinity$"):
        KroneckerLinear.from_linear(linear)
    with pytest.raises(ValueError, match=r"^linear must have values, got a weight of a lazy layer$"):
        KroneckerLinear.from_linear(nn.LazyLinear(4))
    with pytest.raises(TypeError, match=r"^linear.weight must have at least 16 bits, got torch.float8"):
        KroneckerLinear.from_linear(nn.Linear(4, 4).to(torch.float8_e4m3fn))
