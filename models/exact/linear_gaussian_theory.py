r"""Exact weight moments and large-K expansions of the linear-Gaussian model.

Notation of `models.exact.linear_gaussian`: r = w/Z, s = 1/2 the posterior variance, v that of q,
delta [D] the discrepancy of the means. The order alpha turns IWAE (alpha = 0) into VR-IWAE.

Everything rests on one fact: the tilted density r^n q (normalised) is Gaussian with precision
P_n = n/s + (1-n)/v in every direction and mean (posterior mean) + (1-n) delta/(v P_n), for any
real n with P_n > 0. Expectations of r^n times a polynomial in z are then closed.

Far from the optimum these moments leave float32 (log E[r^2] = 250 and more), so every function
that could overflow returns a logarithm. All are derived here; tests check them against
quadrature and simulation.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from models.exact.linear_gaussian import PAPER_VARIANCE, POSTERIOR_VARIANCE

_S = POSTERIOR_VARIANCE


class Tilt(NamedTuple):
    """The density proportional to r^n q: log of its mass, its mean, its variance.

    Attributes:
      log_mass: log E_q[r^n], a scalar.
      offset: its mean minus the posterior mean, shape [D].
      variance: its variance in every direction, a scalar.
    """

    log_mass: Float[Array, ""]
    offset: Float[Array, "D"]
    variance: Float[Array, ""]


def tilt(delta: Float[Array, "D"], power: float, variance: float = PAPER_VARIANCE) -> Tilt:
    r"""Moments of r^n under q, for real n.

    .. math:: \log E_q[r^n] = \sum_d \left[-\frac n2 \log s + \frac{n-1}{2} \log v
       - \frac12 \log(a+b) - \frac12 \frac{ab}{a+b} \delta_d^2\right],
       \quad a = \frac ns, \; b = \frac{1-n}{v}

    Args:
      delta: discrepancy, shape [D].
      power: n.
      variance: v.

    Returns:
      A `Tilt`; NaN where a + b <= 0, that is where E_q[r^n] is infinite.
    """
    a, b = power / _S, (1.0 - power) / jnp.asarray(variance, delta.dtype)
    precision = a + b
    log_mass = jnp.sum(
        -0.5 * power * jnp.log(_S)
        + 0.5 * (power - 1.0) * jnp.log(variance)
        - 0.5 * jnp.log(precision)
        - 0.5 * a * b / precision * jnp.square(delta)
    )
    return Tilt(log_mass, b / precision * delta, 1.0 / precision)


def log_weight_moment(
    delta: Float[Array, "D"], power: float, variance: float = PAPER_VARIANCE
) -> Float[Array, ""]:
    """log E_q[(w/Z)^n] for real n; see `tilt`. At n = 2 it is log(1 + chi-square)."""
    return tilt(delta, power, variance).log_mass


def log1p_chi_square(
    delta: Float[Array, "D"], variance: float = PAPER_VARIANCE
) -> Float[Array, ""]:
    r"""log(1 + chi^2(p(z|x) || q)); ESS/K tends to the reciprocal of 1 + chi^2.

    .. math:: 1 + \chi^2 = \left(\frac{v}{\sqrt{s(2v-s)}}\right)^D
       \exp\frac{\|\delta\|^2}{2v-s}
    """
    return log_weight_moment(delta, 2.0, variance)


def iwae_gap(
    delta: Float[Array, "D"], num_samples: float, variance: float = PAPER_VARIANCE
) -> Float[Array, ""]:
    r"""log p(x) - E[L_K] to second order in 1/K, in nats; near the optimum only.

    .. math:: \frac{\mu_2}{2K} - \frac{1}{K^2}\left(\frac{\mu_3}{3} - \frac34 \mu_2^2\right),
       \quad \mu_n = E_q[(r-1)^n]
    """
    second, third = _central_weight_moments(delta, variance)
    return second / (2 * num_samples) - (third / 3 - 0.75 * second**2) / num_samples**2


def renyi_gap(
    delta: Float[Array, "D"],
    num_samples: int,
    variance: float = PAPER_VARIANCE,
    alpha: float = 0.0,
) -> tuple[float, float]:
    r"""log p(x) - E[VR-IWAE], in nats, by two expansions.

    .. math:: \frac{-\log E_1}{t} + \frac{E_2 / E_1^2 - 1}{2 t K}, \qquad
       \mathrm{KL} - B \sqrt{2 \log K} + \frac{\log K}{t}

    with t = 1 - alpha, E_n = E_q[r^{tn}], KL the gap of the ELBO and B the standard deviation of
    log r. The first is of K -> infinity at a fixed dimension. The second is of B -> infinity with
    sqrt(log K) / B -> 0, where one sample carries all the weight; log r is taken as normal, which
    it is at v = s, and its remainder is of order B log log K / sqrt(log K).

    Args:
      delta: discrepancy, shape [D].
      num_samples: K.
      variance: v.
      alpha: order of VR-IWAE, below 1.

    Returns:
      (of K -> infinity, of weight collapse). The first is infinite where E_2 / E_1^2 is larger than
      float64 holds, and NaN where E_2 does not exist.

    Source: Daudel et al. 2023 (arXiv 2210.06226), theorems 3 and 6.
    """
    order = 1.0 - alpha
    one, two = (float(log_weight_moment(delta, n * order, variance)) for n in (1, 2))
    log_k, known = math.log(num_samples), np.asarray(delta, np.float64)
    with np.errstate(over="ignore"):
        regular = (-one + np.expm1(two - 2 * one) / (2 * num_samples)) / order
    divergence = np.sum(variance - _S - _S * math.log(variance / _S) + known**2)
    spread = np.sum((1 - variance / _S) ** 2 / 2 + known**2 * variance / _S**2)
    collapsed = divergence - math.sqrt(2 * log_k * spread) + log_k / order
    return float(regular), float(collapsed)


def iwae_variance(
    delta: Float[Array, "D"], num_samples: float, variance: float = PAPER_VARIANCE
) -> Float[Array, ""]:
    r"""Variance of L_K to second order in 1/K, in nats^2; near the optimum only.

    .. math:: \frac{\mu_2}{K} - \frac{1}{K^2}\left(\mu_3 - \frac52 \mu_2^2\right)
    """
    second, third = _central_weight_moments(delta, variance)
    return second / num_samples - (third - 2.5 * second**2) / num_samples**2


def _central_weight_moments(delta: Array, variance: float) -> tuple[Array, Array]:
    second_raw = jnp.exp(log_weight_moment(delta, 2.0, variance))
    third_raw = jnp.exp(log_weight_moment(delta, 3.0, variance))
    return second_raw - 1, third_raw - 3 * second_raw + 2


def log_snr_theta(
    delta: Float[Array, "D"],
    x_minus_mu: Float[Array, "D"],
    num_samples: float,
    variance: float = PAPER_VARIANCE,
    alpha: float = 0.0,
) -> Float[Array, "D"]:
    r"""log SNR of the gradient of VR-IWAE in mu, to leading order in K.

    Its noise is s times that of the pathwise gradient in b; its mean is E[rho (z - mu)]/E[rho],
    rho = r^(1 - alpha). At alpha = 0:

    .. math:: \mathrm{SNR}_d \to \sqrt K
       \frac{|x-\mu|_d}{2 \sqrt{(1+\chi^2)\,(\tau + (\tau \delta_d/v)^2)}},
       \quad \tau = \frac{1}{2/s - 1/v}

    Args:
      delta: discrepancy, shape [D].
      x_minus_mu: x - mu, shape [D]; the exact gradient of log p(x) is half of it.
      num_samples: K.
      variance: v.
      alpha: order of VR-IWAE.

    Returns:
      Natural logarithms, shape [D].
    """
    # grad_mu log w = z - mu, whose posterior mean is (x - mu)/2.
    mean = x_minus_mu / 2 + tilt(delta, 1.0 - alpha, variance).offset
    log_sd = log_sd_phi_pathwise(delta, num_samples, variance, alpha) + math.log(_S)
    return jnp.log(jnp.abs(mean)) - log_sd


def expected_phi_gradient(
    delta: Float[Array, "D"],
    num_samples: float,
    variance: float = PAPER_VARIANCE,
    alpha: float = 0.0,
) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
    r"""Expected gradient in b of VR-IWAE to order 1/K: (sign, log magnitude), each [D].

    With t = 1 - alpha and E_n = E_q[r^{tn}], differentiating
    E[bound] = (log E_1 - (E_2/E_1^2 - 1)/(2K)) / t + O(K^-2) in delta gives

    .. math:: \frac1t \left[\frac{\partial \log E_1}{\partial \delta_d}
       - \frac{E_2/E_1^2}{2K} \left(\frac{\partial \log E_2}{\partial \delta_d}
       - 2 \frac{\partial \log E_1}{\partial \delta_d}\right)\right].

    At alpha = 0 this is -(1 + chi^2) delta / ((2v - s) K), for IWAE and for DReG. The
    gradient in A is its outer product with x.
    """
    order = 1.0 - alpha
    first, second = (_slope(delta, order * n, variance) for n in (1.0, 2.0))
    log_ratio = (
        log_weight_moment(delta, 2 * order, variance)
        - 2 * log_weight_moment(delta, order, variance)
        - jnp.log(2.0 * num_samples)
    )
    terms = jnp.stack([first, -(second - 2 * first)]) / order
    logs = jnp.stack([jnp.zeros_like(log_ratio), log_ratio])[:, None]
    log_magnitude, sign = jax.nn.logsumexp(logs, axis=0, b=terms, return_sign=True)
    return sign, log_magnitude


def _slope(delta: Array, power: float, variance: float) -> Array:
    """Derivative of log E_q[r^n] in delta."""
    a, b = power / _S, (1.0 - power) / variance
    return -a * b / (a + b) * delta


def log_sd_phi_pathwise(
    delta: Float[Array, "D"],
    num_samples: float,
    variance: float = PAPER_VARIANCE,
    alpha: float = 0.0,
) -> Float[Array, "D"]:
    r"""log standard deviation of the pathwise gradient in b, to leading order in K.

    .. math:: \frac{1}{K} \frac{E_q[r^{2t} (g - \bar g)^2]}{E_q[r^t]^2}, \quad
       g = -\frac{z - m_{post}}{s}, \; \bar g = \frac{E_q[r^t g]}{E_q[r^t]}, \; t = 1-\alpha

    At alpha = 0: sqrt((1 + chi^2) (tau + (tau delta/v)^2) / K) / s.
    """
    order = 1.0 - alpha
    one, two = tilt(delta, order, variance), tilt(delta, 2 * order, variance)
    spread = (two.variance + jnp.square(two.offset - one.offset)) / _S**2
    return 0.5 * (two.log_mass - 2 * one.log_mass + jnp.log(spread) - jnp.log(num_samples))


def log_sd_phi_dreg(
    delta: Float[Array, "D"],
    num_samples: float,
    variance: float = PAPER_VARIANCE,
    alpha: float = 0.0,
) -> Float[Array, "D"]:
    r"""log standard deviation of the DReG gradient in b, by the delta method.

    The estimator is alpha A_1/B + (1 - alpha) A_2/(K B^2) with A_n = mean_k r_k^{tn} g_k,
    B = mean_k r_k^t and g = d log w/dz. To first order around the expectations it is a mean of

    .. math:: \frac{\alpha}{B}\rho g + \frac{1-\alpha}{K B^2} \rho^2 g - c \rho, \quad
       c = \frac{\alpha A_1}{B^2} + \frac{2 (1-\alpha) A_2}{K B^3}, \; \rho = r^t

    whose variance over K is closed by the tilts of order t to 4t. At alpha = 0:
    {E[r^4 g^2] - M^2 - 4M(E[r^3 g] - M) + 4M^2(E[r^2] - 1)}/K^3 with M = E[r^2 g].
    """
    order = 1.0 - alpha
    tilts = {n: tilt(delta, order * n, variance) for n in (1, 2, 3, 4)}
    # g = d log w / dz = -(z - m_post)/s + (z - m)/v, linear in u = z - m_post.
    slope, intercept = 1.0 / variance - 1.0 / _S, -delta / variance

    def moment(n, degree):
        """E[rho^n g^degree] / E[rho]^n as (log scale, factor [D])."""
        t = tilts[n]
        mean = slope * t.offset + intercept
        factor = (jnp.ones_like(mean), mean, jnp.square(mean) + slope**2 * t.variance)[degree]
        return t.log_mass - n * tilts[1].log_mass, factor

    # Coefficients (log scale, factor [D]) of rho g, rho^2 g and rho, all over E[rho]^n.
    one = jnp.ones_like(delta)
    log_k = jnp.log(jnp.asarray(num_samples, delta.dtype))
    log_a1, a1 = moment(1, 1)
    log_a2, a2 = moment(2, 1)
    pieces = [
        (1, 1, jnp.zeros_like(log_k), alpha * one),
        (2, 1, -log_k, (1 - alpha) * one),
        (1, 0, log_a1, -alpha * a1),
        (1, 0, log_a2 - log_k, -2 * (1 - alpha) * a2),
    ]
    logs, factors = [], []
    for n, i, log_c, c in pieces:
        for m, j, log_d, d in pieces:
            log_scale = log_c + log_d
            joint_log, joint = moment(n + m, i + j)
            left_log, left = moment(n, i)
            right_log, right = moment(m, j)
            logs += [log_scale + joint_log, log_scale + left_log + right_log]
            factors += [c * d * joint, -c * d * left * right]
    log_variance = jax.nn.logsumexp(jnp.stack(logs)[:, None], axis=0, b=jnp.stack(factors))
    return 0.5 * (log_variance - log_k)


def log_snr_phi(
    delta: Float[Array, "D"],
    num_samples: float,
    variance: float = PAPER_VARIANCE,
    alpha: float = 0.0,
) -> Float[Array, "D"]:
    r"""log SNR of the pathwise gradient in phi, to leading order in K.

    At alpha = 0:

    .. math:: \mathrm{SNR}_d \to
       \frac{\sqrt{1+\chi^2}\, |\delta_d|}{2 (2v-s) \sqrt{K (\tau + (\tau\delta_d/v)^2)}}

    All entries of row d of A share the SNR of b_d: their gradients are multiples.
    """
    _, log_mean = expected_phi_gradient(delta, num_samples, variance, alpha)
    return log_mean - log_sd_phi_pathwise(delta, num_samples, variance, alpha)


def log_snr_phi_dreg(
    delta: Float[Array, "D"],
    num_samples: float,
    variance: float = PAPER_VARIANCE,
    alpha: float = 0.0,
) -> Float[Array, "D"]:
    """log SNR of the DReG gradient in phi, to leading order in K; grows like sqrt(K)."""
    _, log_mean = expected_phi_gradient(delta, num_samples, variance, alpha)
    return log_mean - log_sd_phi_dreg(delta, num_samples, variance, alpha)
