"""Score-function estimators in which each sample is judged by what the others say: RLOO and OVIS.

The baseline of sample k is made from the other samples alone, so it costs no evaluation of the
model and no bias. `vimco`, the third of this kind, is in `_score_function`.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from bounds._checks import check_chunk_size, check_count, check_log_q, check_number
from bounds._estimators import Bound, finish
from bounds._sampling import add_gradient_of, stop
from bounds._score_function import fixed_samples, log_sum_of_others, score
from bounds._types import Key, LatentModel, Objective, Params
from bounds._values import elbo, finite_or_zero, iwae
from bounds._weights import normalized_weights


def rloo(
    model: LatentModel,
    *,
    num_samples: int,
    bound: Bound = elbo,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Objective:
    r"""Leave-one-out REINFORCE: the score-function gradient of a bound, for any z.

    .. math:: \nabla B + \sum_k \left(B - B^{(-k)} + \frac1K\right) \nabla \log q(z_k | x), \quad
       B = \mathrm{bound}(\log w_1, \dots, \log w_K),

    where :math:`\nabla B` keeps the samples fixed and :math:`B^{(-k)}` is the bound of the K-1
    other samples. Unbiased in theta and phi. For the ELBO, the default, the difference is
    :math:`(\log w_k - \frac1{K-1} \sum_{j \ne k} \log w_j) / K`, and in phi the gradient is that
    of VarGrad: half the sample variance of the log-weights, descended.

    The 1/K changes no expectation, and makes the gradient in phi vanish, not only on average,
    where q is the posterior. A sample of weight zero contributes nothing.

    Args:
      model: a model with a `log_q`; z may be discrete.
      num_samples: K, at least 2.
      bound: maps log-weights, K or K-1 of them, to a scalar: `elbo`, `iwae`, or e.g.
        `functools.partial(thermodynamic, betas=betas)`. Other than `elbo` it is evaluated K + 1
        times on K^2 numbers.
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
      >>> objective = bounds.rloo(model, num_samples=4)
      >>> jax.grad(objective)(bounds.Params(0.0, 0.5), jax.random.key(0), 1).phi.shape
      ()

    Source: Kool et al. 2019 (ICLR workshop, "Buy 4 REINFORCE samples, get a baseline for free!");
    Richter et al. 2020 (arXiv 2010.10436) for the variance of log-weights.
    """
    _check("rloo", model, num_samples, chunk_size)

    def objective(params: Params, key: Key, x: PyTree):
        log_w, log_q, z = fixed_samples(model, params, key, x, num_samples, chunk_size, has_aux)
        value, fixed = bound(log_w), stop(log_w)
        if bound is elbo:
            # Never as a difference of two bounds, which for large |log p(x)| would round it away.
            signal = (fixed - jnp.mean(fixed)) / (num_samples - 1)
        else:
            rest = jax.vmap(bound)(_others(fixed))
            # Any baseline made from the others is unbiased, so 0 may stand in where they have none.
            signal = value - jnp.where(jnp.isfinite(rest), rest, 0.0)
        value = add_gradient_of(value, score(signal + 1.0 / num_samples, log_w, log_q))
        return finish(value, log_w, z, has_aux)

    return objective


def ovis(
    model: LatentModel,
    *,
    num_samples: int,
    gamma: float = 0.0,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Objective:
    r"""OVIS: score-function gradient of IWAE-K with the optimal control variate of large K.

    .. math:: \nabla_\theta L_K, \qquad \nabla_\phi: \sum_k (\log \hat Z - \tilde w_k - c_k)
       \nabla_\phi \log q(z_k | x), \quad
       c_k = \log \hat Z_{-k} - \gamma \tilde w_k + (1 - \gamma) \log(1 - 1/K),

    with :math:`\hat Z` the mean weight, :math:`\hat Z_{-k}` that of the K-1 other samples and
    :math:`\tilde w` the normalised weights. At gamma = 0 the coefficient is
    :math:`-\log(1 - \tilde w_k) - \tilde w_k`, of the order of :math:`\tilde w_k^2` as that of
    `dreg`, and the gradient is unbiased, also where weights are zero.

    At gamma > 0 it is NOT the value's in phi: :math:`c_k` then depends on its own sample, and the
    expectation is :math:`\nabla_\phi \mathbb E L_K` plus gamma times that of the wake-phi direction
    of `rws`, :math:`\sum_k \tilde w_k \nabla_\phi \log q(z_k | x)`. gamma = 1 is what the authors
    derive for effective sample sizes that grow with K.

    Args:
      model: a model with a `log_q`; z may be discrete.
      num_samples: K, at least 2.
      gamma: from 0 (unbiased) to 1.
      has_aux: whether the objective also returns `Aux(log_w, z)`.
      chunk_size: samples in memory at once; None for all.

    Returns:
      An `Objective`.

    Raises:
      TypeError: a count is not an integer.
      ValueError: K is below 2, `gamma` is not in [0, 1], `log_q` is None or, when called, a model
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
      >>> objective = bounds.ovis(model, num_samples=5)
      >>> jax.grad(objective)(bounds.Params(0.0, 0.5), jax.random.key(0), 1).phi.shape
      ()

    Source: Lievin et al. 2020 (arXiv 2008.01998), eq. 17; the bias at gamma > 0 follows from
    :math:`\mathbb E[\gamma \tilde w_k \nabla \log q(z_k | x)]` not being zero.
    """
    _check("ovis", model, num_samples, chunk_size)
    check_number("gamma", gamma)
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be a number from 0, unbiased, to 1, got {gamma}.")

    def objective(params: Params, key: Key, x: PyTree):
        log_w, log_q, z = fixed_samples(
            model, params, key, x, num_samples, chunk_size, has_aux, apart=True
        )
        signal = ovis_signal(stop(log_w), gamma)
        value = add_gradient_of(iwae(log_w), score(signal, log_w, log_q))
        return finish(value, log_w, z, has_aux)

    return objective


def ovis_signal(log_w: Float[Array, "K"], gamma: float) -> Float[Array, "K"]:
    """Coefficients of the scores: log Zhat - w_k - c_k, without forming Zhat, which would round."""
    weights, lost = normalized_weights(log_w), lost_without(log_w)
    signal = lost - (1.0 - gamma) * weights + gamma * math.log1p(-1.0 / log_w.shape[0])
    # Where the others have no weight, the baseline made from them is 0.
    return jnp.where(jnp.isposinf(lost), iwae(log_w) - (1.0 - gamma) * weights, signal)


def lost_without(log_w: Float[Array, "K"]) -> Float[Array, "K"]:
    """log of the total weight minus log of the total of the others: -log(1 - w_k), normalised."""
    weights = normalized_weights(log_w)
    # From w_k where it is small, and from the sum of the others where they are.
    small = weights < 0.5
    near = -jnp.log1p(-jnp.where(small, weights, 0.0))
    log_w = log_w - finite_or_zero(jnp.max(log_w))
    return jnp.where(small, near, jax.nn.logsumexp(log_w) - log_sum_of_others(log_w))


def _others(log_w: Float[Array, "K"]) -> Float[Array, "K K-1"]:
    """Row k has all entries but k."""
    index = jnp.arange(log_w.shape[0] - 1)[None]
    after = index >= jnp.arange(log_w.shape[0])[:, None]
    return log_w[index + after.astype(index.dtype)]


def _check(name: str, model: LatentModel, num_samples: int, chunk_size: int | None) -> None:
    check_log_q(name, model.log_q)
    if check_count("num_samples", num_samples) == 1:
        raise ValueError(
            f"{name} needs num_samples of at least 2: its baseline comes from the other samples; "
            "use bounds.reinforce for a single sample."
        )
    check_chunk_size(chunk_size)
