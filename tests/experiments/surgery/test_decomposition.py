"""The decomposition on made-up posteriors: standard errors, sides of estimates, dead dimensions."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
from scipy.special import logsumexp
from surgery_cases import gaussians

import bounds
from experiments.surgery import decomposition, two_dimensions


def test_standard_error_is_that_of_draws_for_fixed_images():
    """Of 400 repetitions; the spread between images, which is far larger, is no part of it."""
    posteriors = gaussians(0, 12, 2, spread=1.5, scale=0.4, dtype=np.float32)
    repeated = []
    for seed in range(400):
        found = decomposition.measure(posteriors, jax.random.key(seed), num_draws=5)
        names = ("kl", "information", "marginal_kl", "total_correlation")
        repeated.append(
            [
                decomposition.stratified(
                    getattr(found.mean.terms, n), getattr(found.variance.terms, n), 5
                )
                for n in names
            ]
        )
    values, errors = np.moveaxis(np.array(repeated), -1, 0)
    ratio = np.sqrt(np.mean(errors**2, axis=0)) / values.std(axis=0, ddof=1)
    assert np.all(np.abs(ratio - 1) < 4.5 / np.sqrt(2 * 400))  # of a standard deviation's error
    exact = decomposition.closed_kl(posteriors).sum(axis=-1)
    standard = np.sqrt(np.mean(errors[:, 0] ** 2) / 400)
    assert abs(values[:, 0].mean() - exact.mean()) < oracles.z_limit(1) * standard
    assert exact.std(ddof=1) / np.sqrt(12) > 2 * errors[:, 0].mean()


def test_minibatch_estimates_enclose_the_information():
    posteriors = gaussians(1, 40, 3, spread=1.0, scale=0.5, dtype=np.float32)
    found = decomposition.measure(posteriors, jax.random.key(0), num_draws=50)
    exact, _ = decomposition.stratified(
        found.mean.terms.information, found.variance.terms.information, 50
    )
    batches = decomposition.from_minibatches(
        posteriors, jax.random.key(1), batch=8, num_batches=200
    )
    assert batches.in_batch.mean() < exact < batches.stratified.mean()
    np.testing.assert_allclose(batches.weighted, batches.in_batch + np.log(40), rtol=1e-5)
    rows = decomposition.minibatch_rows({"model": "m"}, batches)
    kinds = {r["name"]: r["kind"] for r in rows}
    assert kinds == {
        "I, in-batch mean": "lower_bound",
        "I, stratified": "upper_bound",
        "I, MWS": "upper_bound",
    }
    # All data in one batch: the aggregated posterior itself, whichever way it is estimated.
    whole = decomposition.from_minibatches(posteriors, jax.random.key(2), batch=40, num_batches=300)
    np.testing.assert_allclose(whole.in_batch, whole.stratified, atol=1e-5)
    error = whole.in_batch.std(ddof=1) / np.sqrt(300)
    assert abs(whole.in_batch.mean() - exact) < oracles.z_limit(1) * error + 0.01


def test_jackknife_of_a_density_is_right_for_its_mass():
    """Its mass is a mean over blocks, so the jackknife gives the error of a mean."""
    rng = np.random.default_rng(0)
    blocks = rng.normal(size=(8, 4, 4))
    found = two_dimensions._jackknife(lambda v: np.exp(v).sum(), blocks)
    each = np.exp(blocks).sum(axis=(1, 2))
    np.testing.assert_allclose(found["value"], each.mean())
    np.testing.assert_allclose(found["standard_error"], each.std(ddof=1) / np.sqrt(8))
    assert two_dimensions._jackknife(logsumexp, blocks[:1]).keys() == {"value"}


def test_active_units_do_not_count_what_is_dead():
    posteriors = bounds.surgery.GaussianPosteriors(
        jnp.array([[1.0, 0.0], [-1.0, 0.0]]), jnp.array([[0.1, 1.0], [0.1, 1.0]])
    )
    measured = decomposition.measure(posteriors, jax.random.key(0), num_draws=3)
    rows = decomposition.dimension_rows({"model": "m"}, posteriors, measured, 3)
    active = {r["at"]["dimension"]: r["active"] for r in rows if "active" in r}
    assert active == {1: True, 2: False}
    # The dead dimension is the prior: no information, no KL, and no error.
    dead = [r for r in rows if r["at"]["dimension"] == 2 and r["unit"] == "nats"]
    assert all(abs(r["value"]) < 1e-6 for r in dead)
