"""What a signal-to-noise measurement costs over the random numbers it cannot do without.

Time. The SNR of an IWAE gradient at K = 1000, D = 20 on the linear-Gaussian model, through the
public API (`bounds.gradient_moments` around `jax.grad` of an objective), per replicate, over
`jax.random.normal(key, (K, D))` per replicate in the same process. The normals are drawn in
chunks by vmap inside a scan and consumed by a sum: the least that keeps XLA from dropping them.
Every contestant is compiled beforehand, gets its own best chunk size out of the same set, and is
then timed in turns with the others.

New rows. The SNR of the other estimators at K = 100 against the same number of gradients of the
same estimator in the same chunks, summed: moments, chunks and keys are to cost nothing beside
them. The ratio is of rates, 1 where the measurement is no slower.

Memory. What R replicates need at R = 1e5 over R = 1e3, K = 100: the temporaries of the compiled
program, and the peak of a process that does nothing else.
"""

import functools
import statistics

import jax
import jax.numpy as jnp

import bounds
from benchmarks.timing import (
    Row,
    compile_seconds,
    fastest,
    interleaved,
    megabytes,
    peak_memory,
    ratio,
)
from models.exact import linear_gaussian

BETAS = (0.0, 0.1, 0.3, 1.0)
_left_sum = functools.partial(bounds.thermodynamic, betas=BETAS)
NUM_SAMPLES = 1000
NUM_DIMS = 20
NUM_REPLICATES = 256
CHUNK_SIZES = (4, 16, 64)
ROUNDS = 7
ESTIMATORS = {"pathwise": bounds.pathwise, "dreg": bounds.dreg}
LIMITS = {"pathwise": 2.0, "dreg": 2.75}

ROWS = {
    "rloo": bounds.rloo,
    "ovis": bounds.ovis,
    "left sum": functools.partial(bounds.pathwise, bound=_left_sum),
    "tvo": functools.partial(bounds.tvo, betas=BETAS),
}
ROWS_SAMPLES = 100
ROWS_CHUNK = 16
ROWS_ROUNDS = 41
ROWS_LIMIT = 0.95  # no slower, but for what a clock varies by

MEMORY_SAMPLES = 100
MEMORY_CHUNK_SIZE = 100
MEMORY_REPLICATES = (1_000, 100_000)
MEMORY_LIMIT = 1.05


def run() -> list[Row]:
    return time_rows() + estimator_rows() + memory_rows()


def make_problem():
    """(model, parameters near the optimum as in the paper, one datum)."""
    data = linear_gaussian.generate(jax.random.key(0), 1024, NUM_DIMS)
    params = linear_gaussian.perturb(linear_gaussian.optimum(data), jax.random.key(1), 0.01)
    return linear_gaussian.make_model(), params, data[0]


def moments_program(estimator, num_samples, num_replicates, chunk_size):
    """(function of (params, key, x), its arguments)."""
    model, params, x = make_problem()
    objective = estimator(model, num_samples=num_samples)

    def program(params, key, x):
        return bounds.gradient_moments(
            lambda k: jax.grad(objective)(params, k, x),
            key,
            num_replicates=num_replicates,
            chunk_size=chunk_size,
        )

    return program, (params, jax.random.key(2), x)


def normals_program(chunk_size):
    """(function of the key, its arguments)."""

    def program(key):
        def add_chunk(total, chunk):
            replicates = chunk * chunk_size + jnp.arange(chunk_size)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, replicates)
            draws = jax.vmap(lambda k: jax.random.normal(k, (NUM_SAMPLES, NUM_DIMS)))(keys)
            return total + jnp.sum(draws), None

        return jax.lax.scan(add_chunk, 0.0, jnp.arange(NUM_REPLICATES // chunk_size))[0]

    return program, (jax.random.key(2),)


def time_rows() -> list[Row]:
    def call(program, args):
        compiled, seconds = compile_seconds(program, *args)
        return (lambda: compiled(*args)), seconds

    best, chunks, compile_times = {}, {}, {}
    for name in ("normals", *ESTIMATORS):
        candidates, seconds = {}, {}
        for chunk_size in CHUNK_SIZES:
            if name == "normals":
                built = normals_program(chunk_size)
            else:
                built = moments_program(ESTIMATORS[name], NUM_SAMPLES, NUM_REPLICATES, chunk_size)
            candidates[chunk_size], seconds[chunk_size] = call(*built)
        chunks[name] = fastest(candidates)
        best[name], compile_times[name] = candidates[chunks[name]], seconds[chunks[name]]

    seconds = interleaved(best, rounds=ROUNDS)
    micro = {
        name: f"{statistics.median(times) / NUM_REPLICATES * 1e6:.0f} us (chunk {chunks[name]})"
        for name, times in seconds.items()
    }
    rows = [
        Row(
            f"snr_cost: {name} / normals, K={NUM_SAMPLES} D={NUM_DIMS}",
            ratio(seconds[name], seconds["normals"]),
            high=LIMITS[name],
            detail=f"{micro[name]} / {micro['normals']} per replicate",
        )
        for name in ESTIMATORS
    ]
    return rows + [
        Row(f"snr_cost: compile {name}", compile_times[name], unit="s", detail="once, not above")
        for name in ESTIMATORS
    ]


def plain_program(estimator, num_samples, num_replicates, chunk_size):
    """Likewise of the gradients alone, which a sum consumes."""
    model, params, x = make_problem()
    gradient = jax.grad(estimator(model, num_samples=num_samples))

    def program(params, key, x):
        def add_chunk(total, chunk):
            replicates = chunk * chunk_size + jnp.arange(chunk_size)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, replicates)
            found = jax.vmap(lambda k: gradient(params, k, x))(keys)
            return jax.tree.map(lambda t, g: t + jnp.sum(g, axis=0), total, found), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        return jax.lax.scan(add_chunk, zeros, jnp.arange(num_replicates // chunk_size))[0]

    return program, (params, jax.random.key(2), x)


def estimator_rows() -> list[Row]:
    rows = []
    for name, estimator in ROWS.items():
        calls = {}
        for kind, make in (("plain", plain_program), ("row", moments_program)):
            program, args = make(estimator, ROWS_SAMPLES, NUM_REPLICATES, ROWS_CHUNK)
            compiled, _ = compile_seconds(program, *args)
            calls[kind] = functools.partial(compiled, *args)
        seconds = interleaved(calls, rounds=ROWS_ROUNDS)
        micro = {k: statistics.median(v) / NUM_REPLICATES * 1e6 for k, v in seconds.items()}
        rows.append(
            Row(
                f"snr_cost: plain gradients / row of {name}, K={ROWS_SAMPLES}",
                ratio(seconds["plain"], seconds["row"]),
                low=ROWS_LIMIT,
                detail=f"{micro['plain']:.0f} us / {micro['row']:.0f} us per replicate",
            )
        )
    return rows


def memory_rows() -> list[Row]:
    few, many = MEMORY_REPLICATES
    name = f"snr_cost: {{}}, R={many} / R={few}, K={MEMORY_SAMPLES}"

    def temporaries(num_replicates):
        program, args = memory_program(num_replicates)
        return compile_seconds(program, *args)[0].memory_analysis().temp_size_in_bytes

    measured = {
        "temporaries": [temporaries(r) for r in MEMORY_REPLICATES],
        "peak memory": [peak_memory(memory_probe, r) for r in MEMORY_REPLICATES],
    }
    return [
        Row(
            name.format(what),
            large / small,
            high=MEMORY_LIMIT,
            detail=f"{megabytes(large)} / {megabytes(small)}",
        )
        for what, (small, large) in measured.items()
    ]


def memory_program(num_replicates):
    return moments_program(bounds.pathwise, MEMORY_SAMPLES, num_replicates, MEMORY_CHUNK_SIZE)


def memory_probe(num_replicates: int) -> None:
    """Runs in a process of its own."""
    program, args = memory_program(num_replicates)
    jax.block_until_ready(jax.jit(program)(*args))
