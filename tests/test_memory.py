"""No call takes more memory than its arguments and its output, and none makes gigabytes unasked."""

import inspect
import tracemalloc

import numpy as np
import pytest

import ketcore as kc
from ketcore import shapes

MODES = 40
RNG = np.random.default_rng(0)
FACTORS = [RNG.standard_normal((2, 2, 2)) for _ in range(MODES)]
OBLONG = [RNG.standard_normal((2, 2, 3)) for _ in range(MODES)]
SHAPE = (1000, 7)
WHOLE = kc.KroneckerMatrix(FACTORS)
TALL, WIDE = kc.KroneckerMatrix(FACTORS, SHAPE), kc.KroneckerMatrix(FACTORS, SHAPE[::-1])
UNEVEN = kc.KroneckerMatrix(OBLONG, SHAPE)
KET = kc.Ket([RNG.standard_normal((2, 2)) for _ in range(MODES)])
SUM = kc.KroneckerSum([f[0] for f in FACTORS])
DIMS, LEAVES = (2,) * MODES, RNG.standard_normal((5, 2, 2 * MODES))
IDS, PICK = np.array([3, 4]), np.zeros((MODES, 2), int)
C, ROW, COLUMN = np.ones((2, 7)), np.ones(1000), np.ones(7)

CALLS = {
    "rows": lambda: TALL.rows(IDS),
    "rows_vjp": lambda: kc.rows_vjp(FACTORS, IDS, C, SHAPE),
    "rows_jvp": lambda: kc.rows_jvp(FACTORS, IDS, FACTORS, SHAPE),
    "ket_rows": lambda: kc.ket_rows(LEAVES, IDS, DIMS, columns=7),
    "ket_rows_vjp": lambda: kc.ket_rows_vjp(LEAVES, IDS, C, DIMS, columns=7),
    "ket_rows_vjp sparse": lambda: kc.ket_rows_vjp(LEAVES, IDS, C, DIMS, columns=7, sparse=True),
    "ket_rows_jvp": lambda: kc.ket_rows_jvp(LEAVES, IDS, LEAVES, DIMS, columns=7),
    "gather_kron": lambda: kc.gather_kron(FACTORS, PICK, columns=7),
    "gather_kron per term": lambda: kc.gather_kron(
        FACTORS, np.zeros((MODES, 2, 2), int), columns=7, per_term=True
    ),
    "gather_kron_vjp": lambda: kc.gather_kron_vjp(FACTORS, PICK, C, columns=7),
    "gather_kron_jvp": lambda: kc.gather_kron_jvp(FACTORS, PICK, FACTORS, columns=7),
    "sum over rows": lambda: TALL.sum(0),
    "sum over columns": lambda: WIDE.sum(1),
    "sum": lambda: UNEVEN.sum(),
    "diagonal": lambda: TALL.diagonal(),
    "diagonal of oblong factors": lambda: UNEVEN.diagonal(),
    "trace": lambda: WIDE.trace(),
    "trace of oblong factors": lambda: UNEVEN.trace(),
    "kron_trace_vjp": lambda: kc.kron_trace_vjp(FACTORS, 1.0, SHAPE),
    "norm": lambda: TALL.norm(),
    "kron_norm_vjp": lambda: kc.kron_norm_vjp(FACTORS, 1.0, SHAPE),
    "inner": lambda: TALL.inner(TALL),
    "matmul": lambda: TALL @ COLUMN,
    "rmatmul": lambda: ROW @ UNEVEN,
    "matmul_vjp": lambda: kc.kron_matmul_vjp(FACTORS, ROW, COLUMN, SHAPE),
    "sandwich": lambda: TALL.sandwich(ROW, COLUMN),
    "sandwich_vjp": lambda: kc.kron_sandwich_vjp(ROW, FACTORS, COLUMN, 1.0, SHAPE),
    "sandwich_jvp": lambda: kc.kron_sandwich_jvp(ROW, FACTORS, COLUMN, ROW, FACTORS, COLUMN, SHAPE),
    "sandwich of kets": lambda: WHOLE.sandwich(KET, KET),
    "ket": lambda: (WHOLE @ KET).norm(),
    "gram": lambda: KET.gram(KET),
    "row_kets": lambda: WHOLE.row_kets(IDS),
    "to_dense": lambda: TALL.to_dense(),
    "to_dense, wide": lambda: WIDE.to_dense(),
    "blocks": lambda: sum(block.sum() for block in TALL.iter_row_blocks(100)),
    "sum of matrices": lambda: (SUM[3, 4], SUM[:9, -9:], SUM[[1, 2], :5]),
    "row": lambda: TALL[5],
    "column": lambda: WHOLE[:: 2**36, 5],
    "corner": lambda: WHOLE[-9:, -9:],
    "window": lambda: WHOLE[3:9, 10**9 : 10**9 + 9],
    "over a boundary of digits": lambda: WHOLE[2**39 - 3 : 2**39 + 3, 2**39 - 3 : 2**39 + 3],
    "strides": lambda: WHOLE[:: 2**35, :: -(2**35)],
    "ids and a slice": lambda: WHOLE[[2**39, 5], -7:],
    "elements": lambda: WHOLE[[2**39, 5], [-1, 7]],
    "repr": lambda: (repr(WHOLE), WHOLE._repr_html_(), WHOLE.cost("rows", 4), WHOLE.cost("matmul", 4)),
    "hadamard": lambda: kc.hadamard(WHOLE, WHOLE).trace(),
}


def peak(call):
    """The output, and the most memory that there was during the call; NumPy counts its arrays."""
    tracemalloc.start()
    try:
        result = call()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", CALLS)
def test_the_order_does_not_count(name):
    """2**40 rows and columns, of which each call needs some thousand at most: half of the modes make 8 MB."""
    CALLS[name]()  # what is imported and kept is not its memory
    assert peak(CALLS[name])[1] < 1 << 21


# Three million numbers, in each of these shapes; a chunk of rows or ids takes a few megabytes besides.
TABLE = kc.KroneckerMatrix.random((10**6, 300), row_dims=(100, 100, 100), col_dims=(4, 5, 15), rank=2, rng=0)
PIECES = 20e6
KEYS = {
    "T[a:b]": np.s_[12_345:22_345],
    "T[:, c]": np.s_[:, 7],
    "T[:, c:c+1]": np.s_[:, 7:8],
    "T[:, c:d]": np.s_[:, 100:103],
    "T[:, ::-100]": np.s_[:, ::-100],
    "T[::100]": np.s_[::100],
    "T[::-100]": np.s_[::-100],
    "T[a:b, c:d]": np.s_[400_000:430_000, 100:200],
    "T[a:b, c:d] across": np.s_[485_000:515_000, 100:200],
    "T[::3, ::30]": np.s_[::3, ::30],
    "T[::33, ::3]": np.s_[::33, ::3],
    "T[:, ids]": (slice(None), [3, 299, 5]),
    "T[::50, ids]": (slice(None, None, 50), list(range(0, 300, 2))),
    "T[ids]": RNG.integers(0, 10**6, 10_000),
    "T[ids, c:d]": (RNG.integers(0, 10**6, 100_000), slice(150, 180)),
    "T[ids, ::9]": (RNG.integers(0, 10**6, 100_000), slice(None, None, 9)),
    "T[ids, ids]": (RNG.integers(0, 10**6, (1_000_000, 1)), RNG.integers(0, 300, 3)),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_block_takes_its_own_room(name):
    key = KEYS[name]
    found, most = peak(lambda: TABLE[key])
    given = sum(getattr(entry, "nbytes", 0) for entry in (key if isinstance(key, tuple) else (key,)))
    assert found.size >= 10**6
    assert most < found.nbytes + 2 * given + PIECES
    # No large array is held through a view of a part of it.
    base = found
    while base.base is not None:
        base = base.base
    assert base.nbytes < 1.1 * found.nbytes + PIECES


def test_a_column_of_a_sum_takes_its_own_room():
    s = kc.KroneckerSum([RNG.standard_normal((100, 100)) for _ in range(3)])
    for key in (np.s_[:, 0], np.s_[:, 0:1], np.s_[:, 5:3:-1]):
        found, most = peak(lambda key=key: s[key])
        assert most < found.nbytes + PIECES


def test_a_tall_matrix_takes_its_own_room():
    m = kc.KroneckerMatrix.random((2**21, 2), row_dims=(2**10, 2**11), col_dims=(2, 1), rng=0)
    found, most = peak(m.to_dense)
    assert most < found.nbytes + PIECES
    _, most = peak(lambda: [None for _ in m.iter_row_blocks(2**16)])
    assert most < PIECES


def test_a_long_row_that_is_cut_takes_its_own_room():
    m = kc.KroneckerMatrix.random((2, 2**23), row_dims=(2, 1), col_dims=(2**11, 2**12), rng=0)
    found, most = peak(lambda: m[1, ::4])
    assert most < found.nbytes + PIECES


def test_a_permutation_takes_its_own_room():
    found, most = peak(kc.commutation(40, 50).to_dense)
    assert most < found.nbytes * 1.1
    assert found.sum(0).tolist() == found.sum(1).tolist() == [1.0] * 2000


BIG = kc.KroneckerMatrix.random((10**9, 1024), 3, rng=0, dtype="float32")
SQUARE = kc.KroneckerMatrix([np.eye(2**10, dtype=np.float32)] * 3)
WAY = r".* \(see iter_row_blocks\(size\)\)$"
LIMIT = r"must give at most 1073741824 bytes \(1 GiB\), got a "
DENSE = r"max_bytes must be at least \d+ \(.*\) to hold the dense "
NARROW = kc.KroneckerMatrix(FACTORS, (2**MODES, 7))
TERMS = kc.KroneckerSum([np.eye(2**10)] * 3)
REFUSED = {
    "T[:]": (lambda: BIG[:], rf"key {LIMIT}\(1000000000, 1024\) array of .* of 4096000000000 bytes"),
    "T[a:]": (lambda: BIG[10:], rf"key {LIMIT}\(999999990, 1024\) array{WAY}"),
    "T[::2]": (lambda: BIG[::2], rf"key {LIMIT}\(500000000, 1024\) array{WAY}"),
    "T[:, 0]": (lambda: BIG[:, 0], rf"key {LIMIT}\(1000000000,\) array of .* of 4000000000 bytes"),
    "T[:, ids]": (lambda: BIG[:, [0, 1]], rf"key {LIMIT}\(1000000000, 2\) array{WAY}"),
    "T.T[0]": (lambda: BIG.T[0], rf"key {LIMIT}\(1000000000,\) array{WAY}"),
    "()": (lambda: BIG[()], rf"key {LIMIT}\(1000000000, 1024\) array{WAY}"),
    "S[:]": (lambda: TERMS[:], rf"key {LIMIT}\(1073741824, 1073741824\) array of float64{WAY}"),
    "sum(0)": (lambda: SQUARE.sum(0), rf"axis {LIMIT}\(1073741824,\) array of float32 of 4294967296 bytes"),
    "sum(1)": (lambda: BIG.sum(1), rf"axis {LIMIT}\(1000000000,\) array of float32"),
    "to_dense": (lambda: BIG.to_dense(), rf"{DENSE}\(1000000000, 1024\) array{WAY}"),
    "S.to_dense": (lambda: TERMS.to_dense(), DENSE + WAY),
    "P.to_dense": (lambda: kc.KroneckerProduct([kc.Identity(10**6)]).to_dense(), DENSE + WAY),
    "permutation": (lambda: kc.commutation(200, 200).to_dense(), DENSE + WAY),
    "ket": (lambda: kc.ket(*[np.ones(2**10)] * 3).to_dense(), rf"{DENSE}\(1073741824,\) array of float64"),
    "diagonal": (lambda: SQUARE.diagonal(), rf"{DENSE}diagonal \(1073741824,\)"),
    "S.diagonal": (lambda: TERMS.diagonal(), f"{DENSE}diagonal"),
    "P.diagonal": (lambda: kc.KroneckerProduct([kc.Identity(2**30)]).diagonal(), f"{DENSE}diagonal"),
    "merged": (lambda: NARROW @ kc.ket(COLUMN), rf"merged {LIMIT}\(2, 1099511627776, 8\) array"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_too_large_is_refused_with_its_size(name):
    call, text = REFUSED[name]
    with pytest.raises(MemoryError, match=text):
        call()


def test_what_says_its_size_is_not_refused(monkeypatch):
    """Ids, and the operand of a product, are as many as somebody asked for."""
    monkeypatch.setattr(shapes, "LARGEST", 100)
    m = kc.KroneckerMatrix.random((40, 30), 2, rng=0)
    a = m.to_dense()
    ids = np.arange(40)
    chosen = (m[ids], m[ids, :], m[ids[:, None], ids[:30]], m[np.ones(40, bool)])
    for found in (*chosen, m.rows(ids), m @ np.eye(30)):
        assert found.nbytes > 100
        np.testing.assert_allclose(found, a)
    for key in (slice(None), 3, (slice(None), 3), (3, slice(None, 20))):
        with pytest.raises(MemoryError, match="key must give at most 100 bytes"):
            m[key]
    assert m[0, :12].nbytes == 96
    assert m[:12, 0].nbytes == 96
    with pytest.raises(MemoryError, match="axis must give at most 100 bytes"):
        m.sum(0)


def test_the_limit_itself_is_allowed(monkeypatch):
    assert shapes.LARGEST == 2**30
    shapes.check_result_size("key", (2**27,), 8, "float64")
    with pytest.raises(MemoryError, match=r"key must give .*, got a .* of 1073741832 bytes \(1 GiB\)"):
        shapes.check_result_size("key", (2**27 + 1,), 8, "float64")


# What has the guard of a dense conversion, by an object of 2**30 and one of 2**30 + 8 bytes.
def _matrix(n):
    return kc.KroneckerMatrix([np.ones((n // 2**9, 1)), np.ones((2**9, 1))])


GUARDED = {
    "matrix": (_matrix, "to_dense"),
    "matrix diagonal": (lambda n: kc.KroneckerMatrix([np.broadcast_to(np.ones(()), (n, n))]), "diagonal"),
    "ket": (lambda n: kc.Ket.from_packed(np.broadcast_to(np.ones(()), (n, 1, 1)), (1,)), "to_dense"),
    "product diagonal": (lambda n: kc.KroneckerProduct([kc.Identity(n)]), "diagonal"),
}


@pytest.mark.parametrize("name", GUARDED)
def test_defaults_of_max_bytes(name, monkeypatch):
    """Just above 2**30 bytes is refused; at 2**30 the guard lets it through, to where this test stops it."""
    make, method = GUARDED[name]
    with pytest.raises(MemoryError, match=rf"max_bytes must be at least 107374\d+ .*, got {2**30}"):
        getattr(make(2**27 + 2**9), method)()

    class PassedError(Exception):
        pass

    def passed(elements, itemsize, what, max_bytes, instead=None):
        guard(elements, itemsize, what, max_bytes, instead)
        raise PassedError

    guard = shapes.check_dense_size
    for module in ("ketcore.shapes", "ketcore.objects.reductions"):
        monkeypatch.setattr(f"{module}.check_dense_size", passed)
    with pytest.raises(PassedError):
        getattr(make(2**27), method)()


OWNERS = [kc.Ket, kc.KroneckerMatrix, kc.KroneckerSum, kc.KroneckerProduct, kc.Permutation]


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("method", ["to_dense", "diagonal", "to_kronecker"])
def test_every_max_bytes_is_the_same(owner, method):
    function = getattr(owner, method, None)
    parameter = function and inspect.signature(function).parameters.get("max_bytes")
    if parameter is None:
        assert (owner, method) not in [(kc.KroneckerMatrix, "diagonal"), (kc.Ket, "to_dense")]
    else:
        assert parameter.default == 2**30


HUGE = kc.KroneckerMatrix([np.eye(2)] * 80)
SIZE = 2**80


def test_more_rows_than_a_machine_counts():
    """What is small works, and all else names the rule."""
    assert float(HUGE[-1, -1]) == float(HUGE[SIZE - 1, SIZE - 1]) == 1.0
    assert HUGE[-3:, -2:].tolist() == [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    assert bool(HUGE) is True
    assert (HUGE.nbytes, HUGE.shape) == (80 * 4 * 8, (SIZE, SIZE))
    assert f"{SIZE}" in repr(HUGE)
    assert f"{SIZE}" in HUGE._repr_html_()
    assert HUGE.cost("rows", 3).flops > 0
    assert float(HUGE.trace()) == float(HUGE.sum()) == float(HUGE.inner(HUGE)) == SIZE
    assert float(HUGE.norm()) == 2.0**40
    assert (HUGE.kron(HUGE)[-1, -1], (HUGE @ HUGE)[-2, -2]) == (1.0, 1.0)
    assert HUGE.row_kets([3]).shape == (1, SIZE)
    ones = kc.ket(*[[1.0, 2.0]] * 80)
    assert float((HUGE @ ones).inner(ones)) == pytest.approx(5.0**80)
    thin = kc.KroneckerMatrix(HUGE.factors, (SIZE, 3))
    assert thin.rows([2]).tolist() == [[0.0, 0.0, 1.0]]
    assert thin.sum(0).tolist() == [1.0] * 3
    assert next(iter(thin)).tolist() == [1.0, 0.0, 0.0]
    assert thin[-1].tolist() == [0.0] * 3
    assert thin.T[:, 2].tolist() == [0.0, 0.0, 1.0]


ELEMENTS = r"the result must have at most \d+ elements, got shape "
BEYOND = {
    "K[0]": (lambda: HUGE[0], MemoryError, rf"key {LIMIT}\({SIZE},\) array of float64"),
    "K[[0]]": (lambda: HUGE[[0]], MemoryError, ELEMENTS + rf"\(1, {SIZE}\)"),
    "rows": (lambda: HUGE.rows([3]), MemoryError, ELEMENTS + rf"\(1, {SIZE}\)"),
    "rows_jvp": (lambda: kc.rows_jvp(HUGE.factors, [3], HUGE.factors), MemoryError, ELEMENTS),
    "gather_kron": (lambda: kc.gather_kron(HUGE.factors, np.zeros((80, 1), int)), MemoryError, ELEMENTS),
    "ket_rows": (lambda: kc.ket_rows(np.ones((1, 1, 160)), [0], (2,) * 80), MemoryError, ELEMENTS),
    "matmul": (lambda: kc.KroneckerMatrix(HUGE.factors, (SIZE, 3)) @ np.ones(3), MemoryError, ELEMENTS),
    "rmatmul": (lambda: np.ones(3) @ kc.KroneckerMatrix(HUGE.factors, (3, SIZE)), MemoryError, ELEMENTS),
    "sum(axis=0)": (lambda: HUGE.sum(axis=0), MemoryError, rf"axis {LIMIT}\({SIZE},\)"),
    "diagonal": (lambda: HUGE.diagonal(), MemoryError, rf"{DENSE}diagonal \({SIZE},\)"),
    "to_dense": (lambda: HUGE.to_dense(), MemoryError, "max_bytes must be at least"),
    "to_dense, all": (lambda: HUGE.to_dense(max_bytes=2**200), MemoryError, ELEMENTS),
    "ket.to_dense": (lambda: kc.ket(*[[1.0, 2.0]] * 80).to_dense(2**99), MemoryError, ELEMENTS),
    "len": (lambda: len(HUGE), OverflowError, rf"rows must be at most \d+ for len\(\), got {SIZE}"),
    "iter": (lambda: next(iter(HUGE)), MemoryError, rf"key {LIMIT}"),
    "blocks": (lambda: next(iter(HUGE.iter_row_blocks(1))), MemoryError, ELEMENTS),
    "ids": (lambda: HUGE.rows(np.array([2**63], np.uint64)), IndexError, rf"ids must lie in \[0, {2**63}\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BEYOND)
def test_what_no_machine_holds_names_the_rule(name):
    call, error, text = BEYOND[name]
    with pytest.raises(error, match=text):
        call()


def test_ids_below_any_number_of_rows(xp):
    """A bound beyond int64 is no number that another library could compare with."""
    factors = [xp.asarray(np.eye(2)[None])] * 70
    ids = xp.asarray(np.array([5, -1]))
    found = xp.to_numpy(kc.rows(factors, ids, (2**70, 8), check=False))
    assert found[0].tolist() == np.eye(8)[5].tolist()
    assert np.isnan(found[1]).all()
    kets = kc.row_kets(factors, ids, check=False)
    assert np.isnan(xp.to_numpy(kets[-1])[1]).all()
    assert xp.to_numpy(kets[-1])[0].tolist() == [[0.0, 1.0]]


def test_objects_without_a_batch_have_no_length():
    with pytest.raises(TypeError, match=r"a ket must have a batch for len\(\), got shape \(2,\)"):
        len(kc.ket([1.0, 2.0]))


def test_every_default_limit_is_one_gibibyte():
    functions = [getattr(kc.linalg, name) for name in kc.linalg.__all__]
    functions += [getattr(kc, name) for name in dir(kc) if callable(getattr(kc, name))]
    kinds = kc.Ket, kc.KroneckerMatrix, kc.KroneckerSum, kc.KroneckerProduct, type(kc.swap((2, 2), 0, 1))
    for kind in kinds:
        functions += [getattr(kind, name) for name in dir(kind) if not name.startswith("_")]
    known = [inspect.signature(f).parameters for f in functions if inspect.isfunction(f)]
    limits = [parameters["max_bytes"].default for parameters in known if "max_bytes" in parameters]
    assert len(limits) > 12
    assert set(limits) == {2**30}
