"""q_EW, the density that IWAE's weights resample from, against sums over all draws."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import bounds
from models.exact import enumerable, linear_gaussian

TOLERANCE = 1e-9 if oracles.X64 else 2e-6
STATES = 3


def exact_density(params, x, num_samples):
    """q_EW(z | x) of every z, by the sum over all tuples of the other draws."""
    log_joint = enumerable.log_joint(params.theta, x)
    log_w = log_joint - jax.nn.log_softmax(params.phi[x])

    def at(z):
        if num_samples == 1:
            return jnp.exp(log_joint[z] - log_w[z])
        mean = enumerable.expectation(
            lambda others, _: jnp.exp(-bounds.iwae(jnp.concatenate([log_w[z][None], others]))),
            params,
            x,
            num_samples - 1,
        )
        return jnp.exp(log_joint[z]) * mean

    return jnp.stack([at(z) for z in range(STATES)])


def test_density_does_not_drown_in_log_p():
    """A constant in log p(x, z), here -8192 nats, is no part of a posterior."""
    base = linear_gaussian.make_model()
    params = bounds.Params(
        jnp.array([0.3, -0.2]), linear_gaussian.Inference(0.5 * jnp.eye(2), jnp.array([0.1, 0.2]))
    )
    x, z = jnp.array([1.5, -0.5]), jnp.array([0.4, 0.1])
    # Sixteenths: adding the constant rounds none of them.
    coarse = base._replace(log_p=lambda *a: jnp.round(16 * base.log_p(*a)) / 16)
    coarse = coarse._replace(
        propose=lambda *a: (base.propose(*a)[0], jnp.zeros(())), log_q=lambda *a: jnp.zeros(())
    )
    far = coarse._replace(log_p=lambda *a: coarse.log_p(*a) - 8192.0)
    densities = [
        bounds.surgery.iwae_posterior_log_prob(
            model, params, jax.random.key(0), x, z, num_samples=10, num_sets=50
        )
        for model in (coarse, far)
    ]
    np.testing.assert_allclose(*densities, rtol=1e-6)


def test_density_is_the_enumerated_one():
    params, x = enumerable.init(jax.random.key(1), STATES, 2), jnp.array(1)
    model = enumerable.make_model()
    for num_samples in (1, 2, 4):
        exact = exact_density(params, x, num_samples)
        np.testing.assert_allclose(exact.sum(), 1.0, atol=10 * TOLERANCE)
        found = jax.jit(
            jax.vmap(
                lambda z, k=num_samples: bounds.surgery.iwae_posterior_log_prob(
                    model,
                    params,
                    jax.random.key(2),
                    x,
                    z,
                    num_samples=k,
                    num_sets=20_000,
                    chunk_size=2000,
                )
            )
        )(jnp.arange(STATES))
        # 20,000 sets; w(z)/mean(w) lies in (0, K], so no mean errs by more than this, once in 1e5.
        error = oracles.z_limit(STATES) * num_samples / 2 / np.sqrt(20_000)
        error = 10 * TOLERANCE if num_samples == 1 else error
        ratio = np.exp(np.asarray(found)) / np.asarray(exact)
        np.testing.assert_allclose(ratio, 1.0, atol=2 * error)
        if num_samples > 1:  # known to be wrong: the density of another K
            other = np.asarray(exact_density(params, x, 1))
            assert np.abs(np.exp(np.asarray(found)) / other - 1).max() > 2 * error


@pytest.mark.x64
def test_it_goes_from_q_to_the_posterior():
    params, x = enumerable.init(jax.random.key(1), STATES, 2), jnp.array(1)
    posterior = jax.nn.softmax(enumerable.log_joint(params.theta, x))
    distances = [
        float(jnp.abs(exact_density(params, x, k) - posterior).sum()) for k in (1, 2, 4, 7)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.5 * distances[0]


def test_at_the_exact_posterior_it_is_the_posterior():
    theta = jnp.array([0.3, -0.2])
    params = bounds.Params(theta, linear_gaussian.exact_inference(theta))
    model = linear_gaussian.make_model(variance=0.5)
    x, z = jnp.array([1.0, 0.5]), jnp.array([0.1, -0.7])
    found = bounds.surgery.iwae_posterior_log_prob(
        model, params, jax.random.key(0), x, z, num_samples=5, num_sets=3
    )
    mean, variance = linear_gaussian.posterior(theta, x)
    np.testing.assert_allclose(
        found, bounds.densities.gaussian_log_prob(z, mean, variance), atol=1e-4
    )


def test_chunks_change_nothing_and_impossible_points_are_minus_infinity():
    theta = enumerable.Generative(jnp.array([0.0, -jnp.inf, 1.0]), jnp.zeros((3, 2)))
    params = bounds.Params(theta, jnp.zeros((2, 3)))
    model = enumerable.make_model()

    def at(z, chunk_size):
        return bounds.surgery.iwae_posterior_log_prob(
            model,
            params,
            jax.random.key(0),
            jnp.array(0),
            z,
            num_samples=3,
            num_sets=10,
            chunk_size=chunk_size,
        )

    assert at(jnp.array(1), None) == -jnp.inf
    never = params._replace(phi=jnp.array([[0.0, 0.0, -jnp.inf]] * 2))
    for num_samples in (1, 3):
        for where, z in ((params, 1), (never, 2)):  # p(x, z) = 0, q(z | x) = 0

            def log_prob(params, k=num_samples, z=z):
                return bounds.surgery.iwae_posterior_log_prob(
                    model,
                    params,
                    jax.random.key(0),
                    jnp.array(0),
                    jnp.array(z),
                    num_samples=k,
                    num_sets=4,
                )

            value, grads = jax.value_and_grad(log_prob)(where)
            assert value == -jnp.inf
            assert all(not jnp.any(jnp.isnan(leaf)) for leaf in jax.tree.leaves(grads))
    np.testing.assert_allclose(at(jnp.array(2), 4), at(jnp.array(2), None), rtol=1e-6)


def test_mistakes_are_named():
    model = enumerable.make_model()._replace(log_q=None)
    params = enumerable.init(jax.random.key(1), STATES, 2)
    arguments = (model, params, jax.random.key(0), jnp.array(0), jnp.array(0))
    with pytest.raises(ValueError, match="this model has log_q=None"):
        bounds.surgery.iwae_posterior_log_prob(*arguments, num_samples=2, num_sets=3)
    with pytest.raises(ValueError, match="num_sets must be at least 1"):
        bounds.surgery.iwae_posterior_log_prob(*arguments, num_samples=2, num_sets=0)
