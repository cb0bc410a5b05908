"""The interface every bound shares: a latent-variable model as three pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, PRNGKeyArray, PyTree, UInt32

Key = PRNGKeyArray | UInt32[Array, "2"]
"""A typed key (`jax.random.key`) or an old-style one (`jax.random.PRNGKey`)."""


class Params(NamedTuple):
    """Parameters of a model and of its inference network, each any pytree.

    Attributes:
      theta: generative parameters, those of p(x, z).
      phi: inference parameters, those of q(z | x).
    """

    theta: PyTree
    phi: PyTree


class LatentModel(NamedTuple):
    """A latent-variable model for ONE datum; callers `jax.vmap` over data.

    Attributes:
      propose: (phi, key, x) -> (z, log_q), a draw z ~ q(z | x) and the scalar
        log q(z | x) in nats; reparameterised in phi where that is possible.
      log_q: (phi, x, z) -> [], log q(z | x) at a given z, or None where it
        cannot be evaluated at a given z (`pathwise` is then the only estimator).
      log_p: (theta, x, z) -> [], the joint log p(x, z) in nats. It may be -inf, a weight of
        zero, if its derivatives are finite there: guard the input of a log or a root as
        well as its output (`jnp.where` twice), or 0 times infinity makes a NaN.

    `x` and `z` may be any pytree, and so may the parameters; leaves that are no arrays, such
    as an activation function in phi or a name in x, are passed on as they are. The functions
    may close over tracers: a dropout key, a temperature, batch statistics.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jax.scipy.stats import norm
      >>> import bounds
      >>> def propose(phi, key, x):
      ...     z = phi + jax.random.normal(key)
      ...     return z, norm.logpdf(z, phi)
      >>> model = bounds.LatentModel(
      ...     propose=propose,
      ...     log_q=lambda phi, x, z: norm.logpdf(z, phi),
      ...     log_p=lambda theta, x, z: norm.logpdf(z, theta) + norm.logpdf(x, z),
      ... )
      >>> params = bounds.Params(theta=jnp.array(0.0), phi=jnp.array(0.5))
      >>> bound = bounds.pathwise(model, num_samples=8)(params, jax.random.key(0), 1.0)
      >>> bound.shape
      ()
    """

    propose: Callable[[PyTree, Any, PyTree], tuple[PyTree, Any]]
    log_q: Callable[[PyTree, PyTree, PyTree], Any] | None
    log_p: Callable[[PyTree, PyTree, PyTree], Any]


class Aux(NamedTuple):
    """What an objective built with `has_aux=True` returns beside its value.

    Attributes:
      log_w: the log-weights, shape [K], or [M, K] for `miwae` and `piwae`.
      z: the samples, each leaf with the same leading axes as `log_w`.
    """

    log_w: Float[Array, "..."]
    z: PyTree


@runtime_checkable
class Objective(Protocol):
    """(params, key, x) -> a scalar to be MAXIMISED whose value is a bound, in nats.

    With `has_aux=True` it returns (value, `Aux`), the form
    `jax.value_and_grad(..., has_aux=True)` takes.
    """

    def __call__(self, params: Params, key: Any, x: PyTree, /) -> Any: ...
