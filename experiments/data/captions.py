"""Captions of image data sets, in the order and the splits of `data`, and words as tokens."""

import re
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.data import files, sets
from experiments.data.files import Source
from experiments.runtime import cluster
from experiments.runtime.errors import UserError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLOTHES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"


def _labels(url: str, part: str, content: str, file: str) -> Source:
    name = f"{part}-labels-idx1-ubyte"
    return Source(f"{name}.gz", {name: f"md5:{content}"}, f"{url}{name}.gz", f"md5:{file}")


# Beside the files of the images, see `files.SOURCES`.
SOURCES: dict[str, tuple[Source, ...]] = {
    "mnist": (
        _labels(
            _MNIST, "train", "a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"
        ),
        _labels(
            _MNIST, "t10k", "27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"
        ),
    ),
    "fashion_mnist": (
        _labels(
            _FASHION, "train", "9018921c3c673c538a1fc5bad174d6f9",
            "25c81989df183df01b3e8a0aad5dffbe",
        ),
        _labels(
            _FASHION, "t10k", "15d484375f8d13e6eb1aabb0c3f46965", "bb300cfdad3c16e7a12a480ee83cd310"
        ),
    ),
    "emoji": (
        Source(
            "emoji_twitter_64.npz",
            {"captions": "sha256:fa9c399043cd161142216cf5a9e0e68992e9f68832bb2aae76e2a1b4debb0bef"},
            "https://github.com/jdecked/twemoji",
        ),
    ),
}  # fmt: skip


class Captions(NamedTuple):
    """One caption for each image of a `sets.Dataset`."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def load(name: str, data_dir: str) -> Captions:
    """The captions of a data set.

    Raises:
      UserError: it has none, or a file is missing, unreadable, or not the official one.
    """
    if name not in CAPTIONED:
        raise UserError(f"the data set must have captions: {', '.join(CAPTIONED)}; got {name!r}.")
    with cluster.together():
        return Captions(*(tuple(map(str, part)) for part in CAPTIONED[name](data_dir)))


class Vocabulary(NamedTuple):
    """Words and signs of captions as tokens 0 .. V - 1; V is padding."""

    words: tuple[str, ...]
    length: int

    def tokens(self, caption: str) -> np.ndarray:
        """int32 [length], padded at the end.

        Raises:
          UserError: a word is unknown, or there are more than `length`.
        """
        words = split_words(caption)
        if not words:
            raise UserError(f"the caption {caption!r} is empty; it must hold words.")
        unknown = [word for word in words if word not in self.words]
        if unknown:
            some = ", ".join(self.words[:12]) + (", ..." if len(self.words) > 12 else "")
            raise UserError(
                f"the caption {caption!r} has the unknown word {unknown[0]!r}; "
                f"the vocabulary of {len(self.words)} has: {some}."
            )
        if len(words) > self.length:
            raise UserError(
                f"the caption {caption!r} has {len(words)} words and signs, more than the context "
                f"of {self.length}; shorten it or raise --config.data.text_length."
            )
        index = [self.words.index(word) for word in words]
        return np.array(index + [len(self.words)] * (self.length - len(words)), np.int32)

    def all_tokens(self, captions: Sequence[str]) -> np.ndarray:
        """int32 [N, length]."""
        known = {caption: self.tokens(caption) for caption in dict.fromkeys(captions)}
        return np.stack([known[caption] for caption in captions])


def vocabulary(captions: Captions, length: int) -> Vocabulary:
    """The words of all splits, sorted: a caption to be scored has a probability then.

    A word that training never shows is a legal token of small probability.
    """
    words = {word for part in captions for caption in set(part) for word in split_words(caption)}
    return Vocabulary(tuple(sorted(words)), length)


def split_words(caption: str) -> list[str]:
    """Words and punctuation, in lower case."""
    return re.findall(r"[^\s,:()]+|[,:()]", caption.lower())


def _of_classes(names: Sequence[str], labels: np.ndarray) -> np.ndarray:
    return np.asarray(names)[labels]


def _digits(data_dir: str) -> sets.Parts:
    del data_dir
    words = _of_classes(DIGITS, _digit_labels())
    return sets.cut(words[:-300], words[-300:], num_validation=100)


def _digits_shuffled(data_dir: str) -> sets.Parts:
    del data_dir
    words = sets.shuffled(_of_classes(DIGITS, _digit_labels()))
    return sets.cut(words[:-300], words[-300:], num_validation=300)


def _digit_labels() -> np.ndarray:
    from sklearn.datasets import load_digits

    return np.asarray(load_digits(return_X_y=True)[1])


def _of_idx(name: str, names: Sequence[str]) -> Callable[[str], sets.Parts]:
    def words(data_dir: str) -> sets.Parts:
        train, test = (_of_classes(names, _idx_labels(c)) for c in _contents(name, data_dir))
        return sets.cut(train, test, num_validation=400)

    return words


def _idx_labels(content: bytes) -> np.ndarray:
    """IDX: big-endian magic number and count, then the labels."""
    _, count = struct.unpack(">II", content[:8])
    return np.frombuffer(content, np.uint8, offset=8)[:count]


def _emoji(data_dir: str) -> sets.Parts:
    (content,) = _contents("emoji", data_dir)
    return sets.emoji_split(np.frombuffer(content, "<U81"), data_dir)


def _contents(name: str, data_dir: str) -> list[bytes]:
    data_dir = files.check_folder(name, data_dir)
    return [c for s in SOURCES[name] for c in files.read_source(name, s, data_dir)]


CAPTIONED: dict[str, Callable[[str], sets.Parts]] = {
    "digits": _digits,
    "digits_shuffled": _digits_shuffled,
    "mnist": _of_idx("mnist", DIGITS),
    "fashion_mnist": _of_idx("fashion_mnist", CLOTHES),
    "emoji": _emoji,
}
