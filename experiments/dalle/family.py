"""Models x seeds: what `experiments.dalle` trains in two stages, scores and compares."""

import os
from typing import Any

import jax

import bounds
from experiments.dalle import build, evaluation, report, training
from experiments.dalle.build import Model
from experiments.dalle.settings import Dalle, Trained
from experiments.runtime.fit import Run
from experiments.runtime.results import Row
from experiments.studies import program, study
from experiments.studies.ensemble import train_members
from experiments.studies.study import Point, Prepared
from experiments.studies.training import identity


def check(asked: Dalle) -> Prepared:
    """Reads the data and makes all models.

    Raises:
      UserError: the data cannot be read, or a model does not fit them.
    """
    data = build.make_data(asked.data, asked.data_dir)
    report.drawn(data, asked.evaluation.captions)

    def make(own: Trained) -> Model:
        model = build.make_model(data, own)
        training.make_dvae_run(data, model, own, asked.seeds[0])
        training.make_prior_run(data, model, own, asked.seeds[0], None)
        return model

    return study.prepare(asked, data, make)


def train(prepared: Prepared, point: Point, folder: str) -> tuple[list[bounds.Params], float]:
    """Trains the models of a point in two stages, in folders "dvae" and "prior".

    Returns:
      (parameters of each seed, seconds of each).
    """
    data, records = prepared.data, prepared.settings.records
    own, model = prepared.trained[point.name], prepared.models[point.name]
    named = identity(own, Trained, point.seeds)

    def fit(stage: str, runs: list[Run], named: dict) -> tuple[list[bounds.Params], float]:
        """(parameters of the best step on validation, seconds each)."""
        inside = os.path.join(folder, stage)
        params, seconds = train_members(runs, records, inside, named, best=True)
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
    found = []
    for before, after in zip(first, second, strict=True):
        # An average of parameters that stand still rounds anew at every step: keep what it was of.
        theta = {"decoder": before.theta["decoder"], "prior": after.theta["prior"]}
        found.append(jax.device_get(bounds.Params(theta, before.phi)))
    return found, seconds + more


def score(
    prepared: Prepared, name: str, params: bounds.Params, at: dict[str, Any], folder: str
) -> list[Row]:
    """The rows of one model on the test images."""
    del folder
    return evaluation.rows(prepared.data, prepared.models[name], params, at, prepared.settings)


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


RUN = program.run_of(train, score, report.draw)
PARTS = program.Parts("dalle", Dalle, check, RUN, report.show, refuse)
FAMILY = program.family(PARTS)
