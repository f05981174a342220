"""torch.compile within limits: it may be missing, fail, or take a minute for one function."""

import importlib.util
import signal
from contextlib import contextmanager

# A function that takes longer to compile than this ends all compiling of the run.
PATIENCE = 60


class Compiler:
    """Compiles functions until one takes too long; `reason` then says why there are no more."""

    def __init__(self, reason: str = ""):
        self.reason = reason
        if not reason and importlib.util.find_spec("triton") is None:
            self.reason = "Triton is not installed"

    def compile(self, function):
        import torch

        # Every batch is compiled for its own shapes: the fastest that torch has.
        torch._dynamo.reset()
        return torch.compile(function, dynamic=False)

    @contextmanager
    def patient(self):
        """A context for the first call, in which the compiling happens."""
        try:
            with at_most(PATIENCE):
                yield
        except TimeoutError as error:
            self.reason = f"torch.compile {error}"
            raise


@contextmanager
def at_most(seconds: float):
    """TimeoutError in the main thread if the body takes longer."""

    def stop(number, frame):
        raise TimeoutError(f"took more than {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
