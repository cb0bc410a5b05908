"""A training run on the host's side: checkpoints, validation, metrics, progress, signals."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import optax
from absl import logging
from jaxtyping import Array, PyTree

from experiments.runtime import cluster, metrics, results, signals
from experiments.runtime import mesh as meshes
from experiments.runtime.checkpoints import Checkpoints
from experiments.runtime.errors import UserError
from experiments.runtime.progress import Steps
from experiments.runtime.trainer import LossFn, State, Stream, init_state, make_chunk, train

KEPT = 0.02  # weight of the first parameters in the average at the end, beyond which it is told


class Run(NamedTuple):
    """What is trained, and how.

    Attributes:
      loss_fn: see `trainer.LossFn`.
      init: () -> parameters before the first step.
      stream: the training batches.
      optimizer: an optax transformation.
      key: PRNG key of the steps.
      num_steps: where training ends.
      validate: parameters -> the validation bound in nats, by which the best checkpoint is
        chosen; None where there is nothing to validate on.
      batch_size: examples in a step, for the rate shown.
      ema_decay: of the average of parameters that is evaluated; 0: off.
      extra: what the loss carries along before the first step.
    """

    loss_fn: LossFn
    init: Callable[[], PyTree]
    stream: Stream
    optimizer: optax.GradientTransformation
    key: Array
    num_steps: int
    validate: Callable[[PyTree], float] | None
    batch_size: int
    ema_decay: float
    extra: PyTree = ()


def evaluated_params(state: State) -> PyTree:
    """The parameters that are validated and evaluated: the average where there is one."""
    return state.ema if jax.tree.leaves(state.ema) else state.params


class Records(Protocol):
    """How often a training is recorded."""

    @property
    def log_every(self) -> int:
        """Steps between two lines of metrics."""
        ...

    @property
    def save_every(self) -> int:
        """Steps between two validations and checkpoints, a multiple of `log_every`."""
        ...


def initial_state(run: Run) -> State:
    """The state before the first step, on every device."""
    return meshes.replicate(_before(run), meshes.device_mesh(meshes.DATA))


def _before(run: Run) -> State:
    return init_state(run.init(), run.optimizer, extra=run.extra, ema=run.ema_decay > 0)


def described(run: Run, length: int) -> tuple[Callable[..., Any], tuple[State, Any, int]]:
    """The program of `length` steps and its arguments, on devices that `mesh.described` names.

    Returns:
      (chunk of `trainer.make_chunk`, what its `lower` takes).
    """
    mesh = meshes.device_mesh(meshes.DATA)
    chunk = make_chunk(
        run.loss_fn, run.stream, run.optimizer, run.key, ema_decay=run.ema_decay, mesh=mesh
    )
    state = meshes.replicate(jax.eval_shape(lambda: _before(run)), mesh)
    return chunk, (state, run.stream.window(0, length), length)


def fit(run: Run, records: Records, workdir: str, checkpoints: Checkpoints) -> State:
    """Trains to the end, from the latest checkpoint where there is one.

    The config of `checkpoints` is written to `workdir` first. Every `log_every` steps metrics are
    written; every `save_every` the parameters are validated and saved.

    Returns:
      The last state.

    Raises:
      UserError: the loss is not finite, a checkpoint cannot be written or read, or the training has
        come further than is asked for.
      SystemExit: a signal stopped it, after saving; 143 for SIGTERM, 130 for Ctrl-C.
    """
    fresh = initial_state(run)
    with cluster.together():
        restored = checkpoints.restore(fresh)
        if restored is not None and int(restored.step) > run.num_steps:
            raise UserError(
                f"the training in {checkpoints.directory} has come to step {restored.step}, beyond "
                f"the number of steps now, {run.num_steps}; raise it, or choose another folder."
            )
        results.save_config(workdir, checkpoints.config)
    state = fresh if restored is None else restored
    first = int(state.step)
    if restored is not None:
        logging.info("Resuming from the checkpoint of step %d in %s.", first, checkpoints.directory)
    if first >= run.num_steps:
        return state
    mesh = meshes.device_mesh(meshes.DATA)
    logging.info(
        "Training on %d device(s) of %d process(es): %s.",
        jax.device_count(),
        jax.process_count(),
        jax.devices()[0].device_kind,
    )
    if run.batch_size % mesh.size:
        logging.info(
            "A batch of %d does not divide over them, so some examples are computed more than "
            "once; choose a multiple of %d to gain from all of them.", run.batch_size, mesh.size,
        )  # fmt: skip
    kept = run.ema_decay**run.num_steps
    if kept > KEPT and not first:
        logging.warning(
            "The average of parameters, which is what is scored, still gives those of the start a "
            "weight of %.1f%% after %d steps; in another folder, train longer or lower "
            "training.ema_decay: %g makes it 0.1%%.",
            100 * kept, run.num_steps, math.floor(1e4 * 0.001 ** (1 / run.num_steps)) / 1e4,
        )  # fmt: skip
    writer = metrics.Writer(workdir, first)
    started = time.perf_counter() - metrics.seconds_spent(workdir)

    with signals.deferred() as stop, Steps(first, run.num_steps, run.batch_size) as progress:

        def on_chunk(state: State, means: dict[str, Any]) -> None:
            step = int(state.step)
            values = {name: float(value) for name, value in means.items()}
            values["examples_per_second"] = progress.rate(step)
            code = stop.agreed()
            saves = code or step % records.save_every == 0 or step == run.num_steps
            start = time.perf_counter()
            values["seconds"] = start - started
            if saves and run.validate is not None:
                values["validation"] = run.validate(evaluated_params(state))
            progress.show(step, values)
            # Before the checkpoint: one that goes on from there finds the line written.
            writer.write(step, values)
            if saves:
                with cluster.together():
                    checkpoints.save(step, state, values.get("validation"))
            progress.pause(time.perf_counter() - start)
            if code:
                leave(code, step)

        def leave(code: int, step: int) -> None:
            with cluster.together():
                checkpoints.wait()
            reason = "SIGTERM" if code == 143 else "Ctrl-C"
            progress.leave(
                f"Stopped by {reason}. Saved step {step} in {checkpoints.directory}; "
                "the same command continues from there."
            )
            raise SystemExit(code)

        state = train(
            run.loss_fn,
            state,
            run.stream,
            run.optimizer,
            run.key,
            num_steps=run.num_steps,
            steps_per_chunk=records.log_every,
            ema_decay=run.ema_decay,
            mesh=mesh,
            on_chunk=on_chunk,
        )
        with cluster.together():
            checkpoints.wait()
    code = stop.agreed()
    if code:  # it came while the last step was validated and saved
        leave(code, run.num_steps)
    writer.close()
    return state
