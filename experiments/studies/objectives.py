"""Objectives by name: any bound of the library for any latent-variable model."""

import functools
from collections.abc import Callable

import bounds
from experiments.runtime.errors import UserError
from experiments.studies.settings import Objective

Make = Callable[[bounds.LatentModel, Objective], bounds.Objective]


def _pathwise(bound: Callable) -> Make:
    return lambda model, o: bounds.pathwise(model, num_samples=o.num_samples, bound=bound)


OBJECTIVES: dict[str, Make] = {
    "elbo": _pathwise(bounds.elbo),
    "iwae": _pathwise(bounds.iwae),
    "ciwae": lambda model, o: _pathwise(functools.partial(bounds.ciwae, beta=o.beta))(model, o),
    "renyi": lambda model, o: _pathwise(functools.partial(bounds.renyi, alpha=o.alpha))(model, o),
    "miwae": lambda model, o: bounds.miwae(
        model, num_groups=o.num_groups, num_samples=o.num_samples
    ),
    "piwae": lambda model, o: bounds.piwae(
        model, num_groups=o.num_groups, num_samples=o.num_samples
    ),
    "stl": lambda model, o: bounds.stl(model, num_samples=o.num_samples),
    "dreg": lambda model, o: bounds.dreg(model, num_samples=o.num_samples),
    "vimco": lambda model, o: bounds.vimco(model, num_samples=o.num_samples),
    "rloo": lambda model, o: bounds.rloo(model, num_samples=o.num_samples),
    "ovis": lambda model, o: bounds.ovis(model, num_samples=o.num_samples),
    "reinforce": lambda model, o: bounds.reinforce(model, num_samples=o.num_samples),
    "rws": lambda model, o: bounds.rws(model, num_samples=o.num_samples),
}


def make_objective(
    model: bounds.LatentModel, objective: Objective, simulate: Callable | None = None
) -> bounds.Objective:
    """The objective of a model.

    Args:
      model: what it is a bound of.
      objective: its settings.
      simulate: (theta, key) -> (x, z), for rws where `objective.sleep` asks for that phase.

    Raises:
      UserError: the library refuses it for this model, or the sleep phase cannot be simulated.
    """
    if objective.name == "rws" and objective.sleep and simulate is None:
        raise UserError("--config.objective.sleep must be False: this model has no sleep phase.")
    try:
        if objective.name == "rws" and objective.sleep:
            return bounds.rws(model, num_samples=objective.num_samples, simulate=simulate)
        return OBJECTIVES[objective.name](model, objective)
    except (TypeError, ValueError) as error:
        raise UserError(f"--config.objective.name={objective.name}: {error}") from None
