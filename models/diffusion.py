"""Diffusion models: of integers with a network, and of Gaussian data with an exact denoiser."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

import bounds

Predict = Callable[..., Any]
"""(theta, x_t, gamma_t) -> prediction, see `bounds.diffusion.denoiser`."""

DECODERS = {
    "gaussian": bounds.densities.discretized_gaussian_log_prob,
    "logistic": bounds.densities.discretized_logistic_log_prob,
}


class IntegerDiffusion(NamedTuple):
    """A diffusion model of integers x, and what its last step makes of x_1.

    Attributes:
      model: the bound's.
      decode: (theta, x_1) -> the most likely integers.
      sample: (theta, key, x_1) -> integers drawn from log_decoder.
    """

    model: bounds.diffusion.Diffusion
    decode: Callable[[PyTree, Array], Array]
    sample: Callable[[PyTree, Any, Array], Array]


def ddpm(
    gamma: Float[Array, "T"],
    predict: Predict,
    *,
    levels: int,
    prediction: str = "eps",
    variance: str = "fixed_small",
    decoder: str = "gaussian",
) -> IntegerDiffusion:
    """DDPM: a discretised Gaussian, or logistic, around the prediction at t = 1.

    Its scale is the standard deviation of q(x_1 | x_2, x), the smallest of the chain, as in Ho et
    al. 2020 (arXiv 2006.11239) and its code; a logistic gets the scale of the same deviation. It
    does not learn that scale where the variances of the other steps are learned.

    Raises:
      ValueError: there are fewer than two steps, or a name is unknown.
    """
    if decoder not in DECODERS:
        raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}.")
    if gamma.shape[0] < 2:
        raise ValueError("DDPM's decoder takes its variance from t = 2; take at least two steps.")
    denoise = bounds.diffusion.denoiser(predict, prediction=prediction, variance=variance)
    smallest = jax.nn.log_sigmoid(gamma[0]) + jnp.log(-jnp.expm1(gamma[0] - gamma[1]))
    log_scale = 0.5 * smallest + math.log((levels - 1) / 2)
    if decoder == "logistic":
        log_scale += 0.5 * math.log(3) - math.log(math.pi)

    def of_pixels(x, x_hat):
        mean = bounds.densities.unscale_levels(x_hat, levels=levels)
        return DECODERS[decoder](x, mean, log_scale, levels=levels)

    def log_decoder(theta, x, x_1, x_hat):
        del theta, x_1
        return jnp.sum(of_pixels(x, x_hat))

    def sample(theta, key, x_1):
        x_hat, _ = denoise(theta, x_1, gamma[0], gamma[0])
        return _drawn(key, lambda x: of_pixels(x, x_hat), x_1, levels)

    def decode(theta, x_1):
        x_hat, _ = denoise(theta, x_1, gamma[0], gamma[0])
        return jnp.clip(
            jnp.round(bounds.densities.unscale_levels(x_hat, levels=levels)), 0, levels - 1
        )

    encode = functools.partial(bounds.densities.scale_levels, levels=levels)
    model = bounds.diffusion.Diffusion(gamma, encode, denoise, log_decoder)
    return IntegerDiffusion(model, decode, sample)


def vdm(
    gamma: Callable[[Array], Array],
    predict: Predict,
    *,
    levels: int,
    num_steps: int,
    prediction: str = "eps",
) -> IntegerDiffusion:
    """VDM: the softmax over the levels given z_0; in continuous time where `num_steps` is 0.

    Source: Kingma et al. 2021 (arXiv 2107.00630).
    """
    first = gamma(jnp.zeros(()))
    schedule = bounds.diffusion.discretize(gamma, num_steps) if num_steps else gamma
    denoise = bounds.diffusion.denoiser(predict, prediction=prediction)

    def of_pixels(x, z_0):
        return bounds.densities.level_softmax_log_prob(x, z_0, first, levels=levels)

    def log_decoder(theta, x, z_0, x_hat):
        del theta, x_hat
        return jnp.sum(of_pixels(x, z_0))

    def sample(theta, key, z_0):
        del theta
        return _drawn(key, lambda x: of_pixels(x, z_0), z_0, levels)

    def decode(theta, z_0):
        del theta
        x_hat = z_0 * jnp.exp(-0.5 * jax.nn.log_sigmoid(-first))
        return jnp.clip(
            jnp.round(bounds.densities.unscale_levels(x_hat, levels=levels)), 0, levels - 1
        )

    encode = functools.partial(bounds.densities.scale_levels, levels=levels)
    model = bounds.diffusion.Diffusion(schedule, encode, denoise, log_decoder)
    return IntegerDiffusion(model, decode, sample)


def _drawn(key: Any, log_prob: Callable[[Array], Array], like: Array, levels: int) -> Array:
    """Integers drawn pixel by pixel, from their log-probabilities at each level."""
    each = jax.vmap(lambda level: log_prob(jnp.full(like.shape, level)), out_axes=-1)
    drawn = jax.random.categorical(key, each(jnp.arange(levels, dtype=like.dtype)))
    return drawn.astype(like.dtype)


def reverse_chain(
    model: bounds.diffusion.Diffusion,
    theta: PyTree,
    key: Array,
    shape: tuple[int, ...],
    *,
    kept: int,
) -> Float[Array, "kept *shape"]:
    """A draw of x_T .. x_1 under the model, of which `kept` stay: x_T, evenly spread ones, x_1."""
    gamma = jnp.asarray(model.gamma)
    if not 2 <= kept <= gamma.size:
        raise ValueError(f"kept must be from 2 to the {gamma.size} steps of the chain, got {kept}.")
    start_key, key = jax.random.split(key)

    def back(carry, t):
        x_t, pictures = carry
        mean, log_variance = bounds.diffusion.reverse_step(
            model.denoise, theta, x_t, gamma[t - 2], gamma[t - 1]
        )
        noise = jax.random.normal(jax.random.fold_in(key, t), shape)
        x_s = mean + jnp.exp(0.5 * log_variance) * noise
        # The last of the steps that share a place stays in it.
        place = -(-(gamma.size - t + 1) * (kept - 1) // max(gamma.size - 1, 1))
        return (x_s, pictures.at[place].set(x_s)), None

    x_T = jax.random.normal(start_key, shape)
    pictures = jnp.broadcast_to(x_T, (kept, *shape))
    (_, pictures), _ = jax.lax.scan(back, (x_T, pictures), jnp.arange(gamma.size, 1, -1))
    return pictures


def gaussian_denoise(variance: float | Array) -> Callable[..., tuple[Array, Array]]:
    r"""The exact reverse chain of data N(0, s^2), each dimension on its own.

    .. math:: \mathbb E[x | x_t] = \frac{s^2 \alpha_t}{s^2 \alpha_t^2 + \sigma_t^2} x_t, \qquad
       r = 1 + (\mathrm{SNR}_s - \mathrm{SNR}_t) \, \mathrm{Var}[x | x_t]
    """

    def denoise(theta, x_t, gamma_s, gamma_t):
        del theta
        drop = jnp.exp(-gamma_s) * -jnp.expm1(gamma_s - gamma_t)
        return gaussian_posterior_mean(variance, x_t, gamma_t), jnp.log1p(
            drop * gaussian_posterior_variance(variance, gamma_t)
        )

    return denoise


def gaussian_posterior_mean(variance: float | Array, x_t: Array, gamma: Array) -> Array:
    """E[x | x_t] of data N(0, variance)."""
    alpha = jnp.exp(0.5 * jax.nn.log_sigmoid(-gamma))
    return gaussian_posterior_variance(variance, gamma) * jnp.exp(-gamma) * x_t / alpha


def gaussian_posterior_variance(variance: float | Array, gamma: Array) -> Array:
    """Var[x | x_t] = s^2 / (1 + s^2 SNR_t) of data N(0, s^2)."""
    return variance / (1 + variance * jnp.exp(-gamma))
