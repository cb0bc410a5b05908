"""The joint bound by draws, as objectives and by enumeration; what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from joint_cases import (
    CODES,
    MODEL,
    PAIRS,
    TOLERANCE,
    K,
    N,
    X,
    Y,
    Z,
    known,
    params_of,
    values_of,
    z_score,
)

import bounds

pytestmark = pytest.mark.x64


@pytest.mark.parametrize("analytic", [True, False])
def test_terms_have_the_exact_means(analytic):
    params = params_of(6)
    x, y = 1, 3
    exact = known(params, x, y)
    keys = jax.random.split(jax.random.key(1), 20_000)
    terms = jax.jit(
        jax.vmap(lambda k: bounds.joint.terms(MODEL, params, k, (x, y), analytic=analytic))
    )(keys)
    for values, mean in (
        (terms.divergence, exact.divergence),
        (terms.reconstruction, exact.reconstruction),
        (bounds.joint.bound(terms, beta=1.7), exact.bound(1.7)),
    ):
        assert abs(z_score(values, mean)) < oracles.z_limit(3)
    # A term left out would be seen.
    assert abs(z_score(terms.log_q - terms.log_image, exact.divergence)) > oracles.z_limit(3)


def test_closed_form_divergence_varies_less_than_the_log_ratio():
    params = params_of(7)
    keys = jax.random.split(jax.random.key(2), 4000)
    deviations = [
        np.std(
            jax.vmap(lambda k, a=a: bounds.joint.terms(MODEL, params, k, (0, 1), analytic=a))(
                jax.random.clone(keys)
            ).divergence
        )
        for a in (True, False)
    ]
    assert deviations[0] < 0.7 * deviations[1]


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_latent_model_gives_the_bound_and_climbs_to_its_supremum(beta):
    params = params_of(8)
    latent = bounds.joint.latent(MODEL, beta=beta)
    for x, y in PAIRS[::3]:
        log_q = jax.vmap(lambda z: latent.log_q(params.phi, (x, y), z))(CODES)  # noqa: B023
        log_p = jax.vmap(lambda z: latent.log_p(params.theta, (x, y), z))(CODES)  # noqa: B023
        np.testing.assert_allclose(jnp.sum(jnp.exp(log_q)), 1.0, atol=TOLERANCE)
        found = values_of(params, x, y, beta=beta)
        value = beta * jnp.sum(jnp.exp(log_q) * (log_p - log_q))
        np.testing.assert_allclose(value, found.bound, atol=5 * TOLERANCE)
        limit = beta * jax.nn.logsumexp(log_p)
        np.testing.assert_allclose(limit, found.supremum, atol=5 * TOLERANCE)
        values = [float(value)]
        for count in (2, 3, 4):
            tuples = oracles.all_tuples(Z, count)
            mass = jnp.exp(jnp.sum(log_q[tuples], axis=-1))
            values.append(float(beta * jnp.sum(mass * bounds.iwae((log_p - log_q)[tuples]))))
        assert np.all(np.diff(values) > 0)
        assert values[-1] < limit


def test_objectives_have_the_exact_gradient():
    """REINFORCE at one sample and VIMCO at two, forced through every outcome."""
    params, x, y = params_of(9), 2, 1
    latent = bounds.joint.latent(MODEL, beta=2.0)
    exact = jax.jit(jax.grad(bounds.joint.enumerated(MODEL, num_codes=K, beta=2.0)))(
        params, None, (x, y)
    )
    log_q = jax.vmap(lambda z: latent.log_q(params.phi, (x, y), z))(CODES)

    def gradient(factory, count):
        tuples = oracles.all_tuples(Z, count)
        return oracles.expected_gradient(
            factory,
            latent,
            lambda phi, x, draw: CODES[draw],
            params,
            (x, y),
            tuples,
            jnp.exp(jnp.sum(log_q[tuples], axis=-1)),
        )

    reinforce = functools.partial(bounds.reinforce, num_samples=1, bound=bounds.elbo)
    found = jax.tree.map(lambda g: 2.0 * g, gradient(reinforce, 1))
    assert oracles.close(found, exact)

    def of_iwae(params):
        tuples = oracles.all_tuples(Z, 2)
        q = jax.vmap(lambda z: latent.log_q(params.phi, (x, y), z))(CODES)
        p = jax.vmap(lambda z: latent.log_p(params.theta, (x, y), z))(CODES)
        return jnp.sum(jnp.exp(jnp.sum(q[tuples], axis=-1)) * bounds.iwae((p - q)[tuples]))

    vimco = functools.partial(bounds.vimco, num_samples=2)
    assert oracles.close(gradient(vimco, 2), jax.grad(of_iwae)(params))
    # Without the score of q the gradient in phi is another.
    still = jax.grad(lambda p: of_iwae(bounds.Params(p.theta, jax.lax.stop_gradient(p.phi))))(
        params
    )
    assert not oracles.close(still, jax.grad(of_iwae)(params))


@pytest.mark.parametrize("chunk_size", [1, 2, None])
def test_enumeration_is_the_same_in_chunks_and_its_gradient_too(chunk_size):
    params = params_of(10)
    objective = bounds.joint.enumerated(MODEL, num_codes=K, beta=1.5, chunk_size=chunk_size)
    value, grads = jax.jit(jax.value_and_grad(objective))(params, None, (1, 0))
    np.testing.assert_allclose(value, known(params, 1, 0).bound(1.5), atol=5 * TOLERANCE)

    def by_hand(params):
        q = jax.nn.log_softmax(params.phi[1])
        log_q = (q[0][:, None] + q[1][None]).reshape(-1)
        first = jax.nn.log_softmax(params.theta.first[0])
        image = (first[:, None] + jax.nn.log_softmax(params.theta.second[0])).reshape(-1)
        log_prior = jax.nn.log_softmax(params.theta.text)[0] + image
        pixels = jax.nn.log_softmax(params.theta.pixels[0])[:, 1]
        return jnp.sum(jnp.exp(log_q) * (pixels - 1.5 * (log_q - log_prior)))

    assert oracles.close(grads, jax.grad(by_hand)(params))


def test_relaxed_objective_is_no_bound():
    """Codes between one-hot vectors tell a decoder what no token could."""
    theta = params_of(0).theta
    uniform = theta._replace(first=jnp.zeros((Y, K)), second=jnp.zeros((Y, K, K)))

    def sees_softness(theta, x, y, codes):
        # Hard codes: 1/3 for every x. A row that is no corner gives the right x away.
        softness = 1 - jnp.max(codes)
        return jnp.log((1 - softness) / 3 + softness)

    model = MODEL._replace(log_px=sees_softness)
    params = bounds.Params(uniform, jnp.zeros((X, N, K)))
    keys = jax.random.split(jax.random.key(3), 4000)
    objective = bounds.joint.relaxed(model, temperature=5.0)
    values = np.asarray(jax.vmap(objective, (None, 0, None))(params, keys, (0, 0)), np.float64)
    truth = np.log(1 / 3) + known(params, 0, 0).log_text  # p(x | y, z) is 1/3 whatever z is
    assert z_score(values, truth) > 10
    # The divergence is that of hard codes: cold enough, the value is the bound.
    cold = bounds.joint.relaxed(model, temperature=1e-3)
    values = np.asarray(jax.vmap(cold, (None, 0, None))(params, jax.random.clone(keys), (0, 0)))
    bound = np.log(1 / 3) - known(params, 0, 0).divergence
    assert abs(values.mean() - bound) < 5 * values.std() / np.sqrt(len(values)) + 1e-3


def test_relaxed_objective_without_a_gap_in_the_decoder_is_the_bound_in_expectation():
    """Linear in the codes, log p(x | y, relaxed z) has its mean within Jensen's reach of hard z."""
    params = params_of(11)
    flat = MODEL._replace(log_px=lambda theta, x, y, codes: jnp.sum(codes * theta.first[y][None]))
    hard_values = jax.vmap(lambda z: jnp.sum(jax.nn.one_hot(z, K) * params.theta.first[1][None]))(
        CODES
    )
    q = jnp.exp(jax.vmap(lambda z: bounds.joint.latent(flat).log_q(params.phi, (0, 1), z))(CODES))
    exact = float(jnp.sum(q * hard_values)) - known(params, 0, 1).divergence
    keys = jax.random.split(jax.random.key(4), 20_000)
    # Gumbel-softmax weights at temperature 1 do not have the mean q; near 0 they do.
    objective = bounds.joint.relaxed(flat, temperature=0.01)
    values = np.asarray(jax.vmap(objective, (None, 0, None))(params, keys, (0, 1)), np.float64)
    assert abs(z_score(values, exact)) < oracles.z_limit(1) + 1  # the temperature is not 0


def test_temperature_and_beta_may_be_traced():
    params = params_of(12)

    @jax.jit
    def value(temperature, beta):
        objective = bounds.joint.relaxed(MODEL, temperature=temperature, beta=beta)
        return jax.grad(objective)(params, jax.random.key(0), (0, 0)).phi

    assert jnp.all(jnp.isfinite(value(0.5, 1.0)))
    assert not jnp.allclose(value(0.5, 1.0), value(0.1, 1.0))
    assert not jnp.allclose(value(0.5, 1.0), value(0.5, 3.0))


def terms_of(**changes):
    model = MODEL._replace(**changes)
    return bounds.joint.terms(model, params_of(0), jax.random.key(0), (0, 0))


def enumerated(**settings):
    return bounds.joint.enumerated(MODEL, **settings)(params_of(0), None, (0, 0))


NO_TERMS = bounds.joint.Terms(*jnp.zeros(4))


def test_impossible_codes_and_zero_weights_leave_no_nan():
    q, prior, pixels = (np.array(v) for v in ([0.5, 0.5, 0.0], [0.3, 0.0, 0.2], [0.5, 0.9, 0.1]))
    with np.errstate(divide="ignore"):
        arrays = tuple(jnp.asarray(np.log(v), float) for v in (q, prior, pixels))
    found = bounds.joint.values(lambda index: arrays, beta=0.0)
    np.testing.assert_allclose(found.bound, np.mean(np.log([0.5, 0.9])), atol=TOLERANCE)
    np.testing.assert_allclose(found.supremum, np.log(0.5), atol=TOLERANCE)  # 0.9 is impossible
    assert jnp.isneginf(bounds.joint.values(lambda index: arrays).bound)
    tiny = (jnp.array([0.0, -1e4]), jnp.array([-1.0, -jnp.inf]), jnp.zeros(2))
    np.testing.assert_allclose(bounds.joint.values(lambda index: tiny).divergence, 1.0, rtol=1e-6)
    terms = bounds.joint.Terms(*(jnp.asarray(v, float) for v in (-3.0, -1.0, -np.inf, -2.0)))
    assert bounds.joint.bound(terms, beta=0.0) == -3.0
    assert bounds.joint.bound(terms, text_weight=0.0) == -4.0


def test_certain_posteriors_have_finite_terms_and_gradients():
    logits = jnp.array([[0.0, -jnp.inf], [-jnp.inf, 0.0]])
    model = MODEL._replace(encode=lambda phi, x: logits)
    params = params_of(1)
    terms = bounds.joint.terms(model, params, jax.random.key(0), (0, 1))
    exact = known(params, 0, 1, np.eye(Z)[1])
    np.testing.assert_allclose(terms.divergence, exact.divergence, atol=TOLERANCE)
    grads = jax.grad(
        lambda theta: (
            bounds.joint.terms(
                model, params._replace(theta=theta), jax.random.key(0), (0, 1)
            ).divergence
        )
    )(params.theta)
    assert all(jnp.all(jnp.isfinite(g)) for g in grads)


def test_enumeration_in_chunks_stands_shard_map():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    objective = bounds.joint.enumerated(MODEL, num_codes=K, chunk_size=2)
    params = params_of(2)
    spec = jax.sharding.PartitionSpec("data")
    both = jax.shard_map(
        lambda x, y: jax.vmap(objective, (None, None, 0))(params, None, (x, y)),
        mesh=mesh,
        in_specs=(spec, spec),
        out_specs=spec,
    )
    found = jax.jit(both)(jnp.array([0, 1]), jnp.array([2, 3]))
    expected = [known(params, 0, 2).bound(), known(params, 1, 3).bound()]
    np.testing.assert_allclose(found, expected, atol=5 * TOLERANCE)


MISTAKES = {
    "beta": (
        lambda: bounds.joint.bound(NO_TERMS, beta=-1.0),
        "beta must be a finite number at least 0, got -1",
    ),
    "nan": (
        lambda: bounds.joint.relaxed(MODEL, temperature=1.0, beta=float("nan")),
        "beta must be a finite number",
    ),
    "weight": (lambda: bounds.joint.latent(MODEL, text_weight=-0.1), "text_weight must be"),
    "zero beta": (lambda: bounds.joint.latent(MODEL, beta=0.0), "use bounds.joint.enumerated"),
    "vanishing": (lambda: bounds.joint.latent(MODEL, beta=1e-400), "beta must be a finite"),
    "temperature": (
        lambda: bounds.joint.relaxed(MODEL, temperature=0.0),
        "temperature must be a finite number above 0",
    ),
    "cold": (lambda: bounds.joint.relaxed(MODEL, temperature=-1.0), "above 0, got -1"),
    "chunk": (
        lambda: enumerated(num_codes=K, chunk_size=3),
        "chunk_size must divide the 4 values",
    ),
    "codes": (lambda: enumerated(num_codes=3), r"logits \[N, 3\]"),
    "token": (
        lambda: bounds.joint.latent(MODEL).log_q(params_of(0).phi, (0, 0), jnp.array([0, K])),
        "z must hold whole numbers from 0 to 1, got 0 to 2",
    ),
    "tokens": (
        lambda: bounds.joint.latent(MODEL).log_q(params_of(0).phi, (0, 0), jnp.zeros(3, int)),
        "z must be 2 tokens",
    ),
    "encode": (lambda: terms_of(encode=lambda phi, x: phi[x][0]), "encode must return logits"),
    "prior": (
        lambda: terms_of(prior=lambda theta, y, z: (jnp.zeros(()), jnp.zeros((1, K)))),
        "prior must return logits",
    ),
    "pixels": (
        lambda: terms_of(log_px=lambda theta, x, y, codes: jnp.zeros(2)),
        "log_px must return one number",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    call, message = MISTAKES[name]
    with pytest.raises(ValueError, match=message):
        call()
