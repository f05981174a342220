"""What modules go through, tried on the embedding layers: files, copies, devices, dtypes, autocast."""

import copy
import io
import pickle

import pytest

import ketcore as kc
from tests.require import imported

torch = imported("torch")

from tests.torch_problems import BAG, BAG_XS, KET, LAYERS, XS, kt, made  # noqa: E402  (after the skip)


@pytest.mark.parametrize("name", LAYERS)
def test_copies_and_files(name):
    layer = made(name, 10, 6, padding_idx=1, order=2, rank=2)
    ids = torch.tensor([[3, 9, 1]])
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    whole = torch.load(file, weights_only=False)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), whole):
        assert torch.equal(other(ids), layer(ids))
        assert str(other) == str(layer)
        next(other.parameters()).data.zero_()
        assert next(layer.parameters()).abs().sum() > 0
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh = getattr(kt, name)(10, 6, padding_idx=1, order=2, rank=2)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(ids), layer(ids))
    assert layer.share_memory()(ids).shape == fresh(ids).shape
    assert torch.equal(torch.nn.DataParallel(layer)(ids), fresh(ids))


def test_a_wrong_state_dict_is_named():
    layer = made(XS, 10, 6, rank=2)
    with pytest.raises(RuntimeError, match=r"size mismatch for factors\.0: .*\[3, 3, 2\].*\[2, 3, 2\]"):
        layer.load_state_dict(made(XS, 10, 6, rank=3).state_dict())
    with pytest.raises(
        RuntimeError, match=r'(?s)Missing key.*"factors\.0", "factors\.1".*Unexpected key.*"weight"'
    ):
        layer.load_state_dict(torch.nn.Embedding(10, 6).state_dict())
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"row_scale"'):
        layer.load_state_dict(made(XS, 10, 6, rank=2, row_scale=True).state_dict())
    with pytest.raises(RuntimeError, match=r'Missing key.*"permutation"'):
        made(XS, 10, 6, rank=2, permutation=torch.arange(10)).load_state_dict(layer.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch for leaves"):
        made(KET, 10, 6).load_state_dict(made(KET, 11, 6).state_dict())


@pytest.mark.parametrize(("words", "saved"), [(256, torch.uint8), (257, torch.uint16), (65537, torch.int32)])
@pytest.mark.parametrize("name", [XS, BAG_XS])
def test_a_permutation_is_saved_in_few_bytes(name, words, saved):
    options = {"order": 4, "rank": 1, "permutation": torch.arange(words).flip(0)}
    layer, ids = made(name, words, 16, **options), torch.tensor([[0, 1, words - 1]])
    state = layer.state_dict()
    assert state["permutation"].dtype == saved
    options["permutation"] = torch.arange(words)
    for assign in (False, True):
        fresh = made(name, words, 16, **options)
        fresh.load_state_dict(state, assign=assign)
        assert fresh.permutation.dtype == torch.int32
        assert torch.equal(fresh(ids), layer(ids))
    # What is saved by other versions, and what stands in for parameters and buffers.
    fresh = made(name, words, 16, **options)
    fresh.load_state_dict(state | {"permutation": layer.permutation.long()})
    assert torch.equal(fresh(ids), layer(ids))
    fresh = made(name, words, 16, **options)
    assert torch.equal(torch.func.functional_call(fresh, state, (ids,)), layer(ids))


@pytest.mark.parametrize("name", LAYERS)
def test_the_meta_device(name):
    options = {"padding_idx": 1, "order": 2, "rank": 2}
    options |= {"row_scale": 0.5, "permutation": torch.arange(600)} if name in (XS, BAG_XS) else {}
    meta = made(name, 600, 32, device="meta", **options)
    assert all(p.is_meta for p in (*meta.parameters(), *meta.buffers()))
    assert meta(torch.zeros(2, 3, dtype=torch.int64, device="meta")).is_meta
    layer, ids = made(name, 600, 32, **options), torch.tensor([[3, 9, 1]])
    meta.load_state_dict(layer.state_dict(), assign=True)
    assert torch.equal(meta(ids), layer(ids))
    empty = made(name, 600, 32, device="meta", **options).to_empty(device="cpu")
    if name in (XS, BAG_XS):
        empty.permutation.copy_(layer.permutation)
    empty.reset_parameters()
    assert abs(empty.to_dense().std() / layer.to_dense().std() - 1) < 0.2
    assert torch.all(empty.to_dense()[1] == 0)


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature:UserWarning")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_dtypes(name, dtype):
    layer, ids = made(name, 30, 12, order=2, rank=2, dtype=dtype), torch.tensor([[3, 29, 3]])
    rows = layer(ids)
    assert rows.dtype == dtype
    assert all(p.dtype == dtype for p in layer.parameters())
    rows.abs().sum().backward()
    assert all(p.grad.dtype == dtype for p in layer.parameters())
    wide = torch.complex128 if dtype.is_complex else torch.float64
    exact = copy.deepcopy(layer).to(wide)(ids)
    assert (rows.to(wide) - exact).abs().max() <= 2 * torch.finfo(dtype).eps * layer.to_dense().abs().max()
    assert getattr(kt, name)(30, 12).half()(ids).dtype == torch.float16


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("options", [{}, {"scale_grad_by_freq": True}, {"max_norm": 1.0, "padding_idx": 3}])
def test_autocast_leaves_rows_in_their_dtype(name, options):
    layer, ids = made(name, 30, 12, order=2, rank=2, **options), torch.tensor([[3, 29, 5]])
    expected = layer(ids)
    with torch.autocast("cpu", torch.bfloat16):
        rows = layer(ids)
        loss = torch.nn.functional.linear(rows, torch.ones(2, 12)).sum()
    # Records that were scaled once may be a rounding too long the second time.
    torch.testing.assert_close(rows, expected)
    assert rows.dtype == torch.float32
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())


def test_frozen_layers():
    for name in LAYERS:
        layer = made(name, 10, 6, _freeze=True)
        assert not any(p.requires_grad for p in layer.parameters())
        assert not layer(torch.tensor([[1]])).requires_grad


def test_descriptions():
    line = "10, 6, order=2, rank=3, row_dims=(3, 4), col_dims=(2, 3), padding_idx=9"
    assert made(XS, 10, 6, -1, rank=3).extra_repr() == line
    line = "10, 6, order=2, rank=1, dims=(2, 3), max_norm=1.0, sparse=True, mode='sum'"
    assert made(BAG, 10, 6, 1.0, order=2, sparse=True, mode="sum").extra_repr() == line
    assert "order=4, rank=1, dims=(1, 2, 2, 2), layernorm=True" in repr(made(KET, 10, 6, layernorm=True))


class Held(torch.nn.Module):
    """A module whose matrix is made of its parameters of two dimensions."""

    def __init__(self):
        super().__init__()
        self.left, self.right = (torch.nn.Parameter(torch.randn(3, 2)) for _ in range(2))
        self.matrix = kc.KroneckerMatrix([self.left, self.right])

    def forward(self, ids):
        return self.matrix.rows(ids)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_of_a_matrix_of_parameters_train_the_copies(copied):
    module = Held()
    other, ids = copied(module), torch.tensor([1, 8])
    torch.testing.assert_close(other(ids), module(ids))
    other(ids).sum().backward()
    assert module.left.grad is None
    assert other.left.grad.abs().sum() > 0
    with torch.no_grad():
        other.left.zero_()
    assert torch.all(other(ids) == 0)
    assert not torch.all(module(ids) == 0)


def test_parametrizations_are_seen():
    class Doubled(torch.nn.Module):
        def forward(self, leaves):
            return 2 * leaves

    layer, ids = made(KET, 10, 6, order=2), torch.tensor([3])
    before = layer(ids)
    torch.nn.utils.parametrize.register_parametrization(layer, "leaves", Doubled())
    torch.testing.assert_close(layer(ids), 4 * before)
