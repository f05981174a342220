"""Bad input: the text of every error reads `<argument> must <rule>, got <value>`."""

import re
from inspect import signature

import numpy as np
import pytest

import ketcore as kc
from ketcore import ops, suggest_dims
from tests.problems import drawn

A, B = np.ones((2, 3, 2)), np.ones((2, 2, 4))
LEAVES = np.ones((5, 2, 6))
IDS = np.array([0, 5])
V, W = (np.ones((3, 2, 2)), np.ones((3, 2, 4))), (np.ones((3, 1, 2)), np.ones((3, 1, 4)))

INDEX = ((0, 2), (1, 0))
OF_ROWS = {"factors": (A, B), "ids": IDS}
OF_GATHER = {"tables": (A, B), "index": INDEX}
OF_RECORDS = {"leaves": LEAVES, "ids": (0, 4), "dims": (2, 4)}
ROWS = np.ones((2, 8))

# Good arguments of what looks rows up and of inner products; cases below spoil one of them.
ARGUMENTS = {
    "rows": OF_ROWS,
    "rows_vjp": OF_ROWS | {"cotangent": ROWS},
    "rows_jvp": OF_ROWS | {"tangents": (A, B)},
    "row_kets": OF_ROWS,
    "row_kets_vjp": OF_ROWS | {"cotangents": (np.ones((2, 2, 2)), np.ones((2, 2, 4)))},
    "row_kets_jvp": OF_ROWS | {"tangents": (A, B)},
    "gather_kron": OF_GATHER,
    "gather_kron_vjp": OF_GATHER | {"cotangent": ROWS},
    "gather_kron_jvp": OF_GATHER | {"tangents": (A, B)},
    "ket_rows": OF_RECORDS,
    "ket_rows_vjp": OF_RECORDS | {"cotangent": ROWS},
    "ket_rows_jvp": OF_RECORDS | {"tangent": LEAVES},
    "ket_inner": {"v": V, "w": W},
    "ket_inner_vjp": {"v": V, "w": W, "cotangent": np.ones(3)},
    "ket_inner_jvp": {"v": V, "w": W, "v_tangents": V, "w_tangents": W},
    "ket_gram": {"v": V, "w": W},
    "ket_gram_vjp": {"v": V, "w": W, "cotangent": np.ones((3, 3))},
    "ket_gram_jvp": {"v": V, "w": W, "v_tangents": V, "w_tangents": W},
}
OF_FACTORS = [name for name in ARGUMENTS if name.startswith("row")]
OF_TABLES = [name for name in ARGUMENTS if name.startswith("gather")]
OF_LEAVES = [name for name in ARGUMENTS if name.startswith("ket_rows")]
OF_KETS = ["ket_inner", "ket_inner_vjp", "ket_inner_jvp", "ket_gram", "ket_gram_vjp", "ket_gram_jvp"]


def fails(name, error, message, **spoiled):
    refused(getattr(ops, name), error, message, **ARGUMENTS[name] | spoiled)


def refused(function, error, message, **arguments):
    with pytest.raises(error, match=message) as caught:
        function(**arguments)
    # The grammar of every message.
    assert re.match(r"^[\w\[\] ]+ must .+, got .+", str(caught.value), re.DOTALL), caught.value


def test_good_arguments_pass():
    for name, arguments in ARGUMENTS.items():
        getattr(ops, name)(**arguments)


@pytest.mark.parametrize("op", ops.OPS, ids=[op.name for op in ops.OPS])
def test_arrays_of_every_operation(op):
    """Strings, a wrong shape, and nothing where there are several, as any of the arrays of any function."""
    problem = drawn(op, "float64")
    primals = op.unflatten(problem.arrays, problem.counts)
    constants = () if problem.index is None else (problem.index,)
    cotangent = op.cotangent(problem.forward(*problem.arrays))
    for function, more, tangents in (
        (op.forward, (), None),
        (op.vjp, (cotangent,), None),
        (op.jvp, (), primals),
    ):
        more = *constants, *more
        bind = signature(function).bind
        good = op.call(bind, primals, more, tangents, **problem.options).arguments
        function(**good)
        for argument in set(good) - {*op.constants, *op.options}:
            several = isinstance(good[argument], tuple)
            strings = [array.astype("U3") for array in (good[argument] if several else (good[argument],))]
            spoiled = {argument: tuple(strings) if several else strings[0]}
            refused(function, TypeError, "must have a numeric dtype, got <U3", **good | spoiled)
            spoiled = {argument: () if several else np.ones((7, 7, 7, 7))}
            refused(function, ValueError, "must", **good | spoiled)


@pytest.mark.parametrize("name", OF_FACTORS + OF_TABLES)
def test_factors(name):
    argument = "factors" if name in OF_FACTORS else "tables"
    rule = rf"{argument} must be arrays \(rank, rows, columns\) of one rank, got shapes "
    fails(name, ValueError, rule + r"\[\(3, 2\), \(2, 2, 4\)\]", **{argument: (A[0], B)})
    fails(name, ValueError, rule + r"\[\(2, 3, 2\), \(1, 2, 4\)\]", **{argument: (A, B[:1])})
    fails(name, ValueError, rule, **{argument: (A[None], B[None])})
    fails(name, ValueError, f"{argument} must hold at least one array, got none", **{argument: ()})
    for empty in (A[:, :0], A[:, :, :0]):
        message = f"{argument} must have at least one row and one column each, got shapes"
        fails(name, ValueError, message, **{argument: (empty, B)})
    for dtype in ("<U3", "object", "<M8[s]"):
        message = f"{argument} must have a numeric dtype, got "
        fails(name, TypeError, message, **{argument: (A.astype(int).astype(dtype), B)})


BAD_IDS = [
    (np.array([0, 6]), IndexError, r"ids must lie in \[0, 6\), got 6$"),
    (np.array([-1, 0]), IndexError, r"ids must lie in \[0, 6\), got -1$"),
    (np.array([0, 2**63 + 5], "uint64"), IndexError, rf"ids must lie in \[0, 6\), got {2**63 + 5}$"),
    (np.array([0, 2**63 - 1]), IndexError, r"ids must lie in \[0, 6\), got 9223372036854775807$"),
    (np.array([0, 200], "uint8"), IndexError, r"ids must lie in \[0, 6\), got 200$"),
    (np.array([0.0, 1.0]), TypeError, "ids must have an integer dtype, got float64"),
    (np.array([True, False]), TypeError, "ids must have an integer dtype, got bool"),
    (np.array(["a", "b"]), TypeError, "ids must have an integer dtype, got <U1"),
    (np.array([1, 2], object), TypeError, "ids must have an integer dtype, got object"),
    (np.array([1j, 0]), TypeError, "ids must have an integer dtype, got complex128"),
    (None, TypeError, "ids must have an integer dtype, got"),
    ([2**70, 0], (TypeError, IndexError), "ids must"),
]


@pytest.mark.parametrize("name", OF_FACTORS + OF_LEAVES)
@pytest.mark.parametrize(("ids", "error", "message"), BAD_IDS, ids=[m for _, _, m in BAD_IDS])
def test_ids(name, ids, error, message):
    bound = "5" if name in OF_LEAVES else "6"
    fails(name, error, message.replace("[0, 6", f"[0, {bound}"), ids=ids)


@pytest.mark.parametrize("name", OF_TABLES)
def test_index(name):
    for index, message in (
        ([[0, 3], [0, 0]], r"index\[0\] must lie in \[0, 3\), got 3"),
        ([[0, 0], [0, -1]], r"index\[1\] must lie in \[0, 2\), got -1"),
        (np.array([[0, 0], [0, 2**63]], "uint64"), rf"index\[1\] must lie in \[0, 2\), got {2**63}"),
    ):
        fails(name, IndexError, message, index=index)
    for index, got in (([[0.0], [0.0]], "float64"), ([[True], [False]], "bool")):
        fails(name, TypeError, f"index must have an integer dtype, got {got}", index=index)
    for index in ([0, 0, 0], 0, [[0, 0]]):
        fails(name, ValueError, r"index must have shape \(N, \.\.\.\), .*, got", index=index)
    fails(
        name,
        ValueError,
        r"index must have shape \(N, R, \.\.\.\), .*, got",
        index=[[0, 0, 0]] * 2,
        per_term=True,
    )


@pytest.mark.parametrize("name", OF_FACTORS)
def test_shape(name):
    for shape in ((7, 8), (6, 9), (0, 8), (6, 0), (-1, 8), (6.0, 8)):
        message = r"shape must be two ints from \(1, 1\) to \(6, 8\), got " + re.escape(str(shape))
        fails(name, ValueError, message, shape=shape)
    for shape in (6, (6,), (6, 8, 1), "ab"):
        fails(name, ValueError, r"shape must be two ints", shape=shape)
    fails(name, IndexError, r"ids must lie in \[0, 5\), got 5", shape=(5, 8))


@pytest.mark.parametrize("name", ["row_kets", "row_kets_vjp", "row_kets_jvp"])
def test_a_ket_has_no_cropped_columns(name):
    fails(name, ValueError, r"shape must keep all 8 columns, .*, got \(6, 7\)", shape=(6, 7))


@pytest.mark.parametrize("name", OF_TABLES + OF_LEAVES)
def test_columns(name):
    for columns in (0, -1, 9, 2.0, "3"):
        fails(name, ValueError, rf"columns must be an int in \[1, 8\], got {columns!r}", columns=columns)


@pytest.mark.parametrize("name", OF_LEAVES)
def test_leaves_and_dims(name):
    rule = r"leaves must have shape \(words, rank, 6\) for dims \(2, 4\), got "
    fails(name, ValueError, rule + r"\(5, 6\)", leaves=LEAVES[:, 0])
    fails(name, ValueError, rule + r"\(5, 2, 5\)", leaves=LEAVES[:, :, :5])
    fails(name, ValueError, r"dims must be at least one int >= 1, got \(\)", dims=())
    fails(name, ValueError, r"dims must be at least one int >= 1, got \(6, 0\)", dims=(6, 0))
    fails(name, TypeError, "dims must be a sequence of ints, got 6", dims=6)
    message = "leaves must have a numeric dtype, got <U3"
    fails(name, TypeError, message, leaves=LEAVES.astype("<U3"))
    message = "layernorm must be False for complex leaves, got leaves of complex128"
    fails(name, TypeError, message, leaves=LEAVES + 0j, layernorm=True)
    for eps in (-1.0, float("nan")):
        fails(name, ValueError, f"eps must be at least 0 and finite, got {eps}", layernorm=True, eps=eps)


@pytest.mark.parametrize("name", OF_LEAVES)
def test_fractional_dims_are_refused(name):
    fails(name, TypeError, r"dims must be a sequence of ints, got \(2.5, 3.5\)", dims=(2.5, 3.5))


def test_an_empty_table_takes_no_ids_but_none_at_all():
    with pytest.raises(IndexError, match=r"ids must lie in \[0, 0\), got 0"):
        ops.ket_rows(LEAVES[:0], [0], (2, 4))
    assert ops.ket_rows(LEAVES[:0], [], (2, 4)).shape == (0, 8)
    assert ops.ket_rows_vjp(LEAVES[:0], [], np.ones((0, 8)), (2, 4)).shape == (0, 2, 6)


@pytest.mark.parametrize("name", OF_KETS)
def test_kets(name):
    rule = r"v must be arrays \(\.\.\., rank, dim\) of one batch and rank, got shapes "
    fails(name, ValueError, rule + r"\[\(3, 2, 2\), \(3, 1, 4\)\]", v=(V[0], V[1][:, :1]))
    fails(name, ValueError, rule + r"\[\(3, 2, 2\), \(2, 2, 4\)\]", v=(V[0], V[1][:2]))
    fails(name, ValueError, rule + r"\[\(2,\), \(4,\)\]", v=(V[0][0, 0], V[1][0, 0]))
    fails(name, ValueError, "w must be arrays", w=(W[0], W[1][0]))
    message = r"v and w must have the same dims, got \(2, 4\) and \(2, 3\)"
    fails(name, ValueError, message, w=(W[0], W[1][..., :3]))
    fails(name, ValueError, r"v and w must have the same dims, got \(2, 4\) and \(2,\)", w=W[:1])
    fails(name, ValueError, "v must .*, got", v=())
    message = "v and w must have a numeric dtype, got <U3"
    fails(name, TypeError, message, v=(V[0].astype("<U3"), V[1]))
    empty = tuple(leaf[..., :0] for leaf in V), tuple(leaf[..., :0] for leaf in W)
    fails(name, ValueError, "must .*, got", v=empty[0], w=empty[1])


@pytest.mark.parametrize("name", ["ket_inner", "ket_inner_vjp", "ket_inner_jvp"])
def test_batches_that_do_not_broadcast(name):
    fails(name, ValueError, r"v and w must .*, got .*\(3,\) and \(2,\)", w=tuple(leaf[:2] for leaf in W))


COTANGENTS = {
    "rows_vjp": (2, 8),
    "gather_kron_vjp": (2, 8),
    "ket_rows_vjp": (2, 8),
    "ket_inner_vjp": (3,),
    "ket_gram_vjp": (3, 3),
}


@pytest.mark.parametrize("name", COTANGENTS)
def test_cotangent(name):
    shape = COTANGENTS[name]
    for wrong in (shape[:-1], (*shape, 1), (shape[0] + 1, *shape[1:]), (1,) * len(shape)):
        message = f"cotangent must have shape {re.escape(str(shape))}, got {re.escape(str(wrong))}"
        fails(name, ValueError, message, cotangent=np.ones(wrong))
    message = "cotangent must have a numeric dtype, got <U3"
    fails(name, TypeError, message, cotangent=np.ones(shape, "<U3"))
    message = "cotangent must be real as the primals are, got complex128"
    fails(name, TypeError, message, cotangent=np.ones(shape, complex))


def test_cotangents_of_row_kets():
    good = (np.ones((2, 2, 2)), np.ones((2, 2, 4)))
    message = "cotangents must hold 2 arrays, one per factor, got 1"
    fails("row_kets_vjp", ValueError, message, cotangents=good[:1])
    message = r"cotangents must have shape \(2, 2, 4\), got \(2, 2, 2\)"
    fails("row_kets_vjp", ValueError, message, cotangents=(good[0], good[0]))
    message = "cotangents must have a numeric dtype, got <U3"
    fails("row_kets_vjp", TypeError, message, cotangents=(good[0], good[1].astype("<U3")))


@pytest.mark.parametrize("name", ["rows_jvp", "row_kets_jvp", "gather_kron_jvp"])
def test_tangents(name):
    fails(name, ValueError, "tangents must hold 2 arrays, one per primal, got 1", tangents=(A,))
    fails(name, ValueError, r"tangents must have shape \(2, 2, 4\), got \(2, 3, 2\)", tangents=(A, A))
    message = "tangents must have a numeric dtype, got <U3"
    fails(name, TypeError, message, tangents=(A, B.astype("<U3")))
    fails(name, TypeError, "tangents must be real as the primals are, got complex128", tangents=(A, B + 0j))


def test_tangents_of_leaves_and_kets():
    message = r"tangent must have shape \(5, 2, 6\), got \(1, 2, 6\)"
    fails("ket_rows_jvp", ValueError, message, tangent=LEAVES[:1])
    for name in ("ket_inner_jvp", "ket_gram_jvp"):
        fails(name, ValueError, "v_tangents must hold 2 arrays, one per primal, got 1", v_tangents=V[:1])
        fails(name, ValueError, r"w_tangents must have shape \(3, 1, 2\), got \(3, 2, 2\)", w_tangents=V)


@pytest.mark.parametrize("name", ["rows", "gather_kron", "ket_rows"])
def test_out(name):
    rule = r"out must have shape \(2, 8\) and dtype float64, got "
    fails(name, ValueError, rule + r"\(2, 7\) and float64", out=np.empty((2, 7)))
    fails(name, ValueError, rule + r"\(16,\) and float64", out=np.empty(16))
    fails(name, ValueError, rule + r"\(2, 8\) and float32", out=np.empty((2, 8), "float32"))
    contiguous = "out must be C-contiguous and writeable, got strides "
    fails(name, ValueError, contiguous, out=np.empty((8, 2)).T)
    fails(name, ValueError, contiguous, out=np.empty((2, 16))[:, ::2])
    fails(name, ValueError, contiguous, out=np.broadcast_to(np.empty(8), (2, 8)))
    read_only = np.empty((2, 8))
    read_only.flags.writeable = False
    fails(name, ValueError, contiguous + r".*writeable=False", out=read_only)
    fails(
        name, TypeError, "out must be a NumPy or CuPy array like the factors, got list", out=[[0.0] * 8] * 2
    )


@pytest.mark.parametrize(
    ("name", "argument", "arrays"),
    [
        ("rows", "factors", (A, B)),
        ("row_kets", "factors", (A, B)),
        ("gather_kron", "tables", (A, B)),
        ("ket_inner", "v", V),
        ("ket_gram", "v", V),
    ],
)
def test_arrays_of_two_libraries(name, argument, arrays):
    strict = pytest.importorskip("array_api_strict")
    word = "v and w" if argument == "v" else argument
    message = f"{word} must be arrays of one library, got array_api_strict, numpy"
    fails(name, TypeError, message, **{argument: (strict.asarray(arrays[0]), arrays[1])})


def test_cotangents_and_ids_of_another_library():
    strict = pytest.importorskip("array_api_strict")
    message = "cotangent and primals must be arrays of one library, got array_api_strict, numpy"
    fails("rows_vjp", TypeError, message, cotangent=strict.ones((2, 8)))
    fails("rows", TypeError, "ids and factors must be arrays of one library, got", ids=strict.asarray([0, 1]))


def test_arrays_of_two_devices():
    strict = pytest.importorskip("array_api_strict")
    other = strict.asarray(B, device=strict.Device("device1"))
    fails("rows", TypeError, "factors must lie on one device, got", factors=(strict.asarray(A), other))


def test_digits_and_dims():
    for call, error, message in (
        (lambda: ops.digits([6], (2, 3)), IndexError, r"index must lie in \[0, 6\), got 6"),
        (lambda: ops.digits([-1], (2, 3)), IndexError, r"index must lie in \[0, 6\), got -1"),
        (lambda: ops.digits([0.5], (2, 3)), TypeError, "index must have an integer dtype, got float64"),
        (lambda: ops.digits([0], ()), ValueError, r"radices must be at least one int >= 1, got \(\)"),
        (lambda: ops.digits([0], (2.5, 2)), TypeError, r"radices must be a sequence of ints, got \(2.5, 2\)"),
        (lambda: ops.digits([0], 6), TypeError, "radices must be a sequence of ints, got 6"),
        (lambda: ops.digits([0], (2, 0)), ValueError, r"radices must be at least one int >= 1, got \(2, 0\)"),
        (lambda: suggest_dims(0, 2), ValueError, "n must be at least 1, got 0"),
        (lambda: suggest_dims(4, 0), ValueError, "order must be at least 1, got 0"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_a_bad_id_writes_nothing_into_out():
    out = np.full((2, 8), 7.0)
    fails("rows", IndexError, "ids must lie in", ids=[0, 6], out=out)
    assert (out == 7).all()


def test_a_matrix_of_more_rows_than_an_id_can_name_does_not_wrap_around():
    """Sixteen modes of sixteen digits are 2**64 rows."""
    factors = [np.ones((1, 16, 1))] * 15 + [np.arange(16.0).reshape(1, 16, 1)]
    assert ops.rows(factors, np.array([2**63 - 1, 5])).ravel().tolist() == [15.0, 5.0]
    with pytest.raises(IndexError, match=r"ids must lie in \[0, 18446744073709551616\), got -1"):
        ops.rows(factors, [-1])


def test_digits_beyond_64_bits():
    """Leading digits whose stride no index reaches are zero; an index has 63 bits."""
    assert [int(d) for d in ops.digits(2**62 + 5, (4,) * 40)] == [0] * 8 + [1] + [0] * 29 + [1, 1]
    with pytest.raises(IndexError, match=rf"index must lie in \[0, {2**63}\), got {2**63}"):
        ops.digits(np.array([2**63], np.uint64), (2,) * 64)
    factors = [np.ones((1, 4, 1))] * 39 + [np.arange(4.0).reshape(1, 4, 1)]
    assert ops.rows(factors, [6], (100, 1)).tolist() == [[2.0]]
    assert ops.row_kets(factors, [6])[-1].tolist() == [[[2.0]]]


@pytest.mark.parametrize("name", OF_FACTORS + OF_TABLES)
def test_what_is_no_sequence_of_arrays(name):
    argument = "tables" if name in OF_TABLES else "factors"
    wrong = {argument: None}
    fails(name, TypeError, f"{argument} must be a sequence of arrays, got NoneType", **wrong)
    # Its rows are a sequence of arrays too: the table itself would be made dense, row by row.
    table = {argument: kc.KroneckerMatrix(np.ones((3, 1, 2**20, 1)))}
    fails(name, TypeError, f"{argument} must be a sequence of arrays, got KroneckerMatrix", **table)
    ragged = {argument: [[[[1.0, 2.0], [3.0]]], B]}
    fails(name, ValueError, f"{argument} must be arrays or regular nested lists, got ragged lists", **ragged)


@pytest.mark.parametrize("name", OF_FACTORS + OF_TABLES)
def test_dtypes_that_do_not_promote(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    argument = "tables" if name in OF_TABLES else "factors"
    halves = {argument: (A.astype(np.float16), B.astype(ml_dtypes.bfloat16))}
    message = f"{argument} must have dtypes that promote to one, got bfloat16, float16"
    fails(name, TypeError, message, **halves)


def test_row_kets_jvp_keeps_the_dtypes_of_row_kets():
    mixed = (A.astype(np.float32), B.astype(np.complex128))
    found = ops.row_kets_jvp(mixed, IDS, (A, B.astype(np.complex128)))
    assert [leaf.dtype for leaf in found] == [leaf.dtype for leaf in ops.row_kets(mixed, IDS)]
    fails("row_kets_jvp", TypeError, "tangents must be real", factors=mixed, tangents=(A + 1j, B))
