"""Runs on several hosts: each starts the same command with --distributed, and all work as one.

All processes go through a program alike. What one of them alone should do, such as reading and
writing the folder of results, is `on_first`'s, or `by_first`'s where it is a whole function; what
only some of them may be refused is within `together`. In a program of one process these do nothing.
"""

import contextlib
import functools
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, cast

from absl import flags

from experiments.runtime import guard, signals
from experiments.runtime.errors import UserError

T = TypeVar("T")
P = ParamSpec("P")
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the processes of all hosts; every host runs the same command."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0; Cloud TPU, GKE and Slurm need none."
)
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes there are, beside --coordinator_address."
)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which one this is, from 0, beside --coordinator_address."
)
CHECKPOINT_DIR = flags.DEFINE_string(
    "checkpoint_dir", None, "Folder of checkpoints, also gs://...; default WORKDIR/checkpoints."
)
# Seconds until a process is given up that does not answer, or does not come to the end.
_SILENT, _LATE = 60, 30
_BLOCK = 1024  # bytes of a message
_on_first = False  # whether this is process 0 within `on_first`


def join() -> None:
    """Joins the other processes if --distributed says so; before any other use of JAX.

    Raises:
      UserError: the flags do not fit together, or no cluster was found.
    """
    given = [COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value]
    if not DISTRIBUTED.value:
        if any(value is not None for value in given):
            raise UserError("--coordinator_address and its kin need --distributed.")
        return
    if any(value is None for value in given) and any(value is not None for value in given):
        raise UserError(
            "--coordinator_address, --num_processes and --process_id go together: give all three, "
            "or none on Cloud TPU, GKE or Slurm."
        )
    guard.fork()
    import jax

    try:
        jax.distributed.initialize(
            *given, heartbeat_timeout_seconds=_SILENT, shutdown_timeout_seconds=_LATE
        )
    except (ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise UserError(
            f"--distributed: no cluster could be joined ({first.rstrip('.')}); on machines JAX "
            "does not know give --coordinator_address, --num_processes and --process_id."
        ) from None
    signals.hold()
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (process 0 prints)


def size() -> int:
    """How many processes have joined; JAX is not started for it."""
    jax = sys.modules.get("jax")
    return jax.process_count() if jax is not None and jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this is process 0, or the only one."""
    return size() == 1 or sys.modules["jax"].process_index() == 0


def on_first(act: Callable[[], T]) -> T:
    """What `act` returns or raises on process 0, which alone runs it, on every process.

    To be called by all alike; within `act` there is process 0 alone, and what it returns is copied.
    """
    global _on_first
    if _on_first or size() == 1:
        return act()
    result, error = None, None
    if is_first():
        _on_first = True
        try:
            result = act()
        except Exception as raised:
            error = raised
        finally:
            _on_first = False
        _broadcast(_packed(result, error))
    else:
        result, error = pickle.loads(_broadcast(b""))
    if error is not None:
        raise error
    return cast(T, result)


def by_first(function: Callable[P, T]) -> Callable[P, T]:
    """The function with its body run `on_first`."""

    @functools.wraps(function)
    def on_every_process(*arguments: P.args, **named: P.kwargs) -> T:
        return on_first(lambda: function(*arguments, **named))

    return on_every_process


def _packed(result: Any, error: Exception | None) -> bytes:
    """Errors that cannot be copied lose their type."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return pickle.dumps((None if error else result, error))


def _broadcast(message: bytes) -> bytes:
    """The message of process 0."""
    import numpy as np
    from jax.experimental import multihost_utils

    def send(text: bytes, count: int) -> bytes:
        values = np.frombuffer(text.ljust(count, b"\0"), np.uint8).astype(np.int32)
        return np.asarray(multihost_utils.broadcast_one_to_all(values)).astype(np.uint8).tobytes()

    # Few sizes, each of which is compiled: a block, and where that is too small a power of two.
    length = len(message).to_bytes(8, "little")
    head = send(length + message[: _BLOCK - 8], _BLOCK)
    length = int.from_bytes(head[:8], "little")
    if length <= _BLOCK - 8:
        return head[8 : 8 + length]
    return send(message, 1 << (length - 1).bit_length())[:length]


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What one process is refused within it, all are: none is left waiting for another."""
    refused = None
    try:
        yield
    except UserError as error:
        refused = error
    if size() > 1 and not _on_first:
        import numpy as np
        from jax.experimental import multihost_utils

        others = multihost_utils.process_allgather(np.asarray(refused is not None))
        if refused is None and np.any(others):
            refused = UserError("another process of this run was refused; its output says why.")
    if refused is not None:
        raise refused from None


def stop_if_told() -> None:
    """Ends all processes if one of them was told to; to be called by all alike.

    A process without others ends as soon as it is told to.

    Raises:
      SystemExit: 143 after SIGTERM, 130 after Ctrl-C.
    """
    if size() > 1 and not _on_first:
        code = signals.held().agreed()
        if code:
            raise signals.Stopped(code)


# Of gloo on CPUs, NCCL on GPUs and the service that all of them share.
_LOST = ("gloo", "nccl", "coordination service", "barrier", "connection reset", "unavailable:")


def is_lost(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that another process is gone."""
    if error is None or size() == 1:
        return False
    text = str(error).lower()
    return any(word in text for word in _LOST) or is_lost(error.__cause__)


def checkpoints_of(folder: str) -> str:
    """Where the checkpoints of a training lie that has its records in `folder`.

    Under --checkpoint_dir as `folder` lies under --workdir, and in that folder itself if it does
    not; without the flag in `folder`.
    """
    base = CHECKPOINT_DIR.value
    if not base:
        return os.path.join(folder, "checkpoints")
    workdir = os.path.expanduser(flags.FLAGS["workdir"].value or folder)
    inside = os.path.relpath(folder, workdir)
    return base if inside == "." or inside.startswith("..") else os.path.join(base, inside)
