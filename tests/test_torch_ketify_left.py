"""ketify on small models: what is left and why, what is chosen, and what is refused."""

import re

import pytest

from tests.require import imported

torch = imported("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations  # noqa: E402

from ketcore.torch.ketify import ketify  # noqa: E402
from tests.ketify_models import IDS, Tied, drawn, reason, state  # noqa: E402


class Other(nn.Embedding):
    """Of learned positions, say, which begin with the third."""

    def forward(self, ids):
        return super().forward(ids + 2)


def own_forward(module):
    module.forward = lambda ids: nn.Embedding.forward(module, ids)
    return module


def hooked(module):
    module.register_forward_hook(lambda *_: None)
    return module


def weight_hooked(module):
    module.weight.register_hook(lambda gradient: None)
    return module


def with_more(module):
    module.register_buffer("counts", torch.zeros(60))
    return module


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Other(60, 16), "a class of its own, which may compute something else"),
        (lambda: own_forward(nn.Embedding(60, 16)), "its forward is not that of its class"),
        (lambda: hooked(nn.Embedding(60, 16)), "it has hooks, which would be lost"),
        (lambda: weight_hooked(nn.Embedding(60, 16)), "its weight has hooks, which would be lost"),
        (lambda: with_more(nn.Embedding(60, 16)), "it holds more than its weight"),
        (lambda: parametrizations.weight_norm(nn.Embedding(60, 16)), "a class of its own, which may"),
        (
            lambda: nn.Embedding(60, 16, sparse=True),
            "its gradients are sparse, those of EmbeddingKetXS are not",
        ),
        (lambda: nn.Embedding(60, 16, _weight=torch.zeros(60, 16, dtype=torch.float8_e5m2)), "its weight is"),
        (lambda: nn.Embedding(0, 16), "it is empty"),
        (lambda: nn.Embedding(3, 2), "its 6 parameters would become "),
        (lambda: nn.Embedding(1, 1), "its 1 parameters would become 2"),
    ],
)
def test_what_cannot_be_replaced_is_left_with_its_reason(make, text):
    module = make()
    model = nn.ModuleDict({"left": module, "words": nn.Embedding(60, 16)})
    _, report = drawn(model, rank=1)
    assert model["left"] is module
    assert reason(report, "left").startswith(text)
    assert [line.names for line in report.replaced] == [("words",)]


def test_what_layers_of_ketcore_hold_is_theirs():
    class Adapter(nn.Module):
        __module__ = "ketcore.torch"

        def __init__(self):
            super().__init__()
            self.base, self.words = nn.Linear(16, 16), nn.Embedding(60, 16)

    model = nn.Sequential(Adapter(), nn.Embedding(60, 16))
    _, report = drawn(model, linears=True)
    assert [line.names for line in report.replaced] == [("1",)]
    assert not report.skipped
    assert type(model[0].base) is nn.Linear


def test_reasons_of_what_is_tied_to_what_is_left():
    model = nn.ModuleDict({"a": Tied(), "b": Tied(), "c": nn.Embedding(60, 16), "d": nn.Embedding(60, 16)})
    hooked(model["a"].head)
    model["c"].table = nn.Parameter(model["c"].weight)
    model.register_parameter("table", model["d"].weight)
    model["e"], model["f"] = nn.Embedding(60, 16), nn.Embedding(60, 16)
    # Two parameters of one memory, which are not tied for torch.
    model["g"] = nn.Embedding.from_pretrained(model["f"].weight.detach(), freeze=False)
    model["h"] = nn.Embedding(60, 16)
    _, report = drawn(model, exclude="b.head", include=["[!e]*"])
    assert {each.name: each.reason for each in report.skipped} == {
        "a.words": "its weight is that of 'a.head', which is left",
        "a.head": "it has hooks, which would be lost",
        "b.words": "its weight is that of 'b.head', which is left",
        "b.head": "excluded",
        "c": "it holds more than its weight",
        "d": "its weight is also 'table'",
        "e": "not included",
        "f": "its weight is also 'g.weight'",
        "g": "its weight is also 'f.weight'",
    }
    assert model["a"].words.weight is model["a"].head.weight


def test_modules_are_chosen_by_names_or_by_a_predicate():
    def model():
        return nn.ModuleDict({name: nn.Embedding(60, 16) for name in ("words", "tags", "wide")})

    def replaced(**options):
        return [line.names[0] for line in drawn(model(), **options)[1].replaced]

    assert replaced() == ["words", "tags", "wide"]
    assert replaced(include="w*") == ["words", "wide"]
    assert replaced(include=["w*", "tags"], exclude="wide") == ["words", "tags"]
    assert replaced(include=lambda name, module: name == "tags" and module.num_embeddings == 60) == ["tags"]
    with pytest.raises(
        ValueError, match=r"include must choose some of 'words', 'tags', 'wide', got none of them"
    ):
        replaced(include="word")
    with pytest.warns(UserWarning, match=r"nothing was replaced\nleft .*\nwords .* fewer than 961\n"):
        assert replaced(min_parameters=961) == []
    assert replaced(min_parameters=960) == ["words", "tags", "wide"]


@pytest.mark.parametrize("linears", [False, True])
def test_lazy_modules_are_left(linears):
    model = nn.Sequential(nn.Embedding(500, 32), nn.LazyLinear(5), nn.LazyBatchNorm1d())
    model, report = ketify(model, factorise=False, linears=linears)
    assert [each.names for each in report.replaced] == [("0",)]
    assert model(torch.arange(4)).shape == (4, 5)


def test_a_model_without_embeddings_is_refused():
    model = nn.Sequential(nn.Linear(4, 4))
    before = state(model)
    with pytest.raises(
        ValueError, match=r"^model must have some nn\.Embedding or .*, got a Sequential without$"
    ):
        ketify(model)
    with pytest.raises(ValueError, match=r"EmbeddingBag or nn\.Linear, got a Tanh without$"):
        ketify(nn.Tanh(), linears=True)
    assert type(model[0]) is nn.Linear
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_cannot_be_factorised_leave_the_model_alone(value):
    model = nn.ModuleDict({"good": nn.Embedding(60, 16), "bad": nn.Embedding(60, 16)})
    model["bad"].weight.data[5, 3] = value
    with pytest.raises(
        ValueError, match=r"weights must be finite to be factorised, got \w+ in row 5 of 'bad'"
    ):
        ketify(model)
    model["bad"].to("meta")
    with pytest.raises(
        ValueError, match=r"factorise must be False for weights on the meta device, got 'bad'"
    ):
        ketify(model)
    assert type(model["good"]) is type(model["bad"]) is nn.Embedding
    drawn(model)
    assert model["good"](IDS).isfinite().all()


def test_drawn_weights_take_no_size_from_what_is_not_finite():
    model = nn.Embedding(60, 16)
    model.weight.data[5, 3] = float("nan")
    assert drawn(model)[0](IDS).isfinite().all()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"kind": "XS"}, ValueError, "kind must be one of ['ket', 'xs'], got 'XS'"),
        ({"kind": []}, ValueError, "kind must be one of ['ket', 'xs'], got []"),
        ({"order": 0}, ValueError, "order must be at least 1, got 0"),
        ({"rank": 1.5}, TypeError, "rank must be an int, got 1.5"),
        ({"linear_order": 0}, ValueError, "linear_order must be at least 1, got 0"),
        ({"linear_rank": None}, TypeError, "linear_rank must be an int, got None"),
        ({"linears": 2}, TypeError, "linears must be a bool, got 2"),
        ({"factorise": "weights"}, TypeError, "factorise must be a bool, got 'weights'"),
        ({"include": 3}, TypeError, "include must be patterns of names or callable, got int"),
        ({"exclude": [3]}, TypeError, "exclude must be patterns of names or callable, got 3"),
        ({"min_parameters": -1}, ValueError, "min_parameters must be at least 0, got -1"),
    ],
)
def test_wrong_options_are_named(options, error, text):
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        ketify(nn.Embedding(60, 16), **options)


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match=r"^model must be a torch\.nn\.Module, got list$"):
        ketify([nn.Embedding(60, 16)])


def test_a_head_that_is_tied_to_a_bag_alone_is_left():
    model = nn.ModuleDict(
        {"bag": nn.EmbeddingBag(60, 16), "head": nn.Linear(16, 60), "words": nn.Embedding(60, 16)}
    )
    model["head"].weight = model["bag"].weight
    _, report = drawn(model)
    assert reason(report, "bag") == reason(report, "head")
    assert (
        reason(report, "head") == "its weight is that of a linear layer too, whose logits need an embedding"
    )


def test_an_encoder_that_reads_the_weights_of_its_layers_works():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2)
    model = nn.Sequential(nn.Embedding(60, 16), encoder)
    _, report = drawn(model, linears=True)
    assert reason(report, "1.layers.0.linear1") == "nn.TransformerEncoderLayer reads its weight"
    assert reason(report, "1.layers.0.self_attn.out_proj").startswith("a class of its own")
    with torch.no_grad():
        assert model.eval()(IDS).shape == (2, 3, 16)
