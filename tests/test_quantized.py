"""Arrays of 8, 4 or 2 bits a number: what they decode to, on every operation, object, engine and file."""

import copy
import json
import pickle
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore.array_types import AnyArray
from ketcore.lookups import gather
from ketcore.ops import OPS
from tests.file_problems import FILE
from tests.problems import drawn

RNG = np.random.default_rng(5)
BITS = pytest.mark.parametrize("bits", [8, 4, 2])


def decoded_dense(array):
    """The definition: every number times the scale of its block, one by one."""
    *lead, _ = array.values.shape
    line = prod(array.shape[len(lead) :])
    found = np.zeros((*lead, line), np.float32)
    values, scales = np.asarray(array.values), np.asarray(array.scales).astype(np.float32)
    for place in np.ndindex(*lead, line):
        *at, i = place
        found[place] = np.float32(integer(values[tuple(at)], array.bits, i)) * scales[(*at, i // array.block)]
    return found.reshape(array.shape)


def integer(line, bits, i):
    """The number i of a line of values."""
    if bits == 8:
        return int(line[i])
    code = int(line[i * bits // 8]) >> i * bits % 8 & 2**bits - 1
    return code - 8 if bits == 4 else 2 * code - 3


@st.composite
def tables(draw):
    """Real arrays of one to three axes, of any dtype, memory and magnitude, with zeros among them."""
    shape = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = 10.0 ** draw(st.sampled_from((-40, -9, -3, 0, 3, 30)))
    values = size * rng.standard_normal(shape) * (rng.random(shape) < 0.7)
    dtype = draw(st.sampled_from(("float64", "float32", "float16", ">f4", "int16")))
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.nan_to_num(values.astype(dtype), posinf=1.0, neginf=-1.0)
    if draw(st.booleans()):
        found = np.repeat(found, 2, axis=-1)[..., ::-2]
    found.flags.writeable = draw(st.booleans())
    return found


@BITS
@given(x=tables(), block=st.sampled_from((1, 2, 3, 8, 32, 2**70)))
def test_a_number_is_the_nearest_one_that_its_scale_allows(bits, x, block):
    q = kc.quantize(x, bits, block)
    found = q.dequantize()
    assert (q.shape, q.ndim, q.size, q.dtype) == (x.shape, x.ndim, x.size, np.dtype("float32"))
    assert found.dtype == np.float32
    assert np.array_equal(found, decoded_dense(q))
    assert q.nbytes == q.values.nbytes + q.scales.nbytes
    assert np.array_equal(np.asarray(q), found)
    scales = np.repeat(q.scales.astype(float), min(block, x.shape[-1]), axis=-1)[..., : x.shape[-1]]
    distance = np.abs(found - x.astype(float))
    if bits == 2:
        levels = scales[..., None] * [-3, -1, 1, 3]
        nearest = np.abs(levels - x.astype(float)[..., None]).min(axis=-1)
        assert np.all(distance <= nearest + 1e-12 * scales + 2e-45)
    else:
        assert np.all(distance <= scales * (0.5 + 1e-12) + 2e-45)
        assert np.all(found[x == 0] == 0)
    # What is stored once stays as it is, while scales are normal numbers.
    if np.all((scales == 0) | (scales >= 2.0**-126)):
        again = kc.quantize(found, bits, block)
        assert again.scales.dtype == q.scales.dtype
        assert np.array_equal(again.scales, q.scales)
        assert np.array_equal(again.values, q.values)


@given(x=tables(), block=st.integers(1, 6))
def test_two_bits_have_the_scale_of_least_squares(x, block):
    """No choice of which numbers of a block count thrice leaves less."""
    x = x.astype(float)
    q = kc.quantize(x, 2, block)
    shape = (x.size // max(1, x.shape[-1]), x.shape[-1])
    lines, found = x.reshape(shape), q.dequantize().astype(float).reshape(shape)
    for start in range(0, lines.shape[1], block):
        sizes = np.abs(lines[:, start : start + block])
        left = ((lines - found)[:, start : start + block] ** 2).sum(axis=-1)
        levels = np.array([*product((1.0, 3.0), repeat=sizes.shape[1])])
        scales = sizes @ levels.T / (levels**2).sum(axis=-1)
        least = ((sizes[:, None] - scales[..., None] * levels) ** 2).sum(axis=-1).min(axis=-1)
        # A scale of float16 is rounded to 11 bits.
        assert np.all(left <= least + 2.0**-20 * (sizes**2).sum(axis=-1) + 1e-88)


def test_two_bits_of_blocks_that_one_sees():
    q = kc.quantize([[0.0] * 4, [-3.0, 1.0, 3.0, -1.0], [5.0] * 4, [0.0, 0.0, 0.0, -9.0]], 2, 4)
    assert q.scales.tolist() == [[0.0], [1.0], [5.0], [2.25]]
    assert q.values.tolist() == [[0b10101010], [0b01111000], [0b10101010], [0b00101010]]
    assert (q.nbytes, q.dequantize()[:2].tolist()) == (12, [[0.0] * 4, [-3.0, 1.0, 3.0, -1.0]])
    gauss = RNG.standard_normal((500, 256))
    lost = np.linalg.norm(kc.quantize(gauss, 2, 256).dequantize() - gauss) / np.linalg.norm(gauss)
    # Four equal steps at their best leave .1188 of the variance (Max, 1960).
    assert 0.11**0.5 < lost < 0.1188**0.5


def test_blocks_of_zeros_are_exact_and_have_the_scale_0():
    q = kc.quantize([[0.0, 0.0, 1.0, -1.0]], block=2)
    assert q.scales[0, 0] == 0
    assert q.values.tolist() == [[0, 0, 127, -127]]


@BITS
def test_what_is_decoded_is_exact_and_stored_as_it_was(bits):
    for size in (1e-9, 1.0, 1e30):
        q = kc.quantize(size * RNG.standard_normal((500, 3)), bits)
        found = q.dequantize()
        assert np.array_equal(found, decoded_dense(kc.quantize(found, bits)))
        assert np.array_equal(found[:, 0] / q.scales[:, 0].astype(float) % 1, np.zeros(500))


def test_the_largest_numbers_stay_finite():
    most = float(np.finfo(np.float32).max)
    for bits, largest in ((8, most), (4, most), (2, most * 2 / 3)):
        good = largest * (1 - 2.0**-15)
        for x in ([good, 1.0], [-good], [good] * 20 + [good / 3]):
            assert np.isfinite(kc.quantize(x, bits).dequantize()).all()
        for x in ([largest], [largest * (1 - 2.0**-20)]):
            with pytest.raises(ValueError, match=r"x must be finite, and within the range of float32"):
                kc.quantize(x, bits)


def test_a_scale_below_the_normal_numbers_is_rounded_up_as_well():
    least = 2.0**-149
    q = kc.quantize([1.4 * 127 * least])
    assert (q.scales.tolist(), q.values.tolist()) == ([2 * least], [89])


def test_scales_are_float16_where_that_loses_nothing():
    for size, expected in ((1.0, "float16"), (1e-2, "float16"), (1e-3, "float32"), (1e9, "float32")):
        assert kc.quantize([size, -size / 3]).scales.dtype == expected


@pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])
def test_operations_take_what_it_decodes_to(op, xp):
    """And give its derivatives: the same bits as of the array itself."""
    # The strategy of likelihoods makes factors Hermitian on the way, which what is quantized is not.
    problem = drawn(op, "float32").on(xp)
    if op.name == "kron_log_likelihood":
        problem = replace(problem, op=op, options=problem.options | {"assume_a": "her"})
    # What kernels are given is the same with fewer bits.
    for bits in (8,) if xp.name.startswith("cusim") else (8, 2):
        small = [kc.quantize(array, bits, 5) if array.ndim else array for array in problem.arrays]
        plain = [array.dequantize() if array.ndim else array for array in small]
        ones = [xp.asarray(np.ones(output.shape, "float32")) for output in problem.forward(*plain)]
        for found, expected in (
            (problem.forward(*small), problem.forward(*plain)),
            (problem.vjp(*small, ones), problem.vjp(*plain, ones)),
            (problem.jvp(*small, *plain), problem.jvp(*plain, *plain)),
        ):
            for one, other in zip(found, expected, strict=True):
                assert one.dtype == other.dtype
                assert np.array_equal(xp.to_numpy(one), xp.to_numpy(other), equal_nan=True)


@BITS
@given(x=tables())
def test_every_library_decodes_to_the_same_numbers(bits, x):
    torch = pytest.importorskip("torch")
    x = x.astype("float32")
    expected = kc.quantize(x, bits, 3)
    found = kc.quantize(torch.asarray(np.array(x)), bits, 3)
    assert np.array_equal(found.values.numpy(), expected.values)
    assert np.array_equal(found.dequantize().numpy(), expected.dequantize())


OBJECTS = {
    "Ket": kc.Ket.random((3, 5), rank=2, batch_shape=(4,), rng=0),
    "KroneckerMatrix": kc.KroneckerMatrix.random((70, 12), order=2, rank=3, rng=0),
    "KroneckerSum": kc.KroneckerSum([RNG.standard_normal((3, 3)), RNG.standard_normal((2, 2))]),
    "CodebookTable": kc.CodebookTable(
        [RNG.standard_normal((2, 7, 5))],
        RNG.integers(0, 7, (1, 2, 30)),
        np.ones(30),
        RNG.standard_normal((5, 9)),
    ),
}
every_object = pytest.mark.parametrize("name", OBJECTS)


@BITS
@every_object
def test_objects_keep_what_is_stored_and_give_what_it_decodes_to(name, bits):
    obj = OBJECTS[name]
    small = kc.quantize(obj, bits, 16)
    plain = small.dequantize()
    assert (type(small), small.shape) == (type(obj), obj.shape)
    assert small.nbytes < plain.nbytes
    assert plain.dequantize() is plain
    stored = small.stored if isinstance(small.stored, tuple) else (small.stored,)
    arrays = [small.row_scale, small.stored_decoder, small.codes] if name == "CodebookTable" else []
    assert small.nbytes == sum(array.nbytes for array in (*stored, *arrays))
    assert f"stored={bits} bits by 16" in repr(small)
    assert f"bytes={small.nbytes:,}" in repr(small)
    found = small.to_dense()
    assert np.array_equal(found, plain.to_dense())
    assert (
        np.abs(found - obj.to_dense()).max() <= {8: 0.05, 4: 0.9, 2: 3.0}[bits] * np.abs(obj.to_dense()).max()
    )
    for made in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert made.nbytes == small.nbytes
        assert np.array_equal(made.to_dense(), found)


@BITS
@every_object
def test_files_carry_it(name, bits, tmp_path):
    small = kc.quantize(OBJECTS[name], bits, 16)
    path = tmp_path / "object.safetensors"
    kc.save(path, small)
    assert f'"ketcore_format":"{3 if bits == 2 else 2}"' in path.read_bytes().decode("latin-1")
    for mode in (None, "r", "c"):
        found = kc.load(path, mode)
        assert repr(found) == repr(small)
        assert np.array_equal(found.to_dense(), small.to_dense())


BROKEN_FILES = {
    "text": ("8", "quantized must be a list, got 8"),
    "short": ('[["factors.0", 8, 32]]', "quantized must be lists .name, bits, block, shape. with names"),
    "kind": ('[["identities", 8, 32, [1]]]', "quantized must be lists .* with names of packed, factors"),
    "twice": ('[["factors.0", 8, 2, [1, 2, 3]], ["factors.0", 8, 2, [1, 2, 3]]]', "must have each name once"),
    "none": ("[]", "the tensors must be those of a KroneckerMatrix"),
    "more": (
        '[["factors.0", 8, 2, [1, 2, 3]], ["factors.1", 8, 2, [1]]]',
        "tensor factors.1.values must be there",
    ),
    "block": ('[["factors.0", 8, 3, [1, 2, 3]]]', r"scales must have shape \(1, 2\) .*, got \(1, 3\)"),
    "zero": ('[["factors.0", 8, 0, [1, 2, 3]]]', "block must be at least 1, got 0"),
    "bits": ('[["factors.0", 4, 2, [1, 2, 3]]]', "values must have dtype uint8 with 4 bits, got int8"),
    "no bits": ('[["factors.0", true, 2, [1, 2, 3]]]', "bits must be an int, got True"),
    "shape": ('[["factors.0", 8, 2, [1, 2, 2]]]', r"values must have shape \(1, 4\)"),
    "huge": ('[["factors.0", 8, 2, [1, 9223372036854775807, 3]]]', "values must have shape"),
    "sizes": ('[["factors.0", 8, 2, [1, -2, 3]]]', "shape must be at least 0, got -2"),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_what_is_wrong_with_a_file_is_said(name, tmp_path):
    path = tmp_path / "object.safetensors"
    kc.save(path, kc.quantize(kc.KroneckerMatrix([np.ones((2, 3))]), 8, 2))
    text = path.read_bytes()
    size = int.from_bytes(text[:8], "little")
    header = json.loads(text[8 : 8 + size])
    assert json.loads(header["__metadata__"]["quantized"]) == [["factors.0", 8, 2, [1, 2, 3]]]
    assert header["__metadata__"]["ketcore_format"] == "2"
    header["__metadata__"]["quantized"], rule = BROKEN_FILES[name]
    made = json.dumps(header).encode()
    path.write_bytes(len(made).to_bytes(8, "little") + made + text[8 + size :])
    with pytest.raises(ValueError, match=FILE + ".*" + rule):
        kc.load(path)


CALLS = {
    "Ket": lambda v: [
        v.factors[0], v[[2, -1]].to_dense(), v[1:].packed, (2 * v).to_dense(), v.inner(v), v.norm(),
        v.kron(v).to_dense(), v.astype("float16").to_dense(), v.normalize().to_dense(),
    ],
    "KroneckerMatrix": lambda m: [
        m.factors[0], m.rows([3, 69]), m[5], m[1:4, ::2], m @ np.ones(12), m.T @ np.ones(70), m.norm(),
        (m + m).to_dense(), (m @ m.T).to_dense(), m.row_kets([2]).to_dense(), m.kron(m)[7], m.conj()[1],
        m.balance()[3], m.sum(), m.astype("float64")[1], next(m.iter_row_blocks(9).__iter__()),
    ],
    "KroneckerSum": lambda s: [
        s @ np.ones(6), s.T.to_dense(), (s + s).to_dense(), s.to_kronecker().to_dense(), s.trace(), s.norm()
    ],
    "CodebookTable": lambda t: [
        t.codebooks[0], t.decoder, t.rows([3, 29]), t[5], t[1:4, ::2], t.bag([[1, 2], [3, 3]]),
        t.logits(np.ones(9)), t.topk(np.ones(9), 3)[0], t.expand().to_dense(), t[[1, 2], [0, 1]],
        list(t.iter_row_blocks(7))[-1],
    ],
}  # fmt: skip


@every_object
def test_methods_give_what_they_give_of_the_decoded_object(name):
    small = kc.quantize(OBJECTS[name], 4, 8)
    for found, expected in zip(CALLS[name](small), CALLS[name](small.dequantize()), strict=True):
        assert np.array_equal(found, expected)
    with pytest.raises(AttributeError):
        _ = small.nothing


def test_costs_read_leaves_as_they_are_stored():
    matrix = kc.KroneckerMatrix.random((4096, 4096), order=2, rank=2, rng=0, dtype="float32")
    small = kc.quantize(matrix, 4)
    stored, plain = small.nbytes, matrix.nbytes
    assert stored < plain / 6
    for name, n, made in (("row_kets", 64, plain), ("gather", 4096, 4096 * 4)):
        assert matrix.cost(name, n).bytes == made + plain
        assert small.cost(name, n).bytes == made + stored
        assert small.cost(name, 0).bytes == 0


def test_a_ket_picks_before_it_decodes():
    kets = kc.quantize(kc.Ket.random((4, 6), batch_shape=(50, 2), rng=0), 4)
    for key in (3, slice(1, 9, 2), ([4, -1], 1), np.arange(100).reshape(50, 2) % 7 == 0):
        assert isinstance(kets[key].stored, kc.QuantizedArray)
        assert np.array_equal(kets[key].packed, kets.dequantize()[key].packed)


def test_a_ket_whose_lines_are_of_the_batch_too_is_decoded():
    flat = kc.quantize(RNG.standard_normal(40))
    small = kc.QuantizedArray(flat.values, flat.scales, (5, 2, 4))
    kets = kc.Ket.from_packed(small, (1, 3))
    assert np.array_equal(kets[3].packed, small.dequantize()[3])
    assert np.array_equal(kets[[1, -1]].packed, small.dequantize()[[1, -1]])


def test_it_is_fitted_as_what_it_decodes_to():
    table = kc.quantize(RNG.standard_normal((12, 6)))
    for fit in (
        lambda x: kc.nearest_kronecker(x, (3, 4), (2, 3), 2, rng=0).value.to_dense(),
        lambda x: kc.vocabulary_permutation(x, (3, 4)),
    ):
        assert np.array_equal(fit(table), fit(table.dequantize()))


def test_beside_wider_factors_it_is_decoded():
    small, wide = kc.quantize(np.ones((1, 3, 3))), np.ones((1, 2, 2))
    assert kc.KroneckerMatrix([small, wide]).dtype == np.float64
    assert not any(isinstance(f, kc.QuantizedArray) for f in kc.KroneckerMatrix([small, wide]).stored)
    half = kc.KroneckerMatrix([small, wide.astype("float16")])
    assert half.dtype == np.float32
    assert isinstance(half.stored[0], kc.QuantizedArray)
    flat = kc.KroneckerMatrix([kc.quantize(np.eye(3)), kc.quantize(np.eye(2))])
    assert (flat.rank, flat.stored[0].shape) == (1, (1, 3, 3))


def test_marked_identities_stay_exact():
    small = kc.quantize(kc.KroneckerMatrix([np.eye(3), RNG.standard_normal((4, 4))], identities={0}))
    assert small.identities == {0}
    assert np.array_equal(small.factors[0][0], np.eye(3))
    chain = kc.quantize(kc.KroneckerSum([np.ones((2, 2)), np.ones((3, 3))]).to_kronecker())
    assert not any(chain.term_identities)
    assert np.allclose(chain @ np.eye(6), chain.to_dense(), rtol=1e-6)


@pytest.mark.parametrize("engine", [name for name in kc.engines() if name != "cuda"])
def test_every_engine_is_given_it(engine):
    matrix = kc.quantize(OBJECTS["KroneckerMatrix"], 4)
    with gather.only(engine):
        found = matrix.rows(np.arange(70))
        assert np.array_equal(found, matrix.dequantize().rows(np.arange(70)))


BAD: dict[str, tuple[AnyArray, dict, type[Exception], str]] = {
    "nan": ([[1.0, 2.0], [np.nan, 3.0]], {}, ValueError, r"x must be finite, .* got nan at \[1, 0\]"),
    "infinity": (-np.inf * np.ones((1, 1, 1)), {}, ValueError, r"got -inf at \[0, 0, 0\]"),
    "beyond": ([1e39], {}, ValueError, r"within the range of float32, got 1e\+39 at \[0\]"),
    "complex": ([1j], {}, TypeError, "x must have a real dtype, got complex128"),
    "text": ("a", {}, TypeError, "x must "),
    "no axes": (1.5, {}, ValueError, r"x must have at least one axis, got shape \(\)"),
    "bits": ([1.0], {"bits": 5}, ValueError, "bits must be 8, 4 or 2, got 5"),
    "bool": ([1.0], {"bits": True}, TypeError, "bits must be an int, got True"),
    "block": ([1.0], {"block": 0}, ValueError, "block must be at least 1, got 0"),
    "mask": (np.ma.masked_array([1.0]), {}, TypeError, "x must have no mask"),
    "kind": (kc.Permutation((2,), (0,)), {}, TypeError, "must be an array, Ket, .* got Permutation"),
    "product": (kc.KroneckerProduct([np.eye(2)]), {}, TypeError, ".* got KroneckerProduct"),
    "factor": (kc.KroneckerMatrix([[[1.0]], [[np.nan]]]), {}, ValueError, r"x.factors\[1\] must be finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said(name):
    x, options, kind, text = BAD[name]
    with pytest.raises(kind, match=text):
        kc.quantize(x, **options)


V, S = np.zeros((2, 3), np.int8), np.zeros((2, 1), np.float16)
PARTS = {
    "list": (([[1]], S, (2, 3)), {}, TypeError, "values must be an array without a mask, got list"),
    "values": ((V.astype("int16"), S, (2, 3)), {}, TypeError, "values must have dtype int8 .* got int16"),
    "bytes": ((V, S, (2, 3)), {"bits": 4}, TypeError, "values must have dtype uint8 with 4 bits, got int8"),
    "scales": ((V, S.astype(float), (2, 3)), {}, TypeError, "scales must have dtype .*, got float64"),
    "length": ((V, S, (2, 4)), {}, ValueError, r"values must have shape \(2, 4\) for shape .*, got \(2, 3\)"),
    "packed": ((V.view("uint8"), S, (2, 3)), {"bits": 4}, ValueError, r"values must have shape \(2, 2\)"),
    "missing": ((V, S, (2, 3)), {"block": 2}, ValueError, r"scales must have shape \(2, 2\)"),
    "axes": ((V, S, (3,)), {}, ValueError, r"shape must have at least as many axes as values, 2, got \(3,\)"),
    "four": ((V.view("uint8"), S, (2, 3)), {"bits": 2}, ValueError, r"values must have shape \(2, 1\)"),
    "none": ((V[0, 0], S[0, 0], ()), {}, (TypeError, ValueError), "must"),
    "negative": ((V, S, (2, -3)), {}, ValueError, "shape must be at least 0, got -3"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_parts_that_do_not_fit_are_refused(name):
    arguments, options, kind, text = PARTS[name]
    with pytest.raises(kind, match=text):
        kc.QuantizedArray(*arguments, **options)


def test_what_does_not_take_it_names_the_way():
    q = kc.quantize(np.ones((2, 3)))
    for call in (lambda: q + 1, lambda: q @ q, lambda: q[0], lambda: len(q), lambda: -q, lambda: 2 * q):
        with pytest.raises(TypeError, match=r"must be made an array by dequantize\(\)"):
            call()
    with pytest.raises(AttributeError, match=r"has no sum: dequantize\(\) makes an array"):
        q.sum()
    with pytest.raises(TypeError, match="factors must be a sequence of arrays, got QuantizedArray"):
        kc.rows(q, [0])
    with pytest.raises(ValueError, match="copy must be None or True"):
        np.asarray(q, copy=False)


def test_what_requires_gradients_is_not_quantized():
    torch = pytest.importorskip("torch")
    with pytest.raises(
        TypeError, match=r"x must not require gradients for quantize, .* that does \(see torch.no_grad\)"
    ):
        kc.quantize(torch.ones(3, requires_grad=True))
    found = kc.quantize(torch.ones(3, 5, dtype=torch.bfloat16), 4)
    assert found.dequantize().dtype == torch.float32
    # What is learned of one are its scales.
    scales = torch.ones(1, 1, requires_grad=True)
    learned = kc.QuantizedArray(torch.tensor([[1, -2]], dtype=torch.int8), scales, (1, 2))
    learned.dequantize().sum().backward()
    assert scales.grad.tolist() == [[-1.0]]
