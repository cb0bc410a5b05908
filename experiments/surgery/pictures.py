"""Figures of a surgery."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.lines import Line2D

import bounds
from experiments.runtime.compiling import precise
from experiments.runtime.plots import COLORS, new_figure
from experiments.runtime.results import Row
from experiments.surgery.decomposition import (
    AVERAGE_KL,
    DIMENSION_WISE,
    INFORMATION,
    MARGINAL_KL,
    OF_DIMENSION,
    TOTAL_CORRELATION,
    WHEN,
)
from experiments.surgery.two_dimensions import DIVERGENCE, MASS, Plane

_NODES = 161
# Colours of the two terms of the average KL, I and the marginal KL.
_INFORMATION, _MARGINAL = COLORS["blue"], COLORS["orange"]
_DENSITY = "Blues"
# Levels relative to the highest density: of filled areas, white below the first; of contours.
_SHARES = np.array([0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
_HEIGHTS = (0.01, 0.1, 0.3, 0.6, 0.9)


def surgery(
    rows: list[Row], densities: dict[str, bounds.surgery.GaussianPosteriors], title: str
) -> Any:
    """One row of panels for each model.

    Args:
      rows: of the record.
      densities: model -> posteriors of its training images.
      title: of the figure.
    """
    count = len(densities)
    figure, grid = new_figure(count, 4, (16.0, 3.5 * count + 0.5), squeeze=False)
    top = {"bars": 0.0, "lines": 0.0, "stack": 0.0}
    for axes, (name, posteriors) in zip(grid, densities.items(), strict=True):
        of_model = [r for r in rows if r["at"].get("model") == name]
        _aggregated(axes[0], posteriors, name)
        top["bars"] = max(top["bars"], _dimensions(axes[1], of_model))
        top["lines"] = max(top["lines"], _training(axes[2], of_model))
        top["stack"] = max(top["stack"], _before_and_after(axes[3], of_model))
    for axes in grid:  # models are compared by eye
        axes[1].set_ylim(0, 1.05 * top["bars"])
        axes[2].set_ylim(0, 1.25 * top["lines"])  # room for the legends
        axes[3].set_ylim(0, 1.25 * top["stack"])
    for axis in grid[0, 1:]:
        axis.legend(fontsize=8, loc="upper right", ncols=1 if axis is grid[0, 1] else 2)
    figure.suptitle(title)
    return figure


def _aggregated(axis, posteriors: bounds.surgery.GaussianPosteriors, name: str) -> None:
    """The aggregated posterior of the two dimensions whose means vary most."""
    variances = np.asarray(posteriors.mean).var(axis=0)
    chosen = np.sort(np.argsort(variances)[::-1][:2])
    if len(chosen) < 2:
        axis.set_axis_off()
        return
    pair = jax.tree.map(lambda leaf: np.asarray(leaf)[:, chosen], posteriors)
    reach = max(3.5, 1.02 * float(np.quantile(np.abs(pair.mean), 0.999)))
    nodes = np.linspace(-reach, reach, _NODES)
    z = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2).astype(pair.mean.dtype)
    density = np.exp(_log_density(pair, z)).reshape(_NODES, _NODES)
    shown = axis.contourf(nodes, nodes, density, levels=_SHARES * density.max(), cmap=_DENSITY)
    axis.figure.colorbar(shown, ax=axis, shrink=0.85, format="%.3f", label="density of q(z)")
    prior = np.exp(-0.5 * (nodes[:, None] ** 2 + nodes**2))
    axis.contour(
        nodes,
        nodes,
        prior,
        levels=np.exp([-4.5, -2.0, -0.5]),
        colors=COLORS["red"],
        linewidths=1.2,
        linestyles="--",
    )
    axis.plot([], [], color=COLORS["red"], ls="--", label="p(z): 1, 2, 3 sd")
    axis.legend(fontsize=8, loc="upper left")
    axis.set_aspect("equal")
    axis.set_xlabel(f"$z_{{{chosen[0] + 1}}}$")
    axis.set_ylabel(f"$z_{{{chosen[1] + 1}}}$")
    axis.set_title(f"{name}: aggregated posterior")


def _log_density(posteriors: bounds.surgery.GaussianPosteriors, z: np.ndarray) -> np.ndarray:
    @jax.jit
    @precise
    def run(posteriors, z):
        def one(z):
            return bounds.surgery.aggregated_log_prob(z, posteriors, chunk_size=500).joint

        return jax.lax.map(one, z, batch_size=200)

    return np.asarray(run(jax.tree.map(jnp.asarray, posteriors), z), np.float64)


def _dimensions(axis, rows: list[Row]) -> float:
    """Bars of every dimension, the largest first; returns the height of the largest."""
    average, information, marginal = (_by_dimension(rows, name) for name in OF_DIMENSION)
    order = np.argsort(average)[::-1]
    places = np.arange(len(order))
    axis.bar(places, information[order], color=_INFORMATION, label="$I$ of the dimension")
    axis.bar(
        places,
        marginal[order],
        bottom=np.maximum(information[order], 0),
        color=_MARGINAL,
        label=r"KL$(q(z_d) \,\|\, p(z_d))$",
    )
    labels = [str(d + 1) for d in order]
    axis.set_xticks(
        places, labels, fontsize=9 if len(labels) <= 10 else 6.5 if len(labels) <= 25 else 4
    )
    axis.set_xlabel("dimension, by its average KL")
    axis.set_ylabel("nats")
    axis.set_title("average KL of each dimension")
    axis.grid(visible=False, axis="x")
    return float(average.max())


def _training(axis, rows: list[Row]) -> float:
    """I, marginal KL and average KL at every checkpoint; returns the height of the highest."""
    lines = {
        AVERAGE_KL: ("average KL", COLORS["gray"], "s"),
        INFORMATION: ("$I$", _INFORMATION, "o"),
        MARGINAL_KL: ("marginal KL", _MARGINAL, "^"),
    }
    for name, (label, color, marker) in lines.items():
        found = sorted(
            (r for r in rows if r["name"] == name and "step" in r["at"]),
            key=lambda r: r["at"]["step"],
        )
        axis.errorbar(
            [r["at"]["step"] for r in found],
            [r["value"] for r in found],
            yerr=[1.96 * (r["standard_error"] or 0.0) for r in found],
            color=color,
            marker=marker,
            ms=4,
            lw=1.2,
            capsize=2,
            label=label,
        )
    ceiling = next(r["log_n"] for r in rows if r["name"] == INFORMATION)
    axis.axhline(ceiling, color="black", ls=":", lw=1.2, label=rf"$\log N = {ceiling:.2f}$")
    axis.set_xlabel("step of training")
    axis.set_ylabel("nats per image")
    axis.set_title("over training")
    return max(ceiling, *(r["value"] for r in rows if "step" in r["at"] and r["unit"] == "nats"))


def _before_and_after(axis, rows: list[Row]) -> float:
    """I + total correlation + dimension-wise KL, stacked to the average KL; returns its height."""
    stack = {
        INFORMATION: ("$I$", _INFORMATION),
        TOTAL_CORRELATION: ("total correlation", COLORS["green"]),
        DIMENSION_WISE: ("dimension-wise KL", _MARGINAL),
    }
    bottom = np.zeros(len(WHEN))
    for name, (label, color) in stack.items():
        heights = np.array([_value(rows, name, when) for when in WHEN])
        axis.bar(WHEN, heights, bottom=bottom, color=color, width=0.55, label=label)
        for place, (height, start) in enumerate(zip(heights, bottom, strict=True)):
            if height > 0.6:
                axis.text(
                    place,
                    start + height / 2,
                    f"{height:.2f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white",
                )
        bottom = bottom + heights
    whole = [_value(rows, AVERAGE_KL, when) for when in WHEN]
    axis.hlines(whole, (-0.34, 0.66), (0.34, 1.34), color="black", lw=1.5, label="average KL")
    axis.margins(x=0.15)
    axis.set_ylabel("nats per image")
    axis.set_title("before and after training")
    axis.grid(visible=False, axis="x")
    return max(whole)


def _by_dimension(rows: list[Row], name: str) -> np.ndarray:
    found = {
        r["at"]["dimension"]: r["value"]
        for r in rows
        if r["name"] == name and r["at"].get("when") == "after"
    }
    return np.array([found[d] for d in sorted(found)])


def _value(rows: list[Row], name: str, when: str) -> float:
    return next(r["value"] for r in rows if r["name"] == name and r["at"].get("when") == when)


def posteriors(plane: Plane, rows: list[Row], picture: np.ndarray, title: str) -> Any:
    """q, q_EW for every K, the posterior, and resampled draws, in one plane.

    Args:
      plane: the densities.
      rows: of the same, for their distance from the posterior.
      picture: the image, [height, width] in [0, 1].
      title: of the figure.
    """
    distances, masses = (
        {r["at"]["K"]: r["value"] for r in rows if r["name"] == name} for name in (DIVERGENCE, MASS)
    )
    notes = {
        k: f"\nKL to the posterior {distances[k]:.3f}, mass on the grid {masses[k]:.3f}"
        for k in distances
    }
    panels = [("$q(z|x)$, the encoder", plane.log_q, notes[1])]
    for num_samples, blocks in plane.log_kept.items():
        log_density = np.logaddexp.reduce(blocks, axis=0) - np.log(len(blocks))
        name = rf"$q_{{EW}}(z|x)$, $K = {num_samples}$"
        panels.append((name, log_density, notes[num_samples]))
    panels.append(("$p(z|x)$, the posterior", plane.log_posterior, ""))
    columns = -(-(len(panels) + 1) // 2)
    figure, grid = new_figure(
        2, columns, (4.0 * columns + 0.9, 8.4), squeeze=False, sharex=True, sharey=True
    )
    axes = list(grid.flat)
    posterior = np.exp(plane.log_posterior)
    shown: Any = None
    for axis, (name, log_density, note) in zip(axes, panels, strict=False):
        share = np.exp(log_density - log_density.max())
        shown = axis.contourf(*plane.axes, share, levels=_SHARES, cmap=_DENSITY)
        _outline(axis, plane, posterior)
        axis.set_title(name + note, fontsize=10)
    last = axes[len(panels)]
    _outline(last, plane, posterior)
    last.plot(*plane.resampled.T, ls="none", marker=".", ms=3, color=COLORS["blue"], alpha=0.6)
    last.set_title(
        f"{len(plane.resampled)} draws, each kept by its weight\n"
        f"out of $K = {max(plane.log_kept)}$ of the encoder",
        fontsize=10,
    )
    center, half = _shown(plane)
    for axis in axes:
        axis.set_aspect("equal")
        axis.grid(visible=False)
        axis.set_xlim(center[0] - half, center[0] + half)
        axis.set_ylim(center[1] - half, center[1] + half)
    for axis in axes[len(panels) + 1 :]:
        axis.set_axis_off()
    for axis in grid[-1]:
        axis.set_xlabel("$z_1$")
    for axis in grid[:, 0]:
        axis.set_ylabel("$z_2$")
    inset = axes[0].inset_axes((0.02, 0.72, 0.26, 0.26))
    inset.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    inset.set_xticks([])
    inset.set_yticks([])
    inset.grid(visible=False)
    figure.colorbar(shown, ax=grid, shrink=0.6, label="density, as a share of its highest value")
    line = Line2D([], [], color=COLORS["red"], lw=1.0, label="contours of $p(z|x)$")
    axes[0].legend(handles=[line], fontsize=8, loc="lower left")
    figure.suptitle(title)
    return figure


def _shown(plane: Plane) -> tuple[np.ndarray, float]:
    """Centre and half the side of the square that holds what is coloured of q and the posterior."""
    corners = []
    for log_density in (plane.log_q, plane.log_joint):
        above = log_density > log_density.max() + np.log(_SHARES[0])
        for axis, other in zip(plane.axes, (0, 1), strict=True):
            corners.append(axis[above.any(axis=other)][[0, -1]])
    first, second = np.array(corners[0::2]), np.array(corners[1::2])
    low, high = (np.array([f(first), f(second)]) for f in (np.min, np.max))
    return (low + high) / 2, float(0.56 * np.max(high - low))


def _outline(axis, plane: Plane, density: np.ndarray) -> None:
    levels = np.array(_HEIGHTS) * density.max()
    axis.contour(*plane.axes, density, levels=levels, colors=COLORS["red"], linewidths=0.9)
