"""The headline figure: SNR over K, with error bars, floor and theory."""

from experiments.runtime.plots import COLORS, new_figure
from experiments.runtime.results import Row
from experiments.snr.figure import finish, floor_line, plot_points, theory_line, with_slope
from experiments.snr.settings import Gaussian

IWAE = [
    ("theta pathwise", "blue", r"$\theta$, IWAE", "o"),
    ("phi dreg", "green", r"$\phi$, DReG", "s"),
    ("phi stl", "orange", r"$\phi$, STL (biased for K > 1)", "^"),
    ("phi pathwise", "purple", r"$\phi$, IWAE: plain, bias removed", "x"),
    ("phi ovis", "sky", r"$\phi$, OVIS", "v"),
    ("phi left sum", "gray", r"$\phi$, left sum, pathwise", "o"),
    ("phi tvo", "gray", r"$\phi$, TVO (biased)", "<"),
    ("phi dreg mean / pathwise sd", "red", r"$\phi$, IWAE: DReG mean / pathwise sd", "o"),
]
ELBO = [
    ("theta elbo", "blue", r"$\theta$", "o"),
    ("phi elbo", "red", r"$\phi$", "o"),
    ("phi rloo", "green", r"$\phi$, leave-one-out", "s"),
]


def draw(settings: Gaussian, rows: list[Row], summary: list[Row]):
    """Two panels: estimators of the IWAE gradient over K, the ELBO over M."""
    columns = 2 if settings.elbo else 1
    figure, panels = new_figure(1, columns, (5.5 * columns + 0.5, 6.4), squeeze=False, sharey=True)
    slopes = {r["name"].removeprefix("slope of "): r for r in summary}
    titles = ("IWAE-K and its cures", "ELBO averaged over M draws (any average gives +1/2)")
    # Without the ELBO there is one panel.
    for axes, axis, series, title in zip(panels[0], "KM", (IWAE, ELBO), titles, strict=False):
        shown = []
        for name, color, label, marker in series:
            own = [r for r in rows if r["name"] == name and axis in r["at"]]
            if not own:
                continue
            shown += own
            label = with_slope(label, slopes.get(name))
            plot_points(axes, own, axis, COLORS[color], label, marker)
            if settings.fit.slopes and name != "phi pathwise":
                theory_line(axes, own, axis, COLORS[color])
        floor_line(axes, rows)
        finish(axes, shown, f"samples {axis}", theory=settings.fit.slopes and axis == "K")
        axes.set_title(title, fontsize=10)
    panels[0][0].set_ylabel("signal-to-noise ratio (RMS over entries)")
    figure.suptitle(
        f"Gaussian toy of Rainforth et al. 2018, perturbation {settings.toy.perturbation:g}: "
        f"{settings.replicates.number:,} gradients at one datum, 95% intervals"
    )
    return figure
