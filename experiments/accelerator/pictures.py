"""Made-up pictures in the number and the shape of a data set's, for parts that only take time."""

import numpy as np

from experiments.compile import stand_ins
from experiments.data import sets

_DIFFERENT = 512  # then they repeat


def dataset(name: str) -> sets.Dataset:
    """Smooth pictures, as photographs are: four waves in each channel, and a little noise.

    Raises:
      UserError: the shape of this data set is not known here.
    """
    like, rng = stand_ins.dataset(name), np.random.default_rng(0)
    count, height, width, *_ = (*like.train.shape, 1)
    channels = like.train[0].size // (height * width)
    down, across = np.mgrid[:height, :width] / max(height, width)
    made = np.zeros((_DIFFERENT, height, width, channels), np.float32)
    for _ in range(4):
        slope, start = rng.normal(0, 8, (2, _DIFFERENT)), rng.uniform(0, 2 * np.pi, _DIFFERENT)
        wave = np.sin(np.multiply.outer(slope[0], down) + np.multiply.outer(slope[1], across)
                      + start[:, None, None])  # fmt: skip
        made += wave[..., None] * rng.normal(0, 0.15, (_DIFFERENT, 1, 1, channels))
    made += 0.5 + rng.normal(0, 0.02, made.shape)
    pixels = np.clip(np.rint(made * (like.levels - 1)), 0, like.levels - 1).astype(np.uint8)
    pixels = pixels.reshape(_DIFFERENT, *like.train.shape[1:])
    return like._replace(
        train=pixels[np.arange(count) % _DIFFERENT], validation=pixels[:1], test=pixels
    )
