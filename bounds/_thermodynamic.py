r"""The thermodynamic variational objective: a Riemann sum on the path from q to the posterior.

With :math:`\pi_b \propto q^{1-b} p^b`, log p(x) is the integral over b from 0 to 1 of
:math:`\mathbb E_{\pi_b}[\log w]`, which rises in b: sums of left ends lie below it, and sums of
right ends above.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from bounds._checks import (
    check_betas,
    check_chunk_size,
    check_count,
    check_log_q,
    check_log_w,
    is_known,
    nan_unless,
)
from bounds._estimators import finish
from bounds._sampling import add_gradient_of, stop
from bounds._score_function import fixed_samples, score
from bounds._types import Key, LatentModel, Objective, Params
from bounds._weights import normalized_weights

Betas = ArrayLike | Sequence[float]


def thermodynamic(log_w: ArrayLike, betas: Betas, *, axis: int = -1) -> Float[Array, "..."]:
    r"""Thermodynamic bound: the left Riemann sum over inverse temperatures.

    .. math:: \sum_{t=0}^{T-2} (b_{t+1} - b_t) \sum_k \tilde w_k^{(t)} \log w_k, \qquad
       \tilde w_k^{(t)} = w_k^{b_t} / \sum_j w_j^{b_t}

    For any weights at all it lies between `elbo`, which it is at betas of 0 and 1, and `iwae`, so
    it is a lower bound on log p(x) in expectation, tighter the finer the betas. The right sum,
    `evidence.thermodynamic_right`, is no upper bound when its weights are those of draws.

    Args:
      log_w: log-weights in nats, samples on `axis`.
      betas: b_0 = 0 < ... < b_{T-1} = 1, shape [T], as from `annealing_schedule`; may be traced,
        and NaN is returned if they are out of order then.
      axis: the sample axis.

    Returns:
      The bound in nats, `log_w` without `axis`. One weight of zero makes it -inf, as the ELBO.

    Raises:
      TypeError: `log_w` is not floating-point.
      ValueError: `axis` is not there or holds no sample, or `betas` are not as described.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> log_w = jnp.log(jnp.array([1.0, 4.0]))
      >>> values = [bounds.elbo(log_w), bounds.thermodynamic(log_w, [0.0, 0.5, 1.0]),
      ...           bounds.iwae(log_w)]
      >>> [round(float(v), 4) for v in values]
      [0.6931, 0.8087, 0.9163]

    Source: Masrani et al. 2019 (arXiv 1907.00031).
    """
    return riemann_sum(log_w, betas, axis=axis, right=False)


def tvo(
    model: LatentModel,
    *,
    num_samples: int,
    betas: Betas,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Objective:
    r"""The thermodynamic bound with its covariance gradient, for any z.

    .. math:: \nabla B + \sum_k \left(\frac1K + \frac{K}{K-1} \sum_{t=0}^{T-2} (b_{t+1} - b_t)
       \tilde w_k^{(t)} \Bigl[\log w_k - \sum_j \tilde w_j^{(t)} \log w_j\Bigr] \right)
       \nabla \log q(z_k | x),

    with B and :math:`\tilde w^{(t)}` of `thermodynamic`, and :math:`\nabla B` at fixed samples.
    Both together are, at each temperature, the mean of :math:`\nabla \log w` plus the covariance
    of log w with :math:`\nabla \log(q^{1-b} p^b)` under the weights. The 1/K changes no
    expectation, and makes the gradient in phi vanish where q is the posterior.

    Unbiased in theta. In phi it is NOT the gradient of the value at finite K, since the covariance
    knows nothing of how the weights depend on the other draws; it tends to it as K grows. The
    factor K/(K-1) makes it unbiased at betas of 0 and 1, where it is `rloo`. Unbiased at any betas
    is `rloo` with `bound=functools.partial(thermodynamic, betas=betas)`, or `pathwise` with it.

    Args:
      model: a model with a `log_q`; z may be discrete.
      num_samples: K, at least 2.
      betas: b_0 = 0 < ... < b_{T-1} = 1, shape [T]; not differentiated.
      has_aux: whether the objective also returns `Aux(log_w, z)`.
      chunk_size: samples in memory at once; None for all.

    Returns:
      An `Objective`.

    Raises:
      TypeError: a count is not an integer.
      ValueError: K is below 2, `betas` are not as described, `log_q` is None or, when called, a
        model function does not return one number.

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
      >>> objective = bounds.tvo(model, num_samples=5, betas=[0.0, 0.1, 1.0])
      >>> jax.grad(objective)(bounds.Params(0.0, 0.5), jax.random.key(0), 1).phi.shape
      ()

    Source: Masrani et al. 2019 (arXiv 1907.00031), eq. 12, whose code puts K/(K-1) before the
    covariance in theta as well.
    """
    check_log_q("tvo", model.log_q)
    if check_count("num_samples", num_samples) == 1:
        raise ValueError(
            "tvo needs num_samples of at least 2: a single one has no covariance; "
            "use bounds.reinforce for a single sample."
        )
    check_chunk_size(chunk_size)
    path = stop(check_betas(betas))

    def objective(params: Params, key: Key, x: PyTree):
        log_w, log_q, z = fixed_samples(model, params, key, x, num_samples, chunk_size, has_aux)
        value = thermodynamic(log_w, path)
        signal = num_samples / (num_samples - 1) * sum_influence(stop(log_w), path, right=False)
        value = add_gradient_of(value, score(signal + 1.0 / num_samples, log_w, log_q))
        return finish(value, log_w, z, has_aux)

    return objective


def riemann_sum(log_w: ArrayLike, betas: Betas, *, axis: int, right: bool) -> Float[Array, "..."]:
    """Weighted means of log w at the left or right ends, times the widths of the steps."""
    log_w, axis = check_log_w(log_w, axis)
    log_w = jnp.moveaxis(log_w, axis, -1)
    path = check_betas(betas)
    widths, weights, safe = _tempered(log_w, path, right)
    value = jnp.sum(widths * weights * safe, axis=(-2, -1))
    if not is_known(betas):
        # A sum of shares, as a traced schedule may be, ends at 1 to rounding.
        ends = (jnp.abs(path[0]) < 1e-6) & (jnp.abs(path[-1] - 1) < 1e-5)
        value = value + nan_unless(ends & jnp.all(jnp.diff(path) > 0))
    dead = jnp.isneginf(log_w)
    # At b = 0 every sample counts alike; right ends ask for one that has weight.
    gone = jnp.all(dead, axis=-1) if right else jnp.any(dead, axis=-1)
    return value + jnp.where(gone, -jnp.inf, 0.0)


def sum_influence(
    log_w: Float[Array, "... K"], betas: Float[Array, "T"], *, right: bool
) -> Float[Array, "... K"]:
    """What each sample adds to the sum: its share of the covariance of log w with any score."""
    widths, weights, safe = _tempered(log_w, betas, right)
    mean = jnp.sum(weights * safe, axis=-1, keepdims=True)
    return jnp.sum(widths * weights * (safe - mean), axis=-2)


def _tempered(log_w: Float[Array, "... K"], betas: Float[Array, "T"], right: bool):
    """Widths of the steps [T-1, 1], weights at one of their ends [T-1, K], finite log w [1, K]."""
    betas = betas.astype(log_w.dtype).reshape((1,) * (log_w.ndim - 1) + (-1, 1))
    ends = betas[..., 1:, :] if right else betas[..., :-1, :]
    dead = jnp.isneginf(log_w)[..., None, :]
    safe = jnp.where(dead, 0.0, log_w[..., None, :])
    # 0 times -inf would be NaN: at b = 0 a weight of zero counts as any other.
    powers = jnp.where(dead & (ends > 0), -jnp.inf, ends * safe)
    return jnp.diff(betas, axis=-2), normalized_weights(powers), safe
