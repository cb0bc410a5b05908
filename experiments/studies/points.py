"""Points of a study: models that are trained in one go, scored one after another and kept."""

import os
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from absl import logging

from experiments.runtime import cluster, results
from experiments.runtime.results import Row


class Point(Protocol):
    """What is trained in one go; `label` is its name in records and its folder."""

    @property
    def label(self) -> str:
        """The name in records and of the folder; `seeds_label` is its end."""
        ...


P = TypeVar("P", bound=Point)


def groups_of_seeds(seeds: tuple[int, ...], *, together: bool) -> list[tuple[int, ...]]:
    """The seeds that are trained in one go: all where `together`, else each by itself."""
    return [seeds] if together else [(seed,) for seed in seeds]


def seeds_label(seeds: tuple[int, ...]) -> str:
    """How the label of a point tells which seeds it has."""
    text = "_".join(map(str, seeds))
    if len(text) > 50:  # file systems limit the names of folders
        text = f"{seeds[0]}_and_{len(seeds) - 1}_more_{zlib.crc32(text.encode())}"
    return f"seed{text}"


def run_missing(
    record: dict[str, Any],
    points: Sequence[P],
    workdir: str,
    run: Callable[[P, str], list[Row]],
) -> list[Row]:
    """The rows of all points: `run` makes those the record does not hold, and each is saved.

    Args:
      record: of `results.open_record`; rows of no point are taken out of it.
      points: what to run.
      workdir: of the record.
      run: (point, its folder) -> rows.
    """
    labels = {point.label for point in points}
    finished = {r["point"] for r in record["rows"] if "point" in r}
    for number, point in enumerate(points, 1):
        if point.label in finished:
            continue
        logging.info("%d/%d  %s", number, len(points), point.label)
        cluster.stop_if_told()
        rows = run(point, os.path.join(workdir, point.label))
        record["rows"] += [{**r, "point": point.label} for r in rows]
        results.save_record(workdir, record)
    record["rows"] = [r for r in record["rows"] if r.get("point") in labels]
    return record["rows"]
