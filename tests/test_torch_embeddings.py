"""EmbeddingKet and EmbeddingKetXS: nn.Embedding on their dense tables is what defines them."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore.testing import to_numpy
from tests.require import imported

torch = imported("torch")

from tests.torch_problems import (  # noqa: E402  (after the skip where torch is missing)
    BAG,
    BAG_XS,
    KET,
    LAYERS,
    XS,
    assert_same,
    kron_table,
    kt,
    layers,
    made,
)

embedding = torch.nn.functional.embedding


@given(
    layer=layers((XS, KET)),
    shape=st.sampled_from([(), (0,), (7,), (3, 4), (2, 0, 3)]),
    seed=st.integers(0, 9),
)
def test_rows_are_those_of_nn_embedding(layer, shape, seed):
    ids = torch.randint(layer.num_embeddings, shape, generator=torch.Generator().manual_seed(seed))
    expected = embedding(ids, kron_table(layer), layer.padding_idx, None, 2.0, layer.scale_grad_by_freq)
    assert_same(layer, layer(ids), expected)
    torch.testing.assert_close(layer.to_dense(), kron_table(layer))


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_max_norm_of_kets_changes_their_records(norm_type, dtype):
    layer = made(KET, 9, 10, order=3, rank=2, max_norm=0.5, norm_type=norm_type, padding_idx=2, dtype=dtype)
    table, ids = kron_table(layer).detach().clone(), torch.tensor([[1, 8, 1], [2, 4, 4]])
    expected = embedding(ids, table, 2, 0.5, norm_type)
    torch.testing.assert_close(layer(ids), expected)
    # nn.Embedding has written to its table too, and to the rows of these ids alone.
    torch.testing.assert_close(layer.to_dense(), table)
    layer(ids).sum().backward()
    assert layer.leaves.grad[[1, 4, 8]].abs().sum() > 0


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
def test_max_norm_of_shared_leaves_scales_the_output(norm_type):
    options = {"order": 2, "rank": 2, "row_scale": True, "dtype": torch.float64}
    layer = made(XS, 9, 10, max_norm=0.5, norm_type=norm_type, **options)
    with torch.no_grad():
        layer.row_scale[4] = 1e-3
        layer.row_scale[5] = 0
    before, ids = copy.deepcopy(layer.state_dict()), torch.tensor([[1, 8, 1], [5, 4, 4]])
    expected = embedding(ids, kron_table(layer).detach(), None, 0.5, norm_type)
    torch.testing.assert_close(layer(ids), expected)
    assert layer(ids).norm(norm_type, dim=-1).max() <= 0.5
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("name", [XS, KET])
@pytest.mark.parametrize("norm_type", [2.0, float("inf")])
def test_max_norm_of_zero_and_of_half_precision(name, norm_type):
    layer = made(name, 5, 6, order=2, rank=2, max_norm=0.0, norm_type=norm_type)
    assert layer(torch.arange(5)).abs().max() < 1e-6
    for dtype in (torch.float16, torch.bfloat16):
        half = made(name, 5, 6, order=2, rank=2, max_norm=0.25, norm_type=norm_type, dtype=dtype)
        rows = half(torch.arange(5))
        rows.float().square().sum().backward()
        assert rows.float().norm(norm_type, dim=-1).max() < 0.255
        assert all(torch.isfinite(p.grad).all() for p in half.parameters())


def test_sparse_gradients_hold_the_records_that_were_picked():
    dense, sparse = (
        made(KET, 12, 10, 3, order=2, rank=2, sparse=s, dtype=torch.float64) for s in (False, True)
    )
    ids = torch.tensor([[1, 11, 1], [3, 4, 4]])
    for layer in (dense, sparse):
        layer(ids).square().sum().backward()
    found = sparse.leaves.grad
    assert found.is_sparse
    assert not dense.leaves.grad.is_sparse
    torch.testing.assert_close(found.to_dense(), dense.leaves.grad)
    assert found.coalesce().indices().tolist() == [[1, 4, 11]]
    before = sparse.leaves.detach().clone()
    torch.optim.SparseAdam(sparse.parameters()).step()
    assert ((sparse.leaves != before).any(-1).any(-1)).nonzero().ravel().tolist() == [1, 4, 11]


def test_sparse_gradients_of_complex_leaves():
    dense, sparse = (made(KET, 5, 6, order=2, sparse=s, dtype=torch.complex128) for s in (False, True))
    for layer in (dense, sparse):
        (layer(torch.tensor([1, 4, 4])) ** 2).real.sum().backward()
    torch.testing.assert_close(sparse.leaves.grad.to_dense(), dense.leaves.grad)


@pytest.mark.parametrize("options", [{"order": 2, "rank": 10}, {"order": 3, "rank": 4, "std": 0.1}])
@pytest.mark.parametrize("name", [XS, KET])
def test_entries_start_with_the_standard_deviation_of_nn_embedding(name, options):
    table = made(name, 4000, 64, **options).to_dense()
    std = options.get("std", 1.0)
    assert abs(table.std() / std - 1) < 0.1
    assert abs(table.mean()) < 0.1 * std


def test_scales_of_rows_start_where_they_are_told_to():
    layer = made(XS, 4000, 64, row_scale=0.05)
    assert layer.row_scale.shape == (4000,)
    assert torch.all(layer.row_scale == 0.05)
    assert abs(layer.to_dense().std() / 0.05 - 1) < 0.1
    assert torch.all(made(XS, 40, 8, row_scale=True).row_scale == 1)
    with torch.no_grad():
        layer.row_scale.fill_(7)
    layer.reset_parameters()
    assert torch.all(layer.row_scale == 0.05)


def test_the_padding_record_starts_as_zeros():
    layer = made(KET, 6, 8, padding_idx=-2)
    assert layer.padding_idx == 4
    assert torch.all(layer.leaves[4] == 0)
    assert torch.all(layer(torch.tensor(4)) == 0)
    assert torch.all(made(KET, 6, 8, padding_idx=4, layernorm=True)(torch.tensor(4)) == 0)


def test_permutation_is_a_buffer_of_32_bits():
    order = np.random.default_rng(0).permutation(30)
    layer = made(XS, 30, 8, permutation=order)
    assert layer.permutation.dtype == torch.int32
    assert "permutation" in layer.state_dict()
    rows = layer.matrix().to_dense()
    torch.testing.assert_close(layer(torch.arange(30)), rows[torch.as_tensor(order)])
    given_order = torch.as_tensor(order, dtype=torch.int32)
    other = made(XS, 30, 8, permutation=given_order)
    given_order.zero_()
    torch.testing.assert_close(other.to_dense(), layer.to_dense())


BAD_ARGUMENTS = [
    (XS, (0, 4), {}, ValueError, "num_embeddings must be at least 1, got 0"),
    (KET, (4, 0), {}, ValueError, "embedding_dim must be at least 1, got 0"),
    (XS, (4.0, 4), {}, TypeError, "num_embeddings must be an int, got 4.0"),
    (XS, (4, 4, 4), {}, IndexError, r"padding_idx must lie in \[-4, 4\), got 4"),
    (KET, (4, 4, -5), {}, IndexError, r"padding_idx must lie in \[-4, 4\), got -5"),
    (KET, (4, 4, True), {}, TypeError, "padding_idx must be an int, got True"),
    (XS, (4, 4), {"max_norm": -1.0}, ValueError, "max_norm must be at least 0 and finite, got -1.0"),
    (XS, (4, 4), {"max_norm": "1"}, TypeError, "max_norm must be a real number, got '1'"),
    (XS, (4, 4), {"norm_type": "2"}, TypeError, "norm_type must be a real number, got '2'"),
    (
        XS,
        (4, 4),
        {"sparse": True},
        ValueError,
        "sparse must be False for a table whose words share leaves, got",
    ),
    (
        KET,
        (4, 4),
        {"max_norm": 1.0, "layernorm": True},
        ValueError,
        "max_norm must be None with layernorm, got",
    ),
    (XS, (4, 4), {"order": 0}, ValueError, "order must be at least 1, got 0"),
    (KET, (4, 4), {"order": 0}, ValueError, "order must be at least 1, got 0"),
    (XS, (4, 4), {"rank": 0}, ValueError, "rank must be at least 1, got 0"),
    (KET, (4, 4), {"rank": 1.5}, TypeError, "rank must be an int, got 1.5"),
    (
        XS,
        (9, 4),
        {"row_dims": (2, 4)},
        ValueError,
        r"row_dims must have a product of at least 9, got \(2, 4\)",
    ),
    (XS, (9, 4), {"row_dims": (3, 3), "col_dims": (4,)}, ValueError, r"col_dims must be 2 ints, got \(4,\)"),
    (KET, (9, 5), {"dims": (2, 2)}, ValueError, r"dims must have a product of at least 5, got \(2, 2\)"),
    (XS, (4, 4), {"std": -1}, ValueError, "std must be at least 0 and finite, got -1"),
    (XS, (4, 4), {"row_scale": "a"}, TypeError, "row_scale must be a real number, got 'a'"),
    (
        XS,
        (4, 4),
        {"dtype": torch.int64},
        TypeError,
        "dtype must be floating or complex, got torch.int64",
    ),
    (
        XS,
        (4, 4),
        {"dtype": torch.float8_e4m3fn},
        TypeError,
        "dtype must have at least 16 bits, got torch.float8",
    ),
    (KET, (4, 4), {"norm_type": float("nan")}, TypeError, "norm_type must be a real number, got nan"),
    (XS, (4, 4), {"row_dims": 4}, TypeError, "row_dims must be a sequence of ints, got 4"),
    (XS, (4, 4), {"permutation": "abcd"}, TypeError, "permutation must have an integer dtype, got <U4"),
    (XS, (4, 4), {"_weight": 5}, TypeError, "_weight must be a sequence of arrays, got int"),
    (XS, (4, 4), {"_weight": [1, 2]}, TypeError, "_weight must be a sequence of arrays, got some of int"),
    (
        XS,
        (4, 4),
        {"_weight": [torch.ones(1, 2, 2), torch.ones(1, 2, 2).double()]},
        TypeError,
        "_weight must be arrays of one dtype on one device, got torch.float32 on cpu, torch.float64 on cpu$",
    ),
    (KET, (4, 4), {"dtype": "float32"}, TypeError, "dtype must be floating or complex, got float32"),
    (XS, (3, 4), {"permutation": [0, 1]}, ValueError, r"permutation must have shape \(3,\), got \(2,\)"),
    (XS, (3, 4), {"permutation": [0, 1, 1]}, ValueError, "permutation must hold every number below 3 once"),
    (XS, (3, 4), {"permutation": [0, 1, 2.0]}, TypeError, "permutation must have an integer dtype, got"),
    (
        XS,
        (4, 4),
        {"_weight": [torch.ones(2, 2)]},
        ValueError,
        r"_weight must be arrays \(rank, rows, columns\)",
    ),
    (
        XS,
        (4, 4),
        {"_weight": torch.ones(4, 4)},
        ValueError,
        r"_weight must be arrays \(rank, rows, columns\)",
    ),
    (
        XS,
        (9, 4),
        {"_weight": [torch.ones(1, 2, 2)] * 2},
        ValueError,
        "row_dims must have a product of at least 9",
    ),
    (
        KET,
        (4, 4),
        {"_weight": torch.ones(4, 4)},
        ValueError,
        r"_weight must have shape \(4, 1, 6\), got \(4, 4\)",
    ),
    (
        KET,
        (4, 4),
        {"_weight": torch.ones(4, 1, 6).int()},
        TypeError,
        "_weight must be floating or complex, got",
    ),
]


@pytest.mark.parametrize(("name", "sizes", "options", "error", "text"), BAD_ARGUMENTS)
def test_arguments_are_refused(name, sizes, options, error, text):
    with pytest.raises(error, match=f"^{text}"):
        made(name, *sizes, **options)


def test_permutations_of_numpy():
    """Ranks by argsort, turned round, which torch does not take as they are, and read-only ones."""
    order = np.argsort([3, 9, 4, 1])[::-1]
    kept = np.arange(4)[::-1].copy()
    kept.flags.writeable = False
    for permutation in (order, kept, order.astype(np.uint16), range(4)):
        layer = made(XS, 4, 6, permutation=permutation)
        assert layer.permutation.tolist() == list(permutation)
        assert layer.permutation.dtype == torch.int32


def test_a_permutation_lies_beside_the_factors():
    permutation = torch.arange(4)
    assert made(XS, 4, 6, permutation=permutation, device="meta").permutation.is_meta
    weight = [torch.ones(1, 2, 2, device="meta")] * 2
    assert made(XS, 4, 4, permutation=permutation, _weight=weight).permutation.is_meta


def test_factors_may_come_one_by_one():
    weight = [torch.ones(1, 2, 2), torch.ones(1, 2, 3)]
    assert torch.equal(made(XS, 4, 6, _weight=iter(weight)).to_dense(), torch.ones(4, 6))


@pytest.mark.parametrize("options", [{}, {"padding_idx": 0}, {"max_norm": 1.0}, {"scale_grad_by_freq": True}])
@pytest.mark.parametrize("name", [XS, KET])
def test_ids_are_refused(name, options):
    layer = made(name, 10, 6, order=2, **options)
    before = copy.deepcopy(layer.state_dict())
    permuted = made(XS, 10, 6, permutation=torch.arange(10).flip(0), row_scale=True, **options)
    unscaled = made(XS, 10, 6, permutation=torch.arange(10).flip(0), **options)
    for module in (layer, permuted, unscaled):
        for bad in (-1, 10, 2**40, -(2**63)):
            with pytest.raises(IndexError, match=rf"^ids must lie in \[0, 10\), got {bad}$"):
                module(torch.tensor([3, bad]))
        with pytest.raises(TypeError, match=r"^input must have an integer dtype, got torch.float32$"):
            module(torch.tensor([1.0]))
        with pytest.raises(TypeError, match=r"^input must have an integer dtype, got torch.bool$"):
            module(torch.tensor([True]))
        with pytest.raises(TypeError, match=r"^input must be a tensor of integers, got list$"):
            module([1])
        with pytest.raises(
            TypeError, match=r"^input must lie on the device of the param.*, got meta and cpu$"
        ):
            module(torch.tensor([1], device="meta"))
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize("name", [XS, KET])
def test_ids_of_any_integer_dtype_and_layout(name):
    layer, ids = made(name, 100, 6, padding_idx=3), torch.tensor([[1, 99, 3], [4, 5, 6]])
    for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32, torch.uint32, torch.uint64):
        torch.testing.assert_close(layer(ids.to(dtype)), layer(ids))
    torch.testing.assert_close(layer(ids.T), layer(ids).transpose(0, 1))


def test_a_dense_table_is_never_built_by_accident():
    for name in LAYERS:
        layer = made(name, 10, 6)
        with pytest.raises(
            AttributeError, match=rf"^{name} must be made dense by to_dense\(max_bytes=\), got"
        ):
            _ = layer.weight
        with pytest.raises(AttributeError, match="no attribute 'wight'"):
            _ = layer.wight
        with pytest.raises(MemoryError, match=r"^max_bytes must be at least 240 "):
            layer.to_dense(max_bytes=239)
        assert layer.to_dense(max_bytes=240).shape == (10, 6)
    huge = made(XS, 10**12, 4096, order=6, rank=2)
    assert huge(torch.tensor([10**12 - 1])).shape == (1, 4096)
    with pytest.raises(MemoryError, match=r"14\.5 PiB"):
        huge.to_dense()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (XS, {"row_scale": True, "padding_idx": 1}),
        (XS, {"max_norm": 0.5, "permutation": [4, 3, 2, 1, 0]}),
        (XS, {"order": 3}),
        (KET, {"padding_idx": 1}),
        (KET, {"layernorm": True, "order": 3, "rank": 1}),
        (BAG_XS, {"padding_idx": 1}),
        (BAG, {"mode": "max"}),
    ],
)
# Of torch's own, where forward derivatives are first asked for.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_gradients_by_differences(name, options):
    layer = made(name, 5, 4, **{"order": 2, "rank": 2, "dtype": torch.float64} | options)
    ids = torch.tensor([[0, 3, 3, 1]])
    names, values = zip(*layer.named_parameters(), strict=True)

    def call(*parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (ids,))

    assert torch.autograd.gradcheck(call, values)
    assert torch.autograd.gradgradcheck(call, values)
    assert torch.autograd.gradcheck(call, values, check_forward_ad=True, check_backward_ad=False)


def test_the_gradient_by_frequency_can_be_vectorised():
    layer, ids = made(XS, 5, 4, scale_grad_by_freq=True, dtype=torch.float64), torch.tensor([[0, 3], [3, 3]])

    def loss(parameters, ids):
        return torch.func.functional_call(layer, parameters, (ids,)).square().sum()

    parameters = dict(layer.named_parameters())
    twice = {name: torch.stack([value, 2 * value]).detach() for name, value in parameters.items()}
    found = torch.func.vmap(torch.func.grad(loss), (0, None))(twice, ids)
    for n in range(2):
        right = torch.func.grad(loss)({name: value[n] for name, value in twice.items()}, ids)
        for name, value in right.items():
            torch.testing.assert_close(found[name][n], value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (XS, {"row_scale": 0.5}),
        (KET, {"sparse": True}),
        (KET, {"layernorm": True}),
        (BAG_XS, {}),
        (BAG, {}),
    ],
)
def test_layers_learn(name, options):
    layer = made(name, 20, 12, order=2, rank=4, **options)
    ids = torch.arange(20).reshape(-1, 1) if name in (BAG, BAG_XS) else torch.arange(20)
    # Two classes: no table of any kind has to hold more than the sign of a word.
    labels, head = torch.arange(20) % 2, torch.nn.Linear(12, 2)
    optimizers = [torch.optim.Adam(head.parameters(), 0.1)]
    rule = torch.optim.SparseAdam if options.get("sparse") else torch.optim.Adam
    optimizers.append(rule(layer.parameters(), 0.1))
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(head(layer(ids)), labels)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert loss < 0.1


def test_objects_share_the_parameters():
    xs, kets = made(XS, 10, 6, rank=2), made(KET, 10, 6, order=2, rank=2)
    matrix, ket = xs.matrix(), kets.ket()
    assert isinstance(matrix, kc.KroneckerMatrix)
    assert matrix.shape == (10, 6)
    assert all(a is b for a, b in zip(matrix.factors, xs.factors, strict=True))
    assert ket.packed is kets.leaves
    torch.testing.assert_close(matrix.rows(torch.tensor([3])), xs(torch.tensor([3])))
    torch.testing.assert_close(ket.to_dense(), kets.to_dense())
    matrix.norm().backward()
    ket.norm().sum().backward()
    assert all(p.grad is not None for p in (*xs.parameters(), *kets.parameters()))
    with pytest.raises(ValueError, match=r"^layernorm must be False for rows that are kets, got True$"):
        made(KET, 10, 6, layernorm=True).ket()


@pytest.mark.parametrize("name", LAYERS)
def test_balance_changes_parameters_and_no_row(name):
    layer = made(name, 10, 6, order=2, rank=2, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter[..., 0] *= 100
    rows, before = layer.to_dense(), sum(p.square().sum() for p in layer.parameters())
    layer.balance()
    torch.testing.assert_close(layer.to_dense(), rows)
    assert sum(p.square().sum() for p in layer.parameters()) < before
    assert all(p.requires_grad and p.is_leaf for p in layer.parameters())


def test_given_parameters():
    factors = [torch.randn(3, 5, 2), torch.randn(3, 2, 3)]
    layer = kt.EmbeddingKetXS(9, 6, _weight=factors)
    assert (layer.order, layer.rank, layer.row_dims, layer.col_dims) == (2, 3, (5, 2), (2, 3))
    expected = sum(torch.kron(a, b) for a, b in zip(*factors, strict=True))[:9]
    torch.testing.assert_close(layer.to_dense(), expected)
    kets = kt.EmbeddingKet(2, 6, dims=(2, 3), _weight=torch.tensor([[[1.0, 2, 1, 0, 3]], [[0, 0, 1, 1, 1]]]))
    assert kets.to_dense().tolist() == [[1, 0, 3, 2, 0, 6], [0] * 6]


def test_layernorm_is_that_of_the_operation():
    layer = made(KET, 10, 6, order=3, rank=2, layernorm=True, eps=0.1)
    leaves = to_numpy(layer.leaves.detach())
    expected = kc.ops.ket_rows_dense(leaves, [4], layer.dims, True, columns=6, eps=0.1)
    np.testing.assert_allclose(to_numpy(layer(torch.tensor([4])).detach()), expected, rtol=1e-4, atol=1e-5)
