"""Test images under a trained model: bounds in bits/dim, their gap, and the flow's round trip."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

import bounds
from experiments.dequantize.build import Model
from experiments.dequantize.settings import Dequantize
from experiments.runtime import keys
from experiments.runtime.compiling import precise
from experiments.runtime.errors import UserError
from experiments.runtime.keys import Purpose
from experiments.runtime.results import Row, row
from experiments.studies import curves, held_out
from experiments.studies.held_out import mean_row
from experiments.studies.images import Problem, as_images
from experiments.studies.settings import Memory
from experiments.studies.study import UNIT

ROUND_TRIPS = 100  # images


class Curve(NamedTuple):
    """IWAE-k of each image, in nats.

    Attributes:
      values: [images, number of k], the mean over disjoint groups of k of the same samples.
      monte_carlo_error: its standard error over those groups; with one group by the delta method.
    """

    values: np.ndarray
    monte_carlo_error: np.ndarray


def curve(
    model: Model,
    params: bounds.Params,
    images: np.ndarray,
    key: Array,
    counts: tuple[int, ...],
    memory: Memory,
) -> Curve:
    """IWAE-k for each of `counts`, from as many draws of fresh noise as the largest.

    Image i uses fold_in(key, i): no image shares its noise with another, nor with a validation.
    """
    evaluate = _curve_of(model, counts, memory.samples_per_pass)
    return Curve(
        *held_out.over_images(
            evaluate, params, as_images(images), key, images_per_pass=memory.images_per_pass
        )
    )


@functools.cache
def _curve_of(model: Model, counts: tuple[int, ...], samples_per_pass: int):
    latent = model.latent()

    def one(params, key, x, index):
        log_w = bounds.log_weights(
            latent,
            params,
            jax.random.fold_in(key, index),
            x,
            num_samples=counts[-1],
            chunk_size=min(samples_per_pass, counts[-1]),
        )
        return curves.bound_curve(log_w, counts)

    return held_out.compiled(one)


@functools.cache
def _log_prob_of(log_prob: Callable[..., Array]):
    return held_out.compiled(lambda params, key, x, index: (log_prob(params.theta, x),))


@functools.cache
def _back_of(there_and_back: Callable[..., Array]):
    of_each = jax.vmap(there_and_back, (None, 0))
    return held_out.spread(lambda theta, key, y, index: of_each(theta, y))


@functools.cache
def _of_each(function: Callable[..., Array]):
    """(theta, batch) -> function(theta, x) of each x, compiled once for all seeds of a model."""
    return jax.jit(precise(jax.vmap(function, (None, 0))))


def exact_bits(
    problem: Problem, model: Model, params: bounds.Params, settings: Dequantize
) -> np.ndarray | None:
    """Bits/dim of each test image, under a density with exact log P(x)."""
    if model.density.log_prob is None:
        return None
    (nats,) = held_out.over_images(
        _log_prob_of(model.density.log_prob),
        params,
        as_images(_images(problem, settings)),
        None,
        images_per_pass=settings.memory.images_per_pass,
    )
    return problem.bits(nats)


def _images(problem: Problem, settings: Dequantize) -> np.ndarray:
    return problem.dataset.test[: settings.evaluation.num_images or None]


def rows(
    problem: Problem,
    model: Model,
    params: bounds.Params,
    at: dict[str, Any],
    settings: Dequantize,
    exact: np.ndarray | None,
) -> list[Row]:
    """The bounds of a model on the test images, and their gaps to `exact` of each.

    A lower bound on log P(x) is an upper bound in bits/dim. `monte_carlo_error` is the part of a
    standard error that comes from the noise drawn, and that more of it would take away.
    """
    images, counts = _images(problem, settings), settings.evaluation.num_samples
    out: list[Row] = []
    start = time.perf_counter()
    key = keys.key_for(settings.evaluation.seed, Purpose.TEST_IMAGES)
    measured = curve(model, params, images, key, counts, settings.memory)
    for i, k in enumerate(counts):
        noise_error = float(np.linalg.norm(measured.monte_carlo_error[:, i].astype(float)))
        per_dim = noise_error / len(images) / (math.prod(problem.shape) * math.log(2))
        values = problem.bits(measured.values[:, i])
        name = "ELBO" if k == 1 else f"IW-{k}"
        here = {**at, "k": k}
        out.append(
            mean_row(name, here, values, "upper_bound", unit=UNIT, monte_carlo_error=per_dim)
        )
        if exact is not None:
            gap = values - exact
            out.append(mean_row(f"{name} gap", here, gap, "estimate", unit=UNIT, gap_of=name))
    spent = (time.perf_counter() - start) / max(len(images), 1)
    return [{**r, "seconds_per_image": spent} for r in out]


def round_trip(
    problem: Problem, model: Model, params: bounds.Params, at: dict[str, Any], seed: int
) -> list[Row]:
    """The largest distance, in grey levels, between dequantized test images and their way back."""
    there_and_back = model.density.round_trip
    if there_and_back is None:
        return []
    images = as_images(problem.dataset.test[:ROUND_TRIPS])
    key = keys.key_for(seed, Purpose.ROUND_TRIP)
    y = images + np.asarray(jax.random.uniform(key, images.shape))
    back: Any = held_out.over_images(
        _back_of(there_and_back), params.theta, y, None, images_per_pass=ROUND_TRIPS
    )
    error = np.abs(back - y).max(axis=(1, 2, 3))
    return [largest("round-trip error", at, error)]


def largest(name: str, at: dict[str, Any], errors: np.ndarray) -> Row:
    """A row of the largest error; NaN marks images whose inverse did not converge."""
    return row(
        name,
        at,
        kind="estimate",
        unit="levels",
        value=float(errors.max()),
        n=len(errors),
        not_converged=int(np.isnan(errors).sum()),
    )


def complain(rows: list[Row]) -> None:
    """Ends the program with an error where an inverse did not converge.

    Raises:
      UserError: `largest` found some.
    """
    lost = [r for r in rows if r.get("not_converged")]
    if lost:
        where = ", ".join(
            f"{r['at']['model']} ({r['name']}: {r['not_converged']} of {r['n']} images)"
            for r in lost
        )
        raise UserError(
            f"the inverse of the flow did not converge for {where}: its samples and round trips "
            "mean nothing, its bits/dim stand; train with a lower learning rate or a clip_norm in "
            "another --workdir."
        )


def samples(model: Model, params: bounds.Params, key: Array, count: int) -> np.ndarray:
    """`count` images of integers drawn from the density, float [count, H, W, C].

    NaN where the inverse of a coupling did not converge.
    """
    draw = _of_each(model.density.simulate)
    return np.asarray(draw(params.theta, jax.random.split(key, count)))
