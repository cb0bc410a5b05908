"""The parts of a surgery, each measured once and kept in the record."""

import os
from collections.abc import Callable
from typing import Any

from absl import logging

from experiments.runtime import cluster, results
from experiments.runtime.errors import UserError
from experiments.runtime.results import Row
from experiments.surgery import decomposition, gaps, prior, report, two_dimensions
from experiments.surgery.models import Loaded
from experiments.surgery.settings import Surgery

PARTS: dict[str, Callable[[Loaded, Surgery, list[Row]], list[Row]]] = {
    "decomposition": decomposition.part,
    "training curve": decomposition.curve,
    "optimal prior": prior.part,
    "gap": gaps.part,
}
_PLANE = "iwae_posterior"


def measure(model: Loaded, record: dict[str, Any], settings: Surgery, workdir: str) -> None:
    """Adds to the record the parts of a model that it lacks, and saves each."""

    def there():
        return [r for r in record["rows"] if r["at"]["model"] == model.name]

    _check_source(model, there(), settings.checkpoint, workdir)
    for name, part in PARTS.items():
        if any(r["part"] == name for r in there()):
            logging.info("%s, %s: there already.", model.name, name)
            continue
        cluster.stop_if_told()
        logging.info("%s, %s.", model.name, name)
        _add(record, workdir, name, model, part(model, settings, there()))


def measure_plane(
    model: Loaded, record: dict[str, Any], settings: Surgery, workdir: str
) -> list[str]:
    """Measures and draws the model with two latent dimensions; returns the paths of the figure."""
    there = [r for r in record["rows"] if r["at"]["model"] == model.name]
    _check_source(model, there, "best", workdir)
    paths = [os.path.join(workdir, f"{_PLANE}.{suffix}") for suffix in ("png", "svg")]
    if there and cluster.on_first(lambda: all(map(os.path.exists, paths))):
        logging.info("%s: there already.", model.name)
        return paths
    logging.info("%s.", model.name)
    plane = two_dimensions.measure(model, settings)
    rows = two_dimensions.rows(plane)
    # The figure comes first, so that rows in the record mean that it was drawn as well.
    paths = report.draw_plane(model, plane, rows, workdir)
    record["rows"] = [r for r in record["rows"] if r["at"]["model"] != model.name]
    _add(record, workdir, _PLANE, model, rows)
    return paths


def _add(record: dict[str, Any], workdir: str, name: str, model: Loaded, rows: list[Row]) -> None:
    record["rows"] += [{**r, "part": name, **model.source} for r in rows]
    results.save_record(workdir, record)


def _check_source(model: Loaded, rows: list[Row], checkpoint: str, workdir: str) -> None:
    for found in rows:
        if {name: found.get(name) for name in model.source} != model.source:
            raise UserError(
                f"{workdir} holds a surgery of step {found['step']} of {model.name}, and "
                f"checkpoint={checkpoint} is step {model.source['step']} of it or of "
                "another training now; choose another --workdir."
            )
