"""ketcore on its engine for NumPy alone."""

from bench.algebra.peers import ketcore_peer
from bench.peers.numpy_peer import on_numpy


def build(case):
    return on_numpy(ketcore_peer.build(case))
