"""Large-K evaluation of log p(x) in memory that does not grow with K."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from bounds._checks import check_count
from bounds._sampling import log_weight, propose, sample_key
from bounds._types import Key, LatentModel, Params
from bounds._values import finite_or_zero
from bounds._weights import k_hat_from_tail, k_hat_threshold, tail_size


class Diagnostics(NamedTuple):
    r"""How far a `log_likelihood` can be trusted.

    .. math:: \mathrm{SE} = \sqrt{\Bigl(\frac{1}{\mathrm{ESS}} - \frac1K\Bigr) \frac{K}{K - 1}}

    Attributes:
      standard_error: SE of the value in nats, by the delta method; NaN at K = 1. It knows
        nothing of modes of the posterior that q never visits.
      ess: effective sample size, between 1 and K.
      k_hat: Pareto shape of the largest weights, see `pareto_k_hat`; NaN for K < 21.
      reliable: whether k-hat is below min(1 - 1/log10 K, 0.7) and ESS at least 10. Where
        it is not, neither the value (too low) nor the standard error (too small) is to be
        trusted.
    """

    standard_error: Float[Array, ""]
    ess: Float[Array, ""]
    k_hat: Float[Array, ""]
    reliable: Bool[Array, ""]


_LEAST_ESS = 10


class _Running(NamedTuple):
    highest: Array  # the largest log-weight so far
    total: Array  # sum of w / exp(highest)
    squares: Array  # sum of the squares of the same
    tail: Array  # the largest log-weights, descending


def log_likelihood(
    model: LatentModel,
    params: Params,
    key: Key,
    x: PyTree,
    *,
    num_samples: int,
    chunk_size: int,
) -> tuple[Float[Array, ""], Diagnostics]:
    r"""Importance-sampling estimate of log p(x) for one datum: IWAE-K with large K.

    .. math:: \log \frac1K \sum_k w_k, \qquad z_k \sim q(z | x)

    A lower bound on log p(x) in expectation, tight as K grows. Sample k uses
    `fold_in(key, k)`, so the value is that of `iwae(log_weights(...))` at any chunk
    size; memory holds one chunk and the O(sqrt K) largest log-weights.

    Args:
      model: the model.
      params: its parameters.
      key: PRNG key.
      x: one datum; `jax.vmap` over data.
      num_samples: K.
      chunk_size: samples in memory at once. It need not divide K.

    Returns:
      (value in nats, `Diagnostics`).

    Raises:
      TypeError: `num_samples` or `chunk_size` is not an integer.
      ValueError: either is below 1, or a model function does not return one number.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import norm
      >>> def propose(phi, key, x):
      ...     z = x / 2 + phi * jax.random.normal(key)
      ...     return z, norm.logpdf(z, x / 2, phi)
      >>> model = bounds.LatentModel(
      ...     propose, None, lambda theta, x, z: norm.logpdf(z) + norm.logpdf(x, z))
      >>> value, diagnostics = bounds.log_likelihood(
      ...     model, bounds.Params(None, 0.8), jax.random.key(0), 1.0,
      ...     num_samples=5000, chunk_size=500)
      >>> exact = norm.logpdf(1.0, 0.0, jnp.sqrt(2.0))
      >>> bool(abs(value - exact) < 4 * diagnostics.standard_error)
      True

    Source: Burda et al. 2015 (arXiv 1509.00519), section 5 (K = 5000); the diagnostics:
    Vehtari et al. 2024 (arXiv 1507.02646).
    """
    num_samples = check_count("num_samples", num_samples)
    chunk_size = min(check_count("chunk_size", chunk_size), num_samples)
    kept = tail_size(num_samples) + 1

    def sample(k):
        z, log_q = propose(model, params.phi, sample_key(key, k), x)
        return log_weight(model, params.theta, x, z, log_q)

    def summarize(first, size) -> _Running:
        log_w = jax.vmap(sample)(first + jnp.arange(size))
        highest = jnp.max(log_w)
        weights = jnp.exp(log_w - finite_or_zero(highest))
        return _Running(highest, jnp.sum(weights), jnp.sum(jnp.square(weights)), log_w)

    # The first chunk starts the scan: its carry then has the types a shard_map wants.
    running = summarize(0, chunk_size)
    padding = jnp.full((max(kept - chunk_size, 0),), -jnp.inf, running.tail.dtype)
    tail, _ = jax.lax.top_k(jnp.concatenate([running.tail, padding]), kept)
    running = running._replace(tail=tail)
    num_chunks, rest = divmod(num_samples, chunk_size)
    if num_chunks > 1:

        def body(running, chunk):
            return _merge(running, summarize(chunk * chunk_size, chunk_size)), None

        running, _ = jax.lax.scan(body, running, jnp.arange(1, num_chunks))
    if rest:
        running = _merge(running, summarize(num_samples - rest, rest))

    dead = running.total == 0
    log_total = jnp.log(jnp.where(dead, 1.0, running.total)) + finite_or_zero(running.highest)
    value = jnp.where(dead, -jnp.inf, log_total) - math.log(num_samples)
    ess = jnp.where(dead, 0.0, jnp.square(running.total) / jnp.where(dead, 1.0, running.squares))
    # Rounding can push the relative variance of equal weights below zero.
    relative_variance = jnp.maximum(1.0 / jnp.where(dead, 1.0, ess) - 1.0 / num_samples, 0.0)
    correction = num_samples / (num_samples - 1) if num_samples > 1 else math.nan
    standard_error = jnp.where(dead, jnp.nan, jnp.sqrt(relative_variance * correction))
    k_hat = k_hat_from_tail(running.tail, num_samples)
    # A NaN with its sign set, as inf - inf is, sorts below all others and out of the tail.
    k_hat = jnp.where(jnp.isnan(running.total), jnp.nan, k_hat)
    reliable = (k_hat < k_hat_threshold(num_samples)) & (ess >= _LEAST_ESS)
    return value, Diagnostics(standard_error, ess, k_hat, reliable)


def _merge(a: _Running, b: _Running) -> _Running:
    """`a` and one more chunk; selecting the tail is not cheap, so it is done once, here."""
    highest = jnp.maximum(a.highest, b.highest)
    shift_a = jnp.exp(a.highest - finite_or_zero(highest))
    shift_b = jnp.exp(b.highest - finite_or_zero(highest))
    tail, _ = jax.lax.top_k(jnp.concatenate([a.tail, b.tail]), a.tail.shape[0])
    return _Running(
        highest,
        a.total * shift_a + b.total * shift_b,
        a.squares * jnp.square(shift_a) + b.squares * jnp.square(shift_b),
        tail,
    )
