"""Models of masked diffusion against sums over every order and every trajectory, in NumPy."""

import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from masked_cases import (
    SIZES,
    TIGHT,
    Exact,
    any_theta,
    case,
    joint_model,
    over_keys,
    table_model,
    z_of,
)  # fmt: skip
from scipy import special

import bounds
from bounds import masked


def enumerated(model, theta, x, chunk_size=None):
    return jax.jit(lambda *given: masked.enumerated(model, *given, chunk_size=chunk_size))(theta, x)


@pytest.mark.x64
@pytest.mark.parametrize(("length", "levels"), SIZES)
def test_by_time_by_count_and_by_order_are_one_number(length, levels):
    model, theta, x, exact = case(length, levels)
    found = enumerated(model, theta, x, chunk_size=3)
    for form in (exact.by_time, exact.by_count, exact.orders.mean()):
        np.testing.assert_allclose(form, exact.by_count, rtol=1e-12)
        np.testing.assert_allclose(found.elbo, form, rtol=TIGHT)
    np.testing.assert_allclose(found.log_prob, exact.log_prob, rtol=TIGHT)
    assert found.elbo <= found.log_prob + TIGHT


@pytest.mark.x64
def test_the_mixture_over_orders_sums_to_one_over_sequences():
    model, theta = table_model(3, 2), any_theta(3, 2)
    every = jnp.asarray(list(itertools.product(range(2), repeat=3)))
    found = jax.vmap(lambda x: enumerated(model, theta, x).log_prob)(every)
    np.testing.assert_allclose(jnp.sum(jnp.exp(found)), 1.0, rtol=TIGHT)


@pytest.mark.x64
@pytest.mark.parametrize(("length", "levels"), SIZES[1:])
def test_variances_of_the_forms(length, levels):
    model, theta, x, exact = case(length, levels)
    found = enumerated(model, theta, x)
    at_counts = [exact.at_count(m) / m for m in range(1, length + 1)]
    spread = np.mean([np.mean((length * v - exact.by_count) ** 2) for v in at_counts])
    np.testing.assert_allclose(found.by_count, spread, rtol=10 * TIGHT)
    np.testing.assert_allclose(
        found.by_every_count, sum(v.var() for v in at_counts), rtol=10 * TIGHT
    )
    np.testing.assert_allclose(found.by_order, exact.orders.var(), rtol=10 * TIGHT)
    # E (c / t)^2 over t > eps grows without end: log 10 sum_i log p(x_i | all others)^2 a decade.
    single = np.square(exact.at_count(1)).sum()

    def squares(eps):
        u, w = np.polynomial.legendre.leggauss(80)
        t = np.exp(math.log(eps) * (1 - u) / 2)
        chance = lambda b: t ** (sum(b) - 1) * (1 - t) ** (length - sum(b))  # noqa: E731
        total = sum(chance(b) * exact.c(b) ** 2 for b in exact.sets if any(b))
        return np.dot(w, total) * -math.log(eps) / 2

    np.testing.assert_allclose(squares(1e-9) - squares(1e-8), math.log(10) * single, rtol=1e-3)


def all_orders(model, theta, x):
    latent = masked.any_order(model)
    every = jnp.asarray(list(itertools.permutations(range(model.length))))
    weight = jax.jit(
        jax.vmap(lambda theta, o: latent.log_p(theta, x, o) - latent.log_q((), x, o), (None, 0))
    )
    return weight(theta, every)


@pytest.mark.x64
def test_iwae_over_orders_rises_to_log_p():
    model, theta, x, exact = case(3, 2)
    log_w = all_orders(model, theta, x)
    np.testing.assert_allclose(log_w, exact.orders, rtol=10 * TIGHT)
    values = [
        float(jnp.mean(bounds.iwae(log_w[oracles.all_tuples(len(log_w), k)]))) for k in (1, 2, 3)
    ]
    np.testing.assert_allclose(values[0], exact.by_count, rtol=TIGHT)
    assert values[0] < values[1] < values[2] < exact.log_prob
    np.testing.assert_allclose(bounds.iwae(log_w), exact.log_prob, rtol=TIGHT)
    # The joint of x and an order is a probability of both.
    latent = masked.any_order(model)
    every = jnp.asarray(list(itertools.permutations(range(3))))
    joint = jax.vmap(lambda o: latent.log_p(theta, x, o))(every)
    np.testing.assert_allclose(special.logsumexp(joint), exact.log_prob, rtol=TIGHT)


@pytest.mark.x64
def test_gradients_of_the_elbo_over_all_orders():
    model, theta, x, _ = case(3, 2)
    of_orders = jax.grad(lambda theta: jnp.mean(all_orders(model, theta, x)))(theta)
    of_sets = jax.grad(lambda theta: enumerated(model, theta, x).elbo)(theta)
    np.testing.assert_allclose(of_sets, of_orders, atol=TIGHT)
    of_orders = jax.grad(lambda theta: bounds.iwae(all_orders(model, theta, x)))(theta)
    of_sets = jax.grad(lambda theta: enumerated(model, theta, x).log_prob)(theta)
    np.testing.assert_allclose(of_sets, of_orders, atol=TIGHT)


def every_trajectory(model, theta, x, times):
    """(log q, log p) of each path x_1 .. x_T by transition probabilities, token by token."""
    mask, paths = model.levels, []
    states = list(itertools.product(*({int(v), mask} for v in x)))
    for path in itertools.product(states, repeat=len(times)):
        log_q = log_p = 0.0
        before, s = tuple(int(v) for v in x), 0.0
        for state, t in zip(path, times, strict=True):
            logits = np.asarray(model.predict(theta, jnp.asarray(state)), np.float64)
            log_probs = logits - special.logsumexp(logits, axis=1, keepdims=True)
            for i, (old, new) in enumerate(zip(before, state, strict=True)):
                stays = (1 - t) / (1 - s) if old != mask else 0.0
                q = stays if new != mask else 1 - stays
                if new != mask:
                    p = float(old == new)
                else:
                    p = s / t if old == mask else (t - s) / t * np.exp(log_probs[i, old])
                with np.errstate(divide="ignore"):
                    log_q, log_p = log_q + np.log(q), log_p + np.log(p)
            before, s = state, t
        if log_q > -np.inf and all(v == mask for v in before):
            paths.append((log_q, log_p))
    return np.array(paths).T


@pytest.mark.x64
def test_the_chain_of_three_steps_against_every_path_of_states():
    model, theta, x, exact = case(3, 2)
    times = np.array([0.2, 0.7, 1.0])
    log_q, log_p = every_trajectory(model, theta, x, times)
    np.testing.assert_allclose(np.exp(log_q).sum(), 1.0, rtol=1e-12)
    elbo = np.sum(np.exp(log_q) * (log_p - log_q))
    np.testing.assert_allclose(elbo, exact.chain(times), rtol=1e-12)
    latent = masked.trajectory(model, times)
    every = jnp.asarray(list(itertools.product(range(1, 4), repeat=3)))
    of_q = jax.vmap(lambda z: latent.log_q((), x, z))(every)
    of_p = jax.vmap(lambda z: latent.log_p(theta, x, z))(every)
    np.testing.assert_allclose(jnp.sum(jnp.exp(of_q)), 1.0, rtol=TIGHT)
    np.testing.assert_allclose(jnp.sum(jnp.exp(of_q) * (of_p - of_q)), elbo, rtol=TIGHT)
    np.testing.assert_allclose(special.logsumexp(of_p), special.logsumexp(log_p), rtol=TIGHT)
    parts = over_keys(lambda key: bounds.diffusion.bound(masked.terms(model, theta, key, x, times)))
    assert abs(z_of(parts, elbo)) < oracles.z_limit(2)
    weights = over_keys(
        lambda key: bounds.log_weights(latent, bounds.Params(theta, ()), key, x, num_samples=1)[0]
    )
    assert abs(z_of(weights, elbo)) < oracles.z_limit(2)


@pytest.mark.x64
def test_many_steps_reach_the_continuous_bound_and_fewer_lose_on_average():
    """Of the conditionals of one joint, whose ELBO is log p(x), the loss is the mean over p(x)."""
    model, every = joint_model(3, 2)
    mass = np.random.default_rng(3).dirichlet(np.ones(8) * 0.5)
    theta = jnp.log(jnp.asarray(mass))
    exact = [Exact(model, theta, x) for x in every]
    for one, p in zip(exact, mass, strict=True):
        np.testing.assert_allclose(one.orders, np.log(p), atol=20 * TIGHT)
    lost = [
        np.dot(mass, [np.log(p) - one.chain(np.arange(1, steps + 1) / steps)
                      for one, p in zip(exact, mass, strict=True)])
        for steps in (1, 2, 4, 8, 1000)
    ]  # fmt: skip
    assert all(a > b for a, b in itertools.pairwise(lost))
    assert lost[-1] > 0
    assert lost[-1] < 2e-3 * lost[0]
    # Of one x, or of any network, fewer steps may give the larger number: all are bounds.
    sides = {bool(one.chain([1.0]) > np.log(p)) for one, p in zip(exact, mass, strict=True)}
    assert sides == {True, False}


def test_under_jit_vmap_and_grad_and_in_the_estimators():
    model, theta, _, _ = case(3, 2)
    xs = jnp.asarray([[0, 1, 0], [1, 1, 0]])

    @jax.jit
    @jax.grad
    def slope(theta, key):
        each = jax.vmap(
            lambda key, x: bounds.vimco(masked.any_order(model), num_samples=3)(
                bounds.Params(theta, ()), key, x
            )
        )
        counts = jax.vmap(
            lambda key, x: masked.by_count(model, theta, key, x, 1 + jnp.sum(x), 1 / 3).value
        )
        keys = jax.random.split(key, 2)
        return jnp.mean(each(keys, xs)) + jnp.mean(counts(jax.vmap(jax.random.clone)(keys), xs))

    found = slope(theta, jax.random.key(0))
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 0
    log_w = bounds.log_weights(
        masked.any_order(model), bounds.Params(theta, ()), jax.random.key(0), xs[0], num_samples=4
    )
    assert log_w.shape == (4,)


REFUSED = {
    "x must be one sequence of 3 integers, got float": lambda m, t, k, x: masked.enumerated(
        m, t, x / 1.0
    ),
    "times must rise from above 0 to 1": lambda m, t, k, x: masked.trajectory(m, jnp.arange(2)),
    "where every token is masked, got [0.5 0.9]": lambda m, t, k, x: masked.terms(
        m, t, k, x, jnp.array([0.5, 0.9])
    ),
    "times must have shape [T]": lambda m, t, k, x: masked.terms(m, t, k, x, 1.0),
    "length must be at most 20, got 21": lambda m, t, k, x: masked.enumerated(
        masked.Masked(m.predict, 21, 2), t, jnp.zeros(21, int)
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused_and_how(message):
    model, theta, x, _ = case(3, 2)
    with pytest.raises(ValueError, match=re.escape(message)):
        REFUSED[message](model, theta, jax.random.key(0), x)
