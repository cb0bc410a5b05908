r"""Mixtures of logistics on the integers 0 .. L-1, with exact probabilities: the controls.

Truncated, as a density on [0, L) whose cells sum to 1,

    p(y) = f(y) / [F(L) - F(0)],   P(x) = [F(x + 1) - F(x)] / [F(L) - F(0)],

so that dequantization has an exact answer; or discretised, with the tails given to the ends,

    P(x) = F(x + 1/2) - F(x - 1/2),  F(-1/2) := 0,  F(L - 1/2) := 1.

All functions are elementwise: x [...] and mixtures [..., K], or [K] for all of x. Nothing
subtracts two numbers near each other.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import bounds
from models.elementwise import Mixture

# The example on which bounds are compared: eight levels, three components.
EXAMPLE_LEVELS = 8
EXAMPLE = Mixture(
    jnp.log(jnp.array([0.6, 0.3, 0.1])),
    jnp.array([1.5, 3.4, 6.2]),
    jnp.log(jnp.array([0.25, 0.5, 0.15])),
)


def truncated_log_density(
    mixture: Mixture, levels: int, x: Float[Array, "..."], u: Float[Array, "..."]
) -> Float[Array, "..."]:
    """log p(x + u) in nats of the truncated mixture; x and u apart, because their sum rounds."""
    mixture = _spread(mixture, x)
    t = ((x[..., None] - mixture.means) + u[..., None]) * jnp.exp(-mixture.log_scales)
    terms = jax.nn.log_sigmoid(t) + jax.nn.log_sigmoid(-t) - mixture.log_scales
    log_pdf = jax.nn.logsumexp(mixture.log_weights + terms, axis=-1)
    log_density = log_pdf - log_interval(mixture, jnp.zeros_like(x), float(levels))
    return jnp.where((x < 0) | (x + u > levels), -jnp.inf, log_density)


def truncated_log_prob(
    mixture: Mixture, levels: int, x: Float[Array, "..."]
) -> Float[Array, "..."]:
    """log P(x) in nats of the truncated mixture; -inf where x is none of its integers."""
    whole = log_interval(mixture, jnp.zeros_like(x), float(levels))
    log_prob = log_interval(mixture, x, 1.0) - whole
    outside = (x < 0) | (x > levels - 1) | (x - jnp.round(x) != 0)
    return jnp.where(outside & ~jnp.isnan(x), -jnp.inf, log_prob)


def discretized_log_prob(
    mixture: Mixture, levels: int, x: Float[Array, "..."]
) -> Float[Array, "..."]:
    """log P(x) in nats of the discretised mixture (Salimans et al. 2017, arXiv 1701.05517)."""
    mixture = _spread(mixture, x)
    each = jnp.broadcast_to(x[..., None], mixture.means.shape)
    terms = bounds.densities.discretized_logistic_log_prob(
        each, mixture.means, mixture.log_scales, levels=levels
    )
    return jax.nn.logsumexp(mixture.log_weights + terms, axis=-1)


def log_interval(mixture: Mixture, low: Float[Array, "..."], width: float) -> Float[Array, "..."]:
    """log [F(low + width) - F(low)]; sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - e^{a-b})."""
    mixture = _spread(mixture, low)
    rate = jnp.exp(-mixture.log_scales)
    lower = (low[..., None] - mixture.means) * rate
    step = width * rate
    terms = jax.nn.log_sigmoid(lower + step) + jax.nn.log_sigmoid(-lower) + _log1mexp(step)
    return jax.nn.logsumexp(mixture.log_weights + terms, axis=-1)


def _spread(mixture: Mixture, x: Array) -> Mixture:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*x.shape, leaf.shape[-1])), mixture)


def _log1mexp(value: Array) -> Array:
    """log(1 - exp(-value)) for value > 0, without cancellation at either end."""
    small = value < math.log(2)
    near = jnp.log(-jnp.expm1(-jnp.where(small, value, 1.0)))
    return jnp.where(small, near, jnp.log1p(-jnp.exp(-jnp.where(small, 1.0, value))))
