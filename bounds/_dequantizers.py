"""The noise of dequantization: distributions inside the cell of an integer, as logits."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from bounds._checks import at_least_float32, check_at_least


class Dequantizer(NamedTuple):
    r"""A distribution of noise for ONE datum x, in terms of v = logit(u), shaped as x.

    .. math:: u = \sigma(v), \qquad q(u | x) = q(v | x) \prod_d \frac{1}{\sigma'(v_d)}

    Attributes:
      propose: (phi, key, x) -> (v, log q(v | x)), reparameterised in phi.
      log_q: (phi, x, v) -> [], log q(v | x) at a given v in nats, or None where it cannot be
        evaluated there (`pathwise` is then the only estimator).
    """

    propose: Callable[[PyTree, Any, Array], tuple[Array, Array]]
    log_q: Callable[[PyTree, Array, Array], Array] | None


Parameters = Callable[[PyTree, Array], tuple[Array, Array]]
"""(phi, x) -> (location, log scale) of v, each shaped as x or broadcastable to it."""


def uniform() -> Dequantizer:
    r"""Noise u uniform in [0, 1)^D: v is standard logistic. phi is not looked at.

    .. math:: v_d = \log u_d - \log(1 - u_d), \quad u_d \sim \mathrm{Uniform}[0, 1)

    Args:
      There are none.

    Returns:
      A `Dequantizer`.

    Raises:
      Nothing.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> v, log_q = bounds.dequantization.uniform().propose(None, jax.random.key(0), jnp.zeros(3))
      >>> v.shape, log_q.shape
      ((3,), ())
    """
    return logistic(lambda phi, x: (jnp.zeros(()), jnp.zeros(())))


def logistic(parameters: Parameters) -> Dequantizer:
    r"""Independent logistic v: the logit-logistic noise, uniform at location 0 and log scale 0.

    .. math:: v_d = m_d + e^{a_d} \epsilon_d, \quad \epsilon_d \sim \mathrm{Logistic}(0, 1)

    Args:
      parameters: (phi, x) -> (m, a).

    Returns:
      A `Dequantizer`.

    Raises:
      Nothing: errors of the functions given pass through when they are called.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> q = bounds.dequantization.logistic(lambda phi, x: (phi * x, jnp.zeros(x.shape)))
      >>> v, log_q = q.propose(0.1, jax.random.key(0), jnp.arange(3.0))
      >>> bool(jnp.isclose(log_q, q.log_q(0.1, jnp.arange(3.0), v)))
      True
    """
    return _location_scale(parameters, _logistic_sample, standard_logistic_log_prob)


def normal(parameters: Parameters) -> Dequantizer:
    r"""Independent normal v: the logit-normal noise, which does not contain the uniform one.

    .. math:: v_d = m_d + e^{a_d} \epsilon_d, \quad \epsilon_d \sim \mathcal N(0, 1)

    Args:
      parameters: (phi, x) -> (m, a).

    Returns:
      A `Dequantizer`.

    Raises:
      Nothing: errors of the functions given pass through when they are called.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> q = bounds.dequantization.normal(lambda phi, x: (jnp.zeros(x.shape), phi))
      >>> q.propose(0.5, jax.random.key(0), jnp.arange(3.0))[1].shape
      ()
    """

    def log_prob(epsilon):
        squares = jnp.square(at_least_float32(epsilon))
        return jnp.sum(-0.5 * (squares + math.log(2 * math.pi)))

    return _location_scale(parameters, jax.random.normal, log_prob)


def truncated_normal(scale: ArrayLike) -> Dequantizer:
    r"""Noise u normal around the middle of the cell, cut off at its ends; phi is not looked at.

    .. math:: q(u | x) = \prod_d \frac{e^{-(u_d - 1/2)^2 / (2 s^2)}}{s \sqrt{2 \pi} \, Z}, \qquad
       Z = \mathrm{erf}\Bigl(\frac{1}{2 \sqrt2 \, s}\Bigr)

    with erf the error function, so that Z is the mass of the normal inside the cell.

    For a diffusion model of integers at gamma(0), `diffusion.ode_log_density`, take
    s = exp(gamma(0) / 2) (L - 1) / 2, with L levels: z_0 is then the datum under the noise of
    gamma(0), of which only what leaves the cell is cut off. A large s is uniform noise.

    Args:
      scale: s, in the unit of the levels, above 0.

    Returns:
      A `Dequantizer`. It draws u to within 6e-8 of the ends of its cell, not closer.

    Raises:
      ValueError: `scale` is no finite number above 0; a traced one gives NaN.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> noise = bounds.dequantization.truncated_normal(0.1)
      >>> v, log_q = noise.propose(None, jax.random.key(0), jnp.arange(3.0))
      >>> bool(jnp.isclose(log_q, noise.log_q(None, jnp.arange(3.0), v), atol=1e-4))
      True

    Source: Zheng et al. 2023 (arXiv 2305.03935), section 3.2.
    """
    scale = check_at_least("scale", scale, 0.0, strictly=True)
    limit = 0.5 / scale
    log_mass = jnp.log(scale * math.sqrt(2 * math.pi)) + jnp.log(
        jax.scipy.special.erf(limit * math.sqrt(0.5))
    )

    def log_q(phi, x, v):
        v = at_least_float32(v)
        # tanh(v / 2) / 2 is u - 1/2, without a difference near the middle.
        epsilon = 0.5 * jnp.tanh(0.5 * v) / scale
        density = -0.5 * jnp.sum(jnp.square(epsilon)) - v.size * log_mass
        return density + standard_logistic_log_prob(v)

    def propose(phi, key, x):
        epsilon = jax.random.truncated_normal(key, -limit, limit, x.shape)
        beside = jnp.clip(scale * epsilon, -0.5 + 2.0**-24, 0.5 - 2.0**-24)
        v = 2 * jnp.arctanh(2 * beside)
        return v, log_q(phi, x, v)

    return Dequantizer(propose, log_q)


def flow(
    forward: Callable[[PyTree, Array, Array], tuple[Array, Array]],
    inverse: Callable[[PyTree, Array, Array], tuple[Array, Array]] | None,
) -> Dequantizer:
    r"""v from standard logistic noise through an invertible map that may depend on x.

    .. math:: v = f_\phi(\epsilon; x), \qquad
       \log q(v | x) = \log \mathrm{Logistic}(\epsilon) - \log |\det \partial f / \partial \epsilon|

    With f the identity it is uniform noise, so a flow that starts there contains it: a Gaussian
    base does not.

    Args:
      forward: (phi, x, epsilon) -> (v, log |det|).
      inverse: (phi, x, v) -> (epsilon, log |det| of FORWARD at that epsilon), or None.

    Returns:
      A `Dequantizer`; its `log_q` is None without `inverse`.

    Raises:
      Nothing: errors of the functions given pass through when they are called.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> q = bounds.dequantization.flow(
      ...     lambda phi, x, e: (phi * e, e.size * jnp.log(phi)),
      ...     lambda phi, x, v: (v / phi, v.size * jnp.log(phi)))
      >>> v, log_q = q.propose(2.0, jax.random.key(0), jnp.arange(3.0))
      >>> bool(jnp.isclose(log_q, q.log_q(2.0, jnp.arange(3.0), v)))
      True

    Source: Ho et al. 2019 (arXiv 1902.00275), section 3.1, with another base.
    """

    def propose(phi, key, x):
        epsilon = _logistic_sample(key, x.shape)
        v, log_det = forward(phi, x, epsilon)
        return v, standard_logistic_log_prob(epsilon) - log_det

    def log_q(phi, x, v):
        assert inverse is not None
        epsilon, log_det = inverse(phi, x, v)
        return standard_logistic_log_prob(epsilon) - log_det

    return Dequantizer(propose, None if inverse is None else log_q)


def autoregressive(
    parameters: Callable[[PyTree, Array, Array], tuple[Array, Array]],
) -> Dequantizer:
    r"""Logistic v whose every entry depends on those before it.

    .. math:: v_d = m_d(x, v_{<d}) + e^{a_d(x, v_{<d})} \epsilon_d

    A draw takes one evaluation of `parameters` for each entry of x, a density one in all.

    Args:
      parameters: (phi, x, v) -> (m, a), each shaped as x; entries are counted in C order, and
        those of m and a at d must not depend on the entries of v from d on.

    Returns:
      A `Dequantizer`.

    Raises:
      Nothing: errors of the functions given pass through when they are called.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> def parameters(phi, x, v):
      ...     before = jnp.concatenate([jnp.zeros(1), v[:-1]])
      ...     return phi * before, jnp.zeros(x.shape)
      >>> q = bounds.dequantization.autoregressive(parameters)
      >>> v, log_q = q.propose(0.5, jax.random.key(0), jnp.arange(3.0))
      >>> bool(jnp.isclose(log_q, q.log_q(0.5, jnp.arange(3.0), v), atol=1e-5))
      True

    Source: Hoogeboom et al. 2020 (arXiv 2001.11235), section 4.
    """

    def log_q(phi, x, v):
        location, log_scale = map(at_least_float32, parameters(phi, x, v))
        epsilon = (v - location) * jnp.exp(-log_scale)
        return standard_logistic_log_prob(epsilon) - jnp.sum(log_scale)

    def propose(phi, key, x):
        epsilon = _logistic_sample(key, x.shape)

        def one_more(v, d):
            location, log_scale = map(at_least_float32, parameters(phi, x, v))
            drawn = (location + jnp.exp(log_scale) * epsilon).reshape(-1)[d]
            return v.reshape(-1).at[d].set(drawn).reshape(x.shape), None

        v, _ = jax.lax.scan(one_more, jnp.zeros_like(epsilon), jnp.arange(epsilon.size))
        return v, log_q(phi, x, v)

    return Dequantizer(propose, log_q)


def standard_logistic_log_prob(value: Float[Array, "..."]) -> Float[Array, ""]:
    """log of the standard logistic density, summed; also log sigma'(value)."""
    value = at_least_float32(value)
    return -jnp.sum(jnp.abs(value) + 2.0 * jnp.log1p(jnp.exp(-jnp.abs(value))))


def _logistic_sample(key: Any, shape: tuple[int, ...]) -> Array:
    """Standard logistic noise, both of whose tails are right down to probabilities of 1e-19.

    |v| > a has probability 2 / (1 + e^a), so that |v| = log (2 - s) / s of a uniform s. That takes
    63 random bits, most of whose digits a float has near 0, and the last one is the sign. The logit
    of one float32 would have 23, no v above 17, and -87 in place of all those below -16.
    """
    high, low = jax.random.bits(key, (2, *shape), jnp.uint32)
    survival = (high.astype(float) + (low >> 1).astype(float) * 2.0**-31 + 2.0**-32) * 2.0**-32
    size = jnp.log1p(2 * (1 - survival) / survival)
    return jnp.where(low & 1, size, -size)


def _location_scale(
    parameters: Parameters,
    sample: Callable[[Any, tuple[int, ...]], Array],
    log_prob: Callable[[Array], Array],
) -> Dequantizer:
    def propose(phi, key, x):
        location, log_scale = map(at_least_float32, parameters(phi, x))
        epsilon = sample(key, x.shape)
        v = location + jnp.exp(log_scale) * epsilon
        return v, log_prob(epsilon) - jnp.sum(jnp.broadcast_to(log_scale, x.shape))

    def log_q(phi, x, v):
        location, log_scale = map(at_least_float32, parameters(phi, x))
        epsilon = (v - location) * jnp.exp(-log_scale)
        return log_prob(epsilon) - jnp.sum(jnp.broadcast_to(log_scale, x.shape))

    return Dequantizer(propose, log_q)
