"""The parent of a process that joined others: signals go to the child, its end comes back."""

import signal
import subprocess
import sys

import pytest
from repository import ROOT

from experiments.runtime import guard

BODY = """
import os, signal, sys, time
from experiments.runtime import guard
def on_terminate(number, frame):
    print("told", flush=True)
    sys.exit(143)
wait = guard._wait
guard._wait = lambda *given: (time.sleep(LATE), wait(*given))
guard.fork()
signal.signal(signal.SIGTERM, on_terminate)
print(os.getpid(), flush=True)
"""


def started(end, late=0.0):
    """A process whose child is there and does `end`; its parent is ready some seconds later."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"LATE = {late}" + BODY + end], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert int(process.stdout.readline()) != process.pid
    return process


@pytest.mark.parametrize(
    ("end", "code", "lost"),
    [
        ("sys.exit(2)", 2, False),
        ("os.abort()", 143, True),
        # It was about to leave, and another one had gone before it.
        ("guard.leaving(2); os.abort()", 2, False),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV, False),
    ],
)
def test_parent_ends_as_its_child_but_for_the_loss_of_another(end, code, lost):
    process = started(end)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert (guard.LOST in err) == lost


@pytest.mark.parametrize("late", [0.0, 0.5])
def test_signal_reaches_the_child(late):
    """Also one that comes before the parent is ready to pass it on."""
    process = started("time.sleep(60)", late)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out.strip()) == (143, "told")


def test_child_ends_with_its_parent():
    process = started("time.sleep(60)")
    process.kill()
    process.communicate(timeout=30)  # to the end of the child, which has the streams too
    assert process.returncode == -signal.SIGKILL
