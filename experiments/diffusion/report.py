"""What a study of diffusion models shows: the table over seeds, the loss per t, and pictures."""

import itertools

import jax
import numpy as np
from jaxtyping import PyTree

from experiments.diffusion import evaluation, ode
from experiments.diffusion.build import Model
from experiments.diffusion.published import PUBLISHED
from experiments.diffusion.settings import Diffusion, Evaluation
from experiments.runtime import keys, plots, results
from experiments.runtime.keys import Purpose
from experiments.runtime.plots import COLORS, new_figure
from experiments.runtime.results import Row
from experiments.studies import images
from experiments.studies.images import Problem
from experiments.studies.study import UNIT

COLUMNS = {
    "": "at.model", "schedule": "at.schedule", "term": "name", "kind": "kind", "unit": "unit",
    "value": "value", "standard error": "standard_error", "seeds": "n",
    "deviation of one": "deviation",
}  # fmt: skip
ODE_COLUMNS = {
    "": "at.model", "noise": "at.noise", "k": "at.k", "term": "name", "kind": "kind",
    "unit": "unit", "value": "value", "standard error": "standard_error", "seeds": "n",
}  # fmt: skip
COST_COLUMNS = {
    "": "at.model", "seed": "at.seed", "noise": "at.noise", "k": "at.k", "bits/dim": "value",
    "over images": "standard_error", "solver error": "solver_error", "evaluations": "evaluations",
    "seconds per image": "seconds_per_image", "not converged": "not_converged",
}  # fmt: skip
STRIPS = 8  # images in a strip
TERMS_DRAWN = {"prior": "gray", "diffusion": "blue", "reconstruction": "orange"}  # of the bound


def draw(problem: Problem, model: Model, params: PyTree, wanted: Evaluation, folder: str) -> None:
    """Writes samples.png, denoising.png (noise to samples) and noising.png (images to noise)."""
    if not wanted.sample_grid:
        return
    sample_key, noise_key = jax.random.split(keys.key_for(wanted.seed, Purpose.SAMPLES))
    drawn, chains = evaluation.sampled(model, params, sample_key, wanted.sample_grid)
    plots.save_grid(folder, "samples", drawn / (problem.levels - 1))
    if wanted.ode is not None:
        sample_key = keys.key_for(wanted.seed, Purpose.ODE_SAMPLES)
        drawn = ode.sampled(model, params, sample_key, wanted.sample_grid, wanted.ode)
        plots.save_grid(folder, "ode_samples", drawn / (problem.levels - 1))
    noised = evaluation.noised(model, params, noise_key, problem.dataset.test[:STRIPS])
    for name, strips in (("denoising", chains[:STRIPS]), ("noising", noised)):
        picture = plots.tile((strips.reshape(-1, *strips.shape[2:]) + 1) / 2, strips.shape[1])
        plots.save_image(folder, name, picture)


def show(problem: Problem, rows: list[Row], settings: Diffusion, workdir: str) -> None:
    """Prints the tables over seeds and writes the figure."""
    summary = [r for r in rows if "point" not in r]
    shown = [r for r in summary if r["name"] != "KL of a step"]
    print(results.table([r for r in shown if not r["name"].startswith("ODE")], COLUMNS))
    print(
        f"\n{images.describe(problem, settings)}\n"
        "Standard errors are over seeds. A lower bound on log P(x) is an upper bound in bits/dim; "
        "ELBO = prior + diffusion + reconstruction.\n"
        f"One time: the mean of {evaluation.REPLICATES} estimates of the bound on "
        f"{evaluation.BATCH} training images, each by one step t per image, and the deviation of "
        "one such estimate (importance: of low-discrepancy times, by the squares on these images); "
        "all times: the same bound by all steps, one draw of each."
    )
    if settings.evaluation.ode is not None:
        _print_ode(rows, summary)
    images.print_published(problem, PUBLISHED.get(settings.data.name, ()))
    paths = plots.save(workdir, "figure", figure(summary, problem, len(settings.seeds)))
    results.print_written(workdir, paths)


def _print_ode(rows: list[Row], summary: list[Row]) -> None:
    """The bounds on the ODE's probability over seeds, then what each seed's took."""
    print("\n" + results.table([r for r in summary if r["name"].startswith("ODE")], ODE_COLUMNS))
    print(
        "\n" + results.table([r for r in rows if r["name"] == "ODE" and "point" in r], COST_COLUMNS)
    )
    print(
        "\nThe ODE is another model than the ELBO's, with the same network: its rows bound ITS "
        "log P(x), up to the error of its solver (the mean difference from half as many steps, in "
        "bits/dim), and may lie on either side of the ELBO's. The distance is of the same images."
    )


def figure(summary: list[Row], problem: Problem, num_seeds: int):
    """The KL of a step over t, and the parts of the bound, of every model."""
    plot, axes = new_figure(1, 2, (10.5, 4.0))
    colors = itertools.cycle(COLORS.values())
    models = list(dict.fromkeys(r["at"]["model"] for r in summary if r["name"] == "KL of a step"))
    for model, color in zip(models, colors, strict=False):
        own = [r for r in summary if _of(r, model, "KL of a step")]
        axes[0].plot(
            [r["at"]["t"] / r["at"]["T"] for r in own],
            [r["value"] for r in own],
            color=color,
            label=model,
            lw=1.2,
        )
    axes[0].set_yscale("log")
    axes[0].set_xlabel("t / T")
    axes[0].set_ylabel("KL of one step, nats per image")
    axes[0].legend(fontsize=8)
    if len(models) == 1:
        _draw_sum(axes[1], summary, models[0])
    else:
        _draw_stacks(axes[1], summary, models)
    axes[1].margins(y=0.12)  # room for the numbers
    axes[1].set_axisbelow(True)
    axes[1].set_ylabel("test bits/dim")
    plot.suptitle(f"{problem.dataset.name}, {num_seeds} seeds")
    return plot


def _draw_stacks(axes, summary: list[Row], models: list[str]) -> None:
    """The parts of each model's bound, one upon the other."""
    start = np.zeros(len(models))
    for name, color in TERMS_DRAWN.items():
        heights = np.array([_bits(summary, model, name) or 0.0 for model in models])
        axes.bar(models, heights, bottom=start, color=COLORS[color], label=name, width=0.6)
        start += heights
    for place, total in enumerate(start):
        axes.annotate(f"{total:.3f}", (place, total), ha="center", va="bottom", fontsize=9)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def _draw_sum(axes, summary: list[Row], model: str) -> None:
    """The parts of one bound, each from where the last one ends, and what they come to."""
    parts = {name: _bits(summary, model, name) for name in (*TERMS_DRAWN, "ELBO", evaluation.LIMIT)}
    end = 0.0
    for name, value in parts.items():
        if value is None:
            continue
        start = end if name in TERMS_DRAWN else 0.0
        end = start + value
        label = name.replace(", ", "\n")
        axes.bar(
            label, value, bottom=start, color=COLORS[TERMS_DRAWN.get(name, "green")], width=0.6
        )
        axes.annotate(f"{value:.4f}", (label, end), ha="center", va="bottom", fontsize=9)


def _of(r: Row, model: str, name: str) -> bool:
    return r["name"] == name and r["at"].get("model") == model


def _bits(summary: list[Row], model: str, name: str) -> float | None:
    """The value of a row in bits/dim; None where there is none, or it is not finite."""
    return next((r["value"] for r in summary if _of(r, model, name) and r["unit"] == UNIT), None)
