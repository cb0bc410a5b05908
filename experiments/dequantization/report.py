"""What a study shows: the table over seeds, IWAE-k curves, and samples."""

import itertools
import math
import os
from typing import Any

import jax
import numpy as np
from scipy.special import stdtrit

import bounds
from experiments.dequantization import evaluation
from experiments.dequantization.build import Model, Problem
from experiments.dequantization.published import PUBLISHED
from experiments.runtime import plots, results
from experiments.runtime.plots import COLOURS, new_figure
from experiments.runtime.results import Row

COLUMNS = {
    "": "at.model", "bound": "name", "noise": "at.noise", "kind": "kind", "unit": "unit",
    "value": "value", "standard error": "standard_error", "seeds": "n",
}  # fmt: skip


def draw_samples(
    problem: Problem, model: Model, params: bounds.Params, name: str, config: Any, folder: str
) -> list[Row]:
    """Writes samples.png of one model, as many images as `config.sample_grid`.

    Where an inverse did not converge nothing is drawn, and the row says for how many.
    """
    if not config.sample_grid:
        return []
    # Counted from the far end: training splits the same seed.
    key = jax.random.fold_in(jax.random.key(config.evaluation_seed), 2**32 - 4)
    images = evaluation.samples(model, params, key, config.sample_grid)
    lost = np.isnan(images).any(axis=(1, 2, 3))
    if lost.any():
        return [evaluation.largest("samples", {"model": name}, np.where(lost, np.nan, 0.0))]
    if problem.shape[-1] == 1:
        images = images[..., 0]
    columns = math.isqrt(config.sample_grid - 1) + 1
    plots.save_image(folder, "samples", plots.tile(images / (problem.levels - 1), columns))
    return []


def show(problem: Problem, rows: list[Row], config: Any, workdir: str) -> None:
    """Prints the tables over seeds and writes the figure."""
    summary = [r for r in rows if "point" not in r]
    print(results.table(summary, COLUMNS))
    count = len(problem.dataset.test[: config.evaluation_images or None])
    print(
        f"\n{problem.dataset.name}: {len(problem.dataset.train):,} training, "
        f"{len(problem.dataset.validation):,} validation and {count:,} test images, "
        f"{problem.levels} levels, {math.prod(problem.shape):,} dimensions; "
        f"{len(config.seeds)} seeds.\n"
        "Standard errors are over seeds; differences are paired by seed. A lower bound on log P(x) "
        "is an upper bound in bits/dim."
    )
    published = PUBLISHED.get(config.dataset)
    if published:
        print(f"\nPublished on {problem.dataset.name}; none of it was run here:")
        print(results.table(published, {"": "name", "bits/dim": "value", "what": "what",
                                        "source": "source"}))  # fmt: skip
    figure = curves(summary, f"{problem.dataset.name}, {len(config.seeds)} seeds")
    paths = plots.save(workdir, "figure", figure)
    print("Written:", ", ".join([os.path.join(workdir, results.FILE), *paths]))


def curves(summary: list[Row], title: str):
    """IWAE-k over k for every model, with exact values as lines across."""
    figure, grid = new_figure(1, 1, (7, 4.2), squeeze=False)
    axes = grid[0, 0]
    shown = [r for r in summary if r["unit"] == evaluation.UNIT and r["value"] is not None]
    series = dict.fromkeys((r["at"]["model"], r["at"].get("noise")) for r in shown
                           if r["kind"] in ("upper_bound", "exact"))  # fmt: skip
    for (model, noise), colour in zip(series, itertools.cycle(COLOURS.values()), strict=False):
        own = [r for r in shown if (r["at"]["model"], r["at"].get("noise")) == (model, noise)]
        points = sorted((r["at"]["k"], r) for r in own if r["kind"] == "upper_bound")
        label = model if sum(m == model for m, _ in series) == 1 else f"{model}, {noise} noise"
        if points:
            axes.errorbar(
                [k for k, _ in points], [r["value"] for _, r in points],
                yerr=[_interval(r) for _, r in points] if points[0][1]["n"] > 1 else None,
                color=colour, label=label, marker="o", ms=4, lw=1.2, capsize=2,
            )  # fmt: skip
        for r in own:
            if r["kind"] == "exact":
                axes.axhline(r["value"], color=colour, ls="--", lw=1, label=f"{model}, exact")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("k, samples of noise")
    several = any(r["n"] > 1 for r in shown)
    axes.set_ylabel(f"test bits/dim{' (95% intervals over seeds)' if several else ''}")
    axes.set_title(title)
    if series:
        axes.legend(fontsize=8)
    return figure


def _interval(r: Row) -> float:
    """Half the width of a 95% interval over seeds, by Student's t."""
    return float(stdtrit(r["n"] - 1, 0.975)) * (r["standard_error"] or 0.0)
