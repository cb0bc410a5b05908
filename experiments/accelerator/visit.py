"""The parts of a visit one after another, each in a process of its own, and their table.

A part that fails, hangs or takes the device down with it leaves the others alone, and on a TPU,
which one process owns at a time, the next can start.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

from absl import logging

from experiments.runtime import results
from experiments.runtime.errors import UserError
from experiments.runtime.results import Row, row
from experiments.runtime.settings import Section, dump

ASKED = "visit.json"  # the settings, for the processes of the parts
TABLE = "table.txt"
DEVICE = "device"  # the part that says on what the others run
FAILED = "FAILED"
_ROOT = pathlib.Path(__file__).parents[2]
_LEAST = 10.0  # seconds that must be left for a part to start
COLUMNS = {
    "part": "part", "": "name", "of": "at.of", "steps": "at.steps", "value": "value",
    "unit": "unit", "standard error": "standard_error", "low": "low", "high": "high", "n": "n",
    "share of peak": "share_of_peak", "tolerance": "tolerance", "theory": "theory",
    "published": "published", "verdict": "verdict", "s": "seconds",
}  # fmt: skip


class Outcome(NamedTuple):
    """What a part left, and in a line why it did not come to its end; None where it did."""

    rows: list[Row]
    environment: dict[str, Any] | None
    failure: str | None


def command(workdir: str, name: str) -> list[str]:
    """What runs a part."""
    return [sys.executable, "-m", "experiments.accelerator.part", workdir, name]


def run(name: str, workdir: str, seconds: float) -> Outcome:
    """Runs a part and ends it when its time is out; what it has written by then stays.

    What it prints goes to PART.log.
    """
    written, log = (os.path.join(workdir, f"{name}.{kind}") for kind in ("json", "log"))
    pathlib.Path(written).unlink(missing_ok=True)
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command(workdir, name), cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(timeout=seconds)
            failure = None if code == 0 else _last_line(log, code)
        except subprocess.TimeoutExpired:
            failure = f"ended after {seconds:.0f} s"
        finally:  # also where this process is told to stop
            _end(process)
    if not os.path.exists(written):
        return Outcome([], None, failure or "left no rows")
    with open(written) as file:
        found = json.load(file)
    return Outcome(found["rows"], found["environment"], failure)


def _end(process: subprocess.Popen) -> None:
    """Ends a process with those that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(log: str, code: int) -> str:
    lines = pathlib.Path(log).read_text(errors="replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return said if code > 0 and said else f"ended with code {code}: {said}"


def visit(settings: Section, order: tuple[str, ...], whole: float, each: float, workdir: str):
    """Runs what is missing, writes the record after every part, and the table at the end.

    Args:
      settings: of the visit, for the parts.
      order: names of the parts.
      whole: seconds of all of them.
      each: seconds of one.
      workdir: the folder of results.

    Raises:
      UserError: there is no device, the folder is of another one, or a part failed.
    """
    started = time.monotonic()
    record = results.open_record(workdir, "accelerator", settings, measures=False)
    results.write_atomically(os.path.join(workdir, ASKED), json.dumps(dump(settings)).encode())
    _, environment, failure = run(DEVICE, workdir, each)
    if environment is None:
        raise UserError(f"no device was found ({failure}); {workdir}/{DEVICE}.log has the rest.")
    record["environment"] = record["environment"] or environment
    device = record["environment"]["device"]
    if device != environment["device"]:
        raise UserError(
            f"{workdir} holds numbers of {device}, and this is {environment['device']}; choose "
            "another --workdir."
        )
    if environment != record["environment"]:
        record.setdefault("continued_on", []).append(environment)
    for name in order:
        if _is_finished(record["rows"], name):
            logging.info("%s: there already.", name)
            continue
        left = min(each, whole - (time.monotonic() - started))
        before = time.monotonic()
        found = Outcome([], None, f"not started: the {whole:.0f} s of the visit are over")
        if left >= min(_LEAST, each):
            logging.info("%s: at most %.0f s", name, left)
            found = run(name, workdir, left)
        rows = [*found.rows]
        if found.failure is not None:
            rows.append(_failed(found.failure, time.monotonic() - before))
        record["rows"] = [r for r in record["rows"] if r["part"] != name]
        record["rows"] += [{**r, "part": name} for r in rows]
        results.save_record(workdir, record)
        logging.info("%s: %.1f s", name, time.monotonic() - before)
    show(record, order, workdir)


def _failed(why: str, seconds: float) -> Row:
    return row(
        "the part", {}, kind="estimate", unit="", value=float("nan"), seconds=seconds,
        verdict=FAILED, failure=why,
    )  # fmt: skip


def _is_finished(rows: list[Row], name: str) -> bool:
    own = [r for r in rows if r["part"] == name]
    return bool(own) and not any("failure" in r for r in own)


def show(record: dict[str, Any], order: tuple[str, ...], workdir: str) -> None:
    """Prints the table, writes it beside the record, and says at the end what failed.

    Raises:
      UserError: something failed, or was not as it must be.
    """
    rows = sorted(record["rows"], key=lambda r: order.index(r["part"]))
    about = record["environment"]
    used = {r: f for r, f in COLUMNS.items() if any(_has(line, f) for line in rows)}
    text = (
        f"{about['num_devices']} of {about['device']}, jax {about['jax']}, Python "
        f"{about['python']}, {about['machine']}\n\n{results.table(rows, used)}\n\n"
        "Standard errors: of rates over calls of the compiled program, of bounds over images, of "
        "burda over seeds.\nShare of peak: products and convolutions over the bfloat16 peak that "
        "the maker of the chip states (experiments/compile/topologies.py).\n"
    )
    text += "".join(f"{_told(r)}\n" for r in rows if "failure" in r)
    path = os.path.join(workdir, TABLE)
    results.write_atomically(path, text.encode())
    print(text)
    results.print_written(workdir, [path])
    wrong = [_told(r) for r in rows if r.get("verdict") == FAILED]
    if wrong:
        raise UserError(f"{'; '.join(wrong)}. The same command tries parts that failed again.")


def _told(failed: Row) -> str:
    """In a line, what failed."""
    return f"{failed['part']}: {failed.get('failure') or failed['name']}"


def _has(line: Row, field: str) -> bool:
    of, _, name = field.rpartition(".")
    return (line[of] if of else line).get(name) is not None
