"""The exact controls: probabilities of integers that sum to 1, and the density behind them."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bounds
from models import autoregressive, elementwise, quantized_mixture

KINDS = {"subset flow": autoregressive.subset_flow, "discretized": autoregressive.discretized}
DIMS, LEVELS = 3, 4
EVERY = np.array(list(itertools.product(range(LEVELS), repeat=DIMS)), np.float32)


def made(kind, *, dims=DIMS, levels=LEVELS, scale=1.0, seed=0):
    """A model and random parameters, all of whose weights matter."""
    model = KINDS[kind](dims, levels, hidden=(12, 12), num_components=2)
    params = model.init(jax.random.key(seed), jnp.full(dims, 1.3), jnp.full(dims, 0.8))
    keys = iter(jax.random.split(jax.random.key(seed + 1), 20))
    moved = jax.tree.map(lambda p: p + scale * 0.5 * jax.random.normal(next(keys), p.shape), params)
    return model, moved


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("shift", [-3.0, 0.4, 300.0])
def test_mixtures_sum_to_one(levels, shift):
    key = jax.random.key(levels)
    mixture = elementwise.Mixture(
        jax.nn.log_softmax(jax.random.normal(key, (5,))),
        shift + levels * jnp.linspace(-0.2, 1.1, 5),
        jnp.linspace(-7.0, 3.0, 5),
    )
    x = jnp.arange(levels, dtype=jnp.float32)
    discretized = quantized_mixture.discretized_log_prob(mixture, levels, x)
    assert float(jnp.sum(jnp.exp(discretized))) == pytest.approx(1.0, abs=1e-5)
    truncated = quantized_mixture.truncated_log_prob(mixture, levels, x)
    assert float(jnp.sum(jnp.exp(truncated))) == pytest.approx(1.0, abs=1e-4)
    assert np.all(np.isfinite(discretized))
    assert np.all(np.isfinite(truncated))


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_all_integers_sum_to_one(kind):
    model, params = made(kind)
    log_p = jax.vmap(model.log_prob, (None, 0))(params, EVERY)
    assert float(jnp.sum(jnp.exp(log_p))) == pytest.approx(1.0, abs=1e-5)
    assert float(jnp.ptp(log_p)) > 1.0


def test_a_row_sees_what_is_before_it_and_all_of_the_context():
    net = autoregressive.MADE((16, 16), 2)
    value, context = jnp.linspace(-1, 1, 5), jnp.linspace(0, 1, 3)
    variables = net.init(jax.random.key(0), value, context)
    by_value = jax.jacobian(lambda v: net.apply(variables, v, context))(value)
    seen = np.any(np.abs(by_value) > 1e-7, axis=1)
    np.testing.assert_array_equal(seen, np.tri(5, k=-1, dtype=bool))
    by_context = jax.jacobian(lambda c: net.apply(variables, value, c))(context)
    assert np.all(np.any(np.abs(by_context) > 1e-7, axis=1))


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_stated_probabilities(kind):
    """Largest of 64 z-scores over 50,000 draws; a false alarm in 3,000 runs."""
    model, params = made(kind)
    p = np.exp(np.asarray(jax.vmap(model.log_prob, (None, 0))(params, EVERY), np.float64))
    draws = jax.jit(jax.vmap(model.simulate, (None, 0)))(
        params, jax.random.split(jax.random.key(5), 50_000)
    )
    code = np.asarray(draws) @ LEVELS ** np.arange(DIMS)[::-1]
    counts = np.bincount(code.astype(int), minlength=LEVELS**DIMS)
    n = counts.sum()
    common = p * n > 10
    z = (counts - n * p)[common] / np.sqrt(n * p * (1 - p))[common]
    assert np.abs(z).max() < 4.5


def test_gap_of_the_subset_flow_is_the_integrated_divergence():
    """Two pixels: exact log P - ELBO = KL(q || p(v | x)) by quadrature in every one of 16 cells."""
    model, params = made("subset flow", dims=2, scale=0.6)
    noise = bounds.dequantization.logistic(lambda phi, x: (0.3 * (x - 1.5), 0.1 * (x - 1.0)))
    joint = bounds.dequantization.dequantized(model.log_density, noise)
    nodes, weights = np.polynomial.legendre.leggauss(240)
    nodes, weights = 22 * nodes, 22 * weights
    grid = jnp.asarray(np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1), jnp.float32)

    @jax.jit
    def densities(x):
        def both(v):
            return joint.log_p(params, x, v), joint.log_q(None, x, v)

        return jax.vmap(jax.vmap(both))(grid)

    def integral(values):
        return float(weights @ np.asarray(values, np.float64) @ weights)

    for x in itertools.product(range(LEVELS), repeat=2):
        x = jnp.asarray(x, jnp.float32)
        log_p, log_q = (np.asarray(v, np.float64) for v in densities(x))
        exact = float(model.log_prob(params, x))
        assert integral(np.exp(log_q)) == pytest.approx(1.0, abs=1e-4)
        assert math.log(integral(np.exp(log_p))) == pytest.approx(exact, abs=1e-3)
        elbo = integral(np.exp(log_q) * (log_p - log_q))
        kl = integral(np.exp(log_q) * (log_q - (log_p - exact)))
        assert exact - elbo == pytest.approx(kl, abs=1e-3)
        assert kl > 1e-3
