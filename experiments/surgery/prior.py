r"""The optimal prior: the ELBO with p(z), and with the aggregated posterior in its place.

    (1/N) sum_n E_q [log p(x_n | z) - log q(z | x_n) + log r(z)]

is largest, over every density r, at r(z) = q(z) = (1/N) sum_n q(z | x_n), where it exceeds the
average ELBO by KL(q(z) || p(z)), the marginal KL. On other data it need not rise at all.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import bounds
from experiments.runtime.keys import Purpose, key_for
from experiments.runtime.results import Kind, Row, row
from experiments.studies import held_out
from experiments.surgery import decomposition, encoders
from experiments.surgery.encoders import DatumQ
from experiments.surgery.models import Loaded
from experiments.surgery.settings import Surgery

PRIOR, AGGREGATED = "p(z)", "q(z)"
LogDensity = Callable[[Array], Array]


class Both(NamedTuple):
    """Both ELBOs of each image, as means over its draws, and the variances of the draws, [N].

    Attributes:
      elbo: the mean log-weight with the prior of the model.
      replaced: the same with the aggregated posterior in place of the prior.
      rise: by how much `replaced` exceeds `elbo`.
      variances: of the draws of the three, divided by S - 1.
    """

    elbo: np.ndarray
    replaced: np.ndarray
    rise: np.ndarray
    variances: tuple[np.ndarray, ...]


def with_prior(model: bounds.LatentModel, old: LogDensity, new: LogDensity) -> bounds.LatentModel:
    """The model with another prior: log p(x, z) + log new(z) - log old(z), all else as it is."""
    return model._replace(log_p=lambda theta, x, z: model.log_p(theta, x, z) + new(z) - old(z))


def aggregated(
    posteriors: bounds.surgery.GaussianPosteriors, chunk_size: int | None = None
) -> LogDensity:
    """log q(z) of the aggregated posterior."""
    return lambda z: bounds.surgery.aggregated_log_prob(z, posteriors, chunk_size=chunk_size).joint


def standard_normal(z: Array) -> Array:
    """log N(z; 0, I)."""
    return bounds.densities.gaussian_log_prob(z, 0.0, 1.0)


def measure(
    log_p: Callable[[PyTree, Any, Array], Array],
    theta: PyTree,
    images: np.ndarray,
    q: DatumQ,
    posteriors: bounds.surgery.GaussianPosteriors,
    key: Array,
    *,
    num_draws: int,
    images_per_pass: int = 20,
    posteriors_per_pass: int = 500,
) -> Both:
    """Both ELBOs of every image by the same draws, with p(z) = N(0, I).

    Draw s of image n uses fold_in(fold_in(key, n), s), as in `decomposition.measure`.

    Args:
      log_p: (theta, x, z) -> log p(x, z); one object for all calls, it is compiled for.
      theta: its parameters.
      images: x [N, ...].
      q: of these images.
      posteriors: whose mixture is the new prior; of these images or of others.
      key: PRNG key.
      num_draws: S, at least 2.
      images_per_pass: images on each device at once.
      posteriors_per_pass: posteriors of the mixture at once, for each of them.
    """
    evaluate = _evaluator(log_p, num_draws, posteriors_per_pass)
    elbo, replaced, rise, *variances = held_out.over_images(
        evaluate, (theta, posteriors), (images, q), key, images_per_pass=images_per_pass
    )
    return Both(elbo, replaced, rise, tuple(variances))


@functools.cache
def _evaluator(log_p: Callable, num_draws: int, posteriors_per_pass: int):
    model = encoders.per_datum(log_p)

    def one(params, key, datum, index):
        theta, posteriors = params
        x, q = datum
        key = jax.random.fold_in(key, index)
        new = with_prior(model, standard_normal, aggregated(posteriors, posteriors_per_pass))
        log_w, other = (
            bounds.log_weights(
                m, bounds.Params(theta, q), key, x, num_samples=num_draws, chunk_size=1
            )
            for m in (model, new)
        )
        values = log_w, other, other - log_w
        return *map(jnp.mean, values), *(jnp.var(v, ddof=1) for v in values)

    return held_out.compiled(one)


def part(model: Loaded, settings: Surgery, rows: list[Row]) -> list[Row]:
    """Both ELBOs on the training images that make the aggregated posterior, and on test images."""
    vae, params = model.problem.vae, model.params
    found = {}
    memory, draws = settings.memory, settings.decomposition.num_draws
    train = decomposition.training_images(model, settings)
    posteriors = decomposition.aggregated(model, params, train, memory)
    for data, count, purpose in (
        # With the draws of the decomposition: the rise is its marginal KL.
        ("train", settings.decomposition.num_images, Purpose.DECOMPOSITION),
        ("test", settings.prior.num_images, Purpose.OPTIMAL_PRIOR),
    ):
        images = encoders.images(model.problem, data, count, settings.data.binarization_seed)
        found[data] = measure(
            encoders.joint(vae),
            params.theta,
            images,
            encoders.encoded(vae, params.phi, images, memory.images_per_pass),
            posteriors,
            key_for(settings.seed, purpose),
            num_draws=draws,
            images_per_pass=memory.images_per_pass,
            posteriors_per_pass=memory.posteriors_per_pass,
        )
    (marginal_kl,) = (
        r["value"]
        for r in rows
        if r["name"] == decomposition.MARGINAL_KL and r["at"].get("when") == "after"
    )
    out = train_rows({"model": model.name, "data": "train"}, found["train"], draws)
    rise = out[-1]["value"]
    return [
        *out,
        row(
            "rounding: rise - marginal KL",
            out[-1]["at"],
            kind="exact",
            unit="nats",
            value=rise - marginal_kl,
            n=len(train),
        ),
        *test_rows({"model": model.name, "data": "test"}, found["test"]),
    ]


def train_rows(at: dict[str, Any], both: Both, num_draws: int) -> list[Row]:
    """For the images whose posteriors are aggregated: a fixed population, see `decomposition`."""
    return [
        row(
            name,
            where,
            kind=kind,
            unit="nats",
            value=value,
            standard_error=error,
            n=len(mean),
            draws=num_draws,
            error="over draws",
        )
        for (name, where, kind), mean, variance in zip(
            _named(at), both[:3], both.variances, strict=True
        )
        for value, error in [decomposition.stratified(mean, variance, num_draws)]
    ]


def test_rows(at: dict[str, Any], both: Both) -> list[Row]:
    """For images drawn like them: standard errors over images, the rise paired."""
    return [
        held_out.mean_row(name, where, mean, kind, error="over images")
        for (name, where, kind), mean in zip(_named(at), both[:3], strict=True)
    ]


def _named(at: dict[str, Any]) -> list[tuple[str, dict[str, Any], Kind]]:
    return [
        ("ELBO", {**at, "prior": PRIOR}, "lower_bound"),
        ("ELBO", {**at, "prior": AGGREGATED}, "lower_bound"),
        ("rise of the ELBO by the prior q(z)", at, "estimate"),
    ]
