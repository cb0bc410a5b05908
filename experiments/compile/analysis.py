"""What XLA says of a compiled program, for one device: work, memory and messages.

XLA's analyses count the body of a loop once, however often it runs, and so does this file: of a
training that takes its steps in a loop they are of one step.
"""

import math
import re
from typing import Any, NamedTuple

import jax

from experiments.compile import hlo
from experiments.compile.topologies import Chip


class Analysis(NamedTuple):
    """Of one device.

    Attributes:
      flops: operations of all kinds, that of a loop's body once; None where XLA does not say.
      bytes_accessed: read and written by all instructions by XLA's count, which adds all memories.
      optimal_seconds: XLA's own estimate of the shortest time; None where it says none, or a
        negative one (an overflow).
      arguments: bytes.
      outputs: bytes that are not written over the arguments.
      temporaries: bytes.
      code: bytes.
      traffic: bytes read and written, see `hlo.traffic`.
      messages: kind -> (how many, bytes), see `hlo.messages`.
    """

    flops: float | None
    bytes_accessed: float | None
    optimal_seconds: float | None
    arguments: int
    outputs: int
    temporaries: int
    code: int
    traffic: hlo.Traffic
    messages: dict[str, tuple[int, int]]

    @property
    def memory(self) -> int:
        """Bytes that a device must hold while the program runs."""
        return self.arguments + self.outputs + self.temporaries + self.code


def analyse(compiled: jax.stages.Compiled, *, in_loop: bool = False) -> Analysis:
    """The analysis of a compiled program.

    Args:
      compiled: of `lower(...).compile()`.
      in_loop: see `hlo.traffic`.
    """
    cost, program = cost_of(compiled), hlo.parse(compiled.as_text() or "")
    stats: Any = compiled.memory_analysis()
    return Analysis(
        cost.get("flops"), cost.get("bytes accessed"), cost.get("optimal_seconds"),
        stats.argument_size_in_bytes,
        max(0, stats.output_size_in_bytes - stats.alias_size_in_bytes),
        stats.temp_size_in_bytes, stats.generated_code_size_in_bytes,
        hlo.traffic(program, in_loop=in_loop), hlo.messages(program),
    )  # fmt: skip


def cost_of(stage: jax.stages.Lowered | jax.stages.Compiled) -> dict[str, float]:
    """XLA's counts that make sense: finite and above 0."""
    try:
        found: Any = stage.cost_analysis()
    except Exception:  # not every compiler has one, and XLA's own error types are not public
        return {}
    return {k: v for k, v in (found or {}).items() if math.isfinite(v) and v > 0}


def least_seconds(found: Analysis, chip: Chip) -> dict[str, float]:
    """What each part of a chip needs at least: compute, memory, network.

    Operations at the peak of bfloat16, bytes at the bandwidths; the memory on the chip, and the
    time that messages take to start, are left out.
    """
    network = sum(size for _, size in found.messages.values())
    return {
        "compute": (found.flops or 0) / chip.flops,
        "memory": found.traffic.memory / chip.bandwidth,
        "network": network / chip.network,
    }


def repeated(found: Analysis, once: float | None, num_devices: int) -> float | None:
    """Share of the operations of all devices that are there more than once.

    Args:
      found: of one of them.
      once: operations of the program that is not spread.
      num_devices: how many share it.
    """
    if not found.flops or not once:
        return None
    return max(0.0, 1 - once / (num_devices * found.flops))


def exhausted(error: Exception) -> str:
    """How much memory XLA wanted of how much there is, in its own words."""
    said = re.search(
        r"Used [^.]*\.\d+\w? of [^.]*\.\d+\w?( \w+)?|"
        r"memory required for [^.]*\.\d+\w?\) exceeds available \w+ \([\d.]+\w?\)",
        str(error),
    )
    return said[0] if said else "XLA ran out of memory"
