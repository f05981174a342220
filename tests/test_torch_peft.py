"""LoKr adapters of PEFT and LyCORIS: their files, and models of PEFT that run without the products."""

import copy
import json
import pickle
import re
import sys
from importlib.util import find_spec
from math import isqrt

import pytest

from tests.require import imported, require

torch = imported("torch")

from torch import nn  # noqa: E402

from ketcore.torch import LoKrLinear, load_lokr, patch_peft, read_lokr  # noqa: E402
from tests.lokr_problems import assert_same, network  # noqa: E402


@pytest.fixture
def peft():
    require("peft", find_spec("peft") is not None, "peft is not installed")
    import peft

    return peft


@pytest.fixture
def lycoris():
    require("lycoris", find_spec("lycoris") is not None, "lycoris is not installed")
    import lycoris

    return lycoris


class Images(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.conv = nn.Conv2d(16, 24, 3, **options)
        self.last = nn.Conv2d(24, 30, 1)

    def forward(self, x):
        return self.last(self.conv(x).relu())


def adapted(peft, dtype=torch.float64, model=None, **options):
    """A model of PEFT with LoKr on its layers, no weight of which is zero."""
    torch.manual_seed(2)
    model = network() if model is None else model
    targets = ["0", "2"] if isinstance(model, nn.Sequential) else ["conv", "last"]
    config = {"r": 3, "alpha": 5, "target_modules": targets, "init_weights": False, **options}
    return peft.get_peft_model(model, peft.LoKrConfig(**config)).to(dtype)


def outcome(model, x):
    """The output of a model and all gradients, with the same random numbers in every call."""
    torch.manual_seed(3)
    y = model(x)
    inputs = [x, *(parameter for parameter in model.parameters() if parameter.requires_grad)]
    return [y, *torch.autograd.grad(y.square().sum(), inputs, materialize_grads=True)]


SETTINGS = {
    "plain": {},
    "decompose_both": {"decompose_both": True},
    "decompose_factor": {"decompose_factor": 16},
    "whole": {"r": 100},
    "rank_dropout": {"rank_dropout": 0.4},
    "rank_dropout_scale": {"rank_dropout": 0.4, "rank_dropout_scale": True},
    "module_dropout": {"module_dropout": 0.5},
    "patterns": {"rank_pattern": {"2": 5}, "alpha_pattern": {"0": 9}},
}
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 0.05}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    ("dtype", "training"), [*((each, True) for each in TOLERANCES), (torch.float64, False)]
)
def test_a_patched_model_equals_that_of_peft(peft, name, dtype, training):
    model = adapted(peft, dtype, **SETTINGS[name]).train(training)
    x = torch.randn(5, 64, dtype=dtype, requires_grad=True)
    expected = outcome(model, x)
    with patch_peft(model) as patch:
        assert len(patch) == 2
        found = outcome(model, x)
    assert torch.equal(outcome(model, x)[0], expected[0])
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        assert (mine - theirs).abs().max() <= TOLERANCES[dtype] * theirs.abs().max()


STRIDED = {"stride": 2, "padding": 1, "dilation": 2}


@pytest.mark.parametrize(
    ("options", "conv"),
    [
        ({}, STRIDED),
        ({"use_effective_conv2d": True}, STRIDED),
        ({"r": 100}, {}),
        ({"decompose_both": True}, {}),
        ({"rank_dropout": 0.4}, {}),
    ],
)
def test_patched_convolutions(peft, options, conv):
    model = adapted(peft, model=Images(**conv), **options)
    x = torch.randn(2, 16, 9, 8, dtype=torch.float64, requires_grad=True)
    expected = outcome(model, x)
    with patch_peft(model) as patch:
        assert len(patch) == 2
        assert_same(outcome(model, x), expected)


def test_a_patched_model_stays_one_of_peft(peft, tmp_path):
    model = adapted(peft)
    model.add_adapter("second", peft.LoKrConfig(r=2, alpha=1, target_modules=["2"], init_weights=False))
    model = model.double()
    x = torch.randn(5, 64, dtype=torch.float64)

    def outputs():
        found = []
        for names in ("default", "second", ["default", "second"]):
            model.base_model.set_adapter(names)
            found.append(model(x))
        with model.disable_adapter():
            found.append(model(x))
        model.base_model.merge_adapter()
        found.append(model(x))
        model.base_model.unmerge_adapter()
        return found

    keys, expected = list(model.state_dict()), outputs()
    patch = patch_peft(model)
    assert_same(outputs(), expected)
    assert list(model.state_dict()) == keys
    assert len(patch_peft(model)) == 0
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert_same([copied(x)], [model(x)])
    model.base_model.set_adapter("default")
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(network().double(), tmp_path)
    assert_same([loaded(x)], [expected[0]])
    patch.remove()
    patch.remove()
    assert {type(each).__module__ for each in model.modules() if "lokr" in repr(type(each)).lower()} == {
        "peft.tuners.lokr.layer",
        "peft.tuners.lokr.model",
    }
    merged = patch_peft(model) and model.merge_and_unload()
    assert_same([merged(x)], [expected[0]])


def test_the_product_is_not_formed(peft, monkeypatch):
    model = adapted(peft)
    patch_peft(model)
    monkeypatch.setattr(torch, "kron", None)
    outcome(model, torch.randn(5, 64, dtype=torch.float64, requires_grad=True))


def test_what_patching_refuses(peft):
    with pytest.raises(ValueError, match="model must hold LoKr layers of PEFT, got none"):
        patch_peft(network())
    model = adapted(peft, model=Images(groups=2))
    text = "model must have LoKr on nn.Linear and nn.Conv2d of one group, got Conv2d of 2 groups at "
    with pytest.raises(TypeError, match=re.escape(text)):
        patch_peft(model)
    assert type(model.base_model.model.last).__module__ == "peft.tuners.lokr.layer"
    sequence = nn.Sequential(nn.Conv1d(8, 8, 1), nn.Linear(4, 4), nn.Conv1d(8, 8, 1))
    with pytest.raises(TypeError, match=r"got Conv1d at '.*0'"):
        patch_peft(adapted(peft, model=sequence))


@pytest.mark.parametrize("name", ["plain", "decompose_both", "whole", "patterns"])
def test_files_of_peft(peft, name, tmp_path):
    model = adapted(peft, torch.float32, **SETTINGS[name]).eval()
    model.save_pretrained(tmp_path)
    x = torch.randn(5, 64)
    mine = network().eval()
    assert sorted(load_lokr(mine, tmp_path)) == ["0", "2"]
    assert isinstance(mine[0], LoKrLinear)
    assert not mine[0].training
    torch.testing.assert_close(mine(x), model(x))
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    again = read_lokr(str(tmp_path / "adapter_model.safetensors"), config)
    assert again["0"].scale == mine[0].scale == config["alpha_pattern"].get("0", 5) / config["r"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"linear_dim": 3, "linear_alpha": 1.0, "decompose_both": True},
        {"linear_dim": 1000, "linear_alpha": 3.0},
        {"factor": 4},
        {"rs_lora": True},
        {"use_scalar": True},
        {"unbalanced_factorization": True},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
@pytest.mark.filterwarnings("ignore")
def test_files_of_lycoris(lycoris, options, tmp_path):
    model, mine = network(), network()
    options = {"linear_dim": 4, "linear_alpha": 2.0, **options}
    theirs = lycoris.create_lycoris(model, 1.0, algo="lokr", **options)
    theirs.apply_to()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    file = tmp_path / "adapters.safetensors"
    theirs.save_weights(str(file), torch.float32, {})
    assert load_lokr(mine, file) == ["0", "2"]
    x = torch.randn(5, 64)
    torch.testing.assert_close(mine(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_a_weight_decomposition_is_refused(lycoris):
    theirs = lycoris.create_lycoris(network(), 1.0, 4, 2.0, algo="lokr", dora_wd=True)
    theirs.apply_to()
    text = "source must have no weight decomposition (DoRA), got 'lycoris_0.dora_scale'"
    with pytest.raises(ValueError, match=re.escape(text)):
        load_lokr(network(), theirs.state_dict())


def tensors(name="lycoris_0", rows=48, columns=64, alpha=2.0):
    a, b = isqrt(rows), isqrt(columns)
    a = next(d for d in range(a, 0, -1) if rows % d == 0)
    found = {"lokr_w1": torch.randn(a, b), "lokr_w2_a": torch.randn(rows // a, 2)}
    found |= {"lokr_w2_b": torch.randn(2, columns // b)}
    found |= {} if alpha is None else {"alpha": torch.tensor(alpha)}
    return {f"{name}.{key}": tensor for key, tensor in found.items()}


def test_prefixes_choose_a_model():
    source = tensors("lora_unet_0") | tensors("lora_te_0") | tensors("mine_2", 90, 48)
    model = network()
    assert load_lokr(model, source, prefix="lora_te_") == ["0"]
    expected = source["lora_te_0.lokr_w1"]
    assert torch.equal(model[0].lokr_w1, expected)
    assert load_lokr(model, source, prefix="mine_") == ["2"]
    shared = nn.Linear(64, 48)
    model = nn.ModuleDict({"down_proj": shared, "block": nn.ModuleDict({"up_proj": shared})})
    assert load_lokr(model, tensors("lycoris_block_up_proj")) == ["block.up_proj"]
    assert model["down_proj"] is model["block"]["up_proj"]
    assert isinstance(model["down_proj"], LoKrLinear)


def without(key):
    return {name: tensor for name, tensor in tensors().items() if not name.endswith(key)}


@pytest.mark.parametrize(
    ("source", "options", "error", "text"),
    [
        (
            tensors() | {"lycoris_0.hada_w1_a": torch.ones(1)},
            {},
            ValueError,
            "source must hold keys of LoKr alone, got 'lycoris_0.hada_w1_a'",
        ),
        (
            tensors() | {"lycoris_0.lokr_t1": torch.ones(1)},
            {},
            ValueError,
            "source must hold keys of LoKr alone, got 'lycoris_0.lokr_t1'",
        ),
        (
            without("w2_b"),
            {},
            ValueError,
            "source must hold lokr_w2, or lokr_w2_a and lokr_w2_b, for 'lycoris_0', "
            "got ['alpha', 'lokr_w1', 'lokr_w2_a']",
        ),
        (
            tensors(alpha=None),
            {},
            ValueError,
            "config must give r and alpha where weights have no alpha, as those of 'lycoris_0', got None",
        ),
        (tensors(alpha=None), {"config": {"r": 3}}, ValueError, "config must give r and alpha, got ['r']"),
        (
            tensors("lycoris_9"),
            {},
            ValueError,
            "source must name a module of the model, got none for 'lycoris_9'",
        ),
        (
            tensors(),
            {"prefix": "lora_te_"},
            ValueError,
            "source must hold LoKr adapters whose names begin with 'lora_te_', got none",
        ),
        ({}, {}, ValueError, "source must hold LoKr adapters, got none"),
        (tensors("lycoris_1"), {}, TypeError, "model must have an nn.Linear at '1', got ReLU"),
        (
            tensors() | tensors("lycoris_2"),
            {},
            ValueError,
            "source at 'lycoris_2' must make a product of shape (90, 48), got (48, 64)",
        ),
        (
            without("w2_b") | {"lycoris_0.lokr_w2_b": torch.ones(3, 8)},
            {},
            ValueError,
            "source at 'lycoris_0' must hold lokr_w2, or lokr_w2_a and lokr_w2_b of one rank, "
            "got shapes [None, (8, 2), (3, 8)]",
        ),
        (
            tensors() | {"lycoris_0.lokr_t2": torch.ones(2, 2, 3, 3)},
            {},
            ValueError,
            "source at 'lycoris_0' must be those of a linear layer, of matrices alone, got",
        ),
    ],
)
def test_sources_that_are_refused(source, options, error, text):
    model = network()
    with pytest.raises(error, match=re.escape(text)):
        load_lokr(model, source, **options)
    assert not any(isinstance(module, LoKrLinear) for module in model.modules())


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "peft.tuners.lokr.layer", None)
    monkeypatch.delitem(sys.modules, "ketcore.torch.peft_layers", raising=False)
    monkeypatch.delattr("ketcore.torch.peft_layers", raising=False)
    with pytest.raises(ImportError, match="patch_peft needs PEFT: pip install peft"):
        patch_peft(network())
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match="reading adapters needs safetensors: pip install safetensors"):
        read_lokr(tmp_path / "adapters.safetensors")
