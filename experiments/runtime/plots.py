"""Figures: one look for every program, written as PNG and SVG."""

import io
import math
import os
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")  # no display is needed, or looked for
import matplotlib.pyplot as plt

from experiments.runtime.results import write_atomically

# Okabe & Ito's palette, told apart by colour-blind readers.
COLORS = {
    "blue": "#0072B2",
    "red": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "orange": "#E69F00",
    "gray": "#7F7F7F",
}
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "variational-bounds",  # the same figure is the same file
}


def new_figure(rows: int, columns: int, size: tuple[float, float], **kwargs: Any):
    """A figure and its axes in the project's style."""
    plt.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=size, layout="constrained", **kwargs)


def error_points(axes, rows, axis: str, color: Any, label: str | None = None, **kwargs: Any):
    """Points with 95% intervals from rows; a value of zero has only its upper end."""
    rows = [r for r in rows if r["value"] is not None]
    x = [r["at"][axis] for r in rows]
    # On a log axis an estimate cut off at 0 is drawn at the upper end, as an arrow down.
    seen = [r["value"] > 0 for r in rows]
    points = [(a, r) for a, r, s in zip(x, rows, seen, strict=True) if s]
    if points:
        values = [r["value"] for _, r in points]
        below = [r["value"] - (r["low"] if r["low"] > 0 else 0) for _, r in points]
        above = [r["high"] - r["value"] for _, r in points]
        axes.errorbar(
            [a for a, _ in points],
            values,
            yerr=[below, above],
            color=color,
            label=label,
            capsize=2,
            **{"marker": "o", "ms": 4, "ls": "none", "lw": 1.2, **kwargs},
        )
    hidden = [(a, r["high"]) for a, r, s in zip(x, rows, seen, strict=True) if not s and r["high"]]
    if hidden:
        axes.plot(*zip(*hidden, strict=True), color=color, marker="v", ls="none", mfc="none", ms=5)


def save(workdir: str, name: str, figure) -> list[str]:
    """Writes NAME.png and NAME.svg; returns their paths."""
    paths = []
    for suffix in ("png", "svg"):
        buffer = io.BytesIO()
        metadata = {"Date": None} if suffix == "svg" else None
        figure.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
        paths.append(os.path.join(workdir, f"{name}.{suffix}"))
        write_atomically(paths[-1], buffer.getvalue())
    plt.close(figure)
    return paths


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Images [N, height, width] (or with channels) as one picture, a pixel of white between them.

    A single channel is grey. What lies outside [0, 1] is cut off.
    """
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    images = np.clip(images, 0, 1)
    missing = -len(images) % columns
    images = np.concatenate([images, np.ones((missing, *images.shape[1:]))])
    border = [(0, 0), (0, 1), (0, 1)] + [(0, 0)] * (images.ndim - 3)
    images = np.pad(images, border, constant_values=1.0)
    _, height, width, *channels = images.shape
    rows = images.reshape(-1, columns, height, width, *channels)
    return np.moveaxis(rows, 2, 1).reshape(-1, columns * width, *channels)


def save_grid(workdir: str, name: str, images: np.ndarray) -> None:
    """Writes NAME.png, as many images beside each other as below each other or one more."""
    save_image(workdir, name, tile(images, math.isqrt(len(images) - 1) + 1))


def save_image(workdir: str, name: str, picture: np.ndarray, *, least: int = 600) -> str:
    """Writes NAME.png from values in [0, 1]; each pixel becomes a square, none is smoothed.

    Args:
      workdir: the folder.
      name: without its suffix.
      picture: [height, width] or [height, width, 3].
      least: height in pixels that the file reaches at least.

    Returns:
      The path.
    """
    factor = -(-least // picture.shape[0])
    enlarged = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    buffer = io.BytesIO()
    plt.imsave(buffer, enlarged, cmap="gray", vmin=0, vmax=1, format="png")
    path = os.path.join(workdir, f"{name}.png")
    write_atomically(path, buffer.getvalue())
    return path
