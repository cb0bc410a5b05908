"""Training of diffusion models: by one drawn time for each example of a batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

import bounds
from experiments.diffusion.build import Model
from experiments.diffusion.settings import Trained
from experiments.runtime import keys
from experiments.runtime.errors import UserError
from experiments.runtime.fit import Run
from experiments.runtime.keys import Purpose
from experiments.runtime.trainer import LossFn
from experiments.studies import training
from experiments.studies.images import Problem, as_images, training_stream

TIMES = {
    "uniform": bounds.diffusion.uniform_times,
    "low_discrepancy": bounds.diffusion.low_discrepancy_times,
    "importance": bounds.diffusion.low_discrepancy_times,  # then weighted
}
_REMEMBERED = 0.9  # of a running mean of about ten values


def make_run(
    problem: Problem, model: Model, trained: Trained, seed: int, *, together: bool = False
) -> Run:
    """What `fit` trains.

    Args:
      problem: the images.
      model: of `build`.
      trained: what is trained, and how.
      seed: of the training.
      together: whether it is trained as one with other seeds.

    Raises:
      UserError: importance sampling of steps with several seeds trained together, or the batch
        is larger than the data.
    """
    remembers = trained.objective.times == "importance"
    if remembers and together:
        raise UserError(
            "--config.objective.times=importance needs --config.together=False: it remembers the "
            "losses of every step."
        )
    return training.make_run(
        keys.of_training(seed),
        trained.optimizer,
        trained.training,
        loss_fn=make_loss(model, trained),
        init=jax.jit(model.init),
        stream=lambda key: training_stream(problem, key, trained.training.batch_size),
        validate=validation(problem, model, trained, seed),
        extra=jnp.zeros(model.num_latents) if remembers else (),
    )


def make_loss(model: Model, trained: Trained) -> LossFn:
    """Minus the bound, L_simple, or the loss of flow matching, by one time for each example.

    Times belong to places in the whole batch: they are the same on any number of devices.
    """
    draw_times, rate = TIMES[trained.objective.times], trained.network.dropout
    continuous, simple = model.timesteps == 0, trained.objective.name == "simple"
    importance = trained.objective.times == "importance"
    learned = trained.chain.schedule == "vdm_learned"

    def loss_fn(params, extra, batch, key, step):
        del step
        time_key, key = jax.random.split(key)
        x, count = batch["x"], batch["x"].shape[0]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
        times = draw_times(time_key, count)

        def prepared(key, params):
            dropout, key = jax.random.split(key)
            dropout = dropout if rate > 0 else None
            return model.make(params, dropout, model.timesteps).model, key

        if trained.objective.name == "flow_matching":

            def velocity_error(key, x, time):
                made, key = prepared(key, params)
                return bounds.diffusion.velocity_error(made, params, key, x, time) / x.size

            loss = jnp.mean(jax.vmap(velocity_error)(keys, x, times))
            return loss, (extra, {"squared_error": loss})

        if continuous:

            def estimate(params, key, x, time):
                made, key = prepared(key, params)
                return bounds.diffusion.continuous_estimate(made, params, key, x, time)

            found = jax.vmap(estimate, (None, 0, 0, 0))(params, keys, x, times)
            value = jnp.mean(found.value)
            loss = -value
            if learned:
                again = jax.vmap(estimate, (None, 0, 0, 0))
                loss += _variance_alone(again, params, jax.random.clone(keys), x, times)
            return loss, (extra, {"bound": value})

        gamma = model.make(params, None, model.timesteps).model.gamma
        probabilities = jnp.full(gamma.shape, 1 / gamma.size)
        if importance:
            known_all = jnp.all(extra > 0)  # until then steps are equally likely
            weighted = bounds.diffusion.importance_probabilities(extra)
            probabilities = jnp.where(known_all, weighted, probabilities)
        t, probability = bounds.diffusion.discrete_times(times, probabilities)
        if simple:

            def error(key, x, t):
                made, key = prepared(key, params)
                return bounds.diffusion.noise_error(made, params, key, x, t) / x.size

            loss = jnp.mean(jax.vmap(error)(keys, x, t))
            return loss, (extra, {"squared_error": loss})

        def estimate_of_step(key, x, t, probability):
            made, key = prepared(key, params)
            return bounds.diffusion.discrete_estimate(made, params, key, x, t, probability)

        found = jax.vmap(estimate_of_step)(keys, x, t, probability)
        value = jnp.mean(found.value)
        if importance:
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
    instead = square / scale + jnp.mean(found.value)  # cancels the gradient of -value in the loss
    return instead - jax.lax.stop_gradient(instead)


def _remember(mean_squares: Array, t: Array, term: Array) -> Array:
    """Running means of L_t^2; a step that was not drawn keeps its own."""
    size = mean_squares.size
    count = jnp.zeros(size).at[t - 1].add(1.0)
    new = jnp.zeros(size).at[t - 1].add(jnp.square(term)) / jnp.maximum(count, 1.0)
    started = jnp.where(mean_squares > 0, _REMEMBERED * mean_squares + (1 - _REMEMBERED) * new, new)
    return jnp.where(count > 0, started, mean_squares)


def validation(
    problem: Problem, model: Model, trained: Trained, seed: int
) -> Callable[[PyTree], float] | None:
    """parameters -> the bound of the validation images, by `validation_samples` times of each."""
    count = trained.training.validation_samples

    def value(params, key, x):
        time_key, key = jax.random.split(key)
        made = model.evaluated(params).model
        times = bounds.diffusion.low_discrepancy_times(time_key, count)
        steps = made.gamma.size
        t, probability = bounds.diffusion.discrete_times(times, jnp.full(steps, 1 / steps))
        found = jax.vmap(bounds.diffusion.discrete_estimate, (None, None, 0, None, 0, 0))(
            made, params, jax.random.split(key, count), x, t, probability
        )
        return jnp.mean(found.value)

    images = as_images(problem.dataset.validation)
    return training.validation(value, images, keys.key_for(seed, Purpose.VALIDATION))
