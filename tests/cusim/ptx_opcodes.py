"""Instructions of PTX as statements of C++: those that NVRTC makes of ketcore's kernels and of CuPy's.

`statement` looks an instruction up in `_OPCODES`.  An opcode, a modifier or an operand that is not known is a
`PtxError`, which names the line; nothing is passed over.
"""

import re
from dataclasses import dataclass

SIZES = {"pred": 1, "f16": 2, "bf16": 2, "f32": 4, "f64": 8}
SIZES |= {kind + str(bits): bits // 8 for kind in "bus" for bits in (8, 16, 32, 64)}
FLOATS = ("f16", "bf16", "f32", "f64")
SPACES = {"global": "GLOBAL", "shared": "SHARED", "local": "LOCAL", "param": "PARAM"}
# The marks of a rounding: of a result to its format, and of a number to an integer.
_ROUNDINGS, _WHOLE = ("rn", "rz", "rm", "rp"), ("rni", "rzi", "rmi", "rpi")
# How memory is cached and ordered: each access takes place at once, for all fibers to see.
_HINTS = ("nc", "cs", "ca", "cg", "cv", "lu", "wb", "wt", "volatile", "relaxed", "gpu")
_SPECIAL = {"%laneid": "uint32_t(ptx::lane())", "WARP_SZ": "32u"} | {
    f"%{name}.{axis}": f"cusim::{place}.{axis}"
    for name, place in (
        ("tid", "current->index"),
        ("ntid", "block_size"),
        ("ctaid", "block_index"),
        ("nctaid", "grid_size"),
    )
    for axis in "xyz"
}
_ADDRESS = re.compile(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\w+))?\s*\]")
_REAL = re.compile(r"0[fF]([\dA-Fa-f]{8})|0[dD]([\dA-Fa-f]{16})")
_INTEGER = re.compile(r"(-?(?:0x[\dA-Fa-f]+|\d+))U?")


class PtxError(Exception):
    """PTX that the simulator does not understand, or that is wrong."""


def split(text):
    """The parts of `text` between commas, but for those within braces and brackets."""
    return [part.strip() for part in re.findall(r"(?:\{[^}]*\}|\[[^]]*\]|[^,{\[])+", text) if part.strip()]


def c_name(name):
    """A name of PTX as one of C++."""
    return re.sub(r"\W", "_", name)


def c_type(kind):
    """The type of the runtime that stands for a type of PTX: bits are unsigned."""
    return "ptx::" + (kind if kind in FLOATS else kind.replace("b", "u"))


@dataclass(frozen=True)
class Instruction:
    """One instruction; `names` is the entry's, in which operands are looked up."""

    opcode: str
    operands: list[str]
    line: int
    names: object

    @property
    def base(self):
        return self.opcode.split(".")[0]

    @property
    def modifiers(self):
        return self.opcode.replace("::", "_").split(".")[1:]

    def error(self, what):
        return PtxError(f"{self.names.file}:{self.line}: {self.opcode}: {what}")

    def kind(self, allowed=()):
        """The type, which stands last; the other modifiers must be among those `allowed`."""
        *flags, kind = self.modifiers or [""]
        if kind not in SIZES or not set(flags) <= set(allowed):
            raise self.error("a modifier that is not known here")
        return kind

    def chosen(self, choices, default=None):
        """The one modifier that is among the `choices`."""
        return next((modifier for modifier in self.modifiers if modifier in choices), default)

    def count(self, number):
        if len(self.operands) != number:
            raise self.error(f"must have {number} operands, got {len(self.operands)}")
        return self.operands

    def register(self, name, kind, wider=False):
        """The variable for a register, of as many bits as `kind`, or more where `wider` ones may be given."""
        found = self.names.register(name)
        if not found:
            raise self.error(f"there is no register {name}")
        declared, variable = found
        size, given = SIZES[declared], SIZES[kind]
        fits = (declared == "pred") == (kind == "pred") and (size == given or (wider and size > given))
        if not fits:
            raise self.error(f"{name} is .{declared} where .{kind} is meant")
        return variable

    def value(self, operand, kind, wider=False):
        """An expression for the bits of an operand."""
        if self.names.register(operand):
            variable = self.register(operand, kind, wider)
            return f"ptx::Bits<{c_type(kind)}>({variable})" if wider else variable
        if operand in _SPECIAL and SIZES[kind] == 4:
            return _SPECIAL[operand]
        if match := _REAL.fullmatch(operand):
            return self._real(int(match[1] or match[2], 16), bool(match[1]), kind)
        if (match := _INTEGER.fullmatch(operand)) and kind not in FLOATS:
            bits = int(match[1], 0) & ((1 << 8 * SIZES[kind]) - 1)
            return str(bool(bits)).lower() if kind == "pred" else f"{bits:#x}ull"
        if SIZES[kind] >= 4 and (symbol := self.names.symbol(operand)):
            return symbol
        raise self.error(f"{operand} is no operand of .{kind}")

    def _real(self, bits, single, kind):
        if SIZES[kind] != (4 if single else 8):
            raise self.error(f"a constant of another width where .{kind} is meant")
        return f"{bits:#x}ull"

    def address(self, operand):
        match = _ADDRESS.fullmatch(operand)
        if not match:
            raise self.error(f"{operand} is no address")
        found = self.names.register(match[1])
        base = found[1] if found and SIZES[found[0]] >= 4 else self.names.symbol(match[1])
        if not base:
            raise self.error(f"{operand} is no address")
        return f"uint64_t({base}) + uint64_t({int(match[2] or '0', 0)}ll)"

    def argument(self, operand, kind):
        """The variable for an argument or a result of a call, where that is what the address is of."""
        match = _ADDRESS.fullmatch(operand)
        if not match or match[1].startswith("%") or not self.names.register(match[1]):
            return None
        if int(match[2] or "0", 0):
            raise self.error(f"a part of {match[1]}")
        return self.register(match[1], kind)

    def place(self, space, operand, size):
        """The checked place in memory of an access."""
        return f"ptx::at(frame, ptx::{space}, {self.address(operand)}, {size}, {self.line})"

    def site(self):
        return f"PTX_SITE({self.line})"


def statement(instruction):
    """The C++ of an instruction."""
    if instruction.base not in _OPCODES:
        raise instruction.error("an opcode that is not known")
    return _OPCODES[instruction.base](instruction)


def flag(value):
    return "true" if value else "false"


# ---- arithmetic ----


def _template(i, kind):
    """Arguments of a template of the runtime: type, whether subnormals are flushed, and the rounding."""
    return f"{c_type(kind)}, {flag('ftz' in i.modifiers)}, ptx::{i.chosen(_ROUNDINGS, 'rn').upper()}"


def _arithmetic(arity, *also):
    """Sums, products and the like.  Where PTX has no rounding of its own one must be given."""

    def emit(i):
        kind = i.kind(("ftz", *_ROUNDINGS, *also))
        integral = kind not in FLOATS
        if kind in ("f16", "bf16", "pred") or (
            integral and len(i.modifiers) > 1 and i.modifiers != ["lo", kind]
        ):
            raise i.error("a type that is not known here")
        if not integral and i.base in _ROUNDED and not i.chosen((*_ROUNDINGS, "approx", "full")):
            raise i.error("there must be a rounding")
        target, *sources = i.count(arity + 1)
        values = [i.value(source, kind) for source in sources]
        if integral and i.base in ("div", "rem"):
            values[1] = f"ptx::divisor({values[1]}, {i.line})"
        template = c_type(kind) if i.base in ("rem", "popc") else _template(i, kind)
        result = "u32" if i.base == "popc" else kind
        function = {"min": "least", "max": "greatest"}.get(i.base, i.base)
        if function in ("neg", "abs", *_APPROXIMATE):
            template = template.rpartition(",")[0]
        return f"{i.register(target, result)} = ptx::{function}<{template}>({', '.join(values)});"

    return emit


_APPROXIMATE = ("ex2", "lg2", "rsqrt")
_ROUNDED = ("div", "rcp", "sqrt", "fma", *_APPROXIMATE)


def _mul(i):
    how = i.chosen(("hi", "wide"))
    if not how:
        return _arithmetic(2, "lo")(i)
    kind = i.kind((how,))
    target, a, b = i.count(3)
    result = _wide(kind) if how == "wide" else kind
    values = f"{i.value(a, kind)}, {i.value(b, kind)}"
    return f"{i.register(target, result)} = ptx::mul_{how}<{c_type(kind)}>({values});"


def _mad(i):
    kind, how = i.kind(("lo", "hi", "wide")), i.modifiers[0]
    target, a, b, c = i.count(4)
    result = _wide(kind) if how == "wide" else kind
    product = (
        f"{'mul' if how == 'lo' else 'mul_' + how}<{c_type(kind)}>({i.value(a, kind)}, {i.value(b, kind)})"
    )
    total = f"ptx::add<{c_type(result)}>(ptx::{product}, {i.value(c, result)})"
    return f"{i.register(target, result)} = {total};"


def _wide(kind):
    return kind[0] + str(16 * SIZES[kind])


# ---- bits ----


def _logic(form):
    def emit(i):
        kind = i.kind()
        target, *sources = i.count(1 + form.count("{}"))
        text = form.format(*(i.value(source, kind) for source in sources))
        # Of a predicate ~ is no negation.
        text = text.replace("~", "!") if kind == "pred" else f"ptx::Bits<{c_type(kind)}>({text})"
        return f"{i.register(target, kind)} = {text};"

    return emit


def _bits(*widths):
    """Shifts, and fields of bits: `widths` are the types of the operands, None that of the instruction."""

    def emit(i):
        kind = i.kind()
        target, *sources = i.count(1 + len(widths))
        values = [i.value(source, own or kind) for source, own in zip(sources, widths, strict=True)]
        return f"{i.register(target, kind)} = ptx::{i.base}<{c_type(kind)}>({', '.join(values)});"

    return emit


# ---- comparisons, choices, conversions ----

_SIGNS = ("eq", "ne", "lt", "le", "gt", "ge")
_COMPARISONS = {sign: sign for sign in _SIGNS} | {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
_OF_FLOATS = {sign + "u": sign + "u" for sign in _SIGNS} | {"num": "num", "nan": "nan"}


def _setp(i):
    kind, sign = i.kind((i.modifiers[0], "ftz")), i.modifiers[0]
    known = _COMPARISONS | _OF_FLOATS if kind in ("f32", "f64") else _COMPARISONS
    if sign not in known or kind in ("f16", "bf16"):
        raise i.error("a comparison that is not known")
    target, a, b = i.count(3)
    template = f"{c_type(kind)}, {flag('ftz' in i.modifiers)}"
    values = f"{i.value(a, kind)}, {i.value(b, kind)}"
    return f"{i.register(target, 'pred')} = ptx::cmp_{known[sign]}<{template}>({values});"


def _selp(i):
    kind = i.kind()
    target, a, b, which = i.count(4)
    choice = f"{i.value(which, 'pred')} ? {i.value(a, kind)} : {i.value(b, kind)}"
    return f"{i.register(target, kind)} = {choice};"


def _cvt(i):
    *flags, to, source = i.modifiers
    if not {to, source} <= set(SIZES) - {"pred"} or not set(flags) <= {*_ROUNDINGS, *_WHOLE, "ftz", "sat"}:
        raise i.error("a modifier that is not known here")
    narrower = to in FLOATS and (source not in FLOATS or SIZES[to] < SIZES[source])
    whole = i.chosen(_WHOLE)
    if (narrower and not i.chosen(_ROUNDINGS)) or (to not in FLOATS and source in FLOATS and not whole):
        raise i.error("there must be a rounding")
    is_other = to in ("f16", "bf16") and i.chosen(("rz", "rm", "rp"))
    if is_other or ("sat" in flags and not {to, source} <= set(FLOATS)):
        raise i.error("a rounding that is not known here")
    target, operand = i.count(2)
    types = f"{c_type(to)}, {c_type(source)}, {flag('ftz' in flags)}"
    rounding = f"ptx::{i.chosen(_ROUNDINGS, 'rn').upper()}, ptx::{(whole or 'fractions').upper()}"
    template = f"{types}, {rounding}, {flag('sat' in flags)}"
    variable, value = i.register(target, to, wider=True), i.value(operand, source, wider=True)
    return _widened(variable, to, f"ptx::convert<{template}>({value})")


def _widened(variable, kind, value):
    return f"{variable} = ptx::widen<decltype({variable}), {c_type(kind)}>({value});"


def _mov(i):
    kind = i.kind()
    target, source = i.count(2)
    if target[0] == "{":
        parts = split(target[1:-1])
        bits = 8 * SIZES[kind] // len(parts)
        taken = (
            f"{i.register(part, f'b{bits}')} = ptx::Bits<ptx::u{bits}>(whole >> {bits * n});"
            for n, part in enumerate(parts)
        )
        return f"{{ const auto whole = {i.value(source, kind)}; {' '.join(taken)} }}"
    if source[0] == "{":
        parts = split(source[1:-1])
        bits = 8 * SIZES[kind] // len(parts)
        joined = (f"uint64_t({i.value(part, f'b{bits}')}) << {bits * n}" for n, part in enumerate(parts))
        return f"{i.register(target, kind)} = {' | '.join(joined)};"
    return f"{i.register(target, kind)} = {i.value(source, kind)};"


# ---- memory ----


def _cvta(i):
    to_space, space = i.modifiers[0] == "to", i.modifiers[-2]
    if i.modifiers[-1] != "u64" or space not in SPACES or len(i.modifiers) != 2 + to_space:
        raise i.error("a modifier that is not known here")
    target, source = i.count(2)
    variable, value = i.register(target, "u64"), i.value(source, "u64")
    if space != "global":
        base = f"uint64_t(frame.spaces[ptx::{SPACES[space]}])"
        value = f"{value} - {base} + ptx::kWindow" if to_space else f"{value} - ptx::kWindow + {base}"
    return f"{variable} = {value};"


def _accessed(i):
    """Space, type and length of the vector of a load or store."""
    own = [m for m in i.modifiers if m not in SPACES and m not in _HINTS and not m.startswith(("L1_", "L2_"))]
    length = {"v2": 2, "v4": 4}.get(own[0], 1)
    if own[length > 1 :] != own[-1:] or own[-1] not in SIZES or own[-1] == "pred":
        raise i.error("a modifier that is not known here")
    return SPACES.get(i.chosen(SPACES), "GENERIC"), own[-1], length


def _vector(i, operand, length):
    names = split(operand.strip("{}")) if length > 1 else [operand]
    if len(names) != length:
        raise i.error(f"must name {length} registers, got {len(names)}")
    return names


def _ld(i):
    space, kind, length = _accessed(i)
    target, source = i.count(2)
    if space == "PARAM" and (variable := i.argument(source, kind)):
        return f"{i.register(target, kind)} = {variable};"
    loads = []
    for n, name in enumerate(_vector(i, target, length)):
        value = f"ptx::load<{c_type(kind)}>(place + {n * SIZES[kind]})"
        loads.append(_widened(i.register(name, kind, wider=True), kind, value))
    return f"{{ const char* place = {i.place(space, source, length * SIZES[kind])}; {' '.join(loads)} }}"


def _st(i):
    space, kind, length = _accessed(i)
    target, source = i.count(2)
    if space == "PARAM":
        variable = i.argument(target, kind)
        if not variable:
            raise i.error("parameters are not written to")
        return f"{variable} = {i.value(source, kind)};"
    stores = [
        f"ptx::store<{c_type(kind)}>(place + {n * SIZES[kind]}, {i.value(name, kind, wider=True)});"
        for n, name in enumerate(_vector(i, source, length))
    ]
    return f"{{ char* place = {i.place(space, target, length * SIZES[kind])}; {' '.join(stores)} }}"


def _atom(i):
    kind = i.kind((*SPACES, *_HINTS, "add"))
    if "add" not in i.modifiers or kind in ("f16", "bf16"):
        raise i.error("an operation that is not known")
    space = SPACES.get(i.chosen(SPACES), "GENERIC")
    target, address, more = i.count(3)
    # In global memory sums of float32 are flushed whatever the options; in shared memory they are not.
    template = f"{c_type(kind)}, {flag(kind == 'f32' and space != 'SHARED')}"
    place = i.place(space, address, SIZES[kind])
    return f"{i.register(target, kind)} = ptx::atomic_add<{template}>({place}, {i.value(more, kind)});"


# ---- control, and what threads do together ----


def _bra(i):
    if i.modifiers not in ([], ["uni"]):
        raise i.error("a branch that is not known")
    return f"goto {i.names.label(i.count(1)[0])};"


def _ret(i):
    i.count(0)
    return i.names.leave()


def _bar(i):
    if i.modifiers == ["warp", "sync"]:
        return f"cusim::sync_warp({i.site()}, {i.value(i.count(1)[0], 'b32')});"
    # Barrier 0 and all threads of the block: the simulator has no others.
    if i.modifiers == ["sync"] and i.operands == ["0"]:
        return f"cusim::sync_block({i.site()}, false);"
    if i.modifiers == ["red", "popc", "u32"] and i.operands[1] == "0":
        target, _, holds = i.count(3)
        return f"{i.register(target, 'u32')} = cusim::sync_block({i.site()}, {i.value(holds, 'pred')});"
    raise i.error("a barrier that is not known")


def _shfl(i):
    how = i.chosen(("up", "down", "bfly", "idx"))
    if i.modifiers != ["sync", how, "b32"]:
        raise i.error("a shuffle that is not known")
    targets, *sources = i.count(5)
    target, _, inside = (part.strip() for part in targets.partition("|"))
    values = ", ".join(i.value(source, "b32") for source in sources)
    call = f"ptx::shuffle({i.site()}, ptx::{how.upper()}, {values}, &inside)"
    second = f"{i.register(inside, 'pred')} = inside;" if inside else ""
    return f"{{ bool inside; {i.register(target, 'b32')} = {call}; {second} }}"


def _vote(i):
    if i.modifiers not in (["sync", "any", "pred"], ["sync", "ballot", "b32"]):
        raise i.error("a vote that is not known")
    target, holds, mask = i.count(3)
    ballot = f"cusim::vote({i.site()}, {i.value(mask, 'b32')}, {i.value(holds, 'pred')})"
    return f"{i.register(target, i.modifiers[-1])} = {ballot}{' != 0' if i.modifiers[-1] == 'pred' else ''};"


_OPCODES = {
    **dict.fromkeys(("add", "sub", "min", "max", "rem"), _arithmetic(2)),
    **dict.fromkeys(("neg", "abs", "popc"), _arithmetic(1)),
    **dict.fromkeys(("rcp", "sqrt", *_APPROXIMATE), _arithmetic(1, "approx")),
    "div": _arithmetic(2, "approx", "full"),
    "fma": _arithmetic(3),
    "mul": _mul,
    "mad": _mad,
    "and": _logic("{} & {}"),
    "or": _logic("{} | {}"),
    "xor": _logic("{} ^ {}"),
    "not": _logic("~{}"),
    "shl": _bits(None, "u32"),
    "shr": _bits(None, "u32"),
    "bfi": _bits(None, None, "u32", "u32"),
    "setp": _setp,
    "selp": _selp,
    "cvt": _cvt,
    "mov": _mov,
    "cvta": _cvta,
    "ld": _ld,
    "st": _st,
    "atom": _atom,
    "bra": _bra,
    "ret": _ret,
    "bar": _bar,
    "shfl": _shfl,
    "vote": _vote,
}
