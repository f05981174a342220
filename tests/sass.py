"""The machine code of kernels (SASS): what ptxas, within NVRTC, makes of a source, as nvdisasm reads it.

nvdisasm comes from the wheel nvidia-cuda-nvdisasm; there is no need of a GPU.  What it says is kept in the
simulator's folder, for a source, its compiler and its options.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from tests import nvrtc
from tests.cusim import build

COMPILER, DISASSEMBLER = "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvdisasm"
# Bytes of an instruction, in which addresses are given.
_SIZE = 16


@dataclass(frozen=True)
class Instruction:
    """An opcode with its modifiers, its operands, and whether a predicate decides if it runs."""

    opcode: str
    operands: str
    predicated: bool

    @property
    def base(self) -> str:
        return self.opcode.split(".")[0]

    @property
    def modifiers(self) -> list[str]:
        return self.opcode.split(".")[1:]

    @property
    def target(self) -> int | None:
        """The place of the instruction that it jumps to, if it jumps within the kernel."""
        # ptxas calls, and never comes back, where a loop ends: a call of an address is a jump.
        place = self.operands.split(",")[-1]
        jumps = self.base == "BRA" or (self.base == "CALL" and place.startswith("0x"))
        return int(place, 16) // _SIZE if jumps else None

    @property
    def goes_on(self) -> bool:
        """Whether some thread may run the instruction after it."""
        if self.target is not None:
            return self.predicated or "," in self.operands
        return self.predicated or self.base not in ("EXIT", "RET")


@dataclass(frozen=True)
class Code:
    """The instructions of a kernel, with the functions that it calls behind it."""

    instructions: tuple[Instruction, ...]

    @cached_property
    def loops(self) -> list[frozenset[int]]:
        """The places of the instructions of each loop, what lies in loops within it included.

        A function that a loop calls, for a quotient say, is not in the loop.
        """
        blocks = self._blocks()
        edges = {first: [to for to in after if to in blocks] for first, (_, after) in blocks.items()}
        before = defaultdict(list)
        for first in edges:
            for to in edges[first]:
                before[to].append(first)
        bodies = defaultdict(set)
        for last, head in _back_edges(edges):
            bodies[head] |= _reaching(last, head, before)
        for head, body in bodies.items():
            if 0 in body and head:
                raise ValueError(f"a loop has a second entry besides instruction {head}")
        return [
            frozenset(place for first in body for place in range(first, blocks[first][0]))
            for body in bodies.values()
        ]

    def _blocks(self):
        """Runs of instructions without a jump from or into them: first place -> (end, where it goes on)."""
        count = len(self.instructions)
        leaders = {0}
        for place, each in enumerate(self.instructions):
            if each.target is not None:
                leaders |= {each.target, place + 1}
            elif not each.goes_on:
                leaders.add(place + 1)
        leaders = sorted(leaders - {count})
        blocks = {}
        for first, end in zip(leaders, [*leaders[1:], count], strict=True):
            last = self.instructions[end - 1]
            blocks[first] = end, [last.target] * (last.target is not None) + [end] * last.goes_on
        return blocks


def _back_edges(edges):
    """The edges that lead back to where a depth-first search from the first block still is."""
    found, seen, path, ways = [], {0}, [0], [iter(edges[0])]
    while path:
        to = next(ways[-1], None)
        if to is None:
            path.pop()
            ways.pop()
        elif to in path:
            found.append((path[-1], to))
        elif to not in seen:
            seen.add(to)
            path.append(to)
            ways.append(iter(edges[to]))
    return found


def _reaching(last, head, before):
    """The blocks from which `last` is reached without `head`, and `head`."""
    body, ahead = {head}, [last]
    while ahead:
        block = ahead.pop()
        if block not in body:
            body.add(block)
            ahead += before[block]
    return body


def missing() -> str:
    """An empty string if machine code can be read here, else the reason why not."""
    if nvrtc.path(12) is None or not _version(COMPILER):
        return f"the wheel {COMPILER} is not installed"
    if _disassembler() is None or not _version(DISASSEMBLER):
        return f"the wheel {DISASSEMBLER} is not installed"
    return ""


def compiler() -> str:
    """The compiler and its version: machine code is that of a version."""
    return f"{COMPILER} {_version(COMPILER)}"


def read(text: str, architecture: int, names: Iterable[str]) -> dict[str, Code]:
    """The machine code of the instantiations `names` of CUDA source `text`."""
    names = tuple(names)

    def make(path):
        cubin, lowered = nvrtc.load(12).cubin(text, architecture, names)
        image = path.with_suffix(".cubin")
        image.write_bytes(cubin)
        try:
            result = build.call([str(_disassembler()), "-json", str(image)])
        finally:
            image.unlink()
        if result.returncode:
            raise RuntimeError(f"{DISASSEMBLER} has failed\n{result.stderr[:2000]}")
        path.write_text(json.dumps([lowered, json.loads(result.stdout)]), encoding="utf-8")

    key = (text, *names, str(architecture), *nvrtc.OPTIONS, compiler(), _version(DISASSEMBLER))
    lowered, (_, functions) = json.loads(build.kept(key, ".sass.json", make).read_text(encoding="utf-8"))
    found = {each["function-name"]: Code(_instructions(each["sass-instructions"])) for each in functions}
    return {name: found[lowered[name]] for name in names}


def _instructions(listed):
    found = [Instruction(each["opcode"], each.get("operands", ""), "predicate" in each) for each in listed]
    # What pads a kernel to the size of a line.
    while found and found[-1].opcode == "NOP":
        found.pop()
    return tuple(found)


def _disassembler() -> Path | None:
    spec = find_spec("nvidia")
    places = spec.submodule_search_locations if spec else ()
    found = (path for place in places or () for path in Path(place).glob("cu*/bin/nvdisasm"))
    return next(found, None)


def _version(wheel):
    """The version of a wheel that is installed, or an empty string."""
    try:
        return version(wheel)
    except PackageNotFoundError:
        return ""
