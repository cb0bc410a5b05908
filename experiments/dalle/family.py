"""Models x seeds: what `experiments.dalle` trains in two stages, scores and compares."""

import os
from typing import Any

import jax
from ml_collections import ConfigDict

import bounds
from experiments.dalle import build, evaluation, training
from experiments.dalle.build import Data, Model
from experiments.runtime import checks, fit
from experiments.runtime.results import Row
from experiments.studies import study
from experiments.studies.ensemble import train_members
from experiments.studies.study import Point

_OF_SCORING = (
    "evaluation_images", "evaluation_draws", "evaluation_samples", "evaluation_temperatures",
    "evaluation_seed", "images_per_pass", "samples_per_pass", "sample_grid", "captions",
)  # fmt: skip
# Fields of the second stage: the first ends the same whatever they say.
_OF_PRIOR = (
    "dropout", "tokens", "text_weight", "image_weight", "prior_steps", "prior_learning_rate",
)  # fmt: skip
_SHARED = ("text_length", "enlarge")


def settings(config: Any, name: str, seed: int) -> ConfigDict:
    """The config of one model, see `study.settings`."""
    return study.settings(config, name, seed, scoring=(*_OF_SCORING, *_SHARED))


def of_prior(own: ConfigDict) -> ConfigDict:
    """The config of the second stage: its steps and rate in the place of those of the first."""
    changed = ConfigDict(own.to_dict())
    changed.num_steps, changed.learning_rate = own.prior_steps, own.prior_learning_rate
    return changed


def check(data: Data, config: Any, models: list[Point]) -> dict[str, Model]:
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
        checks.whole(own, 1, "prior_steps")
        checks.positive(own, "prior_learning_rate")
        made[name] = build.make_model(data, own)
        training.make_dvae_run(data, made[name], own)
        training.make_prior_run(data, made[name], of_prior(own), None)
    return made


def run(
    data: Data,
    model: Model,
    point: Point,
    config: Any,
    folder: str,
    checkpoint_dir: str | None = None,
) -> tuple[list[Row], list[bounds.Params]]:
    """Trains the models of a point and scores each on the test images.

    Args:
      data: images and captions.
      model: of `check`, by the point's name.
      point: what to train.
      config: of the study.
      folder: for metrics and the model's config; the stages have "dvae" and "prior" in it.
      checkpoint_dir: None for folders in those.

    Returns:
      (rows, parameters of each seed).
    """
    each = [settings(config, point.name, seed) for seed in point.seeds]
    first, seconds = _fit(
        [training.make_dvae_run(data, model, own) for own in each],
        each, "dvae", folder, checkpoint_dir, without=(*_OF_SCORING, *_OF_PRIOR),
    )  # fmt: skip
    changed = [of_prior(own) for own in each]
    runs = [
        training.make_prior_run(data, model, own, params)
        for own, params in zip(changed, first, strict=True)
    ]
    second, more = _fit(runs, each, "prior", folder, checkpoint_dir, without=_OF_SCORING)
    rows, params = [], []
    for seed, before, after in zip(point.seeds, first, second, strict=True):
        # An average of parameters that stand still rounds anew at every step: keep what it was of.
        theta = {"decoder": before.theta["decoder"], "prior": after.theta["prior"]}
        params.append(jax.device_get(bounds.Params(theta, before.phi)))
        at = {"model": point.name, "seed": seed}
        rows += evaluation.rows(data, model, params[-1], at, config)
        rows += study.size_and_time(params[-1], at, seconds + more)
    return rows, params


def _fit(
    runs: list[fit.Run], each: list[ConfigDict], stage: str, folder: str, directory: str | None,
    *, without: tuple[str, ...],
) -> tuple[list[bounds.Params], float]:  # fmt: skip
    """(parameters of the best step on validation, seconds each)."""
    named = {k: v for k, v in each[0].to_dict().items() if k not in without}
    if len(runs) > 1:
        named["seed"] = [own.seed for own in each]
    own = each[0] if stage == "dvae" else of_prior(each[0])
    params, seconds = train_members(
        runs, own, os.path.join(folder, stage), named,
        directory and os.path.join(directory, stage), best=True,
    )  # fmt: skip
    return [bounds.Params(*found) for found in params], seconds
