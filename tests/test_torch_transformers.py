"""ketify on models of the transformers library, made from small configs: they compute as they did before."""

import re
import warnings
from copy import deepcopy

import pytest

from tests.require import imported

torch = imported("torch")
transformers = imported("transformers")
safetensors_torch = imported("safetensors.torch")

from ketcore.torch.embeddings import EmbeddingKetXS  # noqa: E402
from ketcore.torch.head import TiedHead  # noqa: E402
from ketcore.torch.ketify import ketify  # noqa: E402

WORDS, IDS = 120, torch.tensor([[5, 17, 119, 5], [9, 80, 33, 2]])
SPECIAL = {"bos_token_id": 1, "eos_token_id": 1}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}

# The configs with the class of the model, and which modules follow which.
MODELS = {
    "gpt2": (
        lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=WORDS, n_embd=32, n_layer=2, n_head=2, n_positions=64, **SPECIAL
            )
        ),
        {"transformer.wte": None, "lm_head": "transformer.wte", "transformer.wpe": None},
    ),
    "distilbert": (
        lambda: transformers.DistilBertForMaskedLM(
            transformers.DistilBertConfig(
                vocab_size=WORDS, dim=32, n_layers=2, n_heads=2, hidden_dim=48, max_position_embeddings=64
            )
        ),
        {
            "distilbert.embeddings.word_embeddings": None,
            "vocab_projector": "distilbert.embeddings.word_embeddings",
            "distilbert.embeddings.position_embeddings": None,
        },
    ),
    "llama": (
        lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=WORDS, **SMALL, **SPECIAL)),
        {"model.embed_tokens": None},
    ),
    "llama, tied": (
        lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(vocab_size=WORDS, tie_word_embeddings=True, **SMALL, **SPECIAL)
        ),
        {"model.embed_tokens": None, "lm_head": "model.embed_tokens"},
    ),
    "t5": (
        lambda: transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                vocab_size=WORDS,
                d_model=32,
                d_kv=16,
                d_ff=48,
                num_layers=2,
                num_heads=2,
                decoder_start_token_id=0,
            )
        ),
        {
            "shared": None,
            "encoder.embed_tokens": "shared",
            "decoder.embed_tokens": "shared",
            "lm_head": "shared",
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias": None,
            "decoder.block.0.layer.0.SelfAttention.relative_attention_bias": None,
        },
    ),
}
# Where the time of a test is that of making models, one of each kind is enough.
TIED = ["gpt2", "distilbert", "t5"]


def made(name):
    """A model, with random weights for all that starts as zeros or ones."""
    torch.manual_seed(0)
    model = MODELS[name][0]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def pair(name, **options):
    """A model with factors, what ketify said, and the dense model whose tables are made of the factors."""
    dense = made(name)
    model, report = ketify(deepcopy(dense), rank=2, factorise=False, **options)
    with torch.no_grad():
        for line in report.replaced:
            layer = model.get_submodule(line.names[0])
            if isinstance(layer, EmbeddingKetXS):
                # The row of the padding id, which a lookup gives as zeros, is not looked up here.
                dense.get_submodule(line.names[0]).weight.copy_(layer.to_dense())
    return model, report, dense


@pytest.mark.parametrize("name", MODELS)
def test_models_compute_the_same_as_with_dense_tables(name):
    model, report, dense = pair(name)
    assert {line.names[0]: line.tied_to for line in report.replaced} == MODELS[name][1]
    assert report.parameters_before == dense.num_parameters()
    assert report.parameters_after == model.num_parameters() < dense.num_parameters()
    results = [each(input_ids=IDS, labels=IDS) for each in (model, dense)]
    torch.testing.assert_close(results[0].logits, results[1].logits, rtol=1e-4, atol=1e-4)
    for result in results:
        result.loss.backward()
    parameters = dict(model.named_parameters())
    for key, parameter in dense.named_parameters():
        if key in parameters:
            torch.testing.assert_close(parameters[key].grad, parameter.grad, rtol=1e-4, atol=1e-5, msg=key)
        else:
            layer = model.get_submodule(key.removesuffix(".weight"))
            expected = torch.autograd.grad(layer.to_dense(), list(layer.factors), parameter.grad)
            for factor, gradient in zip(layer.factors, expected, strict=True):
                torch.testing.assert_close(factor.grad, gradient, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_models_generate_the_same_as_with_dense_tables(name):
    model, _, dense = pair(name)
    texts = [each.generate(IDS, max_new_tokens=8, do_sample=False) for each in (model, dense)]
    assert texts[0].shape[1] > 4
    assert torch.equal(*texts)


@pytest.mark.parametrize("name", TIED)
def test_a_checkpoint_is_loaded_into_a_model_made_alike(name, tmp_path):
    saved, _, _ = pair(name)
    loaded, _ = ketify(made(name), rank=2, factorise=False)
    torch.save(saved.state_dict(), tmp_path / "model.pt")
    assert loaded.load_state_dict(torch.load(tmp_path / "model.pt")) == ([], [])
    expected = saved(input_ids=IDS, labels=IDS).logits
    torch.testing.assert_close(loaded(input_ids=IDS, labels=IDS).logits, expected)
    saved.save_pretrained(tmp_path)
    loaded, _ = ketify(made(name), rank=2, factorise=False)
    missing, unexpected = safetensors_torch.load_model(loaded, tmp_path / "model.safetensors")
    assert (list(missing), list(unexpected)) == ([], [])
    torch.testing.assert_close(loaded(input_ids=IDS, labels=IDS).logits, expected)


@pytest.mark.parametrize("name", TIED)
def test_what_transformers_ties_and_starts_again_stays_tied(name):
    model, _, _ = pair(name)
    copy = deepcopy(model)
    for each in (model, copy):
        before = {key: value.clone() for key, value in each.state_dict().items()}
        each.tie_weights()
        each.init_weights()
        assert before.keys() == each.state_dict().keys()
        assert all(torch.equal(value, before[key]) for key, value in each.state_dict().items())
        for key, source in each.all_tied_weights_keys.items():
            assert each.get_parameter(key) is each.get_parameter(source)
            assert re.search(r"\.(factors\.\d|bias)$", key)
    # Nothing of the class changed: a new model is tied as ever.
    new = made(name)
    new.tie_weights()
    assert type(new)._tied_weights_keys == new._tied_weights_keys


@pytest.mark.parametrize("name", TIED)
def test_another_number_of_words_is_refused(name):
    model, _, _ = pair(name)
    before = list(model.state_dict())
    with pytest.raises(AttributeError, match="EmbeddingKetXS must be made dense by to_dense"):
        model.resize_token_embeddings(WORDS + 8)
    assert before == list(model.state_dict())


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_linear_layers_are_replaced_when_asked(name):
    # A feed-forward layer of T5 reads the dtype of this weight.
    model, report, _ = pair(name, linears=True, exclude="*.wo")
    assert "KroneckerLinear" in {line.after for line in report.replaced}
    model.train()(input_ids=IDS, labels=IDS).loss.backward()
    unused = [
        key for key, each in model.named_parameters() if each.grad is None or not each.grad.isfinite().all()
    ]
    assert not unused
    assert model.eval().generate(IDS, max_new_tokens=3, do_sample=False).shape[0] == 2


def test_weights_of_a_model_are_factorised_with_a_warning():
    with pytest.warns(
        UserWarning, match=r"relative errors of transformer.wte 0\.\d+, transformer.wpe 0\.\d+$"
    ):
        model, report = ketify(made("gpt2"), rank=10)
    assert type(model.lm_head) is TiedHead
    assert all(0 < line.error < 1 for line in report.replaced)
    assert model(IDS).logits.isfinite().all()


def test_positions_that_a_subclass_shifts_are_left():
    config = transformers.OPTConfig(
        vocab_size=WORDS, hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=2,
        word_embed_proj_dim=32, max_position_embeddings=64, **SPECIAL,
    )  # fmt: skip
    torch.manual_seed(0)
    model, report = ketify(transformers.OPTForCausalLM(config).eval(), rank=2, factorise=False)
    assert [each.name for each in report.skipped] == ["model.decoder.embed_positions"]
    assert [line.names[0] for line in report.replaced] == ["model.decoder.embed_tokens", "lm_head"]
    assert model.generate(IDS, max_new_tokens=3, do_sample=False).shape[0] == 2


def test_biases_that_are_tied_stay_so(tmp_path):
    config = transformers.BertConfig(vocab_size=WORDS, max_position_embeddings=64, **SMALL)
    torch.manual_seed(0)
    model, _ = ketify(transformers.BertForMaskedLM(config).eval(), rank=2, factorise=False)
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias
    model.tie_weights()
    model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded, _ = ketify(transformers.BertForMaskedLM(config).eval(), rank=2, factorise=False)
    safetensors_torch.load_model(loaded, tmp_path / "model.safetensors")
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits)


def test_a_model_inside_another_keeps_its_ties():
    outer, _ = ketify(torch.nn.ModuleDict({"language": made("gpt2")}), rank=2, factorise=False)
    model = outer["language"]
    expected = {f"lm_head.embedding.factors.{n}": f"transformer.wte.factors.{n}" for n in range(2)}
    assert model.all_tied_weights_keys == model._tied_weights_keys == expected
    model.tie_weights()
    assert model.lm_head.embedding.factors[0] is model.transformer.wte.factors[0]
