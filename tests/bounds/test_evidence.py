"""Values that are no lower bounds, against sums over every outcome; none loses its kind."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import TIGHT, all_tuples, z_limit
from scipy import special

import bounds
from bounds import _checks
from bounds._multilevel import increment
from models.exact import enumerable

pytestmark = pytest.mark.x64
evidence = bounds.evidence
MODEL = enumerable.make_model()
PARAMS = enumerable.init(jax.random.key(3), num_states=3, num_symbols=2)
X = jnp.array(1)
LOG_JOINT = np.asarray(enumerable.log_joint(PARAMS.theta, X), np.float64)
LOG_Q = np.asarray(jax.nn.log_softmax(PARAMS.phi[X]), np.float64)
LOG_W, LOG_P = LOG_JOINT - LOG_Q, special.logsumexp(LOG_JOINT)


def expectation(value, num_samples, log_w=LOG_W, log_q=LOG_Q):
    """Over every tuple of K draws of q."""
    tuples = np.asarray(all_tuples(len(log_w), num_samples))
    values = np.asarray(value(jnp.asarray(log_w[tuples], float)), np.float64)
    return np.exp(log_q[tuples].sum(1)) @ values


def test_eubo_is_log_p_plus_the_reverse_kl():
    posterior = np.exp(LOG_JOINT - LOG_P)
    each = evidence.eubo(jnp.asarray(LOG_W, float)[:, None])
    assert each.kind == "upper_bound"
    kl = posterior @ (np.log(posterior) - LOG_Q)
    np.testing.assert_allclose(posterior @ np.asarray(each.value), LOG_P + kl, rtol=10 * TIGHT)
    # Draws of q in place of the posterior's give the ELBO, from below.
    assert np.exp(LOG_Q) @ np.asarray(each.value) < LOG_P


def test_cubo_bounds_where_it_is_exact_and_not_where_it_is_estimated():
    log_w, q = jnp.asarray(LOG_W, float), jnp.asarray(np.exp(LOG_Q), float)
    values = []
    for order in (1.0, 2.0, 3.5):
        found = evidence.cubo(log_w, order, probabilities=q)
        assert found.kind == "upper_bound"
        exact = special.logsumexp(order * LOG_W + LOG_Q) / order
        np.testing.assert_allclose(found.value, exact, rtol=10 * TIGHT)
        values.append(exact)
    np.testing.assert_allclose(values[0], LOG_P, rtol=1e-9)
    assert LOG_P < values[1] < values[2]
    drawn = evidence.cubo(log_w, 2.0)
    assert drawn.kind == "estimate"
    squares = np.exp(2 * LOG_W)  # half the relative error of their mean
    error = np.std(squares, ddof=1) / math.sqrt(len(squares)) / np.mean(squares) / 2
    np.testing.assert_allclose(drawn.standard_error, error, rtol=1e-5)
    means = [expectation(lambda lw: evidence.cubo(lw, 2.0).value, k) for k in (1, 2, 5)]
    assert np.all(np.diff([*means, values[1]]) > 0), "biased low, less so with K"
    assert means[0] < LOG_P, "and below log p(x) at small K"


def by_hand(log_w):
    """K L_K - (K - 1) mean of the bounds without one, by loops."""
    count = len(log_w)
    bound = special.logsumexp(log_w) - math.log(count)
    without = [special.logsumexp(np.delete(log_w, k)) - math.log(count - 1) for k in range(count)]
    spread = np.sqrt((count - 1) / count * np.sum((without - np.mean(without)) ** 2))
    return count * bound - (count - 1) * np.mean(without), spread


def test_jackknife_is_its_formula_also_where_one_weight_is_nearly_all():
    rng = np.random.default_rng(0)
    for log_w in (rng.normal(-90, 3, 7), np.array([-90.0, -120.0, -130.0]), rng.normal(0, 1e-3, 5)):
        found = evidence.jackknife(jnp.asarray(log_w, float))
        rounded = np.asarray(jnp.asarray(log_w, float), np.float64)
        np.testing.assert_allclose(found.value, by_hand(rounded)[0], rtol=100 * TIGHT, atol=1e-6)
        np.testing.assert_allclose(found.standard_error, by_hand(rounded)[1], rtol=1e-2, atol=1e-6)


def test_jackknife_is_no_bound_and_has_a_bias_of_second_order():
    """A state that q hardly visits puts the mean above log p(x)."""
    q, joint = np.array([0.49, 0.49, 0.02]), np.array([0.001, 0.6, 0.06])
    log_w, log_p = np.log(joint / q), np.log(joint.sum())

    def bias(value, count):
        return expectation(value, count, log_w, np.log(q)) - log_p

    def jackknife(lw):
        return evidence.jackknife(lw).value

    assert bias(jackknife, 3) > 0.05
    # Nearer to the posterior, where an order in 1/K is to be seen at K of 3 and 6.
    near = special.log_softmax(LOG_JOINT + 0.5 * np.array([1.0, -1.0, 0.0]))
    log_w, log_p, q = LOG_JOINT - near, LOG_P, np.exp(near)
    own, plain = ([bias(value, k) for k in (3, 6)] for value in (jackknife, bounds.iwae))
    assert abs(own[1]) < abs(own[0]) / 3
    assert abs(plain[1]) > abs(plain[0]) / 3
    assert abs(own[1]) < abs(plain[1]) / 3


def smoothed(log_w):
    """Section 3 of the paper, line by line; the shape is fitted as `pareto_k_hat` fits it."""
    log_w = np.sort(log_w) - np.max(log_w)
    size = math.ceil(min(len(log_w) / 5, 3 * math.sqrt(len(log_w))))
    base, excess = np.exp(log_w[-size - 1]), np.exp(log_w[-size:]) - np.exp(log_w[-size - 1])
    grid = np.arange(1, 31 + math.isqrt(size)) - 0.5
    b = 1 / excess[-1] + (1 - np.sqrt(len(grid) / grid)) / (3 * excess[int(size / 4 + 0.5) - 1])
    k = np.mean(np.log1p(-b[:, None] * excess), 1)
    b_mean = b @ special.softmax(size * (np.log(-b / k) - k - 1))
    k = np.mean(np.log1p(-b_mean * excess))
    sigma, k = -k / b_mean, (size * k + 5) / (size + 10)
    p = (np.arange(size) + 0.5) / size
    weights = np.exp(log_w)
    weights[-size:] = np.minimum(base + sigma * ((1 - p) ** -k - 1) / k, 1)
    return weights, k


def test_psis_is_what_the_paper_says():
    rng = np.random.default_rng(0)
    for log_w in (rng.normal(-90, 1, 200), 0.9 * rng.exponential(size=1000) - 90):
        found = evidence.psis(jnp.asarray(log_w, float))
        assert found.kind == "estimate"
        log_w = np.asarray(jnp.asarray(log_w, float), np.float64)
        weights, k = smoothed(log_w)
        np.testing.assert_allclose(bounds.pareto_k_hat(jnp.asarray(log_w, float)), k, rtol=1e-3)
        value = math.log(weights.mean()) + log_w.max()
        np.testing.assert_allclose(found.value, value, rtol=1e-6 if TIGHT > 1e-6 else 1e-9)
        error = weights.std(ddof=1) / math.sqrt(len(weights)) / weights.mean()
        np.testing.assert_allclose(found.standard_error, error, rtol=1e-3)
        assert abs(value - float(bounds.iwae(jnp.asarray(log_w, float)))) > 1e-5, "it does smooth"


def test_psis_leaves_alone_what_it_cannot_fit():
    few = jnp.asarray(np.random.default_rng(0).normal(size=20), float)
    for log_w in (few, jnp.full(100, -3.0), jnp.where(jnp.arange(100) < 99, -jnp.inf, -5.0)):
        np.testing.assert_allclose(evidence.psis(log_w).value, bounds.iwae(log_w), rtol=1e-6)
    assert evidence.psis(jnp.full(100, -jnp.inf)).value == -jnp.inf
    assert np.isnan(evidence.psis(few.at[3].set(jnp.nan)).value)


@pytest.mark.parametrize("level", [0, 1])
def test_increments_add_up_to_what_iwae_lacks(level):
    """E[L_{2 n} - half the two L_n], over all tuples: the sum telescopes."""
    count = 2 ** (level + 1)

    def of_halves(log_w):
        halves = log_w.reshape(-1, 2, count // 2)
        return jax.vmap(increment)(jax.nn.logsumexp(halves, axis=-1))

    found = expectation(of_halves, count)
    means = [expectation(bounds.iwae, k) for k in (count // 2, count)]
    np.testing.assert_allclose(found, means[1] - means[0], rtol=1e3 * TIGHT, atol=TIGHT)


def test_multilevel_is_unbiased_where_its_first_term_is_not():
    found = jax.jit(
        lambda key: evidence.multilevel(
            MODEL, PARAMS, key, X, num_samples=2, num_replicates=4000
        )
    )(jax.random.key(0))  # fmt: skip
    assert found.kind == "estimate"
    limit = z_limit(1)
    assert abs(found.value - LOG_P) < limit * found.standard_error
    bound = expectation(bounds.iwae, 2)
    assert abs(bound - LOG_P) > limit * found.standard_error, "the test could tell"
    more = evidence.multilevel(MODEL, PARAMS, jax.random.key(1), X, num_samples=2, num_replicates=1)
    assert np.isnan(more.standard_error)


VALUES = {
    "eubo": evidence.eubo,
    "cubo": lambda log_w: evidence.cubo(log_w, 2),
    "jackknife": evidence.jackknife,
    "psis": evidence.psis,
    "right sum": lambda log_w: evidence.thermodynamic_right(log_w, jnp.array([0.0, 1.0])),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_no_value_loses_its_kind_or_enters_a_logsumexp(value):
    log_w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 40)), float)
    found = jax.jit(jax.vmap(value))(log_w)
    assert isinstance(found, evidence.Value)
    assert found.kind in ("upper_bound", "estimate")
    assert found.value.shape == found.standard_error.shape == (3,)
    for entry, axis in itertools.product((bounds.iwae, bounds.elbo), (0, -1)):
        with pytest.raises(TypeError):
            entry(found, axis=axis)
    one_by_one = [float(value(row).value) for row in log_w]
    np.testing.assert_allclose(found.value, one_by_one, rtol=1e-5)


def test_bad_arguments():
    with pytest.raises(ValueError, match="order must be a finite number at least 1"):
        evidence.cubo(jnp.zeros(3), 0.5)
    with pytest.raises(ValueError, match="probabilities must be those of every outcome"):
        evidence.cubo(jnp.zeros(3), 2, probabilities=jnp.ones(2))
    for wrong in (jnp.array([0.25, 0.25]), jnp.array([1.5, -0.5])):
        with pytest.raises(ValueError, match="with a sum of 1: without an outcome there is no"):
            evidence.cubo(jnp.zeros(2), 2, probabilities=wrong)
        traced = jax.jit(lambda p: evidence.cubo(jnp.zeros(2), 2, probabilities=p).value)(wrong)
        assert np.isnan(traced)
    with pytest.raises(ValueError, match="jackknife leaves one sample out"):
        evidence.jackknife(jnp.zeros(1))


def test_a_value_with_a_kind_is_no_setting():
    found = evidence.jackknife(jnp.arange(3.0))
    with pytest.raises(TypeError, match="alpha must be a number, got Value"):
        _checks.check_at_least("alpha", found, 0.0)
    with pytest.raises(TypeError):
        bounds.renyi(jnp.arange(3.0), found)
