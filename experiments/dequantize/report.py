"""What a study shows: the table over seeds, IWAE-k curves, and samples."""

import itertools
from typing import Any

import numpy as np
from scipy.special import stdtrit

import bounds
from experiments.dequantize import evaluation
from experiments.dequantize.build import Model
from experiments.dequantize.published import PUBLISHED
from experiments.dequantize.settings import Dequantize, Evaluation
from experiments.runtime import keys, plots, results
from experiments.runtime.keys import Purpose
from experiments.runtime.plots import COLORS, new_figure
from experiments.runtime.results import Row
from experiments.studies import images
from experiments.studies.images import Problem
from experiments.studies.study import UNIT

COLUMNS = {
    "": "at.model", "bound": "name", "noise": "at.noise", "kind": "kind", "unit": "unit",
    "value": "value", "standard error": "standard_error", "seeds": "n",
}  # fmt: skip


def draw_samples(
    problem: Problem,
    model: Model,
    params: bounds.Params,
    name: str,
    wanted: Evaluation,
    folder: str,
) -> list[Row]:
    """Writes samples.png of one model, as many images as `sample_grid`.

    Where an inverse did not converge nothing is drawn, and the row says for how many.
    """
    if not wanted.sample_grid:
        return []
    key = keys.key_for(wanted.seed, Purpose.SAMPLES)
    drawn = evaluation.samples(model, params, key, wanted.sample_grid)
    lost = np.isnan(drawn).any(axis=(1, 2, 3))
    if lost.any():
        return [evaluation.largest("samples", {"model": name}, np.where(lost, np.nan, 0.0))]
    plots.save_grid(folder, "samples", drawn / (problem.levels - 1))
    return []


def show(problem: Problem, rows: list[Row], settings: Dequantize, workdir: str) -> None:
    """Prints the tables over seeds and writes the figure."""
    summary = [r for r in rows if "point" not in r]
    print(results.table(summary, COLUMNS))
    print(
        f"\n{images.describe(problem, settings)}\n"
        "Standard errors are over seeds; differences are paired by seed. A lower bound on log P(x) "
        "is an upper bound in bits/dim."
    )
    images.print_published(problem, PUBLISHED.get(settings.data.name, ()))
    figure = curves(summary, f"{problem.dataset.name}, {len(settings.seeds)} seeds")
    paths = plots.save(workdir, "figure", figure)
    results.print_written(workdir, paths)


def curves(summary: list[Row], title: str):
    """IWAE-k over k for every model, exact values as lines across, and the true gaps beside.

    A colour is a model; dashed is uniform noise where a model is evaluated with another as well.
    """
    shown = [r for r in summary if r["unit"] == UNIT and r["value"] is not None]
    exact = [r for r in shown if r["kind"] == "exact"]
    gaps = [r for r in shown if "gap_of" in r]
    figure, grid = new_figure(1, 2 if gaps else 1, (13 if gaps else 7.5, 4.2), squeeze=False)
    models = dict.fromkeys(r["at"]["model"] for r in shown if r["kind"] != "estimate")
    colors = dict(zip(models, itertools.cycle(COLORS.values()), strict=False))
    _lines(grid[0, 0], [r for r in shown if r["kind"] == "upper_bound"], colors)
    for r in exact:
        model = r["at"]["model"]
        grid[0, 0].axhline(r["value"], color=colors[model], ls=":", lw=1.2, label=f"{model}, exact")
    several = any(r["n"] > 1 for r in shown)
    grid[0, 0].set_ylabel(f"test bits/dim{' (95% intervals over seeds)' if several else ''}")
    if gaps:
        _lines(grid[0, 1], gaps, colors)
        grid[0, 1].set_yscale("log")
        grid[0, 1].set_ylabel("gap to the exact value, bits/dim")
        outside: Any = "outside right"  # not in matplotlib's own list of types
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc=outside, fontsize=8)
    elif shown:
        grid[0, 0].legend(fontsize=8)
    figure.suptitle(title)
    return figure


def _lines(axes, rows: list[Row], colors: dict[str, str]) -> None:
    """One line for each model and noise."""
    series = dict.fromkeys((r["at"]["model"], r["at"]["noise"]) for r in rows)
    for model, noise in series:
        own = [r for r in rows if (r["at"]["model"], r["at"]["noise"]) == (model, noise)]
        own.sort(key=lambda r: r["at"]["k"])
        alone = sum(m == model for m, _ in series) == 1
        axes.errorbar(
            [r["at"]["k"] for r in own],
            [r["value"] for r in own],
            yerr=[_interval(r) for r in own] if own[0]["n"] > 1 else None,
            color=colors[model],
            label=model if alone else f"{model}, {noise} noise",
            ls="-" if alone or noise != "uniform" else "--",
            marker="o",
            ms=4,
            lw=1.2,
            capsize=2,
        )
    axes.set_xscale("log", base=2)
    axes.set_xlabel("k, samples of noise")


def _interval(r: Row) -> float:
    """Half the width of a 95% interval over seeds, by Student's t."""
    return float(stdtrit(r["n"] - 1, 0.975)) * (r["standard_error"] or 0.0)
