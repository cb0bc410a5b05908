"""VR-IWAE at finite K against quadrature over all K draws, simulation, closed forms and limits."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import moments, z_limit

import bounds
from models.exact import linear_gaussian, linear_gaussian_theory
from models.exact.linear_gaussian_finite import finite

S = linear_gaussian.POSTERIOR_VARIANCE


def close(got, wanted, rtol=1e-9):
    return np.allclose(got, wanted, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("variance", [0.35, S, 0.52, 2 / 3, 1.5])
@pytest.mark.parametrize("delta", [[0.0], [0.4], [0.3, -1.0], [0.2] * 30])
def test_one_sample_is_the_elbo(delta, variance):
    delta = np.array(delta)
    at_one = finite(delta, 1, variance)
    squares, num_dims = delta @ delta, len(delta)
    kl = num_dims / 2 * (2 * variance - 1 - math.log(2 * variance)) + squares
    of_log_w = num_dims / 2 * (1 - variance / S) ** 2 + variance * squares / S**2
    assert close(at_one.gap, kl)
    # A difference of two numbers near pi^2/6.
    assert close(at_one.deviation**2, of_log_w, 1e-7)
    assert close(at_one.mean, -delta / S)
    assert close(at_one.pathwise, math.sqrt(variance) / S)
    assert close(at_one.dreg, abs(1 / variance - 1 / S) * math.sqrt(variance), 1e-6)


def by_quadrature(delta, variance, alpha, num_samples, num_nodes, powers=(1, 2)):
    """(E and sd of the bound, E and sd of both gradients) over a grid of all noise, float64.

    `powers` are those of the weights that DReG gives to its two parts.
    """
    num_dims, order = len(delta), 1 - alpha
    points, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    grids = np.meshgrid(*[points] * (num_dims * num_samples), indexing="ij")
    noise = np.stack([g.ravel() for g in grids], -1).reshape(-1, num_samples, num_dims)
    products = itertools.repeat(weights / weights.sum(), num_dims * num_samples)
    mass = functools.reduce(np.multiply.outer, products).ravel()
    u = delta + math.sqrt(variance) * noise
    log_r = np.sum(0.5 * math.log(variance / S) - u**2 / (2 * S) + noise**2 / 2, axis=-1)
    rho = np.exp(order * log_r)
    normalized = rho / rho.sum(-1, keepdims=True)
    bound = np.log(rho.mean(-1)) / order
    g = -u / S + (u - delta) / variance
    weight = alpha * normalized ** powers[0] + order * normalized ** powers[1]
    pathwise = np.sum(normalized[..., None] * -u / S, axis=1)
    dreg = np.sum(weight[..., None] * g, axis=1)

    def both(values):
        mean = mass @ values
        return mean, np.sqrt(mass @ values**2 - mean**2)

    return both(bound), both(pathwise), both(dreg)


CASES = [
    ([0.5], 2 / 3, 0.0, 2, 100),
    ([-0.3], 2 / 3, 0.4, 3, 60),
    ([0.6], 0.45, 0.1, 2, 140),
    ([0.4], S, 0.0, 3, 60),
    ([0.3, -0.4], 0.6, 0.2, 2, 32),
]


@pytest.mark.parametrize(("delta", "variance", "alpha", "num_samples", "num_nodes"), CASES)
def test_few_samples_by_quadrature_over_all_of_them(delta, variance, alpha, num_samples, num_nodes):
    delta = np.array(delta)
    args = (delta, variance, alpha, num_samples, num_nodes)
    bound, pathwise, dreg = by_quadrature(*args)
    exact = finite(delta, num_samples, variance, alpha)
    wanted = [-bound[0], bound[1], *pathwise, *dreg]
    got = [exact.gap, exact.deviation, exact.mean, exact.pathwise, exact.mean, exact.dreg]
    for one, other in zip(got, wanted, strict=True):
        assert close(one, other, 1e-6)
    # One sample more or less, the expansion in 1/K, and STL in the place of DReG.
    assert not close(finite(delta, num_samples + 1, variance, alpha).gap, -bound[0], 1e-4)
    if alpha == 0 and variance != S:
        expansion = linear_gaussian_theory.iwae_gap(
            jnp.asarray(delta), float(num_samples), variance
        )
        assert not close(expansion, -bound[0], 1e-4)
    stl = by_quadrature(*args, powers=(1, 1))[2]
    assert not close(exact.mean, stl[0], 1e-4)
    assert not close(exact.dreg, stl[1], 1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_gradients_of_the_library_have_these_means_and_deviations(alpha):
    theta, x, delta = jnp.array([0.3, -0.2, 0.0]), jnp.array([1.5, -0.5, 0.4]), [0.5, -0.2, 0.1]
    model, phi = linear_gaussian.make_model(), linear_gaussian.exact_inference(theta)
    params = bounds.Params(theta, phi._replace(bias=phi.bias + jnp.array(delta)))
    bound = functools.partial(bounds.renyi, alpha=alpha)
    estimators = {
        "pathwise": bounds.pathwise(model, num_samples=8, bound=bound),
        "dreg": bounds.dreg(model, num_samples=8, alpha=alpha),
    }

    def gradients(key):
        found = {n: jax.grad(o)(params, key, x) for n, o in estimators.items()}
        return {n: g.phi.bias for n, g in found.items()} | {"theta": found["pathwise"].theta}

    measured = moments(gradients, num_replicates=20_000)
    exact, number = finite(np.array(delta), 8, alpha=alpha), float(measured.count)
    mean_theta = (np.asarray(x) - np.asarray(theta)) / 2 - S * exact.mean
    wanted = {
        "pathwise": (exact.mean, exact.pathwise),
        "dreg": (exact.mean, exact.dreg),
        "theta": (mean_theta, S * exact.pathwise),
    }
    for name, (mean, deviation) in wanted.items():
        got_mean, m2, m4 = (
            np.asarray(part[name], np.float64) for part in (measured.mean, measured.m2, measured.m4)
        )
        z_of_mean = (got_mean - mean) / (deviation / math.sqrt(number))
        spread = np.sqrt((m4 / number - (m2 / number) ** 2) / number)
        z_of_variance = (m2 / number - deviation**2) / spread
        limit = z_limit(18)
        assert np.all(np.abs(z_of_mean) < limit)
        assert np.all(np.abs(z_of_variance) < limit)
        # The same test sees 5% of a deviation.
        assert np.any(np.abs((m2 / number - (1.05 * deviation) ** 2) / spread) > limit)


def test_large_k_is_the_expansion_and_far_from_the_optimum_nothing_overflows():
    delta, k, v = np.array([0.25, -0.1]), 2**16, 2 / 3
    exact, closed = finite(delta, k), functools.partial(np.asarray, dtype=np.float64)
    theory = linear_gaussian_theory
    assert close(exact.gap / theory.iwae_gap(jnp.asarray(delta), float(k)), 1, 1e-4)
    sign, log_mean = theory.expected_phi_gradient(jnp.asarray(delta), float(k))
    assert close(exact.mean / (closed(sign) * np.exp(closed(log_mean))), 1, 1e-3)
    for got, log in (
        (exact.pathwise, theory.log_sd_phi_pathwise(jnp.asarray(delta), float(k))),
        (exact.dreg, theory.log_sd_phi_dreg(jnp.asarray(delta), float(k))),
    ):
        assert close(got / np.exp(closed(log)), 1, 1e-2)
    far = finite(np.full(20, math.sqrt(211 / 20)), 1000)
    assert 100 < far.gap < 211 + 10 * (2 * v - 1 - math.log(2 * v))
    assert all(np.all(np.isfinite(value)) for value in far)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("variance", [S, 2 / 3])
def test_the_two_limits_of_the_gap_hold_each_in_its_regime(variance, alpha):
    """The remainder of the first falls as 1/K^2; that of the second has a bound of its own."""
    near, k = np.full(20, 0.1), 4096
    exact = finite(near, k, variance, alpha).gap
    regular, collapsed = linear_gaussian_theory.renyi_gap(jnp.asarray(near), k, variance, alpha)
    assert close(regular, exact, 1e-3)
    assert abs(collapsed - exact) > 1
    far, k = np.full(20, 3.0), 64
    exact = finite(far, k, variance, alpha).gap
    regular, collapsed = linear_gaussian_theory.renyi_gap(jnp.asarray(far), k, variance, alpha)
    deviation = finite(far, 1, variance).deviation
    allowed = deviation * math.log(math.log(k)) / math.sqrt(math.log(k))
    assert abs(collapsed - exact) < allowed < 0.2 * exact
    assert abs(regular - exact) > 100 * allowed
