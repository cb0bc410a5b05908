"""Closed-form divergences and entropies of diagonal Gaussians."""

import math

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from bounds._checks import at_least_float32, check_fits


def gaussian_kl(
    mean: ArrayLike,
    variance: ArrayLike,
    prior_mean: ArrayLike = 0.0,
    prior_variance: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""KL divergence between Gaussians with diagonal covariance, summed over the last axis.

    .. math:: \mathrm{KL}(\mathcal N(m, v) \| \mathcal N(m_0, v_0)) = \frac12 \sum_d \left[
       \frac{v_d + (m_d - m_{0d})^2}{v_{0d}} - 1 - \log\frac{v_d}{v_{0d}}\right]

    Args:
      mean: m, shape [..., D].
      variance: v, broadcastable to `mean`.
      prior_mean: m_0, broadcastable to `mean`.
      prior_variance: v_0, broadcastable to `mean`.

    Returns:
      The divergence in nats, shape [...], summed in at least float32.

    Raises:
      ValueError: `mean` is a scalar, or another argument is not broadcastable to it.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> float(bounds.densities.gaussian_kl(jnp.ones(3), 1.0))
      1.5

    Source: Kingma & Welling 2013 (arXiv 1312.6114), appendix B, for a standard normal prior.
    """
    mean, variance, prior_mean, prior_variance = (
        at_least_float32(array) for array in (mean, variance, prior_mean, prior_variance)
    )
    if mean.ndim == 0:
        raise ValueError("mean must have a last axis to sum over, got a scalar; use mean[None].")
    check_fits(
        "mean", mean.shape, variance=variance, prior_mean=prior_mean, prior_variance=prior_variance
    )
    ratio = variance / prior_variance
    terms = ratio - 1.0 - jnp.log(ratio) + jnp.square(mean - prior_mean) / prior_variance
    return 0.5 * jnp.sum(terms, axis=-1)


def gaussian_entropy(variance: ArrayLike) -> Float[Array, "..."]:
    r"""Entropy of a Gaussian with diagonal covariance, summed over the last axis.

    .. math:: \frac12 \sum_d \log(2 \pi e\, v_d)

    Args:
      variance: v, shape [..., D], one entry for each dimension.

    Returns:
      The differential entropy in nats, shape [...], summed in at least float32.

    Raises:
      ValueError: `variance` has no dimension to sum over.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> round(float(bounds.densities.gaussian_entropy(jnp.ones(1))), 4)
      1.4189
    """
    variance = at_least_float32(variance)
    if variance.ndim == 0:
        raise ValueError(
            "variance must have one entry for each dimension, got a scalar; "
            "use jnp.full(num_dims, variance)."
        )
    return 0.5 * jnp.sum(jnp.log(variance) + math.log(2 * math.pi * math.e), axis=-1)
