"""Image data sets as uint8, with the splits the literature uses and the number of levels.

digits come with scikit-learn; the others are read from the files their authors publish, which
`python -m experiments.download` fetches. A file with another checksum is refused: a result names
its data.
"""

import io
import pickle
import struct
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.data import files, imagenet
from experiments.runtime import cluster
from experiments.runtime.errors import UserError

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(train, validation, test)."""


class Dataset(NamedTuple):
    """Images of one size.

    Attributes:
      name: for records and titles.
      train: uint8 [N, height, width] or [N, height, width, channels], values 0 .. levels - 1.
      validation: of the same form; no image of `train` is among them.
      test: of the same form.
      levels: how many values a pixel can take.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    levels: int


def load(name: str, data_dir: str) -> Dataset:
    """A data set, checked.

    Args:
      name: a key of `DATASETS`.
      data_dir: folder that holds the data set's files, or its folder with them (see
        `files.FOLDERS`); digits need none.

    Raises:
      UserError: unknown name; a file is missing, unreadable, or not the official one.
    """
    if name not in DATASETS:
        raise UserError(f"the data set must be one of {', '.join(DATASETS)}, got {name!r}.")
    with cluster.together():
        return DATASETS[name](data_dir)


def digits(data_dir: str = "") -> Dataset:
    """scikit-learn's digits, 8x8 with 17 levels, in file order: 1,397, 100 and 300 images."""
    del data_dir
    images = _digit_images()
    return _split("digits", images[:-300], images[-300:], num_validation=100, levels=17)


def digits_shuffled(data_dir: str = "") -> Dataset:
    """The same images shuffled: 1,197, 300 and 300.

    In file order the test images are of writers who wrote none of the others; here all are.
    """
    del data_dir
    images = shuffled(_digit_images())
    parts = images[:-300], images[-300:]
    return _split("digits (shuffled)", *parts, num_validation=300, levels=17)


def mnist(data_dir: str) -> Dataset:
    """MNIST; as in Burda et al. (2016), 59,600 train and the last 400 validate; 10,000 test."""
    train, test = map(_idx_images, files.read("mnist", data_dir))
    return _split("MNIST", train, test, num_validation=400)


def fashion_mnist(data_dir: str) -> Dataset:
    """Fashion-MNIST, split as MNIST is."""
    train, test = map(_idx_images, files.read("fashion_mnist", data_dir))
    return _split("Fashion-MNIST", train, test, num_validation=400)


def binarized_mnist(data_dir: str) -> Dataset:
    """Larochelle's static binarisation with its own split: 50,000, 10,000 and 10,000 images.

    Not in the order of MNIST: its labels do not belong to these images.
    """
    parts = map(_amat_images, files.read("binarized_mnist", data_dir))
    return Dataset("binarised MNIST", *parts, levels=2)


def omniglot(data_dir: str) -> Dataset:
    """Burda's 28x28 OMNIGLOT: of 24,345 images 1,345 validate, 23,000 train; 8,070 test.

    The file is sorted by alphabet, so the images are shuffled before they are split, with the
    generator and the seed of the released code. It holds intensities v in [0, 1]; pixels here are
    round(255 v).
    """
    from scipy.io import loadmat

    (content,) = files.read("omniglot", data_dir)
    arrays = loadmat(io.BytesIO(content), variable_names=["data", "testdata"])
    train, test = (_chardata_images(arrays[key]) for key in ("data", "testdata"))
    return _split("OMNIGLOT", shuffled(train), test, num_validation=1345)


def omniglot_rebuilt(data_dir: str) -> Dataset:
    """OMNIGLOT reduced to 28x28 by area averages: drawers 1-15 (24,345), 16-20 test (8,115).

    Not Burda's images: no log-likelihood on it compares with published ones. Of drawers 1-15,
    shuffled as Burda's are, the last 1,345 validate.
    """
    contents = files.read("omniglot_rebuilt", data_dir)
    train, test = (np.frombuffer(c, np.uint8).reshape(-1, 28, 28) for c in contents)
    return _split("OMNIGLOT-28-rebuilt", shuffled(train), test, num_validation=1345)


def cifar10(data_dir: str) -> Dataset:
    """CIFAR-10: 45,000 train, the last 5,000 of the 50,000 validate, 10,000 test; RGB, 32x32."""
    *train, test = map(_cifar_images, files.read("cifar10", data_dir))
    return _split("CIFAR-10", np.concatenate(train), test, num_validation=5000)


def cifar10_first4000(data_dir: str) -> Dataset:
    """The first 4,000 TRAINING images of CIFAR-10, in file order: 3,200, 400 and 400.

    The split is this project's own and the test set is not CIFAR-10's: no number on it compares
    with one on CIFAR-10.
    """
    (content,) = files.read("cifar10_first4000", data_dir)
    images = np.frombuffer(content, np.uint8).reshape(-1, 32, 32, 3)
    return _split("CIFAR-10-first4000", images[:-400], images[-400:], num_validation=400)


def emoji(data_dir: str) -> Dataset:
    """Twemoji, RGB 64x64: 3,028 train, 391 validate, 367 test, in groups of near-duplicates.

    The split is this project's own, and no skin tone of an emoji is in another part than the rest.
    """
    content, _ = files.read("emoji", data_dir)
    images = np.frombuffer(content, np.uint8).reshape(-1, 64, 64, 3)
    return Dataset("emoji", *emoji_split(images, data_dir), 256)


def emoji_split(values: np.ndarray, data_dir: str) -> Parts:
    """(train, validation, test) of what is given for each emoji, by groups in a shuffled order."""
    _, content = files.read("emoji", data_dir)
    groups = np.frombuffer(content, np.int32)
    order = shuffled(np.unique(groups))
    ends = len(order) * 8 // 10, len(order) * 9 // 10
    train, validation, test = (values[np.isin(groups, g)] for g in np.split(order, ends))
    return train, validation, test


def imagenet32(data_dir: str) -> Dataset:
    """ImageNet at 32x32: the last 10,000 training images validate, the official validation tests.

    As in the literature on densities, whose test set it is.
    """
    return _imagenet(32, data_dir)


def imagenet64(data_dir: str) -> Dataset:
    """ImageNet at 64x64, with the splits of `imagenet32`."""
    return _imagenet(64, data_dir)


def _imagenet(size: int, data_dir: str) -> Dataset:
    test = imagenet.read("valid", size, data_dir)  # the small file first: it may be missing
    train = imagenet.read("train", size, data_dir)
    return _split(f"ImageNet {size}x{size}", train, test, num_validation=10_000)


DATASETS: dict[str, Callable[[str], Dataset]] = {
    "digits": digits,
    "digits_shuffled": digits_shuffled,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "binarized_mnist": binarized_mnist,
    "omniglot": omniglot,
    "omniglot_rebuilt": omniglot_rebuilt,
    "cifar10": cifar10,
    "cifar10_first4000": cifar10_first4000,
    "emoji": emoji,
    "imagenet32": imagenet32,
    "imagenet64": imagenet64,
}


def _split(
    name: str, train: np.ndarray, test: np.ndarray, *, num_validation: int, levels: int = 256
) -> Dataset:
    return Dataset(name, *cut(train, test, num_validation=num_validation), levels)


def cut(train: np.ndarray, test: np.ndarray, *, num_validation: int) -> Parts:
    """(train, validation, test): the last of the training set validate."""
    return train[:-num_validation], train[-num_validation:], test


def shuffled(images: np.ndarray) -> np.ndarray:
    """In the order of the code released with Burda et al. (2016); the files are sorted."""
    return images[np.random.RandomState(123).permutation(len(images))]


def _digit_images() -> np.ndarray:
    from sklearn.datasets import load_digits

    pixels = load_digits(return_X_y=True)[0]
    return np.asarray(pixels).reshape(-1, 8, 8).astype(np.uint8)


# The readers below see content whose checksum was right: what they take for granted is there.


def _idx_images(content: bytes) -> np.ndarray:
    """IDX: big-endian magic number, count, height and width, then the pixels."""
    _, count, height, width = struct.unpack(">IIII", content[:16])
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, height, width)


def _amat_images(content: bytes) -> np.ndarray:
    """Lines of 784 times "0" or "1", with one character after each."""
    return (np.frombuffer(content, np.uint8)[::2] - ord("0")).reshape(-1, 28, 28)


def _chardata_images(columns: np.ndarray) -> np.ndarray:
    """[784, N], an image a column, its own columns one below the other -> upright [N, 28, 28]."""
    images = columns.T.reshape(-1, 28, 28).transpose(0, 2, 1)
    return np.rint(255 * images).astype(np.uint8)


def _cifar_images(content: bytes) -> np.ndarray:
    """A pickled dict of Python 2; data is [N, 3072], all red, all green, then all blue."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some NumPy call this old way of pickling deprecated
        rows = pickle.loads(content, encoding="bytes")[b"data"]
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
