"""Masked diffusion of few tokens: networks, and what a sum over every mask and order says."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
from scipy import special

from bounds import masked

TIGHT = 1e-10 if oracles.X64 else 2e-5
SIZES = [(1, 2), (3, 2), (4, 3)]  # L, V


def table_model(length, levels):
    """Whatever the tokens, any logits: `theta` [(V + 1)^L, L, V]."""
    places = (levels + 1) ** jnp.arange(length)
    return masked.Masked(lambda theta, tokens: theta[jnp.sum(tokens * places)], length, levels)


def any_theta(length, levels, seed=0):
    shape = (levels + 1) ** length, length, levels
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) * 1.5)


def joint_model(length, levels):
    """The conditionals of one joint probability of all V^L sequences: `theta` is its logarithm."""
    every = jnp.asarray(list(itertools.product(range(levels), repeat=length)))

    def predict(theta, tokens):
        fits = jnp.all((tokens[None] == levels) | (tokens[None] == every), axis=1)
        mass = jnp.where(fits, jnp.exp(theta), 0.0)
        return jnp.log(jnp.einsum("s,slv->lv", mass, jax.nn.one_hot(every, levels)))

    return masked.Masked(predict, length, levels), np.asarray(every)


class Exact:
    """One sequence of a model, in float64: c(M) of every M, and what follows from it."""

    def __init__(self, model, theta, x):
        self.length, self.sets = model.length, []
        self.scores = {}
        for bits in itertools.product([True, False], repeat=model.length):
            tokens = np.where(bits, model.levels, x)
            logits = np.asarray(model.predict(theta, jnp.asarray(tokens)), np.float64)
            log_probs = logits - special.logsumexp(logits, axis=1, keepdims=True)
            self.scores[bits] = log_probs[np.arange(model.length), x]
            self.sets.append(bits)

    def c(self, bits):
        return self.scores[bits][np.array(bits)].sum()

    def at_count(self, m):
        return np.array([self.c(bits) for bits in self.sets if sum(bits) == m])

    def mean_at(self, t):
        """E c(M_t)."""
        chance = [t ** sum(b) * (1 - t) ** (self.length - sum(b)) for b in self.sets]
        return np.dot(chance, [self.c(b) for b in self.sets])

    def of_order(self, order):
        hidden, total = np.ones(self.length, bool), 0.0
        for i in order:
            total += self.scores[tuple(hidden.tolist())][i]
            hidden[i] = False
        return total

    @property
    def by_time(self):
        """c / t is a polynomial in t: Gauss and Legendre have it exactly."""
        nodes, weights = np.polynomial.legendre.leggauss(self.length)
        return sum(w / 2 * self.mean_at((n + 1) / 2) * 2 / (n + 1) for n, w in zip(nodes, weights))  # noqa: B905

    @property
    def by_count(self):
        return sum(self.at_count(m).mean() / m for m in range(1, self.length + 1))

    @property
    def orders(self):
        return np.array([self.of_order(o) for o in itertools.permutations(range(self.length))])

    @property
    def log_prob(self):
        return special.logsumexp(self.orders) - math.lgamma(self.length + 1)

    def chain(self, times):
        """The bound of T steps, as a sum of KLs."""
        steps = np.diff(times, prepend=0.0)
        return sum(d / t * self.mean_at(t) for d, t in zip(steps, times, strict=True))


@functools.cache
def case(length, levels, seed=0):
    model, theta = table_model(length, levels), any_theta(length, levels, seed)
    x = np.arange(length) % levels
    return model, theta, jnp.asarray(x), Exact(model, theta, x)


def over_keys(estimate, count=4000):
    return np.asarray(
        jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(1), count)), float
    )


def z_of(values, expected):
    return (values.mean() - expected) / (values.std(ddof=1) / math.sqrt(values.size))
