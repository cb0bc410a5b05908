"""Hamiltonian Monte Carlo on the path from log q to log p, one transition at a time."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from bounds._checks import check_scalar
from bounds._types import LatentModel, Params


class Point(NamedTuple):
    """A state of the chain, and what the next leapfrog step has to know about it."""

    z: PyTree
    log_p: Array
    log_q: Array
    grad_log_p: PyTree
    grad_log_q: PyTree


def start_of(
    model: LatentModel, params: Params, x: PyTree, z: PyTree, *others: Array
) -> tuple[Callable[[PyTree], Point], Point]:
    """(z -> `Point`, the point at z), of a type that depends on all that a chain reads.

    Under shard_map a scan asks for that type, and gradients in a z that is the same on all devices
    would be summed over the devices, though each has an x of its own.
    """

    def log_p(z):
        return check_scalar("log_p", model.log_p(params.theta, x, z))

    def log_q(z):
        assert model.log_q is not None  # callers have raised
        return check_scalar("log_q", model.log_q(params.phi, x, z))

    def at(z: PyTree) -> Point:
        # Apart, because their mixture changes from one temperature to the next.
        (p, grad_p), (q, grad_q) = jax.value_and_grad(log_p)(z), jax.value_and_grad(log_q)(z)
        return Point(z, p, q, grad_p, grad_q)

    flags = [jnp.ravel(a)[0] > 0 for a in (log_p(z), log_q(z), *others)]
    flag = functools.reduce(jnp.logical_and, flags)
    return at, at(jax.tree.map(lambda leaf: jnp.where(flag, leaf, leaf), z))


def transition(
    at: Callable[[PyTree], Point],
    point: Point,
    key: Any,
    beta: Array,
    step_size: Array,
    num_leapfrog: int,
) -> tuple[Point, Array]:
    """One HMC transition that leaves f_beta invariant, and its acceptance probability."""
    key_momentum, key_test = jax.random.split(key)
    leaves, structure = jax.tree.flatten(point.z)
    keys = jax.random.split(key_momentum, len(leaves))
    normals = [
        jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)
    ]
    momentum = jax.tree.unflatten(structure, normals)
    proposal, final = leapfrog(at, point, momentum, beta, step_size, num_leapfrog)
    log_ratio = (
        beta * (proposal.log_p - point.log_p)
        + (1 - beta) * (proposal.log_q - point.log_q)
        + kinetic_energy(momentum)
        - kinetic_energy(final)
    )
    accepted, probability = metropolis(key_test, log_ratio)
    return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), proposal, point), probability


def leapfrog(
    at: Callable[[PyTree], Point],
    point: Point,
    momentum: PyTree,
    beta: Array,
    step_size: Array,
    num_leapfrog: int,
) -> tuple[Point, PyTree]:
    """Where (point, momentum) go: half a kick, drifts between whole kicks, half a kick."""

    def kick(momentum, point, size):
        return jax.tree.map(
            lambda m, p, q: m + (size * (beta * p + (1 - beta) * q)).astype(m.dtype),
            momentum,
            point.grad_log_p,
            point.grad_log_q,
        )

    def step(_, state):
        point, momentum = state
        point = at(jax.tree.map(lambda z, m: z + step_size.astype(z.dtype) * m, point.z, momentum))
        return point, kick(momentum, point, step_size)

    momentum = kick(momentum, point, step_size / 2)
    point, momentum = jax.lax.fori_loop(0, num_leapfrog, step, (point, momentum))
    return point, kick(momentum, point, -step_size / 2)


def kinetic_energy(momentum: PyTree) -> Array:
    """Half the squared norm of a momentum of unit mass."""
    return sum((jnp.sum(jnp.square(leaf)) / 2 for leaf in jax.tree.leaves(momentum)), jnp.zeros(()))


def metropolis(key: Any, log_ratio: Array) -> tuple[Bool[Array, ""], Array]:
    """Whether to move, and the probability of it: 0 wherever an energy is not finite."""
    probability = jnp.exp(jnp.minimum(log_ratio, 0.0))
    probability = jnp.where(jnp.isfinite(log_ratio), probability, 0.0)
    return jax.random.uniform(key, dtype=probability.dtype) < probability, probability
