"""What a run must be like for its numbers to stand beside those of others, and to run at all."""

from typing import Any

from experiments.dalle import build as dalle_build
from experiments.dalle import report as dalle_report
from experiments.dalle import study as dalle_study
from experiments.dequantize import study as dequantize_study
from experiments.diffusion import study as diffusion_study
from experiments.runtime import cli, fit
from experiments.runtime.errors import UserError
from experiments.studies import images, study
from experiments.vae import build, evaluation, report


def check(where: str, program: str, config: Any) -> None:
    """Refuses a run whose log-probabilities are not of the same integers.

    Raises:
      UserError: what it models is something else.
    """
    if program == "train" and config.get("likelihood") == "bernoulli":
        raise UserError(
            f"{where} models binarised pixels, the other families integers; set "
            "likelihood to discretized_logistic or categorical in its changes."
        )
    if program == "dalle" and config.get("enlarge") != 1:
        raise UserError(f"{where} models enlarged images; set enlarge to 1 in its changes.")
    if program == "dalle" and config.get("likelihood") == "logit_laplace":
        raise UserError(
            f"{where} models real numbers, the other families integers; set likelihood to "
            "discretized_logit_laplace in its changes."
        )


def check_settings(program: str, config: Any, scoring: Any) -> None:
    """What a program would refuse, before any other one has trained.

    Args:
      program: of `families`.
      config: of the program; None where it does not run.
      scoring: of `experiments.evaluate`, or None.

    Raises:
      UserError: a setting is wrong, or the config is of another program.
    """
    try:
        if scoring is not None:
            evaluation.check_config(scoring)
            if scoring.split != "test":
                raise UserError(f"a comparison is of test images, not of split={scoring.split}.")
        if config is not None:
            _CHECKS[program](config)
    except (AttributeError, KeyError) as error:
        if cli.missing_field(error) is None:
            raise
        raise UserError(f"its config is not one of experiments.{program}.") from None


def _train(config: Any) -> None:
    fit.check_config(config)
    report.check_config(config)
    build.make_run(build.make_problem(config), config)


def _dequantize(config: Any) -> None:
    dequantize_study.check(images.make_problem(config), config, study.points(config))


def _diffusion(config: Any) -> None:
    diffusion_study.check(images.make_problem(config), config, study.points(config))


def _dalle(config: Any) -> None:
    data = dalle_build.make_data(config)
    dalle_report.drawn(data, config)
    dalle_study.check(data, config, study.points(config))


_CHECKS = {"train": _train, "dequantize": _dequantize, "diffusion": _diffusion, "dalle": _dalle}
