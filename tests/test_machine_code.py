"""What ptxas makes of every instantiation: no local memory, stores of 16 bytes, no float64; and how much."""

from functools import cache

import pytest

from tests import machine_code, sass
from tests.cusim import source_text
from tests.mutations import CUDA
from tests.require import require
from tests.sass import Code, Instruction

# One worker of pytest-xdist compiles, for all tests of this file.
pytestmark = pytest.mark.xdist_group("sass")
EXPAND = "expand", ("float", "int")
# Edits of the real kernels, and the fault that each makes.
CONTROLS = {
    "an array that is indexed as it runs": (
        (
            "gather.cu",
            "#pragma unroll\n    for (int i = 0; i < TALL; ++i) {\n      const int a = group",
            "#pragma unroll 1\n    for (int i = 0; i < TALL; ++i) {\n      const int a = group",
        ),
        "accesses of local memory",
    ),
    "products in double": (
        ("gather.cu", "sum[i][v] += x * c.item[v];", "sum[i][v] = A(sum[i][v] + double(x) * c.item[v]);"),
        "arithmetic of float64: DFMA",
    ),
    "stores of 4 bytes": (
        (
            "kernel.cuh",
            "__stcs(static_cast<uint4*>(target), make_uint4(quad.x, quad.y, quad.z, quad.w));",
            "unsigned* word = static_cast<unsigned*>(target);\n"
            "  word[0] = quad.x, word[1] = quad.y, word[2] = quad.z, word[3] = quad.w;",
        ),
        "0 stores of 16 bytes, 2 are due",
    ),
}


@pytest.fixture
def able():
    require("sass", not sass.missing(), sass.missing())


@cache
def expand(*edits):
    """The machine code of one instantiation, its source edited."""
    name = "expand<float,int>"
    return sass.read(source_text(CUDA, "gather", edits), 80, [name])[name]


def code(*lines):
    """Code from lines such as `@P0 BRA 0x10`."""
    found = []
    for line in lines:
        words = line.split()
        predicated = words[0].startswith("@")
        opcode, operands = [*words[predicated:], ""][:2]
        found.append(Instruction(opcode, operands, predicated))
    return Code(tuple(found))


@pytest.mark.parametrize("architecture", machine_code.ARCHITECTURES)
def test_there_are_no_faults(able, architecture):
    found = {
        (kernel, types): machine_code.faults(kernel, types, code)
        for (at, kernel, types), code in machine_code.compiled().items()
        if at == architecture
    }
    assert len(found) == len(machine_code.table.TABLE)
    assert not {member: faults for member, faults in found.items() if faults}


def test_counts_are_those_of_the_table(able):
    expected = machine_code.TABLE.read_text(encoding="utf-8").splitlines()
    reason = f"the counts are those of {expected[0]}, not of {sass.compiler()}"
    require("sass", expected[0] == sass.compiler(), reason)
    found = machine_code.lines()
    changed = [f"- {line}" for line in expected if line not in found]
    changed += [f"+ {line}" for line in found if line not in expected]
    hint = "if this is meant: python -m tests.machine_code --write"
    assert found == expected, "\n".join([hint, expected[1], *changed])


@pytest.mark.parametrize(("edit", "fault"), CONTROLS.values(), ids=CONTROLS)
def test_fault_is_seen(able, edit, fault):
    assert any(fault in each for each in machine_code.faults(*EXPAND, expand(edit)))
    assert machine_code.counts(expand(edit)) != machine_code.counts(expand())


def test_a_fault_of_each_kind_alone():
    """Told from a few instructions: the sums of gradients alone may be of float64."""
    sums = code("DADD", "F2F.F32.F64", "STG.E", "EXIT")
    assert not machine_code.faults("reduce", ("float",), sums)
    assert machine_code.faults("multiply", ("float",), sums) == ["arithmetic of float64: DADD, F2F"]
    assert not machine_code.faults("multiply", ("double",), sums)
    assert machine_code.faults("reduce", ("float",), code("DMUL", "STL")) == [
        "1 accesses of local memory",
        "arithmetic of float64: DMUL",
    ]
    assert not machine_code.faults("expand", ("bfloat16", "int"), code("STG.E.EF.128", "STG.E.U16"))
    with pytest.raises(KeyError, match="TANH"):
        machine_code.faults("reduce", ("float",), code("TANH.F32"))


def test_loops_and_what_lies_within():
    nest = code(
        "MOV R0",
        "FADD R1",
        "FFMA R2",
        "FFMA R3",
        "@P0 BRA 0x20",
        "CALL.REL.NOINC $__a_function",
        "BRA P1,0x10",
        "EXIT",
        "FMUL R4",
        "RET.REL.NODEC R5",
        "NOP",
    )
    assert sorted(map(sorted, nest.loops)) == [[1, 2, 3, 4, 5, 6], [2, 3, 4]]
    counts = machine_code.counts(nest)
    assert {name: counts[name] for name in ("all", "loop", "inner", "sums", "float", "control", "rest")} == {
        "all": 11,
        "loop": 6,
        "inner": 3,
        "sums": 2,
        "float": 4,
        "control": 5,
        "rest": 2,
    }
    # A jump that looks like a call, and a way into a loop that goes around its head.
    assert code("MOV R0", "@P0 CALL.REL.NOINC 0x30", "BRA 0x0", "EXIT").loops == [frozenset({0, 1, 2})]
    with pytest.raises(ValueError, match="a second entry"):
        _ = code("@P0 BRA 0x20", "MOV R0", "MOV R1", "@P1 BRA 0x10", "EXIT").loops
