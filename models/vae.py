r"""The variational autoencoders of Burda et al. 2015, with one or more stochastic layers.

Networks are Flax Linen modules that return distribution parameters; sampling and densities
stay outside them. tanh, Glorot-uniform weights, standard deviation exp(.); Bernoulli pixels, or
any `PixelLikelihood`.

Sizes of the paper: one layer `latents=(50,), hidden=((200, 200),)`; two layers
`latents=(100, 50), hidden=((200, 200), (100, 100))`.

Source: Burda et al. 2015 (arXiv 1509.00519) and the code its authors released.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

import bounds
from models.pixels import PixelLikelihood, bernoulli

BURDA_ONE_LAYER: dict[str, Any] = {"latents": (50,), "hidden": ((200, 200),)}
BURDA_TWO_LAYERS: dict[str, Any] = {
    "latents": (100, 50),
    "hidden": ((200, 200), (100, 100)),
}


class GaussianNet(nn.Module):
    """input -> (mean, log standard deviation) of a diagonal Gaussian."""

    hidden: Sequence[int]
    num_dims: int

    @nn.compact
    def __call__(self, value: Float[Array, "..."]) -> tuple[Array, Array]:
        """Returns (mean, log standard deviation)."""
        value = _trunk(value, self.hidden)
        return _dense(self.num_dims, "mean")(value), _dense(self.num_dims, "log_scale")(value)


class PixelNet(nn.Module):
    """input -> outputs of a `PixelLikelihood`, [num_pixels, num_outputs]."""

    hidden: Sequence[int]
    num_pixels: int
    num_outputs: int = 1

    @nn.compact
    def __call__(self, value: Float[Array, "..."]) -> Array:
        """Returns the outputs."""
        flat = _dense(self.num_pixels * self.num_outputs, "outputs")(_trunk(value, self.hidden))
        return flat.reshape(*flat.shape[:-1], self.num_pixels, self.num_outputs)


def _trunk(value: Array, hidden: Sequence[int]) -> Array:
    for index, width in enumerate(hidden):
        value = jnp.tanh(_dense(width, f"hidden_{index}")(value))
    return value


def _apply(net: nn.Module, variables: Any, value: Array) -> Any:
    return net.apply(variables, value)


def _dense(width: int, name: str) -> nn.Dense:
    return nn.Dense(width, kernel_init=nn.initializers.glorot_uniform(), name=name)


class VAE(NamedTuple):
    """A VAE as pure functions.

    Attributes:
      model: the `bounds.LatentModel`: x [num_pixels] of values 0 .. levels - 1, z a tuple of
        layers from the data upwards, theta and phi tuples of Linen variables.
      init: (key, pixel_mean [num_pixels], pixel_sd [num_pixels]) -> Params; the bias of the
        output starts at the average training image.
      encode: (phi, x) -> (mean, log standard deviation) of q(z1 | x).
      encoder_means: (phi, key, x) -> the mean of q of each layer, given x and one draw of the
        layers below it.
      decode: (theta, z1) -> mean pixel values; of zeros and ones, probabilities.
      simulate: (theta, key) -> (x, z), a draw from the joint.
      likelihood: of the pixels.
    """

    model: bounds.LatentModel
    init: Callable[..., bounds.Params]
    encode: Callable[[PyTree, Array], Any]
    encoder_means: Callable[[PyTree, Array, Array], Any]
    decode: Callable[[PyTree, Array], Any]
    simulate: Callable[[PyTree, Array], Any]
    likelihood: PixelLikelihood


def make_vae(
    num_pixels: int,
    *,
    latents: Sequence[int] = (50,),
    hidden: Sequence[Sequence[int]] = ((200, 200),),
    encoder_hidden: Sequence[Sequence[int]] | None = None,
    likelihood: PixelLikelihood | None = None,
) -> VAE:
    """Builds the VAE; the defaults are Burda's one-layer model.

    Args:
      num_pixels: size of x.
      latents: sizes of the stochastic layers, from the data upwards.
      hidden: hidden widths between each layer and the one below it, used by q and by p.
      encoder_hidden: those of q alone; None: as `hidden`.
      likelihood: of the pixels; None for `bernoulli()`.

    Returns:
      A `VAE`.

    Raises:
      ValueError: no layer, `latents` and `hidden` of different lengths, or a size below 1.
    """
    of_encoder = hidden if encoder_hidden is None else encoder_hidden
    if not latents or not len(latents) == len(hidden) == len(of_encoder):
        raise ValueError(
            "latents and hidden need one entry for each stochastic layer, "
            f"got {len(latents)} and {len(hidden)}, {len(of_encoder)} of the encoder."
        )
    for size in (*latents, *(width for widths in (*hidden, *of_encoder) for width in widths)):
        if size < 1:
            raise ValueError(f"sizes must be at least 1, got {size}.")
    likelihood = likelihood or bernoulli()
    highest = likelihood.levels - 1
    sizes = (num_pixels, *latents)
    encoders = [GaussianNet(tuple(h), n) for h, n in zip(of_encoder, latents, strict=True)]
    decoders: list[nn.Module] = [PixelNet(tuple(hidden[0]), num_pixels, likelihood.num_outputs)]
    decoders += [GaussianNet(tuple(h), n) for h, n in zip(hidden[1:], sizes[1:], strict=False)]

    def init(key: Array, pixel_mean: ArrayLike, pixel_sd: ArrayLike | None = None) -> bounds.Params:
        pixel_mean = jnp.asarray(pixel_mean, jnp.float32)
        pixel_sd = jnp.zeros_like(pixel_mean) if pixel_sd is None else jnp.asarray(pixel_sd)
        keys = jax.random.split(key, (2, len(latents)))
        phi = tuple(
            net.init(k, jnp.zeros(n)) for net, k, n in zip(encoders, keys[0], sizes, strict=False)
        )
        theta = tuple(
            net.init(k, jnp.zeros(n)) for net, k, n in zip(decoders, keys[1], latents, strict=True)
        )
        bias = likelihood.bias(pixel_mean, pixel_sd)
        theta[0]["params"]["outputs"]["bias"] = bias.reshape(-1)
        return bounds.Params(theta, phi)

    def scaled(x):
        return x.astype(jnp.float32) / highest

    def layer_log_prob(net, variables, value, z):
        mean, log_scale = _apply(net, variables, value)
        return bounds.densities.gaussian_log_prob(z, mean, jnp.exp(2 * log_scale))

    def propose(phi, key, x):
        below, z, log_prob = scaled(x), [], 0.0
        for net, variables, k in zip(encoders, phi, jax.random.split(key, len(phi)), strict=True):
            mean, log_scale = _apply(net, variables, below)
            below = mean + jnp.exp(log_scale) * jax.random.normal(k, mean.shape)
            log_prob += bounds.densities.gaussian_log_prob(below, mean, jnp.exp(2 * log_scale))
            z.append(below)
        return tuple(z), log_prob

    def log_q(phi, x, z):
        inputs = (scaled(x), *z)
        return sum(
            layer_log_prob(net, variables, below, above)
            for net, variables, below, above in zip(encoders, phi, inputs, z, strict=False)
        )

    def log_p(theta, x, z):
        top = bounds.densities.gaussian_log_prob(z[-1], 0.0, 1.0)
        outputs = _apply(decoders[0], theta[0], z[0])
        pixels = likelihood.log_prob(outputs, x.astype(jnp.float32))
        return sum(
            (
                layer_log_prob(net, variables, above, below)
                for net, variables, above, below in zip(
                    decoders[1:], theta[1:], z[1:], z, strict=False
                )
            ),
            top + pixels,
        )

    def encode(phi, x):
        return _apply(encoders[0], phi[0], scaled(x))

    def encoder_means(phi, key, x):
        z, _ = propose(phi, key, x)
        inputs = (scaled(x), *z)
        return tuple(
            _apply(net, variables, below)[0]
            for net, variables, below in zip(encoders, phi, inputs, strict=False)
        )

    def decode(theta, z1):
        return likelihood.mean(_apply(decoders[0], theta[0], z1))

    def simulate(theta, key):
        top_key, pixel_key, *keys = jax.random.split(key, len(latents) + 1)
        z = [jax.random.normal(top_key, (latents[-1],))]
        for net, variables, k in zip(decoders[:0:-1], theta[:0:-1], keys, strict=True):
            mean, log_scale = _apply(net, variables, z[0])
            z.insert(0, mean + jnp.exp(log_scale) * jax.random.normal(k, mean.shape))
        return likelihood.sample(pixel_key, _apply(decoders[0], theta[0], z[0])), tuple(z)

    model = bounds.LatentModel(propose, log_q, log_p)
    return VAE(model, init, encode, encoder_means, decode, simulate, likelihood)
