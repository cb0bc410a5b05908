"""Distribution objects of other libraries as a latent-variable model of one datum."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from bounds._checks import check_scalar
from bounds._types import Key, LatentModel


class FromDistributions(NamedTuple):
    """What `from_distributions` makes.

    Attributes:
      model: the `LatentModel`; z and x are what the distributions draw.
      simulate: (theta, key) -> (x, z), a draw from the joint.
    """

    model: LatentModel
    simulate: Callable[[PyTree, Key], tuple[PyTree, PyTree]]


class _Convention(NamedTuple):
    """How the distributions of one library are called.

    Attributes:
      draw: (distribution, key) -> value.
      draw_and_log_prob: (distribution, key) -> (value, its log-density), reparameterised.
      joined: how dimensions are made one event.
    """

    draw: Callable[[Any, Any], Any]
    draw_and_log_prob: Callable[[Any, Any], tuple[Any, Any]]
    joined: str


def from_distributions(
    encode: Callable[[PyTree, PyTree], Any],
    prior: Callable[[PyTree], Any],
    decode: Callable[[PyTree, PyTree], Any],
) -> FromDistributions:
    r"""A model from distribution objects of NumPyro, distrax, TFP's JAX substrate or flowjax.

    .. math:: \log w = \log p_\theta(z) + \log p_\theta(x | z) - \log q_\phi(z | x)

    The three may come from different libraries. A distribution is asked for draws and densities in
    its library's own way; draws that NumPyro or TFP does not call reparameterised carry no
    gradient. Its log_prob must be ONE number for one datum: a distribution with a batch of
    dimensions is refused with the library's way to make them one event, and so is one whose draws
    have another shape than the z or x that it is asked about, which log_prob would stretch in
    silence. A point mass is no q, as it has no density.

    Args:
      encode: (phi, x) -> q(z | x).
      prior: theta -> p(z).
      decode: (theta, z) -> p(x | z).

    Returns:
      `FromDistributions`: the model and `simulate`.

    Raises:
      Nothing. When called: TypeError where a function returns no distribution of these libraries,
        ValueError where a log_prob is not one number, a draw does not have the shape of z or x, or
        encode returns a point mass.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from numpyro.distributions import Normal
      >>> model, simulate = bounds.adapters.from_distributions(
      ...     encode=lambda phi, x: Normal(phi * x, 0.8).to_event(1),
      ...     prior=lambda theta: Normal(jnp.zeros(2), 1.0).to_event(1),
      ...     decode=lambda theta, z: Normal(theta * z, 1.0).to_event(1))
      >>> x, z = simulate(1.0, jax.random.key(0))
      >>> bounds.dreg(model, num_samples=8)(bounds.Params(1.0, 0.5), jax.random.key(1), x).shape
      ()

    Source: Dillon et al. 2017 (arXiv 1711.10604) for shapes of events and batches.
    """

    def propose(phi, key, x):
        distribution = encode(phi, x)
        convention = _convention("encode", distribution)
        z, log_q = convention.draw_and_log_prob(distribution, key)
        _check_density(distribution, z)
        return z, _one_number("encode", convention, log_q)

    def log_q(phi, x, z):
        return _log_prob("encode", encode(phi, x), "z", z)

    def log_p(theta, x, z):
        log_prior = _log_prob("prior", prior(theta), "z", z)
        return log_prior + _log_prob("decode", decode(theta, z), "x", x)

    def simulate(theta, key):
        z_key, x_key = jax.random.split(key)
        p_z = prior(theta)
        z = _convention("prior", p_z).draw(p_z, z_key)
        p_x = decode(theta, z)
        return _convention("decode", p_x).draw(p_x, x_key), z

    return FromDistributions(LatentModel(propose, log_q, log_p), simulate)


def _numpyro_draw(distribution: Any, key: Any) -> tuple[Any, Any]:
    value, between = distribution.sample_with_intermediates(key)
    if not distribution.has_rsample:
        value, between = jax.lax.stop_gradient(value), []
    # Of a flow: the values on its way, which spare it the inverse.
    return value, distribution.log_prob(value, *([between] if between else []))


def _tfp_draw(distribution: Any, key: Any) -> tuple[Any, Any]:
    kinds = jax.tree.leaves(distribution.reparameterization_type)
    if any("NOT" in str(kind) for kind in kinds):
        # Rejection in a loop has no reverse mode, even where no derivative is asked for.
        value = jax.lax.stop_gradient(distribution.sample(seed=key))
        return value, distribution.log_prob(value)
    return distribution.experimental_sample_and_log_prob(seed=key)


def _typed(key: Any) -> Any:
    """flowjax takes new-style keys alone."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key if typed else jax.random.wrap_key_data(key)


CONVENTIONS = {
    "numpyro": _Convention(lambda d, key: d.sample(key), _numpyro_draw, "distribution.to_event(1)"),
    "distrax": _Convention(
        lambda d, key: d.sample(seed=key),
        lambda d, key: d.sample_and_log_prob(seed=key),
        "distrax.Independent(distribution, 1)",
    ),
    "tensorflow_probability": _Convention(
        lambda d, key: d.sample(seed=key),
        _tfp_draw,
        "tfd.Independent(distribution, 1)",
    ),
    "flowjax": _Convention(
        lambda d, key: d.sample(_typed(key)),
        lambda d, key: d.sample_and_log_prob(_typed(key)),
        "one distribution in place of a jax.vmap over several",
    ),
}
"""By the package that a distribution's class, or the class that it extends, comes from."""


_POINT_MASSES = ("Delta", "Deterministic", "VectorDeterministic")


def _convention(role: str, distribution: Any) -> _Convention:
    for kind in type(distribution).__mro__:
        package = kind.__module__.split(".")[0]
        if package in CONVENTIONS:
            return CONVENTIONS[package]
    raise TypeError(
        f"{role} must return a distribution of {', '.join(CONVENTIONS)}, got "
        f"{type(distribution).__name__}; write a bounds.LatentModel for others."
    )


def _check_density(distribution: Any, z: PyTree) -> None:
    """Refuses a point mass among floating z: its log_prob of 0 is no log-density."""
    layer = distribution
    while layer is not None:
        name = type(layer).__name__
        floating = (
            jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in jax.tree.leaves(z)
        )
        if name in _POINT_MASSES and any(floating):
            raise ValueError(
                f"encode returns a {name}, which has no density of z; give it another distribution."
            )
        layer = getattr(layer, "base_dist", None) or getattr(layer, "distribution", None)


def _log_prob(role: str, distribution: Any, name: str, value: PyTree) -> Any:
    convention = _convention(role, distribution)
    drawn = jax.eval_shape(lambda: convention.draw(distribution, jax.random.key(0)))
    given, wanted = (
        (jax.tree.structure(tree), [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (value, drawn)
    )
    if given != wanted:
        raise ValueError(
            f"{name} does not fit the distribution of {role}, which draws "
            f"{jax.tree.map(jnp.shape, drawn)}, got {jax.tree.map(jnp.shape, value)}; "
            "encode, prior and decode must agree in the shapes of z and x."
        )
    return _one_number(role, convention, distribution.log_prob(value))


def _one_number(role: str, convention: _Convention, log_prob: Any) -> Any:
    shape = jnp.shape(log_prob)
    if shape:
        raise ValueError(
            f"log_prob of the distribution of {role} must be one number for one datum, got shape "
            f"{shape}; make its dimensions one event: {convention.joined}."
        )
    return check_scalar("log_prob", log_prob)
