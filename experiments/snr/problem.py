"""What `experiments.snr` asks of a problem, and the estimators a config can name."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import bounds
from experiments.runtime.results import Row

BETAS = (0.0, 0.1, 0.3, 1.0)  # of the thermodynamic bound
ESTIMATORS: dict[str, Callable[..., bounds.Objective]] = {
    "pathwise": bounds.pathwise,
    "dreg": bounds.dreg,
    "stl": bounds.stl,
    "elbo": functools.partial(bounds.pathwise, bound=bounds.elbo),
    "rloo": bounds.rloo,
    "ovis": bounds.ovis,
    "left sum": functools.partial(
        bounds.pathwise, bound=functools.partial(bounds.thermodynamic, betas=BETAS)
    ),
    "tvo": functools.partial(bounds.tvo, betas=BETAS),
}
"""Estimators by name; `elbo` averages num_samples single-sample gradients, and `rloo` is of it too.

The place of a name is part of its keys: new ones come last.
"""


class Point(NamedTuple):
    """One setting to measure.

    Attributes:
      label: names the point in progress, log and results.json.
      run: measures it and returns its rows.
    """

    label: str
    run: Callable[[], list[Row]]


class Problem(NamedTuple):
    """Points to be measured, and how their rows are summarised, drawn and printed.

    Attributes:
      points: what to measure, each on its own.
      summarize: all rows of the points -> rows drawn from them together (slopes).
      draw: (rows, summary) -> a matplotlib figure.
      columns: heading -> field, for the table of the points.
      notes: sentences printed under the tables.
    """

    points: list[Point]
    summarize: Callable[[list[Row]], list[Row]]
    draw: Callable[[list[Row], list[Row]], Any]
    columns: dict[str, str]
    notes: Callable[[list[Row], list[Row]], list[str]]


def chunk_size(chunk_elements: int, elements_per_replicate: int) -> int:
    """Replicates at once so that their samples stay near the caches of a CPU."""
    return max(1, chunk_elements // elements_per_replicate)
