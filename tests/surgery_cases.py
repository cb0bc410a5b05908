"""Posteriors small enough to integrate over, with their answers in float64."""

import itertools

import jax.numpy as jnp
import numpy as np
from scipy.special import xlogy

import bounds

STATES, DIMS = 3, 2
CODES = np.array(list(itertools.product(range(STATES), repeat=DIMS)))  # every z


def table_posteriors(seed, count=5, sharpness=2.0):
    """log q(z_d | x_n) of discrete z with two dimensions, [count, DIMS, STATES]."""
    logits = sharpness * np.random.default_rng(seed).normal(size=(count, DIMS, STATES))
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def table_factors(z, table):
    """log q(z_d | x) of the tables above; `log_q` of the surgery."""
    return table[jnp.arange(DIMS), z]


def table_answers(table, prior):
    """Every part by its own sum over z, from probabilities and entropies in float64."""
    each = np.exp(table)[:, np.arange(DIMS), CODES]  # [N, Z, D]
    q = each.prod(axis=-1)
    p = np.exp(prior)[np.arange(DIMS), CODES].prod(axis=-1)
    aggregated, marginals = q.mean(axis=0), np.exp(table).mean(axis=0)
    kl = np.sum(xlogy(q, q / p), axis=-1)
    return {
        "kl": kl.mean(),
        "information": _entropy(aggregated) - np.mean([_entropy(row) for row in q]),
        "marginal_kl": np.sum(xlogy(aggregated, aggregated / p)),
        "total_correlation": sum(map(_entropy, marginals)) - _entropy(aggregated),
        "dimension_kl": np.sum(xlogy(marginals, marginals / np.exp(prior)), axis=-1),
    }


def table_terms(table, prior, terms):
    """Averages over n and z ~ q(z | x_n), exactly, of what `terms(z, table_n)` gives."""
    out = {}
    for z in CODES:
        for row in table:
            weight = np.exp(row[np.arange(DIMS), z].sum()) / len(table)
            found = terms(jnp.asarray(z), jnp.asarray(row))._asdict()
            for name, value in found.items():
                out[name] = out.get(name, 0.0) + weight * np.asarray(value, np.float64)
    return out


def _entropy(p):
    return -np.sum(xlogy(p, p))


def gaussians(seed, count, dims, *, spread, scale, dtype=None):
    """Posteriors with means of deviation `spread` and deviations around `scale`."""
    rng = np.random.default_rng(seed)
    mean = spread * rng.normal(size=(count, dims))
    variance = np.square(scale * np.exp(0.3 * rng.normal(size=(count, dims))))
    return bounds.surgery.GaussianPosteriors(jnp.asarray(mean, dtype), jnp.asarray(variance, dtype))


def gaussian_table(z, posteriors):
    """log q(z_i,d | x_j) in float64 from the definition, [M, N, D]."""
    mean, variance = (np.asarray(leaf, np.float64) for leaf in posteriors)
    square = (np.asarray(z, np.float64)[:, None] - mean) ** 2
    return -0.5 * (square / variance + np.log(2 * np.pi * variance))
