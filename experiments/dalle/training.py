"""The two stages of DALL-E: the dVAE alone, then the prior on the tokens it makes.

Parameters are those of the whole model in both; each stage moves its own part of them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

import bounds
from experiments.dalle.build import Data, Model
from experiments.dalle.settings import Objective, Prior, Trained
from experiments.runtime import keys
from experiments.runtime.errors import UserError
from experiments.runtime.fit import Run
from experiments.runtime.keys import Purpose
from experiments.runtime.trainer import LossFn
from experiments.studies import training
from experiments.studies.images import as_images, training_stream
from models.token_prior import picked


def make_dvae_run(data: Data, model: Model, trained: Trained, seed: int) -> Run:
    """The first stage: reconstruction - beta KL to the uniform prior, of images alone.

    Raises:
      UserError: the objective does not fit the model, or the batch is larger than the data.
    """
    return training.make_run(
        keys.of_training(seed),
        trained.optimizer,
        trained.training,
        loss_fn=make_dvae_loss(model, trained.objective),
        init=jax.jit(model.init),
        stream=lambda key: training_stream(data.problem, key, trained.training.batch_size),
        validate=_validation(data, model, trained, seed, of_prior=False),
    )


def make_prior_run(
    data: Data, model: Model, trained: Trained, seed: int, params: bounds.Params | None
) -> Run:
    """The second stage: the prior on captions and tokens; the dVAE stays as it is.

    Args:
      data: images and captions.
      model: dVAE and prior.
      trained: of both stages; the steps and the rate of this one are those of its prior.
      seed: of the training.
      params: of the first stage; None where nothing will be trained.

    Raises:
      UserError: the batch is larger than the data.
    """
    prior, size = trained.prior, trained.training.batch_size
    return training.make_run(
        keys.of_training(seed, Purpose.PRIOR_STAGE),
        trained.optimizer.model_copy(update={"learning_rate": prior.learning_rate}),
        trained.training.model_copy(update={"num_steps": prior.num_steps}),
        loss_fn=make_prior_loss(data, model, prior),
        init=lambda key: jax.tree.map(jnp.asarray, params),
        stream=lambda key: training_stream(data.problem, key, size),
        validate=_validation(data, model, trained, seed, of_prior=True),
    )


def make_dvae_loss(model: Model, wanted: Objective) -> LossFn:
    """Minus the objective of the first stage at the step's beta and temperature.

    Raises:
      UserError: there are too many codes to be summed over.
    """
    objective_at = OBJECTIVES[wanted.name]
    beta_at, temperature_at = beta_schedule(wanted), temperature_schedule(wanted)
    if wanted.name == "enumerated" and model.num_sequences > 2**16:
        raise UserError(
            f"--config.objective.name=enumerated would decode {model.num_codes}^"
            f"{model.dvae.num_tokens} sequences for each image; choose relaxed, vimco or reinforce."
        )

    def loss_fn(params, extra, batch, key, step):
        objective = objective_at(model, wanted.num_samples, beta_at(step), temperature_at(step))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
        data = batch["x"], ()
        value = jnp.mean(jax.vmap(objective, (None, 0, 0))(params, keys, data))
        return -value, (extra, {"objective": value})

    return loss_fn


def _relaxed(model: Model, num_samples: int, beta, temperature):
    return bounds.joint.relaxed(model.images, temperature=temperature, beta=beta)


def _vimco(model: Model, num_samples: int, beta, temperature):
    # beta times IWAE of the power p(x | z)^(1 / beta), see `bounds.joint.latent`.
    latent = bounds.joint.latent(model.images, beta=beta)
    objective = bounds.vimco(latent, num_samples=num_samples)
    return lambda params, key, datum: beta * objective(params, key, datum)


def _reinforce(model: Model, num_samples: int, beta, temperature):
    latent = bounds.joint.latent(model.images, beta=beta)
    objective = bounds.reinforce(latent, num_samples=num_samples, bound=bounds.elbo)
    return lambda params, key, datum: beta * objective(params, key, datum)


def _enumerated(model: Model, num_samples: int, beta, temperature):
    return bounds.joint.enumerated(
        model.images, num_codes=model.num_codes, beta=beta, chunk_size=model.num_codes
    )


OBJECTIVES = {
    "relaxed": _relaxed,
    "vimco": _vimco,
    "reinforce": _reinforce,
    "enumerated": _enumerated,
}


def beta_schedule(wanted: Objective) -> optax.Schedule:
    """beta, reached by half a cosine from 0 in beta_steps."""
    # Score-function objectives divide by beta, which must not start at 0.
    least = 0.0 if wanted.name in ("relaxed", "enumerated") else 0.1 * wanted.beta
    return _half_cosine(least, wanted.beta, wanted.beta_steps)


def temperature_schedule(wanted: Objective) -> optax.Schedule:
    """Half a cosine from temperature_start to temperature_end in temperature_steps."""
    return _half_cosine(wanted.temperature_start, wanted.temperature_end, wanted.temperature_steps)


def _half_cosine(start: float, end: float, steps: int) -> optax.Schedule:
    if not steps:
        return optax.constant_schedule(end)
    return lambda step: end + (start - end) * optax.cosine_decay_schedule(1.0, steps)(step)


def make_prior_loss(data: Data, model: Model, wanted: Prior) -> LossFn:
    """-[a log p(y) + b log p(z | y)] of tokens z from the encoder, which no gradient reaches.

    Sampled tokens have their mean over each token in closed form: the terms of the joint bound.
    """
    captions = jnp.asarray(data.tokens["train"])
    masked: Any = model.prior.masked

    def masked_terms(params, key, x, y):
        """The ELBO of all orders by one count of masked tokens, of y and of z given y."""
        z_key, text_key, image_key, dropout = jax.random.split(key, 4)
        encoded = jax.lax.stop_gradient(model.dvae.encode(params.phi, x))
        sampled = wanted.tokens == "sampled"
        z = jax.random.categorical(z_key, encoded) if sampled else jnp.argmax(encoded, axis=-1)
        parts = masked(y, dropout if wanted.dropout > 0 else None)
        return tuple(
            _by_one_count(part, params.theta["prior"], own, tokens)
            for part, own, tokens in zip(parts, (text_key, image_key), (y, z), strict=True)
        )

    def terms(params, key, x, y):
        if masked is not None:
            return masked_terms(params, key, x, y)
        z_key, dropout = jax.random.split(key)
        joint = model.with_dropout(dropout if wanted.dropout > 0 else None)
        fixed = params._replace(phi=jax.lax.stop_gradient(params.phi))
        if wanted.tokens == "sampled":
            found = bounds.joint.terms(joint, fixed, z_key, (x, y))
            return found.log_text, found.log_image
        z = jnp.argmax(model.dvae.encode(fixed.phi, x), axis=-1)
        text, logits = joint.prior(params.theta, y, z)
        return text, picked(logits, z)

    def loss_fn(params, extra, batch, key, step):
        del step
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
        y = captions[batch["index"]]
        text, image = jax.vmap(terms, (None, 0, 0, 0))(params, keys, batch["x"], y)
        loss = -jnp.mean(wanted.text_weight * text + wanted.image_weight * image)
        return loss, (extra, {"log_text": jnp.mean(text), "log_image": jnp.mean(image)})

    return loss_fn


def _by_one_count(part: bounds.masked.Masked, theta: PyTree, key: Array, tokens: Array) -> Array:
    count_key, key = jax.random.split(key)
    count = jax.random.randint(count_key, (), 1, part.length + 1)
    return bounds.masked.by_count(part, theta, key, tokens, count, 1 / part.length).value


def _validation(
    data: Data, model: Model, trained: Trained, seed: int, *, of_prior: bool
) -> Callable[[bounds.Params], float] | None:
    """parameters -> what the stage maximises, by hard tokens of the validation images."""
    joint, prior = model.joint if of_prior else model.images, trained.prior
    if of_prior and prior.tokens == "argmax":
        joint = joint._replace(encode=lambda phi, x: _certain(model.dvae.encode(phi, x)))

    def value(params: PyTree, key: Array, pair: tuple[Array, Array]) -> Array:
        x, y = pair
        datum = x, y if of_prior else ()
        each = jax.random.split(key, trained.training.validation_samples)
        found = jax.vmap(functools.partial(bounds.joint.terms, joint), (None, 0, None))(
            params, each, datum
        )
        terms = jax.tree.map(jnp.mean, found)
        if not of_prior:
            return bounds.joint.bound(terms, beta=trained.objective.beta)
        return prior.text_weight * terms.log_text + prior.image_weight * terms.log_image

    pairs = as_images(data.problem.dataset.validation), data.tokens["validation"]
    return training.validation(value, pairs, keys.key_for(seed, Purpose.VALIDATION))


def _certain(logits: Array) -> Array:
    """Logits under which a token is the argmax of these."""
    return jnp.where(logits == jnp.max(logits, axis=-1, keepdims=True), 0.0, -jnp.inf)
