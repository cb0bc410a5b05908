"""Models x seeds: what `experiments.dalle` trains in two stages, scores and compares."""

import os
from typing import NamedTuple

import jax

import bounds
from experiments.dalle import build, evaluation, report, training
from experiments.dalle.build import Data, Model
from experiments.dalle.settings import Dalle, Trained
from experiments.runtime import settings
from experiments.runtime.fit import Run
from experiments.runtime.results import Row
from experiments.studies import program, study
from experiments.studies.ensemble import train_members
from experiments.studies.study import Point
from experiments.studies.training import identity


class Prepared(NamedTuple):
    """What a study works with: its settings, the data, and models by their names."""

    settings: Dalle
    data: Data
    trained: dict[str, Trained]
    models: dict[str, Model]


def check(asked: Dalle) -> Prepared:
    """Reads the data and makes all models, so that none is refused after another has trained.

    Raises:
      UserError: the data cannot be read, or a model does not fit them.
    """
    data = build.make_data(asked.data, asked.data_dir)
    report.drawn(data, asked.evaluation.captions)
    trained = {name: asked.of_model(name) for name in asked.models}

    def make(name: str) -> Model:
        model = build.make_model(data, trained[name])
        training.make_dvae_run(data, model, trained[name], asked.seeds[0])
        training.make_prior_run(data, model, trained[name], asked.seeds[0], None)
        return model

    return Prepared(asked, data, trained, settings.each(trained, make, "--config.models"))


def run(prepared: Prepared, point: Point, folder: str) -> list[Row]:
    """Trains the models of a point, scores each on the test images and draws from the first."""
    rows, params = train_and_score(prepared, point, folder)
    model, wanted = prepared.models[point.name], prepared.settings.evaluation
    report.draw(prepared.data, model, params[0], wanted, folder)
    return rows


def train_and_score(
    prepared: Prepared, point: Point, folder: str
) -> tuple[list[Row], list[bounds.Params]]:
    """Trains the models of a point and scores each on the test images.

    Args:
      prepared: of `check`.
      point: what to train.
      folder: for metrics and the model's config; the stages have "dvae" and "prior" in it.

    Returns:
      (rows, parameters of each seed).
    """
    asked, data = prepared.settings, prepared.data
    own, model = prepared.trained[point.name], prepared.models[point.name]
    named = identity(own, Trained, point.seeds)

    def fit(stage: str, runs: list[Run], named: dict) -> tuple[list[bounds.Params], float]:
        """(parameters of the best step on validation, seconds each)."""
        inside = os.path.join(folder, stage)
        params, seconds = train_members(runs, asked.records, inside, named, best=True)
        return [bounds.Params(*found) for found in params], seconds

    runs = [training.make_dvae_run(data, model, own, seed) for seed in point.seeds]
    # The first stage ends the same whatever the second is trained on; its size is in the state.
    sizes = own.prior.model_dump(include={"network", "num_layers", "width", "num_heads"})
    first, seconds = fit("dvae", runs, {**named, "prior": sizes})
    runs = [
        training.make_prior_run(data, model, own, seed, params)
        for seed, params in zip(point.seeds, first, strict=True)
    ]
    second, more = fit("prior", runs, named)
    rows, params = [], []
    for seed, before, after in zip(point.seeds, first, second, strict=True):
        # An average of parameters that stand still rounds anew at every step: keep what it was of.
        theta = {"decoder": before.theta["decoder"], "prior": after.theta["prior"]}
        params.append(jax.device_get(bounds.Params(theta, before.phi)))
        at = {"model": point.name, "seed": seed}
        rows += evaluation.rows(data, model, params[-1], at, asked)
        rows += study.size_and_time(params[-1], at, seconds + more)
    return rows, params


def show(prepared: Prepared, rows: list[Row], workdir: str) -> None:
    """Prints the table over seeds and writes the figure."""
    report.show(prepared.data, rows, prepared.settings, workdir)


def refuse(asked: Dalle) -> str:
    """Why its log-probabilities are not of the integers of the images."""
    if asked.data.enlarge != 1:
        return "it models enlarged images; set data.enlarge to 1."
    likelihoods = {asked.of_model(name).model.likelihood for name in asked.models}
    if "logit_laplace" in likelihoods:
        return (
            "it models real numbers, the other families integers; set model.likelihood to "
            "discretized_logit_laplace."
        )
    return ""


PARTS = program.Parts("dalle", Dalle, check, run, show, refuse)
FAMILY = program.family(PARTS)
