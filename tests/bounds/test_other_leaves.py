"""Parameters and data with leaves that are no arrays: an activation function, a name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import logistic, norm
from oracles import flat

import bounds

X = {"value": jnp.array(1.0)}
NAMED = X | {"name": "image_0001.png"}


def mean(phi, x):
    return phi["activation"](phi["w"] * x["value"])


def propose(phi, key, x):
    z = mean(phi, x) + jax.random.normal(key)
    return z, norm.logpdf(z, mean(phi, x))


MODEL = bounds.LatentModel(
    propose,
    lambda phi, x, z: norm.logpdf(z, mean(phi, x)),
    lambda theta, x, z: (
        norm.logpdf(z, theta["activation"](theta["w"])) + norm.logpdf(x["value"], z)
    ),
)
ONE, GROUPED = {"num_samples": 3}, {"num_groups": 2, "num_samples": 2}
PATH = {"betas": bounds.annealing_schedule(4), "num_leapfrog": 2}


def simulate(theta, key):
    first, second = jax.random.split(key)
    z = theta["activation"](theta["w"]) + jax.random.normal(first)
    return {"value": z + jax.random.normal(second), "name": "made up"}, z


OBJECTIVES = {
    "pathwise": bounds.pathwise(MODEL, **ONE),
    "pathwise in chunks": bounds.pathwise(MODEL, **ONE, chunk_size=2),
    "stl": bounds.stl(MODEL, **ONE),
    "dreg": bounds.dreg(MODEL, **ONE),
    "dreg in chunks": bounds.dreg(MODEL, **ONE, chunk_size=2),
    "miwae": bounds.miwae(MODEL, **GROUPED),
    "piwae": bounds.piwae(MODEL, **GROUPED),
    "reinforce": bounds.reinforce(MODEL, **ONE, baseline=lambda x: x["value"]),
    "vimco": bounds.vimco(MODEL, **ONE),
    "rloo": bounds.rloo(MODEL, **ONE),
    "ovis": bounds.ovis(MODEL, **ONE),
    "tvo": bounds.tvo(MODEL, **ONE, betas=[0.0, 0.3, 1.0]),
    "rws": bounds.rws(MODEL, **ONE),
    "rws with sleep": bounds.rws(MODEL, **ONE, simulate=simulate),
    "elbo_log_ratio": bounds.elbo_log_ratio(MODEL, **ONE),
    "elbo_analytic_kl": bounds.elbo_analytic_kl(
        MODEL, **ONE, log_px_given_z=lambda theta, x, z: norm.logpdf(x["value"], z),
        kl=lambda params, x: 0.5 * mean(params.phi, x) ** 2,
    ),
    "elbo_analytic_entropy": bounds.elbo_analytic_entropy(
        MODEL, **ONE, entropy=lambda phi, x: 0.0 * phi["activation"](phi["w"])
    ),
}  # fmt: skip
VALUES = {
    "log_weights": lambda *a: bounds.log_weights(MODEL, *a, num_samples=3),
    "log_likelihood": lambda *a: bounds.log_likelihood(MODEL, *a, num_samples=3, chunk_size=2)[0],
    "ais": lambda *a: bounds.ais(MODEL, *a, step_sizes=0.1, **PATH),
    "reverse_ais": lambda *a: bounds.reverse_ais(MODEL, *a, jnp.array(0.5), step_sizes=0.1, **PATH),
    "tune_step_sizes": lambda *a: bounds.tune_step_sizes(
        MODEL, *a, **PATH, num_rounds=2, num_chains=2
    ),
    "iwae_posterior_log_prob": lambda *a: bounds.surgery.iwae_posterior_log_prob(
        MODEL, *a, jnp.array(0.5), num_samples=3, num_sets=2
    ),
}
DENSITY = bounds.dequantization.dequantized(
    lambda theta, x, u: jnp.sum(logistic.logpdf(x + u, theta["activation"](theta["w"]))),
    bounds.dequantization.normal(lambda phi, x: (jnp.zeros(x.shape), phi["activation"](phi["w"]))),
)
TRAJECTORY = bounds.diffusion.Diffusion(
    bounds.diffusion.cosine_schedule(3),
    lambda x: x["value"],
    bounds.diffusion.denoiser(lambda theta, x_t, g: theta["activation"](theta["w"] * x_t)),
    lambda theta, x, x_1, x_hat: norm.logpdf(x["value"], x_hat, 0.1),
)
JOINT = bounds.joint.JointModel(
    lambda phi, x: phi["activation"](phi["w"]) * jnp.ones((2, 3)) * x["value"],
    lambda theta, y, z: (jnp.log(0.5), jnp.zeros((2, 3))),
    lambda theta, x, y, codes: theta["activation"](theta["w"]) * jnp.sum(codes[:, 0]),
)
CHAINS = bounds.dreg(bounds.annealed(MODEL, num_bridges=2), **ONE)
OTHER = {
    "annealed": lambda p, key, x: CHAINS(
        bounds.Params(bounds.Annealing(p, 0.1, PATH["betas"]), p.phi), key, x
    ),
    "dequantized": lambda p, key, x: bounds.dreg(DENSITY, **ONE)(p, key, jnp.arange(2)),
    "trajectory": lambda p, key, x: bounds.dreg(bounds.diffusion.trajectory(TRAJECTORY), **ONE)(
        p, key, x
    ),
    "diffusion.terms": lambda p, key, x: bounds.diffusion.bound(
        bounds.diffusion.terms(TRAJECTORY, p.theta, key, x)
    ),
    "diffusion.discrete_estimate": lambda p, key, x: (
        bounds.diffusion.discrete_estimate(TRAJECTORY, p.theta, key, x, jnp.array(2), 0.5).value
    ),
    "noise_error": lambda p, key, x: bounds.diffusion.noise_error(
        TRAJECTORY, p.theta, key, x, jnp.array(2)
    ),
    "joint.latent": lambda p, key, x: bounds.vimco(bounds.joint.latent(JOINT), **ONE)(
        p, key, (x, "a caption")
    ),
    "joint.terms": lambda p, key, x: bounds.joint.bound(
        bounds.joint.terms(JOINT, p, key, (x, "a caption"))
    ),
    "joint.relaxed": lambda p, key, x: bounds.joint.relaxed(JOINT, temperature=1.0)(
        p, key, (x, "a caption")
    ),
}
ALL = OBJECTIVES | VALUES | OTHER


def with_activation(w, activation):
    return {"w": w, "activation": activation}


@pytest.mark.parametrize("run", ALL.values(), ids=ALL)
def test_other_leaves_change_neither_value_nor_gradient(run):
    """Against a Partial of the same function, which has no leaf of its own."""

    def results(activation, x):
        def value(w):
            params = bounds.Params(
                with_activation(w[0], activation), with_activation(w[1], activation)
            )
            return run(params, jax.random.key(0), x)

        w = jnp.array([0.4, 0.5])
        return jax.jit(lambda w: (value(w), jax.jacrev(value)(w)))(w), value(w)

    found = results(jnp.tanh, NAMED)
    np.testing.assert_allclose(
        flat(found), flat(results(jax.tree_util.Partial(jnp.tanh), X)), rtol=1e-5, atol=1e-6
    )
    assert np.all(np.isfinite(flat(found)))


@pytest.mark.parametrize("name", ["stl", "dreg"])
def test_x_and_phi_stay_stopped_beside_other_leaves(name):
    """x reaches log q alone here: no gradient of it may be left, with a name or without."""
    model = MODEL._replace(
        propose=lambda phi, key, x: (z := phi["w"] + jax.random.normal(key), norm.logpdf(z)),
        log_q=lambda phi, x, z: norm.logpdf(z, phi["w"] + 0.1 * x["value"]),
        log_p=lambda theta, x, z: norm.logpdf(z),
    )
    objective = getattr(bounds, name)(model, **ONE)
    params = bounds.Params(None, with_activation(jnp.array(0.5), jnp.tanh))
    grad = jax.grad(lambda v: objective(params, jax.random.key(0), NAMED | {"value": v}))(1.0)
    np.testing.assert_array_equal(grad, 0.0)


def test_moments_of_gradients_of_such_a_model():
    def gradient(key):
        def value(w):
            params = bounds.Params(with_activation(0.4, jnp.tanh), with_activation(w, jnp.tanh))
            return OBJECTIVES["dreg"](params, key, NAMED)

        return {"phi": jax.grad(value)(0.5)}

    found = bounds.gradient_moments(gradient, jax.random.key(0), num_replicates=4, chunk_size=2)
    assert np.all(np.isfinite(flat(found)))
