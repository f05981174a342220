"""What NVRTC makes of the kernels, on the simulator: the tests of the source, and faults of PTX alone."""

import ctypes
import re
import struct
from functools import cache

import numpy as np
import pytest

from tests import ptx_faults
from tests.cusim import available, ptx, selftest
from tests.cusim.launcher import ORDERS, Launch, SimLauncher
from tests.require import require
from tests.run_sanitized import outcomes, require_mode, run_sanitized

# One worker of pytest-xdist runs the faults, for all tests of this file.
pytestmark = pytest.mark.xdist_group("ptx")


def test_kernels_as_ptx():
    """Every test of the kernels; all but the lines that none of them can reach have run."""
    require_mode("ptx")
    result = run_sanitized("ptx", ["-m", "tests.ptx_coverage"])
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


@pytest.mark.parametrize("bug", ptx_faults.BUGS, ids=[bug.name for bug in ptx_faults.BUGS])
def test_fault_is_caught(bug):
    require_mode("ptx")
    found = outcomes("tests.ptx_faults", ("ptx",))["ptx"][bug.name]
    assert found is not None, "the fault went unseen"
    assert bug.caught["plain"] in found


@pytest.mark.parametrize("order", ORDERS)
def test_collectives_and_static_shared_memory(order):
    require_mode("ptx")
    launch = SimLauncher(selftest.HERE, selftest.TABLE, order=order, seed=3, mode="ptx")
    for real in (np.float32, np.float64):
        for run in (selftest.block_sum, selftest.warp_pairs, selftest.scale, selftest.sub_warps):
            run(launch, real)
    selftest.histogram(launch)
    selftest.histogram(launch, np.int32, np.int64)


def test_arguments_are_of_the_right_size():
    require_mode("ptx")
    launch = SimLauncher(selftest.HERE, selftest.TABLE, mode="ptx")
    x, total = np.zeros(64, np.float32), np.zeros(1, np.float32)
    with pytest.raises(TypeError, match="argument 2 must have 8 bytes, got 4"):
        launch("selftest", "block_sum", ("float",), 1, 64, (x, total, np.int32(64)), 0)
    with pytest.raises(TypeError, match="must have 3 arguments, got 2"):
        launch("selftest", "block_sum", ("float",), 1, 64, (x, total), 0)


# ---- single instructions ----

ENTRY = """.version 8.0
.target sm_90
.address_size 64
.visible .entry one(
	.param .u64 x,
	.param .u64 y
)
{{
	.reg .pred %p<4>;
	.reg .b16 %h<4>;
	.reg .b32 %r<8>;
	.reg .b64 %d<8>;
	ld.param.u64 %d0, [x];
	ld.param.u64 %d1, [y];
{body}
	ret;
}}
"""


@pytest.fixture(autouse=True)
def _simulator():
    require("cusim", not available(), available())


def run(body, x, y, shape=(1, 1), arrays=None):
    """Run `body`, in which %d0 and %d1 are the addresses of x and y; the error."""
    entry = ptx.Module(ENTRY.format(body=body))["one"]
    addresses = np.array([x.ctypes.data, y.ctypes.data], np.uint64)
    values = (ctypes.c_void_p * 2)(*(addresses.ctypes.data + 8 * n for n in range(2)))
    return entry(ctypes.byref(Launch((shape[0], 1, 1), (shape[1], 1, 1), 0, 0, 0)), values, arrays)


def bits(value, form="f"):
    return int.from_bytes(struct.pack("<" + form, value), "little")


# Instruction, type, operands as bits, and the bits of the result.
INSTRUCTIONS = (
    ("add.s32", 32, (2**31 - 1, 1), 2**31),
    ("sub.u64", 64, (0, 1), 2**64 - 1),
    ("div.s32", 32, (2**31, 2**32 - 1), 2**31),
    ("rem.s64", 64, (2**64 - 7, 3), 2**64 - 1),
    ("mul.hi.u32", 32, (2**31, 6), 3),
    ("mul.hi.s64", 64, (2**64 - 1, 5), 2**64 - 1),
    ("mad.lo.s32", 32, (2**16, 2**16, 7), 7),
    ("min.s32", 32, (2**32 - 1, 1), 2**32 - 1),
    ("max.u32", 32, (2**32 - 1, 1), 2**32 - 1),
    ("neg.s32", 32, (2**31,), 2**31),
    ("abs.s32", 32, (2**32 - 5,), 5),
    ("shl.b32", 32, (1, 32), 0),
    ("shr.s32", 32, (2**31, 40), 2**32 - 1),
    ("shr.u32", 32, (2**31, 40), 0),
    ("not.b32", 32, (5,), 2**32 - 6),
    ("bfi.b32", 32, (0b101, 0xFF0000FF, 8, 4), 0xFF0005FF),
    ("popc.b32", 32, (0xF0F1,), 9),
    ("add.f32", 32, (bits(1.0), bits(2.0**-24)), bits(1.0)),
    ("add.rp.f32", 32, (bits(1.0), bits(2.0**-24)), bits(1 + 2.0**-23)),
    ("add.rz.f32", 32, (bits(1.0), bits(-(2.0**-30))), bits(1 - 2.0**-24)),
    ("mul.f32", 32, (bits(1e-30), bits(1e-10)), bits(float(np.float32(1e-30) * np.float32(1e-10)))),
    ("mul.ftz.f32", 32, (bits(-1e-30), bits(1e-10)), 2**31),
    ("add.ftz.f32", 32, (1, 1), 0),
    ("fma.rn.f32", 32, (bits(1 + 2.0**-23), bits(1 - 2.0**-23), bits(-1.0)), bits(-(2.0**-46))),
    ("fma.rm.f64", 64, (bits(1.0, "d"), bits(1.0, "d"), bits(-1.0, "d")), bits(-0.0, "d")),
    ("div.rn.f32", 32, (bits(1.0), bits(3.0)), bits(1 / 3)),
    ("rcp.rn.f64", 64, (bits(3.0, "d"),), bits(1 / 3, "d")),
    ("sqrt.rn.f32", 32, (bits(2.0),), bits(2**0.5)),
    ("ex2.approx.ftz.f32", 32, (bits(3.0),), bits(8.0)),
    ("min.f32", 32, (0x7FC00000, bits(2.0)), bits(2.0)),
    ("max.f32", 32, (bits(-0.0), bits(0.0)), bits(0.0)),
    ("abs.f32", 32, (bits(-2.5),), bits(2.5)),
    ("add.f32", 32, (bits(float("inf")), bits(float("-inf"))), 0x7FFFFFFF),
    ("cvt.rni.s32.f32", 32, (bits(2.5),), 2),
    ("cvt.rzi.s32.f32", 32, (bits(-2.5),), 2**32 - 2),
    ("cvt.rpi.u32.f32", 32, (bits(-2.5),), 0),
    ("cvt.rmi.f32.f32", 32, (bits(-2.5),), bits(-3.0)),
    ("cvt.rzi.s32.f32", 32, (bits(1e30),), 2**31 - 1),
    ("cvt.rn.f32.s32", 32, (2**24 + 3,), bits(float(2**24 + 4))),
    ("cvt.rz.f32.s32", 32, (2**24 + 3,), bits(float(2**24 + 2))),
    ("cvt.ftz.sat.f32.f32", 32, (bits(1.5),), bits(1.0)),
    ("cvt.sat.f32.f32", 32, (0x7FC00000,), 0),
    ("lg2.approx.f32", 32, (bits(8.0),), bits(3.0)),
    ("rsqrt.approx.ftz.f32", 32, (bits(0.25),), bits(2.0)),
    ("cvt.s32.s8", 32, (0x1FF,), 2**32 - 1),
    ("cvt.u32.u16", 32, (0x1FFFF,), 0xFFFF),
)


@cache
def results():
    """What each of the instructions gives, all in one kernel; each has 32 bytes for its operands."""
    x, y, body = np.zeros((len(INSTRUCTIONS), 4), np.uint64), np.zeros(len(INSTRUCTIONS), np.uint64), []
    for row, (opcode, width, operands, _) in enumerate(INSTRUCTIONS):
        x[row].view(f"u{width // 8}")[: len(operands)] = operands
        register = {32: "%r", 64: "%d"}[width]
        names = [f"{register}{n + 4}" for n in range(len(operands))]
        body += [
            f"	ld.global.b{width} {name}, [%d0+{32 * row + width // 8 * n}];"
            for n, name in enumerate(names)
        ]
        body += [
            f"	{opcode} {register}3, {', '.join(names)};",
            f"	st.global.b{width} [%d1+{8 * row}], {register}3;",
        ]
    assert run("\n".join(body), x, y) == ""
    return y.tolist()


@pytest.mark.parametrize("row", range(len(INSTRUCTIONS)), ids=[opcode for opcode, *_ in INSTRUCTIONS])
def test_instruction(row):
    assert hex(results()[row]) == hex(INSTRUCTIONS[row][-1])


def test_numbers_of_16_bits():
    """Every half is converted to a float and back as NumPy does it."""
    body = """	mov.u32 %r0, %ctaid.x;
	mov.u32 %r1, %ntid.x;
	mov.u32 %r2, %tid.x;
	mad.lo.s32 %r0, %r0, %r1, %r2;
	mul.wide.u32 %d2, %r0, 4;
	add.s64 %d3, %d0, %d2;
	ld.global.f32 %r3, [%d3];
	cvt.rn.f16.f32 %h0, %r3;
	cvt.f32.f16 %r3, %h0;
	add.s64 %d3, %d1, %d2;
	st.global.f32 [%d3], %r3;"""
    halves = np.arange(1 << 16).astype(np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        x = np.concatenate([halves, halves * np.float32(1.0005), np.nextafter(halves, np.float32(7))])
        expected = x.astype(np.float16).astype(np.float32)
    y = np.zeros_like(x)
    assert run(body, x, y, (len(x) // 256, 256)) == ""
    np.testing.assert_array_equal(y, expected)


# ---- what is refused, and what is found as it runs ----


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("	tanh.approx.f32 %r0, %r1;", "15: tanh.approx.f32: an opcode that is not known"),
        ("	add.sat.s32 %r0, %r1, %r2;", "15: add.sat.s32: a modifier that is not known here"),
        ("	add.s32 %r0, %r1;", "15: add.s32: must have 3 operands, got 2"),
        ("	add.s32 %r0, %r1, %d2;", "15: add.s32: %d2 is .b64 where .s32 is meant"),
        ("	add.s32 %r0, %r1, %r9;", "15: add.s32: %r9 is no operand of .s32"),
        ("	add.s32 %x, %r1, %r2;", "15: add.s32: there is no register %x"),
        ("	mov.u32 %r0, %clock;", "15: mov.u32: %clock is no operand of .u32"),
        ("\n	fma.f32 %r0, %r1, %r2, %r3;", "16: fma.f32: there must be a rounding"),
        ("	cvt.s32.f32 %r0, %r1;", "15: cvt.s32.f32: there must be a rounding"),
        ("	setp.equ.s32 %p0, %r1, %r2;", "15: setp.equ.s32: a comparison that is not known"),
        ("	bar.sync 1;", "15: bar.sync: a barrier that is not known"),
        (
            "	ld.global.v3.f32 {%r0, %r1, %r2}, [%d0];",
            "15: ld.global.v3.f32: a modifier that is not known here",
        ),
        ("	ld.global.v2.f32 {%r0}, [%d0];", "15: ld.global.v2.f32: must name 2 registers, got 1"),
        ("	ld.global.u16 %r0, [%h0];", "15: ld.global.u16: [%h0] is no address"),
    ],
)
def test_what_is_not_known_is_an_error_with_its_line(body, text):
    with pytest.raises(ptx.PtxError) as error:
        run(body, np.zeros(4), np.zeros(4))
    assert str(error.value) == f"module.ptx:{text}"


def test_an_entry_that_is_not_there():
    with pytest.raises(KeyError, match=r"module\.ptx has no entry two"):
        ptx.Module(ENTRY.format(body=""))["two"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "	ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%d0+8];",
            "misaligned: 16 bytes at .* of global memory",
        ),
        ("	ld.global.u32 %r0, [%d0+32];", "outside every array: 4 bytes"),
        ("	st.global.u32 [%d1+-4], %r0;", "outside every array: 4 bytes"),
        ("	mov.b64 %d2, 0;\n	ld.global.u32 %r0, [%d2];", "null, or not a generic address"),
        (
            "	.shared .align 4 .b8 s[16];\n	mov.u64 %d2, s;\n	ld.u32 %r0, [%d2];",
            "null, or not a generic address",
        ),
        (
            "	.shared .align 4 .b8 s[16];\n	ld.shared.u32 %r0, [s+16];",
            "out of bounds: 4 bytes .* of shared",
        ),
        (
            "	.local .align 4 .b8 s[16];\n	ld.local.u32 %r0, [s+16];",
            "out of bounds: 4 bytes .* of local",
        ),
        ("	ld.param.u64 %d2, [y+8];", "out of bounds: 8 bytes .* of param memory"),
        ("	mov.u32 %r0, 0;\n	div.s32 %r0, 1, %r0;", "a division by zero"),
    ],
)
def test_what_a_gpu_would_not_tell(body, text):
    # Addresses of 32 bytes, aligned for any vector.
    x = np.zeros(48, np.uint8)
    x = x[-x.ctypes.data % 16 :][:32]
    y = np.zeros(4)
    arrays = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in (x, y)]
    error = run(body, x, y, arrays=arrays)
    assert re.search(text, error), error
    assert "module.ptx:1" in error


def test_shared_memory_through_a_generic_address():
    body = """	.shared .align 4 .b8 s[128];
	mov.u64 %d2, s;
	cvta.shared.u64 %d3, %d2;
	mov.u32 %r0, %tid.x;
	mul.wide.u32 %d4, %r0, 4;
	add.s64 %d3, %d3, %d4;
	st.u32 [%d3], %r0;
	bar.sync 0;
	xor.b32 %r1, %r0, 1;
	mul.wide.u32 %d5, %r1, 4;
	add.s64 %d2, %d2, %d5;
	ld.shared.u32 %r2, [%d2];
	add.s64 %d4, %d1, %d4;
	st.global.u32 [%d4], %r2;"""
    y = np.zeros(32, np.uint32)
    assert run(body, y, y, (1, 32)) == ""
    np.testing.assert_array_equal(y, np.arange(32) ^ 1)


def test_lines_that_ran():
    body = """	ld.global.u32 %r0, [%d0];
	setp.eq.s32 %p0, %r0, 0;
	@%p0 bra $skip;
	add.s32 %r0, %r0, 1;
$skip:
	@!%p0 add.s32 %r0, %r0, 1;
	st.global.u32 [%d1], %r0;"""
    entry = ptx.Module(ENTRY.format(body=body))["one"]
    run(body, np.zeros(1, np.uint32), np.zeros(1, np.uint32))
    # The library is one for both.
    assert sorted(entry.lines - entry.ran()) == [18, 20]
    assert entry.text(18) == "add.s32 %r0, %r0, 1;"
