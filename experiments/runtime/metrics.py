"""Curves of a run: metrics.jsonl for programs, TensorBoard event files for people."""

import json
import math
import os
from typing import Any

import numpy as np

from experiments.runtime.errors import UserError
from experiments.runtime.results import write_atomically

FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"


class Writer:
    """Appends metrics; a run that starts again drops what lies beyond its checkpoint."""

    def __init__(self, workdir: str, step: int):
        """Opens the files of `workdir` to go on from `step`."""
        from tensorboardX import SummaryWriter

        self._path = os.path.join(workdir, FILE)
        kept = [entry for entry in read(workdir) if entry["step"] <= step]
        lines = "".join(json.dumps(entry) + "\n" for entry in kept)
        write_atomically(self._path, lines.encode())
        self._board = SummaryWriter(os.path.join(workdir, TENSORBOARD), purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line, one step; a number that is not finite becomes null.

        Raises:
          UserError: the line cannot be written.
        """
        plain = {k: v if math.isfinite(v) else None for k, v in values.items()}
        try:
            # Opened anew each time: a mounted bucket stores a file when it is closed.
            with open(self._path, "a") as file:
                file.write(json.dumps({"step": step, **plain}) + "\n")
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}.") from None

    def image(self, step: int, name: str, grid: np.ndarray) -> None:
        """An image [height, width] or [height, width, 3] of values in [0, 1]."""
        self._board.add_image(name, grid, step, dataformats="HWC" if grid.ndim == 3 else "HW")

    def close(self) -> None:
        """Closes the event file."""
        self._board.close()


def read(workdir: str) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl in order; a last line that was cut off is left out."""
    path = os.path.join(workdir, FILE)
    if not os.path.exists(path):
        return []
    entries = []
    with open(path) as file:
        for line in file:
            try:
                entries.append(json.loads(line))
            except ValueError:
                break
    return entries
