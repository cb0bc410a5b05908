"""Values of the bounds, from log-weights `log_w = log p(x, z) - log q(z | x)` in nats.

Every function reduces the sample axis and nothing else: no average over data hides
inside. A log-weight of -inf is a weight of zero, NaN propagates, and half-precision
input is accumulated and returned in float32.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from bounds._checks import check_log_w, check_number, is_known


def elbo(log_w: ArrayLike, *, axis: int = -1) -> Float[Array, "..."]:
    r"""Evidence lower bound, averaged over samples.

    .. math:: \frac1K \sum_k \log w_k, \qquad
       \mathbb E[\log w] = \log p(x) - \mathrm{KL}(q(z|x) \| p(z|x)).

    Args:
      log_w: log-weights in nats, samples on `axis`.
      axis: the sample axis.

    Returns:
      The bound in nats, `log_w` without `axis`. One weight of zero makes it -inf.

    Raises:
      TypeError: `log_w` is not floating-point.
      ValueError: `axis` is not there or holds no sample.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> float(bounds.elbo(jnp.array([-1.0, -3.0])))
      -2.0

    Source: Kingma & Welling 2013 (arXiv 1312.6114), eq. 2.
    """
    log_w, axis = check_log_w(log_w, axis)
    return jnp.mean(log_w, axis=axis)


def iwae(log_w: ArrayLike, *, axis: int = -1) -> Float[Array, "..."]:
    r"""Importance-weighted bound of K samples.

    .. math:: L_K = \log \frac1K \sum_k w_k, \qquad
       \mathbb E[L_1] \le \mathbb E[L_K] \le \mathbb E[L_{K+1}] \le \log p(x).

    All weights zero give -inf, with a gradient of zero.

    Args:
      log_w: log-weights in nats, samples on `axis`.
      axis: the sample axis.

    Returns:
      The bound in nats, `log_w` without `axis`.

    Raises:
      TypeError: `log_w` is not floating-point.
      ValueError: `axis` is not there or holds no sample.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> round(float(bounds.iwae(jnp.log(jnp.array([1.0, 3.0])))), 4)  # log 2
      0.6931

    Source: Burda et al. 2015 (arXiv 1509.00519), eq. 8 and theorem 1.
    """
    log_w, axis = check_log_w(log_w, axis)
    return log_mean_exp(log_w, axis)


def renyi(log_w: ArrayLike, alpha: ArrayLike, *, axis: int = -1) -> Float[Array, "..."]:
    r"""Variational Renyi importance-weighted bound (VR-IWAE).

    .. math:: \frac{1}{1-\alpha} \log \frac1K \sum_k w_k^{1-\alpha}

    A lower bound on log p(x) in expectation for alpha >= 0, falling in alpha: alpha = 0
    is `iwae`, alpha = 1 is `elbo`, and float32 holds all the way between them. For
    alpha < 0 it may lie above log p(x): a number to look at, and no bound. The derivative
    in alpha is exact at alpha = 1 and loses digits within about 1e-3 of it.

    Args:
      log_w: log-weights in nats, samples on `axis`.
      alpha: the order, a scalar; may be traced.
      axis: the sample axis.

    Returns:
      The bound in nats, `log_w` without `axis`.

    Raises:
      TypeError: `log_w` is not floating-point.
      ValueError: `axis` is not there or holds no sample, or `alpha` is not a scalar.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> log_w = jnp.log(jnp.array([1.0, 4.0]))
      >>> round(float(bounds.renyi(log_w, 0.5)), 4)  # 2 log((1 + 2) / 2)
      0.8109

    Source: Li & Turner 2016 (arXiv 1602.02311), eq. 5; Daudel et al. 2023
    (arXiv 2210.06226).
    """
    log_w, axis = check_log_w(log_w, axis)
    check_number("alpha", alpha)
    # 1 - alpha is formed before it is rounded to float32, while a Python float is exact.
    order = jnp.asarray(1.0 - alpha, log_w.dtype)  # type: ignore[operator]
    if order.shape != ():
        raise ValueError(f"alpha must be a scalar, got shape {order.shape}; jax.vmap over orders.")
    dead = jnp.isneginf(log_w)
    # Negative powers of a zero weight are infinite: that bound is -inf, whatever the others.
    ruined = (order < 0) & jnp.any(dead, axis=axis, keepdims=True)
    log_w = jnp.where(ruined, 0.0, log_w)
    dead = dead & ~ruined
    highest = jnp.max(log_w, axis=axis, keepdims=True)
    lowest = jnp.min(log_w, axis=axis, keepdims=True)
    reference = finite_or_zero(jax.lax.stop_gradient(jnp.where(order >= 0, highest, lowest)))
    is_elbo = order == 0
    safe_order = jnp.where(is_elbo, 1.0, order)
    # Every exponent is <= 0. expm1 and log1p keep the digits that 1/(1 - alpha) would
    # otherwise blow up near alpha = 1; near mean(exp) = 0 they would lose them instead.
    exponent = safe_order * jnp.where(dead, 0.0, log_w - reference)
    excess = jnp.mean(jnp.where(dead, -1.0, jnp.expm1(exponent)), axis=axis)
    mean_power = jnp.mean(jnp.where(dead, 0.0, jnp.exp(exponent)), axis=axis)
    nothing = mean_power == 0  # only if every weight is zero: the reference contributes 1/K
    near = excess > -0.5
    log_mean = jnp.where(
        near,
        jnp.log1p(jnp.where(near, excess, 0.0)),
        jnp.log(jnp.where(near | nothing, 1.0, mean_power)),
    )
    bound = jnp.squeeze(reference, axis) + log_mean / safe_order
    bound = jnp.where(nothing | jnp.squeeze(ruined, axis), -jnp.inf, bound)
    # The next term of the expansion is 0 at alpha = 1, but its derivative in alpha is not.
    mean = jnp.mean(log_w, axis=axis)
    spread = jnp.where(jnp.any(dead, axis=axis), 0.0, jnp.var(jnp.where(dead, 0.0, log_w), axis))
    return jnp.where(is_elbo, mean + order * spread / 2, bound)


def ciwae(log_w: ArrayLike, beta: ArrayLike, *, axis: int = -1) -> Float[Array, "..."]:
    r"""Combination of ELBO and IWAE on the same samples.

    .. math:: \beta \frac1K \sum_k \log w_k + (1-\beta) \log \frac1K \sum_k w_k

    Args:
      log_w: log-weights in nats, samples on `axis`.
      beta: the share of the ELBO, a scalar in [0, 1], beyond which there is no bound; may be
        traced, and one out of range then gives NaN.
      axis: the sample axis.

    Returns:
      The bound in nats, `log_w` without `axis`.

    Raises:
      TypeError: `log_w` is not floating-point.
      ValueError: `axis` is not there or holds no sample, `beta` is not a scalar, or a known one
        is not in [0, 1].

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> log_w = jnp.array([-1.0, -3.0])
      >>> bool(bounds.ciwae(log_w, 1.0) == bounds.elbo(log_w))
      True

    Source: Rainforth et al. 2018 (arXiv 1802.04537).
    """
    log_w, axis = check_log_w(log_w, axis)
    known = is_known(beta)
    if known and jnp.shape(beta) == () and not 0 <= float(beta) <= 1:  # type: ignore[arg-type]
        raise ValueError(f"beta is the share of the ELBO, from 0 to 1, got {beta}.")
    beta = jnp.asarray(beta, log_w.dtype)
    if beta.shape != ():
        raise ValueError(f"beta must be a scalar, got shape {beta.shape}; jax.vmap over shares.")
    beta = beta if known else jnp.where((beta >= 0) & (beta <= 1), beta, jnp.nan)
    mean, multi = jnp.mean(log_w, axis=axis), log_mean_exp(log_w, axis)
    # A share of exactly zero must not turn the other term's -inf into NaN.
    mean = jnp.where((beta == 0) & jnp.isneginf(mean), 0.0, mean)
    multi = jnp.where((beta == 1) & jnp.isneginf(multi), 0.0, multi)
    return beta * mean + (1.0 - beta) * multi


def log_mean_exp(log_w: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """log mean exp over `axis`; -inf entries count as zeros and pass no gradient."""
    return log_sum_exp(log_w, axis) - math.log(log_w.shape[axis])


def log_sum_exp(log_w: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """log sum exp over `axis`; where all entries are -inf, JAX's own has a gradient of NaN."""
    highest = jax.lax.stop_gradient(jnp.max(log_w, axis=axis, keepdims=True))
    reference = finite_or_zero(highest)
    total = jnp.sum(jnp.exp(log_w - reference), axis=axis)
    dead = jnp.isneginf(jnp.squeeze(highest, axis))
    log_total = jnp.log(jnp.where(dead, 1.0, total)) + jnp.squeeze(reference, axis)
    return jnp.where(dead, -jnp.inf, log_total)


def finite_or_zero(reference: Float[Array, "..."]) -> Float[Array, "..."]:
    """What to subtract before exponentiating: -inf - (-inf) would be NaN."""
    return jnp.where(jnp.isfinite(reference), reference, 0.0)
