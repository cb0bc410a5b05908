"""Objectives of M groups of K samples: MIWAE and PIWAE."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from bounds._checks import check_chunk_size, check_count, check_reparameterized
from bounds._estimators import path_objective
from bounds._gradient_paths import check_gradient_paths
from bounds._sampling import (
    add_gradient_of,
    drawn,
    log_weight,
    over_samples,
    propose,
    sample_key,
    stop,
    varying_with,
)
from bounds._types import Aux, LatentModel, Objective, Params
from bounds._values import iwae
from bounds._weights import normalized_weights


def miwae(
    model: LatentModel,
    *,
    num_groups: int,
    num_samples: int,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Objective:
    r"""Mean of M independent IWAE-K bounds, with its pathwise gradient (unbiased).

    .. math:: \frac1M \sum_m \log \frac1K \sum_k w_{mk}

    Args:
      model: a model with floating, reparameterised z. `log_q` may be None.
      num_groups: M.
      num_samples: K, the samples of each group.
      has_aux: whether the objective also returns `Aux(log_w [M, K], z)`.
      chunk_size: samples in memory at once, of the M K; None for all.

    Returns:
      An `Objective`.

    Raises:
      TypeError: a count is not an integer or, when called, z is not floating-point or follows
        a traced phi by a choice without a derivative (see `pathwise`).
      ValueError: a count is below 1 or, when called, a model function does not
        return one number.

    Example:
      >>> import jax, bounds
      >>> from jax.scipy.stats import norm
      >>> def propose(phi, key, x):
      ...     z = phi + jax.random.normal(key)
      ...     return z, norm.logpdf(z, phi)
      >>> model = bounds.LatentModel(
      ...     propose=propose,
      ...     log_q=lambda phi, x, z: norm.logpdf(z, phi),
      ...     log_p=lambda theta, x, z: norm.logpdf(z, theta) + norm.logpdf(x, z))
      >>> params = bounds.Params(theta=0.0, phi=0.5)
      >>> objective = bounds.miwae(model, num_groups=8, num_samples=8, has_aux=True)
      >>> value, aux = objective(params, jax.random.key(0), 1.0)
      >>> aux.log_w.shape
      (8, 8)

    Source: Rainforth et al. 2018 (arXiv 1802.04537).
    """
    num_groups = check_count("num_groups", num_groups)
    num_samples = check_count("num_samples", num_samples)

    def bound(log_w):
        return jnp.mean(iwae(log_w.reshape(num_groups, num_samples)))

    flat = path_objective("miwae", model, num_groups * num_samples, bound, has_aux, chunk_size)
    if not has_aux:
        return flat

    def objective(params: Params, key, x: PyTree):
        value, aux = flat(params, key, x)
        return value, _in_groups(aux, num_groups, num_samples)

    return objective


def piwae(
    model: LatentModel,
    *,
    num_groups: int,
    num_samples: int,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Objective:
    r"""Partially importance-weighted objective: IWAE-MK for theta, MIWAE for phi.

    .. math:: \nabla_\theta \log \frac{1}{MK} \sum_{mk} w_{mk}, \qquad
       \nabla_\phi \frac1M \sum_m \log \frac1K \sum_k w_{mk}

    The value is IWAE-MK. The gradient is NOT the value's in phi: whatever enters
    through log p follows IWAE-MK, whatever enters through q follows the mean of the
    IWAE-K bounds. Each part is unbiased for the bound it follows.

    Args:
      model: a model with floating, reparameterised z. `log_q` may be None.
      num_groups: M.
      num_samples: K, the samples of each group.
      has_aux: whether the objective also returns `Aux(log_w [M, K], z)`.
      chunk_size: samples in memory at once, of the M K; None for all.

    Returns:
      An `Objective`.

    Raises:
      TypeError: a count is not an integer or, when called, z is not floating-point or follows
        a traced phi by a choice without a derivative (see `pathwise`).
      ValueError: a count is below 1 or, when called, a model function does not
        return one number.

    Example:
      >>> import jax, bounds
      >>> from jax.scipy.stats import norm
      >>> def propose(phi, key, x):
      ...     z = phi + jax.random.normal(key)
      ...     return z, norm.logpdf(z, phi)
      >>> model = bounds.LatentModel(
      ...     propose=propose,
      ...     log_q=lambda phi, x, z: norm.logpdf(z, phi),
      ...     log_p=lambda theta, x, z: norm.logpdf(z, theta) + norm.logpdf(x, z))
      >>> params = bounds.Params(theta=0.0, phi=0.5)
      >>> objective = bounds.piwae(model, num_groups=8, num_samples=8)
      >>> jax.grad(objective)(params, jax.random.key(0), 1.0).phi.shape
      ()

    Source: Rainforth et al. 2018 (arXiv 1802.04537).
    """
    num_groups = check_count("num_groups", num_groups)
    num_samples = check_count("num_samples", num_samples)
    check_chunk_size(chunk_size)

    def objective(params: Params, key, x: PyTree):
        check_gradient_paths("piwae", model, params.phi, sample_key(key, 0), x)

        def draw(k):
            z, log_q = propose(model, params.phi, sample_key(key, k), x)
            check_reparameterized("piwae", z)
            return z, log_q

        def generative(z, log_q):
            z, log_q = stop((z, log_q))
            return log_weight(model, params.theta, x, z, log_q), z if has_aux else ()

        def inference(z, log_q, weight):
            # d log p / dz is taken here and now: left to the outer gradient, values
            # closed over by log_p would be counted by both parts.
            fixed = stop(varying_with(z, weight))
            slope = stop(jax.grad(functools.partial(model.log_p, params.theta, x))(fixed))
            # A sample of weight zero contributes 0, also where its slope is not finite.
            slope = jax.tree.map(lambda s: jnp.where(weight == 0, 0.0, s), slope)
            path = jax.tree.map(lambda s, v: jnp.sum(s * v), slope, z)
            return weight * (sum(jax.tree.leaves(path)) - log_q)

        items, get = drawn(draw, jnp.arange(num_groups * num_samples), chunk_size)
        log_w, z = over_samples(lambda item: generative(*get(item)), items, chunk_size)
        groups = stop(log_w).reshape(num_groups, num_samples)
        weights = (normalized_weights(groups) / num_groups).ravel()
        terms = over_samples(
            lambda arg: inference(*get(arg[0]), weight=arg[1]), (items, weights), chunk_size
        )
        value = add_gradient_of(iwae(log_w), jnp.sum(terms))
        aux = _in_groups(Aux(log_w, z), num_groups, num_samples)
        return (value, aux) if has_aux else value

    return objective


def _in_groups(aux: Aux, num_groups: int, num_samples: int) -> Aux:
    return jax.tree.map(lambda v: v.reshape(num_groups, num_samples, *v.shape[1:]), aux)
