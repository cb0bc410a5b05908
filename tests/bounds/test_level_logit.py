"""Noise at the edges of a cell: logits of x + u, its tails, and densities that add x and u.

Tests of draws fail a right program once in 100,000 seeds, and a known-wrong one must fail them.
"""

import decimal
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import stats

import bounds

LEVELS = 256


def exact(x, v):
    """(logit of (x + u) / L, log of its slope in x + u), to 60 digits."""
    with decimal.localcontext(decimal.Context(prec=60)):
        v = decimal.Decimal(float(v))
        below = decimal.Decimal(x) + 1 / (1 + (-v).exp())
        above = decimal.Decimal(LEVELS - 1 - x) + 1 / (1 + v.exp())
        slope = decimal.Decimal(LEVELS).ln() - below.ln() - above.ln()
        return float(below.ln() - above.ln()), float(slope)


PLACES = [
    (x, v) for x in (0, 1, 127, 254, 255) for v in (-90, -40, -17, -1, 0, 0.5, 12, 17, 40, 90)
]


@pytest.mark.parametrize(("x", "v"), PLACES)
def test_logits_and_their_slopes_are_exact(x, v):
    found = bounds.dequantization.level_logit(x, np.float32(v), levels=LEVELS)
    np.testing.assert_allclose(found, exact(x, v), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("x", "v"), PLACES)
def test_their_derivatives_in_v(x, v):
    """sigma'(v) times the slope of the logit, and of the log-slope, from the formulas."""
    slopes = jax.jacobian(lambda v: bounds.dequantization.level_logit(x, v, levels=LEVELS))(
        float(v)
    )
    u, rest = 1 / (1 + np.exp(-np.float64(v))), 1 / (1 + np.exp(np.float64(v)))
    density = u * rest
    below, above = x + u, LEVELS - 1 - x + rest
    wanted = density * (1 / below + 1 / above), density * (1 / above - 1 / below)
    np.testing.assert_allclose(slopes, wanted, rtol=1e-5, atol=1e-30 + 1e-7 * density)


def test_the_logit_of_the_sum_is_wrong():
    """What float32 makes of (255 + u) / 256 at the edge."""
    s = (np.float32(255) + jax.nn.sigmoid(jnp.float32(13.0))) / 256
    with np.errstate(divide="ignore"):
        assert np.isinf(np.log1p(-np.asarray(s)))


# --- densities of x + u -------------------------------------------------------------------------


def by_sum(theta, x, u):
    """As users write it."""
    s = (x + u) / LEVELS
    y = jnp.log(s) - jnp.log1p(-s)
    return jnp.sum(norm.logpdf(y, *theta) - jnp.log(s) - jnp.log1p(-s) - math.log(LEVELS))


def by_logit(theta, x, v):
    y, log_slope = bounds.dequantization.level_logit(x, v, levels=LEVELS)
    return jnp.sum(norm.logpdf(y, *theta) + log_slope)


NOISE = bounds.dequantization.uniform()
MODELS = {
    "sum": bounds.dequantization.dequantized(by_sum, NOISE),
    "logit": bounds.dequantization.dequantized(by_logit, NOISE, pre_sigmoid=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_gradients_are_finite_wherever_the_noise_is(name):
    x = jnp.asarray([0, 0, 1, 128, 254, 255, 255])
    both = jax.jit(jax.value_and_grad(MODELS[name].log_p, argnums=(0, 2)))
    for v in (-80.0, -40.0, -17.0, 0.0, 11.0, 13.0, 17.0, 40.0, 80.0):
        value, slopes = both((0.3, 2.0), x, jnp.full(7, v))
        assert np.isfinite(value)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))
    # Unbounded noise makes NaN of the same density.
    assert not np.isfinite(by_sum((0.3, 2.0), x, jax.nn.sigmoid(jnp.full(7, 17.0))))


@pytest.mark.parametrize("pixel", [0, 128, 255])
def test_the_cut_changes_no_bits(pixel):
    """The same draws by both routes, 1.5 million of them: 4e-5 bits/dim of an all-white image."""
    x = jnp.full(3072, pixel)

    def log_w(model):
        params = bounds.Params((0.3, 2.0), None)
        return bounds.log_weights(model, params, jax.random.key(0), x, num_samples=500)

    first, second = (np.asarray(log_w(model), np.float64) for model in MODELS.values())
    assert np.all(np.isfinite(first))
    assert abs(np.mean(first - second)) / 3072 / math.log(2) < 1e-4


def test_the_mass_of_a_white_pixel():
    """P(255) under the logit-normal density, from both routes, against the normal law."""
    edge = math.log(255) - 0.3
    right = stats.norm.logsf(edge / 2.0)
    for model in MODELS.values():
        value, found = bounds.log_likelihood(
            model,
            bounds.Params((0.3, 2.0), None),
            jax.random.key(1),
            jnp.asarray([255]),
            num_samples=100_000,
            chunk_size=10_000,
        )
        assert abs(value - right) < stats.norm.isf(0.5e-5) * found.standard_error


# --- the noise ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def draws():
    v, _ = jax.jit(lambda key: NOISE.propose(None, key, jnp.zeros(8_000_000)))(jax.random.key(0))
    return np.asarray(v, np.float64)


@pytest.mark.parametrize("sign", [-1, 1])
def test_both_tails_have_their_mass(draws, sign):
    """Counts beyond 5, 10 and 13 against the binomial law, two-sided at 1e-5 in all."""
    for limit in (5.0, 10.0, 13.0):
        share = 1 / (1 + math.exp(limit))
        count = int(np.sum(sign * draws > limit))
        assert (
            2
            * min(
                stats.binom.cdf(count, len(draws), share),
                stats.binom.sf(count - 1, len(draws), share),
            )
            > 1e-5 / 6
        )


def test_draws_are_logistic(draws):
    assert stats.kstest(draws[:200_000], "logistic").pvalue > 1e-5
    assert stats.kstest(1.02 * draws[:200_000], "logistic").pvalue < 1e-5


def test_the_tails_go_on_where_a_float32_uniform_ends(monkeypatch):
    """Random bits that are all zero, or all but the sign: |v| = log 2^65, not 87.3 and 16.6."""
    for low, sign in ((0, -1), (1, 1)):
        monkeypatch.setattr(
            jax.random,
            "bits",
            lambda key, shape, dtype, low=low: jnp.stack(
                [jnp.zeros(shape[1:], dtype), jnp.full(shape[1:], low, dtype)]
            ),
        )
        v, log_q = NOISE.propose(None, jax.random.key(0), jnp.zeros(1))
        np.testing.assert_allclose(v, [sign * 65 * math.log(2)], rtol=1e-6)
        np.testing.assert_allclose(log_q, stats.logistic.logpdf(65 * math.log(2)), rtol=1e-6)
