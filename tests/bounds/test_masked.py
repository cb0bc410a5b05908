"""Masked diffusion against sums over every mask, every order and every trajectory, in NumPy."""

import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import special

import bounds
from bounds import masked

X64 = oracles.X64
TIGHT = 1e-10 if X64 else 2e-5
SIZES = [(1, 2), (3, 2), (4, 3)]  # L, V


def table_model(length, levels):
    """Whatever the tokens, any logits: `theta` [(V + 1)^L, L, V]."""
    places = (levels + 1) ** jnp.arange(length)
    return masked.Masked(lambda theta, tokens: theta[jnp.sum(tokens * places)], length, levels)


def any_theta(length, levels, seed=0):
    shape = (levels + 1) ** length, length, levels
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) * 1.5)


def joint_model(length, levels):
    """The conditionals of one joint probability of all V^L sequences: `theta` is its logarithm."""
    every = jnp.asarray(list(itertools.product(range(levels), repeat=length)))

    def predict(theta, tokens):
        fits = jnp.all((tokens[None] == levels) | (tokens[None] == every), axis=1)
        mass = jnp.where(fits, jnp.exp(theta), 0.0)
        return jnp.log(jnp.einsum("s,slv->lv", mass, jax.nn.one_hot(every, levels)))

    return masked.Masked(predict, length, levels), np.asarray(every)


class Exact:
    """One sequence of a model, in float64: c(M) of every M, and what follows from it."""

    def __init__(self, model, theta, x):
        self.length, self.sets = model.length, []
        self.scores = {}
        for bits in itertools.product([True, False], repeat=model.length):
            tokens = np.where(bits, model.levels, x)
            logits = np.asarray(model.predict(theta, jnp.asarray(tokens)), np.float64)
            log_probs = logits - special.logsumexp(logits, axis=1, keepdims=True)
            self.scores[bits] = log_probs[np.arange(model.length), x]
            self.sets.append(bits)

    def c(self, bits):
        return self.scores[bits][np.array(bits)].sum()

    def at_count(self, m):
        return np.array([self.c(bits) for bits in self.sets if sum(bits) == m])

    def mean_at(self, t):
        """E c(M_t)."""
        chance = [t ** sum(b) * (1 - t) ** (self.length - sum(b)) for b in self.sets]
        return np.dot(chance, [self.c(b) for b in self.sets])

    def of_order(self, order):
        hidden, total = np.ones(self.length, bool), 0.0
        for i in order:
            total += self.scores[tuple(hidden.tolist())][i]
            hidden[i] = False
        return total

    @property
    def by_time(self):
        """c / t is a polynomial in t: Gauss and Legendre have it exactly."""
        nodes, weights = np.polynomial.legendre.leggauss(self.length)
        return sum(w / 2 * self.mean_at((n + 1) / 2) * 2 / (n + 1) for n, w in zip(nodes, weights))  # noqa: B905

    @property
    def by_count(self):
        return sum(self.at_count(m).mean() / m for m in range(1, self.length + 1))

    @property
    def orders(self):
        return np.array([self.of_order(o) for o in itertools.permutations(range(self.length))])

    @property
    def log_prob(self):
        return special.logsumexp(self.orders) - math.lgamma(self.length + 1)

    def chain(self, times):
        """The bound of T steps, as a sum of KLs."""
        steps = np.diff(times, prepend=0.0)
        return sum(d / t * self.mean_at(t) for d, t in zip(steps, times, strict=True))


def enumerated(model, theta, x, chunk_size=None):
    return jax.jit(lambda *given: masked.enumerated(model, *given, chunk_size=chunk_size))(theta, x)


@functools.cache
def case(length, levels, seed=0):
    model, theta = table_model(length, levels), any_theta(length, levels, seed)
    x = np.arange(length) % levels
    return model, theta, jnp.asarray(x), Exact(model, theta, x)


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


def over_keys(estimate, count=4000):
    return np.asarray(
        jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(1), count)), float
    )


def z_of(values, expected):
    return (values.mean() - expected) / (values.std(ddof=1) / math.sqrt(values.size))


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
    "x must be one sequence of 3 integers, got float": lambda m, t, k, x: masked.enumerated(
        m, t, x / 1.0
    ),
    "masked must mask at least one token": lambda m, t, k, x: masked.token_log_probs(
        m, t, x, jnp.zeros(3, bool)
    ),
    "masked must be 3 booleans": lambda m, t, k, x: masked.token_log_probs(m, t, x, x),
    "times must rise from above 0 to 1": lambda m, t, k, x: masked.trajectory(m, jnp.arange(2)),
    "where every token is masked, got [0.5 0.9]": lambda m, t, k, x: masked.terms(
        m, t, k, x, jnp.array([0.5, 0.9])
    ),
    "times must have shape [T]": lambda m, t, k, x: masked.terms(m, t, k, x, 1.0),
    "predict must return logits (3, 2)": lambda m, t, k, x: masked.by_order(
        m._replace(predict=lambda t, tokens: jnp.zeros((3, 3))), t, k, x
    ),
    "length must be at most 20, got 21": lambda m, t, k, x: masked.enumerated(
        masked.Masked(m.predict, 21, 2), t, jnp.zeros(21, int)
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
