"""Active units of a VAE, with their standard error over images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import bounds
from experiments.studies import held_out
from models.vae import VAE

ACTIVE_VARIANCE = 0.01


def active_units(
    vae: VAE, params: bounds.Params, images: np.ndarray, key: Array
) -> list[tuple[int, float]]:
    """(active units, their standard error) of each layer, from the data upwards.

    A unit is active if the variance over images of its mean under q exceeds 0.01 (Burda et al.
    2015, 5.2). Above the first layer the mean given x is an expectation over the layers below it,
    here by one draw per image as in the released code; the variance of that draw counts as well.
    The standard error is over images, by bootstrap.
    """
    # All images in one pass: an encoder needs little memory.
    layers = held_out.over_images(_means_of(vae), params, images, key, images_per_pass=len(images))
    every = np.arange(len(images))
    resampled = np.random.default_rng(0).integers(len(images), size=(200, len(images)))

    @jax.jit
    def active(layer, index):
        return jnp.sum(bounds.surgery.active_units(layer[index], threshold=ACTIVE_VARIANCE))

    return [
        (int(active(v, every)), float(np.std([active(v, i) for i in resampled], ddof=1)))
        for v in layers
    ]


@functools.cache
def _means_of(vae: VAE):
    def one(params, key, x, index):
        return vae.encoder_means(params.phi, jax.random.fold_in(key, index), x)

    return held_out.spread(jax.vmap(one, (None, None, 0, 0)))
