"""ketify on small models: what is replaced, and what is kept."""

import pickle
import re
import warnings
from copy import deepcopy

import pytest

from tests.require import imported

torch = imported("torch")

from torch import nn  # noqa: E402

from ketcore.torch.embeddings import EmbeddingKet, EmbeddingKetXS  # noqa: E402
from ketcore.torch.head import TiedHead  # noqa: E402
from ketcore.torch.ketify import ketify  # noqa: E402
from ketcore.torch.linear import KroneckerLinear  # noqa: E402
from tests.ketify_models import IDS, Shared, Tied, drawn, reason, state  # noqa: E402


def test_an_embedding_is_replaced_in_place():
    model = nn.Sequential(nn.Embedding(60, 16), nn.Linear(16, 3))
    linear = model[1]
    result, report = drawn(model)
    assert result is model
    assert model[1] is linear
    assert type(model[0]) is EmbeddingKetXS
    torch.testing.assert_close(model(IDS), linear(model[0].to_dense()[IDS]))
    (line,) = report.replaced
    assert (line.names, line.before, line.after, line.shape) == (
        ("0",),
        "Embedding",
        "EmbeddingKetXS",
        (60, 16),
    )
    count = sum(factor.numel() for factor in model[0].factors)
    assert (line.parameters_before, line.parameters_after, line.tied_to, line.error) == (
        960,
        count,
        None,
        None,
    )
    assert (report.parameters_before, report.parameters_after) == (960 + 51, count + 51)
    assert not report.skipped


def test_the_model_itself_may_be_an_embedding():
    model = nn.Embedding(60, 16)
    result, report = drawn(model)
    assert type(result) is EmbeddingKetXS
    assert type(model) is nn.Embedding
    assert report.replaced[0].names == ("",)
    assert "(the model)" in str(report)


def test_what_an_embedding_was_told_is_kept():
    told = {"max_norm": 0.5, "norm_type": 1.0, "scale_grad_by_freq": True}
    model, _ = drawn(nn.Sequential(nn.Embedding(60, 16, padding_idx=7, **told)))
    assert model[0].padding_idx == 7
    assert {name: getattr(model[0], name) for name in told} == told
    assert not model(IDS)[1, :2].any()


@pytest.mark.parametrize("kind", ["xs", "ket"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
def test_dtype_device_mode_and_frozen_weights_are_kept(kind, dtype):
    for device in ("cpu", "meta"):
        model = nn.Sequential(nn.Embedding(60, 16, dtype=dtype, device=device), nn.Dropout())
        model[0].eval().weight.requires_grad_(False)
        drawn(model, kind=kind, order=2, rank=1)
        parameters = list(model[0].parameters())
        assert {(each.dtype, each.device.type, each.requires_grad) for each in parameters} == {
            (dtype, device, False)
        }
        assert not model[0].training
        assert model[1].training


@pytest.mark.parametrize("kind", ["xs", "ket"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_tied_head_follows_its_embedding(kind, bias):
    model = Tied(bias=bias)
    given = model.head.bias
    model, report = drawn(model, kind=kind, order=2, rank=1)
    table = model.words.to_dense()
    expected = nn.functional.linear(torch.tanh(model.hidden(table[IDS])), table, given)
    torch.testing.assert_close(model(IDS), expected)
    assert model.head.bias is given
    shared = {id(each) for each in model.words.parameters()}
    assert {id(each) for each in model.head.parameters()} - {id(given)} == shared
    assert [(line.names, line.tied_to) for line in report.replaced] == [
        (("words",), None),
        (("head",), "words"),
    ]
    dense = Tied(bias=bias)
    assert report.parameters_before == sum(each.numel() for each in dense.parameters())
    assert report.parameters_after == sum(each.numel() for each in model.parameters())


def test_a_tied_head_trains_the_table():
    model, dense = drawn(Tied())[0].double(), Tied().double()
    dense.hidden, dense.head.bias = deepcopy(model.hidden), deepcopy(model.head.bias)
    table = model.words.to_dense()
    dense.words.weight.data.copy_(table)
    cotangent = torch.randn(2, 3, 60, dtype=torch.float64)
    for each in (model, dense):
        each(IDS).backward(cotangent)
    expected = torch.autograd.grad(table, list(model.words.factors), dense.words.weight.grad)
    for factor, gradient in zip(model.words.factors, expected, strict=True):
        torch.testing.assert_close(factor.grad, gradient)
    torch.testing.assert_close(model.hidden.weight.grad, dense.hidden.weight.grad)


@pytest.mark.parametrize("copied", [deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_stay_tied(copied):
    model, _ = drawn(Tied())
    copy = copied(model).double()
    torch.testing.assert_close(copy(IDS), model.double()(IDS))
    with torch.no_grad():
        copy.words.factors[0].mul_(2)
    table = copy.words.to_dense()
    x = torch.randn(5, 16, dtype=torch.float64)
    torch.testing.assert_close(copy.head(x), nn.functional.linear(x, table, copy.head.bias))


def test_a_model_on_the_meta_device_is_loaded():
    saved, _ = drawn(Tied())
    with torch.device("meta"):
        model, _ = drawn(Tied())
    model.to_empty(device="cpu").load_state_dict(saved.state_dict())
    torch.testing.assert_close(model(IDS), saved(IDS))
    assert {id(each) for each in model.words.parameters()} <= {id(each) for each in model.head.parameters()}


@pytest.mark.parametrize("model", [Tied, Shared])
@pytest.mark.parametrize("factorise", [True, False])
def test_a_checkpoint_is_loaded_into_a_model_that_was_made_alike(model, factorise):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        saved, _ = ketify(model(), rank=2, factorise=factorise)
    loaded, _ = drawn(model())
    assert loaded.load_state_dict(saved.state_dict()) == ([], [])
    torch.testing.assert_close(loaded(IDS), saved(IDS))


def test_a_checkpoint_of_another_rank_names_what_does_not_fit():
    saved, _ = drawn(Tied(), rank=1)
    loaded, _ = drawn(Tied())
    with pytest.raises(RuntimeError, match=re.escape("size mismatch for words.factors.0")):
        loaded.load_state_dict(saved.state_dict())


def test_what_was_shared_stays_shared():
    model, report = drawn(Shared())
    assert model.tags is model.inner[0]
    assert model.encoder.factors is model.decoder.factors
    assert (model.encoder.padding_idx, model.decoder.padding_idx) == (0, None)
    assert not model.encoder(torch.tensor(0)).any()
    assert model.decoder(torch.tensor(0)).any()
    assert [line.names for line in report.replaced] == [("encoder",), ("decoder",), ("tags", "inner.0")]
    assert report.parameters_after == sum(each.numel() for each in model.parameters())


def test_training_keeps_what_is_tied():
    torch.manual_seed(0)
    model, _ = drawn(Tied())
    losses = []
    for _ in range(10):
        loss = nn.functional.cross_entropy(model(IDS).flatten(0, 1), IDS.flatten())
        # Each parameter once: those that are shared would move twice.
        parameters = list(model.parameters())
        with torch.no_grad():
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter -= 0.3 * gradient
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    x = torch.randn(5, 16)
    expected = nn.functional.linear(x, model.words.to_dense(), model.head.bias)
    torch.testing.assert_close(model.head(x), expected)


def test_drawn_weights_have_the_size_of_those_before():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(2000, 256), nn.Linear(256, 512))
    for module in model:
        nn.init.normal_(module.weight, std=0.02)
    drawn(model, rank=8, linears=True, linear_rank=8)
    assert model[0].to_dense().std().item() == pytest.approx(0.02, rel=0.1)
    assert model[1].to_dense().std().item() == pytest.approx(0.02, rel=1e-2)


@pytest.mark.parametrize("factorise", [True, False])
@pytest.mark.parametrize("kind", ["xs", "ket"])
def test_weights_of_zeros_stay_so_and_can_be_trained(kind, factorise):
    model = nn.Sequential(nn.Embedding(60, 16), nn.Linear(16, 16))
    for module in model:
        nn.init.zeros_(module.weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ketify(model, kind=kind, order=2, rank=1, linears=True, factorise=factorise)
    assert not model[0](IDS).any()
    assert not model[1].to_dense().any()
    model[0](IDS).sum().backward()
    model[1](torch.ones(1, 16)).sum().backward()
    for module in model:
        assert any(each.grad.any() for each in module.parameters())


def test_weights_are_factorised_with_a_warning():
    torch.manual_seed(0)
    exact = torch.kron(torch.randn(6, 4), torch.randn(10, 4))
    model = nn.Sequential(nn.Embedding.from_pretrained(exact, freeze=False), nn.Linear(16, 16))
    before = model[1].weight.detach().clone()
    with pytest.warns(UserWarning, match=r"differ from the old ones, by relative errors of 0 \S+, 1 0\.\d+$"):
        _, report = ketify(model, rank=1, linears=True)
    errors = [line.error for line in report.replaced]
    assert errors[0] < 1e-6
    torch.testing.assert_close(model[0].to_dense(), exact)
    difference = torch.linalg.norm(model[1].to_dense() - before) / torch.linalg.norm(before)
    assert errors[1] == pytest.approx(difference.item(), rel=1e-5)
    assert all(each.requires_grad for each in model.parameters())


def test_linear_layers_are_replaced_when_asked():
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16, bias=False), nn.Tanh(), nn.Linear(16, 1))
    model[1].weight = model[0].weight
    bias = model[0].bias
    _, report = drawn(model, linears=True, linear_rank=2, linear_order=4)
    assert type(model[0]) is type(model[1]) is KroneckerLinear
    assert model[0].factors is model[1].factors
    assert model[0].bias is bias
    assert model[1].bias is None
    assert (model[0].rank, model[0].order) == (2, 4)
    x = torch.randn(3, 16)
    torch.testing.assert_close(model[0](x), nn.functional.linear(x, model[0].to_dense(), bias))
    assert reason(report, "3") == "its 16 parameters would become 16"


def test_either_name_of_a_shared_module_chooses_it():
    model, _ = drawn(Shared(), include="inner.*")
    assert type(model.tags) is type(model.inner[0]) is EmbeddingKetXS
    model, _ = drawn(Shared(), exclude="inner.*")
    assert type(model.tags) is nn.Embedding


def test_a_second_call_changes_nothing():
    model, first = drawn(Tied(), linears=True, linear_rank=1)
    before, modules = state(model), list(model.modules())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, report = drawn(model, linears=True, rank=1)
    assert again is model
    assert list(model.modules()) == modules
    assert [type(model.words), type(model.hidden), type(model.head)] == [
        EmbeddingKetXS,
        KroneckerLinear,
        TiedHead,
    ]
    assert before.keys() == state(model).keys()
    assert not report.replaced
    assert report.parameters_before == report.parameters_after == first.parameters_after


BAGS = {"mode": "sum", "include_last_offset": True, "padding_idx": 7}


@pytest.mark.parametrize("kind", ["xs", "ket"])
def test_bags_are_replaced(kind):
    words = nn.Embedding(60, 16)
    model = nn.ModuleDict(
        {"bag": nn.EmbeddingBag(60, 16, **BAGS), "mean": nn.EmbeddingBag(60, 16), "words": words}
    )
    model["mean"].weight = words.weight
    _, report = drawn(model, kind=kind, order=2, rank=1)
    assert {name: getattr(model["bag"], name) for name in BAGS} == BAGS
    table = model["bag"].to_dense()
    result = model["bag"](IDS.flatten(), torch.tensor([0, 3, 6]))
    torch.testing.assert_close(result, torch.stack([table[IDS[0]].sum(0), table[12]]))
    torch.testing.assert_close(model["mean"](IDS), model["words"].to_dense()[IDS].mean(1))
    assert [line.tied_to for line in report.replaced] == [None, None, "words"]


def test_ket_layers_may_be_sparse():
    model, _ = drawn(nn.Embedding(60, 16, sparse=True), kind="ket", order=2, rank=1)
    assert type(model) is EmbeddingKet
    model(IDS).sum().backward()
    assert model.leaves.grad.is_sparse
