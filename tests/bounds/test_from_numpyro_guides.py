"""AutoGuides, constraints, networks and control flow of NumPyro."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax.scipy.stats import norm
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.contrib.module import eqx_module, flax_module
from numpyro.distributions import constraints
from numpyro.infer import autoguide
from numpyro.infer.util import log_density
from numpyro_cases import CASES
from oracles import X64

import bounds

PRECISION = {"rtol": 1e-9, "atol": 1e-9} if X64 else {"rtol": 1e-5, "atol": 3e-5}
CASE = CASES["hierarchical"]


@pytest.fixture(autouse=True)
def keys_of_numpyro():
    """The set-up of NumPyro's AutoGuides splits a key that it used, which JAX reports if asked."""
    with jax.debug_key_reuse(False):
        yield


def auto(kind, **options):
    made = bounds.adapters.from_numpyro(CASE.model, kind(CASE.model, **options))
    return made, made.init(jax.random.key(0), CASE.x)


def draws(made, params, num_samples=30, x=CASE.x):
    keys = jax.random.split(jax.random.key(1), num_samples)
    return jax.jit(jax.vmap(lambda key: made.model.propose(params.phi, key, x)))(keys)


def log_q(made, params, z):
    return jax.jit(jax.vmap(lambda z: made.model.log_q(params.phi, CASE.x, z)))(z)


# --- AutoGuides -------------------------------------------------------------------------------


@pytest.mark.x64
def test_auto_normal_is_the_density_written_by_hand():
    """A normal of each unconstrained site, with the Jacobian of exp at the positive one."""
    made, params = auto(autoguide.AutoNormal)
    z, proposed = draws(made, params)

    def without_jacobian(z):
        scale = {n: jax.nn.softplus(params.phi[f"{n}_auto_scale"]) for n in ("scale", "z")}
        log_scale = norm.logpdf(jnp.log(z["scale"]), params.phi["scale_auto_loc"], scale["scale"])
        return log_scale + norm.logpdf(z["z"], params.phi["z_auto_loc"], scale["z"])

    expected = jax.vmap(lambda z: without_jacobian(z) - jnp.log(z["scale"]))(z)
    given = log_q(made, params, z)
    for found in (proposed, given):
        np.testing.assert_allclose(found, expected, **PRECISION)
        assert not np.allclose(found, jax.vmap(without_jacobian)(z), rtol=1e-2, atol=1e-2)


@pytest.mark.x64
def test_auto_iaf_is_the_change_of_variables_of_its_noise():
    """log q = log N(noise) - log |det d z / d noise|, the determinant by differentiation."""
    guide = autoguide.AutoIAFNormal(CASE.model, hidden_dims=[4], num_flows=2)
    made = bounds.adapters.from_numpyro(CASE.model, guide)
    params = made.init(jax.random.key(0), CASE.x)

    def draw(noise):  # sites in the order of the program
        log_scale, z = guide.get_transform(params.phi)(noise)
        return jnp.stack([jnp.exp(log_scale), z])

    noise = jax.random.normal(jax.random.key(2), (20, 2))
    slope = jnp.linalg.slogdet(jax.vmap(jax.jacfwd(draw))(noise))[1]
    expected = jnp.sum(norm.logpdf(noise), axis=-1) - slope
    scale, z = jax.vmap(draw)(noise).T
    found = log_q(made, params, {"scale": scale, "z": z})
    np.testing.assert_allclose(found, expected, **PRECISION)
    assert np.ptp(slope) > 0.01


AUTO = {
    "AutoNormal": lambda model: autoguide.AutoNormal(model),
    "AutoDiagonalNormal": lambda model: autoguide.AutoDiagonalNormal(model),
    "AutoMultivariateNormal": lambda model: autoguide.AutoMultivariateNormal(model),
    "AutoIAFNormal": lambda model: autoguide.AutoIAFNormal(model, prefix="flow"),
}


def auto_list(model):
    guide = autoguide.AutoGuideList(model)
    guide.append(autoguide.AutoNormal(handlers.block(model, hide=["z"])))
    guide.append(autoguide.AutoDiagonalNormal(handlers.block(model, hide=["scale"]), prefix="own"))
    return guide


@pytest.mark.x64
@pytest.mark.parametrize("make", [*AUTO.values(), auto_list], ids=[*AUTO, "AutoGuideList"])
def test_auto_guides_say_the_same_of_a_draw_and_of_a_given_z(make):
    made = bounds.adapters.from_numpyro(CASE.model, make(CASE.model))
    params = made.init(jax.random.key(0), CASE.x)
    z, proposed = draws(made, params)
    np.testing.assert_allclose(log_q(made, params, z), proposed, **PRECISION)
    objective = bounds.dreg(made.model, num_samples=4, has_aux=True)
    (_, aux), grads = jax.jit(jax.value_and_grad(objective, has_aux=True))(
        params, jax.random.key(3), CASE.x
    )
    log_p = jax.vmap(lambda z: CASE.log_p(params.theta, CASE.x, z))(aux.z)
    np.testing.assert_allclose(aux.log_w, log_p - log_q(made, params, aux.z), **PRECISION)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(grads.phi))


def test_an_auto_guide_without_inverse_has_no_log_q():
    with jax.numpy_rank_promotion("allow"):
        made, params = auto(autoguide.AutoBNAFNormal, hidden_factors=[2])
        objective = bounds.pathwise(made.model, num_samples=3)
        grads = jax.jit(jax.grad(objective))(params, jax.random.key(0), CASE.x)
    assert made.model.log_q is None
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))


# --- constraints ------------------------------------------------------------------------------


def test_a_draw_outside_of_the_prior_weighs_nothing_and_has_finite_derivatives():
    def model(x):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        numpyro.sample("x", dist.Normal(jnp.sqrt(rate), 1.0), obs=x)

    def guide(x):
        numpyro.sample("rate", dist.Normal(numpyro.param("mean", 0.1), 1.0))

    made, x = bounds.adapters.from_numpyro(model, guide), 0.7
    params = made.init(jax.random.key(0), x)

    def log_p(rate):
        return made.model.log_p({}, x, {"rate": rate})

    np.testing.assert_allclose(
        log_p(0.5), jnp.log(0.5) - 0.5 + norm.logpdf(x, 0.5**0.5), **PRECISION
    )
    assert log_p(-0.5) == -jnp.inf
    assert jax.grad(log_p)(-0.5) == 0
    # NumPyro's own number has no derivative there.
    with numpyro.validation_enabled(False):
        own = jax.grad(lambda rate: log_density(model, (x,), {}, {"rate": rate})[0])(-0.5)
    assert np.isnan(own)
    objective = bounds.pathwise(made.model, num_samples=20, has_aux=True)
    run = jax.jit(jax.value_and_grad(objective, has_aux=True))
    (value, aux), grads = run(params, jax.random.key(1), x)
    assert np.any(np.isneginf(aux.log_w))
    assert np.isfinite(value)
    assert np.isfinite(grads.phi["mean"])
    assert grads.phi["mean"] != 0


@pytest.mark.parametrize("kind", [autoguide.AutoNormal, autoguide.AutoDiagonalNormal])
def test_a_z_that_an_auto_guide_never_draws_has_density_zero(kind):
    made, params = auto(kind)
    z = {"scale": jnp.array(-0.5), "z": jnp.array(0.3)}
    assert made.model.log_q(params.phi, CASE.x, z) == -jnp.inf
    grads = jax.grad(made.model.log_q, argnums=2)(params.phi, CASE.x, z)
    assert all(np.isfinite(leaf) for leaf in grads.values())


def shares_model(x):
    shares = numpyro.sample("shares", dist.Dirichlet(jnp.array([2.0, 1.0, 3.0])))
    numpyro.sample("x", dist.Multinomial(7, probs=shares), obs=x)


def shares_guide(x):
    weight = numpyro.param("weight", 1.2, constraint=constraints.positive)
    numpyro.sample("shares", dist.Dirichlet(1.0 + weight * x))


COUNTS = jnp.array([4, 1, 2])


@pytest.mark.parametrize("guide", [shares_guide, autoguide.AutoNormal(shares_model)])
def test_shares_weigh_nothing_where_they_do_not_add_up_to_1(guide):
    """So that dynamics that leave the simplex are rejected; a draw is on it but for rounding."""
    made = bounds.adapters.from_numpyro(shares_model, guide)
    params = made.init(jax.random.key(0), COUNTS)
    z, proposed = draws(made, params, num_samples=10, x=COUNTS)
    z["shares"] = jnp.concatenate([z["shares"], jnp.array([[0.4, 0.3, 0.31], [0.6, -0.1, 0.5]])])

    def densities(z):
        of_q = jax.value_and_grad(made.model.log_q, 2)(params.phi, COUNTS, z)
        return of_q, jax.value_and_grad(made.model.log_p, 2)(params.theta, COUNTS, z)

    (log_q, _), (log_p, _) = found = jax.jit(jax.vmap(densities))(z)
    np.testing.assert_allclose(log_q[:-2], proposed, **PRECISION)
    expected = jnp.log(z["shares"][:-2]) @ jnp.array([5.0, 1.0, 4.0])
    np.testing.assert_allclose(log_p[:-2] - log_p[0], expected - expected[0], **PRECISION)
    assert np.all(np.isneginf([log_q[-2:], log_p[-2:]]))
    assert all(np.all(np.isfinite(slopes["shares"])) for _, slopes in found)


@pytest.mark.parametrize(
    ("drawn", "off"),
    [
        (dist.LKJCholesky(3, 2.0), 0.1 * jnp.eye(3)),
        (dist.Wishart(5.0, jnp.eye(2)), jnp.array([[0.0, 0.1], [0.0, 0.0]])),
        (dist.ZeroSumNormal(1.0, event_shape=(4,)), jnp.array([0.1, 0.0, 0.0, 0.0])),
    ],
    ids=["LKJCholesky", "Wishart", "ZeroSumNormal"],
)
def test_so_do_matrices_and_vectors_that_are_no_draws(drawn, off):
    def model(x):
        numpyro.sample("x", dist.Normal(numpyro.sample("z", drawn)[..., 0].sum(), 1.0), obs=x)

    made = bounds.adapters.from_numpyro(model, model)
    z = drawn.sample(jax.random.key(0), (20,))
    log_p = jax.jit(jax.vmap(lambda z: made.model.log_p({}, 0.5, {"z": z})))
    assert np.all(np.isfinite(log_p(z)))
    assert np.all(np.isneginf(log_p(z + off[None])))


def test_constrained_parameters_are_stored_unconstrained():
    def model(x):
        shares = numpyro.param("shares", jnp.array([0.2, 0.3, 0.5]), constraint=constraints.simplex)
        component = numpyro.sample("component", dist.Categorical(probs=shares))
        numpyro.sample("x", dist.Normal(component + numpyro.param("mean", 0.0), 1.0), obs=x)

    def guide(x):
        numpyro.sample("component", dist.Categorical(logits=jnp.zeros(3)))

    made = bounds.adapters.from_numpyro(model, guide)
    theta = made.init(jax.random.key(0), 1.0).theta
    assert theta["shares"].shape == (2,)
    assert not jax.typeof(theta["mean"]).weak_type  # or the first step would change its type
    expected = jnp.log(0.3) + norm.logpdf(1.0, 1.0)
    found = made.model.log_p(theta, 1.0, {"component": jnp.array(1)})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("program", ["prior", "guide"])
def test_densities_have_their_derivative_in_z_whatever_can_be_reparameterized(program):
    """A mixture, whose draws NumPyro does not call reparameterised, is a fine prior of DReG."""
    means = jnp.array([-1.0, 2.0])
    mixture = dist.MixtureSameFamily(dist.Categorical(logits=jnp.zeros(2)), dist.Normal(means, 1.0))
    assert not mixture.has_rsample
    drawn = dist.Normal(0.0, 1.0)
    first, second = (mixture, drawn) if program == "prior" else (drawn, mixture)

    def model(x):
        numpyro.sample("x", dist.Normal(numpyro.sample("z", first), 1.0), obs=x)

    made = bounds.adapters.from_numpyro(model, lambda x: numpyro.sample("z", second))
    z = jnp.array(0.4)
    slope = jax.grad(lambda z: jax.nn.logsumexp(norm.logpdf(z, means)))(z)
    if program == "prior":
        found, slope = jax.grad(made.model.log_p, 2)({}, 0.7, {"z": z}), slope + 0.7 - z
    else:
        found = jax.grad(made.model.log_q, 2)({}, 0.7, {"z": z})
    np.testing.assert_allclose(found["z"], slope, **PRECISION)


def test_draws_without_a_derivative_are_refused_by_path_estimators():
    """The draws of a mixture move with its means, but which component was drawn does not."""

    def guide(x):
        means, logits = numpyro.param("means", jnp.array([-1.0, 2.0])), jnp.zeros(2)
        components = dist.Normal(means, 1.0)
        numpyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=logits), components))

    def model(x):
        numpyro.sample("x", dist.Normal(numpyro.sample("z", dist.Normal()), 1.0), obs=x)

    made = bounds.adapters.from_numpyro(model, guide)
    params = made.init(jax.random.key(0), 0.3)
    for make in (bounds.pathwise, bounds.dreg):
        with pytest.raises(TypeError, match="phi"):
            jax.grad(make(made.model, num_samples=2))(params, jax.random.key(1), 0.3)
    grads = jax.grad(bounds.vimco(made.model, num_samples=2))(params, jax.random.key(1), 0.3)
    assert jnp.any(grads.phi["means"] != 0)


# --- networks, loops, keys --------------------------------------------------------------------


@pytest.mark.parametrize("library", ["flax", "equinox"])
def test_networks_of_contrib_module_are_parameters(library):
    def network(name, inputs, outputs):
        if library == "flax":
            return flax_module(name, nn.Dense(outputs), input_shape=(inputs,))
        return eqx_module(name, eqx.nn.Linear(inputs, outputs, key=jax.random.key(7)))

    def model(x):
        decode = network("decoder", 2, 4)
        z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        numpyro.sample("x", dist.Normal(decode(z), 1.0).to_event(1), obs=x)

    def guide(x):
        mean = network("encoder", 4, 2)(x)
        numpyro.sample("z", dist.Normal(mean, 0.5).to_event(1))

    made = bounds.adapters.from_numpyro(model, guide)
    data = jax.random.normal(jax.random.key(1), (3, 4))
    params = made.init(jax.random.key(0), data[0])
    grads = jax.jit(jax.vmap(jax.grad(bounds.dreg(made.model, num_samples=2)), (None, 0, 0)))(
        params, jax.random.split(jax.random.key(2), 3), data
    )
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(grads))
    assert made.simulate(params.theta, jax.random.key(3))[0].shape == (4,)
    # A batch is its data one by one.
    own = jax.grad(bounds.dreg(made.model, num_samples=2))(
        params, jax.random.split(jax.random.key(2), 3)[1], data[1]
    )
    for batch, one in zip(jax.tree.leaves(grads), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(batch[1], one, rtol=1e-4, atol=1e-5)


@pytest.mark.x64
def test_a_scan_over_time_is_the_chain_written_by_hand():
    def model(x):
        def step(previous, value):
            z = numpyro.sample("z", dist.Normal(0.8 * previous, 0.5))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=value)
            return z, None

        scan(step, jnp.zeros(()), x)

    def guide(x):
        numpyro.sample("z", dist.Normal(0.3 * x, 0.6).to_event(1))

    made = bounds.adapters.from_numpyro(model, guide)
    x, z = jnp.array([0.4, -1.0, 0.7]), jnp.array([0.1, 0.5, -0.2])
    before = jnp.concatenate([jnp.zeros(1), z[:-1]])
    expected = jnp.sum(norm.logpdf(z, 0.8 * before, 0.5)) + jnp.sum(norm.logpdf(x, z, 1.0))
    np.testing.assert_allclose(made.model.log_p({}, x, {"z": z}), expected, **PRECISION)
    with pytest.raises(ValueError, match=r"z\['z'\] has shape"):
        made.model.log_p({}, x, {"z": jnp.zeros((3, 2))})


def test_both_kinds_of_keys_and_a_batch_under_jit():
    made = bounds.adapters.from_numpyro(CASE.model, CASE.guide)
    x = jnp.array([0.5, -1.0, 2.0])
    for make in (jax.random.key, jax.random.PRNGKey):
        params = made.init(make(0), x[0])
        run = jax.vmap(bounds.dreg(made.model, num_samples=4), (None, 0, 0))
        values = jax.jit(run)(params, jax.random.split(make(1), 3), x)
        one = bounds.dreg(made.model, num_samples=4)(params, jax.random.split(make(1), 3)[2], x[2])
        np.testing.assert_allclose(values[2], one, rtol=1e-5)
        assert jnp.shape(made.simulate(params.theta, make(2))[0]) == ()
