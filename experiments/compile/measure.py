"""One program compiled for one topology."""

import time
from typing import Any

import jax

from experiments.compile import analysis, report, steps
from experiments.compile.settings import Entry
from experiments.compile.steps import Step
from experiments.compile.topologies import Topology
from experiments.runtime import mesh
from experiments.runtime.results import Row


class DoesNotFit(Exception):
    """A program needs more memory than a chip has; the message says how much of how much."""


def measured(step: Step, entry: Entry, topology: Topology, at: dict[str, Any]) -> list[Row]:
    """Compiles a program for a topology.

    Args:
      step: the program.
      entry: what it was made of, to make it again for one device.
      topology: the devices.
      at: names of both, for the rows.

    Returns:
      See `report.rows`.

    Raises:
      DoesNotFit: it does not fit a chip.
    """
    start = time.perf_counter()
    with mesh.described(topology.devices):
        lowered = step.lowered()
    lowered_at = time.perf_counter()
    try:
        compiled = lowered.compile(topology.options)
    except Exception as error:  # XLA's own error types are not public
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFit(analysis.exhausted(error)) from None
    compiled_at = time.perf_counter()
    found, chip = analysis.analyse(compiled, in_loop=step.in_loop), topology.chip
    if chip is not None and found.memory > chip.memory:
        raise DoesNotFit(f"{found.memory / 1e9:.2f} of {chip.memory / 1e9:.2f} GB a chip")
    once, count = None, len(topology.devices)
    if count > 1:
        # What the program is before it is spread: operations that nothing repeats.
        with mesh.described(jax.devices()[:1]):
            alone = steps.make(at["program"], entry).lowered()
        flops = analysis.cost_of(alone).get("flops")
        once = flops * count if flops and step.alike else flops
    return report.rows(
        step, found, at, chip=chip, num_devices=count, once=once,
        lowering=lowered_at - start, compilation=compiled_at - lowered_at,
        compiler=topology.compiler,
    )  # fmt: skip
