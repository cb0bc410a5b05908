"""What a study of masked diffusion shows: the table over seeds, bounds by steps, and pictures."""

import itertools
import math

import jax
import numpy as np
from jaxtyping import PyTree

from experiments.masked import evaluation
from experiments.masked.build import tokens_of
from experiments.masked.settings import Evaluation, Masked
from experiments.runtime import keys, plots, results
from experiments.runtime.keys import Purpose
from experiments.runtime.plots import COLORS, new_figure
from experiments.runtime.results import Row
from experiments.studies import images
from experiments.studies.images import Problem
from experiments.studies.study import UNIT
from models.masked_tokens import MaskedTokens

COLUMNS = {
    "": "at.model", "term": "name", "T": "at.T", "K": "at.K", "crop": "at.crop", "kind": "kind",
    "unit": "unit", "value": "value", "standard error": "standard_error", "seeds": "n",
    "deviation of one": "deviation",
}  # fmt: skip
STRIPS = 6  # images that are filled in, with the upper half given, and as many with the left half
FILLED = 4  # times each
MASK_COLOR = (0.35, 0.55, 0.75)


def draw(
    problem: Problem, model: MaskedTokens, theta: PyTree, wanted: Evaluation, folder: str
) -> None:
    """Writes samples.png, and infilling.png: images, what is given of each, draws of the rest."""
    if not wanted.sample_grid:
        return
    sample_key, fill_key = jax.random.split(keys.key_for(wanted.seed, Purpose.SAMPLES))
    nothing = np.full((wanted.sample_grid, model.length), model.levels, np.int32)
    drawn = evaluation.filled(model, theta, sample_key, nothing)
    plots.save_grid(folder, "samples", _picture(problem, drawn))
    tokens = tokens_of(problem.dataset.test[: 2 * STRIPS])
    places = np.arange(model.length).reshape(problem.shape[:2])
    lower, right = places[places.shape[0] // 2 :], places[:, places.shape[1] // 2 :]
    given = tokens.copy()
    for start, hidden in ((0, lower), (STRIPS, right)):
        given[start : start + STRIPS, hidden.reshape(-1)] = model.levels
    several = evaluation.filled(model, theta, fill_key, given.repeat(FILLED, axis=0))
    strips = np.concatenate(
        [tokens[:, None], given[:, None], several.reshape(len(tokens), FILLED, -1)], axis=1
    )
    # Two strips beside each other: with the upper half given, and with the left one.
    pairs = np.concatenate([strips[:STRIPS], strips[STRIPS : 2 * STRIPS]], axis=1)
    picture = plots.tile(_picture(problem, pairs.reshape(-1, model.length)), pairs.shape[1])
    plots.save_image(folder, "infilling", picture)


def _picture(problem: Problem, tokens: np.ndarray) -> np.ndarray:
    """[N, height, width, 3] in [0, 1], with masked pixels in a colour."""
    grey = (tokens / (problem.levels - 1))[..., None].repeat(3, axis=-1)
    found = np.where((tokens == problem.levels)[..., None], MASK_COLOR, grey)
    return found.reshape(len(tokens), *problem.shape[:2], 3)


def show(problem: Problem, rows: list[Row], settings: Masked, workdir: str) -> None:
    """Prints the tables over seeds and writes the figure."""
    summary = [r for r in rows if "point" not in r]
    print(results.table(summary, COLUMNS))
    print(
        f"\n{images.describe(problem, settings)}\n"
        "Standard errors are over seeds. A lower bound on log P(x) is an upper bound in bits/dim.\n"
        f"ELBO: {settings.evaluation.num_counts} masks of each image; of a chain: one draw of its "
        "T steps; of a crop: of its pixels given all others, by all orders."
    )
    if settings.evaluation.varied_images:
        print(
            f"By ...: the mean of {evaluation.REPLICATES} estimates of the ELBO of each of "
            f"{settings.evaluation.varied_images} test images, each by {math.prod(problem.shape)} "
            "evaluations of the network, and the deviation of one such estimate of one image."
        )
    paths = plots.save(workdir, "figure", figure(summary, problem, len(settings.seeds)))
    results.print_written(workdir, paths)


def figure(summary: list[Row], problem: Problem, num_seeds: int):
    """The bound by the steps of the chain, and the deviation of an estimate of each form."""
    varied = any(r["name"] == f"by {evaluation.FORMS[0]}" for r in summary)
    panels = 2 if varied else 1
    plot, grid = new_figure(1, panels, (5.25 * panels, 4.0), squeeze=False)
    axes = grid[0]
    chains = (r for r in summary if r["name"] == "ELBO of a chain")
    models = list(dict.fromkeys(r["at"]["model"] for r in chains))
    colors = itertools.cycle(COLORS.values())
    for number, (model, color) in enumerate(zip(models, colors, strict=False)):
        chain = [r for r in summary if _of(r, model, "ELBO of a chain")]
        steps = [r["at"]["T"] for r in chain]
        axes[0].plot(steps, [r["value"] for r in chain], color=color, marker="o", ms=4, label=model)
        (elbo,) = (r for r in summary if _of(r, model, "ELBO") and r["unit"] == UNIT)
        axes[0].axhline(elbo["value"], color=color, ls="--", lw=1)
        if not varied:
            continue
        found = {r["name"]: r.get("deviation") for r in summary if r["at"].get("model") == model}
        heights = [found.get(f"by {form}") or np.nan for form in evaluation.FORMS]
        places = np.arange(len(heights)) + 0.8 * (number + 0.5) / len(models) - 0.4
        axes[1].bar(places, heights, width=0.8 / len(models), color=color, label=model)
    axes[0].set_xscale("log", base=2)
    axes[0].set_xlabel("steps T (dashed: their limit)")
    axes[0].set_ylabel("test bits/dim, upper bound")
    axes[0].legend(fontsize=8)
    if varied:
        axes[1].set_xticks(range(len(evaluation.FORMS)), [f"by\n{f}" for f in evaluation.FORMS])
        axes[1].set_ylabel("deviation of one estimate, bits/dim")
        axes[1].set_axisbelow(True)
    plot.suptitle(f"{problem.dataset.name}, {num_seeds} seeds")
    return plot


def _of(r: Row, model: str, name: str) -> bool:
    return r["name"] == name and r["at"].get("model") == model
