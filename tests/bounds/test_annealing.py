"""Annealed importance sampling: unbiased weights, exact invariance, a sandwich that closes.

The model is linear-Gaussian, so p(x), the posterior and every distribution on the path are known.
q has variance 0.6 against the posterior's 0.5: the weights and their inverses then have finite
fourth moments, which the z-tests ask for. Each z-test fails a right program once in 100,000 seeds.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from oracles import TIGHT, z_limit

import bounds
from bounds import _hmc
from models.exact import linear_gaussian, two_layer_gaussian

VARIANCE = 0.6
MODEL = linear_gaussian.make_model(VARIANCE)
THETA = jnp.array([0.3, -0.2])
X = jnp.array([1.5, -0.5])
PARAMS = bounds.Params(
    THETA, linear_gaussian.Inference(0.5 * jnp.eye(2), 0.5 * THETA + jnp.array([0.6, -0.4]))
)
LOG_P_X = linear_gaussian.log_likelihood(THETA, X)
# Coarse on purpose: more than half of the proposals are rejected.
COARSE = {
    "betas": jnp.array([0.0, 0.3, 0.7, 1.0]),
    "step_sizes": jnp.array([1.35, 1.25]),
    "num_leapfrog": 2,
}
CHAINS = 100_000


def z_score(values, expected):
    values = np.asarray(values, np.float64)
    return (values.mean() - expected) / (values.std() / np.sqrt(len(values)))


def assert_mean(values, expected):
    assert abs(z_score(values, expected)) < z_limit(1)


def assert_not_mean(values, expected):
    assert abs(z_score(values, expected)) > z_limit(1)


def keys_of(seed, count=CHAINS):
    return jax.random.split(jax.random.key(seed), count)


def posterior_draw(key, x=X):
    mean, variance = linear_gaussian.posterior(THETA, x)
    return mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape)


def encoder_draw(key):
    return MODEL.propose(PARAMS.phi, key, X)[0]


def forward(seed, model=MODEL, **settings):
    settings = COARSE | settings
    run = jax.jit(jax.vmap(lambda key: bounds.ais(model, PARAMS, key, X, **settings)))
    return run(keys_of(seed))


def backward(seed, start):
    def one(key):
        key_start, key = jax.random.split(key)
        return bounds.reverse_ais(MODEL, PARAMS, key, X, start(key_start), **COARSE)

    return jax.jit(jax.vmap(one))(keys_of(seed))


def accept_always(key, log_ratio):
    return log_ratio == log_ratio, jnp.ones_like(log_ratio)


def whole_first_kick(*args):
    """The leapfrog with a whole kick where half a kick belongs."""
    at, point, momentum, beta, step_size, num_leapfrog = args
    extra = beta * point.grad_log_p + (1 - beta) * point.grad_log_q
    momentum = momentum + step_size / 2 * extra
    return RIGHT_LEAPFROG(at, point, momentum, beta, step_size, num_leapfrog)


RIGHT_LEAPFROG = _hmc.leapfrog
WRONG = {"metropolis": accept_always, "leapfrog": whole_first_kick}


@pytest.mark.x64
def test_two_temperatures_are_one_importance_sample():
    def pair(key):
        log_w, acceptance = bounds.ais(
            MODEL, PARAMS, key, X, betas=jnp.array([0.0, 1.0]), step_sizes=0.1
        )
        return log_w, acceptance, bounds.log_weights(MODEL, PARAMS, key, X, num_samples=1)[0]

    log_w, acceptance, expected = jax.jit(jax.vmap(pair))(keys_of(0, 10))
    assert acceptance.shape == (10, 0)
    np.testing.assert_array_equal(log_w, expected)


@pytest.mark.x64
def test_with_the_posterior_as_encoder_every_chain_gives_the_exact_answer():
    """All distributions on the path are one, wherever the chain goes."""
    model = linear_gaussian.make_model(linear_gaussian.POSTERIOR_VARIANCE)
    params = bounds.Params(THETA, linear_gaussian.exact_inference(THETA))

    def both(key):
        key_start, key_up, key_down = jax.random.split(key, 3)
        z = posterior_draw(key_start)
        up, acceptance = bounds.ais(model, params, key_up, X, **COARSE)
        return up, bounds.reverse_ais(model, params, key_down, X, z, **COARSE)[0], acceptance

    up, down, acceptance = jax.jit(jax.vmap(both))(keys_of(0, 50))
    np.testing.assert_allclose(up, np.full(50, LOG_P_X), rtol=TIGHT)
    np.testing.assert_allclose(down, np.full(50, LOG_P_X), rtol=TIGHT)
    assert 0 < acceptance.mean() < 1


def test_forward_weights_are_unbiased():
    log_w, acceptance = forward(1)
    assert np.all(acceptance.mean(0) < 0.6)
    assert_mean(np.exp(log_w - LOG_P_X), 1.0)
    assert log_w.mean() < LOG_P_X


def test_reverse_weights_are_unbiased_for_the_inverse():
    log_w, _ = backward(2, posterior_draw)
    assert_mean(np.exp(LOG_P_X - log_w), 1.0)
    assert log_w.mean() > LOG_P_X


def test_a_start_that_is_no_posterior_draw_is_seen():
    log_w, _ = backward(2, encoder_draw)
    assert_not_mean(np.exp(LOG_P_X - log_w), 1.0)


def test_without_the_metropolis_test_both_fail(monkeypatch):
    monkeypatch.setattr(_hmc, "metropolis", accept_always)
    assert_not_mean(np.exp(forward(1)[0] - LOG_P_X), 1.0)
    assert_not_mean(np.exp(LOG_P_X - backward(2, posterior_draw)[0]), 1.0)


def path_moments(beta):
    """Mean and variance of f_beta: precisions and their products with means add up."""
    mean_q = PARAMS.phi.weight @ X + PARAMS.phi.bias
    mean_p, variance_p = linear_gaussian.posterior(THETA, X)
    precision = (1 - beta) / VARIANCE + beta / variance_p
    mean = ((1 - beta) / VARIANCE * mean_q + beta / variance_p * mean_p) / precision
    return mean, 1 / precision


def invariance_scores():
    """z-scores of first and second moments after a transition, and of detailed balance."""
    beta = jnp.array(0.4)
    mean, variance = path_moments(beta)

    def one(key):
        key_start, key = jax.random.split(key)
        z = mean + jnp.sqrt(variance) * jax.random.normal(key_start, mean.shape)
        at, start = _hmc.start_of(MODEL, PARAMS, X, z)
        # The same as a chain makes: the step is coarse enough for many rejections.
        moved, acceptance = _hmc.transition(at, start, key, beta, jnp.array(1.3), 2)
        return z, moved.z, acceptance

    before, after, acceptance = jax.jit(jax.vmap(one))(keys_of(3))
    standard = (after - mean[None]) / jnp.sqrt(variance)
    start = (before - mean[None]) / jnp.sqrt(variance)
    scores = [z_score(standard[:, d], 0.0) for d in range(2)]
    scores += [z_score(standard[:, d] ** 2, 1.0) for d in range(2)]
    # Reversible: before and after may change places. The reverse chain rests on this.
    for g, h in [(jnp.abs, jnp.sin), (jnp.square, jnp.cos), (jnp.exp, jnp.tanh)]:
        swapped = g(start) * h(standard) - h(start) * g(standard)
        scores += [z_score(swapped[:, d], 0.0) for d in range(2)]
    return np.abs(scores), acceptance


def test_a_transition_leaves_its_distribution_invariant_and_is_reversible():
    scores, acceptance = invariance_scores()
    assert acceptance.mean() < 0.8
    assert scores.max() < z_limit(len(scores))


@pytest.mark.parametrize("part", WRONG)
def test_a_wrong_transition_fails_the_invariance_test(part, monkeypatch):
    monkeypatch.setattr(_hmc, part, WRONG[part])
    scores, _ = invariance_scores()
    assert scores[:4].max() > z_limit(len(scores))


@pytest.mark.x64
def test_leapfrog_is_its_own_reversal_and_keeps_volume():
    def run(phase):
        at, start = _hmc.start_of(MODEL, PARAMS, X, phase[0])
        point, momentum = _hmc.leapfrog(at, start, phase[1], jnp.array(0.4), jnp.array(0.9), 5)
        return jnp.stack([point.z, -momentum])

    phase = jnp.array([[0.4, -1.0], [0.7, 1.2]])
    run = jax.jit(run)
    assert not np.allclose(run(phase), phase, atol=0.1)
    np.testing.assert_allclose(run(run(phase)), phase, rtol=TIGHT, atol=TIGHT)
    jacobian = jax.jacfwd(run)(phase).reshape(4, 4)
    np.testing.assert_allclose(abs(np.linalg.det(jacobian)), 1.0, rtol=10 * TIGHT)


def test_sandwich_closes_with_more_temperatures():
    """Data, and with each its exact z, are simulated; chains are vmapped over them."""

    def one(key, num_temperatures):
        key_z, key_x, key_up, key_down = jax.random.split(key, 4)
        z = THETA + jax.random.normal(key_z, THETA.shape)
        x = z + jax.random.normal(key_x, z.shape)
        settings = {"betas": bounds.annealing_schedule(num_temperatures), "step_sizes": 0.5}
        up, _ = bounds.ais(MODEL, PARAMS, key_up, x, num_leapfrog=3, **settings)
        down, _ = bounds.reverse_ais(MODEL, PARAMS, key_down, x, z, num_leapfrog=3, **settings)
        exact = linear_gaussian.log_likelihood(THETA, x)
        return up - exact, down - exact

    gaps = []
    for num_temperatures in (2, 8):
        run = jax.jit(jax.vmap(lambda key, n=num_temperatures: one(key, n)))
        up, down = run(keys_of(4, 20_000))
        # At these gaps the other sign would be a deviation of 20 standard errors and more.
        assert z_score(up, 0.0) < -z_limit(1)
        assert z_score(down, 0.0) > z_limit(1)
        gaps.append(float(down.mean() - up.mean()))
    assert gaps[1] < 0.5 * gaps[0]


def test_reverse_chains_that_share_their_start_still_bound_from_above():
    def one(key):
        key_start, key = jax.random.split(key)
        z = posterior_draw(key_start)
        chain = jax.vmap(lambda k: bounds.reverse_ais(MODEL, PARAMS, k, X, z, **COARSE)[0])
        return chain(jax.random.split(key, 8))

    log_w = jax.jit(jax.vmap(one))(keys_of(5, 40_000))
    assert_mean(np.exp(LOG_P_X - log_w).mean(1), 1.0)
    together, mean = -bounds.iwae(-log_w), log_w.mean(1)
    assert np.all(together <= mean + 1e-5)
    assert z_score(together, LOG_P_X) > z_limit(1)
    assert together.mean() < mean.mean() < bounds.iwae(log_w).mean()


def test_zero_weights_stay_zero_and_the_rest_is_unbiased():
    """Cut off at z[0] = 0.5, the joint integrates to p(x) times a posterior probability."""
    cut = MODEL._replace(
        log_p=lambda theta, x, z: jnp.where(z[0] > 0.5, MODEL.log_p(theta, x, z), -jnp.inf)
    )
    log_w, acceptance = forward(6, cut)
    assert 0.05 < np.isneginf(log_w).mean() < 0.5
    assert not np.isnan(log_w).any()
    assert not np.isnan(acceptance).any()
    mean, variance = linear_gaussian.posterior(THETA, X)
    share = norm.sf(0.5, mean[0], jnp.sqrt(variance))
    assert_mean(np.exp(log_w - LOG_P_X), float(share))


def test_proposals_without_a_finite_energy_are_rejected():
    start = jnp.array([0.9, -0.3])
    stuck = MODEL.log_p(THETA, X, start) - MODEL.log_q(PARAMS.phi, X, start)
    holes = MODEL._replace(
        log_p=lambda theta, x, z: jnp.where(
            jnp.abs(z[0] - 0.9) < 1e-3, MODEL.log_p(theta, x, z), jnp.nan
        )
    )

    @jax.jit
    def run(step_size):
        settings = COARSE | {"step_sizes": step_size}
        return [
            bounds.reverse_ais(model, PARAMS, jax.random.key(0), X, start, **settings)
            for model in (MODEL, holes)
        ]

    for step_size in (1e3, 1e30):
        for log_w, acceptance in run(step_size):
            np.testing.assert_allclose(log_w, stuck, rtol=1e-5)
            np.testing.assert_array_equal(acceptance, [0.0, 0.0])


def test_any_pytree_of_z():
    """Two layers: exact log p(x), chains vmapped, and data over them."""
    model = two_layer_gaussian.make_model()
    theta = two_layer_gaussian.Generative(jnp.array([0.5, -0.5]), jnp.array(0.8), jnp.array(1.2))
    exact = two_layer_gaussian.exact_inference(theta)
    lower = exact.lower._replace(bias=exact.lower.bias + 0.2)
    upper = exact.upper._replace(log_scale=exact.upper.log_scale + 0.1)
    params = bounds.Params(theta, two_layer_gaussian.Inference(lower, upper))
    data = jnp.array([[0.3, 1.0], [-1.0, 2.0]])
    betas = jnp.linspace(0.0, 1.0, 4)

    @jax.jit
    def run(key, x):
        def chain(key):
            return bounds.ais(model, params, key, x, betas=betas, step_sizes=0.35, num_leapfrog=3)

        return jax.vmap(chain)(jax.random.split(key, 20_000))

    log_w, acceptance = jax.vmap(run)(keys_of(7, 2), data)
    assert log_w.shape == (2, 20_000)
    assert acceptance.shape == (2, 20_000, 2)
    for row, x in zip(log_w, data, strict=True):
        assert_mean(np.exp(row - two_layer_gaussian.log_likelihood(theta, x)), 1.0)
