"""The parent of a process that joined others, which gives a scheduler the right exit code.

Where another process of the run is gone, JAX ends this one by SIGABRT, past all Python, and no
scheduler would start that again. So the program runs in a child, and its parent, which does
nothing but wait, says 143 in place of the signal, or what the child had said it would end with.
"""

import contextlib
import os
import signal
import socket
import sys
import threading

LOST = (
    "Another process of this run is gone. What is finished is kept; the same command on every host "
    "continues from there."
)
_PASSED_ON = (signal.SIGTERM, signal.SIGINT)
_to_parent: list[socket.socket] = []


def fork() -> None:
    """Returns in a child; the parent passes signals on to it and ends as it does.

    To be called before JAX starts its threads.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    ours, of_child = socket.socketpair()
    # A signal waits until the parent can pass it on.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    child = os.fork()
    if child:
        of_child.close()
        _wait(child, ours, before)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    ours.close()
    os.setpgid(0, 0)  # Ctrl-C of a terminal reaches the parent alone, which passes it on
    _to_parent.append(of_child)
    threading.Thread(target=_end_with_parent, args=(of_child,), daemon=True).start()


def leaving(code: int) -> None:
    """Tells the parent, if there is one, what this process ends with, however it does."""
    for parent in _to_parent:
        with contextlib.suppress(OSError):
            parent.send(bytes([code]))


def _wait(child: int, of_child: socket.socket, mask: set[int]) -> None:
    def pass_on(number, frame):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == -signal.SIGABRT:
        of_child.setblocking(False)
        said = b""
        with contextlib.suppress(OSError):
            said = of_child.recv(1)
        if not said:
            print(LOST, file=sys.stderr, flush=True)
        code = said[0] if said else 143
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _end_with_parent(parent: socket.socket) -> None:
    """A process without its parent is one that was killed."""
    with contextlib.suppress(OSError):
        parent.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)
