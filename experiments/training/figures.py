"""Pictures of a training run: grids of images and curves."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array

import bounds
from experiments.runtime.plots import COLOURS, new_figure
from experiments.training.build import Problem

ROWS, COLUMNS = 10, 10


def sample_grid(problem: Problem, params: bounds.Params, key: Array) -> np.ndarray:
    """Mean images of draws from the prior, 10 x 10, in [0, 1]."""
    keys = jax.random.split(key, ROWS * COLUMNS)

    @jax.jit
    def draw(theta, keys):
        def one(key):
            _, z = problem.vae.simulate(theta, key)
            return problem.vae.decode(theta, z[0])

        return jax.vmap(one)(keys)

    return tile(problem, np.asarray(draw(params.theta, keys)), COLUMNS)


def reconstruction_grid(
    problem: Problem, params: bounds.Params, images: np.ndarray, key: Array
) -> np.ndarray:
    """Pairs side by side: an image, and its mean image given one draw of q(z | x)."""
    images = images[: ROWS * COLUMNS // 2]
    keys = jax.random.split(key, len(images))

    @jax.jit
    def reconstruct(params, keys, x):
        def one(key, x):
            z, _ = problem.vae.model.propose(params.phi, key, x)
            return problem.vae.decode(params.theta, z[0])

        return jax.vmap(one)(keys, x)

    pairs = np.stack([images, np.asarray(reconstruct(params, keys, images))], axis=1)
    return tile(problem, pairs.reshape(2 * len(images), -1), COLUMNS)


def tile(problem: Problem, flat: np.ndarray, columns: int) -> np.ndarray:
    """Flat images of pixel values as one picture in [0, 1], a pixel of white between them."""
    shape = problem.dataset.train.shape[1:]
    images = np.clip(flat / (problem.vae.likelihood.levels - 1), 0, 1).reshape(-1, *shape)
    missing = -len(images) % columns
    images = np.concatenate([images, np.ones((missing, *shape))])
    border = [(0, 0), (0, 1), (0, 1)] + [(0, 0)] * (len(shape) - 2)
    images = np.pad(images, border, constant_values=1.0)
    height, width = images.shape[1:3]
    rows = images.reshape(-1, columns, height, width, *shape[2:])
    return np.moveaxis(rows, 2, 1).reshape(-1, columns * width, *shape[2:])


def curves(entries: list[dict[str, Any]], title: str, objective: str, validation: str):
    """The training objective and the validation bound over steps, each by its name."""
    figure, grid = new_figure(1, 1, (7, 4.2), squeeze=False)
    axes = grid[0, 0]
    series = [
        ("bound", "blue", f"training: {objective}", {"lw": 1.2}),
        ("validation", "red", f"validation: {validation}", {"marker": "o", "ms": 3.5, "lw": 1.2}),
    ]
    shown = []
    for name, colour, label, style in series:
        points = [(e["step"], e[name]) for e in entries if e.get(name) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=COLOURS[colour], label=label, **style)
            shown += [v for _, v in points]
    if shown:  # the first steps would flatten all the rest
        low, high = np.percentile(shown, 5), max(shown)
        if high > low:
            axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
        axes.legend(loc="lower right")
    axes.set_xlabel("step")
    axes.set_ylabel("bound on log p(x), nats per image")
    axes.set_title(title)
    return figure
