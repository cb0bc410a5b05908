"""Models x seeds: what `experiments.masked` trains, scores and draws from."""

from typing import Any

from jaxtyping import PyTree

from experiments.masked import build, evaluation, report, training
from experiments.masked.settings import Masked, Trained
from experiments.runtime.results import Row
from experiments.studies import images, program, study
from experiments.studies.study import Prepared
from models.masked_tokens import MaskedTokens


def check(asked: Masked) -> Prepared:
    """Reads the data and makes all models.

    Raises:
      UserError: the data cannot be read, or a model does not fit them.
    """
    problem = images.make_problem(asked.data.name, asked.data_dir)
    build.places_of_crop(problem, asked.evaluation.crop)

    def make(own: Trained) -> MaskedTokens:
        model = build.make_model(problem, own)
        training.make_run(problem, model, own, asked.seeds[0])
        return model

    return study.prepare(asked, problem, make)


def score(
    prepared: Prepared, name: str, theta: PyTree, at: dict[str, Any], folder: str
) -> list[Row]:
    """The rows of one model on the test images."""
    del folder
    given = prepared.data, prepared.models[name], theta, at, prepared.settings
    return evaluation.rows(*given) + evaluation.varied(*given)


RUN = program.run_of(program.one_stage(training.make_run), score, report.draw)
PARTS = program.Parts("masked", Masked, check, RUN, report.show)
FAMILY = program.family(PARTS)
