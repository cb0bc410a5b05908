"""Draws that no gradient follows are refused by every path estimator, and only those."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import beta as beta_distribution
from jax.scipy.stats import gamma as gamma_distribution
from jax.scipy.stats import norm
from oracles import assert_biased, assert_unbiased, moments

import bounds
from bounds._sampling import propose as checked_propose
from models.exact import two_layer_gaussian

GROUPED = {"num_groups": 2, "num_samples": 2}
PATH = {
    "pathwise": lambda m: bounds.pathwise(m, num_samples=2),
    "pathwise, elbo": lambda m: bounds.pathwise(m, num_samples=2, bound=bounds.elbo),
    "stl": lambda m: bounds.stl(m, num_samples=2),
    "dreg": lambda m: bounds.dreg(m, num_samples=2),
    "dreg in chunks": lambda m: bounds.dreg(m, num_samples=3, chunk_size=2),
    "miwae": lambda m: bounds.miwae(m, **GROUPED),
    "piwae": lambda m: bounds.piwae(m, **GROUPED),
    "elbo_log_ratio": lambda m: bounds.elbo_log_ratio(m, num_samples=2),
    "elbo_analytic_kl": lambda m: bounds.elbo_analytic_kl(
        m, num_samples=2, log_px_given_z=m.log_p, kl=lambda params, x: 0.0
    ),
    "elbo_analytic_entropy": lambda m: bounds.elbo_analytic_entropy(
        m, num_samples=2, entropy=lambda phi, x: 0.0
    ),
}


def log_p(theta, x, z):
    """A joint of any z: each entry standard normal, x normal about the sum of their sines."""
    leaves = jax.tree.leaves(z)
    prior = sum(jnp.sum(norm.logpdf(leaf)) for leaf in leaves)
    return prior + norm.logpdf(x, theta + sum(jnp.sum(jnp.sin(leaf)) for leaf in leaves))


def mixture_log_prob(logits, means, z):
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) + norm.logpdf(z, means, 0.7))


def drawn_bernoulli(logit, key):
    return jax.random.bernoulli(key, jax.nn.sigmoid(logit)).astype(jnp.float32)


def bernoulli(phi, key, x):
    z = drawn_bernoulli(phi, key)
    return z, bounds.densities.bernoulli_log_prob(phi, z)


def drawn_mixture(logits, means, key):
    first, second = jax.random.split(key)
    return means[jax.random.categorical(first, logits)] + 0.7 * jax.random.normal(second)


def mixture(phi, key, x):
    z = drawn_mixture(phi["logits"], phi["mean"], key)
    return z, mixture_log_prob(phi["logits"], phi["mean"], z)


def mixture_of_one_layer(phi, key, x):
    logits, means = jnp.split(phi @ jnp.stack([x, 1.0]), 2)
    z = drawn_mixture(logits, means, key)
    return z, mixture_log_prob(logits, means, z)


def mixture_that_calls_its_encoder_twice(phi, key, x):
    def heads():
        values = jnp.tanh(phi @ jnp.stack([x, 1.0]))
        return values[:2], values[2:]

    z = drawn_mixture(*heads(), key)
    return z, mixture_log_prob(*heads(), z)


def mixture_by_choice(phi, key, x):
    first, second = jax.random.split(key)
    component = jax.random.choice(first, 2, p=jax.nn.softmax(phi["logits"]))
    z = phi["mean"][component] + 0.7 * jax.random.normal(second)
    return z, mixture_log_prob(phi["logits"], phi["mean"], z)


def switch_in_a_loop(phi, key, x):
    def step(z, key):
        first, second = jax.random.split(key)
        up = jax.random.uniform(first) < jax.nn.sigmoid(phi["logits"][0])
        return jnp.where(up, z, -z) + phi["mean"][0] + jax.random.normal(second), None

    z, _ = jax.lax.scan(step, jnp.zeros(()), jax.random.split(key, 3))
    return z, norm.logpdf(z, phi["mean"][0]) + jnp.sum(phi["logits"])


def discrete_beside_continuous(phi, key, x):
    first, second = jax.random.split(key)
    a, b = phi + jax.random.normal(first), drawn_bernoulli(phi, second)
    return {"a": a, "b": b}, norm.logpdf(a, phi) + bounds.densities.bernoulli_log_prob(phi, b)


def rounded(phi, key, x):
    z = jnp.round(phi + jax.random.normal(key))
    upper, lower = (jax.scipy.special.ndtr(z + side - phi) for side in (0.5, -0.5))
    return z, jnp.log(upper - lower)


def stopped_draw(phi, key, x):
    z = jax.lax.stop_gradient(phi) + jax.random.normal(key)
    return z, norm.logpdf(z, phi)


SPLIT = {"logits": jnp.array([0.3, -0.2]), "mean": jnp.array([-1.0, 1.0])}
LAYER = jnp.array([[0.3, 0.1], [-0.2, 0.0], [-1.0, 0.2], [1.0, 0.5]])
REFUSED = {
    "Bernoulli": (bernoulli, jnp.array(-0.5), "phi"),
    "Bernoulli, compiled": (jax.jit(bernoulli), jnp.array(-0.5), "phi"),
    "mixture": (mixture, SPLIT, r"phi\['logits'\]"),
    "mixture of one layer": (mixture_of_one_layer, LAYER, r"entries \[0:2\]"),
    "mixture, encoded twice": (mixture_that_calls_its_encoder_twice, LAYER, r"entries \[0:2\]"),
    "mixture by choice": (mixture_by_choice, SPLIT, r"phi\['logits'\]"),
    "switch in a loop": (switch_in_a_loop, SPLIT, r"phi\['logits'\]"),
    "discrete leaf": (discrete_beside_continuous, jnp.array(0.4), r"z\['b'\]"),
    "rounded": (rounded, jnp.array(0.4), "phi"),
    "stopped draw": (stopped_draw, jnp.array(0.4), "phi"),
}  # fmt: skip


def model_of(propose):
    """Whatever log q is at a z, no test here looks at its value."""
    return bounds.LatentModel(
        propose, lambda phi, x, z: propose(phi, jax.random.key(0), x)[1], log_p
    )


@pytest.mark.parametrize("make", PATH.values(), ids=PATH)
@pytest.mark.parametrize(("propose", "phi", "named"), REFUSED.values(), ids=REFUSED)
def test_a_draw_that_no_gradient_follows_is_refused(propose, phi, named, make):
    objective, x = make(model_of(propose)), jnp.array(1.2)

    def loss(phi, key):
        return objective(bounds.Params(jnp.array(0.2), phi), key, x)

    message = (
        rf"{named}.* without a derivative.*Use bounds\.vimco, bounds\.reinforce or bounds\.rws"
    )
    with pytest.raises(TypeError, match=message):
        jax.eval_shape(jax.grad(loss), phi, jax.random.key(0))
    with pytest.raises(TypeError, match=message):
        jax.eval_shape(
            jax.vmap(jax.grad(loss), (None, 0)), phi, jax.random.split(jax.random.key(0))
        )


def test_the_bernoulli_is_refused_outside_of_compiled_functions():
    objective = bounds.dreg(model_of(bernoulli), num_samples=2)
    with pytest.raises(TypeError, match="without a derivative"):
        jax.grad(objective)(bounds.Params(0.2, -0.5), jax.random.key(0), 1.2)


# --- what has to pass -------------------------------------------------------------------------


def guarded_flow(phi, key, x):
    """A leaky map, a guarded quotient and a binned map: comparisons that are no draws."""
    z = phi["mean"] + jax.random.normal(key, (2,))
    z = jnp.where(z[0] > 0, z * phi["logits"], z)
    z = jnp.where(jnp.abs(z) < 1e-3, 1.0 - z**2 / 6, jnp.sin(z) / jnp.where(z == 0, 1.0, z))
    knots = jnp.cumsum(jax.nn.softmax(phi["logits"]))
    left = jnp.searchsorted(knots, z[0]) % 2
    z = z + knots[left] * jnp.linalg.norm(z)
    return z, jnp.sum(norm.logpdf(z, phi["mean"])) + jnp.sum(knots)


def straight_through(phi, key, x):
    noisy = phi["logits"] + jax.random.gumbel(key, (2,))
    soft = jax.nn.softmax(noisy)
    z = jax.nn.one_hot(jnp.argmax(noisy), 2) + soft - jax.lax.stop_gradient(soft)
    return z, jnp.sum(z * jax.nn.log_softmax(phi["logits"])) + jnp.sum(phi["mean"])


def relaxed(phi, key, x):
    z = jax.nn.softmax(phi["logits"] + jax.random.gumbel(key, (2,)))
    return {"soft": z}, jnp.sum(z * jax.nn.log_softmax(phi["logits"]))


def implicit(phi, key, x):
    first, second, third = jax.random.split(key, 3)
    a, b = jnp.exp(phi["logits"])
    g, p = jax.random.gamma(first, a), jax.random.beta(second, a, b)
    d = jax.random.dirichlet(third, jnp.stack([a, b]))
    log_q = gamma_distribution.logpdf(g, a) + beta_distribution.logpdf(p, a, b)
    return (g, p, d), log_q + jnp.sum(jnp.log(d) * phi["logits"])


def frozen(phi, key, x):
    phi = jax.lax.stop_gradient(phi)
    return mixture(phi, key, x)


def chosen_by_fixed_odds(phi, key, x):
    """Discrete, but by odds that phi has no part in: its gradient is right."""
    z = drawn_mixture(jnp.zeros(2), phi["mean"], key)
    return z, mixture_log_prob(jnp.zeros(2), phi["mean"], z)


def auxiliary(phi, key, x):
    """A reverse model of its own parameters in log q: they take no part in the draw."""
    u, noise = jax.random.normal(key, (2,))
    z = phi["mean"][0] * u + noise
    return z, norm.logpdf(u) + norm.logpdf(z, phi["mean"][0] * u) - norm.logpdf(
        u, phi["logits"][0] * z
    )


def rectified_layers(phi, key, x):
    first, second = jax.random.split(key)
    a = phi["mean"] + jax.random.normal(first, (2,))
    mean = jax.nn.relu(a * phi["logits"]) + jnp.maximum(a, 0.0)
    b = mean + jax.random.normal(second, (2,))
    return {"a": a, "b": b}, jnp.sum(norm.logpdf(a, phi["mean"]) + norm.logpdf(b, mean))


@jax.custom_vjp
def own_rule(logit, uniform):
    return (uniform < jax.nn.sigmoid(logit)).astype(jnp.float32)


own_rule.defvjp(
    lambda logit, uniform: (own_rule(logit, uniform), None), lambda _, c: (c, jnp.zeros_like(c))
)


def custom(phi, key, x):
    z = own_rule(phi["logits"], jax.random.uniform(key, (2,)))
    return z, jnp.sum(bounds.densities.bernoulli_log_prob(phi["logits"], z)) + jnp.sum(
        phi["mean"] * z
    )


LEGAL = {
    f.__name__: f
    for f in (
        guarded_flow, straight_through, relaxed, implicit, frozen, chosen_by_fixed_odds, auxiliary,
        rectified_layers, custom,
    )
}  # fmt: skip
LEGAL["compiled"] = jax.jit(rectified_layers)
LEGAL["checkpointed"] = jax.checkpoint(rectified_layers)


@pytest.mark.parametrize("make", [PATH["pathwise"], PATH["dreg"], PATH["piwae"]])
@pytest.mark.parametrize("propose", LEGAL.values(), ids=LEGAL)
def test_other_draws_pass(propose, make):
    objective = make(model_of(propose))

    def loss(phi, key):
        return objective(bounds.Params(0.2, phi), key, 1.2)

    keys = jax.random.split(jax.random.key(0))
    jax.eval_shape(jax.vmap(jax.grad(loss), (None, 0)), SPLIT, keys)


def test_several_layers_and_phi_without_arrays_pass():
    model = two_layer_gaussian.make_model()
    layer = two_layer_gaussian.Layer(jnp.array(0.5), jnp.array([0.1]), jnp.array(-0.6))
    params = bounds.Params(
        two_layer_gaussian.Generative(jnp.array([0.2]), jnp.array(0.8), jnp.array(1.1)),
        two_layer_gaussian.Inference(layer, layer),
    )
    objective = bounds.dreg(model, num_samples=2)
    jax.eval_shape(jax.grad(objective), params, jax.random.key(1), jnp.ones(1))
    noise = model_of(lambda phi, key, x: (z := jax.random.normal(key), norm.logpdf(z)))
    for phi in (None, (), {"a": None}):
        objective = jax.jit(lambda theta, phi=phi: bounds.dreg(noise, num_samples=2)(
            bounds.Params(theta, phi), jax.random.key(0), 1.2
        ))  # fmt: skip
        assert np.isfinite(jax.grad(objective)(0.2))


def test_a_propose_that_looks_at_numbers_still_runs_outside_of_compiled_functions():
    def propose(phi, key, x):
        z = (phi if phi > 0 else 2 * phi) + jax.random.normal(key)
        return z, norm.logpdf(z, phi)

    grads = jax.grad(bounds.pathwise(model_of(propose), num_samples=2))(
        bounds.Params(0.2, 0.5), jax.random.key(0), 1.2
    )
    assert np.isfinite(grads.phi)


def test_values_are_there_for_any_z_without_a_gradient():
    """Evaluation takes no gradient, so nothing is refused."""
    params = bounds.Params(jnp.array(0.2), jnp.array(-0.5))
    log_w = jax.jit(
        lambda params, key: bounds.log_weights(model_of(bernoulli), params, key, 1.2, num_samples=3)
    )(params, jax.random.key(0))
    assert np.all(np.isfinite(log_w))


# --- the cure is right, and what is refused is wrong ------------------------------------------


def by_hand(model):
    """The path gradient that used to be given without a word."""

    def objective(params, key, x):
        z, log_q = checked_propose(model, params.phi, key, x)
        return model.log_p(params.theta, x, z) - log_q

    return objective


MIXTURE = bounds.LatentModel(
    mixture, lambda phi, x, z: mixture_log_prob(phi["logits"], phi["mean"], z), log_p
)
BERNOULLI = bounds.LatentModel(
    bernoulli, lambda phi, x, z: bounds.densities.bernoulli_log_prob(phi, z), log_p
)
GRID = np.linspace(-9, 9, 9001)


def exact_elbo_of_mixture(phi):
    log_q = jax.vmap(functools.partial(mixture_log_prob, phi["logits"], phi["mean"]))(GRID)
    log_joint = jax.vmap(functools.partial(log_p, 0.2, 1.2))(GRID)
    return jnp.sum(jnp.exp(log_q) * (log_joint - log_q)) * (GRID[1] - GRID[0])


def exact_elbo_of_bernoulli(phi):
    mass = jnp.stack([1 - jax.nn.sigmoid(phi), jax.nn.sigmoid(phi)])
    log_joint = jnp.stack([log_p(0.2, 1.2, z) for z in (0.0, 1.0)])
    return jnp.sum(mass * (log_joint - jnp.log(mass)))


@pytest.mark.parametrize(
    ("model", "phi", "exact"),
    [(MIXTURE, SPLIT, exact_elbo_of_mixture),
     (BERNOULLI, jnp.array(-0.5), exact_elbo_of_bernoulli)],
    ids=["mixture", "Bernoulli"],
)  # fmt: skip
def test_the_estimator_to_use_instead_is_unbiased_and_the_refused_gradient_is_not(
    model, phi, exact
):
    expected = jax.grad(exact)(phi)
    odds = (lambda tree: tree["logits"]) if model is MIXTURE else (lambda tree: tree)

    def measured(objective):
        return moments(
            lambda key: odds(jax.grad(lambda p: objective(bounds.Params(0.2, p), key, 1.2))(phi))
        )

    assert_unbiased(measured(bounds.reinforce(model, num_samples=1)), odds(expected))
    assert_biased(measured(by_hand(model)), odds(expected))


def test_annealing_refuses_isolated_values_and_takes_continuous_ones():
    run = functools.partial(bounds.ais, betas=bounds.annealing_schedule(4), step_sizes=0.1)
    params = bounds.Params(0.2, jnp.array(-0.5))
    for bad in (bernoulli, rounded, discrete_beside_continuous):
        with pytest.raises(TypeError, match=r"isolated values; use bounds\.log_likelihood"):
            run(model_of(bad), params, jax.random.key(0), 1.2)
    for good in (mixture, implicit, rectified_layers, guarded_flow, relaxed):
        jax.eval_shape(
            lambda phi, good=good: run(
                model_of(good), bounds.Params(0.2, phi), jax.random.key(0), 1.2
            ),
            SPLIT,
        )
