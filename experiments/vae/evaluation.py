"""The parts of an evaluation: bounds on test images, active units, a sandwich on simulated data."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import bounds
from experiments.runtime import fit, metrics, paths
from experiments.runtime.errors import UserError
from experiments.runtime.keys import Purpose, key_for
from experiments.runtime.results import Row, row
from experiments.studies import curves, held_out, stored, study
from experiments.studies.ensemble import ensemble, member
from experiments.vae import sandwich
from experiments.vae.active_units import ACTIVE_VARIANCE, active_units
from experiments.vae.build import Problem, make_run, named, prepared
from experiments.vae.settings import Evaluate, Train, TrainedRun


def check_start(settings: Evaluate, trained: TrainedRun | Train) -> None:
    """Refuses chains from the prior of a model with several stochastic layers.

    Raises:
      UserError: see there.
    """
    layers = len(trained.model.latents)
    if settings.annealing.start == "prior" and layers > 1:
        raise UserError(
            "--config.annealing.start=prior is of one stochastic layer, and this model has "
            f"{layers}; set it to encoder."
        )


def load_params(
    problem: Problem, trained: TrainedRun, directory: str, *, checkpoint: str, member: int
) -> tuple[bounds.Params, dict[str, Any]]:
    """Parameters of a checkpoint, and what tells them from others.

    Args:
      problem: data and model of the run.
      trained: the settings of the run.
      directory: of its checkpoints.
      checkpoint: "best" on validation, "latest", or a step.
      member: the seed that is meant where several were trained together; -1 for the only one.

    Returns:
      (parameters, {"step", "weights": "average" or "last", "checksum": of the checkpoint}).

    Raises:
      UserError: there is no such checkpoint, or it is of another training.
    """
    run, own = _trained_run(problem, trained, member)
    params, source = stored.restore(run, named(trained), directory, checkpoint=checkpoint)
    return bounds.Params(*own(params)), source


def _trained_run(
    problem: Problem, trained: TrainedRun, seed: int
) -> tuple[fit.Run, Callable[[PyTree], PyTree]]:
    """The run of a training, and the function that takes one member out of its parameters."""
    seeds = trained.seeds
    if len(seeds) == 1 and seed in (-1, *seeds):
        return make_run(problem, trained, seeds[0]), lambda params: params
    if seed not in seeds:
        raise UserError(
            "--config.member must be a seed of this run, one of "
            f"{', '.join(map(str, seeds))}, got {seed}."
        )
    runs = [make_run(problem, trained, s) for s in seeds]
    return ensemble(runs), lambda params: member(params, seeds.index(seed))


def on_images(problem: Problem, params: PyTree, settings: Evaluate) -> list[Row]:
    """ELBO, IWAE of few and many samples, their gap, ESS and k-hat."""
    start = time.perf_counter()
    key = key_for(settings.seed, Purpose.VAE_IMAGES)
    measured = _measure(problem, params, _images(problem, settings), key, settings)
    return held_out.rows(
        measured,
        few=settings.evaluation.few_samples,
        many=settings.evaluation.num_samples,
        seconds=time.perf_counter() - start,
        data=settings.data.split,
    )


def over_counts(problem: Problem, params: PyTree, settings: Evaluate) -> list[Row]:
    """IWAE-K and VR-IWAE-K over K, all from the same samples of each image."""
    counts, alphas = settings.evaluation.curve_samples, settings.evaluation.curve_alphas
    if not alphas:
        return []
    images, start = _images(problem, settings), time.perf_counter()
    evaluate = _curves(problem.vae.model, counts, alphas, settings.memory.samples_per_pass)
    key = key_for(settings.seed, Purpose.VAE_CURVES)
    values, errors = held_out.over_images(
        evaluate, params, images, key, images_per_pass=settings.memory.images_per_pass
    )
    spent = time.perf_counter() - start
    return [
        held_out.mean_row(
            "VR-IWAE" if alpha else "IWAE",
            {"K": k, "alpha": alpha} if alpha else {"K": k},
            values[:, a, i],
            "lower_bound",
            seconds=spent,
            data=settings.data.split,
            monte_carlo_error=float(np.linalg.norm(errors[:, a, i].astype(float)) / len(images)),
        )
        for a, alpha in enumerate(alphas)
        for i, k in enumerate(counts)
    ]


@functools.cache
def _curves(
    model: bounds.LatentModel, counts: tuple[int, ...], alphas: tuple[float, ...], chunk_size: int
):
    def one(params, key, x, index):
        log_w = bounds.log_weights(
            model,
            params,
            jax.random.fold_in(key, index),
            x,
            num_samples=counts[-1],
            chunk_size=min(chunk_size, counts[-1]),
        )
        found = [curves.bound_curve(log_w, counts, alpha=alpha) for alpha in alphas]
        values, errors = (jnp.stack(part) for part in zip(*found, strict=True))
        return values, errors

    return held_out.compiled(one)


def annealed(problem: Problem, params: PyTree, settings: Evaluate) -> list[Row]:
    """AIS on the first `annealing.test_images` images: a lower bound, and how far above IWAE."""
    annealing = settings.annealing
    if not annealing.test_images:
        return []
    start = time.perf_counter()
    images = _images(problem, settings)[: annealing.test_images]
    lower, acceptance = sandwich.forward(
        problem.vae,
        params,
        images,
        key_for(settings.seed, Purpose.VAE_ANNEALED),
        annealing,
        images_per_pass=settings.memory.ais_images_per_pass,
    )
    spent = time.perf_counter() - start
    at, many = sandwich.path_of(annealing), settings.evaluation.num_samples
    # The samples of `on_images`, whose first images these are.
    key = key_for(settings.seed, Purpose.VAE_IMAGES)
    iwae = _measure(problem, params, images, key, settings).iwae_many
    return [
        held_out.mean_row("AIS", at, lower, "lower_bound", seconds=spent, data=settings.data.split),
        held_out.mean_row(
            "AIS above IWAE", {**at, "K": many}, lower - iwae, "estimate", data=settings.data.split
        ),
        held_out.mean_row(
            "AIS acceptance", at, acceptance, "estimate", unit="share", data=settings.data.split
        ),
    ]


def size(problem: Problem, params: PyTree, settings: Evaluate) -> list[Row]:
    """How large the model is, and how long it trained."""
    del problem
    folder = paths.local("--config.run", settings.run)
    return study.size_and_time(params, {}, metrics.seconds_spent(folder))


def active(problem: Problem, params: PyTree, settings: Evaluate) -> list[Row]:
    """Active units of each layer."""
    images = _images(problem, settings)
    counts = active_units(
        problem.vae, params, images, key_for(settings.seed, Purpose.VAE_ACTIVE_UNITS)
    )
    return [
        row(
            f"active units, layer {layer}",
            {"threshold": ACTIVE_VARIANCE},
            kind="estimate",
            unit="units",
            value=count,
            standard_error=error,
            n=len(images),
            data=settings.data.split,
        )
        for layer, (count, error) in enumerate(counts, 1)
    ]


def between_bounds(problem: Problem, params: PyTree, settings: Evaluate) -> list[Row]:
    """AIS, reverse AIS and IWAE on the same data, simulated from the model."""
    start, annealing = time.perf_counter(), settings.annealing
    key = key_for(settings.seed, Purpose.VAE_SIMULATION)
    images, latents = sandwich.simulated(problem.vae, params, key, annealing.simulated_images)
    measured = sandwich.sandwich(
        problem.vae,
        params,
        images,
        latents,
        key_for(settings.seed, Purpose.VAE_SANDWICH),
        annealing,
        images_per_pass=settings.memory.ais_images_per_pass,
    )
    rows = sandwich.rows(measured, annealing, seconds=time.perf_counter() - start, data="simulated")
    start = time.perf_counter()
    key = key_for(settings.seed, Purpose.VAE_SIMULATED_IMAGES)
    iwae = _measure(problem, params, images, key, settings).iwae_many
    at = {"K": settings.evaluation.num_samples, "data": "simulated"}
    rows.append(
        held_out.mean_row(
            "IWAE", at, iwae, "lower_bound", data="simulated", seconds=time.perf_counter() - start
        )
    )
    return rows


PARTS: dict[str, Callable[[Problem, PyTree, Evaluate], list[Row]]] = {
    "size": size,
    "images": on_images,
    "curves": over_counts,
    "annealed": annealed,
    "active units": active,
    "simulated data": between_bounds,
}


def _images(problem: Problem, settings: Evaluate) -> np.ndarray:
    images = prepared(problem, settings.data.split, settings.data.binarization_seed)
    if not len(images):
        raise UserError(f"{problem.dataset.name} has no {settings.data.split} images.")
    return images[: settings.evaluation.num_images or None]


def _measure(problem: Problem, params: PyTree, images: np.ndarray, key: Array, settings: Evaluate):
    return held_out.per_image(
        problem.vae.model,
        params,
        images,
        key,
        few=settings.evaluation.few_samples,
        many=settings.evaluation.num_samples,
        images_per_pass=settings.memory.images_per_pass,
        samples_per_pass=settings.memory.samples_per_pass,
    )
