"""DisARM, exact: a key is looked for whose uniform numbers give each outcome of a pair."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import TIGHT, X64, close, flat

import bounds
from models.exact import enumerable

pytestmark = pytest.mark.x64
LOGITS = jnp.array([0.3, -0.8])


def log_prob(logits, z):
    return jnp.sum(bounds.densities.bernoulli_log_prob(logits, z))


def propose(phi, key, x):
    logits = phi["weight"] * x + phi["bias"]
    z = jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(jnp.int32)
    return z, log_prob(logits, z)


def logits_of(phi, x):
    return phi["weight"] * x + phi["bias"]


MODEL = bounds.LatentModel(
    propose,
    lambda phi, x, z: log_prob(logits_of(phi, x), z),
    lambda theta, x, z: log_prob(theta[:2], z) + jnp.sin(theta[2] * x + z @ theta[3:]),
)
PARAMS = bounds.Params(
    jnp.array([0.2, -0.4, 0.7, 1.1, -2.0]),
    {"weight": jnp.array([0.4, 0.1]), "bias": LOGITS - jnp.array([0.4, 0.1])},
)
X = jnp.array(1.0)
STATES = jnp.array(list(itertools.product([0, 1], repeat=2)))


def exact(params):
    """Gradient of the ELBO by the sum over all four z."""

    def elbo(params):
        def of(z):
            log_q = MODEL.log_q(params.phi, X, z)
            return jnp.exp(log_q) * (MODEL.log_p(params.theta, X, z) - log_q)

        return jnp.sum(jax.vmap(of)(STATES))

    return jax.grad(elbo)(params)


def outcomes(objective, logits, num_pairs):
    """(keys, probabilities) such that every outcome of the pairs comes once.

    An entry of a pair is (1, 0), (0, 1) or the same twice, each with a known probability.
    """
    keys = jax.vmap(lambda s: jax.random.key(s))(jnp.arange(6000 if num_pairs == 2 else 400))
    run = jax.jit(jax.vmap(lambda k: objective(PARAMS, k, X)[1].z))
    z = np.asarray(run(keys)).reshape(len(keys), num_pairs, 2, -1)
    kind = (z[:, :, 0] - z[:, :, 1]).reshape(len(keys), -1)  # 1, -1, or 0
    found, first = np.unique(kind, axis=0, return_index=True)
    assert len(found) == 3 ** kind.shape[1], "more keys"
    least = np.minimum(*(np.asarray(jax.nn.sigmoid(s * logits), np.float64) for s in (1, -1)))
    alone = np.where(found == 0, 1 - 2 * np.tile(least, num_pairs), np.tile(least, num_pairs))
    return keys[first], np.prod(alone, axis=1)


@pytest.mark.parametrize("num_pairs", [1, 2])
def test_expected_gradient_is_exact(num_pairs):
    make = {"num_samples": 2 * num_pairs, "logits": logits_of}
    keys, mass = outcomes(bounds.disarm(MODEL, has_aux=True, **make), LOGITS, num_pairs)
    np.testing.assert_allclose(mass.sum(), 1, rtol=1e-6)
    grads = jax.jit(jax.vmap(jax.grad(bounds.disarm(MODEL, **make)), (None, 0, None)))(
        PARAMS, keys, X
    )
    mean = jax.tree.map(lambda g: np.tensordot(mass, np.asarray(g, np.float64), 1), grads)
    right = exact(PARAMS)
    assert close(mean, right)
    # Known to be wrong: without the factor sigma(|logit|), as of a fair coin.
    share = np.asarray(jax.nn.sigmoid(jnp.abs(LOGITS)))
    assert not np.allclose(mean.phi["bias"] / share / 2, right.phi["bias"], rtol=1e-2)


def toy(logit=0.3):
    """f(b) = (b - 0.499)^2 as log w at these parameters; its exact gradient in the logit."""
    fixed = jnp.asarray(logit)
    model = bounds.LatentModel(
        lambda phi, key, x: (jnp.zeros((), jnp.int32), phi),
        None,
        lambda theta, x, z: jnp.square(z - 0.499) + log_prob(fixed, z),
    )
    p = 1 / (1 + np.exp(-logit))
    return model, p, p * (1 - p) * (0.501**2 - 0.499**2)


def test_on_the_toy_the_variance_is_at_most_that_of_arm():
    model, p, gradient = toy()
    np.testing.assert_allclose(gradient, 4.88917e-4, rtol=1e-5)
    objective = bounds.disarm(model, num_samples=2, logits=lambda phi, x: phi)
    keys = jax.vmap(lambda s: jax.random.key(s))(jnp.arange(64))
    grads = jax.vmap(jax.grad(objective), (None, 0, None))(
        bounds.Params(None, jnp.asarray(0.3)), keys, None
    ).phi
    values, mass = np.array([0.501**2 - 0.499**2, 0.0]) * p / 2, [2 * (1 - p), 2 * p - 1]
    found = np.unique(np.asarray(grads, np.float64).round(9))
    np.testing.assert_allclose(found, np.unique(values), rtol=1e-4, atol=1e-9)
    disarm = mass @ values**2 - gradient**2
    np.testing.assert_allclose(mass @ values, gradient, rtol=1e-9)
    np.testing.assert_allclose(disarm, 4.2e-8, rtol=0.02)
    # ARM: (f(b) - f(b')) (u - 1/2), the same outcome but for u, on u > p and u < 1 - p.
    difference = 0.501**2 - 0.499**2
    arm = difference**2 * ((p - 0.5) ** 3 * -2 + 0.25) / 3 - gradient**2
    grid = (np.arange(200_000) + 0.5) / 200_000
    by_grid = ((grid > 1 - p) * 1.0 - (grid < p) * 1.0) * difference * (grid - 0.5)
    np.testing.assert_allclose(by_grid.mean(), gradient, rtol=1e-4)
    np.testing.assert_allclose(by_grid.var(), arm, rtol=1e-3)
    # REINFORCE with as many evaluations: two draws, without a baseline.
    f = np.array([0.499**2, 0.501**2])
    single = f * np.array([-p, 1 - p])
    reinforce = ([1 - p, p] @ single**2 - gradient**2) / 2
    assert disarm < arm < reinforce / 1e3


def test_its_value_is_the_elbo_of_the_weights_it_reports_and_chunks_change_nothing():
    make = {"num_samples": 6, "logits": logits_of}
    key = jax.random.key(3)
    objective = bounds.disarm(MODEL, has_aux=True, **make)
    (value, aux), grads = jax.value_and_grad(objective, has_aux=True)(PARAMS, key, X)
    log_w = jax.vmap(lambda z: MODEL.log_p(PARAMS.theta, X, z) - MODEL.log_q(PARAMS.phi, X, z))(
        aux.z
    )
    np.testing.assert_allclose(aux.log_w, log_w, rtol=1e-5)
    np.testing.assert_allclose(value, bounds.elbo(log_w), rtol=1e-6)
    for size in (1, 4):
        chunked = jax.grad(bounds.disarm(MODEL, chunk_size=size, **make))(PARAMS, key, X)
        np.testing.assert_allclose(flat(chunked), flat(grads), rtol=1e-4, atol=1e-6)
    batch = jax.vmap(bounds.disarm(MODEL, **make), (None, None, 0))(
        PARAMS, key, jnp.stack([X, 2 * X])
    )
    np.testing.assert_allclose(batch[0], value, rtol=1e-6)


def test_where_q_is_the_posterior_there_is_nothing_to_learn():
    model = MODEL._replace(log_p=lambda theta, x, z: log_prob(LOGITS, z) - 90.0)
    grads = jax.grad(bounds.disarm(model, num_samples=4, logits=logits_of))(
        PARAMS, jax.random.key(0), X
    )
    np.testing.assert_allclose(flat(grads.phi), 0, atol=TIGHT if X64 else 2e-5)


def test_a_sample_of_weight_zero_is_no_signal():
    model = MODEL._replace(log_p=lambda theta, x, z: jnp.where(z[0] == 1, theta[0], -jnp.inf))
    value, grads = jax.value_and_grad(bounds.disarm(model, num_samples=8, logits=logits_of))(
        PARAMS, jax.random.key(0), X
    )
    assert value == -jnp.inf
    assert np.all(np.isfinite(flat(grads)))


def test_what_is_not_bernoulli_is_refused_with_an_alternative():
    discrete = enumerable.make_model()
    params = enumerable.init(jax.random.key(0), 4, 3)
    objective = bounds.disarm(discrete, num_samples=2, logits=lambda phi, x: phi[x])
    with pytest.raises(ValueError, match=r"got \(4,\); use bounds\.rloo.*categorical"):
        objective(params, jax.random.key(0), jnp.array(1))
    for num_samples in (1, 3):
        with pytest.raises(ValueError, match=r"num_samples must be (even|at least 2)"):
            bounds.disarm(MODEL, num_samples=num_samples, logits=logits_of)


def test_logits_that_are_not_those_of_log_q_give_nan():
    wrong = bounds.disarm(
        MODEL, num_samples=2, logits=lambda phi, x: jax.nn.sigmoid(logits_of(phi, x))
    )
    assert np.isnan(wrong(PARAMS, jax.random.key(0), X))
