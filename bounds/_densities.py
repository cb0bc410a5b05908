"""Log-densities that models need, in at least float32.

What cannot be refused because it is traced gets the log-probability it has: -inf outside of the
support, and NaN where it is NaN.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from bounds._checks import at_least_float32, check_fits, is_known
from bounds._levels import whole_levels
from bounds._values import finite_or_zero, log_sum_exp


def gaussian_log_prob(
    value: ArrayLike, mean: ArrayLike, variance: ArrayLike
) -> Float[Array, "..."]:
    r"""Log-density of a Gaussian with diagonal covariance, summed over the last axis.

    .. math:: -\frac12 \sum_d \left[\frac{(z_d - m_d)^2}{v_d} + \log 2 \pi v_d\right]

    Args:
      value: z, where to evaluate, shape [..., D].
      mean: m, broadcastable to `value`.
      variance: v, the VARIANCE (not the standard deviation), broadcastable to `value`.

    Returns:
      The log-density in nats, shape [...], summed in at least float32.

    Raises:
      ValueError: `value` is a scalar, or another argument is not broadcastable to it.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> round(float(bounds.densities.gaussian_log_prob(jnp.zeros(2), 0.0, 1.0)), 4)  # -log 2 pi
      -1.8379
    """
    value, mean, variance = (at_least_float32(array) for array in (value, mean, variance))
    if value.ndim == 0:
        raise ValueError("value must have a last axis to sum over, got a scalar; use value[None].")
    check_fits("value", value.shape, mean=mean, variance=variance)
    terms = jnp.square(value - mean) / variance + jnp.log(2 * math.pi * variance)
    return -0.5 * jnp.sum(terms, axis=-1)


def bernoulli_log_prob(logits: ArrayLike, value: ArrayLike) -> Float[Array, "..."]:
    r"""Log-probability of Bernoulli outcomes, elementwise.

    .. math:: x \ell - \log(1 + e^\ell)
       = x \ell - \max(\ell, 0) - \log(1 + e^{-|\ell|})

    The derivative is given in closed form, :math:`x - \sigma(\ell)` in the logits: on a
    CPU the derivative of softplus would dominate the backward pass of a VAE. The absolute
    error is that of one rounding, 6e-8 in float32.

    Args:
      logits: :math:`\ell`, log-odds of a one; floating and finite.
      value: x, zeros and ones, broadcastable to `logits`. Values between them give the same
        formula, which is then not a probability; traced values beyond them give -inf.

    Returns:
      The log-probability in nats of each element; sum over the event yourself.

    Raises:
      ValueError: `value` is not broadcastable to `logits`, or a known one is not from 0 to 1.

    Example:
      >>> import bounds
      >>> round(float(bounds.densities.bernoulli_log_prob(0.0, 1)), 4)  # -log 2
      -0.6931
    """
    if is_known(value):
        known = np.asarray(value, np.float64)
        if not np.all((known >= 0) & (known <= 1)):
            raise ValueError(
                f"value must be zeros and ones, got numbers from {known.min():g} to "
                f"{known.max():g}. Pixels of more levels have "
                "bounds.densities.discretized_logistic_log_prob."
            )
    logits, value = at_least_float32(logits), at_least_float32(value)
    check_fits("logits", logits.shape, value=value)
    value, beyond = within(value, (value >= 0) & (value <= 1))
    return _bernoulli(logits, value) + beyond


@jax.custom_jvp
def _bernoulli(logits: Array, value: Array) -> Array:
    positive = jnp.maximum(logits, 0.0)
    # 1 + e lies in [1, 2], so log loses nothing that a sum over pixels could keep; log1p takes
    # twice the time, which shows in evaluation.
    return value * logits - positive - jnp.log(1.0 + jnp.exp(-jnp.abs(logits)))


@_bernoulli.defjvp
def _bernoulli_jvp(primals, tangents):
    logits, value = primals
    logits_dot, value_dot = tangents
    out = _bernoulli(logits, value)
    # Multiplied out: of a product with the difference XLA:CPU writes several copies.
    out_dot = value * logits_dot - jax.nn.sigmoid(logits) * logits_dot + logits * value_dot
    return out, out_dot.astype(out.dtype)


def categorical_log_prob(logits: ArrayLike, value: ArrayLike) -> Float[Array, "..."]:
    r"""Log-probability of one of K categories, elementwise.

    .. math:: \ell_x - \log \sum_k e^{\ell_k}

    Args:
      logits: :math:`\ell` up to a constant, [..., K]; one of -inf is a probability of zero.
      value: x, whole numbers 0 .. K-1 of any dtype, broadcastable to [...]. Traced values that are
        no such numbers give -inf, where an index of JAX would take another category.

    Returns:
      The log-probability in nats of each element, [...]; sum over the event yourself.

    Raises:
      ValueError: `logits` is a scalar, `value` is not broadcastable to [...], or a known one is no
        whole number from 0 to K - 1.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> logits = jnp.log(jnp.array([1.0, 3.0]))
      >>> round(float(bounds.densities.categorical_log_prob(logits, 1)), 4)  # log 3/4
      -0.2877
    """
    logits = at_least_float32(logits)
    if logits.ndim == 0:
        raise ValueError("logits must have a last axis of categories, got a scalar.")
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    logits = logits - finite_or_zero(highest)
    return picked("value", logits, value) - log_sum_exp(logits, -1)


def picked(name: str, log_probs: Float[Array, "... K"], index: ArrayLike) -> Float[Array, "..."]:
    """log_probs[..., index], refused or -inf where the index is none of 0 .. K-1."""
    count = log_probs.shape[-1]
    check_fits("what is picked from", log_probs.shape[:-1], **{name: index})
    if is_known(index):
        known = np.asarray(index)
        if not np.all((known >= 0) & (known < count) & (known == np.round(known))):
            raise ValueError(
                f"{name} must hold whole numbers from 0 to {count - 1}, "
                f"got {known.min()} to {known.max()}."
            )
    index = jnp.broadcast_to(jnp.asarray(index), log_probs.shape[:-1])
    index, beyond = within(index, whole_levels(index, count))
    found = jnp.take_along_axis(log_probs, index.astype(int)[..., None], axis=-1)[..., 0]
    return found + beyond.astype(found.dtype)


def within(x: Array, inside: Array) -> tuple[Array, Array]:
    """x with 0 in place of what is outside, and what to add to the log-probability of each.

    The replacement keeps derivatives finite for whatever else the outside ones share.
    """
    beyond = jnp.where(jnp.isnan(x), jnp.nan, -jnp.inf)
    return jnp.where(inside, x, jnp.zeros_like(x)), jnp.where(inside, 0.0, beyond)
