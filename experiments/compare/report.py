"""What a comparison shows: the table, the figure and the page."""

import itertools
import os
import pathlib
from typing import Any

import numpy as np

from experiments.compare import consistency
from experiments.compare.page import Column, page
from experiments.runtime import cluster, plots, results
from experiments.runtime.plots import COLORS, new_figure
from experiments.runtime.results import Row

PAGE = "index.html"
TABLE = {
    "": "at.family", "model": "at.model", "bound": "name", "kind": "kind", "bits/dim": "value",
    "standard error": "standard_error", "above exact": "above_exact", "parameters": "parameters",
    "training, s": "training_seconds", "s/image": "seconds_per_image",
}  # fmt: skip
COLUMNS = (
    Column("family", "family", "What kind of model it is."),
    Column("model", "model", "Its name in the config; of a VAE, the objective and K it was "
           "trained with."),
    Column("bound", "bound", "How log P(x) was bounded or computed."),
    Column("kind", "kind", "What the number is to the model's true bits/dim. A lower bound on "
           "log P(x) is an upper bound here."),
    Column("value", "bits/dim", "-log2 P(x) per pixel, averaged over the test images.", True, 4),
    Column("standard_error", "standard error", "Of that average.", True, 4),
    Column("over", "over", "What the standard error is over: test images, or seeds of training."),
    Column("n", "n", "How many of them.", True),
    Column("above_exact", "above exact", "The gap of a bound to the exact value of the same model, "
           "image by image.", True, 4),
    Column("parameters", "parameters", "Numbers that were trained.", True),
    Column("training_seconds", "training,\u00a0s", "Seconds of training one model on the machine "
           "below, without noise fitted afterwards.", True, 0),
    Column("seconds_per_image", "evaluation, s/image", "Seconds an image of the pass that gave the "
           "number, compilation included; rows of one pass share it.", True),
)  # fmt: skip
LINE = 0.17  # inches that a line of a legend takes
_MARKERS = {"exact": ("D", "green"), "upper_bound": ("<", "red"), "lower_bound": (">", "blue")}
_WORDS = {
    "exact": "exact", "upper_bound": "upper bound: the truth is to the left",
    "lower_bound": "lower bound: the truth is to the right",
}  # fmt: skip


def show(record: dict[str, Any], dataset: str, workdir: str) -> None:
    """Prints the table, writes the figure and the page."""
    rows = record["rows"]
    print(results.table(rows, TABLE))
    notes = [describe(rows, dataset), *checked(rows)]
    print("\n" + "\n".join(notes))
    paths = plots.save(workdir, "figure", figure(rows, dataset))
    svg = cluster.on_first(pathlib.Path(next(p for p in paths if p.endswith(".svg"))).read_text)
    text = page(
        title="Lower bounds on log-likelihood, side by side",
        lead=f"Every family of bounds on {dataset}, in bits per dimension. Each number says "
        "whether it is exact or a bound, and how far it can be trusted. A lower bound on log P(x) "
        "is an upper bound in bits/dim: smaller is better, and the truth of that model is smaller "
        "still.",
        columns=COLUMNS,
        rows=[
            {**r, "family": r["at"]["family"], "model": r["at"]["model"], "bound": r["name"]}
            for r in rows
        ],
        figure_svg=svg,
        figure_alt="Left: bits/dim of every row of the table with 95% intervals. Right: the same "
        "for bounds that take K samples, over K.",
        notes=notes,
        environment={k: str(v) for k, v in record["environment"].items()},
    )
    path = os.path.join(workdir, PAGE)
    results.write_atomically(path, text.encode())
    results.print_written(workdir, [*paths, path])


def describe(rows: list[Row], dataset: str) -> str:
    """What the numbers are of."""
    counts = sorted(
        {r["n"] for r in rows if r["over"] == "images" and r.get("data") != "simulated"}
    )
    simulated = (
        " Rows of simulated data are of images drawn from the VAE, where AIS runs both ways: an "
        "upper and a lower bound on the same log P(x)."
    ) * any(r.get("data") == "simulated" for r in rows)
    images = f"{' or '.join(f'{c:,}' for c in counts)} test images" if counts else "test images"
    return (
        f"{dataset}: {images}; standard errors over images, or over seeds where a row says "
        "so. Bounds hold in expectation over their own draws." + simulated
    )


def checked(rows: list[Row]) -> list[str]:
    """One sentence on bounds beside exact values and opposite bounds of the same model."""
    count = len(consistency.pairs(rows))
    if not count:
        return []
    wrong = len(consistency.contradictions(rows))
    return [
        f"{count} pairs of a bound and an exact value, or an opposite bound, of the same model and "
        f"data: {wrong} contradict each other by more than {consistency.TOLERANCE:g} standard "
        "errors."
    ]


def figure(rows: list[Row], dataset: str):
    """Left every row, right bounds over the number of samples."""
    shown = [r for r in rows if r["value"] is not None]
    height = max(4.5, 0.24 * len(shown) + 1.4)
    plot, axes = new_figure(1, 2, (13, height), width_ratios=(1.5, 1))
    _every_row(axes[0], shown)
    _over_samples(axes[1], [r for r in shown if r.get("data") != "simulated"])
    entries = max(_legend_below(axis) for axis in axes)
    plot.set_figheight(height + LINE * entries)
    plot.suptitle(f"Bounds on log P(x), {dataset}")
    return plot


def _every_row(axes, rows: list[Row]) -> None:
    used = set()
    for place, r in enumerate(rows):
        marker, color = _MARKERS[r["kind"]]
        axes.errorbar(
            r["value"],
            place,
            xerr=1.96 * (r["standard_error"] or 0.0),
            marker=marker,
            ms=6,
            color=COLORS[color],
            capsize=2,
            ls="none",
            label=_WORDS[r["kind"]] if r["kind"] not in used else None,
        )
        used.add(r["kind"])
    labels = [f"{r['at']['family']} {r['at']['model']}: {r['name']}" for r in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    for place, (first, second) in enumerate(itertools.pairwise(rows)):
        if first["at"]["family"] != second["at"]["family"]:
            axes.axhline(place + 0.5, color=COLORS["gray"], lw=0.6)
    axes.invert_yaxis()
    axes.margins(y=0.02)
    axes.set_xlabel("bits/dim (95% intervals)")


def _legend_below(axes) -> int:
    """A legend under the title of the x axis, where it hides nothing; how many lines it has."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        # In points (times the font's size), as the tick labels and the title above it are.
        axes.legend(
            handles,
            labels,
            fontsize=8,
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            borderaxespad=5.5,
        )
    return len(handles)


def _over_samples(axes, rows: list[Row]) -> None:
    """Bounds over K (of a VAE) or k (of noise) samples, and exact values as horizontal lines."""
    series: dict[tuple[Any, ...], list[tuple[int, Row]]] = {}
    for r in rows:
        at = r["at"]
        count = at.get("K", at.get("k"))
        if count is None or "T" in at:
            continue
        key = (at["family"], at["model"], at.get("noise"), at.get("alpha", 0.0))
        series.setdefault(key, []).append((count, r))
    for key, points in series.items():
        if key[3]:  # at K = 1 it is the ELBO, whose row is that of alpha = 0
            points += [p for p in series.get((*key[:3], 0.0), []) if p[0] == 1]
        points.sort(key=lambda p: p[0])
    looks = zip(itertools.cycle(COLORS.values()), itertools.cycle("os^v"), strict=False)
    for (family, model, noise, alpha), points in series.items():
        if len(points) < 2:
            continue
        label = f"{family} {model}" + (f", {noise} noise" if noise not in (None, "None") else "")
        label += f", alpha = {alpha:g}" if alpha else ""
        values = np.array([[k, r["value"], r["standard_error"] or 0.0] for k, r in points]).T
        color, marker = next(looks)
        axes.errorbar(
            values[0],
            values[1],
            yerr=1.96 * values[2],
            color=color,
            marker=marker,
            ms=4,
            lw=1.2,
            capsize=2,
            label=label,
        )
    # Named in the legend: labels beside exact values that lie close together would overlap.
    looks = zip(
        itertools.cycle(reversed(COLORS.values())), itertools.cycle((":", "--", "-.")), strict=False
    )
    for r in rows:
        if r["kind"] == "exact":
            color, dashes = next(looks)
            label = f"{r['at']['family']} {r['at']['model']}, exact"
            axes.axhline(r["value"], color=color, ls=dashes, lw=1.4, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("samples of the bound, K")
    axes.set_ylabel("bits/dim")
