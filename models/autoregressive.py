r"""Autoregressive models of integers with exact log P(x): the controls of dequantization.

A masked network (MADE) gives each pixel a mixture of logistics from the INTEGERS before it,

    log P(x) = sum_d log P(x_d | x_{<d}),

of the truncated or the discretised kind. The truncated one is also a density of continuous data,
p(x + u) = prod_d p(x_d + u_d | x_{<d}): a subset flow (Nielsen & Winther 2020, arXiv 2002.02547).
Trained and evaluated through dequantization its bound has an exact answer beside it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from models import quantized_mixture
from models.elementwise import LEAST_LOG_SCALE, Mixture


class MADE(nn.Module):
    """value [D], context [C] -> [D, num_outputs], where row d sees value[:d] and all of context.

    Source: Germain et al. 2015 (arXiv 1502.03509).
    """

    hidden: Sequence[int]
    num_outputs: int
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, value: Float[Array, "D"], context: Array | None = None, *, train: bool = False
    ) -> Array:
        """Returns the outputs; dropout acts in training alone."""
        size = value.shape[-1]
        degrees = np.arange(1, size + 1)
        h = value
        for index, width in enumerate(self.hidden):
            # A unit of degree m sees the first m entries; one of degree 0 only the context.
            own = np.arange(width) * size // width
            h = _Masked(width, own[None] >= degrees[:, None], name=f"hidden_{index}")(h)
            if context is not None:
                h += nn.Dense(width, use_bias=False, name=f"context_{index}")(context)
            h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
            degrees = own
        rows = np.repeat(np.arange(size), self.num_outputs)
        mask = rows[None] >= degrees[:, None]
        flat = _Masked(size * self.num_outputs, mask, name="outputs")(h)
        if context is not None:
            flat += nn.Dense(flat.shape[-1], use_bias=False, name="context_outputs")(context)
        return flat.reshape(size, self.num_outputs)


class _Masked(nn.Module):
    """A dense layer some of whose weights are 0."""

    width: int
    mask: np.ndarray

    @nn.compact
    def __call__(self, value):
        kernel = self.param("kernel", nn.initializers.lecun_normal(), self.mask.shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return value @ (kernel * self.mask) + bias


class Autoregressive(NamedTuple):
    """A model of integers x [D] in 0 .. levels-1.

    Attributes:
      init: (key, pixel_mean [D], pixel_sd [D]) -> params.
      log_prob: (params, x, dropout key or None) -> exact log P(x) in nats.
      log_density: (params, x, u, dropout key or None) -> log p(x + u), as
        `bounds.dequantization.dequantized` wants it; None for the discretised kind.
      simulate: (params, key) -> x.
    """

    init: Callable[[Array, Array, Array], PyTree]
    log_prob: Callable[..., Array]
    log_density: Callable[..., Array] | None
    simulate: Callable[[PyTree, Array], Array]


def subset_flow(
    num_dims: int,
    levels: int,
    *,
    hidden: Sequence[int],
    num_components: int,
    dropout: float = 0.0,
) -> Autoregressive:
    """The truncated kind: exact, and a continuous density at once."""
    mixtures, init = _network(num_dims, levels, hidden, num_components, dropout)

    def log_density(params, x, u, dropout=None):
        x = x.astype(jnp.float32)
        mixture = mixtures(params, x, dropout)
        return jnp.sum(quantized_mixture.truncated_log_density(mixture, levels, x, u))

    of_pixel = quantized_mixture.truncated_log_prob
    log_prob, simulate = _of_integers(num_dims, levels, mixtures, of_pixel)
    return Autoregressive(init, log_prob, log_density, simulate)


def discretized(
    num_dims: int,
    levels: int,
    *,
    hidden: Sequence[int],
    num_components: int,
    dropout: float = 0.0,
) -> Autoregressive:
    """The discretised kind: the likelihood of PixelCNN++, exact and of integers alone."""
    mixtures, init = _network(num_dims, levels, hidden, num_components, dropout)
    of_pixel = quantized_mixture.discretized_log_prob
    log_prob, simulate = _of_integers(num_dims, levels, mixtures, of_pixel)
    return Autoregressive(init, log_prob, None, simulate)


def _network(
    num_dims: int, levels: int, hidden: Sequence[int], num_components: int, dropout: float
):
    """(params, x, dropout key) -> the mixture of each pixel; and how parameters start."""
    net = MADE(tuple(hidden), 3 * num_components, dropout)
    half = (levels - 1) / 2

    def mixtures(params, x, dropout_key=None):
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        train = dropout_key is not None
        outputs: Any = net.apply(params, (x - half) / half, train=train, rngs=rngs)
        logits, means, log_scales = jnp.split(outputs, 3, axis=-1)
        log_scales = jnp.maximum(log_scales, LEAST_LOG_SCALE) + jnp.log(half)
        return Mixture(jax.nn.log_softmax(logits), half + half * means, log_scales)

    def init(key, pixel_mean, pixel_sd):
        variables = net.init(key, jnp.zeros(num_dims))
        # Components spread around the average image by its deviation.
        sd = jnp.maximum(pixel_sd, 0.5)[:, None]
        spread = jnp.linspace(-1.5, 1.5, num_components) if num_components > 1 else jnp.zeros(1)
        means = (pixel_mean[:, None] + sd * spread[None] - half) / half
        log_scales = jnp.broadcast_to(jnp.log(0.5 * sd / half), means.shape)
        bias = jnp.concatenate([jnp.zeros_like(means), means, log_scales], axis=-1)
        variables["params"]["outputs"]["bias"] = bias.reshape(-1)
        return variables

    return mixtures, init


def _of_integers(num_dims, levels, mixtures, log_prob_of_pixel):
    """`log_prob` and `simulate`: pixel by pixel, the conditioner is evaluated once for each."""
    values = jnp.arange(levels, dtype=jnp.float32)

    def log_prob(params, x, dropout=None):
        x = x.astype(jnp.float32)
        return jnp.sum(log_prob_of_pixel(mixtures(params, x, dropout), levels, x))

    def simulate(params, key):
        def one_more(x, d):
            mixture = jax.tree.map(lambda leaf: leaf[d], mixtures(params, x))
            logits = log_prob_of_pixel(mixture, levels, values)
            drawn = jax.random.categorical(jax.random.fold_in(key, d), logits)
            return x.at[d].set(values[drawn]), None

        return jax.lax.scan(one_more, jnp.zeros(num_dims), jnp.arange(num_dims))[0]

    return log_prob, simulate
