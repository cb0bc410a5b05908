"""What a run must be like for its numbers to stand beside those of others."""

from typing import Any

from experiments.runtime.errors import UserError


def check(where: str, program: str, config: Any) -> None:
    """Refuses a run whose log-probabilities are not of the same integers.

    Raises:
      UserError: what it models is something else.
    """
    if program == "train" and config.likelihood == "bernoulli":
        raise UserError(
            f"{where} models binarised pixels, the other families integers; set "
            "likelihood to discretized_logistic or categorical in its changes."
        )
    if program == "dalle" and config.enlarge != 1:
        raise UserError(f"{where} models enlarged images; set enlarge to 1 in its changes.")
    if program == "dalle" and config.likelihood == "logit_laplace":
        raise UserError(
            f"{where} models real numbers, the other families integers; set likelihood to "
            "discretized_logit_laplace in its changes."
        )
