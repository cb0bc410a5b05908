"""`log_likelihood` on Burda's one-layer VAE: memory over K, and cost beside the dense computation.

Memory. One image, chunks of 500 samples, K = 50,000 over K = 500: the temporaries of the compiled
programs (K = 5000 beside them), and the peak of a process that does nothing else. Each of the two
processes compiles both programs and runs its own: K = 500 is one chunk and has no loop, and what
the compiler needs for a loop is not memory that grows with K.

Time. K = 5000 for a few images at once (vmap), as an evaluation does it, against
`iwae(log_weights(...))` with all samples in memory, both jitted, in turns. The two use the same
samples, so their values agree to rounding.
"""

import statistics

import jax
import numpy as np

import bounds
from benchmarks.burda import make_problem
from benchmarks.timing import Row, compile_seconds, interleaved, megabytes, peak_memory, ratio

NUM_SAMPLES = (500, 5_000, 50_000)
ENDS = (NUM_SAMPLES[-1], NUM_SAMPLES[0])
CHUNK_SIZE = 500
MEMORY_LIMIT = 1.05
DENSE_SAMPLES = 5_000
DENSE_IMAGES = 4
ROUNDS = 15
AGREEMENT_LIMIT = 1e-5


def run() -> list[Row]:
    return memory_rows() + dense_rows()


def memory_rows() -> list[Row]:
    temporaries = {k: compiled_at(k).memory_analysis().temp_size_in_bytes for k in NUM_SAMPLES}
    peaks = {k: peak_memory(memory_probe, k) for k in ENDS}
    return [
        Row(
            f"log_likelihood_memory: {what}, K={ENDS[0]} / K={ENDS[1]}",
            sizes[ENDS[0]] / sizes[ENDS[1]],
            high=MEMORY_LIMIT,
            detail=", ".join(f"K={k}: {megabytes(size)}" for k, size in sizes.items()),
        )
        for what, sizes in {"temporaries": temporaries, "peak memory": peaks}.items()
    ]


def chunked_program(num_samples):
    """(function of (params, key, x), its arguments)."""
    vae, params, images = make_problem()

    def program(params, key, x):
        return bounds.log_likelihood(
            vae.model, params, key, x, num_samples=num_samples, chunk_size=CHUNK_SIZE
        )

    return program, (params, jax.random.key(2), images[0])


def compiled_at(num_samples):
    program, args = chunked_program(num_samples)
    return compile_seconds(program, *args)[0]


def memory_probe(num_samples: int) -> None:
    """Runs in a process of its own."""
    programs = {k: compiled_at(k) for k in ENDS}
    _, args = chunked_program(num_samples)
    jax.block_until_ready(programs[num_samples](*args))


def dense_rows() -> list[Row]:
    vae, params, images = make_problem()
    images = images[:DENSE_IMAGES]
    keys = jax.random.split(jax.random.key(3), DENSE_IMAGES)

    def chunked(params, key, x):
        return bounds.log_likelihood(
            vae.model, params, key, x, num_samples=DENSE_SAMPLES, chunk_size=CHUNK_SIZE
        )[0]

    def dense(params, key, x):
        log_w = bounds.log_weights(vae.model, params, key, x, num_samples=DENSE_SAMPLES)
        return bounds.iwae(log_w)

    args = (params, keys, images)
    compiled = {
        name: compile_seconds(jax.vmap(program, (None, 0, 0)), *args)[0]
        for name, program in {"chunked": chunked, "dense": dense}.items()
    }
    calls = {name: (lambda c=c: c(*args)) for name, c in compiled.items()}
    seconds = interleaved(calls, rounds=ROUNDS)
    value, reference = (np.asarray(call()) for call in calls.values())
    milli = [f"{1e3 * statistics.median(times):.0f} ms" for times in seconds.values()]
    size = f"K={DENSE_SAMPLES} {DENSE_IMAGES} images"
    return [
        Row(
            f"log_likelihood_memory: time, chunked / dense, {size}",
            ratio(seconds["chunked"], seconds["dense"]),
            high=1.0,
            detail=" / ".join(milli),
        ),
        Row(
            f"log_likelihood_memory: |chunked - dense|, {size}",
            float(np.max(np.abs(value / reference - 1))),
            high=AGREEMENT_LIMIT,
            unit="relative",
            detail=f"the largest; values from {value.min():.1f} to {value.max():.1f} nats",
        ),
    ]
