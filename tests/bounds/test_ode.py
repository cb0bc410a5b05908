"""The density of the probability-flow ODE against data whose score is known."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.scipy.stats import norm
from ode_cases import Mixture, WrongLinear, linear, mixture, model_of, straight

import bounds
from bounds import diffusion

X64 = oracles.X64
TIGHT = 1e-8 if X64 else 2e-4
ENDS = (-4.0, 5.0)
GAUSSIAN = Mixture(jnp.zeros(1), jnp.full((1, 8), 0.7), jnp.full(1, 0.3))
POINTS = 5


def points(data, seed=1):
    """z_0 near the data."""
    return jax.random.normal(jax.random.key(seed), (POINTS, data.means.shape[1])) * 1.2


def of_z(model, z, *, theta=None, **settings):
    return diffusion.ode_log_prob(model, theta, None, z, **settings)


@functools.cache
def compiled(**settings):
    """(data, gamma's ends, z [N, D]) -> (log p(z_0) by the ODE with the exact end, its error)."""
    path = settings.get("path", "vp")

    @functools.partial(jax.jit, static_argnums=1)
    def run(data, ends, z):
        model = model_of(data.x_hat, linear(*ends))

        def one(z):
            found = diffusion.ode_log_prob(model, None, None, z, **settings)
            steps = settings["num_steps"]
            z_1 = diffusion.ode_transport(model, None, z, num_steps=steps, path=path)
            # The model ends in N(0, 1), the data in their own marginal of gamma(1).
            last = data.log_prob(z_1, jnp.asarray(ends[1], float)) - jnp.sum(norm.logpdf(z_1))
            again = diffusion.ode_transport(
                model, None, z_1, num_steps=steps, path=path, backward=True
            )
            return found.value + last, found.solver_error, again

        return jax.vmap(one)(z)

    return run


@pytest.mark.x64
@pytest.mark.parametrize("path", ["vp", "straight"])
@pytest.mark.parametrize("data", [1, 2, 8, "gaussian"])
def test_density_of_data_with_their_exact_score(data, path):
    data = GAUSSIAN if data == "gaussian" else mixture(data, 3)
    z = points(data)
    exact = jax.vmap(lambda z: data.log_prob(z, jnp.asarray(ENDS[0], float)))(z)
    found, error, again = compiled(num_steps=800, path=path)(data, ENDS, z)
    np.testing.assert_allclose(found, exact, atol=TIGHT, rtol=0)
    assert np.all(error < 20 * TIGHT)
    np.testing.assert_allclose(again, z, atol=TIGHT)


@pytest.mark.x64
@pytest.mark.skipif(not X64, reason="errors below those of float32")
@pytest.mark.parametrize("path", ["vp", "straight"])
def test_the_solver_is_of_order_four_and_knows_its_error(path):
    data = mixture(2, 3)
    z = points(data)
    exact = jax.vmap(lambda z: data.log_prob(z, jnp.asarray(ENDS[0], float)))(z)
    counts, errors = (64, 128, 256), []
    for count in counts:
        found, stated, _ = compiled(num_steps=count, path=path)(data, ENDS, z)
        errors.append(np.abs(found - exact))
        # Stated is the error of the coarser of the two solutions, which is 2^4 times as large.
        assert np.median(stated / errors[-1]) == pytest.approx(15, rel=0.4)
    order = -np.polyfit(np.log(counts), np.log(np.mean(errors, 1)), 1)[0]
    assert order == pytest.approx(4, abs=0.3)


@pytest.mark.x64
def test_broken_fields_do_not_give_the_density_of_the_data():
    """The sign of the divergence, the drift without its half, and the score's part alone."""
    data = mixture(2, 3)
    z, ends = points(data), jnp.asarray(ENDS, float)
    exact = np.asarray(jax.vmap(lambda z: data.log_prob(z, ends[0]))(z))
    right, _, _ = compiled(num_steps=128)(data, ENDS, z)
    assert np.abs(right - exact).max() < 1e-3

    def broken(change):
        model = model_of(lambda z, g: change(data.x_hat(z, g), z, g), linear(*ENDS))

        def run(z):
            return diffusion.ode_log_prob(
                model, None, None, z, num_steps=128, largest_error=1e9
            ).value

        return np.asarray(jax.jit(jax.vmap(run))(z))

    def doubled(x_hat, z, gamma):  # the field of the SDE: the whole score and not half of it
        alpha = jnp.sqrt(jax.nn.sigmoid(-gamma))
        return 2 * x_hat - alpha * z

    assert np.abs(broken(doubled) - exact).min() > 0.01
    assert np.abs(broken(lambda x_hat, z, gamma: 0.9 * x_hat) - exact).min() > 0.01


@pytest.mark.x64
@pytest.mark.parametrize("variance", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("gamma_max", [1.0, 5.0])
def test_a_wrong_linear_score_makes_three_models(variance, gamma_max):
    """p of the ODE, p of the SDE and the ELBO: one order of the last two, none of the first."""
    wrong = WrongLinear(variance, -4.0, gamma_max)
    model = model_of(wrong.x_hat, linear(-4.0, gamma_max))
    z = jnp.linspace(-4, 4, 9)[:, None]
    found = jax.jit(jax.vmap(functools.partial(of_z, model, num_steps=300)))(z)
    exact = norm.logpdf(z[:, 0], 0.0, math.sqrt(wrong.of_ode))
    np.testing.assert_allclose(found.value, exact, atol=TIGHT)
    # The SDE by its chain of 4000 steps, which the closed form is the limit of.
    gamma = np.asarray(diffusion.discretize(model.gamma, 4000), np.float64)
    mean, log_variance = jax.vmap(
        lambda s, t: diffusion.reverse_step(model.denoise, None, jnp.ones(1), s, t)
    )(jnp.asarray(gamma[:-1], float), jnp.asarray(gamma[1:], float))
    spread = 1.0
    for a, b in zip(np.asarray(mean)[::-1, 0], np.asarray(log_variance)[::-1], strict=True):
        spread = a**2 * spread + math.exp(b)
    assert spread == pytest.approx(wrong.of_sde, rel=5e-3)
    x = np.linspace(-4, 4, 81)
    sde, ode = (wrong.log_prob_of_x(v, x) for v in (wrong.of_sde, wrong.of_ode))
    elbo = wrong.elbo(x)
    assert np.all(elbo <= sde + 1e-9)
    if variance != 1.0:
        assert (ode > sde).any()
        assert (ode < elbo).any()
        assert (ode > elbo).any()


def test_the_closed_form_of_the_bound_is_that_of_the_library():
    wrong = WrongLinear(0.2, -4.0, 1.0)
    alpha, sigma = (math.sqrt(1 / (1 + math.exp(s * wrong.gamma_min))) for s in (1, -1))
    model = model_of(wrong.x_hat, linear(-4.0, 1.0))._replace(
        log_decoder=lambda theta, x, z_0, x_hat: jnp.sum(norm.logpdf(x, z_0 / alpha, sigma / alpha))
    )
    times = diffusion.low_discrepancy_times(jax.random.key(0), 20_000)
    keys = jax.random.split(jax.random.key(1), 20_000)
    x = jnp.array([1.3])
    values = jax.jit(
        jax.vmap(lambda key, t: diffusion.continuous_estimate(model, None, key, x, t).value)
    )(keys, times)
    values = np.asarray(values, np.float64)
    z = (values.mean() - wrong.elbo(np.array([1.3]))[0]) / (values.std() / math.sqrt(values.size))
    assert abs(z) < oracles.z_limit(1)


# --- straight paths -----------------------------------------------------------------------------


@pytest.mark.x64
def test_a_straight_path_is_the_same_model_in_other_coordinates():
    """Densities, and the bound of continuous time, by quadrature over time at fixed noise."""
    data = mixture(2, 3)
    vp = model_of(data.x_hat, linear(*ENDS), prediction="eps")
    flow = model_of(data.x_hat, straight(*ENDS), prediction="velocity")
    z, x = points(data), jnp.array([0.4, -1.0])
    find = functools.partial(of_z, theta=0.9, num_steps=400)
    found = [
        jax.jit(jax.vmap(functools.partial(find, model, path=path)))(z).value
        for model in (vp, flow)
        for path in ("vp", "straight")
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-6 if X64 else 3e-4)

    nodes, weights = np.polynomial.legendre.leggauss(96)
    times, weights = jnp.asarray((nodes + 1) / 2, float), weights / 2

    def bound(model, key, theta):
        one = jax.vmap(lambda t: diffusion.continuous_estimate(model, theta, key, x, t).term)
        return weights @ np.asarray(jax.jit(one)(times), np.float64)

    def weighted(key, theta):  # (1 - s) / s of the squared error of the velocity, ds
        first, last = (float(jax.nn.sigmoid(jnp.asarray(end / 2))) for end in ENDS)
        s = first + (last - first) * np.asarray(times, np.float64)
        _, noise_key = jax.random.split(key)
        one = jax.vmap(lambda t: diffusion.velocity_error(flow, theta, noise_key, x, t))
        errors = np.asarray(jax.jit(one)(times), np.float64)
        return (last - first) * (weights * (1 - s) / s) @ errors

    with jax.debug_key_reuse(False):
        for seed in range(3):
            key = jax.random.key(seed)
            ours = [bound(model, key, 0.9) for model in (vp, flow)]
            np.testing.assert_allclose(ours[1], ours[0], rtol=1e-5)
            np.testing.assert_allclose(weighted(key, 0.9), ours[0], rtol=1e-5)
            assert abs(bound(vp, key, 0.8) - ours[0]) > 1e-3


# --- probes -------------------------------------------------------------------------------------


@functools.cache
def with_probes(num_probes=1, count=8000):
    """(exact value, estimates [N]) at one z of four dimensions."""
    data = mixture(4, 4, seed=3)
    model = model_of(data.x_hat, linear(*ENDS))
    z = jnp.array([0.9, -0.3, 0.5, 0.2])
    exact = diffusion.ode_log_prob(model, None, None, z, num_steps=40)

    def drawn(key):
        return diffusion.ode_log_prob(
            model, None, key, z, num_steps=40, trace="hutchinson", num_probes=num_probes
        ).value

    keys = jax.random.split(jax.random.key(5), count)
    return float(exact.value), np.asarray(jax.jit(jax.vmap(drawn))(keys), np.float64)


def test_drawn_probes_are_unbiased_for_log_p_and_too_large_in_a_logsumexp():
    exact, values = with_probes()
    error = values.std(ddof=1) / math.sqrt(values.size)
    assert abs(values.mean() - exact) < oracles.z_limit(1) * error
    fresh = np.asarray(bounds.iwae(jnp.asarray(values.reshape(-1, 16), float)), np.float64)
    excess = (fresh.mean() - exact) / (fresh.std(ddof=1) / math.sqrt(fresh.size))
    assert excess > 10
    _, of_sixteen = with_probes(16, 400)
    assert values.std() / of_sixteen.std() == pytest.approx(4, rel=0.3)


def test_fixed_probes_say_what_they_are_the_value_of():
    data = mixture(3, 2)
    model = model_of(data.x_hat, linear(*ENDS))
    z = points(data)[0]
    find = functools.partial(diffusion.ode_log_prob, model, None, None, z, num_steps=32)
    exact = find()
    assert (exact.of, int(exact.num_evaluations)) == ("log p", 128)
    # All three unit vectors, with their mean for the sum, are the exact trace.
    every = find(trace="hutchinson", probes=math.sqrt(3) * jnp.eye(3))
    np.testing.assert_allclose(every.value, exact.value, rtol=1e-5)
    assert isinstance(every, diffusion.OdeLogProb)
    assert "v^T J v" in every.of
    np.testing.assert_allclose(find(chunk_size=2).value, exact.value, rtol=1e-5)


def test_an_estimate_enters_no_logsumexp():
    data = mixture(2, 2)
    model = model_of(data.x_hat, linear(*ENDS))

    def find(z, **settings):
        return diffusion.ode_log_prob(model, None, None, z, num_steps=32, **settings)

    z = points(data)

    def drawn(z, key):
        return diffusion.ode_log_prob(model, None, key, z, num_steps=32, trace="hutchinson")

    estimate = jax.vmap(drawn)(z, jax.random.split(jax.random.key(0), len(z)))
    assert isinstance(estimate, diffusion.OdeEstimate)
    for refused in (estimate, jax.vmap(find)(z)):
        with pytest.raises(TypeError, match=r"OdeEstimate|OdeLogProb"):
            bounds.iwae(refused)

    def log_density(theta, x, u):
        return diffusion.ode_log_prob(
            model, None, jax.random.key(1), x + u, num_steps=32, trace="hutchinson"
        )

    latent = bounds.dequantization.dequantized(log_density, bounds.dequantization.uniform())
    params, x = bounds.Params(None, None), jnp.zeros(2)
    for run in (
        lambda: bounds.log_weights(latent, params, jax.random.key(0), x, num_samples=4),
        lambda: bounds.log_likelihood(
            latent._replace(log_p=log_density), params, jax.random.key(0), x,
            num_samples=4, chunk_size=4,
        ),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="can only be averaged"):
            run()
    fixed = find(z[0], trace="hutchinson", probes=jnp.ones((1, 2)))
    assert np.isfinite(fixed.value)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"num_steps": 7}, "must be even"),
        ({"num_steps": 0}, "at least 1"),
        ({"tolerance": 0.0}, "tolerance must be a positive number"),
        ({"tolerance": -1e-5}, "tolerance must be a positive number"),
        ({"path": "subvp"}, "path must be one of vp, straight"),
        ({"trace": "skilling"}, "trace must be one of"),
        ({"trace": "hutchinson"}, "draws its probes with a key"),
        ({"trace": "hutchinson", "probes": jnp.ones((1, 3))}, "shape of z"),
        ({"trace": "hutchinson", "probes": jnp.ones(2)}, "shape of z"),
        ({"probes": jnp.ones((1, 2))}, "trace='hutchinson'"),
        ({"largest_error": 0.0}, "largest_error"),
        ({"num_steps": 2}, "did not converge"),
    ],
)
def test_bad_input_is_one_sentence(settings, wanted):
    data = mixture(2, 3)
    model = model_of(data.x_hat, linear(*ENDS))
    with pytest.raises(ValueError, match=wanted):
        diffusion.ode_log_prob(model, None, None, jnp.ones(2), **{"num_steps": 32, **settings})


def test_models_without_an_ode_and_solvers_that_do_not_arrive():
    data = mixture(2, 3)
    steps = model_of(data.x_hat, diffusion.cosine_schedule(8))
    for use in (
        lambda: diffusion.ode_log_prob(steps, None, None, jnp.ones(2), num_steps=8),
        lambda: diffusion.ode_transport(steps, None, jnp.ones(2), num_steps=8),
        lambda: diffusion.ode_log_density(steps, levels=4, num_steps=8),
        lambda: diffusion.velocity_error(steps, None, jax.random.key(0), jnp.ones(2), 0.5),
    ):
        with pytest.raises(ValueError, match="function of t in"):
            use()
    model = model_of(data.x_hat, linear(*ENDS))
    found = jax.jit(functools.partial(of_z, model, num_steps=2))(jnp.ones(2))
    assert np.isnan(found.value)
    assert found.solver_error > 0.02
    slope = jax.grad(lambda theta: of_z(model, jnp.ones(2), theta=theta, num_steps=2).value)
    assert np.isnan(slope(1.0))  # without a value that could be looked at


def test_the_largest_error_is_of_one_dimension():
    model = model_of(mixture(2, 3).x_hat, linear(*ENDS))
    find = functools.partial(of_z, model, jnp.ones(2), num_steps=8)
    error = float(find(largest_error=9.0).solver_error)
    find(largest_error=0.75 * error)
    with pytest.raises(ValueError, match="did not converge"):
        find(largest_error=0.4 * error)


def test_a_gradient_flows_through_the_ode():
    data = mixture(2, 3)
    model = model_of(data.x_hat, linear(*ENDS))

    def value(theta, z):
        return diffusion.ode_log_prob(model, theta, None, z, num_steps=32).value

    z, small = points(data)[0], 1e-2
    theta = jnp.asarray(0.9)
    slope = jax.jit(jax.grad(value))(theta, z)
    around = (value(theta + small, z) - value(theta - small, z)) / (2 * small)
    np.testing.assert_allclose(slope, around, rtol=2e-2)


# --- diffrax ------------------------------------------------------------------------------------


@pytest.mark.x64
def test_the_adaptive_solver_agrees_with_equal_steps():
    pytest.importorskip("diffrax")
    data = mixture(2, 3)
    model = model_of(data.x_hat, linear(*ENDS))
    z = points(data)[0]
    find = functools.partial(diffusion.ode_log_prob, model, None, None, z)
    fixed = find(num_steps=400)
    transport = functools.partial(diffusion.ode_transport, model, None, z)
    z_1 = transport(num_steps=401)
    tolerance = 1e-9 if X64 else 1e-5
    for path in ("vp", "straight"):
        found = find(num_steps=4000, tolerance=tolerance, path=path)
        np.testing.assert_allclose(found.value, fixed.value, atol=1e-7 if X64 else 5e-4)
        assert found.num_evaluations > 6
        assert found.solver_error > 0
        moved = transport(num_steps=4000, tolerance=tolerance, path=path)
        np.testing.assert_allclose(moved, z_1, atol=1e-7 if X64 else 5e-4)
    assert np.isnan(transport(num_steps=3, tolerance=tolerance)).all()
    with pytest.raises(ValueError, match="did not converge within num_steps=3"):
        find(num_steps=3, tolerance=tolerance)


def test_without_diffrax_a_tolerance_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffrax", None)
    model = model_of(mixture(2, 2).x_hat, linear(*ENDS))
    with pytest.raises(ImportError, match=r"variational-bounds\[ode\]"):
        diffusion.ode_log_prob(model, None, None, jnp.ones(2), num_steps=99, tolerance=1e-5)
