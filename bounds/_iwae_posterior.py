"""The posterior approximation that IWAE stands for: what resampling by the weights draws from."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from bounds._checks import check_chunk_size, check_count, check_log_q, check_scalar
from bounds._sampling import log_weight, log_weights, over_samples, sample_key
from bounds._types import Key, LatentModel, Params
from bounds._values import finite_or_zero, iwae


def iwae_posterior_log_prob(
    model: LatentModel,
    params: Params,
    key: Key,
    x: PyTree,
    z: PyTree,
    *,
    num_samples: int,
    num_sets: int,
    chunk_size: int | None = None,
) -> Float[Array, ""]:
    r"""Log-density of z after drawing K samples and keeping one by its weight, for one datum.

    .. math:: q_{\mathrm{EW}}(z | x) = \mathbb E_{z_2 \dots z_K \sim q}\left[
       \frac{p(x, z)}{\frac1K \left(w(z) + \sum_{j=2}^K w(z_j)\right)}\right]

    A density if p(x, z) > 0 wherever q > 0 (draws of weight zero leave it short of one): q at
    K = 1, the posterior as K grows. Its ELBO is at least L_K, and above it in general: L_K is the
    average of that functional over the terms inside the expectation, which do
    not integrate to one by themselves. The expectation is a mean over `num_sets` sets of K - 1
    draws, unbiased for the density and so biased low for its log. Set s uses `fold_in(key, s)`;
    the same key at every z gives one function of z.

    Args:
      model: the model; z may be discrete.
      params: its parameters.
      key: PRNG key.
      x: one datum.
      z: where to evaluate; `jax.vmap` over points.
      num_samples: K.
      num_sets: how many sets of K - 1 draws.
      chunk_size: sets in memory at once; None for all.

    Returns:
      log q_EW(z | x) in nats; -inf where p(x, z) = 0 or q(z | x) = 0.

    Raises:
      TypeError: a count is not an integer.
      ValueError: a count is below 1, or the model has log_q=None.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import norm
      >>> model = bounds.LatentModel(
      ...     propose=lambda phi, key, x: (z := jax.random.normal(key), norm.logpdf(z)),
      ...     log_q=lambda phi, x, z: norm.logpdf(z),
      ...     log_p=lambda theta, x, z: norm.logpdf(z) + norm.logpdf(x, z))
      >>> found = bounds.surgery.iwae_posterior_log_prob(
      ...     model, bounds.Params(None, None), jax.random.key(0), 1.0, jnp.array(0.5),
      ...     num_samples=1000, num_sets=100)
      >>> exact = norm.logpdf(0.5, 0.5, jnp.sqrt(0.5))  # the posterior
      >>> bool(abs(found - exact) < 0.02)
      True

    Source: Cremer et al. 2017 (arXiv 1704.02916), eq. 7 and theorem 1.
    """
    num_samples = check_count("num_samples", num_samples)
    num_sets = check_count("num_sets", num_sets)
    check_log_q("iwae_posterior_log_prob", model.log_q, "bounds.log_weights to resample z itself")
    assert model.log_q is not None
    chunk_size = check_chunk_size(chunk_size)
    log_q = check_scalar("log_q", model.log_q(params.phi, x, z))
    never = jnp.isneginf(log_q)  # drawn, and so never kept
    log_q = jnp.where(never, 0.0, log_q)
    own = log_weight(model, params.theta, x, z, log_q)
    impossible = never | jnp.isneginf(own)
    center = finite_or_zero(own)
    if num_samples == 1:
        return jnp.where(impossible, -jnp.inf, log_q)

    def one(number):
        others = log_weights(model, params, sample_key(key, number), x, num_samples=num_samples - 1)
        # Over the own weight, which would round away what of it is left beside log p(x).
        return -iwae(jnp.concatenate([own[None], others]) - center)

    inverse = over_samples(one, jnp.arange(num_sets), chunk_size)
    # Where w(z) and all others of a set are zero, the set says nothing about a z that cannot be.
    density = own - center + log_q + iwae(jnp.where(impossible, 0.0, inverse))
    return jnp.where(impossible, -jnp.inf, density)
