"""Signals that come while the process is in a call that Python cannot interrupt."""

import hashlib
import os
import signal
import threading
import time

import pytest

from experiments.runtime import signals


class _Stopped(BaseException):
    pass


@pytest.mark.parametrize("beside", [True, False])
def test_a_signal_is_heard_at_once_while_work_goes_on_beside(beside):
    """And late, after the work, where that is in the main thread itself."""
    heard, ended, over = [], [], threading.Event()

    def on_terminate(number, frame):
        heard.append(time.perf_counter())
        raise _Stopped

    def work():
        try:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 3_000_000)  # about a second, without the GIL
        finally:
            ended.append(time.perf_counter())
            over.set()

    before = signal.signal(signal.SIGTERM, on_terminate)
    try:
        with pytest.raises(_Stopped):
            signals.beside(work) if beside else work()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert over.wait(60)
    assert (heard[0] < ended[0] - 0.3) == beside


def test_work_beside_returns_and_raises():
    assert signals.beside(lambda: 3) == 3

    def fail():
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        signals.beside(fail)
