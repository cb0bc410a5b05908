"""The images alone: log p(x) and the dVAE's bound on it, captions summed out of the prior.

    p(x) = sum_z p(z) p(x | z),    p(z) = sum_y p(y) p(z | y)

so that the model stands beside densities of images. Where there are too many sequences y, those of
the classes stand for all: less than p(z), so that what is a bound stays one.
"""

import functools
import itertools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import bounds
from experiments.dalle import enumeration
from experiments.dalle.build import Data, Model
from experiments.dalle.settings import Evaluation
from experiments.runtime import keys
from experiments.runtime.keys import Purpose
from experiments.runtime.results import Row
from experiments.studies import held_out
from experiments.studies.held_out import mean_row
from experiments.studies.settings import Memory
from experiments.studies.study import UNIT
from models.token_prior import picked

SEQUENCES = 200  # captions that are summed over, at most


def all_sequences(data: Data) -> np.ndarray | None:
    """Every sequence of text tokens there is; None where they are too many."""
    words, length = len(data.vocabulary.words) + 1, data.vocabulary.length
    if words**length > SEQUENCES:
        return None
    return np.array(list(itertools.product(range(words), repeat=length)), np.int32)


def rows(
    data: Data,
    model: Model,
    params: bounds.Params,
    images: np.ndarray,
    at: dict[str, Any],
    wanted: Evaluation,
    memory: Memory,
) -> list[Row]:
    """log p(x) where codes can be summed over, and the bound on it, in bits/dim and in nats.

    There are no rows where the classes are too many to be summed over.
    """
    sequences, whole = all_sequences(data), True
    if sequences is None:
        if len(data.classes) > SEQUENCES:
            return []
        # Two captions of the same words are one sequence.
        sequences = np.unique(data.vocabulary.all_tokens(data.classes), axis=0)
        whole = False
    start = time.perf_counter()
    if enumeration.possible(model):
        values = enumeration.of_images(model, params, images, sequences)
        exact = values.log_p if whole else None
        bound = values.bound
    else:
        exact, bound = None, _sampled(model, params, images, sequences, wanted, memory)
    spent = (time.perf_counter() - start) / max(len(images), 1)
    bits = data.problem.bits
    out: list[Row] = []
    if exact is not None:
        out += [
            mean_row("log p(x)", at, exact, "exact"),
            mean_row("log p(x)", at, bits(exact), "exact", unit=UNIT),
        ]
    out += [
        mean_row("bound on log p(x)", at, bound, "lower_bound"),
        mean_row("bound on log p(x)", at, bits(bound), "upper_bound", unit=UNIT),
    ]
    if exact is not None:
        gap = bits(bound) - bits(exact)
        out.append(
            mean_row(
                "bound on log p(x) gap", at, gap, "exact", unit=UNIT, gap_of="bound on log p(x)"
            )
        )
    return [{**r, "seconds_per_image": spent} for r in out]


def _sampled(
    model: Model,
    params: bounds.Params,
    images: np.ndarray,
    sequences: np.ndarray,
    wanted: Evaluation,
    memory: Memory,
) -> np.ndarray:
    """The bound on log p(x) of each image by draws of z."""
    key = keys.key_for(wanted.seed, Purpose.MARGINAL)
    evaluate = _elbo(model, wanted.num_draws)
    given = params, jnp.asarray(sequences)
    (values,) = held_out.over_images(
        evaluate, given, images, key, images_per_pass=memory.images_per_pass
    )
    return values


@functools.cache
def _elbo(model: Model, draws: int):
    def one(given, key, x, index):
        params, sequences = given
        latent = latent_model(model, sequences)
        log_w = bounds.log_weights(
            latent, params, jax.random.fold_in(key, index), (x, ()), num_samples=draws
        )
        return (bounds.elbo(log_w),)

    return held_out.compiled(one)


def latent_model(model: Model, sequences: Array) -> bounds.LatentModel:
    """p(x, z) and q(z | x) of data (x, ()), with the captions `sequences` [C, T] summed out."""
    latent = bounds.joint.latent(model.images)

    def log_p(theta, datum, z):
        def one(y):
            text, logits = model.joint.prior(theta, y, z)
            return text + picked(logits, z)

        log_prior = jax.nn.logsumexp(jax.lax.map(one, sequences))
        codes = jax.nn.one_hot(z, model.num_codes)
        return log_prior + model.dvae.log_px(theta["decoder"], datum[0], codes)

    return latent._replace(log_p=log_p)
