r"""The variational autoencoders of Burda et al. 2015, with one or more stochastic layers.

Networks are Flax Linen modules that return distribution parameters; sampling and densities
stay outside them. tanh, Glorot-uniform weights, standard deviation exp(.), Bernoulli pixels.

Sizes of the paper: one layer `latents=(50,), hidden=((200, 200),)`; two layers
`latents=(100, 50), hidden=((200, 200), (100, 100))`.

Source: Burda et al. 2015 (arXiv 1509.00519) and the code its authors released.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

import bounds

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


class BernoulliNet(nn.Module):
    """input -> logits of Bernoulli pixels."""

    hidden: Sequence[int]
    num_pixels: int

    @nn.compact
    def __call__(self, value: Float[Array, "..."]) -> Array:
        """Returns the logits."""
        return _dense(self.num_pixels, "logits")(_trunk(value, self.hidden))


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
      model: the `bounds.LatentModel`: x [num_pixels] of zeros and ones, z a tuple of
        layers from the data upwards, theta and phi tuples of Linen variables.
      init: (key, pixel_mean [num_pixels]) -> Params; the output bias starts at the
        logits of the training mean.
      encode: (phi, x) -> (mean, log standard deviation) of q(z1 | x).
      decode: (theta, z1) -> pixel probabilities.
      simulate: (theta, key) -> (x, z), a draw from the joint.
    """

    model: bounds.LatentModel
    init: Callable[[Array, Array], bounds.Params]
    encode: Callable[[PyTree, Array], Any]
    decode: Callable[[PyTree, Array], Any]
    simulate: Callable[[PyTree, Array], Any]


def make_vae(
    num_pixels: int,
    *,
    latents: Sequence[int] = (50,),
    hidden: Sequence[Sequence[int]] = ((200, 200),),
) -> VAE:
    """Builds the VAE; the defaults are Burda's one-layer model.

    Args:
      num_pixels: size of x.
      latents: sizes of the stochastic layers, from the data upwards.
      hidden: hidden widths between each layer and the one below it, used by q and by p.

    Returns:
      A `VAE`.

    Raises:
      ValueError: no layer, or `latents` and `hidden` of different lengths.
    """
    if not latents or len(latents) != len(hidden):
        raise ValueError(
            "latents and hidden need one entry for each stochastic layer, "
            f"got {len(latents)} and {len(hidden)}."
        )
    sizes = (num_pixels, *latents)
    encoders = [GaussianNet(tuple(h), n) for h, n in zip(hidden, latents, strict=True)]
    decoders: list[nn.Module] = [BernoulliNet(tuple(hidden[0]), num_pixels)]
    decoders += [GaussianNet(tuple(h), n) for h, n in zip(hidden[1:], sizes[1:], strict=False)]

    def init(key: Array, pixel_mean: Array) -> bounds.Params:
        keys = jax.random.split(key, (2, len(latents)))
        phi = tuple(
            net.init(k, jnp.zeros(n)) for net, k, n in zip(encoders, keys[0], sizes, strict=False)
        )
        theta = tuple(
            net.init(k, jnp.zeros(n)) for net, k, n in zip(decoders, keys[1], latents, strict=True)
        )
        clipped = jnp.clip(jnp.asarray(pixel_mean, jnp.float32), 0.001, 0.999)
        theta[0]["params"]["logits"]["bias"] = jax.scipy.special.logit(clipped)
        return bounds.Params(theta, phi)

    def layer_log_prob(net, variables, value, z):
        mean, log_scale = _apply(net, variables, value)
        return bounds.gaussian_log_prob(z, mean, jnp.exp(2 * log_scale))

    def propose(phi, key, x):
        below, z, log_prob = x.astype(jnp.float32), [], 0.0
        for net, variables, k in zip(encoders, phi, jax.random.split(key, len(phi)), strict=True):
            mean, log_scale = _apply(net, variables, below)
            below = mean + jnp.exp(log_scale) * jax.random.normal(k, mean.shape)
            log_prob += bounds.gaussian_log_prob(below, mean, jnp.exp(2 * log_scale))
            z.append(below)
        return tuple(z), log_prob

    def log_q(phi, x, z):
        inputs = (x.astype(jnp.float32), *z)
        return sum(
            layer_log_prob(net, variables, below, above)
            for net, variables, below, above in zip(encoders, phi, inputs, z, strict=False)
        )

    def log_p(theta, x, z):
        top = bounds.gaussian_log_prob(z[-1], 0.0, 1.0)
        logits = _apply(decoders[0], theta[0], z[0])
        pixels = jnp.sum(bounds.bernoulli_log_prob(logits, x.astype(jnp.float32)))
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
        return _apply(encoders[0], phi[0], x.astype(jnp.float32))

    def decode(theta, z1):
        return jax.nn.sigmoid(_apply(decoders[0], theta[0], z1))

    def simulate(theta, key):
        top_key, pixel_key, *keys = jax.random.split(key, len(latents) + 1)
        z = [jax.random.normal(top_key, (latents[-1],))]
        for net, variables, k in zip(decoders[:0:-1], theta[:0:-1], keys, strict=True):
            mean, log_scale = _apply(net, variables, z[0])
            z.insert(0, mean + jnp.exp(log_scale) * jax.random.normal(k, mean.shape))
        x = jax.random.bernoulli(pixel_key, decode(theta, z[0])).astype(jnp.float32)
        return x, tuple(z)

    return VAE(bounds.LatentModel(propose, log_q, log_p), init, encode, decode, simulate)
