"""Estimates of masked diffusion against sums over every mask and every order, in NumPy."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from masked_cases import TIGHT, Exact, case, joint_model, over_keys, z_of
from scipy import special

import bounds
from bounds import masked


@pytest.mark.x64
def test_what_is_reported_as_the_elbo_and_is_not():
    """Each of them is off by what it drops or adds, which the equality above would not pass."""
    _, _, _, exact = case(3, 2)
    elbo, length, eps = exact.by_count, 3, 1e-3
    nodes, weights = np.polynomial.legendre.leggauss(40)
    times = eps + (1 - eps) * (nodes + 1) / 2
    cut = sum(w / 2 * (1 - eps) * exact.mean_at(t) / t for t, w in zip(times, weights, strict=True))
    np.testing.assert_allclose(cut - elbo, -eps * exact.at_count(1).sum(), rtol=3e-3)
    # The weight of counts for masks by time, of which m = 0 is one in L + 1.
    other = sum(length / m * exact.at_count(m).mean() for m in (1, 2, 3)) / (length + 1)
    np.testing.assert_allclose(other / elbo, length / (length + 1), rtol=1e-12)
    tokens = np.mean([exact.at_count(m).mean() / m for m in (1, 2, 3)])
    np.testing.assert_allclose(tokens * length, elbo, rtol=1e-12)  # a mean of tokens, per token
    both = np.polynomial.legendre.leggauss(60)
    mean_and_weight = 0.0
    for node, weight in zip(*both, strict=True):
        t = (node + 1) / 2
        inside = [b for b in exact.sets if any(b)]
        chance = [t ** sum(b) * (1 - t) ** (length - sum(b)) for b in inside]
        means = [exact.c(b) / sum(b) for b in inside]
        mean_and_weight += weight / 2 * np.dot(chance, means) / t
    # Per token below the ELBO, since m of every mask is at most L.
    squared = sum(exact.at_count(m).mean() / m**2 for m in (1, 2, 3))
    np.testing.assert_allclose(mean_and_weight, squared, rtol=1e-12)
    assert mean_and_weight < elbo / length
    # Over a large batch the weighted sum and the number of masked tokens have their own means.
    of_batch = exact.by_time / np.mean(np.arange(length + 1))
    np.testing.assert_allclose(of_batch, 2 * elbo / length, rtol=1e-12)
    unweighted = sum(exact.at_count(m).mean() for m in (1, 2, 3)) / (length + 1)
    one_rate = exact.mean_at(0.5) / 0.5
    for wrong in (
        cut,
        other,
        tokens,
        mean_and_weight,
        mean_and_weight * length,
        unweighted,
        one_rate,
    ):
        assert abs(wrong - elbo) > 1e-4 * abs(elbo)


def test_a_mean_of_perplexities_is_not_the_perplexity():
    nats = np.array([case(3, 2, seed)[3].by_count / 3 for seed in range(4)])
    assert np.exp(-nats).mean() > np.exp(-nats.mean()) * 1.001


def test_the_mean_weight_of_a_count_is_that_of_its_times():
    for length in (1, 4, 64):
        for m in (1, length // 2 + 1, length):
            found = special.beta(m, length - m + 1) / special.beta(m + 1, length - m + 1)
            np.testing.assert_allclose(found, (length + 1) / m, rtol=1e-12)


def exact_copies():
    """Two values, all tokens alike: one visible token tells all others."""
    model, every = joint_model(4, 2)
    theta = jnp.log(jnp.where(jnp.all(every == every[:, :1], axis=1), 0.5 - 7e-5, 1e-5))
    return model, theta, jnp.zeros(4, int)


@pytest.mark.x64
def test_a_logsumexp_of_estimates_exceeds_log_p():
    model, theta, x = exact_copies()
    exact = Exact(model, theta, np.asarray(x))
    values = np.concatenate([np.repeat(4 / m * exact.at_count(m), 12 // len(exact.at_count(m)))
                             for m in (1, 2, 3, 4)])  # fmt: skip
    assert special.logsumexp(values) - math.log(len(values)) > exact.log_prob + 0.2
    pairs = special.logsumexp(np.stack(np.meshgrid(values, values)), axis=0) - math.log(2)
    assert pairs.mean() > exact.log_prob + 0.02  # already of two, and of what is drawn
    estimate = masked.by_count(model, theta, jax.random.key(0), x, 2, 0.25)
    for function in (bounds.iwae, bounds.elbo):
        with pytest.raises(TypeError, match="BoundEstimate"):
            function(estimate)


@pytest.mark.x64
def test_estimates_take_the_values_of_masks_and_orders_as_often_as_these_come():
    model, theta, x, exact = case(3, 2)
    time = over_keys(lambda key: masked.by_time(model, theta, key, x, 0.3).value)
    count = over_keys(lambda key: masked.by_count(model, theta, key, x, 2, 0.25).value)
    order = over_keys(lambda key: masked.by_order(model, theta, key, x).value)
    every = [exact.c(bits) for bits in exact.sets]
    for found, values, mean in (
        (time, np.divide(every, 0.3), exact.mean_at(0.3) / 0.3),
        (count, exact.at_count(2) / 2 / 0.25, exact.at_count(2).mean() / 2 / 0.25),
        (order, exact.orders, exact.orders.mean()),
    ):
        assert np.abs(found[:, None] - values).min(axis=1).max() < 10 * TIGHT
        assert abs(z_of(found, mean)) < oracles.z_limit(3)
        assert abs(z_of(found, 1.15 * mean)) > oracles.z_limit(3)
    density = masked.by_time(model, theta, jax.random.key(0), x, 0.3, density=2.0)
    same = masked.by_time(model, theta, jax.random.key(0), x, 0.3)
    np.testing.assert_allclose(density.value, same.value / 2, rtol=1e-6)


def test_counts_drawn_by_their_share_keep_the_mean():
    """Low-discrepancy times through `discrete_times`, with counts that are not alike."""
    model, theta, x, exact = case(4, 3)
    shares = jnp.array([0.7, 0.1, 0.1, 0.1])

    def batch(key, wrong=False):
        key, time_key = jax.random.split(key)
        times = bounds.diffusion.low_discrepancy_times(time_key, 8)
        counts, probability = bounds.diffusion.discrete_times(times, shares)
        probability = jnp.full(8, 0.25) if wrong else probability
        found = jax.vmap(masked.by_count, (None, None, 0, None, 0, 0))
        return jnp.mean(found(model, theta, jax.random.split(key, 8), x, counts, probability).value)

    assert abs(z_of(over_keys(batch), exact.by_count)) < oracles.z_limit(1)
    assert abs(z_of(over_keys(functools.partial(batch, wrong=True)), exact.by_count)) > 6


def test_steps_of_a_network_that_half_precision_or_a_small_integer_would_ruin():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(300, 256)), jnp.bfloat16)
    seen = []

    def predict(theta, tokens):
        seen.append(tokens.dtype)
        return theta + 0 * tokens[:, None].astype(theta.dtype)

    model = masked.Masked(predict, 300, 256)
    x = jnp.arange(300).astype(jnp.uint8)  # 256 masks; as uint8 it would be the token 0
    found = masked.by_time(model, logits, jax.random.key(0), x, 1.0)
    wide = np.asarray(logits, np.float64)
    right = (wide - special.logsumexp(wide, axis=1, keepdims=True))[np.arange(300), np.asarray(x)]
    np.testing.assert_allclose(found.value, right.sum(), rtol=1e-5)
    assert seen[0].itemsize >= 4


def test_training_losses_without_the_weight():
    model, theta, x, exact = case(3, 2)
    whole = over_keys(lambda key: masked.cross_entropy(model, theta, key, x, 0.4))
    mean = over_keys(lambda key: masked.cross_entropy(model, theta, key, x, 0.4, mean=True))
    of_mean = sum(
        0.4 ** sum(b) * 0.6 ** (3 - sum(b)) * exact.c(b) / sum(b) for b in exact.sets if any(b)
    )
    assert abs(z_of(whole, -exact.mean_at(0.4))) < oracles.z_limit(2)
    assert abs(z_of(mean, -of_mean)) < oracles.z_limit(2)


REFUSED = {
    "time must lie in (0, 1], got 0.0; at t = 0": lambda m, t, k, x: masked.by_time(m, t, k, x, 0),
    "time must lie in (0, 1], got 1.5": lambda m, t, k, x: masked.cross_entropy(m, t, k, x, 1.5),
    "time must be one number": lambda m, t, k, x: masked.by_time(m, t, k, x, jnp.ones(2)),
    "density must be a finite number above 0": lambda m, t, k, x: masked.by_time(m, t, k, x, 1, 0),
    "count must lie in 1 .. 3, got 0: without a masked token": lambda m, t, k, x: masked.by_count(
        m, t, k, x, 0, 0.5
    ),
    "count must be one integer": lambda m, t, k, x: masked.by_count(m, t, k, x, 1.5, 0.5),
    "probability must lie in (0, 1]": lambda m, t, k, x: masked.by_count(m, t, k, x, 1, 0),
    "2 stands for a masked token, which x has none of": lambda m, t, k, x: masked.by_order(
        m, t, k, jnp.array([0, 2, 1])
    ),
    "x must be one sequence of 3 integers, got int": lambda m, t, k, x: masked.by_order(
        m, t, k, jnp.array([0, 1])
    ),
    "masked must mask at least one token": lambda m, t, k, x: masked.token_log_probs(
        m, t, x, jnp.zeros(3, bool)
    ),
    "masked must be 3 booleans": lambda m, t, k, x: masked.token_log_probs(m, t, x, x),
    "predict must return logits (3, 2)": lambda m, t, k, x: masked.by_order(
        m._replace(predict=lambda t, tokens: jnp.zeros((3, 3))), t, k, x
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused_and_how(message):
    model, theta, x, _ = case(3, 2)
    with pytest.raises(ValueError, match=re.escape(message)):
        REFUSED[message](model, theta, jax.random.key(0), x)


def test_what_cannot_be_refused_because_it_is_traced_is_no_number():
    model, theta, x, _ = case(3, 2)

    @jax.jit
    def traced(time, count, times, x):
        key = jax.random.key(0)
        clone = jax.random.clone
        return (
            masked.by_time(model, theta, key, x, time).value,
            masked.cross_entropy(model, theta, clone(key), x, time),
            masked.by_count(model, theta, clone(key), x, count, 0.5).value,
            bounds.diffusion.bound(masked.terms(model, theta, clone(key), x, times)),
        )

    assert np.isnan(traced(0.0, 0, jnp.array([0.5, 0.9]), x)).all()
    assert np.isnan(traced(2.0, 4, jnp.array([1.0, 0.5]), x)).all()
    assert np.isfinite(traced(0.5, 3, jnp.array([0.5, 1.0]), x)).all()
    # A token that the model does not have has probability 0.
    found = traced(1.0, 3, jnp.array([0.5, 1.0]), jnp.full(3, 2))
    assert np.isneginf(found[0])
    assert np.isneginf(found[2])
