"""Networks of couplings, as `bijectors.Conditioner`: dense, and the convolutions of Flow++.

They take one datum and return outputs; dropout acts where the context carries a key.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from models.bijectors import Conditioner
from models.convolutions import Conv

_KEPT = "product"


class Context(NamedTuple):
    """What a coupling sees beside its half.

    Attributes:
      features: array over the same pixels, or None.
      dropout: PRNG key of one datum, or None for no dropout. One key gives one mask, whatever is
        evaluated with it.
    """

    features: Array | None = None
    dropout: Any = None


def concat_elu(x: Array) -> Array:
    """elu of x and of -x, side by side (van den Oord et al. 2016)."""
    return nn.elu(jnp.concatenate([x, -x], axis=-1))


def _kept(product: Array) -> Array:
    """What a turn keeps for its derivative: matrix products, not what is cheap to make again."""
    return checkpoint_name(product, _KEPT)


def _apart(x: Array) -> Array:
    """x before a convolution: XLA for TPUs would make it anew for every window, in as much code."""
    return jax.lax.optimization_barrier(x)


def _small(fan_scale: float = 0.1):
    """Glorot weights times `fan_scale`."""
    return nn.initializers.variance_scaling(fan_scale**2, "fan_avg", "uniform")


class DenseNet(nn.Module):
    """A perceptron over all entries of a datum and of its features."""

    hidden: Sequence[int]
    dropout: float
    num_outputs: int
    last_scale: float

    @nn.compact
    def __call__(self, a: Array, context: Context) -> Array:
        """Returns [*a.shape, num_outputs]."""
        inputs = [a.reshape(-1)]
        if context.features is not None:
            inputs.append(context.features.reshape(-1))
        h = jnp.concatenate(inputs)
        for index, width in enumerate(self.hidden):
            h = nn.silu(nn.Dense(width, name=f"hidden_{index}")(h))
            h = nn.Dropout(self.dropout, deterministic=context.dropout is None)(h)
        init = _small(self.last_scale) if self.last_scale else nn.initializers.zeros
        flat = nn.Dense(a.size * self.num_outputs, kernel_init=init, name="outputs")(h)
        return flat.reshape(*a.shape, self.num_outputs)


class GatedConv(nn.Module):
    """x + GLU of two convolutions; the context enters between them.

    The second one has windows of `window` x `window` pixels: 1 within couplings.
    Source: Ho et al. 2019 (arXiv 1902.00275), section 3.3 and the released code.
    """

    dropout: float
    window: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"], context: Context) -> Float[Array, "h w c"]:
        """Returns an array shaped as x."""
        filters = x.shape[-1]
        h = _kept(Conv(filters, name="first")(_apart(concat_elu(x))))
        if context.features is not None:
            h += nn.Dense(filters, name="context")(concat_elu(context.features))
        h = nn.Dropout(self.dropout, deterministic=context.dropout is None)(concat_elu(h))
        h = _kept(Conv(2 * filters, self.window, kernel_init=_small(), name="second")(_apart(h)))
        return x + nn.glu(h)


class GatedAttention(nn.Module):
    """x + GLU of self-attention over all pixels, which `position` tells apart."""

    dropout: float
    num_heads: int = 4

    @nn.compact
    def __call__(
        self, x: Float[Array, "h w c"], position: Float[Array, "h w c"], context: Context
    ) -> Float[Array, "h w c"]:
        """Returns an array shaped as x."""
        filters = x.shape[-1]
        pixels = (x + position).reshape(-1, filters)
        joined = _kept(nn.Dense(3 * filters, name="queries_keys_values")(pixels))
        heads = joined.reshape(-1, 3, self.num_heads, filters // self.num_heads)
        query, key, value = heads[:, 0], heads[:, 1], heads[:, 2]
        out = _kept(jax.nn.dot_product_attention(query, key, value).reshape(-1, filters))
        out = nn.Dropout(self.dropout, deterministic=context.dropout is None)(out)
        h = _kept(nn.Dense(2 * filters, kernel_init=_small(), name="out")(out))
        return x + nn.glu(h).reshape(x.shape)


class _Turn(nn.Module):
    """A gated convolution, and attention where `position` is given; a layer norm follows each."""

    dropout: float

    @nn.compact
    def __call__(self, h: Array, position: Array | None, context: Context) -> tuple[Array, None]:
        """Returns an array shaped as h, as a scan wants it."""
        h = GatedConv(self.dropout, name="conv")(h, context)
        h = nn.LayerNorm(name="conv_norm")(h)
        if position is not None:
            h = GatedAttention(self.dropout, name="attention")(h, position, context)
            h = nn.LayerNorm(name="attention_norm")(h)
        return h, None


class ConvNet(nn.Module):
    """Gated convolutions and attention in turns; the leading axis of their parameters is the turn.

    They are scanned over: the ten of Flow++ in each of its couplings are compiled as one. For the
    derivative they keep their matrix products; attention weights and masks are made again.
    """

    filters: int
    num_blocks: int
    dropout: float
    attention: bool
    num_outputs: int
    last_scale: float

    @nn.compact
    def __call__(self, a: Float[Array, "h w c"], context: Context) -> Float[Array, "h w c p"]:
        """Returns [*a.shape, num_outputs]."""
        h = Conv(self.filters, name="in")(a)
        position = None
        if self.attention:  # one embedding for all turns
            position = self.param("position", nn.initializers.normal(0.01), h.shape)
        every_turn: Any = nn.broadcast
        turn = nn.remat(
            _Turn, prevent_cse=False,
            policy=jax.checkpoint_policies.save_only_these_names(_KEPT),
        )  # fmt: skip
        turns = nn.scan(
            turn, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True},
            in_axes=every_turn, length=self.num_blocks,
        )  # fmt: skip
        h, _ = turns(self.dropout, name="turns")(h, position, context)
        init = _small(self.last_scale) if self.last_scale else nn.initializers.zeros
        count = a.shape[-1] * self.num_outputs
        out = Conv(count, kernel_init=init, name="outputs")(h)
        return out.reshape(*a.shape, self.num_outputs)


def dense(
    hidden: Sequence[int], *, index: int | Array, dropout: float = 0.0, last_scale: float = 0.1
) -> Conditioner:
    """A `DenseNet`; `index` tells its dropout mask from those of other couplings.

    `last_scale` 0 starts the coupling as the identity.
    """
    return _conditioner(lambda count: DenseNet(tuple(hidden), dropout, count, last_scale), index)


def convolutional(
    filters: int,
    num_blocks: int,
    *,
    index: int | Array,
    dropout: float = 0.0,
    attention: bool = True,
    last_scale: float = 0.1,
) -> Conditioner:
    """A `ConvNet`; `index` and `last_scale` as in `dense`."""
    return _conditioner(
        lambda count: ConvNet(filters, num_blocks, dropout, attention, count, last_scale), index
    )


def _conditioner(make, index: int | Array) -> Conditioner:
    def init(key, a, context, count):
        return make(count).init(key, a, context._replace(dropout=None))

    def apply(params, a, context, count):
        rngs = None
        if context.dropout is not None:
            rngs = {"dropout": jax.random.fold_in(context.dropout, index)}
        return make(count).apply(params, a, context, rngs=rngs)

    return Conditioner(init, apply)
