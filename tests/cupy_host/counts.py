"""What a call asks of the GPU, CuPy's own fills, casts and copies among it.

No kernel runs here: the counts do not depend on what is in memory.
"""

from collections import Counter

import pytest

from tests.cupy_host import device
from tests.cupy_host.problems import problems

PROBLEMS = problems()
CHUNKS = {"contract": 1, "accumulate": 1, "reduce": 1}
# Of many kets most gradients are zeros that no kernel writes.
SORTED = {"contract": 1, "thrust::argsort": 1, "pieces": 1, "segments": 1, "cudaMemsetAsync": 1}

every_lookup = pytest.mark.parametrize("name", PROBLEMS)


def work(call):
    """How often which kernel was launched, and what else there was to do."""
    with device.launches_that_do_nothing():
        call()  # compiles
        with device.noted() as notes:
            call()
    return Counter(note.what for note in notes if note.is_work)


@every_lookup
def test_forward(name):
    assert work(PROBLEMS[name].forward) == {"expand": 1}


@every_lookup
def test_backward(name):
    problem = PROBLEMS[name]
    assert work(problem.backward) == (SORTED if problem.sorted else CHUNKS)


@every_lookup
def test_backward_with_atomics(name):
    """One launch, and zeros to add to: one fill for kets, one for each table."""
    counts = work(lambda: PROBLEMS[name].backward(deterministic=False))
    fills = counts.pop("cudaMemsetAsync")
    assert counts == {"contract": 1}
    assert fills == (1 if "kets" in name or "one mode" in name else 2)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes(dtype):
    """16-bit gradients are cast by CuPy, one launch for each array."""
    for name, problem in problems(dtype).items():
        assert work(problem.forward) == {"expand": 1}
        counts = work(problem.backward) - Counter(SORTED if problem.sorted else CHUNKS)
        arrays = 1 if "kets" in name or "one mode" in name else 2
        assert counts == ({"cupy_copy": arrays} if dtype == "float16" else {})


@pytest.mark.parametrize("call", ["forward", "backward"])
@every_lookup
def test_memory(name, call):
    """What is allocated is freed but for the results, whose size is that of the arrays."""
    import cupy

    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc), device.launches_that_do_nothing():
        results = getattr(PROBLEMS[name], call)()
        arrays = results if isinstance(results, tuple) else (results,)
        assert pool.used_bytes() == sum(-(-array.nbytes // 512) * 512 for array in arrays)
        del results, arrays
        assert pool.used_bytes() == 0
