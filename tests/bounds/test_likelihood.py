"""log_likelihood: equal to the dense computation, right on average, honest about itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bounds
from models import vae
from models.exact import linear_gaussian

MODEL = linear_gaussian.make_model()
THETA = jnp.array([0.3, -0.2])
X = jnp.array([1.5, -0.5])
GOOD = bounds.Params(THETA, linear_gaussian.Inference(0.5 * jnp.eye(2), 0.5 * THETA + 0.1))
FAR = bounds.Params(THETA, linear_gaussian.Inference(0.5 * jnp.eye(2), 0.5 * THETA + 6.0))


@pytest.mark.parametrize("chunk_size", [1, 7, 100, 1000])
@pytest.mark.parametrize("params", [GOOD, FAR], ids=["good q", "bad q"])
def test_equals_the_dense_computation(chunk_size, params):
    key = jax.random.key(0)
    value, diagnostics = jax.jit(
        lambda: bounds.log_likelihood(MODEL, params, key, X, num_samples=300, chunk_size=chunk_size)
    )()
    log_w = bounds.log_weights(MODEL, params, jax.random.clone(key), X, num_samples=300)
    np.testing.assert_allclose(value, bounds.iwae(log_w), rtol=1e-5)
    ess = bounds.effective_sample_size(log_w)
    np.testing.assert_allclose(diagnostics.ess, ess, rtol=1e-4)
    np.testing.assert_allclose(diagnostics.k_hat, bounds.pareto_k_hat(log_w), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        diagnostics.standard_error, np.sqrt((1 / ess - 1 / 300) * 300 / 299), rtol=1e-3
    )


def test_standard_error_is_the_spread_over_seeds_and_the_value_is_near_the_truth():
    run = jax.jit(
        jax.vmap(
            lambda key: bounds.log_likelihood(MODEL, GOOD, key, X, num_samples=500, chunk_size=100)
        )
    )
    values, diagnostics = run(jax.random.split(jax.random.key(1), 400))
    # The sd of 400 values is known to 1/sqrt(800) = 3.5%.
    np.testing.assert_allclose(values.std(), diagnostics.standard_error.mean(), rtol=0.2)
    exact = linear_gaussian.log_likelihood(THETA, X)
    bias = float(values.mean() - exact)
    error = float(values.std()) / 20
    gap = float(jnp.mean(diagnostics.standard_error**2)) / 2  # E[log] - log E to leading order
    assert abs(bias + gap) < 4.5 * error
    assert bool(jnp.mean(diagnostics.reliable) > 0.95)


def test_the_flag_falls_where_the_weights_cannot_be_trusted():
    value, diagnostics = bounds.log_likelihood(
        MODEL, FAR, jax.random.key(0), X, num_samples=2000, chunk_size=500
    )
    assert not diagnostics.reliable
    assert diagnostics.k_hat > 0.7
    exact = linear_gaussian.log_likelihood(THETA, X)
    # ... and rightly: the value is off by many of its own standard errors.
    assert value < exact - 4 * diagnostics.standard_error


def test_one_effective_sample_is_never_reliable():
    """Weights hundreds of nats apart underflow in float32; the flag must still fall."""
    for scale in (20.0, 100.0, 500.0):
        model = MODEL._replace(log_p=lambda theta, x, z, s=scale: s * z[0])
        _, diagnostics = bounds.log_likelihood(
            model, GOOD, jax.random.key(0), X, num_samples=2000, chunk_size=500
        )
        assert diagnostics.ess < 10
        assert not diagnostics.reliable


def test_mean_weight_is_the_likelihood():
    """E[mean w] = p(x): importance sampling is unbiased, also at small K."""

    def one(key):
        return jnp.exp(bounds.iwae(bounds.log_weights(MODEL, GOOD, key, X, num_samples=3)))

    weights = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), 100_000))
    error = weights.std() / np.sqrt(100_000)
    exact = jnp.exp(linear_gaussian.log_likelihood(THETA, X))
    assert abs(weights.mean() - exact) < 4.5 * error
    assert error < 0.01 * exact


@pytest.mark.parametrize("zeros", ["some", "all"])
def test_zero_weights(zeros):
    def log_p(theta, x, z):
        alive = (z[0] > 0.5) & (zeros == "some")
        return jnp.where(alive, MODEL.log_p(theta, x, z), -jnp.inf)

    model = MODEL._replace(log_p=log_p)
    value, diagnostics = bounds.log_likelihood(
        model, GOOD, jax.random.key(0), X, num_samples=100, chunk_size=9
    )
    if zeros == "all":
        assert value == -jnp.inf
        assert diagnostics.ess == 0
        assert not diagnostics.reliable
    else:
        log_w = bounds.log_weights(model, GOOD, jax.random.key(0), X, num_samples=100)
        assert 0 < np.isneginf(np.asarray(log_w)).sum() < 100
        np.testing.assert_allclose(value, bounds.iwae(log_w), rtol=1e-5)
        assert np.isfinite(diagnostics.standard_error)


@pytest.mark.parametrize("chunk_size", [9, 100])
@pytest.mark.parametrize("case", ["no", "one", "three", "nan", "-nan", "inf"])
def test_degenerate_weights_are_not_reliable(case, chunk_size):
    """No, one or three live weights among 100, or one that is not finite."""
    live = {"no": 0, "one": 1, "three": 3}.get(case)
    odd = {"nan": jnp.nan, "-nan": -jnp.nan, "inf": jnp.inf}.get(case, 0.0)
    numbers = jax.vmap(lambda k: jax.random.key_data(jax.random.fold_in(jax.random.key(0), k))[0])
    known = numbers(jnp.arange(100))

    def log_p(theta, x, z):
        number = jnp.argmax(known == z)
        if live is None:
            return jnp.where(number == 50, odd, 0.0)
        return jnp.where(number < live, -8192.0, -jnp.inf)

    model = bounds.LatentModel(
        lambda phi, key, x: (jax.random.key_data(key)[0], 0.0), lambda phi, x, z: 0.0, log_p
    )
    value, diagnostics = bounds.log_likelihood(
        model,
        bounds.Params(None, None),
        jax.random.key(0),
        None,
        num_samples=100,
        chunk_size=chunk_size,
    )
    assert not diagnostics.reliable
    assert not diagnostics.k_hat < bounds.k_hat_threshold(100)
    if live is None:
        assert not np.isfinite(value)
        assert np.isnan(diagnostics.standard_error)
    else:
        assert diagnostics.ess == live


def test_equal_weights_are_perfect():
    """q is the posterior: every weight is p(x), and k-hat as low as can be."""
    model = bounds.LatentModel(
        lambda phi, key, x: (jax.random.normal(key), 0.0), None, lambda theta, x, z: -8192.0
    )
    value, diagnostics = bounds.log_likelihood(
        model, bounds.Params(None, None), jax.random.key(0), None, num_samples=100, chunk_size=9
    )
    np.testing.assert_allclose(value, -8192.0, rtol=2e-7)
    assert (diagnostics.standard_error, diagnostics.k_hat) == (0.0, -jnp.inf)
    assert diagnostics.reliable


def test_few_samples():
    for num_samples in (1, 2, 20):
        value, diagnostics = bounds.log_likelihood(
            MODEL, GOOD, jax.random.key(0), X, num_samples=num_samples, chunk_size=50
        )
        assert np.isfinite(value)
        assert np.isnan(diagnostics.k_hat)
        assert not diagnostics.reliable
        assert np.isnan(diagnostics.standard_error) == (num_samples == 1)


def test_memory_does_not_grow_with_samples():
    burda = vae.make_vae(784)
    params = burda.init(jax.random.key(0), jnp.full(784, 0.1))

    def memory(num_samples):
        def run(key, x):
            return bounds.log_likelihood(
                burda.model, params, key, x, num_samples=num_samples, chunk_size=100
            )

        compiled = jax.jit(run).lower(jax.random.key(0), jnp.zeros(784)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(50_000) < 1.05 * memory(500)


def test_wrong_counts():
    for kwargs in ({"num_samples": 0, "chunk_size": 1}, {"num_samples": 5, "chunk_size": 0}):
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            bounds.log_likelihood(MODEL, GOOD, jax.random.key(0), X, **kwargs)
