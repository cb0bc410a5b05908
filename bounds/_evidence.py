"""Values about log p(x) with their kinds: an upper bound, or an estimate that bounds nothing.

Lower bounds are plain arrays here (`bounds.iwae` and its kin). What these functions return is no
array, so that an estimate cannot enter a logsumexp, nor a table without its kind.
"""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from bounds._checks import check_at_least, check_log_w, is_known, nan_unless
from bounds._leave_one_out import lost_without
from bounds._thermodynamic import Betas, riemann_sum, sum_influence
from bounds._values import finite_or_zero, iwae, log_mean_exp, log_sum_exp
from bounds._weights import fit_generalized_pareto, tail_size


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Value:
    """A number about log p(x) that is no lower bound, with what it is.

    Attributes:
      value: in nats.
      standard_error: of the value, in nats; NaN where one sample cannot tell.
      kind: "upper_bound", in expectation, or "estimate", which may lie on either side.
    """

    value: Float[Array, "..."]
    standard_error: Float[Array, "..."]
    kind: str = field(metadata={"static": True})


def eubo(posterior_log_w: ArrayLike, *, axis: int = -1) -> Value:
    r"""Evidence upper bound: the mean log-weight of exact draws from the posterior.

    .. math:: \frac1K \sum_k \log w_k, \quad z_k \sim p(z | x): \qquad
       \mathbb E = \log p(x) + \mathrm{KL}(p(z|x) \| q(z|x))

    Exact draws come with simulated data: for (x, z) ~ p(x, z), z is one draw of p(z | x). A z from
    q, a resampled one included, or of a sampler that has not converged, bounds nothing.
    `reverse_ais` makes a tighter bound of the same draws.

    Args:
      posterior_log_w: log p(x, z) - log q(z | x) in nats at exact posterior draws, on `axis`.
      axis: the sample axis.

    Returns:
      A `Value` of kind "upper_bound", with the standard error of the mean.

    Raises:
      TypeError: the log-weights are not floating-point.
      ValueError: `axis` is not there or holds no sample.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> found = bounds.evidence.eubo(jnp.array([-1.0, -3.0]))
      >>> float(found.value), found.kind
      (-2.0, 'upper_bound')

    Source: Ji & Shen 2019, "Stochastic variational inference via upper bound".
    """
    log_w, axis = check_log_w(posterior_log_w, axis)
    return Value(jnp.mean(log_w, axis=axis), error_of_mean(log_w, axis), "upper_bound")


def cubo(
    log_w: ArrayLike, order: ArrayLike, *, probabilities: ArrayLike | None = None, axis: int = -1
) -> Value:
    r"""Chi upper bound, exact or estimated: the two are of different kinds.

    .. math:: \frac1n \log \mathbb E_q[w^n] \ge \log p(x), \qquad
       \frac1n \log \frac1K \sum_k w_k^n \;\text{for draws}

    By Jensen's inequality the mean of draws is too low on average, and for weights with heavy tails
    by far: it is no bound from any side. (At n = 1 it is `iwae`, a lower bound.)

    Args:
      log_w: log-weights in nats on `axis`: of draws from q, or of every outcome of z.
      order: n, at least 1.
      probabilities: q of every outcome, shaped as `log_w`, where those are all there are; None for
        draws.
      axis: the axis of draws or outcomes.

    Returns:
      A `Value`: of kind "upper_bound" and without error where probabilities are given, an
      "estimate" with a standard error by the delta method where not.

    Raises:
      TypeError: `log_w` is not floating-point.
      ValueError: `axis` is not there or holds no sample, a known order is below 1, or
        `probabilities` are not shaped as `log_w` or do not sum to 1 (traced ones give NaN).

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> log_w = jnp.log(jnp.array([1.0, 3.0]))
      >>> exact = bounds.evidence.cubo(log_w, 2, probabilities=jnp.array([0.5, 0.5]))
      >>> exact.kind, round(float(jnp.exp(exact.value)) ** 2, 4)  # E[w^2]
      ('upper_bound', 5.0)
      >>> bounds.evidence.cubo(log_w, 2).kind
      'estimate'

    Source: Dieng et al. 2017 (arXiv 1611.00328).
    """
    log_w, axis = check_log_w(log_w, axis)
    order = check_at_least("order", order, 1.0, instead="bounds.renyi is for lower bounds")
    powers = order.astype(log_w.dtype) * log_w
    if probabilities is None:
        relative = jnp.exp(powers - finite_or_zero(jnp.max(powers, axis=axis, keepdims=True)))
        error = _error_of_log_mean(relative, axis) / order.astype(log_w.dtype)
        return Value(log_mean_exp(powers, axis) / order, error, "estimate")
    probabilities = jnp.asarray(probabilities, log_w.dtype)
    if probabilities.shape != log_w.shape:
        raise ValueError(
            f"probabilities must be those of every outcome, shaped as log_w, {log_w.shape}, got "
            f"{probabilities.shape}."
        )
    total = jnp.sum(probabilities, axis=axis)
    whole = jnp.all(probabilities >= 0) & jnp.all(jnp.abs(total - 1) < 1e-3)
    if is_known(whole) and not whole:
        raise ValueError(
            "probabilities must be those of every outcome, none negative and with a sum of 1: "
            "without an outcome there is no bound."
        )
    present = probabilities > 0
    log_q = jnp.where(present, jnp.log(jnp.where(present, probabilities, 1.0)), -jnp.inf)
    value = log_sum_exp(jnp.where(present, powers + log_q, -jnp.inf), axis) / order
    value = value + nan_unless(whole)  # where they are traced
    return Value(value, jnp.zeros_like(value), "upper_bound")


def jackknife(log_w: ArrayLike, *, axis: int = -1) -> Value:
    r"""Jackknife of IWAE: its bias of order 1/K removed, and with it the bound.

    .. math:: K L_K - (K - 1) \frac1K \sum_k L_{K-1}^{(-k)}

    with :math:`L_{K-1}^{(-k)}` the IWAE bound without sample k. The bias that is left is of order
    1/K^2 and of either sign.

    Args:
      log_w: log-weights in nats, samples on `axis`.
      axis: the sample axis.

    Returns:
      A `Value` of kind "estimate", with the jackknife's standard error. Infinite where a single
      sample has weight.

    Raises:
      TypeError: `log_w` is not floating-point.
      ValueError: `axis` is not there or holds fewer than two samples.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> found = bounds.evidence.jackknife(jnp.log(jnp.array([1.0, 3.0])))
      >>> round(float(found.value), 4), found.kind  # 2 log 2 - (log 1 + log 3) / 2
      (0.837, 'estimate')

    Source: Nowozin 2018 (ICLR, "Debiasing Evidence Approximations"), JVI of order 1.
    """
    log_w, axis = check_log_w(log_w, axis)
    count = log_w.shape[axis]
    if count < 2:
        raise ValueError(f"jackknife leaves one sample out, so it needs 2 of them, got {count}.")
    lost = jnp.vectorize(lost_without, signature="(k)->(k)")(jnp.moveaxis(log_w, axis, -1))
    # L_K minus the bound without sample k, for each k: no difference of bounds, which would round.
    loss = math.log1p(-1.0 / count) + lost
    error = jnp.sqrt((count - 1) / count * jnp.sum(jnp.square(loss - _mean(loss)), axis=-1))
    value = iwae(log_w, axis=axis) + (count - 1) * jnp.mean(loss, axis=-1)
    return Value(value, error, "estimate")


def psis(log_w: ArrayLike, *, axis: int = -1) -> Value:
    r"""IWAE with Pareto-smoothed weights: steadier than IWAE, and no bound.

    .. math:: \log \frac1K \sum_k \hat w_k

    where the largest weights :math:`\hat w_k` are replaced by the quantiles of the generalised
    Pareto distribution that is fitted to them, as for `pareto_k_hat`, cut off at the largest
    weight. Fewer than 21 samples have no tail to fit, and are left as they are.

    Args:
      log_w: log-weights in nats, samples on `axis`.
      axis: the sample axis.

    Returns:
      A `Value` of kind "estimate", with a standard error by the delta method, which above the
      k-hat of `k_hat_threshold` is too small.

    Raises:
      TypeError: `log_w` is not floating-point.
      ValueError: `axis` is not there or holds no sample.

    Example:
      >>> import jax, bounds
      >>> log_w = jax.random.normal(jax.random.key(0), (1000,)) - 0.5  # log E[w] = 0
      >>> found = bounds.evidence.psis(log_w)
      >>> bool(abs(found.value) < 4 * found.standard_error), found.kind
      (True, 'estimate')

    Source: Vehtari et al. 2024 (arXiv 1507.02646), section 3.
    """
    log_w, axis = check_log_w(log_w, axis)
    ascending = jnp.sort(jnp.moveaxis(log_w, axis, -1), axis=-1)
    highest = finite_or_zero(ascending[..., -1:])
    weights = jnp.exp(ascending - highest)
    size = tail_size(log_w.shape[axis])
    if size >= 5:
        weights = jnp.concatenate(
            [weights[..., :-size], _smoothed(ascending[..., -size - 1 :] - highest)], axis=-1
        )
    total = jnp.mean(weights, axis=-1)
    dead = total == 0
    value = jnp.where(dead, -jnp.inf, jnp.log(jnp.where(dead, 1.0, total)) + highest[..., 0])
    return Value(value, _error_of_log_mean(weights, -1), "estimate")


def thermodynamic_right(log_w: ArrayLike, betas: Betas, *, axis: int = -1) -> Value:
    r"""Right Riemann sum of the thermodynamic integral: with draws of q, no upper bound.

    .. math:: \sum_{t=1}^{T-1} (b_t - b_{t-1}) \sum_k \tilde w_k^{(t)} \log w_k, \qquad
       \tilde w_k^{(t)} = w_k^{b_t} / \sum_j w_j^{b_t}

    For any weights at all it lies above `iwae` of the same weights. It would bound log p(x) from
    above with exact expectations; weights that are normalised over K draws pull it below.

    Args:
      log_w: log-weights in nats, samples on `axis`.
      betas: b_0 = 0 < ... < b_{T-1} = 1, shape [T].
      axis: the sample axis.

    Returns:
      A `Value` of kind "estimate", with a standard error by the delta method.

    Raises:
      TypeError: `log_w` is not floating-point.
      ValueError: `axis` is not there or holds no sample, or `betas` are not as described.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> found = bounds.evidence.thermodynamic_right(jnp.log(jnp.array([1.0, 4.0])), [0.0, 1.0])
      >>> round(float(found.value), 4), found.kind  # 4/5 log 4
      (1.109, 'estimate')

    Source: Masrani et al. 2019 (arXiv 1907.00031).
    """
    log_w, axis = check_log_w(log_w, axis)
    value = riemann_sum(log_w, betas, axis=axis, right=True)
    log_w = jnp.moveaxis(log_w, axis, -1)
    influence = log_w.shape[-1] * sum_influence(log_w, jnp.asarray(betas, float), right=True)
    return Value(value, error_of_mean(influence, -1), "estimate")


def _smoothed(log_w: Float[Array, "... N"]) -> Float[Array, "... N-1"]:
    """Smoothed weights of the tail, ascending, from relative log-weights: threshold, then tail."""
    tail, threshold = log_w[..., 1:], log_w[..., :1]
    size, raw, base = tail.shape[-1], jnp.exp(tail), jnp.exp(threshold)
    excess = raw * -jnp.expm1(jnp.where(tail > threshold, threshold - tail, 0.0))
    quartile = excess[..., (size + 2) // 4 - 1]
    # Ties with the threshold, or weights too small to hold, leave no distribution to fit.
    fitted = (excess[..., 0] > 0) & jnp.isfinite(excess[..., -1])
    safe = jnp.where(fitted[..., None], excess, jnp.arange(1.0, size + 1, dtype=excess.dtype))
    shape, scale = fit_generalized_pareto(
        safe, jnp.where(fitted, quartile, 1.0), jnp.full(quartile.shape, size, excess.dtype)
    )
    shape, scale = shape[..., None], scale[..., None]
    upper = -jnp.log1p(-(jnp.arange(size, dtype=excess.dtype) + 0.5) / size)
    upper = upper.reshape((1,) * (log_w.ndim - 1) + (size,))
    flat = jnp.abs(shape) < 1e-6
    quantile = jnp.where(flat, upper, jnp.expm1(shape * upper) / jnp.where(flat, 1.0, shape))
    return jnp.where(fitted[..., None], jnp.minimum(base + scale * quantile, 1.0), raw)


def _mean(values: Array) -> Array:
    return jnp.mean(values, axis=-1, keepdims=True)


def error_of_mean(values: Array, axis: int) -> Array:
    """Standard error of the mean; NaN of a single value."""
    count = values.shape[axis]
    deviation = values - jnp.mean(values, axis=axis, keepdims=True)
    squares = jnp.sum(jnp.square(deviation), axis=axis)
    return jnp.sqrt(squares / count / (count - 1)) if count > 1 else jnp.full_like(squares, jnp.nan)


def _error_of_log_mean(weights: Array, axis: int) -> Array:
    """Standard error of the log of a mean of weights, by the delta method."""
    return error_of_mean(weights, axis) / jnp.mean(weights, axis=axis)
