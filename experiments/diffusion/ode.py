"""Test images under the probability-flow ODE of a trained model, and samples by it."""

import functools
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import bounds
from experiments.diffusion import evaluation, noise
from experiments.diffusion.build import Model
from experiments.diffusion.settings import Diffusion, Ode, Trained
from experiments.runtime import keys, settings
from experiments.runtime.compiling import precise
from experiments.runtime.keys import Purpose
from experiments.runtime.results import Row
from experiments.studies import curves, held_out
from experiments.studies.ensemble import train_members
from experiments.studies.held_out import mean_row
from experiments.studies.images import Problem, as_images
from experiments.studies.study import UNIT
from experiments.studies.training import identity


def rows(
    problem: Problem,
    model: Model,
    trained: Trained,
    params: PyTree,
    at: dict[str, Any],
    asked: Diffusion,
    folder: str,
) -> list[Row]:
    """Bounds on log P(x) of the ODE for each noise and k, and their distance to the ELBO.

    They bound the probability of another model than the ELBO does. Both are of the same images, and
    the distance, image by image, is an estimate of neither model.
    """
    ode = asked.evaluation.ode
    assert ode is not None
    images = problem.dataset.test[: ode.num_images or None]
    per_pass, seed = asked.memory.images_per_pass, asked.evaluation.seed
    key = keys.key_for(seed, Purpose.CONTINUOUS_TIME)
    count = asked.evaluation.num_times
    limit = problem.bits(evaluation.in_continuous_time(model, params, images, key, count, per_pass))
    out = []
    for name in ode.noises:
        phi = ()
        if name == "learned":
            phi = _fitted(problem, model, trained, params, at["seed"], asked, ode, folder)
        key = keys.key_for(seed, Purpose.ODE)
        start = time.perf_counter()
        values, errors, evaluations = held_out.over_images(
            _scores_of(
                model,
                name,
                problem.levels,
                trained.chain.gamma_min,
                ode.num_samples,
                ode.num_steps,
                ode.path,
                ode.largest_error,
                ode.trace,
            ),
            (params, phi),
            as_images(images),
            key,
            images_per_pass=per_pass,
        )
        spent = (time.perf_counter() - start) / max(len(images), 1)
        for k, found in zip(ode.num_samples, values.T, strict=True):
            here = {**at, "noise": name, "k": k}
            extra = {
                "solver_error": -float(problem.bits(errors).mean()),
                "evaluations": int(evaluations[0]),
                "seconds_per_image": spent * k / ode.num_samples[-1],
                "not_converged": int(np.sum(~np.isfinite(found))),
            }
            bits = problem.bits(found)
            out.append(mean_row("ODE", here, bits, "upper_bound", unit=UNIT, **extra))
            away = bits - limit
            out.append(mean_row("ODE - ELBO, T = infinity", here, away, "estimate", unit=UNIT))
    return out


def _fitted(
    problem: Problem,
    model: Model,
    trained: Trained,
    params: PyTree,
    seed: int,
    asked: Diffusion,
    ode: Ode,
    folder: str,
) -> PyTree:
    """The learned noise of one finished model, in its own folder."""
    run = noise.make_run(problem, model, trained, ode, params, seed)
    named = identity(
        trained, Trained, (seed,), noise_steps=ode.noise_steps,
        trained_with=settings.dump(trained, Trained),
    )  # fmt: skip
    (phi,), _ = train_members([run], asked.records, os.path.join(folder, f"noise_{seed}"), named)
    return phi


@functools.lru_cache(maxsize=8)
def _scores_of(
    model: Model,
    name: str,
    levels: int,
    gamma_min: float,
    counts: tuple[int, ...],
    num_steps: int,
    path: str,
    largest_error: float,
    trace: str,
):
    dequantizer = noise.make_noise(name, levels, gamma_min).make(None)

    def one(both, key, x, index):
        params, phi = both
        key = jax.random.fold_in(key, index)

        def draw(number):
            noise_key, probe_key = jax.random.split(jax.random.fold_in(key, number))
            probes = None
            if trace == "hutchinson":  # anew for every draw, and so for one alone
                probes = jax.random.rademacher(probe_key, (1, *x.shape), x.dtype)
            density = bounds.diffusion.ode_log_density(
                model.make(params, None, 0).model, levels=levels, num_steps=num_steps,
                path=path, largest_error=largest_error, probes=probes, has_aux=True,
            )  # fmt: skip
            v, log_q = dequantizer.propose(phi, noise_key, x)
            value, found = density(params, x, jax.nn.sigmoid(v))
            slope = jnp.sum(jax.nn.log_sigmoid(v) + jax.nn.log_sigmoid(-v))
            return value + slope - log_q, found.solver_error, found.num_evaluations

        log_w, errors, evaluations = jax.lax.map(draw, jnp.arange(counts[-1]))
        values, _ = curves.bound_curve(log_w, counts)
        return values, jnp.mean(errors), evaluations[0]

    return held_out.compiled(one)


def sampled(model: Model, params: PyTree, key: Array, count: int, ode: Ode) -> np.ndarray:
    """Integers [count, H, W, C] that the ODE makes of noise, backward from z_1 to z_0."""
    drawn = jax.random.split(key, count)
    return np.asarray(_sampler_of(model, ode.num_steps, ode.path)(params, drawn))


@functools.lru_cache(maxsize=8)
def _sampler_of(model: Model, num_steps: int, path: str):
    @jax.jit
    @precise
    def sample(params, keys):
        made = model.make(params, None, 0)

        def one(key):
            z_1 = jax.random.normal(key, model.shape)
            z_0 = bounds.diffusion.ode_transport(
                made.model, params, z_1, num_steps=num_steps, backward=True, path=path
            )
            return made.decode(params, z_0)

        return jax.vmap(one)(keys)

    return sample
