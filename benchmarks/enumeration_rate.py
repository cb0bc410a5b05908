"""The exact log p(x, y) of `experiments.dalle` on digits: codes x images per second.

65,536 codes are decoded once and shared by all 1,797 images, so that what is left for each pair is
a row of a matrix product over 64 pixels of 17 levels. Beside it stand such products alone.
"""

import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np

import bounds
from benchmarks.timing import Row, interleaved, megabytes, peak_memory, ratio
from configs import dalle_digits
from experiments.dalle import build, enumeration
from experiments.dalle.settings import Dalle
from experiments.runtime import settings
from experiments.runtime.compiling import precise
from experiments.studies.images import as_images

ROUNDS = 3


def run() -> list[Row]:
    evaluate, model, count = _problem(16)
    codes = model.num_sequences
    pairs = codes * count
    dataset_entries = 64 * 17
    size = enumeration.CHUNK
    left = jax.random.normal(jax.random.key(0), (count, dataset_entries))
    right = jax.random.normal(jax.random.key(1), (dataset_entries, size))

    @jax.jit
    def matmuls(left, right):
        def body(i, left):
            return left.at[0, 0].add(1e-9 * jnp.max(left @ right))

        return jax.lax.fori_loop(0, codes // size, body, left)

    seconds = interleaved(
        {"matmuls": lambda: matmuls(left, right), "sums": evaluate}, rounds=ROUNDS
    )
    rate = {name: [pairs / s for s in taken] for name, taken in seconds.items()}
    shown = {name: f"{statistics.median(r):.2e} a second" for name, r in rate.items()}
    few, many = (peak_memory(evaluate_codes, k) for k in (8, 16))
    return [
        Row(
            "enumeration_rate: codes x images per second",
            statistics.median(rate["sums"]),
            low=1e7,
            unit="/s",
            detail=f"{codes:,} codes, {count:,} images, decoding included",
        ),
        Row(
            "enumeration_rate: sums / matmuls of their shapes",
            ratio(rate["sums"], rate["matmuls"]),
            detail=f"{shown['sums']} / {shown['matmuls']}",
        ),
        Row(
            "enumeration_rate: peak memory 65,536 codes / 4,096",
            many / few,
            high=1.15,
            detail=f"{megabytes(many)} / {megabytes(few)}",
        ),
    ]


def _problem(num_codes: int):
    fields = dalle_digits.get_config().to_dict()
    fields = settings.merged(fields, {"model": {"num_codes": num_codes}})
    own = settings.parse(Dalle, fields).of_model("beta1")
    data = build.make_data(own.data, "")
    model = build.make_model(data, own)
    dataset = data.problem.dataset
    images = as_images(np.concatenate([dataset.train, dataset.validation, dataset.test]))
    params = jax.jit(model.init)(jax.random.key(0))
    own = np.zeros(len(images), int)
    log_prior = jnp.full((1, model.num_sequences), -np.log(model.num_sequences))
    sums = _log_likelihoods(model)
    return lambda: sums(params, images, own, log_prior), model, len(images)


def evaluate_codes(num_codes: int) -> None:
    evaluate, _, _ = _problem(num_codes)
    jax.block_until_ready(evaluate())


def _log_likelihoods(model: build.Model):
    """Jitted (params, images, own [M], log p(y, z) [C, K^N]) -> log p(x, y) [M]: the sum alone."""
    codes, _ = enumeration._chunks(model)

    @jax.jit
    @precise
    def log_p(params, images, own, log_prior):
        chunk = functools.partial(enumeration._chunk, model, params, images, codes, log_prior, own)
        return bounds.joint.values(chunk, len(codes)).log_p

    return log_p
