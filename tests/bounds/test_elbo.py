"""Three readings of the ELBO: one expectation and gradient, three variances."""

import jax
import jax.numpy as jnp
import pytest
from oracles import assert_unbiased, moments

import bounds
from models.exact import linear_gaussian

GAUSSIAN = linear_gaussian.make_model()
PARAMS = bounds.Params(
    jnp.array([0.3, -0.2]),
    linear_gaussian.Inference(jnp.array([[0.6, 0.1], [0.0, 0.4]]), jnp.array([0.1, 0.2])),
)
X = jnp.array([1.5, -0.5])


def readings(num_samples):
    def log_px_given_z(theta, x, z):
        return bounds.densities.gaussian_log_prob(x, z, 1.0)

    def kl(params, x):
        mean = params.phi.weight @ x + params.phi.bias
        return bounds.densities.gaussian_kl(mean, linear_gaussian.PAPER_VARIANCE, params.theta, 1.0)

    def entropy(phi, x):
        return bounds.densities.gaussian_entropy(jnp.full(2, linear_gaussian.PAPER_VARIANCE))

    return {
        "log-ratio": bounds.elbo_log_ratio(GAUSSIAN, num_samples=num_samples),
        "analytic KL": bounds.elbo_analytic_kl(
            GAUSSIAN, num_samples=num_samples, log_px_given_z=log_px_given_z, kl=kl
        ),
        "analytic entropy": bounds.elbo_analytic_entropy(
            GAUSSIAN, num_samples=num_samples, entropy=entropy
        ),
    }


@pytest.mark.parametrize("name", ["log-ratio", "analytic KL", "analytic entropy"])
def test_three_readings_share_value_and_gradient_in_expectation(name):
    objective = readings(2)[name]
    measured = moments(lambda key: jax.value_and_grad(objective)(PARAMS, key, X))
    exact = jax.value_and_grad(lambda p: linear_gaussian.expected_elbo(p, X))(PARAMS)
    assert_unbiased(measured, exact)


def test_three_readings_differ_in_variance():
    spread = {
        name: float(moments(lambda key, o=o: o(PARAMS, key, X)).m2)
        for name, o in readings(1).items()
    }
    assert len({f"{v:.1e}" for v in spread.values()}) == 3
