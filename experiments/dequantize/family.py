"""Models x seeds: what `experiments.dequantize` trains, scores and compares."""

import os
import time
from typing import Any, NamedTuple

from ml_collections import ConfigDict

import bounds
from experiments.dequantize import build, evaluation, training
from experiments.dequantize.build import Model
from experiments.runtime import checks, fit
from experiments.runtime.results import Row
from experiments.studies import study
from experiments.studies.ensemble import train_members
from experiments.studies.held_out import mean_row
from experiments.studies.images import Problem
from experiments.studies.study import UNIT, Point
from models import noise

_OF_SCORING = (
    "evaluation_images", "evaluation_samples", "evaluation_seed", "images_per_pass",
    "samples_per_pass", "sample_grid",
)  # fmt: skip
_OF_REFIT = ("refit_noise", "refit_steps")


def settings(config: Any, name: str, seed: int) -> Any:
    """The config of one model, see `study.settings`."""
    return study.settings(config, name, seed, scoring=_OF_SCORING)


class Models(NamedTuple):
    """The models of one name.

    Attributes:
      trained: density and noise of the training.
      evaluated: name of a noise -> the same density with it; empty where there are no bounds. One
        that is fitted to the finished density comes first.
    """

    trained: Model
    evaluated: dict[str, Model]


def check(problem: Problem, config: Any, models: list[Point]) -> dict[str, Models]:
    """Makes all models, and refuses what only a later one would stumble over.

    Raises:
      UserError: a setting of any model, of training or of its evaluation, is wrong.
    """
    evaluation.check_config(config)
    study.check_compare(config)
    made = {}
    for name in dict.fromkeys(point.name for point in models):
        own = settings(config, name, models[0].seeds[0])
        fit.check_config(own)
        model = build.make_model(problem, own)
        training.make_run(problem, model, own)
        evaluated = {own.noise: model} if model.density.log_density else {}
        if own.refit_noise:
            checks.whole(own, 1, "refit_steps")
            changed = _refit_settings(own)
            # The same density, or everything of it would be compiled twice.
            refitted = build.make_model(problem, changed)._replace(density=model.density)
            training.make_run(problem, refitted, changed)
            uniform = model._replace(noise=noise.uniform_noise())
            evaluated = {own.refit_noise: refitted, "uniform": uniform}
        made[name] = Models(model, evaluated)
    return made


def run(
    problem: Problem,
    models: Models,
    point: Point,
    config: Any,
    folder: str,
    checkpoint_dir: str | None = None,
) -> tuple[list[Row], list[bounds.Params]]:
    """Trains the models of a point and scores each on the test images.

    Args:
      problem: the data.
      models: of `check`, by the point's name.
      point: what to train.
      config: of the study.
      folder: for metrics and the model's config.
      checkpoint_dir: None for a folder in `folder`.

    Returns:
      (rows, parameters of each seed).
    """
    each = [settings(config, point.name, seed) for seed in point.seeds]
    model = models.trained
    params, seconds = _train(problem, model, each, folder, checkpoint_dir)
    fitted = params
    if each[0].refit_noise:
        refitted = models.evaluated[each[0].refit_noise]
        fitted = _refit(problem, refitted, each, params, folder, checkpoint_dir)
    rows = []
    for i, seed in enumerate(point.seeds):
        own_noise = each[0].noise if models.evaluated else None
        at = {"model": point.name, "seed": seed, "noise": own_noise}
        start = time.perf_counter()
        exact = evaluation.exact_bits(problem, model, params[i], config)
        if exact is not None:
            spent = (time.perf_counter() - start) / len(exact)
            rows.append(mean_row("exact", at, exact, "exact", unit=UNIT, seconds_per_image=spent))
        for name, evaluated in models.evaluated.items():
            here = {**at, "noise": name}
            rows += evaluation.rows(problem, evaluated, fitted[i], here, config, exact)
        rows += evaluation.round_trip(problem, model, params[i], at, config)
        rows += study.size_and_time(params[i], at, seconds)
    return rows, params


def _train(
    problem: Problem, model: Model, each: list[ConfigDict], folder: str, directory: str | None
) -> tuple[list[bounds.Params], float]:
    runs = [training.make_run(problem, model, own) for own in each]
    return _fit(runs, each, folder, directory)


def _fit(
    runs: list[fit.Run], each: list[ConfigDict], folder: str, directory: str | None, **extra: Any
) -> tuple[list[bounds.Params], float]:
    """(parameters of the best step on validation, seconds each); `extra` tells it from others."""
    # A model's own config: another study, or another evaluation, may go on with the same folders.
    named = {k: v for k, v in each[0].to_dict().items() if k not in (*_OF_SCORING, *_OF_REFIT)}
    if len(runs) > 1:
        named["seed"] = [own.seed for own in each]
    params, seconds = train_members(runs, each[0], folder, named | extra, directory, best=True)
    return [bounds.Params(*own) for own in params], seconds


def _refit_settings(own: ConfigDict) -> ConfigDict:
    changed = ConfigDict(own.to_dict())
    changed.noise, changed.objective, changed.num_samples = own.refit_noise, "elbo", 1
    changed.num_steps = own.refit_steps
    return changed


def _refit(
    problem: Problem, model: Model, each: list[ConfigDict], params: list[bounds.Params],
    folder: str, directory: str | None,
) -> list[bounds.Params]:  # fmt: skip
    """Noise fitted by the ELBO to densities that stay as they are evaluated.

    What a density was trained with then no longer decides how tightly it is evaluated.
    """
    changed = [_refit_settings(own) for own in each]
    runs = [
        training.make_run(problem, model, own, theta=found.theta)
        for own, found in zip(changed, params, strict=True)
    ]
    before = {k: each[0][k] for k in ("noise", "objective", "num_samples", "num_steps")}
    fitted, _ = _fit(
        runs, changed, os.path.join(folder, "refit"),
        directory and os.path.join(directory, "refit"), trained_with=before,
    )  # fmt: skip
    # Their average rounds anew at every step; the densities are those that were trained.
    return [bounds.Params(found.theta, own.phi) for found, own in zip(params, fitted, strict=True)]
