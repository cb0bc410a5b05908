"""Bounds of masked diffusion on test images, in every form, and images that it fills in."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import bounds
from experiments.masked.build import part_of, places_of_crop, tokens_of
from experiments.masked.settings import Masked
from experiments.masked.training import TIMES, by_drawn_count, elbo_by_counts
from experiments.runtime import keys
from experiments.runtime.compiling import precise
from experiments.runtime.keys import Purpose
from experiments.runtime.results import Row
from experiments.studies import held_out
from experiments.studies.held_out import mean_row
from experiments.studies.images import Problem
from experiments.studies.study import UNIT
from models.masked_tokens import MaskedTokens, reveal

REPLICATES = 16  # of an estimate, for how much it varies
FORMS = ("time", "time, spread", "count", "every count", "order")


def rows(
    problem: Problem, model: MaskedTokens, theta: PyTree, at: dict[str, Any], settings: Masked
) -> list[Row]:
    """The ELBO and the bounds of fewer steps, IWAE over orders, and all orders of a crop.

    A lower bound on log P(x) is an upper bound in bits/dim. The ELBO beside IWAE is of the same
    orders.
    """
    wanted, memory = settings.evaluation, settings.memory
    tokens = tokens_of(problem.dataset.test[: wanted.num_images or None])
    root = keys.key_for(wanted.seed, Purpose.TEST_IMAGES)
    key, *of_steps = jax.random.split(root, 1 + len(wanted.steps))
    over = functools.partial(held_out.over_images, images_per_pass=memory.images_per_pass)
    start = time.perf_counter()
    (elbo,) = over(elbo_of(model, wanted.num_counts, memory.samples_per_pass), theta, tokens, key)
    spent = (time.perf_counter() - start) / max(len(tokens), 1)
    bits = functools.partial(mean_row, at=at, kind="upper_bound", unit=UNIT)
    out = [
        bits("ELBO", values=problem.bits(elbo)),
        mean_row("ELBO", at, elbo, "lower_bound"),
    ]
    for steps, step_key in zip(wanted.steps, of_steps, strict=True):
        (found,) = over(_chain_of(model, steps), theta, tokens, step_key)
        where = {**at, "T": steps}
        out.append(
            mean_row("ELBO of a chain", where, problem.bits(found), "upper_bound", unit=UNIT)
        )
    key = keys.key_for(wanted.seed, Purpose.ORDERS)
    evaluate = _orders_of(model, wanted.num_orders, memory.samples_per_pass)
    (log_w,) = over(evaluate, theta, tokens, key)
    # The first is no bound by K of them, but the mean of as many.
    where, of_all = {**at, "K": wanted.num_orders}, {**at, "orders": wanted.num_orders}
    mean, several = bounds.elbo(log_w), bounds.iwae(log_w)
    gain = problem.bits(np.asarray(mean)) - problem.bits(np.asarray(several))
    out += [
        mean_row("ELBO of these orders", of_all, problem.bits(mean), "upper_bound", unit=UNIT),
        mean_row("IWAE over orders", where, problem.bits(several), "upper_bound", unit=UNIT),
        mean_row("gain of IWAE", where, gain, "estimate", unit=UNIT),
    ]
    timed: list[Row] = [{**r, "seconds_per_image": spent} for r in out]
    return timed + crop_rows(problem, model, theta, tokens, at, settings)


@functools.cache
def elbo_of(model: MaskedTokens, num_counts: int, at_once: int):
    """The ELBO of a pass of images, by `num_counts` masks of each, `at_once` together."""

    def one(theta, key, x, index):
        key = jax.random.fold_in(key, index)
        return (elbo_by_counts(model.made(), theta, key, x, num_counts, at_once),)

    return held_out.compiled(one)


@functools.cache
def _chain_of(model: MaskedTokens, steps: int):
    times = jnp.arange(1, steps + 1) / steps

    def one(theta, key, x, index):
        terms = bounds.masked.terms(model.made(), theta, jax.random.fold_in(key, index), x, times)
        return (bounds.diffusion.bound(terms),)

    return held_out.compiled(one)


@functools.cache
def _orders_of(model: MaskedTokens, num_orders: int, at_once: int):
    latent = bounds.masked.any_order(model.made())

    def one(theta, key, x, index):
        key = jax.random.fold_in(key, index)
        return (
            bounds.log_weights(
                latent, bounds.Params(theta, ()), key, x, num_samples=num_orders, chunk_size=at_once
            ),
        )

    return held_out.compiled(one)


def crop_rows(
    problem: Problem,
    model: MaskedTokens,
    theta: PyTree,
    tokens: np.ndarray,
    at: dict[str, Any],
    settings: Masked,
) -> list[Row]:
    """log p of a crop given the rest of the image, exactly: by all orders of its pixels.

    The variances are exact too, of the estimates of one image at as many evaluations as it has
    pixels, and then their mean over images; that of uniform times is infinite.
    """
    crop = settings.evaluation.crop
    places = places_of_crop(problem, crop)
    count = len(places)
    values: Any = held_out.over_images(
        _crop_of(model, tuple(places.tolist())), theta, tokens, None,
        images_per_pass=settings.memory.images_per_pass,
    )  # fmt: skip
    found = bounds.masked.Enumerated(*values)
    where = {**at, "crop": "x".join(map(str, crop))}
    gap = found.log_prob.astype(np.float64) - found.elbo
    variances = {
        "count": found.by_count / count, "every count": found.by_every_count,
        "order": found.by_order,
    }  # fmt: skip
    return [
        mean_row("log p of a crop", where, found.log_prob, "exact"),
        mean_row("ELBO of a crop", where, found.elbo, "lower_bound"),
        mean_row("gap of a crop", where, gap, "exact", gap_of="ELBO of a crop"),
        *(
            mean_row(f"variance by {name}", where, values, "exact", unit="nats^2")
            for name, values in variances.items()
        ),
    ]


@functools.cache
def _crop_of(model: MaskedTokens, places: tuple[int, ...]):
    def one(theta, key, x, index):
        del key, index
        inside, of_crop = part_of(model, x, np.asarray(places))
        return tuple(bounds.masked.enumerated(inside, theta, of_crop(x), chunk_size=16))

    return held_out.compiled(one)


def varied(
    problem: Problem, model: MaskedTokens, theta: PyTree, at: dict[str, Any], settings: Masked
) -> list[Row]:
    """How much estimates of each form vary, by L evaluations of the network for each image.

    The value is their mean in bits/dim, which is that of one bound; the row's `deviation` is that
    of one estimate of one image, the root of the mean variance over images.
    """
    count = settings.evaluation.varied_images
    if not count:
        return []
    tokens = tokens_of(problem.dataset.test[:count])
    key = keys.key_for(settings.evaluation.seed, Purpose.SINGLE_TIMES)
    out = []
    for number, form in enumerate(FORMS):
        values = held_out.over_images(
            _estimates_of(model, form), theta, tokens, jax.random.fold_in(key, number),
            images_per_pass=settings.memory.images_per_pass,
        )[0]  # fmt: skip
        values = problem.bits(values)
        deviation = float(np.sqrt(values.var(axis=1, ddof=1).mean()))
        out.append(
            mean_row(
                f"by {form}", at, values.mean(axis=0), "estimate", unit=UNIT, deviation=deviation
            )
        )
    return out


@functools.cache
def _estimates_of(model: MaskedTokens, form: str):
    made, count = model.made(), model.length

    def estimate(theta, key, x):
        if form == "order":
            return bounds.masked.by_order(made, theta, key, x).value
        if form == "every count":
            return elbo_by_counts(made, theta, key, x, count)
        time_key, key = jax.random.split(key)
        times = TIMES["low_discrepancy" if form == "time, spread" else "uniform"](time_key, count)

        def one(drawn):
            number, time = drawn
            own = jax.random.fold_in(key, number)
            if form == "count":
                return by_drawn_count(made, theta, own, x, time).value
            return bounds.masked.by_time(made, theta, own, x, 1.0 - time).value

        return jnp.mean(jax.lax.map(one, (jnp.arange(count), times), batch_size=16))

    def of_image(theta, key, x, index):
        key = jax.random.fold_in(key, index)

        def replicate(number):
            return estimate(theta, jax.random.fold_in(key, number), x)

        return (jax.lax.map(replicate, jnp.arange(REPLICATES)),)

    return held_out.compiled(of_image)


def filled(model: MaskedTokens, theta: PyTree, key: Array, tokens: np.ndarray) -> np.ndarray:
    """Sequences [N, L] whose masked tokens are drawn, each with a key of its own."""
    found = _filler_of(model)(theta, jax.random.split(key, len(tokens)), jnp.asarray(tokens))
    return np.asarray(found)


@functools.cache
def _filler_of(model: MaskedTokens):
    @jax.jit
    @precise
    def fill(theta, keys, tokens):
        return jax.vmap(functools.partial(reveal, model.made(), theta))(keys, tokens)

    return fill
