"""Mean, bias, variance and signal-to-noise ratio of an estimator, summed over all its draws."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import bounds
from experiments.estimators.problems import Outcomes, Problem
from experiments.runtime.results import Kind, Row, row
from models.exact import every_draw

_KEYS = 20_000  # among which one is looked for, for every outcome of antithetic pairs


class Draws(NamedTuple):
    """Outcomes of the draws of an estimator: which of each draw, and the log of their orders."""

    outcomes: Outcomes
    indices: Array
    counts: Array


Gradients = dict[tuple[Callable, int], bounds.Params]
"""Of expected values: by the bound and its groups, at one K."""


def estimator_rows(
    problem: Problem, name: str, num_samples: int, most: int, known: Gradients
) -> list[Row]:
    """Rows of an estimator at K, for theta and for phi; none where it does not take K.

    Neither are there any where all its draws together have more than `most` outcomes. What is
    `known` of this problem at this K is used, and added to.
    """
    estimator = problem.estimators[name]
    outcomes = problem.over(num_samples, estimator.groups, most)
    if num_samples < estimator.least or outcomes is None:
        return []
    began = time.perf_counter()
    indices, counts = every_draw.multisets(outcomes.count, num_samples, estimator.groups)

    def sample(phi, x, index):
        return jax.tree.map(lambda leaf: leaf[index], outcomes.z(phi, x))

    grads = every_draw.gradients(
        lambda model: estimator.make(model, num_samples),
        problem.model,
        sample,
        problem.params,
        problem.x,
        indices,
    )
    draws = Draws(outcomes, indices, counts)
    mass = jnp.exp(_log_mass(problem, problem.params, draws))
    which = (estimator.bound, estimator.groups)
    if which not in known:
        known[which] = _exact_gradient(problem, estimator.bound, draws)
    return _rows(problem, name, num_samples, grads, mass, known[which], began)


def pair_rows(problem: Problem, num_samples: int) -> list[Row]:
    """The same of `bounds.disarm`, where K is even: a key is looked for for each outcome."""
    if problem.pairs is None or num_samples % 2 or num_samples > 4:
        return []
    began = time.perf_counter()
    num_pairs, options = num_samples // 2, {"num_samples": num_samples, "logits": problem.pairs}
    keys = jax.random.split(jax.random.key(0), _KEYS)
    drawn = bounds.disarm(problem.model, has_aux=True, **options)
    z = jax.jit(jax.vmap(lambda key: drawn(problem.params, key, problem.x)[1].z))(keys)
    z = np.asarray(z).reshape(len(keys), num_pairs, 2, -1)
    # An entry of a pair is 1 and 0, 0 and 1, or the same twice.
    kinds, first = np.unique(
        (z[:, :, 0] - z[:, :, 1]).reshape(len(keys), -1), axis=0, return_index=True
    )
    logits = np.tile(np.asarray(problem.pairs(problem.params.phi, problem.x)), num_pairs)
    least = 1 / (1 + np.exp(np.abs(logits)))
    mass = np.prod(np.where(kinds == 0, 1 - 2 * least, least), axis=1)
    assert abs(mass.sum() - 1) < 1e-9, "an outcome was not found"
    gradient = jax.grad(bounds.disarm(problem.model, **options))
    grads = jax.jit(jax.vmap(lambda key: gradient(problem.params, key, problem.x)))(keys[first])
    single = problem.outcomes(0)
    draws = Draws(single, *every_draw.multisets(single.count, 1))
    exact = _exact_gradient(problem, bounds.elbo, draws)
    return _rows(problem, "disarm", num_samples, grads, jnp.asarray(mass), exact, began)


def value_rows(
    problem: Problem, num_samples: int, betas: tuple[float, ...], most: int
) -> list[Row]:
    """Expectations of values at K, each with its kind."""
    outcomes = problem.over(num_samples, 1, most)
    if outcomes is None:
        return []
    draws = Draws(outcomes, *every_draw.multisets(outcomes.count, num_samples))
    mass = np.exp(_log_mass(problem, problem.params, draws))
    log_w = _log_w(problem, problem.params, outcomes)[draws.indices]
    path, evidence = jnp.asarray(betas), bounds.evidence
    found: dict[str, tuple[Kind, Array]] = {
        "ELBO": ("lower_bound", bounds.elbo(log_w)),
        "left sum": ("lower_bound", bounds.thermodynamic(log_w, path)),
        "IWAE": ("lower_bound", bounds.iwae(log_w)),
    }
    others = {
        "right sum": evidence.thermodynamic_right(log_w, path),
        "CUBO, n = 2, of draws": evidence.cubo(log_w, 2.0),
    }
    if num_samples > 1:
        others["jackknife"] = evidence.jackknife(log_w)
    found |= {name: (value.kind, value.value) for name, value in others.items()}  # type: ignore
    at = {"model": problem.name, "K": num_samples}
    return [
        row(name, at, kind=kind, unit="nats", value=float(mass @ np.asarray(value)), n=len(mass))
        for name, (kind, value) in found.items()
    ]


def exact_rows(problem: Problem) -> list[Row]:
    """log p(x), and the upper bounds that no K is in."""
    at, outcomes = {"model": problem.name}, problem.outcomes(64)
    log_mass = outcomes.log_mass(problem.params.phi, problem.x)
    log_w = _log_w(problem, problem.params, outcomes)
    cubo = bounds.evidence.cubo(log_w, 2.0, probabilities=jnp.exp(log_mass))
    posterior = jnp.exp(log_mass + log_w - problem.log_p)
    eubo = jnp.sum(posterior * bounds.evidence.eubo(log_w[:, None]).value)
    return [
        row("log p(x)", at, kind="exact", unit="nats", value=problem.log_p),
        row("EUBO", at, kind="upper_bound", unit="nats", value=float(eubo)),
        row("CUBO, n = 2, exact", at, kind=cubo.kind, unit="nats", value=float(cubo.value)),  # type: ignore
    ]


def _log_w(problem: Problem, params: bounds.Params, outcomes: Outcomes) -> Array:
    """The log-weight of every outcome of one draw."""
    model, x = problem.model, problem.x

    def one(z):
        return model.log_p(params.theta, x, z) - model.log_q(params.phi, x, z)  # type: ignore

    return jax.vmap(one)(outcomes.z(params.phi, x))


def _log_mass(problem: Problem, params: bounds.Params, draws: Draws) -> Array:
    log_mass = draws.outcomes.log_mass(params.phi, problem.x)
    return draws.counts + jnp.sum(log_mass[draws.indices], axis=1)


def _exact_gradient(
    problem: Problem, bound: Callable[[Array], Array], draws: Draws
) -> bounds.Params:
    """The gradient of the expected value itself: of sum_i P_i(phi) bound_i(theta, phi)."""

    def expected(params, indices, counts):
        now = draws._replace(indices=indices, counts=counts)
        log_w = _log_w(problem, params, now.outcomes)[indices]
        return jnp.sum(jnp.exp(_log_mass(problem, params, now)) * jax.vmap(bound)(log_w))

    # As arguments: constants of that size would be folded at length.
    return jax.jit(jax.grad(expected))(problem.params, draws.indices, draws.counts)


def _rows(
    problem: Problem,
    name: str,
    num_samples: int,
    grads: Any,
    mass: Array,
    exact: bounds.Params,
    began: float,
) -> list[Row]:
    # Parts of a gradient may be summed in a block, so the variance is that of the blocks.
    found = every_draw.moments(jax.vmap(problem.blocks)(grads), mass)
    out: list[Row] = []
    for of, right in problem.blocks(exact).items():
        mean, spread = found.mean[of], found.variance[of]
        bias = every_draw.norm(jax.tree.map(jnp.subtract, mean, right))
        size = float(every_draw.norm(mean))
        variance = float(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(spread)))
        values = {
            "mean": ("nats", size),
            "bias": ("nats", float(bias)),
            "variance": ("nats^2", variance),
            "SNR": ("ratio", size / np.sqrt(variance) if variance > 1e-24 else np.inf),
        }
        at = {"model": problem.name, "estimator": name, "K": num_samples, "of": of}
        out += [
            row(
                quantity, at, kind="exact", unit=unit, value=value, n=len(mass),
                seconds=time.perf_counter() - began,
            )
            for quantity, (unit, value) in values.items()
        ]  # fmt: skip
    return out
