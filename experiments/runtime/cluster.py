"""Runs on several hosts: each starts the same command with --distributed."""

import contextlib
from collections.abc import Iterator

from absl import flags

from experiments.runtime.errors import UserError

DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the processes of all hosts; every host runs the same command."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0; Cloud TPU, GKE and Slurm need none."
)
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes there are, beside --coordinator_address."
)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which one this is, from 0, beside --coordinator_address."
)
CHECKPOINT_DIR = flags.DEFINE_string(
    "checkpoint_dir", None, "Folder of checkpoints, also gs://...; default WORKDIR/checkpoints."
)


def refuse(program: str) -> None:
    """For a program that runs on one host.

    Raises:
      UserError: --distributed or its kin is given.
    """
    given = [DISTRIBUTED.value or None, COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value]
    if any(value is not None for value in given):
        raise UserError(f"{program} runs on one host; leave --distributed and its kin out.")


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What one process is refused within it, all are: none is left waiting for another."""
    refused = None
    try:
        yield
    except UserError as error:
        refused = error
    import jax

    if jax.process_count() > 1:
        import numpy as np
        from jax.experimental import multihost_utils

        others = multihost_utils.process_allgather(np.asarray(refused is not None))
        if refused is None and np.any(others):
            refused = UserError("another process of this run was refused; its output says why.")
    if refused is not None:
        raise refused from None


def join() -> None:
    """Joins the other processes if --distributed says so; before any other use of JAX.

    Raises:
      UserError: the flags do not fit together, or no cluster was found.
    """
    given = [COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value]
    if not DISTRIBUTED.value:
        if any(value is not None for value in given):
            raise UserError("--coordinator_address and its kin need --distributed.")
        return
    if any(value is None for value in given) and any(value is not None for value in given):
        raise UserError(
            "--coordinator_address, --num_processes and --process_id go together: give all three, "
            "or none on Cloud TPU, GKE or Slurm."
        )
    import jax

    from experiments.runtime import signals

    try:
        jax.distributed.initialize(*given)
    except (ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise UserError(
            f"--distributed: no cluster could be joined ({first.rstrip('.')}); on machines JAX "
            "does not know give --coordinator_address, --num_processes and --process_id."
        ) from None
    signals.hold()
