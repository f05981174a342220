"""The CUDA kernel that multiplies by Kronecker matrices, on the simulator, against the dense definition."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings

from ketcore.cuda.structs import SHARED_FLOOR
from ketcore.products import fused
from ketcore.products.fused_plan import Limits, fused_steps
from tests.cusim import available
from tests.cusim.launcher import MODE
from tests.kernel_problems import (
    FLOATS,
    Launcher,
    Product,
    dtype_of,
    launchers,
    limits,
    make_product,
    products,
)
from tests.profiles import scaled
from tests.require import require


@pytest.fixture(autouse=True)
def _simulator():
    require("cusim", not available(), available())


def multiply(product, launch, limits=None):
    """The product by the kernel, new arrays full of NaN, and how many passes the plan has."""
    launch.xp, planned = Poisoned(), []

    def steps(*sizes):
        planned.extend(fused_steps(*sizes, limits=limits or Limits()))
        return tuple(planned)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "fused_steps", steps)
        found = fused.matmul(launch, product.factors, product.x, product.identities)
    assert len(launch.launches) == len(planned)
    assert all(step.launch.shared <= (limits or Limits()).shared for step in planned)
    return found


class Poisoned:
    """NumPy, but that new arrays hold NaN."""

    ascontiguousarray = staticmethod(np.ascontiguousarray)

    def empty(self, shape, dtype):
        return np.full(shape, np.nan, dtype_of(dtype))


@given(product=products(), launch=launchers, limits=limits)
@settings(max_examples=scaled(80 if MODE == "plain" else 30))
def test_products(product, launch, limits):
    product.close(multiply(product, launch, limits))


CASES = {
    "modes of two, merged": {"dims": [(2, 2)] * 9, "batch": 2},
    "tall and wide": {"dims": [(16, 1), (1, 16), (16, 16)], "trail": 5, "rank": 3},
    "one mode of sixteen": {"dims": [(16, 16)], "batch": 70, "trail": 3},
    "wide rows in several tiles": {"dims": [(8, 8), (3, 5)], "trail": 150, "rank": 2},
    "many rows in several tiles": {"dims": [(5, 3), (7, 9)], "batch": 150, "rank": 2},
    "uneven": {"dims": [(5, 3), (7, 9), (11, 13)], "batch": 3},
    "four links": {"dims": [(5, 5)] * 4, "batch": 3},
    "four links, three terms": {"dims": [(5, 5), (5, 4), (5, 5), (5, 7)], "rank": 3, "batch": 2},
    "two passes": {"dims": [(16, 16), (16, 8), (4, 8)], "trail": 3},
    "two passes of three terms": {"dims": [(5, 4), (5, 5), (4, 5), (5, 7)], "rank": 3, "shared": 6000},
    "ten terms": {"dims": [(16, 16)] * 2, "rank": 10, "batch": 3},
    "no room for padding": {"dims": [(8, 8)] * 3, "shared": 4 * (3 * 64 + 2 * 512) + 8},
    "seventeen modes, most of one": {"dims": [(1, 1)] * 15 + [(2, 3), (3, 2)], "batch": 3},
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_cases(case, dtype):
    sizes = {name: value for name, value in case.items() if name != "shared"}
    product, launch = make_product(**sizes, dtype=dtype), Launcher()
    product.close(multiply(product, launch, Limits(case.get("shared", SHARED_FLOOR), blocks=8)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_between_passes_sixteen_bit_arrays_are_not_rounded(dtype):
    """Terms that cancel but for the last digits of a float32."""
    product = make_product([(2, 2)] * 4, batch=5, rank=2, dtype=dtype)
    ones = tuple(np.ones_like(factor) for factor in product.factors)
    ones[0][1], ones[1][:] = -1, dtype_of(dtype).type(1.0)
    ones[2][0] += dtype_of(dtype).type(2.0**-6)
    ones[3][0] += dtype_of(dtype).type(2.0**-6)
    product = Product(ones, product.x)
    launch = Launcher()
    product.close(multiply(product, launch, Limits(shared=560)))
    assert len(launch.launches) > 1


def test_results_are_equal_bit_for_bit():
    product, found = make_product([(8, 8)] * 4, batch=2, rank=3), set()
    for grid, order in ((None, "forward"), (3, "reverse"), (1, "random")):
        found.add(multiply(product, Launcher(grid, order)).tobytes())
    assert len(found) == 1


def test_layouts_that_are_not_contiguous():
    product = make_product([(4, 3), (5, 6)], batch=6, trail=4)
    x = np.asfortranarray(product.x)[::-2]
    factors = tuple(
        np.ascontiguousarray(f.transpose(0, 2, 1)).transpose(0, 2, 1)[:, ::-1] for f in product.factors
    )
    x.flags.writeable = False
    moved = Product(factors, x)
    moved.close(multiply(moved, Launcher()))


@pytest.mark.parametrize("shape", [(0, 12, 3), (4, 12, 0)])
def test_no_entries(shape):
    product = Product(make_product([(4, 3), (3, 5)]).factors, np.zeros(shape, np.float32))
    launch = Launcher()
    found = fused.matmul(launch, product.factors, product.x)
    assert (found.shape, launch.launches) == ((shape[0], 15, shape[2]), [])


def test_a_matrix_of_identities_alone():
    eyes = np.stack([np.eye(4, dtype=np.float32)] * 2)
    product = Product((eyes, eyes), make_product([(4, 4), (4, 4)]).x, frozenset((0, 1)))
    product.close(multiply(product, Launcher()))


# ---- the plan ----


@pytest.mark.parametrize(
    ("dims", "rank", "passes"),
    [
        ([(8, 8)] * 3, 1, 1),
        ([(16, 16)] * 3, 1, 1),
        ([(4, 4)] * 6, 1, 1),
        ([(2, 2)] * 20, 1, 2),
        ([(8, 8)] * 6, 1, 2),
        ([(16, 16)] * 5, 1, 2),
        ([(16, 16)] * 2, 10, 1),
        ([(8, 8)] * 4, 4, 2),
    ],
)
def test_passes(dims, rank, passes):
    rows, columns = zip(*dims, strict=True)
    assert len(fused_steps(rows, columns, rank, 16, 1, 4)) == passes


@pytest.mark.parametrize("trail", [1, 5, 64])
@pytest.mark.parametrize("entry", [4, 8])
@pytest.mark.parametrize("dims", [[(8, 8)] * 4, [(16, 8)] * 4, [(3, 3)] * 7, [(16, 16)] * 4], ids=str)
def test_tiles_fit_and_few_lanes_meet_in_a_bank(dims, entry, trail):
    rows, columns = zip(*dims, strict=True)
    for step in fused_steps(rows, columns, 1, 64, trail, entry):
        plan = step.launch.plan
        assert step.launch.shared <= SHARED_FLOOR
        assert plan["tiles"] * plan["tile_outer"] * plan["tile_inner"] >= plan["outer"] * plan["inner"]
        for link in plan["chain"][: plan["links"]]:
            assert lanes_in_a_bank(link, link["source_left"], 128 // entry) <= 2
            assert lanes_in_a_bank(link, link["target_left"], 128 // entry) <= 2


def lanes_in_a_bank(link, stride, banks):
    """Most lanes that meet in one bank when those of a warp take neighbouring fibres."""
    lanes = np.arange(banks)
    places = lanes // link["inner"] * stride + lanes % link["inner"]
    return np.unique(places % banks, return_counts=True)[1].max()


def test_what_grows_is_multiplied_last():
    widening = fused_steps((4, 8, 16), (16, 16, 16), 1, 1000, 1, 8)
    narrowing = fused_steps((16, 16, 16), (4, 8, 16), 1, 1000, 1, 8)
    assert [step.start for step in widening] == sorted(step.start for step in widening)[::-1]
    assert [step.start for step in narrowing] == sorted(step.start for step in narrowing)


def test_identities_are_left_out():
    steps = fused_steps((4, 40, 4), (4, 40, 4), 1, 2, 1, 4, frozenset((1,)))
    assert [(step.start, step.stop) for step in steps] == [(0, 1), (2, 3)]


def test_obstacles():
    product = make_product([(4, 3), (3, 5)], rank=2)
    factors, x = product.factors, product.x
    obstacle = partial(fused.obstacle, x=x)
    assert obstacle(factors) == ""
    assert obstacle(()) == obstacle([f[:0] for f in factors]) == "must have one mode and one term at least"
    wide = [f.astype(np.float64) for f in factors]
    assert obstacle(wide) == "must have one real floating dtype, got float64, float32"
    complex_ = [f.astype(np.complex64) for f in factors]
    assert fused.obstacle(complex_, x.astype(np.complex64)).endswith("dtype, got complex64")
    assert obstacle([f[None] for f in factors]) == "must be arrays (rank, rows, columns) without a batch"
    packed = np.zeros((2, 4), np.dtype([("a", np.float32), ("b", np.int16)]))["a"][:, :, None]
    assert obstacle([packed]) == "must have strides of whole entries"
    large = np.zeros((1, 17, 2), np.float32)
    assert obstacle([large]) == "must have at most 16 rows and columns in each mode, got [(17, 2)]"
