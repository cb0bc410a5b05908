"""What all families share of a training: from sections and a seed to a `Run`."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, PyTree

from experiments.runtime import settings
from experiments.runtime.fit import Run
from experiments.runtime.optimizers import BURDA_EPOCHS, make_optimizer
from experiments.runtime.settings import Section
from experiments.runtime.trainer import LossFn, Stream
from experiments.studies import held_out
from experiments.studies.settings import Optimizer, Training


def make_run(
    seed_keys: tuple[Array, Array, Array],
    optimizer: Optimizer,
    training: Training,
    *,
    loss_fn: LossFn,
    init: Callable[[Array], PyTree],
    stream: Callable[[Array], Stream],
    validate: Callable[[PyTree], float] | None,
    extra: PyTree = (),
) -> Run:
    """What `fit` trains.

    Args:
      seed_keys: of the start, the order of the data and the steps, see `keys.of_training`.
      optimizer: how steps are taken.
      training: how long.
      loss_fn: see `trainer.LossFn`.
      init: key -> parameters before the first step.
      stream: key -> batches.
      validate: see `Run`.
      extra: see `Run`.
    """
    start, order, key = seed_keys
    batches = stream(order)
    # Settings let 0 pass for Burda's protocol alone.
    num_steps = training.num_steps or BURDA_EPOCHS * batches.steps_per_epoch
    return Run(
        loss_fn=loss_fn,
        init=lambda: init(start),
        stream=batches,
        optimizer=make_optimizer(
            optimizer.name,
            learning_rate=optimizer.learning_rate,
            warmup_steps=optimizer.warmup_steps,
            clip_norm=optimizer.clip_norm,
            num_steps=num_steps,
            batch_size=training.batch_size,
        ),
        key=key,
        num_steps=num_steps,
        validate=validate,
        batch_size=training.batch_size,
        ema_decay=training.ema_decay,
        extra=extra,
    )


def validation(
    value: Callable[[Any, Array, Any], Array], data: PyTree, key: Array
) -> Callable[[Any], float] | None:
    """parameters -> the mean over data of value(parameters, key, datum); None without data.

    The noise is the same at every validation, and no key of training.
    """
    count = len(jax.tree.leaves(data)[0])
    return held_out.mean_value(value, data, jax.random.split(key, count)) if count else None


def identity(
    trained: Section, kind: type[Section], seeds: tuple[int, ...], **more: Any
) -> dict[str, Any]:
    """What tells one training from another, for its config.json and its checkpoints.

    Args:
      trained: its settings.
      kind: which of their sections identify it.
      seeds: one, or several that are trained together.
      **more: further fields that tell it from others.
    """
    return {
        **settings.dump(trained, kind),
        "seed": seeds[0] if len(seeds) == 1 else list(seeds),
        **more,
    }
