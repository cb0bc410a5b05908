r"""The gap of the ELBO: what the family of q costs, and what sharing one encoder costs.

    log p(x) - ELBO = [log p(x) - ELBO(q*)] + [ELBO(q*) - ELBO(q)]

with q the encoder's Gaussian and q* the best diagonal Gaussian for this one x: approximation gap
and amortisation gap.

Source: Cremer et al. 2018 (arXiv 1801.03558), section 3.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

import bounds
from experiments.runtime.keys import Purpose, key_for
from experiments.runtime.results import Row
from experiments.studies import held_out
from experiments.surgery import encoders
from experiments.surgery.encoders import DatumQ
from experiments.surgery.models import Loaded
from experiments.surgery.settings import Surgery


class Gaps(NamedTuple):
    """One number for each image, in nats.

    Attributes:
      log_p: IWAE of many samples with the optimised q, which log p(x) exceeds in expectation.
      encoder: ELBO with the encoder's q.
      optimized: ELBO with the optimised q.
      reliable: whether ESS and k-hat allow trust in `log_p`.
      q: the optimised q, `DatumQ` with arrays [N, D].
    """

    log_p: np.ndarray
    encoder: np.ndarray
    optimized: np.ndarray
    reliable: np.ndarray
    q: Any


class Optimizer(NamedTuple):
    """How q of one datum is optimised: Adam, its rate falling to 0 along half a cosine.

    Attributes:
      num_steps: of Adam.
      learning_rate: at the first of them.
      num_samples: draws of z in a step, fresh in each.
    """

    num_steps: int
    learning_rate: float
    num_samples: int


def optimize(
    model: bounds.LatentModel, params: bounds.Params, key: Array, x: PyTree, how: Optimizer
) -> PyTree:
    """phi that maximises the ELBO of one datum, from `params.phi` on.

    The gradient is STL's, which does not vary at all once q is the posterior. Step s uses
    fold_in(key, s).

    Args:
      model: whose phi need only serve this datum.
      params: theta, which stays, and where phi starts.
      key: PRNG key.
      x: one datum; `jax.vmap` over data.
      how: the optimiser.

    Returns:
      phi.
    """
    objective = bounds.stl(model, num_samples=how.num_samples, bound=bounds.elbo)
    adam = optax.adam(optax.cosine_decay_schedule(how.learning_rate, how.num_steps))

    def loss(phi, key):
        return -objective(bounds.Params(params.theta, phi), key, x)

    def step(state, number):
        phi, moments = state
        gradient = jax.grad(loss)(phi, jax.random.fold_in(key, number))
        updates, moments = adam.update(gradient, moments)
        return (optax.apply_updates(phi, updates), moments), None

    start = params.phi, adam.init(params.phi)
    (phi, _), _ = jax.lax.scan(step, start, jnp.arange(how.num_steps))
    return phi


def measure(
    log_p: Callable[[PyTree, Any, Array], Array],
    theta: PyTree,
    images: np.ndarray,
    q: DatumQ,
    key: Array,
    how: Optimizer,
    *,
    num_draws: int,
    num_samples: int,
    images_per_pass: int = 20,
    samples_per_pass: int = 125,
) -> Gaps:
    """Optimises q of every image, and evaluates both with draws that the optimiser has not seen.

    Image i uses fold_in(key, i); both ELBOs are of the same standard normal noise.

    Args:
      log_p: (theta, x, z) -> log p(x, z); one object for all calls, it is compiled for.
      theta: its parameters.
      images: x [N, ...].
      q: the encoder's, of these images.
      key: PRNG key.
      how: the optimiser.
      num_draws: z of each ELBO.
      num_samples: K of log p(x).
      images_per_pass: images on each device at once.
      samples_per_pass: samples of each of them at once.
    """
    evaluate = _evaluator(log_p, how, num_draws, num_samples, samples_per_pass)
    found = held_out.over_images(evaluate, theta, (images, q), key, images_per_pass=images_per_pass)
    return Gaps(*found)


@functools.cache
def _evaluator(
    log_p: Callable, how: Optimizer, num_draws: int, num_samples: int, samples_per_pass: int
):
    model = encoders.per_datum(log_p)

    def one(theta, key, datum, index):
        x, q = datum
        search, noise, many = jax.random.split(jax.random.fold_in(key, index), 3)
        best = optimize(model, bounds.Params(theta, q), search, x, how)

        def elbo(phi):
            return bounds.elbo(
                bounds.log_weights(
                    model,
                    bounds.Params(theta, phi),
                    noise,
                    x,
                    num_samples=num_draws,
                    chunk_size=min(samples_per_pass, num_draws),
                )
            )

        value, diagnostics = bounds.log_likelihood(
            model,
            bounds.Params(theta, best),
            many,
            x,
            num_samples=num_samples,
            chunk_size=samples_per_pass,
        )
        return value, elbo(q), elbo(best), diagnostics.reliable, best

    return held_out.compiled(one)


def part(model: Loaded, settings: Surgery, rows: list[Row]) -> list[Row]:
    """The gap in two parts, of test images and where it is asked for of training images."""
    del rows
    vae, params = model.problem.vae, model.params
    wanted, memory = settings.gap, settings.memory
    how = Optimizer(wanted.num_steps, wanted.learning_rate, wanted.step_samples)
    out = []
    for split in wanted.splits:
        images = encoders.images(
            model.problem, split, wanted.num_images, settings.data.binarization_seed
        )
        purpose = Purpose.GAPS if split == "test" else Purpose.GAPS_OF_TRAINING
        found = measure(
            encoders.joint(vae),
            params.theta,
            images,
            encoders.encoded(vae, params.phi, images, memory.images_per_pass),
            key_for(settings.seed, purpose),
            how,
            num_draws=wanted.num_draws,
            num_samples=wanted.num_samples,
            images_per_pass=memory.images_per_pass,
            samples_per_pass=memory.samples_per_pass,
        )
        out += gap_rows({"model": model.name, "data": split}, found, wanted.num_samples)
    return out


def gap_rows(at: dict[str, Any], found: Gaps, num_samples: int) -> list[Row]:
    """Means over images with standard errors over them, differences paired by image.

    log p(x) is known from below and the best ELBO as well, since q* is only nearly found: so the
    gap and the amortisation gap are lower bounds in expectation, and the approximation gap, the
    difference of two lower bounds, is an estimate.
    """
    many = {**at, "K": num_samples}
    mean_row = held_out.mean_row
    return [
        mean_row("log p(x)", many, found.log_p, "lower_bound"),
        mean_row("ELBO, encoder's q", at, found.encoder, "lower_bound"),
        mean_row("ELBO, optimised q", at, found.optimized, "lower_bound"),
        mean_row("gap", at, found.log_p - found.encoder, "lower_bound"),
        mean_row("approximation gap", at, found.log_p - found.optimized, "estimate"),
        mean_row("amortisation gap", at, found.optimized - found.encoder, "lower_bound"),
        mean_row("reliable images", many, found.reliable, "estimate", unit="share"),
    ]
