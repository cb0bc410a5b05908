"""Steps a second of trainings, their share of the peak, and what bfloat16 does to a bound."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from experiments.accelerator import operations, pictures
from experiments.accelerator.settings import Rate, Visit
from experiments.compile import steps
from experiments.compile.topologies import HERE
from experiments.compile.topologies import make as topology
from experiments.diffusion import build as diffusion_build
from experiments.diffusion import evaluation
from experiments.diffusion.settings import Diffusion
from experiments.runtime import fit
from experiments.runtime import mesh as meshes
from experiments.runtime.fit import Run
from experiments.runtime.results import Kind, Row, row
from experiments.runtime.settings import merged
from experiments.runtime.trainer import State, make_chunk
from experiments.studies import held_out, images


def alone(asked: Rate, seconds: float) -> Iterator[list[Row]]:
    """Rows of `trained`."""
    yield trained(asked, seconds)[0]


def with_bound(settings: Visit) -> Iterator[list[Row]]:
    """Those of the U-Net in bfloat16, and the bound of what it became in both types.

    Parameters and draws of the two bounds are the same.
    """
    rows, params = trained(settings.unet_bfloat16, settings.seconds.loop)
    yield rows
    entry, asked, values = settings.unet_bfloat16.program, settings.bound, {}
    at = {"steps": rows[0]["at"]["steps"]}
    for dtype in ("float32", "bfloat16"):
        changes = merged(entry.changes, {"network": {"dtype": dtype}})
        study = steps.parsed(Diffusion, entry.config, changes)
        problem = images.of_dataset(pictures.dataset(study.data.name))
        model = diffusion_build.make_model(problem, steps.of_model(study, entry.model))
        values[dtype] = problem.bits(
            evaluation.in_continuous_time(
                model, params, problem.dataset.test[: asked.num_images], jax.random.key(0),
                asked.num_times, asked.images_per_pass,
            )
        )  # fmt: skip
        here = {"of": dtype, **at}
        yield [held_out.mean_row("bound", here, values[dtype], "upper_bound", unit="bits/dim")]
    difference = values["bfloat16"] - values["float32"]
    here = {"of": "bfloat16 - float32", **at}
    yield [held_out.mean_row("bound", here, difference, "estimate", unit="bits/dim")]


def compiled(run: Run, length: int) -> tuple[State, Callable[[State, int], State], Any]:
    """(state at the start, (state, n) -> state after the n-th `length` steps, their trace)."""
    chunk = make_chunk(
        run.loss_fn, run.stream, run.optimizer, run.key, ema_decay=run.ema_decay,
        mesh=meshes.device_mesh(meshes.DATA),
    )  # fmt: skip
    start = fit.initial_state(run)
    traced = chunk.trace(start, run.stream.window(0, length), length)
    program = traced.lower().compile()

    def call(state, number):
        state, _, finite = program(state, run.stream.window(number * length, length))
        if not finite:
            raise FloatingPointError(f"the loss or an update is not finite in call {number}")
        return state

    return start, call, traced


def trained(asked: Rate, seconds: float) -> tuple[list[Row], PyTree]:
    """Compiles a training and takes steps until the time is out.

    Args:
      asked: what is trained.
      seconds: after which no further call starts.

    Returns:
      (rows, the parameters at the end).
    """
    run, _ = steps.RUNS[asked.program.part](asked.program, pictures.dataset)
    start, length = time.perf_counter(), asked.steps
    state, call, traced = compiled(run, length)
    compilation = time.perf_counter() - start
    state = call(state, 0)  # warms up
    times, started = [], time.perf_counter()
    while not times or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        state = call(state, len(times) + 1)
        times.append(time.perf_counter() - before)
    rate = length / np.asarray(times)
    work = operations.count(traced.jaxpr) / length
    at = {"of": f"batch of {run.batch_size}", "steps": int(state.step)}
    rows = [
        held_out.mean_row(
            "training", at, rate, "estimate", unit="steps/s",
            seconds=sum(times), share_of_peak=share_of_peak(work * float(rate.mean())),
        ),
        _number("products and convolutions of a step", work / 1e9, "GFLOP"),
        _number("parameters", sum(leaf.size for leaf in jax.tree.leaves(state.params)), "numbers"),
        _number("compilation, start included", compilation, "s", "estimate"),
    ]  # fmt: skip
    return rows, state.params


def _number(name: str, value: float, unit: str, kind: Kind = "exact") -> Row:
    return row(name, {}, kind=kind, unit=unit, value=value)


def share_of_peak(per_second: float) -> float | None:
    """Operations a second over the bfloat16 peak of all chips here; None where it is not known.

    The peaks are their makers', see `compile.topologies.CHIPS`.
    """
    found = topology(HERE)
    return per_second / (found.chip.flops * len(found.devices)) if found.chip else None
