"""results.json: the one record every program writes, and the table made from it."""

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required, TypedDict, Unpack, get_args

from absl import logging

from experiments.runtime import cluster, locks
from experiments.runtime.changes import OF_RECORDS, changed_fields, refuse_flat, refuse_other
from experiments.runtime.environment import environment
from experiments.runtime.errors import UserError
from experiments.runtime.settings import Section, dump

FILE = "results.json"
CONFIG = "config.json"  # of a run of training, from its first moment
METRICS = "metrics.jsonl"  # of training, see `metrics`
Kind = Literal["exact", "lower_bound", "upper_bound", "estimate"]
"""What a value is to the truth."""
KINDS: tuple[Kind, ...] = get_args(Kind)
Number = Any
"""An int or a float; None where there is none, or where it was not finite."""


class Extra(TypedDict, total=False):
    """Fields that only some rows have: which, goes by the program and by the row's name."""

    seconds_per_image: Number  # of the pass that gave the value
    compile_seconds: Number  # before that pass
    monte_carlo_error: Number  # the part of the standard error that more samples would take away
    samples: int  # how many draws the value of an image is a mean of
    draws: int  # likewise
    gap_of: str  # the bound whose distance to the exact value this is
    part_of: str  # the row of which this is a summand
    data: str  # "test", or "simulated" from the model
    published: Number  # by others, of the same setting
    published_error: Number  # its standard error
    differs: str  # what is not as it was there
    # Added when the row is kept.
    point: str  # of a study; a row without is a summary of points
    part: str  # of a program that measures in parts
    step: int  # of the parameters, as the next two
    weights: str
    checksum: str
    # Of a comparison.
    over: str  # "images", "seeds" or another: what the standard error is over
    parameters: Number  # of one model, as the next
    training_seconds: Number
    above_exact: Number  # by how much it lies above the exact value of its model, image by image
    above_exact_error: Number
    ais_above: Number  # likewise AIS above reverse AIS
    ais_above_error: Number
    # Of a signal-to-noise ratio, or of a fit to several.
    squared: Number  # the ratio's square without bias, which may be negative
    squared_standard_error: Number
    level: float  # of the interval
    theory: Number  # the closed form
    floor: float  # under which a ratio says nothing
    method: str  # where mean and deviation come from two estimators
    ess_per_sample: Number
    k_hat: Number
    chi_square: float  # what a p-value is of, as the next
    degrees_of_freedom: int
    flops: Number  # of one gradient
    # Of a surgery.
    log_n: float  # the largest that the value can be
    threshold: float  # of the variance of an active unit
    active: bool  # whether the variance is above it
    z_score: Number  # of a value that is 0 in expectation
    error: str  # what the standard error is over
    # Of inverses, of a loss of single times, and of compiled programs.
    not_converged: int  # how many of the images
    deviation: float  # of one estimate
    solver_error: Number  # of an ODE, a mean over images, in the unit of the value
    evaluations: Number  # of its field, for one value
    counted: str  # what the operations are of: a step, or a pass
    compiler: str
    # Of a check, and of a part of a visit to an accelerator.
    reference: Number  # what the value would be
    tolerance: Number  # how far from it may be
    verdict: str | None  # None where there is nothing to decide
    why: str  # what the verdict rests on
    meaning: str  # of a violation
    share_of_peak: Number  # of the operations that the chip is stated to do
    failure: str  # why a part did not come to its end


class Row(Extra):
    """One number with everything needed to trust it."""

    name: Required[str]  # what was measured
    at: Required[dict[str, Any]]  # model, seed, K ...: it tells the row from others of its name
    kind: Required[Kind]
    unit: Required[str]  # of value, standard_error, low and high
    value: Required[Number]
    standard_error: Required[Number]  # over images, seeds or replicates
    low: Required[Number]  # end of an interval of confidence
    high: Required[Number]
    n: Required[Number]  # how many the value is a mean of, or was computed from
    seconds: Required[Number]  # of the pass that gave it


def row(
    name: str,
    at: dict[str, Any],
    *,
    kind: Kind,
    unit: str,
    value: float,
    standard_error: float | None = None,
    low: float | None = None,
    high: float | None = None,
    n: int | None = None,
    seconds: float | None = None,
    **extra: Unpack[Extra],
) -> Row:
    """A row of these fields, see `Row`; numbers become plain, and None where they are not finite.

    Raises:
      ValueError: the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
    fields = Row(
        name=name, at=at, kind=kind, unit=unit, value=value, standard_error=standard_error,
        low=low, high=high, n=n, seconds=seconds, **extra,
    )  # fmt: skip
    return _plain(fields)


class Record(dict[str, Any]):
    """A record, which keeps other processes out of its folder as long as it is referred to."""

    lock: locks.Lock | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, as other processes get one, holds no lock."""
        return Record, (dict(self),)


def open_record(
    workdir: str,
    experiment: str,
    settings: Section,
    *,
    one_training: bool = False,
    measures: bool = True,
) -> Record:
    """Starts a record in `workdir`, or continues the one of the same config that is there.

    A program that trains may also be given another evaluation, other records on the way or more
    steps, see `differing_fields`: what the record has of the old config is then measured anew, and
    its "continued_from" tells the fields that were other.

    Args:
      workdir: the folder, which is made and kept for this process.
      experiment: name of the program.
      settings: of the program.
      one_training: whether the folder may be that of a training, see `save_config`.
      measures: whether this process does; where others do, the environment of a new record is
        empty, for what they say of theirs, and JAX is not started.

    Raises:
      UserError: the folder cannot be written, is in use by another process, or holds something
        else.
    """
    now = dump(settings)
    record = Record(
        experiment=experiment,
        config=now,
        seed=now.get("seed", now.get("seeds")),
        environment=environment() if measures else {},
        rows=[],
    )
    return _continued(record, workdir, one_training)


@cluster.by_first
def _continued(record: Record, workdir: str, one_training: bool) -> Record:
    """The record of the folder, where there is one, gone on with as `record` asks."""
    experiment, now = record["experiment"], record["config"]
    try:
        os.makedirs(workdir, exist_ok=True)
        record.lock = locks.hold(workdir, "--workdir")
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise UserError(f"cannot write to --workdir={workdir}: {error.strerror}.") from None
    path = os.path.join(workdir, FILE)
    if not one_training and os.path.exists(os.path.join(workdir, CONFIG)):
        raise UserError(f"{workdir} holds a run of training; choose another --workdir.")
    if not os.path.exists(path):
        return record
    try:
        with open(path) as file:
            found = Record(json.load(file))
        old_experiment, old_settings = found["experiment"], found["config"]
        old_environment = found["environment"]
        if not isinstance(old_settings, dict) or not all(
            isinstance(r, dict) for r in found["rows"]
        ):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is not a readable record of results; move it away or choose another --workdir."
        ) from None
    if old_experiment != experiment:
        raise UserError(f"{workdir} holds results of {old_experiment}; choose another --workdir.")
    refuse_flat(workdir, old_settings, now)
    trains = "records" in now
    refuse_other(f"{workdir} holds results", old_settings, now, "--workdir", of_the_model=trains)
    found.lock = record.lock
    changed = changed_fields(old_settings, now)
    if trains and changed:
        found["config"] = now
        found.setdefault("continued_from", []).append(changed)
        # Means over models follow when all of those are there.
        found["rows"] = [r for r in found["rows"] if "point" in r]
        added = {"seeds", "grid", "models"}
        if {n.split(".")[0] for n in changed} - added - OF_RECORDS:
            logging.info(
                "%s holds results of another config, which differs in %s; they are measured anew.",
                workdir, ", ".join(changed),
            )  # fmt: skip
            found["rows"] = []
    if record["environment"] not in ({}, old_environment):
        found.setdefault("continued_on", []).append(record["environment"])
    return found


@cluster.by_first
def save_config(workdir: str, settings: dict[str, Any]) -> None:
    """Writes the config by itself, for programs that go on from this run before it has results.

    The config of a run that left no number, neither a result nor a line of metrics, is written
    over.

    Raises:
      UserError: the folder holds another run, or cannot be written.
    """
    path = os.path.join(workdir, CONFIG)
    try:
        os.makedirs(workdir, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {workdir}: {error.strerror}.") from None
    if os.path.exists(path) and any(_holds_something(workdir, n) for n in (FILE, METRICS)):
        try:
            with open(path) as file:
                found = json.load(file)
            refuse_flat(workdir, found, settings)
            refuse_other(f"{workdir} holds a run", found, settings, "--workdir")
        except (OSError, ValueError, AttributeError, TypeError):
            raise UserError(f"{path} is not readable; choose another --workdir.") from None
    write_atomically(path, (json.dumps(settings, indent=1) + "\n").encode())


def _holds_something(workdir: str, name: str) -> bool:
    path = os.path.join(workdir, name)
    return os.path.exists(path) and os.path.getsize(path) > 0


def save_record(workdir: str, record: dict[str, Any]) -> None:
    """Writes the record; a reader sees the old one or the new one, never half of it."""
    text = json.dumps(record, indent=1, allow_nan=False)
    write_atomically(os.path.join(workdir, FILE), (text + "\n").encode())


@cluster.by_first
def write_atomically(path: str, data: bytes) -> None:
    """Writes a file beside `path` and moves it there; of several processes the first does it."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; what was there is kept.") from None
    finally:
        # Still there only if something failed; a signal may come just after the move.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@cluster.by_first
def load(workdir: str) -> dict[str, Any]:
    """The record in a folder.

    Raises:
      OSError: there is none.
      ValueError: it is no record.
    """
    with open(os.path.join(workdir, FILE)) as file:
        return json.load(file)


def print_written(workdir: str, paths: Sequence[str] = ()) -> None:
    """The last line of a program: the record, and what else was written."""
    print("Written:", ", ".join([os.path.join(workdir, FILE), *paths]))


def table(rows: Sequence[Mapping[str, Any]], columns: dict[str, str]) -> str:
    """Rows as aligned text; `columns` maps a heading to a field or to `at.FIELD`."""
    cells = [list(columns)]
    for entry in rows:
        flat = {**entry, **{f"at.{k}": v for k, v in entry["at"].items()}}
        cells.append([_format(flat.get(field)) for field in columns.values()])
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    # Names and sentences start where a reader looks for them; numbers end in one column.
    left = {0} | {i for i in range(len(columns)) if any(line[i].count(" ") > 2 for line in cells)}
    lines = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _format(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """A JSON value from NumPy and JAX scalars, None from NaN and infinities."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if value is None or isinstance(value, (str, bool, int)):
        return value
    value = value.item() if hasattr(value, "item") else value
    return value if not isinstance(value, float) or math.isfinite(value) else None
