"""Several seeds of one model trained as a single big one: what an accelerator has room for.

The loss is the sum over members, so that each member's gradient is its own; the optimiser runs for
each of them. Every member sees the keys, batches and start that its seed would give it alone; the
best step on validation is one for all, that of the best mean.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from experiments.runtime import cluster, fit, metrics
from experiments.runtime import mesh as meshes
from experiments.runtime.checkpoints import Checkpoints
from experiments.runtime.fit import Run
from experiments.runtime.trainer import Stream
from experiments.studies.settings import Records


def ensemble(runs: Sequence[Run]) -> Run:
    """One `Run`, whose parameters have a leading axis of members, of runs alike but for seeds."""
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
        optimizer=optax.GradientTransformation(
            jax.vmap(first.optimizer.init), jax.vmap(first.optimizer.update)
        ),
        validate=validate if first.validate else None,
        batch_size=first.batch_size * len(runs),
    )


def train_members(
    runs: Sequence[Run],
    records: Records,
    folder: str,
    named: dict[str, Any],
    *,
    best: bool = False,
) -> tuple[list[PyTree], float]:
    """Trains one run, or several as one, with its records in a folder.

    Args:
      runs: alike but for their seeds.
      records: how often they are validated and saved.
      folder: for metrics and the model's config.
      named: what tells this training from others, in its config.json and its checkpoints.
      best: whether the best step on validation is wanted, not the last.

    Returns:
      (the parameters of each run, seconds of training for each of them).
    """
    whole = runs[0] if len(runs) == 1 else ensemble(runs)
    directory = cluster.checkpoints_of(folder)
    with Checkpoints(directory, named, keep=records.keep_checkpoints) as checkpoints:
        state = fit.fit(whole, records, folder, checkpoints)
        step = checkpoints.best()
        if best and step not in (None, int(state.step)):
            state = checkpoints.restore(state, step)
    params = meshes.local(fit.evaluated_params(state))
    own = [params] if len(runs) == 1 else [member(params, i) for i in range(len(runs))]
    return own, metrics.seconds_spent(folder) / len(runs)


def member(params: PyTree, index: int) -> PyTree:
    """The parameters of one member."""
    return jax.tree.map(lambda leaf: leaf[index], params)
