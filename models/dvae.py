r"""The discrete VAE of DALL-E: images as a grid of tokens out of a codebook, and back.

Bottleneck residual blocks in groups; between groups the encoder halves the image by max-pooling and
the decoder doubles it by repetition, so that G groups make tokens of 2^(G-1) x 2^(G-1) pixels. The
encoder returns logits of q(z_n | x) for each token; the decoder takes one-hot rows, or softer ones,
through the codebook to the parameters of a `PixelLikelihood`. Nothing is sampled here.

At 4 groups, width 256, 2 blocks, 8,192 codes and 256x256 RGB this is the released model, with
53,786,240 parameters in the encoder and 43,829,766 in the decoder. Two things are added: q starts
uniform, and outputs start at the average image, a parameter of its own. While a decoder has yet to
find that image its codes say nothing, and q settles on one of them.

Source: Ramesh et al. 2021 (arXiv 2102.12092), appendix A, and the released code.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

import bounds
from models.convolutions import Conv
from models.pixels import PixelLikelihood

_KERNEL = nn.initializers.he_normal()


class Block(nn.Module):
    """x + gain * four convolutions through a quarter of the filters; `windows` are their sizes."""

    filters: int
    windows: tuple[int, int, int, int]
    gain: float

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Array:
        """Returns [h, w, filters]."""
        h = x
        sizes = (self.filters // 4,) * 3 + (self.filters,)
        for index, (size, window) in enumerate(zip(sizes, self.windows, strict=True)):
            h = Conv(size, window, kernel_init=_KERNEL, name=f"conv_{index}")(nn.relu(h))
        if x.shape[-1] != self.filters:
            x = Conv(self.filters, 1, kernel_init=_KERNEL, name="skip")(x)
        return x + self.gain * h


class Encoder(nn.Module):
    """Image [h, w, c] of values from -1 to 1 -> logits [h / 2^(G-1), w / 2^(G-1), K]."""

    groups: int
    width: int
    blocks: int
    num_codes: int

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Array:
        """Returns the logits."""
        gain = 1 / (self.groups * self.blocks) ** 2
        block = _block(x.shape[0] * x.shape[1])
        h = Conv(self.width, 7, kernel_init=_KERNEL, name="in")(x)
        for group in range(self.groups):
            for index in range(self.blocks):
                name = f"group_{group}_{index}"
                h = block(self.width * 2**group, (3, 3, 3, 1), gain, name=name)(h)
            if group < self.groups - 1:
                h = nn.max_pool(h[None], (2, 2), strides=(2, 2))[0]
        # Small: every token starts near the uniform distribution.
        start = nn.initializers.normal(1e-3)
        return Conv(self.num_codes, 1, kernel_init=start, name="out")(nn.relu(h))


class Decoder(nn.Module):
    """Codes [i, j, K], one-hot or softer -> outputs [2^(G-1) i, 2^(G-1) j, num_outputs]."""

    groups: int
    width: int
    blocks: int
    embedding: int
    num_outputs: int

    @nn.compact
    def __call__(self, codes: Float[Array, "i j k"]) -> Array:
        """Returns the outputs."""
        gain = 1 / (self.groups * self.blocks) ** 2
        block = _block(codes.shape[0] * codes.shape[1] * 4 ** (self.groups - 1))
        h = nn.Dense(self.embedding, kernel_init=nn.initializers.normal(1.0), name="codebook")(
            codes
        )
        for group in reversed(range(self.groups)):
            for index in range(self.blocks):
                name = f"group_{group}_{index}"
                h = block(self.width * 2**group, (1, 3, 3, 3), gain, name=name)(h)
            if group:
                h = h.repeat(2, axis=0).repeat(2, axis=1)
        return nn.Dense(self.num_outputs, kernel_init=nn.initializers.normal(1e-2), name="out")(
            nn.relu(h)
        )


def _block(num_pixels: int) -> Any:
    """`Block`, computed again for the gradient where what it would keep is large."""
    return nn.remat(Block) if num_pixels >= 128 * 128 else Block


class DVAE(NamedTuple):
    """A discrete VAE as pure functions of one image x [h, w, c] of 0 .. levels - 1.

    Attributes:
      init: (key, pixel_mean [h, w, c], pixel_sd [h, w, c]) -> Params(decoder, encoder); the decoder
        starts at the average image.
      encode: (phi, x) -> logits [N, K] of q(z | x).
      decode: (theta, codes [N, K]) -> outputs [h * w * c, P] of the likelihood.
      log_px: (theta, x, codes [N, K]) -> log p(x | z).
      likelihood: of the pixels.
      grid: (rows, columns) of tokens.
      num_codes: K.
    """

    init: Callable[..., bounds.Params]
    encode: Callable[[PyTree, Array], Array]
    decode: Callable[[PyTree, Array], Array]
    log_px: Callable[[PyTree, Array, Array], Array]
    likelihood: PixelLikelihood
    grid: tuple[int, int]
    num_codes: int

    @property
    def num_tokens(self) -> int:
        """N, the number of tokens of an image."""
        return self.grid[0] * self.grid[1]


def make_dvae(
    shape: tuple[int, int, int],
    *,
    likelihood: PixelLikelihood,
    num_codes: int,
    groups: int,
    width: int,
    blocks: int,
    embedding: int,
) -> DVAE:
    """Builds the dVAE.

    Args:
      shape: of an image.
      likelihood: of its pixels.
      num_codes: K.
      groups: G; tokens are 2^(G-1) x 2^(G-1) pixels.
      width: filters of the first group, a multiple of 4.
      blocks: in each group.
      embedding: size of a code in the codebook.

    Returns:
      A `DVAE`.

    Raises:
      ValueError: a size is below 1 or not a multiple of 4, or tokens do not divide the image.
    """
    sizes = {"num_codes": num_codes, "groups": groups, "blocks": blocks, "embedding": embedding}
    for name, size in sizes.items():
        if size < (2 if name == "num_codes" else 1):
            raise ValueError(
                f"{name} must be at least {2 if name == 'num_codes' else 1}, got {size}."
            )
    if width < 4 or width % 4:
        raise ValueError(f"width must be a multiple of 4, got {width}.")
    side = 2 ** (groups - 1)
    height, wide, channels = shape
    if height % side or wide % side:
        raise ValueError(
            f"tokens of {side}x{side} pixels ({groups} groups) do not divide an image of "
            f"{height}x{wide}; choose fewer groups, or pad the images."
        )
    grid = (height // side, wide // side)
    encoder = Encoder(groups, width, blocks, num_codes)
    decoder = Decoder(groups, width, blocks, embedding, channels * likelihood.num_outputs)
    highest = likelihood.levels - 1

    def init(key: Array, pixel_mean: Array, pixel_sd: Array) -> bounds.Params:
        first, second = jax.random.split(key)
        theta = decoder.init(first, jnp.zeros((*grid, num_codes)))
        bias = likelihood.bias(pixel_mean.reshape(-1), pixel_sd.reshape(-1))
        theta = {**theta, "average": bias.reshape(-1, likelihood.num_outputs)}
        return bounds.Params(theta, encoder.init(second, jnp.zeros(shape)))

    def encode(phi: PyTree, x: Array) -> Array:
        scaled = 2 * x.astype(jnp.float32) / highest - 1
        logits: Any = encoder.apply(phi, scaled)
        return logits.reshape(-1, num_codes)

    def decode(theta: PyTree, codes: Array) -> Array:
        variables = {"params": theta["params"]}
        out: Any = decoder.apply(variables, codes.reshape(*grid, num_codes))
        return out.reshape(-1, likelihood.num_outputs) + theta["average"]

    def log_px(theta: PyTree, x: Array, codes: Array) -> Array:
        return likelihood.log_prob(decode(theta, codes), x.astype(jnp.float32).reshape(-1))

    return DVAE(init, encode, decode, log_px, likelihood, grid, num_codes)
