"""Exact answers, and tests that say how often they would raise a false alarm.

An estimator is a function of K draws. Forcing the draws through every tuple of states, or
through every node of a Gauss-Hermite grid, turns its expectation into a finite sum: bias is then
seen exactly, without Monte Carlo noise.
"""

import jax
import numpy as np
from scipy import stats

import bounds
from models.exact import every_draw
from models.exact.every_draw import all_tuples as all_tuples
from models.exact.every_draw import forced_draws as forced_draws
from models.exact.every_draw import gauss_hermite as gauss_hermite

X64 = jax.config.jax_enable_x64
TIGHT = 1e-9 if X64 else 3e-5


def expected_gradient(factory, model, sample, params, x, draws, probabilities, chunk=4096):
    """sum_i probability_i * gradient of factory(model with draws_i): the exact expectation.

    `draws` [I, K, ...] are every outcome of the K draws, `probabilities` [I] theirs; for the rest
    see `every_draw.gradients`.
    """
    grads = every_draw.gradients(factory, model, sample, params, x, draws, chunk)
    return every_draw.moments(grads, probabilities).mean


def flat(tree):
    """All numbers of a tree as one float64 vector."""
    return np.concatenate(
        [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)]
    )


def close(measured, expected):
    """Whether two trees agree to what an exact expectation allows."""
    return np.allclose(flat(measured), flat(expected), rtol=TIGHT, atol=TIGHT)


def moved(params, seed=1, scale=0.5):
    """Parameters away from their start, where outputs of a network hardly depend on anything."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        tree,
        [v + scale * jax.random.normal(k, v.shape) for v, k in zip(leaves, keys, strict=True)],
    )


def moments(grad_fn, seed=0, num_replicates=20_000, chunk_size=2000):
    """Jitted gradient moments."""
    run = jax.jit(
        lambda key: bounds.gradient_moments(
            grad_fn, key, num_replicates=num_replicates, chunk_size=chunk_size
        )
    )
    return run(jax.random.key(seed))


def largest_z(measured, expected):
    """Largest |mean - expected| in standard errors over entries that vary, and their number."""
    count = float(measured.count)
    error = np.sqrt(flat(measured.m2) / (count - 1) / count)
    difference = np.abs(flat(measured.mean) - flat(expected))
    varies = error > 0
    # An entry that never varies has to be right to rounding.
    np.testing.assert_allclose(difference[~varies], 0, atol=1e-5)
    return np.max(difference[varies] / error[varies]), int(varies.sum())


def z_limit(num_entries, false_alarm=1e-5):
    """Largest |z| of that many independent entries, exceeded with probability `false_alarm`."""
    return stats.norm.isf(false_alarm / num_entries / 2)


def assert_unbiased(measured, expected):
    """Passes an unbiased estimator in all but one of 100,000 seeds."""
    z, entries = largest_z(measured, expected)
    assert z < z_limit(entries), f"largest z {z:.1f} of {entries} entries"


def assert_biased(measured, expected):
    """The same test rejects."""
    z, entries = largest_z(measured, expected)
    assert z > z_limit(entries), f"largest z {z:.1f} of {entries} entries: no power"
