"""What a study of the joint bound shows: tables over seeds, a figure, samples for each caption."""

import numpy as np

import bounds
from experiments.dalle import evaluation
from experiments.dalle.build import Data, Model
from experiments.dalle.settings import Dalle, Evaluation
from experiments.runtime import keys, plots, results
from experiments.runtime.keys import Purpose
from experiments.runtime.plots import COLORS, new_figure
from experiments.runtime.results import Row
from experiments.studies import images

COLUMNS = {
    "": "at.model", "what": "name", "at": "at.where", "kind": "kind",
    "unit": "unit", "value": "value", "standard error": "standard_error", "seeds": "n",
}  # fmt: skip
CAPTIONS = 16  # drawn, at most


def draw(data: Data, model: Model, params: bounds.Params, wanted: Evaluation, folder: str) -> None:
    """Writes samples.png: a row of mean images for each caption."""
    if not wanted.sample_grid:
        return
    key = keys.key_for(wanted.seed, Purpose.SAMPLES)
    captions = drawn(data, wanted.captions)
    means = evaluation.sampled(data, model, params, key, captions, wanted.sample_grid)
    pictures = means.reshape(-1, *means.shape[2:]) / (data.problem.levels - 1)
    _save_labeled(folder, pictures, captions)


def drawn(data: Data, captions: tuple[str, ...]) -> list[str]:
    """The captions asked for, or the first of those there are.

    Raises:
      UserError: the model cannot read one of them.
    """
    chosen = list(captions) or list(data.classes[:CAPTIONS])
    data.vocabulary.all_tokens(chosen)
    return chosen


def _save_labeled(folder: str, pictures: np.ndarray, captions: list[str]) -> None:
    count = len(pictures) // len(captions)
    figure, axes = new_figure(len(captions), 1, (0.55 * count + 1.6, 0.6 * len(captions)))
    for place, (caption, axis) in enumerate(zip(captions, np.atleast_1d(axes), strict=True)):
        picture = plots.tile(pictures[place * count : (place + 1) * count], count)
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_ylabel(caption, rotation=0, ha="right", va="center")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set_visible(False)
    plots.save(folder, "samples", figure)


def show(data: Data, rows: list[Row], settings: Dalle, workdir: str) -> None:
    """Prints the table over seeds and writes the figure."""
    summary = [r for r in rows if "point" not in r]
    print(results.table([_placed(r) for r in summary], COLUMNS))
    print(
        f"\n{images.describe(data.problem, settings)}\n"
        "Standard errors are over seeds. Joint bound = reconstruction - D with D = "
        "KL(q || p(z | y)) - log p(y); bits/dim charge the caption to the pixels. Relaxation gap: "
        "what the Gumbel-softmax objective, which is no bound, has over the joint bound."
    )
    if any(r["name"] == "variational gap" for r in summary):
        print(
            "log p(x, y) = joint bound + variational gap. Prior gap: KL(mean of q(z | x) over the "
            "training images of a caption || p(z | y)), what the best prior of these images would "
            "save of their mean D."
        )
    paths = plots.save(workdir, "figure", figure(summary, data, settings))
    results.print_written(workdir, paths)


def _placed(r: Row) -> Row:
    """The row with its temperature, place or number of samples as one text, for the table."""
    where = ", ".join(f"{k}={v}" for k, v in r["at"].items() if k != "model")
    return {**r, "at": {**r["at"], "where": where}}


def figure(summary: list[Row], data: Data, settings: Dalle):
    """The joint bound and its gap, and the use of the codebook, of every model."""
    models = list(settings.models)
    plot, axes = new_figure(1, 4, (14.0, 3.8))
    stack = {"reconstruction": "blue", "KL(q || p(z | y))": "orange", "-log p(y)": "gray"}
    start = np.zeros(len(models))
    for name, color in stack.items():
        sign = -1 if name == "reconstruction" else 1
        heights = np.array([sign * _value(summary, model, name) for model in models])
        axes[0].bar(
            models,
            heights,
            bottom=start,
            color=COLORS[color],
            width=0.6,
            label="-reconstruction" if sign < 0 else name,
        )
        start += heights
    exact = [-_value(summary, model, "log p(x, y)") for model in models]
    if not np.all(np.isnan(exact)):
        axes[0].plot(
            models, exact, ls="none", marker="_", ms=28, color="black", label="-log p(x, y)"
        )
    axes[0].set_ylabel("nats per test image")
    axes[0].margins(y=0.25)  # room for the legend
    axes[0].legend(fontsize=8, loc="upper left")
    for name, color in (("perplexity", "green"), ("codes used", "purple")):
        heights, errors = _with_errors(summary, models, name)
        axes[1].errorbar(
            models,
            heights,
            yerr=errors,
            marker="o",
            ls="none",
            capsize=3,
            color=COLORS[color],
            label=name,
        )
    axes[1].set_ylim(bottom=0)
    axes[1].margins(x=0.2)
    axes[1].set_ylabel("codes")
    axes[1].legend(fontsize=8, loc="lower right")
    for axis, name, label in (
        (axes[2], "information, all places", "information of tokens on images, nats"),
        (axes[3], "caption accuracy", "caption accuracy from tokens"),
    ):
        heights, errors = _with_errors(summary, models, name)
        axis.bar(models, heights, yerr=errors, capsize=3, color=COLORS["sky"], width=0.6)
        axis.set_ylabel(label)
    axes[3].set_ylim(0, 1)
    plot.suptitle(f"{data.problem.dataset.name}, {len(settings.seeds)} seeds")
    return plot


def _with_errors(summary: list[Row], models: list[str], name: str):
    values = [_value(summary, model, name) for model in models]
    return values, [_value(summary, model, name, "standard_error") for model in models]


def _value(summary: list[Row], model: str, name: str, field: str = "value") -> float:
    found = [
        r[field]
        for r in summary
        if r["name"] == name and r["at"].get("model") == model and r["unit"] != "bits/dim"
    ]
    return found[0] if found and found[0] is not None else float("nan")
