"""Models against what is known about them exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from oracles import TIGHT, assert_biased, assert_unbiased, gauss_hermite, moments

import bounds
from models import vae
from models.exact import enumerable, linear_gaussian, linear_gaussian_theory, two_layer_gaussian

pytestmark = pytest.mark.x64
THETA = jnp.array([0.3, -0.2])
X = jnp.array([1.5, -0.5])
PHI = linear_gaussian.Inference(jnp.array([[0.6, 0.1], [0.0, 0.4]]), jnp.array([0.1, 0.2]))
PARAMS = bounds.Params(THETA, PHI)
DELTA = linear_gaussian.discrepancy(PARAMS, X)


# --- densities --------------------------------------------------------------------------------


def test_densities_match_numpyro():
    z, mean, variance = jnp.array([0.3, -2.0]), jnp.array([1.0, 0.5]), jnp.array([0.2, 3.0])
    q, p = dist.Normal(mean, jnp.sqrt(variance)), dist.Normal(0.3, 1.7)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    close(bounds.densities.gaussian_log_prob(z, mean, variance), q.log_prob(z).sum())
    close(bounds.densities.gaussian_kl(mean, variance, 0.3, 1.7**2), dist.kl_divergence(q, p).sum())
    close(bounds.densities.gaussian_entropy(variance), q.entropy().sum())
    # Broadcast to the value, the constant included.
    for args in ((jnp.zeros(5), jnp.zeros(1), 1.0), (jnp.zeros(5), 0.0, jnp.ones(1))):
        close(bounds.densities.gaussian_log_prob(*args), -2.5 * np.log(2 * np.pi))
    with pytest.raises(ValueError, match="last axis"):
        bounds.densities.gaussian_log_prob(0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="one entry for each dimension"):
        bounds.densities.gaussian_entropy(1.0)


@pytest.mark.parametrize("logit", [-200.0, -20.0, -1.0, 0.0, 3.0, 200.0])
def test_bernoulli_value_and_derivatives(logit):
    for x in (0.0, 0.3, 1.0):
        exact = dist.Bernoulli(logits=np.float64(logit))
        expected = x * exact.log_prob(1) + (1 - x) * exact.log_prob(0)
        np.testing.assert_allclose(
            bounds.densities.bernoulli_log_prob(logit, x), expected, atol=1e-5
        )
        slopes = jax.grad(bounds.densities.bernoulli_log_prob, argnums=(0, 1))(logit, x)
        np.testing.assert_allclose(slopes[0], x - jax.nn.sigmoid(logit), atol=1e-6)
        np.testing.assert_allclose(slopes[1], logit, rtol=1e-6)
    curvature = jax.grad(jax.grad(bounds.densities.bernoulli_log_prob))(0.5, 1)
    sigmoid = jax.nn.sigmoid(0.5)
    np.testing.assert_allclose(curvature, -sigmoid * (1 - sigmoid), rtol=1e-5)


# --- linear Gaussian --------------------------------------------------------------------------


def quadrature_log_w(delta, variance, nodes=200):
    """log r = log w - log p(x) on a grid, one dimension, in float64."""
    grid, mass = np.polynomial.hermite_e.hermegauss(nodes)
    mass = mass / mass.sum()
    z = np.sqrt(variance) * grid + delta  # z minus the posterior mean
    log_post = -0.5 * (z**2 / 0.5 + np.log(2 * np.pi * 0.5))
    log_q = -0.5 * (grid**2 + np.log(2 * np.pi * variance))
    return log_post - log_q, z, mass


@pytest.mark.parametrize("power", [-0.5, 0.5, 1.0, 2.0, 3.0, 4.0])
def test_weight_moments_by_quadrature(power):
    delta, v = 0.4, 2 / 3
    log_r, z, mass = quadrature_log_w(delta, v)
    weights = mass * np.exp(power * log_r)
    tilt = linear_gaussian_theory.tilt(jnp.array([delta]), power)
    np.testing.assert_allclose(np.exp(tilt.log_mass), weights.sum(), rtol=1e-4)
    mean = (weights * z).sum() / weights.sum()
    np.testing.assert_allclose(tilt.offset[0], mean, rtol=1e-3, atol=1e-5)
    variance = (weights * (z - mean) ** 2).sum() / weights.sum()
    np.testing.assert_allclose(tilt.variance, variance, rtol=1e-3)


def test_published_constants_of_the_toy():
    """D = 20, v = 2/3, at the optimum: ELBO gap .4565, 1 + chi-square 1.907, ESS/K .524."""
    zero = jnp.zeros(20)
    np.testing.assert_allclose(linear_gaussian.elbo_gap(zero), 0.4565, atol=1e-4)
    np.testing.assert_allclose(
        np.exp(linear_gaussian_theory.log1p_chi_square(zero)), 1.907, atol=1e-3
    )
    model = linear_gaussian.make_model()
    params = bounds.Params(zero, linear_gaussian.exact_inference(zero))
    log_w = bounds.log_weights(
        model, params, jax.random.key(0), jnp.ones(20), num_samples=100_000, chunk_size=10_000
    )
    assert abs(bounds.effective_sample_size(log_w) / 100_000 - 0.524) < 0.02


def test_gaps_and_exact_likelihood():
    model = linear_gaussian.make_model()
    objective = bounds.elbo_log_ratio(model, num_samples=1)
    measured = moments(lambda key: objective(PARAMS, key, X))
    assert_unbiased(measured, linear_gaussian.expected_elbo(PARAMS, X))
    mean, variance = linear_gaussian.posterior(THETA, X)
    # Bayes at any z: log p(x) = log p(x, z) - log p(z | x).
    z = jnp.array([0.7, -1.1])
    by_bayes = model.log_p(THETA, X, z) - bounds.densities.gaussian_log_prob(z, mean, variance)
    np.testing.assert_allclose(linear_gaussian.log_likelihood(THETA, X), by_bayes, rtol=1e-5)
    gradient = jax.grad(linear_gaussian.log_likelihood)(THETA, X)
    np.testing.assert_allclose(gradient, (X - THETA) / 2, rtol=1e-5)


def test_gap_and_variance_expansions():
    """E and Var of L_K at K = 16 against simulation; the first order alone misses the variance."""
    model = linear_gaussian.make_model()
    objective = bounds.pathwise(model, num_samples=16)
    measured = moments(lambda key: objective(PARAMS, key, X), num_replicates=200_000)
    exact = linear_gaussian.log_likelihood(THETA, X)
    assert_unbiased(measured, exact - linear_gaussian_theory.iwae_gap(DELTA, 16.0))
    assert_biased(measured, exact)
    variance = measured.m2 / (measured.count - 1)
    np.testing.assert_allclose(
        variance, linear_gaussian_theory.iwae_variance(DELTA, 16.0), rtol=0.015
    )
    first_order = jnp.expm1(linear_gaussian_theory.log1p_chi_square(DELTA)) / 16.0
    assert abs(first_order / variance - 1) > 0.02


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5])
def test_large_k_signal_and_noise(alpha):
    """Mean and deviation of both estimators at K = 512 against their closed forms."""
    model = linear_gaussian.make_model()
    delta = jnp.array([0.25, -0.1])
    params = PARAMS._replace(
        phi=linear_gaussian.exact_inference(THETA)._replace(bias=0.5 * THETA + delta)
    )
    bound = functools.partial(bounds.renyi, alpha=alpha)
    estimators = {
        "pathwise": bounds.pathwise(model, num_samples=512, bound=bound),
        "dreg": bounds.dreg(model, num_samples=512, alpha=alpha),
    }
    sign, log_mean = linear_gaussian_theory.expected_phi_gradient(delta, 512.0, alpha=alpha)
    deviations = {
        "pathwise": linear_gaussian_theory.log_sd_phi_pathwise(delta, 512.0, alpha=alpha),
        "dreg": linear_gaussian_theory.log_sd_phi_dreg(delta, 512.0, alpha=alpha),
    }
    for name, objective in estimators.items():
        measured = moments(
            lambda key, o=objective: jax.grad(o)(params, key, X).phi.bias,
            num_replicates=4000,
            chunk_size=100,
        )
        deviation = jnp.sqrt(measured.m2 / (measured.count - 1))
        np.testing.assert_allclose(deviation, jnp.exp(deviations[name]), rtol=0.06)
        if name == "dreg":  # precise enough to see the 1/K of the mean
            np.testing.assert_allclose(measured.mean, sign * jnp.exp(log_mean), rtol=0.03)


def test_theta_snr_closed_form():
    model = linear_gaussian.make_model()
    objective = bounds.pathwise(model, num_samples=256)
    measured = moments(
        lambda key: jax.grad(objective)(PARAMS, key, X).theta, num_replicates=4000, chunk_size=200
    )
    expected = jnp.exp(linear_gaussian_theory.log_snr_theta(DELTA, X - THETA, 256.0))
    np.testing.assert_allclose(bounds.snr(measured), expected, rtol=0.06)


def test_alpha_zero_is_the_textbook_form():
    v, s, k = 2 / 3, 0.5, 100.0
    chi = np.exp(linear_gaussian_theory.log1p_chi_square(DELTA))
    sign, log_mean = linear_gaussian_theory.expected_phi_gradient(DELTA, k)
    mean = sign * jnp.exp(log_mean)
    np.testing.assert_allclose(mean, -chi * DELTA / ((2 * v - s) * k), rtol=1e-4)
    tau = 1 / (2 / s - 1 / v)
    q = tau + (tau * DELTA / v) ** 2
    expected = np.sqrt(chi) * np.abs(DELTA) / ((2 * v - s) * 2 * np.sqrt(k * q))
    np.testing.assert_allclose(
        jnp.exp(linear_gaussian_theory.log_snr_phi(DELTA, k)), expected, rtol=1e-4
    )
    m = {n: np.asarray(_moment(DELTA, n), np.float64) for n in ((2, 1), (3, 1), (4, 2))}
    cross = m[4, 2] - m[2, 1] ** 2 - 4 * m[2, 1] * (m[3, 1] - m[2, 1])
    variance = (cross + 4 * m[2, 1] ** 2 * (chi - 1)) / k**3
    got = jnp.exp(2 * linear_gaussian_theory.log_sd_phi_dreg(DELTA, k))
    np.testing.assert_allclose(got, variance, rtol=1e-3)


def _moment(delta, which):
    """E_q[r^n g^j] by quadrature over one dimension, times the mass of the others."""
    power, degree = which
    out = []
    for d in range(2):
        log_r, z, mass = quadrature_log_w(float(delta[d]), 2 / 3)
        g = -z / 0.5 + (z - float(delta[d])) / (2 / 3)
        other = linear_gaussian_theory.log_weight_moment(delta[1 - d][None], float(power))
        out.append((mass * np.exp(power * log_r) * g**degree).sum() * np.exp(other))
    return np.array(out)


def test_closed_forms_survive_the_far_case():
    """log(1 + chi-square) near 250 overflows float32; its logarithms do not."""
    delta = jnp.full(20, np.sqrt(211 / 20))
    assert linear_gaussian_theory.log1p_chi_square(delta) > 200
    for fn in (linear_gaussian_theory.log_snr_phi, linear_gaussian_theory.log_snr_phi_dreg):
        assert np.all(np.isfinite(fn(delta, 1000.0)))
    assert np.all(np.isfinite(linear_gaussian_theory.log_snr_theta(delta, jnp.ones(20), 1000.0)))


def test_generate_and_optimum():
    data = linear_gaussian.generate(jax.random.key(0), 4000, 3)
    params = linear_gaussian.optimum(data)
    gradient = jax.vmap(jax.grad(linear_gaussian.expected_elbo), (None, 0))(params, data)
    jax.tree.map(lambda g: np.testing.assert_allclose(g.mean(0), 0, atol=1e-4), gradient)
    np.testing.assert_allclose(np.var(np.asarray(data), axis=0), 2.0, rtol=0.15)
    perturbed = linear_gaussian.perturb(params, jax.random.key(1), 0.01)
    difference = np.concatenate(
        [
            np.ravel(a - b)
            for a, b in zip(jax.tree.leaves(perturbed), jax.tree.leaves(params), strict=True)
        ]
    )
    assert 0.003 < difference.std() < 0.03
    with pytest.raises(ValueError, match="variance must be positive"):
        linear_gaussian.make_model(0.0)


# --- two layers -------------------------------------------------------------------------------


def test_two_layers_at_the_exact_posterior():
    model = two_layer_gaussian.make_model()
    theta = two_layer_gaussian.Generative(jnp.array([0.2, -0.4]), jnp.array(0.8), jnp.array(1.1))
    params = bounds.Params(theta, two_layer_gaussian.exact_inference(theta))
    log_w = bounds.log_weights(model, params, jax.random.key(0), X, num_samples=20)
    exact = two_layer_gaussian.log_likelihood(theta, X)
    np.testing.assert_allclose(log_w, exact, rtol=2e-5)
    grads = jax.grad(bounds.dreg(model, num_samples=4))(params, jax.random.key(1), X)
    jax.tree.map(lambda g: np.testing.assert_allclose(g, 0, atol=2e-5), grads.phi)


def test_two_layers_likelihood_by_quadrature():
    theta = two_layer_gaussian.Generative(jnp.array([0.2]), jnp.array(0.8), jnp.array(1.1))
    x = jnp.array([1.2])
    noise, mass = gauss_hermite(60, 2)
    z2 = theta.prior_mean[None] + noise[:, :1]
    z1 = theta.upper * z2 + np.sqrt(0.5) * noise[:, 1:]
    log_px = jax.vmap(lambda z1: bounds.densities.gaussian_log_prob(x, theta.lower * z1, 0.25))(z1)
    expected = jnp.log(jnp.sum(mass * jnp.exp(log_px)))
    exact = two_layer_gaussian.log_likelihood(theta, x)
    np.testing.assert_allclose(exact, expected, rtol=1e-4)


# --- enumerable -------------------------------------------------------------------------------


def test_enumerable_is_a_distribution_and_bounds_rise_to_it():
    params = enumerable.init(jax.random.key(0), num_states=4, num_symbols=3)
    total = sum(jnp.exp(enumerable.log_likelihood(params.theta, jnp.array(x))) for x in range(3))
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)
    x = jnp.array(1)
    values = [enumerable.expected_bound(bounds.iwae, params, x, k) for k in (1, 2, 3, 5)]
    exact = enumerable.log_likelihood(params.theta, x)
    assert np.all(np.diff(values) > 0)
    assert values[-1] < exact
    weights = enumerable.expectation(lambda log_w, z: jnp.exp(bounds.iwae(log_w)), params, x, 3)
    np.testing.assert_allclose(jnp.log(weights), exact, rtol=TIGHT)


def test_enumerable_elbo_gap_is_the_kl_to_the_posterior():
    params = enumerable.init(jax.random.key(0), num_states=4, num_symbols=3)
    x = jnp.array(2)
    log_joint = enumerable.log_joint(params.theta, x)
    exact = enumerable.log_likelihood(params.theta, x)
    log_q = jax.nn.log_softmax(params.phi[x])
    kl = jnp.sum(jnp.exp(log_q) * (log_q - (log_joint - exact)))
    elbo = enumerable.expected_bound(bounds.elbo, params, x, 1)
    np.testing.assert_allclose(exact - elbo, kl, rtol=1e-4)


def test_enumerable_simulates_its_joint():
    params = enumerable.init(jax.random.key(0), num_states=4, num_symbols=3)
    keys = jax.random.split(jax.random.key(1), 50_000)
    x, z = jax.vmap(enumerable.simulate, (None, 0))(params.theta, keys)
    counts = np.zeros((4, 3))
    np.add.at(counts, (np.asarray(z), np.asarray(x)), 1)
    joint = np.exp(
        np.stack([enumerable.log_joint(params.theta, jnp.array(v)) for v in range(3)], 1)
    )
    error = np.sqrt(joint * (1 - joint) / 50_000)
    assert np.all(np.abs(counts / 50_000 - joint) < 5 * error)


# --- VAE --------------------------------------------------------------------------------------


def test_vae_sizes_and_initial_output_are_burdas():
    pixel_mean = jnp.linspace(0, 1, 784)
    model = vae.make_vae(784)
    params = model.init(jax.random.key(0), pixel_mean)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    encoder = 784 * 200 + 200 + 200 * 200 + 200 + 2 * (200 * 50 + 50)
    decoder = 50 * 200 + 200 + 200 * 200 + 200 + 200 * 784 + 784
    assert count == encoder + decoder
    bias = params.theta[0]["params"]["outputs"]["bias"]
    np.testing.assert_allclose(jax.nn.sigmoid(bias), jnp.clip(pixel_mean, 0.001, 0.999), rtol=1e-4)
    with pytest.raises(ValueError, match="one entry for each stochastic layer"):
        vae.make_vae(784, latents=(50,), hidden=())


@pytest.mark.parametrize(
    "sizes",
    [vae.BURDA_ONE_LAYER, pytest.param(vae.BURDA_TWO_LAYERS, marks=pytest.mark.slow)],
    ids=["1", "2"],
)
def test_vae_trains_under_every_reparameterized_estimator(sizes):
    model = vae.make_vae(16, **sizes)
    params = model.init(jax.random.key(0), jnp.full(16, 0.5))
    x, z = model.simulate(params.theta, jax.random.key(3))
    assert x.shape == (16,)
    assert [v.shape[0] for v in z] == list(sizes["latents"])
    for objective in (
        bounds.pathwise(model.model, num_samples=3),
        bounds.dreg(model.model, num_samples=3),
        bounds.rws(model.model, num_samples=3, simulate=model.simulate),
    ):
        grads = jax.grad(objective)(params, jax.random.key(4), x)
        for leaf in jax.tree.leaves(grads):
            assert np.all(np.isfinite(leaf))
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads.phi))
