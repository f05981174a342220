"""Embedding layers of PyTorch that are drawn, and the dense tables that define them."""

from functools import reduce
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from ketcore.shapes import offsets
from tests.require import imported

torch: Any = imported("torch")
kt: Any = imported("ketcore.torch")

# Threads of torch would only wait for one another: all tensors are small, and tests run side by side.
torch.set_num_threads(1)

LAYERS = ("EmbeddingKetXS", "EmbeddingKet", "EmbeddingBagKetXS", "EmbeddingBagKet")
XS, KET, BAG_XS, BAG = LAYERS


def made(name, *sizes, **options):
    """A layer by the name of its class, of one and the same seed."""
    torch.manual_seed(0)
    return getattr(kt, name)(*sizes, **options)


def kron_table(layer):
    """The table of a layer by torch.kron, which autograd differentiates: what its docstring says."""
    return _ket_table(layer) if hasattr(layer, "leaves") else _xs_table(layer)


def _xs_table(layer):
    terms = [reduce(torch.kron, [factor[k] for factor in layer.factors]) for k in range(layer.rank)]
    table = sum(terms)[: layer.num_embeddings, : layer.embedding_dim]
    if layer.permutation is not None:
        table = table[layer.permutation.long()]
    if layer.row_scale is not None:
        table = table * layer.row_scale[:, None]
    if layer.padding_idx is not None:
        table = table.index_fill(0, torch.tensor([layer.padding_idx]), 0)
    return table


def _ket_table(layer):
    rows = []
    for record in layer.leaves:
        parts = [record[:, a:b] for a, b in pairwise(offsets(layer.dims))]
        terms = [_tree([part[k] for part in parts], layer) for k in range(layer.rank)]
        rows.append(sum(terms)[: layer.embedding_dim])
    return torch.stack(rows)


def _tree(leaves, layer):
    if len(leaves) == 1:
        return leaves[0]
    half = len(leaves) // 2
    node = torch.kron(_tree(leaves[:half], layer), _tree(leaves[half:], layer))
    if not layer.layernorm:
        return node
    return torch.nn.functional.layer_norm(node, node.shape, eps=layer.eps)


@st.composite
def layers(draw, names, frequency=True, padding=True):
    """A layer of double precision, of one of the classes; its parameters follow from a drawn seed."""
    name = draw(st.sampled_from(names))
    words, columns = draw(st.integers(1, 30)), draw(st.integers(1, 20))
    options: dict[str, Any] = {"order": draw(st.integers(1, 4)), "rank": draw(st.integers(1, 3))}
    if padding:
        options["padding_idx"] = draw(st.none() | st.integers(-words, words - 1))
    options["scale_grad_by_freq"] = frequency and draw(st.booleans())
    torch.manual_seed(draw(st.integers(0, 99)))
    if name in (KET, BAG):
        options["layernorm"] = draw(st.booleans())
        options["sparse"] = draw(st.booleans())
    else:
        options["row_scale"] = draw(st.sampled_from((False, True, 0.5)))
        options["permutation"] = torch.randperm(words) if draw(st.booleans()) else None
    layer = getattr(kt, name)(words, columns, **options, dtype=torch.float64)
    if getattr(layer, "row_scale", None) is not None:
        torch.nn.init.normal_(layer.row_scale)
    if hasattr(layer, "leaves"):
        # A padding record of its own, which the layers are to keep.
        torch.nn.init.normal_(layer.leaves)
    return layer


@st.composite
def bags(draw, words):
    """Ids in bags, some of them empty: (input, offsets, include_last_offset)."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    if draw(st.booleans()):
        shape = draw(st.integers(0, 4)), draw(st.integers(1, 4))
        return torch.randint(words, shape, generator=generator), None, False
    sizes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=5))
    ends = torch.tensor([0, *sizes]).cumsum(0)
    ids = torch.randint(words, (int(ends[-1]),), generator=generator)
    include_last = draw(st.booleans())
    return ids, ends if include_last else ends[:-1], include_last


def gradients(layer, output):
    """The gradients of the parameters for a fixed cotangent, dense; zeros where there are none."""
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(output.shape, generator=generator, dtype=output.dtype)
    parameters = list(layer.parameters())
    found = torch.autograd.grad(output, parameters, cotangent, allow_unused=True, retain_graph=True)
    pairs = zip(found, parameters, strict=True)
    return [torch.zeros_like(p) if g is None else g.to_dense() for g, p in pairs]


def assert_same(layer, output, expected):
    """Equal values, and equal gradients of the parameters."""
    assert output.dtype == expected.dtype
    torch.testing.assert_close(output, expected)
    if output.requires_grad:
        for found, right in zip(gradients(layer, output), gradients(layer, expected), strict=True):
            torch.testing.assert_close(found, right)
