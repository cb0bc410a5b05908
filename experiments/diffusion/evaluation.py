"""The bound of a trained diffusion model on test images, term by term."""

import functools
import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import bounds
from experiments.diffusion.build import Model
from experiments.diffusion.settings import Diffusion
from experiments.diffusion.training import TIMES
from experiments.runtime import keys
from experiments.runtime.compiling import precise
from experiments.runtime.keys import Purpose
from experiments.runtime.results import Row
from experiments.studies import held_out
from experiments.studies.held_out import mean_row
from experiments.studies.images import Problem, as_images
from experiments.studies.study import UNIT
from models.diffusion import reverse_chain

BINS = 40  # into which the steps are grouped, in the record and the figure
BATCH = 64  # images over which a single-time estimate is averaged
REPLICATES = 50
KEPT = 10  # pictures of a strip
LIMIT = "ELBO, T = infinity"  # the row of the bound of continuous time


class TermsOfImages(NamedTuple):
    """The terms of the bound for each image, in nats; see `bounds.diffusion.Terms`."""

    prior: np.ndarray
    diffusion: np.ndarray
    reconstruction: np.ndarray


def terms(
    model: Model, params: PyTree, images: np.ndarray, key: Array, images_per_pass: int
) -> TermsOfImages:
    """Every term of every image, each t with fresh noise: image i uses fold_in(key, i)."""
    return TermsOfImages(
        *held_out.over_images(
            _terms_of(model), params, as_images(images), key, images_per_pass=images_per_pass
        )
    )


def in_continuous_time(
    model: Model,
    params: PyTree,
    images: np.ndarray,
    key: Array,
    num_times: int,
    images_per_pass: int,
) -> np.ndarray:
    """The bound of the limit of many steps, by `num_times` times of each image."""
    evaluate = _continuous_of(model, num_times)
    (values,) = held_out.over_images(
        evaluate, params, as_images(images), key, images_per_pass=images_per_pass
    )
    return values


@functools.cache
def _continuous_of(model: Model, count: int):
    def one(params, key, x, index):
        time_key, key = jax.random.split(jax.random.fold_in(key, index))
        made = model.make(params, None, 0).model
        times = bounds.diffusion.low_discrepancy_times(time_key, count)

        def value(drawn):
            number, time = drawn
            here = jax.random.fold_in(key, number)
            return bounds.diffusion.continuous_estimate(made, params, here, x, time).value

        # Not a running total, whose rounding grows with the number of times.
        return (jnp.mean(jax.lax.map(value, (jnp.arange(count), times))),)

    return held_out.compiled(one)


@functools.cache
def _terms_of(model: Model):
    def one(params, key, x, index):
        made = model.evaluated(params).model
        return tuple(bounds.diffusion.terms(made, params, jax.random.fold_in(key, index), x))

    return held_out.compiled(one)


def rows(
    problem: Problem, model: Model, params: PyTree, at: dict[str, Any], settings: Diffusion
) -> list[Row]:
    """The bound in bits/dim and in nats, its three parts, and the loss over t.

    A lower bound on log P(x) is an upper bound in bits/dim. The parts are means over the noise
    drawn; their standard errors over images contain its share.
    """
    wanted, per_pass = settings.evaluation, settings.memory.images_per_pass
    images = problem.dataset.test[: wanted.num_images or None]
    start = time.perf_counter()
    key = keys.key_for(wanted.seed, Purpose.TEST_IMAGES)
    found = terms(model, params, images, key, per_pass)
    spent = (time.perf_counter() - start) / max(len(images), 1)
    parts = {
        "prior": found.prior,
        "diffusion": found.diffusion.sum(axis=-1, dtype=np.float64),
        "reconstruction": -found.reconstruction,
    }
    whole = np.sum([part.astype(np.float64) for part in parts.values()], axis=0)
    out = [
        mean_row("ELBO", at, problem.bits(-whole), "upper_bound", unit=UNIT),
        mean_row("ELBO", at, -whole, "lower_bound"),
        *(
            mean_row(name, at, problem.bits(-part), "estimate", unit=UNIT, part_of="ELBO")
            for name, part in parts.items()
        ),
    ]
    if model.continuous:
        key = keys.key_for(wanted.seed, Purpose.CONTINUOUS_TIME)
        limit = in_continuous_time(model, params, images, key, wanted.num_times, per_pass)
        limit = problem.bits(limit)
        out.append(mean_row(LIMIT, at, limit, "upper_bound", unit=UNIT))
    gamma = np.asarray(model.evaluated(params).model.gamma)
    for steps in np.array_split(np.arange(2, gamma.size + 1), min(BINS, gamma.size - 1)):
        if len(steps):
            # VDM counts its steps from 1; its first is ours from x_2 to x_1.
            number = float(steps.mean()) - model.continuous
            where = {**at, "t": number, "T": model.evaluation_timesteps}
            where["gamma"] = float(gamma[steps - 1].mean())
            out.append(
                mean_row("KL of a step", where, found.diffusion[:, steps - 2].mean(-1), "estimate")
            )
    return [{**r, "seconds_per_image": spent} for r in out]


def single_time(
    problem: Problem, model: Model, params: PyTree, at: dict[str, Any], settings: Diffusion
) -> list[Row]:
    """How much estimates by one time vary: the same images, `REPLICATES` draws of times and noise.

    The value is the mean of the estimates in bits/dim, of the bound on these images whichever way
    times are drawn; the row's `deviation` is that of one estimate from a batch.
    """
    first, key = jax.random.split(keys.key_for(settings.evaluation.seed, Purpose.SINGLE_TIMES))
    images = problem.dataset.train[:BATCH]
    known = terms(model, params, images, first, settings.memory.images_per_pass)
    squares = np.concatenate(
        [np.square(known.reconstruction)[:, None], np.square(known.diffusion)], axis=1
    ).mean(0)
    steps = squares.size
    uniform = np.full(steps, 1 / steps, np.float32)
    probabilities = {
        "uniform": uniform,
        "low_discrepancy": uniform,
        # By L_t^2 on these very images, which no running mean of training can match.
        "importance": np.asarray(bounds.diffusion.importance_probabilities(jnp.asarray(squares))),
    }
    out = []
    x = jnp.asarray(as_images(images))
    for number, (name, shares) in enumerate(probabilities.items()):
        each = jax.random.split(jax.random.fold_in(key, number), REPLICATES)
        values = problem.bits(_estimates_of(model, name)(params, each, x, jnp.asarray(shares)))
        deviation = float(values.std(ddof=1))
        out.append(
            mean_row(f"one time, {name}", at, values, "estimate", unit=UNIT, deviation=deviation)
        )
    whole = known.reconstruction - known.prior - known.diffusion.sum(-1)
    everything = float(problem.bits(whole).mean())
    out.append(mean_row("all times", at, [everything], "estimate", unit=UNIT))
    return out


@functools.cache
def _estimates_of(model: Model, name: str):
    @jax.jit
    @precise
    def estimates(params, keys, x, probabilities):
        made = model.evaluated(params).model

        def batch_mean(key):
            time_key, key = jax.random.split(key)
            t, p = bounds.diffusion.discrete_times(TIMES[name](time_key, len(x)), probabilities)
            found = jax.vmap(bounds.diffusion.discrete_estimate, (None, None, 0, 0, 0, 0))(
                made, params, jax.random.split(key, len(x)), x, t, p
            )
            return jnp.mean(found.value)

        return jax.lax.map(batch_mean, keys)

    return estimates


def sampled(model: Model, params: PyTree, key: Array, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(integers [count, H, W, C], chains [count, up to KEPT, H, W, C] from noise to x_1)."""
    return jax.tree.map(np.asarray, _sampler_of(model)(params, jax.random.split(key, count)))


@functools.cache
def _sampler_of(model: Model):
    @jax.jit
    @precise
    def sample(params, keys):
        made = model.evaluated(params)

        def one(key):
            kept = min(KEPT, made.model.gamma.size)
            chain = reverse_chain(made.model, params, key, model.shape, kept=kept)
            return made.decode(params, chain[-1]), chain

        return jax.vmap(one)(keys)

    return sample


def noised(model: Model, params: PyTree, key: Array, images: np.ndarray) -> np.ndarray:
    """x_t of each image at KEPT times from x itself to x_T, [N, KEPT, H, W, C], one noise each."""
    made = model.evaluated(params).model
    gamma = np.asarray(made.gamma)
    x = np.asarray(jax.vmap(made.encode)(jnp.asarray(as_images(images))))
    noise = np.asarray(jax.random.normal(key, x.shape))
    strip = [x]
    for place in np.linspace(0, gamma.size - 1, KEPT - 1).round().astype(int):
        alpha, sigma = (1 / math.sqrt(1 + math.exp(s * gamma[place])) for s in (1, -1))
        strip.append(alpha * x + sigma * noise)
    return np.stack(strip, axis=1)
