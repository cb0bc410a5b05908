"""How a model of integers is trained: its objective, its run, its validation."""

from collections.abc import Callable

import jax
from jaxtyping import Array, PyTree

import bounds
from experiments.dequantize.build import Model
from experiments.dequantize.settings import Trained
from experiments.runtime import keys
from experiments.runtime.fit import Run
from experiments.runtime.keys import Purpose
from experiments.runtime.trainer import from_objective
from experiments.studies import objectives, training
from experiments.studies.images import Problem, as_images, training_stream

EXACT = "exact"  # the objective that needs no noise
STATISTICS = 128  # images that start the activation norms, as in Flow++


def make_objective(model: Model, trained: Trained, *, noise_only: bool = False) -> bounds.Objective:
    """The exact log P(x), or any bound on it, with one dropout mask for each datum.

    With `noise_only` the noise alone is trained, for a density that stays as it is evaluated.

    Raises:
      UserError: the objective is impossible for this density and noise.
    """
    rate = trained.model.dropout
    if trained.objective.name == EXACT:
        log_prob = model.density.log_prob
        assert log_prob is not None  # `settings.Trained` sees to it
        return lambda params, key, x: log_prob(params.theta, x, key if rate > 0 else None)
    # Built once without a key, so that mistakes are refused before training.
    objectives.make_objective(model.latent(), trained.objective)

    def objective(params, key, x):
        dropout, key = jax.random.split(key)
        latent = model.latent(dropout if rate > 0 else None, noise_only=noise_only)
        if noise_only:
            params = bounds.Params(jax.lax.stop_gradient(params.theta), params.phi)
        return objectives.make_objective(latent, trained.objective)(params, key, x)

    return objective


def make_run(
    problem: Problem, model: Model, trained: Trained, seed: int, *, theta: PyTree | None = None
) -> Run:
    """What `fit` trains.

    With `theta` the noise alone is trained, for a density with these parameters.

    Raises:
      UserError: the objective does not fit the model, or the batch is larger than the data.
    """

    def init(key: Array) -> bounds.Params:
        params = jax.jit(model.init)(key, as_images(problem.dataset.train[:STATISTICS]))
        return params if theta is None else bounds.Params(theta, params.phi)

    objective = make_objective(model, trained, noise_only=theta is not None)
    return training.make_run(
        keys.of_training(seed),
        trained.optimizer,
        trained.training,
        loss_fn=from_objective(objective, at_once=trained.objective.images_at_once),
        init=init,
        stream=lambda key: training_stream(problem, key, trained.training.batch_size),
        validate=validation(problem, model, trained, seed),
    )


def validation(
    problem: Problem, model: Model, trained: Trained, seed: int
) -> Callable[[bounds.Params], float] | None:
    """parameters -> the ELBO, or log P where it is trained exactly, of the validation images."""
    log_prob = model.density.log_prob

    def value(params, key, x):
        if trained.objective.name == EXACT and log_prob is not None:
            return log_prob(params.theta, x)
        count = trained.training.validation_samples
        return bounds.elbo(bounds.log_weights(model.latent(), params, key, x, num_samples=count))

    images = as_images(problem.dataset.validation)
    return training.validation(value, images, keys.key_for(seed, Purpose.VALIDATION))
