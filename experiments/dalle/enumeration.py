"""All codes of a model, a chunk at a time: what decoders and priors say is shared by all images.

The sum over K^N codes is then two matrix products for a chunk: log p(x | z) picks from tables of
every pixel's levels, log q(z | x) from logits of every token.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import bounds
from experiments.dalle.build import Model
from experiments.runtime.compiling import precise
from experiments.studies import held_out
from models.pixels import level_log_probs

CHUNK = 4096  # codes at once, at most
LIMIT = 2**20  # codes, beyond which there is no enumeration
_IMAGES = 1024  # at once, on each device


class Enumerated(NamedTuple):
    """Exact numbers of each image [M], in nats.

    Attributes:
      values: see `bounds.joint.Values`.
      gap: KL(q(z | x) || p(z | x, y)) by a sum of its own.
      log_text: log p(y).
    """

    values: bounds.joint.Values
    gap: Any
    log_text: Any


def possible(model: Model) -> bool:
    """Whether the codes are few enough."""
    return model.num_sequences <= LIMIT


def all_codes(num_tokens: int, num_codes: int) -> np.ndarray:
    """int32 [K^N, N], in lexicographic order."""
    return np.array(list(itertools.product(range(num_codes), repeat=num_tokens)), np.int32)


def log_priors(
    model: Model, params: bounds.Params, captions: np.ndarray, *, all_orders: bool = False
) -> tuple[Array, Array]:
    """(log p(y) [C], log p(z | y) [C, K^N]) of captions [C, T].

    Token n depends on those before it alone, so the K^(N-1) prefixes give them all. With
    `all_orders` p(z | y) is the mixture over the orders of its tokens, of a masked prior.
    """
    prefixes = all_codes(model.dvae.num_tokens - 1, model.num_codes)
    whole = np.pad(prefixes, ((0, 0), (0, 1)))
    found = [_prior_of(model)(params.theta, jnp.asarray(y), whole) for y in captions]
    text, image = (jnp.stack(part) for part in zip(*found, strict=True))
    if all_orders:
        image = jnp.stack([_all_orders_of(model)(params.theta, jnp.asarray(y)) for y in captions])
    return text, image.reshape(len(captions), -1)


@functools.cache
def _all_orders_of(model: Model):
    """Jitted (theta, one caption) -> log p(z | y) [K^N] of the mixture over orders.

    What the network says depends on the visible tokens, and of those there are (K + 1)^N.
    """
    num_tokens, num_codes = model.dvae.num_tokens, model.num_codes
    seen = all_codes(num_tokens, num_codes + 1)
    places = (num_codes + 1) ** jnp.arange(num_tokens - 1, -1, -1)
    table = bounds.masked.Masked(
        lambda said, tokens: said[jnp.sum(tokens * places)], num_tokens, num_codes
    )

    masked: Any = model.prior.masked

    @jax.jit
    @precise
    def log_prob(theta, y):
        _, image = masked(y)
        said = jax.lax.map(
            lambda z: image.predict(theta["prior"], z), jnp.asarray(seen), batch_size=CHUNK
        )
        codes = jnp.asarray(all_codes(num_tokens, num_codes))
        return jax.lax.map(
            lambda z: bounds.masked.enumerated(table, said, z).log_prob, codes, batch_size=CHUNK
        )

    return log_prob


@functools.cache
def _prior_of(model: Model):
    @jax.jit
    @precise
    def prior(theta, y, prefixes):
        def one(z):
            text, logits = model.joint.prior(theta, y, z)
            log_probs = jax.nn.log_softmax(logits)
            before = jnp.take_along_axis(log_probs[:-1], z[:-1, None], axis=-1)
            return text, jnp.sum(before) + log_probs[-1]

        text, image = jax.lax.map(one, prefixes, batch_size=CHUNK)
        return text[0], image

    return prior


def enumerated(
    model: Model,
    params: bounds.Params,
    images: np.ndarray,
    captions: np.ndarray,
    *,
    all_orders: bool = False,
) -> Enumerated:
    """Sums over all codes for every image.

    Args:
      model: one whose enumeration is `possible`.
      params: its parameters.
      images: float32 [M, h, w, c].
      captions: tokens [M, T].
      all_orders: see `log_priors`.

    Returns:
      `Enumerated`.
    """
    distinct, own = np.unique(captions, axis=0, return_inverse=True)
    own = own.reshape(-1)
    text, image = log_priors(model, params, distinct, all_orders=all_orders)
    return _sums(model, params, images, own, text, image)


def of_images(
    model: Model, params: bounds.Params, images: np.ndarray, sequences: np.ndarray
) -> bounds.joint.Values:
    """Sums over all codes for every image x alone, with the captions `sequences` summed out.

    Its log_p is log p(x), and its bound that of q(z | x) on it, if these are all captions.
    """
    text, image = log_priors(model, params, sequences)
    marginal = jax.nn.logsumexp(text[:, None] + image, axis=0)[None]
    nothing, own = np.zeros((1,), text.dtype), np.zeros(len(images), np.int32)
    return _sums(model, params, images, own, nothing, marginal).values


def _sums(
    model: Model, params: bounds.Params, images: np.ndarray, own: np.ndarray, text: Any, image: Any
) -> Enumerated:
    found: Any = held_out.over_images(
        _sums_of(model), (params, text, image), (images, own), None, images_per_pass=_IMAGES
    )
    return found


@functools.cache
def _sums_of(model: Model):
    codes, _ = _chunks(model)

    def sums(given, key, data, index):
        del key, index
        (params, text, image), (images, own) = given, data
        log_prior = text[:, None] + image
        chunk = functools.partial(_chunk, model, params, images, codes, log_prior, own)
        values = bounds.joint.values(chunk, len(codes))
        gap = bounds.joint.posterior_kl(chunk, len(codes))
        return Enumerated(values, gap, text[own])

    return held_out.spread(sums)


def _chunk(
    model: Model,
    params: Any,
    images: Array,
    codes: Array,
    log_prior: Array,
    own: Array,
    index: Array,
):
    """A chunk for `bounds.joint.values`: three arrays [M, codes of the chunk].

    `log_prior` [C, K^N] has a row for each caption, `own` [M] the caption of each image.
    """
    one_hot = codes_of(codes[index], model.num_codes)
    size = codes.shape[1]
    tables = jax.vmap(lambda c: _levels_of(model, params, c))(
        one_hot.reshape(size, -1, model.num_codes)
    ).reshape(size, -1)
    picks = jax.nn.one_hot(
        images.reshape(len(images), -1).astype(int), model.dvae.likelihood.levels
    )
    log_px = picks.reshape(len(images), -1) @ tables.T
    log_q = _log_q_of(model, params.phi, images) @ one_hot.T
    # A slice of the captions' table, then a row of it for each image: no [M, K^N] is made.
    log_prior = jax.lax.dynamic_slice_in_dim(log_prior, index * size, size, axis=1)[own]
    return log_q, log_prior, log_px


def _levels_of(model: Model, params: bounds.Params, codes: Array) -> Array:
    outputs = model.dvae.decode(params.theta["decoder"], codes)
    return level_log_probs(model.dvae.likelihood, outputs)


def _log_q_of(model: Model, phi: Any, images: Array) -> Array:
    """log q of every code at every token, [M, N K]."""
    logits = jax.vmap(model.dvae.encode, (None, 0))(phi, images)
    return jax.nn.log_softmax(logits).reshape(len(images), -1)


def codes_of(tokens: Array, num_codes: int) -> Array:
    """[C, N] -> one-hot [C, N K]."""
    return jax.nn.one_hot(tokens, num_codes).reshape(len(tokens), -1)


def prior_gap(
    model: Model, params: bounds.Params, images: np.ndarray, captions: np.ndarray
) -> float:
    """KL(qbar(z | y) || p(z | y)), qbar the mean of q(z | x) over the images of a caption.

    A mean over captions as frequent as among the images; what the best prior of these images would
    save of their mean D.
    """
    distinct, own = np.unique(captions, axis=0, return_inverse=True)
    _, log_p = log_priors(model, params, distinct)
    total, counts = 0.0, np.bincount(own.reshape(-1))
    for caption, count in enumerate(counts):
        # Padded to the same number for every caption, so that it is compiled once for all.
        chosen = np.resize(np.flatnonzero(own.reshape(-1) == caption), counts.max())
        counted = np.arange(counts.max()) < count
        log_mean = _mean_posterior(model)(params.phi, images[chosen], counted)
        log_mean = np.asarray(log_mean, np.float64)
        kl = np.sum(np.exp(log_mean) * (log_mean - np.asarray(log_p[caption], np.float64)))
        total += count * float(kl)
    return total / len(images)


@functools.cache
def _mean_posterior(model: Model):
    """Jitted (phi, images, which of them count) -> log of the mean of q(z | x) [K^N]."""
    codes, _ = _chunks(model)

    @jax.jit
    @precise
    def mean(phi, images, counted):
        weights = jnp.where(counted, -jnp.log(jnp.sum(counted)), -jnp.inf)[:, None]
        q = _log_q_of(model, phi, images)

        def one(tokens):
            log_q = q @ codes_of(tokens, model.num_codes).T
            return jax.nn.logsumexp(log_q + weights, axis=0)

        return jax.lax.map(one, codes).reshape(-1)

    return mean


def _chunks(model: Model) -> tuple[Array, int]:
    """(tokens [chunks, codes of each, N], codes of each)."""
    tokens, num_codes = model.dvae.num_tokens, model.num_codes
    # The codes that share their first tokens.
    size = num_codes ** max(k for k in range(tokens + 1) if num_codes**k <= CHUNK)
    return jnp.asarray(all_codes(tokens, num_codes).reshape(-1, size, tokens)), size
