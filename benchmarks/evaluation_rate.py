"""IWAE-5000 of Burda's one-layer VAE: its rate of floating-point operations beside bare matmuls.

The matmuls are those of the decoder at the shapes of one pass, jitted, nothing between them; the
evaluation is `held_out.per_image` as `experiments.evaluate` calls it, with its random numbers,
densities, log-sum-exps and diagnostics. Its operations counted are those of the same matmuls
alone. Both run in turns in one process.
"""

import functools
import itertools
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.burda import NUM_PIXELS, make_problem
from benchmarks.timing import Row, interleaved, megabytes, peak_memory, ratio
from experiments.studies.held_out import per_image

WIDTHS = (50, 200, 200, NUM_PIXELS)  # of the decoder, from z to the pixels
NUM_SAMPLES = 5000
NUM_IMAGES = 200
ROUNDS = 5
FLOPS = 2 * sum(a * b for a, b in itertools.pairwise(WIDTHS))  # of one sample


def run() -> list[Row]:
    vae, params, images = make_problem()
    images = np.resize(np.asarray(images), (NUM_IMAGES, NUM_PIXELS))
    evaluate = functools.partial(
        per_image, vae.model, params, images, jax.random.key(0), many=NUM_SAMPLES
    )
    passes, rows = 80, 2500  # images_per_pass times samples_per_pass, as per_image has them
    keys = jax.random.split(jax.random.key(1), len(WIDTHS))
    weights = [
        jax.random.normal(k, shape)
        for k, shape in zip(keys, itertools.pairwise(WIDTHS), strict=False)
    ]
    start = jax.random.normal(keys[-1], (rows, WIDTHS[0]))

    @jax.jit
    def matmuls(weights, value):
        def body(i, value):
            h = functools.reduce(jnp.matmul, weights, value)
            # The next pass waits for this one, and none of it can be left out.
            return value.at[0, 0].add(1e-9 * jnp.max(h))

        return jax.lax.fori_loop(0, passes, body, value)

    seconds = interleaved(
        {"matmuls": lambda: matmuls(weights, start), "evaluation": evaluate}, rounds=ROUNDS
    )
    work = {"matmuls": passes * rows * FLOPS, "evaluation": NUM_IMAGES * NUM_SAMPLES * FLOPS}
    rate = {name: [work[name] / s for s in seconds[name]] for name in work}
    shown = {name: f"{statistics.median(r) / 1e9:.0f} GFLOP/s" for name, r in rate.items()}
    few, many = (peak_memory(evaluate_some, k) for k in (500, 50_000))
    return [
        Row(
            f"evaluation_rate: IWAE-{NUM_SAMPLES} / matmuls of its shapes",
            ratio(rate["evaluation"], rate["matmuls"]),
            low=0.6,
            detail=f"{shown['evaluation']} / {shown['matmuls']}, {NUM_IMAGES} images",
        ),
        Row(
            "evaluation_rate: peak memory K=50,000 / K=500",
            many / few,
            high=1.02,
            detail=f"{megabytes(many)} / {megabytes(few)}, 20 images",
        ),
    ]


def evaluate_some(num_samples: int) -> None:
    vae, params, images = make_problem()
    per_image(vae.model, params, np.asarray(images[:20]), jax.random.key(0), many=num_samples)
