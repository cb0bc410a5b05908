"""Pictures of a training run: grids of images and curves."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array

import bounds
from experiments.runtime.plots import COLORS, new_figure, tile
from experiments.vae.build import Problem

TILES_DOWN, TILES_ACROSS = 10, 10


def sample_grid(problem: Problem, params: bounds.Params, key: Array) -> np.ndarray:
    """Mean images of draws from the prior, 10 x 10, in [0, 1]."""
    keys = jax.random.split(key, TILES_DOWN * TILES_ACROSS)

    @jax.jit
    def draw(theta, keys):
        def one(key):
            _, z = problem.vae.simulate(theta, key)
            return problem.vae.decode(theta, z[0])

        return jax.vmap(one)(keys)

    return tile(as_images(problem, np.asarray(draw(params.theta, keys))), TILES_ACROSS)


def reconstruction_grid(
    problem: Problem, params: bounds.Params, images: np.ndarray, key: Array
) -> np.ndarray:
    """Pairs side by side: an image, and its mean image given one draw of q(z | x)."""
    images = images[: TILES_DOWN * TILES_ACROSS // 2]
    keys = jax.random.split(key, len(images))

    @jax.jit
    def reconstruct(params, keys, x):
        def one(key, x):
            z, _ = problem.vae.model.propose(params.phi, key, x)
            return problem.vae.decode(params.theta, z[0])

        return jax.vmap(one)(keys, x)

    pairs = np.stack([images, np.asarray(reconstruct(params, keys, images))], axis=1)
    return tile(as_images(problem, pairs), TILES_ACROSS)


def as_images(problem: Problem, pixels: np.ndarray) -> np.ndarray:
    """Pixel values of a model, in any shape, as images in [0, 1]."""
    shape = problem.dataset.train.shape[1:]
    return pixels.reshape(-1, *shape) / (problem.vae.likelihood.levels - 1)


def curves(entries: list[dict[str, Any]], title: str, objective: str, validation: str):
    """The training objective and the validation bound over steps, each by its name."""
    figure, grid = new_figure(1, 1, (7, 4.2), squeeze=False)
    axes = grid[0, 0]
    series = [
        ("bound", "blue", f"training: {objective}", {"lw": 1.2}),
        ("validation", "red", f"validation: {validation}", {"marker": "o", "ms": 3.5, "lw": 1.2}),
    ]
    shown = []
    for name, color, label, style in series:
        points = [(e["step"], e[name]) for e in entries if e.get(name) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=COLORS[color], label=label, **style)
            shown += [v for _, v in points]
    if shown:  # or the low bounds of the first steps would set the scale
        low, high = np.percentile(shown, 5), max(shown)
        if high > low:
            axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
        axes.legend(loc="lower right")
    axes.set_xlabel("step")
    axes.set_ylabel("bound on log p(x), nats per image")
    axes.set_title(title)
    return figure
