"""Several seeds of one model trained as a single big one: what an accelerator has room for.

The loss is the sum over members, so that each member's gradient is its own; the optimiser works
entry by entry. Every member sees the keys, batches and start that its seed would give it alone.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from experiments.runtime.errors import UserError
from experiments.runtime.fit import Run
from experiments.runtime.trainer import Stream


def ensemble(runs: Sequence[Run], config: Any) -> Run:
    """One `Run` whose parameters have a leading axis of members.

    Args:
      runs: of `build.make_run`, alike but for their seeds.
      config: their config; its `clip_norm` must be 0, because the norm would be that of all.

    Raises:
      UserError: `clip_norm` is not 0.
    """
    if config.clip_norm > 0:
        raise UserError("config.clip_norm must be 0 where seeds are trained together.")
    first = runs[0]
    # What `train` does with the key of a single run.
    pairs = [jax.random.split(run.key) for run in runs]
    batch_keys, loss_keys = (jnp.stack([pair[i] for pair in pairs]) for i in (0, 1))
    fold = jax.vmap(jax.random.fold_in, (0, None))

    def loss_fn(params, extra, batch, key, step):
        del key
        losses, (_, metrics) = jax.vmap(
            lambda p, b, k: first.loss_fn(p, extra, b, k, step), (0, 0, 0)
        )(params, batch, fold(loss_keys, step))
        metrics = {**jax.tree.map(jnp.mean, metrics), "loss": jnp.mean(losses)}
        return jnp.sum(losses), (extra, metrics)

    def window(first_step: int, length: int):
        data = [run.stream.window(first_step, length) for run in runs]
        images, _, start = data[0]
        return images, jnp.stack([index for _, index, _ in data]), start

    def batch(data, key, step):
        del key
        return jax.vmap(first.stream.batch, ((None, 0, None), 0, None))(
            data, fold(batch_keys, step), step
        )

    def validate(params: PyTree) -> float:
        values = [run.validate(member(params, i)) for i, run in enumerate(runs) if run.validate]
        return sum(values) / len(values)

    return first._replace(
        loss_fn=loss_fn,
        init=lambda: jax.tree.map(lambda *leaves: jnp.stack(leaves), *(r.init() for r in runs)),
        stream=Stream(window, batch, first.stream.steps_per_epoch),
        key=jax.random.clone(first.key),  # not used: each member has its own
        validate=validate if first.validate else None,
        batch_size=first.batch_size * len(runs),
    )


def member(params: PyTree, index: int) -> PyTree:
    """The parameters of one member."""
    return jax.tree.map(lambda leaf: leaf[index], params)
