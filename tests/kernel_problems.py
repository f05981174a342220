"""What the kernels are tested with: a launcher on the simulator, random lookups, a reference in float64."""

from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest

from ketcore.cuda import launcher, table
from ketcore.cuda.structs import SHARED_FLOOR
from ketcore.lookups import kernels
from ketcore.lookups.lookup import make_lookup, remade
from ketcore.products.fused_plan import Limits
from ketcore.shapes import halves_split
from tests.cusim import ORDERS, SimLauncher
from tests.cusim.launcher import MODE, OnHost

CUDA = Path(launcher.__file__).parent
FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int32", "int64")
KINDS = ("digits", "same", "modes", "terms")


@cache
def simulator():
    return SimLauncher(CUDA, table.TABLE)


class Launcher(OnHost):
    """The simulator with another grid, order of threads or shared memory, and what was launched."""

    def __init__(self, grid=None, order="forward", seed=0, shared_limit=SHARED_FLOOR):
        self.grid, self.order, self.seed, self.shared_limit = grid, order, seed, shared_limit
        self.launches = []

    def __call__(self, source, kernel, types, grid, block, args, shared):
        self.launches.append((kernel, types, grid, block, shared, args))
        simulator().order, simulator().seed = self.order, self.seed
        simulator()(source, kernel, types, self.grid or grid, block, args, shared)


launchers = st.builds(
    Launcher, st.sampled_from((None, None, 1, 3)), st.sampled_from(ORDERS), st.integers(0, 9)
)


def dtype_of(name):
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def flushed(numbers):
    """float32 numbers, of which the subnormal ones are zero where PTX runs: that is how CuPy compiles."""
    if not MODE.startswith("ptx"):
        return numbers
    return np.where(abs(numbers) < np.finfo(np.float32).tiny, numbers * np.float32(0), numbers)


# ---- the reference ----


def rows_picked(lookup):
    """Leaf (N, R, B) of each row and term, and which rows hold no bad index (B,)."""
    index, counts = lookup.index.astype(np.int64), [table.shape[1] for table in lookup.tables]
    shape = (len(counts), lookup.rank, lookup.batch)
    if lookup.kind == "digits":
        good = (index >= 0) & (index < lookup.bound)
        leaf = np.array(np.unravel_index(np.where(good, index, 0), counts))[:, None]
    elif lookup.kind == "same":
        good, leaf = (index >= 0) & (index < lookup.bound), index[None, None]
    else:
        leaf = index if lookup.kind == "terms" else index[:, None]
        good = ((leaf >= 0) & (leaf < np.reshape(counts, (-1, 1, 1)))).all((0, 1))
    return np.broadcast_to(np.where(good, leaf, 0), shape), good


def reference(lookup):
    """Rows (B, columns) in float64, and a function that pulls a cotangent back to records (B, R, sum q_n)."""
    picked, good = rows_picked(lookup)
    terms = np.arange(lookup.rank)[:, None]
    leaves = [t.astype(np.float64)[terms, i] for t, i in zip(lookup.tables, picked, strict=True)]
    eps = lookup.node_eps if lookup.layernorm and len(leaves) > 1 else None
    value, pull = product(leaves, lookup.split, eps)
    rows = np.where(good[:, None], value.sum(0)[:, : lookup.columns], np.nan)

    def records(cotangent):
        whole = np.zeros(value.shape[1:])
        whole[:, : lookup.columns] = cotangent * good[:, None]
        return np.concatenate(pull(np.broadcast_to(whole, value.shape)), axis=2).transpose(1, 0, 2)

    return rows, records


def product(leaves, split, eps):
    """The tree over leaves (R, B, q_n), split at `split`: its value, and its vjp."""
    if len(leaves) == 1:
        return leaves[0], lambda cotangent: [cotangent]
    if not 0 < split < len(leaves):
        return product(leaves, len(leaves) // 2, eps)
    (a, pull_a), (b, pull_b) = (
        product(part, len(part) // 2, eps) for part in (leaves[:split], leaves[split:])
    )
    raw = (a[..., :, None] * b[..., None, :]).reshape(*a.shape[:2], a.shape[2] * b.shape[2])
    scale = 1.0 if eps is None else (raw.var(2, keepdims=True) + eps) ** -0.5
    value = raw if eps is None else (raw - raw.mean(2, keepdims=True)) * scale

    def pull(g):
        if eps is not None:
            g = scale * (g - g.mean(2, keepdims=True) - value * (g * value).mean(2, keepdims=True))
        g = g.reshape(*a.shape, b.shape[2])
        return [*pull_a((g * b[..., None, :]).sum(3)), *pull_b((g * a[..., :, None]).sum(2))]

    return value, pull


def scattered(lookup, records):
    """Gradients of the tables (R, t_n, q_n) from records."""
    picked, good = rows_picked(lookup)
    starts, gradients = np.cumsum([0, *lookup.widths]), []
    for n, own in enumerate(lookup.tables):
        gradient = np.zeros(own.shape)
        for k in range(lookup.rank):
            np.add.at(gradient[k], picked[n, k][good], records[good, k, starts[n] : starts[n + 1]])
        gradients.append(gradient)
    return gradients


# ---- problems ----


@st.composite
def lookups(draw):
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    order, rank = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    layernorm = draw(st.booleans())
    # A node of one entry is zero with LayerNorm, and its derivatives are nothing but rounding.
    widths = draw(st.lists(st.integers(1 + layernorm, 12 // order + 2), min_size=order, max_size=order))
    if draw(st.booleans()):  # for 16-byte stores
        widths[-1] = 8
    counts = draw(st.lists(st.integers(1, 5), min_size=order, max_size=order))
    kind, batch = draw(st.sampled_from(KINDS)), draw(st.sampled_from((0, 1, 2, 5, 20, 70)))
    dtype = dtype_of(draw(st.sampled_from(FLOATS)))
    tables = tuple(
        random_table(rng, rank, t, q, dtype, draw(st.booleans())) for t, q in zip(counts, widths, strict=True)
    )
    whole = int(np.prod(widths))
    columns = draw(st.sampled_from((whole, max(1, whole - 8), draw(st.integers(1, whole)))))
    splits = (
        (order // 2,)
        if layernorm
        else (halves_split(tuple(widths)), order // 2, *((0, order) if whole < 200 else ()))
    )
    split = draw(st.sampled_from(splits))
    bound = {"digits": int(np.prod(counts)), "same": min(counts)}.get(kind, 0)
    bound -= bool(bound > 1 and draw(st.booleans()))
    index = indices(draw, rng, kind, (order, rank, batch), counts, bound)
    eps = draw(st.sampled_from((1e-5, 1e-2)))
    return make_lookup(tables, index, kind, bound, False, columns, layernorm, eps, split, dtype)


def random_table(rng, rank, rows, columns, dtype, strided):
    values = rng.integers(-16, 17, (rank, rows, columns)) / 8
    values = values.astype(dtype)
    return values.transpose(1, 2, 0).copy().transpose(2, 0, 1) if strided else values


def indices(draw, rng, kind, shape, counts, bound):
    limits = np.reshape(counts, (-1, 1, 1)) if kind in ("modes", "terms") else bound
    size = {"terms": shape, "modes": (shape[0], 1, shape[2])}.get(kind, (1, 1, shape[2]))
    index = rng.integers(0, limits, size)
    if draw(st.booleans()):  # one leaf is hot
        index[..., : size[2] // 2] = 0
    if draw(st.booleans()) and shape[2]:  # some rows are bad
        index[..., rng.integers(0, shape[2])] = draw(st.sampled_from((-1, 1 << 30)))
        index[-1, -1, rng.integers(0, shape[2])] = np.broadcast_to(limits, size)[-1, -1, 0]
    return index.reshape({"terms": size, "modes": size[::2]}.get(kind, size[2:])).astype(
        draw(st.sampled_from(INTEGERS))
    )


def nan_rows(lookup, aligned=True):
    """An output full of NaN; unaligned begins one element off."""
    size = lookup.batch * lookup.columns
    flat = np.full(size + 1, np.nan, lookup.tables[0].dtype)
    return flat[0 if aligned else 1 :][:size].reshape(lookup.batch, lookup.columns)


def zero_gradients(lookup):
    """Gradients as the caller gives them: kets have one packed array, else one array per table."""
    dtype = np.float64 if lookup.tables[0].dtype == np.float64 else np.float32
    if lookup.kind != "same" or len({t.shape[1] for t in lookup.tables}) > 1:
        return [np.zeros(table.shape, dtype) for table in lookup.tables]
    packed = np.zeros((lookup.tables[0].shape[1], lookup.rank, sum(lookup.widths)), dtype)
    return [part.transpose(1, 0, 2) for part in np.split(packed, np.cumsum(lookup.widths)[:-1], axis=2)]


def close(found, lookup, compute, dtype):
    """`found` is `compute(lookup)` up to rounding: once in `dtype`, a hundred times in the dtype of sums."""
    expected, step = compute(lookup), {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11}
    found = np.asarray(found, np.float64)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    size = 100 * step[sum_dtype(lookup).name] * sensitivity(lookup, compute)
    np.testing.assert_allclose(found, expected, rtol=step.get(dtype.name, 2.0**-8), atol=size, equal_nan=True)


def sensitivity(lookup, compute):
    """The largest response of `compute` to relative changes of the tables, which LayerNorm can enlarge."""
    rng, step, base = np.random.default_rng(0), 2.0**-20, compute(lookup)
    largest = np.nanmax(np.abs(base), initial=1.0)
    for _ in range(3):
        signs = [rng.choice((-step, step), table.shape) for table in lookup.tables]
        moved = [table * (1 + sign) for table, sign in zip(lookup.tables, signs, strict=True)]
        change = np.abs(compute(remade(lookup, tables=tuple(moved))) - base)
        largest = np.nanmax(change / step, initial=largest)
    return largest


def sum_dtype(lookup):
    return np.dtype(np.float64 if lookup.tables[0].dtype == np.float64 else np.float32)


def cotangent_of(lookup, seed=0):
    values = np.random.default_rng(seed).integers(-16, 17, (lookup.batch, lookup.columns)) / 8
    return values.astype(lookup.tables[0].dtype)


def make(counts, widths, batch, *, rank=2, kind="digits", dtype="float32", seed=0, **options):
    """A lookup of random tables and valid indices."""
    rng, order = np.random.default_rng(seed), len(counts)
    bound = {"digits": int(np.prod(counts)), "same": min(counts)}.get(kind, 0)
    size = {"modes": (order, batch), "terms": (order, rank, batch)}.get(kind, (batch,))
    limit = np.reshape(counts, (-1,) + (1,) * (len(size) - 1)) if kind in ("modes", "terms") else bound
    index = options.pop("index", None)
    index = rng.integers(0, limit, size) if index is None else index
    tables = tuple(
        rng.standard_normal((rank, t, q)).astype(dtype_of(dtype)) for t, q in zip(counts, widths, strict=True)
    )
    given = {"columns": int(np.prod(widths)), "layernorm": False, "eps": 1e-5, "split": order // 2, **options}
    return make_lookup(tables, index, kind, bound, False, dtype=tables[0].dtype, **given)


def check(lookup, launch=None, cotangent_dtype=None):
    """Rows, and gradients with and without atomics, against the reference; gives what launched them."""
    launch = launch or Launcher()
    out = kernels.expand(launch, lookup, nan_rows(lookup))
    close(out, lookup, lambda lookup: reference(lookup)[0], lookup.dtype)
    cotangent = cotangent_of(lookup).astype(cotangent_dtype or lookup.dtype)

    def compute(lookup):
        return flat(scattered(lookup, reference(lookup)[1](cotangent.astype(np.float64))))

    for deterministic in (True, False):
        gradients = zero_gradients(lookup)
        kernels.contract(launch, lookup, cotangent, deterministic, gradients)
        close(flat(gradients), lookup, compute, sum_dtype(lookup))
    return launch


def flat(arrays):
    return np.concatenate([array.ravel() for array in arrays])


# ---- products with Kronecker matrices ----

# Little shared memory makes several passes of small problems; few blocks make tiles of many rows.
limits = st.builds(
    Limits,
    st.sampled_from((SHARED_FLOOR, 4096, 2400)),
    st.sampled_from((8 << 10, 0)),
    st.sampled_from((1, 1, 264)),
)


@dataclass(frozen=True)
class Product:
    """M^T x along the middle axis of x (batch, P, trail); factors (R, p_n, q_n)."""

    factors: tuple
    x: np.ndarray
    identities: frozenset = frozenset()

    def dense(self, factors=None, x=None):
        """The definition in float64."""
        factors, x = (f.astype(np.float64) for f in factors or self.factors), x if x is not None else self.x
        factors = [
            np.broadcast_to(np.eye(f.shape[1]), f.shape) if n in self.identities else f
            for n, f in enumerate(factors)
        ]
        matrix = sum(reduce(np.kron, terms) for terms in zip(*factors, strict=True))
        return np.einsum("pq,bpt->bqt", matrix, x.astype(np.float64))

    def close(self, found):
        """`found` is the product: rounded once to its dtype, after sums in the accumulation dtype."""
        assert found.dtype == self.x.dtype
        expected = self.dense()
        largest = self.dense([abs(factor) for factor in self.factors], abs(self.x)).max(initial=1.0)
        sums = 2.0**-53 if found.dtype == np.float64 else 2.0**-24
        once = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11}.get(found.dtype.name, 2.0**-8)
        np.testing.assert_allclose(found.astype(np.float64), expected, rtol=once, atol=100 * sums * largest)


def make_product(dims, batch=1, trail=1, rank=1, dtype="float32", seed=0, **options):
    """A product of random factors and a random array."""
    rng = np.random.default_rng(seed)
    factors = tuple(rng.standard_normal((rank, p, q)).astype(dtype_of(dtype)) for p, q in dims)
    x = rng.standard_normal((batch, int(np.prod([p for p, _ in dims])), trail)).astype(dtype_of(dtype))
    return Product(factors, x, **options)


@st.composite
def products(draw):
    rng, order = np.random.default_rng(draw(st.integers(0, 1 << 16))), draw(st.integers(1, 5))
    side = st.integers(1, (16, 16, 9, 6, 5)[order - 1])
    dims = draw(st.lists(st.tuples(side, side), min_size=order, max_size=order))
    identities = draw(st.sets(st.integers(0, order - 1), max_size=order // 2))
    dims = [(p, p) if n in identities else (p, q) for n, (p, q) in enumerate(dims)]
    rank, batch, trail = (
        draw(st.sampled_from(sizes)) for sizes in ((1, 1, 2, 4), (1, 3, 8, 37), (1, 1, 2, 13))
    )
    dtype = dtype_of(draw(st.sampled_from(FLOATS)))
    factors = tuple(random_table(rng, rank, p, q, dtype, draw(st.booleans())) for p, q in dims)
    x = rng.integers(-16, 17, (batch, int(np.prod([p for p, _ in dims])), trail)) / 8
    return Product(factors, x.astype(dtype), frozenset(identities))
