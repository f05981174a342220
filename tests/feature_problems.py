"""What the table of features in docs/torch.md asks of an embedding layer, one function a row.

Each is given a contestant, and returns where its layer does what the row says; else it raises.
"""

import copy
import pickle
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tests.require import imported

torch: Any = imported("torch")
kt: Any = imported("ketcore.torch")

from torch import nn  # noqa: E402
from torch.func import functional_call, grad, vmap  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

WORDS, COLUMNS = 12, 8
IDS = torch.tensor([[3, 0, 11], [7, 7, 2]])


class Contestant(NamedTuple):
    """One layer of a package.

    name  what the table calls the layer within its package: XS, Ket, or nothing where there is one alone
    make  (words, columns, order, **options) -> the layer
    bag   the same for bags, or None
    """

    name: str
    make: Callable[..., Any]
    bag: Callable[..., Any] | None = None


def contestants(package: str) -> list[Contestant]:
    """The layers of a package, by the first word of its column."""
    if package == "ketcore.torch":
        return [
            Contestant("XS", kt.EmbeddingKetXS, kt.EmbeddingBagKetXS),
            Contestant("Ket", kt.EmbeddingKet, kt.EmbeddingBagKet),
        ]
    if package == "nn.Embedding":
        return [Contestant("", nn.Embedding, nn.EmbeddingBag)]
    if package == "word2ket":
        layers = _word2ket()
        return [
            Contestant("XS", _of_order_2(layers.EmbeddingKetXS)),
            Contestant("Ket", _of_order_2(layers.EmbeddingKet)),
        ]
    return [Contestant("", _factorized)]


def missing(package: str) -> str:
    """Why the layers of a package cannot run here; empty where they can."""
    if package == "word2ket":
        found = all(find_spec(name) for name in ("word2ket", "gpytorch")) or _word2ket_folder().is_dir()
        return "" if found else "word2ket 0.0.2 with gpytorch 1.0.1 is not installed"
    if package == "tensorly-torch":
        found = all(find_spec(name) for name in ("tltorch", "tensorly"))
        return "" if found else "tensorly-torch is not installed"
    return ""


def _word2ket_folder():
    return Path(sys.prefix, "word2ket")


def _word2ket():
    """The package, which needs an old gpytorch and therefore may live in a folder of its own."""
    folder = str(_word2ket_folder())
    if folder not in sys.path and Path(folder).is_dir():
        sys.path.append(folder)
    with warnings.catch_warnings():
        # Of an old gpytorch about a new torch.
        warnings.simplefilter("ignore")
        return import_module("word2ket")


def _of_order_2(kind):
    # Order 1, its default, is that of no product.
    return lambda words, columns, order=2, **options: kind(words, columns, order=order, **options)


def _factorized(words, columns, order=2, **options):
    tltorch = import_module("tltorch")
    return tltorch.FactorizedEmbedding(words, columns, n_tensorized_modes=order, **options)


def probe(row: str, one: Contestant) -> bool:
    """Whether a layer has the feature of a row."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        # What other packages, and compilers of their code, warn of is not under test.
        warnings.simplefilter("ignore")
        try:
            PROBES[row](one)
        except Exception:
            return False
        return True


def cpu(one):
    layer = one.make(WORDS, COLUMNS)
    assert layer(IDS).shape == (2, 3, COLUMNS)
    assert any(gradient.abs().sum() > 0 for gradient in _gradients(layer, IDS))


def no_table(one):
    words, columns = 3000, 100
    layer = one.make(words, columns)
    _assert_no_table(layer, words * columns, lambda: layer(IDS))


def any_order(one):
    for order in range(2, 7):
        layer = one.make(64, 64, order=order)
        assert layer(IDS).shape == (2, 3, 64)
        assert sum(parameter.numel() for parameter in layer.parameters()) < 64 * 64


def any_size(one):
    layer = one.make(13, 7)
    found = layer(torch.arange(13))
    assert found.shape == (13, 7)
    assert bool(found.isfinite().all())


def bad_ids(one):
    # A table that is cropped has ids beyond its words, where the layer makes one.
    sizes = (13, 7) if probe("any number of words and columns", one) else (WORDS, COLUMNS)
    layer = one.make(*sizes)
    for bad in (-1, sizes[0], sizes[0] + 1, 1000):
        try:
            layer(torch.tensor([0, bad]))
        except (IndexError, ValueError):
            continue
        raise AssertionError(bad)


def padding_idx(one):
    layer = one.make(WORDS, COLUMNS, padding_idx=3)
    assert all(gradient.abs().sum() == 0 for gradient in _gradients(layer, torch.tensor([[3, 3]])))
    assert any(gradient.abs().sum() > 0 for gradient in _gradients(layer, torch.tensor([[2, 3]])))


def max_norm(one):
    ids = torch.arange(WORDS)[None]
    layer = one.make(WORDS, COLUMNS, max_norm=0.25)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 1.0)
    assert layer(ids).norm(dim=-1).max() <= 0.2501
    _gradients(layer, ids)


def scale_grad_by_freq(one):
    layer = one.make(WORDS, COLUMNS, scale_grad_by_freq=True)
    pairs = zip(
        _gradients(layer, torch.tensor([[2]])), _gradients(layer, torch.tensor([[2, 2]])), strict=True
    )
    for once, twice in pairs:
        torch.testing.assert_close(once, twice)


def sparse(one):
    layer = one.make(WORDS, COLUMNS, sparse=True)
    layer(IDS).sum().backward()
    assert any(parameter.grad.is_sparse for parameter in layer.parameters())
    torch.optim.SparseAdam(layer.parameters()).step()


def bag_sums(one):
    _bag(one, "sum", weights=False)


def bag_rest(one):
    for mode in ("mean", "max"):
        _bag(one, mode, weights=False)
    _bag(one, "sum", weights=True)


def layernorm(one):
    layer = one.make(WORDS, 16, order=4, layernorm=True)
    rows = layer(torch.arange(WORDS))
    torch.testing.assert_close(rows.mean(-1), torch.zeros(WORDS), atol=1e-3, rtol=0)


def from_table(one):
    # A product of all splits of 8 columns into 2, and of 12 words into two factors.
    columns = reduce(torch.kron, torch.randn(3, 1, 2))
    table = torch.kron(torch.randn(3, 1), torch.randn(4, 1)) @ columns
    kind = one.make
    if hasattr(kind, "from_pretrained"):
        layer = kind.from_pretrained(table)
    elif kind is _factorized:
        dense = nn.Embedding.from_pretrained(table)
        layer = import_module("tltorch").FactorizedEmbedding.from_embedding(dense, rank=4)
    else:
        layer = import_module("word2ket").EmbeddingKetXS.from_pretrained(table)
    torch.testing.assert_close(layer(torch.arange(12)), table, rtol=1e-3, atol=1e-3)


def second_derivatives(one):
    layer = one.make(4, 4).double()
    assert torch.autograd.gradgradcheck(_of_parameters(layer), _values(layer))


def forward_mode(one):
    layer = one.make(4, 4).double()
    options = {"check_forward_ad": True, "check_backward_ad": False, "check_batched_grad": False}
    assert torch.autograd.gradcheck(_of_parameters(layer), _values(layer), **options)


def transforms(one):
    layer = one.make(WORDS, COLUMNS)
    parameters = {name: value.detach() for name, value in layer.named_parameters()}

    def loss(values, ids):
        return functional_call(layer, values, (ids,)).square().sum()

    of_each = vmap(grad(loss), in_dims=(None, 0))(parameters, IDS)
    for n, ids in enumerate(IDS):
        for name, right in grad(loss)(parameters, ids).items():
            torch.testing.assert_close(of_each[name][n], right)


def compiled(one):
    layer = one.make(WORDS, COLUMNS)
    traced = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(traced(IDS), layer(IDS))
    for found, right in zip(_gradients(traced, IDS), _gradients(layer, IDS), strict=True):
        torch.testing.assert_close(found, right)


def exported(one):
    layer = one.make(WORDS, COLUMNS)
    torch.testing.assert_close(torch.export.export(layer, (IDS,)).module()(IDS), layer(IDS))


def half(one):
    for dtype in (torch.bfloat16, torch.float16):
        layer = one.make(WORDS, COLUMNS).to(dtype)
        assert layer(IDS).dtype is dtype
        assert all(bool(gradient.isfinite().all()) for gradient in _gradients(layer, IDS))


def meta(one):
    with torch.device("meta"):
        layer = one.make(WORDS, COLUMNS)
    assert all(parameter.is_meta for parameter in layer.parameters())
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    assert 0.01 < float(layer(IDS).std()) < 100


def copies(one):
    layer = one.make(WORDS, COLUMNS)
    layer(IDS).sum().backward()
    again = one.make(WORDS, COLUMNS)
    again.load_state_dict(layer.state_dict())
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), again):
        torch.testing.assert_close(other(IDS), layer(IDS))


def head(one):
    # Larger than the blocks of rows that a head may hold.
    words, columns = 70_000, 64
    layer = one.make(words, columns)
    hidden = torch.randn(2, columns)
    ids = torch.tensor([0, 1, 65_000, 69_999])
    right = hidden @ layer(ids).T

    def scores():
        if isinstance(layer, kt.EmbeddingKet | kt.EmbeddingKetXS):
            return kt.TiedHead(layer)(hidden)
        if one.make is _factorized:
            return import_module("tltorch").functional.factorized_linear(hidden, layer.weight)
        return nn.functional.linear(hidden, layer.weight)

    with torch.no_grad():
        found = _assert_no_table(layer, words * columns, scores)
    torch.testing.assert_close(found[:, ids], right, rtol=1e-3, atol=1e-3)


def word2ket_checkpoints(one):
    leaves = torch.randn((2, 1, 4, 3) if one.name == "XS" else (2, 1, 16, 3))
    layer = one.make(16, 9, **({"rank": 1, "order": 2} if one.name else {}))
    layer.load_state_dict({"weight_leafs": leaves})
    parts = [leaf[0] for leaf in leaves]
    if one.name == "XS":
        table = reduce(torch.kron, parts)
    else:
        table = torch.stack([reduce(torch.kron, words) for words in zip(*parts, strict=True)])
    torch.testing.assert_close(layer(torch.arange(16)), table)


def ketify(one):
    model = _ketified(one, _Nested())
    assert not any(type(module) is nn.Embedding for module in model.modules())
    assert model(IDS).shape == (2, 3, WORDS)


def ketify_keeps(one):
    model = _Nested()
    model.head.weight = model.inner["words"].weight
    model = _ketified(one, model.double().eval())
    words = model.inner["words"]
    assert type(words) is not nn.Embedding
    assert (words.padding_idx, words.training) == (0, False)
    assert all(parameter.dtype is torch.float64 for parameter in model.parameters())
    held = {id(parameter) for parameter in words.parameters()}
    assert held <= {id(parameter) for parameter in model.head.parameters()}


def tensor_trains(one):
    assert one.make(WORDS, COLUMNS, factorization="blocktt")(IDS).shape == (2, 3, COLUMNS)


def several_tables(one):
    assert one.make(WORDS, COLUMNS, n_layers=2)(IDS, 1).shape == (2, 3, COLUMNS)


def cache(one):
    one.make(WORDS, COLUMNS, use_cache=True)(IDS)


PROBES: dict[str, Callable[[Contestant], None]] = {
    "runs on a CPU": cpu,
    "no array of the size of the table": no_table,
    "scores of all words without such an array": head,
    "any order N": any_order,
    "any number of words and columns": any_size,
    "tensor trains": tensor_trains,
    "LayerNorm between the products": layernorm,
    "several tables in one layer": several_tables,
    "cache of frequent rows": cache,
    "ids out of range are errors": bad_ids,
    "`padding_idx`": padding_idx,
    "`max_norm`": max_norm,
    "`scale_grad_by_freq`": scale_grad_by_freq,
    "sparse gradients": sparse,
    "bags: sums": bag_sums,
    "bags: means, maxima, weights": bag_rest,
    "starts from a dense table": from_table,
    "second derivatives": second_derivatives,
    "forward mode": forward_mode,
    "`torch.func.vmap` of `grad`": transforms,
    "`torch.compile(fullgraph=True)`": compiled,
    "`torch.export`": exported,
    "bfloat16 and float16": half,
    "meta device and `to_empty`": meta,
    "copies, pickles, state dicts": copies,
    "checkpoints of word2ket": word2ket_checkpoints,
    "puts itself into a model": ketify,
    "and keeps ties, padding, dtype": ketify_keeps,
}


class _Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleDict({"words": nn.Embedding(WORDS, COLUMNS, padding_idx=0)})
        self.head = nn.Linear(COLUMNS, WORDS)

    def forward(self, ids):
        return self.head(self.inner["words"](ids))


def _ketified(one, model):
    if one.make in (kt.EmbeddingKet, kt.EmbeddingKetXS):
        kind = "xs" if one.name == "XS" else "ket"
        return kt.ketify(model, kind=kind, order=2, rank=1, factorise=False)[0]
    if not one.name:
        raise NotImplementedError
    import_module("word2ket").ketify(model, 2, 1, one.name == "XS")
    return model


class _Largest(TorchDispatchMode):
    """The number of entries of the largest tensor that an operator returned."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, list | tuple) else (found,):
            if isinstance(tensor, torch.Tensor):
                self.entries = max(self.entries, tensor.numel())
        return found


def _assert_no_table(layer, entries, function):
    """The result of a function during which neither torch nor NumPy made an array of so many entries."""
    assert all(parameter.numel() < entries for parameter in layer.parameters())
    with _Largest() as largest:
        function()
    assert largest.entries < entries
    tracemalloc.start()
    try:
        found = function()
        assert tracemalloc.get_traced_memory()[1] < 4 * entries
    finally:
        tracemalloc.stop()
    return found


def _bag(one, mode, weights):
    assert one.bag is not None
    layer = one.bag(WORDS, COLUMNS, mode=mode)
    ids, offsets = torch.tensor([4, 1, 1, 9]), torch.tensor([0, 3])
    scales = torch.tensor([1.0, 2.0, 3.0, 4.0]) if weights else None
    rows = layer(ids[:, None])
    rows = rows if scales is None else rows * scales[:, None]
    reduced = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax}[mode]
    expected = torch.stack([reduced(rows[:3], 0), rows[3]])
    torch.testing.assert_close(layer(ids, offsets, scales), expected)


def _gradients(layer, ids):
    """The gradients of the parameters for a fixed cotangent; zeros where there are none."""
    output = layer(ids)
    cotangent = torch.linspace(1, 2, output.shape[-1], dtype=output.dtype).expand_as(output)
    parameters = list(layer.parameters())
    if not output.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    found = torch.autograd.grad(output, parameters, cotangent, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def _values(layer):
    return tuple(parameter.detach().requires_grad_() for parameter in layer.parameters())


def _of_parameters(layer):
    """The rows of a layer as a function of its parameters alone."""
    names = [name for name, _ in layer.named_parameters()]
    return lambda *values: functional_call(layer, dict(zip(names, values, strict=True)), (IDS % 4,)).square()
