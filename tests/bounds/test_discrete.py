"""Gradients of the estimators for discrete z, exact by enumeration of every outcome."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import all_tuples, assert_unbiased, close, expected_gradient, flat, moments

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


BETAS = [0.0, 0.2, 0.6, 1.0]
LEFT = functools.partial(bounds.thermodynamic, betas=BETAS)
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
    "rloo": (3, bounds.elbo, lambda m: bounds.rloo(m, num_samples=3)),
    "rloo in chunks": (3, bounds.elbo, lambda m: bounds.rloo(m, num_samples=3, chunk_size=2)),
    "rloo, iwae": (3, bounds.iwae, lambda m: bounds.rloo(m, num_samples=3, bound=bounds.iwae)),
    "rloo, left sum": (3, LEFT, lambda m: bounds.rloo(m, num_samples=3, bound=LEFT)),
    "ovis": (3, bounds.iwae, lambda m: bounds.ovis(m, num_samples=3)),
    "ovis at K=5": (5, bounds.iwae, lambda m: bounds.ovis(m, num_samples=5)),
    "tvo at 0 and 1": (
        3, bounds.elbo, lambda m: bounds.tvo(m, num_samples=3, betas=[0.0, 1.0])
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("num_samples", "bound", "factory"), DISCRETE_UNBIASED.values(), ids=DISCRETE_UNBIASED
)
def test_discrete_estimators_are_exact_in_expectation(num_samples, bound, factory):
    exact = jax.grad(
        lambda params: enumerable.expected_bound(bound, params, DISCRETE_X, num_samples)
    )(DISCRETE_PARAMS)
    assert close(discrete_expectation(factory, num_samples), exact)


def baseline_of_all(model):
    """Wrong: the mean that is subtracted has the sample's own weight in it."""

    def objective(params, key, x):
        _, aux = bounds.rloo(model, num_samples=3, has_aux=True)(params, key, x)
        log_q = jax.vmap(lambda z: model.log_q(params.phi, x, z))(aux.z)
        signal = jax.lax.stop_gradient(aux.log_w - jnp.mean(aux.log_w)) / 3
        return jnp.mean(aux.log_w) + jnp.sum(signal * log_q)

    return objective


WRONG = {
    "baseline of all": (bounds.elbo, baseline_of_all),
    "ovis, gamma=1": (bounds.iwae, lambda m: bounds.ovis(m, num_samples=3, gamma=1.0)),
    "rloo, elbo for iwae": (bounds.iwae, lambda m: bounds.rloo(m, num_samples=3)),
    "tvo": (LEFT, lambda m: bounds.tvo(m, num_samples=3, betas=BETAS)),
}


@pytest.mark.parametrize(("bound", "factory"), WRONG.values(), ids=WRONG)
def test_wrong_gradients_fail_the_same_test(bound, factory):
    exact = jax.grad(lambda p: enumerable.expected_bound(bound, p, DISCRETE_X, 3))(DISCRETE_PARAMS)
    found = discrete_expectation(factory, 3)
    assert np.abs(flat(found.phi) - flat(exact.phi)).max() > 1e-3


def wake_direction(log_w, z):
    score = jax.jacobian(lambda phi: jax.nn.log_softmax(phi[DISCRETE_X])[z])(DISCRETE_PARAMS.phi)
    return jnp.tensordot(bounds.normalized_weights(log_w), score, 1)


@pytest.mark.parametrize("gamma", [0.4, 1.0])
def test_ovis_is_off_by_gamma_times_wake_phi(gamma):
    measured = discrete_expectation(lambda m: bounds.ovis(m, num_samples=3, gamma=gamma), 3)
    exact = jax.grad(lambda params: enumerable.expected_bound(bounds.iwae, params, DISCRETE_X, 3))(
        DISCRETE_PARAMS
    )
    wake = enumerable.expectation(wake_direction, DISCRETE_PARAMS, DISCRETE_X, 3)
    assert close(measured, exact._replace(phi=exact.phi + gamma * wake))


def test_tvo_has_the_covariance_form_of_the_paper():
    """E of the mean of grad log w plus its covariance, by weights; theta follows the value."""

    def of_paper(log_w, z):
        def scores(phi, theta):
            log_q = jax.nn.log_softmax(phi[DISCRETE_X])[z]
            return log_q, enumerable.log_joint(theta, DISCRETE_X)[z] - log_q

        score, slope = (
            flat_rows(jax.jacobian(lambda p, i=i: scores(p, DISCRETE_PARAMS.theta)[i]))
            for i in (0, 1)
        )
        total = 0.0
        for low, high in itertools.pairwise(BETAS):
            weights = jax.nn.softmax(low * log_w)
            centred = weights * (log_w - weights @ log_w)
            # d log(q^{1-b} p^b) = d log q + b d log w; the correction is for draws from q alone.
            total += (high - low) * (
                weights @ slope + centred @ (low * slope) + 3 / 2 * (centred @ score)
            )
        return total

    def flat_rows(jacobian):
        return jacobian(DISCRETE_PARAMS.phi).reshape(3, -1)

    measured = discrete_expectation(lambda m: bounds.tvo(m, num_samples=3, betas=BETAS), 3)
    expected = enumerable.expectation(of_paper, DISCRETE_PARAMS, DISCRETE_X, 3)
    assert close(measured.phi, expected.reshape(3, 4))
    exact = jax.grad(lambda params: enumerable.expected_bound(LEFT, params, DISCRETE_X, 3))
    assert close(measured.theta, exact(DISCRETE_PARAMS).theta)


def test_with_states_of_weight_zero_ovis_alone_is_still_exact():
    """A dead sample gets no gradient; that its baseline then equals its signal holds for OVIS."""
    emission = DISCRETE_PARAMS.theta.emission.at[2, DISCRETE_X].set(-jnp.inf)
    params = DISCRETE_PARAMS._replace(theta=DISCRETE_PARAMS.theta._replace(emission=emission))
    exact = jax.grad(
        lambda phi: enumerable.expected_bound(
            lambda log_w: jnp.where(jnp.all(jnp.isneginf(log_w)), 0.0, bounds.iwae(log_w)),
            params._replace(phi=phi),
            DISCRETE_X,
            3,
        )
    )(params.phi)
    ovis = discrete_expectation(lambda m: bounds.ovis(m, num_samples=3), 3, params)
    vimco = discrete_expectation(lambda m: bounds.vimco(m, num_samples=3), 3, params)
    assert close(ovis.phi, exact), (ovis.phi, exact)
    assert not close(vimco.phi, exact)


def test_rws_follows_its_own_finite_k_expectation():
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
