r"""The variational bound of diffusion models, in all its forms.

Latents x_1 .. x_T, from little noise to nothing but noise, with fixed q and a Markov chain back:

    log p(x) >= E_q[log p(x | x_1)] - KL(q(x_T | x) || p(x_T))
                - sum_{t=2}^T E_q KL(q(x_{t-1} | x_t, x) || p(x_{t-1} | x_t)).

`terms` evaluates every term, the KLs in closed form; `trajectory` is the same bound as a
`LatentModel`, whose log-weights all bounds of this package take; the estimates by a single time,
with which one trains, are in `_diffusion_estimates`.

With the prediction x_hat of x, and r times the variance of q(x_{t-1} | x_t, x) as that of
p(x_{t-1} | x_t), a KL is

    1/2 sum_d [log r + (1 + (SNR_{t-1} - SNR_t) (x - x_hat)^2) / r - 1],

in which nothing cancels in float32.

Sources: Sohl-Dickstein et al. 2015 (arXiv 1503.03585), Ho et al. 2020 (arXiv 2006.11239), Kingma
et al. 2021 (arXiv 2107.00630).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from bounds._checks import at_least_float32, check_gamma, check_scalar
from bounds._diffusion_step import Denoise, kl_term, noised, normal, predicted, reverse_step
from bounds._sampling import sample_key
from bounds._types import Key, LatentModel


class Diffusion(NamedTuple):
    r"""A diffusion model of ONE datum x.

    .. math:: q(x_t | x) = \mathcal N(\alpha_t x, \sigma_t^2), \qquad \alpha_t^2 + \sigma_t^2 = 1,
       \qquad \gamma_t = \log \frac{\sigma_t^2}{\alpha_t^2} = -\log \mathrm{SNR}_t

    Attributes:
      gamma: minus log SNR of x_1 .. x_T, [T] increasing; for continuous time a function of t in
        [0, 1] (whose gamma(0) is that of VDM's z_0). It may be traced, if it is learned.
      encode: x -> array of any shape, what noise is added to.
      denoise: (theta, x_t, gamma_s, gamma_t) -> (x_hat, log r): the prediction of encode(x), and
        the log-ratio of the variance of p(x_s | x_t) to that of q(x_s | x_t, x), broadcastable
        to it. See `denoiser`.
      log_decoder: (theta, x, x_1, x_hat) -> [], log p(x | x_1) in nats, with the prediction x_hat
        from x_1 for those decoders that are made of it.
    """

    gamma: Any
    encode: Callable[[Any], Array]
    denoise: Denoise
    log_decoder: Callable[[PyTree, Any, Array, Array], Any]


class Terms(NamedTuple):
    r"""The parts of the bound for one datum, in nats; their sum with signs is `bound`.

    .. math:: L_{\mathrm{prior}} = \mathrm{KL}(q(x_T | x) \| \mathcal N(0, 1)), \qquad
       L_t = \mathrm{KL}(q(x_{t-1} | x_t, x) \| p(x_{t-1} | x_t))

    Attributes:
      prior: L_prior.
      diffusion: L_t at one draw of x_t for each t = 2 .. T, [T-1].
      reconstruction: log p(x | x_1) at one draw of x_1.
    """

    prior: Float[Array, "*batch"]
    diffusion: Float[Array, "*batch steps"]
    reconstruction: Float[Array, "*batch"]


def terms(model: Diffusion, theta: PyTree, key: Key, x: Any) -> Terms:
    r"""Every term of the bound for one datum, with x_t drawn for each t on its own.

    .. math:: x_t = \alpha_t x + \sigma_t \epsilon_t, \qquad L_t = \frac12 \sum_d \Bigl[\log r
       + \frac{1 + (\mathrm{SNR}_{t-1} - \mathrm{SNR}_t) (x - \hat x)^2}{r} - 1\Bigr]

    with the prediction x_hat of x from x_t and r times the variance of q(x_{t-1} | x_t, x) as that
    of p(x_{t-1} | x_t). x is what the model's `encode` makes of the datum.

    Args:
      model: of discrete time.
      theta: its parameters.
      key: PRNG key; x_t uses fold_in(key, t).
      x: one datum.

    Returns:
      `Terms`; the network is evaluated once for each t, one after the other, so that
      memory does not grow with T.

    Raises:
      ValueError: gamma does not increase or is of continuous time, or the model returns wrong
        shapes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jax.scipy.stats import norm
      >>> from bounds import diffusion
      >>> model = diffusion.Diffusion(  # of a standard normal datum, denoised as well as can be
      ...     diffusion.cosine_schedule(8), lambda x: x,
      ...     diffusion.denoiser(lambda theta, x_t, g: jnp.sqrt(jax.nn.sigmoid(-g)) * x_t,
      ...                        prediction="x", variance="fixed_large"),
      ...     lambda theta, x, x_1, x_hat: norm.logpdf(x, theta * x_1, jnp.sqrt(1 - theta**2)))
      >>> theta = jnp.sqrt(jax.nn.sigmoid(-model.gamma[0]))
      >>> terms = diffusion.terms(model, theta, jax.random.key(0), jnp.array(0.5))
      >>> terms.diffusion.shape, diffusion.bound(terms).shape
      ((7,), ())

    Source: Ho et al. 2020 (arXiv 2006.11239), eq. 5.
    """
    return terms_at(model, theta, x, lambda t, like: normal(sample_key(key, t), like))


def terms_at(
    model: Diffusion, theta: PyTree, x: Any, noise: Callable[[Array, Array], Array]
) -> Terms:
    """`terms` with the noise of x_t given: (t, an array shaped as it) -> eps_t."""
    gamma, data = check_gamma(model.gamma), jnp.asarray(model.encode(x), float)

    def one(_, step):
        t, gamma_s, gamma_t = step
        x_t = noised(data, noise(t, data), gamma_t)
        found = predicted(model.denoise, theta, x_t, gamma_s, gamma_t)
        return None, kl_term(data, *found, gamma_s, gamma_t)

    steps = (jnp.arange(2, gamma.size + 1), gamma[:-1], gamma[1:])
    _, diffusion = jax.lax.scan(one, None, steps)
    x_1 = noised(data, noise(jnp.asarray(1), data), gamma[0])
    return Terms(prior(data, gamma[-1]), diffusion, reconstruction(model, theta, x, x_1, gamma[0]))


def bound(parts: Terms) -> Float[Array, "*batch"]:
    r"""The bound from its parts: reconstruction - prior - the sum over t.

    .. math:: \log p(x | x_1) - L_{\mathrm{prior}} - \sum_{t=2}^T L_t

    with the names of `Terms`. To be averaged over draws: it is no log-weight, and IWAE of several
    of them can exceed log p(x). The log-weights of the model are those of `trajectory`.

    Args:
      parts: of `terms`, with batch axes in front or without.

    Returns:
      The lower bound on log p(x) in nats, without the axis of time.

    Raises:
      ValueError: the parts do not have the same batch axes.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> parts = bounds.diffusion.Terms(jnp.array(1.0), jnp.array([2.0, 3.0]), jnp.array(-4.0))
      >>> float(bounds.diffusion.bound(parts))
      -10.0
    """
    parts = Terms(*map(at_least_float32, parts))
    shapes = parts.prior.shape, parts.diffusion.shape[:-1], parts.reconstruction.shape
    if parts.diffusion.ndim == 0 or len(set(shapes)) > 1:
        raise ValueError(
            "the parts must be prior [...], diffusion [..., T-1] and reconstruction [...], got "
            f"{parts.prior.shape}, {parts.diffusion.shape} and {parts.reconstruction.shape}."
        )
    return parts.reconstruction - parts.prior - jnp.sum(parts.diffusion, axis=-1)


def trajectory(model: Diffusion) -> LatentModel:
    r"""The model with its whole trajectory as the latent: log-weights that every bound takes.

    .. math:: \log w = \log \frac{p(x_T) \prod_t p(x_{t-1} | x_t)}{\prod_t q(x_t | x_{t-1})}
       , \quad x_0 = x

    Their expectation is that of `bound`, and IWAE-K of them rises to log p(x). The
    closed forms lower the variance of each term, not always of the sum: under the exact reverse
    chain log w does not vary at all.

    Args:
      model: of discrete time.

    Returns:
      A `LatentModel` with z = x_1 .. x_T [T, *shape], whose phi is not looked at; q has no
      parameters but those that `model.gamma` closes over.

    Raises:
      ValueError: gamma does not increase, or is of continuous time.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> from jax.scipy.stats import norm
      >>> model = bounds.diffusion.trajectory(bounds.diffusion.Diffusion(
      ...     bounds.diffusion.cosine_schedule(4), lambda x: x,
      ...     bounds.diffusion.denoiser(lambda theta, x_t, g: theta * x_t, prediction="x"),
      ...     lambda theta, x, x_1, x_hat: norm.logpdf(x, x_hat, 0.1)))
      >>> log_w = bounds.log_weights(model, bounds.Params(0.5, ()), jax.random.key(0),
      ...                            jnp.array(0.5), num_samples=8)
      >>> bool(bounds.elbo(log_w) < bounds.iwae(log_w))
      True

    Source: Sohl-Dickstein et al. 2015 (arXiv 1503.03585), eq. 11 to 14.
    """
    gamma = check_gamma(model.gamma)
    # Of q(x_t | x_{t-1}): alpha_{t|s} x_{t-1} and beta_t; the first is q(x_1 | x).
    log_alpha_bar = jnp.concatenate([jnp.zeros(1), jax.nn.log_sigmoid(-gamma)])
    shrinkage = jnp.exp(0.5 * jnp.diff(log_alpha_bar))
    share = jnp.concatenate([jnp.ones(1), -jnp.expm1(gamma[:-1] - gamma[1:])])
    log_betas = jax.nn.log_sigmoid(gamma) + jnp.log(share)

    def log_q(phi, x, z):
        before = jnp.concatenate([jnp.asarray(model.encode(x), z.dtype)[None], z[:-1]])
        mean = _along(shrinkage, z) * before
        return _gaussian(z, mean, _along(log_betas, z))

    def propose(phi, key, x):
        data = jnp.asarray(model.encode(x), float)
        noise = jax.random.normal(key, (gamma.size, *data.shape), data.dtype)

        def forward(before, step):
            shrink, log_beta, epsilon = step
            after = shrink * before + jnp.exp(0.5 * log_beta) * epsilon
            return after, after

        _, z = jax.lax.scan(forward, data, (shrinkage, log_betas, noise))
        return z, log_q(phi, x, z)

    def log_p(theta, x, z):
        def one(_, step):
            x_s, x_t, gamma_s, gamma_t = step
            mean, log_variance = reverse_step(model.denoise, theta, x_t, gamma_s, gamma_t)
            return None, _gaussian(x_s, mean, log_variance)

        _, steps = jax.lax.scan(one, None, (z[:-1], z[1:], gamma[:-1], gamma[1:]))
        last = _gaussian(z[-1], jnp.zeros(()), jnp.zeros(()))
        decoder = reconstruction(model, theta, x, z[0], gamma[0])
        return decoder + jnp.sum(steps) + last

    return LatentModel(propose, log_q, log_p)


def reconstruction(
    model: Diffusion, theta: PyTree, x: Any, x_1: Array, gamma_1: Array, x_hat: Array | None = None
) -> Array:
    """log p(x | x_1); the network is asked where its prediction is not there yet."""
    if x_hat is None:
        x_hat, _ = predicted(model.denoise, theta, x_1, gamma_1, gamma_1)
    return check_scalar("log_decoder", model.log_decoder(theta, x, x_1, x_hat))


def prior(data: Array, gamma: Array) -> Array:
    """KL(N(alpha x, sigma^2) || N(0, 1)), with sigma^2 - 1 = -alpha^2."""
    alpha_squared = jax.nn.sigmoid(-gamma)
    return 0.5 * jnp.sum(
        alpha_squared * jnp.square(data) - alpha_squared - jax.nn.log_sigmoid(gamma)
    )


def _gaussian(value: Array, mean: Array, log_variance: Array) -> Array:
    value = at_least_float32(value)
    log_variance = jnp.broadcast_to(log_variance, value.shape)
    squares = jnp.square(value - mean) * jnp.exp(-log_variance)
    return -0.5 * jnp.sum(squares + log_variance + math.log(2 * math.pi))


def _along(values: Array, z: Array) -> Array:
    """[T] against [T, *shape]."""
    return values.reshape(-1, *(1,) * (z.ndim - 1))
