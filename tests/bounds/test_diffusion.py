"""The diffusion bound against Gaussian data, a VAE and its own other forms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.scipy.stats import norm

import bounds
from bounds._diffusion import terms_at
from models import diffusion

X64 = oracles.X64
TIGHT = 1e-10 if X64 else 2e-4


def gaussian_model(gamma, data_variance, variance=None):
    """Exact denoiser for one-dimensional data N(0, s^2); None is the exact reverse variance."""
    mean = functools.partial(diffusion.gaussian_posterior_mean, data_variance)
    denoise = diffusion.gaussian_denoise(data_variance)
    if variance is not None:
        denoise = bounds.diffusion.denoiser(
            lambda theta, x_t, g: mean(x_t, g), prediction="x", variance=variance
        )

    def log_decoder(theta, x, x_1, x_hat):
        spread = diffusion.gaussian_posterior_variance(data_variance, gamma[0])
        return norm.logpdf(x, mean(x_1, gamma[0]), jnp.sqrt(spread))

    return bounds.diffusion.Diffusion(gamma, lambda x: x, denoise, log_decoder)


def expected_terms(model, data_variance):
    """Exact: every term is quadratic in the datum and in the noise, and three nodes suffice."""
    (nodes, mass), scale = oracles.gauss_hermite(3, 2), math.sqrt(data_variance)
    terms = jax.vmap(lambda node: terms_at(model, None, scale * node[0], lambda t, _: node[1]))(
        nodes
    )
    return jax.tree.map(lambda leaf: jnp.tensordot(mass, leaf, 1), terms)


def gap(gamma, data_variance, variance=None):
    """NELBO - [H(x) + KL(q(x_T) || p(x_T))] in nats, which the identity makes 0."""
    terms = expected_terms(gaussian_model(gamma, data_variance, variance), data_variance)
    last = float(jax.nn.sigmoid(-gamma[-1]))
    marginal = last * data_variance + 1 - last
    entropy = 0.5 * math.log(2 * math.pi * math.e * data_variance)
    return (
        -float(bounds.diffusion.bound(terms)) - entropy - 0.5 * (marginal - 1 - math.log(marginal))
    )


@pytest.mark.x64
@pytest.mark.parametrize("data_variance", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("num_steps", [1, 2, 10, 1000])
def test_bound_of_gaussian_data_is_tight_at_every_number_of_steps(num_steps, data_variance):
    gamma = bounds.diffusion.cosine_schedule(num_steps)
    assert abs(gap(gamma, data_variance)) < TIGHT
    if num_steps > 20:
        assert abs(gap(bounds.diffusion.linear_schedule(num_steps), data_variance)) < TIGHT


@pytest.mark.x64
def test_broken_variants_of_the_bound_are_not_tight():
    gamma = bounds.diffusion.betas_schedule([0.2] * 5)
    model = gaussian_model(gamma, 0.25)
    terms = expected_terms(model, 0.25)
    whole = float(bounds.diffusion.bound(terms))
    assert abs(whole - float(bounds.diffusion.bound(terms._replace(prior=0.0)))) > 10 * TIGHT

    def without_variance(*arguments):  # the mean alone is right
        return model.denoise(*arguments)[0], jnp.zeros(())

    worse = expected_terms(model._replace(denoise=without_variance), 0.25)
    assert float(bounds.diffusion.bound(worse)) < whole - 0.01


@pytest.mark.x64
def test_large_reverse_variance_loses_nothing_in_the_limit():
    found = [gap(bounds.diffusion.cosine_schedule(t), 0.25, "fixed_large") for t in (100, 1000)]
    np.testing.assert_allclose(found[1], 6e-4, atol=5e-5 if X64 else 3e-4)
    assert 0 < found[1] < found[0]


@pytest.mark.skipif(not X64, reason="sums of a million terms")
@pytest.mark.x64
def test_small_reverse_variance_loses_half_of_eulers_constant_in_the_limit():
    expected = {
        (10**3, 1.0): 0.4649,
        (10**3, 0.25): 0.4563,
        (10**5, 1.0): 0.2925,
        (10**6, 1.0): 0.2891,
    }
    for (num_steps, data_variance), value in expected.items():
        found = gap(bounds.diffusion.linear_schedule(num_steps), data_variance, "fixed_small")
        np.testing.assert_allclose(found, value, atol=6e-5)
    assert abs(found - np.euler_gamma / 2) < 1e-3


@pytest.mark.x64
@pytest.mark.parametrize(("num_steps", "expected"), [(10, 17.71), (100, 7.244), (1000, 6.703)])
def test_vdm_of_gaussian_data_falls_to_its_closed_form(num_steps, expected):
    gamma = bounds.diffusion.discretize(bounds.diffusion.linear_gamma, num_steps)
    terms = expected_terms(gaussian_model(gamma, 1.0, "fixed_small"), 1.0)
    np.testing.assert_allclose(
        float(terms.diffusion.sum()), expected, atol=6e-3 if num_steps == 10 else 6e-4
    )
    assert float(terms.diffusion.sum()) > 6.647


def continuous_gaussian(data_variance=1.0, gamma=bounds.diffusion.linear_gamma):
    model = gaussian_model(jnp.zeros(1), data_variance, "fixed_small")
    return model._replace(gamma=gamma, log_decoder=lambda theta, x, z_0, x_hat: 0.0)


@pytest.mark.x64
@pytest.mark.parametrize("learned", [False, True])
def test_continuous_time_reaches_the_closed_form_whatever_the_schedule(learned):
    """1/2 ln[(1 + s^2 SNR_max) / (1 + s^2 SNR_min)], by quadrature over time."""
    gamma = bounds.diffusion.linear_gamma
    if learned:
        params = bounds.diffusion.init_monotone_gamma(4)
        params = {**params, "weights": jnp.array([-1.0, 1.0, 2.0, -2.0])}
        gamma = functools.partial(bounds.diffusion.monotone_gamma, params)
    model = continuous_gaussian(gamma=gamma)
    times = (jnp.arange(4000) + 0.5) / 4000
    key = jax.random.key(0)

    def term(time, sign):
        """Noise and its negative, for data of +-1: half the sum is exact for second moments."""
        found = bounds.diffusion.continuous_estimate(model, None, jax.random.clone(key), sign, time)
        return found.term

    noise = jax.random.normal(jax.random.split(jax.random.clone(key))[1], ())
    # The error of the exact denoiser is linear in x and eps; average over x = +-1 leaves
    # a^2 + b^2 eps^2, of which b^2 eps^2 is rescaled to its expectation by hand.
    both = 0.5 * (jax.vmap(term, (0, None))(times, 1.0) + jax.vmap(term, (0, None))(times, -1.0))
    none = jax.vmap(term, (0, None))(times, 0.0)
    mean = jnp.mean(both - none + none / noise**2)
    np.testing.assert_allclose(mean, 6.647, atol=6e-4 if X64 else 5e-3)


@pytest.mark.x64
def test_one_step_is_a_vae_with_a_fixed_encoder():
    gamma = bounds.diffusion.betas_schedule([0.3])
    model = gaussian_model(gamma, 0.5)
    alpha_bar = 0.7
    x, key = jnp.array(0.8), jax.random.key(0)

    def propose(phi, key, x):
        z = math.sqrt(alpha_bar) * x + math.sqrt(1 - alpha_bar) * jax.random.normal(key, (1,))
        return z, vae_log_q(phi, x, z)

    def vae_log_q(phi, x, z):
        return norm.logpdf(z[0], math.sqrt(alpha_bar) * x, math.sqrt(1 - alpha_bar))

    def log_p(theta, x, z):
        mean = 0.5 * math.sqrt(alpha_bar) / (0.5 * alpha_bar + 1 - alpha_bar) * z[0]
        variance = 0.5 * (1 - alpha_bar) / (0.5 * alpha_bar + 1 - alpha_bar)
        return norm.logpdf(z[0]) + norm.logpdf(x, mean, math.sqrt(variance))

    params = bounds.Params((), ())
    vae = bounds.LatentModel(propose, vae_log_q, log_p)
    latent = bounds.diffusion.trajectory(model)
    z, log_q = latent.propose((), key, x)
    np.testing.assert_allclose(log_q, vae_log_q((), x, z), rtol=1e-4)
    np.testing.assert_allclose(latent.log_p((), x, z), log_p((), x, z), rtol=1e-4)
    nodes, mass = oracles.gauss_hermite(3, 1)
    at_nodes = math.sqrt(alpha_bar) * x + math.sqrt(1 - alpha_bar) * nodes
    elbo = sum(
        m * (vae.log_p((), x, z) - vae.log_q((), x, z)) for z, m in zip(at_nodes, mass, strict=True)
    )
    terms = [terms_at(model, None, x, lambda t, _: n[0]) for n in nodes]  # noqa: B023
    found = sum(m * bounds.diffusion.bound(t) for t, m in zip(terms, mass, strict=True))
    np.testing.assert_allclose(found, elbo, rtol=1e-6 if X64 else 1e-4)
    log_w = bounds.log_weights(latent, params, jax.random.clone(key), x, num_samples=3)
    assert log_w.shape == (3,)


@pytest.mark.slow
def test_trajectories_are_legal_log_weights_of_several_dimensions():
    """The exact reverse chain leaves no variance; another bounds the same log p(x) from below."""
    gamma, s2 = bounds.diffusion.cosine_schedule(6), 0.5
    mean = functools.partial(diffusion.gaussian_posterior_mean, s2)

    def log_decoder(theta, x, x_1, x_hat):
        spread = diffusion.gaussian_posterior_variance(s2, gamma[0])
        return jnp.sum(norm.logpdf(x, mean(x_1, gamma[0]), jnp.sqrt(spread)))

    exact = bounds.diffusion.Diffusion(
        gamma, lambda x: x, diffusion.gaussian_denoise(s2), log_decoder
    )
    x = jnp.array([[0.3, -0.2], [1.1, 0.4]])
    params = bounds.Params((), ())
    last = float(jax.nn.sigmoid(-gamma[-1]))
    assert abs(last) < 1e-3  # so that q(x_T) is the prior up to that

    def weights(model, num_samples):
        return bounds.log_weights(
            bounds.diffusion.trajectory(model),
            params,
            jax.random.key(0),
            x,
            num_samples=num_samples,
        )

    log_w, log_p = weights(exact, 50), float(jnp.sum(norm.logpdf(x, 0, math.sqrt(s2))))
    np.testing.assert_allclose(log_w, log_p, atol=5e-3)
    small = exact._replace(
        denoise=bounds.diffusion.denoiser(lambda theta, x_t, g: mean(x_t, g), prediction="x")
    )
    log_w = weights(small, 20_000)
    elbo, error = float(bounds.elbo(log_w)), float(jnp.std(log_w)) / math.sqrt(log_w.size)
    assert elbo < log_p - 10 * error
    terms = jax.vmap(lambda k: bounds.diffusion.bound(bounds.diffusion.terms(small, None, k, x)))(
        jax.random.split(jax.random.key(1), 20_000)
    )
    other = float(jnp.std(terms)) / math.sqrt(terms.size)
    assert abs(elbo - float(jnp.mean(terms))) < 4.5 * math.hypot(error, other)
    assert elbo < float(bounds.iwae(log_w))


# --- parameterisations ----------------------------------------------------------------------------


def test_predictions_of_noise_data_and_v_are_one_model():
    gamma = bounds.diffusion.linear_schedule(100)
    x, key = jnp.array([0.4, -0.7]), jax.random.key(0)

    def noise_of(theta, x_t, g):
        return jnp.tanh(x_t * theta)

    def data_of(theta, x_t, g):
        alpha, sigma = jnp.sqrt(jax.nn.sigmoid(-g)), jnp.sqrt(jax.nn.sigmoid(g))
        return (x_t - sigma * noise_of(theta, x_t, g)) / alpha

    def v_of(theta, x_t, g):
        alpha, sigma = jnp.sqrt(jax.nn.sigmoid(-g)), jnp.sqrt(jax.nn.sigmoid(g))
        return alpha * noise_of(theta, x_t, g) - sigma * data_of(theta, x_t, g)

    def value(predict, prediction, theta):
        model = bounds.diffusion.Diffusion(
            gamma,
            lambda x: x,
            bounds.diffusion.denoiser(predict, prediction=prediction),
            lambda theta, x, x_1, x_hat: jnp.sum(norm.logpdf(x, x_1)),
        )
        terms = bounds.diffusion.terms(model, theta, jax.random.clone(key), x)
        return bounds.diffusion.bound(terms)

    both = [
        jax.value_and_grad(value, argnums=2)(predict, name, 0.8)
        for predict, name in ((noise_of, "eps"), (data_of, "x"), (v_of, "v"))
    ]
    for found in both[1:]:
        np.testing.assert_allclose(found, both[0], rtol=1e-3)


@pytest.mark.parametrize("prediction", bounds._diffusion_step.PREDICTIONS)
@pytest.mark.parametrize("variance", bounds._diffusion_step.VARIANCES)
def test_terms_are_the_textbook_formulas(prediction, variance):
    """In the betas of Ho et al., with nothing of gamma in it, and KLs between two Gaussians."""
    betas = np.linspace(0.05, 0.4, 5)
    abar = np.cumprod(1 - betas)
    gamma = bounds.diffusion.betas_schedule(betas)
    x, noise = np.array([0.4, -0.7]), np.random.default_rng(0).normal(size=(6, 2))
    share = 0.3

    def predict(theta, x_t, g):
        out = jnp.sin(x_t)
        return (out, jnp.full(x_t.shape, share)) if variance == "learned" else out

    model = bounds.diffusion.Diffusion(
        gamma,
        lambda x: x,
        bounds.diffusion.denoiser(predict, prediction=prediction, variance=variance),
        lambda theta, x, x_1, x_hat: 0.0,
    )
    terms = terms_at(model, None, jnp.asarray(x), lambda t, _: jnp.asarray(noise)[t])
    for t in range(2, 6):
        a, before, beta = abar[t - 1], abar[t - 2], betas[t - 1]
        x_t = math.sqrt(a) * x + math.sqrt(1 - a) * noise[t]
        wide = math.sqrt(a) + math.sqrt(1 - a)
        out = np.sin(x_t / wide if prediction == "velocity" else x_t)
        x_hat = {
            "eps": (x_t - math.sqrt(1 - a) * out) / math.sqrt(a),
            "x": out,
            "v": math.sqrt(a) * x_t - math.sqrt(1 - a) * out,
            "velocity": (x_t - math.sqrt(1 - a) * out) / wide,
        }[prediction]
        small = beta * (1 - before) / (1 - a)
        c1, c2 = math.sqrt(before) * beta / (1 - a), (1 - before) * math.sqrt(1 - beta) / (1 - a)
        s2 = {
            "fixed_small": small,
            "fixed_large": beta,
            "learned": math.exp(share * math.log(beta) + (1 - share) * math.log(small)),
        }[variance]
        kl = 0.5 * np.sum(math.log(s2 / small) + (small + (c1 * (x - x_hat)) ** 2) / s2 - 1)
        np.testing.assert_allclose(terms.diffusion[t - 2], kl, rtol=1e-9 if X64 else 2e-4)
        mean, log_variance = bounds.diffusion.reverse_step(
            model.denoise, None, jnp.asarray(x_t), gamma[t - 2], gamma[t - 1]
        )
        np.testing.assert_allclose(mean, c1 * x_hat + c2 * x_t, rtol=1e-9 if X64 else 2e-5)
        np.testing.assert_allclose(jnp.exp(log_variance), s2, rtol=1e-9 if X64 else 2e-4)
    prior = 0.5 * np.sum(abar[-1] * x**2 - abar[-1] - math.log(1 - abar[-1]))
    np.testing.assert_allclose(terms.prior, prior, rtol=1e-9 if X64 else 1e-4)


def test_terms_stand_jit_vmap_and_grad_and_keep_memory_flat():
    def value(theta, key, x, gamma):
        model = bounds.diffusion.Diffusion(
            gamma,
            lambda x: x,
            bounds.diffusion.denoiser(lambda theta, x_t, g: theta * x_t),
            lambda theta, x, x_1, x_hat: jnp.sum(norm.logpdf(x, theta * x_1)),
        )
        return bounds.diffusion.bound(bounds.diffusion.terms(model, theta, key, x))

    keys, x = jax.random.split(jax.random.key(0), 3), jnp.ones((3, 50))
    gamma = bounds.diffusion.cosine_schedule(20)
    batched = jax.jit(jax.vmap(jax.value_and_grad(value), (None, 0, 0, None)))
    values, grads = batched(0.3, keys, x, gamma)
    for i in range(3):
        one, grad = jax.value_and_grad(value)(
            0.3, jax.random.split(jax.random.key(0), 3)[i], x[i], gamma
        )
        np.testing.assert_allclose([values[i], grads[i]], [one, grad], rtol=1e-4)

    def memory(num_steps):
        run = jax.jit(value).lower(
            0.3, jax.random.key(0), x[0], bounds.diffusion.cosine_schedule(num_steps)
        )
        return run.compile().memory_analysis().temp_size_in_bytes

    assert memory(4000) < memory(100) + 4000 * 16 + 2000
