r"""Three readings of the ELBO, as objectives with one expectation and three variances.

log-ratio:         E_q[log p(x, z) - log q(z|x)]             `elbo_log_ratio`
reconstruction-KL: E_q[log p(x|z)] - KL(q(z|x) || p(z))      `elbo_analytic_kl`
energy + entropy:  E_q[log p(x, z)] + H(q(z|x))              `elbo_analytic_entropy`
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import PyTree

from bounds._checks import (
    check_chunk_size,
    check_count,
    check_reparameterized,
    check_scalar,
)
from bounds._estimators import finish, pathwise
from bounds._gradient_paths import check_gradient_paths
from bounds._sampling import log_weight, over_samples, propose, sample_key
from bounds._types import LatentModel, Objective, Params
from bounds._values import elbo


def elbo_log_ratio(
    model: LatentModel, *, num_samples: int, has_aux: bool = False, chunk_size: int | None = None
) -> Objective:
    r"""The ELBO as a Monte Carlo mean of log-weights: `pathwise` with `bound=elbo`.

    .. math:: \frac1K \sum_k [\log p(x, z_k) - \log q(z_k | x)]

    Args, Returns, Raises: as `pathwise`.

    Example:
      >>> import jax, bounds
      >>> from jax.scipy.stats import norm
      >>> def propose(phi, key, x):
      ...     z = phi + jax.random.normal(key)
      ...     return z, norm.logpdf(z, phi)
      >>> model = bounds.LatentModel(propose, None, lambda theta, x, z: norm.logpdf(z, theta))
      >>> objective = bounds.elbo_log_ratio(model, num_samples=4)
      >>> objective(bounds.Params(0.0, 0.5), jax.random.key(0), None).shape
      ()

    Source: Kingma & Welling 2013 (arXiv 1312.6114), eq. 6.
    """
    return pathwise(
        model, num_samples=num_samples, bound=elbo, has_aux=has_aux, chunk_size=chunk_size
    )


def elbo_analytic_kl(
    model: LatentModel,
    *,
    num_samples: int,
    log_px_given_z: Callable[[PyTree, PyTree, PyTree], Any],
    kl: Callable[[Params, PyTree], Any],
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Objective:
    r"""The ELBO as reconstruction minus an analytic KL, with its pathwise gradient.

    .. math:: \frac1K \sum_k \log p(x | z_k) - \mathrm{KL}(q(z|x) \| p(z))

    The expectation is the ELBO of `model`; a single value is an unbiased estimate of it,
    and unlike log-weights the terms must not enter a log-sum-exp.

    Args:
      model: a model with floating, reparameterised z. `log_q` may be None.
      num_samples: K.
      log_px_given_z: (theta, x, z) -> [], log p(x | z) in nats.
      kl: (params, x) -> [], KL(q(z|x) || p(z)) in nats, e.g. by `gaussian_kl`.
      has_aux: whether the objective also returns `Aux(log_w, z)`.
      chunk_size: samples in memory at once; None for all.

    Returns:
      An `Objective`.

    Raises:
      TypeError: a count is not an integer or, when called, z is not floating-point or follows
        a traced phi by a choice without a derivative (see `pathwise`).
      ValueError: a count is below 1 or, when called, a function does not return one number.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import norm
      >>> def propose(phi, key, x):
      ...     z = phi + jax.random.normal(key)
      ...     return z, norm.logpdf(z, phi)
      >>> model = bounds.LatentModel(
      ...     propose, None, lambda theta, x, z: norm.logpdf(z) + norm.logpdf(x, theta * z))
      >>> objective = bounds.elbo_analytic_kl(
      ...     model, num_samples=4,
      ...     log_px_given_z=lambda theta, x, z: norm.logpdf(x, theta * z),
      ...     kl=lambda params, x: bounds.densities.gaussian_kl(params.phi[None], 1.0))
      >>> objective(bounds.Params(1.0, jnp.array(0.5)), jax.random.key(0), 1.0).shape
      ()

    Source: Kingma & Welling 2013 (arXiv 1312.6114), eq. 7.
    """

    def term(params, x, z, log_q):
        return check_scalar("log_px_given_z", log_px_given_z(params.theta, x, z))

    def correction(params, x):
        return -check_scalar("kl", kl(params, x))

    return _reading("elbo_analytic_kl", model, num_samples, term, correction, has_aux, chunk_size)


def elbo_analytic_entropy(
    model: LatentModel,
    *,
    num_samples: int,
    entropy: Callable[[PyTree, PyTree], Any],
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Objective:
    r"""The ELBO as energy plus an analytic entropy, with its pathwise gradient.

    .. math:: \frac1K \sum_k \log p(x, z_k) + H(q(z|x))

    The expectation is the ELBO of `model`; a single value is an unbiased estimate of it,
    and unlike log-weights the terms must not enter a log-sum-exp.

    Args:
      model: a model with floating, reparameterised z. `log_q` may be None.
      num_samples: K.
      entropy: (phi, x) -> [], the entropy of q(z | x) in nats, e.g. by `gaussian_entropy`.
      has_aux: whether the objective also returns `Aux(log_w, z)`.
      chunk_size: samples in memory at once; None for all.

    Returns:
      An `Objective`.

    Raises:
      TypeError: a count is not an integer or, when called, z is not floating-point or follows
        a traced phi by a choice without a derivative (see `pathwise`).
      ValueError: a count is below 1 or, when called, a function does not return one number.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import norm
      >>> def propose(phi, key, x):
      ...     z = phi + jax.random.normal(key)
      ...     return z, norm.logpdf(z, phi)
      >>> model = bounds.LatentModel(propose, None, lambda theta, x, z: norm.logpdf(z, theta))
      >>> objective = bounds.elbo_analytic_entropy(
      ...     model, num_samples=4,
      ...     entropy=lambda phi, x: bounds.densities.gaussian_entropy(jnp.ones(1)))
      >>> objective(bounds.Params(0.0, 0.5), jax.random.key(0), None).shape
      ()

    Source: Roeder et al. 2017 (arXiv 1703.09194).
    """

    def term(params, x, z, log_q):
        return check_scalar("log_p", model.log_p(params.theta, x, z))

    def correction(params, x):
        return check_scalar("entropy", entropy(params.phi, x))

    return _reading(
        "elbo_analytic_entropy", model, num_samples, term, correction, has_aux, chunk_size
    )


def _reading(name, model, num_samples, term, correction, has_aux, chunk_size) -> Objective:
    """Mean over samples of `term` plus the analytic `correction`."""
    num_samples = check_count("num_samples", num_samples)
    check_chunk_size(chunk_size)

    def objective(params: Params, key, x: PyTree):
        check_gradient_paths(name, model, params.phi, sample_key(key, 0), x)

        def sample(k):
            z, log_q = propose(model, params.phi, sample_key(key, k), x)
            check_reparameterized(name, z)
            value = term(params, x, z, log_q)
            if not has_aux:
                return value, (), ()
            return value, log_weight(model, params.theta, x, z, log_q), z

        values, log_w, z = over_samples(sample, jnp.arange(num_samples), chunk_size)
        # A term of -inf is cut off from the gradient as a dead log-weight is.
        values = jnp.where(jnp.isneginf(values), -jnp.inf, values)
        return finish(jnp.mean(values) + correction(params, x), log_w, z, has_aux)

    return objective
