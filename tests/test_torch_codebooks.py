"""EmbeddingCodebook and EmbeddingBagCodebook: torch's layers on their dense tables are what defines them."""

import copy
import io
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from tests.require import imported

torch = imported("torch")

from tests.torch_problems import assert_same, bags, kt, made  # noqa: E402  (after the skip)

ONE, BAG = "EmbeddingCodebook", "EmbeddingBagCodebook"
both = pytest.mark.parametrize("name", [ONE, BAG])


def dense_table(layer):
    """The table of a layer by torch.kron, term by term, which autograd differentiates."""
    codes = layer.to_table().codes.to(torch.int64)
    rows = []
    for word in range(layer.num_embeddings):
        terms = [
            reduce(torch.kron, [book[k, codes[n, k, word]] for n, book in enumerate(layer.codebooks)])
            for k in range(layer.rank)
        ]
        rows.append(sum(terms))
    table = torch.stack(rows)
    if layer.row_scale is not None:
        table = table * layer.row_scale[:, None]
    table = table if layer.decoder is None else table @ layer.decoder
    if layer.padding_idx is not None:
        table = table.index_fill(0, torch.tensor([layer.padding_idx]), 0)
    return table


@st.composite
def layers(draw, name):
    """A layer of double precision, of a table of any order."""
    words, order, rank = draw(st.integers(1, 12)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    # Sizes of one, two and three bytes.
    sizes = [draw(st.sampled_from((1, 3, 300, 70_000))) for _ in range(order)]
    books = [rng.standard_normal((rank, size, draw(st.integers(1, 3)))) for size in sizes]
    codes = np.stack([rng.integers(0, size, (rank, words)) for size in sizes])
    width = int(np.prod([book.shape[2] for book in books]))
    decoder = rng.standard_normal((width, 4)) if draw(st.booleans()) else None
    scale = rng.standard_normal(words) if draw(st.booleans()) else None
    options = {"padding_idx": draw(st.none() | st.integers(-words, words - 1))}
    options["scale_grad_by_freq"] = name == ONE and draw(st.booleans())
    return getattr(kt, name).from_table(kc.CodebookTable(books, codes, scale, decoder), False, **options)


@given(data=st.data(), shape=st.sampled_from([(), (0,), (7,), (2, 3)]))
def test_rows_are_those_of_nn_embedding(data, shape):
    layer = data.draw(layers(ONE))
    ids = torch.randint(layer.num_embeddings, shape)
    table = dense_table(layer)
    expected = torch.nn.functional.embedding(
        ids, table, layer.padding_idx, None, 2.0, layer.scale_grad_by_freq
    )
    assert_same(layer, layer(ids), expected)
    torch.testing.assert_close(layer.to_dense(), table)


@given(data=st.data(), mode=st.sampled_from(["sum", "mean", "max"]))
def test_bags_are_those_of_nn_embedding_bag(data, mode):
    layer = data.draw(layers(BAG))
    ids, offsets, include_last = data.draw(bags(layer.num_embeddings))
    layer.mode, layer.include_last_offset = mode, include_last
    weights = None
    if mode == "sum" and data.draw(st.booleans()):
        weights = torch.randn(ids.shape, dtype=torch.float64)
    options = {"include_last_offset": include_last, "padding_idx": layer.padding_idx}
    options |= {"per_sample_weights": weights, "mode": mode}
    expected = torch.nn.functional.embedding_bag(ids, dense_table(layer), offsets, **options)
    assert_same(layer, layer(ids, offsets, weights), expected)


@both
def test_options_about_rows(name):
    options = {"n_codes": 2, "codebook_size": 4, "width": 3, "dtype": torch.float64}
    ids = torch.tensor([[1, 8, 1], [5, 4, 4]])
    layer = made(name, 9, 10, max_norm=0.5, norm_type=1.0, scale_grad_by_freq=True, **options)
    table = dense_table(layer)
    rows = torch.nn.functional.embedding(ids, table.detach().clone(), None, 0.5, 1.0)
    torch.testing.assert_close(layer(ids), rows if name == ONE else rows.mean(1))
    layer.max_norm = None
    expected = torch.nn.functional.embedding(ids, table, scale_grad_by_freq=True)
    assert_same(layer, layer(ids), expected if name == ONE else expected.mean(1))
    with pytest.raises(ValueError, match=r"^sparse must be False for a table whose words .*, got True$"):
        made(name, 9, 10, sparse=True)


@both
def test_codes_are_narrow_wherever_a_layer_goes(name):
    layer = made(name, 400, 6, n_codes=2, codebook_size=300, width=3, row_scale=0.5)
    assert layer.codes.dtype == torch.uint8
    assert layer.codes.shape == (400, 1, 2, 2)
    assert layer.nbytes == layer.to_table().nbytes == 2 * 800 + 4 * (2 * 300 * 3 + 3 * 6 + 400)
    assert layer.to_table().codes.dtype == torch.uint16
    torch.testing.assert_close(layer.to_table().to_dense(), layer.to_dense())
    ids, file = torch.tensor([[3, 399, 1]]), io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    meta = made(name, 400, 6, n_codes=2, codebook_size=300, width=3, row_scale=0.5, device="meta")
    assert meta(ids.to("meta")).is_meta
    meta.load_state_dict(torch.load(file, weights_only=True), assign=True)
    fresh = made(name, 400, 6, n_codes=2, codebook_size=300, width=3, row_scale=0.5)
    fresh.load_state_dict(layer.state_dict())
    for other in (meta, fresh, copy.deepcopy(layer)):
        assert torch.equal(other(ids), layer(ids))
    # Of what rows are sums of: codebooks, decoder and result are rounded, by half an eps each.
    sizes = copy.deepcopy(layer)
    for parameter in sizes.parameters():
        parameter.data.abs_()
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        other = copy.deepcopy(layer).to(dtype)
        bound = 2 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps) * sizes(ids)
        assert other.codes.dtype == torch.uint8
        assert other(ids).dtype == dtype
        assert torch.all((other(ids) - layer(ids)).abs() <= bound)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(ids), fresh(ids))
    with pytest.raises(RuntimeError, match="size mismatch for codes"):
        made(name, 400, 6, n_codes=3, codebook_size=300, width=3, row_scale=0.5).load_state_dict(
            layer.state_dict()
        )
    codes = layer.codes.clone()
    layer.reset_parameters()
    assert torch.equal(layer.codes, codes)
    assert torch.all(layer.row_scale == 0.5)


def test_a_description_has_the_bytes():
    line = "300, 20, order=1, rank=8, dims=(4,), codebook_rows=(256,), padding_idx=299, "
    line += "parameters=8,272, bytes=35,488, ratio=0.676x"
    assert made(ONE, 300, 20, -1, width=4).extra_repr() == line


@both
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_gradients_by_differences(name):
    options = {"n_codes": 2, "codebook_size": 2, "width": 2, "row_scale": True, "padding_idx": 1}
    layer, ids = made(name, 3, 3, **options, dtype=torch.float64), torch.tensor([[0, 2, 2, 1]])
    names, values = zip(*layer.named_parameters(), strict=True)

    def call(*parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (ids,))

    assert torch.autograd.gradcheck(call, values)
    assert torch.autograd.gradgradcheck(call, values)
    assert torch.autograd.gradcheck(call, values, check_forward_ad=True, check_backward_ad=False)


@pytest.mark.parametrize(("name", "row_scale"), [(ONE, True), (BAG, False)])
def test_a_compiled_layer_is_the_same(name, row_scale):
    torch.compiler.reset()
    layer = made(name, 300, 6, n_codes=2, codebook_size=260, width=3, row_scale=row_scale)
    ids = torch.tensor([[3, 299, 3]])
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_same(layer, compiled(ids), layer(ids))
    with pytest.raises(IndexError, match=r"must lie in \[0, "):
        compiled(torch.tensor([[3, 300, 3]]))


@both
def test_ids_out_of_range_are_refused(name):
    layer = made(name, 9, 6)
    for bad in (9, -1, 2**40, -(2**63)):
        with pytest.raises(IndexError, match=rf"^ids must lie in \[0, 9\), got {bad}$"):
            layer(torch.tensor([[1, bad]]))
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(layer(torch.tensor([[1, 8]], dtype=dtype)), layer(torch.tensor([[1, 8]])))
    with pytest.raises(TypeError, match=r"^input must have an integer dtype, got torch\.float32$"):
        layer(torch.ones(1, 1))


@both
def test_layers_start_from_tables(name):
    torch.manual_seed(0)
    table = torch.randn(60, 12)[torch.randint(0, 7, (60,))]
    kind = getattr(kt, name)
    weights = torch.rand(60) + 0.5
    options = {"n_codes": 2, "codebook_size": 7, "width": 8, "weights": weights, "row_scale": True, "rng": 0}
    layer = kind.from_pretrained(table, freeze=False, padding_idx=3, **options)
    fit = kc.fit_codebooks(table, **options)
    assert layer.relative_error == fit.error < 1e-3
    assert torch.equal(layer.to_table().codes, fit.value.codes)
    assert layer.row_scale.dtype == torch.float32
    assert all(each.requires_grad for each in layer.parameters())
    assert torch.all(layer.to_dense()[3] == 0)
    # Scales are of float16, and there are vectors enough for the seven different rows.
    torch.testing.assert_close(layer.to_dense()[4:], table[4:], rtol=2**-11, atol=1e-5)
    assert not any(each.requires_grad for each in kind.from_pretrained(table, rng=0).parameters())
    again = kind.from_table(layer.to_table(), padding_idx=3)
    assert torch.equal(again.to_dense(), layer.to_dense())
    plain = layer.to_table()
    packed = kc.CodebookTable(
        list(plain.codebooks), kc.PackedCodes.pack(plain.codes), plain.row_scale, plain.decoder
    )
    assert torch.equal(kind.from_table(packed, padding_idx=3).codes, layer.codes)
    with torch.no_grad():
        again.codebooks[0].zero_()
    assert layer.to_dense().abs().sum() > 0
    layer.to_table().rows([1, 2]).sum().backward()
    assert all(each.grad is not None for each in layer.parameters())


@both
def test_wrong_arguments_are_named(name):
    kind, table = getattr(kt, name), kc.CodebookTable([np.ones((1, 2, 4))], np.array([[[0, 1, 5]]]))
    with pytest.raises(TypeError, match=r"^table must be a CodebookTable, got Tensor$"):
        kind.from_table(torch.ones(3, 4))
    with pytest.raises(TypeError, match=r"^_weight must be a CodebookTable, got list$"):
        kind(3, 4, _weight=[torch.ones(1, 2, 4)])
    with pytest.raises(ValueError, match=r"^_weight must have shape \(4, 4\), got \(3, 4\)$"):
        kind(4, 4, _weight=table)
    with pytest.raises(IndexError, match=r"^codes must lie in \[0, 2\), got 0 to 5$"):
        kind.from_table(table)
    with pytest.raises(ValueError, match=r"^codebook_size must be at most the number of words, 3, got 4$"):
        kind(3, 4, codebook_size=4)
    with pytest.raises(ValueError, match=r"^n_codes must be at least 1, got 0$"):
        kind(3, 4, n_codes=0)
    with pytest.raises(TypeError, match=r"^dtype must be floating or complex, got torch\.int64$"):
        kind(3, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"^embeddings must hold finite values, got nan in row 0$"):
        kind.from_pretrained(torch.full((3, 4), float("nan")))
    with pytest.raises(AttributeError, match=rf"^{name} must be made dense by to_dense"):
        _ = kind(3, 4).weight
