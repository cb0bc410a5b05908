"""SIGTERM and Ctrl-C where a process must not end at once: noted, and acted on at a safe moment."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


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
        import jax
        import numpy as np

        if jax.process_count() == 1:
            return self.code
        from jax.experimental import multihost_utils

        return int(np.max(multihost_utils.process_allgather(np.asarray(self.code))))


class Stopped(SystemExit):
    """By a signal, outside of training."""


_held: list[Stop] = []


def hold() -> None:
    """Notes both signals from here to the end of the process, as `deferred` does.

    For a process that has joined others: leaving alone, while they wait for it, it would take them
    down, and JAX's own handler would swallow SIGTERM.
    """
    stop = Stop()
    _held.append(stop)
    _note_in(stop)


def held() -> Stop:
    """What `hold` notes in."""
    return _held[-1]


@contextmanager
def deferred() -> Iterator[Stop]:
    """Within it, SIGTERM and the first Ctrl-C only set `Stop.code`; a second Ctrl-C interrupts."""
    if _held:
        yield held()
        return
    stop = Stop()
    before = _note_in(stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def beside(act: Callable[[], T]) -> T:
    """What `act` returns or raises; it is run in a thread of its own.

    Python acts on signals in its main thread, and there not within a call of XLA, which may take
    minutes. While the main thread waits for another it does so at once.
    """
    return ThreadPoolExecutor(1).submit(act).result()


def _note_in(stop: Stop) -> dict[signal.Signals, Callable | Any]:
    """Installs handlers; returns those before."""

    def on_terminate(signum, frame):
        stop.code = 143

    def on_interrupt(signum, frame):
        if stop.code:
            raise KeyboardInterrupt
        stop.code = 130

    handlers = {signal.SIGTERM: on_terminate, signal.SIGINT: on_interrupt}
    return {number: signal.signal(number, handler) for number, handler in handlers.items()}
