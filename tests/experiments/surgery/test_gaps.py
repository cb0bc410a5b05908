"""The optimal prior and the two gaps of the ELBO, exactly, on the linear-Gaussian model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import stats
from scipy.special import logsumexp

import bounds
from experiments.surgery import decomposition, gaps, prior
from experiments.surgery.encoders import DatumQ, per_datum
from models.exact import linear_gaussian

pytestmark = pytest.mark.x64

# One dimension, p(z) = N(0, 1): five data, and an encoder that is right about none of them.
DATA = np.array([-2.5, -1.0, 0.3, 0.9, 3.1])
PHI = linear_gaussian.Inference(jnp.array([[0.7]]), jnp.array([0.2]))
VARIANCE = linear_gaussian.PAPER_VARIANCE
THETA = jnp.zeros(1)
MODEL = linear_gaussian.make_model(VARIANCE)
GRID = np.linspace(-14, 14, 14_001)


def mixture(means):
    means = jnp.asarray(means)[:, None]
    return bounds.surgery.GaussianPosteriors(means, jnp.full_like(means, VARIANCE))


MEANS = 0.7 * DATA + 0.2
PRIORS = {
    "q(z)": prior.aggregated(mixture(MEANS), chunk_size=2),
    "p(z)": prior.standard_normal,
    "q of half the data": prior.aggregated(mixture(MEANS[:3])),
    "the Gaussian of the moments of q(z)": lambda z: bounds.densities.gaussian_log_prob(
        z, MEANS.mean(), VARIANCE + MEANS.var()
    ),
    "N(0, 4)": lambda z: bounds.densities.gaussian_log_prob(z, 0.0, 4.0),
}  # fmt: skip


@functools.cache
def average_elbo(name):
    """Over the five data, by quadrature over z."""
    noise, weights = oracles.gauss_hermite(80, 1)
    model = prior.with_prior(MODEL, prior.standard_normal, PRIORS[name])

    @jax.jit
    def of_datum(x):
        z = (PHI.weight @ x + PHI.bias)[None] + jnp.sqrt(VARIANCE) * noise
        log_w = jax.vmap(lambda z: model.log_p(THETA, x, z) - MODEL.log_q(PHI, x, z))(z)
        return jnp.sum(weights * log_w)

    return np.mean([of_datum(jnp.asarray([x])) for x in DATA])


def log_mixture(means):
    factors = stats.norm.logpdf(GRID[:, None], means, np.sqrt(VARIANCE))
    return logsumexp(factors, axis=1) - np.log(len(means))


def divergence(name):
    """KL(q(z) || r) on a fine grid, in float64."""
    log_q = log_mixture(MEANS)
    log_r = {
        "q(z)": log_q,
        "p(z)": stats.norm.logpdf(GRID),
        "q of half the data": log_mixture(MEANS[:3]),
        "the Gaussian of the moments of q(z)": stats.norm.logpdf(
            GRID, MEANS.mean(), np.sqrt(VARIANCE + MEANS.var())
        ),
        "N(0, 4)": stats.norm.logpdf(GRID, 0.0, 2.0),
    }[name]
    return np.sum(np.exp(log_q) * (log_q - log_r)) * (GRID[1] - GRID[0])


def test_aggregated_posterior_is_the_optimal_prior():
    # With p(z) it is the ELBO that the model knows in closed form.
    exact = [
        linear_gaussian.expected_elbo(bounds.Params(THETA, PHI), jnp.asarray([x])) for x in DATA
    ]
    np.testing.assert_allclose(average_elbo("p(z)"), np.mean(exact), atol=1e-4)
    marginal_kl = divergence("p(z)")
    assert marginal_kl > 0.2
    rise = average_elbo("q(z)") - average_elbo("p(z)")
    np.testing.assert_allclose(rise, marginal_kl, atol=1e-4)
    # Every other prior falls short, by its divergence from q(z).
    for name in PRIORS:
        lack = average_elbo("q(z)") - average_elbo(name)
        np.testing.assert_allclose(lack, divergence(name), atol=1e-4, err_msg=name)
        assert name == "q(z)" or lack > 0.01


def test_rise_of_the_program_is_the_marginal_kl_of_the_same_draws():
    posteriors = mixture(MEANS)
    q = DatumQ(*(np.asarray(v) for v in (posteriors.mean, 0.5 * np.log(posteriors.variance))))
    draws, images = 4000, DATA[:, None].astype(posteriors.mean.dtype)
    found = prior.measure(
        MODEL.log_p,
        THETA,
        images,
        q,
        posteriors,
        jax.random.key(0),
        num_draws=draws,
        images_per_pass=2,
        posteriors_per_pass=2,
    )
    parts = decomposition.measure(
        posteriors, jax.random.key(0), num_draws=draws, images_per_pass=3, posteriors_per_pass=4
    )
    np.testing.assert_allclose(found.rise, parts.mean.terms.marginal_kl, atol=1e-5)
    for values, variance, name in (
        (found.elbo, found.variances[0], "p(z)"),
        (found.replaced, found.variances[1], "q(z)"),
    ):
        value, error = decomposition.stratified(values, variance, draws)
        assert abs(value - average_elbo(name)) < oracles.z_limit(1) * error
    value, error = decomposition.stratified(found.rise, found.variances[2], draws)
    assert abs(value - divergence("p(z)")) < oracles.z_limit(1) * error
    # Known to be wrong: the prior of half the data.
    other = prior.measure(
        MODEL.log_p, THETA, images, q, mixture(MEANS[:3]), jax.random.key(0), num_draws=draws
    )
    value, error = decomposition.stratified(other.rise, other.variances[2], draws)
    assert abs(value - divergence("p(z)")) > oracles.z_limit(1) * error


# Three dimensions, several data.
CENTER = jnp.array([0.4, -0.3, 1.0])
IMAGES = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0], [-1.5, 0.2, 2.2]])
DELTAS = np.array([[0.5, 0.0, -0.2], [0.0, 0.0, 0.0], [-0.9, 0.4, 0.3]])  # of the encoder's means
SLOW = gaps.Optimizer(num_steps=1500, learning_rate=0.05, num_samples=4)


def encoders(variance):
    """Gaussians whose means are off by DELTAS."""
    mean = (IMAGES + np.asarray(CENTER)) / 2 + DELTAS
    mean = mean.astype(CENTER.dtype)
    return DatumQ(mean, np.full_like(mean, 0.5 * np.log(variance)))


def exact_gap(q, x):
    """log p(x) - ELBO of any Gaussians, in closed form."""
    mean = (np.asarray(x) + np.asarray(CENTER)) / 2
    variance = linear_gaussian.POSTERIOR_VARIANCE
    return np.asarray(bounds.densities.gaussian_kl(q.mean, np.exp(2 * q.log_scale), mean, variance))


@pytest.mark.parametrize("variance", [VARIANCE, 0.3])
def test_gap_is_approximation_plus_amortisation(variance):
    """The variance of q stays: only its mean is optimised."""
    model = linear_gaussian.make_model(variance)
    # phi serves one datum each: its bias alone makes the mean.
    starts = [
        linear_gaussian.Inference(jnp.zeros((3, 3)), jnp.asarray(mean))
        for mean in encoders(variance).mean
    ]
    # The posterior is out of reach, so gradients vary to the end: many draws. With 64 the squared
    # error of the mean is 2e-5 to 7e-5 on average, and above 1e-3 once in a hundred million seeds.
    how = SLOW._replace(num_samples=64)
    run = jax.jit(lambda phi, key, x: gaps.optimize(model, bounds.Params(CENTER, phi), key, x, how))
    for number, (x, delta, start) in enumerate(zip(IMAGES, DELTAS, starts, strict=True)):
        x = jnp.asarray(x, CENTER.dtype)
        whole = linear_gaussian.elbo_gap(jnp.asarray(delta), variance)
        found = run(start, jax.random.key(number), x)
        left = linear_gaussian.discrepancy(bounds.Params(CENTER, found), x)
        approximation = linear_gaussian.elbo_gap(left, variance)
        expected = 1.5 * (2 * variance - 1 - np.log(2 * variance))
        np.testing.assert_allclose(approximation, expected, atol=1e-3)
        np.testing.assert_allclose(whole - approximation, np.sum(delta**2), atol=1e-3)


@functools.cache
def measured(how):
    images = IMAGES.astype(CENTER.dtype)
    return gaps.measure(
        MODEL.log_p,
        CENTER,
        images,
        encoders(VARIANCE),
        jax.random.key(0),
        how,
        num_draws=2000,
        num_samples=2000,
        images_per_pass=2,
        samples_per_pass=300,
    )


def test_optimized_gaussians_leave_no_gap_where_the_posterior_is_one():
    found = measured(SLOW)
    log_p = np.asarray(jax.vmap(linear_gaussian.log_likelihood, (None, 0))(CENTER, IMAGES))
    whole = exact_gap(encoders(VARIANCE), IMAGES)
    by_formula = [linear_gaussian.elbo_gap(jnp.asarray(d), VARIANCE) for d in DELTAS]
    np.testing.assert_allclose(whole, by_formula, atol=1e-5)
    left = exact_gap(DatumQ(*found.q), IMAGES)
    assert np.all(left < 1e-3)  # the approximation gap
    np.testing.assert_allclose(whole - left, whole, atol=1e-3)  # amortisation is all of it
    # What the program reports; at the posterior a weight does not vary.
    np.testing.assert_allclose(found.optimized, log_p, atol=1e-3)
    np.testing.assert_allclose(found.log_p, log_p, atol=1e-3)
    assert found.reliable.all()
    # Known to be wrong: the encoder's Gaussians, and an optimiser that stops too early.
    assert np.all(whole > 0.01)
    early = measured(SLOW._replace(num_steps=5))
    assert np.max(exact_gap(DatumQ(*early.q), IMAGES)) > 0.01
    assert np.max(np.abs(early.optimized - log_p)) > 0.01


def test_elbo_of_the_encoder_is_exact_within_its_error():
    found = measured(SLOW)
    log_p = np.asarray(jax.vmap(linear_gaussian.log_likelihood, (None, 0))(CENTER, IMAGES))
    exact = log_p - exact_gap(encoders(VARIANCE), IMAGES)
    # log w = c - s^2 / 2 + ... is quadratic in the noise; its variance in closed form.
    ratio = VARIANCE / linear_gaussian.POSTERIOR_VARIANCE
    slope = np.sqrt(VARIANCE) * DELTAS / linear_gaussian.POSTERIOR_VARIANCE
    variance = np.sum(0.5 * (1 - ratio) ** 2 + slope**2, axis=1)
    assert np.all(np.abs(found.encoder - exact) < oracles.z_limit(3) * np.sqrt(variance / 2000))


def test_rows_add_up_and_say_on_which_side_they_are():
    found = gaps.Gaps(
        np.array([-2.0, -3.0]),
        np.array([-3.0, -3.5]),
        np.array([-2.5, -3.25]),
        np.array([True, False]),
        None,
    )
    rows = {r["name"]: r for r in gaps.gap_rows({"model": "m"}, found, 100)}
    parts = rows["approximation gap"]["value"] + rows["amortisation gap"]["value"]
    np.testing.assert_allclose(rows["gap"]["value"], parts)
    np.testing.assert_allclose(rows["gap"]["value"], 0.75)
    np.testing.assert_allclose(rows["gap"]["standard_error"], 0.25)  # paired by image
    np.testing.assert_allclose(rows["reliable images"]["value"], 0.5)
    kinds = {name: r["kind"] for name, r in rows.items()}
    assert kinds["gap"] == kinds["amortisation gap"] == kinds["log p(x)"] == "lower_bound"
    assert kinds["approximation gap"] == "estimate"


def test_model_of_one_datum_is_that_of_its_encoder():
    x, q = jnp.asarray(IMAGES[0], CENTER.dtype), jax.tree.map(lambda v: v[0], encoders(VARIANCE))
    model = per_datum(MODEL.log_p)
    z, log_q = model.propose(q, jax.random.key(1), x)
    np.testing.assert_allclose(log_q, model.log_q(q, x, z), rtol=1e-5)
    phi = linear_gaussian.Inference(jnp.zeros((3, 3)), jnp.asarray(q.mean))
    other, other_q = MODEL.propose(phi, jax.random.clone(jax.random.key(1)), x)
    np.testing.assert_allclose(z, other, rtol=1e-5)
    np.testing.assert_allclose(log_q, other_q, rtol=1e-5)
