"""Dtypes in PyTorch: autocast, mixed ones, what is known of results without values, errors that name both."""

from dataclasses import replace

import numpy as np
import pytest

from ketcore.ops import OPS
from tests.require import imported
from tests.test_torch_functional import case, itself

torch = imported("torch")
from ketcore.torch import functional  # noqa: E402

# What PyTorch warns about parts of itself that forward derivatives use.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
HALVES = pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
RNG = np.random.default_rng(8)
FACTORS = [torch.as_tensor(RNG.standard_normal((2, 5, 4)), dtype=torch.float32) for _ in range(2)]
X = torch.as_tensor(RNG.standard_normal((7, 25)), dtype=torch.float32)
IDS = torch.arange(25)


def recorded(dtype=None):
    return [factor.to(dtype).requires_grad_() for factor in FACTORS]


@HALVES
def test_autocast_lowers_products_as_those_of_linear_layers(half):
    factors = recorded()
    with torch.autocast("cpu", dtype=half):
        lowered = functional.kron_matmul(factors, X)
        wide = functional.kron_matmul([factor.double() for factor in FACTORS], X.double())
        assert torch.nn.functional.linear(X, torch.ones(16, 25)).dtype is half
    assert (lowered.dtype, wide.dtype) == (half, torch.float64)
    expected = functional.kron_matmul([factor.to(half) for factor in FACTORS], X.to(half))
    assert torch.equal(lowered, expected)
    lowered.float().sum().backward()
    assert [factor.grad.dtype for factor in factors] == [torch.float32] * 2


@HALVES
def test_autocast_lowers_a_compiled_product(half):
    torch._dynamo.reset()
    compiled = torch.compile(functional.kron_matmul, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=half):
        assert torch.equal(compiled(FACTORS, X), functional.kron_matmul(FACTORS, X))


@HALVES
def test_autocast_lowers_nothing_within_a_lookup(half):
    """Nor within its derivatives, which are array code: gradients of gradients, forwards, mapped."""

    def everything():
        factors, tangents = recorded(), [factor + 1 for factor in FACTORS]
        rows = functional.rows(factors, IDS)
        first = torch.autograd.grad((rows**2).sum(), factors, create_graph=True)
        second = torch.autograd.grad(sum((one**2).sum() for one in first), factors)
        pushed = torch.func.jvp(lambda *f: functional.rows(f, IDS), tuple(FACTORS), tuple(tangents))
        batch = torch.eye(400).reshape(400, 25, 16)[:3]
        batched = torch.autograd.grad(functional.rows(factors, IDS), factors, batch, is_grads_batched=True)
        forward = torch.autograd.forward_ad
        with forward.dual_level():
            duals = [forward.make_dual(*pair) for pair in zip(FACTORS, tangents, strict=True)]
            dual = functional.rows(duals, IDS)
            along = forward.unpack_dual(dual).tangent
        return [rows, *first, *second, *pushed, *batched, along]

    expected = everything()
    with torch.autocast("cpu", dtype=half):
        found = everything()
    for one, other in zip(found, expected, strict=True):
        assert one.dtype is torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", [op.name for op in OPS])
def test_results_without_values_have_the_dtypes_of_those_with(name):
    """Of arrays of mixed dtypes, real and complex, too."""
    (op,) = (op for op in OPS if op.name == name)
    problem = itself(op, case(op, "float64").problem)
    if problem.index is not None:
        problem = replace(problem, index=torch.as_tensor(np.asarray(problem.index)))
    # A shift has no dimensions, and widens nothing but to complex numbers.
    kinds = [torch.float64, torch.float32, torch.complex64]
    of_reals = any(primal.real for primal in op.primals)
    for shift in (torch.float64,) if of_reals else (torch.float64, torch.complex128):
        if problem.options.get("layernorm"):
            kinds = [torch.float32]
        arrays = [torch.as_tensor(np.asarray(array)) for array in problem.arrays]
        arrays = [a.to(kinds[n % len(kinds)]) if a.ndim else a.to(shift) for n, a in enumerate(arrays)]
        call = getattr(functional, name)
        real = op.flat_outputs(problem.call(call, arrays))
        with torch._subclasses.FakeTensorMode() as mode:
            fakes = [mode.from_tensor(array) for array in arrays]
            given = None if problem.index is None else mode.from_tensor(problem.index)
            found = op.flat_outputs(replace(problem, index=given).call(call, fakes))
        assert [(one.dtype, one.shape) for one in found] == [(one.dtype, one.shape) for one in real]


def test_local_terms_are_the_same_when_compiled():
    """Collections of modes pass through the operator's list of ints."""
    torch._dynamo.reset()
    factors, x = [torch.rand(2, 3, 3) for _ in range(2)], torch.rand(4, 9)
    for identities in ((frozenset({0}), frozenset({1})), ({0}, ()), ((), [0, 1]), (1,), ()):
        compiled = torch.compile(
            lambda f, x: functional.kron_matmul(f, x, identities=identities),  # noqa: B023
            fullgraph=True,
            backend="aot_eager",
        )
        torch.testing.assert_close(
            compiled(factors, x), functional.kron_matmul(factors, x, identities=identities)
        )


def test_mixed_devices_are_named():
    meta = FACTORS[0].to("meta")
    with pytest.raises(TypeError, match="factors must lie on one device, got cpu, meta"):
        functional.rows((FACTORS[0], meta), IDS)
    with pytest.raises(TypeError, match="must lie on one device, got cpu, meta"):
        functional.kron_matmul(FACTORS, X.to("meta"))


def test_ids_are_mapped_over_along_any_axis_by_one_call(monkeypatch):
    from ketcore.torch.operators import TorchOperator

    calls, run = [], TorchOperator.run
    monkeypatch.setattr(TorchOperator, "run", lambda *given: calls.append(given) or run(*given))
    ids = torch.arange(24).reshape(4, 3, 2)
    found = torch.vmap(lambda one: functional.rows(FACTORS, one), in_dims=1)(ids)
    assert len(calls) == 1
    assert torch.equal(found, functional.rows(FACTORS, ids.movedim(1, 0)))


@pytest.mark.parametrize("shift", [1.5, 1.5 + 2j])
def test_a_shift_without_values_widens_to_complex_numbers_alone(shift):
    factors, b = [torch.eye(2)[None], torch.eye(3)[None]], torch.ones(6)
    shift = torch.tensor(shift, dtype=torch.complex128 if isinstance(shift, complex) else torch.float64)
    real = functional.kron_solve(factors, b, shift)
    with torch._subclasses.FakeTensorMode() as mode:
        fakes = [mode.from_tensor(array) for array in (*factors, b, shift)]
        found = functional.kron_solve(fakes[:2], *fakes[2:])
    assert found.dtype is real.dtype is (torch.complex64 if shift.is_complex() else torch.float32)


def test_an_operator_called_by_itself_conjugates_its_gradients():
    factors = [(factor * (1 + 2j)).requires_grad_() for factor in FACTORS]
    outputs = torch.ops.ketcore.rows.default(factors, IDS), functional.rows(factors, IDS)
    one, other = (torch.autograd.grad((out**2).real.sum(), factors) for out in outputs)
    torch.testing.assert_close(one, other)
