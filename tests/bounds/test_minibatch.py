"""Minibatch estimates of the aggregated posterior and of the information: limits, order, bias."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from surgery_cases import CODES, DIMS, gaussians, table_answers, table_posteriors

import bounds
from bounds._surgery import gaussian_factors

N, D, B = 256, 4, 16
TOLERANCE = 1e-9 if oracles.X64 else 1e-5


def published_stratified(log_pairs, *, num_data):
    """The weights of rtqichen/beta-tcvae: flat[::M + 1] of a [M + 1, M + 1] array is column 0."""
    size = log_pairs.shape[-1]
    rest = size - 1
    strat = (num_data - rest) / (num_data * rest)
    weights = np.full((size, size), 1 / rest)
    weights.reshape(-1)[:: rest + 1] = 1 / num_data
    weights.reshape(-1)[1 :: rest + 1] = strat
    weights[rest - 1, 0] = strat
    logs = jnp.broadcast_to(jnp.log(jnp.asarray(weights)).astype(log_pairs.dtype), log_pairs.shape)
    return jax.nn.logsumexp(log_pairs + logs, axis=-1)


ESTIMATORS = {
    "mean": lambda log_pairs, num_data: bounds.surgery.minibatch_mean_log_prob(log_pairs),
    "published": published_stratified,
    "stratified": bounds.surgery.minibatch_stratified_log_prob,
    "weighted": bounds.surgery.minibatch_weighted_log_prob,
}


def information(name, log_pairs, num_data):
    """The estimate of I from a batch."""
    own = jnp.diagonal(log_pairs, axis1=-2, axis2=-1)
    return jnp.mean(own - ESTIMATORS[name](log_pairs, num_data=num_data), axis=-1)


LIMITS = {
    "separated": (
        jnp.where(jnp.eye(B, dtype=bool), 0.0, -jnp.inf),
        {"mean": np.log(B), "weighted": np.log(N * B), "stratified": np.log(N)},
        {"mean": 2.773, "weighted": 8.318, "published": 2.889, "stratified": 5.545},
    ),
    "collapsed": (
        jnp.full((B, B), -1.7),
        {"mean": 0.0, "weighted": np.log(N), "stratified": 0.0},
        {"mean": 0.0, "weighted": 5.545, "published": -0.004, "stratified": 0.0},
    ),
}


@pytest.mark.x64
@pytest.mark.parametrize("limit", LIMITS)
def test_limits_of_the_minibatch_estimators(limit):
    log_pairs, exact, table = LIMITS[limit]
    for name, value in exact.items():
        np.testing.assert_allclose(information(name, log_pairs, N), value, atol=TOLERANCE)
    for name, value in table.items():
        assert abs(information(name, log_pairs, N) - value) < 6e-4


@functools.cache
def measured(spread):
    """Exact I by Monte Carlo over z, and every estimate, as (mean, standard error)."""
    posteriors = gaussians(11, N, D, spread=spread, scale=1.0)

    def one(key):
        batch_key, noise_key = jax.random.split(key)
        index = jax.random.choice(batch_key, N, (B,), replace=False)
        mean, variance = (leaf[index] for leaf in posteriors)
        z = mean + jnp.sqrt(variance) * jax.random.normal(noise_key, mean.shape)
        of_pairs = jax.vmap(jax.vmap(gaussian_factors, (None, 0)), (0, None))
        log_pairs = of_pairs(z, (mean, variance)).sum(-1)
        own = jnp.diagonal(log_pairs)
        joint = jax.vmap(lambda z: bounds.surgery.fast_aggregated_log_prob(z, posteriors))(z)
        found = {name: information(name, log_pairs, N) for name in ESTIMATORS}
        return {"exact": jnp.mean(own - joint), **found}

    keys = jax.random.split(jax.random.key(0), 20_000)
    values = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=500))(keys)
    return {name: np.asarray(v, np.float64) for name, v in values.items()}


@pytest.mark.parametrize("spread", [2.0, 0.5])
def test_order_of_the_minibatch_estimators(spread):
    found = measured(spread)
    order = ("mean", "published", "exact", "stratified", "weighted")
    for low, high in itertools.pairwise(order):
        difference = found[high] - found[low]
        z = difference.mean() / (difference.std(ddof=1) / np.sqrt(len(difference)))
        assert z > oracles.z_limit(1), (low, high, z)


def exact_expectations(table, size):
    """E of each estimate of I over batches without replacement and z ~ q(z | x_i), by sums."""
    log_q = table[:, np.arange(DIMS), CODES].sum(-1)  # [N, Z]
    batches = list(itertools.combinations(range(len(table)), size))
    totals = dict.fromkeys(ESTIMATORS, 0.0)
    for batch in batches:
        rows = log_q[list(batch)]
        for own in range(size):
            # All rows of the matrix hold the same z: that of `own` alone is read.
            pairs = jnp.asarray(np.broadcast_to(rows.T[:, None], (rows.shape[1], size, size)))
            for name, estimator in ESTIMATORS.items():
                values = rows[own] - np.asarray(estimator(pairs, num_data=len(table)))[:, own]
                weight = np.exp(rows[own]) / size / len(batches)
                totals[name] += float(np.sum(weight * values))
    return totals


@pytest.mark.x64
@pytest.mark.parametrize("seed", range(3))
def test_minibatch_estimators_sandwich_the_information(seed):
    table = table_posteriors(seed, 5)
    exact = table_answers(table, table_posteriors(9, 1)[0])["information"]
    found = exact_expectations(table, 3)
    assert found["mean"] < exact < found["stratified"]
    assert found["weighted"] > found["stratified"]
    # Of the whole data set both are exact.
    found = exact_expectations(table, 5)
    np.testing.assert_allclose(found["mean"], exact, atol=TOLERANCE)
    np.testing.assert_allclose(found["stratified"], exact, atol=TOLERANCE)


@pytest.mark.x64
def test_stratified_density_is_unbiased_given_z():
    table = table_posteriors(3, 5)
    log_q = table[:, np.arange(DIMS), CODES].sum(-1)
    z, own, size = 4, 2, 3
    others = [b for b in itertools.combinations(range(5), size - 1) if own not in b]

    def mean_density(estimator):
        total = 0.0
        for batch in others:
            pairs = jnp.asarray(np.broadcast_to(log_q[[own, *batch], z], (size, size)))
            total += float(jnp.exp(estimator(pairs, num_data=5)[0])) / len(others)
        return total

    exact = np.exp(log_q[:, z]).mean()
    np.testing.assert_allclose(
        mean_density(bounds.surgery.minibatch_stratified_log_prob), exact, rtol=10 * TOLERANCE
    )
    assert abs(mean_density(ESTIMATORS["mean"]) / exact - 1) > 0.01


def test_published_stratified_weights_are_wrong():
    # Row 0 is right by accident; in the others z_i's own posterior has a weight that is not 1/N.
    log_pairs = LIMITS["separated"][0]
    own = -np.asarray(published_stratified(log_pairs, num_data=N))
    np.testing.assert_allclose(own[0], np.log(N), atol=TOLERANCE)
    assert np.all(own[1:] < np.log(N) - 2)
    ours = -np.asarray(bounds.surgery.minibatch_stratified_log_prob(log_pairs, num_data=N))
    np.testing.assert_allclose(ours, np.log(N), atol=TOLERANCE)


def test_pointwise_ceilings():
    log_pairs = 30 * jax.random.normal(jax.random.key(0), (50, B, B))
    lower, upper = bounds.surgery.information_sandwich(log_pairs, num_data=N)
    assert jnp.all(lower <= np.log(B) + TOLERANCE)
    assert jnp.all(upper <= np.log(N) + TOLERANCE)
    assert lower.shape == upper.shape == (50, B)
    own = jnp.diagonal(log_pairs, axis1=-2, axis2=-1)
    weighted = own - bounds.surgery.minibatch_weighted_log_prob(log_pairs, num_data=N)
    assert jnp.max(weighted) > np.log(N)  # what MWS lacks


def test_gradients_are_finite_where_pairs_are_impossible():
    dead = jnp.full((3, 3), -jnp.inf)
    for estimator in ESTIMATORS.values():
        if estimator is not published_stratified:
            grads = jax.grad(lambda p, e=estimator: jnp.sum(jnp.exp(e(p, num_data=N))))(dead)
            assert jnp.all(grads == 0)
    log_pairs = jnp.where(jnp.eye(3, dtype=bool), -1.0, -jnp.inf)
    for name in ("mean", "stratified", "weighted"):
        grads = jax.grad(lambda pairs, name=name: information(name, pairs, N))(log_pairs)
        assert jnp.all(jnp.isfinite(grads))


PAIRS = jnp.zeros((4, 4))
MISTAKES = {
    "shape": (
        lambda: bounds.surgery.minibatch_mean_log_prob(jnp.zeros((3, 4))),
        r"\[\.\.\., B, B\]",
    ),
    "vector": (lambda: bounds.surgery.minibatch_mean_log_prob(jnp.zeros(3)), r"\[\.\.\., B, B\]"),
    "data": (
        lambda: bounds.surgery.minibatch_weighted_log_prob(PAIRS, num_data=3),
        "num_data must be at least 4, got 3",
    ),
    "single": (
        lambda: bounds.surgery.minibatch_stratified_log_prob(jnp.zeros((1, 1)), num_data=8),
        "at least two data points",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    call, message = MISTAKES[name]
    with pytest.raises((ValueError, TypeError), match=message):
        call()
