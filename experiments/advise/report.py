"""Tables, sentences and the figure of `experiments.advise`, made from its rows alone."""

import math
from typing import Any

from experiments.advise import rows as made
from experiments.advise.settings import Advise
from experiments.runtime.plots import COLORS, new_figure
from experiments.runtime.results import Row, table

COLUMNS = {
    "bound": "at.bound", "estimator": "at.estimator", "K": "at.K", "SNR theta": "theta",
    "SNR phi": "phi", "bias phi": "bias", "of": "length", "ms": "ms", "MFLOP": "mflop",
    "SNR^2/s theta": "rate theta", "SNR^2/s phi": "rate phi",
}  # fmt: skip
LINES = {
    "stl": ("green", "^"), "dreg": ("green", "s"), "pathwise": ("red", "o"),
    "piwae": ("red", "P"), "rloo": ("blue", "o"), "reinforce": ("gray", "x"),
    "vimco": ("purple", "D"), "ovis": ("sky", "v"), "ovis, gamma 1": ("sky", "<"),
    "disarm": ("orange", "D"), "rws": ("orange", "o"), "tvo": ("orange", "s"),
}  # fmt: skip
CAUTION = (
    "SNR: norm of the expected gradient over the root of its summed variance, at a fixed batch. "
    "Within one bound\nand K the larger SNR^2 per second is the better estimator; across them it "
    "does not say which bound is tighter."
)
BOUNDS = ("elbo", "iwae", "thermodynamic")


def text(rows: list[Row]) -> str:
    """Everything in words."""
    lines: list[str] = []
    for model in dict.fromkeys(r["at"]["model"] for r in rows):
        own = [r for r in rows if r["at"]["model"] == model]
        lines += [f"\n{model}", "=" * len(model)]
        lines += [
            f"{r['name']}: {r['failure']}"
            for r in own
            if "estimator" not in r["at"] and "failure" in r
        ]
        found = cells(own)
        if found:
            lines += [table(found, COLUMNS), ""]
        lines += [r["why"] for r in own if r["name"] == made.CHOICE]
        lines += [
            f"not tried: {r['at']['estimator']}: {r['failure']}"
            for r in own
            if r["name"] == made.REFUSED and "estimator" in r["at"]
        ]
        lines += [f"{r['value']:.0f} s" for r in own if r["name"] == made.SPENT]
        for part, columns in (("check", CHECK), ("chains", CHAINS)):
            of_part = [r for r in own if r["part"] == part]
            if of_part:
                lines += ["", table(of_part, columns)]
    return "\n".join([*lines, "", CAUTION])


CHECK = {
    "training": "name", "estimator": "at.estimator", "K": "at.K", "value": "value",
    "SE": "standard_error", "unit": "unit", "seeds": "n",
}  # fmt: skip
CHAINS = {
    "value": "name", "gradients": "at.gradients", "bridges": "at.bridges", "chains": "at.chains",
    "nats": "value", "SE": "standard_error", "images": "n",
}  # fmt: skip


def cells(rows: list[Row]) -> list[dict[str, Any]]:
    """A line for each estimator at K, of both parts of its gradient."""
    lines: dict[tuple, dict[str, Any]] = {}
    for r in rows:
        if r["name"] not in (made.SNR, made.BIAS):
            continue
        at, of = r["at"], r["at"]["of"]
        line = lines.setdefault((at["bound"], at["estimator"], at["K"]), {"at": at})
        line |= {"ms": 1e3 * r["seconds"], "mflop": 1e-6 * r["flops"] if r["flops"] else None}
        if r["name"] == made.BIAS:
            line |= {"bias": r["value"], "length": r["reference"]}
        else:
            line |= {of: r["value"], f"rate {of}": rate(r)}
    return list(lines.values())


def rate(r: Row) -> float:
    """The squared ratio per second, of a row of a ratio."""
    # A gradient without noise has an infinite ratio, which no row holds.
    return math.inf if r["value"] is None else r["value"] ** 2 / r["seconds"]


def draw(rows: list[Row], asked: Advise):
    """Squared SNR of phi per second over K: a panel for each model and bound."""
    own = [r for r in rows if r["name"] == made.SNR and r["at"]["of"] == "phi"]
    models = list(dict.fromkeys(r["at"]["model"] for r in own)) or [""]
    figure, panels = new_figure(
        len(models), len(BOUNDS), (9, 2.1 * len(models) + 0.8), squeeze=False
    )
    for model, of_model in zip(models, panels, strict=True):
        for bound, axes in zip(BOUNDS, of_model, strict=True):
            here = [r for r in own if (r["at"]["model"], r["at"]["bound"]) == (model, bound)]
            for name, (color, marker) in LINES.items():
                line = [r for r in here if r["at"]["estimator"] == name and (r["value"] or 0) > 0]
                if not line:
                    continue
                biased = any(
                    b["name"] == made.BIAS and {**b["at"], "K": 0} == {**line[0]["at"], "K": 0}
                    for b in rows
                )
                axes.plot(
                    [r["at"]["K"] for r in line], [rate(r) for r in line], marker=marker, ms=4,
                    lw=1, color=COLORS[color], ls=":" if biased else "-",
                    mfc="none" if biased else None,
                )  # fmt: skip
            if not here:
                axes.set_axis_off()
                continue
            counts = sorted({r["at"]["K"] for r in here})
            axes.set(xscale="log", yscale="log", xticks=counts, xticklabels=counts)
            axes.minorticks_off()
            # What is more than four decades below the best only presses the others together.
            axes.set_ylim(bottom=max(map(rate, here)) * 1e-4)
            axes.set_title(f"{model}: {bound}", fontsize=9)
    for axes in panels[:, 0]:
        axes.set_ylabel("SNR$^2$ of $\\phi$ per second")
    for axes in panels[-1]:
        axes.set_xlabel("samples K")
    shown = {r["at"]["estimator"] for r in own}
    for name, (color, marker) in LINES.items():
        if name in shown:
            panels[0, 0].plot([], [], color=COLORS[color], marker=marker, ms=4, lw=1, label=name)
    panels[0, 0].plot([], [], color="black", ls=":", marker="o", mfc="none", label="biased")
    figure.legend(loc="outside lower center", ncols=7, fontsize=8)
    figure.suptitle(
        f"{asked.advice.num_replicates:,} gradients of batches of {asked.advice.num_data}; compare "
        "lines within a panel at one K"
    )
    return figure
