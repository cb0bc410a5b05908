"""The average KL of a data set taken apart, against sums and integrals over all z."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import stats
from scipy.special import logsumexp
from surgery_cases import (
    gaussian_table,
    gaussians,
    table_answers,
    table_factors,
    table_posteriors,
    table_terms,
)

import bounds
from models.exact import linear_gaussian

TOLERANCE = 1e-9 if oracles.X64 else 1e-5


def of_tables(table, prior, chunk_size=2):
    posteriors = jnp.asarray(table)
    log_prior = jnp.asarray(prior)

    @jax.jit
    def terms(z, one):
        return bounds.surgery.terms(
            z, one, posteriors,
            log_q=table_factors, log_prior=lambda z: table_factors(z, log_prior),
            chunk_size=chunk_size,
        )  # fmt: skip

    return table_terms(table, prior, terms)


@pytest.mark.x64
@pytest.mark.parametrize("seed", range(3))
def test_average_kl_is_information_plus_marginal_kl(seed):
    table, prior = table_posteriors(seed), table_posteriors(seed + 10, 1)[0]
    found, exact = of_tables(table, prior), table_answers(table, prior)
    for name in ("kl", "information", "marginal_kl"):
        np.testing.assert_allclose(found[name], exact[name], atol=TOLERANCE, err_msg=name)
    assert min(exact["information"], exact["marginal_kl"]) > 0.01
    np.testing.assert_allclose(
        found["kl"], found["information"] + found["marginal_kl"], atol=TOLERANCE
    )
    # Known to be wrong: the parts about another aggregated posterior, that of all data but one.
    other = of_tables(table[1:], prior)
    assert abs(other["information"] - exact["information"]) > 100 * TOLERANCE


@pytest.mark.x64
@pytest.mark.parametrize("seed", range(3))
def test_marginal_kl_is_total_correlation_plus_dimension_wise_kl(seed):
    table, prior = table_posteriors(seed), table_posteriors(seed + 10, 1)[0]
    found, exact = of_tables(table, prior), table_answers(table, prior)
    for name in ("total_correlation", "dimension_kl"):
        np.testing.assert_allclose(found[name], exact[name], atol=TOLERANCE, err_msg=name)
    assert exact["total_correlation"] > 1e-3  # positive, though each q(z | x) factorises
    parts = found["total_correlation"] + found["dimension_kl"].sum()
    np.testing.assert_allclose(parts, exact["marginal_kl"], atol=TOLERANCE)


@pytest.mark.x64
def test_parts_of_the_linear_gaussian_model():
    # x ~ N(mu, 2 I) has q(z) = N(A mu + b, 2 A A' + v I) in the limit of many data; here there are
    # eight of them, and every part is an integral on a grid.
    weight = jnp.array([[0.6, 0.3], [-0.2, 0.5]])
    phi = linear_gaussian.Inference(weight, jnp.array([0.1, -0.4]))
    data = linear_gaussian.generate(jax.random.key(3), 8, 2)
    mean = data @ phi.weight.T + phi.bias[None]
    variance = jnp.full_like(mean, linear_gaussian.PAPER_VARIANCE)
    posteriors = bounds.surgery.GaussianPosteriors(mean, variance)

    noise, weights = oracles.gauss_hermite(30, 2)
    draws = mean[:, None] + jnp.sqrt(variance)[:, None] * noise[None].astype(mean.dtype)

    @jax.jit
    def average(draws):
        of_one = jax.vmap(
            lambda z, m, v: bounds.surgery.terms(
                z, bounds.surgery.GaussianPosteriors(m, v), posteriors, chunk_size=3
            ), (0, None, None),
        )  # fmt: skip
        found = jax.vmap(of_one)(draws, mean, variance)
        return jax.tree.map(
            lambda v: jnp.mean(jnp.tensordot(v, weights.astype(v.dtype), [[1], [0]]), axis=0), found
        )

    found = average(draws)
    closed = jnp.mean(bounds.densities.gaussian_kl(mean, variance))
    np.testing.assert_allclose(found.kl, closed, atol=1e-4)

    axis = np.linspace(-9, 9, 721)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    factors = gaussian_table(grid, posteriors)
    joint = logsumexp(factors.sum(-1), axis=1) - np.log(8)
    area = (axis[1] - axis[0]) ** 2
    prior = stats.norm.logpdf(grid).sum(-1)
    entropy = -np.sum(np.exp(joint) * joint) * area
    own = np.mean(0.5 * np.log(2 * np.pi * np.e * np.asarray(variance, np.float64)).sum(-1))
    marginal_kl = np.sum(np.exp(joint) * (joint - prior)) * area
    np.testing.assert_allclose(found.information, entropy - own, atol=1e-4)
    np.testing.assert_allclose(found.marginal_kl, marginal_kl, atol=1e-4)

    dimensions = gaussian_table(np.stack([axis, axis], -1), posteriors)
    marginals = logsumexp(dimensions, axis=1) - np.log(8)  # [grid, D]
    step = axis[1] - axis[0]
    each = np.sum(np.exp(marginals) * (marginals - stats.norm.logpdf(axis)[:, None]), 0) * step
    np.testing.assert_allclose(found.dimension_kl, each, atol=1e-4)
    np.testing.assert_allclose(found.total_correlation, marginal_kl - each.sum(), atol=2e-4)


@pytest.mark.x64
def test_information_lies_between_zero_and_log_n():
    prior = table_posteriors(10, 1)[0]
    for sharpness in (0.0, 0.5, 2.0, 50.0):
        table = table_posteriors(4, 6, sharpness)
        exact = table_answers(table, prior)["information"]
        found = of_tables(table, prior)["information"]
        np.testing.assert_allclose(found, exact, atol=TOLERANCE)
        assert -TOLERANCE <= found <= np.log(6) + TOLERANCE
    # Two data points three times each: at most the entropy of the empirical distribution.
    table = table_posteriors(4, 2, 50.0).repeat(3, axis=0)
    assert of_tables(table, prior)["information"] <= np.log(2) + TOLERANCE


@pytest.mark.parametrize(("spread", "scale"), [(3.0, 0.1), (0.5, 1.0), (0.0, 1.0)])
def test_monte_carlo_information_is_below_log_n_and_not_below_zero(spread, scale):
    posteriors = gaussians(0, 64, 3, spread=spread, scale=scale)
    if spread == 0:  # collapsed: all posteriors are one
        posteriors = jax.tree.map(jnp.zeros_like, posteriors)._replace(variance=jnp.ones((64, 3)))
    noise = jax.random.normal(jax.random.key(1), (40, 64, 3))
    z = posteriors.mean[None] + jnp.sqrt(posteriors.variance)[None] * noise

    @jax.jit
    def information(z):
        of_all = jax.vmap(lambda z, one: bounds.surgery.terms(z, one, posteriors).information)
        return jax.vmap(of_all, (0, None))(z, posteriors)

    values = np.asarray(information(z), np.float64)
    assert np.all(values <= np.log(64) + 1e-5)
    error = np.sqrt(values.var(axis=0, ddof=1).mean() / values.size)
    assert values.mean() >= -3 * error - 1e-5


@pytest.mark.parametrize("chunk_size", [None, 4, 100])
def test_chunks_change_nothing_and_neither_do_they_in_the_gradient(chunk_size):
    posteriors = gaussians(2, 14, 3, spread=1.0, scale=0.5)
    z = jnp.array([0.3, -0.2, 1.1])

    def direct(z, posteriors):
        factors = jax.vmap(lambda p: bounds.surgery.aggregated_log_prob(z, jax.tree.map(
            lambda leaf: leaf[None], p)).marginals)(posteriors)  # fmt: skip
        joint = jax.nn.logsumexp(factors.sum(-1)) - jnp.log(14)
        return joint + jnp.sum(jax.nn.logsumexp(factors, axis=0) - jnp.log(14))

    def chunked(z, posteriors):
        found = bounds.surgery.aggregated_log_prob(z, posteriors, chunk_size=chunk_size)
        return found.joint + jnp.sum(found.marginals)

    def fast(z, posteriors):
        return bounds.surgery.fast_aggregated_log_prob(z, posteriors, chunk_size=chunk_size)

    def slow(z, posteriors):
        return bounds.surgery.aggregated_log_prob(z, posteriors, chunk_size=chunk_size).joint

    for one, other in ((chunked, direct), (fast, slow)):
        found = jax.jit(jax.value_and_grad(one, (0, 1)))(z, posteriors)
        expected = jax.value_and_grad(other, (0, 1))(z, posteriors)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=3e-6, rtol=2e-5)


@pytest.mark.x64
@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_impossible_posteriors_pass_no_gradient_and_no_nan(chunk_size):
    q = np.array([[[.5, .5, 0], [.2, .8, 0]], [[1., 0, 0], [.3, .3, .4]], [[.1, .2, .7], [1, 0, 0]],
                  [[.5, .5, 0], [.5, .5, 0]]])  # fmt: skip
    with np.errstate(divide="ignore"):
        table = jnp.asarray(np.log(q))

    def joint(table, z):
        return bounds.surgery.aggregated_log_prob(
            jnp.array(z), table, log_q=table_factors, chunk_size=chunk_size
        ).joint

    value, grads = jax.value_and_grad(joint)(table, [2, 0])
    np.testing.assert_allclose(value, np.log(0.7 * 1 / 4), rtol=1e-5)
    np.testing.assert_allclose(grads[2, 0, 2], 1.0, rtol=1e-5)  # all of it is of the one
    assert jnp.all(jnp.isfinite(grads))
    value, grads = jax.value_and_grad(joint)(table[3:], [2, 0])
    assert value == -jnp.inf
    assert jnp.all(grads == 0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_accumulates_in_float32(dtype):
    half = gaussians(8, 200, 50, spread=1.0, scale=0.3, dtype=dtype)
    z = half.mean[3]
    for found in (
        bounds.surgery.aggregated_log_prob(z, half, chunk_size=30).joint,
        bounds.surgery.fast_aggregated_log_prob(z, half, chunk_size=30),
        bounds.surgery.aggregated_log_prob(
            z, half,
            log_q=lambda z, p: bounds.densities.gaussian_log_prob(*(v[..., None] for v in (z, *p))),
        ).joint,
    ):  # fmt: skip
        assert found.dtype == jnp.float32


def test_memory_of_a_gradient_is_flat_but_for_the_gradient():
    def temporaries(chunk_size):
        posteriors = gaussians(2, 4000, 10, spread=1.0, scale=0.5)

        def value(posteriors, z):
            return bounds.surgery.aggregated_log_prob(z, posteriors, chunk_size=chunk_size).joint

        z = jnp.zeros((100, 10))
        run = jax.grad(lambda p, z: jnp.sum(jax.vmap(lambda z: value(p, z))(z)))
        compiled: Any = jax.jit(run).lower(posteriors, z).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(100) < 0.2 * temporaries(None)


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("center", [0.0, 100.0])
def test_fast_form_errs_by_what_its_docstring_says(scale, center):
    posteriors = gaussians(5, 300, 20, spread=1.0, scale=scale, dtype=jnp.float32)
    posteriors = posteriors._replace(mean=posteriors.mean + jnp.float32(center))
    noise = np.random.default_rng(6).normal(size=(40, 20))
    z = np.asarray(posteriors.mean[:40]) + np.sqrt(np.asarray(posteriors.variance[:40])) * noise
    z = jnp.asarray(z, jnp.float32)
    factors = gaussian_table(z, posteriors)
    exact = logsumexp(factors.sum(-1), axis=1) - np.log(300)

    def error(form):
        run = jax.jit(jax.vmap(lambda z: form(z, posteriors, chunk_size=64)))
        return np.abs(np.asarray(run(z), np.float64) - exact)

    safe = error(lambda z, p, chunk_size: bounds.surgery.aggregated_log_prob(
        z, p, chunk_size=chunk_size).joint)  # fmt: skip
    assert safe.max() < 3e-5
    offset = np.asarray(z, np.float64) - np.asarray(posteriors.mean, np.float64).mean(0)
    said = 1e-7 * (offset**2 / np.asarray(posteriors.variance[:40])).sum(-1)
    # A mean of 300 numbers near 100 is itself only known to their rounding.
    assert np.all(error(bounds.surgery.fast_aggregated_log_prob) <= 3e-5 + 3 * said)
    if center == 0 or scale == 1:
        return

    def uncentered(z, p, chunk_size):
        del chunk_size
        products = jnp.square(z) @ (1 / p.variance).T - 2 * z @ (p.mean / p.variance).T
        constants = jnp.square(p.mean) / p.variance + jnp.log(2 * jnp.pi * p.variance)
        return jax.nn.logsumexp(-0.5 * (products + constants.sum(-1))) - jnp.log(300)

    assert error(uncentered).max() > 10 * error(bounds.surgery.fast_aggregated_log_prob).max()


FORMS = {
    "safe": bounds.surgery.aggregated_log_prob,
    "fast": bounds.surgery.fast_aggregated_log_prob,
}


@pytest.mark.parametrize("form", FORMS)
def test_memory_is_flat_from_a_thousand_data_to_sixty_thousand(form):
    def temporaries(count):
        posteriors = jax.eval_shape(
            lambda: bounds.surgery.GaussianPosteriors(jnp.zeros((count, 10)), jnp.ones((count, 10)))
        )

        def run(z, posteriors):
            one = functools.partial(FORMS[form], posteriors=posteriors, chunk_size=500)
            return jax.lax.map(one, z, batch_size=20)

        points = jax.ShapeDtypeStruct((100, 10), jnp.zeros(0).dtype)
        compiled: Any = jax.jit(run).lower(points, posteriors).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = temporaries(1000), temporaries(60_000)
    assert few > 0
    assert many <= 1.05 * few + 4096


def test_active_units_of_burda():
    mean = jnp.array([[0.0, 0.0995, 1.0], [0.0, -0.0995, 1.0], [0.0, 0.101, 2.0], [0, -0.101, 2.0]])
    assert bounds.surgery.active_units(mean[:2]).tolist() == [False, False, False]
    assert bounds.surgery.active_units(mean[2:]).tolist() == [False, True, False]
    assert bounds.surgery.active_units(mean, threshold=0.2).tolist() == [False, False, True]


def test_aggregated_density_stands_shard_map():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    spec = jax.sharding.PartitionSpec("data")
    posteriors = gaussians(7, 9, 2, spread=1.0, scale=0.5)

    def terms(z, mean, variance):
        posteriors = bounds.surgery.GaussianPosteriors(mean, variance)
        one = functools.partial(
            bounds.surgery.aggregated_log_prob, posteriors=posteriors, chunk_size=4
        )
        return jax.vmap(one)(z).joint

    none = jax.sharding.PartitionSpec()
    z = jnp.array([[0.0, 1.0], [-0.5, 0.2]])
    both = jax.shard_map(terms, mesh=mesh, in_specs=(spec, none, none), out_specs=spec)
    np.testing.assert_allclose(jax.jit(both)(z, *posteriors), terms(z, *posteriors), rtol=1e-5)


GOOD = bounds.surgery.GaussianPosteriors(jnp.zeros((3, 2)), jnp.ones((3, 2)))
POINT = jnp.zeros(2)
MISTAKES = {
    "no data": (
        lambda: bounds.surgery.aggregated_log_prob(
            POINT, bounds.surgery.GaussianPosteriors(jnp.zeros((0, 2)), jnp.ones((0, 2)))
        ), "leading axis N of at least 1",
    ),
    "lengths": (
        lambda: bounds.surgery.aggregated_log_prob(
            POINT, bounds.surgery.GaussianPosteriors(jnp.zeros((3, 2)), jnp.ones((2, 2)))
        ), "the same leading axis",
    ),
    "no leaves": (lambda: bounds.surgery.aggregated_log_prob(POINT, ()), "of no leaf"),
    "joint log_q": (
        lambda: bounds.surgery.aggregated_log_prob(POINT, GOOD, log_q=lambda z, p: jnp.zeros(())),
        r"log_q must return one log-density for each dimension, \[D\], got shape \(\)",
    ),
    "prior": (
        lambda: bounds.surgery.terms(
            POINT, jax.tree.map(lambda v: v[0], GOOD), GOOD, log_prior=lambda z: jnp.zeros(3)
        ), "log_prior must return as many log-densities as log_q, 2, got 3",
    ),
    "one z": (
        lambda: bounds.surgery.aggregated_log_prob(jnp.zeros(1), GOOD), "jax.vmap over points"
    ),
    "no dimension": (
        lambda: bounds.surgery.aggregated_log_prob(POINT, jax.tree.map(lambda v: v[:, 0], GOOD)),
        "z must have shape",
    ),
    "batch of z": (
        lambda: bounds.surgery.fast_aggregated_log_prob(jnp.zeros((4, 2)), GOOD),
        "jax.vmap over points",
    ),
    "chunk": (
        lambda: bounds.surgery.aggregated_log_prob(POINT, GOOD, chunk_size=0),
        "chunk_size must be at least",
    ),
    "means": (lambda: bounds.surgery.active_units(jnp.zeros(3)), r"mean must have shape \[N, D\]"),
    "threshold": (
        lambda: bounds.surgery.active_units(jnp.zeros((3, 2)), threshold=-1), "threshold must",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    call, message = MISTAKES[name]
    with pytest.raises((ValueError, TypeError), match=message):
        call()
