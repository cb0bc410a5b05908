"""Images of integers: what densities of pixels are trained and scored on."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

import bounds
from experiments.data import batches, sets
from experiments.runtime import mesh as meshes
from experiments.runtime import results
from experiments.runtime.errors import UserError
from experiments.runtime.trainer import Stream


class Problem(NamedTuple):
    """Images [height, width, channels] with pixels 0 .. levels - 1."""

    dataset: sets.Dataset
    shape: tuple[int, int, int]

    @property
    def levels(self) -> int:
        """How many values a pixel can take."""
        return self.dataset.levels

    def bits(self, log_prob: Any) -> np.ndarray:
        """log P(x) in nats, or a bound on it, as bits/dim."""
        return np.asarray(
            bounds.dequantization.bits_per_dim(
                log_prob,
                num_dims=int(np.prod(self.shape)),
                levels=self.levels,
                data_range=None,
                dequantized=False,
            ),
            np.float64,
        )


def make_problem(name: str, data_dir: str) -> Problem:
    """Reads a data set.

    Raises:
      UserError: the data cannot be read, or are no integers of the stated levels.
    """
    return of_dataset(check_images(sets.load(name, data_dir)))


def of_dataset(dataset: sets.Dataset) -> Problem:
    """The images of a data set."""
    return Problem(dataset, batches.image_shape(dataset.train.shape[1:]))


def check_images(dataset: sets.Dataset) -> sets.Dataset:
    """Refuses images that are not integers 0 .. levels - 1, or not of one size."""
    for split in ("train", "validation", "test"):
        images = getattr(dataset, split)
        if not np.issubdtype(images.dtype, np.integer):
            raise UserError(
                f"{dataset.name}: pixels must be integers to be dequantized, got {images.dtype} "
                f"in {split}; scale them back to 0 .. {dataset.levels - 1}."
            )
        if len(images) and not 0 <= images.min() <= images.max() < dataset.levels:
            raise UserError(
                f"{dataset.name}: pixels must be 0 .. {dataset.levels - 1}, got values from "
                f"{images.min()} to {images.max()} in {split}."
            )
        if images.shape[1:] != dataset.train.shape[1:]:
            raise UserError(
                f"{dataset.name}: images must have one size, got {dataset.train.shape[1:]} in "
                f"train and {images.shape[1:]} in {split}."
            )
    return dataset


def as_images(images: np.ndarray) -> np.ndarray:
    """uint8 [N, ...] as float32 [N, height, width, channels]."""
    return images.reshape(len(images), *batches.image_shape(images.shape[1:])).astype(np.float32)


def training_stream(problem: Problem, key: Array, batch_size: int) -> Stream:
    """Batches of the training images as integers, on all devices.

    Raises:
      UserError: the batch is larger than the data.
    """
    return batches.image_stream(
        problem.dataset.train,
        batches.as_image,
        key,
        batch_size=batch_size,
        mesh=meshes.device_mesh(meshes.DATA),
    )


def describe(problem: Problem, settings: Any) -> str:
    """What the rows of a study with these settings are of."""
    dataset = problem.dataset
    count = len(dataset.test[: settings.evaluation.num_images or None])
    return (
        f"{dataset.name}: {len(dataset.train):,} training, {len(dataset.validation):,} validation "
        f"and {count:,} test images, {problem.levels} levels, {math.prod(problem.shape):,} "
        f"dimensions; {len(settings.seeds)} seeds."
    )


def print_published(problem: Problem, found: Sequence[tuple[str, float, str, str]]) -> None:
    """Others' numbers on the same data, if there are any: name, bits/dim, what it is of, source."""
    if found:
        print(f"\nPublished on {problem.dataset.name}; none of it was run here:")
        columns = {"": "name", "bits/dim": "value", "what": "what", "source": "source"}
        rows = [{"at": {}, **dict(zip(columns.values(), r, strict=True))} for r in found]
        print(results.table(rows, columns))
