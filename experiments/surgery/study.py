"""The parts of a surgery, each measured once and kept in the record."""

import os
from collections.abc import Callable
from typing import Any

from absl import logging

from experiments.runtime import checks, results
from experiments.runtime.errors import UserError
from experiments.runtime.results import Row
from experiments.studies import held_out
from experiments.surgery import build, decomposition, gaps, prior, report, two_dimensions

PARTS: dict[str, Callable[[build.Loaded, Any, list[Row]], list[Row]]] = {
    "decomposition": decomposition.part,
    "training curve": decomposition.curve,
    "optimal prior": prior.part,
    "gap": gaps.part,
}
_PLANE = "iwae_posterior"


def check_config(config: Any) -> None:
    """Refuses what makes no sense before anything is trained."""
    held_out.check_passes(config)
    checks.whole(config, 0, "train_images", "test_images", "gap_images")
    checks.whole(
        config, 2, "draws", "curve_draws", "batch", "num_batches", "gap_draws", "gap_samples"
    )
    checks.whole(config, 1, "posteriors_per_pass", "gap_steps", "gap_step_samples")
    checks.whole(config, 1, "picture_sets", "picture_draws")
    checks.whole(config, 8, "picture_nodes")
    checks.whole(config, -1, "member")
    if config.checkpoint not in ("best", "latest") and not config.checkpoint.isdecimal():
        raise UserError(
            f"config.checkpoint must be best, latest or a step, got {config.checkpoint!r}."
        )
    checks.positive(config, "gap_learning_rate")
    checks.distinct(config, "picture_samples")
    if not all(checks.is_whole(k) and k >= 2 for k in config.picture_samples):
        raise UserError(
            "config.picture_samples must hold whole numbers of at least 2, e.g. (2, 8, 64), got "
            f"{tuple(config.picture_samples)}."
        )
    if config.train_images == 1:
        raise UserError("config.train_images must be 0 (all) or at least 2, got 1.")
    checks.seeds("seed", [config.seed])
    checks.seeds("binarization_seed", [config.binarization_seed])


def measure(model: build.Loaded, record: dict[str, Any], config: Any, workdir: str) -> None:
    """Adds to the record the parts of a model that it lacks, and saves each."""

    def there():
        return [r for r in record["rows"] if r["at"]["model"] == model.name]

    _check_source(model, there(), config, workdir)
    for name, part in PARTS.items():
        if any(r["part"] == name for r in there()):
            logging.info("%s, %s: there already.", model.name, name)
            continue
        logging.info("%s, %s.", model.name, name)
        _add(record, workdir, name, model, part(model, config, there()))


def measure_plane(
    model: build.Loaded, record: dict[str, Any], config: Any, workdir: str
) -> list[str]:
    """The same for the model with two dimensions, with its figure; returns the figure's paths."""
    there = [r for r in record["rows"] if r["at"]["model"] == model.name]
    _check_source(model, there, config, workdir)
    paths = [os.path.join(workdir, f"{_PLANE}.{suffix}") for suffix in ("png", "svg")]
    if there and all(map(os.path.exists, paths)):
        logging.info("%s: there already.", model.name)
        return paths
    logging.info("%s.", model.name)
    plane = two_dimensions.measure(model, config)
    rows = two_dimensions.rows(plane)
    # The figure first: with the rows in the record, both are there.
    paths = report.draw_plane(model, plane, rows, workdir)
    record["rows"] = [r for r in record["rows"] if r["at"]["model"] != model.name]
    _add(record, workdir, _PLANE, model, rows)
    return paths


def _add(
    record: dict[str, Any], workdir: str, name: str, model: build.Loaded, rows: list[Row]
) -> None:
    record["rows"] += [{**r, "part": name, **model.source} for r in rows]
    results.save_record(workdir, record)


def _check_source(model: build.Loaded, rows: list[Row], config: Any, workdir: str) -> None:
    for found in rows:
        if {name: found.get(name) for name in model.source} != model.source:
            raise UserError(
                f"{workdir} holds a surgery of step {found['step']} of {model.name}, and "
                f"checkpoint={config.checkpoint} is step {model.source['step']} of it or of "
                "another training now; choose another --workdir."
            )
