"""log p(x) without bias, from increments of IWAE at random levels."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from bounds._checks import check_count
from bounds._evidence import Value, error_of_mean
from bounds._sampling import log_weight, propose, sample_key, stop
from bounds._types import Key, LatentModel, Params
from bounds._values import log_sum_exp

_DECAY = 1.5  # of the levels' probabilities, in powers of two: cost and variance are both finite


def multilevel(
    model: LatentModel,
    params: Params,
    key: Key,
    x: PyTree,
    *,
    num_samples: int,
    num_replicates: int,
) -> Value:
    r"""Unbiased estimate of log p(x): IWAE-K plus a random one of its increments.

    .. math:: L_K + \frac{1}{P(n)} \left[L_{2^{n+1} K} - \frac12 \left(L_{2^n K}^{(1)}
       + L_{2^n K}^{(2)}\right)\right], \qquad P(n) \propto 2^{-3n/2}, \; n = 0, 1, \dots

    The increment takes :math:`2^{n+1} K` samples, whose two halves give the subtracted bounds; the
    first term is the mean of the IWAE-K bounds of all samples. Increments add up to what L_K lacks
    of log p(x), so the expectation is log p(x). A replicate costs 4.4 K samples on average.

    The value is the mean of R independent replicates. Their variance is R times the square of
    the standard error: finite if the weights have enough moments, and nowhere bounded, so that
    one replicate may be far off. Levels end where float32's exponential draws do, near n = 16; to
    log p(x) is then missing the gap of IWAE with :math:`2^{17} K` samples. K samples that all have
    weight zero make it NaN: take more of them.

    Args:
      model: the model.
      params: its parameters.
      key: PRNG key. Replicate r uses `fold_in(key, r)`.
      x: one datum; `jax.vmap` over data runs every datum as long as the longest.
      num_samples: K, in memory at once.
      num_replicates: R, one after the other.

    Returns:
      A `Value` of kind "estimate", with the standard error over replicates. It carries no gradient.

    Raises:
      TypeError: a count is not an integer.
      ValueError: a count is below 1, or a model function does not return one number.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import norm
      >>> def propose(phi, key, x):
      ...     z = x / 2 + phi * jax.random.normal(key)
      ...     return z, norm.logpdf(z, x / 2, phi)
      >>> model = bounds.LatentModel(
      ...     propose, None, lambda theta, x, z: norm.logpdf(z) + norm.logpdf(x, z))
      >>> found = bounds.evidence.multilevel(
      ...     model, bounds.Params(None, 0.8), jax.random.key(0), 1.0,
      ...     num_samples=8, num_replicates=200)
      >>> exact = norm.logpdf(1.0, 0.0, jnp.sqrt(2.0))
      >>> bool(abs(found.value - exact) < 4 * found.standard_error)
      True

    Source: Luo et al. 2020 (arXiv 2004.00353), SUMO, whose levels add one sample each; Shi &
    Cornish 2021 (AISTATS, "On multilevel Monte Carlo unbiased gradient estimation for deep latent
    variable models") for levels that double and are compared with their own halves.
    """
    num_samples = check_count("num_samples", num_samples)
    num_replicates = check_count("num_replicates", num_replicates)
    params, x = stop((params, x))

    def one(index):
        key_level, key_draws = jax.random.split(sample_key(key, index))
        rate = _DECAY * math.log(2.0)
        level = jnp.floor(jax.random.exponential(key_level) / rate)
        blocks = 2 ** (level.astype(int) + 1)

        def log_total(block):
            def log_w(k):
                z, log_q = propose(model, params.phi, sample_key(key_draws, k), x)
                return log_weight(model, params.theta, x, z, log_q)

            own = jax.vmap(log_w)(block * num_samples + jnp.arange(num_samples))
            return log_sum_exp(own, 0)

        def more(state):
            return state[0] < blocks

        def add(state):
            block, bound, totals = state
            own = log_total(block)
            half = (2 * block >= blocks).astype(int)
            totals = totals.at[half].set(jnp.logaddexp(totals[half], own))
            count = (block + 1).astype(own.dtype)
            return block + 1, bound + (own - bound) / count, totals

        own = log_total(0)
        first = jnp.ones((), int), own, jnp.stack([own, jnp.full_like(own, -jnp.inf)])
        _, bound, totals = jax.lax.while_loop(more, add, first)
        probability = -jnp.expm1(-rate) * jnp.exp(-rate * level)
        return bound - math.log(num_samples) + increment(totals) / probability

    values = stop(jax.lax.map(one, jnp.arange(num_replicates)))
    return Value(jnp.mean(values), error_of_mean(values, 0), "estimate")


def increment(log_totals: Float[Array, "2"]) -> Float[Array, ""]:
    """IWAE of two halves together minus the mean of theirs, from the logs of their sums."""
    # log((e^a + e^b) / 2) - (a + b) / 2 = log cosh((a - b) / 2), near 0 without cancellation.
    half = 0.5 * jnp.abs(log_totals[0] - log_totals[1])
    near = half < 1
    small = jnp.log1p(2 * jnp.square(jnp.sinh(0.5 * jnp.where(near, half, 0.0))))
    return jnp.where(near, small, half + jnp.log1p(jnp.exp(-2 * half)) - math.log(2.0))
