"""Bounds over k from one set of log-weights: IWAE-k and VR-IWAE-k curves with their errors."""

import math

import jax.numpy as jnp
from jaxtyping import Array

import bounds


def bound_curve(
    log_w: Array, counts: tuple[int, ...], *, alpha: float = 0.0
) -> tuple[Array, Array]:
    """VR-IWAE-k for each k from the same log-weights [S], and its Monte Carlo standard error.

    The S / k disjoint groups are independent, so their spread is the error; of a single group it
    is that of the delta method, sd(v) / (sqrt(S) (1 - alpha) mean(v)) with v = w^(1 - alpha).

    Args:
      log_w: log-weights in nats.
      counts: k, each a divisor of S.
      alpha: below 1; at 0 IWAE-k.
    """
    values, errors = [], []
    for k in counts:
        groups = bounds.renyi(log_w.reshape(-1, k), alpha)
        values.append(jnp.mean(groups))
        if len(groups) > 1:
            errors.append(jnp.std(groups, ddof=1) / math.sqrt(len(groups)))
        else:
            powers = jnp.exp((1 - alpha) * (log_w - jnp.max(log_w)))
            scale = math.sqrt(k) * (1 - alpha) * jnp.mean(powers)
            errors.append(jnp.std(powers, ddof=1) / scale)
    return jnp.stack(values), jnp.stack(errors)
