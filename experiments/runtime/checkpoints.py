"""Checkpoints: the one module that knows Orbax (its v1 interface).

A save goes on in the background and becomes visible in one piece: what a killed process has
half-written is never loaded, and is removed by the next run. A checkpoint that lost or changed a
bit since is known by its checksum, and the one before it is loaded. Kept are the latest few and
the best on validation. Arrays are restored onto the devices of the process that asks, however
many wrote them.
"""

import contextlib
import functools
import gc
import json
import logging as python_logging
import math
import os
import sys
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from experiments.runtime import cluster, locks, paths
from experiments.runtime import mesh as meshes
from experiments.runtime.changes import changed_fields, refuse_flat, refuse_other
from experiments.runtime.errors import UserError

_STATE = "state"
Scores = dict[int, float | None]


class Checkpoints:
    """Checkpoints of one run in one folder (a path, or gs://... with the extra `gcs`).

    Use it as a context manager: leaving waits for the save under way.
    """

    def __init__(
        self, directory: str, config: dict[str, Any], *, keep: int = 2, read_only: bool = False
    ):
        """Opens the folder, makes it unless `read_only`; keeps the latest `keep` and the best.

        Raises:
          UserError: the folder cannot be made, is not there, is not the same on all hosts, or is
            in use by another process that writes to it.
        """
        remote = "://" in directory
        self.directory = directory if remote else os.path.abspath(directory)
        # As it comes back from a file: tuples are lists there.
        self.config: dict[str, Any] = json.loads(json.dumps(config))
        self._earlier: Any = []  # of the metadata: what was asked for before, up to which step
        self._lock: locks.Lock | None = None
        self._pending: Any = None
        self._damaged: set[int] = set()
        self._scores: Scores = {}
        _ignore_late_callbacks()
        with cluster.together():
            if read_only and not remote and not os.path.isdir(self.directory):
                raise UserError(f"there is no folder {self.directory}; train first.")
        # Orbax types its policies as taking what they do not take.
        every: Any = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
        kept: Any = _LatestAndBest(keep, self._scores)
        if not read_only and not remote:
            self._lock = locks.make_shared(self.directory)
        self._path, self._alias = self.directory, None
        try:
            if not remote and not paths.is_taken_literally(self.directory):
                self._alias = tempfile.TemporaryDirectory(prefix="checkpoints-")
                self._path = os.path.join(self._alias.name, "folder")
                os.symlink(self.directory, self._path)
            self._orbax = ocp.training.Checkpointer(
                self._path,
                save_decision_policy=every,
                preservation_policy=kept,
                cleanup_tmp_directories=not read_only,
            )
        except (OSError, ValueError, ImportError) as error:
            raise UserError(
                f"cannot use {self.directory} for checkpoints: {_first(error)}."
            ) from None
        for step in self.steps():
            with contextlib.suppress(_Damaged):
                self._scores[step] = self._notes(step)["validation"]

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is None:
            self.wait()
        with contextlib.suppress(Exception):  # what matters was said by wait()
            self._orbax.close()
        if self._alias is not None:
            self._alias.cleanup()
        self._lock = None

    def save(self, step: int, state: PyTree, validation: float | None) -> None:
        """Starts saving; waits only for the save before it.

        Raises:
          UserError: the save before this one failed (a full disk, say).
        """
        self.wait()
        score = validation if validation is not None and math.isfinite(validation) else None
        with self._explained():
            there = {c.step for c in self._orbax.checkpoints}
            # Training went on from an older checkpoint: those that could not be read are of no use.
            for damaged in sorted(self._damaged & there - {step}):
                self._orbax.delete(damaged)
            self._damaged.clear()
            self._scores[step] = score
            self._pending = self._orbax.save_checkpointables_async(
                step,
                {_STATE: state},
                force=True,
                overwrite=step in there,  # damaged, or a folder that merely has its name
                custom_metadata={
                    "config": self.config,
                    "earlier": self._earlier,
                    "validation": score,
                    "checksum": _checksum(state),
                    "x64": _in_float64(),
                },
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
        """Steps of the checkpoints, ascending; which of them are damaged, `restore` finds out."""
        # A folder that merely has a step's name is listed by Orbax as well.
        listed = (c.step for c in self._orbax.checkpoints)
        return sorted(s for s in listed if ocp.is_orbax_checkpoint(f"{self._path}/{s}"))

    def best(self) -> int | None:
        """The step that is best on validation; the latest where none was validated."""
        return _best({step: self.validation(step) for step in self.steps()})

    def validation(self, step: int) -> float | None:
        """The validation bound saved with a step."""
        return self._scores.get(step)

    def checksum(self, step: int) -> int:
        """Of every bit of the state saved at a step: what tells one training from another.

        Raises:
          UserError: the checkpoint cannot be read.
        """
        try:
            return self._notes(step)["checksum"]
        except _Damaged as error:
            raise UserError(
                f"the checkpoint of step {step} in {self.directory} cannot be read ({error}); "
                "choose another one."
            ) from None

    def restore(self, like: PyTree, step: int | None = None) -> Any:
        """The state at `step`, or the latest that can be read; None where there is none.

        Args:
          like: arrays of the shapes, types and shardings wanted.
          step: None for the latest.

        Raises:
          UserError: the checkpoints are of another config, or none of them can be read.
        """
        reasons = []
        for candidate in reversed(self.steps() if step is None else [step]):
            try:
                return self._load(candidate, like)
            except _Damaged as error:
                reasons.append(f"step {candidate}: {error}")
                self._damaged.add(candidate)
                self._scores.pop(candidate, None)
            if step is None:
                logging.warning("The checkpoint of step %d is damaged.", candidate)
        if reasons:
            raise UserError(
                f"no checkpoint in {self.directory} can be read ({'; '.join(reasons)}); "
                "move the folder away to start anew."
                if step is None
                else f"the checkpoint in {self.directory} cannot be read ({reasons[0]}); "
                "choose another one."
            )
        return None

    def _load(self, step: int, like: PyTree) -> Any:
        """The state at a step; raises `_Damaged`, or UserError if it is of another config."""
        notes = self._notes(step)
        if notes["x64"] != _in_float64():
            raise UserError(
                f"the checkpoint in {self.directory} was written with JAX_ENABLE_X64="
                f"{int(notes['x64'])}; set it likewise, or choose another folder."
            )
        refuse_flat(f"the checkpoint in {self.directory}", notes["config"], self.config)
        what = f"the checkpoint in {self.directory} is"
        refuse_other(what, notes["config"], self.config, "folder")
        with _damage_explained():
            state: Any = self._orbax.load_checkpointables(step, {_STATE: _abstract(like)})[_STATE]
        if _checksum(state) != notes["checksum"]:
            raise _Damaged("its checksum differs")
        # What configs asked for up to this step, to be noted in the checkpoints that follow.
        changed = changed_fields(notes["config"], self.config)
        earlier = [{"to_step": step, **changed}] if changed else []
        self._earlier = notes.get("earlier", []) + earlier
        return state

    def _notes(self, step: int) -> dict[str, Any]:
        """What `save` noted beside the state; raises `_Damaged`."""
        with _damage_explained():
            notes: Any = self._orbax.metadata(step).custom_metadata
        wanted = {"config", "validation", "checksum", "x64"}
        if not isinstance(notes, dict) or not wanted <= set(notes):
            raise _Damaged("its metadata cannot be read")
        return notes

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if cluster.is_lost(error):
                raise
            # A full disk comes as an OSError or as TensorStore's ValueError.
            raise UserError(
                f"cannot write a checkpoint to {self.directory}: {_first(error)}; "
                "earlier checkpoints are kept."
            ) from None


def _in_float64() -> bool:
    return bool(jax.dtypes.canonicalize_dtype(np.float64) == np.float64)


class _Damaged(Exception):
    """A checkpoint that cannot be read; says why."""


class _LatestAndBest:
    """The latest checkpoints and the best one are kept, and any whose score is not known."""

    def __init__(self, keep: int, scores: Scores):
        self._keep, self._scores = keep, scores

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Whether Orbax keeps each of the checkpoints."""
        del context
        steps = [c.step for c in checkpoints]
        known = {s: self._scores[s] for s in sorted(steps) if s in self._scores}
        kept = {*list(known)[-self._keep :], _best(known)}
        return [s in kept or s not in known for s in steps]


def _best(scores: Scores) -> int | None:
    scored = [(score, step) for step, score in scores.items() if score is not None]
    return max(scored)[1] if scored else max(scores, default=None)


def _checksum(state: PyTree) -> int:
    """CRC-32 of every bit; Orbax loads an array of which a byte has changed without a word."""
    total = 0
    for leaf in jax.tree.leaves(state):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        total = zlib.crc32(meshes.to_host(leaf).tobytes(), total)
    return total


def _abstract(tree: PyTree) -> PyTree:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )


def _first(error: BaseException) -> str:
    """An error in few words: what the system said where it said something."""
    reason = error.strerror if isinstance(error, OSError) else None
    text = " ".join((reason or str(error)).split()) or type(error).__name__
    # TensorStore names temporary files first, and its settings behind.
    text, *by_system = text.split(" [os_error_code")
    text = text.rsplit(": ", 1)[-1] if by_system else text.split(" [tensorstore_spec")[0]
    return text[:300].rstrip(".")


@contextlib.contextmanager
def _damage_explained() -> Iterator[None]:
    """Turns whatever Orbax raises into `_Damaged`, and keeps quiet what it says beside that."""
    reason, logger = None, python_logging.getLogger("asyncio")
    level = logger.level
    logger.setLevel(python_logging.CRITICAL)
    try:
        try:
            yield
        except Exception as error:
            # It wraps what went wrong in errors of several kinds.
            reason = _first(error.__cause__ or error)
        if reason is not None:
            # Its abandoned tasks complain when they are collected: here, where the error no
            # longer holds on to them.
            with warnings.catch_warnings(action="ignore"):
                gc.collect()
            raise _Damaged(reason)
    finally:
        logger.setLevel(level)


@functools.cache
def _ignore_late_callbacks() -> None:
    """Reads and writes under way when one of them fails come back to an event loop that is gone.

    Each of them would print a traceback; what failed first is raised.
    """
    report = sys.unraisablehook

    def report_others(unraisable) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            report(unraisable)

    sys.unraisablehook = report_others
