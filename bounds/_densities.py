"""Log-densities that models need, summed over the event's last axis where it has one."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def gaussian_log_prob(
    value: ArrayLike, mean: ArrayLike, variance: ArrayLike
) -> Float[Array, "..."]:
    r"""Log-density of a Gaussian with diagonal covariance, summed over the last axis.

    .. math:: -\frac12 \sum_d \left[\frac{(z_d - m_d)^2}{v_d} + \log 2 \pi v_d\right]

    Args:
      value: where to evaluate, shape [..., D].
      mean: broadcastable to `value`.
      variance: the VARIANCE (not the standard deviation), broadcastable to `value`.

    Returns:
      The log-density in nats, shape [...].

    Raises:
      TypeError: the arguments do not broadcast against each other.
      ValueError: all of them are scalars.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> round(float(bounds.gaussian_log_prob(jnp.zeros(2), 0.0, 1.0)), 4)  # -log 2 pi
      -1.8379
    """
    value, variance = jnp.asarray(value), jnp.asarray(variance)
    terms = jnp.square(value - mean) / variance + jnp.log(2 * math.pi * variance)
    if terms.ndim == 0:
        raise ValueError("value must have a last axis to sum over, got a scalar; use value[None].")
    return -0.5 * jnp.sum(terms, axis=-1)


@jax.custom_jvp
def bernoulli_log_prob(logits: ArrayLike, value: ArrayLike) -> Float[Array, "..."]:
    r"""Log-probability of Bernoulli outcomes, elementwise.

    .. math:: x \ell - \log(1 + e^\ell)
       = x \ell - \max(\ell, 0) - \log(1 + e^{-|\ell|})

    The derivative is given in closed form, :math:`x - \sigma(\ell)` in the logits: on a
    CPU the derivative of softplus would dominate the backward pass of a VAE. The absolute
    error is that of one rounding, 6e-8 in float32.

    Args:
      logits: :math:`\ell`, log-odds of a one; floating and finite.
      value: x, zeros and ones (values between them give the same formula, which is
        then not a probability), broadcastable to `logits`.

    Returns:
      The log-probability in nats of each element; sum over the event yourself.

    Raises:
      TypeError: the arguments do not broadcast against each other.

    Example:
      >>> import bounds
      >>> round(float(bounds.bernoulli_log_prob(0.0, 1)), 4)  # -log 2
      -0.6931
    """
    logits, value = jnp.asarray(logits), _floating(value)
    positive = jnp.maximum(logits, 0.0)
    # 1 + e lies in [1, 2], so log loses nothing that a sum over pixels could keep; log1p takes
    # twice the time, which shows in evaluation.
    return value * logits - positive - jnp.log(1.0 + jnp.exp(-jnp.abs(logits)))


@bernoulli_log_prob.defjvp
def _bernoulli_jvp(primals, tangents):
    logits, value = primals
    logits_dot, value_dot = tangents
    out = bernoulli_log_prob(logits, value)
    # Multiplied out: of a product with the difference XLA:CPU writes several copies.
    out_dot = _floating(value) * logits_dot - jax.nn.sigmoid(logits) * logits_dot
    if getattr(value_dot, "dtype", None) != jax.dtypes.float0:  # integers carry no tangent
        out_dot = out_dot + logits * value_dot
    return out, out_dot.astype(out.dtype)


def _floating(value: ArrayLike) -> Array:
    """Whole numbers as floats, which a strict promotion of types asks for."""
    value = jnp.asarray(value)
    return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(float)
