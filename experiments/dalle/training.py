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
from experiments.runtime import checks
from experiments.runtime.checks import known
from experiments.runtime.errors import UserError
from experiments.runtime.fit import Run
from experiments.runtime.optimizers import make_optimizer
from experiments.runtime.trainer import LossFn
from experiments.studies import held_out
from experiments.studies.images import as_images, training_stream
from models.token_prior import picked

TOKENS = ("sampled", "argmax")


def make_dvae_run(data: Data, model: Model, config: Any) -> Run:
    """The first stage: reconstruction - beta KL to the uniform prior, of images alone.

    Raises:
      UserError: the objective, a schedule, the optimiser, a size or the seed is wrong.
    """
    _check(config)
    init_key, order_key, key = jax.random.split(jax.random.key(config.seed), 3)
    stream = training_stream(data.problem, order_key, config.batch_size)
    return Run(
        loss_fn=make_dvae_loss(model, config),
        init=lambda: jax.jit(model.init)(init_key),
        stream=stream,
        optimizer=make_optimizer(config, stream.steps_per_epoch),
        key=key,
        num_steps=config.num_steps,
        validate=_validation(data, model, config, of_prior=False),
        batch_size=config.batch_size,
    )


def make_prior_run(data: Data, model: Model, config: Any, params: bounds.Params | None) -> Run:
    """The second stage: the prior on captions and tokens; the dVAE stays as it is.

    Args:
      data: images and captions.
      model: dVAE and prior.
      config: of the second stage, see `study`.
      params: of the first stage; None where nothing will be trained.

    Raises:
      UserError: a weight, the tokens, the optimiser, a size or the seed is wrong.
    """
    _check(config)
    *_, order_key, key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 2), 3)
    stream = training_stream(data.problem, order_key, config.batch_size)

    def init() -> bounds.Params:
        return jax.tree.map(jnp.asarray, params)

    return Run(
        loss_fn=make_prior_loss(data, model, config),
        init=init,
        stream=stream,
        optimizer=make_optimizer(config, stream.steps_per_epoch),
        key=key,
        num_steps=config.num_steps,
        validate=_validation(data, model, config, of_prior=True),
        batch_size=config.batch_size,
    )


def make_dvae_loss(model: Model, config: Any) -> LossFn:
    """Minus the objective of the first stage at the step's beta and temperature.

    Raises:
      UserError: the objective or a schedule makes no sense.
    """
    objective_at = known(config, "objective", OBJECTIVES)
    beta_at, temperature_at = beta_schedule(config), temperature_schedule(config)
    if config.objective in ("vimco", "reinforce") and config.beta == 0:
        raise UserError(
            f"config.objective={config.objective} needs config.beta above 0, by which it divides; "
            "choose relaxed or enumerated."
        )
    if config.objective == "enumerated" and model.num_sequences > 2**16:
        raise UserError(
            f"config.objective=enumerated would decode {model.num_codes}^{model.dvae.num_tokens} "
            "sequences for each image; choose relaxed, vimco or reinforce."
        )
    if config.objective == "vimco" and config.num_samples < 2:
        raise UserError("config.objective=vimco needs config.num_samples of at least 2.")

    def loss_fn(params, extra, batch, key, step):
        objective = objective_at(model.images, config, beta_at(step), temperature_at(step))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
        data = batch["x"], ()
        value = jnp.mean(jax.vmap(objective, (None, 0, 0))(params, keys, data))
        return -value, (extra, {"objective": value})

    return loss_fn


def _relaxed(model, config, beta, temperature):
    return bounds.relaxed_joint(model, temperature=temperature, beta=beta)


def _vimco(model, config, beta, temperature):
    # beta times IWAE of the power p(x | z)^(1 / beta), see `bounds.joint_latent`.
    latent = bounds.joint_latent(model, beta=beta)
    objective = bounds.vimco(latent, num_samples=config.num_samples)
    return lambda params, key, datum: beta * objective(params, key, datum)


def _reinforce(model, config, beta, temperature):
    latent = bounds.joint_latent(model, beta=beta)
    objective = bounds.reinforce(latent, num_samples=config.num_samples, bound=bounds.elbo)
    return lambda params, key, datum: beta * objective(params, key, datum)


def _enumerated(model, config, beta, temperature):
    return bounds.enumerated_joint(
        model, num_codes=config.num_codes, beta=beta, chunk_size=config.num_codes
    )


OBJECTIVES = {
    "relaxed": _relaxed,
    "vimco": _vimco,
    "reinforce": _reinforce,
    "enumerated": _enumerated,
}


def beta_schedule(config: Any) -> optax.Schedule:
    """config.beta, reached by half a cosine from 0 in config.beta_steps.

    Raises:
      UserError: beta is below 0 or no finite number.
    """
    checks.whole(config, 0, "beta_steps")
    if not checks.is_number(config.beta) or not 0 <= config.beta < float("inf"):
        raise UserError(f"config.beta must be a finite number of at least 0, got {config.beta!r}.")
    # Score-function objectives divide by beta, which must not start at 0.
    least = 0.0 if config.objective in ("relaxed", "enumerated") else 0.1 * config.beta
    return _half_cosine(least, config.beta, config.beta_steps)


def temperature_schedule(config: Any) -> optax.Schedule:
    """Half a cosine from temperature_start to temperature_end in temperature_steps.

    Raises:
      UserError: a temperature is not above 0.
    """
    checks.positive(config, "temperature_start", "temperature_end")
    checks.whole(config, 0, "temperature_steps")
    return _half_cosine(config.temperature_start, config.temperature_end, config.temperature_steps)


def _half_cosine(start: float, end: float, steps: int) -> optax.Schedule:
    if not steps:
        return optax.constant_schedule(end)
    return lambda step: end + (start - end) * optax.cosine_decay_schedule(1.0, steps)(step)


def make_prior_loss(data: Data, model: Model, config: Any) -> LossFn:
    """-[a log p(y) + b log p(z | y)] of tokens z from the encoder, which no gradient reaches.

    Sampled tokens have their mean over each token in closed form: the terms of the joint bound.

    Raises:
      UserError: a weight is below 0, or the tokens are unknown.
    """
    known(config, "tokens", dict.fromkeys(TOKENS))
    check_weights(config)
    captions = jnp.asarray(data.tokens["train"])

    def terms(params, key, x, y):
        z_key, dropout = jax.random.split(key)
        joint = model.with_dropout(dropout if config.dropout > 0 else None)
        fixed = params._replace(phi=jax.lax.stop_gradient(params.phi))
        if config.tokens == "sampled":
            found = bounds.joint_terms(joint, fixed, z_key, (x, y))
            return found.log_text, found.log_image
        z = jnp.argmax(model.dvae.encode(fixed.phi, x), axis=-1)
        text, logits = joint.prior(params.theta, y, z)
        return text, picked(logits, z)

    def loss_fn(params, extra, batch, key, step):
        del step
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
        y = captions[batch["index"]]
        text, image = jax.vmap(terms, (None, 0, 0, 0))(params, keys, batch["x"], y)
        loss = -jnp.mean(config.text_weight * text + config.image_weight * image)
        return loss, (extra, {"log_text": jnp.mean(text), "log_image": jnp.mean(image)})

    return loss_fn


def check_weights(config: Any) -> None:
    """Refuses weights of text and image that are below 0, or both 0."""
    for name in ("text_weight", "image_weight"):
        if not checks.is_number(config[name]) or not 0 <= config[name] < float("inf"):
            raise UserError(f"config.{name} must be a finite number of at least 0.")
    if config.text_weight == config.image_weight == 0:
        raise UserError("config.text_weight and config.image_weight are both 0; raise one.")


def _validation(
    data: Data, model: Model, config: Any, *, of_prior: bool
) -> Callable[[bounds.Params], float] | None:
    """parameters -> what the stage maximises, by hard tokens of the validation images."""
    x = as_images(data.problem.dataset.validation)
    if not len(x):
        return None
    joint = model.joint if of_prior else model.images
    if of_prior and config.tokens == "argmax":
        joint = joint._replace(encode=lambda phi, x: _certain(model.dvae.encode(phi, x)))

    def value(params: PyTree, key: Array, pair: tuple[Array, Array]) -> Array:
        x, y = pair
        datum = x, y if of_prior else ()
        keys = jax.random.split(key, config.validation_samples)
        found = jax.vmap(functools.partial(bounds.joint_terms, joint), (None, 0, None))(
            params, keys, datum
        )
        terms = jax.tree.map(jnp.mean, found)
        if not of_prior:
            return bounds.joint_bound(terms, beta=config.beta)
        return config.text_weight * terms.log_text + config.image_weight * terms.log_image

    key = jax.random.fold_in(jax.random.key(config.seed), 2**32 - 2)
    keys = jax.random.split(key, len(x))
    return held_out.mean_value(value, (x, data.tokens["validation"]), keys)


def _certain(logits: Array) -> Array:
    """Logits under which a token is the argmax of these."""
    return jnp.where(logits == jnp.max(logits, axis=-1, keepdims=True), 0.0, -jnp.inf)


def _check(config: Any) -> None:
    checks.whole(config, 1, "batch_size", "num_steps", "num_samples", "validation_samples")
    checks.seeds("seed", [config.seed])
