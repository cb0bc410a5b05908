r"""Monotone maps of single numbers, whose parameters a network gives: the heart of a coupling.

Every map is computed in log space. The CDF F of a mixture saturates in float32 at 16 scales from
its centre; its logit does not:

    logit F(z) = logsumexp(log w + log sigma(t)) - logsumexp(log w + log sigma(-t)),
    t = (z - mu) e^{-s}.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LEAST_LOG_SCALE = -7.0
MAX_ITERATIONS = 100


class Elementwise(NamedTuple):
    """A monotone map with P parameters for each number.

    Attributes:
      num_outputs: P.
      forward: (outputs [..., P], z [...]) -> (y [...], log dy/dz [...]).
      inverse: (outputs [..., P], y [...]) -> (z [...], log dy/dz [...]); NaN where it did not
        converge.
    """

    num_outputs: int
    forward: Callable[[Array, Array], tuple[Array, Array]]
    inverse: Callable[[Array, Array], tuple[Array, Array]]


def affine() -> Elementwise:
    r"""y = z e^a + b with a = tanh of its output: no factor beyond e (Ho et al. 2019)."""

    def forward(outputs, z):
        a, b = jnp.tanh(outputs[..., 0]), outputs[..., 1]
        return z * jnp.exp(a) + b, a

    def inverse(outputs, y):
        a, b = jnp.tanh(outputs[..., 0]), outputs[..., 1]
        return (y - b) * jnp.exp(-a), a

    return Elementwise(2, forward, inverse)


def mixture(num_components: int, *, recompute: bool = False) -> Elementwise:
    r"""The logit of a mixture's CDF, then an affine map: the coupling of Flow++.

    .. math:: y = \mathrm{logit}\Big(\sum_k \pi_k \sigma\big((z - \mu_k) e^{-s_k}\big)\Big) e^a + b

    The outputs are a, b, the K logits of pi, mu and s >= -7; where all are 0 it is the identity.
    Each component has a factor of its own on its outputs, because a network that starts at 0
    would give all of them the same gradient for ever.

    Args:
      num_components: K.
      recompute: whether the outputs and z alone are kept for the derivative, and the arrays over
        components, a dozen times as large, are made again: for less memory in more time.

    Source: Ho et al. 2019 (arXiv 1902.00275), eq. 17 and 18.
    """
    factors = jnp.linspace(0.5, 1.5, num_components)

    def parts(outputs):
        a, b = jnp.tanh(outputs[..., 0]), outputs[..., 1]
        shaped = outputs[..., 2:].reshape(*outputs.shape[:-1], 3, num_components)
        scaled = shaped * jnp.broadcast_to(factors, shaped.shape)
        logits, means, log_scales = scaled[..., 0, :], scaled[..., 1, :], scaled[..., 2, :]
        log_scales = jnp.maximum(log_scales, LEAST_LOG_SCALE)
        return a, b, Mixture(jax.nn.log_softmax(logits), means, log_scales)

    def forward(outputs, z):
        a, b, mixture = parts(outputs)
        y, log_slope = logit_cdf(mixture, z)
        return y * jnp.exp(a) + b, log_slope + a

    def inverse(outputs, y):
        a, b, mixture = parts(outputs)
        z = inverse_logit_cdf(mixture, (y - b) * jnp.exp(-a))
        return z, logit_cdf(mixture, z)[1] + a

    if recompute:
        forward = jax.checkpoint(forward, prevent_cse=False)
    return Elementwise(2 + 3 * num_components, forward, inverse)


class Mixture(NamedTuple):
    """A mixture of K logistics: log weights, locations and log scales, each [..., K]."""

    log_weights: Float[Array, "... K"]
    means: Float[Array, "... K"]
    log_scales: Float[Array, "... K"]


@jax.custom_jvp
def logit_cdf(mixture: Mixture, z: Float[Array, "..."]) -> tuple[Array, Array]:
    r"""(logit F(z), log of its derivative in z).

    The derivative of logit F is f / (F (1 - F)); all three logarithms are sums over components.
    Their own derivatives are written out below, by the shares of the components in each sum:

    .. math:: d \log F = \sum_k p_k (d \log w_k + \sigma(-t_k) dt_k), \quad
      d \log(1 - F) = \sum_k q_k (d \log w_k - \sigma(t_k) dt_k), \quad
      d \log f = \sum_k r_k (d \log w_k - ds_k + (\sigma(-t_k) - \sigma(t_k)) dt_k).
    """
    (log_cdf, _), (log_rest, _), (log_pdf, _), _ = _sums(mixture, z)
    return log_cdf - log_rest, log_pdf - log_cdf - log_rest


@logit_cdf.defjvp
def _logit_cdf_jvp(primals, tangents):
    mixture, z = primals
    by, by_z = tangents
    (log_cdf, p), (log_rest, q), (log_pdf, r), (t, up, down) = _sums(mixture, z)
    by_t = (jnp.expand_dims(by_z, -1) - by.means) * jnp.exp(-mixture.log_scales) - t * by.log_scales
    by_cdf = jnp.sum(p * (by.log_weights + down * by_t), axis=-1)
    by_rest = jnp.sum(q * (by.log_weights - up * by_t), axis=-1)
    by_pdf = jnp.sum(r * (by.log_weights - by.log_scales + (down - up) * by_t), axis=-1)
    values = log_cdf - log_rest, log_pdf - log_cdf - log_rest
    return values, (by_cdf - by_rest, by_pdf - by_cdf - by_rest)


def _sums(mixture, z):
    """log F, log(1 - F) and log f, each with the shares of the components; t and sigma(+-t)."""
    t = (jnp.expand_dims(z, -1) - mixture.means) * jnp.exp(-mixture.log_scales)
    # log sigma(t) and log sigma(-t) share their one costly term. Not log1p: what it keeps is lost
    # in the sums, and it takes twice the time. Not -|t|, whose derivative at 0 is one-sided.
    rest = jnp.log(1.0 + jnp.exp(jnp.minimum(t, -t)))
    below, above = jnp.minimum(t, 0.0) - rest, jnp.minimum(-t, 0.0) - rest
    terms = below, above, below + above - mixture.log_scales
    sums = (_log_sum(mixture.log_weights + v) for v in terms)
    return *sums, (t, jnp.exp(below), jnp.exp(above))


def _log_sum(terms: Array) -> tuple[Array, Array]:
    """log sum exp over the last axis, and what part of the sum each term is."""
    largest = jnp.max(terms, axis=-1, keepdims=True)
    parts = jnp.exp(terms - jnp.where(jnp.isfinite(largest), largest, 0.0))
    total = jnp.sum(parts, axis=-1, keepdims=True)
    return (jnp.log(total) + largest)[..., 0], parts / total


def inverse_logit_cdf(mixture: Mixture, y: Float[Array, "..."]) -> Float[Array, "..."]:
    """z with logit F(z) = y, by Newton steps kept within a bracket; NaN where that fails.

    F is an average of the components' CDFs, so its logit lies between theirs, and the root
    between the smallest and the largest of mu_k + e^{s_k} y. Gradients come from the equation,
    not from the iterations.
    """
    fixed, target = jax.lax.stop_gradient((mixture, y))
    roots = fixed.means + jnp.exp(fixed.log_scales) * target[..., None]
    low, high = jnp.min(roots, axis=-1), jnp.max(roots, axis=-1)
    # Rounding may put the root of a single component just outside.
    slack = 1e-5 * (1.0 + jnp.maximum(jnp.abs(low), jnp.abs(high)))
    low, high = low - slack, high + slack

    def goes_on(carry):
        i, _, _, _, done = carry
        return (i < MAX_ITERATIONS) & ~jnp.all(done)

    def improve(carry):
        i, low, high, z, _ = carry
        value, log_slope = logit_cdf(fixed, z)
        low = jnp.where(value < target, z, low)
        high = jnp.where(value < target, high, z)
        newton = z - (value - target) * jnp.exp(-log_slope)
        inside = (newton > low) & (newton < high)
        # Every third step halves the bracket: Newton alone may creep where F is flat.
        moved = jnp.where(inside & (i % 3 < 2), newton, 0.5 * (low + high))
        rounding = 4 * jnp.finfo(z.dtype).eps * (1.0 + jnp.abs(z))
        done = (jnp.abs(newton - z) <= rounding) | (high - low <= rounding)
        return i + 1, low, high, jnp.where(done, z, moved), done

    # Nothing is to be found where there is no bracket; nor is this, unlike zeros, of no device.
    start = (0, low, high, 0.5 * (low + high), jnp.isnan(low))
    _, _, _, z, done = jax.lax.while_loop(goes_on, improve, start)
    z = jnp.where(done, z, jnp.nan)
    # One more Newton step, of which only the numerator is differentiated: the derivative of the
    # root by the implicit function theorem.
    value, _ = logit_cdf(mixture, z)
    slope = jnp.exp(jax.lax.stop_gradient(logit_cdf(mixture, z)[1]))
    error = (value - y) / slope
    return z - (error - jax.lax.stop_gradient(error))


def logit(y: Float[Array, "..."]) -> tuple[Array, Array]:
    """(log y - log(1 - y), log of its derivative), of y in (0, 1)."""
    log_y, log_rest = jnp.log(y), jnp.log1p(-y)
    return log_y - log_rest, -log_y - log_rest


def sigmoid(z: Float[Array, "..."]) -> tuple[Array, Array]:
    """(sigma(z), log of its derivative)."""
    return jax.nn.sigmoid(z), jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)
