r"""The causal transformer of DALL-E over text tokens and then image tokens: p(y, z).

A caption y is T tokens, of which the last ones may be padding; each place has a padding token of
its own, as in the paper, and it is a value among V + 1: V words and "nothing here". After them come
the N image tokens z, with an embedding of their row and one of their column. Every token has a
distribution given all before it, so that p(y, z) sums to 1 over the (V + 1)^T K^N sequences.

Source: Ramesh et al. 2021 (arXiv 2102.12092), section 2.2 and appendix B, with full causal
attention in place of its sparse patterns.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree

import bounds

EMBED = nn.initializers.normal(0.02)


class TokenPrior(NamedTuple):
    """p(y, z) as pure functions; y [T] integers 0 .. V, where V is padding, z [N] 0 .. K - 1.

    Attributes:
      init: key -> theta.
      logits: (theta, y, z, dropout key or None) -> (text logits [T, V + 1], image logits [N, K]);
        row n is of token n given those before it.
      sample: (theta, key, y) -> z ~ p(z | y).
      masked: (y, dropout key or None) -> (the text, the image tokens given y) as models of masked
        tokens; None of a causal network.
      num_words: V.
      text_length: T.
      num_codes: K.
      num_tokens: N.
    """

    init: Callable[[Array], PyTree]
    logits: Callable[..., tuple[Array, Array]]
    sample: Callable[[PyTree, Array, Array], Array]
    num_words: int
    text_length: int
    num_codes: int
    num_tokens: int
    masked: Callable[..., tuple[bounds.masked.Masked, bounds.masked.Masked]] | None = None

    def __call__(self, theta: PyTree, y: Any, z: Any, dropout: Any = None) -> tuple[Array, Array]:
        """(log p(y), image logits [N, K]): the `prior` of a `bounds.joint.JointModel`."""
        text, image = self.logits(theta, y, z, dropout)
        return picked(text, jnp.asarray(y)), image

    def draw_text(self, theta: PyTree, key: Array) -> Array:
        """y ~ p(y), one token after another, as the rows of `logits` have it."""
        z = jnp.zeros(self.num_tokens, int)
        return _in_turn(key, self.text_length, lambda y: self.logits(theta, y, z)[0])

    def draw_image(self, theta: PyTree, key: Array, y: Array) -> Array:
        """z ~ p(z | y) in the same way, where `sample` may take any order."""
        return _in_turn(key, self.num_tokens, lambda z: self.logits(theta, y, z)[1])


class Layer(nn.Module):
    """Self-attention and a perceptron, each behind a layer norm."""

    heads: int
    dropout: float
    causal: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "s w"], train: bool) -> Array:
        """Returns an array shaped as x."""
        length, width = x.shape
        drop = nn.Dropout(self.dropout, deterministic=not train)
        inner = nn.Dense(3 * width, name="qkv")(nn.LayerNorm(name="norm_attention")(x))
        parts = inner.reshape(length, 3, self.heads, width // self.heads)
        query, keys, values = (parts[:, index] for index in range(3))
        out = jax.nn.dot_product_attention(query, keys, values, is_causal=self.causal)
        x += drop(nn.Dense(width, name="attended")(out.reshape(length, width)))
        inner = nn.gelu(nn.Dense(4 * width, name="wide")(nn.LayerNorm(name="norm")(x)))
        return x + drop(nn.Dense(width, name="narrow")(inner))


class Transformer(nn.Module):
    """Text and image tokens -> logits of each given those before it."""

    num_words: int
    text_length: int
    num_codes: int
    grid: tuple[int, int]
    layers: int
    width: int
    heads: int
    dropout: float

    @nn.compact
    def __call__(self, y: Int[Array, "T"], z: Int[Array, "N"], *, train: bool) -> tuple:
        """Returns (text logits [T, V + 1], image logits [N, K])."""
        length, words, (rows, columns) = self.text_length, self.num_words, self.grid

        def table(name, count):
            return self.param(name, EMBED, (count, self.width))

        padding = table("padding", length)
        text = jnp.where((y == words)[:, None], padding, table("words", words)[y % words])
        text += table("text_places", length)
        image = table("codes", self.num_codes)[z]
        places = table("rows", rows)[:, None] + table("columns", columns)[None]
        image += places.reshape(-1, self.width)
        # A first token that says nothing: what follows token n sees the tokens up to n.
        inputs = jnp.concatenate([table("start", 1), text, image[:-1]])
        # Computed again for the gradient where what layers would keep is large.
        layer: Any = nn.remat(Layer, static_argnums=(2,)) if len(inputs) >= 512 else Layer
        for index in range(self.layers):
            inputs = layer(self.heads, self.dropout, name=f"layer_{index}")(inputs, train)
        out = nn.LayerNorm(name="norm")(inputs)
        return (
            nn.Dense(words + 1, name="to_words")(out[:length]),
            nn.Dense(self.num_codes, name="to_codes")(out[length:]),
        )


def make_prior(
    *,
    num_words: int,
    text_length: int,
    num_codes: int,
    grid: tuple[int, int],
    layers: int,
    width: int,
    heads: int,
    dropout: float = 0.0,
) -> TokenPrior:
    """Builds the prior.

    Args:
      num_words: V.
      text_length: T, the context of captions.
      num_codes: K.
      grid: rows and columns of image tokens.
      layers: of the transformer.
      width: of its layers.
      heads: of attention.
      dropout: share of activations that training drops.

    Returns:
      A `TokenPrior`.

    Raises:
      ValueError: a size is below 1, or the heads do not divide the width.
    """
    sizes = {
        "num_words": num_words,
        "text_length": text_length,
        "num_codes": num_codes,
        "layers": layers,
        "heads": heads,
        "tokens in the grid": math.prod(grid),
    }
    check_transformer(sizes, width, heads, dropout)
    net = Transformer(num_words, text_length, num_codes, grid, layers, width, heads, dropout)
    num_tokens = math.prod(grid)

    def init(key: Array) -> PyTree:
        zeros = jnp.zeros(text_length, int), jnp.zeros(num_tokens, int)
        return net.init(key, *zeros, train=False)

    def logits(theta: PyTree, y: Any, z: Any, dropout: Any = None):
        y = check_tokens("y", y, text_length, num_words + 1)
        z = check_tokens("z", z, num_tokens, num_codes)
        rngs = None if dropout is None else {"dropout": dropout}
        found: Any = net.apply(theta, y, z, train=dropout is not None, rngs=rngs)
        return found

    def sample(theta: PyTree, key: Array, y: Array) -> Array:
        return _in_turn(key, num_tokens, lambda z: logits(theta, y, z)[1])

    return TokenPrior(init, logits, sample, num_words, text_length, num_codes, num_tokens)


def _in_turn(key: Array, length: int, logits_of: Callable[[Array], Array]) -> Array:
    """Tokens drawn one after another, by rows of logits that see those before alone."""

    def add(tokens, place):
        logits = logits_of(tokens)[place]
        token = jax.random.categorical(jax.random.fold_in(key, place), logits)
        return tokens.at[place].set(token), None

    return jax.lax.scan(add, jnp.zeros(length, int), jnp.arange(length))[0]


def check_transformer(sizes: dict[str, int], width: int, heads: int, dropout: float) -> None:
    """Refuses sizes of which no transformer can be made.

    Raises:
      ValueError: with what was wanted.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")
    if width < 1 or width % heads:
        raise ValueError(f"the width must be a multiple of heads ({heads}), got {width}.")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}.")


def picked(logits: Float[Array, "n k"], tokens: Int[Array, "n"]) -> Float[Array, ""]:
    """sum_n log p(token n)."""
    return jnp.sum(bounds.densities.categorical_log_prob(logits, tokens))


def check_tokens(name: str, tokens: Any, length: int, count: int) -> Array:
    """Refuses tokens of a wrong number, or, where they can be looked at, out of range.

    Raises:
      ValueError: with what was wanted.
    """
    tokens = jnp.asarray(tokens)
    if tokens.shape != (length,) or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(
            f"{name} must be {length} tokens, integers, got {tokens.dtype} of shape {tokens.shape}."
        )
    if not isinstance(tokens, Tracer):
        known = np.asarray(tokens)
        if known.size and not 0 <= known.min() <= known.max() < count:
            raise ValueError(
                f"{name} must hold tokens from 0 to {count - 1}, "
                f"got {known.min()} to {known.max()}."
            )
    return tokens
