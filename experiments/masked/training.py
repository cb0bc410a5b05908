"""Training of masked diffusion: by one mask for each example of a batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

import bounds
from experiments.masked.build import tokens_of
from experiments.masked.settings import Trained
from experiments.runtime import keys
from experiments.runtime.fit import Run
from experiments.runtime.keys import Purpose
from experiments.runtime.trainer import LossFn
from experiments.studies import training
from experiments.studies.images import Problem, training_stream
from models.masked_tokens import MaskedTokens

TIMES = {
    "uniform": bounds.diffusion.uniform_times,
    "low_discrepancy": bounds.diffusion.low_discrepancy_times,
}


def make_run(problem: Problem, model: MaskedTokens, trained: Trained, seed: int) -> Run:
    """What `fit` trains.

    Raises:
      UserError: the batch is larger than the data.
    """
    return training.make_run(
        keys.of_training(seed),
        trained.optimizer,
        trained.training,
        loss_fn=make_loss(model, trained),
        init=jax.jit(model.init),
        stream=lambda key: training_stream(problem, key, trained.training.batch_size),
        validate=validation(problem, model, trained, seed),
    )


def make_loss(model: MaskedTokens, trained: Trained) -> LossFn:
    """Minus the ELBO by one count or time for each example, or a loss that bounds nothing.

    Times belong to places in the whole batch: they are the same on any number of devices.
    """
    wanted, rate = trained.objective, trained.network.dropout

    def of_image(theta, key, x, time):
        dropout, key = jax.random.split(key)
        made = model.made(dropout if rate > 0 else None)
        if wanted.name == "count":
            return -by_drawn_count(made, theta, key, x, time).value
        if wanted.name == "time":
            return -bounds.masked.by_time(made, theta, key, x, 1.0 - time).value
        mean = wanted.name == "mean"
        return bounds.masked.cross_entropy(made, theta, key, x, 1.0 - time, mean=mean)

    def loss_fn(params, extra, batch, key, step):
        del step
        time_key, key = jax.random.split(key)
        tokens = batch["x"].reshape(len(batch["x"]), -1).astype(int)
        each = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
        times = TIMES[wanted.draws](time_key, len(tokens))
        loss = jnp.mean(jax.vmap(of_image, (None, 0, 0, 0))(params, each, tokens, times))
        return loss, (extra, {"loss": loss})

    return loss_fn


def by_drawn_count(
    made: bounds.masked.Masked, theta: PyTree, key: Array, x: Array, time: Array
) -> bounds.diffusion.BoundEstimate:
    """The ELBO by the count that a uniform time in [0, 1) stands for."""
    count, probability = bounds.diffusion.discrete_times(
        time, jnp.full(made.length, 1 / made.length)
    )
    return bounds.masked.by_count(made, theta, key, x, count, probability)


def elbo_by_counts(
    made: bounds.masked.Masked,
    theta: PyTree,
    key: Array,
    x: Array,
    num_counts: int,
    at_once: int = 16,
) -> Array:
    """The mean of `num_counts` estimates, of counts that are spread evenly."""
    time_key, key = jax.random.split(key)
    times = bounds.diffusion.low_discrepancy_times(time_key, num_counts)

    def one(drawn):
        number, time = drawn
        return by_drawn_count(made, theta, jax.random.fold_in(key, number), x, time).value

    return jnp.mean(jax.lax.map(one, (jnp.arange(num_counts), times), batch_size=at_once))


def validation(
    problem: Problem, model: MaskedTokens, trained: Trained, seed: int
) -> Callable[[PyTree], float] | None:
    """parameters -> the ELBO of the validation images, by `validation_samples` counts of each."""
    count = trained.training.validation_samples

    def value(theta, key, x):
        return elbo_by_counts(model.made(), theta, key, x, count)

    tokens = tokens_of(problem.dataset.validation)
    return training.validation(value, tokens, keys.key_for(seed, Purpose.VALIDATION))
