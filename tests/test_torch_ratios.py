"""Tables of a given ratio of bytes: their sizes, fits and errors, scales of rows, and ketify with a ratio."""

import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from tests.require import imported

torch = imported("torch")

from torch import nn  # noqa: E402

import ketcore.torch as kt  # noqa: E402
from ketcore.torch.pretrained import drawn_layer  # noqa: E402
from ketcore.torch.ratios import TableSizes, sizes_of_codes  # noqa: E402
from tests.ketify_models import IDS, Shared, Tied, reason  # noqa: E402


def _fits_codes():
    """Whether what `fit_codebooks` needs is installed."""
    try:
        kc.fit_codebooks(np.eye(4), 1, 2, rng=0)
    except ImportError:
        return False
    return True


codes = pytest.mark.skipif(not _fits_codes(), reason="fit_codebooks lacks its extra")
methods = pytest.mark.parametrize("method", ["kronecker", pytest.param("codebooks", marks=codes)])


def teacher(words=200, columns=24, rank=3, dtype=torch.float32):
    torch.manual_seed(0)
    table = torch.randn(words, rank, dtype=dtype) @ torch.randn(rank, columns, dtype=dtype)
    return table * torch.rand(words, 1).to(dtype)


def error_of(layer, table):
    return float(torch.linalg.norm(layer.to_dense().detach() - table) / torch.linalg.norm(table))


def quiet_ketify(model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return kt.ketify(model, **options)


@given(
    words=st.integers(1, 3000),
    columns=st.integers(1, 300),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    ratio=st.floats(1, 1000),
    method=st.sampled_from(["kronecker", "codebooks"]),
    bags=st.booleans(),
)
def test_layers_take_the_bytes_that_they_may(words, columns, dtype, ratio, method, bags):
    def made(ratio):
        options = {"device": "meta", "dtype": dtype}
        return drawn_layer(TableSizes(words, columns, dtype.itemsize), ratio, method, options, bags)

    try:
        layer = made(ratio)
    except ValueError as wrong:
        found = re.fullmatch(r"ratio must lie in \[1, (.*)\] for a table (.*), got (.*)", str(wrong))
        assert (found[2], found[3]) == (str((words, columns)), str(ratio))
        greatest = float(found[1])
        # What is said can be reached, and what is beyond it cannot.
        assert greatest < ratio * (1 + 1e-3)
        if greatest >= 1:
            assert made(greatest).nbytes * greatest <= words * columns * dtype.itemsize * (1 + 1e-12)
    else:
        assert layer.nbytes * ratio <= words * columns * dtype.itemsize * (1 + 1e-12)


def test_codes_of_two_bytes_count_as_two():
    sizes = sizes_of_codes(TableSizes(3000, 300, 4), 10, codebook_size=1000, width=1)
    layer = kt.EmbeddingCodebook(3000, 300, device="meta", **sizes._asdict())
    assert layer.codes.shape[-1] == 2
    assert layer.nbytes * 10 <= 3000 * 300 * 4


@methods
@pytest.mark.parametrize("mode", [None, "sum"])
@pytest.mark.parametrize("row_scale", [False, True])
def test_layers_start_from_a_teacher(method, mode, row_scale):
    table = teacher()
    options = {"padding_idx": 3, "mode": mode, "row_scale": row_scale, "rng": 0}
    layer = kt.from_pretrained(table, 5, method, freeze=False, **options)
    assert layer.nbytes * 5 <= table.nbytes
    assert (layer.row_scale is not None) == row_scale
    assert layer.padding_idx == 3
    assert all(each.requires_grad for each in layer.parameters())
    assert getattr(layer, "mode", None) == mode
    layer.padding_idx = None
    assert layer.relative_error == pytest.approx(error_of(layer, table), rel=1e-4)
    assert layer.relative_error < 0.9
    frozen = kt.from_pretrained(table, 5, method, **options)
    assert not any(each.requires_grad for each in frozen.parameters())
    assert all(torch.equal(a, b) for a, b in zip(frozen.parameters(), layer.parameters(), strict=True))


@codes
def test_auto_keeps_the_nearer_layer():
    layer = kt.from_pretrained(teacher(), 8, rng=0)
    both = [kt.from_pretrained(teacher(), 8, each, rng=0) for each in ("kronecker", "codebooks")]
    assert layer.relative_error == min(each.relative_error for each in both)
    # Codes take a byte a word, and there are none of complex numbers.
    assert type(kt.from_pretrained(torch.randn(3000, 8), 40, rng=0)) is kt.EmbeddingKetXS
    assert type(kt.from_pretrained(teacher(dtype=torch.complex64), 5, rng=0)) is kt.EmbeddingKetXS


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.bfloat16])
@pytest.mark.parametrize("permuted", [False, True])
def test_scales_bring_each_row_nearest(dtype, permuted):
    table = teacher(31, 6, dtype=dtype)
    table[7] = 0
    options = {"rank": 2, "rng": 0, "permutation": torch.randperm(31) if permuted else None}
    layer = kt.EmbeddingKetXS.from_pretrained(table, row_scale=True, freeze=False, **options)
    plain = kt.EmbeddingKetXS.from_pretrained(table, **options)
    rows = plain.to_dense()
    wide = rows.to(torch.complex128 if dtype.is_complex else torch.float64)
    expected = (wide.conj() * table).sum(1) / wide.abs().square().sum(1)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(layer.row_scale.detach().to(wide.dtype), expected, rtol=tolerance, atol=1e-6)
    assert layer.relative_error <= plain.relative_error
    assert layer.relative_error == pytest.approx(error_of(layer, table), rel=10 * tolerance)
    assert layer.nbytes - plain.nbytes == 31 * dtype.itemsize
    layer(torch.tensor([3, 3, 30])).abs().sum().backward()
    assert layer.row_scale.grad.nonzero().flatten().tolist() == [3, 30]
    again = kt.EmbeddingKetXS.from_pretrained(torch.ones_like(table), row_scale=True, **options)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.to_dense(), layer.to_dense())
    assert "row_scale=True" in repr(layer)
    layer.reset_parameters()
    assert torch.all(layer.row_scale == 1)


NAN = torch.zeros(3, 2).index_fill(0, torch.tensor([1]), float("nan"))
BAD = [
    ((teacher(), 0.5), ValueError, r"ratio must be at least 1, got 0\.5"),
    ((teacher(), "5"), TypeError, "ratio must be a real number, got '5'"),
    ((teacher(), float("nan")), ValueError, "ratio must be at least 0 and finite, got nan"),
    (
        (teacher(), 1e6),
        ValueError,
        r"ratio must lie in \[1, 53\.33\] for a table \(200, 24\), got 1000000\.0",
    ),
    ((teacher(), 1e6, "codebooks"), ValueError, r"ratio must lie in \[1, 53\.33\] for a table"),
    ((teacher(), 5, "svd"), ValueError, r"method must be one of \('kronecker', .*\), got 'svd'"),
    ((teacher(), 5, None), ValueError, "method must be one of .*, got None"),
    ((NAN, 1), ValueError, "embeddings must hold finite values, got nan in row 1"),
    ((NAN.int(), 1), TypeError, "embeddings must have a floating or complex dtype"),
    ((torch.ones(1, 1), 1), ValueError, r"ratio must lie in \[1, 0\.8\] for a table \(1, 1\), got 1\.0"),
    (([[1.0]], 1), TypeError, "embeddings must be a tensor, got list"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), BAD)
def test_wrong_calls_are_named(arguments, error, text):
    with pytest.raises(error, match=f"^{text}"):
        kt.from_pretrained(*arguments)


def test_what_a_ratio_decides_is_not_given():
    with pytest.raises(ValueError, match=r"^rank must be None where ratio is given, got 3$"):
        kt.EmbeddingKetXS.from_pretrained(teacher(), ratio=5, rank=3)
    with pytest.raises(ValueError, match=r"^n_codes must be None where ratio is given, got 3$"):
        kt.EmbeddingBagCodebook.from_pretrained(teacher(), ratio=5, n_codes=3)
    with pytest.raises(TypeError, match=r"^row_scale must be True or False, got 0\.5$"):
        kt.EmbeddingBagKetXS.from_pretrained(teacher(), row_scale=0.5)


@methods
def test_ketify_with_a_ratio(method):
    torch.manual_seed(0)
    models = [nn.ModuleDict({"tied": Tied(), "shared": Shared(), "few": nn.Embedding(5, 2)}) for _ in "ab"]
    dense = {name: value.clone() for name, value in models[0].state_dict().items()}
    model, report = quiet_ketify(models[0], ratio=3, method=method)
    assert re.fullmatch(r"its bytes can be divided by \d\.\d+ at most", reason(report, "few"))
    lines = {each.names[0]: each for each in report.replaced}
    assert set(lines) == {"tied.words", "tied.head", "shared.encoder", "shared.decoder", "shared.tags"}
    lost = given = 0.0
    for name in ("tied.words", "shared.encoder", "shared.tags"):
        layer, line = model.get_submodule(name), lines[name]
        assert line.bytes_before == dense[f"{name}.weight"].nbytes
        assert (line.bytes_after, line.ratio) == (layer.nbytes, line.bytes_before / layer.nbytes)
        assert line.ratio >= 3
        given += float(dense[f"{name}.weight"].square().sum())
        lost += line.error**2 * float(dense[f"{name}.weight"].square().sum())
    assert report.error == pytest.approx((lost / given) ** 0.5)
    assert report.ratio == report.bytes_before / report.bytes_after > 1
    assert "bytes of the model: " in str(report)
    # The head and the second embedding have the very parameters and codes of the first.
    for one, other in (("tied.words", "tied.head.embedding"), ("shared.encoder", "shared.decoder")):
        pair = [dict(model.get_submodule(name).state_dict(keep_vars=True)) for name in (one, other)]
        assert all(pair[0][key] is pair[1][key] for key in pair[0] if key != "permutation")
    again, _ = kt.ketify(models[1], ratio=3, method=method, factorise=False)
    assert again.load_state_dict(model.state_dict(), strict=False).unexpected_keys == []
    torch.testing.assert_close(again["tied"](IDS), model["tied"](IDS))
    model["tied"](IDS).sum().backward()
    assert all(each.grad is not None for each in model["tied"].parameters())


@codes
def test_ketify_of_zeros_and_by_the_nearer_method():
    model = nn.Sequential(nn.Embedding(200, 24), nn.Embedding(200, 24, dtype=torch.complex64))
    model[0].weight.data = teacher()
    _, report = quiet_ketify(model, ratio=8)
    assert [each.after for each in report.replaced] == ["EmbeddingCodebook", "EmbeddingKetXS"]
    for factorise in (False, True):
        zeros = nn.Embedding(60, 16)
        nn.init.zeros_(zeros.weight)
        layer, report = quiet_ketify(zeros, ratio=3, method="codebooks", factorise=factorise)
        assert not layer.to_dense().any()
        assert report.error in (None, 0)


def test_ketify_refuses_what_does_not_fit_a_ratio():
    def refused(text, **options):
        with pytest.raises(ValueError, match=f"^{text}"):
            kt.ketify(nn.Embedding(60, 16), **options)

    refused("ratio must be given with a method, got None and 'auto'", method="auto")
    refused("rank must be None where ratio is given, got 2", ratio=2, rank=2)
    refused("kind must be 'xs' where ratio is given, got 'ket'", ratio=2, kind="ket")
    refused("method must be 'kronecker' or 'codebooks' unless factorise is True", ratio=2, factorise=False)
    refused("method must be one of", ratio=2, method="best")
    refused("ratio must be at least 1, got 0", ratio=0)
    model = nn.Sequential(nn.Embedding(60, 16, dtype=torch.complex64), nn.Embedding(60, 16, sparse=True))
    with pytest.warns(UserWarning, match="nothing was replaced"):
        _, report = kt.ketify(model, ratio=2, method="codebooks")
    assert reason(report, "0") == "it is complex, and there are no codes of such"
    assert reason(report, "1") == "its gradients are sparse, those of EmbeddingCodebook are not"
