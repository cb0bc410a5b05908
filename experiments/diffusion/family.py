"""Models x seeds: what `experiments.diffusion` trains, scores and draws from."""

from typing import NamedTuple

from jaxtyping import PyTree

from experiments.diffusion import build, evaluation, ode, report, schedules, training
from experiments.diffusion.build import Model
from experiments.diffusion.settings import Diffusion, Trained
from experiments.runtime import settings
from experiments.runtime.results import Row
from experiments.studies import images, program, study
from experiments.studies.ensemble import train_members
from experiments.studies.images import Problem
from experiments.studies.study import Point
from experiments.studies.training import identity


class Prepared(NamedTuple):
    """What a study works with: its settings, the data, and models by their names."""

    settings: Diffusion
    problem: Problem
    trained: dict[str, Trained]
    models: dict[str, Model]


def check(asked: Diffusion) -> Prepared:
    """Reads the data and makes all models, so that none is refused after another has trained.

    Raises:
      UserError: the data cannot be read, or a model does not fit them.
    """
    problem = images.make_problem(asked.data.name, asked.data_dir)
    trained = {name: asked.of_model(name) for name in asked.models}

    def make(name: str) -> Model:
        model = build.make_model(problem, trained[name])
        training.make_run(problem, model, trained[name], asked.seeds[0], together=asked.together)
        return model

    return Prepared(asked, problem, trained, settings.each(trained, make, "--config.models"))


def run(prepared: Prepared, point: Point, folder: str) -> list[Row]:
    """Trains the models of a point, scores each on the test images and draws from the first."""
    rows, params = train_and_score(prepared, point, folder)
    model, wanted = prepared.models[point.name], prepared.settings.evaluation
    report.draw(prepared.problem, model, params[0], wanted, folder)
    return rows


def train_and_score(
    prepared: Prepared, point: Point, folder: str
) -> tuple[list[Row], list[PyTree]]:
    """Trains the models of a point and scores each on the test images.

    Args:
      prepared: of `check`.
      point: what to train.
      folder: for metrics and the model's config.

    Returns:
      (rows, parameters of each seed).
    """
    asked, problem = prepared.settings, prepared.problem
    own, model = prepared.trained[point.name], prepared.models[point.name]
    runs = [training.make_run(problem, model, own, seed) for seed in point.seeds]
    named = identity(own, Trained, point.seeds)
    params, seconds = train_members(runs, asked.records, folder, named, best=True)
    rows = []
    for found, seed in zip(params, point.seeds, strict=True):
        at = {"model": point.name, "seed": seed}
        rows += evaluation.rows(problem, model, found, at, asked)
        rows += evaluation.single_time(problem, model, found, at, asked)
        if asked.evaluation.ode is not None:
            rows += ode.rows(problem, model, own, found, at, asked, folder)
        if asked.evaluation.schedules:
            rows += schedules.rows(problem, own, found, at, asked)
        rows += study.size_and_time(found, at, seconds)
    return rows, params


def show(prepared: Prepared, rows: list[Row], workdir: str) -> None:
    """Prints the table over seeds and writes the figure."""
    report.show(prepared.problem, rows, prepared.settings, workdir)


PARTS = program.Parts("diffusion", Diffusion, check, run, show)
FAMILY = program.family(PARTS)
