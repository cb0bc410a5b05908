"""Image data as uint8 with its number of levels: digits (bundled) and MNIST (official files)."""

import gzip
import hashlib
import os
import struct
from typing import NamedTuple

import numpy as np

from experiments.runtime.errors import UserError

# md5 of the decompressed payloads, so that repacked gzip copies pass.
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
    "test": ("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
}
MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"


class Dataset(NamedTuple):
    """Images of one size.

    Attributes:
      name: for records and titles.
      train: uint8 [N, height, width], values 0 .. levels - 1.
      test: likewise.
      levels: how many values a pixel can take.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    levels: int


def load(data_dir: str) -> Dataset:
    """MNIST from the official files in `data_dir`, or the bundled digits where it is empty.

    Raises:
      UserError: a file is missing, or is not the official one.
    """
    return load_mnist(data_dir) if data_dir else load_digits()


def load_digits() -> Dataset:
    """scikit-learn's digits, 8x8 with 17 levels; the last 300 of 1,797 are the test set."""
    from sklearn.datasets import load_digits as bundled

    pixels = bundled(return_X_y=True)[0]
    images = np.asarray(pixels).reshape(-1, 8, 8).astype(np.uint8)
    return Dataset("digits", images[:-300], images[-300:], 17)


def load_mnist(data_dir: str) -> Dataset:
    """The official IDX files, raw or .gz, in `data_dir` or in its folder mnist."""
    if not os.path.isdir(data_dir):
        raise UserError(f"data_dir {data_dir} is not a folder.")
    train, test = (_mnist_images(data_dir, *MNIST_FILES[split]) for split in ("train", "test"))
    return Dataset("MNIST", train, test, 256)


def _mnist_images(data_dir: str, name: str, checksum: str) -> np.ndarray:
    folders = (data_dir, os.path.join(data_dir, "mnist"))
    paths = [os.path.join(folder, name + suffix) for folder in folders for suffix in ("", ".gz")]
    path = next((p for p in paths if os.path.isfile(p)), None)
    if path is None:
        raise UserError(
            f"{name}.gz is not in {data_dir} or its folder mnist; "
            f"get it from {MNIST_URL}{name}.gz (md5 of the unpacked file {checksum})."
        )
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            payload = file.read()
    except (OSError, EOFError) as error:
        raise UserError(f"cannot read {path} ({error}); get it again from {MNIST_URL}.") from None
    found = hashlib.md5(payload, usedforsecurity=False).hexdigest()
    if found != checksum:
        raise UserError(
            f"{path} is not the official file: md5 of its content is {found}, not {checksum}; "
            f"get it again from {MNIST_URL}{name}.gz"
        )
    magic, count, height, width = struct.unpack(">IIII", payload[:16])
    if magic != 2051:
        raise UserError(f"{path} is not an IDX image file (magic number {magic}, not 2051).")
    return np.frombuffer(payload, np.uint8, offset=16).reshape(count, height, width)
