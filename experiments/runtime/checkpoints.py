"""Checkpoints: the one module that knows Orbax (its v1 interface).

A save goes on in the background and becomes visible in one piece: what a killed process has
half-written is never loaded, and is removed by the next run. Kept are the latest few and the best
on validation. Arrays are restored onto the devices of the process that asks, however many wrote
them.
"""

import contextlib
import gc
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from experiments.runtime.errors import UserError, differing_fields

_STATE = "state"
_METRIC = "validation"


class Checkpoints:
    """Checkpoints of one run in one folder (a path, or gs://... with the extra `gcs`).

    Use it as a context manager: leaving waits for the save under way.
    """

    def __init__(
        self, directory: str, config: dict[str, Any], *, keep: int = 2, read_only: bool = False
    ):
        """Opens the folder, makes it unless `read_only`; keeps the latest `keep` and the best.

        Raises:
          UserError: the folder cannot be made, or is not there.
        """
        self.directory = directory if "://" in directory else os.path.abspath(directory)
        # As it comes back from a file: tuples are lists there.
        self._config = json.loads(json.dumps(config))
        self._pending: Any = None
        if read_only and "://" not in directory and not os.path.isdir(self.directory):
            raise UserError(f"there is no folder {self.directory}; train first.")
        training = ocp.training
        policies = training.preservation_policies
        kept = [
            policies.LatestN(keep),
            policies.BestN(
                get_metric_fn=_validation_of,
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
        try:
            self._orbax = training.Checkpointer(
                self.directory,
                save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.AnyPreservationPolicy(kept),
                cleanup_tmp_directories=not read_only,
            )
        except (OSError, ValueError, ImportError) as error:
            raise UserError(
                f"cannot use {self.directory} for checkpoints: {_first(error)}."
            ) from None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is None:
            self.wait()
        with contextlib.suppress(Exception):  # what matters was said by wait()
            self._orbax.close()

    def save(self, step: int, state: PyTree, validation: float | None) -> None:
        """Starts saving; waits only for the save before it.

        Raises:
          UserError: the save before this one failed (a full disk, say).
        """
        self.wait()
        with self._explained():
            self._pending = self._orbax.save_checkpointables_async(
                step,
                {_STATE: state},
                force=True,
                metrics=None if validation is None else {_METRIC: float(validation)},
                custom_metadata={"config": self._config},
            )

    def wait(self) -> None:
        """Waits for the save under way.

        Raises:
          UserError: it failed.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._explained():
                pending.result()

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, ascending."""
        return sorted(c.step for c in self._orbax.checkpoints if self._is_whole(c.step))

    def best(self) -> int | None:
        """The step that is best on validation; the latest where none was validated."""
        scores = {step: self.validation(step) for step in self.steps()}
        scored = [(value, step) for step, value in scores.items() if value is not None]
        return max(scored)[1] if scored else max(scores, default=None)

    def validation(self, step: int) -> float | None:
        """The validation bound saved with a step."""
        metrics: Any = next((c.metrics for c in self._orbax.checkpoints if c.step == step), None)
        return metrics[_METRIC] if metrics else None

    def restore(self, like: PyTree, step: int | None = None) -> Any:
        """The state at `step`, or the latest that can be read; None where there is none.

        Args:
          like: arrays of the shapes, types and shardings wanted.
          step: None for the latest.

        Raises:
          UserError: the checkpoints are of another config, or none of them can be read.
        """
        steps = self.steps() if step is None else [step]
        errors = []
        for candidate in reversed(steps):
            self._check_config(candidate)
            try:
                with _silence():
                    return self._orbax.load_checkpointables(candidate, {_STATE: _abstract(like)})[
                        _STATE
                    ]
            except Exception as error:
                # Orbax wraps what went wrong in errors of several kinds.
                errors.append(f"step {candidate}: {_first(error.__cause__ or error)}")
                logging.getLogger("absl").warning("Checkpoint of step %d is damaged.", candidate)
        if errors:
            raise UserError(
                f"no checkpoint in {self.directory} can be read ({'; '.join(errors)}); "
                "move the folder away to start anew."
            )
        return None

    def _check_config(self, step: int) -> None:
        found: Any = self._orbax.metadata(step).custom_metadata or {}
        fields = differing_fields(found.get("config", {}), self._config, ignore=("data_dir",))
        if fields:
            raise UserError(
                f"the checkpoint in {self.directory} is of another config, which differs in "
                f"{fields}; choose another folder, or set the field back."
            )

    def _is_whole(self, step: int) -> bool:
        # A folder that merely has a step's name is listed by Orbax as well.
        return ocp.is_orbax_checkpoint(f"{self.directory}/{step}")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # A full disk comes as an OSError or as TensorStore's ValueError.
            raise UserError(
                f"cannot write a checkpoint to {self.directory}: {_first(error)}; "
                "earlier checkpoints are kept."
            ) from None


def _validation_of(metrics: Any) -> float:
    return metrics[_METRIC]


def _abstract(tree: PyTree) -> PyTree:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )


def _first(error: BaseException) -> str:
    """The first line of an error, without a dump of settings behind it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(" [tensorstore_spec")[0][:300].rstrip(".")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps what asyncio says of abandoned tasks off the terminal; the error itself is raised."""
    logger = logging.getLogger("asyncio")
    level, unraisable, thread = logger.level, sys.unraisablehook, threading.excepthook
    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = threading.excepthook = lambda _: None
    try:
        yield
    except Exception:
        gc.collect()  # abandoned tasks complain when they are collected: now
        raise
    finally:
        logger.setLevel(level)
        sys.unraisablehook, threading.excepthook = unraisable, thread
