"""Gradients of the estimators against their exact expectations, and wrong ones that must fail.

Every claim is checked twice: exactly, with the draws forced through all outcomes (see oracles),
and by Monte Carlo through the public API with a stated false-alarm rate.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import (
    X64,
    assert_biased,
    assert_unbiased,
    close,
    expected_gradient,
    flat,
    forced_draws,
    gauss_hermite,
    moments,
)

import bounds
from models.exact import linear_gaussian, two_layer_gaussian

pytestmark = pytest.mark.x64
NODES = {1: 60, 2: 60, 3: 40}


# --- the linear-Gaussian model in one dimension -----------------------------------------------

VARIANCE = 2 / 3
GAUSSIAN = linear_gaussian.make_model(VARIANCE)
GAUSSIAN_PARAMS = bounds.Params(
    jnp.array([0.3]), linear_gaussian.Inference(jnp.array([[0.8]]), jnp.array([0.3]))
)
GAUSSIAN_X = jnp.array([1.5])


def gaussian_sample(phi, x, noise):
    return phi.weight @ x + phi.bias + np.sqrt(VARIANCE) * noise


def gaussian_expectation(factory, num_samples):
    draws, mass = gauss_hermite(NODES[num_samples], num_samples)
    return expected_gradient(
        factory, GAUSSIAN, gaussian_sample, GAUSSIAN_PARAMS, GAUSSIAN_X, draws[..., None], mass
    )


def gaussian_exact(bound, num_samples):
    """Gradient of E[bound(log_w)] by quadrature, a function of the parameters alone."""
    draws, mass = gauss_hermite(NODES[num_samples], num_samples)

    def expected_bound(params):
        def log_w(noise):
            z = gaussian_sample(params.phi, GAUSSIAN_X, noise[None])
            log_q = GAUSSIAN.log_q(params.phi, GAUSSIAN_X, z)
            return GAUSSIAN.log_p(params.theta, GAUSSIAN_X, z) - log_q

        return jnp.sum(mass * jax.vmap(lambda eps: bound(jax.vmap(log_w)(eps)))(draws))

    return jax.jit(jax.grad(expected_bound))(GAUSSIAN_PARAMS)


CIWAE = functools.partial(bounds.ciwae, beta=0.3)
RENYI = functools.partial(bounds.renyi, alpha=0.3)
LEFT = functools.partial(bounds.thermodynamic, betas=[0.0, 0.3, 1.0])
UNBIASED = {
    "pathwise, iwae": (3, bounds.iwae, lambda m: bounds.pathwise(m, num_samples=3)),
    "pathwise, elbo": (
        2, bounds.elbo, lambda m: bounds.pathwise(m, num_samples=2, bound=bounds.elbo)
    ),
    "pathwise, ciwae": (
        3,
        CIWAE,
        lambda m: bounds.pathwise(m, num_samples=3, bound=CIWAE),
    ),
    "pathwise, renyi": (
        3,
        RENYI,
        lambda m: bounds.pathwise(m, num_samples=3, bound=RENYI),
    ),
    "stl, elbo at K=1": (1, bounds.elbo, lambda m: bounds.stl(m, num_samples=1)),
    "stl, elbo": (3, bounds.elbo, lambda m: bounds.stl(m, num_samples=3, bound=bounds.elbo)),
    "dreg": (3, bounds.iwae, lambda m: bounds.dreg(m, num_samples=3)),
    "dreg in chunks": (3, bounds.iwae, lambda m: bounds.dreg(m, num_samples=3, chunk_size=2)),
    "dreg at K=1": (1, bounds.iwae, lambda m: bounds.dreg(m, num_samples=1)),
    "dreg, alpha=0.3": (
        3, RENYI,
        lambda m: bounds.dreg(m, num_samples=3, alpha=0.3),
    ),
    "dreg, alpha=1": (3, bounds.elbo, lambda m: bounds.dreg(m, num_samples=3, alpha=1.0)),
    "miwae": (
        2, lambda log_w: bounds.elbo(log_w), lambda m: bounds.miwae(m, num_groups=2, num_samples=1)
    ),
    "reinforce": (2, bounds.iwae, lambda m: bounds.reinforce(m, num_samples=2)),
    "reinforce with baseline": (
        2, bounds.iwae, lambda m: bounds.reinforce(m, num_samples=2, baseline=lambda x: -3.0)
    ),
    "reinforce, elbo": (
        2, bounds.elbo, lambda m: bounds.reinforce(m, num_samples=2, bound=bounds.elbo)
    ),
    "vimco": (3, bounds.iwae, lambda m: bounds.vimco(m, num_samples=3)),
    "rloo": (2, bounds.elbo, lambda m: bounds.rloo(m, num_samples=2)),
    "ovis": (2, bounds.iwae, lambda m: bounds.ovis(m, num_samples=2)),
    "pathwise, left sum": (
        2, LEFT, lambda m: bounds.pathwise(m, num_samples=2, bound=LEFT)
    ),
}  # fmt: skip


@pytest.mark.parametrize(("num_samples", "bound", "factory"), UNBIASED.values(), ids=UNBIASED)
def test_expected_gradient_is_the_gradient_of_the_bound(num_samples, bound, factory):
    assert close(gaussian_expectation(factory, num_samples), gaussian_exact(bound, num_samples))


def squared_weights_for_theta(model, num_samples):
    """The defect of a well-known library: one surrogate with w^2 for theta and phi alike."""

    def objective(params, key, x):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_samples))
        z, _ = jax.vmap(lambda k: model.propose(params.phi, k, x))(keys)
        phi = jax.lax.stop_gradient(params.phi)
        log_w = jax.vmap(lambda z: model.log_p(params.theta, x, z) - model.log_q(phi, x, z))(z)
        return jnp.sum(jax.lax.stop_gradient(bounds.normalized_weights(log_w)) ** 2 * log_w)

    return objective


WRONG = {
    "stl at K=3 under iwae": lambda m: bounds.stl(m, num_samples=3),
    "theta weighted by w^2": functools.partial(squared_weights_for_theta, num_samples=3),
    "rws phi": lambda m: bounds.rws(m, num_samples=3),
}


@pytest.mark.parametrize("factory", WRONG.values(), ids=WRONG)
def test_wrong_gradients_fail_the_same_test(factory):
    measured, exact = gaussian_expectation(factory, 3), gaussian_exact(bounds.iwae, 3)
    assert not np.allclose(flat(measured), flat(exact), rtol=1e-2, atol=1e-3)


def test_stl_and_rws_are_right_in_theta():
    exact = gaussian_exact(bounds.iwae, 3).theta
    for factory in (WRONG["stl at K=3 under iwae"], WRONG["rws phi"]):
        assert close(gaussian_expectation(factory, 3).theta, exact)


def test_stl_bias_is_that_of_its_own_weights():
    """STL at K > 1 follows E[sum w d log w/dz dz/dphi], by quadrature."""
    draws, mass = gauss_hermite(NODES[3], 3)

    def one(noise):
        def log_w(phi, eps):
            z = gaussian_sample(phi, GAUSSIAN_X, eps[None])
            log_q = GAUSSIAN.log_q(GAUSSIAN_PARAMS.phi, GAUSSIAN_X, z)
            return GAUSSIAN.log_p(GAUSSIAN_PARAMS.theta, GAUSSIAN_X, z) - log_q

        values = jax.vmap(log_w, (None, 0))(GAUSSIAN_PARAMS.phi, noise)
        grads = jax.vmap(jax.grad(log_w), (None, 0))(GAUSSIAN_PARAMS.phi, noise)
        weights = bounds.normalized_weights(values)
        return jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), grads)

    per_draw = jax.jit(jax.vmap(one))(draws)
    expected = jax.tree.map(lambda g: jnp.tensordot(mass, g, 1), per_draw)
    measured = gaussian_expectation(lambda m: bounds.stl(m, num_samples=3), 3)
    assert close(measured.phi, expected)


def test_piwae_follows_two_bounds():
    """theta follows IWAE-MK, phi the mean of IWAE-K; neither follows the other's."""
    measured = gaussian_expectation(lambda m: bounds.piwae(m, num_groups=3, num_samples=1), 3)
    iwae, elbo = gaussian_exact(bounds.iwae, 3), gaussian_exact(bounds.elbo, 3)
    assert close(measured.theta, iwae.theta)
    assert close(measured.phi, elbo.phi)
    assert not close(measured.phi, iwae.phi)
    assert not close(measured.theta, elbo.theta)


def test_piwae_normalizes_within_its_groups():
    """M = 2 groups of K = 2: phi follows IWAE-2, theta IWAE-4."""
    draws, mass = gauss_hermite(16, 4)
    measured = expected_gradient(
        lambda m: bounds.piwae(m, num_groups=2, num_samples=2), GAUSSIAN, gaussian_sample,
        GAUSSIAN_PARAMS, GAUSSIAN_X, draws[..., None], mass,
    )  # fmt: skip
    pooled = expected_gradient(
        lambda m: bounds.pathwise(m, num_samples=4), GAUSSIAN, gaussian_sample,
        GAUSSIAN_PARAMS, GAUSSIAN_X, draws[..., None], mass,
    )  # fmt: skip
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(
        flat(measured.phi), flat(gaussian_exact(bounds.iwae, 2).phi), **tolerance
    )
    np.testing.assert_allclose(flat(measured.theta), flat(pooled.theta), **tolerance)
    assert not np.allclose(flat(measured.phi), flat(pooled.phi), rtol=1e-2)


# --- several stochastic layers ----------------------------------------------------------------

TWO_LAYERS = two_layer_gaussian.make_model()
TWO_LAYERS_PARAMS = bounds.Params(
    two_layer_gaussian.Generative(jnp.array([0.2]), jnp.array(0.8), jnp.array(1.1)),
    two_layer_gaussian.Inference(
        two_layer_gaussian.Layer(jnp.array(0.5), jnp.array([0.1]), jnp.array(-0.6)),
        two_layer_gaussian.Layer(jnp.array(0.7), jnp.array([-0.1]), jnp.array(-0.3)),
    ),
)
TWO_LAYERS_X = jnp.array([1.2])


def two_layers_sample(phi, x, noise):
    z1 = phi.lower.weight * x + phi.lower.bias + jnp.exp(phi.lower.log_scale) * noise[:1]
    z2 = phi.upper.weight * z1 + phi.upper.bias + jnp.exp(phi.upper.log_scale) * noise[1:]
    return two_layer_gaussian.Latents(z1, z2)


def two_layers_expectation(factory):
    draws, mass = gauss_hermite(18, 4)
    return expected_gradient(
        factory, TWO_LAYERS, two_layers_sample, TWO_LAYERS_PARAMS, TWO_LAYERS_X,
        draws.reshape(-1, 2, 2), mass,
    )  # fmt: skip


def two_layers_log_w(params, z):
    return TWO_LAYERS.log_p(params.theta, TWO_LAYERS_X, z) - TWO_LAYERS.log_q(
        params.phi, TWO_LAYERS_X, z
    )


def stopped_distribution_parameters(model):
    """Wrong: log q sees its means and deviations as constants, the path z1 -> q(z2|z1) too."""

    def log_q(phi, x, z):
        z1 = jax.lax.stop_gradient(z.z1)
        lower = bounds.densities.gaussian_log_prob(
            z.z1, phi.lower.weight * x + phi.lower.bias, jnp.exp(2 * phi.lower.log_scale)
        )
        upper = bounds.densities.gaussian_log_prob(
            z.z2, phi.upper.weight * z1 + phi.upper.bias, jnp.exp(2 * phi.upper.log_scale)
        )
        return lower + upper

    return bounds.dreg(model._replace(log_q=log_q), num_samples=2)


def hook_on_each_layer(model):
    """Wrong: the cotangent is scaled at each z, so the path through z2 to z1 is scaled twice."""
    from bounds._estimators import scale_cotangent

    def objective(params, key, x):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(2))
        # The draws that were forced, recovered so that each layer can be hooked on its own.
        forced = jax.lax.stop_gradient(jax.vmap(lambda k: model.propose(params.phi, k, x)[0])(keys))
        frozen = jax.lax.stop_gradient(params.phi)

        def log_w(z, scale):
            e1 = (z.z1 - frozen.lower.weight * x - frozen.lower.bias) / jnp.exp(
                frozen.lower.log_scale
            )
            e2 = (z.z2 - frozen.upper.weight * z.z1 - frozen.upper.bias) / jnp.exp(
                frozen.upper.log_scale
            )
            lower, upper = params.phi
            z1 = scale_cotangent(
                lower.weight * x + lower.bias + jnp.exp(lower.log_scale) * e1, scale
            )
            z2 = scale_cotangent(
                upper.weight * z1 + upper.bias + jnp.exp(upper.log_scale) * e2, scale
            )
            z = two_layer_gaussian.Latents(z1, z2)
            return model.log_p(params.theta, x, z) - model.log_q(frozen, x, z)

        weights = bounds.normalized_weights(jax.vmap(lambda z: log_w(z, jnp.ones(())))(forced))
        return bounds.iwae(jax.vmap(log_w)(forced, jax.lax.stop_gradient(weights)))

    return objective


def test_dreg_with_two_layers_is_exact_and_the_usual_shortcuts_are_not():
    exact = two_layers_expectation(lambda m: bounds.pathwise(m, num_samples=2))
    right = two_layers_expectation(lambda m: bounds.dreg(m, num_samples=2))
    tolerance = 2e-5 if X64 else 1e-4  # what is left is the error of 18 nodes
    np.testing.assert_allclose(flat(right), flat(exact), rtol=tolerance, atol=tolerance)
    for wrong in (stopped_distribution_parameters, hook_on_each_layer):
        measured = two_layers_expectation(wrong)
        assert not np.allclose(flat(measured.phi), flat(exact.phi), rtol=1e-2, atol=3e-3)
        np.testing.assert_allclose(
            flat(measured.theta), flat(exact.theta), rtol=tolerance, atol=tolerance
        )


# --- Monte Carlo through the public API -------------------------------------------------------

MONTE_CARLO = {
    "pathwise": lambda: bounds.pathwise(GAUSSIAN, num_samples=3),
    "dreg": lambda: bounds.dreg(GAUSSIAN, num_samples=3),
    "vimco": lambda: bounds.vimco(GAUSSIAN, num_samples=3),
    "reinforce": lambda: bounds.reinforce(GAUSSIAN, num_samples=3),
}


@pytest.mark.parametrize("factory", MONTE_CARLO.values(), ids=MONTE_CARLO)
def test_unbiased_with_the_models_own_draws(factory):
    measured = moments(lambda key: jax.grad(factory())(GAUSSIAN_PARAMS, key, GAUSSIAN_X))
    assert_unbiased(measured, gaussian_exact(bounds.iwae, 3))


def test_the_monte_carlo_test_has_power():
    """STL at K=5: its bias is seen by the same test at the same number of replicates."""
    model, params, x = GAUSSIAN, GAUSSIAN_PARAMS, GAUSSIAN_X
    dreg = moments(lambda key: jax.grad(bounds.dreg(model, num_samples=5))(params, key, x))
    stl = moments(lambda key: jax.grad(bounds.stl(model, num_samples=5))(params, key, x), seed=1)
    assert_biased(stl._replace(mean=stl.mean.phi, m2=stl.m2.phi), dreg.mean.phi)


def test_dreg_weights_theta_as_iwae_does():
    """The same draws: dreg and pathwise share value and theta gradient to rounding."""
    key = jax.random.key(5)
    run = jax.value_and_grad
    value, grads = run(bounds.dreg(GAUSSIAN, num_samples=4))(GAUSSIAN_PARAMS, key, GAUSSIAN_X)
    expected, exact = run(bounds.pathwise(GAUSSIAN, num_samples=4))(
        GAUSSIAN_PARAMS, key, GAUSSIAN_X
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(grads.theta, exact.theta, rtol=1e-5)


def test_dreg_is_not_uniformly_less_noisy():
    """Near the posterior DReG has a far smaller deviation, far from it a larger one."""

    def deviation(factory, variance, bias):
        model = linear_gaussian.make_model(variance)
        weight = jnp.array([[0.5]])
        phi = linear_gaussian.Inference(weight, GAUSSIAN_PARAMS.theta / 2 + bias)
        params = GAUSSIAN_PARAMS._replace(phi=phi)
        objective = factory(model, num_samples=8)
        measured = moments(lambda key: jax.grad(objective)(params, key, GAUSSIAN_X).phi.bias)
        return float(jnp.sqrt(measured.m2 / measured.count)[0])

    assert deviation(bounds.dreg, 0.52, 0.02) < 0.5 * deviation(bounds.pathwise, 0.52, 0.02)
    assert deviation(bounds.dreg, 0.02, 3.0) > 1.5 * deviation(bounds.pathwise, 0.02, 3.0)


def test_forcing_draws_changes_nothing_but_the_draws():
    noise = jnp.array([[0.3], [-1.0]])
    forced = forced_draws(GAUSSIAN, gaussian_sample, jax.random.key(0), noise)
    _, aux = bounds.pathwise(forced, num_samples=2, has_aux=True)(
        GAUSSIAN_PARAMS, jax.random.key(0), GAUSSIAN_X
    )
    expected = jax.vmap(lambda e: gaussian_sample(GAUSSIAN_PARAMS.phi, GAUSSIAN_X, e))(noise)
    np.testing.assert_allclose(aux.z, expected, rtol=1e-6)
