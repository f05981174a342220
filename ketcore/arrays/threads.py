"""Threads: how many a call may use, and work over a range in pieces on them.

As many as NumPy's BLAS is set to, from one pool that is made when it is first needed.
"""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache
from itertools import pairwise
from threading import Condition, Lock

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


class _Pieces:
    """Pieces of a range that several threads work on: each takes the next one until none is left."""

    def __init__(self, work, bounds):
        self.work, self.left = work, deque(pairwise(bounds))
        # Of threads of the pool: how many have a piece, and what failed.
        self.changed, self.running, self.errors = Condition(), 0, []

    def do(self, helpers):
        """Take part as the caller, beside so many threads: when it returns or fails, none writes any more."""
        try:
            _offer(self.help, helpers)
            while (piece := self._next()) is not None:
                self.work(*piece)
        finally:
            self._wait()
            # The pool may keep this for a while: not what it works on.
            self.work = None
        if self.errors:
            error = min(self.errors, key=lambda error: error[0])[1]
            # An error knows this frame: in a circle it would keep arrays of the caller.
            self.errors.clear()
            try:
                raise error
            finally:
                del error

    def _wait(self):
        """Let nobody begin, until those who write are done: what interrupts the caller leaves after that."""
        interrupt = None
        while True:
            try:
                self.left.clear()
                with self.changed:
                    while self.running:
                        self.changed.wait()
                break
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    # The threads of the pool do not inherit the state of the caller.
    @quiet
    def help(self):
        """Take part as a thread of the pool; what comes too late finds nothing to do."""
        while True:
            with self.changed:
                piece = self._next()
                if piece is None:
                    return
                self.running += 1
            try:
                self.work(*piece)
            except BaseException as error:
                self.left.clear()
                self.errors.append((piece, error))
            finally:
                with self.changed:
                    self.running -= 1
                    self.changed.notify()

    def _next(self):
        try:
            return self.left.popleft()
        except IndexError:
            return None


def run_chunks(
    work: Callable[[int, int], None], total: int, chunk: int, alone: bool = False, limit_blas: bool = False
) -> None:
    """Call `work(start, stop)` over [0, total) in pieces of at most `chunk`, on `thread_count()` threads.

    Each thread takes the next piece when it is done with one, since others may have to share their core: with
    threads of other libraries that wait for work without sleeping, for one.  `work` must write to its own
    piece alone.  `alone` keeps to the calling thread, for work that BLAS spreads over threads by itself;
    `limit_blas` stops BLAS from it.  An error of `work` leaves when no thread writes any more.
    """
    workers = min(thread_count(), -(-total // chunk)) if total > chunk and not alone else 1
    if workers <= 1:
        if total <= chunk:  # most calls
            return work(0, total) if total else None
        return _run(work, total, chunk)
    # As many pieces for each thread, of one size.
    count = min(total, workers * -(-total // (workers * chunk)))
    pieces = _Pieces(work, [total * i // count for i in range(count + 1)])
    with _one_blas_thread if limit_blas else nullcontext():
        pieces.do(workers - 1)


def _offer(function, count):
    """Let threads of the pool call it, as far as it takes work: not while Python shuts down, for one."""
    try:
        for _ in range(count):
            _pool().submit(function)
    except RuntimeError:
        pass


@quiet
def _run(work, total, chunk):
    for begin in range(0, total, chunk):
        work(begin, min(begin + chunk, total))
