"""Parameters of a finished training, out of its checkpoints."""

from typing import Any

from jaxtyping import PyTree

from experiments.runtime import fit
from experiments.runtime import mesh as meshes
from experiments.runtime.checkpoints import Checkpoints
from experiments.runtime.errors import UserError


def restore(
    run: fit.Run, named: dict[str, Any], directory: str, *, checkpoint: str
) -> tuple[PyTree, dict[str, Any]]:
    """The parameters that are evaluated, and what tells them from others.

    Args:
      run: of the training, or of several that are trained together.
      named: what tells the training from others, in its checkpoints.
      directory: of its checkpoints.
      checkpoint: "best" on validation, "latest", or a step.

    Returns:
      (parameters, {"step", "weights": "average" or "last", "checksum": of the checkpoint}).

    Raises:
      UserError: there is no such checkpoint, or it is of another training.
    """
    with Checkpoints(directory, named, read_only=True) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise UserError(f"no checkpoint in {directory}; train first.")
        special = {"best": checkpoints.best(), "latest": steps[-1]}
        step = special.get(checkpoint, int(checkpoint) if checkpoint.isdecimal() else None)
        if step not in steps:
            raise UserError(
                f"--config.checkpoint must be best, latest or one of the steps "
                f"{', '.join(map(str, steps))}, got {checkpoint!r}."
            )
        state = checkpoints.restore(fit.initial_state(run), step)
        checksum = checkpoints.checksum(step)
    weights = "average" if run.ema_decay > 0 else "last"
    source = {"step": step, "weights": weights, "checksum": checksum}
    return meshes.local(fit.evaluated_params(state)), source
