"""SIGTERM and Ctrl-C during training: noted, and acted on between two chunks of steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


_held: list[tuple[Stop, Any]] = []


def hold() -> None:
    """Notes SIGTERM from here on; `deferred` acts on it.

    For a process that has joined others: leaving alone, while they wait for it, it would take them
    down, and JAX's own handler would swallow the signal.
    """
    stop = Stop()

    def on_terminate(signum, frame):
        stop.code = 143

    _held.append((stop, signal.signal(signal.SIGTERM, on_terminate)))


def release() -> None:
    """Ends `hold` where `deferred` does not follow."""
    if _held:
        _, on_exit = _held.pop()
        signal.signal(signal.SIGTERM, on_exit)


@contextmanager
def deferred() -> Iterator[Stop]:
    """Within it, SIGTERM and the first Ctrl-C only set `Stop.code`; a second Ctrl-C interrupts."""
    stop, on_exit = _held.pop() if _held else (Stop(), signal.getsignal(signal.SIGTERM))

    def on_terminate(signum, frame):
        stop.code = 143

    def on_interrupt(signum, frame):
        if stop.code:
            raise KeyboardInterrupt
        stop.code = 130

    signal.signal(signal.SIGTERM, on_terminate)
    before = {
        signal.SIGTERM: on_exit,
        signal.SIGINT: signal.signal(signal.SIGINT, on_interrupt),
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
