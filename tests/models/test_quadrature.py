"""Two pixels under a coupling flow, integrated: the oracle of dequantization beyond one number."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bounds
from experiments.dequantize import exact
from models import bijectors, chains, conditioners, elementwise
from models.conditioners import Context
from models.exact import quadrature

CONTROL = exact.two_pixels(levels=3, seed=1)
X = quadrature.every_x(CONTROL.levels, 2)


def skewed(phi, x):
    return phi * (x - 1.0), 0.3 * phi * jnp.ones(x.shape)


NOISES = {
    "uniform": (bounds.dequantization.uniform(), None),
    "logistic": (bounds.dequantization.logistic(skewed), 0.4),
    "normal": (bounds.dequantization.normal(skewed), 0.4),
}


@functools.cache
def integrals(name):
    dequantizer, phi = NOISES[name]
    model = bounds.dequantization.dequantized(CONTROL.log_density, dequantizer)
    params = bounds.Params(CONTROL.theta, phi)
    nodes = CONTROL.num_nodes
    run = jax.jit(lambda p: quadrature.integrate(model, p, X, num_nodes=nodes))
    return jax.tree.map(lambda v: np.asarray(v, np.float64), run(params))


@pytest.mark.parametrize("name", NOISES)
def test_cells_sum_to_one_and_the_gap_is_the_divergence(name):
    found = integrals(name)
    np.testing.assert_allclose(np.exp(found.log_prob).sum(), 1, atol=1e-5)
    np.testing.assert_allclose(found.q_mass, 1, atol=1e-5)
    np.testing.assert_allclose(found.elbo + found.kl, found.log_prob, atol=1e-4)
    assert found.kl.max() > 0.01  # or nothing was tested


def test_cells_agree_with_gauss_legendre():
    nodes, weights = np.polynomial.legendre.leggauss(60)
    u = jnp.asarray(np.stack(np.meshgrid(*[(nodes + 1) / 2] * 2, indexing="ij"), -1), float)
    density = jax.jit(jax.vmap(lambda x, u: CONTROL.log_density(CONTROL.theta, x, u), (None, 0)))
    cells = [
        np.sum(np.outer(weights, weights).ravel() / 4 * np.exp(density(x, u.reshape(-1, 2))))
        for x in X
    ]
    np.testing.assert_allclose(cells, np.exp(integrals("uniform").log_prob), rtol=2e-4)


def test_bounds_rise_to_the_integral():
    """Mean IWAE-k of 2,000 draws: a rising sequence of lower bounds that reaches log P(x)."""
    dequantizer, phi = NOISES["uniform"]
    model = bounds.dequantization.dequantized(CONTROL.log_density, dequantizer)
    params = bounds.Params(CONTROL.theta, phi)
    draws, counts = 2000, (1, 4, 16, 256)

    @jax.jit
    def log_weights(key, x):
        keys = jax.random.split(key, draws)
        return jax.vmap(lambda k: bounds.log_weights(model, params, k, x, num_samples=counts[-1]))(
            keys
        )

    found = integrals("uniform")
    cell = int(np.argmin(np.abs(found.kl - 0.5)))
    log_w = log_weights(jax.random.key(0), X[cell])
    values = [np.asarray(bounds.iwae(log_w[:, :k]), np.float64) for k in counts]
    means = np.array([v.mean() for v in values])
    errors = np.array([v.std(ddof=1) / np.sqrt(draws) for v in values])
    assert abs(means[0] - found.elbo[cell]) < 5 * errors[0]
    gains = [b - a for a, b in itertools.pairwise(values)]
    assert all(g.mean() > 3 * g.std(ddof=1) / np.sqrt(draws) for g in gains)
    # At k = 256 what is left is its bias, var(w) / 2k.
    assert means[-1] <= found.log_prob[cell] + 5 * errors[-1]
    np.testing.assert_allclose(means[-1], found.log_prob[cell], atol=0.02)


def test_noise_that_is_the_posterior_leaves_no_gap():
    """p(x, v) = P(x) q(v | x) with q a coupling flow that sees x: every log-weight is log P(x)."""
    split = bijectors.channels()
    flow = chains.chain(
        [
            bijectors.coupling(
                conditioners.dense((8,), index=i, last_scale=1.0), elementwise.mixture(3), half
            )
            for i, half in enumerate((split, bijectors.swapped(split)))
        ]
    )
    batch = jnp.zeros((2, 2)), Context(jnp.zeros((2, 2)))
    phi, _ = flow.init(jax.random.key(0), *batch)
    noise = bounds.dequantization.flow(
        lambda phi, x, e: flow.forward(phi, e, Context(x)),
        lambda phi, x, v: flow.inverse(phi, v, Context(x)),
    )
    log_q = noise.log_q
    assert log_q is not None
    log_prob = -2.0

    def log_density(theta, x, u):
        v = jnp.log(u) - jnp.log1p(-u)
        return log_prob + log_q(theta, x, v) + jnp.sum(jax.nn.softplus(v) + jax.nn.softplus(-v))

    model = bounds.dequantization.dequantized(log_density, noise)

    @jax.jit
    def weights(theta, phi):
        params, x = bounds.Params(theta, phi), jnp.array([1.0, 2.0])
        return bounds.log_weights(model, params, jax.random.key(1), x, num_samples=200)

    log_w = weights(phi, phi)
    np.testing.assert_allclose(log_w, log_prob, atol=2e-3)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, phi)
    assert np.std(weights(phi, moved)) > 0.05


def test_what_cannot_be_integrated_is_refused():
    model = bounds.dequantization.dequantized(CONTROL.log_density, bounds.dequantization.uniform())
    params = bounds.Params(CONTROL.theta, None)
    with pytest.raises(ValueError, match="got 3 pixels"):
        quadrature.integrate(model, params, jnp.zeros((1, 3)))
    with pytest.raises(ValueError, match="no log_q"):
        quadrature.integrate(model._replace(log_q=None), params, X)
