"""Integers under the probability-flow ODE: noise against the exact probability of every cell.

The score is that of a mixture of Gaussians, so that the probability of a cell is a difference of
distribution functions; what is a bound, and what only looks like one, is then seen exactly.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from ode_cases import Mixture, linear, model_of
from scipy import stats

import bounds
from bounds import densities, dequantization, diffusion

X64 = oracles.X64
TIGHT = 1e-4 if X64 else 5e-4
GAMMA_MAX, SHARE = 18.0, 0.3  # of the truncated normal's scale, in levels
NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)
NODES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2

SIZES = [*itertools.product((1, 2), (4, 17, 256))]
each_size = pytest.mark.parametrize(("dims", "levels"), SIZES)


def gamma_min(levels):
    return 2 * math.log(2 * SHARE / (levels - 1))


def data_of(dims):
    means = np.array([[-0.5, 0.2], [0.6, 0.5], [0.1, -0.7]])[:, :dims]
    return Mixture(jnp.log(jnp.array([0.5, 0.3, 0.2])), jnp.asarray(means, float),
                   jnp.array([0.05, 0.1, 0.2]))  # fmt: skip


def model(dims, levels):
    return model_of(
        data_of(dims).x_hat,
        linear(gamma_min(levels), GAMMA_MAX),
        encode=lambda x: densities.scale_levels(x, levels=levels),
    )


def exact_log_prob(x, levels):
    """log P(x) [N] of the cells x [N, D]: x + u is z_0 / alpha_0 in the unit of the levels."""
    data, x = data_of(x.shape[1]), np.asarray(x, np.float64)
    edges = [(2 * (x + end) - 1) / (levels - 1) - 1 for end in (0, 1)]
    w = math.exp(gamma_min(levels))
    parts = [
        np.prod(np.diff([stats.norm.cdf(e, m, math.sqrt(v + w)) for e in edges], axis=0)[0], -1)
        for m, v in zip(np.asarray(data.means), np.asarray(data.variances), strict=True)
    ]
    return np.log(np.exp(np.asarray(data.log_weights, np.float64)) @ np.array(parts))


def squeezed(phi, x):
    """The learned kind: logit-logistic noise whose location follows the image."""
    return 0.3 * jnp.tanh(x - 1.0), jnp.full(x.shape, math.log(0.5))


def reference(name, x, u):
    """log q(u | x) summed over pixels, [N, nodes], without the library."""
    if name == "uniform":
        return np.zeros(u.shape[:-1])
    if name == "truncated normal":
        law = stats.truncnorm(-0.5 / SHARE, 0.5 / SHARE, 0.5, SHARE)
        return law.logpdf(u).sum(-1)
    v = np.log(u) - np.log1p(-u)
    location = 0.3 * np.tanh(np.asarray(x, np.float64)[:, None] - 1)
    return (stats.logistic.logpdf(v, location, 0.5) - np.log(u) - np.log1p(-u)).sum(-1)


NOISES = {
    "uniform": dequantization.uniform(),
    "truncated normal": dequantization.truncated_normal(SHARE),
    "learned": dequantization.logistic(squeezed),
}


def grid(dims):
    """(u [M, D], weights [M]) over a cell."""
    u = np.stack(np.meshgrid(*[NODES] * dims, indexing="ij"), -1).reshape(-1, dims)
    return u, functools.reduce(np.multiply.outer, [WEIGHTS] * dims).reshape(-1)


def cells(dims, levels):
    """A few of them, the corners among them."""
    some = sorted({0, levels // 3, levels // 2, levels - 1})[: 4 if dims == 1 else 3]
    return np.array(list(itertools.product(some, repeat=dims)), float)[:5]


def density_of(dims, levels, num_steps=96):
    return diffusion.ode_log_density(model(dims, levels), levels=levels, num_steps=num_steps)


def parts(noise, density, x):
    """Of every cell: (log of the integral of p(x, v), ELBO), by the library's model of v."""
    latent = dequantization.dequantized(density, noise)
    u, weights = grid(x.shape[1])
    v = jnp.asarray(np.log(u) - np.log1p(-u), float)
    volume = weights / np.prod(u * (1 - u), -1)  # of v
    both = jax.jit(
        jax.vmap(
            lambda x: jax.vmap(lambda v: (latent.log_p(None, x, v), latent.log_q(None, x, v)))(v)
        )
    )
    log_p, log_q = (np.asarray(found, np.float64) for found in both(jnp.asarray(x, float)))
    return np.log(np.exp(log_p) @ volume), (np.exp(log_q) * (log_p - log_q)) @ volume


def divergence(name, x, levels):
    """KL(q(u | x) || p(u | x)), without the library: the posterior is p of the data in the cell."""
    dims, (u, weights) = x.shape[1], grid(x.shape[1])
    data, w = data_of(dims), math.exp(gamma_min(levels))
    y = (2 * (x[:, None] + u) - 1) / (levels - 1) - 1
    log_parts = [
        log_weight + stats.norm.logpdf(y, m, math.sqrt(v + w)).sum(-1)
        for log_weight, m, v in zip(*(np.asarray(leaf, np.float64) for leaf in data), strict=True)
    ]
    log_p = np.logaddexp.reduce(log_parts) + dims * math.log(2 / (levels - 1))
    log_q = reference(name, x, np.broadcast_to(u, y.shape))
    return (np.exp(log_q) * (log_q - log_p + exact_log_prob(x, levels)[:, None])) @ weights


def total(dims, levels, density):
    """sum_x P(x); the more levels, the flatter the density in a cell."""
    count = {4: 6, 17: 3, 256: 1}[levels]
    nodes, weights = np.polynomial.legendre.leggauss(count)
    axis = (np.arange(levels)[:, None] + (nodes + 1) / 2).reshape(-1)
    mass = np.tile(weights / 2, levels)
    keep = slice(None)
    if (dims, levels) == (2, 256):  # every fourth row and column, in the place of all
        keep = slice(None, None, 4)
    axis, mass = axis[keep], mass[keep] * len(mass) / len(mass[keep])
    points = np.stack(np.meshgrid(*[axis] * dims, indexing="ij"), -1).reshape(-1, dims)
    masses = functools.reduce(np.multiply.outer, [mass] * dims).reshape(-1)
    x = np.floor(points)
    log_p = jax.jit(jax.vmap(lambda x, u: density(None, x, u)))
    found = log_p(jnp.asarray(x, float), jnp.asarray(points - x, float))
    return masses @ np.exp(np.asarray(found, np.float64))


@pytest.mark.x64
@each_size
def test_every_noise_bounds_the_exact_probability_by_its_divergence(dims, levels):
    x, density = cells(dims, levels), density_of(dims, levels)
    exact = exact_log_prob(x, levels)
    for name, noise in NOISES.items():
        mass, elbo = parts(noise, density, x)
        np.testing.assert_allclose(mass, exact, atol=TIGHT)
        assert np.all(elbo <= exact + TIGHT)
        np.testing.assert_allclose(exact - elbo, divergence(name, x, levels), atol=TIGHT)


@pytest.mark.x64
@each_size
def test_probabilities_of_all_images_sum_to_at_most_one(dims, levels):
    found = total(dims, levels, density_of(dims, levels, 48))
    inside = exact_log_prob(np.array(list(itertools.product(range(levels), repeat=dims))), levels)
    assert found <= 1 + TIGHT
    assert found == pytest.approx(np.exp(inside).sum(), abs=1e-3)


def broken(name, dims, levels):
    """Densities met in public evaluators, in the place of `ode_log_density`'s."""
    right, made = density_of(dims, levels, 48), model(dims, levels)
    alpha = math.sqrt(1 / (1 + math.exp(gamma_min(levels))))
    if name == "no noise":
        return lambda theta, x, u: right(theta, x, jnp.full(u.shape, 0.5))
    if name == "without the term of the start":
        return lambda theta, x, u: right(theta, x, u) - dims * math.log(alpha)
    if name == "offset of 256 levels":
        return lambda theta, x, u: right(theta, x, u) + dims * math.log((levels - 1) / 255)
    assert name == "at the data"

    def at_the_data(theta, x, u):  # where z_0 is to stand, with nothing for the step from x to it
        y = densities.scale_levels(x, levels=levels)
        found = diffusion.ode_log_prob(made, None, None, y, num_steps=48)
        return found.value + dims * math.log(2 / (levels - 1))

    return at_the_data


DEFECTS = ["no noise", "without the term of the start", "offset of 256 levels", "at the data"]


@pytest.mark.x64
@pytest.mark.parametrize("name", DEFECTS)
def test_known_defects_are_rejected(name):
    x = cells(1, 4)
    mass, elbo = parts(NOISES["uniform"], broken(name, 1, 4), x)
    exact = exact_log_prob(x, 4)
    assert not np.allclose(mass, exact, atol=10 * TIGHT)
    assert not np.allclose(exact - elbo, divergence("uniform", x, 4), atol=10 * TIGHT)
    if name == "without the term of the start":
        assert total(1, 4, broken(name, 1, 4)) > 1 + 10 * TIGHT
    if name in ("no noise", "at the data"):  # what a mode gains nobody pays for
        assert np.any(elbo > exact + 10 * TIGHT)


def log_weights(noise, fresh, count, num_samples):
    """[count, K] of one image of two pixels, with the exact trace or fresh probes."""
    dims, levels, steps = 2, 4, 24
    made, x = model(dims, levels), jnp.array([1.0, 2.0])
    density = density_of(dims, levels, steps)
    alpha = math.sqrt(1 / (1 + math.exp(gamma_min(levels))))
    width = 2 / (levels - 1)

    def one(key):
        noise_key, probe_key = jax.random.split(key)
        v, log_q = noise.propose(None, noise_key, x)
        slope = jnp.sum(jax.nn.log_sigmoid(v) + jax.nn.log_sigmoid(-v))
        u = jax.nn.sigmoid(v)
        if not fresh:
            return density(None, x, u) + slope - log_q
        z_0 = alpha * (densities.scale_levels(x, levels=levels) + width * (u - 0.5))
        found = diffusion.ode_log_prob(
            made, None, probe_key, z_0, num_steps=steps, trace="hutchinson"
        )
        return found.value + dims * math.log(alpha * width) + slope - log_q

    keys = jax.random.split(jax.random.key(7), count * num_samples)
    found = np.asarray(jax.jit(jax.vmap(one))(keys), np.float64)
    return found.reshape(count, num_samples), exact_log_prob(np.array([[1.0, 2.0]]), levels)[0]


def mean_and_error(values):
    return values.mean(), values.std(ddof=1) / math.sqrt(values.size)


@pytest.mark.parametrize("name", NOISES)
def test_bounds_rise_with_the_samples_to_the_exact_value(name):
    log_w, exact = log_weights(NOISES[name], False, 1500, 8)
    (first, first_error), (eighth, error) = (
        mean_and_error(np.asarray(bounds.iwae(jnp.asarray(log_w[:, :k], float)), np.float64))
        for k in (1, 8)
    )
    assert first + 3 * first_error < eighth < exact + oracles.z_limit(1) * error


def test_fresh_probes_in_a_logsumexp_exceed_the_exact_probability():
    """One at a time they are below it, as any bound by one sample; eight at a time they are not."""
    log_w, exact = log_weights(NOISES["truncated normal"], True, 1500, 32)
    single, error = mean_and_error(log_w[:, 0])
    assert single < exact + oracles.z_limit(1) * error
    together, error = mean_and_error(np.asarray(bounds.iwae(jnp.asarray(log_w, float)), np.float64))
    assert together > exact + oracles.z_limit(1) * error


@pytest.mark.parametrize("levels", [2, 16, 18, 256])
def test_levels_that_are_not_those_of_the_model_are_refused(levels):
    density = diffusion.ode_log_density(model(1, 17), levels=levels, num_steps=8)
    with pytest.raises(ValueError, match="levels"):
        density(None, jnp.array([1.0]), jnp.array([0.5]))


@pytest.mark.parametrize("scale", [0.05, 0.147, 1.0, 50.0])
def test_truncated_normal_noise_is_drawn_from_the_density_it_states(scale):
    noise = dequantization.truncated_normal(scale)
    x, law = jnp.zeros(1), stats.truncnorm(-0.5 / scale, 0.5 / scale, 0.5, scale)
    v, stated = jax.jit(jax.vmap(lambda key: noise.propose(None, key, x)))(
        jax.random.split(jax.random.key(0), 20_000)
    )
    u = np.asarray(jax.nn.sigmoid(v[:, 0]), np.float64)
    assert stats.kstest(u, law.cdf).pvalue > 1e-5
    slope = np.asarray(jax.nn.log_sigmoid(v) + jax.nn.log_sigmoid(-v))[:, 0]
    np.testing.assert_allclose(stated - slope, law.logpdf(u), atol=2e-3)
    assert np.isfinite(stated).all()


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ValueError, match="scale"):
        dequantization.truncated_normal(scale)
