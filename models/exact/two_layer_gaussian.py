r"""A Gaussian model with two stochastic layers and everything about it exact.

    p(z2) = N(mu, I),  p(z1|z2) = N(a z2, s1 I),  p(x|z1) = N(c z1, sx I)
    q(z1|x) = N(lower weight * x + bias, .),  q(z2|z1) = N(upper weight * z1 + bias, .)

All weights are scalars acting on every one of D independent dimensions. The lower layer's
sample is an input of the upper layer's distribution: the case in which stopping too much, or
reweighting each layer apart, biases a doubly reparameterised gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import bounds

LAYER_VARIANCE = 0.5  # s1
NOISE_VARIANCE = 0.25  # sx


class Generative(NamedTuple):
    """theta: prior mean mu [D], weight a of z2 in z1, weight c of z1 in x."""

    prior_mean: Float[Array, "D"]
    upper: Float[Array, ""]
    lower: Float[Array, ""]


class Layer(NamedTuple):
    """One layer of q: mean = weight * input + bias, standard deviation exp(log_scale)."""

    weight: Float[Array, ""]
    bias: Float[Array, "D"]
    log_scale: Float[Array, ""]


class Inference(NamedTuple):
    """phi: q(z1 | x) and q(z2 | z1)."""

    lower: Layer
    upper: Layer


class Latents(NamedTuple):
    """z: the layer next to the data and the one above it, each [D]."""

    z1: Float[Array, "D"]
    z2: Float[Array, "D"]


def make_model() -> bounds.LatentModel:
    """The model of one datum x [D], theta `Generative`, phi `Inference`, z `Latents`."""
    return bounds.LatentModel(_propose, log_q, log_p)


def _propose(phi: Inference, key, x):
    key1, key2 = jax.random.split(key)
    z1 = _sample(phi.lower, key1, x)
    z2 = _sample(phi.upper, key2, z1)
    z = Latents(z1, z2)
    return z, log_q(phi, x, z)


def log_q(phi: Inference, x: Float[Array, "D"], z: Latents) -> Float[Array, ""]:
    """log q(z1 | x) + log q(z2 | z1)."""
    return _layer_log_prob(phi.lower, x, z.z1) + _layer_log_prob(phi.upper, z.z1, z.z2)


def log_p(theta: Generative, x: Float[Array, "D"], z: Latents) -> Float[Array, ""]:
    """log p(z2) + log p(z1 | z2) + log p(x | z1)."""
    return (
        bounds.densities.gaussian_log_prob(z.z2, theta.prior_mean, 1.0)
        + bounds.densities.gaussian_log_prob(z.z1, theta.upper * z.z2, LAYER_VARIANCE)
        + bounds.densities.gaussian_log_prob(x, theta.lower * z.z1, NOISE_VARIANCE)
    )


def log_likelihood(theta: Generative, x: Float[Array, "D"]) -> Float[Array, ""]:
    """Exact log p(x) in nats; differentiable."""
    mean, variance = _marginal_z1(theta)
    return bounds.densities.gaussian_log_prob(
        x, theta.lower * mean, jnp.square(theta.lower) * variance + NOISE_VARIANCE
    )


def exact_inference(theta: Generative) -> Inference:
    """The phi at which q(z1, z2 | x) is the exact posterior."""
    mean, variance = _marginal_z1(theta)
    lower_variance = 1.0 / (1.0 / variance + jnp.square(theta.lower) / NOISE_VARIANCE)
    upper_variance = 1.0 / (1.0 + jnp.square(theta.upper) / LAYER_VARIANCE)
    lower = Layer(
        lower_variance * theta.lower / NOISE_VARIANCE,
        lower_variance * mean / variance,
        0.5 * jnp.log(lower_variance),
    )
    upper = Layer(
        upper_variance * theta.upper / LAYER_VARIANCE,
        upper_variance * theta.prior_mean,
        0.5 * jnp.log(upper_variance),
    )
    return Inference(lower, upper)


def _marginal_z1(theta: Generative):
    return theta.upper * theta.prior_mean, jnp.square(theta.upper) + LAYER_VARIANCE


def _sample(layer: Layer, key, value):
    mean = layer.weight * value + layer.bias
    return mean + jnp.exp(layer.log_scale) * jax.random.normal(key, mean.shape, mean.dtype)


def _layer_log_prob(layer: Layer, value, z):
    return bounds.densities.gaussian_log_prob(
        z, layer.weight * value + layer.bias, jnp.exp(2 * layer.log_scale)
    )
