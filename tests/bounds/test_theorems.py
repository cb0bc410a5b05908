"""The statements of docs/theory.md, each beside variants that the same check rejects.

Expectations are sums over every outcome of a small discrete model, and quadratures of the Gaussian
one in one dimension.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import TIGHT, gauss_hermite
from scipy import stats

import bounds
from models.exact import enumerable, linear_gaussian, quadrature

pytestmark = pytest.mark.x64
STATES = 3
every_seed = pytest.mark.parametrize("seed", range(4))


def case(seed):
    """Random parameters, a datum, and log p(x)."""
    params = enumerable.init(jax.random.key(seed), num_states=STATES, num_symbols=3)
    x = jnp.array(seed % 3)
    return params, x, float(enumerable.log_likelihood(params.theta, x))


def towards_posterior(params, x, share):
    """q mixed with the posterior: w < p(x) / share, so that limits in K are near at K = 128."""
    posterior = jax.nn.softmax(enumerable.log_joint(params.theta, x))
    q = share * posterior + (1 - share) * jax.nn.softmax(params.phi[x])
    return params._replace(phi=params.phi.at[x].set(jnp.log(q))), np.asarray(posterior, np.float64)


def expected(fn, params, x, num_samples):
    return float(enumerable.expected_bound(fn, params, x, num_samples))


def states(params, x):
    """q(z|x) and log w of the states that q reaches, in float64."""
    log_q = np.asarray(jax.nn.log_softmax(params.phi[x]), np.float64)
    log_w = np.asarray(enumerable.log_joint(params.theta, x), np.float64) - log_q
    reached = np.isfinite(log_q)
    return np.exp(log_q[reached]), log_w[reached]


def iwae_by_counts(q, log_w, num_samples):
    """E[L_K] at large K: L_K sees how often each state is drawn, which is multinomial."""
    first = itertools.product(range(num_samples + 1), repeat=len(q) - 1)
    counts = np.array([(*c, num_samples - sum(c)) for c in first if sum(c) <= num_samples])
    draws = np.stack([np.repeat(log_w, c) for c in counts])
    mass = stats.multinomial.pmf(counts, num_samples, q / q.sum())
    return float(mass @ np.asarray(bounds.iwae(draws), np.float64))


def agree(a, b, rtol=10 * TIGHT):
    return np.allclose(a, b, rtol=rtol, atol=rtol)


def rises_below(values, log_p):
    return bool(np.all(np.isfinite(values)) and np.all(np.diff([*values, log_p]) > TIGHT))


# --- the chain log p >= L_K >= L_M >= ELBO, and its limit -----------------------------------------

RIGHT = (bounds.elbo, bounds.iwae, lambda w: bounds.renyi(w, 0.5))
CHAINS = {
    **dict(zip(("ELBO", "IWAE", "VR-IWAE"), RIGHT, strict=True)),
    "without log K": lambda w: bounds.iwae(w) + math.log(w.size),
    "one draw for all": lambda w: bounds.iwae(jnp.full_like(w, w[0])),
}


@functools.partial(jax.jit, static_argnums=0)
def chain(name, params, x):
    """Expectations of the bound of the first 1, .., 6 of six draws."""
    return enumerable.expectation(
        lambda w, z: jnp.stack([CHAINS[name](w[:k]) for k in range(1, 7)]), params, x, 6
    )


@every_seed
def test_bounds_rise_strictly_with_samples_and_stay_below_log_p(seed):
    params, x, log_p = case(seed)
    values = {name: np.asarray(chain(name, params, x)) for name in CHAINS}
    q, log_w = states(params, x)
    assert agree([values["ELBO"][-1], values["IWAE"][0], values["VR-IWAE"][0]], q @ log_w)
    rising = {name for name in CHAINS if rises_below(values[name], log_p)}
    assert rising == {"IWAE", "VR-IWAE"}


@every_seed
def test_gap_falls_like_half_the_variance_of_the_weights_over_k(seed):
    params, x, log_p = case(seed)
    params, _ = towards_posterior(params, x, 0.5)
    q, log_w = states(params, x)
    assert agree(iwae_by_counts(q, log_w, 4), expected(bounds.iwae, params, x, 4))
    log_r = log_w - log_p
    gaps = [-iwae_by_counts(q, log_r, k) for k in (32, 64, 128)]
    assert gaps[0] > gaps[1] > gaps[2] > 0
    # K gap = limit + O(1/K), so that twice the one at 128 minus the one at 64 is off by O(1/K^2).
    limit = 2 * 128 * gaps[2] - 64 * gaps[1]
    variance = q @ np.square(np.exp(log_r) - 1)
    assert np.isclose(limit, variance / 2, rtol=0.02, atol=0)
    # Known to be wrong: the whole variance, and Var(w) without Z^2.
    assert not np.isclose(limit, variance, rtol=0.02, atol=0)
    assert not np.isclose(limit, math.exp(2 * log_p) * variance / 2, rtol=0.02, atol=0)


def by_indices(params, x, num_samples, indices):
    """Expectation, over K draws, of log mean w over some of them, averaged over `indices`."""
    indices = jnp.asarray(np.array(list(indices)))
    return expected(lambda w: jnp.mean(bounds.iwae(w[indices])), params, x, num_samples)


def test_indices_that_repeat_fall_short_in_the_smallest_example():
    """p(z) = (1/4, 3/4), x certain, q even: w = 1/2 or 3/2; two draws and two indices."""
    theta = enumerable.Generative(jnp.log(jnp.array([1.0, 3.0])), jnp.zeros((2, 1)))
    params, x = bounds.Params(theta, jnp.zeros((1, 2))), jnp.array(0)
    unit = math.log(3 / 4)
    assert agree([expected(bounds.iwae, params, x, k) for k in (1, 2)], [unit / 2, unit / 4])
    assert agree(by_indices(params, x, 2, itertools.permutations(range(2), 2)), unit / 4)
    assert agree(by_indices(params, x, 2, itertools.product(range(2), repeat=2)), 3 * unit / 8)


@every_seed
def test_the_proof_of_the_chain_needs_distinct_indices(seed):
    params, x, _ = case(seed)
    first, second = (expected(bounds.iwae, params, x, k) for k in (1, 2))
    assert agree(by_indices(params, x, 4, itertools.combinations(range(4), 2)), second)
    repeated = by_indices(params, x, 4, itertools.product(range(4), repeat=2))
    assert agree(repeated, 3 / 4 * second + first / 4)
    assert repeated < second - 0.001


@pytest.mark.parametrize("logit", [-8.0, -np.inf])
def test_mass_of_q_where_the_joint_is_zero_makes_every_bound_minus_infinity(logit):
    """p / q is bounded in both cases; only with the first is E_q|log w| finite."""
    params, x, _ = case(0)
    emission = params.theta.emission.at[0, x].set(logit)
    params = params._replace(theta=params.theta._replace(emission=emission))
    log_p = float(enumerable.log_likelihood(params.theta, x))
    q, log_w = states(params, x)
    assert np.all(np.exp(log_w) < 10)
    values = [expected(bounds.iwae, params, x, k) for k in range(1, 6)]
    assert rises_below(values, log_p) == np.isfinite(q @ log_w) == np.isfinite(logit)
    assert np.all(np.isneginf(values)) == np.isneginf(logit)
    # The mean of the weights does not mind.
    assert agree(expected(lambda w: jnp.exp(bounds.iwae(w)), params, x, 4), math.exp(log_p))


@every_seed
def test_a_part_of_the_posterior_that_q_misses_stays_in_the_gap(seed):
    params, x, log_p = case(seed)
    params, posterior = towards_posterior(params, x, 0.5)
    missed = int(np.argmax(posterior))
    for misses in (False, True):
        phi = params.phi.at[x, missed].set(-jnp.inf) if misses else params.phi
        q, log_w = states(params._replace(phi=phi), x)
        floor = -math.log(1 - posterior[missed]) if misses else 0.0
        gaps = [log_p - iwae_by_counts(q, log_w, k) for k in (1, 8, 64, 128)]
        assert all(gap > floor - 1e-5 for gap in gaps)
        limit = 2 * gaps[-1] - gaps[-2]
        assert agree(limit, floor, rtol=2e-3)
        assert agree(limit, 0, rtol=2e-3) == (not misses)


# --- the importance-resampled posterior, and the exact one ----------------------------------------


def resampled_posterior(params, x, num_samples):
    """Unnormalised q_IW(z|x, z_2 .. z_K) [z, others], and the probabilities of the others."""
    q, log_w = states(params, x)
    w = np.exp(log_w)
    others = list(itertools.product(range(len(q)), repeat=num_samples - 1))
    others = np.array(others, int).reshape(len(q) ** (num_samples - 1), num_samples - 1)
    mean = (w[:, None] + w[others].sum(axis=1)) / num_samples
    return (q * w)[:, None] / mean, q[others].prod(axis=1)


def energy_and_entropy(density, log_joint):
    """sum_z density (log p(x, z) - log density): the ELBO, if density sums to 1."""
    return np.sum(density * (log_joint[:, None] - np.log(density)), axis=0)


@every_seed
@pytest.mark.parametrize("num_samples", [1, 2, 4])
def test_bound_of_the_resampled_posterior_is_above_iwae(num_samples, seed):
    params, x, log_p = case(seed)
    log_joint = np.asarray(enumerable.log_joint(params.theta, x), np.float64)
    unnormalized, mass = resampled_posterior(params, x, num_samples)
    q_ew = unnormalized @ mass
    assert agree(q_ew.sum(), 1)

    def chosen(log_w, z):  # one of K draws by its weight
        return jnp.zeros(STATES).at[z].add(bounds.normalized_weights(log_w))

    assert agree(enumerable.expectation(chosen, params, x, num_samples), q_ew)
    iwae = expected(bounds.iwae, params, x, num_samples)
    assert agree(mass @ energy_and_entropy(unnormalized, log_joint), iwae)
    elbo = energy_and_entropy(q_ew[:, None], log_joint)[0]
    assert agree(elbo, iwae) == (num_samples == 1)
    if num_samples > 1:
        assert iwae < elbo < log_p
        # Given the others it is no density, and made one it has another value.
        sums = unnormalized.sum(axis=0)
        assert np.ptp(sums) > 0.01
        assert not agree(mass @ energy_and_entropy(unnormalized / sums, log_joint), iwae)


@every_seed
def test_at_the_posterior_every_bound_is_log_p_and_all_weights_count(seed):
    elsewhere, x, log_p = case(seed)
    there, posterior = towards_posterior(elsewhere, x, 1.0)
    for params, tight in ((there, True), (elsewhere, False)):
        assert agree(states(params, x)[1], log_p) == tight
        assert agree(expected(bounds.effective_sample_size, params, x, 4), 4) == tight
        assert all(agree(expected(b, params, x, 4), log_p) == tight for b in RIGHT)
        assert agree(resampled_posterior(params, x, 3)[0], posterior[:, None]) == tight


@pytest.mark.parametrize(("variance", "shift"), [(0.5, 0.0), (linear_gaussian.PAPER_VARIANCE, 0.3)])
def test_chain_and_mean_weight_of_the_gaussian_model(variance, shift):
    """The first q is the posterior."""
    model, theta, x = linear_gaussian.make_model(variance), jnp.array([-0.4]), jnp.array([1.5])
    phi = linear_gaussian.exact_inference(theta)
    phi = phi._replace(bias=phi.bias + shift)
    log_p, tight = float(linear_gaussian.log_likelihood(theta, x)), shift == 0.0
    log_q = model.log_q
    assert log_q is not None

    def log_w(noise):
        z = phi.weight @ x + phi.bias + math.sqrt(variance) * noise[None]
        return model.log_p(theta, x, z) - log_q(phi, x, z)

    values = []
    for k in (1, 2, 3):
        nodes, mass = gauss_hermite(30, k)
        log_weights = jax.vmap(jax.vmap(log_w))(nodes)
        values.append(float(mass @ bounds.iwae(log_weights)))
        assert agree(mass @ jnp.exp(bounds.iwae(log_weights)), math.exp(log_p))
        assert agree(mass @ jnp.exp(bounds.elbo(log_weights)), math.exp(log_p)) == (tight or k == 1)
        assert agree(mass @ bounds.effective_sample_size(log_weights), k) == (tight or k == 1)
    assert agree(values[0], linear_gaussian.expected_elbo(bounds.Params(theta, phi), x, variance))
    assert agree(values, log_p) if tight else rises_below(values, log_p)


# --- what the bounds are made of ------------------------------------------------------------------


@every_seed
@pytest.mark.parametrize("num_samples", [2, 4])
def test_mean_weight_is_the_likelihood(num_samples, seed):
    params, x, log_p = case(seed)
    mean = functools.partial(expected, params=params, x=x, num_samples=num_samples)
    assert agree(mean(lambda w: jnp.exp(bounds.iwae(w))), math.exp(log_p))
    # Not their geometric mean, not their harmonic mean, and not without a state of p(x, z).
    assert not agree(mean(lambda w: jnp.exp(bounds.elbo(w))), math.exp(log_p))
    assert not agree(1 / mean(lambda w: jnp.exp(-bounds.iwae(w))), math.exp(log_p))
    q, log_w = states(params._replace(phi=params.phi.at[x, 0].set(-jnp.inf)), x)
    missing = math.exp(float(enumerable.log_joint(params.theta, x)[0]))
    assert agree(q @ np.exp(log_w), math.exp(log_p) - missing)


@every_seed
def test_gaussian_kl_has_a_sum_over_dimensions(seed):
    mean, sigma = np.random.default_rng(seed).uniform(0.3, 2.0, (2, 3))
    nodes, mass = (np.asarray(part, np.float64) for part in gauss_hermite(5, 3))
    z = mean + sigma * nodes  # log q - log p is quadratic: five nodes are exact
    by_quadrature = mass @ (stats.norm.logpdf(z, mean, sigma) - stats.norm.logpdf(z)).sum(axis=1)
    squares = mean @ mean + sigma @ sigma
    assert agree(bounds.densities.gaussian_kl(jnp.asarray(mean, float), sigma**2), by_quadrature)
    assert agree((squares - 2 * np.log(sigma).sum() - 3) / 2, by_quadrature)
    misprints = [(squares - 2 * np.log(s) - 3) / 2 for s in sigma]
    misprints += [(squares - np.log(sigma).sum() - 3) / 2, (squares - 2 * np.log(sigma).sum()) / 2]
    assert not any(agree(value, by_quadrature) for value in misprints)


@every_seed
def test_readings_of_the_elbo_have_one_expectation(seed):
    params, x, log_p = case(seed)
    q, _ = states(params, x)
    log_prior = np.asarray(jax.nn.log_softmax(params.theta.prior), np.float64)
    log_joint = np.asarray(enumerable.log_joint(params.theta, x), np.float64)
    log_px, log_q, log_posterior = log_joint - log_prior, np.log(q), log_joint - log_p

    def kl(log_a, log_b):
        return np.exp(log_a) @ (log_a - log_b)

    def mean(of_z):  # of two draws, in expectation over all of them
        values = jnp.asarray(of_z, float)
        return float(enumerable.expectation(lambda _, z: jnp.mean(values[z]), params, x, 2))

    elbo, entropy = expected(bounds.elbo, params, x, 2), -q @ log_q
    assert agree(mean(log_px) - kl(log_q, log_prior), elbo)
    assert agree(mean(log_joint) + entropy, elbo)
    assert agree(log_p - kl(log_q, log_posterior), elbo)
    # Known to be wrong: no energy of the prior, and the wrong sign of the entropy.
    assert not agree(mean(log_px) + entropy, elbo)
    assert not agree(mean(log_joint) - entropy, elbo)
    # Nor can the divergences be turned round: at one end or the other that shows.
    turned = mean(log_px) - kl(log_prior, log_q), log_p - kl(log_posterior, log_q)
    assert not agree(turned, [elbo, elbo])


@every_seed
def test_concave_functions_of_means_are_above_the_means(seed):
    def jensen_gap(f, weights, x):
        return f(np.sum(weights * x, axis=-1)) - np.sum(weights * f(x), axis=-1)

    rng = np.random.default_rng(seed)
    weights, x = rng.dirichlet(np.ones(4), 200), rng.uniform(0.1, 10, (200, 4))
    for f in (np.log, np.sqrt, lambda x: -np.square(x)):
        assert np.all(jensen_gap(f, weights, x) > 0)
        assert np.all(jensen_gap(f, np.array([1.5, -0.5]), np.array([[3.0, 1.0]])) < 0)
    np.testing.assert_allclose(jensen_gap(lambda x: 3 - 2 * x, weights, x), 0, atol=1e-12)
    # Weights that do not sum to 1: linear functions do not see it, affine ones do.
    np.testing.assert_allclose(jensen_gap(lambda x: 2 * x, weights / 9, x), 0, atol=1e-12)
    np.testing.assert_allclose(jensen_gap(lambda x: 3 - 2 * x, weights / 9, x), 3 - 3 / 9)
    assert np.all(jensen_gap(np.log, weights / 99, x) < 0)
    # The ELBO and IWAE of four samples.
    gap = jensen_gap(np.log, np.full(4, 0.25), x)
    assert agree(bounds.iwae(np.log(x)) - bounds.elbo(np.log(x)), gap)


def test_dequantization_needs_noise_inside_the_cell_and_data_inside_the_range():
    levels, location = 8, 6.0

    def log_density(theta, x, u):  # logistic, with tails above 8 and below 0
        return jnp.sum(jax.scipy.stats.logistic.logpdf(x + u, theta))

    noise = bounds.dequantization.normal(lambda phi, x: (jnp.zeros(1), jnp.zeros(1)))
    model, params = (
        bounds.dequantization.dequantized(log_density, noise),
        bounds.Params(location, None),
    )
    found = quadrature.integrate(model, params, quadrature.every_x(levels, 1))
    edges = stats.logistic.cdf(np.arange(levels + 1), location)
    assert agree(np.exp(found.log_prob), np.diff(edges), rtol=1e-4)
    assert np.exp(found.log_prob).sum() < 0.9  # the tails are of no integer
    assert np.all(found.elbo < found.log_prob)
    # The same noise, not squeezed into [0, 1): no bound.
    nodes, mass = (np.asarray(part, np.float64) for part in gauss_hermite(60, 1))
    log_ratio = stats.logistic.logpdf(np.arange(levels) + nodes, location) - stats.norm.logpdf(
        nodes
    )
    assert np.any(mass @ log_ratio > found.log_prob + 0.1)
