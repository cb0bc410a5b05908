"""Where noise u ends the cell of an integer x, and float32 the sum of both."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from bounds._checks import at_least_float32, nan_unless
from bounds._levels import check_levels, whole_levels


def level_logit(x: ArrayLike, v: ArrayLike, *, levels: int) -> tuple[Array, Array]:
    r"""The logit of (x + u) / L from v = logit(u), and the log of its slope: how flows start.

    .. math:: y = \log(x + \sigma(v)) - \log(L - 1 - x + \sigma(-v)), \qquad
       \log\frac{dy}{d(x + u)} = \log L - \log(x + \sigma(v)) - \log(L - 1 - x + \sigma(-v))

    Finite, with its gradient, at every v: taken from x + u in float32 the logit of the highest
    level is infinite for one draw in 100,000, because the sum rounds to L.

    Args:
      x: whole numbers 0 .. levels-1, of any shape.
      v: the pre-sigmoid noise, shaped as x.
      levels: L.

    Returns:
      (y, log slope), each shaped as x. log p(x + u) is the sum of the log-density of y and of the
      log slopes. A traced x that is none of the levels gives NaN.

    Raises:
      TypeError: `levels` is not an integer.
      ValueError: it is below 2, a known x is no whole number from 0 to levels - 1, or v is not
        shaped as x.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import norm
      >>> def log_density(theta, x, v):  # a logit-normal density of pixels of 256 levels
      ...     y, log_slope = bounds.dequantization.level_logit(x, v, levels=256)
      ...     return jnp.sum(norm.logpdf(y, *theta) + log_slope)
      >>> model = bounds.dequantization.dequantized(
      ...     log_density, bounds.dequantization.uniform(), pre_sigmoid=True)
      >>> log_w = bounds.log_weights(model, bounds.Params((0.0, 2.0), None), jax.random.key(0),
      ...                            jnp.array([0, 128, 255]), num_samples=4)
      >>> bool(jnp.isfinite(log_w).all())
      True

    Source: Dinh et al. 2017 (arXiv 1605.08803), section 4.1, without its margin.
    """
    x, levels = check_levels(x, levels)
    v = at_least_float32(v)
    if v.shape != x.shape:
        raise ValueError(f"v must be shaped as x, {x.shape}, got shape {v.shape}.")
    x = x + nan_unless(whole_levels(x, levels))
    from_below, from_above = _log_distance(x, v), _log_distance(levels - 1 - x, -v)
    return from_below - from_above, math.log(levels) - from_below - from_above


def inside_cell(x: Array, u: Array) -> Array:
    """u cut off where x + u would round to x + 1, and where u / levels would round to 0."""
    # A number of x's cell, and so a constant: nextafter has no derivative.
    whole = jax.lax.stop_gradient(jnp.asarray(x, u.dtype))
    most = jnp.nextafter(whole + 1, whole) - whole
    return jnp.clip(u, 2.0**-102, most)


def _log_distance(whole: Array, v: Array) -> Array:
    """log(whole + sigmoid(v)) for whole numbers from 0 on."""
    first, beyond = whole == 0, v > 0
    # Of the two ways to write it the one with the small sigmoid, whose derivative has its digits.
    least = jax.nn.sigmoid(jnp.where(beyond, -v, v))
    rest = jnp.log(jnp.where(first, 1.0, whole + jnp.where(beyond, 1.0 - least, least)))
    return jnp.where(first, jax.nn.log_sigmoid(v), rest)
