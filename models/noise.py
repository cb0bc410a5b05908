r"""Noise for dequantization, learned: a `Dequantizer` with a network behind it for every kind.

The flow of Flow++ goes from logistic noise to v = logit(u) and sees the image through a
convolutional network; it starts as uniform noise, exactly, because its couplings start as the
identity and its base is logistic. So do the logit-logistic and the autoregressive noise.

Source: Ho et al. 2019 (arXiv 1902.00275) and the code its authors released; Hoogeboom et al. 2020
(arXiv 2001.11235).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

import bounds
from models import bijectors, conditioners
from models.autoregressive import MADE
from models.bijectors import Bijector, Conditioner
from models.chains import Repeated, chain
from models.conditioners import Context
from models.convolutions import Conv
from models.elementwise import Elementwise
from models.flows import MakeConditioner


class LearnedNoise(NamedTuple):
    """A dequantizer with parameters.

    Attributes:
      init: (key, x) -> phi, from one datum.
      make: (dropout key or None) -> the `bounds.dequantization.Dequantizer` of ONE datum.
    """

    init: Callable[[Array, Array], PyTree]
    make: Callable[[Any], bounds.dequantization.Dequantizer]


def uniform_noise() -> LearnedNoise:
    """Noise without parameters."""
    return LearnedNoise(lambda key, x: (), lambda dropout: bounds.dequantization.uniform())


BASES: dict[str, Callable[[Any], bounds.dequantization.Dequantizer]] = {
    "logistic": bounds.dequantization.logistic,
    "normal": bounds.dequantization.normal,
}


def diagonal_noise(
    levels: int, conditioner: Conditioner, *, base: str = "logistic"
) -> LearnedNoise:
    """Independent noise whose locations and log scales a network gives from the image.

    Args:
      levels: of the data.
      conditioner: which must start at 0; a logistic base then starts as uniform noise.
      base: "logistic" or "normal".
    """

    def init(key, x):
        return conditioner.init(key, _centered(x, levels), Context(), 2)

    def make(dropout_key):
        def parameters(phi, x):
            context = Context(dropout=dropout_key)
            outputs = conditioner.apply(phi, _centered(x, levels), context, 2)
            return outputs[..., 0], outputs[..., 1]

        return BASES[base](parameters)

    return LearnedNoise(init, make)


def autoregressive_noise(levels: int, hidden: Sequence[int]) -> LearnedNoise:
    """Logistic noise; a masked network sees the image and the entries before each."""

    def parameters(phi, x, v):
        context = _centered(x, levels).reshape(-1)
        outputs: Any = MADE(tuple(hidden), 2).apply(phi, jnp.tanh(v / 4).reshape(-1), context)
        return outputs[:, 0].reshape(x.shape), outputs[:, 1].reshape(x.shape)

    def init(key, x):
        flat = _centered(x, levels).reshape(-1)
        variables: Any = MADE(tuple(hidden), 2).init(key, flat, flat)
        for name in ("outputs", "context_outputs"):  # so that it starts as uniform noise
            own = variables["params"][name]
            own["kernel"] = jnp.zeros_like(own["kernel"])
        return variables

    return LearnedNoise(init, lambda dropout: bounds.dequantization.autoregressive(parameters))


def _centered(x: Array, levels: int) -> Array:
    """Integers to [-1/2, 1/2]."""
    return (x + 0.5) / levels - 0.5


class FeatureNet(nn.Module):
    """An image [H, W, C] in [-1/2, 1/2] to features [H, W, filters] for the dequantizer."""

    filters: int
    num_blocks: int
    dropout: float

    @nn.compact
    def __call__(self, image: Array, context: Context) -> Array:
        """Returns the features."""
        h = Conv(self.filters, name="in")(image)
        for index in range(self.num_blocks):
            convolve = conditioners.GatedConv(self.dropout, window=3, name=f"conv_{index}")
            h = convolve(h, context)
        return h


def image_noise(
    levels: int,
    transform: Elementwise,
    conditioner: MakeConditioner,
    *,
    num_couplings: int = 4,
    feature_filters: int = 32,
    feature_blocks: int = 3,
    dropout: float = 0.0,
    norm: bool = False,
    pointwise: bool = False,
    unroll: bool = False,
) -> LearnedNoise:
    """The dequantizer of Flow++ for images [H, W, C] of even width.

    Args:
      levels: of the data.
      transform: of the couplings.
      conditioner: index -> network, which must start at 0.
      num_couplings: how many, over the two halves of a checkerboard in turns.
      feature_filters: channels of the features; 0 makes the image itself the features.
      feature_blocks: gated convolutions of the network that makes them.
      dropout: of that network.
      norm: whether activation norms of each entry stand between couplings.
      pointwise: whether invertible 1x1 maps, one of each half, stand there. Both start as the
        identity.
      unroll: of the loop over couplings, as in `chains.Repeated`.
    """
    net = FeatureNet(feature_filters, feature_blocks, dropout)
    split = bijectors.channels()

    def step(index):
        parts = [bijectors.activation_norm(identity=True)] if norm else []
        if pointwise:
            each = bijectors.invertible_1x1(noise=0.0)
            parts.append(bijectors.halves(each, each, split))
        own = bijectors.swapped(split, index % 2 == 1)
        return [*parts, bijectors.coupling(conditioner(index), transform, own)]

    by_checkerboard = _by_checkerboard()
    steps = Repeated(step, num_couplings, unroll=unroll)
    flow = chain([by_checkerboard, steps, bijectors.inverted(by_checkerboard)])

    def features_of(variables, x, dropout_key):
        if not feature_filters:
            return image_of(x)
        rngs = None if dropout_key is None else {"dropout": jax.random.fold_in(dropout_key, 99)}
        features: Any = net.apply(variables, image_of(x), Context(dropout=dropout_key), rngs=rngs)
        return features

    def image_of(x):
        halves = bijectors.checkerboard().take(_centered(x, levels))
        return jnp.concatenate(halves, axis=-1)

    def init(key, x):
        net_key, flow_key = jax.random.split(key)
        variables = net.init(net_key, image_of(x), Context()) if feature_filters else ()
        features = features_of(variables, x, None)
        batch = jax.tree.map(lambda leaf: leaf[None], (x.astype(float), Context(features)))
        return variables, flow.init(flow_key, *batch)[0]

    def make(dropout_key):
        def context(phi, x):
            return Context(features_of(phi[0], x, dropout_key), dropout_key)

        return bounds.dequantization.flow(
            lambda phi, x, epsilon: flow.forward(phi[1], epsilon, context(phi, x)),
            lambda phi, x, v: flow.inverse(phi[1], v, context(phi, x)),
        )

    return LearnedNoise(init, make)


def _by_checkerboard() -> Bijector:
    """[H, W, C] -> [H, W/2, 2C]: the two colours of a checkerboard side by side."""
    split = bijectors.checkerboard()
    return bijectors.fixed(
        lambda z: (jnp.concatenate(split.take(z), axis=-1), jnp.zeros(())),
        lambda y: (split.join(*jnp.split(y, 2, axis=-1)), jnp.zeros(())),
    )
