"""Signal-to-noise ratios that `experiments.snr` measured, with the setting they are of."""

from typing import Any, NamedTuple

import numpy as np

from experiments.runtime import paths, results
from experiments.runtime.errors import UserError
from experiments.runtime.results import Row
from experiments.snr.gaussian import LOW_NOISE, Setting
from experiments.snr.settings import Gaussian, parse

# What the page calls them, and the names of their rows.
SERIES = {
    "theta": "theta pathwise", "phi": f"phi {LOW_NOISE}", "plain": "phi pathwise",
    "dreg": "phi dreg",
}  # fmt: skip


class Measured(NamedTuple):
    """A run of the Gaussian toy.

    Attributes:
      name: by the user.
      settings: of the run.
      delta: mean of q minus that of the posterior, at the datum, [D].
      offset: the datum minus mu, [D].
      series: name of `SERIES` -> [K, value, low, high] of each point.
      environment: versions and machine of the run.
    """

    name: str
    settings: Gaussian
    delta: np.ndarray
    offset: np.ndarray
    series: dict[str, list[list[float]]]
    environment: dict[str, Any]


def load(name: str, folder: str) -> Measured:
    """The run in a folder.

    Args:
      name: of the run; its flag is --config.runs.NAME.
      folder: its --workdir.

    Raises:
      UserError: there is none, it is of something else, or it has not come to its end.
    """
    flag = f"--config.runs.{name}"
    where = f"{flag}={folder}"
    try:
        record = results.load(paths.local(flag, folder))
        of_toy = record["experiment"] == "snr" and record["config"]["problem"] == "gaussian"
        rows, environment = list(record["rows"]), dict(record["environment"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{where} has no readable results; name the --workdir of a finished run of "
            "experiments.snr on the Gaussian toy, as make snr and make snr-far leave one."
        ) from None
    if not of_toy:
        raise UserError(
            f"{where} holds results of something else; name a run of experiments.snr with "
            "--config=configs/snr_gaussian.py."
        )
    settings = parse(record["config"])
    assert isinstance(settings, Gaussian)
    series = {key: _points(rows, wanted) for key, wanted in SERIES.items()}
    if any(len(points) < len(settings.num_samples) for points in series.values()):
        raise UserError(
            f"{where} lacks points, or the estimators pathwise and dreg; run experiments.snr there "
            "again, with the same command, or name another run."
        )
    toy = Setting(settings.seed, settings.toy, settings.toy.num_dims)
    delta, theta = np.asarray(toy.delta, np.float64), np.asarray(toy.params.theta, np.float64)
    offset = np.asarray(toy.x, np.float64) - theta
    return Measured(name, settings, delta, offset, series, environment)


def _points(rows: list[Row], name: str) -> list[list[float]]:
    own = [r for r in rows if r["name"] == name and "K" in r["at"]]
    return [[r["at"]["K"], r["value"], r["low"], r["high"]] for r in own]
