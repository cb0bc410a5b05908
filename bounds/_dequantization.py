r"""Dequantization: a bound on the probability of integers from a density of continuous data.

A cell of the integer x is x + [0, 1)^D. With noise u of density q(u | x) inside it,

    log P(x) = log E_q[p(x + u) / q(u | x)],   P(x) = \int_{[0, 1)^D} p(x + u) du,

which makes u a latent variable: the density of continuous data is its joint p(x, u), and every
bound and estimator of this package applies. The latent here is v = logit(u), because in float32
255 + u rounds to 256 for u near 1, and log(1 - u) loses its digits; the derivative of the sigmoid
belongs to the densities of v under p and under q alike.

Sources: Theis et al. 2016 (arXiv 1511.01844) for uniform noise, Ho et al. 2019 (arXiv 1902.00275)
for learned noise, Hoogeboom et al. 2020 (arXiv 2001.11235) for more than one sample of it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from bounds._checks import check_count
from bounds._types import LatentModel


class Dequantizer(NamedTuple):
    """A distribution of noise for ONE datum x, in terms of v = logit(u), shaped as x.

    Attributes:
      propose: (phi, key, x) -> (v, log q(v | x)), reparameterised in phi.
      log_q: (phi, x, v) -> [], log q(v | x) at a given v in nats, or None where it cannot be
        evaluated there (`pathwise` is then the only estimator).
    """

    propose: Callable[[PyTree, Any, Array], tuple[Array, Array]]
    log_q: Callable[[PyTree, Array, Array], Array] | None


LogDensity = Callable[[PyTree, Array, Array], Any]
"""(theta, x, u) -> [], log p(x + u) in nats, of the density in units of integers."""

Parameters = Callable[[PyTree, Array], tuple[Array, Array]]
"""(phi, x) -> (location, log scale) of v, each shaped as x or broadcastable to it."""


def dequantized(log_density: LogDensity, dequantizer: Dequantizer) -> LatentModel:
    r"""The latent-variable model of integers whose latent is their noise.

    .. math:: \log p(x, v) = \log p(x + \sigma(v)) + \sum_d \log \sigma'(v_d)

    Its ELBO is the bound of Ho et al. 2019, eq. 12 (with `uniform_dequantizer` that of Theis et
    al. 2016), IWAE-K and `renyi` are those of Hoogeboom et al. 2020; `log_likelihood` evaluates
    log P(x) with many samples.

    Args:
      log_density: (theta, x, u) -> log p(x + u), a density in units of integers: of data scaled
        by s it is s^D times as large. It gets x and u apart, because their sum rounds.
      dequantizer: the noise.

    Returns:
      A `LatentModel` of one datum x of integers (of a floating dtype or not), z = v.

    Raises:
      Nothing: errors of `log_density` and of the dequantizer pass through when they are called.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import logistic
      >>> def log_density(theta, x, u):  # a logistic density of one pixel
      ...     return jnp.sum(logistic.logpdf(x + u, theta))
      >>> model = bounds.dequantized(log_density, bounds.uniform_dequantizer())
      >>> value, _ = bounds.log_likelihood(
      ...     model, bounds.Params(2.5, None), jax.random.key(0), jnp.array([2.0]),
      ...     num_samples=2000, chunk_size=2000)
      >>> exact = jnp.log(jax.nn.sigmoid(0.5) - jax.nn.sigmoid(-0.5))
      >>> bool(abs(value - exact) < 1e-3)
      True

    Source: Ho et al. 2019 (arXiv 1902.00275), section 3.1; Hoogeboom et al. 2020
    (arXiv 2001.11235).
    """

    def log_p(theta, x, v):
        return log_density(theta, x, jax.nn.sigmoid(v)) + standard_logistic_log_prob(v)

    return LatentModel(dequantizer.propose, dequantizer.log_q, log_p)


def uniform_dequantizer() -> Dequantizer:
    """Noise u uniform in [0, 1)^D: v is standard logistic. phi is not looked at.

    Args:
      There are none.

    Returns:
      A `Dequantizer`.

    Raises:
      Nothing.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> v, log_q = bounds.uniform_dequantizer().propose(None, jax.random.key(0), jnp.zeros(3))
      >>> v.shape, log_q.shape
      ((3,), ())
    """
    return logistic_dequantizer(lambda phi, x: (jnp.zeros(()), jnp.zeros(())))


def logistic_dequantizer(parameters: Parameters) -> Dequantizer:
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
      >>> q = bounds.logistic_dequantizer(lambda phi, x: (phi * x, jnp.zeros(x.shape)))
      >>> v, log_q = q.propose(0.1, jax.random.key(0), jnp.arange(3.0))
      >>> bool(jnp.isclose(log_q, q.log_q(0.1, jnp.arange(3.0), v)))
      True
    """
    return _location_scale(parameters, _logistic_sample, standard_logistic_log_prob)


def normal_dequantizer(parameters: Parameters) -> Dequantizer:
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
      >>> q = bounds.normal_dequantizer(lambda phi, x: (jnp.zeros(x.shape), phi))
      >>> q.propose(0.5, jax.random.key(0), jnp.arange(3.0))[1].shape
      ()
    """

    def log_prob(epsilon):
        return jnp.sum(-0.5 * (jnp.square(epsilon) + math.log(2 * math.pi)))

    return _location_scale(parameters, jax.random.normal, log_prob)


def flow_dequantizer(
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
      >>> q = bounds.flow_dequantizer(
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


def autoregressive_dequantizer(
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
      >>> q = bounds.autoregressive_dequantizer(parameters)
      >>> v, log_q = q.propose(0.5, jax.random.key(0), jnp.arange(3.0))
      >>> bool(jnp.isclose(log_q, q.log_q(0.5, jnp.arange(3.0), v), atol=1e-5))
      True

    Source: Hoogeboom et al. 2020 (arXiv 2001.11235), section 4.
    """

    def log_q(phi, x, v):
        location, log_scale = parameters(phi, x, v)
        epsilon = (v - location) * jnp.exp(-log_scale)
        return standard_logistic_log_prob(epsilon) - jnp.sum(log_scale)

    def propose(phi, key, x):
        epsilon = _logistic_sample(key, x.shape)

        def one_more(v, d):
            location, log_scale = parameters(phi, x, v)
            drawn = (location + jnp.exp(log_scale) * epsilon).reshape(-1)[d]
            return v.reshape(-1).at[d].set(drawn).reshape(x.shape), None

        v, _ = jax.lax.scan(one_more, jnp.zeros_like(epsilon), jnp.arange(epsilon.size))
        return v, log_q(phi, x, v)

    return Dequantizer(propose, log_q)


def bits_per_dim(
    log_prob: ArrayLike,
    *,
    num_dims: int,
    levels: int,
    data_range: tuple[float | int, float | int] | None,
    dequantized: bool,
) -> Float[Array, "..."]:
    r"""Bits per dimension of integers, from a log-probability or from a bound by a density.

    .. math:: -\frac{1}{\ln 2}\left[\frac{\log p}{D} + \log \frac{high - low}{levels}\right]

    A density depends on the unit of the data: where the `levels` cells fill [0, 1] the bracket
    has - log levels, in [-1, 1] - log(levels / 2), in [0, levels] nothing.

    Args:
      log_prob: in nats, of any shape: log P(x), or a bound on it, or of a density of noisy data.
      num_dims: D, the number of pixels times channels.
      levels: how many values each of them takes.
      data_range: (low, high), the interval that the cells of all `levels` fill in the unit of
        the density; None where `log_prob` is of the integers themselves.
      dequantized: whether noise that fills the cells was added before the density was
        evaluated; it must be stated, and True for a density.

    Returns:
      Bits per dimension, shaped as `log_prob`.

    Raises:
      TypeError: `num_dims` or `levels` is not an integer.
      ValueError: a density of data that were not dequantized, which bounds nothing and can be
        made arbitrarily good by narrow peaks; an empty `data_range`; counts that are too small.

    Example:
      >>> import math, bounds
      >>> uniform = -3072 * math.log(256)  # of 8-bit data, in nats
      >>> float(bounds.bits_per_dim(
      ...     uniform, num_dims=3072, levels=256, data_range=None, dequantized=False))
      8.0
      >>> float(bounds.bits_per_dim(  # the same as a density on [0, 1]
      ...     0.0, num_dims=3072, levels=256, data_range=(0, 1), dequantized=True))
      8.0

    Source: Theis et al. 2016 (arXiv 1511.01844), section 3.1.
    """
    num_dims = check_count("num_dims", num_dims)
    levels = check_count("levels", levels, 2)
    per_dim = jnp.asarray(log_prob, float) / num_dims
    if data_range is not None:
        low, high = data_range
        if not (low < high and math.isfinite(low) and math.isfinite(high)):
            raise ValueError(
                f"data_range must be (low, high), finite and low < high, got {data_range}."
            )
        if not dequantized:
            raise ValueError(
                "a density evaluated at the integers themselves bounds no probability; add noise "
                "(bounds.dequantized), or pass data_range=None for log-probabilities of integers."
            )
        per_dim = per_dim + math.log((high - low) / levels)
    return -per_dim / math.log(2)


def standard_logistic_log_prob(value: Float[Array, "..."]) -> Float[Array, ""]:
    """log of the standard logistic density, summed; also log sigma'(value)."""
    return -jnp.sum(jnp.abs(value) + 2.0 * jnp.log1p(jnp.exp(-jnp.abs(value))))


def _logistic_sample(key: Any, shape: tuple[int, ...]) -> Array:
    return jax.random.logistic(key, shape)


def _location_scale(
    parameters: Parameters,
    sample: Callable[[Any, tuple[int, ...]], Array],
    log_prob: Callable[[Array], Array],
) -> Dequantizer:
    def propose(phi, key, x):
        location, log_scale = parameters(phi, x)
        epsilon = sample(key, x.shape)
        v = location + jnp.exp(log_scale) * epsilon
        return v, log_prob(epsilon) - jnp.sum(jnp.broadcast_to(log_scale, x.shape))

    def log_q(phi, x, v):
        location, log_scale = parameters(phi, x)
        epsilon = (v - location) * jnp.exp(-log_scale)
        return log_prob(epsilon) - jnp.sum(jnp.broadcast_to(log_scale, x.shape))

    return Dequantizer(propose, log_q)
