"""Pixel likelihoods against exact arithmetic: sums to one, tails, gradients, draws, first outputs.

Tests of draws fail a right program once in 100,000 seeds, and a known-wrong one must fail them.
"""

import decimal
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import TIGHT, X64
from scipy import stats
from sklearn.datasets import load_digits

from models import pixels

PIXELS = 64
FLOAT = np.float64 if X64 else np.float32
LEVELS = [2, 3, 17, 256]
CATEGORICAL = {levels: pixels.categorical(levels) for levels in LEVELS}
LOGISTIC = {levels: pixels.discretized_logistic(levels) for levels in LEVELS}
EVERY = [pytest.param(pixels.bernoulli(), id="bernoulli")] + [
    pytest.param(likelihood, id=f"{name}-{levels}")
    for name, family in (("categorical", CATEGORICAL), ("logistic", LOGISTIC))
    for levels, likelihood in family.items()
]
every_likelihood = pytest.mark.parametrize("likelihood", EVERY)
each_count = pytest.mark.parametrize("levels", LEVELS)


def outputs_of(likelihood, spread=2.0):
    """Outputs of some pixels, [PIXELS, P]."""
    drawn = spread * np.random.default_rng(0).normal(size=(PIXELS, likelihood.num_outputs))
    return drawn.astype(FLOAT)


@functools.cache
def jitted(function):
    return jax.jit(function)


@functools.cache
def _table(likelihood):
    def one(output, value):
        return likelihood.log_prob(output[None], value[None])

    return jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))


def table(likelihood, outputs):
    """log P of pixel d at value x, [D, L] as float64, one call of `log_prob` for each."""
    values = np.arange(likelihood.levels, dtype=FLOAT)
    return np.asarray(_table(likelihood)(outputs, values), np.float64)


def log_total(log_prob):
    return np.logaddexp.reduce(log_prob, axis=-1)


def exact_log_prob(levels, location, log_scale, x):
    """The discretised logistic to 60 digits, from outputs as they are; floats in, a float out."""
    with decimal.localcontext(decimal.Context(prec=60)):
        half = decimal.Decimal(levels - 1) / 2
        place = half + half * decimal.Decimal(location)
        scale = decimal.Decimal(log_scale).exp() * half

        def sigmoid(v):
            return 1 / (1 + (-v).exp())

        upper = (x + decimal.Decimal("0.5") - place) / scale
        lower = (x - decimal.Decimal("0.5") - place) / scale
        if x == 0:
            mass = sigmoid(upper)
        elif x == levels - 1:
            mass = sigmoid(-lower)
        elif lower > 0:  # by symmetry: no digits are lost to sigmoids near 1
            mass = sigmoid(-lower) - sigmoid(-upper)
        else:
            mass = sigmoid(upper) - sigmoid(lower)
        return mass.ln()


def textbook(levels, location, log_scale, x):
    """Known to be wrong: a difference of float32 sigmoids, at the ends as in between."""
    half = (levels - 1) / 2
    edges = (x + np.array([0.5, -0.5]) - half * (1 + location)) / (half * np.exp(log_scale))
    with np.errstate(over="ignore"):
        upper, lower = 1 / (1 + np.exp(-edges.astype(np.float32)))
    return np.log(np.maximum(upper - lower, 1e-12))


# Outputs whose halves and differences are exact in float32; far tails, narrow and wide scales.
POINTS = [
    (location, log_scale)
    for location in (-5.0, -1.0, -0.25, 0.0, 0.625, 1.0, 4.0)
    for log_scale in (-6.0, -2.0, 0.0, 3.0, 12.0)
]

# As many as PIXELS, so that one compiled program serves all.
FAR = np.array((POINTS + POINTS)[:PIXELS], FLOAT)


def some_values(levels):
    return sorted({0, 1, levels // 2, levels - 2, levels - 1})


# --- probabilities ----------------------------------------------------------------------------


@pytest.mark.x64
@every_likelihood
def test_probabilities_sum_to_one(likelihood):
    total = log_total(table(likelihood, outputs_of(likelihood)))
    np.testing.assert_allclose(total, 0.0, atol=TIGHT)


@pytest.mark.x64
@each_count
def test_the_discretized_logistic_sums_to_one_far_out(levels):
    np.testing.assert_allclose(log_total(table(LOGISTIC[levels], FAR)), 0.0, atol=TIGHT)
    wrong = [textbook(levels, 0.0, 1.0, x) for x in range(levels)]
    assert abs(log_total(wrong)) > 0.1


@pytest.mark.x64
def test_bernoulli_is_the_others_with_two_levels():
    logits = np.linspace(-30, 30, PIXELS, dtype=FLOAT)[:, None]
    expected = table(pixels.bernoulli(), logits)
    mean = jitted(pixels.bernoulli().mean)(logits)
    nought = np.zeros_like(logits)
    for likelihood, outputs in (
        (CATEGORICAL[2], np.concatenate([nought, logits], axis=1)),
        # sigma((m - 1/2) / s), m in halves around 1/2 and s in halves too.
        (LOGISTIC[2], np.concatenate([logits, nought], axis=1)),
    ):
        np.testing.assert_allclose(table(likelihood, outputs), expected, rtol=TIGHT, atol=TIGHT)
        np.testing.assert_allclose(jitted(likelihood.mean)(outputs), mean, rtol=1e-5)


@each_count
def test_a_categorical_with_the_logistics_log_pmf_is_the_logistic(levels):
    logistic, categorical = LOGISTIC[levels], CATEGORICAL[levels]
    outputs = outputs_of(logistic)
    x = np.random.default_rng(1).integers(0, levels, PIXELS).astype(FLOAT)
    logits = table(logistic, outputs)
    expected = logits[np.arange(PIXELS), x.astype(int)].sum()  # of all pixels together
    np.testing.assert_allclose(jitted(logistic.log_prob)(outputs, x), expected, rtol=TIGHT)
    np.testing.assert_allclose(jitted(categorical.log_prob)(logits, x), expected, rtol=TIGHT)
    np.testing.assert_allclose(
        jitted(categorical.mean)(logits), jitted(logistic.mean)(outputs), rtol=1e-4
    )


@pytest.mark.x64
@each_count
def test_log_prob_of_the_discretized_logistic_keeps_its_digits(levels):
    """Also thousands of nats down, and where the bins are far narrower than the scale."""
    got, expected, naive = [], [], []
    log_prob = table(LOGISTIC[levels], FAR)
    for i, (location, log_scale) in enumerate(POINTS):
        for x in some_values(levels):
            got.append(log_prob[i, x])
            expected.append(float(exact_log_prob(levels, location, log_scale, x)))
            naive.append(textbook(levels, location, log_scale, x))
    assert min(expected) < (-800 if levels > 2 else -700)
    np.testing.assert_allclose(got, expected, rtol=TIGHT, atol=TIGHT)
    assert not np.allclose(naive, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.x64
@each_count
def test_gradients_of_the_discretized_logistic_are_exact(levels):
    likelihood = LOGISTIC[levels]
    gradient = jax.jit(jax.grad(lambda o, x: likelihood.log_prob(o[None], x[None])))
    step = decimal.Decimal("1e-15")
    for point in [(-1.5, -2.0), (-0.25, -1.0), (0.5, 0.0), (1.0, -3.0), (3.0, 2.0)]:
        for x in some_values(levels):
            expected = []
            for which in range(2):
                ends = [[decimal.Decimal(p) for p in point] for _ in range(2)]
                ends[0][which] += step
                ends[1][which] -= step
                with decimal.localcontext(decimal.Context(prec=60)):
                    rise = exact_log_prob(levels, *ends[0], x) - exact_log_prob(levels, *ends[1], x)
                    expected.append(float(rise / (2 * step)))
            got = gradient(np.array(point, FLOAT), FLOAT(x))
            np.testing.assert_allclose(got, expected, rtol=10 * TIGHT, atol=10 * TIGHT)


@each_count
def test_extreme_outputs_give_neither_nan_nor_infinity(levels):
    """Whichever branch is taken: log-probability, gradient, mean and draw."""
    likelihood = LOGISTIC[levels]
    log_scales = (-1e30, -1e4, -100.0, -30.0, -8.0, 0.0, 8.0, 30.0, 100.0, 1e30)
    locations = (-1e6, -30.0, 0.0, 1.0, 30.0, 1e6)
    outputs = np.array([(m, s) for m in locations for s in log_scales], FLOAT)

    def one(output, x):
        return likelihood.log_prob(output[None], x[None])

    both = jax.jit(jax.vmap(jax.value_and_grad(one), (0, None)))
    for x in some_values(levels):
        value, gradient = both(outputs, FLOAT(x))
        assert np.all(np.isfinite(value))
        assert np.all(np.asarray(value) <= 0)
        assert np.all(np.isfinite(gradient))
    for values in (
        jitted(likelihood.mean)(outputs),
        jitted(likelihood.sample)(jax.random.key(0), outputs),
    ):
        assert np.all((np.asarray(values) >= 0) & (np.asarray(values) <= levels - 1))


@pytest.mark.parametrize("likelihood", [pixels.bernoulli(), CATEGORICAL[3]])
def test_extreme_logits_give_neither_nan_nor_infinity(likelihood):
    outputs = 1e30 * outputs_of(likelihood)
    both = jax.jit(jax.value_and_grad(likelihood.log_prob))
    for x in range(likelihood.levels):
        value, gradient = both(outputs, np.full(PIXELS, x, FLOAT))
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))
    assert np.all(np.isfinite(jitted(likelihood.mean)(outputs)))


# --- mean and draws ---------------------------------------------------------------------------


@every_likelihood
def test_mean_and_draws_follow_the_probabilities(likelihood):
    draws, false_alarm = 400, 1e-5
    outputs = outputs_of(likelihood, spread=1.0)
    pmf = np.exp(table(likelihood, outputs))
    mean = jitted(likelihood.mean)(outputs)
    np.testing.assert_allclose(mean, pmf @ np.arange(likelihood.levels), rtol=2e-5)

    @jax.jit
    def sample(key, outputs):
        return jax.vmap(likelihood.sample, (0, None))(jax.random.split(key, draws), outputs)

    def p_value(outputs, seed):
        """Of a right program P(X < x) + U P(X = x) is uniform."""
        x = np.asarray(sample(jax.random.key(seed), outputs))
        assert x.shape == (draws, PIXELS)
        assert x.dtype == np.float32
        at = np.arange(PIXELS), x.astype(int)
        share = np.random.default_rng(seed).random(x.shape)
        level = np.cumsum(pmf, axis=1)[at] - share * pmf[at]
        return stats.kstest(level.ravel(), "uniform").pvalue

    assert p_value(outputs, 1) > false_alarm
    tilt = np.linspace(0.3, 0.0, likelihood.num_outputs, dtype=FLOAT)
    assert p_value(outputs + tilt, 2) < false_alarm


# --- first outputs ----------------------------------------------------------------------------


def images(levels):
    """Digits with that many levels; of two, drawn with their intensities."""
    intensity = load_digits().images.reshape(-1, PIXELS) / 16
    if levels == 2:
        return (np.random.default_rng(0).random(intensity.shape) < intensity).astype(FLOAT)
    return np.round(intensity * (levels - 1)).astype(FLOAT)


@every_likelihood
def test_the_first_outputs_are_near_the_average_image(likelihood):
    levels, data = likelihood.levels, images(likelihood.levels)
    outputs = jax.jit(likelihood.bias)(data.mean(0), data.std(0))
    assert outputs.shape == (PIXELS, likelihood.num_outputs)
    error = np.abs(jitted(likelihood.mean)(outputs) - data.mean(0)) / (levels - 1)
    assert error.max() < 0.15
    assert error.mean() < (0.1 if levels < 17 else 0.03)
    log_prob = table(likelihood, outputs)
    assert np.all(np.isfinite(log_prob))
    per_pixel = log_prob[np.arange(PIXELS), data.astype(int)].mean()
    assert per_pixel > -0.75 * np.log(levels)  # uniform: -log L
    if likelihood.num_outputs == levels:  # categorical
        assert log_prob.min() > -np.log(1001 * levels)


def test_wrong_numbers_and_shapes_are_refused():
    for family in (pixels.categorical, pixels.discretized_logistic):
        with pytest.raises(ValueError, match="levels must be at least 2, got 1"):
            family(1)
    with pytest.raises(TypeError):
        pixels.discretized_logistic(5).log_prob(jnp.zeros((3, 2)), jnp.zeros(4))
    with pytest.raises(TypeError):
        pixels.discretized_logistic(5).log_prob(jnp.zeros((3, 5)), jnp.zeros(3))
    with pytest.raises(TypeError):
        pixels.bernoulli().log_prob(jnp.zeros((3, 2)), jnp.zeros(3))


@pytest.mark.x64
def test_sixty_four_bits_are_kept():
    outputs = jnp.zeros((2, 2), FLOAT)
    value = LOGISTIC[17].log_prob(outputs, jnp.ones(2, jnp.float32))
    assert value.dtype == outputs.dtype
    assert LOGISTIC[17].sample(jax.random.key(0), outputs).dtype == jnp.float32
