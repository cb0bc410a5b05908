"""Draws of q that are rounded, on a plane or bounded, and what an audit makes of them."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.scipy.stats import norm

import bounds

KEY = jax.random.key(20)


@pytest.mark.parametrize("scale", [1e-1, 3e-5])
def test_log_q_by_the_noise_is_that_by_a_draw_that_is_rounded_coarsely(scale):
    """z = 3 + scale * noise in float32: log_q cannot find the noise again to 1024 units."""

    def propose(phi, key, x, stale=False):
        noise = jax.random.normal(key, (2,))
        counted = jax.random.normal(jax.random.fold_in(key, 0), (2,)) if stale else noise
        mean, width = phi
        return mean + width * noise, jnp.sum(norm.logpdf(counted) - jnp.log(width))

    def log_q(phi, x, z):  # of parameters: XLA would take a constant off that was just added
        return norm.logpdf(z, *phi).sum()

    def log_p(theta, x, z):
        return norm.logpdf(z, 3.0, scale).sum() + norm.logpdf(x)

    def simulate(theta, key):
        first, second = jax.random.split(key)
        return jax.random.normal(first), 3 + scale * jax.random.normal(second, (2,))

    for stale in (False, True):
        found = bounds.audit.model(
            bounds.LatentModel(functools.partial(propose, stale=stale), log_q, log_p),
            bounds.Params((), jnp.array([3.0, scale])), KEY, simulate=simulate, num_gradients=0,
            num_data=200,
        )  # fmt: skip
        assert ("log q at its own draw" in found.violated) == stale


@pytest.mark.parametrize("fixed", ["a sum", "an entry"])
def test_a_z_on_a_plane_has_no_density_beside_a_gaussian_and_is_undecided(fixed):
    """z = (s, 1 - s) or (s, 0) with logit(s) normal: q integrates to 1 over the first alone."""

    def draw(key, mean, scale):
        share = jax.nn.sigmoid(mean + scale * jax.random.normal(key))
        return jnp.stack([share, 1 - share if fixed == "a sum" else 0.0 * share])

    def log_prob(z, mean, scale):
        log, other = jnp.log(z[0]), jnp.log1p(-z[0])
        return norm.logpdf(log - other, mean, scale) - log - other

    def propose(phi, key, x):
        z = draw(key, 0.6 * x, phi)
        return z, log_prob(z, 0.6 * x, phi)

    def simulate(theta, key):
        first, second = jax.random.split(key)
        z = draw(first, 0.0, 1.0)
        return 4 * z[0] - 2 + jax.random.normal(second), z

    model = bounds.LatentModel(
        propose,
        lambda phi, x, z: log_prob(z, 0.6 * x, phi),
        lambda theta, x, z: log_prob(z, 0.0, 1.0) + norm.logpdf(x, 4 * z[0] - 2),
    )
    found = bounds.audit.model(
        model, bounds.Params((), jnp.array(0.7)), KEY, simulate=simulate, num_gradients=0
    )
    (check,) = [c for c in found.checks if c.name == "q integrates to 1"]
    assert (check.verdict, "fixed" in check.why) == ("undecided", True)
    assert found.violated == ()


def test_another_q_keeps_its_variances_positive():
    """Most of this q's variances are small beside one of them, as running statistics are."""
    variances = jnp.array([1e-4, 1e-4, 1.0])

    def propose(phi, key, x):
        z = jnp.sqrt(phi) * jax.random.normal(key, phi.shape)
        return z, log_q(phi, x, z)

    def log_q(phi, x, z):
        return norm.logpdf(z, 0.0, jnp.sqrt(phi)).sum()

    def simulate(theta, key):
        return jnp.zeros(()), propose(variances, key, None)[0]

    model = bounds.LatentModel(propose, log_q, lambda theta, x, z: log_q(variances, x, z))
    found = bounds.audit.model(
        model, bounds.Params((), variances), KEY, simulate=simulate, num_gradients=0
    )
    checks = {c.name: c for c in found.checks}
    other = checks["another q, the same p(x)"]
    assert other.estimate == pytest.approx(1.0, abs=0.02)
    assert other.standard_error > 1e-4  # as it is another one
    # Where all weights are 1 but for rounding, no tail is in doubt.
    assert checks["mean weight is p(x)"].verdict == "holds"


def test_a_z_where_q_has_no_support_is_found_among_its_draws_by_a_weight_without_limit():
    def propose(phi, key, x):
        z = jax.random.uniform(key, minval=-1.0, maxval=1.0)
        return z, log_q(phi, x, z)

    def log_q(phi, x, z):
        return jnp.where(jnp.abs(z) <= 1, -jnp.log(2.0), -jnp.inf)

    def log_p(theta, x, z):
        return norm.logpdf(z) + norm.logpdf(x, z)

    def simulate(theta, key):
        z, noise = jax.random.normal(key, (2,))
        return z + noise, z

    def found(log_p):
        report = bounds.audit.model(
            bounds.LatentModel(propose, log_q, log_p), bounds.Params((), ()), KEY,
            simulate=simulate, num_gradients=0, num_data=2000,
        )  # fmt: skip
        return next(c for c in report.checks if c.name == "posterior among draws of q")

    assert found(log_p).verdict == "holds"
    assert found(lambda theta, x, z: log_p(theta, -x, z)).verdict == "violated"
    # A model without any z weighs nothing, which holds nothing.
    nothing = found(lambda theta, x, z: jnp.full((), -jnp.inf) + 0.0 * z)
    assert nothing.verdict == "undecided"


def test_a_z_of_half_precision_has_its_bridge_in_float32():
    def propose(phi, key, x):
        z = (phi * jax.random.normal(key, (2,))).astype(jnp.bfloat16)
        return z, log_q(phi, x, z)

    def log_q(phi, x, z):
        return norm.logpdf(z.astype(jnp.float32), 0.0, phi).sum()

    model = bounds.LatentModel(propose, log_q, lambda theta, x, z: log_q(1.0, x, z))
    found = bounds.audit.model(
        model, bounds.Params((), jnp.array(1.0, jnp.float32)), KEY, num_data=160_000, num_samples=1,
        simulate=lambda theta, key: (jnp.zeros(()), propose(1.0, key, None)[0]), num_gradients=0,
    )  # fmt: skip
    (check,) = [c for c in found.checks if c.name == "q integrates to 1"]
    assert abs(check.estimate) < 4 * check.standard_error < 0.0015
