r"""The average KL of the training images taken apart, by the exact aggregated posterior.

Its parts are averages over all N images and over z ~ q(z | x_n), of which S are drawn for each.
The images are the whole population, so only the draws are random: with s_n^2 the variance of the
S draws of image n (divided by S - 1), the standard error of the mean of all N S is

    sqrt((1/N) sum_n s_n^2 / (N S)),

that of a sample stratified by images; the spread between images is no part of it.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import bounds
from experiments.runtime.compiling import precise
from experiments.runtime.keys import Purpose, key_for
from experiments.runtime.results import Kind, Row, row
from experiments.studies import held_out
from experiments.surgery import encoders
from experiments.surgery.models import Loaded
from experiments.surgery.settings import Memory, Surgery
from experiments.vae.active_units import ACTIVE_VARIANCE

WHEN = ("before", "after")  # training
AVERAGE_KL, SAMPLED_KL = "average KL", "average KL, sampled"
INFORMATION, MARGINAL_KL = "index-code mutual information I", "marginal KL"
TOTAL_CORRELATION, DIMENSION_WISE = "total correlation", "dimension-wise KL"
OF_DIMENSION = ("average KL of dimension", "I of dimension", "KL of dimension")
VARIANCE_OF_MEAN = "variance of the mean"


class Parts(NamedTuple):
    """Parts of the KL, in nats: of one draw, or averages with leading axes.

    Attributes:
      terms: `bounds.surgery.Terms`.
      dimension_wise: the sum of `terms.dimension_kl`.
      dimension_information: log q(z_d | x) - log q(z_d), [D].
    """

    terms: bounds.surgery.Terms
    dimension_wise: Array
    dimension_information: Array


class Measured(NamedTuple):
    """Of each image the mean over its draws and their variance, `Parts` with arrays [N, ...]."""

    mean: Parts
    variance: Parts


def measure(
    posteriors: bounds.surgery.GaussianPosteriors,
    key: Array,
    *,
    num_draws: int,
    images_per_pass: int = 20,
    posteriors_per_pass: int = 500,
) -> Measured:
    """Draws z ~ q(z | x_n) for each of N posteriors and takes the KL at each of them apart.

    Draw s of image n uses fold_in(fold_in(key, n), s).

    Args:
      posteriors: of all data, [N, D]; their mixture is the aggregated posterior.
      key: PRNG key.
      num_draws: S, at least 2.
      images_per_pass: images on each device at once.
      posteriors_per_pass: posteriors of the mixture at once, for each of them.
    """
    evaluate = _evaluator(num_draws, posteriors_per_pass)
    found: Any = held_out.over_images(
        evaluate, posteriors, posteriors, key, images_per_pass=images_per_pass
    )
    return Measured(*found)


@functools.cache
def _evaluator(num_draws: int, posteriors_per_pass: int):
    def one(posteriors, key, posterior, index):
        key = jax.random.fold_in(key, index)

        def parts(number):
            z = draw(jax.random.fold_in(key, number), posterior)
            terms = bounds.surgery.terms(z, posterior, posteriors, chunk_size=posteriors_per_pass)
            # Densities of each dimension: the last axis, which is summed over, has length 1.
            own = bounds.densities.gaussian_log_prob(
                z[:, None], *(leaf[:, None] for leaf in posterior)
            )
            prior = bounds.densities.gaussian_log_prob(z[:, None], 0.0, 1.0)
            information = own - (terms.dimension_kl + prior)
            return Parts(terms, jnp.sum(terms.dimension_kl), information)

        found = jax.lax.map(parts, jnp.arange(num_draws))
        return (
            jax.tree.map(lambda v: jnp.mean(v, axis=0), found),
            jax.tree.map(lambda v: jnp.var(v, axis=0, ddof=1), found),
        )

    return held_out.compiled(one)


def draw(key: Array, posterior: bounds.surgery.GaussianPosteriors) -> Array:
    """z ~ q(z | x)."""
    mean, variance = posterior
    return mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape, mean.dtype)


def stratified(mean: Any, variance: Any, num_draws: int) -> tuple[Any, Any]:
    """(mean over all images and draws, its standard error over the draws of fixed images).

    Args:
      mean: of each image over its draws, [N, ...].
      variance: of the draws of each image, divided by S - 1, [N, ...].
      num_draws: S.
    """
    mean, variance = np.asarray(mean, np.float64), np.asarray(variance, np.float64)
    return mean.mean(axis=0), np.sqrt(variance.mean(axis=0) / (num_draws * len(mean)))


def closed_kl(posteriors: bounds.surgery.GaussianPosteriors) -> np.ndarray:
    """KL(q(z_d | x_n) || N(0, 1)) of each dimension, in closed form, [N, D]."""
    mean, variance = (np.asarray(leaf, np.float64) for leaf in posteriors)
    return np.asarray(
        bounds.densities.gaussian_kl(mean[..., None], variance[..., None]), np.float64
    )


class Minibatch(NamedTuple):
    """Estimates of I from each of some batches, [batches]."""

    in_batch: np.ndarray
    weighted: np.ndarray
    stratified: np.ndarray


def from_minibatches(
    posteriors: bounds.surgery.GaussianPosteriors, key: Array, *, batch: int, num_batches: int
) -> Minibatch:
    """Estimates of I by batches of `batch` data, drawn without replacement, one z for each."""
    found = _of_batches(batch, num_batches)(posteriors, key)
    return Minibatch(*(np.asarray(v, np.float64) for v in found))


@functools.cache
def _of_batches(batch: int, num_batches: int):
    @jax.jit
    @precise
    def run(posteriors, key):
        count = len(posteriors.mean)

        def one(number):
            which, noise = jax.random.split(jax.random.fold_in(key, number))
            index = jax.random.choice(which, count, (batch,), replace=False)
            chosen = jax.tree.map(lambda leaf: leaf[index], posteriors)
            z = draw(noise, chosen)
            of_one = jax.vmap(bounds.densities.gaussian_log_prob, (None, 0, 0))
            log_pairs = jax.vmap(of_one, (0, None, None))(z, *chosen)
            own = jnp.diagonal(log_pairs)
            lower, upper = bounds.surgery.information_sandwich(log_pairs, num_data=count)
            weighted = bounds.surgery.minibatch_weighted_log_prob(log_pairs, num_data=count)
            return jnp.mean(lower), jnp.mean(own - weighted), jnp.mean(upper)

        return jax.lax.map(one, jnp.arange(num_batches))

    return lambda posteriors, key: run(jax.tree.map(jnp.asarray, posteriors), key)


def part(model: Loaded, settings: Surgery, rows: list[Row]) -> list[Row]:
    """The decomposition before and after training."""
    del rows
    images = training_images(model, settings)
    wanted = settings.decomposition
    out = []
    for when, params in zip(WHEN, (model.initial, model.params), strict=True):
        posteriors = aggregated(model, params, images, settings.memory)
        at = {"model": model.name, "when": when}
        key = key_for(settings.seed, Purpose.DECOMPOSITION)
        measured = measure_for(posteriors, key, wanted.num_draws, settings.memory)
        out += totals(at, posteriors, measured, wanted.num_draws)
        estimates = from_minibatches(
            posteriors, key_for(settings.seed, Purpose.MINIBATCHES),
            batch=wanted.batch_size, num_batches=wanted.num_batches,
        )  # fmt: skip
        out += minibatch_rows({**at, "batch": wanted.batch_size}, estimates)
        out += dimension_rows(at, posteriors, measured, wanted.num_draws)
    return out


def curve(model: Loaded, settings: Surgery, rows: list[Row]) -> list[Row]:
    """The decomposition at initialisation and at every checkpoint kept."""
    del rows
    images, draws = training_images(model, settings), settings.decomposition.curve_draws
    out = []
    for step, params in {0: lambda: model.initial, **model.at_step}.items():
        posteriors = aggregated(model, params(), images, settings.memory)
        key = key_for(settings.seed, Purpose.TRAINING_CURVE)
        measured = measure_for(posteriors, key, draws, settings.memory)
        at = {"model": model.name, "step": step}
        found = totals(at, posteriors, measured, draws)
        shown = (AVERAGE_KL, INFORMATION, MARGINAL_KL, "active units")
        out += [r for r in found if r["name"] in shown]
    return out


def training_images(model: Loaded, settings: Surgery) -> np.ndarray:
    """The training images whose aggregated posterior is taken apart."""
    return encoders.images(
        model.problem, "train", settings.decomposition.num_images, settings.data.binarization_seed
    )


def aggregated(
    model: Loaded, params: bounds.Params, images: np.ndarray, memory: Memory
) -> bounds.surgery.GaussianPosteriors:
    """The posteriors of images by the encoder with these parameters."""
    q = encoders.encoded(model.problem.vae, params.phi, images, memory.images_per_pass)
    return encoders.posteriors(q)


def measure_for(posteriors, key: Array, num_draws: int, memory: Memory) -> Measured:
    """`measure` with as many images and posteriors at once as `memory` allows."""
    return measure(
        posteriors,
        key,
        num_draws=num_draws,
        images_per_pass=memory.images_per_pass,
        posteriors_per_pass=memory.posteriors_per_pass,
    )


def totals(
    at: dict[str, Any],
    posteriors: bounds.surgery.GaussianPosteriors,
    measured: Measured,
    num_draws: int,
) -> list[Row]:
    """The average KL, its parts, and two checks of them."""
    count = len(posteriors.mean)
    each: dict[str, Any] = {"n": count, "draws": num_draws}
    closed = closed_kl(posteriors).sum(axis=-1).mean()
    sums = {
        SAMPLED_KL: ("terms", "kl"), INFORMATION: ("terms", "information"),
        MARGINAL_KL: ("terms", "marginal_kl"), TOTAL_CORRELATION: ("terms", "total_correlation"),
        DIMENSION_WISE: ("dimension_wise",),
    }  # fmt: skip
    found = {
        name: stratified(_get(measured.mean, path), _get(measured.variance, path), num_draws)
        for name, path in sums.items()
    }
    out = [row(AVERAGE_KL, at, kind="exact", unit="nats", value=closed, n=count)]
    for name, (value, error) in found.items():
        extra: dict[str, Any] = {"log_n": math.log(count)} if name == INFORMATION else {}
        out.append(
            row(
                name,
                at,
                kind="estimate",
                unit="nats",
                value=value,
                standard_error=error,
                **each,
                **extra,
            )
        )
    active = bounds.surgery.active_units(posteriors.mean, threshold=ACTIVE_VARIANCE)
    sampled, error = found[SAMPLED_KL]
    rest = sampled - found[INFORMATION][0] - found[MARGINAL_KL][0]
    difference = closed - sampled
    return [
        *out,
        row("active units", at, kind="exact", unit="units", value=int(np.sum(active)), n=count,
            threshold=ACTIVE_VARIANCE),
        row("rounding: sampled average KL - I - marginal KL", at, kind="exact", unit="nats",
            value=rest, n=count),
        row("average KL - sampled", at, kind="estimate", unit="nats", value=difference,
            standard_error=error, z_score=difference / error if error > 0 else None, **each),
    ]  # fmt: skip


def minibatch_rows(at: dict[str, Any], estimates: Minibatch) -> list[Row]:
    """The estimates with standard errors over batches, and on which side of I they are."""
    kinds: dict[str, tuple[Kind, np.ndarray]] = {
        "I, in-batch mean": ("lower_bound", estimates.in_batch),
        "I, stratified": ("upper_bound", estimates.stratified),
        "I, MWS": ("upper_bound", estimates.weighted),
    }
    return [held_out.mean_row(name, at, v, kind) for name, (kind, v) in kinds.items()]


def dimension_rows(
    at: dict[str, Any],
    posteriors: bounds.surgery.GaussianPosteriors,
    measured: Measured,
    num_draws: int,
) -> list[Row]:
    """For every dimension its average KL, the two parts of it, and whether it is active."""
    count = len(posteriors.mean)
    each: dict[str, Any] = {"n": count, "draws": num_draws}
    averages = closed_kl(posteriors).mean(axis=0)
    parts = [
        stratified(
            measured.mean.dimension_information, measured.variance.dimension_information, num_draws
        ),
        stratified(
            measured.mean.terms.dimension_kl, measured.variance.terms.dimension_kl, num_draws
        ),
    ]
    variances = np.asarray(posteriors.mean, np.float64).var(axis=0)
    active = bounds.surgery.active_units(posteriors.mean, threshold=ACTIVE_VARIANCE)
    out = []
    for d, average in enumerate(averages):
        where = {**at, "dimension": d + 1}
        out.append(row(OF_DIMENSION[0], where, kind="exact", unit="nats", value=average, n=count))
        for name, (values, errors) in zip(OF_DIMENSION[1:], parts, strict=True):
            out.append(
                row(
                    name,
                    where,
                    kind="estimate",
                    unit="nats",
                    value=values[d],
                    standard_error=errors[d],
                    **each,
                )
            )
        out.append(
            row(
                VARIANCE_OF_MEAN,
                where,
                kind="exact",
                unit="squared",
                value=variances[d],
                n=count,
                active=bool(active[d]),
            )
        )
    return out


def _get(parts: Parts, path: tuple[str, ...]) -> Any:
    return functools.reduce(getattr, path, parts)
