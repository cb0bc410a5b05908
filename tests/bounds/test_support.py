"""No pixel, no token and no share: refused by hand, and no plausible number under tracing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bounds
from bounds import densities, dequantization, diffusion, joint
from models import autoregressive, pixels, token_prior
from models.exact import enumerable

LEVELS = 5
# Of LEVELS levels: scaled to [0, 1], beyond the range, before it, and missing.
STRAY = np.array([0.25, 300.0, 5.0, -1.0, np.nan])
EXPECTED = [-np.inf] * 4 + [np.nan]


def each_pixel(likelihood, outputs):
    """log p of pixels one by one, each with these outputs [P]."""

    def log_prob(t, x):
        one = jax.vmap(lambda pixel: likelihood.log_prob(t * outputs[None], pixel[None]))
        return one(x.reshape(-1)).reshape(x.shape)

    return log_prob


UP = jnp.arange(float(LEVELS))
# (t, x) -> log-probabilities shaped as x, which share the parameter t.
ELEMENTWISE = {
    "gaussian": lambda t, x: densities.discretized_gaussian_log_prob(x, t, t, levels=LEVELS),
    "logistic": lambda t, x: densities.discretized_logistic_log_prob(x, t, t, levels=LEVELS),
    "logit-Laplace": lambda t, x: densities.discretized_logit_laplace_log_prob(
        x, t, t, levels=LEVELS
    ),
    "softmax": lambda t, x: densities.level_softmax_log_prob(
        x, jnp.broadcast_to(t, x.shape), t, levels=LEVELS
    ),
    "categorical": lambda t, x: densities.categorical_log_prob(
        jnp.broadcast_to(t * UP, (*x.shape, LEVELS)), x
    ),
    "categorical pixels": each_pixel(pixels.categorical(LEVELS), UP),
    "logistic pixels": each_pixel(pixels.discretized_logistic(LEVELS), jnp.ones(2)),
    "bernoulli": lambda t, x: densities.bernoulli_log_prob(
        jnp.broadcast_to(t, x.shape), jnp.where(x == 0.25, 1.5, x)
    ),
    "logit-Laplace density": lambda t, x: densities.logit_laplace_log_prob(
        jnp.where(x == 0.25, 1.0, x), t, t
    ),
}
BY_HAND = {k: v for k, v in ELEMENTWISE.items() if "pixels" not in k}
VALID = {"bernoulli": [0.0, 1.0], "logit-Laplace density": [0.1, 0.9]}


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("trace", [jax.jit, jax.vmap])
def test_outside_of_the_support_a_traced_log_probability_is_that_of_nothing(name, trace):
    log_prob = ELEMENTWISE[name]
    found = trace(lambda x: log_prob(0.5, x))(jnp.asarray(STRAY, float))
    np.testing.assert_array_equal(found, EXPECTED)
    valid = jnp.asarray(VALID.get(name, range(LEVELS)), float)
    inside = trace(lambda x: log_prob(0.5, x))(valid)
    assert np.all(np.isfinite(inside))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_what_is_outside_leaves_the_gradients_of_the_others(name):
    """The sum over the finite entries is differentiated as if the others were not there."""
    log_prob, valid = ELEMENTWISE[name], jnp.asarray(VALID.get(name, [0.0, 3.0]))
    mixed = jnp.concatenate([valid, jnp.asarray(STRAY[:4], float)])

    def total(t, x):
        found = log_prob(t, x)
        return jnp.sum(jnp.where(jnp.isfinite(found), found, 0.0))

    gradient = jax.jit(jax.grad(total))
    np.testing.assert_allclose(gradient(0.5, mixed), gradient(0.5, valid), rtol=1e-5)


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("stray", STRAY)
def test_by_hand_it_is_refused(name, stray):
    with pytest.raises(ValueError, match=r"got "):
        BY_HAND[name](0.5, jnp.asarray([stray]))


def test_pixels_divided_by_their_range_have_no_bits():
    """Uniform noise of 256 levels scored 0.07 bits/dim: every pixel fell into the first cell."""
    noise = np.random.default_rng(0).integers(0, 256, size=(4, 64)) / 255.0

    def log_prob(x):
        return jnp.sum(densities.discretized_logistic_log_prob(x, 0.5, -8.0, levels=256))

    assert np.all(np.isneginf(jax.vmap(log_prob)(jnp.asarray(noise, float))))


def test_levels_scaled_and_their_logits_are_nan():
    x = jnp.asarray(STRAY, float)
    scaled = jax.jit(lambda x: densities.scale_levels(x, levels=LEVELS))(x)
    logits = jax.jit(lambda x: dequantization.level_logit(x, jnp.zeros(x.shape), levels=LEVELS))(x)
    assert np.all(np.isnan(scaled))
    assert np.all(np.isnan(logits))


def test_bernoulli_takes_what_lies_between_its_outcomes():
    found = jax.jit(densities.bernoulli_log_prob)(0.7, jnp.asarray(0.25))
    np.testing.assert_allclose(found, 0.25 * 0.7 - np.logaddexp(0, 0.7), rtol=1e-6)


@pytest.mark.parametrize("kind", [autoregressive.subset_flow, autoregressive.discretized])
def test_autoregressive_models_of_integers(kind):
    model = kind(3, LEVELS, hidden=(8,), num_components=2)
    params = model.init(jax.random.key(0), jnp.full(3, 2.0), jnp.ones(3))
    log_prob = jax.jit(model.log_prob)
    assert np.isfinite(log_prob(params, jnp.asarray([0.0, 2.0, 4.0])))
    for stray in (-1.0, 5.0, 0.5):
        assert np.isneginf(log_prob(params, jnp.asarray([0.0, 2.0, stray])))
    assert np.isnan(log_prob(params, jnp.asarray([0.0, 2.0, jnp.nan])))


# --- tokens and labels --------------------------------------------------------------------------


def joint_model():
    return joint.JointModel(
        encode=lambda phi, x: phi,
        prior=lambda theta, y, z: (jnp.zeros(()), theta),
        log_px=lambda theta, x, y, codes: jnp.zeros(()),
    )


@pytest.mark.parametrize("token", [-1, 3, 1000])
def test_a_traced_token_outside_of_the_codebook_is_impossible(token):
    """JAX takes the last token for -1, and clamps an index beyond the end."""
    logits = jnp.asarray([[0.1, 0.4, -0.3]] * 2)
    model = joint.latent(joint_model())
    z = jnp.asarray([1, token])
    for run in (
        lambda z: model.log_q(logits, (0, 0), z),
        lambda z: model.log_p(logits, (0, 0), z),
        lambda z: token_prior.picked(logits, z),
    ):
        assert np.isneginf(jax.jit(run)(z))
        assert np.isfinite(jax.jit(run)(jnp.asarray([1, 2])))
        with pytest.raises(ValueError, match=r"from 0 to 2, got"):
            run(z)


@pytest.mark.parametrize("stray", [-1, 4])
def test_the_enumerable_model_knows_its_states(stray):
    params = enumerable.init(jax.random.key(0), 3, 4)
    assert np.isneginf(jax.jit(enumerable.log_p)(params.theta, jnp.asarray(stray), jnp.asarray(0)))
    assert np.isneginf(jax.jit(enumerable.log_q)(params.phi, jnp.asarray(0), jnp.asarray(stray)))


# --- times, weights and shares ------------------------------------------------------------------


def test_a_share_of_the_elbo_lies_between_0_and_1():
    """At beta = -1 the combination is no bound: it exceeds the IWAE of the same samples."""
    log_w = jnp.asarray([-1.0, -3.0])
    for beta in (-1.0, 1.5, np.nan):
        with pytest.raises(ValueError, match=r"share of the ELBO, from 0 to 1, got"):
            bounds.ciwae(log_w, beta)
        assert np.isnan(jax.jit(bounds.ciwae)(log_w, beta))
    unchecked = -1.0 * bounds.elbo(log_w) + 2.0 * bounds.iwae(log_w)
    assert unchecked > bounds.iwae(log_w)
    for beta in (0.0, 1.0):
        assert np.isfinite(jax.jit(bounds.ciwae)(log_w, beta))


def test_an_objective_of_a_negative_order_is_refused():
    model = enumerable.make_model()
    with pytest.raises(ValueError, match=r"alpha must be a finite number at least 0, got -3"):
        bounds.dreg(model, num_samples=2, alpha=-3.0)
    # As a value it may be looked at, and can lie above the mean of the weights.
    log_w = jnp.asarray([-1.0, -3.0])
    assert bounds.renyi(log_w, -3.0) > bounds.iwae(log_w)


@pytest.mark.parametrize("weight", ["beta", "text_weight", "image_weight"])
def test_traced_weights_of_the_joint_bound(weight):
    terms = joint.Terms(-10.0, -1.0, -2.0, -3.0)
    bound = jax.jit(lambda w: joint.bound(terms, **{weight: w}))
    assert np.isnan(bound(-0.5))
    assert np.isfinite(bound(0.0))
    assert np.isfinite(bound(2.0))


def test_traced_beta_of_exact_values():
    logs = jnp.log(jnp.asarray([[0.5, 0.5], [0.2, 0.1], [0.5, 0.4]]))
    found = jax.jit(lambda b: joint.values(lambda _: tuple(logs), beta=b))(-1.0)
    assert np.isnan(found.bound)
    assert np.isnan(found.supremum)
    np.testing.assert_allclose(np.exp(found.log_p), 0.2 * 0.5 + 0.1 * 0.4, rtol=1e-6)


def test_traced_steps_and_times_of_diffusion():
    key, x = jax.random.key(0), jnp.ones(2)
    denoise = diffusion.denoiser(lambda theta, x_t, gamma: theta * x_t, prediction="x")
    model = diffusion.Diffusion(
        diffusion.cosine_schedule(4),
        lambda x: x,
        denoise,
        lambda theta, x, x_1, x_hat: 0.0 * theta,
    )

    def by_step(t, p):
        return diffusion.discrete_estimate(model, 0.5, jax.random.clone(key), x, t, p).value

    def by_time(time):
        continuous = model._replace(gamma=diffusion.linear_gamma)
        return diffusion.continuous_estimate(continuous, 0.5, jax.random.clone(key), x, time).value

    def error(t):
        return diffusion.noise_error(model, 0.5, jax.random.clone(key), x, t)

    def drawn(time):
        return diffusion.discrete_times(time, jnp.full(4, 0.25))[1]

    inside = [(by_step, (4, 0.25)), (by_time, (0.5,)), (error, (1,)), (drawn, (0.5,))]
    outside = [
        (by_step, (0, 0.25)), (by_step, (5, 0.25)), (by_step, (1, -0.25)), (by_step, (1, 0.0)),
        (by_time, (-0.1,)), (by_time, (1.5,)), (error, (0,)), (error, (5,)),
        (drawn, (-0.5,)), (drawn, (jnp.nan,)),
    ]  # fmt: skip
    for function, args in inside:
        assert np.isfinite(jax.jit(function)(*args))
    for function, args in outside:
        assert np.isnan(jax.jit(function)(*args))
        with pytest.raises(ValueError, match="must lie in"):
            function(*map(jnp.asarray, args))
    # A schedule that is learned and turns back has negative terms, which would pass for a bound.
    turned = jax.jit(
        lambda gamma: diffusion.bound(
            diffusion.terms(model._replace(gamma=gamma), 0.5, jax.random.clone(key), x)
        )
    )
    assert np.isfinite(turned(jnp.asarray([-3.0, 0.0, 2.0])))
    assert np.isnan(turned(jnp.asarray([-3.0, 2.0, 0.0])))


# --- shapes -------------------------------------------------------------------------------------

WIDE, ROW, ONE = np.zeros((7, 1)), np.zeros(7), np.ones(1)
MISFITS = {
    "bernoulli": (lambda: densities.bernoulli_log_prob(ROW, WIDE), "value must be broadcastable"),
    "gaussian, a mean of more": (
        lambda: densities.gaussian_log_prob(ONE, ROW, 1.0), "mean must be broadcastable to value"
    ),
    "gaussian, a variance of more": (
        lambda: densities.gaussian_log_prob(ROW, 0.0, WIDE),
        "variance must be broadcastable to value",
    ),
    "gaussian KL": (
        lambda: densities.gaussian_kl(ONE, ROW), "variance must be broadcastable to mean"
    ),
    "gaussian KL of a scalar": (
        lambda: densities.gaussian_kl(0.0, 1.0), "mean must have a last axis"
    ),
    "categorical": (
        lambda: densities.categorical_log_prob(np.zeros((7, 3)), WIDE),
        "value must be broadcastable",
    ),
    "categorical of a scalar": (
        lambda: densities.categorical_log_prob(0.0, 0), "last axis of categories"
    ),
    "discretized Gaussian": (
        lambda: densities.discretized_gaussian_log_prob(WIDE, ROW, 0.0, levels=3), "mean must be"
    ),
    "discretized logistic": (
        lambda: densities.discretized_logistic_log_prob(ROW, 0.0, WIDE, levels=3),
        "log_scale must be",
    ),
    "discretized logit-Laplace": (
        lambda: densities.discretized_logit_laplace_log_prob(0, ROW, 0.0, levels=3), "mean must be"
    ),
    "logit-Laplace": (lambda: densities.logit_laplace_log_prob(0.5, ROW, 0.0), "mean must be"),
    "softmax over levels": (
        lambda: densities.level_softmax_log_prob(ROW, WIDE, 0.0, levels=3), "z must be shaped as x"
    ),
    "softmax of many gammas": (
        lambda: densities.level_softmax_log_prob(ROW, ROW, ROW, levels=3), "gamma must be"
    ),
    "logits of levels": (
        lambda: dequantization.level_logit(ROW, WIDE, levels=3), "v must be shaped as x"
    ),
    "parts of the joint bound": (
        lambda: joint.bound(joint.Terms(ROW, WIDE, ROW, ROW)), "log_q must be"
    ),
    "parts of diffusion": (
        lambda: diffusion.bound(diffusion.Terms(ROW, np.zeros((7, 3)), WIDE)),
        "the parts must be",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_shapes_that_would_broadcast_to_something_else_are_refused(name):
    call, wanted = MISFITS[name]
    with pytest.raises(ValueError, match=wanted):
        call()
