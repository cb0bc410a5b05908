"""A bidirectional transformer that predicts masked tokens, and draws from any model that does.

Its layers are those of the causal prior of `token_prior`, without the causal mask.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

import bounds
from models.token_prior import EMBED, Layer, TokenPrior, check_tokens, check_transformer


class MaskedTokens(NamedTuple):
    """A network for sequences of L tokens, each one of V, that lie on a grid.

    Attributes:
      init: key -> theta.
      predict: (theta, tokens [L], dropout key or None) -> logits [L, V]; the token V is masked.
      length: L.
      levels: V.
    """

    init: Callable[[Array], PyTree]
    predict: Callable[..., Array]
    length: int
    levels: int

    def made(self, dropout: Any = None) -> bounds.masked.Masked:
        """The model, with one dropout mask for all of its evaluations."""
        return bounds.masked.Masked(
            lambda theta, tokens: self.predict(theta, tokens, dropout), self.length, self.levels
        )


class Bidirectional(nn.Module):
    """Tokens, some of them masked -> logits of each."""

    levels: int
    grid: tuple[int, int]
    layers: int
    width: int
    heads: int
    dropout: float

    @nn.compact
    def __call__(self, tokens: Int[Array, "L"], *, train: bool) -> Array:
        """Returns [L, V]."""
        rows, columns = self.grid

        def table(name, count):
            return self.param(name, EMBED, (count, self.width))

        places = table("rows", rows)[:, None] + table("columns", columns)[None]
        x = table("tokens", self.levels + 1)[tokens] + places.reshape(-1, self.width)
        for index in range(self.layers):
            x = Layer(self.heads, self.dropout, causal=False, name=f"layer_{index}")(x, train)
        return nn.Dense(self.levels, name="to_levels")(nn.LayerNorm(name="norm")(x))


def make_masked(
    *,
    levels: int,
    grid: tuple[int, int],
    layers: int,
    width: int,
    heads: int,
    dropout: float = 0.0,
) -> MaskedTokens:
    """Builds the network.

    Args:
      levels: V.
      grid: rows and columns of tokens.
      layers: of the transformer.
      width: of its layers.
      heads: of attention.
      dropout: share of activations that training drops.

    Returns:
      `MaskedTokens`.

    Raises:
      ValueError: a size is below 1, or the heads do not divide the width.
    """
    length = math.prod(grid)
    sizes = {"levels": levels, "layers": layers, "heads": heads, "tokens in the grid": length}
    check_transformer(sizes, width, heads, dropout)
    net = Bidirectional(levels, grid, layers, width, heads, dropout)

    def init(key: Array) -> PyTree:
        return net.init(key, jnp.zeros(length, int), train=False)

    def predict(theta: PyTree, tokens: Any, dropout: Any = None) -> Array:
        rngs = None if dropout is None else {"dropout": dropout}
        found: Any = net.apply(theta, tokens, train=dropout is not None, rngs=rngs)
        return found

    return MaskedTokens(init, predict, length, levels)


def reveal(
    model: bounds.masked.Masked, theta: PyTree, key: Array, tokens: Int[Array, "L"]
) -> Int[Array, "L"]:
    """Draws the masked tokens one after another, in an order that is drawn as well.

    Of nothing but masks it is a draw of the any-order model. Given visible tokens it is one of the
    network's own prediction of the others, a mixture over the orders of these alone.

    Args:
      model: the model.
      theta: its parameters.
      key: PRNG key.
      tokens: [L], of which those equal to `model.levels` are drawn.

    Returns:
      Tokens [L], none of them masked.
    """
    order_key, key = jax.random.split(key)
    hidden = tokens == model.levels
    # Visible ones first, and kept.
    order = jnp.argsort(jnp.where(hidden, jax.random.uniform(order_key, hidden.shape), -1.0))
    return reveal_in(order, model, theta, key, tokens)


def reveal_in(
    order: Int[Array, "L"],
    model: bounds.masked.Masked,
    theta: PyTree,
    key: Array,
    tokens: Int[Array, "L"],
) -> Int[Array, "L"]:
    """Draws the masked tokens in a given order, which has the places of all tokens."""
    hidden = tokens == model.levels

    def add(tokens, place):
        logits = model.predict(theta, tokens)[place]
        drawn = jax.random.categorical(jax.random.fold_in(key, place), logits)
        return tokens.at[place].set(jnp.where(hidden[place], drawn, tokens[place])), None

    return jax.lax.scan(add, tokens, order)[0]


def make_masked_prior(
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
    """A prior of captions and image tokens by a network that predicts masked ones.

    Its logits are those of one order, from left to right with everything after a token masked, by
    one evaluation for each token: p(y, z) of that order. Its draws are in any order.

    Args, Raises: as `token_prior.make_prior`.

    Returns:
      A `TokenPrior` whose `masked` is not None.
    """
    words, num_tokens = num_words + 1, math.prod(grid)
    net = make_masked(
        levels=words + num_codes,
        grid=(1, text_length + num_tokens),
        layers=layers,
        width=width,
        heads=heads,
        dropout=dropout,
    )

    def predict(theta: PyTree, y: Array, z: Array, key: Any) -> tuple[Array, Array]:
        """(text logits, image logits), where y of V + 1 and z of K are masked."""
        text = jnp.where(y == words, net.levels, y)
        image = jnp.where(z == num_codes, net.levels, z + words)
        found = net.predict(theta, jnp.concatenate([text, image]), key)
        return found[:text_length, :words], found[text_length:, words:]

    nothing = jnp.full(text_length, words), jnp.full(num_tokens, num_codes)

    def masked(y: Array, key: Any = None):
        of_text = bounds.masked.Masked(
            lambda theta, tokens: predict(theta, tokens, nothing[1], key)[0], text_length, words
        )
        of_image = bounds.masked.Masked(
            lambda theta, tokens: predict(theta, y, tokens, key)[1], num_tokens, num_codes
        )
        return of_text, of_image

    def logits(theta: PyTree, y: Any, z: Any, key: Any = None):
        y = check_tokens("y", y, text_length, words)
        z = check_tokens("z", z, num_tokens, num_codes)

        def row_of_text(place):
            seen = jnp.where(jnp.arange(text_length) < place, y, words)
            return predict(theta, seen, nothing[1], key)[0][place]

        def row_of_image(place):
            seen = jnp.where(jnp.arange(num_tokens) < place, z, num_codes)
            return predict(theta, y, seen, key)[1][place]

        text = jax.vmap(row_of_text)(jnp.arange(text_length))
        return text, jax.vmap(row_of_image)(jnp.arange(num_tokens))

    def sample(theta: PyTree, key: Array, y: Array) -> Array:
        return reveal(masked(y)[1], theta, key, nothing[1])

    return TokenPrior(
        net.init, logits, sample, num_words, text_length, num_codes, num_tokens, masked
    )
