"""Signal-to-noise ratios of gradients, with their bias removed and their uncertainty."""

import math
import statistics
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float, PyTree
from numpy.typing import ArrayLike

from bounds._checks import check_count
from bounds._moments import Moments, gradient_moments
from bounds._types import Key


class Estimate(NamedTuple):
    """A Monte Carlo mean and its standard error."""

    value: Float[Array, "..."]
    standard_error: Float[Array, "..."]


def snr_squared(moments: Moments) -> PyTree:
    r"""Square of the signal-to-noise ratio, its bias removed; may be negative.

    .. math:: \widehat{\mathrm{SNR}^2} = \frac{\bar g^2}{s^2} - \frac1R, \qquad
       s^2 = \frac{m_2}{R-1}

    Average or fit THIS over entries or settings, negative values included: dropping
    them, or taking roots first, brings the bias back.

    Args:
      moments: from `gradient_moments`, at least two replicates.

    Returns:
      A pytree like the gradient. An entry that never varies has no ratio and gives NaN if
      it is always 0, infinity otherwise. All NaN for a single replicate.

    Raises:
      Nothing.

    Example:
      >>> import jax, bounds
      >>> moments = bounds.gradient_moments(
      ...     lambda key: 0.5 + jax.random.normal(key), jax.random.key(0),
      ...     num_replicates=10_000, chunk_size=1000)
      >>> bool(abs(bounds.snr_squared(moments) - 0.25) < 0.05)
      True

    Source: Rainforth et al. 2018 (arXiv 1802.04537) for the ratio; E[mean^2] =
    mu^2 + sigma^2/R for the correction.
    """

    def unbiased(mean, m2):
        count = jnp.asarray(moments.count, m2.dtype)
        return jnp.square(mean) / _variance(m2, count) - 1.0 / count

    return jax.tree.map(unbiased, moments.mean, moments.m2)


def snr(moments: Moments) -> PyTree:
    r"""Signal-to-noise ratio, its bias removed and cut off at zero.

    .. math:: \mathrm{SNR} = |\mathbb E g| / \mathrm{sd}(g)
       \approx \sqrt{\max(\widehat{\mathrm{SNR}^2}, 0)}

    Args:
      moments: from `gradient_moments`, at least two replicates.

    Returns:
      A pytree like the gradient, not negative; see `snr_squared` for entries that
      never vary.

    Raises:
      Nothing.

    Example:
      >>> import jax, bounds
      >>> moments = bounds.gradient_moments(
      ...     lambda key: 2.0 + jax.random.normal(key), jax.random.key(0),
      ...     num_replicates=10_000, chunk_size=1000)
      >>> bool(abs(bounds.snr(moments) - 2.0) < 0.1)
      True

    Source: Rainforth et al. 2018 (arXiv 1802.04537).
    """
    return jax.tree.map(lambda s: jnp.sqrt(jnp.maximum(s, 0.0)), snr_squared(moments))


def snr_floor(num_replicates: int) -> float:
    r"""What the plain estimate |mean|/sd reads on average where the true ratio is zero.

    .. math:: \mathbb E|\bar g| / \sigma = \sqrt{2 / (\pi R)}

    Args:
      num_replicates: R.

    Returns:
      The floor; estimates near it carry no information about the ratio.

    Raises:
      TypeError: `num_replicates` is not an integer.
      ValueError: it is below 1.

    Example:
      >>> import bounds
      >>> round(bounds.snr_floor(10_000), 4)
      0.008
    """
    return math.sqrt(2.0 / (math.pi * check_count("num_replicates", num_replicates)))


def snr_interval(moments: Moments, *, level: float = 0.95) -> tuple[PyTree, PyTree]:
    r"""Confidence interval of the signal-to-noise ratio, entry by entry.

    The signed ratio :math:`\hat s = \bar g / s` is normal with variance

    .. math:: \mathrm{Var}(\hat s) \approx
       \left(1 - \hat s \gamma + \hat s^2 (\kappa - 1)/4\right) / R

    for replicates of skewness gamma and kurtosis kappa. The interval for |s| collects
    all values s at which :math:`|\hat s|` lies in the band [s - c, s + c] that holds
    probability `level` there, c taken for the folded normal: coverage stays at `level`
    down to s = 0, where the band of :math:`\hat s` folded at zero would not.

    Args:
      moments: from `gradient_moments`, some hundreds of replicates or more.
      level: coverage. Measured at nominal 0.95 in `benchmarks/interval_coverage.py`.

    Returns:
      (low, high), pytrees like the gradient; NaN for a single replicate and for an entry that
      never varies or whose fourth moment leaves the range of its dtype.

    Raises:
      ValueError: `level` is not between 0 and 1.

    Example:
      >>> import jax, bounds
      >>> moments = bounds.gradient_moments(
      ...     lambda key: 1.0 + jax.random.normal(key), jax.random.key(0),
      ...     num_replicates=10_000, chunk_size=1000)
      >>> low, high = bounds.snr_interval(moments)
      >>> bool(0.9 < low) and bool(high < 1.1)
      True

    Source: derived here: delta method for mean/sd, Neyman construction for |s|.
    """
    width = _normal_quantile(level)

    def interval(mean, m2, m3, m4):
        count = jnp.asarray(moments.count, m2.dtype)
        variance = _variance(m2, count)
        ratio = mean / jnp.sqrt(variance)
        skewness = m3 / count / variance**1.5
        kurtosis = m4 / count / variance**2
        spread = 1.0 - ratio * skewness + ratio**2 * (kurtosis - 1.0) / 4.0
        # kurtosis >= 1 + skewness^2, so only rounding gets below 0, or a handful of replicates
        # by their variance over R - 1: a standard error of 0 then leaves NaN.
        standard_error = jnp.sqrt(jnp.maximum(spread, 0.0) / count)
        t = jnp.abs(ratio) / standard_error
        low = standard_error * (t - _folded_width(t, -1.0, width, level))
        high = standard_error * (t + _folded_width(t, +1.0, width, level))
        return low, high

    pairs = jax.tree.map(interval, moments.mean, moments.m2, moments.m3, moments.m4)
    outer = jax.tree.structure(moments.mean)
    low, high = jax.tree.transpose(outer, jax.tree.structure((0, 0)), pairs)
    return low, high


def _folded_width(t: Array, side: float, width: float, level: float) -> Array:
    """c such that |N(t + side c, 1)| lies within c of t + side c with probability `level`.

    Found by bisection: the probability grows with c from 0 at c = 0 to at least `level`
    at c = width. Below, c stops at t, where the interval reaches zero.
    """
    ceiling = jnp.minimum(width, t) if side < 0 else jnp.full_like(t, width)

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        center = t + side * middle
        bottom, top = jnp.maximum(center - middle, 0.0), center + middle
        inside = (
            ndtr(top - center) - ndtr(bottom - center) + ndtr(top + center) - ndtr(bottom + center)
        )
        enough = inside >= level
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    _, found = jax.lax.fori_loop(0, 40, halve, (jnp.zeros_like(t), ceiling))
    return found


def dsnr(
    grad_fn: Callable[[Key], PyTree],
    key: Key,
    *,
    direction: PyTree,
    num_replicates: int,
    chunk_size: int,
) -> Estimate:
    r"""Directional signal-to-noise ratio.

    .. math:: \mathrm{DSNR} = \mathbb E\left[\frac{\|g_\parallel\|}{\|g_\perp\|}\right],
       \quad g_\parallel = \frac{\langle g, u\rangle}{\langle u, u\rangle} u, \;
       g_\perp = g - g_\parallel

    Args:
      grad_fn: key -> gradient pytree; it is vmapped.
      key: PRNG key; replicate r uses `fold_in(key, r)`. Use a key other than the one
        `direction` was estimated with.
      direction: u, a pytree like the gradient: the mean gradient, or the exact one.
      num_replicates: R.
      chunk_size: replicates in memory at once. It need not divide R.

    Returns:
      `Estimate(value, standard_error)`, scalars; NaN for a gradient of one entry, which
      has no perpendicular part, and for a `direction` of zeros.

    Raises:
      TypeError: a count is not an integer.
      ValueError: a count is below 1, or `direction` does not match the gradient.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> estimate = bounds.dsnr(
      ...     lambda key: jnp.array([5.0, 0.0]) + jax.random.normal(key, (2,)),
      ...     jax.random.key(0), direction=jnp.array([1.0, 0.0]),
      ...     num_replicates=1000, chunk_size=100)
      >>> bool(estimate.value > 5)
      True

    Source: Rainforth et al. 2018 (arXiv 1802.04537).
    """
    wanted = jax.tree.map(jnp.shape, jax.eval_shape(grad_fn, key))
    given = jax.tree.map(jnp.shape, direction)
    if wanted != given:
        raise ValueError(f"direction must match the gradient: shapes {wanted}, got {given}.")

    def dot(a, b):
        return sum(jax.tree.leaves(jax.tree.map(lambda u, v: jnp.sum(u * v), a, b)))

    length = jnp.sqrt(dot(direction, direction))
    unit = jax.tree.map(lambda u: u / length, direction)

    def ratio(key):
        gradient = grad_fn(key)
        parallel = dot(gradient, unit)
        # By subtraction of vectors, not of squared lengths: those cancel.
        rest = jax.tree.map(lambda g, u: g - parallel * u, gradient, unit)
        return jnp.abs(parallel) / jnp.sqrt(dot(rest, rest))

    moments = gradient_moments(ratio, key, num_replicates=num_replicates, chunk_size=chunk_size)
    count = jnp.asarray(moments.count, moments.m2.dtype)
    standard_error = jnp.sqrt(_variance(moments.m2, count) / count)
    return Estimate(moments.mean, standard_error)


def power_law(
    x: ArrayLike, y: ArrayLike, y_standard_error: ArrayLike, *, level: float = 0.95
) -> tuple[float, float, float]:
    r"""Exponent of y = c x^b with its confidence interval, by weighted least squares.

    .. math:: \min_{b, c} \sum_i \left(\frac{y_i - c\, x_i^b}{\sigma_i}\right)^2

    The residuals are those of y itself, not of log y, so points that scatter below zero
    take part; dropping them would flatten the fit. c is eliminated in closed form, and
    the interval is that of the likelihood ratio for b. It speaks of noise alone, not of
    a curve that is no power law. A host function in float64; not for `jax.jit`.

    Args:
      x: positive abscissae, shape [n], at least two of them different.
      y: ordinates, shape [n], of either sign.
      y_standard_error: positive standard errors of y, shape [n].
      level: coverage of the interval.

    Returns:
      (slope, low, high). Slopes are sought between -40 and 40; an end of the interval
      that is not found there is infinite.

    Raises:
      ValueError: shapes differ, fewer than two different x, an x or a standard error that is not
        positive and finite, or a y that is not finite.

    Example:
      >>> import bounds
      >>> slope, low, high = bounds.power_law([1, 10, 100], [2.0, 6.32, 20.0], [0.1, 0.3, 1.0])
      >>> round(slope, 2), low < 0.5 < high
      (0.5, True)

    Source: profile likelihood (Wilks 1938) with known variances.
    """
    quantile = _normal_quantile(level)
    x, y, sigma = (np.asarray(v, np.float64) for v in (x, y, y_standard_error))
    if not (x.ndim == 1 and x.shape == y.shape == sigma.shape):
        raise ValueError(
            "x, y and y_standard_error must be vectors of one length, "
            f"got shapes {x.shape}, {y.shape} and {sigma.shape}."
        )
    if not (np.all(x > 0) and np.all(sigma > 0) and np.all(np.isfinite([x, y, sigma]))):
        raise ValueError("power_law needs finite values, with x and y_standard_error positive.")
    if np.unique(x).size < 2:
        raise ValueError(f"power_law needs at least two different x, got {x.tolist()}.")
    log_x = np.log(x) - np.mean(np.log(x))

    def misfit(slopes):
        # Curves scaled to a largest standardised value of 1, so that no power overflows.
        log_curve = np.multiply.outer(slopes, log_x) - np.log(sigma)
        curve = np.exp(log_curve - log_curve.max(axis=-1, keepdims=True))
        fit = curve @ (y / sigma) / np.sum(curve**2, axis=-1)
        return np.sum((y / sigma - fit[..., None] * curve) ** 2, axis=-1)

    # The misfit can have side minima where points are drowned in noise: scan, then refine.
    limit = 40.0
    grid = np.linspace(-limit, limit, 16001)
    values = misfit(grid)
    step, slope = grid[1] - grid[0], grid[np.argmin(values)]
    for _ in range(8):
        fine = slope + step * np.linspace(-1, 1, 41)
        slope, step = fine[np.argmin(misfit(fine))], step / 10
    allowed = misfit(np.array(slope)) + quantile**2
    inside = grid[values <= allowed]

    def edge(outside, within):
        for _ in range(60):
            middle = 0.5 * (outside + within)
            if misfit(np.array(middle)) <= allowed:
                within = middle
            else:
                outside = middle
        return float(within)

    first, last = min(inside, default=slope), max(inside, default=slope)
    first, last = min(first, slope), max(last, slope)
    spacing = grid[1] - grid[0]
    low = -math.inf if first <= -limit else edge(first - spacing, first)
    high = math.inf if last >= limit else edge(last + spacing, last)
    return float(slope), low, high


def _variance(m2: Array, count: Array) -> Array:
    return m2 / (count - 1)


def _normal_quantile(level: float) -> float:
    """Half-width of the central normal interval that holds `level`."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}.")
    return statistics.NormalDist().inv_cdf(0.5 * (1 + level))
