"""The VAE with each likelihood of pixels against sums by hand and integrals on a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gauss_hermite, z_limit

from models import pixels
from models.vae import make_vae

LIKELIHOODS = {
    "bernoulli": pixels.bernoulli(),
    "categorical": pixels.categorical(4),
    "logistic": pixels.discretized_logistic(4),
}
SIZES = {1: {"latents": (3,), "hidden": ((4, 5),)}, 2: {"latents": (3, 2), "hidden": ((4,), (5,))}}
each_likelihood = pytest.mark.parametrize("likelihood", list(LIKELIHOODS.values()), ids=LIKELIHOODS)
each_depth = pytest.mark.parametrize("layers", [1, 2])
some_of_both = pytest.mark.parametrize(
    ("likelihood", "layers"),
    [(LIKELIHOODS["bernoulli"], 2), (LIKELIHOODS["categorical"], 1), (LIKELIHOODS["logistic"], 2)],
    ids=["bernoulli-2", "categorical-1", "logistic-2"],
)


def drawn_params(vae, num_pixels, scale):
    """Every entry N(0, scale^2), biases too; nothing is at its start."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(vae.init, jax.random.key(0), np.ones(num_pixels, np.float32))
    return jax.tree.map(lambda p: (scale * rng.normal(size=p.shape)).astype(np.float32), shapes)


# --- by hand, float64 -------------------------------------------------------------------------


def dense(layer, value):
    kernel, bias = (np.asarray(layer[name], np.float64) for name in ("kernel", "bias"))
    return value @ kernel + bias


def trunk(variables, value):
    layers, index = variables["params"], 0
    while f"hidden_{index}" in layers:
        value = np.tanh(dense(layers[f"hidden_{index}"], value))
        index += 1
    return value


def gaussian(variables, value):
    value = trunk(variables, value)
    layers = variables["params"]
    return dense(layers["mean"], value), np.exp(dense(layers["log_scale"], value))


def pixel_outputs(variables, z, num_outputs):
    flat = dense(variables["params"]["outputs"], trunk(variables, z))
    return flat.reshape(-1, num_outputs)  # the outputs of a pixel lie together


def normal(value, mean, scale):
    terms = ((value - mean) / scale) ** 2 + 2 * np.log(scale) + np.log(2 * np.pi)
    return -0.5 * np.sum(terms)


def log_q_by_hand(phi, x, z, highest):
    total, below = 0.0, x / highest
    for variables, above in zip(phi, z, strict=True):
        total += normal(above, *gaussian(variables, below))
        below = above
    return total


def log_p_by_hand(theta, x, z, likelihood):
    total = normal(z[-1], 0.0, 1.0)
    for variables, below, above in zip(theta[1:], z[:-1], z[1:], strict=True):
        total += normal(below, *gaussian(variables, above))
    outputs = pixel_outputs(theta[0], z[0], likelihood.num_outputs)
    # Tests of pixels hold the rest against exact arithmetic.
    return total + float(jax.jit(likelihood.log_prob)(outputs.astype(np.float32), x))


@each_likelihood
@each_depth
def test_densities_are_sums_by_hand(likelihood, layers):
    vae = make_vae(6, likelihood=likelihood, **SIZES[layers])
    params = drawn_params(vae, 6, 0.5)
    assert vae.model.log_q is not None
    highest = likelihood.levels - 1
    x = np.array([0, 1, highest, 0, highest, 1], np.float32)

    @jax.jit
    def run(params, key, x):
        z, log_q = vae.model.propose(params.phi, key, x)
        means = vae.encoder_means(params.phi, jax.random.clone(key), x)
        again = vae.model.log_q(params.phi, x, z)
        log_p = vae.model.log_p(params.theta, x, z)
        return z, log_q, again, log_p, vae.encode(params.phi, x.astype(jnp.uint8)), means

    z, log_q, again, log_p, encoded, means = run(params, jax.random.key(1), x)
    z = [np.asarray(v, np.float64) for v in z]
    expected = log_q_by_hand(params.phi, x, z, highest)
    np.testing.assert_allclose(log_q, expected, rtol=1e-5)
    np.testing.assert_allclose(again, expected, rtol=1e-5)
    by_hand = log_p_by_hand(params.theta, x, z, likelihood)
    np.testing.assert_allclose(log_p, by_hand, rtol=1e-5)
    # The encoder sees pixels between 0 and 1, of whatever type.
    mean, scale = gaussian(params.phi[0], x / highest)
    np.testing.assert_allclose(encoded[0], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.exp(encoded[1]), scale, rtol=1e-4)
    if highest > 1:
        assert not np.allclose(encoded[0], gaussian(params.phi[0], x)[0], rtol=1e-2)
    # The mean of a layer, given the draw of the layer below that `propose` makes of the key.
    assert [m.shape for m in means] == [(n,) for n in SIZES[layers]["latents"]]
    for variables, below, mean in zip(params.phi, (x / highest, *z), means, strict=False):
        np.testing.assert_allclose(mean, gaussian(variables, below)[0], rtol=1e-4, atol=1e-6)


def test_a_fresh_decoder_gives_the_average_image_at_zero():
    """All other biases are zero, so that z = 0 leaves the outputs at theirs."""
    likelihood = LIKELIHOODS["categorical"]
    vae = make_vae(6, likelihood=likelihood, **SIZES[1])
    mean = np.linspace(0.2, 0.8, 6, dtype=np.float32) * (likelihood.levels - 1)
    deviation = 0.2 * np.ones(6, np.float32) * (likelihood.levels - 1)
    params = jax.jit(vae.init)(jax.random.key(0), mean, deviation)
    start = likelihood.bias(jnp.asarray(mean), jnp.asarray(deviation))
    decoded = jax.jit(vae.decode)(params.theta, jnp.zeros(3))
    np.testing.assert_allclose(decoded, jax.jit(likelihood.mean)(start), rtol=1e-5)
    np.testing.assert_allclose(decoded, mean, atol=0.1 * (likelihood.levels - 1))


# --- the joint as a distribution --------------------------------------------------------------


def narrow(layers, likelihood, num_pixels=2):
    """A VAE with one latent dimension in each layer."""
    sizes = {"latents": (1,) * layers, "hidden": ((4,),) * layers}
    vae = make_vae(num_pixels, likelihood=likelihood, **sizes)
    return vae, drawn_params(vae, num_pixels, 0.8)


def latent_grid(theta, layers):
    """z [I] of each layer and their probabilities under p(z), by ancestral quadrature."""
    noise, mass = (np.asarray(v, np.float64) for v in gauss_hermite(60, layers))
    z = [noise[:, :1]]
    for index, variables in enumerate(theta[:0:-1], 1):
        mean, scale = gaussian(variables, z[0])
        z.insert(0, mean + scale * noise[:, index : index + 1])
    return z, mass


@some_of_both
def test_the_joint_sums_to_one(likelihood, layers):
    """Over every image, and over z with the weights p(x, z) / p(z)."""
    vae, params = narrow(layers, likelihood)
    z, mass = latent_grid(params.theta, layers)
    values = np.arange(likelihood.levels)
    every_x = np.stack(np.meshgrid(values, values), -1).reshape(-1, 2).astype(np.float32)

    @jax.jit
    def log_joint(theta, x, z):
        of_x = jax.vmap(vae.model.log_p, (None, 0, None))
        return jax.vmap(of_x, (None, None, 0))(theta, x, z)

    log_prior = -0.5 * np.sum(z[-1] ** 2 + np.log(2 * np.pi), axis=1)
    for variables, below, above in zip(params.theta[1:], z[:-1], z[1:], strict=True):
        mean, scale = gaussian(variables, above)
        log_prior += -0.5 * np.sum(
            ((below - mean) / scale) ** 2 + 2 * np.log(scale) + np.log(2 * np.pi), axis=1
        )
    joint = log_joint(params.theta, every_x, tuple(jnp.asarray(v, jnp.float32) for v in z))
    total = np.sum(mass[:, None] * np.exp(np.asarray(joint, np.float64) - log_prior[:, None]))
    np.testing.assert_allclose(total, 1.0, rtol=1e-4)


@some_of_both
def test_simulate_draws_from_the_joint(likelihood, layers):
    """Moments of x and z on a grid; fails a right program once in 100,000 seeds."""
    vae, params = narrow(layers, likelihood)
    z, mass = latent_grid(params.theta, layers)
    decode = jax.jit(jax.vmap(vae.decode, (None, 0)))
    mean_x = np.asarray(decode(params.theta, jnp.asarray(z[0], jnp.float32)), np.float64)
    of_z = [z[0], z[0] ** 2, z[-1], z[-1] ** 2, z[0] * z[-1]]
    expected = mass @ np.concatenate([mean_x, mean_x * z[0], mean_x * z[-1], *of_z], axis=1)

    @jax.jit
    def simulate(theta, key):
        return jax.vmap(vae.simulate, (None, 0))(theta, jax.random.split(key, 40_000))

    def statistics(theta, seed):
        x, draws = simulate(theta, jax.random.key(seed))
        assert x.shape == (40_000, 2)
        assert set(np.unique(x)) <= set(range(likelihood.levels))
        x, low, high = (np.asarray(v, np.float64) for v in (x, draws[0], draws[-1]))
        pairs = [low, low**2, high, high**2, low * high]
        return np.concatenate([x, x * low, x * high, *pairs], axis=1)

    def largest_z(values):
        error = values.std(axis=0) / np.sqrt(len(values))
        return np.max(np.abs(values.mean(axis=0) - expected) / error)

    limit = z_limit(len(expected))
    assert largest_z(statistics(params.theta, 1)) < limit
    shifted = jax.tree.map(lambda p: 1.1 * p, params.theta)
    assert largest_z(statistics(shifted, 2)) > limit
