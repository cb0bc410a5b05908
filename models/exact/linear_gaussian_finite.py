r"""VR-IWAE of the linear-Gaussian model at any K, exactly: integrals in float64, no draws.

Notation of `models.exact.linear_gaussian_theory`: r = w/Z, t = 1 - alpha, rho = r^t, u = z minus
the posterior mean. Where that module expands in 1/K, this one has no expansion. Weights enter every
quantity by their sum alone, and with L(s) = E_q[exp(-s rho)] two identities make expectations over
K independent draws of them,

.. math:: \log x = \int_0^\infty \frac{e^{-c} - e^{-cx}}{c} dc, \qquad
   \frac{1}{x^n} = \int_0^\infty \frac{s^{n-1}}{(n-1)!} e^{-sx} ds,

integrals over s of products of L(s)^(K-2) and expectations under q of one draw, such as
E[rho u exp(-s rho)]. These are integrals over one number: log r depends on u by its distance from
one point, c = -delta/(v/s - 1), and given that distance the direction of u - c is known in closed
form (a ratio of Bessel functions). At v = s, where there is no such point, log r is linear in u.

Derived here; tests check it against quadrature over all K draws, simulation, and the expansions.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from models.exact.linear_gaussian import PAPER_VARIANCE, POSTERIOR_VARIANCE

_S = POSTERIOR_VARIANCE
_LEGENDRE = np.polynomial.legendre.leggauss(16)
_STEP = 0.25  # of log s: the trapezoidal rule leaves |Gamma(4 + 2 pi i / step)|, 2e-12, of DReG
_END = 4.2  # log x at which exp(-x) is 0
_ALMOST_ALL = 1e-16 - 1
_REACH = 10.5  # deviations: what lies beyond is rarer than K^-3, the noise of DReG, at any K in use


class Finite(NamedTuple):
    """Exact answers at one K; gradients are those in b, the bias of q's mean, [D] in float64.

    That in theta has the mean (x - mu)/2 - s `mean` and the standard deviation s `pathwise`.

    Attributes:
      gap: log p(x) minus the expectation of VR-IWAE-K, in nats.
      deviation: standard deviation of VR-IWAE-K, in nats.
      mean: expected gradient, the same for pathwise and for DReG.
      pathwise: standard deviation of the pathwise gradient.
      dreg: standard deviation of the DReG gradient.
    """

    gap: float
    deviation: float
    mean: np.ndarray
    pathwise: np.ndarray
    dreg: np.ndarray


def finite(
    delta: np.ndarray,
    num_samples: int,
    variance: float = PAPER_VARIANCE,
    alpha: float = 0.0,
) -> Finite:
    r"""Bound, gradients and their noise at K samples, without an expansion in K.

    .. math:: \mathbb E[G] = K \int \mathbb E[\rho u e^{-s\rho}] L^{K-1} ds, \quad
       \mathbb E[G^2] = \int s \left(K \, \mathbb E[\rho^2 u^2 e^{-s\rho}] L^{K-1}
       + K (K-1) \, \mathbb E[\rho u e^{-s\rho}]^2 L^{K-2}\right) ds

    for G = sum_k rho_k u_k / sum_k rho_k, of which the pathwise gradient is -1/s; likewise for
    DReG, a sum of alpha rho_k g_k / sum rho + (1 - alpha) rho_k^2 g_k / (sum rho)^2 with
    g = d log w/dz.

    Args:
      delta: discrepancy, shape [D].
      num_samples: K.
      variance: v.
      alpha: order of VR-IWAE, from 0 (IWAE) to below 1.

    Returns:
      A `Finite`.

    Example:
      >>> from models.exact import linear_gaussian_finite
      >>> delta = np.array([0.3, -0.4])
      >>> elbo, iwae = (linear_gaussian_finite.finite(delta, k) for k in (1, 64))
      >>> print(f"{elbo.gap:.4f} {iwae.gap:.4f}")  # the first is KL(q || posterior)
      0.2957 0.0027
    """
    delta = np.asarray(delta, np.float64)
    distance, order, k = float(np.linalg.norm(delta)), 1.0 - alpha, num_samples
    log_r, mass, u, uu, across = _nodes(distance, len(delta), variance, order)
    slope, intercept = 1 / variance - 1 / _S, -distance / variance
    g, gg = slope * u + intercept, slope**2 * uu + 2 * slope * intercept * u + intercept**2
    log_rho = order * log_r
    most = np.max(log_rho)
    log_s = np.arange(-36.0 - math.log(k), _END + most - np.min(log_rho), _STEP) - most
    # Beyond the end exp(-x) is 0, and powers of x would overflow.
    x = np.exp(np.minimum(log_s[:, None] + log_rho, _END))
    # By way of 1 - L, so that L^K keeps its digits at large K.
    log_transform = np.log1p(np.maximum(np.expm1(-x) @ mass, _ALMOST_ALL))
    one = k * _STEP * np.exp((k - 1) * log_transform)
    two = k * (k - 1) * _STEP * np.exp(max(k - 2, 0) * log_transform)
    tables, values = [], np.stack([u, uu, across, g, gg], axis=1)
    decay = mass * np.exp(-x)
    for _ in range(4):
        decay = decay * x
        tables.append(decay @ values)

    def moment(power, name):
        """E[X^power value exp(-X)] at every s, X = s rho."""
        return tables[power - 1][:, ("u", "uu", "across", "g", "gg").index(name)]

    # log of the mean of rho / exp(most), and its square, by the distribution of an exponential
    # variable over it.
    c = log_s + most + math.log(k)
    difference = _STEP * (np.exp(-np.exp(c)) - np.exp(k * log_transform))
    log = np.sum(difference)
    spread = -np.sum(2 * c * difference) + np.euler_gamma**2 - (np.euler_gamma + log) ** 2

    # G is a sum over draws of sum_i a_i X^n_i v_i; of two such sums the products of different
    # draws have no part across delta.
    def second(powers, coefficients, value, across_factor):
        total = perpendicular = 0.0
        for n, a in zip(powers, coefficients, strict=True):
            for m, b in zip(powers, coefficients, strict=True):
                own = a * b / math.factorial(n + m - 1)
                total += own * (one @ moment(n + m, 2 * value))
                total += own * (two @ (moment(n, value) * moment(m, value)))
                perpendicular += own * across_factor * (one @ moment(n + m, "across"))
        return total, perpendicular

    mean_u = one @ moment(1, "u")
    mean_g = alpha * (one @ moment(1, "g")) + order * (one @ moment(2, "g"))
    of_u = second((1,), (1.0,), "u", 1.0)
    of_g = second((1, 2), (alpha, order), "g", slope**2)
    along = delta / distance if distance > 0 else np.zeros_like(delta)

    def deviation(moments, mean):
        parallel, perpendicular = moments[0] - mean**2, moments[1]
        # At K = 1 and v = s the gradient of DReG never varies: 0, but for rounding.
        return np.sqrt(np.maximum(perpendicular + (parallel - perpendicular) * along**2, 0.0))

    return Finite(
        gap=float(-(log + most) / order),
        deviation=float(np.sqrt(spread) / order),
        mean=-mean_u / _S * along,
        pathwise=deviation(of_u, mean_u) / _S,
        dreg=deviation(of_g, mean_g),
    )


def _nodes(distance: float, num_dims: int, variance: float, order: float):
    """Nodes of q: log r, mass, and E[u], E[u^2] along delta and E[u^2] across it, given log r."""
    constant = 0.5 * num_dims * math.log(variance / _S)
    curvature = 1 / _S - 1 / variance
    if curvature == 0:
        noise, weight = _panels(-_REACH, _REACH, order * distance / math.sqrt(variance))
        u = distance + math.sqrt(variance) * noise
        mass = weight * np.exp(-0.5 * noise**2) / math.sqrt(2 * math.pi)
        log_r = constant - 0.5 * u**2 / _S + 0.5 * noise**2
        return log_r, mass, u, u**2, np.full_like(u, variance)
    center = -distance / (variance * curvature)
    shift = distance - center
    middle = math.sqrt(shift**2 + variance * num_dims)
    reach = _REACH * math.sqrt(variance)
    steepest = order * abs(curvature) * (middle + reach) * math.sqrt(variance)
    radius, weight = _panels(max(0.0, middle - reach), middle + reach, steepest, variance)
    # Radius of a Gaussian around `shift`: the chi density times exp(-shift^2 / 2 v) 0F1.
    half, z = num_dims / 2, radius * abs(shift) / variance
    log_bessel, ratio = _bessel(half, z)
    log_density = (
        (num_dims - 1) * np.log(radius)
        - 0.5 * (radius**2 + shift**2) / variance
        + log_bessel
        - (half - 1) * math.log(2)
        - special.gammaln(half)
        - half * math.log(variance)
    )
    cosine = math.copysign(1.0, shift) * z * ratio
    u = center + radius * cosine
    uu = center**2 + 2 * center * radius * cosine + radius**2 * (1 - (num_dims - 1) * ratio)
    log_r = (
        constant
        - 0.5 * curvature * radius**2
        + 0.5 * distance**2 / variance * (1 + 1 / (variance * curvature))
    )
    return log_r, weight * np.exp(log_density), u, uu, radius**2 * ratio


def _panels(first: float, last: float, steepest: float, variance: float = 1.0):
    """Gauss-Legendre nodes and weights on panels that suit a slope of log rho per deviation."""
    width = math.sqrt(variance) * min(1.0, 4.0 / max(steepest, 1e-300))
    edges = np.linspace(first, last, math.ceil((last - first) / width) + 1)
    half = 0.5 * np.diff(edges)[:, None]
    middle = 0.5 * (edges[1:] + edges[:-1])[:, None]
    points, weights = _LEGENDRE
    return (middle + half * points).ravel(), (half * weights).ravel()


def _bessel(b: float, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log 0F1(b; z^2/4) = log Gamma(b) (z/2)^(1-b) I_{b-1}(z), and I_b(z) / (z I_{b-1}(z))."""
    small = z < 1
    low, high = np.where(small, z, 0.0) ** 2 / 4, np.where(small, 1.0, z)
    first, second = special.hyp0f1(b, low), special.ive(b - 1, high)
    of_large = special.gammaln(b) - (b - 1) * np.log(high / 2) + np.log(second) + high
    ratio = special.hyp0f1(b + 1, low) / (2 * b * first)
    return (
        np.where(small, np.log(first), of_large),
        np.where(small, ratio, special.ive(b, high) / (high * second)),
    )
