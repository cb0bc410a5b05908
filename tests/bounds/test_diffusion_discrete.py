"""Categorical chains, by sums over all trajectories; decoders, whose probabilities sum to 1."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import stats

import bounds
from models import diffusion
from models.exact import categorical_diffusion as categorical

X64 = oracles.X64
STATES, STEPS = 3, 3
BETAS = jnp.array([0.2, 0.5, 0.7])


def distribution(theta, x):
    """(probabilities, log-weights, closed-form values) of every trajectory."""
    transitions = categorical.uniform_transitions(STATES, BETAS)
    model = categorical.make_model(transitions)
    z = categorical.trajectories(STATES, STEPS)
    assert model.log_q is not None
    log_q = jax.vmap(model.log_q, (None, None, 0))((), x, z)
    log_p = jax.vmap(model.log_p, (None, None, 0))(theta, x, z)
    closed = jax.vmap(categorical.closed_form_value, (None, None, None, 0))(
        transitions, theta, x, z
    )
    return np.exp(np.asarray(log_q, np.float64)), np.asarray(log_p - log_q), np.asarray(closed)


def mean_and_variance(mass, values):
    mean = np.sum(mass * values)
    return mean, np.sum(mass * (values - mean) ** 2)


@pytest.mark.x64
def test_trajectories_and_closed_forms_have_one_expectation():
    lower = 0
    for seed, x in itertools.product(range(10), range(STATES)):
        theta = categorical.init(jax.random.key(seed), STATES, STEPS)
        mass, log_w, closed = distribution(theta, jnp.asarray(x))
        np.testing.assert_allclose(mass.sum(), 1, rtol=1e-5)
        (a, a_variance), (b, b_variance) = (
            mean_and_variance(mass, values) for values in (log_w, closed)
        )
        np.testing.assert_allclose(a, b, rtol=1e-10 if X64 else 1e-4)
        exact = float(categorical.log_prob(theta)[x])
        np.testing.assert_allclose(np.log(np.sum(mass * np.exp(log_w))), exact, rtol=1e-4)
        assert a < exact
        lower += b_variance < a_variance
    assert lower >= 27  # of 30: for random parameters the closed forms vary less


@pytest.mark.x64
def test_trajectories_of_the_exact_reverse_chain_do_not_vary():
    data = jnp.array([0.5, 0.3, 0.2])
    transitions = categorical.uniform_transitions(STATES, BETAS)
    theta = categorical.exact_reverse(transitions, data)
    np.testing.assert_allclose(categorical.log_prob(theta), jnp.log(data), rtol=1e-5)
    for x in range(STATES):
        mass, log_w, closed = distribution(theta, jnp.asarray(x))
        np.testing.assert_allclose(log_w, np.log(data[x]), rtol=1e-12 if X64 else 1e-5)
        mean, variance = mean_and_variance(mass, closed)
        np.testing.assert_allclose(mean, np.log(data[x]), rtol=1e-5)
        assert variance > 1e-4  # closed forms lower each term's variance, here not the sum's


def test_iwae_over_trajectories_rises_to_the_exact_value():
    """By the distribution of log w, all of whose K-tuples are summed over."""
    theta = categorical.init(jax.random.key(3), 2, 2)
    transitions = categorical.uniform_transitions(2, BETAS[:2])
    model, x = categorical.make_model(transitions), jnp.asarray(1)
    z = categorical.trajectories(2, 2)
    assert model.log_q is not None
    log_q = jax.vmap(model.log_q, (None, None, 0))((), x, z)
    log_w = jax.vmap(model.log_p, (None, None, 0))(theta, x, z) - log_q
    values = []
    for k in (1, 2, 3, 4, 5, 6):
        tuples = oracles.all_tuples(len(z), k)
        mass = jnp.exp(jnp.sum(log_q[tuples], axis=-1))
        values.append(float(jnp.sum(mass * bounds.iwae(log_w[tuples]))))
    exact = float(categorical.log_prob(theta)[x])
    assert all(a < b for a, b in itertools.pairwise(values))
    gaps = exact - np.array(values)
    assert 0 < gaps[-1] < 0.5 * gaps[0]
    # Drawn by the model itself, a large K reaches it.
    found, diagnostics = bounds.log_likelihood(
        model, bounds.Params(theta, ()), jax.random.key(0), x, num_samples=20_000, chunk_size=2000
    )
    assert abs(found - exact) < 4.5 * diagnostics.standard_error


# --- decoders -------------------------------------------------------------------------------------


DECODERS = {
    "gaussian": bounds.densities.discretized_gaussian_log_prob,
    "logistic": bounds.densities.discretized_logistic_log_prob,
}


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("name", DECODERS)
def test_discretized_probabilities_sum_to_one(name, levels):
    x = jnp.arange(levels)
    for log_scale, mean in itertools.product(
        (-5.0, -1.0, 0.0, 2.0, 6.0), (-3.0, 0.5, 0.9 * levels)
    ):
        log_p = DECODERS[name](x, mean, log_scale, levels=levels)
        assert np.all(np.isfinite(log_p) & (np.asarray(log_p) <= 0))
        np.testing.assert_allclose(np.exp(np.asarray(log_p, np.float64)).sum(), 1, atol=2e-5)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_probabilities_of_levels_given_a_latent_sum_to_one(levels):
    x = jnp.arange(levels)
    for gamma, z in itertools.product((-13.3, -5.0, 0.0, 5.0), (-1.5, 0.02, 0.7)):
        log_p = bounds.densities.level_softmax_log_prob(
            x, jnp.full(levels, z), gamma, levels=levels
        )
        np.testing.assert_allclose(np.exp(np.asarray(log_p, np.float64)).sum(), 1, atol=2e-4)


@pytest.mark.parametrize("log_scale", [-4.0, -1.0, 1.0, 4.0, 6.0, 8.0])
def test_discretized_gaussian_is_right_far_in_the_tails(log_scale):
    """Against float64, where no clamp hides: its neighbours' code is off by a nat there."""
    x, levels, scale = np.arange(256), 256, np.exp(log_scale)
    for mean in (-40.0, 3.3, 128.0, 255.0):
        found = bounds.densities.discretized_gaussian_log_prob(
            jnp.asarray(x), mean, log_scale, levels=levels
        )
        a, b = (x - 0.5 - mean) / scale, (x + 0.5 - mean) / scale
        a[0], b[-1] = -np.inf, np.inf
        flip = a + b > 0
        low, high = np.where(flip, -b, a), np.where(flip, -a, b)
        log_high, log_low = stats.norm.logcdf(high), stats.norm.logcdf(low)
        expected = log_high + np.log(-np.expm1(log_low - log_high))
        np.testing.assert_allclose(found, expected, rtol=3e-5, atol=3e-4)


def test_gradients_of_the_decoders_are_finite_and_point_home():
    for log_prob in DECODERS.values():
        for log_scale in (-6.0, 0.0, 6.0):
            slope = jax.grad(
                lambda mean, log_prob=log_prob, s=log_scale: log_prob(
                    jnp.asarray(3), mean, s, levels=17
                )
            )
            assert slope(-20.0) > 0 > slope(40.0)


@pytest.mark.parametrize("decoder", ["gaussian", "logistic"])
def test_decoder_of_ddpm_has_the_deviation_of_its_last_step(decoder):
    """sqrt(betatilde_2), by the mean square of the discretised distribution around its mean."""
    betas = np.array([0.05, 0.1, 0.5])
    levels = 256
    model = diffusion.ddpm(
        bounds.diffusion.betas_schedule(betas), lambda theta, x_t, g: jnp.zeros(x_t.shape),
        levels=levels, prediction="x", decoder=decoder,
    ).model  # fmt: skip
    x = jnp.arange(levels)
    log_p = jax.vmap(lambda v: model.log_decoder(None, v[None], jnp.zeros(1), jnp.zeros(1)))(x)
    mass = np.exp(np.asarray(log_p, np.float64))
    np.testing.assert_allclose(mass.sum(), 1, atol=1e-4)
    deviation = np.sqrt(np.sum(mass * (np.asarray(x) - 127.5) ** 2)) / 127.5
    abar = np.cumprod(1 - betas)
    wanted = np.sqrt(betas[1] * (1 - abar[0]) / (1 - abar[1]))
    np.testing.assert_allclose(deviation, wanted, rtol=0.03)


def test_one_network_evaluation_serves_decoder_and_step_under_vmap():
    calls = []

    def predict(theta, x_t, gamma):
        calls.append(1)
        return x_t

    model = diffusion.ddpm(bounds.diffusion.cosine_schedule(5), predict, levels=4).model
    jax.vmap(
        lambda key, t: (
            bounds.diffusion.discrete_estimate(model, None, key, jnp.ones(3), t, 0.2).value
        )
    )(jax.random.split(jax.random.key(0), 6), jnp.array([1, 2, 3, 4, 5, 1]))
    assert len(calls) == 1


def test_means_of_closed_forms_are_no_log_weights():
    """IWAE of several bounds exceeds log p(x): their docstring says so."""
    gamma = bounds.diffusion.cosine_schedule(8)
    model = bounds.diffusion.Diffusion(
        gamma, lambda x: x, diffusion.gaussian_denoise(1.0),
        lambda theta, x, x_1, x_hat: stats_norm(
            x, x_hat, diffusion.gaussian_posterior_variance(1.0, gamma[0])
        ),
    )  # fmt: skip
    x = jnp.array(1.5)
    values = jax.jit(
        jax.vmap(lambda k: bounds.diffusion.bound(bounds.diffusion.terms(model, None, k, x)))
    )(jax.random.split(jax.random.key(0), 20_000))
    log_w = bounds.log_weights(
        bounds.diffusion.trajectory(model),
        bounds.Params((), ()),
        jax.random.key(1),
        x,
        num_samples=100,
    )
    exact = float(stats.norm.logpdf(1.5))
    assert float(bounds.iwae(values)) > exact + 0.2
    assert abs(float(bounds.iwae(log_w)) - exact) < 0.01


def stats_norm(x, mean, variance):
    return -0.5 * (jnp.square(x - mean) / variance + jnp.log(2 * jnp.pi * variance))


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: bounds.diffusion.betas_schedule(np.array([0.1, 1.0])), "strictly between 0 and 1"),
        (lambda: bounds.diffusion.linear_schedule(10), "take more steps or cosine_schedule"),
        (lambda: bounds.diffusion.linear_schedule(0), "num_steps must be at least 1"),
        (
            lambda: bounds.diffusion.linear_gamma(0.5, gamma_min=5.0, gamma_max=-5.0),
            "gamma_min must be below",
        ),
        (lambda: bounds.diffusion.linear_gamma(0.5, gamma_min=-100.0), "both within"),
        (lambda: bounds.diffusion.discrete_times(jnp.zeros(2), jnp.arange(1.0, 4.0)), "sum to 1"),
        (
            lambda: bounds.diffusion.discrete_times(jnp.zeros(2), jnp.array([1.5, -0.5])),
            "not be negative",
        ),
        (lambda: bounds.diffusion.discretize(bounds.diffusion.linear_gamma, 0), "continuous time"),
        (lambda: bounds.diffusion.discretize(lambda t: -t, 4), "increase strictly"),
        (lambda: bounds.diffusion.denoiser(lambda *a: 0, prediction="epsilon"), "eps, x, v"),
        (lambda: bounds.diffusion.denoiser(lambda *a: 0, variance="small"), "fixed_small"),
        (lambda: bounds.densities.scale_levels(jnp.array([0, 17]), levels=17), "from 0 to 16"),
        (lambda: bounds.densities.scale_levels(jnp.array([0.5]), levels=17), "whole numbers"),
        (
            lambda: bounds.diffusion.importance_probabilities(jnp.ones(3), uniform_share=0.0),
            "uniform_share",
        ),
        (lambda: diffusion.ddpm(jnp.zeros(1), lambda *a: 0, levels=4), "at least two steps"),
        (lambda: diffusion.ddpm(jnp.zeros(2), lambda *a: 0, levels=4, decoder="tanh"), "logistic"),
    ],
)
def test_wrong_settings_are_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def model_of(gamma):
    return bounds.diffusion.Diffusion(
        gamma,
        lambda x: x,
        bounds.diffusion.denoiser(lambda theta, x_t, g: x_t),
        lambda theta, x, x_1, x_hat: 0.0,
    )


@pytest.mark.parametrize("t", [0, 5, -1])
def test_steps_out_of_range_are_refused(t):
    model = model_of(bounds.diffusion.cosine_schedule(4))
    with pytest.raises(ValueError, match=r"t must lie in 1 \.\. 4"):
        bounds.diffusion.discrete_estimate(model, None, jax.random.key(0), jnp.ones(2), t, 0.25)
    with pytest.raises(ValueError, match=r"t must lie in 1 \.\. 4"):
        bounds.diffusion.noise_error(model, None, jax.random.key(0), jnp.ones(2), t)


def test_schedules_that_do_not_fit_are_refused():
    falling = model_of(jnp.array([1.0, 0.5]))
    with pytest.raises(ValueError, match="increase strictly"):
        bounds.diffusion.terms(falling, None, jax.random.key(0), jnp.ones(2))
    continuous = model_of(bounds.diffusion.linear_gamma)
    with pytest.raises(ValueError, match="continuous_estimate"):
        bounds.diffusion.trajectory(continuous)
    with pytest.raises(ValueError, match="discrete_estimate"):
        bounds.diffusion.continuous_estimate(
            model_of(jnp.zeros(2)), None, jax.random.key(0), jnp.ones(2), 0.5
        )
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        bounds.diffusion.continuous_estimate(continuous, None, jax.random.key(0), jnp.ones(2), 1.5)


def test_order_is_looked_at_under_jit_too():
    def falling(t):
        return -10.0 * t

    def estimate(key):
        return bounds.diffusion.continuous_estimate(
            model_of(falling), None, key, jnp.ones(2), 0.5
        ).value

    def dips(t):
        return jnp.sin(6 * t) + 2 * t

    with pytest.raises(ValueError, match="increase strictly"):
        jax.jit(estimate)(jax.random.key(0))
    with pytest.raises(ValueError, match="increase strictly"):
        jax.jit(lambda: bounds.diffusion.discretize(falling, 4))()
    with pytest.raises(ValueError, match="increase strictly"):
        bounds.diffusion.continuous_estimate(
            model_of(dips), None, jax.random.key(0), jnp.ones(2), 0.5
        )
    # A good one passes, of integers too.
    model = model_of(jnp.array([-3, 0, 3]))
    jax.jit(lambda key: bounds.diffusion.terms(model, None, key, jnp.ones(2)))(jax.random.key(0))


@pytest.mark.parametrize(
    ("denoise", "said"),
    [
        (lambda theta, x_t, s, t: x_t, "must return a pair"),
        (lambda theta, x_t, s, t: (jnp.ones((2, 2)), 0.0), "x_hat shaped as x_t"),
        (lambda theta, x_t, s, t: (jnp.ones(()), 0.0), "x_hat shaped as x_t"),
        (
            bounds.diffusion.denoiser(lambda *a: jnp.ones(2), variance="learned"),
            "variance='learned'",
        ),
        (bounds.diffusion.denoiser(lambda *a: (jnp.ones(2), 1.0)), "variance='learned'"),
    ],
)
def test_networks_of_wrong_shapes_are_refused(denoise, said):
    model = model_of(bounds.diffusion.cosine_schedule(4))._replace(denoise=denoise)
    with pytest.raises(ValueError, match=said):
        bounds.diffusion.terms(model, None, jax.random.key(0), jnp.ones(2))


@pytest.mark.parametrize("probability", [0.0, -1.0, 1.5, np.full(4, 0.25)])
def test_what_is_no_probability_is_refused(probability):
    model = model_of(bounds.diffusion.cosine_schedule(4))
    with pytest.raises(ValueError, match="probability must"):
        bounds.diffusion.discrete_estimate(
            model, None, jax.random.key(0), jnp.ones(2), 2, probability
        )


def test_an_estimate_by_one_time_is_no_log_weight():
    model = model_of(bounds.diffusion.cosine_schedule(4))
    found = bounds.diffusion.discrete_estimate(model, None, jax.random.key(0), jnp.ones(2), 2, 0.25)
    for bound in (bounds.iwae, bounds.elbo, bounds.normalized_weights):
        with pytest.raises(TypeError, match="BoundEstimate"):
            bound(found)
