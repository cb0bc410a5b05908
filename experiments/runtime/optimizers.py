"""Optimisers by name, with the two forms of Burda et al.'s protocol.

The protocol of Burda et al. 2015 (arXiv 1509.00519, section 5): batches of 20, Adam, and eight
stages i = 0 .. 7 of 3^i epochs at learning rate 1e-4 * 10^(1 - i/7), 3,280 epochs in all. The
released code rounds 10^(1 - i/7) to one decimal, and so do both forms here. A training of fewer
epochs goes through all eight stages, each shortened in proportion.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

STAGES = 8
BURDA_EPOCHS = sum(3**i for i in range(STAGES))  # 3,280


def make_optimizer(
    name: str,
    *,
    learning_rate: float,
    warmup_steps: int,
    clip_norm: float,
    num_steps: int,
    batch_size: int,
) -> optax.GradientTransformation:
    """An optimiser by name, clipped to `clip_norm` where that is above 0.

    Args:
      name: one of
        adam: Adam at the constant `learning_rate`;
        adam_warmup: Adam, whose rate rises from 0 in `warmup_steps` and is constant after;
        adam_cosine: the same, with a half cosine down to 0 at `num_steps`;
        sgd: plain gradient descent at the constant rate;
        paper: Burda's stages with Adam(0.9, 0.999, eps 1e-4) on the mean gradient of the batch;
        released_code: the stages with the Adam of the released code, see `released_adam`, on the
          summed gradient; `clip_norm` is of the mean gradient here too.
      learning_rate: of the first four.
      warmup_steps: below `num_steps`.
      clip_norm: largest norm of the mean gradient; 0: off.
      num_steps: where training ends.
      batch_size: examples whose gradients are averaged.
    """
    rise = _warmup(learning_rate, warmup_steps)
    make: dict[str, Callable[[], optax.GradientTransformation]] = {
        "adam": lambda: optax.adam(learning_rate),
        "adam_warmup": lambda: optax.adam(rise),
        "adam_cosine": lambda: optax.adam(
            optax.join_schedules(
                [rise, optax.cosine_decay_schedule(learning_rate, num_steps - warmup_steps)],
                [warmup_steps],
            )
        ),
        "sgd": lambda: optax.sgd(learning_rate),
        "paper": lambda: optax.adam(burda_schedule(num_steps), b1=0.9, b2=0.999, eps=1e-4),
        "released_code": lambda: optax.chain(
            optax.scale(batch_size), released_adam(burda_schedule(num_steps))
        ),
    }
    optimizer = make[name]()
    if clip_norm > 0:
        return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
    return optimizer


def _warmup(learning_rate: float, warmup_steps: int) -> optax.Schedule:
    if warmup_steps <= 1:
        return optax.constant_schedule(learning_rate)
    # The first step has the rate of step 1, not 0.
    return optax.linear_schedule(learning_rate / warmup_steps, learning_rate, warmup_steps - 1)


def burda_schedule(num_steps: int) -> optax.Schedule:
    """Step -> rate: stage i has 3^i / 3,280 of the steps, at 1e-4 * round(10^(1 - i/7), 1)."""
    rates = [1e-4 * round(10 ** (1 - i / 7), 1) for i in range(STAGES)]
    ends = [num_steps * (3 ** (i + 1) - 1) // 2 // BURDA_EPOCHS for i in range(STAGES)]
    return optax.join_schedules([optax.constant_schedule(r) for r in rates], ends[:-1])


class ReleasedAdamState(NamedTuple):
    """Step count and the two moments."""

    count: Array
    mu: PyTree
    nu: PyTree


def released_adam(schedule: optax.Schedule) -> optax.GradientTransformation:
    r"""Adam as in the code released with Burda et al. 2015, on the SUMMED gradient of a batch.

    .. math:: \Delta_t = -\alpha_t \sqrt{1-\beta_2^t} / (1-\beta_1^t) \,
       m_{t-1} / (\sqrt{v_{t-1}} + \epsilon)

    with beta1 = 0.99, beta2 = 0.999, eps = 1e-4. It differs from Adam in that second moments
    start at 1, a step uses the moments from before its own gradient, and eps is added without
    correction for bias.
    """
    b1, b2, eps = 0.99, 0.999, 1e-4

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return ReleasedAdamState(jnp.asarray(0), zeros, jax.tree.map(jnp.ones_like, params))

    def update(updates, state, params=None):
        del params
        t = state.count + 1
        rate = -jnp.asarray(schedule(state.count)) * jnp.sqrt(1 - b2**t) / (1 - b1**t)
        steps = jax.tree.map(lambda m, v: rate * m / (jnp.sqrt(v) + eps), state.mu, state.nu)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, updates)
        return steps, ReleasedAdamState(t, mu, nu)

    return optax.GradientTransformation(init, update)
