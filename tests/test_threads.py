"""Work on several threads, whatever the environment says: pieces, errors, and the ends of processes."""

import gc
import os
import signal
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import ketcore as kc
from ketcore import ops
from ketcore.arrays import threads
from ketcore.products import forward
from ketcore.testing import assert_dense_equal
from tests.processes import run_python

COUNTS = (1, 2, 3, 5)


@pytest.fixture(params=COUNTS)
def count(request, monkeypatch):
    """Calls use so many threads, and find all work large enough to be shared."""
    monkeypatch.setattr(threads, "thread_count", lambda: request.param)
    monkeypatch.setattr(forward, "WORTH_THREADS", 1)
    return request.param


def pieces_of(total, chunk, count):
    """The pieces that `run_chunks` makes on `count` threads, in order of their starts."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "thread_count", lambda: count)
        threads.run_chunks(lambda start, stop: found.append((start, stop)), total, chunk)
    return sorted(found)


@given(total=st.integers(1, 60), chunk=st.integers(1, 70), count=st.integers(1, 6))
def test_pieces_cover_everything_once(total, chunk, count):
    pieces = pieces_of(total, chunk, count)
    assert [n for start, stop in pieces for n in range(start, stop)] == list(range(total))
    assert all(0 < stop - start <= chunk for start, stop in pieces)


def test_several_threads_take_part(monkeypatch):
    monkeypatch.setattr(threads, "thread_count", lambda: 2)
    # Neither passes unless both are there at once.
    meeting = threading.Barrier(2, timeout=60)
    threads.run_chunks(lambda start, stop: meeting.wait(), 2, 1)


def test_a_slow_thread_leaves_pieces_to_the_others(monkeypatch):
    """Its core may be busy with something else: the others do not wait for more than the piece it has."""
    monkeypatch.setattr(threads, "thread_count", lambda: 2)
    caller, others_are_done, begun, found = threading.get_ident(), *(threading.Event() for _ in range(2)), []

    def work(start, stop):
        found.append((start, threading.get_ident() == caller))
        if threading.get_ident() != caller:
            begun.set()
            assert others_are_done.wait(60)
        else:
            assert begun.wait(60)
            if len(found) == 10:
                others_are_done.set()

    threads.run_chunks(work, 10, 1)
    assert sorted(start for start, _ in found) == list(range(10))
    assert sum(own for _, own in found) == 9


def test_no_piece_is_begun_after_an_error(monkeypatch):
    monkeypatch.setattr(threads, "thread_count", lambda: 2)
    meeting, found = threading.Barrier(2, timeout=60), []

    def work(start, stop):
        found.append(start)
        meeting.wait()
        raise ValueError(f"piece {start}")

    with pytest.raises(ValueError, match="piece"):
        threads.run_chunks(work, 10, 1)
    assert sorted(found) == [0, 1]


def test_threads_are_those_of_blas():
    for count in (1, 2):
        with threadpool_limits(count, user_api="blas"):
            assert threads.thread_count() == count


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_operations_are_right_on_any_number_of_threads(count, dtype):
    rng = np.random.default_rng(count)
    factors = [rng.standard_normal((3, p, q)).astype(dtype) for p, q in ((7, 20), (5, 25), (9, 4))]
    leaves = rng.standard_normal((50, 2, 36)).astype(dtype)
    # Several chunks, and not a multiple of them.
    ids, words = rng.integers(0, 315, 151), rng.integers(0, 50, 151)
    x = rng.standard_normal((203, 315)).astype(dtype)
    big = [factor.astype(np.result_type(dtype, "float64")) for factor in factors]
    rows, matrix = ops.rows_dense(big, ids), ops.rows_dense(big, np.arange(315))
    assert_dense_equal(ops.rows(factors, ids), rows, terms=3)
    dims = (12, 12, 12)
    assert_dense_equal(ops.ket_rows(leaves, words, dims), ops.ket_rows_dense(leaves, words, dims), terms=2)
    assert_dense_equal(ops.kron_matmul(factors, x), x @ matrix, terms=315, scale=np.abs(x) @ np.abs(matrix))
    # By the transpose: the pairing of the result with a cotangent is that of every factor with its gradient.
    for found, y in (
        (ops.rows_vjp(factors, ids, rows.conj().astype(dtype)), rows),
        (ops.kron_matmul_vjp(factors, x, (x @ matrix).conj().astype(dtype))[0], x @ matrix),
    ):
        size = np.square(np.abs(y)).sum()
        for gradient, factor in zip(found, factors, strict=True):
            assert (gradient * factor).sum() == pytest.approx(size, rel=1e-4)


def test_the_others_finish_before_an_error_leaves(monkeypatch):
    monkeypatch.setattr(threads, "thread_count", lambda: 3)
    for failing in range(3):
        ended, begun = [], threading.Barrier(3, timeout=60)

        def work(start, stop, failing=failing, ended=ended, begun=begun):
            begun.wait()
            if start == failing:
                raise MemoryError(f"piece {start}")
            threading.Event().wait(0.05)
            ended.append(start)

        with pytest.raises(MemoryError, match=f"piece {failing}"):
            threads.run_chunks(work, 3, 1)
        assert sorted(ended) == [n for n in range(3) if n != failing]


def test_an_interrupt_waits_for_those_who_write(monkeypatch):
    monkeypatch.setattr(threads, "thread_count", lambda: 2)
    out, begun = np.zeros(2), threading.Barrier(2, timeout=60)

    def work(start, stop):
        begun.wait()
        if start == 0:
            raise KeyboardInterrupt
        threading.Event().wait(0.05)
        out[start] = 1

    with pytest.raises(KeyboardInterrupt):
        threads.run_chunks(work, 2, 1)
    assert out.tolist() == [0, 1]
    assert pieces_of(6, 1, 3) == [(n, n + 1) for n in range(6)]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals do not reach a thread that waits")
def test_an_interrupt_of_a_caller_who_waits_is_told_afterwards(monkeypatch):
    monkeypatch.setattr(threads, "thread_count", lambda: 2)
    out, caller, begun = np.zeros(2), threading.get_ident(), threading.Barrier(2, timeout=60)

    def work(start, stop):
        begun.wait()
        if threading.get_ident() != caller:
            for _ in range(2):
                threading.Event().wait(0.05)
                signal.pthread_kill(caller, signal.SIGINT)
            threading.Event().wait(0.05)
        out[start] = 1

    # What a shell has started beside others has signals that it does not take.
    taken = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            threads.run_chunks(work, 2, 1)
    finally:
        signal.signal(signal.SIGINT, taken)
    assert out.tolist() == [1, 1]


def test_an_interrupt_of_a_caller_who_asks_for_threads_waits(monkeypatch):
    monkeypatch.setattr(threads, "thread_count", lambda: 2)
    out, begun, offer = [], threading.Event(), threads._offer

    def interrupted(function, count):
        offer(function, count)
        assert begun.wait(60)
        raise KeyboardInterrupt

    def work(start, stop):
        begun.set()
        threading.Event().wait(0.05)
        out.append(start)

    monkeypatch.setattr(threads, "_offer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        threads.run_chunks(work, 2, 1)
    assert out == [0]


def test_an_error_of_a_thread_keeps_no_arrays(monkeypatch):
    monkeypatch.setattr(threads, "thread_count", lambda: 2)
    caller, begun, array = threading.get_ident(), threading.Barrier(2, timeout=60), np.zeros(1)
    kept = weakref.ref(array)

    def work(start, stop, array=array):
        begun.wait()
        if threading.get_ident() != caller:
            raise MemoryError(start)

    gc.disable()
    try:
        with suppress(MemoryError):
            threads.run_chunks(work, 2, 1)
        del work, array
        assert kept() is None
    finally:
        gc.enable()


def test_the_first_of_several_errors_is_raised(monkeypatch):
    monkeypatch.setattr(threads, "thread_count", lambda: 3)
    together = threading.Barrier(3, timeout=60)

    def work(start, stop):
        together.wait()
        if start:
            raise ValueError(f"piece {start}")

    with pytest.raises(ValueError, match="piece 1"):
        threads.run_chunks(work, 3, 1)


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_pool_that_takes_no_more_work(monkeypatch, taken):
    """As at the end of Python, or where the system has no more threads: also after work was accepted."""
    with ThreadPoolExecutor(1) as inside:

        class Pool:
            def submit(self, *work):
                nonlocal taken
                taken -= 1
                if taken >= -1:
                    inside.submit(*work)
                if taken < 0:
                    raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threads, "_pool", Pool)
        assert pieces_of(20, 3, 4) == list(pairwise((0, 2, 5, 7, 10, 12, 15, 17, 20)))


def test_a_job_that_begins_too_late_does_nothing(monkeypatch):
    """The caller has done its work, and may use the memory for something else by now."""
    late = []

    class Pool:
        def submit(self, *work):
            late.append(work)

    monkeypatch.setattr(threads, "_pool", Pool)
    monkeypatch.setattr(threads, "thread_count", lambda: 3)
    found = []
    threads.run_chunks(lambda start, stop: found.append(start), 3, 1)
    assert len(late) == 2
    for function, *arguments in late:
        function(*arguments)
    assert sorted(found) == [0, 1, 2]


def words_of(code, *options):
    """The words that `code` prints in a Python of its own."""
    done = run_python(PREPARED + code, options=("-W", "error", *options), OMP_NUM_THREADS="2")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


# Whatever BLAS is there: two threads, also for little work.  A function of this module, kept by another one,
# would keep Python from finalising this module.
PREPARED = """
import atexit, os, threading, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
import numpy as np
import ketcore as kc
from ketcore.arrays import threads
from ketcore.products import forward
threads.thread_count = partial(int, 2)
forward.WORTH_THREADS = 1
table = kc.KroneckerMatrix.random((4000, 250), order=3, rank=3, rng=0)
ids, x = np.arange(4000), np.ones((300, 4000))
right = table.rows(ids[:1])[0], (x[:1] @ table)[0]

def check(name):
    assert np.allclose(table.rows(ids)[0], right[0])
    assert np.allclose((x @ table)[-1], right[1])
    print(name, flush=True)

"""

ENDS = {
    "atexit": 'check("used"); atexit.register(check, "ended")',
    "atexit, for the first time": 'print("used"); atexit.register(check, "ended")',
    "a finaliser": """
class Owner:
    # Its own references: the names of this module are gone when it is.
    def __init__(self, **names):
        self.names = names
    def __del__(self, print=print):
        self.names["rows"](self.names["ids"])
        print("ended", flush=True)
owner = Owner(rows=table.rows, ids=ids)
check("used")
""",
    # Python waits for a daemon in no case: for this one atexit does.
    "a daemon": """
over = threading.Event()
def late():
    over.wait()
    check("ended")
daemon = threading.Thread(target=late, daemon=True)
daemon.start()
atexit.register(daemon.join)
atexit.register(over.set)
check("used")
""",
    "a thread that outlives the main one": """
def late():
    threading.main_thread().join()
    check("ended")
threading.Thread(target=late).start()
check("used")
""",
    "a thread of another pool": """
check("used")
with ThreadPoolExecutor(8) as others:
    list(others.map(lambda n: np.testing.assert_allclose(table.rows(ids)[n], table.rows([n])[0]), range(16)))
check("ended")
""",
    "calls within calls": """
def work(start, stop):
    threads.run_chunks(inner, 4, 1)
    table.rows(ids)
def inner(start, stop):
    threads.run_chunks(lambda start, stop: done.append(start), 2, 1)
threads.thread_count = lambda: 8
done = []
threads.run_chunks(work, 64, 1)
assert sorted(done) == sorted([0, 1] * 256)
check("used"); check("ended")
""",
}
FORKS = {
    "a forked child": """
check("used")
child = os.fork()
if not child:
    check("ended")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""",
    "a child forked inside a call": """
def work(start, stop):
    if start == 0 and not os.fork():
        check("ended")
        os._exit(0)
threads.run_chunks(work, 2, 1, limit_blas=True)
assert os.wait()[1] == 0
check("used")
""",
}


@pytest.mark.parametrize("name", ENDS)
def test_calls_at_the_ends_of_processes_and_threads(name):
    assert sorted(words_of(ENDS[name])) == ["ended", "used"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.parametrize("name", FORKS)
def test_calls_in_children(name):
    # Python warns of forks where there are threads, which is what this is about.
    assert sorted(words_of(FORKS[name], "-W", "ignore::DeprecationWarning")) == ["ended", "used"]


def test_objects_on_many_threads_at_once(count):
    table = kc.KroneckerMatrix.random((500, 60), order=2, rank=2, rng=0)
    ids = np.arange(500)
    right = table.to_dense()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: table.rows(ids), range(8)):
            assert_dense_equal(found, right, terms=2)
