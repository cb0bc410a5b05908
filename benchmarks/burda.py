"""Burda's one-layer VAE with a batch of its own images: no data set is needed to time it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

import bounds
from models.vae import VAE, make_vae

NUM_PIXELS = 784
BATCH = 100


class Problem(NamedTuple):
    """The model, its initial parameters and images [BATCH, NUM_PIXELS]."""

    vae: VAE
    params: bounds.Params
    images: Array


def make_problem() -> Problem:
    vae = make_vae(NUM_PIXELS)
    params = vae.init(jax.random.key(0), jnp.full(NUM_PIXELS, 0.13))  # as bright as MNIST
    keys = jax.random.split(jax.random.key(1), BATCH)
    images, _ = jax.jit(jax.vmap(vae.simulate, (None, 0)))(params.theta, keys)
    return Problem(vae, params, images)


def batch_loss(objective: bounds.Objective, params: bounds.Params, key: Array, images: Array):
    """Minus the bound, averaged over the batch: what a trainer differentiates."""
    keys = jax.random.split(key, images.shape[0])
    return -jnp.mean(jax.vmap(objective, (None, 0, 0))(params, keys, images))
