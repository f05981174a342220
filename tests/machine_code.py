"""What the machine code of every instantiation is, counted: a regression shows without a GPU.

    python -m tests.machine_code [--write]

compiles all of ketcore.cuda.table.TABLE for the ARCHITECTURES, prints a table of counts, and says what in it
is a fault; with --write the table becomes machine_code.txt, which a test compares.  The counts are of
instructions in the code, not of those that run: they tell of a change, and not of speed.

    all     instructions, with the functions that the kernel calls and without the padding
    loop    those in the longest loop, each once: over rows in expand and contract, over what else a kernel
            strides through in the others
    inner   those in the innermost loop with the largest share of sums
    sums    how many of them add to a sum: FFMA or DFMA, and DADD in the sums of gradients
    the others   all of them by CLASSES
"""

import os
import sys
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from ketcore.cuda import launcher, table
from tests import sass

ARCHITECTURES = (80, 90)
TABLE = Path(__file__).with_suffix(".txt")
# Opcodes by class, so that one that is not known is an error and not overlooked.  What has a modifier of
# float64 is of `double`, a conversion for one.
CLASSES = {
    "global": "ATOM ATOMG LD LDG QSPC RED ST STG",
    "shared": "ATOMS LDS STS",
    "local": "LDL STL",
    "constant": "LDC ULDC",
    "double": "DADD DFMA DMNMX DMUL DSETP",
    "float": "FADD FCHK FFMA FMNMX FMUL FSEL FSETP MUFU",
    "control": "BAR BRA BREAK BSSY BSYNC CALL ENDCOLLECTIVE EXIT RET WARPSYNC YIELD",
    # Integers, moves, predicates, shuffles; HFMA2 moves constants, since no kernel calculates in 16 bits.
    "rest": (
        "CS2R F2F F2I HFMA2 I2F I2FP IABS IADD3 IMAD IMNMX ISETP LEA LOP3 MOV NOP P2R PLOP3 PRMT R2P S2R "
        "S2UR SEL SHF SHFL UIADD3 UIMAD UISETP ULEA ULOP3 UMOV USEL USHF VIADD VIADDMNMX VIMNMX VOTE"
    ),
}
_CLASS_OF = {opcode: name for name, opcodes in CLASSES.items() for opcode in opcodes.split()}
COLUMNS = ("all", "loop", "inner", "sums", *CLASSES)
# Bytes of the storage types, by which a tile of expand takes so many stores of 16 bytes.
_BYTES = {"float": 4, "double": 8, "float16": 2, "bfloat16": 2}
# gather.cu: TILE.
_TILE = 8
# Those of scatter.cu.
SUMS_IN_DOUBLE = {kernel for kernel, _, source in table.TABLE if source == "scatter"}


def class_of(instruction: sass.Instruction) -> str:
    """The class of an instruction; KeyError where its opcode is not known."""
    if {"F64", "RCP64H", "RSQ64H"} & {*instruction.modifiers}:
        return "double"
    return _CLASS_OF[instruction.base]


def wide_stores(code: sass.Code) -> int:
    """How many instructions store 16 bytes in global memory."""
    return sum(each.base in ("ST", "STG") and "128" in each.modifiers for each in code.instructions)


def faults(kernel: str, types: tuple[str, ...], code: sass.Code) -> list[str]:
    """What must not be in the machine code of `kernel<types>`, or is missing there."""
    found = []
    members = defaultdict(list)
    for each in code.instructions:
        members[class_of(each)].append(each.base)
    if members["local"]:
        found.append(f"{len(members['local'])} accesses of local memory")
    # Gradients of float are summed in double: conversions and sums, and the comparison of a conversion that
    # flushes subnormal numbers.
    doubles = {*members["double"]} - ({"DADD", "F2F", "DSETP"} if kernel in SUMS_IN_DOUBLE else set())
    if "double" not in types and doubles:
        found.append(f"arithmetic of float64: {', '.join(sorted(doubles))}")
    if kernel == "expand":
        due = _TILE * _BYTES[types[0]] // 16
        if wide_stores(code) != due:
            found.append(f"{wide_stores(code)} stores of 16 bytes, {due} are due")
    return found


def counts(code: sass.Code) -> dict[str, int]:
    """The COLUMNS of a kernel."""
    classes = Counter(map(class_of, code.instructions))
    longest = max(map(len, code.loops), default=0)
    inner, sums = _inner(code)
    return {"all": len(code.instructions), "loop": longest, "inner": inner, "sums": sums} | {
        name: classes[name] for name in CLASSES
    }


def _inner(code):
    """The length and the number of sums of the innermost loop with the largest share of sums."""
    found = [(0, 0)]
    for loop in code.loops:
        if not any(other < loop for other in code.loops):
            sums = sum(code.instructions[place].base in ("FFMA", "DFMA", "DADD") for place in loop)
            found.append((len(loop), sums))
    return max(found, key=lambda each: (each[1] / max(each[0], 1), each[0]))


@cache
def compiled() -> dict[tuple[int, str, tuple[str, ...]], sass.Code]:
    """The machine code of every instantiation: (architecture, kernel, types) -> code."""
    groups = {}
    for architecture in ARCHITECTURES:
        for kernel, types, source in table.TABLE:
            groups.setdefault((architecture, source, types[0]), []).append((kernel, types))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {key: pool.submit(_read, *key[:2], members) for key, members in groups.items()}
        found = {key: job.result() for key, job in jobs.items()}
    return {(key[0], *member): code for key, codes in found.items() for member, code in codes.items()}


def _read(architecture, source, members):
    names = {member: f"{member[0]}<{','.join(member[1])}>" for member in members}
    codes = sass.read(launcher.kernel_source(source), architecture, names.values())
    return {member: codes[name] for member, name in names.items()}


def lines() -> list[str]:
    """The table, its compiler in the first line."""
    rows = [("kernel", "sm", *COLUMNS)]
    for (architecture, kernel, types), code in compiled().items():
        numbers = counts(code)
        rows.append((f"{kernel}<{','.join(types)}>", architecture, *(numbers[name] for name in COLUMNS)))
    rows[1:] = sorted(rows[1:], key=lambda row: row[:2])
    first = max(len(row[0]) for row in rows)
    widths = [max(4, len(name)) for name in rows[0][1:]]
    return [
        sass.compiler(),
        *(
            " ".join([row[0].ljust(first), *(str(n).rjust(w) for n, w in zip(row[1:], widths, strict=True))])
            for row in rows
        ),
    ]


def main(arguments):
    if sass.missing():
        raise SystemExit(sass.missing())
    found = lines()
    print("\n".join(found))
    if "--write" in arguments:
        TABLE.write_text("\n".join(found) + "\n", encoding="utf-8")
    wrong = [
        f"sm_{architecture} {kernel}<{','.join(types)}>: {fault}"
        for (architecture, kernel, types), code in compiled().items()
        for fault in faults(kernel, types, code)
    ]
    print("\n".join(wrong) or "no faults")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
