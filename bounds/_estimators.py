"""Path-derivative estimators: objectives whose value is the bound and whose gradient
is the estimator the function is named after.

All of them differentiate through z, so z must be reparameterised; `_gradient_paths` looks
whether it is. Estimators for discrete z are in `_score_function`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, PyTree

from bounds._checks import (
    check_at_least,
    check_chunk_size,
    check_count,
    check_log_q,
    check_reparameterized,
    check_scalar,
)
from bounds._gradient_paths import check_gradient_paths
from bounds._sampling import (
    drawn,
    log_weight,
    over_samples,
    propose,
    sample_key,
    stop,
    varying_with,
)
from bounds._types import Aux, LatentModel, Objective, Params
from bounds._values import iwae, renyi
from bounds._weights import normalized_weights

Bound = Callable[[Array], Array]


def pathwise(
    model: LatentModel,
    *,
    num_samples: int,
    bound: Bound = iwae,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Objective:
    r"""The reparameterisation gradient of a bound: unbiased for theta and phi.

    .. math:: \nabla \, \mathrm{bound}(\log w_1, \dots, \log w_K), \quad
       z_k = z(\epsilon_k, \phi)

    With `bound=iwae` its signal-to-noise ratio grows like sqrt(K) in theta and falls
    like 1/sqrt(K) in phi; `dreg` cures phi.

    A z that follows phi by a choice (a discrete z cast to float, the component of a mixture
    drawn with weights from phi, a stopped draw under a log q that is not) gets no gradient
    for it, and is refused when the objective is differentiated or compiled; so are
    parameters that the choice alone depends on. It is looked for in the program of
    `propose`, which is traced once more and costs nothing when run. It is NOT found where
    all the same parameters also move z smoothly, unless they enter by entries of an array
    that are sliced or split off for it, nor inside `jax.custom_jvp` and `jax.custom_vjp`, nor
    where the call is neither differentiated in phi nor compiled. Straight-through and relaxed
    draws pass: their derivative is the model's own. Parameters of log q alone, as of an
    auxiliary reverse model, pass too.

    Args:
      model: a model with floating, reparameterised z. `log_q` may be None.
      num_samples: K.
      bound: maps log-weights [K] to a scalar: `iwae`, `elbo`, or e.g.
        `functools.partial(ciwae, beta=0.5)`.
      has_aux: whether the objective also returns `Aux(log_w, z)`.
      chunk_size: samples in memory at once (scan with rematerialisation); None for all.

    Returns:
      An `Objective`.

    Raises:
      TypeError: a count is not an integer or, when called, z is not floating-point or follows
        a traced phi by a choice without a derivative.
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
      >>> objective = bounds.pathwise(model, num_samples=4)
      >>> value, grads = jax.value_and_grad(objective)(params, jax.random.key(0), 1.0)
      >>> grads.phi.shape
      ()

    Source: Burda et al. 2015 (arXiv 1509.00519), section 3; Rainforth et al. 2018
    (arXiv 1802.04537) for its signal-to-noise ratio.
    """
    return path_objective("pathwise", model, num_samples, bound, has_aux, chunk_size)


def stl(
    model: LatentModel,
    *,
    num_samples: int,
    bound: Bound = iwae,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Objective:
    r"""Sticking the landing: `pathwise` without the score term of log q.

    .. math:: \nabla \, \mathrm{bound}(\log w), \quad
       \log w_k = \log p_\theta(x, z_k) - \log q_{\mathrm{sg}(\phi)}(z_k | x)

    Unbiased in theta, and in phi for the ELBO (`num_samples=1` or `bound=elbo`). At
    K > 1 under `iwae` the phi gradient is NOT the gradient of the value: it is
    biased; `dreg` is the unbiased form. Zero, not just zero on average, where q is
    the posterior. x is stopped in log q as phi is; a value that log_q closes over
    cannot be stopped, so pass it through phi.

    Args:
      model: a model with floating, reparameterised z and a `log_q`.
      num_samples: K.
      bound: maps log-weights [K] to a scalar.
      has_aux: whether the objective also returns `Aux(log_w, z)`.
      chunk_size: samples in memory at once; None for all.

    Returns:
      An `Objective`.

    Raises:
      TypeError: a count is not an integer or, when called, z is not floating-point or follows
        a traced phi by a choice without a derivative (see `pathwise`).
      ValueError: a count is below 1, `log_q` is None or, when called, a model
        function does not return one number.

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
      >>> objective = bounds.stl(model, num_samples=1)
      >>> jax.grad(objective)(params, jax.random.key(0), 1.0).phi.shape
      ()

    Source: Roeder et al. 2017 (arXiv 1703.09194); its bias at K > 1:
    Tucker et al. 2018 (arXiv 1810.04152).
    """
    check_log_q("stl", model.log_q)
    return path_objective("stl", model, num_samples, bound, has_aux, chunk_size)


def dreg(
    model: LatentModel,
    *,
    num_samples: int,
    alpha: ArrayLike = 0.0,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Objective:
    r"""Doubly reparameterised gradient of IWAE (alpha = 0) and VR-IWAE.

    .. math:: \nabla_\phi: \sum_k \left(\alpha \tilde w_k + (1-\alpha) \tilde w_k^2\right)
       \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}, \qquad
       \nabla_\theta: \sum_k \tilde w_k \nabla_\theta \log p_\theta(x, z_k),

    with :math:`\tilde w` the normalised :math:`w^{1-\alpha}`. Unbiased for the gradient
    of `renyi(log_w, alpha)` in theta and phi; its signal-to-noise ratio in phi grows
    with K. It is not uniformly better than `pathwise`: far from the posterior its
    variance can be larger.

    Several stochastic layers are right as they are: z is one pytree, phi is stopped in
    log q, and the dependence of a lower layer's distribution on the layer above it is
    kept. x is stopped in log q as phi is; a value that log_q closes over cannot be
    stopped, so pass it through phi. Costs one pull-back, like `pathwise`. Forward-mode
    differentiation (`jax.jvp`, `jax.hessian`) is not supported, and neither are second
    derivatives: the weights are constants to them.

    Args:
      model: a model with floating, reparameterised z and a `log_q`.
      num_samples: K.
      alpha: the Renyi order, a scalar of at least 0, usually up to 1; may be traced.
      has_aux: whether the objective also returns `Aux(log_w, z)`.
      chunk_size: samples in memory at once; None for all. In chunks the weights take
        a second forward pass.

    Returns:
      An `Objective`.

    Raises:
      TypeError: a count is not an integer or, when called, z is not floating-point or follows
        a traced phi by a choice without a derivative (see `pathwise`).
      ValueError: a count or a known alpha is too small, `log_q` is None or, when called, a
        model function does not return one number.

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
      >>> objective = bounds.dreg(model, num_samples=64)
      >>> jax.grad(objective)(params, jax.random.key(0), 1.0).phi.shape
      ()

    Source: Tucker et al. 2018 (arXiv 1810.04152); Daudel et al. 2023
    (arXiv 2210.06226) for alpha; Bauer & Mnih 2021 (arXiv 2101.11046) for several layers.
    """
    check_log_q("dreg", model.log_q)
    num_samples = check_count("num_samples", num_samples)
    check_chunk_size(chunk_size)
    check_at_least("alpha", alpha, 0.0, instead="VR-IWAE of a negative order is no bound")
    plain = isinstance(alpha, (int, float)) and alpha == 0
    bound = iwae if plain else functools.partial(renyi, alpha=alpha)

    def objective(params: Params, key, x: PyTree):
        check_gradient_paths("dreg", model, params.phi, sample_key(key, 0), x)

        def draw(k):
            z, _ = propose(model, params.phi, sample_key(key, k), x)
            check_reparameterized("dreg", z)
            return z

        def weigh(z):
            log_q = model.log_q(stop(params.phi), stop(x), z)  # type: ignore[misc]
            return log_weight(model, params.theta, x, z, log_q)

        def pull(z, scale):
            z = scale_cotangent(z, scale)
            return weigh(z), z if has_aux else ()

        # The weights come from a first evaluation at the same z; XLA merges it with the
        # second, since the scaling is an identity in value.
        items, get = drawn(draw, jnp.arange(num_samples), chunk_size)
        log_w = stop(over_samples(lambda item: weigh(get(item)), items, chunk_size))
        if plain:
            scale = normalized_weights(log_w)
        else:
            order = jnp.asarray(alpha, log_w.dtype)
            powers = jnp.where(jnp.isneginf(log_w), -jnp.inf, (1.0 - order) * log_w)
            scale = order + (1.0 - order) * normalized_weights(powers)
        log_w, z = over_samples(lambda arg: pull(get(arg[0]), arg[1]), (items, scale), chunk_size)
        return finish(bound(log_w), log_w, z, has_aux)

    return objective


def scale_cotangent(z: PyTree, scale: Array) -> PyTree:
    """Identity in value; multiplies the cotangent of every leaf of z by `scale`."""
    return _scale_cotangent(varying_with(z, scale), scale)


@jax.custom_vjp
def _scale_cotangent(z, scale):
    return z


def _scale_forward(z, scale):
    return z, scale


def _scale_backward(scale, cotangent):
    # A weight of zero contributes exactly 0, also where the model's slope is infinite.
    scaled = jax.tree.map(
        lambda c: jnp.where(scale == 0, 0.0, scale * c).astype(c.dtype), cotangent
    )
    return scaled, jnp.zeros_like(scale)


_scale_cotangent.defvjp(_scale_forward, _scale_backward)


def finish(value: Array, log_w: PyTree, z: PyTree, has_aux: bool) -> Any:
    """What an objective returns."""
    value = check_scalar("bound", value)
    return (value, Aux(log_w, z)) if has_aux else value


def path_objective(
    name: str, model: LatentModel, num_samples: int, bound: Bound, has_aux: bool, chunk_size: Any
) -> Objective:
    """bound(log_w) with ordinary derivatives; `stl` stops phi and x in log q."""
    num_samples = check_count("num_samples", num_samples)
    check_chunk_size(chunk_size)

    def objective(params: Params, key, x: PyTree):
        check_gradient_paths(name, model, params.phi, sample_key(key, 0), x)

        def sample(k):
            z, log_q = propose(model, params.phi, sample_key(key, k), x)
            check_reparameterized(name, z)
            if name == "stl":
                log_q = model.log_q(stop(params.phi), stop(x), z)  # type: ignore[misc]
            return log_weight(model, params.theta, x, z, log_q), z if has_aux else ()

        log_w, z = over_samples(sample, jnp.arange(num_samples), chunk_size)
        return finish(bound(log_w), log_w, z, has_aux)

    return objective
