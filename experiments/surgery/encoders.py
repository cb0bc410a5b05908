"""Encoders of VAEs as Gaussians of images: what the parts of a surgery take apart."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import bounds
from experiments.runtime.errors import UserError
from experiments.studies import held_out
from experiments.vae import build
from models.vae import VAE


class DatumQ(NamedTuple):
    """q(z | x) of one datum, or of N: a diagonal Gaussian by its mean and log deviation, [D]."""

    mean: Any
    log_scale: Any


def images(
    problem: build.Problem, split: str, num_images: int, binarization_seed: int
) -> np.ndarray:
    """The first images of a split, 0 for all, binarised once for all models.

    Raises:
      UserError: there are none.
    """
    found = build.prepared(problem, split, binarization_seed)
    if not len(found):
        raise UserError(f"{problem.dataset.name} has no {split} images.")
    return found[: num_images or None]


def encoded(vae: VAE, phi: PyTree, images: np.ndarray, images_per_pass: int) -> DatumQ:
    """q(z | x) of every image."""
    # No key is used: an encoder's Gaussian is no draw. Its passes need little memory.
    found = held_out.over_images(
        _encoder(vae), phi, images, jax.random.key(0), images_per_pass=10 * images_per_pass
    )
    return DatumQ(*found)


def posteriors(q: DatumQ) -> bounds.surgery.GaussianPosteriors:
    """The same with variances, whose mixture is the aggregated posterior."""
    variance: Any = np.exp(2 * q.log_scale)
    return bounds.surgery.GaussianPosteriors(q.mean, variance)


@functools.cache
def _encoder(vae: VAE):
    def one(phi, key, x, index):
        del key, index
        return vae.encode(phi, x)

    return held_out.compiled(one)


@functools.cache
def joint(vae: VAE) -> Callable[[PyTree, Array, Array], Array]:
    """(theta, x, z) -> log p(x, z), z [D] the only stochastic layer."""
    return lambda theta, x, z: vae.model.log_p(theta, x, (z,))


@functools.cache
def per_datum(log_p: Callable[[PyTree, Any, Array], Array]) -> bounds.LatentModel:
    """A model whose phi is the `DatumQ` of the one datum x, whatever encoder it came from."""

    def propose(phi, key, x):
        del x
        noise = jax.random.normal(key, phi.mean.shape, phi.mean.dtype)
        z = phi.mean + jnp.exp(phi.log_scale) * noise
        # log q(z) from the noise itself: the same number, and cheaper than through z.
        return z, bounds.densities.gaussian_log_prob(noise, 0.0, 1.0) - jnp.sum(phi.log_scale)

    def log_q(phi, x, z):
        del x
        return bounds.densities.gaussian_log_prob(z, phi.mean, jnp.exp(2 * phi.log_scale))

    return bounds.LatentModel(propose, log_q, log_p)
