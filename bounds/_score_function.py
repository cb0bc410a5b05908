"""Score-function estimators: objectives for discrete, or any, z; z is never
differentiated through. They need log q(z | x) at a given z.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from bounds._checks import check_chunk_size, check_count, check_log_q, check_scalar
from bounds._estimators import Bound, finish
from bounds._sampling import add_gradient_of, log_weight, over_samples, propose, sample_key, stop
from bounds._types import Key, LatentModel, Objective, Params
from bounds._values import finite_or_zero, iwae
from bounds._weights import normalized_weights


def reinforce(
    model: LatentModel,
    *,
    num_samples: int,
    bound: Bound = iwae,
    baseline: Callable[[PyTree], Array] | None = None,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Objective:
    r"""Score-function gradient of a bound: unbiased for any z, and noisy.

    .. math:: \nabla B + (B - b(x)) \sum_k \nabla \log q(z_k | x), \quad
       B = \mathrm{bound}(\log w_1, \dots, \log w_K),

    where :math:`\nabla B` keeps the samples fixed. `vimco` has the same expectation
    under `iwae` and far less noise at K > 1. A sample of weight zero contributes
    nothing.

    Args:
      model: a model with a `log_q`; z may be discrete.
      num_samples: K.
      bound: maps log-weights [K] to a scalar: `iwae` or `elbo`, for instance.
      baseline: b, a function of x alone such as a running mean or a network
        (NVIL); it is not trained by this objective. None for 0.
      has_aux: whether the objective also returns `Aux(log_w, z)`.
      chunk_size: samples in memory at once; None for all.

    Returns:
      An `Objective`.

    Raises:
      TypeError: a count is not an integer.
      ValueError: a count is below 1, `log_q` is None or, when called, a model
        function does not return one number.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> bernoulli = lambda logit, z: bounds.densities.bernoulli_log_prob(logit, z)
      >>> def propose(phi, key, x):
      ...     z = jax.random.bernoulli(key, jax.nn.sigmoid(phi)).astype(jnp.int32)
      ...     return z, bernoulli(phi, z)
      >>> model = bounds.LatentModel(
      ...     propose=propose,
      ...     log_q=lambda phi, x, z: bernoulli(phi, z),
      ...     log_p=lambda theta, x, z: bernoulli(theta, z) + bernoulli(jnp.where(z, 1.0, -1.0), x))
      >>> objective = bounds.reinforce(model, num_samples=2, bound=bounds.elbo)
      >>> jax.grad(objective)(bounds.Params(0.0, 0.5), jax.random.key(0), 1).phi.shape
      ()

    Source: Williams 1992; Mnih & Gregor 2014 (arXiv 1402.0030), NVIL.
    """
    check_log_q("reinforce", model.log_q)
    num_samples = check_count("num_samples", num_samples)
    check_chunk_size(chunk_size)

    def objective(params: Params, key: Key, x: PyTree):
        log_w, log_q, z = fixed_samples(model, params, key, x, num_samples, chunk_size, has_aux)
        value = bound(log_w)
        signal = value if baseline is None else value - check_scalar("baseline", baseline(x))
        value = add_gradient_of(value, score(jnp.full_like(log_w, 1.0) * signal, log_w, log_q))
        return finish(value, log_w, z, has_aux)

    return objective


def vimco(
    model: LatentModel,
    *,
    num_samples: int,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Objective:
    r"""VIMCO: score-function gradient of IWAE-K with a leave-one-out baseline.

    .. math:: \nabla L_K + \sum_k (L_K - L_K^{(-k)}) \nabla \log q(z_k | x),

    where :math:`L_K^{(-k)}` replaces :math:`w_k` by the geometric mean of the other
    weights. Unbiased in theta and phi. A sample of weight zero contributes nothing.

    Args:
      model: a model with a `log_q`; z may be discrete.
      num_samples: K, at least 2.
      has_aux: whether the objective also returns `Aux(log_w, z)`.
      chunk_size: samples in memory at once; None for all.

    Returns:
      An `Objective`.

    Raises:
      TypeError: a count is not an integer.
      ValueError: K is below 2, `log_q` is None or, when called, a model function
        does not return one number.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> bernoulli = lambda logit, z: bounds.densities.bernoulli_log_prob(logit, z)
      >>> def propose(phi, key, x):
      ...     z = jax.random.bernoulli(key, jax.nn.sigmoid(phi)).astype(jnp.int32)
      ...     return z, bernoulli(phi, z)
      >>> model = bounds.LatentModel(
      ...     propose=propose,
      ...     log_q=lambda phi, x, z: bernoulli(phi, z),
      ...     log_p=lambda theta, x, z: bernoulli(theta, z) + bernoulli(jnp.where(z, 1.0, -1.0), x))
      >>> objective = bounds.vimco(model, num_samples=5)
      >>> jax.grad(objective)(bounds.Params(0.0, 0.5), jax.random.key(0), 1).phi.shape
      ()

    Source: Mnih & Rezende 2016 (arXiv 1602.06725).
    """
    check_log_q("vimco", model.log_q)
    if check_count("num_samples", num_samples) == 1:
        raise ValueError(
            "vimco needs num_samples of at least 2: its baseline comes from the other samples; "
            "use bounds.reinforce for a single sample."
        )
    check_chunk_size(chunk_size)

    def objective(params: Params, key: Key, x: PyTree):
        log_w, log_q, z = fixed_samples(model, params, key, x, num_samples, chunk_size, has_aux)
        value = iwae(log_w)
        value = add_gradient_of(value, score(vimco_signal(stop(log_w)), log_w, log_q))
        return finish(value, log_w, z, has_aux)

    return objective


def rws(
    model: LatentModel,
    *,
    num_samples: int,
    simulate: Callable[[PyTree, Key], tuple[PyTree, PyTree]] | None = None,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Objective:
    r"""Reweighted wake-sleep: IWAE for theta, an ascent direction for phi.

    .. math:: \nabla_\theta L_K, \qquad
       \Delta\phi = \sum_k \tilde w_k \nabla_\phi \log q(z_k | x)
       \;[\,+\, \nabla_\phi \log q(z' | x'), \; (x', z') \sim p_\theta\,]

    The value is IWAE-K. In phi the gradient is NOT the value's: wake-phi descends the
    self-normalised estimate of KL(p(z|x) || q(z|x)), which is biased at finite K, and
    the sleep term descends the same KL averaged over simulated x.

    Args:
      model: a model with a `log_q`; z may be discrete.
      num_samples: K.
      simulate: (theta, key) -> (x, z), a draw from the joint; it adds the sleep phase.
      has_aux: whether the objective also returns `Aux(log_w, z)`.
      chunk_size: samples in memory at once; None for all.

    Returns:
      An `Objective`.

    Raises:
      TypeError: a count is not an integer.
      ValueError: a count is below 1, `log_q` is None or, when called, a model
        function does not return one number.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> bernoulli = lambda logit, z: bounds.densities.bernoulli_log_prob(logit, z)
      >>> def propose(phi, key, x):
      ...     z = jax.random.bernoulli(key, jax.nn.sigmoid(phi)).astype(jnp.int32)
      ...     return z, bernoulli(phi, z)
      >>> model = bounds.LatentModel(
      ...     propose=propose,
      ...     log_q=lambda phi, x, z: bernoulli(phi, z),
      ...     log_p=lambda theta, x, z: bernoulli(theta, z) + bernoulli(jnp.where(z, 1.0, -1.0), x))
      >>> objective = bounds.rws(model, num_samples=5)
      >>> jax.grad(objective)(bounds.Params(0.0, 0.5), jax.random.key(0), 1).phi.shape
      ()

    Source: Bornschein & Bengio 2014 (arXiv 1406.2751).
    """
    check_log_q("rws", model.log_q)
    num_samples = check_count("num_samples", num_samples)
    check_chunk_size(chunk_size)

    def objective(params: Params, key: Key, x: PyTree):
        log_w, log_q, z = fixed_samples(
            model, params, key, x, num_samples, chunk_size, has_aux, apart=True, wake=True
        )
        value = iwae(log_w)
        surrogate = score(normalized_weights(stop(log_w)), log_w, log_q)
        if simulate is not None:
            # Samples use fold_in(key, 0..K-1); the sleep phase takes the number after them.
            fantasy = simulate(stop(params.theta), sample_key(key, num_samples))
            x_sleep, z_sleep = stop(fantasy)
            sleep = model.log_q(params.phi, x_sleep, z_sleep)  # type: ignore[misc]
            surrogate = surrogate + check_scalar("log_q", sleep)
        return finish(add_gradient_of(value, surrogate), log_w, z, has_aux)

    return objective


def vimco_signal(log_w: Float[Array, "K"]) -> Float[Array, "K"]:
    """L_K minus IWAE-K with each weight in turn replaced by the geometric mean of the others.

    Neither is formed: of the size of log p(x), they would round away a difference of 1/K.
    """
    num_samples, bound = log_w.shape[0], iwae(log_w)
    log_w = log_w - finite_or_zero(jnp.max(log_w))
    dead = jnp.isneginf(log_w)
    others_dead = jnp.sum(dead) - dead.astype(int)
    own = jnp.where(dead, 0.0, log_w)
    center = jnp.mean(own)
    log_ratio = (own - center) * (num_samples / (num_samples - 1))  # log of w_k / geometric mean
    log_ratio = jnp.where(others_dead > 0, jnp.inf, log_ratio)
    geometric = own - log_ratio
    replaced = jnp.logaddexp(log_sum_of_others(log_w), geometric)
    log_total = jax.nn.logsumexp(log_w)
    # The share of the total that the replacement takes away, exact where the two are close.
    larger = jnp.exp(jnp.maximum(own, geometric) - log_total)
    share = -jnp.sign(log_ratio) * larger * jnp.expm1(-jnp.abs(log_ratio))
    near = share < 0.5
    signal = jnp.where(near, -jnp.log1p(jnp.where(near, -share, 0.0)), log_total - replaced)
    # Any baseline made from the others is unbiased, so 0 may stand in where all the others
    # have no weight.
    return jnp.where(others_dead == num_samples - 1, bound, signal)


def log_sum_of_others(log_w: Float[Array, "K"]) -> Float[Array, "K"]:
    """log sum exp of all entries but one, for each in turn."""
    # Prefix and suffix sums instead of total minus own: no cancellation for the largest.
    nothing = jnp.full((1,), -jnp.inf, log_w.dtype)
    before = jnp.concatenate([nothing, jax.lax.cumlogsumexp(log_w)[:-1]])
    after = jnp.concatenate([jax.lax.cumlogsumexp(log_w, reverse=True)[1:], nothing])
    return jnp.logaddexp(before, after)


def fixed_samples(
    model: LatentModel,
    params: Params,
    key: Key,
    x: PyTree,
    num_samples: int,
    chunk_size: int | None,
    has_aux: bool,
    *,
    apart: bool = False,
    wake: bool = False,
):
    """log_w and log q at samples that no gradient flows through.

    With `apart` log_w depends on phi no more: what it does through log q is all in log q. With
    `wake` besides log q on phi alone, as wake-sleep wants it.
    """

    def sample(k):
        z, _ = stop(propose(model, params.phi, sample_key(key, k), x))
        log_q = check_scalar("log_q", model.log_q(params.phi, stop(x) if wake else x, z))  # type: ignore[misc]
        log_w = log_weight(model, params.theta, x, z, stop(log_q) if apart else log_q)
        return log_w, log_q, z if has_aux else ()

    return over_samples(sample, jnp.arange(num_samples), chunk_size)


def score(signal: Array, log_w: Array, log_q: Array) -> Array:
    """sum_k sg(signal_k) log q(z_k | x) over the samples that have weight."""
    dead = jnp.isneginf(log_w)
    # A bound of -inf (the ELBO with one dead sample) is no signal for the live ones.
    signal = stop(jnp.where(dead | ~jnp.isfinite(signal), 0.0, signal))
    return jnp.sum(jnp.where(dead, 0.0, signal * log_q))
