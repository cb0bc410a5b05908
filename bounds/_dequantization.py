r"""Dequantization: a bound on the probability of integers from a density of continuous data.

A cell of the integer x is x + [0, 1)^D. With noise u of density q(u | x) inside it,

    log P(x) = log E_q[p(x + u) / q(u | x)],   P(x) = \int_{[0, 1)^D} p(x + u) du,

which makes u a latent variable: the density of continuous data is its joint p(x, u), and every
bound and estimator of this package applies. The latent here is v = logit(u), because in float32
255 + u rounds to 256 for u near 1, and log(1 - u) loses its digits; the derivative of the sigmoid
belongs to the densities of v under p and under q alike. A density that takes logits of x + u gets
them from x and v by `level_logit`.

Sources: Theis et al. 2016 (arXiv 1511.01844) for uniform noise, Ho et al. 2019 (arXiv 1902.00275)
for learned noise, Hoogeboom et al. 2020 (arXiv 2001.11235) for more than one sample of it.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, PyTree

from bounds._checks import check_scalar
from bounds._dequantizers import Dequantizer, standard_logistic_log_prob
from bounds._level_logit import inside_cell
from bounds._types import LatentModel

LogDensity = Callable[[PyTree, Array, Array], Any]
"""(theta, x, u or v) -> [], log p(x + u) in nats, of the density in units of integers."""


def dequantized(
    log_density: LogDensity, dequantizer: Dequantizer, *, pre_sigmoid: bool = False
) -> LatentModel:
    r"""The latent-variable model of integers whose latent is their noise.

    .. math:: \log p(x, v) = \log p(x + \sigma(v)) + \sum_d \log \sigma'(v_d)

    Its ELBO is the bound of Ho et al. 2019, eq. 12 (with `uniform` that of Theis et
    al. 2016), IWAE-K and `renyi` are those of Hoogeboom et al. 2020; `log_likelihood` evaluates
    log P(x) with many samples.

    Args:
      log_density: (theta, x, u) -> log p(x + u), a density in units of integers: of data scaled
        by s it is s^D times as large. It gets x and u apart, because their sum rounds: to at
        most the number below x + 1, since u is cut off there and at 2e-31. The cut moves a u by
        less than float32 resolves beside x, 2e-5 levels at 255, with about that probability; the
        density of v is not touched by it.
      dequantizer: the noise.
      pre_sigmoid: whether log_density takes v = logit(u) in place of u, which is exact wherever u
        lies: see `level_logit`.

    Returns:
      A `LatentModel` of one datum x of integers (of a floating dtype or not), z = v.

    Raises:
      Nothing: errors of `log_density` and of the dequantizer pass through when they are called.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import logistic
      >>> def log_density(theta, x, u):  # a logistic density of one pixel
      ...     return jnp.sum(logistic.logpdf(x + u, theta))
      >>> model = bounds.dequantization.dequantized(log_density, bounds.dequantization.uniform())
      >>> value, _ = bounds.log_likelihood(
      ...     model, bounds.Params(2.5, None), jax.random.key(0), jnp.array([2.0]),
      ...     num_samples=2000, chunk_size=2000)
      >>> exact = jnp.log(jax.nn.sigmoid(0.5) - jax.nn.sigmoid(-0.5))
      >>> bool(abs(value - exact) < 1e-3)
      True

    Source: Ho et al. 2019 (arXiv 1902.00275), section 3.1; Hoogeboom et al. 2020
    (arXiv 2001.11235).
    """

    def log_p(theta, x, v):
        noise = v if pre_sigmoid else inside_cell(x, jax.nn.sigmoid(v))
        found = check_scalar("log_density", log_density(theta, x, noise))
        return found + standard_logistic_log_prob(v)

    return LatentModel(dequantizer.propose, dequantizer.log_q, log_p)
