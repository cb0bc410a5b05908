r"""Diffusion of one categorical variable, small enough to sum over every trajectory.

    q(x_t | x_{t-1}) = Q_t[x_{t-1}, x_t],   p(x_{t-1} | x_t) = softmax(steps_t[x_t]),
    p(x_T) = softmax(prior).

With S states and T steps all S^T trajectories x_1 .. x_T can be listed, and log p(x_0) is a product
of matrices: values and variances of every form of the bound are exact.

Source: Austin et al. 2021 (arXiv 2107.03006) for diffusion of categories.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import bounds


class Reverse(NamedTuple):
    """theta: logits of p(x_T) [S], and of p(x_{t-1} | x_t) [T, S, S] with row x_t of step t."""

    prior: Float[Array, "S"]
    steps: Float[Array, "T S S"]


def uniform_transitions(num_states: int, betas: Float[Array, "T"]) -> Float[Array, "T S S"]:
    """Q_t, which with probability beta_t replaces the state by one drawn uniformly from all."""
    keep = (1 - betas)[:, None, None] * jnp.eye(num_states)[None]
    return keep + betas[:, None, None] / num_states


def init(key: Array, num_states: int, num_steps: int) -> Reverse:
    """Standard normal logits."""
    prior_key, steps_key = jax.random.split(key)
    return Reverse(
        jax.random.normal(prior_key, (num_states,)),
        jax.random.normal(steps_key, (num_steps, num_states, num_states)),
    )


def exact_reverse(transitions: Float[Array, "T S S"], data: Float[Array, "S"]) -> Reverse:
    """The chain that runs q backwards when x_0 has the probabilities `data`."""
    marginal, steps = data, []
    for transition in transitions:
        joint = marginal[:, None] * transition  # x_{t-1}, x_t
        steps.append(jnp.log(joint).T)
        marginal = jnp.sum(joint, axis=0)
    return Reverse(jnp.log(marginal), jnp.stack(steps))


def make_model(transitions: Float[Array, "T S S"]) -> bounds.LatentModel:
    """The model of x_0 whose latent is the trajectory x_1 .. x_T [T], integers."""
    log_transitions = jnp.log(transitions)

    def log_q(phi, x, z):
        del phi
        before = jnp.concatenate([x[None], z[:-1]])
        return jnp.sum(log_transitions[jnp.arange(len(z)), before, z])

    def propose(phi, key, x):
        def forward(before, step):
            logits, noise = step
            after = jnp.argmax(logits[before] + noise)
            return after, after

        noise = jax.random.gumbel(key, log_transitions.shape[:2])
        _, z = jax.lax.scan(forward, x, (log_transitions, noise))
        return z, log_q(phi, x, z)

    def log_p(theta, x, z):
        after = jnp.concatenate([x[None], z[:-1]])
        steps = jax.nn.log_softmax(theta.steps)[jnp.arange(len(z)), z, after]
        return jax.nn.log_softmax(theta.prior)[z[-1]] + jnp.sum(steps)

    return bounds.LatentModel(propose, log_q, log_p)


def closed_form_value(
    transitions: Float[Array, "T S S"], theta: Reverse, x: Int[Array, ""], z: Int[Array, "T"]
) -> Float[Array, ""]:
    """The bound with every KL in closed form, at the states x_t of one trajectory."""
    num_states = transitions.shape[-1]
    reverse = jax.nn.log_softmax(theta.steps)
    so_far = jnp.eye(num_states)[x]  # q(x_{t-1} | x_0)
    value = jnp.zeros(())
    for t, transition in enumerate(transitions):
        if t == 0:
            value += reverse[0, z[0], x]
        else:
            posterior = so_far * transition[:, z[t]]
            posterior = posterior / jnp.sum(posterior)
            value -= _kl(posterior, reverse[t, z[t]])
        so_far = so_far @ transition
    return value - _kl(so_far, jax.nn.log_softmax(theta.prior))


def log_prob(theta: Reverse) -> Float[Array, "S"]:
    """Exact log p(x_0) of every state."""
    marginal = jax.nn.softmax(theta.prior)
    for step in jax.nn.softmax(theta.steps)[::-1]:
        marginal = marginal @ step
    return jnp.log(marginal)


def trajectories(num_states: int, num_steps: int) -> Int[Array, "N T"]:
    """All trajectories x_1 .. x_T, one a row."""
    return jnp.asarray(np.array(list(itertools.product(range(num_states), repeat=num_steps))))


def _kl(p: Array, log_q: Array) -> Array:
    safe = jnp.where(p > 0, p, 1.0)
    return jnp.sum(p * (jnp.log(safe) - log_q))
