"""SIGTERM and Ctrl-C during training: noted, and acted on between two chunks of steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np


class Stop:
    """Whether to stop, and with which exit code.

    Attributes:
      code: 143 after SIGTERM, 130 after Ctrl-C, 0 before either.
    """

    def __init__(self) -> None:
        self.code = 0

    def agreed(self) -> int:
        """The exit code all processes agree on, 0 to go on; to be called by all alike.

        One host may get its signal earlier than another, or alone: all stop at one step.
        """
        if jax.process_count() == 1:
            return self.code
        from jax.experimental import multihost_utils

        return int(np.max(multihost_utils.process_allgather(np.asarray(self.code))))


@contextmanager
def deferred() -> Iterator[Stop]:
    """Within it, SIGTERM and the first Ctrl-C only set `Stop.code`; a second Ctrl-C interrupts."""
    stop = Stop()

    def on_terminate(signum, frame):
        stop.code = 143

    def on_interrupt(signum, frame):
        if stop.code:
            raise KeyboardInterrupt
        stop.code = 130

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, on_terminate),
        signal.SIGINT: signal.signal(signal.SIGINT, on_interrupt),
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
