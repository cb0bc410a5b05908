"""Exact answers, and tests that say how often they would raise a false alarm.

An estimator is a function of K draws. Forcing the draws through every tuple of states, or
through every node of a Gauss-Hermite grid, turns its expectation into a finite sum: bias is then
seen exactly, without Monte Carlo noise.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import bounds

X64 = jax.config.jax_enable_x64
TIGHT = 1e-9 if X64 else 3e-5


def forced_draws(model, sample, key, draws):
    """`model` whose k-th draw from fold_in(key, k) is sample(phi, x, draws[k])."""
    num_samples = jax.tree.leaves(draws)[0].shape[0]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_samples))
    known = jax.random.key_data(keys)

    def propose(phi, key, x):
        match = jnp.all(known == jax.random.key_data(key)[None], axis=-1)
        draw = jax.tree.map(lambda d: d[jnp.argmax(match)], draws)
        z = sample(phi, x, draw)
        return z, model.log_q(phi, x, z)

    return model._replace(propose=propose)


def expected_gradient(factory, model, sample, params, x, draws, probabilities, chunk=4096):
    """sum_i probability_i * gradient of factory(model with draws_i): the exact expectation.

    Args:
      factory: model -> objective.
      model: the model.
      sample: (phi, x, draw) -> z.
      params: where to differentiate.
      x: the datum.
      draws: [I, K, ...], every outcome of the K draws.
      probabilities: [I], their probabilities.
      chunk: outcomes in memory at once.
    """
    key = jax.random.key(0)

    @jax.jit
    def run(params, x):
        def one(args):
            draw, probability = args
            objective = factory(forced_draws(model, sample, key, draw))
            grads = jax.grad(objective)(params, key, x)
            return jax.tree.map(lambda g: probability * g, grads)

        terms = jax.lax.map(one, (draws, probabilities), batch_size=chunk)
        return jax.tree.map(lambda t: jnp.sum(t, axis=0), terms)

    return run(params, x)


def gauss_hermite(num_nodes, num_noises):
    """Nodes [I, num_noises] and probabilities [I] of a standard normal product rule."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    grid = np.array(list(itertools.product(nodes, repeat=num_noises)))
    mass = np.array(list(itertools.product(weights / weights.sum(), repeat=num_noises)))
    return jnp.asarray(grid), jnp.asarray(np.prod(mass, axis=1))


def all_tuples(num_states, num_samples):
    """Every outcome of K discrete draws, [S^K, K]."""
    return jnp.asarray(np.array(list(itertools.product(range(num_states), repeat=num_samples))))


def flat(tree):
    """All numbers of a tree as one float64 vector."""
    return np.concatenate(
        [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)]
    )


def close(measured, expected):
    """Whether two trees agree to what an exact expectation allows."""
    return np.allclose(flat(measured), flat(expected), rtol=TIGHT, atol=TIGHT)


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
