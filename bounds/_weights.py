"""Importance weights: normalisation and how far they can be trusted."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from bounds._checks import check_count, check_log_w
from bounds._values import finite_or_zero


def normalized_weights(log_w: ArrayLike, *, axis: int = -1) -> Float[Array, "..."]:
    r"""Self-normalised importance weights.

    .. math:: \tilde w_k = w_k / \sum_j w_j

    Args:
      log_w: log-weights in nats, samples on `axis`.
      axis: the sample axis.

    Returns:
      Weights shaped like `log_w` that sum to 1 over `axis`; zeros where every
      log-weight is -inf.

    Raises:
      TypeError: `log_w` is not floating-point.
      ValueError: `axis` is not there or holds no sample.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> [round(float(w), 4) for w in bounds.normalized_weights(jnp.log(jnp.array([1.0, 3.0])))]
      [0.25, 0.75]

    Source: Burda et al. 2015 (arXiv 1509.00519), section 3.
    """
    log_w, axis = check_log_w(log_w, axis)
    weights = _relative_weights(log_w, axis)
    total = jnp.sum(weights, axis=axis, keepdims=True)
    return jnp.where(total == 0, 0.0, weights / jnp.where(total == 0, 1.0, total))


def effective_sample_size(log_w: ArrayLike, *, axis: int = -1) -> Float[Array, "..."]:
    r"""Effective sample size of importance weights.

    .. math:: \mathrm{ESS} = (\sum_k w_k)^2 / \sum_k w_k^2 \in [1, K]

    Args:
      log_w: log-weights in nats, samples on `axis`.
      axis: the sample axis.

    Returns:
      The effective number of samples, `log_w` without `axis`; 0 where every
      log-weight is -inf.

    Raises:
      TypeError: `log_w` is not floating-point.
      ValueError: `axis` is not there or holds no sample.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> float(bounds.effective_sample_size(jnp.zeros(8)))
      8.0

    Source: Kong 1992, "A note on importance sampling using standardized weights".
    """
    log_w, axis = check_log_w(log_w, axis)
    weights = _relative_weights(log_w, axis)
    squares = jnp.sum(jnp.square(weights), axis=axis)
    total = jnp.sum(weights, axis=axis)
    return jnp.where(squares == 0, 0.0, jnp.square(total) / jnp.where(squares == 0, 1.0, squares))


def pareto_k_hat(log_w: ArrayLike, *, axis: int = -1) -> Float[Array, "..."]:
    r"""Shape of the generalised Pareto distribution fitted to the largest weights.

    The weights have finite variance for k < 1/2. In practice importance sampling is
    reliable for :math:`\hat k < \min(1 - 1/\log_{10} K, 0.7)` (`k_hat_threshold`).
    The tail is the largest :math:`\lceil\min(K/5, 3\sqrt K)\rceil` weights, less those that
    equal the next one: where fewer weights than that are not zero, it is these.

    Args:
      log_w: log-weights in nats, samples on `axis`.
      axis: the sample axis.

    Returns:
      k-hat, `log_w` without `axis`; NaN for K < 21 (the tail needs 5 weights) or a weight of
      NaN. -inf where the largest weights are all equal, up to fewer than 5 that hold less
      than half of them; inf where fewer than 5 hold more, where every weight is zero or one
      infinite, and where they differ by so much that the dtype cannot hold them side by side.

    Raises:
      TypeError: `log_w` is not floating-point.
      ValueError: `axis` is not there or holds no sample.

    Example:
      >>> import jax, bounds
      >>> log_w = 2.0 * jax.random.exponential(jax.random.key(0), (10_000,))  # true k = 2
      >>> bool(abs(bounds.pareto_k_hat(log_w) - 2.0) < 0.3)
      True

    Source: Vehtari et al. 2024 (arXiv 1507.02646); the length of the tail: its appendix H.
    """
    log_w, axis = check_log_w(log_w, axis)
    size = tail_size(log_w.shape[axis])
    moved = jnp.moveaxis(log_w, axis, -1)
    largest, _ = jax.lax.top_k(moved, min(size + 1, moved.shape[-1]))
    # A NaN with its sign set, as inf - inf is, would be sorted below all others.
    unknown = jnp.any(jnp.isnan(moved), axis=-1)
    return jnp.where(unknown, jnp.nan, k_hat_from_tail(largest, log_w.shape[axis]))


def k_hat_threshold(num_samples: int) -> float:
    r"""The largest :math:`\hat k` at which K importance weights can be trusted.

    .. math:: \min(1 - 1/\log_{10} K, 0.7)

    Args:
      num_samples: K.

    Returns:
      The threshold; -inf for a single sample.

    Raises:
      TypeError: `num_samples` is not an integer.
      ValueError: it is below 1.

    Example:
      >>> import bounds
      >>> bounds.k_hat_threshold(100)
      0.5

    Source: Vehtari et al. 2024 (arXiv 1507.02646), section 3.2.4, eq. 13.
    """
    num_samples = check_count("num_samples", num_samples)
    return min(1.0 - 1.0 / math.log10(num_samples), 0.7) if num_samples > 1 else -math.inf


def tail_size(num_samples: int) -> int:
    """How many of K weights make the tail that k-hat is fitted to."""
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def k_hat_from_tail(largest: Float[Array, "... tail"], num_samples: int) -> Float[Array, "..."]:
    """k-hat from the `tail_size + 1` largest log-weights of K, in descending order."""
    size = tail_size(num_samples)
    if size < 5:
        return jnp.full(largest.shape[:-1], jnp.nan, largest.dtype)
    # The threshold is the largest weight outside the tail. Ascending excesses over it, by
    # expm1: neighbours stay apart, and no weight is too small beside a threshold of zero.
    weights = _relative_weights(largest, -1)[..., :-1][..., ::-1]
    ascending, threshold = largest[..., :-1][..., ::-1], largest[..., -1:]
    above = ascending > threshold
    excess = weights * jnp.where(
        above, -jnp.expm1(jnp.where(above, threshold - ascending, 0.0)), 0.0
    )
    count = jnp.sum(above, axis=-1)
    # Fewer than five make no tail to fit: either they are all that counts, or a blemish.
    few = count < 5
    they_count = 2.0 * jnp.sum(jnp.where(above, weights, 0.0), axis=-1) > jnp.sum(weights, axis=-1)
    quartile = size - count + (count + 2) // 4 - 1
    # A tail so wide that the dtype cannot hold its lower quartile beside its top is heavier than
    # any fit could say.
    lowest = jnp.take_along_axis(excess, jnp.maximum(quartile, 0)[..., None], axis=-1)[..., 0]
    fitted = ~few & (lowest > 0)
    safe = jnp.where(fitted[..., None], excess, jnp.arange(1.0, size + 1, dtype=excess.dtype))
    fit, _ = fit_generalized_pareto(
        safe, jnp.where(fitted, lowest, 1.0), jnp.where(fitted, count, size).astype(excess.dtype)
    )
    k_hat = jnp.where(fitted, fit, jnp.where(few & ~they_count, -jnp.inf, jnp.inf))
    # All weights zero, or one infinite.
    return jnp.where(jnp.isfinite(largest[..., 0]), k_hat, jnp.abs(largest[..., 0]))


@functools.partial(jnp.vectorize, signature="(n),(),()->(),()")
def fit_generalized_pareto(
    excess: Float[Array, "n"], quartile: Float[Array, ""], count: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Posterior-mean estimate of the Pareto shape, and the scale (Zhang & Stephens 2009).

    `count` of the excesses are positive; zeros add nothing to the sums over them.
    """
    grid_size = 30 + math.isqrt(excess.shape[0])
    grid = jnp.arange(1.0, grid_size + 1, dtype=excess.dtype) - 0.5
    b = (1.0 - jnp.sqrt(grid_size / grid)) / (3.0 * quartile) + 1.0 / excess[-1]
    k = jnp.sum(jnp.log1p(-b[:, None] * excess[None]), axis=1) / count
    log_profile = count * (jnp.log(-b / k) - k - 1.0)
    # Where b is 0 to rounding the profile is 0/0; that grid point carries no weight.
    log_profile = jnp.where(jnp.isfinite(log_profile), log_profile, -jnp.inf)
    b_mean = jnp.sum(b * _relative_weights(log_profile, -1)) / jnp.sum(
        _relative_weights(log_profile, -1)
    )
    shape = jnp.sum(jnp.log1p(-b_mean * excess)) / count
    # A weak prior at 1/2, worth ten observations.
    return (count * shape + 10 * 0.5) / (count + 10), -shape / b_mean


def _relative_weights(log_w: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Weights over the largest one: float32 keeps its digits at any offset of log_w."""
    highest = jax.lax.stop_gradient(jnp.max(log_w, axis=axis, keepdims=True))
    return jnp.exp(log_w - finite_or_zero(highest))
