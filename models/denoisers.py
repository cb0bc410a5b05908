"""Networks that predict, from x_t and gamma_t, the noise, the datum or v: a U-Net and an MLP.

They take one datum [h, w, c] and return an array shaped as it, or with a learned variance a pair
(prediction, share in [0, 1]), as `bounds.diffusion.denoiser` wants it. They start at zero. Dropout
acts where a key for it is given. With a `dtype` such as bfloat16 layers compute in it; parameters,
features of x and gamma, and what is returned stay as they are.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from models.convolutions import Conv


class Denoiser(NamedTuple):
    """A network as two pure functions.

    Attributes:
      init: (key, shape [h, w, c] of a datum) -> theta.
      predict: (theta, x_t, gamma_t, dropout key or None) -> prediction.
    """

    init: Callable[[Array, tuple[int, ...]], PyTree]
    predict: Callable[..., Any]


def embed(gamma: Float[Array, ""], width: int) -> Float[Array, "width"]:
    """Sines and cosines of gamma, with periods from about 0.6 to 600."""
    periods = jnp.exp(jnp.linspace(math.log(0.1), math.log(100.0), width // 2))
    return jnp.concatenate([jnp.sin(gamma / periods), jnp.cos(gamma / periods)])


def with_fourier_features(x: Float[Array, "h w c"], powers: Sequence[int]):
    """x beside sin and cos of 2^p pi x: what tells levels apart that lie close together.

    Source: Kingma et al. 2021 (arXiv 2107.00630), appendix C.
    """
    features = [x]
    for power in powers:
        features += [jnp.sin(2**power * jnp.pi * x), jnp.cos(2**power * jnp.pi * x)]
    return jnp.concatenate(features, axis=-1)


class MLP(nn.Module):
    """Residual blocks over all pixels at once; each is scaled and shifted by gamma.

    With `gated` every output also has a sum over its own pixel's features, whose factors come from
    all of them: what is left of the noise in a pixel then need not pass through the blocks.
    """

    width: int
    num_blocks: int
    num_outputs: int
    dropout: float
    fourier: Sequence[int]
    dtype: Any
    gated: bool = False

    @nn.compact
    def __call__(self, x: Array, gamma: Array, *, train: bool) -> Array:
        """Returns [h, w, c * num_outputs]."""
        time = nn.silu(nn.Dense(self.width, name="time")(_as(self.dtype, embed(gamma, 64))))
        features = _as(self.dtype, with_fourier_features(x, self.fourier))
        h = nn.Dense(self.width, name="in")(features.reshape(-1))
        zeros = nn.initializers.zeros
        for index in range(self.num_blocks):
            both = nn.Dense(2 * self.width, name=f"time_{index}")(time)
            scale, shift = jnp.split(both, 2)
            inner = nn.silu(nn.LayerNorm(name=f"norm_{index}")(h) * (1 + scale) + shift)
            inner = nn.silu(nn.Dense(self.width, name=f"first_{index}")(inner))
            inner = nn.Dropout(self.dropout, deterministic=not train)(inner)
            h += nn.Dense(self.width, name=f"second_{index}")(inner)
        h = nn.silu(nn.LayerNorm(name="norm")(h))
        out = nn.Dense(x.size * self.num_outputs, kernel_init=zeros, name="out")(h)
        out = out.reshape(*x.shape[:2], -1)
        if not self.gated:
            return out
        count = out.size * features.shape[-1]
        factors = nn.Dense(count, kernel_init=zeros, name="gate")(jnp.concatenate([time, h]))
        return out + jnp.sum(factors.reshape(*out.shape, -1) * features[:, :, None, :], axis=-1)


class ResidualBlock(nn.Module):
    """Two convolutions behind group norms; gamma is added between them.

    Source: Ho et al. 2020 (arXiv 2006.11239), appendix B.
    """

    filters: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, time: Array, *, train: bool) -> Array:
        """Returns [h, w, filters]."""
        h = nn.silu(_group_norm("norm_in")(x))
        h = Conv(self.filters, name="first")(h)
        h += nn.Dense(self.filters, name="time")(time)[None, None]
        h = nn.silu(_group_norm("norm")(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = Conv(self.filters, kernel_init=nn.initializers.zeros, name="second")(h)
        if x.shape[-1] != self.filters:
            x = nn.Dense(self.filters, name="skip")(x)
        return x + h


class Attention(nn.Module):
    """Self-attention over all pixels, one head."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns an array shaped as x."""
        filters = x.shape[-1]
        flat = _group_norm("norm")(x).reshape(-1, filters)
        query, key, value = jnp.split(nn.Dense(3 * filters, name="qkv")(flat)[:, None], 3, axis=-1)
        out = jax.nn.dot_product_attention(query, key, value)[:, 0]
        out = nn.Dense(filters, kernel_init=nn.initializers.zeros, name="out")(out)
        return x + out.reshape(x.shape)


class UNet(nn.Module):
    """DDPM's U-Net: residual blocks on the way down, and up again with what was there before.

    `multipliers` gives the filters of each resolution, which halves from one to the next.
    """

    filters: int
    multipliers: Sequence[int]
    num_blocks: int
    attention: Sequence[int]
    num_outputs: int
    dropout: float
    fourier: Sequence[int]
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, gamma: Array, *, train: bool) -> Array:
        """Returns [h, w, c * num_outputs]."""
        width = 4 * self.filters
        time = _as(self.dtype, embed(gamma, self.filters))
        time = nn.silu(nn.Dense(width, name="time_in")(time))
        time = nn.silu(nn.Dense(width, name="time_out")(time))

        def block(h, filters, name, depth):
            h = ResidualBlock(filters, self.dropout, name=name)(h, time, train=train)
            return Attention(name=f"{name}_attention")(h) if depth in self.attention else h

        features = _as(self.dtype, with_fourier_features(x, self.fourier))
        h = Conv(self.filters, name="in")(features)
        passed = [h]
        for depth, multiplier in enumerate(self.multipliers):
            for index in range(self.num_blocks):
                h = block(h, multiplier * self.filters, f"down_{depth}_{index}", depth)
                passed.append(h)
            if depth < len(self.multipliers) - 1:
                h = Conv(h.shape[-1], strides=2, name=f"halve_{depth}")(h)
                passed.append(h)
        deepest = len(self.multipliers) - 1
        h = ResidualBlock(h.shape[-1], self.dropout, name="middle_0")(h, time, train=train)
        if deepest in self.attention:
            h = Attention(name="middle_attention")(h)
        h = ResidualBlock(h.shape[-1], self.dropout, name="middle_1")(h, time, train=train)
        for depth, multiplier in reversed(list(enumerate(self.multipliers))):
            for index in range(self.num_blocks + 1):
                h = jnp.concatenate([h, passed.pop()], axis=-1)
                h = block(h, multiplier * self.filters, f"up_{depth}_{index}", depth)
            if depth:
                # An odd size was rounded up on the way down.
                height, wide = passed[-1].shape[:2]
                h = h.repeat(2, axis=0).repeat(2, axis=1)[:height, :wide]
                h = Conv(h.shape[-1], name=f"double_{depth}")(h)
        h = nn.silu(_group_norm("norm")(h))
        count = x.shape[-1] * self.num_outputs
        return Conv(count, kernel_init=nn.initializers.zeros, name="out")(h)


def mlp(
    width: int,
    num_blocks: int,
    *,
    dropout: float = 0.0,
    fourier: Sequence[int] = (),
    learned_variance: bool = False,
    gated: bool = False,
    dtype: Any = None,
) -> Denoiser:
    """An `MLP`."""

    def make(count: int, dtype: Any) -> MLP:
        return MLP(width, num_blocks, count, dropout, tuple(fourier), dtype, gated)

    return _denoiser(make, learned_variance, dtype)


def unet(
    filters: int,
    multipliers: Sequence[int],
    num_blocks: int,
    *,
    attention: Sequence[int] = (),
    dropout: float = 0.0,
    fourier: Sequence[int] = (),
    learned_variance: bool = False,
    dtype: Any = None,
) -> Denoiser:
    """A `UNet`; `attention` names the resolutions that have it, 0 the finest."""
    sizes, places = tuple(multipliers), tuple(attention)

    def make(count: int, dtype: Any) -> UNet:
        return UNet(filters, sizes, num_blocks, places, count, dropout, tuple(fourier), dtype)

    return _denoiser(make, learned_variance, dtype)


def _as(dtype: Any, tree: PyTree) -> PyTree:
    """Arrays in another type, or as they are."""
    return tree if dtype is None else jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def _denoiser(
    make: Callable[[int, Any], nn.Module], learned_variance: bool, dtype: Any
) -> Denoiser:
    count = 2 if learned_variance else 1
    plain, net = make(count, None), make(count, dtype)

    def init(key, shape):
        return plain.init(key, jnp.zeros(shape), jnp.zeros(()), train=False)

    def predict(theta, x_t, gamma, dropout=None):
        rngs = None if dropout is None else {"dropout": dropout}
        theta = _as(dtype, theta)
        out: Any = net.apply(theta, x_t, gamma, train=dropout is not None, rngs=rngs)
        out = out.astype(x_t.dtype)
        if not learned_variance:
            return out
        prediction, share = jnp.split(out, 2, axis=-1)
        return prediction, jax.nn.sigmoid(share)

    return Denoiser(init, predict)


def _group_norm(name: str) -> nn.GroupNorm:
    # Without the axes Flax takes the rows of one image for a batch.
    return nn.GroupNorm(num_groups=None, group_size=8, reduction_axes=(0, 1, 2), name=name)
