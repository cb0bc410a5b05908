"""Values of the bounds against float64 NumPy, at the edges of float32, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

import bounds

INF = jnp.inf
REDUCTIONS = {
    "elbo": bounds.elbo,
    "iwae": bounds.iwae,
    "renyi": lambda log_w, axis=-1: bounds.renyi(log_w, 0.4, axis=axis),
    "ciwae": lambda log_w, axis=-1: bounds.ciwae(log_w, 0.4, axis=axis),
    "ess": bounds.effective_sample_size,
    "k_hat": bounds.pareto_k_hat,
}
VALUES = {k: v for k, v in REDUCTIONS.items() if k in ("elbo", "iwae", "renyi", "ciwae")}


def reference_renyi(log_w, alpha, axis=-1):
    log_w = np.asarray(log_w, np.float64)
    if alpha == 1:
        return log_w.mean(axis)
    order = 1 - np.float64(alpha)
    return (logsumexp(order * log_w, axis=axis) - np.log(log_w.shape[axis])) / order


@given(
    st.lists(st.floats(-200, 200, width=32), min_size=1, max_size=40),
    st.floats(0, 1, width=32),
)
@settings(max_examples=200, deadline=None)
def test_values_match_float64(values, share):
    log_w = np.array(values, np.float32)
    scale = 1e-5 * (1 + np.abs(log_w).max())
    iwae = reference_renyi(log_w, 0.0)
    np.testing.assert_allclose(bounds.iwae(log_w), iwae, atol=scale)
    np.testing.assert_allclose(bounds.elbo(log_w), log_w.mean(dtype=np.float64), atol=scale)
    np.testing.assert_allclose(
        bounds.renyi(log_w, share), reference_renyi(log_w, share), atol=scale
    )
    mixed = share * log_w.mean(dtype=np.float64) + (1 - np.float64(share)) * iwae
    np.testing.assert_allclose(bounds.ciwae(log_w, share), mixed, atol=scale)


@given(st.lists(st.floats(-90, 0, width=32), min_size=2, max_size=20))
@settings(max_examples=100, deadline=None)
def test_bounds_are_ordered(values):
    log_w = np.array(values, np.float32)
    orders = [bounds.renyi(log_w, a) for a in (0.0, 0.25, 0.5, 0.75, 1.0, 2.0)]
    assert np.all(np.diff(orders) <= 1e-4)
    assert bounds.iwae(log_w) <= log_w.max() + 1e-4


@pytest.mark.x64
@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("k", range(1, 9))
def test_renyi_near_alpha_one_in_float32(k, traced):
    # Log-weights of a VAE: thousands of nats apart would hide the term that matters.
    log_w = np.random.default_rng(k).normal(-90, 3, 64).astype(np.float32)
    alpha = 1 - 10.0**-k
    if traced:  # alpha itself is rounded to float32 then, and the reference uses what is left
        got = jax.jit(bounds.renyi)(log_w, jnp.float32(alpha))
        alpha = float(np.float32(alpha))
    else:
        got = bounds.renyi(log_w, alpha)
    np.testing.assert_allclose(got, reference_renyi(log_w, alpha), rtol=1e-5)
    # What the formula as printed gives: the test above has something to catch.
    if k >= 6:
        order = np.float32(1) - np.float32(alpha)
        with np.errstate(divide="ignore", invalid="ignore"):
            naive = (logsumexp(order * log_w) - np.float32(np.log(64))) / order
        assert not np.isclose(naive, reference_renyi(log_w, alpha), rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.999999, 1.0])
def test_renyi_gradient_is_the_tempered_weights(alpha):
    log_w = jnp.array([-3.0, -1.0, -2.5, 0.2])
    expected = bounds.normalized_weights((1 - alpha) * log_w)
    np.testing.assert_allclose(jax.grad(bounds.renyi)(log_w, alpha), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [-1.0, 1.5, 2.0, 4.0])
def test_renyi_outside_the_unit_interval(alpha):
    for log_w in ([0.0, -200.0, 150.0], [-1.0, 0.5, 0.2], [0.0] * 5 + [60.0]):
        got = bounds.renyi(jnp.array(log_w), alpha)
        np.testing.assert_allclose(got, reference_renyi(np.array(log_w), alpha), rtol=1e-5)
    some = jnp.array([-INF, 0.5, -1.0])
    value, grad = jax.value_and_grad(bounds.renyi)(some, alpha)
    assert np.all(np.isfinite(grad))
    assert np.isneginf(value) == (alpha > 1)


def test_one_large_weight_keeps_its_digits_in_renyi():
    """mean(exp) near 1/K: log1p(expm1) would cancel there."""
    log_w = np.full(3000, -40.0, np.float32)
    log_w[7] = 0.3
    np.testing.assert_allclose(bounds.renyi(log_w, 0.5), reference_renyi(log_w, 0.5), rtol=2e-6)


def test_derivatives_in_alpha_and_beta():
    log_w = jnp.array([-3.0, -1.0, -2.5, 0.2])
    for alpha in (0.0, 0.5):
        exact = (reference_renyi(log_w, alpha + 1e-4) - reference_renyi(log_w, alpha - 1e-4)) / 2e-4
        np.testing.assert_allclose(jax.grad(bounds.renyi, 1)(log_w, alpha), exact, rtol=1e-3)
    at_elbo = jax.grad(bounds.renyi, 1)(log_w, 1.0)
    np.testing.assert_allclose(at_elbo, -np.var(log_w) / 2, rtol=1e-5)
    for beta in (0.0, 0.5, 1.0):
        slope = jax.grad(bounds.ciwae, 1)(log_w, beta)
        np.testing.assert_allclose(slope, bounds.elbo(log_w) - bounds.iwae(log_w), rtol=1e-5)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_one_sample_gives_the_log_weight(value):
    assert value(jnp.array([-1.25])) == -1.25


@pytest.mark.parametrize("reduction", REDUCTIONS.values(), ids=REDUCTIONS)
def test_axis_reduces_the_samples_and_nothing_else(reduction):
    log_w = np.random.default_rng(0).normal(size=(3, 40, 2)).astype(np.float32)
    whole = reduction(log_w, axis=1)
    assert whole.shape == (3, 2)
    np.testing.assert_array_equal(whole, reduction(log_w, axis=-2))
    for i in range(3):
        for j in range(2):
            np.testing.assert_allclose(whole[i, j], reduction(log_w[i, :, j]), rtol=1e-5)


@pytest.mark.parametrize("reduction", REDUCTIONS.values(), ids=REDUCTIONS)
def test_wrong_input_says_what_to_do(reduction):
    with pytest.raises(TypeError, match=r"dtype int(32|64)"):
        reduction(jnp.arange(3))
    with pytest.raises(ValueError, match="axis 1 is not there"):
        reduction(jnp.zeros(3), axis=1)
    with pytest.raises(ValueError, match="no samples"):
        reduction(jnp.zeros((3, 0)))
    with pytest.raises(ValueError, match="not there"):
        reduction(0.5)


def test_alpha_and_beta_are_scalars():
    with pytest.raises(ValueError, match="alpha must be a scalar"):
        bounds.renyi(jnp.zeros(3), jnp.zeros(3))
    with pytest.raises(ValueError, match="beta must be a scalar"):
        bounds.ciwae(jnp.zeros(3), jnp.zeros(3))


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_zero_weights(value):
    some, none = jnp.array([-INF, 0.5, -INF, -1.0]), jnp.full(3, -INF)
    grad = jax.grad(lambda log_w: value(log_w))(some)
    assert np.all(np.isfinite(grad))
    assert value(none) == -INF
    assert np.all(np.isfinite(jax.grad(lambda log_w: value(log_w))(none)))
    assert np.isnan(value(jnp.array([0.0, jnp.nan])))


def test_a_zero_weight_counts_as_zero_in_iwae():
    some = jnp.array([-INF, 0.5, -INF, -1.0])
    np.testing.assert_allclose(bounds.iwae(some), logsumexp([0.5, -1.0]) - np.log(4), rtol=1e-6)
    assert np.all(np.asarray(jax.grad(bounds.iwae)(some))[[0, 2]] == 0)
    assert bounds.elbo(some) == -INF
    np.testing.assert_array_equal(bounds.ciwae(some, 0.0), bounds.iwae(some))
    assert bounds.ciwae(some, 1.0) == -INF
    for alpha in (0.0, 0.5):
        assert np.isfinite(bounds.renyi(some, alpha))
    assert bounds.renyi(some, 1.0) == -INF


def test_weights_and_ess():
    log_w = jnp.array([1.0, 2.0, 3.0]) - 900.0  # an offset must not cost digits
    weights = np.exp([1.0, 2.0, 3.0])
    np.testing.assert_allclose(bounds.normalized_weights(log_w), weights / weights.sum(), rtol=1e-6)
    expected = weights.sum() ** 2 / (weights**2).sum()
    np.testing.assert_allclose(bounds.effective_sample_size(log_w), expected, rtol=1e-6)
    none = jnp.full(4, -INF)
    assert bounds.effective_sample_size(none) == 0
    np.testing.assert_array_equal(bounds.normalized_weights(none), 0)


@pytest.mark.parametrize("shape", [0.2, 0.5, 1.0])
def test_k_hat_of_pareto_weights(shape):
    # w = U^-shape is exactly Pareto with that shape; sd of k-hat is near (1 + k)/sqrt(tail).
    log_w = shape * jax.random.exponential(jax.random.key(1), (20, 10_000))
    k_hat = bounds.pareto_k_hat(log_w)
    assert k_hat.shape == (20,)
    error = (1 + shape) / np.sqrt(300) / np.sqrt(20)
    # The prior pulls the estimate towards 1/2 by at most 10/310 of the distance.
    assert abs(np.mean(k_hat) - shape) < 5 * error + abs(shape - 0.5) * 10 / 310 + 0.02


def reference_k_hat(log_w):
    """Zhang & Stephens with the prior of PSIS, in float64 and loops."""
    weights = np.sort(np.exp(log_w - log_w.max()))
    size = int(np.ceil(min(0.2 * len(weights), 3 * np.sqrt(len(weights)))))
    x = weights[-size:] - weights[-size - 1]
    quartile, grid = x[int(size / 4 + 0.5) - 1], 30 + int(np.sqrt(size))
    b = [(1 - np.sqrt(grid / (j - 0.5))) / (3 * quartile) + 1 / x[-1] for j in range(1, grid + 1)]
    k = [np.mean(np.log1p(-c * x)) for c in b]
    profile = np.array([size * (np.log(-c / s) - s - 1) for c, s in zip(b, k, strict=True)])
    posterior = np.exp(profile - logsumexp(profile))
    shape = np.mean(np.log1p(-np.sum(posterior * b) * x))
    return (size * shape + 5) / (size + 10)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_k_hat_matches_float64(scale):
    log_w = scale * np.random.default_rng(2).normal(size=2000)
    np.testing.assert_allclose(bounds.pareto_k_hat(log_w), reference_k_hat(log_w), atol=2e-3)


def test_k_hat_of_degenerate_weights_asks_for_no_trust():
    """It is below no threshold where nothing, or next to nothing, has weight."""
    dead = np.full(1000, -np.inf, np.float32)
    for live in (0, 1, 3, 4):
        log_w = dead.copy()
        log_w[:live] = -8192.0 + np.arange(live)
        assert bounds.pareto_k_hat(log_w) == INF
        # Nearly dead is as bad: the others have 1e-10 of the weight.
        assert live == 0 or bounds.pareto_k_hat(np.maximum(log_w, -8192.0 - 23.0)) == INF
    for value in (np.nan, -np.nan, np.inf):  # a NaN of either sign: sorting tells them apart
        log_w = np.zeros(1000, np.float32)
        log_w[7] = value
        assert not bounds.pareto_k_hat(log_w) < bounds.k_hat_threshold(1000)
    assert bounds.pareto_k_hat(np.stack([dead, np.zeros(1000, np.float32)])).tolist() == [INF, -INF]


@pytest.mark.parametrize("live", [20, 50, 90])
@pytest.mark.parametrize("shape", [0.2, 1.0, 2.0])
def test_k_hat_of_few_live_weights_is_that_of_the_live_ones(live, shape):
    """The zeros of the tail are no draws from its distribution."""
    rng = np.random.default_rng(1)
    log_w = np.full((100, 1000), -np.inf, np.float32)
    log_w[:, :live] = np.log(np.expm1(shape * rng.exponential(size=(100, live))) / shape)
    k_hat = np.asarray(bounds.pareto_k_hat(log_w))
    # Pulled to 1/2 by ten of live + 10, and by a bias of few draws that is below .15.
    expected = (live * shape + 5) / (live + 10)
    error = (1 + shape) * np.sqrt(live) / (live + 10) / 10
    assert abs(k_hat.mean() - expected) < 5 * error + 0.15


def test_k_hat_edges():
    assert np.isnan(bounds.pareto_k_hat(jnp.zeros(20)))  # too few
    assert bounds.pareto_k_hat(jnp.zeros(100)) == -INF  # constant
    # Spread over hundreds of nats, float32 would see zeros and a one, and call that light.
    wide = 300 * jax.random.normal(jax.random.key(0), (5000,))
    assert bounds.pareto_k_hat(wide) == INF
    ties = jnp.where(jnp.arange(5000) < 150, 1.0, 0.0)  # bounded weights of a discrete model
    assert bounds.pareto_k_hat(ties) < 0.7
    # A handful of weights a rounding above the others, near log p(x) = -8192, is no tail either.
    near = jnp.full(1000, -8192.0).at[:3].add(2.0**-10)
    assert bounds.pareto_k_hat(near) == -INF
    # Differences below what exp tells apart from 1 are no zeros: those of uniform noise.
    tiny = 1e-8 * np.random.default_rng(0).uniform(size=1000).astype(np.float32)
    assert bounds.pareto_k_hat(tiny) < 0.1
    assert bounds.k_hat_threshold(5000) == 0.7
    assert bounds.k_hat_threshold(100) == 0.5
