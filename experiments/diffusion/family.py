"""Models x seeds: what `experiments.diffusion` trains, scores and draws from."""

from typing import Any

from jaxtyping import PyTree

from experiments.diffusion import build, evaluation, ode, report, schedules, training
from experiments.diffusion.build import Model
from experiments.diffusion.settings import Diffusion, Trained
from experiments.runtime.results import Row
from experiments.studies import images, program, study
from experiments.studies.study import Prepared


def check(asked: Diffusion) -> Prepared:
    """Reads the data and makes all models.

    Raises:
      UserError: the data cannot be read, or a model does not fit them.
    """
    problem = images.make_problem(asked.data.name, asked.data_dir)

    def make(own: Trained) -> Model:
        model = build.make_model(problem, own)
        training.make_run(problem, model, own, asked.seeds[0], together=asked.together)
        return model

    return study.prepare(asked, problem, make)


def score(
    prepared: Prepared, name: str, params: PyTree, at: dict[str, Any], folder: str
) -> list[Row]:
    """The rows of one model on the test images."""
    asked, problem, model = prepared.settings, prepared.data, prepared.models[name]
    rows = evaluation.rows(problem, model, params, at, asked)
    rows += evaluation.single_time(problem, model, params, at, asked)
    if asked.evaluation.ode is not None:
        rows += ode.rows(problem, model, prepared.trained[name], params, at, asked, folder)
    if asked.evaluation.schedules:
        rows += schedules.rows(problem, prepared.trained[name], params, at, asked)
    return rows


RUN = program.run_of(program.one_stage(training.make_run), score, report.draw)
PARTS = program.Parts("diffusion", Diffusion, check, RUN, report.show)
FAMILY = program.family(PARTS)
