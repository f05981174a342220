"""ketcore on its engine for NumPy alone: what the same calls cost where nothing is compiled."""

from dataclasses import replace
from functools import partial

from bench.peers import Contestant, ketcore_peer
from ketcore.lookups.gather import only


def build(case):
    return on_numpy(ketcore_peer.build(case))


def on_numpy(ours: Contestant) -> Contestant:
    """A contestant of ketcore's, on that engine."""
    return replace(ours, name="ketcore numpy", kind="numpy", around=partial(only, "numpy"))
