"""Convolution that is as fast inside a loop as outside of one.

XLA's CPU convolutions run about twenty times slower inside a loop than outside of one, and every
training step here is inside a scan. There a convolution is a matrix product of patches, which runs
at the speed of theirs outside (`python -m benchmarks denoising_rate`); elsewhere it is their own.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Conv(nn.Module):
    """A convolution of [h, w, c] with odd windows and zeros around, plus a bias.

    Parameters are those of `flax.linen.Conv`: kernel [window, window, c, filters] and bias. With
    strides s the output is [ceil(h / s), ceil(w / s), filters].
    """

    filters: int
    window: int = 3
    strides: int = 1
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "i j filters"]:
        """Returns the filtered image."""
        shape = (self.window, self.window, x.shape[-1], self.filters)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.filters,))
        return convolve(x, kernel, strides=self.strides) + bias[None, None]


def convolve(
    x: Float[Array, "h w c"], kernel: Float[Array, "k k c d"], *, strides: int = 1
) -> Float[Array, "i j d"]:
    """Cross-correlation with k // 2 zeros around the image."""
    if kernel.shape[0] == 1:
        pixels = x[::strides, ::strides]
        flat = pixels.reshape(-1, pixels.shape[-1]) @ kernel[0, 0]
        return flat.reshape(*pixels.shape[:2], -1)
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, k: _by_patches(x, k, strides),
        default=lambda x, k: _native(x, k, strides),
    )


def _by_patches(x: Array, kernel: Array, strides: int) -> Array:
    height, width, channels = x.shape
    size, around = kernel.shape[0], kernel.shape[0] // 2
    padded = jnp.pad(x, ((around, around), (around, around), (0, 0)))
    patches = jnp.concatenate(
        [
            padded[i : i + height : strides, j : j + width : strides]
            for i in range(size)
            for j in range(size)
        ],
        axis=-1,
    )
    return patches @ kernel.reshape(size * size * channels, -1)


def _native(x: Array, kernel: Array, strides: int) -> Array:
    around = kernel.shape[0] // 2
    out = jax.lax.conv_general_dilated(
        x[None],
        kernel,
        (strides, strides),
        ((around, around), (around, around)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return out[0]
