"""One training loop for every objective: steps run in chunks on the device."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

import bounds

LossFn = Callable[[PyTree, PyTree, dict[str, Array], Array, Array], tuple[Array, tuple[Any, dict]]]
"""(params, extra, batch, key, step) -> (loss, (extra, metrics))."""


class State(NamedTuple):
    """What training carries from step to step."""

    step: Array
    params: PyTree
    extra: PyTree
    optimizer: optax.OptState


def from_objective(objective: bounds.Objective) -> LossFn:
    """Lifts an Objective to a loss: minus its mean over the batch.

    A batch is {"x": data [B, ...], "index": global example index [B]}; each datum's key comes
    from its index, so that the draws do not depend on how the batch is split.
    """

    def loss_fn(params, extra, batch, key, step):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
        value = jnp.mean(jax.vmap(objective, (None, 0, 0))(params, keys, batch["x"]))
        return -value, (extra, {"bound": value})

    return loss_fn


def train(
    loss_fn: LossFn,
    params: PyTree,
    batch_fn: Callable[[Array, Array], dict[str, Array]],
    optimizer: optax.GradientTransformation,
    key: Array,
    *,
    num_steps: int,
    extra: PyTree = (),
    steps_per_chunk: int = 250,
    on_chunk: Callable[[int, dict[str, Array]], None] = lambda step, metrics: None,
) -> State:
    """Runs `num_steps` steps.

    Args:
      loss_fn: see `LossFn`.
      params: where to start.
      batch_fn: (key, step) -> batch, a function of those alone.
      optimizer: an optax transformation.
      key: PRNG key; step t uses fold_in(key, t).
      num_steps: how many steps.
      extra: what `loss_fn` carries along.
      steps_per_chunk: steps in one call to the device.
      on_chunk: called after each chunk with the step reached and the mean metrics.

    Returns:
      The last `State`.
    """
    batch_key, loss_key = jax.random.split(key)

    def one_step(state: State, _):
        batch = batch_fn(jax.random.fold_in(batch_key, state.step), state.step)
        step_key = jax.random.fold_in(loss_key, state.step)
        grads, (extra, metrics) = jax.grad(loss_fn, has_aux=True)(
            state.params, state.extra, batch, step_key, state.step
        )
        updates, moments = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(state.step + 1, params, extra, moments), metrics

    @jax.jit
    def chunk(state: State, length: Array):
        # One program for every length: the last, shorter chunk does not compile again.
        def body(i, carry):
            state, total = carry
            state, metrics = one_step(state, None)
            return state, jax.tree.map(jnp.add, total, metrics)

        shapes = jax.eval_shape(lambda s: one_step(s, None)[1], state)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        state, total = jax.lax.fori_loop(0, length, body, (state, zeros))
        return state, jax.tree.map(lambda t: t / length, total)

    state = State(jnp.asarray(0), params, extra, optimizer.init(params))
    for start in range(0, num_steps, steps_per_chunk):
        length = min(steps_per_chunk, num_steps - start)
        state, metrics = chunk(state, jnp.asarray(length))
        on_chunk(start + length, metrics)
    return state
