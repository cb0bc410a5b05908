"""Half precision: everything public that takes arrays sums them in float32, or in float64.

One table of all such functions against float64 NumPy and SciPy of the same rounded inputs.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import precision_references as by
import pytest
from interface import public_names
from oracles import X64
from precision_references import BATCH, LEVELS
from scipy import special, stats

import bounds

DTYPES = ["bfloat16", "float16", "float32"] + ["float64"] * X64
# A half-precision sum of as many terms is off by thousands of nats, or infinite.
DIMS = 65_536

# What has no arrays of its own to sum: it takes the user's functions, whose scalars `check_scalar`
# widens, or Python numbers, or is a type; moments and their ratios are float32 as they are made.
WITHOUT_ARRAYS = {
    "Advice", "Annealing", "Aux", "Choice", "Diagnostics", "Estimate", "Interval", "LatentModel",
    "Measured", "Moments", "Objective", "Params", "advise",
    "ais", "annealed", "annealing_schedule", "disarm", "dreg", "dsnr", "elbo_analytic_entropy",
    "elbo_analytic_kl", "elbo_log_ratio", "gradient_moments", "k_hat_threshold", "log_likelihood",
    "log_weights", "merge_moments", "miwae", "ovis", "pathwise", "piwae", "power_law", "reinforce",
    "reverse_ais", "rloo", "rws", "snr", "snr_floor", "snr_interval", "snr_squared", "stl",
    "tune_step_sizes", "tvo", "vimco",
    "adapters.FromDistributions", "adapters.FromNumPyro", "adapters.from_distributions",
    "adapters.from_numpyro", "audit.Check", "audit.Report", "audit.claim", "audit.model",
    "audit.simulated",
    "dequantization.Dequantizer", "dequantization.autoregressive", "dequantization.dequantized",
    "dequantization.flow", "dequantization.uniform",
    "diffusion.BoundEstimate", "diffusion.Diffusion", "diffusion.OdeEstimate",
    "diffusion.OdeLogProb", "diffusion.Terms",
    "evidence.Value", "evidence.multilevel",
    "diffusion.betas_schedule", "diffusion.cosine_schedule", "diffusion.denoiser",
    "diffusion.discretize", "diffusion.init_monotone_gamma", "diffusion.linear_schedule",
    "diffusion.low_discrepancy_times", "diffusion.ode_log_density", "diffusion.trajectory",
    "diffusion.uniform_times",
    "masked.Enumerated", "masked.Masked", "masked.any_order", "masked.enumerated",
    "masked.trajectory",
    "joint.JointModel", "joint.Terms", "joint.Values", "joint.enumerated", "joint.latent",
    "joint.relaxed",
    "surgery.Aggregated", "surgery.GaussianPosteriors", "surgery.Terms",
    "surgery.iwae_posterior_log_prob",
}  # fmt: skip

RNG = np.random.default_rng(0)
X = RNG.integers(0, LEVELS, DIMS).astype(float)
BITS = RNG.integers(0, 2, DIMS).astype(float)
NORMAL, POSITIVE = RNG.normal(size=DIMS), RNG.uniform(0.5, 2.0, DIMS)
LOG_SCALE, SHARE = RNG.uniform(-0.5, 1.0, DIMS), RNG.uniform(0.05, 0.95, DIMS)
LOG_W, LOGITS = RNG.normal(-80, 2, 1000), 2 * RNG.normal(size=(512, LEVELS))
PAIRS = RNG.normal(-90, 3, (BATCH, BATCH))
MEANS, VARIANCES = RNG.normal(size=(BATCH, 48)), RNG.uniform(0.5, 2.0, (BATCH, 48))
POINT = RNG.normal(size=48)
TIMES = np.linspace(0.05, 0.9, 12)
PROBABILITIES = np.full(16, 1 / 16)
TOKENS = LOGITS[:, 0].round() % 2
CODE = np.arange(512) % LEVELS


def posteriors(mean, variance):
    return bounds.surgery.GaussianPosteriors(mean, variance)


def of_quarter(z, gamma):
    """x_hat of data N(0, 1/4)."""
    return 0.25 * jnp.sqrt(jax.nn.sigmoid(-gamma)) / (1 - 0.75 * jax.nn.sigmoid(-gamma)) * z


QUARTER = bounds.diffusion.Diffusion(
    lambda t: bounds.diffusion.linear_gamma(t, gamma_min=-4, gamma_max=5),
    lambda x: x,
    bounds.diffusion.denoiser(lambda theta, z, gamma: of_quarter(z, gamma), prediction="x"),
    lambda theta, x, z_0, x_hat: 0.0,
)
OF_QUARTER = math.sqrt((1 - 0.75 * special.expit(4)) / (1 - 0.75 * special.expit(-5)))

LEVEL = {"levels": LEVELS}


def masked(logits):
    """Of a network that says the same whatever it sees, so that no draw matters."""
    model = bounds.masked.Masked(lambda theta, tokens: theta, 512, LEVELS)
    return model, logits, jax.random.key(0), CODE


def of_tokens(logits):
    scores = special.log_softmax(logits, axis=-1)[np.arange(512), CODE]
    return scores.sum()


HALVES = bounds.diffusion.denoiser(lambda theta, x_t, gamma: 0.5 * x_t, prediction="x")
Q, PRIOR, LIKELIHOOD = np.log([0.2, 0.3, 0.5]), np.log([0.1, 0.2, 0.3]), -np.array([90, 91, 89.0])

# name, from `bounds` on: (function, float64 reference, inputs)
TABLE = {
    "ciwae": (
        lambda w: bounds.ciwae(w, 0.5), lambda w: (w.mean() + by.log_mean_exp(w)) / 2, [LOG_W]
    ),
    "effective_sample_size": (
        bounds.effective_sample_size,
        lambda w: math.exp(2 * special.logsumexp(w) - special.logsumexp(2 * w)), [LOG_W],
    ),
    "elbo": (bounds.elbo, lambda w: w.mean(), [LOG_W]),
    "iwae": (bounds.iwae, by.log_mean_exp, [LOG_W]),
    "normalized_weights": (bounds.normalized_weights, lambda w: special.softmax(w), [LOG_W]),
    "pareto_k_hat": (
        bounds.pareto_k_hat,  # its formula is checked where it lives; here its precision
        lambda w: float(bounds.pareto_k_hat(jnp.asarray(w, float))), [LOG_W],
    ),
    "renyi": (lambda w: bounds.renyi(w, 0.5), by.renyi, [LOG_W]),
    "thermodynamic": (
        lambda w: bounds.thermodynamic(w, [0.0, 0.25, 1.0]),
        lambda w: 0.25 * w.mean() + 0.75 * special.softmax(w / 4) @ w, [LOG_W],
    ),
    "densities.bernoulli_log_prob": (
        lambda *args: jnp.sum(bounds.densities.bernoulli_log_prob(*args)),
        lambda logits, x: np.sum(x * logits - np.logaddexp(0, logits)), [3 * NORMAL, BITS],
    ),
    "densities.categorical_log_prob": (
        lambda *args: jnp.sum(bounds.densities.categorical_log_prob(*args)),
        lambda logits, x: special.log_softmax(logits, -1)[np.arange(len(x)), x.astype(int)].sum(),
        [LOGITS, TOKENS],
    ),
    "densities.discretized_gaussian_log_prob": (
        lambda *args: bounds.densities.discretized_gaussian_log_prob(*args, **LEVEL),
        by.discretized(special.ndtr), [X, X + NORMAL, LOG_SCALE],
    ),
    "densities.discretized_logistic_log_prob": (
        lambda *args: bounds.densities.discretized_logistic_log_prob(*args, **LEVEL),
        by.discretized(special.expit), [X, X + NORMAL, LOG_SCALE],
    ),
    "densities.discretized_logit_laplace_log_prob": (
        lambda *args: bounds.densities.discretized_logit_laplace_log_prob(*args, **LEVEL),
        by.discretized(stats.laplace.cdf, by.squeezed), [X, by.squeezed(X) + NORMAL / 4, LOG_SCALE],
    ),
    "densities.gaussian_entropy": (
        bounds.densities.gaussian_entropy,
        lambda v: 0.5 * np.sum(np.log(2 * np.pi * np.e * v)), [POSITIVE],
    ),
    "densities.gaussian_kl": (
        bounds.densities.gaussian_kl,
        lambda m, v, m_0, v_0: 0.5 * np.sum((v + (m - m_0) ** 2) / v_0 - 1 - np.log(v / v_0)),
        [NORMAL, POSITIVE, NORMAL[::-1], POSITIVE[::-1]],
    ),
    "densities.gaussian_log_prob": (
        bounds.densities.gaussian_log_prob, lambda *args: by.factors(*args).sum(),
        [NORMAL, NORMAL[::-1], POSITIVE],
    ),
    "densities.level_softmax_log_prob": (
        lambda *args: bounds.densities.level_softmax_log_prob(*args, **LEVEL), by.level_softmax,
        [X[:512], NORMAL[:512], np.asarray(-1.0)],
    ),
    "densities.logit_laplace_log_prob": (
        bounds.densities.logit_laplace_log_prob, by.laplace_density, [SHARE, NORMAL, LOG_SCALE]
    ),
    "densities.scale_levels": (
        lambda x: bounds.densities.scale_levels(x, **LEVEL), lambda x: x / 8 - 1, [X],
    ),
    "densities.unscale_levels": (
        lambda v: bounds.densities.unscale_levels(v, **LEVEL), lambda v: 8 * (v + 1), [NORMAL]
    ),
    "dequantization.bits_per_dim": (
        lambda p: bounds.dequantization.bits_per_dim(
            p, num_dims=3072, levels=256, data_range=(0, 1), dequantized=True),
        lambda p: 8 - p / 3072 / math.log(2), [LOG_W],
    ),
    "dequantization.level_logit": (
        lambda *args: bounds.dequantization.level_logit(*args, **LEVEL), by.level_logit, [X, NORMAL]
    ),
    "dequantization.logistic": (
        lambda v, *args: bounds.dequantization.logistic(lambda phi, x: args).log_q(None, X, v),
        lambda v, m, a: stats.logistic.logpdf(v, m, np.exp(a)).sum(),
        [3 * NORMAL, NORMAL, LOG_SCALE],
    ),
    "dequantization.normal": (
        lambda v, *args: bounds.dequantization.normal(lambda phi, x: args).log_q(None, X, v),
        lambda v, m, a: stats.norm.logpdf(v, m, np.exp(a)).sum(), [3 * NORMAL, NORMAL, LOG_SCALE],
    ),
    "dequantization.truncated_normal": (
        lambda v: bounds.dequantization.truncated_normal(0.3).log_q(None, X, v), by.cut_off,
        [3 * NORMAL],
    ),
    "diffusion.bound": (
        lambda *terms: bounds.diffusion.bound(bounds.diffusion.Terms(*terms)),
        lambda prior, diffusion, decoder: decoder - prior - diffusion.sum(-1),
        [NORMAL[0], POSITIVE, NORMAL[1]],
    ),
    "diffusion.discrete_times": (
        bounds.diffusion.discrete_times,
        lambda t, p: (np.floor(16 * t) + 1, np.full(len(t), 1 / 16)),
        [TIMES, PROBABILITIES],
    ),
    "diffusion.importance_probabilities": (
        lambda s: bounds.diffusion.importance_probabilities(s, uniform_share=0.1), by.importance,
        [POSITIVE],
    ),
    "diffusion.linear_gamma": (
        lambda t: bounds.diffusion.linear_gamma(t, gamma_min=-4, gamma_max=6),
        lambda t: 10 * t - 4, [TIMES],
    ),
    "diffusion.monotone_gamma": (
        lambda w, r, c, t: bounds.diffusion.monotone_gamma(
            {"weights": w, "rates": r, "centres": c}, t, gamma_min=-4, gamma_max=6),
        by.monotone, [NORMAL[:64], 4 + NORMAL[64:128], SHARE[:64], TIMES],
    ),
    "diffusion.ode_log_prob": (
        lambda z: bounds.diffusion.ode_log_prob(QUARTER, None, None, z, num_steps=400).value,
        lambda z: stats.norm.logpdf(z, 0, OF_QUARTER).sum(), [POINT],
    ),
    "diffusion.ode_transport": (
        lambda z: bounds.diffusion.ode_transport(QUARTER, None, z, num_steps=400),
        lambda z: z / OF_QUARTER, [POINT],
    ),
    "diffusion.reverse_step": (
        lambda x_t: bounds.diffusion.reverse_step(
            HALVES, None, x_t, jnp.asarray(-1.0), jnp.asarray(1.0)),
        by.reverse_step, [NORMAL],
    ),
    "diffusion.straight_gamma": (
        lambda t: bounds.diffusion.straight_gamma(t, gamma_min=-4, gamma_max=6),
        lambda t: 2 * special.logit(special.expit(-2) * (1 - t) + special.expit(3) * t), [TIMES],
    ),
    "diffusion.continuous_estimate": None, "diffusion.discrete_estimate": None,
    "diffusion.noise_error": None, "diffusion.terms": None, "diffusion.velocity_error": None,
    "evidence.cubo": (
        lambda w: bounds.evidence.cubo(w, 2.0),
        lambda w: (by.log_mean_exp(2 * w) / 2, by.error_of(special.softmax(2 * w)) / 2), [LOG_W],
    ),
    "evidence.eubo": (
        bounds.evidence.eubo, lambda w: (w.mean(), w.std(ddof=1) / math.sqrt(len(w))), [LOG_W]
    ),
    "evidence.jackknife": (bounds.evidence.jackknife, by.jackknife, [LOG_W]),
    "evidence.psis": (
        bounds.evidence.psis,  # as for k-hat
        lambda w: jax.tree.leaves(bounds.evidence.psis(jnp.asarray(w, float))), [LOG_W],
    ),
    "evidence.thermodynamic_right": (
        lambda w: bounds.evidence.thermodynamic_right(w, [0.0, 1.0]), by.right_sum, [LOG_W]
    ),
    "joint.bound": (
        lambda *terms: bounds.joint.bound(bounds.joint.Terms(*terms), beta=2.0),
        lambda a, b, c, d: a - 2 * (b - c - d), [LOG_W, LOG_W[::-1], 3 * LOG_W, LOG_W / 3],
    ),
    "joint.posterior_kl": (
        lambda *logs: bounds.joint.posterior_kl(lambda _: logs), by.joint_gap,
        [Q, PRIOR, LIKELIHOOD],
    ),
    "joint.values": (
        lambda *logs: bounds.joint.values(lambda _: logs, beta=2.0), by.joint_values,
        [Q, PRIOR, LIKELIHOOD],
    ),
    "joint.terms": None,
    "surgery.active_units": (bounds.surgery.active_units, lambda m: m.var(0) > 0.01, [MEANS]),
    "masked.by_count": (
        lambda t: bounds.masked.by_count(*masked(t), 512, 1 / 512).value,
        of_tokens, [LOGITS],
    ),
    "masked.by_order": (lambda t: bounds.masked.by_order(*masked(t)).value, of_tokens, [LOGITS]),
    "masked.by_time": (
        lambda t: bounds.masked.by_time(*masked(t), 1.0).value, of_tokens, [LOGITS]
    ),
    "masked.cross_entropy": (
        lambda t: bounds.masked.cross_entropy(*masked(t), 1.0), lambda t: -of_tokens(t), [LOGITS]
    ),
    "masked.terms": (
        lambda t: bounds.masked.terms(*masked(t), jnp.ones(1)).reconstruction,
        of_tokens, [LOGITS],
    ),
    "masked.token_log_probs": (
        lambda t: jnp.sum(bounds.masked.token_log_probs(*masked(t)[:2], CODE, jnp.ones(512, bool))),
        of_tokens, [LOGITS],
    ),
    "surgery.aggregated_log_prob": (
        lambda z, *q: bounds.surgery.aggregated_log_prob(z, posteriors(*q)), by.aggregated,
        [POINT, MEANS, VARIANCES],
    ),
    "surgery.fast_aggregated_log_prob": (
        lambda z, *q: bounds.surgery.fast_aggregated_log_prob(z, posteriors(*q)),
        lambda *args: by.aggregated(*args)[0], [POINT, MEANS, VARIANCES],
    ),
    "surgery.information_sandwich": (
        lambda pairs: bounds.surgery.information_sandwich(pairs, num_data=100), by.sandwich, [PAIRS]
    ),
    "surgery.minibatch_mean_log_prob": (
        bounds.surgery.minibatch_mean_log_prob, by.log_mean_exp, [PAIRS]
    ),
    "surgery.minibatch_stratified_log_prob": (
        lambda pairs: bounds.surgery.minibatch_stratified_log_prob(pairs, num_data=100),
        by.stratified, [PAIRS],
    ),
    "surgery.minibatch_weighted_log_prob": (
        lambda pairs: bounds.surgery.minibatch_weighted_log_prob(pairs, num_data=100),
        lambda pairs: by.log_mean_exp(pairs) - math.log(100), [PAIRS],
    ),
    "surgery.terms": (
        lambda z, *q: bounds.surgery.terms(
            z, posteriors(*(leaf[0] for leaf in q)), posteriors(*q)),
        by.surgery, [POINT, MEANS, VARIANCES],
    ),
}  # fmt: skip


def decoder(theta, x, x_1, x_hat):
    return jnp.sum(-jnp.square(x - x_hat).astype(jnp.float32))


def test_the_table_holds_the_whole_interface():
    assert {f"bounds.{name}" for name in TABLE.keys() | WITHOUT_ARRAYS} == public_names().keys()


@pytest.mark.x64
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row])
def test_the_interface_in_every_precision(name, dtype):
    function, reference, inputs = TABLE[name]
    rounded = [jnp.asarray(value, dtype) for value in inputs]
    wide = [np.asarray(value, np.float64) for value in rounded]
    found, exact = jax.tree.leaves(function(*rounded)), jax.tree.leaves(reference(*wide))
    assert len(found) == len(exact)
    for mine, right in zip(found, exact, strict=True):
        kind = np.asarray(mine).dtype
        assert kind.itemsize >= (8 if dtype == "float64" else 4) or kind.kind in "bi"
        tolerance = 1e-8 if dtype == "float64" else 2e-5
        np.testing.assert_allclose(mine, right, rtol=tolerance, atol=tolerance)


@pytest.mark.x64
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_diffusion_network_in_every_precision(dtype):
    """Its outputs are as good as their own rounding: no sum over the event is taken in them."""
    x = jnp.asarray(NORMAL[:3072], float)

    def model(cast):
        network = bounds.diffusion.denoiser(
            lambda theta, x_t, gamma: cast((0.5 * x_t).astype(dtype)), prediction="x"
        )
        return bounds.diffusion.Diffusion(
            bounds.diffusion.cosine_schedule(4), lambda x: x, network, decoder
        )

    key = jax.random.key(0)
    for run in (
        lambda m: bounds.diffusion.terms(m, None, jax.random.clone(key), x),
        lambda m: bounds.diffusion.discrete_estimate(m, None, jax.random.clone(key), x, 2, 0.25),
        lambda m: bounds.diffusion.noise_error(m, None, jax.random.clone(key), x, 2),
        lambda m: bounds.diffusion.velocity_error(
            m._replace(gamma=bounds.diffusion.straight_gamma), None, jax.random.clone(key), x, 0.5
        ),
    ):
        half, wide = run(model(lambda out: out)), run(model(lambda out: out.astype(float)))
        for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(wide), strict=True):
            assert a.dtype.itemsize >= 4
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_in_half_precision_fail(dtype):
    """What the table would show of a density that is summed as it is."""
    value = jnp.asarray(NORMAL, dtype)
    summed = -0.5 * jnp.sum(jnp.square(value) + jnp.asarray(math.log(2 * math.pi), dtype))
    right = stats.norm.logpdf(np.asarray(value, np.float64)).sum()
    assert not np.isclose(float(summed), right, rtol=2e-5)
