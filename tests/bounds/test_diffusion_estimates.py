"""Estimates of the diffusion bound by one drawn time: unbiased, and which of them vary least."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bounds
from models import diffusion

STEPS, LEVELS, BATCH = 20, 4, 32
X = jnp.array([0.0, 3.0, 1.0])
THETA = jnp.array(0.7)


def predict(theta, x_t, gamma):
    return theta * jnp.tanh(x_t)


def ddpm():
    gamma = bounds.diffusion.cosine_schedule(STEPS)
    return diffusion.ddpm(
        gamma, predict, levels=LEVELS, prediction="x", variance="fixed_large"
    ).model


@functools.cache
def exact_bound():
    """(mean, standard error) of the bound by all its terms."""
    keys = jax.random.split(jax.random.key(9), 20_000)
    terms = jax.jit(jax.vmap(lambda key: bounds.diffusion.terms(ddpm(), THETA, key, X)))(keys)
    values = np.asarray(bounds.diffusion.bound(terms), np.float64)
    squares = np.concatenate(
        [np.square(terms.reconstruction)[:, None], np.square(terms.diffusion)], axis=1
    )
    return values.mean(), values.std(ddof=1) / np.sqrt(values.size), squares.mean(0)


def shares_of(kind):
    if kind == "importance":
        return bounds.diffusion.importance_probabilities(jnp.asarray(exact_bound()[2], jnp.float32))
    return jnp.full(STEPS, 1 / STEPS)


@functools.cache
def batch_means(kind, broken=""):
    """Means over a batch of estimates, of many batches."""
    model, shares = ddpm(), shares_of(kind)
    draw = (
        bounds.diffusion.uniform_times
        if kind == "uniform"
        else bounds.diffusion.low_discrepancy_times
    )

    def one(key):
        time_key, key = jax.random.split(key)
        t, p = bounds.diffusion.discrete_times(draw(time_key, BATCH), shares)
        if broken == "factor":
            p = jnp.ones_like(p)
        if broken == "probability":
            p = jnp.full_like(p, 1 / STEPS)
        estimate = jax.vmap(bounds.diffusion.discrete_estimate, (None, None, 0, None, 0, 0))
        return jnp.mean(estimate(model, THETA, jax.random.split(key, BATCH), X, t, p).value)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 4000)), np.float64)


def z_of(values):
    mean, error, _ = exact_bound()
    return (values.mean() - mean) / np.hypot(error, values.std(ddof=1) / np.sqrt(values.size))


@pytest.mark.parametrize("kind", ["uniform", "low_discrepancy", "importance"])
def test_estimates_by_one_time_are_unbiased(kind):
    assert abs(z_of(batch_means(kind))) < oracles.z_limit(1)


@pytest.mark.slow
def test_missing_factors_are_biased():
    assert abs(z_of(batch_means("uniform", "factor"))) > 50
    assert abs(z_of(batch_means("importance", "probability"))) > 20


@pytest.mark.slow
def test_stratified_and_weighted_times_vary_less():
    deviations = [batch_means(k).std() for k in ("uniform", "low_discrepancy", "importance")]
    assert deviations[1] < 0.8 * deviations[0]
    assert deviations[2] < 0.9 * deviations[1]


@pytest.mark.slow
def test_gradient_of_the_estimate_is_that_of_the_bound():
    """In expectation over times and noise, by the mean of many."""
    keys = jax.random.split(jax.random.key(2), 4000)

    def estimate(theta, key):
        time_key, key = jax.random.split(key)
        t, p = bounds.diffusion.discrete_times(
            bounds.diffusion.low_discrepancy_times(time_key, STEPS), jnp.full(STEPS, 1 / STEPS)
        )
        found = jax.vmap(bounds.diffusion.discrete_estimate, (None, None, 0, None, 0, 0))(
            ddpm(), theta, jax.random.split(key, STEPS), X, t, p
        )
        return jnp.mean(found.value)

    def whole(theta, key):
        return bounds.diffusion.bound(bounds.diffusion.terms(ddpm(), theta, key, X))

    first, second = (
        np.asarray(jax.jit(jax.vmap(jax.grad(f), (None, 0)))(THETA, keys), np.float64)
        for f in (estimate, whole)
    )
    error = np.hypot(first.std() / np.sqrt(first.size), second.std() / np.sqrt(second.size))
    assert abs(first.mean() - second.mean()) < oracles.z_limit(1) * error


def vdm(num_steps):
    gamma = functools.partial(bounds.diffusion.linear_gamma, gamma_min=-6.0, gamma_max=4.0)
    return diffusion.vdm(gamma, predict, levels=LEVELS, num_steps=num_steps, prediction="x").model


@pytest.mark.slow
def test_many_steps_reach_the_continuous_bound():
    times = bounds.diffusion.low_discrepancy_times(jax.random.key(3), 20_000)
    keys = jax.random.split(jax.random.key(4), 20_000)
    found = jax.jit(
        jax.vmap(lambda k, t: bounds.diffusion.continuous_estimate(vdm(0), THETA, k, X, t))
    )(jax.random.clone(keys), times)
    terms = jax.jit(jax.vmap(lambda k: bounds.diffusion.terms(vdm(500), THETA, k, X)))(
        jax.random.split(jax.random.key(5), 200)
    )
    values = np.asarray(bounds.diffusion.bound(terms), np.float64)
    continuous = np.asarray(found.value, np.float64)
    error = np.hypot(values.std() / np.sqrt(200), continuous.std() / np.sqrt(20_000))
    # A Riemann sum from above: half of a step's drop in what the integral is made of, 1/500 of it.
    assert abs(values.mean() - continuous.mean()) < 4.5 * error + 0.004 * abs(values.mean())


def test_learned_schedule_keeps_its_ends_and_increases():
    params = {
        "weights": 3 * jax.random.normal(jax.random.key(0), (16,)),
        "rates": 10 * jax.random.normal(jax.random.key(1), (16,)),
        "centres": jax.random.uniform(jax.random.key(2), (16,)),
    }
    gamma = functools.partial(
        bounds.diffusion.monotone_gamma, params, gamma_min=-13.3, gamma_max=5.0
    )
    times = jnp.linspace(0, 1, 200)
    values = np.asarray(gamma(times))
    assert (values[0], values[-1]) == (np.float32(-13.3), 5.0)
    assert np.all(np.diff(values) > 0)
    np.testing.assert_allclose(gamma(times.reshape(2, 100)).reshape(-1), values, rtol=1e-5)
    fresh = bounds.diffusion.monotone_gamma(bounds.diffusion.init_monotone_gamma(16), times)
    np.testing.assert_allclose(fresh, bounds.diffusion.linear_gamma(times), atol=0.3)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 200))
def test_low_discrepancy_times_fill_every_cell_once(seed, count):
    times = np.asarray(
        bounds.diffusion.low_discrepancy_times(jax.random.key(seed), count), np.float64
    )
    assert np.all((times >= 0) & (times < 1))
    gaps = np.diff(np.sort(times))
    np.testing.assert_allclose(gaps, 1 / count, atol=1e-5)


def test_steps_are_drawn_with_the_probabilities_they_are_given_with():
    p = jnp.array([0.5, 0.0999, 0.4, 0.0001])
    grid = (jnp.arange(100_000) + 0.5) / 100_000
    t, given_with = bounds.diffusion.discrete_times(grid, p)
    counts = np.bincount(np.asarray(t), minlength=5)[1:] / 100_000
    np.testing.assert_allclose(counts, p, atol=2e-5)
    np.testing.assert_array_equal(given_with, p[t - 1])
    assert bounds.diffusion.discrete_times(jnp.array([1 - 1e-8, 0.0]), p)[0].tolist() == [4, 1]


def test_importance_probabilities_fall_back_to_uniform():
    np.testing.assert_allclose(bounds.diffusion.importance_probabilities(jnp.zeros(4)), 0.25)
    np.testing.assert_allclose(
        bounds.diffusion.importance_probabilities(jnp.ones(4)).sum(), 1, rtol=1e-6
    )
