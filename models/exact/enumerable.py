r"""A small discrete model in which every expectation is a finite sum.

    p(z) = softmax(prior),  p(x|z) = softmax(emission[z]),  q(z|x) = softmax(phi[x])

z takes S values and x takes V. Values and gradients of any K-sample bound are exact, by
summing over all S^K tuples of samples.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import bounds


class Generative(NamedTuple):
    """theta: logits of p(z) [S] and of p(x | z) [S, V]. A logit of -inf makes a zero."""

    prior: Float[Array, "S"]
    emission: Float[Array, "S V"]


def make_model() -> bounds.LatentModel:
    """The model of integers x and z, theta `Generative`, phi logits [V, S]."""
    return bounds.LatentModel(_propose, log_q, log_p)


def init(key: Array, num_states: int, num_symbols: int) -> bounds.Params:
    """Parameters with standard normal logits."""
    keys = jax.random.split(key, 3)
    theta = Generative(
        jax.random.normal(keys[0], (num_states,)),
        jax.random.normal(keys[1], (num_states, num_symbols)),
    )
    return bounds.Params(theta, jax.random.normal(keys[2], (num_symbols, num_states)))


def _propose(phi, key, x):
    z = jax.random.categorical(key, phi[x])
    return z, log_q(phi, x, z)


def log_q(phi: Float[Array, "V S"], x: Int[Array, ""], z: Int[Array, ""]) -> Float[Array, ""]:
    """log q(z | x)."""
    return bounds.densities.categorical_log_prob(phi[x], z)


def log_p(theta: Generative, x: Int[Array, ""], z: Int[Array, ""]) -> Float[Array, ""]:
    """log p(z) + log p(x | z)."""
    log_prior = bounds.densities.categorical_log_prob(theta.prior, z)
    return log_prior + bounds.densities.categorical_log_prob(theta.emission[z], x)


def simulate(theta: Generative, key: Array) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """A draw (x, z) from the joint, as `bounds.rws` wants it."""
    key_z, key_x = jax.random.split(key)
    z = jax.random.categorical(key_z, theta.prior)
    return jax.random.categorical(key_x, theta.emission[z]), z


def log_joint(theta: Generative, x: Int[Array, ""]) -> Float[Array, "S"]:
    """log p(x, z) for every z."""
    return jax.nn.log_softmax(theta.prior) + jax.nn.log_softmax(theta.emission, axis=-1)[:, x]


def log_likelihood(theta: Generative, x: Int[Array, ""]) -> Float[Array, ""]:
    """Exact log p(x) in nats; its derivatives are exact too."""
    # log sum exp, whose derivative is 0 and not NaN where x is impossible under every z.
    joint = log_joint(theta, x)
    return bounds.iwae(joint) + math.log(joint.size)


def expectation(
    fn: Callable[[Array, Array], Array], params: bounds.Params, x: Int[Array, ""], num_samples: int
) -> Float[Array, "..."]:
    r"""Exact expectation over K independent draws from q, by summing all S^K tuples.

    .. math:: \sum_{z_1 \dots z_K} \prod_k q(z_k|x) \, f(\log w_{1:K}, z_{1:K})

    Args:
      fn: (log_w [K], z [K]) -> array.
      params: parameters.
      x: one datum.
      num_samples: K; S^K tuples are held in memory.

    Returns:
      The expectation; its derivatives are those of the expectation, dependence of the
      sampling probabilities on phi included.
    """
    num_states = params.theta.prior.shape[0]
    tuples = jnp.asarray(np.array(list(itertools.product(range(num_states), repeat=num_samples))))
    log_q_all = jax.nn.log_softmax(params.phi[x])
    log_w_all = log_joint(params.theta, x) - log_q_all
    values = jax.vmap(fn)(log_w_all[tuples], tuples)
    probabilities = jnp.exp(jnp.sum(log_q_all[tuples], axis=1))
    return jnp.tensordot(probabilities, values, axes=1)


def expected_bound(
    bound: Callable[[Array], Array], params: bounds.Params, x: Int[Array, ""], num_samples: int
) -> Float[Array, ""]:
    """Exact E[bound(log_w)] in nats; `jax.grad` of it is the exact gradient of the bound."""
    return expectation(lambda log_w, z: bound(log_w), params, x, num_samples)
