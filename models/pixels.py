r"""Distributions of pixels with any number of levels, as pure functions of decoder outputs.

A decoder gives P numbers for each pixel; a `PixelLikelihood` turns them into a distribution over
the values 0 .. L-1. All are probabilities of integers, in nats, so their bounds compare; all but
`logit_laplace`, which is there to show what a density does instead.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import bounds


class PixelLikelihood(NamedTuple):
    """p(x | outputs) for independent pixels.

    Attributes:
      levels: L, how many values a pixel can take.
      num_outputs: P, decoder outputs for each pixel.
      log_prob: (outputs [D, P], x [D]) -> log p(x | outputs) of all pixels together.
      mean: (outputs [D, P]) -> mean pixel values [D], in 0 .. L-1.
      sample: (key, outputs [D, P]) -> pixel values [D] as float32.
      density: whether log_prob is of a density, whose values are no probabilities of integers.
      bias: (mean [D], standard deviation [D] of the training pixels) -> outputs [D, P] to start
        from: an untrained decoder starts near the average image.
    """

    levels: int
    num_outputs: int
    log_prob: Callable[[Array, Array], Array]
    mean: Callable[[Array], Array]
    sample: Callable[[Array, Array], Array]
    bias: Callable[[Array, Array], Array]
    density: bool = False


def bernoulli() -> PixelLikelihood:
    """Pixels of zeros and ones; the output is the logit of a one (Burda et al. 2015)."""

    def log_prob(outputs: Float[Array, "d 1"], x: Float[Array, "d"]) -> Float[Array, ""]:
        return jnp.sum(bounds.densities.bernoulli_log_prob(outputs[:, 0], x))

    def mean(outputs):
        return jax.nn.sigmoid(outputs[:, 0])

    def sample(key, outputs):
        return jax.random.bernoulli(key, mean(outputs)).astype(jnp.float32)

    def bias(pixel_mean, pixel_sd):
        del pixel_sd
        return jax.scipy.special.logit(jnp.clip(pixel_mean, 0.001, 0.999))[:, None]

    return PixelLikelihood(2, 1, log_prob, mean, sample, bias)


def categorical(levels: int) -> PixelLikelihood:
    """Any distribution over the L values; the outputs are their logits."""
    _check_levels(levels)
    values = jnp.arange(levels, dtype=jnp.float32)

    def log_prob(outputs: Float[Array, "d p"], x: Float[Array, "d"]) -> Float[Array, ""]:
        return jnp.sum(bounds.densities.categorical_log_prob(outputs, x))

    def mean(outputs):
        return jnp.sum(jax.nn.softmax(outputs) * values[None], axis=-1)

    def sample(key, outputs):
        return jax.random.categorical(key, outputs).astype(jnp.float32)

    def bias(pixel_mean, pixel_sd):
        # A discretised logistic, with one part in a thousand spread over all values.
        start = _logistic_bias(levels, pixel_mean, pixel_sd)
        each = jnp.broadcast_to(values[:, None], (levels, start.shape[0]))
        log_pmf = jax.vmap(lambda x: _logistic_log_pmf(levels, start, x))(each).T
        return jnp.logaddexp(log_pmf + math.log1p(-0.001), math.log(0.001 / levels))

    return PixelLikelihood(levels, levels, log_prob, mean, sample, bias)


def discretized_logistic(levels: int) -> PixelLikelihood:
    r"""A logistic density integrated over the bins of width 1 around 0 .. L-1.

    .. math:: P(x) = \sigma\!\left(\frac{x + 1/2 - \mu}{s}\right)
       - \sigma\!\left(\frac{x - 1/2 - \mu}{s}\right)

    with the tails given to 0 and L-1, so that it sums to 1. The outputs are the location and the
    log of the scale s, both in units of the range L-1 around its middle, so that outputs of order
    one serve any L; log s itself is kept between -30 and 30. Source: Salimans et al. 2017
    (arXiv 1701.05517), section 2.1, with a single component.
    """
    _check_levels(levels)

    def log_prob(outputs: Float[Array, "d 2"], x: Float[Array, "d"]) -> Float[Array, ""]:
        return jnp.sum(_logistic_log_pmf(levels, outputs, x))

    def mean(outputs):
        # The sum of P(x >= k) over k = 1 .. L-1.
        location, log_scale = _logistic_parameters(levels, outputs)
        above = location[:, None] - (jnp.arange(1, levels) - 0.5)[None]
        return jnp.sum(jax.nn.sigmoid(above * jnp.exp(-log_scale)[:, None]), axis=-1)

    def sample(key, outputs):
        location, log_scale = _logistic_parameters(levels, outputs)
        draw = location + jnp.exp(log_scale) * jax.random.logistic(key, location.shape)
        return jnp.clip(jnp.round(draw), 0, levels - 1).astype(jnp.float32)

    def bias(pixel_mean, pixel_sd):
        return _logistic_bias(levels, pixel_mean, pixel_sd)

    return PixelLikelihood(levels, 2, log_prob, mean, sample, bias)


def discretized_logit_laplace(levels: int) -> PixelLikelihood:
    r"""DALL-E's logit-Laplace density, integrated over cells: probabilities, which sum to 1.

    The outputs are mu and log b on the scale of the logits, kept within +-30 and +-10. See
    `bounds.densities.discretized_logit_laplace_log_prob`.
    """
    _check_levels(levels)
    values = jnp.arange(levels, dtype=jnp.float32)

    def log_prob(outputs: Float[Array, "d 2"], x: Float[Array, "d"]) -> Float[Array, ""]:
        mean, log_scale = _laplace_parameters(outputs)
        return jnp.sum(
            bounds.densities.discretized_logit_laplace_log_prob(x, mean, log_scale, levels=levels)
        )

    def mean(outputs):
        mean, log_scale = _laplace_parameters(outputs)
        log_probs = bounds.densities.discretized_logit_laplace_log_prob(
            jnp.broadcast_to(values, (len(mean), levels)),
            mean[:, None],
            log_scale[:, None],
            levels=levels,
        )
        return jnp.sum(jnp.exp(log_probs) * values[None], axis=-1)

    def sample(key, outputs):
        mean, log_scale = _laplace_parameters(outputs)
        draw = mean + jnp.exp(log_scale) * jax.random.laplace(key, mean.shape)
        return jnp.clip(jnp.round(unsqueeze(jax.nn.sigmoid(draw), levels)), 0, levels - 1)

    return PixelLikelihood(levels, 2, log_prob, mean, sample, _laplace_bias(levels))


def logit_laplace(levels: int) -> PixelLikelihood:
    r"""DALL-E's own decoder: a DENSITY of squeezed pixels, whose logarithms are no probabilities.

    Pixels are (1 - 2 eps) x / (L - 1) + eps, eps = 0.1, of which the density leaves mass outside:
    its values compare with those of no probability, and give no bits/dim. Source: Ramesh et al.
    2021 (arXiv 2102.12092), section 3.2.
    """
    discretized = discretized_logit_laplace(levels)

    def log_prob(outputs: Float[Array, "d 2"], x: Float[Array, "d"]) -> Float[Array, ""]:
        mean, log_scale = _laplace_parameters(outputs)
        return jnp.sum(bounds.densities.logit_laplace_log_prob(squeeze(x, levels), mean, log_scale))

    def mean(outputs):
        # As in the released code: the squeezed pixel whose logit is mu.
        median = unsqueeze(jax.nn.sigmoid(_laplace_parameters(outputs)[0]), levels)
        return jnp.clip(median, 0.0, levels - 1.0)

    return discretized._replace(log_prob=log_prob, mean=mean, density=True)


SQUEEZE = 0.1  # eps of DALL-E


def squeeze(x: Array, levels: int) -> Array:
    """Levels as numbers from eps to 1 - eps."""
    return (1 - 2 * SQUEEZE) * x / (levels - 1) + SQUEEZE


def unsqueeze(value: Array, levels: int) -> Array:
    """The inverse of `squeeze`; the result is neither rounded nor cut off."""
    return (value - SQUEEZE) * (levels - 1) / (1 - 2 * SQUEEZE)


def level_log_probs(
    likelihood: PixelLikelihood, outputs: Float[Array, "d p"]
) -> Float[Array, "d levels"]:
    """log p of every level of every pixel: images pick theirs by one matrix product."""
    values = jnp.arange(likelihood.levels, dtype=jnp.float32)
    one = jax.vmap(likelihood.log_prob, (None, 0))
    return jax.vmap(one, (0, None))(outputs[:, None], values[:, None])


def _laplace_parameters(outputs: Array) -> tuple[Array, Array]:
    # Further out exp would vanish or overflow in float32, and gradients be NaN.
    return jnp.clip(outputs[:, 0], -30.0, 30.0), jnp.clip(outputs[:, 1], -10.0, 10.0)


def _laplace_bias(levels: int) -> Callable[[Array, Array], Array]:
    def bias(pixel_mean: Array, pixel_sd: Array) -> Array:
        least = min(0.5, 0.25 * (levels - 1))
        middle = squeeze(jnp.clip(pixel_mean, least, levels - 1 - least), levels)
        # A Laplace variable deviates by sqrt(2) b; the slope of the logit is 1 / (v (1 - v)).
        spread = jnp.maximum(pixel_sd, 0.5) * (1 - 2 * SQUEEZE) / (levels - 1)
        scale = spread / (middle * (1 - middle)) / math.sqrt(2)
        return jnp.stack([jax.scipy.special.logit(middle), jnp.log(scale)], axis=-1)

    return bias


def _logistic_parameters(levels: int, outputs: Array) -> tuple[Array, Array]:
    """Location and log s, in levels."""
    half = (levels - 1) / 2
    # Further out exp would overflow, or vanish, and gradients be NaN.
    return half + half * outputs[:, 0], jnp.clip(outputs[:, 1] + math.log(half), -30.0, 30.0)


def _logistic_log_pmf(
    levels: int, outputs: Float[Array, "d 2"], x: Float[Array, "d"]
) -> Float[Array, "d"]:
    location, log_scale = _logistic_parameters(levels, outputs)
    return bounds.densities.discretized_logistic_log_prob(x, location, log_scale, levels=levels)


def _logistic_bias(levels: int, pixel_mean: Array, pixel_sd: Array) -> Array:
    half = (levels - 1) / 2
    # The scale of a logistic is its standard deviation times sqrt(3) / pi. Half a level at
    # least: a pixel that never varied in training may vary afterwards.
    scale = jnp.maximum(pixel_sd, 0.5) * math.sqrt(3) / math.pi
    return jnp.stack([(pixel_mean - half) / half, jnp.log(scale / half)], axis=-1)


def _check_levels(levels: int) -> None:
    if levels < 2:
        raise ValueError(f"levels must be at least 2, got {levels}.")
