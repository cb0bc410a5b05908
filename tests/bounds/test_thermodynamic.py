"""Riemann sums of the thermodynamic integral: what bounds what, for any draws and on average."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import X64
from scipy import special

import bounds

pytestmark = pytest.mark.x64
BETAS = jnp.array([0.0, 0.1, 0.35, 1.0])
SUMS = jax.jit(
    lambda log_w, betas: (
        bounds.elbo(log_w),
        bounds.thermodynamic(log_w, betas),
        bounds.iwae(log_w),
        bounds.evidence.thermodynamic_right(log_w, betas).value,
    )
)
NUMBERS = st.floats(-400, 400, width=32)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(NUMBERS, min_size=5, max_size=5), st.lists(st.floats(-3, 3), min_size=3, max_size=3)
)
def test_for_any_draws_the_sums_are_in_order(log_w, scores):
    betas = np.concatenate([[0], np.cumsum(special.softmax(scores))])
    betas[-1] = 1
    log_w = jnp.asarray(log_w, float)
    values = np.array(SUMS(log_w, jnp.asarray(betas, float)))
    tolerance = (1e-9 if X64 else 1e-5) * (1 + np.abs(log_w).max())
    assert np.all(np.diff(values) >= -tolerance), values


def exact_sums(probabilities, log_w, betas):
    """(left, right) with expectations under pi_b in place of weights of draws."""
    sums = [0.0, 0.0]
    for low, high in itertools.pairwise(betas):
        for side, end in enumerate((low, high)):
            weights = special.softmax(np.log(probabilities) + end * log_w)
            sums[side] += (high - low) * (weights @ log_w)
    return sums


def test_the_right_sum_of_draws_is_no_upper_bound_though_the_exact_one_is():
    """Three states, four draws, all 81 tuples."""
    from oracles import all_tuples

    q, joint = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.1, 0.2])
    log_w, log_p = np.log(joint / q), np.log(joint.sum())
    betas = np.array([0.0, 0.5, 1.0])
    left, right = exact_sums(q, log_w, betas)
    assert left < log_p < right
    tuples = np.asarray(all_tuples(3, 4))
    mass = np.prod(q[tuples], axis=1)
    found = bounds.evidence.thermodynamic_right(jnp.asarray(log_w[tuples], float), betas)
    assert found.kind == "estimate"
    mean = mass @ np.asarray(found.value, np.float64)
    np.testing.assert_allclose(mean, -1.00112, atol=1e-5)
    assert mean < log_p - 0.08
    # The left sum of the same draws is the lower bound it claims to be.
    lower = mass @ np.asarray(bounds.thermodynamic(jnp.asarray(log_w[tuples], float), betas))
    assert lower < log_p


def test_finer_steps_approach_iwae_and_samples_lie_on_the_axis_that_is_named():
    log_w = jnp.asarray(np.random.default_rng(0).normal(-90, 3, (2, 6)), float)
    fine = bounds.thermodynamic(log_w, jnp.linspace(0, 1, 4001))
    np.testing.assert_allclose(fine, bounds.iwae(log_w), atol=5e-3)
    np.testing.assert_allclose(bounds.thermodynamic(log_w.T, BETAS, axis=0),
                               bounds.thermodynamic(log_w, BETAS), rtol=1e-6)  # fmt: skip
    np.testing.assert_allclose(
        bounds.thermodynamic(log_w, [0.0, 1.0]), bounds.elbo(log_w), rtol=1e-6
    )


def test_standard_error_of_the_right_sum_is_that_of_its_draws():
    draws = jnp.asarray(np.random.default_rng(1).normal(0, 0.5, (2000, 100)), float)
    found = bounds.evidence.thermodynamic_right(draws, BETAS)
    spread = np.std(found.value)
    assert abs(np.mean(found.standard_error) / spread - 1) < 0.1


def test_zero_weights_and_nan():
    log_w = jnp.array([-1.0, -jnp.inf, -2.0])
    assert bounds.thermodynamic(log_w, BETAS) == -jnp.inf
    grads = jax.grad(lambda lw: bounds.thermodynamic(lw, BETAS))(log_w)
    assert np.all(np.isfinite(grads))
    right = bounds.evidence.thermodynamic_right(log_w, BETAS).value
    alive = bounds.evidence.thermodynamic_right(log_w[jnp.array([0, 2])], BETAS).value
    np.testing.assert_allclose(right, alive, rtol=1e-6)
    assert np.isnan(bounds.thermodynamic(jnp.array([0.0, jnp.nan]), BETAS))


@pytest.mark.parametrize(
    "betas", [[0.0, 0.5, 0.5, 1.0], [0.0, 0.7, 0.3, 1.0], [0.1, 1.0], [0.0, 0.9], [0.0]]
)
def test_betas_out_of_order_are_refused_and_nan_where_they_are_traced(betas):
    model = bounds.LatentModel(None, lambda phi, x, z: 0.0, None)  # never called
    for call in (
        lambda: bounds.thermodynamic(jnp.zeros(3), betas),
        lambda: bounds.tvo(model, num_samples=3, betas=betas),
        lambda: bounds.evidence.thermodynamic_right(jnp.zeros(3), betas),
    ):
        with pytest.raises(ValueError, match="betas must"):
            call()
    if len(betas) > 1:
        assert np.isnan(jax.jit(bounds.thermodynamic)(jnp.zeros(3), jnp.array(betas)))
