"""Samples do not depend on what is drawn beside them, whatever the kind of key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from oracles import flat

import bounds

KINDS = ("threefry2x32", "rbg", "unsafe_rbg")


def propose(phi, key, x):
    z = phi + jax.random.normal(key, (2,))
    return z, jnp.sum(norm.logpdf(z, phi))


MODEL = bounds.LatentModel(
    propose,
    lambda phi, x, z: jnp.sum(norm.logpdf(z, phi)),
    lambda theta, x, z: jnp.sum(norm.logpdf(z, theta)) + norm.logpdf(x, jnp.sum(z)),
)
PARAMS = bounds.Params(jnp.float32(0.3), jnp.float32(0.5))
OBJECTIVES = {
    "pathwise": lambda c: bounds.pathwise(MODEL, num_samples=6, chunk_size=c),
    "stl": lambda c: bounds.stl(MODEL, num_samples=6, chunk_size=c),
    "dreg": lambda c: bounds.dreg(MODEL, num_samples=6, chunk_size=c),
    "miwae": lambda c: bounds.miwae(MODEL, num_groups=2, num_samples=3, chunk_size=c),
    "piwae": lambda c: bounds.piwae(MODEL, num_groups=2, num_samples=3, chunk_size=c),
    "reinforce": lambda c: bounds.reinforce(MODEL, num_samples=6, chunk_size=c),
    "vimco": lambda c: bounds.vimco(MODEL, num_samples=6, chunk_size=c),
    "rws": lambda c: bounds.rws(MODEL, num_samples=6, chunk_size=c),
    "rloo": lambda c: bounds.rloo(MODEL, num_samples=6, chunk_size=c),
    "ovis": lambda c: bounds.ovis(MODEL, num_samples=6, chunk_size=c),
    "tvo": lambda c: bounds.tvo(MODEL, num_samples=6, betas=[0.0, 0.3, 1.0], chunk_size=c),
    "elbo_analytic_entropy": lambda c: bounds.elbo_analytic_entropy(
        MODEL, num_samples=6, entropy=lambda phi, x: 0.0, chunk_size=c
    ),
}


def gradient(key):
    return jax.grad(bounds.pathwise(MODEL, num_samples=2))(PARAMS, key, 1.0)._asdict()


CHUNKED = {
    name: (lambda key, c, make=make: jax.value_and_grad(make(c))(PARAMS, key, 1.0))
    for name, make in OBJECTIVES.items()
} | {
    "annealed": lambda key, c: bounds.log_weights(
        bounds.annealed(MODEL, num_bridges=2),
        bounds.Params(bounds.Annealing(PARAMS, 0.1, bounds.annealing_schedule(4)), PARAMS.phi),
        key,
        1.0,
        num_samples=6,
        chunk_size=c,
    ),
    "log_weights": lambda key, c: bounds.log_weights(
        MODEL, PARAMS, key, 1.0, num_samples=6, chunk_size=c
    ),
    "log_likelihood": lambda key, c: bounds.log_likelihood(
        MODEL, PARAMS, key, 1.0, num_samples=6, chunk_size=c or 6
    )[0],
    "iwae_posterior_log_prob": lambda key, c: bounds.surgery.iwae_posterior_log_prob(
        MODEL, PARAMS, key, 1.0, jnp.ones(2), num_samples=3, num_sets=6, chunk_size=c
    ),
    "gradient_moments": lambda key, c: bounds.gradient_moments(
        gradient, key, num_replicates=6, chunk_size=c or 6
    )[:3],
    "dsnr": lambda key, c: bounds.dsnr(
        gradient, key, direction={"theta": 1.0, "phi": 0.0}, num_replicates=6, chunk_size=c or 6
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("run", CHUNKED.values(), ids=CHUNKED)
def test_chunks_change_nothing(run, kind):
    whole = run(jax.random.key(3, impl=kind), None)
    for chunk_size in (1, 4):
        found = run(jax.random.key(3, impl=kind), chunk_size)
        np.testing.assert_allclose(flat(found), flat(whole), rtol=2e-4, atol=1e-5)


def chain(key, x):
    return bounds.ais(
        MODEL, PARAMS, key, x, betas=bounds.annealing_schedule(4), step_sizes=0.3, num_leapfrog=2
    )[0]


DIFFUSION = bounds.diffusion.Diffusion(
    bounds.diffusion.cosine_schedule(4),
    lambda x: x,
    bounds.diffusion.denoiser(lambda theta, x_t, g: theta * x_t, prediction="x"),
    lambda theta, x, x_1, x_hat: norm.logpdf(x, x_hat, 0.1),
)
PER_DATUM = {
    "dreg": lambda key, x: OBJECTIVES["dreg"](None)(PARAMS, key, x),
    "log_weights": lambda key, x: bounds.log_weights(MODEL, PARAMS, key, x, num_samples=3),
    "ais": chain,
    "diffusion.terms": lambda key, x: bounds.diffusion.terms(DIFFUSION, 0.5, key, x),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("run", PER_DATUM.values(), ids=PER_DATUM)
def test_a_batch_is_its_data_one_by_one(run, kind):
    x = jnp.array([0.5, -1.0, 2.0])
    batch = jax.vmap(run)(jax.random.split(jax.random.key(3, impl=kind), 3), x)
    keys = jax.random.split(jax.random.key(3, impl=kind), 3)
    for i in range(3):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], batch)
        np.testing.assert_allclose(flat(own), flat(run(keys[i], x[i])), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_independent_standard_normals_that_keys_tell_apart(kind):
    """The fourth moment included: |z| below 5 standard errors, 6e-7 each under the null."""

    def draws(key):
        _, aux = bounds.pathwise(MODEL, num_samples=10_000, has_aux=True)(PARAMS, key, 1.0)
        return np.asarray(aux.z, np.float64) - 0.5

    z, other = draws(jax.random.key(0, impl=kind)), draws(jax.random.key(1, impl=kind))
    products = (
        z[:, 0],
        z[:, 0] ** 2 - 1,
        z[:, 0] ** 4 - 3,
        z[:, 0] * z[:, 1],
        z[1:, 0] * z[:-1, 1],
    )
    for values in (*products, z[:, 0] * other[:, 0]):
        assert abs(np.mean(values)) < 5 * np.std(values) / np.sqrt(len(values))


def test_threefry_keys_are_folded_and_nothing_else():
    for make in (jax.random.key, jax.random.PRNGKey):
        key = make(5)
        noise = jnp.stack(
            [
                jax.random.normal(jax.random.fold_in(jax.random.clone(key), k), (2,))
                for k in range(3)
            ]
        )
        _, aux = bounds.dreg(MODEL, num_samples=3, has_aux=True)(PARAMS, make(5), 1.0)
        np.testing.assert_allclose(aux.z, 0.5 + noise, rtol=1e-6)
