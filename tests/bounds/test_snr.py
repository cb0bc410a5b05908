"""Moments, signal-to-noise ratios, their intervals, and power-law fits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import X64, moments
from scipy import stats

import bounds


def sample(key):
    a, b = jax.random.split(key)
    return {"a": 1.5 + jax.random.normal(a, (3,)), "b": jnp.exp(0.5 * jax.random.normal(b))}


def every_replicate(fn, key, count):
    return jax.vmap(fn)(jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count)))


@pytest.mark.x64
@pytest.mark.parametrize("chunk_size", [1, 7, 100, 1000])
def test_moments_equal_two_pass_numpy(chunk_size):
    measured = moments(sample, num_replicates=100, chunk_size=chunk_size)
    values = every_replicate(sample, jax.random.key(0), 100)
    assert measured.count == 100
    for name in ("a", "b"):
        exact = np.asarray(values[name], np.float64)
        deviation = exact - exact.mean(0)
        rtol = 1e-10 if X64 else 1e-4
        np.testing.assert_allclose(measured.mean[name], exact.mean(0), rtol=rtol)
        for power, field in ((2, "m2"), (3, "m3"), (4, "m4")):
            got = getattr(measured, field)[name]
            np.testing.assert_allclose(
                got, (deviation**power).sum(0), rtol=rtol, atol=rtol * (deviation**4).sum()
            )


def test_merging_ranges_gives_the_whole():
    def part(first, count):
        return bounds.gradient_moments(
            sample, jax.random.key(0), num_replicates=count, chunk_size=8, first_replicate=first
        )

    whole = part(0, 50)
    merged = bounds.merge_moments(bounds.merge_moments(part(0, 13), part(13, 30)), part(43, 7))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4), merged, whole)
    empty = jax.tree.map(jnp.zeros_like, whole)
    for pair in ((empty, whole), (whole, empty)):
        jax.tree.map(np.testing.assert_array_equal, bounds.merge_moments(*pair), whole)
    again = bounds.merge_moments(empty, empty)
    assert np.all(np.isfinite(jax.tree.leaves(again)[1]))


def test_mean_of_values_of_the_size_of_log_p():
    """Updates of a mean of -8192 would be below float32's steps after some hundred of them."""
    measured = moments(
        lambda key: jax.random.normal(key) - 8192.0, num_replicates=100_000, chunk_size=1
    )
    values = every_replicate(
        lambda key: jax.random.normal(key) - 8192.0, jax.random.key(0), 100_000
    )
    exact = np.asarray(values, np.float64)
    # Half a step of float32, and the share of a standard error (.003) that sums round away.
    assert abs(float(measured.mean) - exact.mean()) < 2**-11 + 3e-4
    np.testing.assert_allclose(measured.m2, np.sum((exact - exact.mean()) ** 2), rtol=1e-3)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_replicates_give_no_interval(count):
    """One replicate says nothing; two that agree look like a ratio of a thousand."""
    measured = moments(lambda key: 1.0 + 1e-3 * jax.random.normal(key), num_replicates=count)
    low, high = bounds.snr_interval(measured)
    assert np.isnan(low)
    assert np.isnan(high)
    assert np.isnan(bounds.snr(measured)) == (count == 1)


def test_many_replicates_do_not_lose_digits():
    """A large mean over a small spread, 100,000 times: naive sums of squares would be noise."""
    measured = moments(
        lambda key: 1000.0 + jax.random.normal(key), num_replicates=100_000, chunk_size=1000
    )
    variance = measured.m2 / (measured.count - 1)
    np.testing.assert_allclose(variance, 1.0, rtol=0.02)
    np.testing.assert_allclose(measured.m4 / measured.count, 3.0, rtol=0.1)


def test_gradient_moments_refuses_what_it_cannot_average():
    with pytest.raises(TypeError, match="floating"):
        bounds.gradient_moments(
            lambda key: jnp.array(1), jax.random.key(0), num_replicates=2, chunk_size=1
        )
    for kwargs in ({"num_replicates": 0, "chunk_size": 1}, {"num_replicates": 2, "chunk_size": 0}):
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            bounds.gradient_moments(sample, jax.random.key(0), **kwargs)


@pytest.mark.parametrize("truth", [0.0, 0.1, 2.0])
def test_snr_squared_has_its_bias_removed(truth):
    """Its mean over many experiments of R = 50; the plug-in is off by 1/R = .02."""

    @jax.jit
    @jax.vmap
    def experiment(key):
        return bounds.gradient_moments(
            lambda k: truth + jax.random.normal(k), key, num_replicates=50, chunk_size=50
        )

    measured = experiment(jax.random.split(jax.random.key(1), 20_000))
    estimates = np.asarray(bounds.snr_squared(measured))
    # For normal replicates mean^2/s^2 is a scaled F: its exact expectation, less 1/R.
    expected = (truth**2 + 1 / 50) * 49 / 47 - 1 / 50
    error = estimates.std() / np.sqrt(20_000)
    assert abs(estimates.mean() - expected) < 4.5 * error
    if truth < 1:
        plug_in = estimates.mean() + 1 / 50
        assert abs(plug_in - expected) > 4.5 * error, "no power against the plug-in"
    if truth == 0:
        assert np.mean(estimates < 0) > 0.5, "negative values are kept"
    assert np.all(np.asarray(bounds.snr(measured)) >= 0)


def test_snr_of_entries_that_never_vary():
    measured = moments(lambda key: jnp.array([0.0, 1.0, jax.random.normal(key)]), num_replicates=64)
    squared = bounds.snr_squared(measured)
    assert np.isnan(squared[0])
    assert np.isposinf(squared[1])
    assert np.isfinite(squared[2])


def test_floor_is_what_pure_noise_reads():
    measured = moments(lambda key: jax.random.normal(key, (5000,)), num_replicates=100)
    plain = jnp.abs(measured.mean) / jnp.sqrt(measured.m2 / 99)
    np.testing.assert_allclose(plain.mean(), bounds.snr_floor(100), rtol=0.05)
    with pytest.raises(ValueError, match="num_replicates"):
        bounds.snr_floor(0)


REPLICATES = {
    "gaussian": lambda key: jax.random.normal(key),
    "lognormal": lambda key: (
        (jnp.exp(0.5 * jax.random.normal(key)) - np.exp(0.125))
        / np.sqrt((np.exp(0.25) - 1) * np.exp(0.25))
    ),
    "t5": lambda key: jax.random.t(key, 5.0) / np.sqrt(5 / 3),
}


@pytest.mark.parametrize("truth", [0.0, 0.05, 1.0, 25.0])
@pytest.mark.parametrize("name", ["gaussian", "lognormal"])
def test_interval_covers(name, truth):
    """500 experiments of R = 2000; the full grid is benchmarks/interval_coverage.py."""
    draw = REPLICATES[name]

    @jax.jit
    @jax.vmap
    def covered(key):
        measured = bounds.gradient_moments(
            lambda k: truth + draw(k), key, num_replicates=2000, chunk_size=2000
        )
        low, high = bounds.snr_interval(measured)
        return (low <= truth) & (truth <= high), high - low

    inside, width = covered(jax.random.split(jax.random.key(3), 500))
    hits = int(inside.sum())
    # Two-sided binomial limits of a coverage between 93% and 97%, false alarm 1e-4 each.
    assert stats.binom.ppf(1e-4, 500, 0.93) <= hits <= stats.binom.ppf(1 - 1e-4, 500, 0.97)
    assert np.all(np.asarray(width) > 0)


def test_interval_of_normal_theory_would_fail():
    """Heavy tails at SNR 25: without skewness and kurtosis the interval misses too often."""
    draw = REPLICATES["t5"]

    @jax.jit
    @jax.vmap
    def experiment(key):
        measured = bounds.gradient_moments(
            lambda k: 25.0 + draw(k), key, num_replicates=2000, chunk_size=2000
        )
        variance = measured.m2 / (measured.count - 1)
        ratio = measured.mean / jnp.sqrt(variance)
        naive = jnp.sqrt((1 + ratio**2 / 2) / measured.count)
        low, high = bounds.snr_interval(measured)
        return jnp.abs(ratio - 25.0) < 1.96 * naive, (low <= 25.0) & (high >= 25.0)

    naive, ours = experiment(jax.random.split(jax.random.key(4), 500))
    assert naive.mean() < 0.85
    assert ours.mean() > 0.9


def test_interval_is_the_inversion_of_the_folded_normal():
    """By brute force: all s whose central band, of mass 95% under |N(s, 1)|, holds the estimate."""
    grid = np.linspace(0, 8, 4001)
    widths = np.linspace(0, 3, 3001)
    inside = np.empty_like(grid)
    for i, s in enumerate(grid):
        low, high = np.maximum(s - widths, 0), s + widths
        mass = stats.norm.cdf(high - s) - stats.norm.cdf(low - s)
        mass += stats.norm.cdf(high + s) - stats.norm.cdf(low + s)
        inside[i] = widths[np.argmax(mass >= 0.95)]
    for t in (0.1, 1.0, 1.8, 2.2, 3.0, 5.0):
        accepted = grid[np.abs(t - grid) <= inside]
        # Two replicate values with mean t / sqrt(R) and deviation 1: tiny ratios, no skew.
        count, mean = 1e8, t * 1e-4
        moments_ = bounds.Moments(
            jnp.asarray(count), *(jnp.asarray(v) for v in (mean, count, 0.0, count))
        )
        low, high = bounds.snr_interval(moments_)
        np.testing.assert_allclose(1e4 * low, accepted.min(), atol=4e-3)
        np.testing.assert_allclose(1e4 * high, accepted.max(), atol=4e-3)


def test_half_precision_gradients_accumulate_in_float32():
    def draw(key):
        return (1 + jax.random.normal(key)).astype(jnp.bfloat16)

    measured = moments(draw, num_replicates=20_000, chunk_size=10)
    assert measured.mean.dtype == jnp.float32
    np.testing.assert_allclose(bounds.snr(measured), 1.0, rtol=0.05)
    assert np.all(np.isfinite(bounds.snr_interval(measured)))


def test_merging_moments_of_different_things_is_refused():
    a = moments(lambda key: jax.random.normal(key), num_replicates=4)
    b = moments(lambda key: jax.random.normal(key, (4,)), num_replicates=4)
    with pytest.raises(ValueError, match="one kind of tree"):
        bounds.merge_moments(a, b)


def test_interval_levels_and_trees():
    measured = moments(sample, num_replicates=500)
    narrow, wide = (bounds.snr_interval(measured, level=level) for level in (0.5, 0.99))
    assert np.all(np.asarray(wide[0]["a"]) <= narrow[0]["a"])
    assert np.all(np.asarray(wide[1]["a"]) >= narrow[1]["a"])
    assert narrow[0]["b"].shape == ()
    jitted = jax.jit(bounds.snr_interval)(measured)
    np.testing.assert_allclose(jitted[0]["a"], bounds.snr_interval(measured)[0]["a"], rtol=1e-5)
    with pytest.raises(ValueError, match="level"):
        bounds.snr_interval(measured, level=95.0)


def test_dsnr_matches_its_definition():
    direction = {"a": jnp.array([1.0, 2.0, 0.0]), "b": jnp.array(-1.0)}
    estimate = bounds.dsnr(
        sample, jax.random.key(0), direction=direction, num_replicates=200, chunk_size=30
    )
    values = every_replicate(sample, jax.random.key(0), 200)
    g = np.column_stack([values["a"], values["b"]]).astype(np.float64)
    u = np.array([1.0, 2.0, 0.0, -1.0])
    parallel = np.outer(g @ u / (u @ u), u)
    ratio = np.linalg.norm(parallel, axis=1) / np.linalg.norm(g - parallel, axis=1)
    np.testing.assert_allclose(estimate.value, ratio.mean(), rtol=1e-4)
    np.testing.assert_allclose(estimate.standard_error, ratio.std(ddof=1) / np.sqrt(200), rtol=1e-3)
    with pytest.raises(ValueError, match="direction must match"):
        bounds.dsnr(
            sample, jax.random.key(0), direction=jnp.ones(4), num_replicates=2, chunk_size=1
        )


# --- power laws -------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [-1.0, -0.5, 0.0, 0.5, 3.0])
def test_power_law_recovers_an_exact_curve(slope):
    x = np.array([10.0, 30.0, 100.0, 1000.0])
    for sign in (1, -1):
        y = sign * 0.7 * x**slope
        fit, low, high = bounds.power_law(x, y, 0.01 * np.abs(y))
        np.testing.assert_allclose(fit, slope, atol=1e-6)
        assert low < slope < high
        # Weighted straight line in logs with 1% errors: the known half-width.
        half = 1.96 * 0.01 / np.sqrt(np.sum((np.log(x) - np.log(x).mean()) ** 2))
        np.testing.assert_allclose([fit - low, high - fit], half, rtol=0.05)


def test_power_law_covers_with_negative_points():
    """Half the points drown in noise and scatter below zero; dropping them flattens the fit."""
    rng = np.random.default_rng(0)
    x = 2.0 ** np.arange(10)
    sigma = np.full(10, 0.05)
    hits = dropped = 0
    for _ in range(300):
        y = x**-1.0 + sigma * rng.normal(size=10)
        _, low, high = bounds.power_law(x, y, sigma)
        hits += low <= -1.0 <= high
        keep = y > 0
        line = np.polyfit(np.log(x[keep]), np.log(y[keep]), 1)[0]
        dropped += abs(line + 1) < 0.2
    assert stats.binom.ppf(1e-4, 300, 0.93) <= hits <= stats.binom.ppf(1 - 1e-4, 300, 0.97)
    assert dropped < 150


def test_power_law_says_where_nothing_is_known():
    _, low, high = bounds.power_law([1, 2, 4], [0.1, -0.2, 0.1], [1.0, 1.0, 1.0])
    assert np.isinf(low)
    assert np.isinf(high)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([1, 2], [1, 2], [1]), "one length"),
        (([1, -2], [1, 2], [1, 1]), "positive"),
        (([1, 2], [1, 2], [1, 0]), "positive"),
        (([1, 2], [1, np.nan], [1, 1]), "finite"),
        (([2, 2], [1, 2], [1, 1]), "two different x"),
    ],
)
def test_power_law_refuses(args, message):
    with pytest.raises(ValueError, match=message):
        bounds.power_law(*args)
