"""What `experiments.snr` asks of a problem, and the estimators a config can name."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import bounds
from experiments.runtime import checks
from experiments.runtime.errors import UserError
from experiments.runtime.results import Row

MOST_DATA = 10**7  # they are drawn at once
MOST_DIMS = 10_000  # the toy has a matrix of as many rows and columns
ESTIMATORS: dict[str, Callable[..., bounds.Objective]] = {
    "pathwise": bounds.pathwise,
    "dreg": bounds.dreg,
    "stl": bounds.stl,
    "elbo": functools.partial(bounds.pathwise, bound=bounds.elbo),
}
"""Estimators by name; `elbo` averages num_samples single-sample gradients."""


class Point(NamedTuple):
    """One setting to measure.

    Attributes:
      label: names the point in progress, log and results.json.
      run: measures it and returns its rows.
    """

    label: str
    run: Callable[[], list[Row]]


class Problem(NamedTuple):
    """A set of points and what is made of them.

    Attributes:
      points: what to measure, each on its own.
      summarise: all rows of the points -> rows drawn from them together (slopes).
      draw: (rows, summary) -> a matplotlib figure.
      columns: heading -> field, for the table of the points.
      notes: sentences printed under the tables.
    """

    points: list[Point]
    summarise: Callable[[list[Row]], list[Row]]
    draw: Callable[[list[Row], list[Row]], Any]
    columns: dict[str, str]
    notes: Callable[[list[Row], list[Row]], list[str]]


def chunk_size(config: Any, elements_per_replicate: int) -> int:
    """Replicates at once so that their samples stay near the caches of a CPU."""
    return max(1, config.chunk_elements // elements_per_replicate)


def check_estimators(names: tuple[str, ...]) -> None:
    """Raises UserError unless they are different names in `ESTIMATORS`."""
    if not names or len(set(names)) < len(names):
        raise UserError(f"config.estimators must name at least one, and none twice, got {names}.")
    for name in names:
        if name not in ESTIMATORS:
            raise UserError(
                f"unknown estimator {name!r} in config.estimators; known: {', '.join(ESTIMATORS)}."
            )


def check_counts(
    field: str, counts: tuple[int, ...], minimum: int = 1, most: int = checks.COUNTS - 1
) -> None:
    """Raises UserError unless the entries are different integers of `minimum` to `most`."""
    if not counts:
        raise UserError(f"config.{field} is empty; list at least one number.")
    for count in counts:
        if not isinstance(count, int) or not minimum <= count <= most:
            at_most = "" if most == checks.COUNTS - 1 else f" and <= {most}"
            raise UserError(
                f"config.{field} must hold integers >= {minimum}{at_most}, got {count!r}."
            )
    if len(set(counts)) != len(counts):
        raise UserError(f"config.{field} lists a number twice: {tuple(counts)}.")


def check_positive(config: Any, *fields: str) -> None:
    """Raises UserError unless each field is above zero."""
    for field in fields:
        if not config[field] > 0:
            raise UserError(f"config.{field} must be positive, got {config[field]}.")


def check_datum(config: Any) -> None:
    """Raises UserError for the number of a datum that is not there."""
    last = config.num_data - 1
    if not 0 <= config.datum <= last:
        raise UserError(f"config.datum must lie between 0 and {last}, got {config.datum}.")
