"""Small configs, data and a model for the tests of experiments.dalle."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from configs import dalle_digits
from experiments.dalle import build, enumeration, study
from experiments.studies.images import as_images
from models.token_prior import picked


def tiny(**changes):
    config = dalle_digits.get_config()
    config.width, config.embedding, config.num_codes = 4, 4, 3
    config.prior_layers, config.prior_width, config.prior_heads = 1, 8, 2
    config.seeds, config.num_steps, config.prior_steps, config.warmup_steps = (0,), 4, 4, 1
    config.beta_steps, config.temperature_steps = 2, 2
    config.log_every, config.save_every = 2, 4
    config.evaluation_images, config.evaluation_draws, config.sample_grid = 6, 8, 2
    for name, value in changes.items():
        config[name] = value
    return config


@functools.cache
def data():
    return build.make_data(tiny())


def made(data, config, name="beta1"):
    own = study.settings(config, name, 0)
    return own, build.make_model(data, own)


@functools.cache
def trained():
    """A model away from its start, with its config."""
    own, model = made(data(), tiny())
    params = jax.jit(model.init)(jax.random.key(1))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [v + 0.1 * jax.random.normal(k, v.shape) for v, k in zip(leaves, keys, strict=True)]
    return own, model, jax.tree.unflatten(tree, noisy)


def batch_of(data, count=16):
    return {"x": jnp.asarray(as_images(data.problem.dataset.train[:count])),
            "index": jnp.arange(count)}  # fmt: skip


def by_hand(model, params, x, y):
    """log p(x, y, z) and log q(z | x) of all 81 codes in float64."""
    codes = jnp.asarray(enumeration.all_codes(4, 3))

    @jax.jit
    @jax.vmap
    def at(z):
        text, logits = model.joint.prior(params.theta, jnp.asarray(y), z)
        one_hot = jax.nn.one_hot(z, 3)
        log_px = model.dvae.log_px(params.theta["decoder"], jnp.asarray(x), one_hot)
        log_q = picked(model.dvae.encode(params.phi, jnp.asarray(x)), z)
        return text + picked(logits, z) + log_px, log_q

    return (np.asarray(v, np.float64) for v in at(codes))
