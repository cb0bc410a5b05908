"""NumPyro models: densities equal to those written by hand, and gradients exact in expectation."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax.scipy.stats import norm
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.infer import RenyiELBO
from numpyro_cases import CASES, STATES, constrained
from oracles import (
    X64,
    all_tuples,
    assert_unbiased,
    close,
    expected_gradient,
    flat,
    gauss_hermite,
    moments,
    z_limit,
)

import bounds

pytestmark = pytest.mark.x64
PRECISION = {"rtol": 1e-9, "atol": 1e-9} if X64 else {"rtol": 1e-5, "atol": 1e-5}


@functools.cache
def adapted(name):
    """(what from_numpyro makes, parameters away from the start)."""
    case = CASES[name]
    made = bounds.adapters.from_numpyro(case.model, case.guide)
    params = made.init(jax.random.key(0), case.x)
    return made, jax.tree.map(lambda leaf: leaf + 0.05, params)


def log_w_by_hand(case, params, z):
    return jax.vmap(
        lambda z: case.log_p(params.theta, case.x, z) - case.log_q(params.phi, case.x, z)
    )(z)


@pytest.mark.parametrize("name", CASES)
def test_log_weights_and_log_q_are_those_written_by_hand(name):
    case, (made, params) = CASES[name], adapted(name)
    objective = bounds.reinforce(made.model, num_samples=50, has_aux=True)
    value, aux = jax.jit(objective)(params, jax.random.key(1), case.x)
    expected = log_w_by_hand(case, params, aux.z)
    np.testing.assert_allclose(aux.log_w, expected, **PRECISION)
    np.testing.assert_allclose(value, bounds.iwae(expected), **PRECISION)
    log_q = jax.vmap(lambda z: made.model.log_q(params.phi, case.x, z))(aux.z)
    by_hand = jax.vmap(lambda z: case.log_q(params.phi, case.x, z))(aux.z)
    np.testing.assert_allclose(log_q, by_hand, **PRECISION)
    assert np.ptp(expected) > 0.1  # weights differ, so that equality says something


@pytest.mark.parametrize("name", CASES)
def test_iwae_is_renyi_elbo_of_numpyro_on_the_same_draws(name):
    """The models have no plate, over whose elements RenyiELBO would take a bound each."""
    case, (made, params) = CASES[name], adapted(name)
    key, num_samples = jax.random.key(2), 20
    elbo = RenyiELBO(alpha=0, num_particles=num_samples)
    expected = -elbo.loss(key, constrained(params), case.model, case.guide, case.x)

    def log_w(key):  # NumPyro's own splits
        z, log_q = made.model.propose(params.phi, jax.random.split(key)[1], case.x)
        return made.model.log_p(params.theta, case.x, z) - log_q

    keys = jax.random.split(jax.random.split(jax.random.clone(key))[1], num_samples)
    np.testing.assert_allclose(bounds.iwae(jax.vmap(log_w)(keys)), expected, **PRECISION)


def test_a_plate_below_a_shared_latent_is_part_of_the_datum():
    """With the exact posterior as guide every log w is log p of the whole set, N(0, I + 11')."""
    x = jnp.array([0.4, -1.0, 2.5, 0.3])

    def model(x):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", 4):
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        numpyro.sample("z", dist.Normal(jnp.sum(x) / 5, jnp.sqrt(1 / 5)))

    def local(x):  # a latent of each element, beside the shared one
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", 4, subsample_size=4):  # of all
            own = numpyro.sample("own", dist.Normal(z, 1.0))
            numpyro.sample("x", dist.Normal(own, 1.0), obs=x)

    made = bounds.adapters.from_numpyro(model, guide)
    params = made.init(jax.random.key(0), x)
    log_w = bounds.log_weights(made.model, params, jax.random.key(1), x, num_samples=5)
    covariance = jnp.eye(4) + jnp.ones((4, 4))
    exact = jax.scipy.stats.multivariate_normal.logpdf(x, jnp.zeros(4), covariance)
    np.testing.assert_allclose(log_w, jnp.full(5, exact), **PRECISION)

    def alone(x):  # in a plate of one, which is one datum
        with numpyro.plate("data", 1):
            numpyro.sample("x", dist.Normal(numpyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    found = bounds.adapters.from_numpyro(alone, guide).model.log_p({}, x[:1], {"z": x[:1]})
    np.testing.assert_allclose(found, norm.logpdf(x[0]) + norm.logpdf(0.0), **PRECISION)
    z, own = jnp.array(0.2), jnp.array([0.1, -0.5, 2.0, 0.0])
    found = bounds.adapters.from_numpyro(local, guide).model.log_p({}, x, {"z": z, "own": own})
    expected = norm.logpdf(z) + jnp.sum(norm.logpdf(own, z) + norm.logpdf(x, own))
    np.testing.assert_allclose(found, expected, **PRECISION)


# --- gradients, by quadrature and by enumeration ----------------------------------------------


def gaussian_sample(phi, x, noise):
    return {"z": phi["weight"] * x + 0.1 + jnp.exp(phi["scale"]) * noise}


def gaussian_expectation(factory, num_samples):
    made, params = adapted("gaussian")
    draws, mass = gauss_hermite(40, num_samples)
    return expected_gradient(
        factory, made.model, gaussian_sample, params, CASES["gaussian"].x, draws, mass
    )


def gaussian_exact(bound, num_samples):
    """By the densities written by hand, as a function of the parameters alone."""
    case, (_, params) = CASES["gaussian"], adapted("gaussian")
    draws, mass = gauss_hermite(40, num_samples)

    def expected_bound(params):
        def one(noise):
            z = jax.vmap(lambda e: gaussian_sample(params.phi, case.x, e))(noise)
            return bound(log_w_by_hand(case, params, z))

        return jnp.sum(mass * jax.vmap(one)(draws))

    return jax.jit(jax.grad(expected_bound))(params)


UNBIASED = {
    "pathwise": (2, bounds.iwae, lambda m: bounds.pathwise(m, num_samples=2)),
    "stl": (2, bounds.elbo, lambda m: bounds.stl(m, num_samples=2, bound=bounds.elbo)),
    "dreg": (2, bounds.iwae, lambda m: bounds.dreg(m, num_samples=2)),
    "dreg at K=3": (3, bounds.iwae, lambda m: bounds.dreg(m, num_samples=3)),
    "vimco": (2, bounds.iwae, lambda m: bounds.vimco(m, num_samples=2)),
}


def test_a_named_tuple_is_one_argument():
    class Pair(NamedTuple):
        first: float
        second: float

    def model(x):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("first", dist.Normal(z, 1.0), obs=x.first)
        numpyro.sample("second", dist.Normal(-z, 1.0), obs=x.second)

    def guide(x):
        numpyro.sample("z", dist.Normal(x.first - x.second, 1.0))

    made, x = bounds.adapters.from_numpyro(model, guide), Pair(1.0, 0.5)
    params = made.init(jax.random.key(0), x)
    found = made.model.log_p(params.theta, x, {"z": 0.2})
    expected = norm.logpdf(jnp.array([0.2, 0.8, 0.7])).sum()
    np.testing.assert_allclose(found, expected, **PRECISION)


@pytest.mark.parametrize(("num_samples", "bound", "factory"), UNBIASED.values(), ids=UNBIASED)
def test_expected_gradient_is_that_of_the_bound(num_samples, bound, factory):
    assert close(gaussian_expectation(factory, num_samples), gaussian_exact(bound, num_samples))


def live_phi(model):
    """Wrong: what a program has that cannot evaluate log q at a given z, as issues report it."""

    def objective(params, key, x):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(2))
        z, log_q = jax.vmap(lambda k: model.propose(params.phi, k, x))(keys)
        log_w = jax.vmap(lambda z: model.log_p(params.theta, x, z))(z) - log_q
        return jnp.sum(jax.lax.stop_gradient(bounds.normalized_weights(log_w)) ** 2 * log_w)

    return objective


WRONG = {
    "stl under iwae": lambda m: bounds.stl(m, num_samples=2),
    "weights of dreg, phi live in log q": live_phi,
}


@pytest.mark.parametrize("factory", WRONG.values(), ids=WRONG)
def test_wrong_gradients_fail_the_same_test(factory):
    measured, exact = gaussian_expectation(factory, 2), gaussian_exact(bounds.iwae, 2)
    assert not np.allclose(flat(measured.phi), flat(exact.phi), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("factory", [bounds.vimco, bounds.reinforce])
def test_a_discrete_site_gets_its_gradient_exactly(factory):
    case, (made, params) = CASES["mixture"], adapted("mixture")
    tuples = all_tuples(STATES, 3)

    def mass(phi):
        return jnp.exp(jnp.sum(jax.nn.log_softmax(phi["slopes"] * case.x)[tuples], axis=1))

    def expected_bound(params):
        values = jax.vmap(
            lambda t: bounds.iwae(log_w_by_hand(case, params, {"component": t}))
        )(tuples)  # fmt: skip
        return jnp.sum(mass(params.phi) * values)

    measured = expected_gradient(
        lambda m: factory(m, num_samples=3), made.model, lambda phi, x, draw: {"component": draw},
        params, case.x, tuples, mass(params.phi),
    )  # fmt: skip
    assert close(measured, jax.grad(expected_bound)(params))


def test_a_discrete_site_is_refused_by_path_estimators():
    made, params = adapted("mixture")
    with pytest.raises(TypeError, match=r"bounds\.vimco"):
        bounds.dreg(made.model, num_samples=2)(params, jax.random.key(0), 1.0)


def test_two_sites_of_which_one_depends_on_the_other():
    """Monte Carlo: DReG has the mean of the gradient of hand-written IWAE."""
    case, (made, params) = CASES["hierarchical"], adapted("hierarchical")

    def by_hand(key):
        def bound(params):
            def log_w(noise):
                log_scale = params.phi["slope"] * case.x + jnp.exp(params.phi["spread"]) * noise[0]
                mean = params.phi["weight"] * jnp.exp(log_scale) * case.x
                z = {
                    "scale": jnp.exp(log_scale),
                    "z": mean + jnp.exp(params.phi["width"]) * noise[1],
                }
                return case.log_p(params.theta, case.x, z) - case.log_q(params.phi, case.x, z)

            return bounds.iwae(jax.vmap(log_w)(jax.random.normal(key, (3, 2))))

        return jax.grad(bound)(params)

    objective = bounds.dreg(made.model, num_samples=3)
    measured = moments(
        lambda key: jax.tree.map(
            jnp.subtract, jax.grad(objective)(params, jax.random.fold_in(key, 0), case.x),
            by_hand(jax.random.fold_in(key, 1)),
        )
    )  # fmt: skip
    assert_unbiased(measured, jax.tree.map(jnp.zeros_like, params))


# --- evaluation, diagnostics and simulated data -----------------------------------------------


def test_log_likelihood_of_a_conjugate_model_is_exact():
    case, (made, params) = CASES["gaussian"], adapted("gaussian")
    value, diagnostics = jax.jit(
        lambda key: bounds.log_likelihood(
            made.model, params, key, case.x, num_samples=20_000, chunk_size=2000
        )
    )(jax.random.key(3))
    exact = norm.logpdf(case.x, params.theta["mean"], jnp.sqrt(2.0))
    assert bool(diagnostics.reliable)
    assert diagnostics.standard_error < 0.01
    assert abs(value - exact) < 4 * diagnostics.standard_error


def test_annealing_signal_to_noise_and_surgery_take_the_model():
    case, (made, params) = CASES["hierarchical"], adapted("hierarchical")
    keys = jax.random.split(jax.random.key(4), 2000)
    schedule = bounds.annealing_schedule(8)
    log_w, _ = jax.jit(
        jax.vmap(
            lambda key: bounds.ais(
                made.model, params, key, case.x, betas=schedule, step_sizes=0.2, num_leapfrog=3
            )
        )
    )(keys)
    direct, diagnostics = bounds.log_likelihood(
        made.model, params, jax.random.key(5), case.x, num_samples=50_000, chunk_size=5000
    )
    weights = np.exp(np.asarray(log_w, np.float64) - float(direct))
    error = np.hypot(weights.std() / np.sqrt(len(weights)), float(diagnostics.standard_error))
    assert abs(weights.mean() - 1) < z_limit(1) * error
    objective = bounds.dreg(made.model, num_samples=4)
    found = moments(lambda key: jax.grad(objective)(params, key, case.x), num_replicates=200)
    assert all(np.isfinite(leaf) and leaf >= 0 for leaf in jax.tree.leaves(bounds.snr(found)))
    z, _ = made.model.propose(params.phi, jax.random.key(6), case.x)
    log_q = bounds.surgery.iwae_posterior_log_prob(
        made.model, params, jax.random.key(7), case.x, z, num_samples=1, num_sets=3
    )
    np.testing.assert_allclose(log_q, case.log_q(params.phi, case.x, z), **PRECISION)


def test_simulate_draws_from_the_joint():
    """Every moment within 4.5 standard errors: of eight, one in 18,000 seeds is not."""
    made, params = adapted("gaussian")
    keys = jax.random.split(jax.random.key(8), 20_000)
    x, z = jax.jit(jax.vmap(made.simulate, (None, 0)))(params.theta, keys)
    z, mean = z["z"], params.theta["mean"]
    for values in (z - mean, x - mean, (z - mean) ** 2 - 1, (x - mean) ** 2 - 2,
                   (x - z) ** 2 - 1, (x - z) * (z - mean)):  # fmt: skip
        values = np.asarray(values, np.float64)
        assert abs(values.mean()) < 4.5 * values.std() / np.sqrt(len(values))
    assert abs(np.mean(np.asarray(x - mean) ** 2 - 1)) > 0.5  # the same test sees a wrong one


@pytest.mark.parametrize("name", CASES)
def test_simulated_data_are_what_model_and_guide_take(name):
    made, params = adapted(name)
    x, z = jax.jit(made.simulate)(params.theta, jax.random.key(9))
    assert jnp.shape(x) == jnp.shape(CASES[name].x)
    assert made.model.log_p(params.theta, x, z).shape == ()
    objective = bounds.rws(made.model, num_samples=2, simulate=made.simulate)
    grads = jax.jit(jax.grad(objective))(params, jax.random.key(10), CASES[name].x)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))


def two_sites(first, second):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("b", dist.Normal(z, 1.0), obs=second)
    with numpyro.plate("entries", 3):
        numpyro.sample("a", dist.Normal(z, 1.0), obs=first)


def test_simulate_puts_sites_where_the_model_has_its_arguments():
    def guide(first, second):
        numpyro.sample("z", dist.Normal(0.0, 1.0))

    def simulate(model):
        return bounds.adapters.from_numpyro(model, guide).simulate({}, jax.random.key(0))

    x, z = simulate(two_sites)
    assert [jnp.shape(part) for part in x] == [(3,), ()]
    assert z.keys() == {"z"}
    x, _ = simulate(lambda b, a: two_sites(a, b))
    assert [jnp.shape(part) for part in x] == [(), (3,)]

    def with_covariates(covariates, x=None, scale=2.0):
        z = numpyro.sample("z", dist.Normal(0.0, scale))
        numpyro.sample("response", dist.Normal(z * covariates, 1.0).to_event(1), obs=x)

    x, _ = simulate(functools.partial(with_covariates, jnp.arange(4.0)))
    assert x.shape == (4,)


def test_simulate_finds_the_sites_of_many_arguments_by_trial():
    """Among all orders of them, of which there are 60,480, it would not."""

    def model(*x):
        z = [numpyro.sample(name, dist.Normal(0.0, 1.0)) for name in ("first", "second", "third")]
        for i, value in enumerate(x):
            numpyro.sample(f"site {i}", dist.Normal(sum(z) + 100.0 * i, 1.0), obs=value)

    def six(a, b, c, d, e, f):
        return model(f, d, b, a, c, e)

    made = bounds.adapters.from_numpyro(six, lambda *x: None)
    x, z = made.simulate({}, jax.random.key(0))
    np.testing.assert_allclose(np.array(x), [300, 200, 400, 100, 500, 0], atol=50)
    assert len(z) == 3


def test_factors_masks_and_scales_count_as_in_numpyro():
    def model(x):
        with handlers.scale(scale=3.0):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        with handlers.mask(mask=jnp.array([True, False])):
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
        numpyro.factor("more", -jnp.sum(z**2))

    def guide(x):
        numpyro.sample("z", dist.Normal(x, 2.0).to_event(1))

    made = bounds.adapters.from_numpyro(model, guide)
    x, z = jnp.array([0.5, jnp.nan]), {"z": jnp.array([0.3, -1.2])}
    expected = 3 * jnp.sum(norm.logpdf(z["z"])) + norm.logpdf(0.5, 0.3) - jnp.sum(z["z"] ** 2)
    np.testing.assert_allclose(made.model.log_p({}, x, z), expected, **PRECISION)
    grad = jax.grad(lambda z: made.model.log_p({}, x, z))(z)
    assert np.all(np.isfinite(grad["z"]))
    assert made.init(jax.random.key(0), jnp.ones(2)) == bounds.Params({}, {})
