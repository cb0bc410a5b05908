"""Distribution objects of four libraries: one model, written by hand once.

q(z | x) = N(w x, e^2a), p(z) = N(m, 1), p(x | z) = N(z, 1) for x and z of shape [1], whose log p(x)
is known; a mixture with its component as z; a flow of flowjax as q.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from numpyro import distributions as npd
from oracles import (
    X64,
    all_tuples,
    close,
    expected_gradient,
    flat,
    gauss_hermite,
)

import bounds

pytestmark = pytest.mark.x64
PRECISION = {"rtol": 1e-9, "atol": 1e-9} if X64 else {"rtol": 1e-5, "atol": 1e-5}
LIBRARIES = ("numpyro", "distrax", "tfp", "flowjax")
X = jnp.array([1.5])
PARAMS = bounds.Params(
    theta={"mean": jnp.array([0.3])},
    phi={"weight": jnp.array(0.7), "log_scale": jnp.array([-0.2])},
)


@pytest.fixture(autouse=True)
def ranks_of_others():
    """The other libraries promote ranks inside."""
    with jax.numpy_rank_promotion("allow"):
        yield


def module(library):
    """The distributions of a library; a test without it is skipped."""
    if library == "numpyro":
        return npd
    names = {"tfp": "tensorflow_probability.substrates.jax.distributions", "distrax": "distrax"}
    top = {"tfp": "tensorflow_probability"}.get(library, library)
    pytest.importorskip(top, reason=f"{library} is not installed")
    return importlib.import_module(names.get(library, "flowjax.distributions"))


def normal(library, mean, scale):
    """Independent normals as one event."""
    of = module(library)
    if library == "numpyro":
        return of.Normal(mean, scale).to_event(1)
    if library == "distrax":
        return of.Independent(of.Normal(mean, scale), 1)
    if library == "tfp":
        return of.Independent(of.Normal(mean, scale), 1)
    return of.Normal(mean, scale)


def categorical(library, logits):
    of = module(library)
    return of.Categorical(logits=logits)


@functools.cache
def gaussian(library):
    return bounds.adapters.from_distributions(
        encode=lambda phi, x: normal(library, phi["weight"] * x, jnp.exp(phi["log_scale"])),
        prior=lambda theta: normal(library, theta["mean"], jnp.ones(1)),
        decode=lambda theta, z: normal(library, z, jnp.ones(1)),
    )


def log_q(phi, x, z):
    return jnp.sum(norm.logpdf(z, phi["weight"] * x, jnp.exp(phi["log_scale"])))


def log_p(theta, x, z):
    return jnp.sum(norm.logpdf(z, theta["mean"])) + jnp.sum(norm.logpdf(x, z))


def sample(phi, x, noise):
    return phi["weight"] * x + jnp.exp(phi["log_scale"]) * noise[None]


@pytest.mark.parametrize("library", LIBRARIES)
def test_log_weights_are_those_written_by_hand(library):
    model, _ = gaussian(library)
    objective = bounds.pathwise(model, num_samples=20, has_aux=True)
    value, aux = jax.jit(objective)(PARAMS, jax.random.key(0), X)

    def by_hand(z):
        return log_p(PARAMS.theta, X, z) - log_q(PARAMS.phi, X, z)

    expected = jax.vmap(by_hand)(aux.z)
    np.testing.assert_allclose(aux.log_w, expected, **PRECISION)
    np.testing.assert_allclose(value, bounds.iwae(expected), **PRECISION)
    assert np.ptp(expected) > 0.1
    given = jax.vmap(lambda z: model.log_q(PARAMS.phi, X, z))(aux.z)
    np.testing.assert_allclose(
        given, jax.vmap(lambda z: log_q(PARAMS.phi, X, z))(aux.z), **PRECISION
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_both_kinds_of_keys_draw_the_same(library):
    model, simulate = gaussian(library)
    for draw in (lambda k: model.propose(PARAMS.phi, k, X), lambda k: simulate(PARAMS.theta, k)):
        drawn = draw(jax.random.key(0)), draw(jax.random.PRNGKey(0))
        jax.tree.map(np.testing.assert_array_equal, *drawn)


UNBIASED = {
    "pathwise": (bounds.iwae, lambda m: bounds.pathwise(m, num_samples=2)),
    "stl": (bounds.elbo, lambda m: bounds.stl(m, num_samples=2, bound=bounds.elbo)),
    "dreg": (bounds.iwae, lambda m: bounds.dreg(m, num_samples=2)),
    "vimco": (bounds.iwae, lambda m: bounds.vimco(m, num_samples=2)),
}


@functools.cache
def exact(bound):
    draws, mass = gauss_hermite(40, 2)

    def expected_bound(params):
        def log_w(noise):
            z = sample(params.phi, X, noise)
            return log_p(params.theta, X, z) - log_q(params.phi, X, z)

        return jnp.sum(mass * jax.vmap(lambda noise: bound(jax.vmap(log_w)(noise)))(draws))

    return jax.jit(jax.grad(expected_bound))(PARAMS)


def expectation(library, factory):
    draws, mass = gauss_hermite(40, 2)
    return expected_gradient(factory, gaussian(library).model, sample, PARAMS, X, draws, mass)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("bound", "factory"), UNBIASED.values(), ids=UNBIASED)
def test_expected_gradient_is_that_of_the_bound(library, bound, factory):
    assert close(expectation(library, factory), exact(bound))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_wrong_gradient_fails_the_same_test(library):
    measured = expectation(library, lambda m: bounds.stl(m, num_samples=2))
    wanted = exact(bounds.iwae)
    assert not np.allclose(flat(measured.phi), flat(wanted.phi), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_batch_is_its_data_one_by_one(library):
    gradient = jax.grad(bounds.dreg(gaussian(library).model, num_samples=3))
    keys, x = jax.random.split(jax.random.key(6), 3), jnp.array([[0.5], [-1.0], [2.0]])
    batch = jax.jit(jax.vmap(gradient, (None, 0, 0)))(PARAMS, keys, x)
    own = jax.jit(gradient)(PARAMS, keys[2], x[2])
    np.testing.assert_allclose(flat(jax.tree.map(lambda g: g[2], batch)), flat(own), rtol=1e-5)


@pytest.mark.parametrize("library", LIBRARIES)
def test_log_likelihood_of_a_conjugate_model_is_exact(library):
    value, diagnostics = jax.jit(
        lambda key: bounds.log_likelihood(
            gaussian(library).model, PARAMS, key, X, num_samples=20_000, chunk_size=2000
        )
    )(jax.random.key(3))
    wanted = jnp.sum(norm.logpdf(X, PARAMS.theta["mean"], jnp.sqrt(2.0)))
    assert diagnostics.standard_error < 0.01
    assert abs(value - wanted) < 4 * diagnostics.standard_error


@pytest.mark.parametrize("library", LIBRARIES)
def test_simulate_draws_from_the_joint(library):
    """Every moment within 4.5 standard errors: of five, one in 29,000 seeds is not."""
    simulate = jax.jit(jax.vmap(gaussian(library).simulate, (None, 0)))
    x, z = simulate(PARAMS.theta, jax.random.split(jax.random.key(4), 20_000))
    z, x = z[:, 0] - PARAMS.theta["mean"], x[:, 0] - PARAMS.theta["mean"]
    for values in (z, x, z**2 - 1, x**2 - 2, x * z - 1):
        values = np.asarray(values, np.float64)
        assert abs(values.mean()) < 4.5 * values.std() / np.sqrt(len(values))


@pytest.mark.parametrize("library", ["numpyro", "distrax", "tfp"])
def test_a_discrete_z_gets_its_gradient_exactly(library):
    x, means = jnp.array([0.9]), jnp.array([-1.0, 0.5, 2.0])
    params = bounds.Params(jnp.array([0.3, -0.2, 0.1]), jnp.array([-0.5, 0.1, 0.6]))
    model, simulate = bounds.adapters.from_distributions(
        encode=lambda phi, x: categorical(library, phi * x),
        prior=lambda theta: categorical(library, theta),
        decode=lambda theta, z: normal(library, means[z][None], jnp.ones(1)),
    )
    tuples = all_tuples(3, 3)

    def mass(phi):
        return jnp.exp(jnp.sum(jax.nn.log_softmax(phi * x)[tuples], axis=1))

    def expected_bound(params):
        log_w = jax.nn.log_softmax(params.theta) + norm.logpdf(x, means)
        log_w = log_w - jax.nn.log_softmax(params.phi * x)
        return jnp.sum(mass(params.phi) * jax.vmap(bounds.iwae)(log_w[tuples]))

    measured = expected_gradient(
        lambda m: bounds.vimco(m, num_samples=3), model, lambda phi, x, draw: draw, params, x,
        tuples, mass(params.phi),
    )  # fmt: skip
    assert close(measured, jax.grad(expected_bound)(params))
    objective = bounds.rws(model, num_samples=2, simulate=simulate)
    assert np.all(np.isfinite(flat(jax.jit(jax.grad(objective))(params, jax.random.key(5), x))))


def test_a_flow_of_flowjax_is_the_change_of_variables_of_its_noise():
    flowjax = pytest.importorskip("flowjax", reason="flowjax is not installed")
    import equinox as eqx
    from flowjax.bijections import Affine
    from flowjax.distributions import Normal, Transformed
    from flowjax.flows import masked_autoregressive_flow

    del flowjax
    flow = masked_autoregressive_flow(
        jax.random.key(0), base_dist=Normal(jnp.zeros(2)), flow_layers=2, nn_width=4, invert=False
    )
    phi, static = eqx.partition(flow, eqx.is_inexact_array)
    x = jnp.array([0.5, -1.0])
    model, _ = bounds.adapters.from_distributions(
        encode=lambda phi, x: Transformed(eqx.combine(phi, static), Affine(x)),
        prior=lambda theta: Normal(jnp.zeros(2)),
        decode=lambda theta, z: Normal(theta * z),
    )
    params = bounds.Params(jnp.array(1.2), phi)
    noise = jax.random.normal(jax.random.key(1), (20, 2))

    def draw(noise):
        return flow.bijection.transform(noise) + x

    slope = jnp.linalg.slogdet(jax.vmap(jax.jacfwd(draw))(noise))[1]
    expected = jnp.sum(norm.logpdf(noise), axis=-1) - slope
    found = jax.vmap(lambda z: model.log_q(phi, x, z))(jax.vmap(draw)(noise))
    tolerance = 1e-9 if X64 else 1e-4
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    objective = bounds.dreg(model, num_samples=4)
    grads = jax.jit(jax.grad(objective))(params, jax.random.key(2), x)
    assert np.all(np.isfinite(flat(grads)))
    assert np.any(flat(grads.phi) != 0)


def test_a_transformed_distribution_of_numpyro_is_the_change_of_variables_of_its_noise():
    made = bounds.adapters.from_distributions(
        lambda phi, x: npd.LogNormal(phi, 1.0), lambda theta: npd.LogNormal(0.0, 1.0),
        lambda theta, z: npd.Normal(z, 1.0),
    )  # fmt: skip
    z, log_q = made.model.propose(-0.3, jax.random.key(0), 1.0)
    np.testing.assert_allclose(log_q, norm.logpdf(jnp.log(z), -0.3) - jnp.log(z), rtol=1e-5)


# --- what is refused --------------------------------------------------------------------------


def per_dimension(library):
    of = module(library)
    if library == "flowjax":
        return jax.vmap(of.Normal)(jnp.zeros(2))
    return of.Normal(jnp.zeros(2), jnp.ones(2))


FIXES = {
    "numpyro": r"to_event\(1\)",
    "distrax": r"distrax\.Independent",
    "tfp": r"tfd\.Independent",
}


@pytest.mark.parametrize(("library", "fix"), FIXES.items(), ids=FIXES)
def test_a_log_prob_of_each_dimension_is_refused_with_its_fix(library, fix):
    wide = per_dimension(library)
    right = normal(library, jnp.zeros(2), jnp.ones(2))
    for position, role in enumerate(("encode", "prior", "decode")):
        functions = [lambda phi, x: right, lambda theta: right, lambda theta, z: right]
        functions[position] = [lambda phi, x: wide, lambda theta: wide, lambda theta, z: wide][
            position
        ]
        model, _ = bounds.adapters.from_distributions(*functions)
        with pytest.raises(ValueError, match=rf"{role} must be one number.*\(2,\).*{fix}") as error:
            bounds.pathwise(model, num_samples=2)(
                bounds.Params(0.0, 0.0), jax.random.key(0), jnp.zeros(2)
            )
        assert "\n" not in str(error.value)


def test_a_distribution_that_would_be_stretched_is_refused():
    narrow, right = npd.Normal(jnp.zeros(1), 1.0).to_event(1), npd.Normal(jnp.zeros(3), 1.0)
    assert narrow.log_prob(jnp.zeros(3)).shape == ()  # in silence
    right = right.to_event(1)
    x, key, params = jnp.zeros(3), jax.random.key(0), bounds.Params(0.0, 0.0)
    for prior, decode, name in ((narrow, right, "z"), (right, narrow, "x")):
        model, _ = bounds.adapters.from_distributions(
            lambda phi, x: right, lambda theta, p=prior: p, lambda theta, z, d=decode: d
        )
        with pytest.raises(ValueError, match=rf"{name} does not fit .* \(1,\), got \(3,\)"):
            bounds.pathwise(model, num_samples=2)(params, key, x)
    model, _ = bounds.adapters.from_distributions(*[lambda *arguments: right] * 3)
    with pytest.raises(ValueError, match=r"x does not fit .* \(3,\), got \(\(3,\),\)"):
        bounds.pathwise(model, num_samples=2)(params, key, (x,))


def test_a_simulated_z_has_to_fit_the_encoder():
    wide, right = npd.Normal(jnp.zeros(3), 1.0).to_event(1), npd.Normal(0.0, 1.0)
    model, simulate = bounds.adapters.from_distributions(
        lambda phi, x: right, lambda theta: wide, lambda theta, z: npd.Normal(jnp.sum(z), 1.0)
    )
    x, z = simulate(0.0, jax.random.key(0))
    with pytest.raises(ValueError, match=r"z does not fit the distribution of encode"):
        model.log_q(0.0, x, z)


def test_what_is_no_distribution_is_refused():
    model, _ = bounds.adapters.from_distributions(
        lambda phi, x: (0.0, 1.0), lambda theta: npd.Normal(), lambda theta, z: npd.Normal(z)
    )
    with pytest.raises(TypeError, match=r"encode must return a distribution of numpyro.*got tuple"):
        bounds.pathwise(model, num_samples=2)(bounds.Params(0.0, 0.0), jax.random.key(0), 1.0)


@pytest.mark.parametrize("library", ["numpyro", "distrax", "tfp"])
def test_a_point_mass_is_no_q(library):
    """Its log_prob of 0 would make log p(x, z) at the best z a bound."""
    of = module(library)

    def point(phi, x):
        if library == "numpyro":
            return of.Delta(phi[None]).to_event(1)
        return of.Independent(of.Deterministic(phi[None]), 1)

    model, _ = bounds.adapters.from_distributions(
        point, lambda theta: normal(library, jnp.zeros(1), jnp.ones(1)),
        lambda theta, z: normal(library, z, jnp.ones(1)),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"encode returns a De.*, which has no density of z"):
        model.propose(jnp.array(0.5), jax.random.key(0), X)


@pytest.mark.parametrize("library", ["numpyro", "tfp"])
def test_draws_without_a_derivative_are_refused_by_path_estimators(library):
    """An angle and, by rejection, a point of a sphere in four dimensions."""
    of, pole = module(library), jnp.eye(4)[0]
    if library == "numpyro":
        q, p, first = lambda phi: of.VonMises(phi, 2.0), of.VonMises(0.0, 1.0), jnp.cos
    else:
        q = lambda phi: of.VonMisesFisher(pole, jnp.exp(phi))  # noqa: E731
        p, first = of.SphericalUniform(4), lambda z: z[0]
    made = bounds.adapters.from_distributions(
        lambda phi, x: q(phi), lambda theta: p, lambda theta, z: of.Normal(theta + first(z), 1.0)
    )
    params, key = bounds.Params(jnp.array(0.0), jnp.array(0.5)), jax.random.key(0)
    with pytest.raises(TypeError, match="phi"):
        jax.grad(bounds.pathwise(made.model, num_samples=2))(params, key, 0.3)
    grads = jax.jit(jax.grad(bounds.vimco(made.model, num_samples=3)))(params, key, 0.3)
    assert np.all(np.isfinite(flat(grads)))
    assert np.all(flat(grads) != 0)
