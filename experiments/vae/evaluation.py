"""The parts of an evaluation: bounds on test images, active units, a sandwich on simulated data."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

import bounds
from experiments.runtime import checks, fit, metrics
from experiments.runtime.checkpoints import Checkpoints
from experiments.runtime.errors import UserError
from experiments.runtime.results import Row, row
from experiments.studies import curves, held_out, study
from experiments.studies.ensemble import ensemble, member
from experiments.vae import sandwich as bdmc
from experiments.vae.build import Problem, make_run, prepared

SPLITS = ("test", "validation")


def check_config(config: Any) -> None:
    """Refuses what makes no sense before anything is computed."""
    if config.split not in SPLITS:
        raise UserError(f"config.split must be one of {', '.join(SPLITS)}, got {config.split!r}.")
    held_out.check_passes(config)
    checks.whole(config, 1, "few_samples", "num_samples")
    checks.whole(config, 0, "num_images", "ais_test_images")
    curves.check_counts(config, "curve_samples")
    if not all(checks.is_number(alpha) and 0 <= alpha < 1 for alpha in config.curve_alphas):
        raise UserError(
            "config.curve_alphas must hold numbers from 0 (IWAE) to below 1 (the ELBO), "
            f"got {config.curve_alphas}."
        )
    checks.seeds("seed", [config.seed])
    checks.seeds("binarization_seed", [config.binarization_seed])
    bdmc.check_config(config)


def load_params(
    problem: Problem, trained: Any, directory: str, config: Any
) -> tuple[bounds.Params, dict[str, Any]]:
    """Parameters of a checkpoint, and what tells them from others.

    Args:
      problem: data and model of the run.
      trained: the config of the run.
      directory: of its checkpoints.
      config: its `checkpoint` is "best" on validation, "latest", or a step; its `member` the
        seed that is meant where several were trained together.

    Returns:
      (parameters, {"step", "weights": "average" or "last", "checksum": of the checkpoint}).

    Raises:
      UserError: there is no such checkpoint, or it is of another config.
    """
    which = config.checkpoint
    run, own = _trained_run(problem, trained, config.member)
    with Checkpoints(directory, trained.to_dict(), read_only=True) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise UserError(f"no checkpoint in {directory}; train first.")
        named = {"best": checkpoints.best(), "latest": steps[-1]}
        step = named.get(which, int(which) if which.isdecimal() else None)
        if step not in steps:
            raise UserError(
                f"config.checkpoint must be best, latest or one of the steps "
                f"{', '.join(map(str, steps))}, got {which!r}."
            )
        state = checkpoints.restore(fit.initial_state(run, trained), step)
        checksum = checkpoints.checksum(step)
    params = bounds.Params(*own(fit.evaluated_params(state)))
    weights = "average" if trained.ema_decay > 0 else "last"
    return params, {"step": step, "weights": weights, "checksum": checksum}


def _trained_run(
    problem: Problem, trained: Any, seed: int
) -> tuple[fit.Run, Callable[[PyTree], PyTree]]:
    """The run of a config, and what takes the wanted parameters out of its own."""
    if isinstance(trained.seed, int) and seed in (-1, trained.seed):
        return make_run(problem, trained), lambda params: params
    seeds = (trained.seed,) if isinstance(trained.seed, int) else tuple(trained.seed)
    if seed not in seeds:
        raise UserError(
            "config.member must be a seed of this run, one of "
            f"{', '.join(map(str, seeds))}, got {seed}."
        )
    runs = [make_run(problem, ConfigDict({**trained.to_dict(), "seed": s})) for s in seeds]
    return ensemble(runs), lambda params: member(params, seeds.index(seed))


def on_images(problem: Problem, params: PyTree, config: Any) -> list[Row]:
    """ELBO, IWAE of few and many samples, their gap, ESS and k-hat."""
    start = time.perf_counter()
    measured = _measure(problem, params, _images(problem, config), _key(config, "images"), config)
    return held_out.rows(
        measured, few=config.few_samples, many=config.num_samples,
        seconds=time.perf_counter() - start, data=config.split,
    )  # fmt: skip


def over_counts(problem: Problem, params: PyTree, config: Any) -> list[Row]:
    """IWAE-K and VR-IWAE-K over K, all from the same samples of each image."""
    counts, alphas = tuple(config.curve_samples), tuple(config.curve_alphas)
    if not alphas:
        return []
    images, start = _images(problem, config), time.perf_counter()
    evaluate = _curves(problem.vae.model, counts, alphas, config.samples_per_pass)
    key = _key(config, "curves")
    values, errors = held_out.over_images(
        evaluate, params, images, key, images_per_pass=config.images_per_pass
    )
    spent = time.perf_counter() - start
    return [
        held_out.mean_row(
            "VR-IWAE" if alpha else "IWAE", {"K": k, "alpha": alpha} if alpha else {"K": k},
            values[:, a, i], "lower_bound", seconds=spent, data=config.split,
            monte_carlo_error=float(np.linalg.norm(errors[:, a, i].astype(float)) / len(images)),
        )
        for a, alpha in enumerate(alphas) for i, k in enumerate(counts)
    ]  # fmt: skip


@functools.cache
def _curves(
    model: bounds.LatentModel, counts: tuple[int, ...], alphas: tuple[float, ...], chunk_size: int
):
    def one(params, key, x, index):
        log_w = bounds.log_weights(
            model, params, jax.random.fold_in(key, index), x,
            num_samples=counts[-1], chunk_size=min(chunk_size, counts[-1]),
        )  # fmt: skip
        found = [curves.bound_curve(log_w, counts, alpha=alpha) for alpha in alphas]
        values, errors = (jnp.stack(part) for part in zip(*found, strict=True))
        return values, errors

    return held_out.compiled(one)


def annealed(problem: Problem, params: PyTree, config: Any) -> list[Row]:
    """AIS on the first `config.ais_test_images` images: a lower bound, and IWAE of the same."""
    if not config.ais_test_images:
        return []
    images, start = _images(problem, config)[: config.ais_test_images], time.perf_counter()
    lower, acceptance = bdmc.forward(problem.vae, params, images, _key(config, "annealed"), config)
    spent = time.perf_counter() - start
    at = {"T": config.ais_temperatures, "chains": config.ais_chains}
    return [
        held_out.mean_row("AIS", at, lower, "lower_bound", seconds=spent, data=config.split),
        held_out.mean_row("AIS acceptance", at, acceptance, "estimate", unit="share",
                          data=config.split),
    ]  # fmt: skip


def size(problem: Problem, params: PyTree, config: Any) -> list[Row]:
    """How large the model is, and how long it trained."""
    del problem
    return study.size_and_time(params, {}, metrics.seconds_spent(config.run))


def active(problem: Problem, params: PyTree, config: Any) -> list[Row]:
    """Active units of each layer."""
    images = _images(problem, config)
    counts = held_out.active_units(problem.vae, params, images, _key(config, "active units"))
    return [
        row(
            f"active units, layer {layer}", {"threshold": held_out.ACTIVE_VARIANCE},
            kind="estimate", unit="units", value=count, standard_error=error, n=len(images),
            data=config.split,
        )
        for layer, (count, error) in enumerate(counts, 1)
    ]  # fmt: skip


def between_bounds(problem: Problem, params: PyTree, config: Any) -> list[Row]:
    """AIS, reverse AIS and IWAE on the same data, simulated from the model."""
    start = time.perf_counter()
    images, latents = bdmc.simulated(
        problem.vae, params, _key(config, "simulation"), config.simulated_images
    )
    measured = bdmc.sandwich(problem.vae, params, images, latents, _key(config, "AIS"), config)
    rows = bdmc.rows(measured, config, seconds=time.perf_counter() - start, data="simulated")
    start = time.perf_counter()
    iwae = _measure(problem, params, images, _key(config, "simulated images"), config).iwae_many
    at = {"K": config.num_samples, "data": "simulated"}
    rows.append(
        held_out.mean_row("IWAE", at, iwae, "lower_bound", data="simulated",
                          seconds=time.perf_counter() - start)
    )  # fmt: skip
    return rows


PURPOSES = ("images", "active units", "simulation", "AIS", "simulated images", "curves", "annealed")
PARTS: dict[str, Callable[[Problem, PyTree, Any], list[Row]]] = {
    "size": size,
    "images": on_images,
    "curves": over_counts,
    "annealed": annealed,
    "active units": active,
    "simulated data": between_bounds,
}


def _images(problem: Problem, config: Any) -> np.ndarray:
    images = prepared(problem, config.split, config)
    if not len(images):
        raise UserError(f"{problem.dataset.name} has no {config.split} images.")
    return images[: config.num_images or None]


def _key(config: Any, purpose: str) -> Array:
    """A key for one purpose; an image i takes fold_in(key, i), so no two may share theirs."""
    number = PURPOSES.index(purpose)
    # Counted from the far end: training folds small numbers into the same seed.
    return jax.random.fold_in(jax.random.key(config.seed), 2**32 - 1 - number)


def _measure(problem: Problem, params: PyTree, images: np.ndarray, key: Array, config: Any):
    return held_out.per_image(
        problem.vae.model, params, images, key,
        few=config.few_samples, many=config.num_samples,
        images_per_pass=config.images_per_pass, samples_per_pass=config.samples_per_pass,
    )  # fmt: skip
