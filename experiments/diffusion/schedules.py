"""One network under several noise schedules between the same ends: its bound, and what varies.

In continuous time the bound depends on the schedule by its ends alone, and the variance of an
estimate by one time for each image on all of it (Kingma et al. 2021, arXiv 2107.00630, section
5.1 and appendix I.1).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

import bounds
from experiments.diffusion import build, evaluation
from experiments.diffusion.build import Model
from experiments.diffusion.settings import Diffusion, Trained
from experiments.diffusion.training import TIMES
from experiments.runtime import keys
from experiments.runtime.compiling import precise
from experiments.runtime.keys import Purpose
from experiments.runtime.results import Row, row
from experiments.studies.held_out import mean_row
from experiments.studies.images import Problem, as_images
from experiments.studies.study import UNIT

REPLICATES = 400  # estimates, each of `evaluation.BATCH` training images
SPREADS = ("uniform", "low_discrepancy")  # of the times of a batch
BOUND = f"{evaluation.LIMIT}, by schedule"
DIFFERENCE = "difference from the model's own schedule"


def under(problem: Problem, trained: Trained, schedule: str) -> Model:
    """The model that was trained, with another schedule between the same ends."""
    chain = trained.chain.model_copy(update={"schedule": schedule})
    return build.make_model(problem, trained.model_copy(update={"chain": chain}))


def rows(
    problem: Problem,
    trained: Trained,
    params: PyTree,
    at: dict[str, Any],
    settings: Diffusion,
) -> list[Row]:
    """The bound of the test images under each schedule, and the deviation of single estimates.

    The same noise and the same places in [0, 1] serve all schedules, so that a difference is of
    pairs; its standard error, over images, holds that of the times and the noise.
    """
    wanted = settings.evaluation
    images = problem.dataset.test[: wanted.num_images or None]
    key = keys.key_for(wanted.seed, Purpose.CONTINUOUS_TIME)
    several = keys.key_for(wanted.seed, Purpose.SCHEDULES)
    few = jnp.asarray(as_images(problem.dataset.train[: evaluation.BATCH]))
    own: np.ndarray | None = None
    out: list[Row] = []
    for schedule in dict.fromkeys((trained.chain.schedule, *wanted.schedules)):
        model, here = under(problem, trained, schedule), {**at, "schedule": schedule}
        nats = evaluation.in_continuous_time(
            model, params, images, key, wanted.num_times, settings.memory.images_per_pass
        )
        bits = problem.bits(nats)
        out.append(mean_row(BOUND, here, bits, "estimate", unit=UNIT))
        own = bits if own is None else own
        if bits is not own:
            out.append(mean_row(DIFFERENCE, here, bits - own, "estimate", unit=UNIT))
        for number, name in enumerate(SPREADS):
            each = jax.random.split(jax.random.fold_in(several, number), REPLICATES)
            values = problem.bits(_single(model, name)(params, each, few))
            out.append(_deviation(name, here, values))
    return out


def _deviation(times: str, at: dict[str, Any], values: np.ndarray) -> Row:
    """That of one estimate, with its standard error by the fourth moment."""
    centred = np.asarray(values, np.float64) - values.mean()
    second, fourth = np.mean(centred**2), np.mean(centred**4)
    deviation = float(np.sqrt(np.sum(centred**2) / (len(values) - 1)))
    return row(
        f"deviation by one time, {times}", at, kind="estimate", unit=UNIT, value=deviation,
        standard_error=math.sqrt(max(fourth - second**2, 0) / len(values)) / (2 * deviation),
        n=len(values), error="estimates",
    )  # fmt: skip


@functools.cache
def _single(model: Model, name: str):
    @jax.jit
    @precise
    def estimates(params, keys, x):
        made = model.make(params, None, 0).model

        def batch_mean(key):
            time_key, key = jax.random.split(key)
            found = jax.vmap(bounds.diffusion.continuous_estimate, (None, None, 0, 0, 0))(
                made, params, jax.random.split(key, len(x)), x, TIMES[name](time_key, len(x))
            )
            return jnp.mean(found.value)

        return jax.lax.map(batch_mean, keys)

    return estimates
