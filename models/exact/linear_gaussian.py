r"""The linear-Gaussian model of Rainforth et al. 2018, with everything about it exact.

    p(z) = N(mu, I),  p(x|z) = N(z, I),  q(z|x) = N(A x + b, v I)

theta is mu; phi is (A, b); the COVARIANCE v of q is fixed, 2/3 in the paper. With w = p(x,z)/q,
Z = p(x), posterior N((x + mu)/2, s I), s = 1/2 and delta = (A x + b) - (x + mu)/2, the moments of
w/Z under q are Gaussian integrals; the large-K behaviour of IWAE and VR-IWAE gradients follows
from them in `models.exact.linear_gaussian_theory`.

Source: Rainforth et al. 2018 (arXiv 1802.04537), the Gaussian example of the experiments.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import bounds

POSTERIOR_VARIANCE = 0.5
PAPER_VARIANCE = 2.0 / 3.0


class Inference(NamedTuple):
    """phi: q(z | x) has mean `weight @ x + bias`."""

    weight: Float[Array, "D D"]
    bias: Float[Array, "D"]


def make_model(variance: float = PAPER_VARIANCE) -> bounds.LatentModel:
    """The model as a `bounds.LatentModel`.

    Args:
      variance: v, the variance of q in every direction.

    Returns:
      A model of one datum x of shape [D], with theta = mu [D] and phi = `Inference`.

    Raises:
      ValueError: `variance` is not positive.
    """
    if not variance > 0:
        raise ValueError(f"variance must be positive, got {variance}.")

    def propose(phi, key, x):
        mean = phi.weight @ x + phi.bias
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        z = mean + jnp.sqrt(jnp.asarray(variance, mean.dtype)) * noise
        # log q(z) from the noise itself: the same number, and cheaper than through z.
        log_scale = 0.5 * math.log(variance)
        return z, bounds.densities.gaussian_log_prob(noise, 0.0, 1.0) - mean.shape[-1] * log_scale

    def log_q(phi, x, z):
        return bounds.densities.gaussian_log_prob(z, phi.weight @ x + phi.bias, variance)

    def log_p(theta, x, z):
        return bounds.densities.gaussian_log_prob(
            z, theta, 1.0
        ) + bounds.densities.gaussian_log_prob(x, z, 1.0)

    return bounds.LatentModel(propose, log_q, log_p)


def generate(key: Array, num_data: int, num_dims: int) -> Float[Array, "N D"]:
    """Draws mu_true ~ N(0, I), then N data from p(x) = N(mu_true, 2 I)."""
    key_mean, key_data = jax.random.split(key)
    mean = jax.random.normal(key_mean, (num_dims,))
    return mean[None] + jnp.sqrt(2.0) * jax.random.normal(key_data, (num_data, num_dims))


def optimum(data: Float[Array, "N D"]) -> bounds.Params:
    """The parameters that maximise every bound: mu = mean(x), A = I/2, b = mu/2."""
    mean = jnp.mean(data, axis=0)
    eye = jnp.eye(data.shape[1], dtype=data.dtype)
    return bounds.Params(mean, Inference(0.5 * eye, 0.5 * mean))


def perturb(params: bounds.Params, key: Array, scale: float) -> bounds.Params:
    """Adds N(0, scale^2) to every entry of every parameter."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    noisy = [
        leaf + scale * jax.random.normal(k, leaf.shape, leaf.dtype)
        for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, noisy)


def log_likelihood(theta: Float[Array, "D"], x: Float[Array, "D"]) -> Float[Array, ""]:
    """Exact log p(x) = log N(x; mu, 2 I), in nats; differentiable."""
    return bounds.densities.gaussian_log_prob(x, theta, 2.0)


def posterior(
    theta: Float[Array, "D"], x: Float[Array, "D"]
) -> tuple[Float[Array, "D"], Float[Array, ""]]:
    """Exact p(z | x): its mean (x + mu)/2 [D] and its variance, 1/2 in every direction."""
    return (x + theta) / 2, jnp.asarray(POSTERIOR_VARIANCE, x.dtype)


def exact_inference(theta: Float[Array, "D"]) -> Inference:
    """The phi at which q is the posterior, given `make_model(variance=0.5)`."""
    return Inference(0.5 * jnp.eye(theta.shape[0], dtype=theta.dtype), 0.5 * theta)


def discrepancy(params: bounds.Params, x: Float[Array, "D"]) -> Float[Array, "D"]:
    """delta: the mean of q minus the posterior mean, shape [D]."""
    return params.phi.weight @ x + params.phi.bias - posterior(params.theta, x)[0]


def elbo_gap(delta: Float[Array, "D"], variance: float = PAPER_VARIANCE) -> Float[Array, ""]:
    r"""log p(x) - ELBO = KL(q(z|x) || p(z|x)), exact, in nats.

    .. math:: \frac D2 (2v - 1 - \log 2v) + \|\delta\|^2
    """
    return bounds.densities.gaussian_kl(
        delta, jnp.full_like(delta, variance), 0.0, POSTERIOR_VARIANCE
    )


def expected_elbo(
    params: bounds.Params, x: Float[Array, "D"], variance: float = PAPER_VARIANCE
) -> Float[Array, ""]:
    """Exact ELBO in nats; its derivatives are the exact gradients of the ELBO."""
    return log_likelihood(params.theta, x) - elbo_gap(discrepancy(params, x), variance)
