"""Threads: how many a call may use, and work over a range in pieces on them.

As many as NumPy's BLAS is set to, from one pool that is made when it is first needed.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from functools import lru_cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController

from ketcore.arrays.namespaces import quiet

READERS = 16


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def thread_count() -> int:
    """How many threads a call may use: as many as NumPy's BLAS is set to, by threadpoolctl for one."""
    return max((library.num_threads for library in _blas().lib_controllers), default=1)


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="ketcore")


@lru_cache(maxsize=1)
def readers() -> ThreadPoolExecutor:
    """Threads that wait for a disk, more than there are cores: it answers many of them in the time of one."""
    return ThreadPoolExecutor(READERS, thread_name_prefix="ketcore-read")


class _OneBlasThread:
    """A context in which BLAS keeps to the thread that calls it; the last one to leave restores it."""

    def __init__(self):
        self.lock, self.inside, self.before = Lock(), 0, ()

    def __enter__(self):
        with self.lock:
            if not self.inside:
                self.before = [(library, library.num_threads) for library in _blas().lib_controllers]
                for library, _ in self.before:
                    library.set_num_threads(1)
            self.inside += 1

    def __exit__(self, *_):
        with self.lock:
            self.inside -= 1
            for library, count in self.before if not self.inside else ():
                library.set_num_threads(count)


_one_blas_thread = _OneBlasThread()


def _forget_threads():
    """A forked child has none of its parent's threads: it makes its own pool when it first needs one."""
    _pool.cache_clear()
    readers.cache_clear()
    _one_blas_thread.__init__()


# Windows has no forks.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def run_chunks(
    work: Callable[[int, int], None], total: int, chunk: int, alone: bool = False, limit_blas: bool = False
) -> None:
    """Call `work(start, stop)` over [0, total) in pieces of at most `chunk`, on `thread_count()` threads.

    Each thread takes one run of pieces; `work` must write to its own piece alone.  `alone` keeps to the
    calling thread, for work that BLAS spreads over threads by itself; `limit_blas` stops BLAS from it.
    An error of `work` leaves when no thread writes any more.
    """
    workers = min(thread_count(), -(-total // chunk)) if total > chunk and not alone else 1
    if workers <= 1:
        if total <= chunk:  # most calls
            return work(0, total) if total else None
        return _run(work, 0, total, chunk)
    bounds = [total * i // workers for i in range(workers + 1)]
    first, *others = [(work, bounds[i], bounds[i + 1], chunk) for i in range(workers)]
    shared: list[tuple[Future[None], Any]] = [(Future(), run) for run in others]
    with _one_blas_thread if limit_blas else nullcontext():
        try:
            _offer(shared)
            _run(*first)
            # What no other thread has begun: the pool may be busy with calls that wait for calls like this.
            for future, run in shared:
                if future.cancel():
                    _run(*run)
        finally:  # those that have begun write to memory of the caller
            wait([future for future, _ in shared if not future.cancel()])
    for future, _ in shared:
        if not future.cancelled():
            future.result()


def _offer(shared):
    """Let the pool begin these runs, as far as it takes work: not while Python shuts down, for one."""
    try:
        for future, run in shared:
            _pool().submit(_begin, future, run)
    except RuntimeError:
        pass


def _begin(future, run):
    """Do a run on a thread of the pool, unless the caller has come first."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(_run(*run))
    except BaseException as error:
        future.set_exception(error)


# The threads of the pool do not inherit the state of the caller.
@quiet
def _run(work, start, stop, chunk):
    for begin in range(start, stop, chunk):
        work(begin, min(begin + chunk, stop))
