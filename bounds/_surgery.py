r"""ELBO surgery: the average KL of a VAE over a data set, taken apart.

    (1/N) sum_n KL(q(z|x_n) || p(z)) = I + KL(q(z) || p(z)),    q(z) = (1/N) sum_n q(z|x_n)

I in [0, log N] is the mutual information of z and the index n; the second term, the marginal KL, is
for a factorised prior the total correlation of q(z) plus the KL of each of its dimensions.

Source: Hoffman & Johnson 2016, "ELBO surgery: yet another way to carve up the variational evidence
lower bound"; the split of the marginal KL: Chen et al. 2018 (arXiv 1802.04942), eq. 2.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PyTree

from bounds._checks import at_least_float32, check_at_least, check_chunk_size
from bounds._densities import gaussian_log_prob
from bounds._values import log_sum_exp


class GaussianPosteriors(NamedTuple):
    r"""The posteriors of N data points, or of one, as Gaussians with diagonal covariance.

    .. math:: q(z | x_n) = \mathcal N(m_n, v_n)

    Attributes:
      mean: m, [N, D], or [D].
      variance: v, likewise.
    """

    mean: Array
    variance: Array


class Aggregated(NamedTuple):
    r"""Log-densities of the aggregated posterior at one z, in nats.

    .. math:: q(z) = \frac1N \sum_n q(z | x_n), \qquad q(z_d) = \frac1N \sum_n q(z_d | x_n)

    Attributes:
      joint: log q(z).
      marginals: log q(z_d) of each dimension, [D].
    """

    joint: Float[Array, ""]
    marginals: Float[Array, "D"]


class Terms(NamedTuple):
    r"""The parts of KL(q(z | x) || p(z)) at one draw of z, in nats; any of them may be negative.

    .. math:: \mathrm{kl} = \mathrm{information} + \mathrm{marginal\_kl}, \qquad
       \mathrm{marginal\_kl} = \mathrm{total\_correlation} + \sum_d \mathrm{dimension\_kl}_d

    for every draw; averaged over n and z ~ q(z | x_n) each is unbiased for what its name says.

    Attributes:
      kl: log q(z | x_n) - log p(z).
      information: log q(z | x_n) - log q(z), at most log N.
      marginal_kl: log q(z) - log p(z).
      total_correlation: log q(z) - sum_d log q(z_d).
      dimension_kl: log q(z_d) - log p(z_d), [D].
    """

    kl: Float[Array, ""]
    information: Float[Array, ""]
    marginal_kl: Float[Array, ""]
    total_correlation: Float[Array, ""]
    dimension_kl: Float[Array, "D"]


Factors = Callable[[Any, Any], Any]
"""(z, one posterior) -> log q(z_d | x) of each dimension, [D]."""


def gaussian_factors(z: Array, posterior: Any) -> Array:
    """log N(z_d; mean_d, variance_d) of each dimension, [D]."""
    z, mean, variance = at_least_float32(z), *map(at_least_float32, posterior)
    if z.ndim != 1 or mean.shape != z.shape or variance.shape != z.shape:
        raise ValueError(
            "z must have shape [D], and the mean and variance of each posterior too, got "
            f"{z.shape}, {mean.shape} and {variance.shape}; jax.vmap over points."
        )
    return gaussian_log_prob(z[..., None], mean[..., None], variance[..., None])


def normal_factors(z: Array) -> Array:
    """log N(z_d; 0, 1) of each dimension, [D]."""
    return gaussian_log_prob(at_least_float32(z)[..., None], 0.0, 1.0)


def aggregated_log_prob(
    z: PyTree,
    posteriors: PyTree,
    *,
    log_q: Factors = gaussian_factors,
    chunk_size: int | None = None,
) -> Aggregated:
    r"""Log-density of the aggregated posterior at one z, exactly, and of each of its dimensions.

    .. math:: \log q(z) = \log \tfrac1N \sum_{n=1}^N q(z | x_n), \qquad
       \log q(z_d) = \log \tfrac1N \sum_{n=1}^N q(z_d | x_n)

    The sum runs over chunks of the N posteriors, in memory that does not grow with N; they are
    computed again for a gradient. For Gaussian posteriors it takes squares of z - mean, so that
    nothing cancels; `fast_aggregated_log_prob` has a faster form of the first.

    Args:
      z: one point; `jax.vmap` over others, or `jax.lax.map` with a batch size over many.
      posteriors: parameters of q(z | x_n) with a leading axis N: `GaussianPosteriors`, or whatever
        `log_q` takes.
      log_q: (z, one posterior) -> [D], the log-density of each dimension, which q factorises over.
        One that does not factorise gives [1]: its joint alone.
      chunk_size: posteriors in memory at once; None for all. It need not divide N.

    Returns:
      `Aggregated`.

    Raises:
      TypeError: `chunk_size` is not an integer.
      ValueError: it is below 1, there is no posterior, leaves differ in N, or `log_q` does not
        return [D].

    Example:
      >>> import jax.numpy as jnp
      >>> from bounds import surgery
      >>> posteriors = surgery.GaussianPosteriors(jnp.array([[-9.0], [9.0]]), jnp.ones((2, 1)))
      >>> found = surgery.aggregated_log_prob(jnp.array([9.0]), posteriors)
      >>> round(float(found.joint), 4)  # half of N(9; 9, 1)
      -1.6121

    Source: Hoffman & Johnson 2016, section 2.
    """
    _count(posteriors)

    def chunk(part):
        factors = jax.vmap(lambda one: _factors("log_q", log_q(z, one)))(part)
        return Aggregated(log_sum_exp(jnp.sum(factors, axis=-1), 0), log_sum_exp(factors, 0))

    return _log_mean_exp(chunk, posteriors, chunk_size)


def fast_aggregated_log_prob(
    z: Array, posteriors: GaussianPosteriors, *, chunk_size: int | None = None
) -> Float[Array, ""]:
    r"""log q(z) of Gaussian posteriors by matrix products: the fast form of the same sum.

    .. math:: \log q(z | x_n) = z^2 \cdot \tfrac{-1}{2 v_n} + z \cdot \tfrac{m_n}{v_n}
       - \tfrac12 \sum_d \left[\tfrac{m_{nd}^2}{v_{nd}} + \log 2 \pi v_{nd}\right]

    with z and m_n counted from the average mean. Under `jax.vmap` over z this is one matrix product
    a chunk, where `aggregated_log_prob` takes D operations of other kinds for every pair. The price
    is cancellation: the absolute error is about 1e-7 sum_d (z_d - centre_d)^2 / v_nd, with the
    variance of the nearest posteriors, in float32. Posteriors of standard deviation .01 spread over
    a unit interval have errors of .0001 a dimension, of deviation .001 of .01: use the other form
    there.

    Args:
      z: one point [D]; `jax.vmap` over others, or `jax.lax.map` with a batch size over many.
      posteriors: of N data points.
      chunk_size: posteriors in memory at once; None for all. It need not divide N.

    Returns:
      log q(z) in nats.

    Raises:
      TypeError: `chunk_size` is not an integer.
      ValueError: it is below 1, or shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from bounds import surgery
      >>> posteriors = surgery.GaussianPosteriors(jnp.array([[-9.0], [9.0]]), jnp.ones((2, 1)))
      >>> round(float(surgery.fast_aggregated_log_prob(jnp.array([9.0]), posteriors)), 4)
      -1.6121

    Source: the sum is that of Hoffman & Johnson 2016, section 2; the form is a binomial formula.
    """
    _count(posteriors)
    z, posteriors = at_least_float32(z), GaussianPosteriors(*map(at_least_float32, posteriors))
    mean, variance = posteriors
    if z.ndim != 1 or mean.shape[1:] != z.shape or variance.shape != mean.shape:
        raise ValueError(
            "z must have shape [D], and mean and variance [N, D], got "
            f"{z.shape}, {mean.shape} and {variance.shape}; jax.vmap over points."
        )
    center = jax.lax.stop_gradient(jnp.mean(mean, axis=0))  # any is right; this one cancels little
    z = z - center
    features = jnp.concatenate([jnp.square(z), z])

    def chunk(part):
        m, v = part.mean - center[None], part.variance
        slopes = jnp.concatenate([-0.5 / v, m / v], axis=-1)
        constants = -0.5 * jnp.sum(jnp.square(m) / v + jnp.log(2 * math.pi * v), axis=-1)
        # Accelerators would round the factors to fewer bits, which cancellation magnifies.
        products = jnp.dot(slopes, features, precision=jax.lax.Precision.HIGHEST)
        return log_sum_exp(products + constants, 0)

    return _log_mean_exp(chunk, posteriors, chunk_size)


def terms(
    z: PyTree,
    posterior: PyTree,
    posteriors: PyTree,
    *,
    log_q: Factors = gaussian_factors,
    log_prior: Callable[[Any], Any] = normal_factors,
    chunk_size: int | None = None,
) -> Terms:
    r"""The parts of the KL of one posterior from the prior, at one draw z ~ q(z | x_n).

    .. math:: \log\frac{q(z | x_n)}{p(z)} = \log\frac{q(z | x_n)}{q(z)} + \log\frac{q(z)}{p(z)},
       \qquad \log\frac{q(z)}{p(z)} = \log\frac{q(z)}{\prod_d q(z_d)}
       + \sum_d \log\frac{q(z_d)}{p(z_d)}

    Their averages over n = 1 .. N and z are the index-code mutual information in [0, log N], the
    marginal KL, the total correlation and the KL of each dimension. The average of `information` is
    at most log N whatever is drawn, and can come out slightly negative.

    Args:
      z: one draw from `posterior`.
      posterior: q(z | x_n), one of `posteriors`: parameters without the leading axis.
      posteriors: as for `aggregated_log_prob`.
      log_q: as for `aggregated_log_prob`.
      log_prior: z -> [D], log p(z_d) of each dimension; by default of N(0, 1).
      chunk_size: as for `aggregated_log_prob`.

    Returns:
      `Terms`.

    Raises:
      TypeError: `chunk_size` is not an integer.
      ValueError: as for `aggregated_log_prob`, or `log_prior` does not return [D].

    Example:
      >>> import jax.numpy as jnp
      >>> from bounds import surgery
      >>> posteriors = surgery.GaussianPosteriors(jnp.array([[-9.0], [9.0]]), jnp.ones((2, 1)))
      >>> one = surgery.GaussianPosteriors(*(leaf[1] for leaf in posteriors))
      >>> terms = surgery.terms(jnp.array([9.0]), one, posteriors)
      >>> round(float(terms.information), 4)  # log 2: z tells which of the two it is of
      0.6931

    Source: Hoffman & Johnson 2016; Chen et al. 2018 (arXiv 1802.04942), eq. 2.
    """
    found = aggregated_log_prob(z, posteriors, log_q=log_q, chunk_size=chunk_size)
    own = jnp.sum(_factors("log_q", log_q(z, posterior)))
    prior = _factors("log_prior", log_prior(z))
    if prior.shape != found.marginals.shape:
        raise ValueError(
            f"log_prior must return as many log-densities as log_q, {found.marginals.shape[0]}, "
            f"got {prior.shape[0]}."
        )
    dimensions = found.marginals - prior
    return Terms(
        kl=own - jnp.sum(prior),
        information=own - found.joint,
        marginal_kl=found.joint - jnp.sum(prior),
        total_correlation=found.joint - jnp.sum(found.marginals),
        dimension_kl=dimensions,
    )


def active_units(mean: ArrayLike, *, threshold: ArrayLike = 0.01) -> Bool[Array, "D"]:
    r"""Which dimensions of z say something about x.

    .. math:: \mathrm{Var}_x\big(\mathbb E_{q(z | x)}[z_d]\big) > c

    Args:
      mean: of q(z | x_n) for each of N data points, [N, D].
      threshold: c, what the variance over data, divided by N, has to exceed.

    Returns:
      True where active, [D].

    Raises:
      ValueError: `mean` does not have two axes, or the threshold is negative.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> bounds.surgery.active_units(jnp.array([[-1.0, 0.01], [1.0, -0.01]])).tolist()
      [True, False]

    Source: Burda et al. 2015 (arXiv 1509.00519), section 5.2.
    """
    mean = at_least_float32(mean)
    if mean.ndim != 2:
        raise ValueError(f"mean must have shape [N, D], got {mean.shape}.")
    return jnp.var(mean, axis=0) > check_at_least("threshold", threshold, 0.0)


def _count(posteriors: Any) -> int:
    """N, the number of posteriors; raises where leaves differ in it."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(posteriors)]
    counts = {shape[0] if shape else 0 for shape in shapes}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            "posteriors must have the same leading axis N of at least 1 in every leaf, "
            f"got shapes {', '.join(map(str, shapes)) or 'of no leaf'}."
        )
    return counts.pop()


def _factors(name: str, values: Any) -> Array:
    values = jnp.asarray(values)
    if values.ndim != 1:
        raise ValueError(
            f"{name} must return one log-density for each dimension, [D], got shape "
            f"{values.shape}; give one that does not factorise the shape [1]."
        )
    return at_least_float32(values)


def _log_mean_exp(chunk: Callable[[Any], Any], posteriors: Any, chunk_size: int | None) -> Any:
    """log (1/N) sum exp over all posteriors, of a function that gives log sum exp over a part."""
    chunk_size = check_chunk_size(chunk_size)
    count = _count(posteriors)
    size = count if chunk_size is None else min(chunk_size, count)

    def part(start, length):
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, length), posteriors
        )

    def add_part(total, posteriors):
        found = chunk(posteriors)
        return jax.tree.map(lambda a, b: log_sum_exp(jnp.stack([a, b]), 0), total, found)

    def add(total, number):
        return add_part(total, part(number * size, size)), None

    # The first chunk by itself: its sum varies over devices inside a shard_map, as the rest.
    total = chunk(part(0, size))
    if count // size > 1:
        numbers = jnp.arange(1, count // size)
        total, _ = jax.lax.scan(jax.checkpoint(add, prevent_cse=False), total, numbers)
    rest = count % size
    if rest:
        total = add_part(total, part(count - rest, rest))
    return jax.tree.map(lambda value: value - math.log(count), total)
