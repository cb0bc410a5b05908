r"""Probabilities of the integers 0 .. L-1 from a density around a mean: what decoders end in.

The cell of x reaches from x - 1/2 to x + 1/2; the tails belong to the first and the last, so that
the probabilities sum to 1 for any number of levels. Means and scales are in the unit of the levels,
those of the logit-Laplace on the scale of its logits. Log-probabilities come from differences of
distribution functions in log space: a Gaussian by `log_ndtr`, the others by identities that
subtract nothing. No probability is cut off from below. A traced x, which cannot be refused, has the
log-probability -inf where it is none of the levels, as pixels divided by 255 are not.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from bounds._checks import check_fits, is_known
from bounds._densities import picked, within
from bounds._levels import check_levels, whole_levels
from bounds._values import log_sum_exp


def discretized_gaussian_log_prob(
    x: ArrayLike, mean: ArrayLike, log_scale: ArrayLike, *, levels: int
) -> Float[Array, "..."]:
    r"""Log-probability of integers under a Gaussian, elementwise.

    .. math:: P(x) = \Phi\Bigl(\frac{x + 1/2 - m}{s}\Bigr) - \Phi\Bigl(\frac{x - 1/2 - m}{s}\Bigr)

    with Phi the standard normal distribution function, the outer edges at minus and plus infinity.

    Args:
      x: whole numbers 0 .. levels-1; traced ones that are not give -inf.
      mean: m, in the unit of the levels, broadcastable to x.
      log_scale: log s, in the unit of the levels, broadcastable to x.
      levels: L.

    Returns:
      The log-probability in nats of each element; sum over the event yourself.

    Raises:
      TypeError: `levels` is not an integer.
      ValueError: it is below 2, a known x is no whole number from 0 to levels - 1, or an argument
        is not broadcastable to x.

    Example:
      >>> import jax.numpy as jnp
      >>> from bounds import densities
      >>> p = jnp.exp(densities.discretized_gaussian_log_prob(jnp.arange(17), 3.2, 0.5, levels=17))
      >>> bool(abs(p.sum() - 1) < 1e-5)
      True

    Source: Ho et al. 2020 (arXiv 2006.11239), eq. 13, at any number of levels.
    """
    x, levels = check_levels(x, levels)
    check_fits("x", x.shape, mean=mean, log_scale=log_scale)
    x, beyond = within(x, whole_levels(x, levels))
    center, half = _cells(x, mean, log_scale)
    # By symmetry on the left, where log_ndtr of either edge is far from 0.
    inside = _log_ndtr_between(-jnp.abs(center), half)
    found = _with_open_ends(x, levels, log_ndtr(center + half), inside, log_ndtr(half - center))
    return found + beyond


def discretized_logistic_log_prob(
    x: ArrayLike, mean: ArrayLike, log_scale: ArrayLike, *, levels: int
) -> Float[Array, "..."]:
    r"""Log-probability of integers under a logistic distribution, elementwise.

    .. math:: P(x) = \sigma(b) - \sigma(a) = \sigma(b) \, \sigma(-a) \, (1 - e^{a - b}), \qquad
       a = \frac{x - 1/2 - m}{s}, \; b = \frac{x + 1/2 - m}{s}

    with the outer edges at minus and plus infinity.

    Args:
      x: whole numbers 0 .. levels-1; traced ones that are not give -inf.
      mean: m, in the unit of the levels, broadcastable to x.
      log_scale: log s, in the unit of the levels, broadcastable to x.
      levels: L.

    Returns:
      The log-probability in nats of each element; sum over the event yourself.

    Raises:
      TypeError: `levels` is not an integer.
      ValueError: it is below 2, a known x is no whole number from 0 to levels - 1, or an argument
        is not broadcastable to x.

    Example:
      >>> import jax.numpy as jnp
      >>> from bounds import densities
      >>> p = jnp.exp(densities.discretized_logistic_log_prob(jnp.arange(17), 3.2, 0.5, levels=17))
      >>> bool(abs(p.sum() - 1) < 1e-5)
      True

    Source: Salimans et al. 2017 (arXiv 1701.05517), eq. 2.
    """
    x, levels = check_levels(x, levels)
    check_fits("x", x.shape, mean=mean, log_scale=log_scale)
    x, beyond = within(x, whole_levels(x, levels))
    center, half = _cells(x, mean, log_scale)
    below, above = jax.nn.log_sigmoid(center + half), jax.nn.log_sigmoid(half - center)
    found = _with_open_ends(x, levels, below, below + above + log1mexp(2 * half), above)
    return found + beyond


def logit_laplace_log_prob(
    value: ArrayLike, mean: ArrayLike, log_scale: ArrayLike
) -> Float[Array, "..."]:
    r"""Log-density of the logit-Laplace distribution on (0, 1), elementwise: DALL-E's decoder.

    .. math:: f(v) = \frac{1}{2 b \, v (1 - v)} \exp\Bigl(-\frac{|\mathrm{logit}\,v - \mu|}{b}\Bigr)

    A density, whose logarithm may be positive: of pixels squeezed into a part of (0, 1) it gives no
    probability, and no bits/dim. `discretized_logit_laplace_log_prob` does.

    Args:
      value: v, in (0, 1); traced ones beyond it give -inf.
      mean: mu, broadcastable to v.
      log_scale: log b, broadcastable to v.

    Returns:
      The log-density in nats of each element; sum over the event yourself.

    Raises:
      ValueError: a known v is not between 0 and 1, or an argument is not broadcastable to v.

    Example:
      >>> import bounds
      >>> round(float(bounds.densities.logit_laplace_log_prob(0.5, 0.0, -1.0)), 4)  # log(2 e)
      1.6931

    Source: Ramesh et al. 2021 (arXiv 2102.12092), eq. 2.
    """
    if is_known(value):
        known = np.asarray(value)
        if not np.all((known > 0) & (known < 1)):
            raise ValueError(
                f"value must lie between 0 and 1, exclusive; got numbers from {known.min():g} to "
                f"{known.max():g}. Pixels are squeezed first: (1 - 2 eps) x / (levels - 1) + eps."
            )
    v = jnp.asarray(value, float)
    check_fits("value", v.shape, mean=mean, log_scale=log_scale)
    inside = (v > 0) & (v < 1)
    _, beyond = within(v, inside)
    v = jnp.where(inside, v, 0.5)
    log_v, log_rest = jnp.log(v), jnp.log1p(-v)
    log_scale = jnp.asarray(log_scale, float)
    distance = jnp.abs(log_v - log_rest - mean) * jnp.exp(-log_scale)
    return beyond - (distance + log_scale + log_v + log_rest + math.log(2))


def discretized_logit_laplace_log_prob(
    x: ArrayLike, mean: ArrayLike, log_scale: ArrayLike, *, levels: int, eps: float = 0.1
) -> Float[Array, "..."]:
    r"""Log-probability of integers under a logit-Laplace distribution, elementwise.

    .. math:: P(x) = F\Bigl(\frac{e_{x + 1/2} - \mu}{b}\Bigr)
       - F\Bigl(\frac{e_{x - 1/2} - \mu}{b}\Bigr), \qquad
       e_t = \mathrm{logit}\Bigl((1 - 2 \epsilon) \frac{t}{L - 1} + \epsilon\Bigr)

    with F the distribution function of a Laplace variable of unit scale and the outer edges at
    minus and plus infinity, so that what DALL-E's density leaves outside of (eps, 1 - eps) belongs
    to the first and the last level, and the probabilities sum to 1.

    Args:
      x: whole numbers 0 .. levels-1; traced ones that are not give -inf.
      mean: mu, on the scale of the logits, broadcastable to x.
      log_scale: log b, broadcastable to x.
      levels: L.
      eps: how far the levels keep from 0 and 1, as in DALL-E; above 0 and below 1/2.

    Returns:
      The log-probability in nats of each element; sum over the event yourself.

    Raises:
      TypeError: `levels` is not an integer.
      ValueError: it is below 2, eps is outside its range, a known x is no whole number from 0 to
        levels - 1, or an argument is not broadcastable to x.

    Example:
      >>> import jax.numpy as jnp
      >>> from bounds import densities
      >>> x = jnp.arange(17)
      >>> p = jnp.exp(densities.discretized_logit_laplace_log_prob(x, 0.3, -1.0, levels=17))
      >>> bool(abs(p.sum() - 1) < 1e-5)
      True

    Source: the density of Ramesh et al. 2021 (arXiv 2102.12092), eq. 2, integrated over cells.
    """
    x, levels = check_levels(x, levels)
    if not 0 < eps < 0.5:
        raise ValueError(f"eps must be above 0 and below 1/2, got {eps}.")
    check_fits("x", x.shape, mean=mean, log_scale=log_scale)
    x, beyond_levels = within(x, whole_levels(x, levels))
    rate = jnp.exp(-jnp.asarray(log_scale, float))
    # The outer edges, which are not used, would leave (0, 1) where eps is small.
    inner = jnp.maximum(x - 0.5, 0.0), jnp.minimum(x + 0.5, levels - 1.0)
    edges = [jax.scipy.special.logit((1 - 2 * eps) * t / (levels - 1) + eps) for t in inner]
    # Before the mean is subtracted, far from which two edges lose their difference.
    width = (edges[1] - edges[0]) * rate
    low, high = ((edge - mean) * rate for edge in edges)
    # To the left of the mean F is exp(t) / 2; a cell on its right is mirrored there.
    right = low + high > 0
    near, far = jnp.where(right, -low, high), jnp.where(right, -high, low)
    beyond = near > 0  # the mean is inside
    tail = jnp.where(beyond, 0.0, near) - math.log(2) + log1mexp(jnp.where(beyond, 1.0, width))
    both = -0.5 * (
        jnp.expm1(jnp.where(beyond, -near, -1.0)) + jnp.expm1(jnp.where(beyond, far, -1.0))
    )
    inside = jnp.where(beyond, jnp.log(both), tail)
    found = _with_open_ends(x, levels, _log_laplace_cdf(high), inside, _log_laplace_cdf(-low))
    return found + beyond_levels


def level_softmax_log_prob(
    x: ArrayLike, z: ArrayLike, gamma: ArrayLike, *, levels: int
) -> Float[Array, "..."]:
    r"""VDM's decoder: log P(x | z_0) from the likelihood of every level, elementwise.

    .. math:: P(x | z_0) = \frac{\mathcal N(z_0; \alpha_0 v_x, \sigma_0^2)}
       {\sum_k \mathcal N(z_0; \alpha_0 v_k, \sigma_0^2)}, \qquad v_k = 2k / (L - 1) - 1

    Args:
      x: whole numbers 0 .. levels-1; traced ones that are not give -inf.
      z: z_0, the first latent, shaped as x.
      gamma: minus log SNR of z_0, a scalar.
      levels: L.

    Returns:
      The log-probability in nats of each element; sum over the event yourself.

    Raises:
      TypeError: `levels` is not an integer.
      ValueError: it is below 2, a known x is no whole number from 0 to levels - 1, z is not shaped
        as x or gamma is no scalar.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> x = jnp.arange(17)
      >>> z = jnp.broadcast_to(0.1, x.shape)
      >>> p = jnp.exp(bounds.densities.level_softmax_log_prob(x, z, -3.0, levels=17))
      >>> bool(abs(p.sum() - 1) < 1e-5)
      True

    Source: Kingma et al. 2021 (arXiv 2107.00630), section 3.3.
    """
    x, levels = check_levels(x, levels)
    check_fits("one element of x", (), gamma=gamma)
    if jnp.shape(z) != x.shape:
        raise ValueError(f"z must be shaped as x, {x.shape}, got shape {jnp.shape(z)}.")
    gamma = jnp.asarray(gamma, float)
    inverse_alpha = jnp.exp(0.5 * jax.nn.softplus(gamma))
    center = jnp.asarray(z, float) * inverse_alpha  # of one level, in the unit of the data
    values = jnp.linspace(-1.0, 1.0, levels).reshape(*(1,) * x.ndim, levels)
    logits = -0.5 * jnp.exp(-gamma) * jnp.square(center[..., None] - values)
    return picked("x", logits, x) - log_sum_exp(logits, -1)


def log1mexp(value: Array) -> Array:
    """log(1 - exp(-value)) for value > 0, without cancellation at either end."""
    small = value < math.log(2)
    near = jnp.log(-jnp.expm1(-jnp.where(small, value, 1.0)))
    return jnp.where(small, near, jnp.log1p(-jnp.exp(-jnp.where(small, 1.0, value))))


def _cells(x: Array, mean: ArrayLike, log_scale: ArrayLike) -> tuple[Array, Array]:
    """The middle and half the width of each cell, in the unit of the scale."""
    rate = jnp.exp(-jnp.asarray(log_scale, float))
    center = (x - mean) * rate
    return center, jnp.broadcast_to(0.5 * rate, center.shape)


def _log_laplace_cdf(t: Array) -> Array:
    left = t <= 0
    on_right = jnp.log1p(-0.5 * jnp.exp(-jnp.where(left, 1.0, t)))
    return jnp.where(left, t - math.log(2), on_right)


def _with_open_ends(x: Array, levels: int, below: Array, inside: Array, above: Array) -> Array:
    return jnp.where(x <= 0.5, below, jnp.where(x >= levels - 1.5, above, inside))


def _log_ndtr_between(center: Array, half: Array) -> Array:
    """log [Phi(centre + half) - Phi(centre - half)] for centre <= 0."""
    # Two values near each other lose their difference: narrow cells take the density in their
    # middle, with the tilt by exp(-centre s) over the cell exact and its curvature to s^2.
    narrow = half < 0.01
    safe = jnp.where(narrow, 1.0, half)
    high, low = log_ndtr(center + safe), log_ndtr(center - safe)
    wide = high + log1mexp(high - low)
    h = jnp.where(narrow, half, 0.01)
    tilt = jnp.abs(center) * h
    bent = tilt > 1e-2
    t = jnp.where(bent, tilt, 1.0)
    log_sinhc = jnp.where(bent, t + log1mexp(2 * t) - jnp.log(2 * t), jnp.square(tilt) / 6)
    density = -0.5 * (jnp.square(center) + math.log(2 * math.pi))
    return jnp.where(narrow, density + jnp.log(2 * h) + log_sinhc - jnp.square(h) / 6, wide)
