r"""Single-time estimates of the bound of a diffusion model, with which one trains.

They are unbiased for the ELBO and for nothing else, so they are no log-weights: in a logsumexp they
would estimate no bound at all. Averages over data and times are what they are for.

Sources: Ho et al. 2020 (arXiv 2006.11239), Nichol & Dhariwal 2021 (arXiv 2102.09672), Kingma et
al. 2021 (arXiv 2107.00630).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from bounds._checks import (
    check_continuous_gamma,
    check_gamma,
    check_share,
    check_step,
    is_known,
    nan_unless,
)
from bounds._diffusion import Diffusion, prior, reconstruction
from bounds._diffusion_step import kl_term, noised, normal, predicted, signal_and_noise
from bounds._types import Key


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BoundEstimate:
    """An unbiased estimate of an ELBO from one time or mask: to be averaged, and nothing else.

    It is no array, so that it cannot enter `iwae` or another logsumexp, where it would estimate
    no bound at all.

    Attributes:
      value: the estimate in nats.
      term: the term of what was drawn alone, not weighted: what importance sampling keeps.
    """

    value: Float[Array, "*batch"]
    term: Float[Array, "*batch"]


def discrete_estimate(
    model: Diffusion, theta: PyTree, key: Key, x: Any, t: ArrayLike, probability: ArrayLike
) -> BoundEstimate:
    r"""The bound from one drawn step t, by one evaluation of the network.

    .. math:: -L_{\mathrm{prior}} - \frac{L_t}{p_t}, \qquad
       \mathbb E_{t \sim p}\Bigl[\frac{L_t}{p_t}\Bigr] = \sum_{t=1}^T L_t

    where L_1 = - log p(x | x_1), L_t is the KL of step t from 2 to T, and L_prior that of x_T from
    its prior, which takes no draw.

    Args:
      model: of discrete time.
      theta: its parameters.
      key: PRNG key of x_t.
      x: one datum.
      t: the step, in 1 .. T, of `discrete_times`.
      probability: p_t with which it was drawn; 1 / T where all steps are alike.

    Returns:
      A `BoundEstimate`, to be averaged over data and steps only; NaN where a traced t or
      probability is out of range.

    Raises:
      ValueError: gamma does not increase or is of continuous time, or a known t is not in 1 .. T.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import norm
      >>> model = bounds.diffusion.Diffusion(
      ...     bounds.diffusion.cosine_schedule(4), lambda x: x,
      ...     bounds.diffusion.denoiser(lambda theta, x_t, g: theta * x_t, prediction="x"),
      ...     lambda theta, x, x_1, x_hat: norm.logpdf(x, x_hat, 0.1))
      >>> found = bounds.diffusion.discrete_estimate(
      ...     model, 0.5, jax.random.key(0), jnp.array(0.5), t=2, probability=0.25)
      >>> found.value.shape
      ()

    Source: Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 18, with the factor 1 / p_t.
    """
    gamma, data = check_gamma(model.gamma), jnp.asarray(model.encode(x), float)
    t = check_step("t", t, gamma.size)
    probability = check_share("probability", probability)
    x_t = noised(data, normal(key, data), gamma[t - 1])
    # One evaluation of the network serves both: under vmap both are computed.
    gamma_s, gamma_t = gamma[jnp.maximum(t - 2, 0)], gamma[t - 1]
    x_hat, log_ratio = predicted(model.denoise, theta, x_t, gamma_s, gamma_t)
    first = -reconstruction(model, theta, x, x_t, gamma_t, x_hat)
    term = jnp.where(t == 1, first, kl_term(data, x_hat, log_ratio, gamma_s, gamma_t))
    term += nan_unless((t >= 1) & (t <= gamma.size))
    return BoundEstimate(-prior(data, gamma[-1]) - term / probability, term)


def continuous_estimate(
    model: Diffusion, theta: PyTree, key: Key, x: Any, time: ArrayLike
) -> BoundEstimate:
    r"""The bound of continuous time from one drawn time, VDM with T = infinity.

    .. math:: \log p(x | z_0) - \mathrm{KL}(q(z_1 | x) \| \mathcal N(0, 1))
       - \tfrac12 \gamma'(t) \, \mathrm{SNR}(t) \, \|x - \hat x\|^2

    of which the last is 1/2 gamma'(t) |eps - eps_hat|^2. The reverse variance is that of q, since
    any other gives an infinite bound there: the `log r` of `model.denoise` is not looked at.

    Args:
      model: its gamma is a function of t in [0, 1].
      theta: its parameters.
      key: PRNG key.
      x: one datum.
      time: t in [0, 1], drawn uniformly: `low_discrepancy_times`.

    Returns:
      A `BoundEstimate`, to be averaged over data and times only; NaN where a traced time is not in
      [0, 1].

    Raises:
      ValueError: gamma is no function, a known time is not one number in [0, 1], or the SNR does
        not fall all the way from gamma(0) to gamma(1).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bounds import densities, diffusion
      >>> model = diffusion.Diffusion(
      ...     diffusion.linear_gamma, lambda x: densities.scale_levels(x, levels=4),
      ...     diffusion.denoiser(lambda theta, x_t, g: theta * x_t, prediction="x"),
      ...     lambda theta, x, z_0, x_hat: densities.level_softmax_log_prob(
      ...         x, z_0, diffusion.linear_gamma(0.0), levels=4))
      >>> found = diffusion.continuous_estimate(model, 0.5, jax.random.key(0), jnp.array(3), 0.7)
      >>> found.value.shape
      ()

    Source: Kingma et al. 2021 (arXiv 2107.00630), eq. 17.
    """
    time, ends = _checked_time("continuous_estimate", model, time)
    decoder_key, noise_key = jax.random.split(key)
    data = jnp.asarray(model.encode(x), float)
    gamma, slope = jax.jvp(model.gamma, (time,), (jnp.ones_like(time),))
    x_t = noised(data, normal(noise_key, data), gamma)
    x_hat, _ = predicted(model.denoise, theta, x_t, gamma, gamma)
    term = 0.5 * slope * jnp.exp(-gamma) * jnp.sum(jnp.square(data - x_hat))
    z_0 = noised(data, normal(decoder_key, data), ends[0])
    decoded = reconstruction(model, theta, x, z_0, ends[0])
    return BoundEstimate(decoded - prior(data, ends[1]) - term, term)


def noise_error(model: Diffusion, theta: PyTree, key: Key, x: Any, t: ArrayLike) -> Array:
    r"""DDPM's L_simple at one step: a weighting of the terms that bounds nothing.

    .. math:: \|\epsilon - \hat\epsilon\|^2 = \mathrm{SNR}_t \, \|x - \hat x\|^2

    Args:
      model: of discrete time.
      theta: its parameters.
      key: PRNG key of x_t.
      x: one datum.
      t: the step, in 1 .. T.

    Returns:
      The squared error, summed over the dimensions; without a unit. NaN where a traced t is out of
      range.

    Raises:
      ValueError: gamma does not increase or is of continuous time, or a known t is not in 1 .. T.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> model = bounds.diffusion.Diffusion(
      ...     bounds.diffusion.cosine_schedule(4), lambda x: x,
      ...     bounds.diffusion.denoiser(lambda theta, x_t, g: theta * x_t),
      ...     lambda theta, x, x_1, x_hat: 0.0)
      >>> bounds.diffusion.noise_error(model, 0.5, jax.random.key(0), jnp.ones(3), t=2).shape
      ()

    Source: Ho et al. 2020 (arXiv 2006.11239), eq. 14.
    """
    gamma, data = check_gamma(model.gamma), jnp.asarray(model.encode(x), float)
    t = check_step("t", t, gamma.size)
    gamma_t = gamma[t - 1]
    x_t = noised(data, normal(key, data), gamma_t)
    gamma_s = gamma[jnp.maximum(t - 2, 0)]
    x_hat, _ = predicted(model.denoise, theta, x_t, gamma_s, gamma_t)
    wrong = nan_unless((t >= 1) & (t <= gamma.size))
    return jnp.exp(-gamma_t) * jnp.sum(jnp.square(data - x_hat)) + wrong


def velocity_error(
    model: Diffusion, theta: PyTree, key: Key, x: Any, time: ArrayLike
) -> Float[Array, ""]:
    r"""The loss of flow matching at one time: a weighting of the terms that bounds nothing.

    .. math:: \|u - \hat u\|^2 = \frac{(\alpha + \sigma)^2}{\sigma^2} \|x - \hat x\|^2,
       \qquad u = \epsilon - x

    Flow matching draws s = sigma / (alpha + sigma) uniformly: with the times of `straight_gamma`.
    The bound of continuous time weighs the error at s with (1 - s) / s.

    Args:
      model: its gamma is a function of t in [0, 1].
      theta: its parameters.
      key: PRNG key of x_t.
      x: one datum.
      time: t in [0, 1].

    Returns:
      The squared error, summed over the dimensions; NaN where a traced time is not in [0, 1].

    Raises:
      ValueError: gamma is no function or does not increase, or a known time is not one number in
        [0, 1].

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from bounds import diffusion
      >>> model = diffusion.Diffusion(
      ...     diffusion.straight_gamma, lambda x: x,
      ...     diffusion.denoiser(lambda theta, x_t, g: theta * x_t, prediction="velocity"),
      ...     lambda theta, x, z_0, x_hat: 0.0)
      >>> diffusion.velocity_error(model, 0.5, jax.random.key(0), jnp.ones(3), 0.7).shape
      ()

    Source: Lipman et al. 2023 (arXiv 2210.02747), eq. 23.
    """
    time, _ = _checked_time("velocity_error", model, time)
    data, gamma = jnp.asarray(model.encode(x), float), model.gamma(time)
    alpha, sigma = signal_and_noise(gamma)
    x_t = noised(data, normal(key, data), gamma)
    x_hat, _ = predicted(model.denoise, theta, x_t, gamma, gamma)
    return jnp.sum(jnp.square((alpha + sigma) / sigma * (data - x_hat)))


def _checked_time(user: str, model: Diffusion, time: ArrayLike) -> tuple[Array, Array]:
    """(time of a model of continuous time, ends of its gamma)."""
    ends = check_continuous_gamma(user, model.gamma)
    if jnp.shape(time) != ():
        raise ValueError(f"time must be one number, got {jnp.shape(time)}; jax.vmap over times.")
    if is_known(time) and not 0 <= float(time) <= 1:  # type: ignore[arg-type]
        raise ValueError(f"time must lie in [0, 1], got {float(time)}.")  # type: ignore[arg-type]
    time = jnp.asarray(time, float)
    return time + nan_unless((time >= 0) & (time <= 1)), ends
