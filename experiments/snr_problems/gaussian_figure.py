"""The headline figure: SNR over K, with error bars, floor and theory."""

from typing import Any

from experiments.runtime.plots import COLOURS, error_points, new_figure
from experiments.runtime.results import Row


def draw(config: Any, rows: list[Row], summary: list[Row]):
    """Two panels: IWAE and its cures over K, the ELBO over M."""
    figure, panels = new_figure(1, 2 if config.elbo else 1, (11 if config.elbo else 6.5, 5.2),
                                squeeze=False, sharey=True)  # fmt: skip
    slopes = {r["name"].removeprefix("slope of "): r for r in summary}
    left = panels[0][0]
    series = [
        ("theta pathwise", "blue", r"$\theta$, IWAE", {"marker": "o"}),
        ("phi dreg", "green", r"$\phi$, DReG", {"marker": "s"}),
        ("phi stl", "orange", r"$\phi$, STL (biased for K > 1)", {"marker": "^"}),
        ("phi dreg mean / pathwise sd", "red", r"$\phi$, IWAE: DReG mean / pathwise sd", {}),
        ("phi pathwise", "purple", r"$\phi$, IWAE: plain, bias removed", {"marker": "x"}),
    ]
    for name, colour, label, style in series:
        own = [r for r in rows if r["name"] == name]
        if not own:
            continue
        error_points(left, own, "K", COLOURS[colour], _with_slope(label, slopes.get(name)), **style)
        if config.fit and name != "phi pathwise" and all(r["theory"] for r in own):
            x = [r["at"]["K"] for r in own]
            left.plot(x, [r["theory"] for r in own], color=COLOURS[colour], lw=1, ls="--")
    _frame(left, "samples K", rows, config)
    left.set_ylabel("signal-to-noise ratio (RMS over entries)")
    left.set_title(f"IWAE-K, {config.case} case")
    if config.elbo:
        right = panels[0][1]
        for name, colour, label in (
            ("theta elbo", "blue", r"$\theta$"),
            ("phi elbo", "red", r"$\phi$"),
        ):
            own = [r for r in rows if r["name"] == name]
            label = _with_slope(label, slopes.get(name))
            error_points(right, own, "M", COLOURS[colour], label)
        _frame(right, "samples M", rows, config)
        right.set_title("ELBO averaged over M (any average gives +1/2)")
    return figure


def _with_slope(label: str, slope: Row | None) -> str:
    if slope is None:
        return label
    half = (slope["high"] - slope["low"]) / 2
    return f"{label}: slope {slope['value']:+.3f} ± {half:.3f}"


def _frame(axes, xlabel: str, rows: list[Row], config: Any) -> None:
    floor = next(r["floor"] for r in rows if "floor" in r)
    axes.axhline(floor, color=COLOURS["grey"], lw=1, ls=":")
    axes.text(1, floor * 1.05, r" floor of the plain estimate $\sqrt{2/\pi R}$",
              color=COLOURS["grey"], fontsize=8, va="bottom")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(xlabel)
    if config.fit and xlabel.endswith("K"):
        axes.plot([], [], color="black", lw=1, ls="--", label="closed form, leading order in K")
    axes.legend(fontsize=8, loc="best")
