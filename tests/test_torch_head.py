"""Scores by the table of an embedding equal a product with the dense table, in whole and in part."""

import copy
import io
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.require import imported

torch = imported("torch")

from torch import nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from ketcore.torch import (  # noqa: E402
    EmbeddingCodebook,
    EmbeddingKet,
    EmbeddingKetXS,
    TiedHead,
    head,
    logits,
    sampled_softmax,
    sampled_softmax_loss,
    top_k,
)

WORDS, COLUMNS = 23, 6
KINDS = {
    "XS": (EmbeddingKetXS, {"rank": 2}),
    "XS order 3": (EmbeddingKetXS, {"order": 3, "rank": 1, "padding_idx": 0}),
    "XS options": (EmbeddingKetXS, {"padding_idx": 3, "row_scale": True, "permutation": True}),
    "XS max_norm": (EmbeddingKetXS, {"max_norm": 0.5, "padding_idx": 22, "permutation": True}),
    "XS frequency": (EmbeddingKetXS, {"scale_grad_by_freq": True}),
    "Ket": (EmbeddingKet, {"order": 2, "padding_idx": 3}),
    "Ket LayerNorm": (EmbeddingKet, {"order": 2, "rank": 2, "layernorm": True}),
    "Ket sparse": (EmbeddingKet, {"order": 2, "sparse": True, "padding_idx": 3}),
    "Codes": (EmbeddingCodebook, {"n_codes": 3, "width": 4, "row_scale": True, "padding_idx": 3}),
    "Codes max_norm": (EmbeddingCodebook, {"n_codes": 2, "max_norm": 0.5}),
    "Ket max_norm": (EmbeddingKet, {"order": 2, "max_norm": 100.0}),
}


def made(kind, dtype=torch.float64):
    torch.manual_seed(0)
    layer, options = KINDS[kind]
    if "permutation" in options:
        options = {**options, "permutation": torch.randperm(WORDS)}
    embedding = layer(WORDS, COLUMNS, **options, dtype=dtype)
    if getattr(embedding, "row_scale", None) is not None:
        nn.init.normal_(embedding.row_scale)
    if kind.startswith("Ket") and embedding.padding_idx is not None:
        # A record that is not zero shows that no gradient reaches it.
        nn.init.normal_(embedding.leaves)
    return embedding


def table(embedding):
    """The table as look-ups give it."""
    if isinstance(embedding, EmbeddingKet) and embedding.max_norm is not None:
        # A look-up writes to the records, of which what was computed before could not be differentiated.
        return embedding.to_dense()
    return embedding(torch.arange(WORDS))


def gradients(result, embedding, *others):
    torch.manual_seed(1)
    cotangent = torch.randn_like(result)
    inputs = [*others, *embedding.parameters()]
    found = torch.autograd.grad(result, inputs, cotangent, materialize_grads=True)
    return [gradient.to_dense() for gradient in found]


def assert_same(found, expected):
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.fixture(params=KINDS)
def embedding(request):
    return made(request.param)


@pytest.fixture(params=[1 << 22, 40])
def block(request, monkeypatch):
    """Rows in one block, or in several, which the backward makes again."""
    monkeypatch.setattr(head, "_BLOCK", request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("batch", [(), (2, 3), (0,)])
def test_logits(embedding, batch):
    hidden = torch.randn(*batch, COLUMNS, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(WORDS, dtype=torch.float64, requires_grad=True)
    found = logits(embedding, hidden, bias)
    expected = nn.functional.linear(hidden, table(embedding), bias)
    assert found.shape == (*batch, WORDS)
    assert_same([found], [expected])
    assert_same(gradients(found, embedding, hidden, bias), gradients(expected, embedding, hidden, bias))


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("size", [None, 4])
def test_top_k(embedding, size):
    hidden = torch.randn(2, 3, COLUMNS, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(WORDS, dtype=torch.float64, requires_grad=True)
    found = top_k(embedding, hidden, 7, bias, block=size)
    expected = nn.functional.linear(hidden, table(embedding), bias).topk(7)
    assert torch.equal(found.indices, expected.indices)
    assert_same([found.values], [expected.values])
    mine, theirs = (gradients(each.values, embedding, hidden, bias) for each in (found, expected))
    assert_same(mine, theirs)
    with torch.no_grad():
        assert_same([top_k(embedding, hidden, 7, bias, block=size).values], [expected.values])


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4).flatmap(
        lambda dims: st.tuples(st.just(dims), st.integers(1, math.prod(dims)), st.integers(1, 30))
    ),
    st.integers(0, 3),
    st.data(),
)
def test_blocks_of_any_dims(sizes, batch, data):
    dims, words, size = sizes
    embedding = EmbeddingKetXS(words, 1, row_dims=dims, col_dims=[1] * len(dims), dtype=torch.float64)
    hidden = torch.randn(batch, 1, dtype=torch.float64)
    k = data.draw(st.integers(1, words))
    found = top_k(embedding, hidden, k, block=size)
    assert_same([found.values], [(hidden @ embedding.to_dense().T).topk(k).values])


def distributions():
    frequency = torch.arange(1, WORDS + 1, dtype=torch.float64)
    i = torch.arange(WORDS, dtype=torch.float64)
    return {
        "uniform": ("uniform", torch.full((WORDS,), 1 / WORDS, dtype=torch.float64)),
        "log_uniform": ("log_uniform", torch.log((i + 2) / (i + 1)) / math.log(WORDS + 1)),
        "frequency": (frequency, frequency / frequency.sum()),
    }


@pytest.mark.parametrize("name", ["uniform", "log_uniform", "frequency"])
def test_samples_follow_their_distribution(name):
    distribution, expected = distributions()[name]
    generator = torch.Generator().manual_seed(3)
    count = 100_000
    found, logs = sampled_softmax.drawn(distribution, count, WORDS, torch.device("cpu"), generator)
    assert_same([logs.exp()], [expected[found]])
    share = torch.bincount(found, minlength=WORDS) / count
    assert ((share - expected).abs() <= 5 * (expected / count).sqrt()).all()


@pytest.mark.parametrize("name", ["uniform", "log_uniform", "frequency"])
def test_the_sum_of_exponentials_is_not_biased(name, monkeypatch):
    """Its mean over all draws of one word, each weighted by its probability, is the sum over all words."""
    embedding, (_, probability) = made("XS"), distributions()[name]
    hidden, targets = torch.randn(2, COLUMNS, dtype=torch.float64), torch.tensor([0, 9])
    scores = hidden @ table(embedding).T
    full = nn.functional.cross_entropy(scores, targets, reduction="none").exp()
    mean = torch.zeros_like(full)
    for word, share in enumerate(probability):
        draw = torch.tensor([word]), share.log()[None]
        monkeypatch.setattr(sampled_softmax, "drawn", lambda *_, draw=draw: draw)
        mean = mean + share * sampled_softmax_loss(embedding, hidden, targets, 1, reduction="none").exp()
    assert_same([mean], [full])


def test_many_samples_give_the_full_softmax_and_its_gradient(embedding):
    hidden = (0.3 * torch.randn(4, 3, COLUMNS, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(0, WORDS, (4, 3))
    targets[0, 0] = -100
    bias = torch.randn(WORDS, dtype=torch.float64, requires_grad=True)
    generator = torch.Generator().manual_seed(5)
    options = {"bias": bias, "distribution": "uniform", "generator": generator}
    found = sampled_softmax_loss(embedding, hidden, targets, 100_000, **options)
    scores = nn.functional.linear(hidden, table(embedding), bias)
    expected = nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())
    assert found.item() == pytest.approx(expected.item(), rel=0.02)
    for mine, theirs in zip(
        gradients(found, embedding, hidden, bias), gradients(expected, embedding, hidden, bias), strict=True
    ):
        assert (mine - theirs).norm() <= 0.05 * theirs.norm()


def test_hits_of_the_target_are_left_out():
    """A softmax over one word that is drawn again and again has a loss of zero."""
    embedding = EmbeddingKetXS(1, 4)
    loss = sampled_softmax_loss(embedding, torch.ones(3, 4), torch.zeros(3, dtype=torch.int64), 10)
    assert loss.item() == 0


def test_words_of_frequency_zero_are_never_drawn():
    frequency = torch.zeros(WORDS)
    frequency[[4, 7]] = 1.0
    found, _ = sampled_softmax.drawn(frequency, 1000, WORDS, torch.device("cpu"), None)
    assert set(found.tolist()) == {4, 7}


@pytest.mark.parametrize(("reduction", "shape"), [("none", (2, 2)), ("sum", ()), ("mean", ())])
def test_reductions(reduction, shape):
    embedding = made("XS")
    hidden, targets = torch.ones(2, 2, COLUMNS, dtype=torch.float64), torch.tensor([[1, 2], [-1, 4]])
    options = {"ignore_index": -1, "generator": torch.Generator().manual_seed(6)}
    found = sampled_softmax_loss(embedding, hidden, targets, 5, reduction=reduction, **options)
    options["generator"].manual_seed(6)
    each = sampled_softmax_loss(embedding, hidden, targets, 5, reduction="none", **options)
    assert each[1, 0] == 0
    expected = {"none": each, "sum": each.sum(), "mean": each.sum() / 3}[reduction]
    assert found.shape == shape
    assert_same([found], [expected])


def test_sparse_gradients_of_sampled_words():
    embedding = made("Ket sparse")
    hidden = torch.ones(2, COLUMNS, dtype=torch.float64)
    sampled_softmax_loss(embedding, hidden, torch.tensor([1, 2]), 3).backward()
    assert embedding.leaves.grad.is_sparse


class Largest(TorchDispatchMode):
    """The number of elements of the largest floating tensor that an operator of torch makes."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.size = max(self.size, tensor.numel())
        return result


@pytest.mark.parametrize("kind", ["XS", "Ket"])
def test_neither_makes_the_scores_of_all_words(kind):
    words, batch = 20_000, 40
    layer = {"XS": EmbeddingKetXS, "Ket": EmbeddingKet}[kind]
    embedding = layer(words, 16, order=2, rank=1)
    hidden, targets = torch.randn(batch, 16), torch.randint(0, words, (batch,))
    # The records of a table of kets are there already.
    bound = max(10 * batch * 100, sum(parameter.numel() for parameter in embedding.parameters()))
    assert bound < words * batch / 2
    for call in (
        lambda: top_k(embedding, hidden, 10, block=500).values.sum().backward(),
        lambda: sampled_softmax_loss(embedding, hidden, targets, 100).backward(),
    ):
        with Largest() as largest:
            call()
        assert 0 < largest.size <= bound


def tied(kind="XS"):
    embedding = made(kind)
    return nn.ModuleDict({"embedding": embedding, "head": TiedHead(embedding, bias=True)})


def run(model, ids):
    return model["head"](model["embedding"](ids))


@pytest.mark.parametrize("kind", ["XS", "Ket"])
def test_a_model_stays_tied(kind):
    model, ids = tied(kind), torch.tensor([1, 2, 5])
    copied = copy.deepcopy(model)
    assert copied["head"].embedding is copied["embedding"]
    assert len(list(model.parameters())) == len(list(model["embedding"].parameters())) + 1
    weight = table(model["embedding"])
    (weight[ids] @ weight.T).sum().backward()
    run(copied, ids).sum().backward()
    assert_same(
        [p.grad for p in copied["embedding"].parameters()], [p.grad for p in model["embedding"].parameters()]
    )
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    stream.seek(0)
    nn.init.normal_(next(copied["embedding"].parameters()))
    copied.load_state_dict(torch.load(stream))
    assert torch.equal(run(copied, ids), run(model, ids))
    assert copied["head"].embedding is copied["embedding"]


def test_a_model_on_the_meta_device():
    embedding = EmbeddingKetXS(WORDS, COLUMNS, device="meta")
    model = nn.ModuleDict({"embedding": embedding, "head": TiedHead(embedding, bias=True)})
    assert run(model, torch.zeros(2, dtype=torch.int64, device="meta")).shape == (2, WORDS)
    model.to_empty(device="cpu")
    assert model["head"].embedding.factors[0] is model["embedding"].factors[0]
    for module in model.values():
        module.reset_parameters()
    assert run(model, torch.tensor([0])).isfinite().all()
    assert not model["head"].bias.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["XS options", "Ket"])
def test_half_precision(kind, dtype):
    embedding = made(kind, torch.float32)
    hidden, targets = 0.1 * torch.randn(3, COLUMNS), torch.tensor([1, 2, 4])
    expected = [logits(embedding, hidden), top_k(embedding, hidden, 3).values]
    embedding, hidden = embedding.to(dtype), hidden.to(dtype)
    found = [logits(embedding, hidden), top_k(embedding, hidden, 3).values]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.float(), theirs, rtol=0.05, atol=0.02)
    assert sampled_softmax_loss(embedding, hidden, targets, 5).isfinite()


def test_autocast():
    embedding, hidden = made("XS options", torch.float32), torch.randn(3, COLUMNS)
    expected = logits(embedding, hidden)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given_hidden in (hidden, hidden.bfloat16()):
            found = logits(embedding, given_hidden).float()
            torch.testing.assert_close(found, expected, rtol=0.05, atol=0.1)
            assert sampled_softmax_loss(embedding, given_hidden, torch.tensor([1, 2, 4]), 5).isfinite()
            assert top_k(embedding, given_hidden, 3).values.isfinite().all()


HIDDEN = torch.ones(2, COLUMNS, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda e: TiedHead(nn.Embedding(3, 2)),
            TypeError,
            "embedding must be an EmbeddingKet, EmbeddingKetXS or EmbeddingCodebook, got Embedding",
        ),
        (
            lambda e: logits(e, HIDDEN.float()),
            TypeError,
            "hidden and the embedding must have one dtype, got torch.float32, torch.float64",
        ),
        (
            lambda e: logits(e, HIDDEN.to("meta")),
            TypeError,
            "hidden and the embedding must lie on one device, got meta, cpu",
        ),
        (lambda e: logits(e, HIDDEN[:, :5]), ValueError, "hidden must be (..., 6), got shape (2, 5)"),
        (lambda e: logits(e, HIDDEN[0, 0]), ValueError, "hidden must be (..., 6), got shape ()"),
        (
            lambda e: logits(e, HIDDEN, torch.ones(3, dtype=torch.float64)),
            ValueError,
            "bias must have shape (23,), got (3,)",
        ),
        (lambda e: top_k(e, HIDDEN, 24), ValueError, "k must be at most 23, the number of words, got 24"),
        (lambda e: top_k(e, HIDDEN, 0), ValueError, "k must be at least 1, got 0"),
        (lambda e: top_k(e, HIDDEN, 2, block=0), ValueError, "block must be at least 1, got 0"),
    ],
)
def test_what_is_refused(call, error, text):
    with pytest.raises(error, match=re.escape(text)):
        call(made("XS"))


def test_complex_scores_have_no_order():
    embedding, hidden = made("XS", torch.complex64), torch.ones(2, COLUMNS, dtype=torch.complex64)
    torch.testing.assert_close(logits(embedding, hidden), hidden @ embedding.to_dense().T)
    with pytest.raises(TypeError, match=r"hidden must be real for top_k, .* got torch\.complex64"):
        top_k(embedding, hidden, 2)
    with pytest.raises(TypeError, match="hidden must be real for sampled_softmax_loss"):
        sampled_softmax_loss(embedding, hidden, torch.tensor([0, 1]), 2)


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"targets": torch.tensor([0, 23])}, IndexError, "targets must lie in [0, 23) or be -100, got 23"),
        ({"targets": torch.tensor([-1, 2])}, IndexError, "targets must lie in [0, 23) or be -100, got -1"),
        ({"targets": [0, 1]}, TypeError, "targets must be a tensor of integers, got list"),
        (
            {"targets": torch.tensor([0, 1], device="meta")},
            TypeError,
            "targets and hidden must lie on one device, got meta, cpu",
        ),
        ({"targets": torch.ones(2)}, TypeError, "targets must have an integer dtype, got torch.float32"),
        (
            {"targets": torch.tensor([1])},
            ValueError,
            "targets must have the shape of hidden without its last axis, got (1,) and (2, 6)",
        ),
        ({"num_sampled": 0}, ValueError, "num_sampled must be at least 1, got 0"),
        ({"reduction": "max"}, ValueError, "reduction must be 'mean', 'sum' or 'none', got 'max'"),
        (
            {"distribution": "zipf"},
            ValueError,
            "distribution must be 'log_uniform', 'uniform' or a tensor, got 'zipf'",
        ),
        (
            {"distribution": torch.ones(4)},
            ValueError,
            "distribution must have shape (23,), got (4,)",
        ),
        (
            {"distribution": torch.ones(WORDS, device="meta")},
            TypeError,
            "distribution must be real and on cpu, got torch.float32 on meta",
        ),
        (
            {"distribution": -torch.ones(WORDS)},
            ValueError,
            "distribution must be finite, not negative, and not zero everywhere",
        ),
        (
            {"distribution": torch.full((WORDS,), torch.nan)},
            ValueError,
            "distribution must be finite, not negative, and not zero everywhere",
        ),
    ],
)
def test_losses_that_are_refused(changed, error, text):
    options = {"targets": torch.tensor([0, 1]), "num_sampled": 4, **changed}
    with pytest.raises(error, match=re.escape(text)):
        TiedHead(made("XS")).sampled_softmax_loss(HIDDEN, **options)
