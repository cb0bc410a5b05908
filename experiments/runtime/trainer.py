"""One training loop for every objective: steps run in chunks on the device.

Nothing here knows of files: `fit` adds checkpoints, metrics, validation and signals.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

import bounds
from experiments.runtime import mesh as meshes
from experiments.runtime.errors import UserError

LossFn = Callable[[PyTree, PyTree, dict[str, Array], Array, Array], tuple[Array, tuple[Any, dict]]]
"""(params, extra, batch, key, step) -> (loss, (extra, metrics))."""


class State(NamedTuple):
    """What training carries from step to step, and all that a checkpoint holds.

    Attributes:
      step: how many steps were taken.
      params: parameters.
      extra: what the loss carries along.
      optimizer: the state of the optimiser.
      ema: exponential moving average of `params`, or () where it is off.
    """

    step: Array
    params: PyTree
    extra: PyTree
    optimizer: optax.OptState
    ema: PyTree = ()


class Stream(NamedTuple):
    """Where batches come from: functions of (seed, step, example index) alone.

    Attributes:
      window: (first step, number of steps) -> data of these steps, arrays on the devices of
        shapes that depend on their number alone; called on the host.
      batch: (data, key, step) -> batch {"x": [B, ...], "index": example index [B]}.
      steps_per_epoch: how many steps show all examples once.
    """

    window: Callable[[int, int], PyTree]
    batch: Callable[[PyTree, Array, Array], dict[str, Array]]
    steps_per_epoch: int


def from_objective(
    objective: bounds.Objective, mesh: Mesh | None = None, *, at_once: int = 0
) -> LossFn:
    """Lifts an Objective to a loss: minus its mean over the batch.

    A batch is {"x": data [B, ...], "index": global example index [B]}; each datum's key comes
    from its index, so that the draws do not depend on how the batch is split.

    Args:
      objective: of one datum.
      mesh: the devices that share the batch, see `mesh.mean_over`; None for all.
      at_once: data whose gradients are taken together, see `mesh.mean_over`; 0 for all.
    """

    def loss_fn(params, extra, batch, key, step):
        def of_one(params, datum):
            x, index = datum
            return objective(params, jax.random.fold_in(key, index), x)

        devices = mesh or meshes.device_mesh(meshes.DATA)
        data = batch["x"], batch["index"]
        value = meshes.mean_over(of_one, params, data, devices, at_once)
        return -value, (extra, {"bound": value})

    return loss_fn


def init_state(
    params: PyTree,
    optimizer: optax.GradientTransformation,
    *,
    extra: PyTree = (),
    ema: bool = False,
) -> State:
    """The state before the first step; the average starts at the parameters."""
    return State(jnp.asarray(0), params, extra, optimizer.init(params), params if ema else ())


def train(
    loss_fn: LossFn,
    state: State,
    stream: Stream,
    optimizer: optax.GradientTransformation,
    key: Array,
    *,
    num_steps: int,
    steps_per_chunk: int = 250,
    ema_decay: float = 0.0,
    mesh: Mesh | None = None,
    on_chunk: Callable[[State, dict[str, float]], None] = lambda state, metrics: None,
) -> State:
    """Trains from `state` up to step `num_steps`.

    A run that starts again at the end of a chunk repeats the numbers bit for bit; other chunks
    are other programs, whose rounding may differ. On several devices the batch is split over
    them and parameters are kept on each.

    Args:
      loss_fn: see `LossFn`.
      state: where to start, from `init_state` or a checkpoint.
      stream: the batches.
      optimizer: an optax transformation.
      key: PRNG key; step t uses fold_in(key, t).
      num_steps: where to end.
      steps_per_chunk: steps between two calls of `on_chunk`.
      ema_decay: of the average of parameters, if the state has one.
      mesh: the devices; None for all.
      on_chunk: called with the state and the mean metrics ("loss" among them) since the last
        call, after every `steps_per_chunk` steps and at the end.

    Returns:
      The last `State`.

    Raises:
      UserError: a loss or an update is not finite; the message names the step. `on_chunk` was
        called with finite states only.
    """
    mesh = mesh or meshes.device_mesh(meshes.DATA)
    chunk = make_chunk(loss_fn, stream, optimizer, key, ema_decay=ema_decay, mesh=mesh)
    state = meshes.replicate(state, mesh)
    step = int(state.step)
    while step < num_steps:
        length = min(steps_per_chunk - step % steps_per_chunk, num_steps - step)
        data, before = stream.window(step, length), state
        state, total, finite = chunk(before, data, length)
        if not finite:
            raise UserError(_not_finite(chunk, before, data, length))
        step += length
        on_chunk(state, {k: meshes.to_host(v) / length for k, v in total.items()})
    return state


def make_chunk(
    loss_fn: LossFn,
    stream: Stream,
    optimizer: optax.GradientTransformation,
    key: Array,
    *,
    ema_decay: float,
    mesh: Mesh,
) -> Callable[..., tuple[State, dict[str, Array], Array]]:
    """The steps between two looks at them, as one compiled program; arguments as of `train`.

    Returns:
      (state, data of `stream.window`, length) -> (state, sums of the metrics, whether all losses
      and the last updates are finite), under jit with a static length.
    """
    batch_key, loss_key = jax.random.split(key)
    step_fn = functools.partial(
        _step, loss_fn, stream, optimizer, batch_key, loss_key, ema_decay, mesh
    )

    # The length is static: an accelerator that knew it only while it runs would have to ask the
    # host after every step.
    @functools.partial(jax.jit, static_argnames="length")
    def chunk(state: State, data: PyTree, length: int):
        shapes = jax.eval_shape(lambda s, d: step_fn(s, d)[1], state, data)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def body(carry, _):
            state, total, finite = carry
            state, metrics = step_fn(state, data)
            finite &= jnp.all(jnp.isfinite(metrics["loss"]))
            return (state, jax.tree.map(jnp.add, total, metrics), finite), None

        carry = (state, zeros, jnp.asarray(True))
        (state, total, finite), _ = jax.lax.scan(body, carry, length=length)
        return state, total, finite & _all_finite((state.params, state.optimizer, state.ema))

    return chunk


def _step(loss_fn, stream, optimizer, batch_key, loss_key, ema_decay, mesh, state: State, data):
    batch = stream.batch(data, jax.random.fold_in(batch_key, state.step), state.step)
    batch = meshes.split(batch, mesh)
    step_key = jax.random.fold_in(loss_key, state.step)
    (loss, (extra, metrics)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        state.params, state.extra, batch, step_key, state.step
    )
    updates, moments = optimizer.update(grads, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if jax.tree.leaves(ema):
        ema = optax.incremental_update(params, ema, 1 - ema_decay)
    return State(state.step + 1, params, extra, moments, ema), {"loss": loss, **metrics}


def _all_finite(tree: PyTree) -> Array:
    leaves = [v for v in jax.tree.leaves(tree) if jnp.issubdtype(v.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _not_finite(chunk: Callable, state: State, data: PyTree, length: int) -> str:
    """Takes the steps of a chunk again, one by one, to tell at which of them it went wrong."""
    what = "update"
    for _ in range(length):
        state, total, finite = chunk(state, data, 1)
        if not finite:
            what = "update" if jnp.all(jnp.isfinite(total["loss"])) else "loss"
            break
    return (
        f"the {what} is not finite at step {int(state.step) - 1}; earlier checkpoints are kept. "
        "Lower the learning rate or set a clip_norm, and start in another --workdir."
    )
