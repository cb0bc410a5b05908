"""One step of a diffusion model: noise forwards, the network's prediction, and the way back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from bounds._checks import at_least_float32, check_fits
from bounds._types import Key

PREDICTIONS = ("eps", "x", "v", "velocity")
VARIANCES = ("fixed_small", "fixed_large", "learned")

Denoise = Callable[[PyTree, Array, Array, Array], tuple[Array, Array]]
"""(theta, x_t, gamma_s, gamma_t) -> (x_hat, log r) of the step from t to s < t."""


def denoiser(
    predict: Callable[..., Any], *, prediction: str = "eps", variance: str = "fixed_small"
) -> Denoise:
    r"""A `Diffusion.denoise` from a network and the quantity it predicts.

    .. math:: \hat x = \frac{x_t - \sigma_t \hat\epsilon}{\alpha_t}
       \quad\text{or}\quad \hat x \quad\text{or}\quad \alpha_t x_t - \sigma_t \hat v
       \quad\text{or}\quad \frac{x_t - \sigma_t \hat u}{\alpha_t + \sigma_t}

    The last is that of flow matching, u_hat predicting u = eps - x: the velocity of the straight
    path (1 - s) x + s eps, which at s = sigma_t / (alpha_t + sigma_t) is at
    x_t / (alpha_t + sigma_t). A model that predicts it is this model in other coordinates.

    Args:
      predict: (theta, x_t, gamma_t) -> the prediction, shaped as x_t; with the learned variance
        (prediction, share), the share in [0, 1] and broadcastable to x_t. For "velocity" it gets
        x_t / (alpha_t + sigma_t) in place of x_t.
      prediction: "eps", "x", "v" = alpha_t eps - sigma_t x or "velocity" = eps - x.
      variance: of p(x_s | x_t): "fixed_small" is that of q(x_s | x_t, x), "fixed_large" beta_t;
        "learned" lies between them, a `share` of the latter in log space.

    Returns:
      (theta, x_t, gamma_s, gamma_t) -> (x_hat, log r), as a `Diffusion` takes it.

    Raises:
      ValueError: `prediction` or `variance` is unknown.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> denoise = bounds.diffusion.denoiser(lambda theta, x_t, gamma: theta * x_t, prediction="x")
      >>> x_hat, log_ratio = denoise(0.5, jnp.ones(2), jnp.array(-1.0), jnp.array(1.0))
      >>> x_hat.tolist(), float(log_ratio)
      ([0.5, 0.5], 0.0)

    Source: Ho et al. 2020 (arXiv 2006.11239), section 3.2; Salimans & Ho 2022 (arXiv 2202.00512)
    for v; Lipman et al. 2023 (arXiv 2210.02747) for the velocity; Nichol & Dhariwal 2021 (arXiv
    2102.09672), eq. 15 for the learned variance.
    """
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction must be one of {', '.join(PREDICTIONS)}, got {prediction!r}.")
    if variance not in VARIANCES:
        raise ValueError(f"variance must be one of {', '.join(VARIANCES)}, got {variance!r}.")

    def denoise(theta, x_t, gamma_s, gamma_t):
        alpha, sigma = signal_and_noise(gamma_t)
        seen = x_t / (alpha + sigma) if prediction == "velocity" else x_t
        out = predict(theta, seen, gamma_t)
        if isinstance(out, tuple) != (variance == "learned"):
            raise ValueError(
                "predict must return (prediction, share) with variance='learned', and the "
                f"prediction alone with the others; got {type(out).__name__} with {variance!r}."
            )
        out, share = out if variance == "learned" else (out, float(variance == "fixed_large"))
        if out.shape != x_t.shape:
            raise ValueError(
                f"predict must return an array shaped as x_t, {x_t.shape}, got {out.shape}."
            )
        if prediction == "eps":
            out = (x_t - sigma * out) / alpha
        elif prediction == "v":
            out = alpha * x_t - sigma * out
        elif prediction == "velocity":
            out = seen - sigma / (alpha + sigma) * out
        # beta_t / var q(x_s | x_t, x) = sigma_t^2 / sigma_s^2
        largest = jax.nn.log_sigmoid(gamma_t) - jax.nn.log_sigmoid(gamma_s)
        return out, share * largest

    return denoise


def reverse_step(
    denoise: Denoise, theta: PyTree, x_t: Array, gamma_s: Array, gamma_t: Array
) -> tuple[Array, Array]:
    r"""Mean and log-variance of p(x_s | x_t).

    .. math:: \alpha_s c \, \hat x + \frac{\alpha_s}{\alpha_t} (1 - c) \, x_t, \qquad
       \log(r \, \sigma_s^2 c), \qquad c = 1 - e^{\gamma_s - \gamma_t}

    Args:
      denoise: of a `Diffusion`.
      theta: its parameters.
      x_t: the latent of the noisier time.
      gamma_s: minus log SNR of the time before.
      gamma_t: minus log SNR of x_t.

    Returns:
      (mean, log variance), the second broadcastable to the first.

    Raises:
      ValueError: `denoise` returns wrong shapes, or a gamma is not broadcastable to x_t.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> denoise = bounds.diffusion.denoiser(lambda theta, x_t, gamma: theta * x_t, prediction="x")
      >>> mean, log_variance = bounds.diffusion.reverse_step(
      ...     denoise, 0.5, jnp.ones(2), jnp.array(-1.0), jnp.array(1.0))
      >>> mean.shape, log_variance.shape
      ((2,), ())

    Source: Ho et al. 2020 (arXiv 2006.11239), eq. 6 and 7, in terms of gamma.
    """
    x_t = at_least_float32(x_t)
    check_fits("x_t", x_t.shape, gamma_s=gamma_s, gamma_t=gamma_t)
    x_hat, log_ratio = predicted(denoise, theta, x_t, gamma_s, gamma_t)
    log_share = jnp.log(-jnp.expm1(gamma_s - gamma_t))
    half_s, half_t = 0.5 * jax.nn.log_sigmoid(-gamma_s), 0.5 * jax.nn.log_sigmoid(-gamma_t)
    mean = jnp.exp(half_s + log_share) * x_hat + jnp.exp(half_s - half_t + gamma_s - gamma_t) * x_t
    return mean, log_ratio + jax.nn.log_sigmoid(gamma_s) + log_share


def signal_and_noise(gamma: Array) -> tuple[Array, Array]:
    """(alpha, sigma) of x_t = alpha x + sigma eps."""
    return jnp.exp(0.5 * jax.nn.log_sigmoid(-gamma)), jnp.exp(0.5 * jax.nn.log_sigmoid(gamma))


def normal(key: Key, like: Array) -> Array:
    return jax.random.normal(key, like.shape, like.dtype)


def noised(data: Array, noise: Array, gamma: Array) -> Array:
    alpha, sigma = signal_and_noise(gamma)
    return alpha * data + sigma * noise


def predicted(
    denoise: Denoise, theta: PyTree, x_t: Array, gamma_s: Array, gamma_t: Array
) -> tuple[Array, Array]:
    """What `denoise` returns, refused where its shapes would broadcast to something else."""
    found = denoise(theta, x_t, gamma_s, gamma_t)
    if not isinstance(found, tuple) or len(found) != 2:
        raise ValueError(
            "denoise must return a pair (x_hat, log r); bounds.diffusion.denoiser makes one."
        )
    x_hat, log_ratio = map(at_least_float32, found)
    if x_hat.shape != x_t.shape or jnp.broadcast_shapes(log_ratio.shape, x_t.shape) != x_t.shape:
        raise ValueError(
            f"denoise must return x_hat shaped as x_t, {x_t.shape}, and log r broadcastable to it, "
            f"got {x_hat.shape} and {log_ratio.shape}."
        )
    return x_hat, log_ratio


def kl_term(data: Array, x_hat: Array, log_ratio: Array, gamma_s: Array, gamma_t: Array) -> Array:
    """KL(q(x_s | x_t, x) || p(x_s | x_t)), see the head of `_diffusion`."""
    drop = jnp.exp(-gamma_s) * -jnp.expm1(gamma_s - gamma_t)  # SNR_s - SNR_t
    excess = log_ratio + jnp.expm1(-log_ratio)
    errors = jnp.exp(-log_ratio) * drop * jnp.square(data - x_hat)
    return 0.5 * jnp.sum(jnp.broadcast_to(excess, data.shape) + errors)
