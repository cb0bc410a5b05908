"""Models x seeds: what `experiments.dequantize` trains, scores and compares."""

import os
import time
from typing import Any, NamedTuple

import bounds
from experiments.dequantize import build, evaluation, report, training
from experiments.dequantize.build import Model
from experiments.dequantize.settings import Dequantize, OfModel, Trained
from experiments.runtime import settings
from experiments.runtime.fit import Run
from experiments.runtime.results import Row
from experiments.studies import images, program, study
from experiments.studies.ensemble import train_members
from experiments.studies.held_out import mean_row
from experiments.studies.images import Problem
from experiments.studies.settings import Records
from experiments.studies.study import UNIT, Point, Prepared
from experiments.studies.training import identity
from models import noise


class Models(NamedTuple):
    """The models of one name.

    Attributes:
      trained: density and noise of the training.
      evaluated: name of a noise -> the same density with it; empty where there are no bounds. One
        that is fitted to the finished density comes first.
    """

    trained: Model
    evaluated: dict[str, Model]


def check(asked: Dequantize) -> Prepared:
    """Reads the data and makes all models.

    Raises:
      UserError: the data cannot be read, or a model does not fit them.
    """
    problem = images.make_problem(asked.data.name, asked.data_dir)

    def make(own: OfModel) -> Models:
        model, seed = build.make_model(problem, own), asked.seeds[0]
        training.make_run(problem, model, own, seed)
        evaluated = {own.noise.name: model} if model.density.log_density else {}
        if own.refit.noise:
            changed = _refitted(own)
            # With the same density object, or its functions would be compiled twice.
            refitted = build.make_model(problem, changed)._replace(density=model.density)
            training.make_run(problem, refitted, changed, seed)
            uniform = model._replace(noise=noise.uniform_noise())
            evaluated = {own.refit.noise: refitted, "uniform": uniform}
        return Models(model, evaluated)

    return study.prepare(asked, problem, make)


def run(prepared: Prepared, point: Point, folder: str) -> list[Row]:
    """Trains the models of a point, scores each on the test images and draws from the first."""
    rows, params = train_and_score(prepared, point, folder)
    model = prepared.models[point.name].trained
    return rows + report.draw_samples(
        prepared.data, model, params[0], point.name, prepared.settings.evaluation, folder
    )


def train_and_score(
    prepared: Prepared, point: Point, folder: str
) -> tuple[list[Row], list[bounds.Params]]:
    """Trains the models of a point and scores each on the test images.

    Args:
      prepared: of `check`.
      point: what to train.
      folder: for metrics and the model's config.

    Returns:
      (rows, parameters of each seed).
    """
    asked, problem, models = prepared.settings, prepared.data, prepared.models[point.name]
    own, model = prepared.trained[point.name], models.trained
    runs = [training.make_run(problem, model, own, seed) for seed in point.seeds]
    params, seconds = _fit(runs, own, point.seeds, asked.records, folder)
    fitted = params
    if own.refit.noise:
        fitted = _refit(prepared, point, params, folder)
    rows = []
    for i, seed in enumerate(point.seeds):
        own_noise = own.noise.name if models.evaluated else None
        at = {"model": point.name, "seed": seed, "noise": own_noise}
        start = time.perf_counter()
        exact = evaluation.exact_bits(problem, model, params[i], asked)
        if exact is not None:
            spent = (time.perf_counter() - start) / len(exact)
            rows.append(mean_row("exact", at, exact, "exact", unit=UNIT, seconds_per_image=spent))
        for name, evaluated in models.evaluated.items():
            here = {**at, "noise": name}
            rows += evaluation.rows(problem, evaluated, fitted[i], here, asked, exact)
        rows += evaluation.round_trip(problem, model, params[i], at, asked.evaluation.seed)
        rows += study.size_and_time(params[i], at, seconds)
    return rows, params


def _fit(
    runs: list[Run], own: Trained, seeds: tuple[int, ...], records: Records, folder: str,
    **more: Any,
) -> tuple[list[bounds.Params], float]:  # fmt: skip
    """(parameters at the best step on validation, seconds each).

    `more` are fields that tell this training from others.
    """
    named = identity(own, Trained, seeds, **more)
    params, seconds = train_members(runs, records, folder, named, best=True)
    return [bounds.Params(*found) for found in params], seconds


def _refitted(own: OfModel) -> OfModel:
    """What is trained when noise is fitted to a finished density: the noise, by the ELBO."""
    changes = {
        "noise": {"name": own.refit.noise},
        "objective": {"name": "elbo", "num_samples": 1},
        "training": {"num_steps": own.refit.num_steps},
    }
    return settings.parse(OfModel, settings.merged(settings.dump(own), changes), "--config.refit")


def _refit(
    prepared: Prepared, point: Point, params: list[bounds.Params], folder: str
) -> list[bounds.Params]:  # fmt: skip
    """Noise fitted by the ELBO to densities that stay as they are evaluated.

    How tight the bound on a density is then does not depend on the noise it was trained with.
    """
    own = prepared.trained[point.name]
    model, changed = prepared.models[point.name].evaluated[own.refit.noise], _refitted(own)
    runs = [
        training.make_run(prepared.data, model, changed, seed, theta=found.theta)
        for seed, found in zip(point.seeds, params, strict=True)
    ]
    fitted, _ = _fit(
        runs, changed, point.seeds, prepared.settings.records, os.path.join(folder, "refit"),
        trained_with=settings.dump(own, Trained),
    )  # fmt: skip
    # The average of parameters that stand still is rounded at every step: take those trained.
    return [bounds.Params(found.theta, new.phi) for found, new in zip(params, fitted, strict=True)]


def show(problem: Problem, rows: list[Row], asked: Dequantize, workdir: str) -> None:
    """Prints the tables, writes the figure, and ends with an error where an inverse failed."""
    report.show(problem, rows, asked, workdir)
    evaluation.complain(rows)


PARTS = program.Parts("dequantize", Dequantize, check, run, show)
FAMILY = program.family(PARTS)
