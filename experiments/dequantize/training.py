"""How a model of integers is trained: its objective, its run, its validation."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

import bounds
from experiments.dequantize.build import Model
from experiments.runtime import checks
from experiments.runtime.errors import UserError
from experiments.runtime.fit import Run
from experiments.runtime.optimizers import make_optimizer
from experiments.runtime.trainer import from_objective
from experiments.studies import held_out
from experiments.studies.images import Problem, as_images, training_stream
from experiments.vae import build as vae

EXACT = "exact"  # the objective that needs no noise
STATISTICS = 128  # images that start the activation norms, as in Flow++


def make_objective(model: Model, config: Any, *, noise_only: bool = False) -> bounds.Objective:
    """The exact log P(x), or any bound of `experiments.train` on it, with one dropout mask a datum.

    With `noise_only` the noise alone is trained, for a density that stays as it is evaluated.

    Raises:
      UserError: the objective is unknown, or impossible for this density and noise.
    """
    if config.objective == EXACT:
        log_prob = model.density.log_prob
        if log_prob is None:
            raise UserError(f"config.density={config.density} has no exact objective.")
        rate = config.dropout
        return lambda params, key, x: log_prob(params.theta, x, key if rate > 0 else None)
    if model.density.log_density is None:
        raise UserError(f"config.density={config.density} is of integers; its objective is exact.")
    checks.whole(config, 1, "num_samples")
    vae.make_objective(model.latent(), config)  # refuses what is wrong before any key is there

    def objective(params, key, x):
        dropout, key = jax.random.split(key)
        latent = model.latent(dropout if config.dropout > 0 else None, noise_only=noise_only)
        if noise_only:
            params = bounds.Params(jax.lax.stop_gradient(params.theta), params.phi)
        return vae.make_objective(latent, config)(params, key, x)

    return objective


def make_run(problem: Problem, model: Model, config: Any, *, theta: PyTree | None = None) -> Run:
    """What `fit` trains.

    With `theta` it is the noise alone, for a density with these parameters.

    Raises:
      UserError: the objective, the optimiser, a size or the seed in the config is wrong.
    """
    checks.whole(config, 1, "batch_size", "validation_samples", "num_steps")
    checks.seeds("seed", [config.seed])
    init_key, order_key, key = jax.random.split(jax.random.key(config.seed), 3)
    train = problem.dataset.train

    def init() -> bounds.Params:
        params = jax.jit(model.init)(init_key, as_images(train[:STATISTICS]))
        return params if theta is None else bounds.Params(theta, params.phi)

    stream = training_stream(problem, order_key, config.batch_size)
    return Run(
        loss_fn=from_objective(make_objective(model, config, noise_only=theta is not None)),
        init=init,
        stream=stream,
        optimizer=make_optimizer(config, stream.steps_per_epoch),
        key=key,
        num_steps=config.num_steps,
        validate=validation(problem, model, config),
        batch_size=config.batch_size,
    )


def validation(
    problem: Problem, model: Model, config: Any
) -> Callable[[bounds.Params], float] | None:
    """parameters -> the ELBO, or log P where it is trained exactly, of the validation images."""
    x = as_images(problem.dataset.validation)
    if not len(x):
        return None
    log_prob = model.density.log_prob

    def value(params, key, x):
        if config.objective == EXACT and log_prob is not None:
            return log_prob(params.theta, x)
        log_w = bounds.log_weights(
            model.latent(), params, key, x, num_samples=config.validation_samples
        )
        return bounds.elbo(log_w)

    # The same noise at every validation, and no key of training.
    key = jax.random.fold_in(jax.random.key(config.seed), 2**32 - 2)
    return held_out.mean_value(value, x, jax.random.split(key, len(x)))
