"""The tar files of ImageNet at 32x32, made up and small."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from experiments.data import imagenet, sets
from experiments.runtime.errors import UserError


def picture(number, size=32):
    return np.random.default_rng(number).integers(0, 256, (size, size, 3), np.uint8)


def write(path, pictures):
    """Members in another order than their names have."""
    with tarfile.open(path, "w") as tar:
        for number in reversed(range(len(pictures))):
            buffer = io.BytesIO()
            Image.fromarray(pictures[number]).save(buffer, "PNG")
            info = tarfile.TarInfo(f"{path.stem}/{number:07}.png")
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)


def test_images_come_in_the_order_of_their_names(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "COUNTS", {"valid": 3})
    (tmp_path / "imagenet").mkdir()
    pictures = [picture(i) for i in range(3)]
    write(tmp_path / "imagenet" / "valid_32x32.tar", pictures)
    found = imagenet.read("valid", 32, str(tmp_path))
    np.testing.assert_array_equal(found, pictures)


def test_official_validation_images_are_the_test_set(tmp_path, monkeypatch):
    images = {
        "train": np.zeros((10_004, 32, 32, 3), np.uint8),
        "valid": np.ones((3, 32, 32, 3), np.uint8),
    }
    monkeypatch.setattr(imagenet, "read", lambda split, size, data_dir: images[split])
    found = sets.load("imagenet32", str(tmp_path))
    assert [len(v) for v in found[1:4]] == [4, 10_000, 3]
    assert found.test.min() == 1


def test_wrong_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "COUNTS", {"valid": 2})
    with pytest.raises(UserError, match=r"valid_32x32.tar is not in"):
        imagenet.read("valid", 32, str(tmp_path))
    with pytest.raises(UserError, match="data_dir"):
        imagenet.read("valid", 32, "")
    path = tmp_path / "valid_32x32.tar"
    write(path, [picture(0)])
    with pytest.raises(UserError, match="1 images where 2 belong"):
        imagenet.read("valid", 32, str(tmp_path))
    write(path, [picture(0), picture(1, 16)])
    with pytest.raises(UserError, match=r"shape \(16, 16, 3\)"):
        imagenet.read("valid", 32, str(tmp_path))
    path.write_bytes(b"no tar")
    with pytest.raises(UserError, match="is not the official file"):
        imagenet.read("valid", 32, str(tmp_path))
