"""Dequantized models of one or two pixels, integrated: exact P(x), ELBO and KL.

The integrals are over v = logit(u) by the trapezoidal rule, which converges faster than any power
of the step for functions that are smooth and vanish at both ends, as densities of v do. The
narrower the peaks, the more nodes they need.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import bounds


class Integrals(NamedTuple):
    """Integrals for each x, arrays [N]; all but `q_mass` are in nats.

    Attributes:
      log_prob: log P(x).
      q_mass: the integral of q(v | x); 1, or q is no density or the nodes are too few.
      elbo: E_q[log p(x, v) - log q(v | x)].
      kl: KL(q(v | x) || p(v | x)), from the two densities and not from the ELBO.
    """

    log_prob: Float[Array, "N"]
    q_mass: Float[Array, "N"]
    elbo: Float[Array, "N"]
    kl: Float[Array, "N"]


def every_x(levels: int, num_dims: int) -> Float[Array, "N D"]:
    """All integers 0 .. levels - 1 in each of `num_dims` pixels."""
    return jnp.asarray(list(itertools.product(range(levels), repeat=num_dims)), float)


def integrate(
    model: bounds.LatentModel,
    params: bounds.Params,
    x: Float[Array, "N D"],
    *,
    num_nodes: int = 401,
    limit: float = 25.0,
) -> Integrals:
    """Integrals of `bounds.dequantization.dequantized` models over each cell, differentiable.

    Args:
      model: of one datum [D], D = 1 or 2, with `log_q`.
      params: its parameters.
      x: the data.
      num_nodes: in each dimension.
      limit: nodes lie between -limit and limit.

    Returns:
      `Integrals`.

    Raises:
      ValueError: D is not 1 or 2, or q cannot be evaluated.
    """
    num_dims = x.shape[-1]
    if num_dims not in (1, 2) or model.log_q is None:
        raise ValueError(
            f"quadrature is for 1 or 2 pixels and a q with log_q, got {num_dims} pixels"
            f"{'' if model.log_q else ' and no log_q'}."
        )
    log_q_of = model.log_q
    axis = np.linspace(-limit, limit, num_nodes)
    nodes = jnp.asarray(np.stack(np.meshgrid(*[axis] * num_dims, indexing="ij"), -1), float)
    nodes = nodes.reshape(-1, num_dims)
    log_step = num_dims * math.log(axis[1] - axis[0])

    def one(x):
        log_p = jax.vmap(lambda v: model.log_p(params.theta, x, v))(nodes)
        log_q = jax.vmap(lambda v: log_q_of(params.phi, x, v))(nodes)
        log_prob = jax.nn.logsumexp(log_p) + log_step
        q = jnp.exp(log_q + log_step)
        elbo = jnp.sum(q * (log_p - log_q))
        kl = jnp.sum(q * (log_q - (log_p - log_prob)))
        return Integrals(log_prob, jnp.sum(q), elbo, kl)

    return jax.lax.map(one, x)
