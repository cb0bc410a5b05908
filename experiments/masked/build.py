"""From settings to a network for the pixels of images as tokens, and to models of parts of them."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import bounds
from experiments.masked.settings import Trained
from experiments.runtime.errors import UserError
from experiments.studies.images import Problem
from models.masked_tokens import MaskedTokens, make_masked


def make_model(problem: Problem, trained: Trained) -> MaskedTokens:
    """The network of images of a problem.

    Raises:
      UserError: the images have colours.
    """
    height, width, channels = problem.shape
    if channels != 1:
        raise UserError(
            f"--config.data.name={trained.data.name} has {channels} channels; pixels are tokens "
            "of one value here, so choose images of one."
        )
    wanted = trained.network
    return make_masked(
        levels=problem.levels,
        grid=(height, width),
        layers=wanted.num_layers,
        width=wanted.width,
        heads=wanted.num_heads,
        dropout=wanted.dropout,
    )


def tokens_of(images: np.ndarray) -> np.ndarray:
    """int32 [N, L], a row of pixels after another."""
    return images.reshape(len(images), -1).astype(np.int32)


def places_of_crop(problem: Problem, crop: tuple[int, ...]) -> np.ndarray:
    """Which tokens lie in the middle of the image, as so many rows and columns.

    Raises:
      UserError: the image is smaller.
    """
    height, width, _ = problem.shape
    rows, columns = crop
    if rows > height or columns > width:
        raise UserError(
            f"--config.evaluation.crop={crop} is larger than an image of {height}x{width}."
        )
    places = np.arange(height * width).reshape(height, width)
    top, left = (height - rows) // 2, (width - columns) // 2
    return places[top : top + rows, left : left + columns].reshape(-1)


def part_of(
    model: MaskedTokens, tokens: Array, places: np.ndarray
) -> tuple[bounds.masked.Masked, Callable[[Array], Array]]:
    """(the model of the tokens at `places` given all others of an image, image -> those tokens)."""

    def predict(theta: PyTree, own: Array) -> Array:
        return model.predict(theta, tokens.at[jnp.asarray(places)].set(own))[places]

    inside = bounds.masked.Masked(predict, len(places), model.levels)
    return inside, lambda x: x[jnp.asarray(places)]
