"""What an audit draws of a model for each simulated datum, before anything is judged."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from bounds._annealing import ais, annealing_schedule, reverse_ais, tune_step_sizes
from bounds._audit_gradients import arrays_of
from bounds._checks import at_least_float32, check_count, check_log_q
from bounds._sampling import log_weight, log_weights, over_samples, propose, sample_key
from bounds._types import Key, LatentModel, Params

Simulate = Callable[[PyTree, Any], tuple[PyTree, PyTree]]

# Units in the last place between two programs of one density, such as a flow and its inverse.
_CODE_ROUNDING = 1024.0
_LEAPFROG = 5
_NARROWER = 0.9  # than the draws of q, the Gaussian beside it: so that its tails are lighter
_FIXED = 1e-6  # share of its entries' variances that the variance of a fixed sum has at most
_PILOT = 64  # draws of q that the Gaussian beside it is fitted to


def simulated(
    model: LatentModel,
    params: Params,
    key: Key,
    *,
    simulate: Simulate,
    num_temperatures: int = 2,
) -> Callable[[Key], tuple[PyTree, Array]]:
    r"""Data with an upper bound on log p(x): what `claim` asks for, from a model.

    .. math:: (x, z^*) \sim p(x, z), \qquad \log w^* = \log p(x, z^*) - \log q(z^* | x), \qquad
       \mathbb E[\log w^* | x] \ge \log p(x), \quad \mathbb E[1 / w^* | x] \le 1 / p(x)

    or, with more temperatures, the log-weight of `reverse_ais` from z*, of which the same holds
    and which lies closer to log p(x) where q does not fit.

    Args:
      model: the model, with a log_q; any q will do, if p(x, z) > 0 wherever q(z | x) > 0.
      params: its parameters.
      key: PRNG key of the step sizes of `reverse_ais`, which are tuned on a datum of their own.
      simulate: (theta, key) -> (x, z), a draw from the joint p(x, z).
      num_temperatures: 2 for one weight, more for `reverse_ais`.

    Returns:
      key -> (x, log w*).

    Raises:
      TypeError: `num_temperatures` is not an integer, or z is not floating and it is above 2.
      ValueError: it is below 2, the model has no log_q, or simulate does not return (x, z) with a
        z like that of propose.

    Example:
      >>> import jax, bounds
      >>> from jax.scipy.stats import norm
      >>> model = bounds.LatentModel(
      ...     lambda phi, key, x: (phi + jax.random.normal(key),) * 2,
      ...     lambda phi, x, z: norm.logpdf(z, phi),
      ...     lambda theta, x, z: norm.logpdf(z) + norm.logpdf(x, z))
      >>> def simulate(theta, key):
      ...     z, noise = jax.random.normal(key, (2,))
      ...     return z + noise, z
      >>> draw = bounds.audit.simulated(
      ...     model, bounds.Params(None, 0.0), jax.random.key(0), simulate=simulate)
      >>> x, log_w = draw(jax.random.key(1))
      >>> x.shape == log_w.shape == ()
      True

    Source: Grosse et al. 2015 (arXiv 1511.02543).
    """
    num_temperatures = check_count("num_temperatures", num_temperatures, minimum=2)
    check_log_q("audit.simulated", model.log_q, instead="bounds.audit.claim with a density of x")
    check_simulate(model, params, simulate)
    log_q = model.log_q
    assert log_q is not None
    annealing: dict[str, Any] = {}
    if num_temperatures > 2:
        annealing = {"betas": annealing_schedule(num_temperatures), "num_leapfrog": _LEAPFROG}
        drawn, pilot = jax.random.split(key)
        x, _ = simulate(params.theta, drawn)  # a datum that is not counted
        annealing["step_sizes"] = tune_step_sizes(model, params, pilot, x, **annealing)

    def draw(key):
        drawn, chain = jax.random.split(key)
        x, z = simulate(params.theta, drawn)
        if annealing:
            return x, reverse_ais(model, params, chain, x, z, **annealing)[0]
        return x, log_weight(model, params.theta, x, z, log_q(params.phi, x, z))

    return draw


def check_simulate(model: LatentModel, params: Params, simulate: Simulate) -> bool:
    """Whether z is floating; refuses a z of simulate that is none of propose."""

    def both(key):
        simulated, proposed = jax.random.split(key)
        drawn = simulate(params.theta, simulated)
        if not isinstance(drawn, tuple) or len(drawn) != 2:
            raise ValueError(f"simulate must return (x, z), got {type(drawn).__name__}.")
        x, z = drawn
        return z, propose(model, params.phi, proposed, x)[0]

    exact, proposed = jax.eval_shape(both, jax.random.key(0))
    if jax.tree.structure(exact) != jax.tree.structure(proposed):
        raise ValueError(
            f"simulate's z must have the tree of propose's, {jax.tree.structure(proposed)}, got "
            f"{jax.tree.structure(exact)}."
        )
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(proposed), strict=True):
        floats = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in (a, b)]
        if a.shape != b.shape or floats[0] != floats[1]:
            raise ValueError(
                f"simulate's z must be like propose's, {b.dtype} of shape {b.shape}, got "
                f"{a.dtype} of shape {a.shape}."
            )
    leaves = jax.tree.leaves(proposed)
    return bool(leaves) and all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves)


class Drawn(NamedTuple):
    """Of one simulated datum."""

    log_w: Array  # [K], of draws of q
    log_w_other: Array  # [K], of draws of another q, if there is one
    log_w_exact: Array  # of the z that made x
    log_p: Array
    log_q_error: Array  # of propose's log q, beside log_q's
    log_q_rounding: Array  # what the rounding of sums explains of it
    log_q_moved: Array  # of log_q, by z that are moved by about a unit in the last place
    bridge: Array
    overlap: Array
    in_a_plane: Array  # whether the draws of q are, so that there is no bridge
    annealed: Array  # log-weight of AIS less that of reverse AIS


def draw(
    model: LatentModel,
    simulate: Simulate,
    num_data: int,
    num_samples: int,
    num_temperatures: int,
    chunk_size: int | None,
    floating: bool,
    has_other: bool,
    params: Params,
    other_phi: PyTree,
    key: Key,
) -> Drawn:
    """Everything that is drawn, with leading axis [num_data]."""
    log_q = model.log_q
    assert log_q is not None
    other = Params(params.theta, other_phi)
    annealing: dict[str, Any] = {}
    if num_temperatures:
        betas = annealing_schedule(num_temperatures)
        # Of a datum and chains that are not counted.
        x, _ = simulate(params.theta, sample_key(key, num_data))
        pilot = sample_key(key, num_data + 1)
        annealing = {"betas": betas, "num_leapfrog": _LEAPFROG}
        annealing["step_sizes"] = tune_step_sizes(model, params, pilot, x, **annealing)

    def one(i):
        keys = jax.random.split(sample_key(key, i), 8)
        x, z = simulate(params.theta, keys[0])
        exact = log_weight(model, params.theta, x, z, log_q(params.phi, x, z))
        log_w = log_weights(model, params, keys[1], x, num_samples=num_samples)
        log_w_other = log_w
        if has_other:
            log_w_other = log_weights(model, other, keys[2], x, num_samples=num_samples)
        own, own_log_q = propose(model, params.phi, keys[3], x)
        size = sum(jnp.size(leaf) for leaf in jax.tree.leaves(own))
        scale = _CODE_ROUNDING * jnp.finfo(own_log_q.dtype).eps * (1 + jnp.abs(own_log_q) + size)
        again = jnp.asarray(log_q(params.phi, x, own))
        moved = jnp.asarray(log_q(params.phi, x, perturbed(own, keys[7], _last_place))) - again
        r_draw, log_r, in_a_plane = _beside(model, params.phi, other_phi, keys[4], x, floating)
        second, second_log_q = r_draw(keys[5])
        # r / (r + q) of draws of q, and q / (r + q) of draws of r.
        from_q = jax.nn.sigmoid(log_r(own) - own_log_q)
        from_r = jax.nn.sigmoid(log_q(params.phi, x, second) - second_log_q)
        gap = jnp.zeros(())
        if annealing:
            ahead, back = jax.random.split(keys[6])
            gap = ais(model, params, ahead, x, **annealing)[0]
            gap -= reverse_ais(model, params, back, x, z, **annealing)[0]
        log_p = jnp.asarray(model.log_p(params.theta, x, z))
        return Drawn(
            log_w, log_w_other, exact, log_p, jnp.abs(again - own_log_q), scale, moved,
            from_q - from_r, from_q, in_a_plane, gap,
        )  # fmt: skip

    return over_samples(one, jnp.arange(num_data), chunk_size)


def perturbed(tree: PyTree, key: Key, size: Callable[[Array], Any]) -> PyTree:
    """A tree whose floating arrays have Gaussian noise of `size(array)` added."""
    arrays, put = arrays_of(tree)

    def moved(i, array):
        return array + size(array) * jax.random.normal(sample_key(key, i), array.shape, array.dtype)

    return put([moved(i, array) for i, array in enumerate(arrays)])


def _last_place(array: Array) -> Array:
    """What a unit in the last place of each entry is at most."""
    return jnp.abs(array) * jnp.finfo(array.dtype).eps


def twentieth(array: Array) -> Array:
    """A twentieth of each entry, so that scales and variances stay positive, or .005 of zeros."""
    return jnp.where(jnp.any(array != 0), 0.05 * jnp.abs(array), 0.005)


def _beside(
    model: LatentModel, phi: PyTree, other_phi: PyTree, key: Key, x: PyTree, floating: bool
) -> tuple[Callable, Callable, Array]:
    """A density r near q: (key -> (z, log r), z -> log r, whether it cannot be compared with q)."""
    log_q = model.log_q
    assert log_q is not None
    if not floating:

        def of_other_key(k):
            return propose(model, other_phi, k, x)

        return of_other_key, lambda z: log_q(other_phi, x, z), jnp.asarray(False)
    pilot = jax.vmap(lambda k: propose(model, phi, sample_key(key, k), x)[0])(jnp.arange(_PILOT))
    flat = jax.vmap(lambda z: ravel_pytree(z)[0])(pilot)
    _, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], pilot))
    fitted = at_least_float32(flat)
    mean, deviation = jnp.mean(fitted, 0), _NARROWER * jnp.std(fitted, 0, ddof=1)

    def log_r(z):
        noise = (at_least_float32(ravel_pytree(z)[0]) - mean) / deviation
        return jnp.sum(jax.scipy.stats.norm.logpdf(noise) - jnp.log(deviation))

    def of_key(k):
        noise = jax.random.normal(k, mean.shape, mean.dtype)
        z = unravel((mean + deviation * noise).astype(flat.dtype))
        return z, log_r(z)

    return of_key, log_r, _in_a_plane(pilot)


def _in_a_plane(draws: PyTree) -> Array:
    """Whether an entry of z is fixed, or some are shares of a fixed sum."""
    found = jnp.asarray(False)
    for leaf in jax.tree.leaves(draws):
        vectors = leaf if leaf.ndim > 1 else leaf[:, None]
        variance = jnp.var(vectors, 0)
        of_sum = jnp.var(jnp.sum(vectors, -1), 0)
        found |= jnp.any(variance == 0) | jnp.any(of_sum < _FIXED * jnp.sum(variance, -1))
    return found
