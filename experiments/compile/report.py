"""Rows of a compiled program, and the table that they make."""

from typing import Any

from experiments.compile.analysis import Analysis, least_seconds, repeated
from experiments.compile.steps import Step
from experiments.compile.topologies import Chip
from experiments.runtime import results
from experiments.runtime.results import Kind, Row, row

GIGA = 1e9
_MESSAGES = "messages"  # of a kind, in rows of collectives
COLUMNS = {
    "program": "program", "of": "counted", "lower s": "lowering", "compile s": "compilation",
    "parameters": "parameters", "code MB": "code", "arguments GB": "arguments",
    "temporaries GB": "temporaries", "of GB": "memory of a chip", "GFLOP": "operations",
    "repeated": "repeated operations", "GB accessed": "bytes accessed",
    "GB memory": "memory traffic", "GB on chip": "traffic on the chip", "XLA us": "least time, XLA",
    "bound by": "bound by", "messages": "messages",
}  # fmt: skip
_SCALES = {
    "arguments": GIGA, "temporaries": GIGA, "memory of a chip": GIGA, "operations": GIGA,
    "bytes accessed": GIGA, "memory traffic": GIGA, "traffic on the chip": GIGA, "code": 1e6,
    "least time, XLA": 1e-6,
}  # fmt: skip


def rows(
    step: Step,
    found: Analysis,
    at: dict[str, Any],
    *,
    chip: Chip | None,
    num_devices: int,
    once: float | None,
    lowering: float,
    compilation: float,
    **extra: Any,
) -> list[Row]:
    """All numbers of a program on a topology, for one of its chips.

    Args:
      step: the program.
      found: what XLA says of it.
      at: which program and topology.
      chip: what a chip can do; None where that is not known.
      num_devices: chips.
      once: operations of the program that is not spread, see `analysis.repeated`.
      lowering: seconds of tracing and lowering.
      compilation: seconds of XLA.
      **extra: fields of every row.
    """
    made = []

    def add(name: str, unit: str, value: float | None, kind: Kind = "exact", **more: Any) -> None:
        if value is not None:
            made.append(row(name, at, kind=kind, unit=unit, value=value, **extra, **more))

    add("chips", "count", num_devices)
    add("lowering", "s", lowering, "estimate")
    add("compilation", "s", compilation, "estimate")
    add("parameters", "count", step.parameters)
    add("arguments", "bytes", found.arguments)
    add("outputs", "bytes", found.outputs)
    add("temporaries", "bytes", found.temporaries)
    add("code", "bytes", found.code)
    add("operations", "FLOP", found.flops, counted=step.counted)
    add("bytes accessed", "bytes", found.bytes_accessed, counted=step.counted)
    add("memory traffic", "bytes", found.traffic.memory, counted=step.counted)
    add("traffic on the chip", "bytes", found.traffic.on_chip, counted=step.counted)
    add("least time, XLA", "s", found.optimal_seconds, "estimate", counted=step.counted)
    share = 0.0 if num_devices == 1 else repeated(found, once, num_devices)
    add("repeated operations", "share", share, "estimate")
    for kind, (count, size) in found.messages.items():
        add(kind, "bytes", size, n=count, part_of=_MESSAGES, counted=step.counted)
    if chip is not None:
        add("memory of a chip", "bytes", chip.memory)
        for part, seconds in least_seconds(found, chip).items():
            add(f"least time, {part}", "s", seconds, "estimate", counted=step.counted)
    return made


def table(found: list[Row]) -> str:
    """One line for each program of a topology, in the units of the headings."""
    lines: dict[str, dict[str, Any]] = {}
    for r in found:
        line = lines.setdefault(
            r["at"]["program"], {"at": {}, "program": r["at"]["program"], "messages": ""}
        )
        value = r["value"]
        if r.get("part_of") == _MESSAGES:
            line["messages"] += f" {r['n']} {r['name']} {value / 1e6:.3g} MB"
        else:
            line[r["name"]] = value / _SCALES[r["name"]] if r["name"] in _SCALES else value
        line.setdefault("counted", r.get("counted"))
        line["counted"] = line["counted"] or r.get("counted")
    for line in lines.values():
        line["messages"] = line["messages"].strip() or "none"
        line["bound by"] = _slowest(line)
    return results.table(list(lines.values()), COLUMNS)


def _slowest(line: dict[str, Any]) -> str | None:
    parts = {p: line.get(f"least time, {p}") for p in ("compute", "memory", "network")}
    known = {part: seconds for part, seconds in parts.items() if seconds is not None}
    return max(known, key=known.__getitem__) if known else None
