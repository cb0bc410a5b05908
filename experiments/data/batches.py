"""Batches of images: uint8 on the devices, shuffled and prepared there.

Every number is a function of (seed, step, example index): where a run starts again, how steps
are cut into chunks and how many devices share the batch change nothing.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from experiments.runtime import mesh as meshes
from experiments.runtime.errors import UserError
from experiments.runtime.trainer import Stream

Prepare = Callable[[Array, Array], Array]
"""(key, one image as uint8) -> x."""


def binarize(levels: int) -> Prepare:
    """Dynamic binarisation: a flat x of zeros and ones, P(1) = pixel / (levels - 1).

    Each use of an image draws it anew (Burda et al. 2015); of two levels nothing changes.
    """

    def prepare(key: Array, image: Array) -> Array:
        intensity = image.reshape(-1).astype(jnp.float32) / (levels - 1)
        return jax.random.bernoulli(key, intensity).astype(jnp.float32)

    return prepare


def as_integers(key: Array, image: Array) -> Array:
    """The pixels themselves, 0 .. levels - 1, flat and as float32."""
    del key
    return image.reshape(-1).astype(jnp.float32)


def as_image(key: Array, image: Array) -> Array:
    """The pixels themselves, 0 .. levels - 1, as float32 [height, width, channels]."""
    del key
    return image.reshape(image_shape(image.shape)).astype(jnp.float32)


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(height, width, channels) of grey and coloured images."""
    height, width, *channels = shape
    return height, width, channels[0] if channels else 1


def prepare_all(prepare: Prepare, images: np.ndarray, key: Array) -> Array:
    """A whole set prepared once: image i uses fold_in(key, i)."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(images)))
    return jax.jit(jax.vmap(prepare))(keys, jnp.asarray(images))


def image_stream(
    images: np.ndarray,
    prepare: Prepare,
    key: Array,
    *,
    batch_size: int,
    mesh: Mesh,
    reshuffle: bool = True,
) -> Stream:
    """Epochs over images, in an order drawn for each.

    Args:
      images: uint8 [N, ...].
      prepare: see `Prepare`.
      key: PRNG key of the order; epoch e uses fold_in(key, e).
      batch_size: B; the N mod B images left over at the end of an epoch are not used in it.
      mesh: the devices.
      reshuffle: False keeps the order of the file in every epoch.

    Returns:
      A `Stream`.

    Raises:
      UserError: B is larger than N.
    """
    count = len(images)
    if not 1 <= batch_size <= count:
        raise UserError(
            f"--config.training.batch_size must be between 1 and {count}, got {batch_size}."
        )
    stored = meshes.replicate(images, mesh)
    shuffled = jax.jit(lambda k, e: jax.random.permutation(jax.random.fold_in(k, e), count))
    steps_per_epoch = count // batch_size

    @functools.lru_cache(maxsize=2)
    def epoch(number: int) -> np.ndarray:
        """Example indices [steps, B]."""
        order = np.asarray(shuffled(key, number)) if reshuffle else np.arange(count, dtype=np.int32)
        return order[: steps_per_epoch * batch_size].reshape(steps_per_epoch, batch_size)

    def window(first: int, length: int):
        numbers = range(first // steps_per_epoch, (first + length - 1) // steps_per_epoch + 1)
        start = first % steps_per_epoch
        index = np.concatenate([epoch(n) for n in numbers])[start : start + length]
        return stored, *meshes.replicate((index, np.int32(first)), mesh)

    def batch(data, key, step):
        images, window, first = data
        index = meshes.split(window[step - first], mesh)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        return {"x": jax.vmap(prepare)(keys, images[index]), "index": index}

    return Stream(window, batch, steps_per_epoch)
