"""Training of diffusion models: by one drawn time for each example of a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

import bounds
from experiments.diffusion.build import Model
from experiments.runtime import checks
from experiments.runtime.checks import known
from experiments.runtime.errors import UserError
from experiments.runtime.fit import Run
from experiments.runtime.optimizers import make_optimizer
from experiments.runtime.trainer import LossFn
from experiments.studies import held_out
from experiments.studies.images import Problem, as_images, training_stream

OBJECTIVES = ("bound", "simple")
TIMES = {
    "uniform": bounds.uniform_times,
    "low_discrepancy": bounds.low_discrepancy_times,
    "importance": bounds.low_discrepancy_times,  # through other probabilities
}
_REMEMBERED = 0.9  # of a running mean of about ten values


def make_run(problem: Problem, model: Model, config: Any) -> Run:
    """What `fit` trains.

    Raises:
      UserError: the objective, the optimiser, a size or the seed in the config is wrong.
    """
    checks.whole(config, 1, "batch_size", "validation_samples", "num_steps")
    checks.seeds("seed", [config.seed])
    init_key, order_key, key = jax.random.split(jax.random.key(config.seed), 3)
    stream = training_stream(problem, order_key, config.batch_size)
    loss_fn = make_loss(model, config)
    return Run(
        loss_fn=loss_fn,
        init=lambda: jax.jit(model.init)(init_key),
        stream=stream,
        optimizer=make_optimizer(config, stream.steps_per_epoch),
        key=key,
        num_steps=config.num_steps,
        validate=validation(problem, model, config),
        batch_size=config.batch_size,
        extra=jnp.zeros(model.num_latents) if config.times == "importance" else (),
    )


def make_loss(model: Model, config: Any) -> LossFn:
    """Minus the bound, or L_simple, by one time for each example.

    Times belong to places in the whole batch: they are the same on any number of devices.

    Raises:
      UserError: the objective or the times are unknown, or do not go together.
    """
    known(config, "objective", dict.fromkeys(OBJECTIVES))
    draw_times = known(config, "times", TIMES)
    continuous, simple = model.timesteps == 0, config.objective == "simple"
    if config.times == "importance" and (continuous or simple or config.together):
        raise UserError(
            "config.times=importance needs steps (config.timesteps above 0), config.objective=bound"
            " and config.together=False: it remembers the losses of every step."
        )
    if simple and continuous:
        raise UserError("config.objective=simple needs steps; set config.timesteps above 0.")
    learned = config.schedule == "vdm_learned"
    if simple and (learned or config.variance == "learned"):
        raise UserError(
            "config.objective=simple trains neither a variance nor a schedule; set "
            "config.objective=bound, or config.variance and config.schedule to fixed ones."
        )

    def loss_fn(params, extra, batch, key, step):
        del step
        time_key, key = jax.random.split(key)
        x, count = batch["x"], batch["x"].shape[0]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
        times = draw_times(time_key, count)

        def prepared(key, params):
            dropout, key = jax.random.split(key)
            dropout = dropout if config.dropout > 0 else None
            return model.make(params, dropout, model.timesteps).model, key

        if continuous:

            def estimate(params, key, x, time):
                made, key = prepared(key, params)
                return bounds.continuous_estimate(made, params, key, x, time)

            found = jax.vmap(estimate, (None, 0, 0, 0))(params, keys, x, times)
            value = jnp.mean(found.value)
            loss = -value
            if learned:
                again = jax.vmap(estimate, (None, 0, 0, 0))
                loss += _variance_alone(again, params, jax.random.clone(keys), x, times)
            return loss, (extra, {"bound": value})

        gamma = model.make(params, None, model.timesteps).model.gamma
        probabilities = jnp.full(gamma.shape, 1 / gamma.size)
        if config.times == "importance":
            known_all = jnp.all(extra > 0)  # until then every step is as likely
            weighted = bounds.importance_probabilities(extra)
            probabilities = jnp.where(known_all, weighted, probabilities)
        t, probability = bounds.discrete_times(times, probabilities)
        if simple:

            def error(key, x, t):
                made, key = prepared(key, params)
                return bounds.noise_error(made, params, key, x, t) / x.size

            loss = jnp.mean(jax.vmap(error)(keys, x, t))
            return loss, (extra, {"squared_error": loss})

        def estimate_of_step(key, x, t, probability):
            made, key = prepared(key, params)
            return bounds.diffusion_estimate(made, params, key, x, t, probability)

        found = jax.vmap(estimate_of_step)(keys, x, t, probability)
        value = jnp.mean(found.value)
        if config.times == "importance":
            extra = _remember(extra, t, jax.lax.stop_gradient(found.term))
        return -value, (extra, {"bound": value})

    return loss_fn


def _variance_alone(estimate, params: PyTree, keys: Array, x: Array, times: Array) -> Array:
    """0, whose gradient in the schedule lowers the variance of the estimate.

    In continuous time the bound does not depend on the schedule between its ends: its gradient
    there is noise, and is replaced by that of the mean square of the drawn term (Kingma et al.
    2021, arXiv 2107.00630, section 5.2).
    """
    fixed = jax.lax.stop_gradient(params)
    found = estimate({**fixed, "schedule": params["schedule"]}, keys, x, times)
    square = jnp.mean(jnp.square(found.term))
    scale = jax.lax.stop_gradient(jnp.sqrt(square) + 1.0)
    instead = square / scale + jnp.mean(found.value)  # the second takes back -value's gradient
    return instead - jax.lax.stop_gradient(instead)


def _remember(mean_squares: Array, t: Array, term: Array) -> Array:
    """Running means of L_t^2; a step that was not drawn keeps its own."""
    size = mean_squares.size
    count = jnp.zeros(size).at[t - 1].add(1.0)
    new = jnp.zeros(size).at[t - 1].add(jnp.square(term)) / jnp.maximum(count, 1.0)
    started = jnp.where(mean_squares > 0, _REMEMBERED * mean_squares + (1 - _REMEMBERED) * new, new)
    return jnp.where(count > 0, started, mean_squares)


def validation(problem: Problem, model: Model, config: Any) -> Callable[[PyTree], float] | None:
    """parameters -> the bound of the validation images, by `validation_samples` times of each."""
    x = as_images(problem.dataset.validation)
    if not len(x):
        return None
    count = config.validation_samples

    def value(params, key, x):
        time_key, key = jax.random.split(key)
        made = model.evaluated(params).model
        times = bounds.low_discrepancy_times(time_key, count)
        steps = made.gamma.size
        t, probability = bounds.discrete_times(times, jnp.full(steps, 1 / steps))
        found = jax.vmap(bounds.diffusion_estimate, (None, None, 0, None, 0, 0))(
            made, params, jax.random.split(key, count), x, t, probability
        )
        return jnp.mean(found.value)

    # The same noise at every validation, and no key of training.
    key = jax.random.fold_in(jax.random.key(config.seed), 2**32 - 2)
    return held_out.mean_value(value, x, jax.random.split(key, len(x)))
