"""The benchmark of gradients under jit of JAX, on kets that take no time."""

from importlib.util import find_spec

import numpy as np

from bench import jax_gradients
from tests.require import require


def test_all_ways_agree_and_are_timed():
    require("jax", find_spec("jax") is not None, "jax is not installed")
    kets = [np.ones((3, 2, 4), "float32")], [np.ones((3, 2, 4), "float32")]
    found = jax_gradients.record("kets", ("ket_inner", kets, (), {}), 0.01)
    assert tuple(found["times"]) == jax_gradients.WAYS
    assert all(time >= 0 for time in found["times"].values())
    assert jax_gradients.text(found).startswith("kets  ")
