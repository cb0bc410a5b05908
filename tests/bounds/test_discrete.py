"""Gradients of the estimators for discrete z, exact by enumeration of every outcome."""

import jax
import jax.numpy as jnp
import pytest
from oracles import all_tuples, assert_unbiased, close, expected_gradient, moments

import bounds
from models.exact import enumerable

pytestmark = pytest.mark.x64

DISCRETE = enumerable.make_model()
DISCRETE_PARAMS = enumerable.init(jax.random.key(3), num_states=4, num_symbols=3)
DISCRETE_X = jnp.array(1)


def discrete_expectation(factory, num_samples, params=DISCRETE_PARAMS):
    tuples = all_tuples(4, num_samples)
    log_q = jax.nn.log_softmax(params.phi[DISCRETE_X])
    return expected_gradient(
        factory,
        DISCRETE,
        lambda phi, x, draw: draw,
        params,
        DISCRETE_X,
        tuples,
        jnp.exp(jnp.sum(log_q[tuples], axis=1)),
    )


DISCRETE_UNBIASED = {
    "reinforce": (3, bounds.iwae, lambda m: bounds.reinforce(m, num_samples=3)),
    "reinforce, elbo": (
        3, bounds.elbo, lambda m: bounds.reinforce(m, num_samples=3, bound=bounds.elbo)
    ),
    "reinforce with baseline": (
        2, bounds.iwae, lambda m: bounds.reinforce(m, num_samples=2, baseline=lambda x: 1.0 * x)
    ),
    "vimco": (3, bounds.iwae, lambda m: bounds.vimco(m, num_samples=3)),
    "vimco in chunks": (3, bounds.iwae, lambda m: bounds.vimco(m, num_samples=3, chunk_size=2)),
    "vimco at K=5": (5, bounds.iwae, lambda m: bounds.vimco(m, num_samples=5)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("num_samples", "bound", "factory"), DISCRETE_UNBIASED.values(), ids=DISCRETE_UNBIASED
)
def test_discrete_estimators_are_exact_in_expectation(num_samples, bound, factory):
    exact = jax.grad(
        lambda params: enumerable.expected_bound(bound, params, DISCRETE_X, num_samples)
    )(DISCRETE_PARAMS)
    assert close(discrete_expectation(factory, num_samples), exact)


def test_rws_follows_its_own_finite_k_expectation():
    def wake_direction(log_w, z):
        score = jax.jacobian(lambda phi: jax.nn.log_softmax(phi[DISCRETE_X])[z])(
            DISCRETE_PARAMS.phi
        )
        return jnp.tensordot(bounds.normalized_weights(log_w), score, 1)

    measured = discrete_expectation(lambda m: bounds.rws(m, num_samples=3), 3)
    wake = enumerable.expectation(wake_direction, DISCRETE_PARAMS, DISCRETE_X, 3)
    assert close(measured.phi, wake)
    exact = jax.grad(lambda params: enumerable.expected_bound(bounds.iwae, params, DISCRETE_X, 3))(
        DISCRETE_PARAMS
    )
    assert close(measured.theta, exact.theta)
    assert not close(measured.phi, exact.phi)


def test_sleep_phase_adds_the_gradient_of_log_q_at_simulated_data():
    theta = DISCRETE_PARAMS.theta
    joint = jnp.exp(jax.vmap(lambda x: enumerable.log_joint(theta, x), out_axes=1)(jnp.arange(3)))
    sleep = jax.grad(lambda phi: jnp.sum(joint * jax.nn.log_softmax(phi, axis=-1).T))(
        DISCRETE_PARAMS.phi
    )

    def difference(key):
        grads = [
            jax.grad(bounds.rws(DISCRETE, num_samples=2, simulate=simulate))(
                DISCRETE_PARAMS, key, DISCRETE_X
            )
            for simulate in (enumerable.simulate, None)
        ]
        return jax.tree.map(jnp.subtract, *grads)

    measured = moments(difference)
    assert_unbiased(measured, bounds.Params(jax.tree.map(jnp.zeros_like, theta), sleep))
