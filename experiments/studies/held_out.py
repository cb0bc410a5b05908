"""Bounds on held-out images: per image first, averaged with a standard error at the very end."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from numpy.typing import ArrayLike

import bounds
from experiments.runtime import mesh as meshes
from experiments.runtime.compiling import precise, wide_vectors
from experiments.runtime.progress import track
from experiments.runtime.results import Extra, Kind, Row, row


class PerImage(NamedTuple):
    """One number for each image, in nats unless said otherwise.

    Attributes:
      elbo: mean of the log-weights of `few` samples.
      iwae_few: IWAE-`few` of the same samples.
      iwae_many: IWAE-`many`.
      monte_carlo_error: standard error of `iwae_many` over its samples.
      ess: effective sample size of the `many` samples.
      k_hat: Pareto shape of their largest weights.
      reliable: whether these two allow trust in `iwae_many`.
    """

    elbo: np.ndarray
    iwae_few: np.ndarray
    iwae_many: np.ndarray
    monte_carlo_error: np.ndarray
    ess: np.ndarray
    k_hat: np.ndarray
    reliable: np.ndarray


def per_image(
    model: bounds.LatentModel,
    params: bounds.Params,
    images: PyTree,
    key: Array,
    *,
    few: int = 64,
    many: int = 5000,
    images_per_pass: int = 20,
    samples_per_pass: int = 125,
) -> PerImage:
    """Evaluates every image in memory that depends on neither their number nor `many`.

    Image i uses fold_in(key, i), so the passes and devices change nothing but rounding. On several
    devices each takes its share of every pass.

    Args:
      model: bounds on its log p(x) are taken.
      params: its parameters.
      images: x [N, ...], or a pytree of them.
      key: PRNG key.
      few: K of the small bounds.
      many: K of the large one.
      images_per_pass: images on each device at once.
      samples_per_pass: samples of each of them at once.

    Returns:
      `PerImage` with arrays [N].
    """
    evaluate = evaluator(model, few, many, samples_per_pass)
    return PerImage(*over_images(evaluate, params, images, key, images_per_pass=images_per_pass))


def described(params: Any, image: jax.ShapeDtypeStruct, *, images_per_pass: int) -> tuple[Any, ...]:
    """What `over_images` gives its function in a pass, on devices that `mesh.described` names."""
    mesh = meshes.device_mesh(meshes.DATA)
    size = images_per_pass * mesh.size
    images = jax.ShapeDtypeStruct((size, *image.shape), image.dtype)
    return meshes.replicate((params, jax.random.key(0), images, np.arange(size)), mesh)


def over_images(
    evaluate: Callable[..., tuple[Array, ...]],
    params: Any,
    images: PyTree,
    key: Array | None,
    *,
    images_per_pass: int,
    what: str = "image",
) -> tuple[np.ndarray, ...]:
    """Outputs of a `compiled` or `spread` function for all images, or other data.

    They go through in passes, of which every device of every process takes its share; each process
    gets the outputs of all. `key` is None where nothing is drawn.
    """
    mesh = meshes.device_mesh(meshes.DATA)
    count = len(jax.tree.leaves(images)[0])
    size = min(images_per_pass * mesh.size, -(-count // mesh.size) * mesh.size)
    params = meshes.replicate(params, mesh)
    parts = []
    for start in track(range(0, count, size), lambda s: f"{what} {s}", "pass", quiet_seconds=10.0):
        index = np.minimum(np.arange(start, start + size), count - 1)  # the last, repeated
        chosen = jax.tree.map(lambda leaf, index=index: leaf[index], images)
        batch = meshes.replicate((chosen, jnp.asarray(index)), mesh)
        parts.append(jax.tree.map(meshes.to_host, evaluate(params, key, *batch)))
    return jax.tree.map(lambda *p: np.concatenate(p)[:count], *parts)


@functools.cache
def evaluator(model: bounds.LatentModel, few: int, many: int, samples_per_pass: int):
    """What `per_image` computes of a pass, compiled once for a model and any parameters."""

    def one(params, key, x, index):
        few_key, many_key = jax.random.split(jax.random.fold_in(key, index))
        log_w = bounds.log_weights(model, params, few_key, x, num_samples=few)
        value, diagnostics = bounds.log_likelihood(
            model, params, many_key, x, num_samples=many, chunk_size=samples_per_pass
        )
        return bounds.elbo(log_w), bounds.iwae(log_w), value, *diagnostics

    return compiled(one)


def compiled(one: Callable[..., tuple[Array, ...]]) -> Callable[..., tuple[Array, ...]]:
    """(params, key, one image, its index) -> numbers, for a pass of images split over devices."""
    return spread(jax.vmap(one, (None, None, 0, 0)), compiler_options=wide_vectors())


def spread(of_pass: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`of_pass`, of (params, key, images of a pass, their indices), compiled for all devices.

    Images are split over them where their number allows it, and so is what is computed of each.

    Args:
      of_pass: to arrays whose leading axis is that of the images.
      options: of `jax.jit`.
    """
    mesh = meshes.device_mesh(meshes.DATA)

    @functools.partial(jax.jit, **options)
    def evaluate(params, key, images, index):
        images, index = meshes.split((images, index), mesh)
        out = precise(of_pass)(params, key, images, index)
        return jax.tree.map(lambda v: meshes.gather(v, mesh), out)

    return evaluate


def mean_value(
    value: Callable[[Any, Array, Any], Array], images: PyTree, keys: Array
) -> Callable[[Any], float]:
    """parameters -> the mean over images of value(parameters, key, x), compiled once."""
    mesh = meshes.device_mesh(meshes.DATA)
    x, keys = meshes.replicate(images, mesh), meshes.replicate(keys, mesh)

    @jax.jit
    @precise
    def mean(params, x, keys):
        return jnp.mean(jax.lax.map(lambda pair: value(params, *pair), (keys, x), batch_size=20))

    # The draws are the same at each call, so that values differ by parameters alone.
    return lambda params: float(meshes.to_host(mean(params, x, jax.random.clone(keys))))


def mean_row(
    name: str,
    at: dict[str, Any],
    values: ArrayLike,
    kind: Kind,
    *,
    unit: str = "nats",
    seconds: float | None = None,
    **extra: Unpack[Extra],
) -> Row:
    """The mean over images (or seeds), with its standard error over them."""
    values = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore"):  # an infinite value has no standard error
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
    return row(
        name,
        at,
        kind=kind,
        unit=unit,
        value=float(values.mean()),
        standard_error=error,
        n=len(values),
        seconds=seconds,
        **extra,
    )


def rows(measured: PerImage, *, few: int, many: int, **extra: Any) -> list[Row]:
    """The table of a model: bounds, their gap and the trust they deserve.

    The gap is the -KL of Rainforth et al. 2018 (arXiv 1802.04537), Table 1: IWAE-`few` minus the
    estimate of log p(x) by IWAE-`many`, paired image by image. In its place IWAE-`many` is a lower
    bound, so in expectation the gap comes out too near zero, by what that bound lacks.

    `monte_carlo_error` is the part of a standard error that more samples would take away.
    """
    at = {"K": many}
    return [
        mean_row("ELBO", {"K": 1}, measured.elbo, "lower_bound", samples=few, **extra),
        mean_row("IWAE", {"K": few}, measured.iwae_few, "lower_bound", **extra),
        mean_row(
            "IWAE",
            at,
            measured.iwae_many,
            "lower_bound",
            monte_carlo_error=float(
                np.linalg.norm(measured.monte_carlo_error.astype(float)) / len(measured.elbo)
            ),
            **extra,
        ),
        mean_row("-KL", {"K": few}, measured.iwae_few - measured.iwae_many, "estimate", **extra),
        mean_row("ESS", at, measured.ess, "estimate", unit="samples", **extra),
        mean_row("k-hat", at, measured.k_hat, "estimate", unit="shape", **extra),
        mean_row("reliable images", at, measured.reliable, "estimate", unit="share", **extra),
    ]
