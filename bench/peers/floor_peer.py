"""The machine's floor: the bytes that a call cannot but move, moved by what does it fastest from NumPy.

    forward    the output written, by memset; what is picked read, for its largest entry
    vjp        the cotangent read
    backward   both, as sparse

The output is new in every call, as is that of a call of ketcore without `out=`; the memory allocator decides
for both alike whether its pages are.  `bench.peers.warm_floor_peer` has the same in memory that is kept.
What is picked: each record once; of a factor no more leaves than there are.  It is read in one run, which is
faster than leaf by leaf, and no gradient is written: the floor is below what any code can do.
"""

import numpy as np

from bench.machine import SHARED_BYTES
from bench.peers import Contestant
from ketcore.arrays.threads import run_chunks


def build(case):
    return floor(case, "floor", lambda: np.empty(case.output_bytes, np.uint8))


def floor(case, name: str, output) -> Contestant:
    """A floor whose output is the bytes that `output()` gives."""
    writes, reads = case.task != "vjp", [case.cotangent.ravel()] if case.task != "forward" else []
    reads += picked(case) if writes else []

    def call():
        if writes:
            written = output()
            run_chunks(lambda start, stop: written[start:stop].fill(0), len(written), SHARED_BYTES)
        # The maximum reads as fast as a dot product, and wakes no threads of BLAS.
        for array in reads:
            shared = SHARED_BYTES // array.itemsize
            run_chunks(lambda start, stop, array=array: array[start:stop].max(), len(array), shared)

    # Nothing is computed that could be compared.
    return Contestant(name, name, call, lambda result: None)


def picked(case) -> list[np.ndarray]:
    """As many entries of the tables as a forward must read, one run of each table."""
    if case.workload.kind == "kets":
        (records,) = case.tables
        return [records[: len(np.unique(case.ids))].ravel()]
    return [table[:, : min(case.batch, table.shape[1])].ravel() for table in case.tables]
