"""Data sets by their shapes alone: a program compiles the same whatever the pixels are."""

import numpy as np

from experiments.dalle.build import Data
from experiments.dalle.settings import Trained as OfDalle
from experiments.data import sets
from experiments.data.captions import Captions, Vocabulary
from experiments.runtime.errors import UserError
from experiments.studies.images import Problem, of_dataset

SHAPES: dict[str, tuple[int, tuple[int, ...], int]] = {
    "digits": (1397, (8, 8), 17),
    "digits_shuffled": (1197, (8, 8), 17),
    "mnist": (59_600, (28, 28), 256),
    "fashion_mnist": (59_600, (28, 28), 256),
    "binarized_mnist": (50_000, (28, 28), 2),
    "omniglot": (23_000, (28, 28), 256),
    "cifar10": (45_000, (32, 32, 3), 256),
    "cifar10_first4000": (3200, (32, 32, 3), 256),
    "emoji": (3028, (64, 64, 3), 256),
}
"""Number of training images, shape of one, levels; see `data.sets`."""
WORDS = {"digits_shuffled": 10, "mnist": 10, "fashion_mnist": 11, "emoji": 1822}
"""How many words the captions of a data set have."""


def dataset(name: str, enlarge: int = 1) -> sets.Dataset:
    """Black images in the number and the shape of a data set's; they take no memory.

    Args:
      name: of the data set.
      enlarge: how often each pixel is repeated, in both directions.

    Raises:
      UserError: its shape is not known here.
    """
    if name not in SHAPES:
        raise UserError(f"data.name must be one of {', '.join(SHAPES)} to compile, got {name!r}.")
    count, (height, width, *channels), levels = SHAPES[name]
    shape = (enlarge * height, enlarge * width, *channels)
    train, one = (np.broadcast_to(np.uint8(0), (n, *shape)) for n in (count, 1))
    return sets.Dataset(name, train, one, one, levels)


def images(name: str, enlarge: int = 1) -> Problem:
    """The same for densities of pixels."""
    return of_dataset(dataset(name, enlarge))


def few(problem: Problem) -> Problem:
    """One training image, for models that are made with the moments of all."""
    return problem._replace(dataset=problem.dataset._replace(train=problem.dataset.train[:1]))


def captioned(trained: OfDalle) -> Data:
    """The same with captions, all of one word.

    Raises:
      UserError: the data set has no captions, or its shape is not known here.
    """
    name, length = trained.data.name, trained.data.text_length
    if name not in WORDS:
        raise UserError(f"data.name must be one of {', '.join(WORDS)} to compile, got {name!r}.")
    problem = images(name, trained.data.enlarge)
    counts = [len(getattr(problem.dataset, split)) for split in Captions._fields]
    words = tuple(f"word{number}" for number in range(WORDS[name]))
    texts = Captions(*(("word0",) * count for count in counts))
    tokens = [np.zeros((count, length), np.int32) for count in counts]
    return Data(
        problem, texts, Vocabulary(words, length),
        dict(zip(Captions._fields, tokens, strict=True)),
    )  # fmt: skip
