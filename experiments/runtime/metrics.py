"""Curves of a run: metrics.jsonl for programs, TensorBoard event files for people."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.runtime import cluster
from experiments.runtime.errors import UserError
from experiments.runtime.results import METRICS, write_atomically

TENSORBOARD = "tensorboard"


class Writer:
    """Appends metrics; a run that starts again drops what lies beyond its checkpoint.

    Of several processes the first writes.
    """

    @cluster.by_first
    def __init__(self, workdir: str, step: int):
        """Opens the files of `workdir` to go on from `step`.

        Raises:
          UserError: they cannot be written.
        """
        # Its SummaryWriter writes from a thread of its own, which ends in tracebacks when the
        # disk is full, and one writer overwrites the file of another in the same second.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self._protos: Any = event_pb2
        self._path = os.path.join(workdir, METRICS)
        folder = os.path.join(workdir, TENSORBOARD)
        kept = [entry for entry in read(workdir) if entry["step"] <= step]
        lines = "".join(json.dumps(entry) + "\n" for entry in kept)
        write_atomically(self._path, lines.encode())
        with _explained(folder):
            os.makedirs(folder, exist_ok=True)
            prefix = os.path.join(folder, "events")
            self._board = EventsWriter(prefix, filename_suffix=f".{time.time_ns()}")
            # TensorBoard drops what it has from there on.
            self._add(step + 1, session_log={"status": self._protos.SessionLog.START})
            self._board.flush()

    @cluster.by_first
    def write(self, step: int, values: dict[str, float]) -> None:
        """One line, one step; a number that is not finite becomes null.

        Raises:
          UserError: the line cannot be written.
        """
        from tensorboardX.summary import scalar

        plain = {k: v if math.isfinite(v) else None for k, v in values.items()}
        with _explained(self._path):
            # Opened anew each time: a mounted bucket stores a file when it is closed.
            with open(self._path, "a") as file:
                file.write(json.dumps({"step": step, **plain}) + "\n")
            for name, value in values.items():
                self._add(step, summary=scalar(name, value))
            self._board.flush()

    @cluster.by_first
    def image(self, step: int, name: str, grid: np.ndarray) -> None:
        """An image [height, width] or [height, width, 3] of values in [0, 1]."""
        from tensorboardX.summary import image

        picture = image(name, grid, dataformats="HWC" if grid.ndim == 3 else "HW")
        with _explained(os.path.dirname(self._path)):
            self._add(step, summary=picture)

    @cluster.by_first
    def close(self) -> None:
        """Closes the event file.

        Raises:
          UserError: what is left cannot be written.
        """
        with _explained(os.path.dirname(self._path)):
            self._board.close()

    def _add(self, step: int, **content: Any) -> None:
        event = self._protos.Event(wall_time=time.time(), step=step, **content)
        self._board.write_event(event)


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}.") from None


def seconds_spent(workdir: str) -> float:
    """How long training took so far, by its last line; what was lost and repeated counts once."""
    lines = read(workdir)
    return lines[-1].get("seconds") or 0.0 if lines else 0.0


def read(workdir: str) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl in order, without those that are damaged or were cut off."""
    path = os.path.join(workdir, METRICS)
    if not os.path.exists(path):
        return []
    entries = []
    with open(path, errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                entries.append({**entry, "step": int(entry["step"])})
    return entries
