"""PTX on the simulator: every entry of a module as a function of C++ that the fibers run.

    module = ptx.Module(text)
    error = module["mangled name"](launch, arguments)

`launch` is the address of a `launcher.Launch`, `arguments` that of the addresses of the parameters, as a CUDA
driver takes them.  The entry is translated and compiled when it is asked for, and kept in the
simulator's folder.  What is translated is all of PTX that NVRTC makes of ketcore's kernels and of CuPy's
(ptx_opcodes.py); whatever else it meets is a `PtxError` that names the line.

It cannot see: what ptxas makes of PTX; the errors of approximations, which are rounded correctly here; the
order of memory, which every access reaches at once.
"""

import ctypes
import re
from functools import cached_property

import numpy as np

from . import build
from .ptx_opcodes import FLOATS, SIZES, SPACES, Instruction, PtxError, c_name, split, statement

__all__ = ["Entry", "Module", "PtxError"]

_BLANK = re.compile(r"(?:\s+|//[^\n]*|\.(?:loc|file)\b[^\n]*)*")
_LABEL = re.compile(r"([\w$]+)\s*:(?!:)")
_INSTRUCTION = re.compile(r"(?:@(!?)([%\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)", re.S)
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)", re.S)
_VARIABLE = re.compile(
    r"(?:\.(?:visible|weak|extern)\s+)*\.(global|const|shared|local)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+"
    r"([\w$]+)\s*(?:\[(\d*)\])?\s*(?:=\s*(.*))?",
    re.S,
)
_MODULE_VARIABLE = re.compile(
    r"^(?:\.(?:visible|weak|extern) +)*\.(?:global|const|shared)\b"
    r"[^;=]*?([\w$]+)\s*(?:\[\d*\]\s*)?(?:=[^;]*)?;",
    re.M,
)
_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(?:\.ptr\s+(?:\.global\s+)?\.align\s+\d+\s+)?([\w$]+)(?:\[(\d+)\])?"
)
_CALL = re.compile(r"call(?:\.uni)?\s+\(([^)]*)\)\s*,\s*([\w$]+)\s*,\s*\(([^)]*)\)")
_ARGUMENT = re.compile(r"\.param\s+\.(\w+)\s+([\w$]+)")
# What a register holds that nothing was written to.
_UNWRITTEN = {"pred": "true", 2: "0xfff3", 4: "0xfffffff3u", 8: "0xfffffffffffffff3ull"}

_LIBRARY = """#include "ptx.h"
{variables}
const char ptx::kFile[] = "{file}";
const ptx::Range ptx::kVariables[] = {{{ranges}}};
const int ptx::kVariableCount = {count};
#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT char ptx_ran[{marks}];
char ptx_ran[{marks}];
static void kernel(const ptx::Frame& frame) {{
{body}
}}
static const unsigned parameters[][2] = {{{parameters}}};
static const ptx::Entry entry = {{kernel, parameters, {numbers}}};
EXPORT const char* ptx_launch(const cusim::Launch* shape, void** all, const ptx::Range* known, int count) {{
  return ptx::launch(entry, *shape, all, known, count);
}}
"""


class Module:
    """The entries of a module of PTX, by their mangled names.

    mode   of the build: ptx, ptx-asan or ptx-tsan
    file   what errors call the text
    """

    def __init__(self, text: str, mode: str = "ptx", file: str = "module.ptx"):
        self.text, self.mode, self.file = text, mode, file
        self.names = re.findall(r"\.entry\s+([\w$]+)\s*\(", text)
        self._entries: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> "Entry":
        if name not in self.names:
            raise KeyError(f"{self.file} has no entry {name}")
        if name not in self._entries:
            self._entries[name] = Entry(_Translation(self.text, name, self.file), self.mode)
        return self._entries[name]


class Entry:
    """A kernel to launch.

    sizes   of the parameters, in bytes
    lines   the lines of the text that have its instructions
    """

    def __init__(self, translation, mode):
        self.sizes = [size for _, size in translation.parameters]
        self.lines = frozenset(line for marked in translation.marks for line in marked)
        self._translation, self._mode = translation, mode

    def __call__(self, launch, arguments, arrays=None) -> str:
        """Launch it; what went wrong, or an empty string.

        `arrays` are the (begin, end) of all there is in global memory, where that is known: an access to
        anything else is then an error.
        """
        known = None if arrays is None else np.array(arrays, np.uint64).reshape(-1, 2)
        error = self._library.ptx_launch(
            launch,
            arguments,
            None if known is None else known.ctypes.data,
            0 if known is None else len(known),
        )
        return error.decode() if error else ""

    def ran(self) -> set[int]:
        """The lines that have run since the program began, in any thread."""
        marks = (ctypes.c_char * len(self._translation.marks)).in_dll(self._library, "ptx_ran").raw
        return {
            line for mark, ran in zip(self._translation.marks, marks, strict=True) if ran for line in mark
        }

    def text(self, line: int) -> str:
        """What stands in a line."""
        return self._translation.text.split("\n")[line - 1].strip()

    def compile(self):
        """Have its library made, if it is not there yet."""
        return build.library(self._translation.cpp(), self._mode)

    @cached_property
    def _library(self):
        library = ctypes.PyDLL(str(self.compile()))
        library.ptx_launch.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        library.ptx_launch.restype = ctypes.c_char_p
        return library


class _Translation:
    """One entry: its declarations, and the statements of C++ for its body.

    marks   the lines of each stretch of instructions that run one after the other
    """

    def __init__(self, text, entry, file):
        self.text, self.file, self.line = text, file, 1
        # Registers of each block, and all the variables for them.
        self._scopes, self._variables = [{}], {}
        # Of each space the bytes that its variables take; how a symbol's address is written.
        self._used, self._symbols, self._data = {"SHARED": 0, "LOCAL": 0}, {}, {}
        self.parameters, self.marks, self._code, self._fresh = [], [], [], True
        # Which call of a function is read, and how many there were.
        self._call, self._calls = 0, 0
        begin = re.search(r"\.entry\s+" + re.escape(entry) + r"\s*\(([^)]*)\)([^{]*)\{", text)
        self._module_variables(text, self._named(begin.end(), set()))
        self._parameter_bytes = self._read_parameters(begin[1])
        limit = re.search(r"\.maxntid\s+([\d, ]+)", begin[2])
        self._threads = int(np.prod([int(n) for n in limit[1].split(",")])) if limit else 1024
        self._read_body(text, begin.end())

    def _error(self, what):
        return PtxError(f"{self.file}:{self.line}: {what}")

    # ---- names ----

    def register(self, name):
        """(type, variable) of a register, or None."""
        return next((scope[name] for scope in reversed(self._scopes) if name in scope), None)

    def symbol(self, name):
        """An expression for the address of a variable or parameter within its space, or None."""
        return self._symbols.get(name)

    def label(self, name):
        return f"label_{c_name(name)}_{self._call}"

    def leave(self):
        """The statement that ends the entry, or the function that is read."""
        return f"goto {self.label('end')};" if self._call else "return;"

    def _declare_registers(self, kind, names):
        for name in split(names):
            many = re.fullmatch(r"(.+)<(\d+)>", name)
            for each in [f"{many[1]}{n}" for n in range(int(many[2]))] if many else [name]:
                inner = f"_{self.line}" if len(self._scopes) > 1 else ""
                variable = f"r{c_name(each)}{inner}"
                self._scopes[-1][each] = kind, variable
                self._variables[variable] = kind

    # ---- variables and parameters ----

    def _module_variables(self, text, named):
        """Declare the variables of the module, those that are `named` in the entry."""
        for match in _MODULE_VARIABLE.finditer(text):
            self.line = text.count("\n", 0, match.start()) + 1
            if match[1] in named:
                self._declare(match[0][:-1].strip())

    def _declare(self, declaration):
        match = _VARIABLE.fullmatch(declaration)
        if not match:
            raise self._error(f"a declaration that is not known: {declaration[:80]}")
        space, align, kind, name, count, value = match.groups()
        align, size = int(align or SIZES[kind]), SIZES[kind] * int(count or 1)
        if space in ("global", "const"):
            self._data[f"v_{c_name(name)}"] = align, self._initial(kind, value, size)
            self._symbols[name] = f"uint64_t(v_{c_name(name)})"
        elif count == "":
            # Shared memory of the launch's size, behind what is of fixed size.
            self._symbols[name] = "(ptx::kWindow + kStaticShared)"
        else:
            place = -(-self._used[SPACES[space]] // align) * align
            self._used[SPACES[space]] = place + size
            self._symbols[name] = f"(ptx::kWindow + {place})"

    def _initial(self, kind, text, size):
        """The bytes of a variable."""
        values = re.findall(r"[^\s,{}]+", text or "")
        try:
            if kind in FLOATS:
                numbers = [int(value[2:], 16) for value in values]
            else:
                numbers = [int(value.rstrip("U"), 0) for value in values]
        except ValueError:
            raise self._error(f"a value that is not known: {text[:80]}") from None
        mask = (1 << 8 * SIZES[kind]) - 1
        data = b"".join((number & mask).to_bytes(SIZES[kind], "little") for number in numbers)
        return data.ljust(size, b"\0")

    def _read_parameters(self, text):
        offset = 0
        for declaration in split(text):
            match = _PARAMETER.fullmatch(declaration)
            if not match:
                raise self._error(f"a parameter that is not known: {declaration[:80]}")
            align, size = int(match[1] or SIZES[match[2]]), SIZES[match[2]] * int(match[4] or 1)
            offset = -(-offset // align) * align
            self._symbols[match[3]] = f"(ptx::kWindow + {offset})"
            self.parameters.append((offset, size))
            offset += size
        return offset

    # ---- functions ----

    def _function(self, name):
        """Where a function stands: its result, its arguments and the beginning of its body; or None."""
        head = r"\.func\s*\(([^)]*)\)\s*" + re.escape(name) + r"\s*\(([^)]*)\)\s*\{"
        return re.search(head, self.text)

    def _named(self, begin, known):
        """Every name in a body that begins there, and in the functions that it calls."""
        names = set(re.findall(r"[\w$]+", self.text[begin : self.text.index("\n}", begin)])) - known
        for function in filter(None, map(self._function, sorted(names))):
            names |= self._named(function.end(), known | names)
        return names

    def _inline(self, text):
        """A call: the body of the function, with the arguments and the result in the place of its own."""
        match = _CALL.fullmatch(text)
        function = self._function(match[2]) if match else None
        if not function:
            raise self._error(f"a call that is not known: {' '.join(text.split())[:80]}")
        before, line = self._call, self.line
        own = [_ARGUMENT.fullmatch(each) for part in function.groups() for each in split(part)]
        given = [self.register(name) for part in (match[1], match[3]) for name in split(part)]
        if len(own) != len(given) or not all([*own, *given]):
            raise self._error(f"arguments of a call that are not known: {' '.join(text.split())[:80]}")
        self._calls += 1
        self._call = self._calls
        self._scopes += [{each[2]: variable for each, variable in zip(own, given, strict=True)}, {}]
        self._read_body(self.text, function.end())
        self._scopes.pop()
        self._code.append(f"{self.label('end')}:;")
        self._call, self.line, self._fresh = before, line, True

    # ---- the body ----

    def _read_body(self, text, position):
        """One statement after the other up to the brace that ends the entry, or the function."""
        self.line, depth = text.count("\n", 0, position) + 1, len(self._scopes)
        while len(self._scopes) >= depth:
            start, position = position, _BLANK.match(text, position).end()
            self.line += text.count("\n", start, position)
            start = position
            if text[position] == "{":
                self._scopes.append({})
                position += 1
            elif text[position] == "}":
                self._scopes.pop()
                position += 1
            elif match := _LABEL.match(text, position):
                self._code.append(f"{self.label(match[1])}:;")
                self._fresh, position = True, match.end()
            else:
                position = text.index(";", position) + 1
                self._read_statement(text[start : position - 1].strip())
            self.line += text.count("\n", start, position)

    def _read_statement(self, text):
        if text.startswith(".reg"):
            self._declare_registers(*_REGISTERS.fullmatch(text).groups())
        elif argument := _ARGUMENT.fullmatch(text):
            self._declare_registers(*argument.groups())
        elif text.startswith("call"):
            self._inline(text)
        elif text.startswith((".shared", ".local")):
            self._declare(text)
        elif not text.startswith(".pragma"):
            match = _INSTRUCTION.fullmatch(text)
            if not match:
                raise self._error(f"a statement that is not known: {text[:80]}")
            self._translate(*match.groups())

    def _translate(self, negated, predicate, opcode, operands):
        instruction = Instruction(opcode, split(operands), self.line, self)
        code, jumps = statement(instruction), instruction.base in ("bra", "ret")
        mark = ""
        if self._fresh or predicate:
            self.marks.append([])
            mark = f"PTX_RAN({len(self.marks) - 1}); "
        self.marks[-1].append(self.line)
        if predicate:
            # A jump has run where it was not taken, what else has a predicate has not.
            before, within = (mark, "") if jumps else ("", mark)
            condition = f"{negated}{instruction.value(predicate, 'pred')}"
            code = f"{before}if ({condition}) {{ {within}{code} }}"
        else:
            code = mark + code
        # What comes after a jump, or after what only some threads have run, is a stretch of its own.
        self._fresh = jumps or bool(predicate)
        # The sanitizers then name the line of the PTX.
        self._code += [f'#line {self.line} "{self.file}"', code]

    # ---- all of it ----

    def cpp(self):
        """The library with this entry."""
        shared = -(-self._used["SHARED"] // 16) * 16
        variables = [f"constexpr uint64_t kStaticShared = {shared};"]
        variables += [
            f"alignas({align}) static unsigned char {name}[] = {{{', '.join(map(str, data))}}};"
            for name, (align, data) in self._data.items()
        ]
        ranges = [f"{{uint64_t({n}), uint64_t({n}) + sizeof {n}}}" for n in self._data]
        registers = [f"  {_c_register(kind)} {name} = {_unwritten(kind)};" for name, kind in self._declared()]
        counts = len(self.parameters), self._parameter_bytes, shared, self._used["LOCAL"], self._threads
        return _LIBRARY.format(
            variables="\n".join(variables),
            file=self.file,
            ranges=", ".join([*ranges, "{0, 0}"]),
            count=len(ranges),
            marks=len(self.marks),
            body="\n".join([*registers, *self._code]),
            parameters=", ".join([*(f"{{{at}, {size}}}" for at, size in self.parameters), "{0, 0}"]),
            numbers=", ".join(map(str, counts)),
        )

    def _declared(self):
        """The registers that the code names."""
        named = set(re.findall(r"\w+", "\n".join(self._code)))
        return [(name, kind) for name, kind in self._variables.items() if name in named]


def _c_register(kind):
    return "bool" if kind == "pred" else f"uint{8 * SIZES[kind]}_t"


def _unwritten(kind):
    return _UNWRITTEN["pred" if kind == "pred" else SIZES[kind]]
