"""ImageNet at 32x32 and 64x64 as van den Oord et al. (2016) published it: tar files of PNG images.

train_32x32.tar and valid_32x32.tar (or 64x64), once at image-net.org/small, hold 1,281,149 and
49,999 images. No checksum was published, so every image's size and their number are checked. The
files that image-net.org offers today by other names were reduced by another filter: no number on
them compares with a published one.
"""

import io
import os
import tarfile

import numpy as np

from experiments.runtime import paths
from experiments.runtime.errors import UserError
from experiments.runtime.progress import track

COUNTS = {"train": 1_281_149, "valid": 49_999}


def read(split: str, size: int, data_dir: str) -> np.ndarray:
    """uint8 [N, size, size, 3] in the order of the files' names.

    Args:
      split: "train" or "valid".
      size: 32 or 64.
      data_dir: folder that holds SPLIT_SIZExSIZE.tar, or its folder imagenet with it.

    Raises:
      UserError: the file is missing, unreadable or not the official one.
    """
    from PIL import Image  # comes with matplotlib

    name = f"{split}_{size}x{size}.tar"
    data_dir = paths.local("data_dir", data_dir)
    folders = paths.places(data_dir, "imagenet") if data_dir else []
    files = (os.path.join(folder, name) for folder in folders)
    path = next(filter(os.path.isfile, files), None)
    if path is None:
        raise UserError(
            f"{name} is not in {data_dir or 'data_dir'} or its folder imagenet; "
            f"{paths.seen(folders)}; set --config.data_dir to the folder that holds the tar files "
            "of PNG images of van den Oord et al. (2016), which have no download that could be "
            "checked."
        )
    images = np.empty((COUNTS[split], size, size, 3), np.uint8)
    try:
        with tarfile.open(path) as tar:
            members = sorted((m for m in tar if m.isfile()), key=lambda m: m.name)
            if len(members) != len(images):
                raise ValueError(f"{len(members):,} images where {len(images):,} belong")
            for i in track(range(len(members)), str, name, quiet_seconds=10.0):
                file = tar.extractfile(members[i])
                assert file is not None
                pixels = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))
                if pixels.shape != images.shape[1:]:
                    raise ValueError(f"{members[i].name} has the shape {pixels.shape}")
                images[i] = pixels
    except (OSError, ValueError, tarfile.TarError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is not the official file: {reason}.") from None
    return images
