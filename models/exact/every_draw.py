"""Expectations over K draws as finite sums: the draws are forced through every outcome.

An estimator is a function of K draws of z. Where z takes a few values, or its noise lies on a
Gauss-Hermite grid, its mean and variance are sums over tuples of them, without Monte Carlo noise.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

import bounds


class Moments(NamedTuple):
    """Mean and variance of a gradient, exact; trees like the gradient."""

    mean: PyTree
    variance: PyTree


def forced_draws(
    model: bounds.LatentModel, sample: Callable[[PyTree, Any, Any], Any], key: Array, draws: PyTree
) -> bounds.LatentModel:
    """`model` whose k-th draw from fold_in(key, k) is sample(phi, x, draws[k])."""
    num_samples = jax.tree.leaves(draws)[0].shape[0]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_samples))
    known = jax.random.key_data(keys)

    def propose(phi, key, x):
        match = jnp.all(known == jax.random.key_data(key)[None], axis=-1)
        draw = jax.tree.map(lambda d: d[jnp.argmax(match)], draws)
        z = sample(phi, x, draw)
        return z, model.log_q(phi, x, z)  # type: ignore[misc]

    return model._replace(propose=propose)


def gradients(
    factory: Callable[[bounds.LatentModel], bounds.Objective],
    model: bounds.LatentModel,
    sample: Callable[[PyTree, Any, Any], Any],
    params: bounds.Params,
    x: Any,
    draws: PyTree,
    chunk: int = 4096,
) -> PyTree:
    """The gradient of factory(model) for every outcome of the K draws, each leaf [I, ...].

    Args:
      factory: model -> objective.
      model: the model, with log_q.
      sample: (phi, x, draw) -> z.
      params: where to differentiate.
      x: the datum.
      draws: [I, K, ...], outcomes of the K draws.
      chunk: outcomes in memory at once.
    """
    key = jax.random.key(0)

    def one(params, draw):
        return jax.grad(factory(forced_draws(model, sample, key, draw)))(params, key, x)

    run = jax.jit(lambda p, d: jax.lax.map(lambda one_: one(p, one_), d, batch_size=chunk))
    return run(params, draws)


def moments(grads: PyTree, probabilities: Float[Array, "I"]) -> Moments:
    """Mean and variance over outcomes with these probabilities, of leaves [I, ...]."""

    def mean_of(leaf):
        return jnp.tensordot(probabilities, leaf, axes=1, precision="highest")

    mean = jax.tree.map(mean_of, grads)
    centred = jax.tree.map(lambda g, m: jnp.square(g - m[None]), grads, mean)
    return Moments(mean, jax.tree.map(mean_of, centred))


def gauss_hermite(
    num_nodes: int, num_noises: int
) -> tuple[Float[Array, "I num_noises"], Float[Array, "I"]]:
    """Nodes and probabilities of a standard normal product rule."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    grid = np.array(list(itertools.product(nodes, repeat=num_noises)))
    mass = np.array(list(itertools.product(weights / weights.sum(), repeat=num_noises)))
    return jnp.asarray(grid), jnp.asarray(np.prod(mass, axis=1))


def all_tuples(num_states: int, num_samples: int) -> Int[Array, "I num_samples"]:
    """Every outcome of K discrete draws, [S^K, K]."""
    return jnp.asarray(np.array(list(itertools.product(range(num_states), repeat=num_samples))))


def multisets(
    num_states: int, num_samples: int, num_groups: int = 1
) -> tuple[Int[Array, "I draws"], Float[Array, "I"]]:
    """Outcomes of M groups of K draws up to the order within a group, and how many each stands for.

    Enough for what is symmetric in the samples of a group: (S + K - 1 choose K)^M outcomes instead
    of S^(M K). The counts come as logs.
    """
    group = list(itertools.combinations_with_replacement(range(num_states), num_samples))
    orders = [
        math.lgamma(num_samples + 1) - sum(math.lgamma(one.count(s) + 1) for s in set(one))
        for one in group
    ]
    draws = np.array([sum(many, ()) for many in itertools.product(group, repeat=num_groups)])
    logs = np.array([sum(many) for many in itertools.product(orders, repeat=num_groups)])
    return jnp.asarray(draws), jnp.asarray(logs)


def norm(tree: PyTree) -> Float[Array, ""]:
    """Euclidean norm over all entries."""
    return jnp.linalg.norm(ravel_pytree(tree)[0])
