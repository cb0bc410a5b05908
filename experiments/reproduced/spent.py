"""The time that the runs of a part took, added up beside its results."""

import contextlib
import json
import os
import time
from collections.abc import Iterator

from experiments.runtime import cluster

FILE = "taken.json"  # in the folder of a part


@contextlib.contextmanager
def timed(folder: str) -> Iterator[None]:
    """Adds to the time that runs of a part took, also where one is stopped.

    Of a folder whose first runs were not timed nothing is told.
    """
    start, start_cpu = time.perf_counter(), time.process_time()
    known = not os.path.isdir(folder) or bool(of(folder))
    try:
        yield
    finally:
        before = of(folder)
        whole = {
            "minutes": before.get("minutes", 0.0) + (time.perf_counter() - start) / 60,
            # Of all cores.
            "cpu_minutes": before.get("cpu_minutes", 0.0) + (time.process_time() - start_cpu) / 60,
        }
        if known and cluster.is_first() and os.path.isdir(folder):
            with open(os.path.join(folder, FILE), "w") as file:
                json.dump(whole, file)


def of(folder: str) -> dict[str, float]:
    """What `timed` has added up; nothing of a folder that it never saw."""
    try:
        with open(os.path.join(folder, FILE)) as file:
            found = json.load(file)
        return {name: float(found[name]) for name in ("minutes", "cpu_minutes")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
