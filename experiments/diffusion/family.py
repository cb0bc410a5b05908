"""Models x seeds: what `experiments.diffusion` trains, scores and draws from."""

from typing import Any

from jaxtyping import PyTree

from experiments.diffusion import build, evaluation, training
from experiments.diffusion.build import Model
from experiments.runtime import fit
from experiments.runtime.results import Row
from experiments.studies import study
from experiments.studies.ensemble import train_members
from experiments.studies.images import Problem
from experiments.studies.study import Point

_OF_SCORING = (
    "evaluation_images", "evaluation_times", "evaluation_seed", "images_per_pass", "sample_grid",
)  # fmt: skip


def settings(config: Any, name: str, seed: int) -> Any:
    """The config of one model, see `study.settings`."""
    own = study.settings(config, name, seed, scoring=_OF_SCORING)
    own.together = config.together
    return own


def check(problem: Problem, config: Any, points: list[Point]) -> dict[str, Model]:
    """Makes all models, and refuses what only a later one would stumble over.

    Raises:
      UserError: a setting of any model, of training or of its evaluation, is wrong.
    """
    evaluation.check_config(config)
    study.check_compare(config)
    made = {}
    for name in dict.fromkeys(point.name for point in points):
        own = settings(config, name, points[0].seeds[0])
        fit.check_config(own)
        made[name] = build.make_model(problem, own)
        training.make_run(problem, made[name], own)
    return made


def run(
    problem: Problem,
    model: Model,
    point: Point,
    config: Any,
    folder: str,
    checkpoint_dir: str | None = None,
) -> tuple[list[Row], list[PyTree]]:
    """Trains the models of a point and scores each on the test images.

    Args:
      problem: the data.
      model: of `check`, by the point's name.
      point: what to train.
      config: of the study.
      folder: for metrics and the model's config.
      checkpoint_dir: None for a folder in `folder`.

    Returns:
      (rows, parameters of each seed).
    """
    each = [settings(config, point.name, seed) for seed in point.seeds]
    runs = [training.make_run(problem, model, own) for own in each]
    # A model's own config: another study, or another evaluation, may go on with the same folders.
    named = {k: v for k, v in each[0].to_dict().items() if k not in (*_OF_SCORING, "together")}
    if len(runs) > 1:
        named["seed"] = [own.seed for own in each]
    params, seconds = train_members(runs, each[0], folder, named, checkpoint_dir, best=True)
    rows = []
    for found, seed in zip(params, point.seeds, strict=True):
        at = {"model": point.name, "seed": seed}
        rows += evaluation.rows(problem, model, found, at, config)
        rows += evaluation.single_time(problem, model, found, at, config)
        rows += study.size_and_time(found, at, seconds)
    return rows, params
