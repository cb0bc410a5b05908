r"""Noise schedules of diffusion, each as gamma = - log SNR.

With x_t = alpha_t x + sigma_t eps and alpha_t^2 + sigma_t^2 = 1,

    gamma = log(sigma^2 / alpha^2),   alpha^2 = sigmoid(-gamma),   sigma^2 = sigmoid(gamma),

holds both ends of a schedule in float32, where 1 - alpha_t^2 would round. A schedule of discrete
time is an array gamma_1 < ... < gamma_T; one of continuous time a function of t in [0, 1].

Sources: Ho et al. 2020 (arXiv 2006.11239), Nichol & Dhariwal 2021 (arXiv 2102.09672), Kingma et
al. 2021 (arXiv 2107.00630).
"""

import math
import numbers
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from bounds._checks import GREATEST_GAMMA, at_least_float32, check_count, check_gamma, is_known


def betas_schedule(betas: ArrayLike | Sequence[float]) -> Float[Array, "T"]:
    r"""The schedule of the variances beta_t of DDPM's steps q(x_t | x_{t-1}).

    .. math:: \bar\alpha_t = \prod_{s \le t} (1 - \beta_s), \qquad
       \gamma_t = \log(1 - \bar\alpha_t) - \log \bar\alpha_t

    Args:
      betas: [T], known numbers strictly between 0 and 1.

    Returns:
      gamma [T], computed in float64 before it is rounded.

    Raises:
      TypeError: they are traced.
      ValueError: there is none, or one is not between 0 and 1.

    Example:
      >>> import bounds, jax
      >>> gamma = bounds.diffusion.betas_schedule([0.5, 0.5])  # abar = 1/2, 1/4
      >>> [round(float(a), 4) for a in jax.nn.sigmoid(-gamma)]
      [0.5, 0.25]
    """
    if not is_known(betas):
        raise TypeError("betas must be known numbers, got a traced array.")
    known = np.asarray(betas, np.float64)
    if known.ndim != 1 or not known.size or not np.all((known > 0) & (known < 1)):
        raise ValueError(
            "betas must be a sequence of at least one number strictly between 0 and 1, "
            f"got {np.array2string(known, threshold=6)}."
        )
    log_alpha_bar = np.cumsum(np.log1p(-known))
    return jnp.asarray(np.log(-np.expm1(log_alpha_bar)) - log_alpha_bar, float)


def linear_schedule(
    num_steps: int, *, beta_min: float = 1e-4, beta_max: float = 0.02
) -> Float[Array, "T"]:
    r"""The schedule of DDPM, rescaled to its number of steps.

    .. math:: \beta_t = \frac{1000}{T} \Bigl[\beta_{\mathrm{min}}
       + \frac{t - 1}{T - 1} (\beta_{\mathrm{max}} - \beta_{\mathrm{min}})\Bigr],
       \quad \beta_1 = 1000 \, \beta_{\mathrm{min}} \text{ at } T = 1

    Args:
      num_steps: T; more than 20 at the default `beta_max`, which is scaled up below 1000.
      beta_min: of T = 1000.
      beta_max: of T = 1000.

    Returns:
      gamma [T].

    Raises:
      TypeError: `num_steps` is not an integer.
      ValueError: it is below 1 (diffusion in continuous time takes a function, `linear_gamma`), or
        a beta is not between 0 and 1.

    Example:
      >>> import bounds
      >>> bounds.diffusion.linear_schedule(1000).shape
      (1000,)

    Source: Ho et al. 2020 (arXiv 2006.11239), section 4.
    """
    num_steps = check_count("num_steps", num_steps)
    betas = np.linspace(beta_min, beta_max, num_steps) * (1000 / num_steps)
    if not np.all((betas > 0) & (betas < 1)):
        raise ValueError(
            f"a linear schedule of {num_steps} steps has betas from {betas[0]:g} to {betas[-1]:g}, "
            "which must lie strictly between 0 and 1; take more steps or cosine_schedule."
        )
    return betas_schedule(betas)


def cosine_schedule(
    num_steps: int, *, offset: float = 0.008, beta_max: float = 0.999
) -> Float[Array, "T"]:
    r"""The schedule of improved DDPM.

    .. math:: \bar\alpha(t) = \cos^2\Bigl(\frac{t + s}{1 + s} \frac\pi2\Bigr), \qquad
       \beta_t = \min\Bigl(1 - \frac{\bar\alpha(t / T)}{\bar\alpha((t - 1) / T)},
       \beta_{\mathrm{max}}\Bigr)

    Args:
      num_steps: T.
      offset: s, which keeps the first betas from vanishing.
      beta_max: the largest beta.

    Returns:
      gamma [T].

    Raises:
      TypeError: `num_steps` is not an integer.
      ValueError: it is below 1, or `offset` or `beta_max` is out of range.

    Example:
      >>> import bounds
      >>> gamma = bounds.diffusion.cosine_schedule(10)
      >>> bool((gamma[1:] > gamma[:-1]).all())
      True

    Source: Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 17.
    """
    num_steps = check_count("num_steps", num_steps)
    if not (0 <= offset < math.inf and 0 < beta_max < 1):
        raise ValueError(
            f"offset must be at least 0 and beta_max between 0 and 1, got {offset} and {beta_max}."
        )
    times = np.arange(num_steps + 1) / num_steps
    alpha_bar = np.cos((times + offset) / (1 + offset) * math.pi / 2) ** 2
    return betas_schedule(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], beta_max))


def linear_gamma(
    time: ArrayLike, *, gamma_min: float | int = -13.3, gamma_max: float | int = 5.0
) -> Float[Array, "..."]:
    r"""The linear schedule of VDM in continuous time.

    .. math:: \gamma(t) = \gamma_{\mathrm{min}}
       + t (\gamma_{\mathrm{max}} - \gamma_{\mathrm{min}})

    Args:
      time: t in [0, 1], of any shape.
      gamma_min: minus log SNR at t = 0; the default is that of VDM on 8-bit images.
      gamma_max: minus log SNR at t = 1.

    Returns:
      gamma, shaped as `time`.

    Raises:
      TypeError: an end point is no number.
      ValueError: the end points are not in order, or beyond what float32 holds.

    Example:
      >>> import bounds
      >>> float(bounds.diffusion.linear_gamma(0.5, gamma_min=-4.0, gamma_max=6.0))
      1.0

    Source: Kingma et al. 2021 (arXiv 2107.00630), appendix D.
    """
    _check_ends(gamma_min, gamma_max)
    return _between(gamma_min, gamma_max, jnp.asarray(time, float))


def straight_gamma(
    time: ArrayLike, *, gamma_min: float | int = -13.3, gamma_max: float | int = 5.0
) -> Float[Array, "..."]:
    r"""The schedule of straight paths (1 - s) x + s eps, in which s rises evenly.

    .. math:: \gamma(t) = 2 \log \frac{s}{1 - s}, \qquad s = s_{\mathrm{min}}
       + t (s_{\mathrm{max}} - s_{\mathrm{min}}), \qquad
       s_{\mathrm{min}} = \frac{1}{1 + e^{-\gamma_{\mathrm{min}} / 2}}

    and s_max of gamma_max likewise. The bound of continuous time depends on the ends alone, so that
    a model has the same one with this schedule and with `linear_gamma`; what a time drawn uniformly
    costs in variance differs.

    Args:
      time: t in [0, 1], of any shape.
      gamma_min: minus log SNR at t = 0.
      gamma_max: minus log SNR at t = 1.

    Returns:
      gamma, shaped as `time`.

    Raises:
      TypeError: an end point is no number.
      ValueError: the end points are not in order, or beyond what float32 holds.

    Example:
      >>> import bounds
      >>> round(float(bounds.diffusion.straight_gamma(0.5, gamma_min=-6.0, gamma_max=6.0)), 4)
      0.0

    Source: Lipman et al. 2023 (arXiv 2210.02747), eq. 20.
    """
    _check_ends(gamma_min, gamma_max)
    time = jnp.asarray(time, float)

    def share(sign):  # of s and of 1 - s, each without a difference of numbers near 1
        first, last = (1 / (1 + math.exp(-0.5 * sign * end)) for end in (gamma_min, gamma_max))
        return _between(first, last, time)

    return 2 * (jnp.log(share(1)) - jnp.log(share(-1)))


def monotone_gamma(
    params: PyTree, time: ArrayLike, *, gamma_min: float | int = -13.3, gamma_max: float | int = 5.0
) -> Float[Array, "..."]:
    r"""A learned schedule in continuous time whose end points stay where they are.

    .. math:: \gamma(t) = \gamma_{\mathrm{min}} + (\gamma_{\mathrm{max}} - \gamma_{\mathrm{min}})
       \frac{f(t) - f(0)}{f(1) - f(0)}, \qquad
       f(t) = t + \sum_j w_j \, \sigma(r_j (t - c_j)), \quad w_j, r_j > 0

    with w and r the softplus of its weights and rates, and c its centres.

    Args:
      params: of `init_monotone_gamma`.
      time: t in [0, 1], of any shape.
      gamma_min: minus log SNR at t = 0.
      gamma_max: minus log SNR at t = 1.

    Returns:
      gamma, shaped as `time`; strictly increasing.

    Raises:
      TypeError: an end point is no number.
      ValueError: the end points are not in order, or beyond what float32 holds.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> params, ends = bounds.diffusion.init_monotone_gamma(8), jnp.array([0.0, 1.0])
      >>> gamma = bounds.diffusion.monotone_gamma(params, ends, gamma_min=-4, gamma_max=6)
      >>> [float(g) for g in gamma]
      [-4.0, 6.0]

    Source: Kingma et al. 2021 (arXiv 2107.00630), appendix H, with another network.
    """
    _check_ends(gamma_min, gamma_max)
    time = jnp.asarray(time, float)
    params = jax.tree.map(at_least_float32, params)
    weights = jax.nn.softplus(params["weights"])[None]
    rates = jax.nn.softplus(params["rates"])[None]

    def f(t):
        steps = jax.nn.sigmoid(rates * (t.reshape(-1, 1) - params["centres"][None])) * weights
        return t + jnp.sum(steps, axis=-1).reshape(t.shape)

    start, end = f(jnp.zeros(())), f(jnp.ones(()))
    # At t = 1 the share is 1 to the last bit, so that the end points are those that were given.
    return _between(gamma_min, gamma_max, (f(time) - start) / (end - start))


def init_monotone_gamma(num_units: int) -> dict[str, Float[Array, "J"]]:
    r"""Parameters of `monotone_gamma` that start it near the linear schedule.

    .. math:: w_j = \log(1 + e^{-5}), \qquad r_j = \log(1 + e^{2 J}), \qquad c_j = \frac{j - 1/2}{J}

    for j = 1 .. J; w and r are kept as what softplus makes them of, -5 and 2 J.

    Args:
      num_units: J, how many sigmoids it is made of.

    Returns:
      {"weights", "rates", "centres"}, each [J], for `monotone_gamma`.

    Raises:
      TypeError: `num_units` is not an integer.
      ValueError: it is below 1.

    Example:
      >>> import bounds
      >>> sorted(bounds.diffusion.init_monotone_gamma(8))
      ['centres', 'rates', 'weights']
    """
    num_units = check_count("num_units", num_units)
    return {
        "weights": jnp.full(num_units, -5.0),
        "rates": jnp.full(num_units, 2.0 * num_units),
        "centres": (jnp.arange(num_units, dtype=float) + 0.5) / num_units,
    }


def discretize(gamma: Callable[[Array], Array], num_steps: int) -> Float[Array, "points"]:
    r"""A schedule of continuous time cut into steps, from gamma(0) to gamma(1).

    .. math:: \gamma(0), \; \gamma(1/T), \; \gamma(2/T), \; \dots, \; \gamma(1)

    Args:
      gamma: t in [0, 1] -> gamma.
      num_steps: VDM's T: how many steps lie between x_1 (VDM's z_0) and the last latent.

    Returns:
      gamma [T + 1].

    Raises:
      TypeError: `num_steps` is not an integer, or `gamma` is no function.
      ValueError: it is below 1: no steps, VDM's T = 0, stand for continuous time, which is
        `continuous_estimate`'s; or the schedule does not increase.

    Example:
      >>> from bounds import diffusion
      >>> [round(float(g), 2) for g in diffusion.discretize(diffusion.linear_gamma, 2)]
      [-13.3, -4.15, 5.0]

    Source: Kingma et al. 2021 (arXiv 2107.00630), section 3.
    """
    if not callable(gamma):
        raise TypeError(f"gamma must be a function of t in [0, 1], got {type(gamma).__name__}.")
    if num_steps == 0 and not isinstance(num_steps, bool):
        raise ValueError(
            "num_steps=0 stands for continuous time: pass the function itself to "
            "Diffusion(gamma=...) and use continuous_estimate."
        )
    num_steps = check_count("num_steps", num_steps)
    with jax.ensure_compile_time_eval():  # under jit too the order can be looked at
        return check_gamma(gamma(jnp.arange(num_steps + 1) / num_steps))


def _between(gamma_min: float | int, gamma_max: float | int, share: Array) -> Array:
    return gamma_min * (1 - share) + gamma_max * share


def _check_ends(gamma_min: float | int, gamma_max: float | int) -> None:
    for end in (gamma_min, gamma_max):
        if not is_known(end) or not isinstance(end, numbers.Real):
            raise TypeError(f"gamma_min and gamma_max must be Python numbers, got {end!r}.")
    if not -GREATEST_GAMMA <= gamma_min < gamma_max <= GREATEST_GAMMA:
        raise ValueError(
            "gamma_min must be below gamma_max (the noise grows with time, the SNR falls), both "
            f"within +-{GREATEST_GAMMA:g}, got {gamma_min} and {gamma_max}."
        )
