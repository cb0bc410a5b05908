"""What the figures of the three problems share."""

from typing import Any

from experiments.runtime.plots import COLORS, error_points
from experiments.runtime.results import Row

PRE_ASYMPTOTIC = 0.1


def plot_points(
    axes, rows: list[Row], axis: str, color: Any, label: str, marker: str = "o"
) -> None:
    """Points with intervals; hollow where ESS/K says that K is not yet asymptotic."""
    axes.plot([], [], marker=marker, color=color, ls="none", label=label)
    for hollow in (False, True):
        part = [r for r in rows if is_pre_asymptotic(r) == hollow]
        face = {"mfc": "none"} if hollow else {}
        error_points(axes, part, axis, color, marker=marker, **face)


def is_pre_asymptotic(row: Row) -> bool:
    """Whether ESS/K is below 0.1; rows without weights never are."""
    ess = row.get("ess_per_sample")
    return ess is not None and ess < PRE_ASYMPTOTIC


def floor_line(axes, rows: list[Row]) -> None:
    """The level under which the plain estimate carries no information."""
    floor = next(r["floor"] for r in rows if "floor" in r)
    label = r"floor of the plain estimate, $\sqrt{2/\pi R}$"
    axes.axhline(floor, color=COLORS["gray"], lw=1, ls=":", label=label)


def theory_line(axes, rows: list[Row], axis: str, color: Any) -> None:
    """The closed form, where every row has one."""
    if rows and all(r.get("theory") for r in rows):
        x = [r["at"][axis] for r in rows]
        axes.plot(x, [r["theory"] for r in rows], color=color, lw=1, ls="--")


def finish(axes, rows: list[Row], xlabel: str, *, theory: bool = False) -> None:
    """Log axes, and the legend below them where it hides no point."""
    if theory:
        axes.plot([], [], color="black", lw=1, ls="--", label="closed form, leading order in K")
    if any(is_pre_asymptotic(r) for r in rows):
        label = f"hollow: ESS/K < {PRE_ASYMPTOTIC}, pre-asymptotic"
        axes.plot([], [], "o", color="black", mfc="none", label=label)
    axes.set(xscale="log", yscale="log", xlabel=xlabel)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13))


def with_slope(label: str, slope: Row | None) -> str:
    """The label with its fitted exponent and half the width of the interval."""
    if slope is None or slope["low"] is None or slope["high"] is None:
        return label
    return f"{label}: slope {slope['value']:+.3f} ± {(slope['high'] - slope['low']) / 2:.3f}"
