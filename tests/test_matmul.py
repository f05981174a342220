"""Products of Kronecker matrices with dense arrays: every path, `out`, identities, bad arguments."""

import tracemalloc
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketcore import ops
from ketcore.arrays import threads
from ketcore.products import backward, direct, forward, plans
from ketcore.testing import assert_dense_equal, to_numpy
from tests.matmul_problems import matmul_arguments, normal

A, B = normal((2, 3, 4)), normal((2, 5, 2), seed=1)
X = normal((7, 15), seed=2)
M = sum(np.kron(a, b) for a, b in zip(A, B, strict=True))


def expected(factors, x, options):
    options = {name: value for name, value in options.items() if name != "path"}
    return ops.kron_matmul_dense(factors, x, **options)


@pytest.fixture(params=["one chunk", "chunks", "deep"])
def chunks(request, monkeypatch):
    """Sizes of chunks: all at once, a row at a time, and rows that are split by their first mode."""
    limit = {"one chunk": 1 << 40, "chunks": 1, "deep": 16}[request.param]
    monkeypatch.setattr(plans, "CHUNK_BYTES", limit)
    monkeypatch.setattr(forward, "CHUNK_BYTES", 1 << 40 if limit == 1 else limit)
    plans._plan.cache_clear()
    direct._known.cache_clear()
    yield
    plans._plan.cache_clear()
    direct._known.cache_clear()


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("path", [*plans.PATHS, "terms"])
def test_every_path_and_chunk_gives_the_product_and_its_derivatives(path):
    @given(matmul_arguments("float64"), st.sampled_from((1, 3, 40)))
    def body(arguments, count):
        factors, x, options = arguments
        if any(factor.ndim > 3 for factor in factors):
            return
        x = normal((count, *x.shape[x.ndim + options["axis"] :]))
        options = options | {"path": path}
        right = expected(factors, x, options)
        y = ops.kron_matmul(factors, x, **options)
        assert_dense_equal(y, right, terms=64, scale=np.abs(right).max(initial=0) + 1)
        moving = [[normal(f.shape, seed=n) for n, f in enumerate(factors)], normal(x.shape, seed=9)]
        c = normal(y.shape, seed=5)
        to_factors, to_x = ops.kron_matmul_vjp(factors, x, c, **options)
        pushed = np.vdot(ops.kron_matmul_jvp(factors, x, *moving, **options), c)
        pulled = np.vdot(to_x, moving[1]) + sum(map(np.vdot, to_factors, moving[0]))
        assert np.isclose(pushed, pulled, rtol=1e-9, atol=1e-9 * (1 + abs(right).max(initial=0)) * y.size)

    body()


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("shape", [(48, 48), (48, 31), (29, 48), (21, 17), (5, 3)])
@pytest.mark.parametrize("rank", [1, 2])
def test_crops_and_gradients_in_all_chunks(shape, rank):
    sizes = ((4, 3), (3, 4), (4, 4))
    factors = [normal((rank, *size), seed=n) for n, size in enumerate(sizes)]
    for count, path in ((1, "modes"), (1, "halves"), (5, "modes"), (5, "halves")):
        x, c = normal((count, shape[0]), seed=3), normal((count, shape[1]), seed=4)
        kept = x.copy()
        dense = ops.kron_matmul_dense(factors, np.eye(shape[0]), shape)
        y = ops.kron_matmul(factors, x, shape, path=path)
        assert np.allclose(y, x @ dense)
        to_factors, to_x = ops.kron_matmul_vjp(factors, x, c, shape, path=path)
        assert np.allclose(to_x, c @ dense.T)
        # The product is linear in each factor.
        for gradient, factor in zip(to_factors, factors, strict=True):
            assert np.isclose(np.vdot(gradient, factor), np.vdot(c, y))
        assert np.array_equal(x, kept)


def test_the_unchecked_functions():
    y = X @ M
    c = normal(y.shape, seed=3)
    assert np.allclose(forward.matmul_by_modes((A, B), X, -1), y)
    assert np.allclose(forward.matmul_by_modes((A, B), X.T, -2), y.T)
    right = ops.kron_matmul_vjp((A, B), X, c)
    for found in (
        backward.matmul_vjp((A, B), X, c, -1),
        backward.matmul_vjp((A[None], B[None]), X, c, -1),
    ):
        assert np.allclose(found[1], right[1])
        assert np.allclose(found[0][1].reshape(B.shape), right[0][1])
    assert np.allclose(backward.matmul_vjp((A, B), X.T, c.T, -2)[1], right[1].T)


def test_threads_change_nothing(monkeypatch):
    x = normal((300, 2**10), "float32")
    factors = [normal((1, 4, 4), "float32", seed) for seed in range(5)]
    for count, rows in ((1, x), (3, x), (3, x[:1])):
        monkeypatch.setattr(threads, "thread_count", lambda count=count: count)
        monkeypatch.setattr(forward, "WORTH_THREADS", 1)
        y = ops.kron_matmul(factors, rows)
        right = rows @ ops.kron_matmul(factors, np.eye(2**10, dtype="float32"))
        assert_dense_equal(y, right, terms=2**10, scale=np.abs(right).max())
        assert np.isfinite(ops.kron_matmul_vjp(factors, rows, y)[1]).all()


def test_blas_has_its_threads_back_afterwards():
    controls = threads._blas().lib_controllers
    before = [library.num_threads for library in controls]
    inside = []

    def work(start, stop):
        inside.extend(library.num_threads for library in controls)
        if stop == 4:
            raise MemoryError

    for library in controls:
        library.set_num_threads(2)
    try:
        with pytest.raises(MemoryError):
            threads.run_chunks(work, 4, 1, limit_blas=True)
        assert set(inside) == {1}
        assert {library.num_threads for library in controls} == {2}
    finally:
        for library, count in zip(controls, before, strict=True):
            library.set_num_threads(count)


def test_out(xp):
    if not xp.writes:
        pytest.skip("no arrays to write into")
    factors, x = [xp.asarray(A), xp.asarray(B)], xp.asarray(X)
    for shape in (None, (15, 5), (11, 8)):
        rows, columns = shape or M.shape
        out = xp.asarray(np.full((7, columns), np.nan)).copy()
        assert ops.kron_matmul(factors, x[:, :rows], shape, out=out) is out
        assert_dense_equal(out, X[:, :rows] @ M[:rows, :columns], terms=15)
    half = xp.asarray(np.full((7, 8), np.nan, "float16")).copy()
    ops.kron_matmul([f.astype("float16") for f in factors], x.astype("float16"), out=half)
    assert_dense_equal(half, X @ M, terms=15, scale=np.abs(X) @ np.abs(M), dtype="float16")
    batches = [xp.asarray(np.stack([f] * 7)) for f in (A, B)]
    out = xp.asarray(np.full((7, 8), np.nan)).copy()
    assert ops.kron_matmul(batches, x, out=out) is out
    assert_dense_equal(out, X @ M, terms=15)


@pytest.mark.usefixtures("chunks")
def test_out_may_overlap_what_goes_in():
    square = normal((1, 4, 4)), normal((1, 4, 4), seed=1)
    x = normal((5, 16))
    right = ops.kron_matmul(square, x)
    assert np.array_equal(ops.kron_matmul(square, x, out=x), right)
    assert np.array_equal(x, right)
    buffer = normal((6, 16))
    right = ops.kron_matmul(square, buffer[:-1])
    assert np.array_equal(ops.kron_matmul(square, buffer[:-1], out=buffer[1:]), right)
    right = ops.kron_matmul(square, x[0])
    assert np.array_equal(ops.kron_matmul(square, x[0], out=square[0].reshape(16)), right)


@pytest.mark.parametrize("rank", [1, 2])
def test_identities_are_not_read(xp, rank):
    a, b, broken = A[:rank], B[:rank], xp.asarray(np.full((rank, 3, 3), np.nan))
    factors, x = [xp.asarray(a), broken, xp.asarray(b)], normal((4, 45))
    eyes = np.broadcast_to(np.eye(3), (rank, 3, 3))
    for shape in ((45, 24), (40, 5), (40, 3), (4, 24)):
        given = xp.asarray(x[:, : shape[0]])
        y = ops.kron_matmul(factors, given, shape, identities=[1], path="modes")
        right = ops.kron_matmul_dense((a, eyes, b), x[:, : shape[0]], shape)
        assert_dense_equal(y, right, terms=45, scale=np.abs(right).max())
        (_, to_eye, _), _ = ops.kron_matmul_vjp(factors, given, y, shape, identities=[1])
        assert not to_numpy(to_eye).any()


def test_rows_apart_stay_apart():
    x = X.copy()
    x[2, 3] = np.nan
    x[4, 0] = np.inf
    with np.errstate(invalid="ignore"):
        y = ops.kron_matmul((A, B), x)
    assert np.isnan(y[2]).all()
    assert not np.isfinite(y[4]).any()
    assert np.allclose(y[[0, 1, 3, 5, 6]], (X @ M)[[0, 1, 3, 5, 6]])
    for path in plans.PATHS:
        spoiled = A.copy()
        spoiled[0, 0, 0] = np.nan
        assert np.isnan(ops.kron_matmul((spoiled, B), X, path=path)[:, :2]).all()


def test_matrices_of_more_than_2_to_the_31_rows_or_columns():
    wide = [normal((1, 1, 1 << 16), seed=n) for n in range(2)]
    y = ops.kron_matmul(wide, np.ones((1, 1)), (1, 5))
    assert np.allclose(y, wide[0][0, :, :1] * wide[1][0, :, :5])
    tall = [np.swapaxes(factor, 1, 2) for factor in wide]
    assert np.allclose(ops.kron_matmul(tall, np.ones(5), (5, 1)), y.sum())
    (_, to_last), _ = ops.kron_matmul_vjp(tall, np.ones(5), np.ones(1), (5, 1))
    assert to_last.shape == (1, 1 << 16, 1)
    assert np.count_nonzero(to_last) == 5


def test_half_precision_is_summed_in_float32():
    ones = [np.ones((1, 64, 1), "float16")] * 2
    assert ops.kron_matmul(ones, np.full(4096, 1 + 2**-10, "float16"), (4096, 1)) == 4100


def test_dtypes_are_promoted():
    y = ops.kron_matmul((A.astype("float32"), B.astype("float32")), X.astype("complex64"))
    assert y.dtype == np.complex64
    assert ops.kron_matmul((A.astype("float32"), B), X.astype("float32")).dtype == np.float64
    (to_a, _), to_x = ops.kron_matmul_vjp((A, B), X * 1j, y.astype("complex128"))
    assert to_a.dtype == np.float64
    assert to_x.dtype == np.complex128


def test_lists_and_awkward_arrays():
    strided = np.asfortranarray(X)[::-1]
    strided.flags.writeable = False
    assert np.allclose(ops.kron_matmul((A[:, ::-1], B), strided), X[::-1] @ _dense(A[:, ::-1], B))
    assert np.allclose(ops.kron_matmul([A.tolist(), B.tolist()], X.tolist()), X @ M)


def _dense(a, b):
    return sum(np.kron(x, y) for x, y in zip(a, b, strict=True))


def test_torch_differentiates_it_twice():
    torch = pytest.importorskip("torch")
    inputs = [torch.tensor(array, requires_grad=True) for array in (A, B, X[:2])]
    assert torch.autograd.gradcheck(lambda a, b, x: ops.kron_matmul((a, b), x), inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda a, b, x: ops.kron_matmul((a, b), x), inputs, fast_mode=True)


BAD = [
    ({"x": X[:, :14]}, ValueError, r"x must have 15 entries along axis -1, got shape \(7, 14\)"),
    ({"x": X[0, 0]}, ValueError, r"x must have 15 entries along axis -1, got shape \(\)"),
    ({"x": X[0], "axis": -2}, ValueError, r"x must have 15 entries along axis -2, got shape \(15,\)"),
    ({"x": X, "axis": -2}, ValueError, r"x must have 15 entries along axis -2, got shape \(7, 15\)"),
    ({"x": X, "shape": (14, 8)}, ValueError, r"x must have 14 entries along axis -1, got shape \(7, 15\)"),
    ({"x": X.astype("<U3")}, TypeError, "x must have a numeric dtype, got <U3"),
    ({"x": None}, TypeError, "x must have a numeric dtype, got object"),
    ({"axis": 0}, ValueError, "axis must be -1 or -2, got 0"),
    ({"axis": None}, ValueError, "axis must be -1 or -2, got None"),
    ({"factors": ()}, ValueError, "factors must hold at least one array, got none"),
    ({"factors": 3}, TypeError, "factors must be a sequence of arrays, got int"),
    ({"factors": (A[0], B)}, ValueError, r"factors must be arrays \(..., rank, rows, columns\) of"),
    ({"factors": (A, B[:1])}, ValueError, r"factors must be .* of one rank, got shapes \[\(2, 3, 4\), \("),
    ({"factors": (A, B[:, :0])}, ValueError, "factors must have at least one row and one column each, got"),
    ({"factors": (A.astype("<U3"), B)}, TypeError, "factors must have a numeric dtype, got <U3"),
    ({"shape": (16, 8)}, ValueError, r"shape must be two ints from \(1, 1\) to \(15, 8\), got \(16, 8\)"),
    ({"shape": (0, 8)}, ValueError, r"shape must be two ints from \(1, 1\) to \(15, 8\), got \(0, 8\)"),
    ({"shape": 15}, ValueError, r"shape must be two ints \(rows, columns\), got 15"),
    ({"identities": [2]}, ValueError, r"identities must be modes in \[0, 2\), got 2"),
    ({"identities": ["a"]}, TypeError, "identities must be ints, got 'a'"),
    ({"identities": [1]}, ValueError, r"identities must be modes of square factors, got 1 of shape \(5, 2\)"),
    ({"identities": 1}, TypeError, "identities must be a sequence, got int"),
    ({"path": "fast"}, ValueError, r"path must be one of \(None, 'modes', 'halves', .*\), got 'fast'"),
    ({"path": "fused"}, TypeError, "path must not be 'fused' but for arrays of CuPy, got ndarray"),
    ({"factors": (A[None], B), "path": "dense"}, ValueError, "path must be None for batches .*, got 'dense'"),
    (
        {"factors": (normal((2, 2, 3, 4)), B)},
        ValueError,
        r"factors must have batches that broadcast against .* x, got \[\(2,\), \(\)\] and \(7,\)",
    ),
]  # fmt: skip
BAD_OUT = [
    (np.empty((7, 9)), ValueError, r"out must have shape \(7, 8\) and dtype float64, got \(7, 9\) and"),
    (np.empty((7, 8), "float32"), ValueError, r"out must have shape \(7, 8\) and .*, got .* float32"),
    (np.empty((8, 7)).T, ValueError, "out must be C-contiguous and writeable, got strides"),
    ([[0.0] * 8] * 7, TypeError, "out must be a NumPy or CuPy array like the factors, got list"),
]


@pytest.mark.parametrize(("spoiled", "error", "message"), BAD, ids=[message for *_, message in BAD])
def test_bad_arguments(spoiled, error, message):
    arguments = {"factors": (A, B), "x": X} | spoiled
    zeros = np.zeros((7, 8))
    with pytest.raises(error, match=message):
        ops.kron_matmul(**arguments)
    with pytest.raises(error, match=message):
        ops.kron_matmul_vjp(**arguments, cotangent=zeros)
    with pytest.raises(error, match=message):
        ops.kron_matmul_jvp(**arguments, factor_tangents=(A, B), x_tangent=X)


@pytest.mark.parametrize(("out", "error", "message"), BAD_OUT, ids=[message for *_, message in BAD_OUT])
def test_bad_out(out, error, message):
    with pytest.raises(error, match=message):
        ops.kron_matmul((A, B), X, out=out)


def test_bad_cotangents_and_tangents():
    with pytest.raises(ValueError, match=r"cotangent must have shape \(7, 8\), got \(7, 15\)"):
        ops.kron_matmul_vjp((A, B), X, X)
    with pytest.raises(TypeError, match="cotangent must be real as the primals are, got complex128"):
        ops.kron_matmul_vjp((A, B), X, 1j * (X @ M))
    with pytest.raises(ValueError, match="factor_tangents must hold 2 arrays, one per primal, got 1"):
        ops.kron_matmul_jvp((A, B), X, (A,), X)
    with pytest.raises(ValueError, match=r"x_tangent must have shape \(7, 15\), got \(7, 14\)"):
        ops.kron_matmul_jvp((A, B), X, (A, B), X[:, 1:])


def test_other_libraries_do_not_mix():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="factors and x must be arrays of one library, got numpy, torch"):
        ops.kron_matmul((A, B), torch.tensor(X))


def test_an_empty_batch_has_its_shape():
    for x, axis in ((X[:0], -1), (np.zeros((0, 15, 3)), -2), (np.zeros((2, 15, 0)), -2)):
        y = ops.kron_matmul((A, B), x, axis=axis)
        assert y.size == 0
        assert y.shape[axis] == prod((4, 2))
        (to_a, _), to_x = ops.kron_matmul_vjp((A, B), x, y, axis=axis)
        assert not to_a.any()
        assert to_x.shape == x.shape


def peak(call):
    """The most bytes that a second call holds beside what was there."""
    call()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_dense_path_holds_the_matrix_and_the_result_alone():
    """And no copy of what is cropped; a vjp holds a gradient of the matrix for few chunks."""
    factors, x = [normal((6, 16, 60)), normal((6, 16, 60), seed=1)], normal((512, 256), seed=2)
    matrix, result, shape = 256 * 3600 * 8, 512 * 3500 * 8, (256, 3500)
    assert peak(lambda: ops.kron_matmul(factors, x, shape=shape, path="dense")) < 1.05 * (matrix + result)
    c = normal((512, 3500), seed=3)
    assert peak(lambda: ops.kron_matmul_vjp(factors, x, c, shape=shape, path="dense")) < 4 * (matrix + result)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("shape", [(1600, 1600), (1600, 1599), (1590, 1500), (41, 1390), (1600, 7)])
@pytest.mark.parametrize("dims", [(40, 40), (1600, 1), (2, 800)])
def test_one_row_is_cropped_as_many_are(dims, shape, rank):
    """What is left of one row is the beginning of it, and no copy where little is left out."""
    factors = [normal((rank, dim, dim), seed=n) for n, dim in enumerate(dims)]
    x = normal((2, shape[0]), seed=2)
    right = ops.kron_matmul_dense(factors, x, shape=shape)
    for rows in (slice(0, 1), slice(0, 2), 0):
        assert_dense_equal(ops.kron_matmul(factors, x[rows], shape=shape), right[rows], terms=rank * shape[0])
