"""What every objective promises beside its expectation: value, chunks, closures, zero weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import flat

import bounds
from models.exact import enumerable, linear_gaussian

GAUSSIAN = linear_gaussian.make_model()
PARAMS = bounds.Params(
    jnp.array([0.3, -0.2]),
    linear_gaussian.Inference(jnp.array([[0.6, 0.1], [0.0, 0.4]]), jnp.array([0.1, 0.2])),
)
X = jnp.array([1.5, -0.5])


def new_key():
    return jax.random.key(7)


DISCRETE = enumerable.make_model()
DISCRETE_PARAMS = enumerable.init(jax.random.key(0), 4, 3)

half = functools.partial(bounds.ciwae, beta=0.5)
FACTORIES = {
    "pathwise": (bounds.pathwise, bounds.iwae),
    "pathwise ciwae": (functools.partial(bounds.pathwise, bound=half), half),
    "stl": (bounds.stl, bounds.iwae),
    "dreg": (bounds.dreg, bounds.iwae),
    "dreg renyi": (
        functools.partial(bounds.dreg, alpha=0.3),
        functools.partial(bounds.renyi, alpha=0.3),
    ),
    "reinforce": (bounds.reinforce, bounds.iwae),
    "vimco": (bounds.vimco, bounds.iwae),
    "rws": (bounds.rws, bounds.iwae),
    "rloo": (bounds.rloo, bounds.elbo),
    "rloo iwae": (functools.partial(bounds.rloo, bound=bounds.iwae), bounds.iwae),
    "ovis": (bounds.ovis, bounds.iwae),
    "tvo": (
        functools.partial(bounds.tvo, betas=[0.0, 0.3, 1.0]),
        functools.partial(bounds.thermodynamic, betas=[0.0, 0.3, 1.0]),
    ),
    "miwae": (
        functools.partial(bounds.miwae, num_groups=2),
        lambda log_w: jnp.mean(bounds.iwae(log_w)),
    ),
    "piwae": (
        functools.partial(bounds.piwae, num_groups=2),
        lambda log_w: bounds.iwae(log_w.ravel()),
    ),
}
both = pytest.mark.parametrize(("factory", "bound"), FACTORIES.values(), ids=FACTORIES)


@both
def test_the_value_is_the_bound_of_the_weights_it_reports(factory, bound):
    """Never the surrogate: sum of normalised weights times log-weights exceeds IWAE."""
    value, aux = factory(GAUSSIAN, num_samples=4, has_aux=True)(PARAMS, new_key(), X)
    np.testing.assert_allclose(value, bound(aux.log_w), rtol=1e-6)
    z = aux.z.reshape(-1, 2)
    log_q = jax.vmap(lambda z: GAUSSIAN.log_q(PARAMS.phi, X, z))(z)
    log_w = jax.vmap(lambda z: GAUSSIAN.log_p(PARAMS.theta, X, z))(z) - log_q
    np.testing.assert_allclose(aux.log_w.ravel(), log_w, rtol=1e-5)
    assert len(np.unique(np.asarray(z)[:, 0])) == len(z), "every sample has a key of its own"
    surrogate = jnp.sum(bounds.normalized_weights(log_w) * log_w)
    assert surrogate > bounds.iwae(log_w) + 1e-3


@both
@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_chunks_change_nothing(factory, bound, chunk_size):
    dense = jax.value_and_grad(factory(GAUSSIAN, num_samples=4))(PARAMS, new_key(), X)
    chunked = jax.jit(
        jax.value_and_grad(
            factory(GAUSSIAN, num_samples=4, chunk_size=chunk_size, has_aux=True), has_aux=True
        )
    )(PARAMS, new_key(), X)
    (value, aux), grads = chunked
    np.testing.assert_allclose(value, dense[0], rtol=1e-5)
    np.testing.assert_allclose(flat(grads), flat(dense[1]), rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(bound(aux.log_w), value, rtol=1e-6)


@both
def test_a_batch_is_the_data_one_by_one(factory, bound):
    """vmap over data mixes nothing: no hidden batch mean, no batch inside the log-sum-exp."""
    objective = factory(GAUSSIAN, num_samples=3)
    data, keys = jnp.stack([X, -X, 2 * X]), jax.random.split(new_key(), 3)
    batch = jax.jit(jax.vmap(objective, (None, 0, 0)))(PARAMS, keys, data)
    assert batch.shape == (3,)
    for i in range(3):
        np.testing.assert_allclose(batch[i], objective(PARAMS, keys[i], data[i]), rtol=1e-5)


@both
def test_samples_shared_by_a_batch_meet_the_weights_of_each(factory, bound):
    """A q that ignores x, under one key: z is not batched, its weights are."""
    nowhere = jnp.zeros(2)
    blind = GAUSSIAN._replace(
        propose=lambda phi, key, x: GAUSSIAN.propose(phi, key, nowhere),
        log_q=lambda phi, x, z: GAUSSIAN.log_q(phi, nowhere, z),
    )
    objective = factory(blind, num_samples=3)
    data = jnp.stack([X, -2 * X, 3 * X])

    def total(params):
        return jnp.sum(jax.vmap(objective, (None, None, 0))(params, new_key(), data))

    singles = [flat(jax.grad(objective)(PARAMS, new_key(), x)) for x in data]
    np.testing.assert_allclose(flat(jax.grad(total)(PARAMS)), sum(singles), rtol=1e-4, atol=1e-4)


def test_orders_can_be_vmapped():
    def value(alpha, params):
        return bounds.dreg(GAUSSIAN, num_samples=3, alpha=alpha)(params, new_key(), X)

    alphas = jnp.array([0.0, 0.5])
    batch = jax.jacrev(lambda params: jax.vmap(value, (0, None))(alphas, params))(PARAMS)
    for i, alpha in enumerate(alphas):
        single = jax.grad(value, argnums=1)(alpha, PARAMS)
        own = jax.tree.map(lambda leaf, i=i: leaf[i], batch)
        np.testing.assert_allclose(flat(own), flat(single), rtol=1e-4, atol=1e-5)


def with_closure(scale):
    """The model with log p(x, z) + scale * z . x, a value that log_p closes over."""
    return GAUSSIAN._replace(
        log_p=lambda theta, x, z: GAUSSIAN.log_p(theta, x, z) + scale * jnp.sum(z * x)
    )


@both
def test_gradient_in_a_value_that_log_p_closes_over_is_exact_for_each_draw(factory, bound):
    """A surrogate that counts log_p twice, or not at all, is off here."""
    groups = getattr(factory, "keywords", {}).get("num_groups")

    def value(scale):
        return factory(with_closure(scale), num_samples=4)(PARAMS, new_key(), X)

    def reference(scale):
        def of_flat(log_w):
            return bound(log_w.reshape(groups, 4) if groups else log_w)

        objective = bounds.pathwise(
            with_closure(scale), num_samples=4 * (groups or 1), bound=of_flat
        )
        return objective(PARAMS, new_key(), X)

    got = jax.jit(jax.grad(value))(0.1)
    np.testing.assert_allclose(got, jax.grad(reference)(0.1), rtol=1e-4)
    assert abs(got) > 0.1


X_ESTIMATORS = {
    "dreg": (bounds.dreg, bounds.iwae),
    "stl elbo": (functools.partial(bounds.stl, bound=bounds.elbo), bounds.elbo),
    "vimco": (bounds.vimco, bounds.iwae),
    "reinforce": (bounds.reinforce, bounds.iwae),
    "rloo": (bounds.rloo, bounds.elbo),
    "ovis": (bounds.ovis, bounds.iwae),
}


@pytest.mark.parametrize(("factory", "bound"), X_ESTIMATORS.values(), ids=X_ESTIMATORS)
def test_gradient_in_x_is_unbiased(factory, bound):
    """The gradient in x of the bound, by the same test; leaving x live in log q biases dreg."""
    from oracles import assert_biased, assert_unbiased, moments

    reference = bounds.pathwise(GAUSSIAN, num_samples=3, bound=bound)
    exact = moments(lambda k: jax.grad(reference, argnums=2)(PARAMS, k, X), seed=1)

    def difference(objective, seed):
        own = moments(lambda k: jax.grad(objective, argnums=2)(PARAMS, k, X), seed=seed)
        # Two independent means: their variances add.
        return own._replace(mean=own.mean - exact.mean, m2=own.m2 + exact.m2)

    assert_unbiased(difference(factory(GAUSSIAN, num_samples=3), 2), jnp.zeros(2))
    if factory is bounds.dreg:
        # A log q that sees the outer x stands for one in which x is not stopped.
        def live(params, key, x):
            model = GAUSSIAN._replace(log_q=lambda phi, _, z: GAUSSIAN.log_q(phi, x, z))
            return bounds.dreg(model, num_samples=3)(params, key, x)

        assert_biased(difference(live, 3), jnp.zeros(2))


def half_supported(log_p):
    """p(x, z) = 0 for z < 0, by a double-where as a careful user writes it."""
    return lambda theta, x, z: jnp.where(jnp.all(z > 0), log_p(theta, x, z), -jnp.inf)


ZERO_WEIGHT = FACTORIES | {
    "reinforce elbo": (functools.partial(bounds.reinforce, bound=bounds.elbo), bounds.elbo),
}


@pytest.mark.parametrize("factory", [f for f, _ in ZERO_WEIGHT.values()], ids=ZERO_WEIGHT)
def test_a_sample_of_weight_zero_contributes_nothing(factory):
    model = GAUSSIAN._replace(log_p=half_supported(GAUSSIAN.log_p))
    objective = factory(model, num_samples=8, has_aux=True)
    (value, aux), grads = jax.value_and_grad(objective, has_aux=True)(PARAMS, new_key(), X)
    dead = np.isneginf(np.asarray(aux.log_w))
    assert 0 < dead.sum() < dead.size, "the seed must give both kinds"
    assert not np.isnan(value)
    assert np.all(np.isfinite(flat(grads)))

    # Moving the dead samples must not matter: a model whose q is told apart on them alone.
    def kick(phi, z):
        return jnp.where(jnp.all(z > 0), 0.0, 1e3 * jnp.sum(phi.bias))

    def propose(phi, key, x):
        z, log_q = GAUSSIAN.propose(phi, key, x)
        return z, log_q + kick(phi, z)

    moved = model._replace(
        propose=propose, log_q=lambda phi, x, z: GAUSSIAN.log_q(phi, x, z) + kick(phi, z)
    )
    again = jax.grad(factory(moved, num_samples=8))(PARAMS, new_key(), X)
    np.testing.assert_allclose(flat(again), flat(grads), rtol=1e-5, atol=1e-6)


@both
def test_all_weights_zero_give_minus_infinity_and_no_nan(factory, bound):
    model = GAUSSIAN._replace(
        log_p=lambda theta, x, z: jnp.where(
            jnp.sum(theta) > 99, GAUSSIAN.log_p(theta, x, z), -jnp.inf
        )
    )
    value, grads = jax.value_and_grad(factory(model, num_samples=3))(PARAMS, new_key(), X)
    assert value == -jnp.inf
    np.testing.assert_array_equal(flat(grads), 0)


def test_one_live_sample_among_the_dead_in_vimco():
    """The others of the live one have no weight: its baseline falls back to zero."""
    params = enumerable.init(jax.random.key(1), 4, 3)
    emission = params.theta.emission.at[:, 1].set(-jnp.inf).at[2, 1].set(0.0)
    params = params._replace(theta=params.theta._replace(emission=emission))
    for seed in range(20):
        key = jax.random.key(seed)
        value, grads = jax.value_and_grad(bounds.vimco(DISCRETE, num_samples=3))(
            params, key, jnp.array(1)
        )
        assert not np.isnan(value)
        assert np.all(np.isfinite(flat(grads.phi)))


def test_groups_are_contiguous_and_normalized_within():
    """Group m holds samples mK .. mK+K-1; each is normalised over its own K."""
    log_w = bounds.log_weights(GAUSSIAN, PARAMS, new_key(), X, num_samples=6)
    value, aux = bounds.miwae(GAUSSIAN, num_groups=2, num_samples=3, has_aux=True)(
        PARAMS, new_key(), X
    )
    np.testing.assert_allclose(aux.log_w, log_w.reshape(2, 3), rtol=1e-6)
    by_hand = np.mean([bounds.iwae(log_w[:3]), bounds.iwae(log_w[3:])])
    np.testing.assert_allclose(value, by_hand, rtol=1e-6)
    assert abs(value - np.mean(bounds.iwae(log_w.reshape(2, 3), axis=0))) > 1e-3


@pytest.mark.parametrize("name", ["pathwise", "stl", "dreg", "miwae", "piwae"])
def test_discrete_z_is_refused_with_an_alternative(name):
    kwargs = {"num_groups": 2} if name in ("miwae", "piwae") else {}
    objective = getattr(bounds, name)(DISCRETE, num_samples=2, **kwargs)
    with pytest.raises(TypeError, match=r"int\d+.*use bounds.vimco"):
        objective(DISCRETE_PARAMS, new_key(), jnp.array(1))


def test_a_z_with_both_parts_is_refused_and_takes_an_estimator_for_discrete_z():
    def propose(phi, key, x):
        z, log_q = GAUSSIAN.propose(phi, key, x)
        return (z, jnp.asarray(1)), log_q

    mixed = bounds.LatentModel(
        propose,
        lambda phi, x, z: GAUSSIAN.log_q(phi, x, z[0]),
        lambda theta, x, z: GAUSSIAN.log_p(theta, x, z[0]) * z[1],
    )
    with pytest.raises(TypeError, match=r"use bounds.vimco.* for the whole of a z that has both"):
        bounds.dreg(mixed, num_samples=2)(PARAMS, new_key(), X)
    value = bounds.rloo(mixed, num_samples=2)(PARAMS, new_key(), X)
    np.testing.assert_allclose(value, bounds.rloo(GAUSSIAN, num_samples=2)(PARAMS, new_key(), X))


NEED_TWO = {
    "vimco": bounds.vimco, "rloo": bounds.rloo, "ovis": bounds.ovis,
    "tvo": functools.partial(bounds.tvo, betas=[0.0, 1.0]),
}  # fmt: skip
PLAIN = {
    "pathwise": bounds.pathwise, "stl": bounds.stl, "dreg": bounds.dreg,
    "reinforce": bounds.reinforce, "rws": bounds.rws, **NEED_TWO,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PLAIN.keys() - {"pathwise"}))
def test_without_log_q_only_pathwise_is_left(name):
    with pytest.raises(ValueError, match=r"log_q=None; use bounds\.pathwise"):
        PLAIN[name](GAUSSIAN._replace(log_q=None), num_samples=2)
    bounds.pathwise(GAUSSIAN._replace(log_q=None), num_samples=2)(PARAMS, new_key(), X)


@pytest.mark.parametrize("factory", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"num_samples": 0}, ValueError, "num_samples must be at least 1, got 0"),
        ({"num_samples": 2.0}, TypeError, "num_samples"),
        ({"num_samples": None}, TypeError, "num_samples"),
        ({"num_samples": 4, "chunk_size": 0}, ValueError, "chunk_size must be at least 1"),
    ],
)
def test_wrong_counts(factory, kwargs, error, message):
    with pytest.raises(error, match=message):
        factory(GAUSSIAN, **kwargs)


@pytest.mark.parametrize("name", NEED_TWO)
def test_what_compares_samples_needs_two(name):
    with pytest.raises(ValueError, match=rf"{name} needs .* at least 2.*use bounds\.reinforce"):
        NEED_TWO[name](DISCRETE, num_samples=1)


@both
def test_a_model_that_does_not_sum_over_the_event_is_refused(factory, bound):
    model = GAUSSIAN._replace(log_p=lambda theta, x, z: -0.5 * jnp.square(z - theta))
    with pytest.raises(ValueError, match=r"log_p must return one number .* got shape \(2,\)"):
        factory(model, num_samples=2)(PARAMS, new_key(), X)


def test_at_the_posterior_nothing_is_left_to_learn():
    """log_w constant, ESS = K; phi gradients of STL, DReG, RLOO exactly zero, pathwise not."""
    model = linear_gaussian.make_model(0.5)
    params = PARAMS._replace(phi=linear_gaussian.exact_inference(PARAMS.theta))
    log_w = bounds.log_weights(model, params, new_key(), X, num_samples=50)
    exact = linear_gaussian.log_likelihood(params.theta, X)
    np.testing.assert_allclose(log_w, exact, rtol=1e-5)
    np.testing.assert_allclose(bounds.effective_sample_size(log_w), 50, rtol=1e-5)
    score = (bounds.rloo, functools.partial(bounds.rloo, bound=bounds.iwae), NEED_TWO["tvo"])
    for factory in (bounds.stl, bounds.dreg, *score):
        grads = jax.grad(factory(model, num_samples=5))(params, jax.random.key(1), X)
        np.testing.assert_allclose(flat(grads.phi), 0, atol=2e-6)
        np.testing.assert_allclose(
            grads.theta, jax.grad(linear_gaussian.log_likelihood)(params.theta, X), atol=2
        )
    noisy = jax.grad(bounds.pathwise(model, num_samples=5))(params, jax.random.key(1), X)
    assert np.abs(flat(noisy.phi)).max() > 0.1


def test_factories_inside_jit_may_close_over_tracers():
    @jax.jit
    def run(dropout, params, key, x):
        def drop(fn):
            return lambda theta, x, z: fn(theta, x, dropout * z)

        model = GAUSSIAN._replace(log_p=drop(GAUSSIAN.log_p))
        objective = bounds.dreg(model, num_samples=3)
        return jax.vmap(jax.grad(objective), (None, 0, None))(params, jax.random.split(key, 2), x)

    grads = run(jnp.array([1.0, 0.0]), PARAMS, new_key(), X)
    assert np.all(np.isfinite(flat(grads)))
