"""Exact mutual information of 60,000 posteriors in 50 dimensions: all pairs, against their matmuls.

log q(z) of one draw from each posterior sums over all of them: 3.6 billion pairs. Beside the fast
form stand the same matrix products alone, [z, 100] by [100, posteriors], whose rate it can at most
reach; and, on fewer pairs, the safe form with every marginal.
"""

import statistics
from typing import Any

import jax
import jax.numpy as jnp

import bounds
from benchmarks.timing import Row, interleaved, megabytes, ratio

DIMS = 50
COUNT = 60_000
FEW = 6000  # of the safe form
POINTS, CHUNK = 1000, 1000  # z and posteriors at once
ROUNDS = 3


def run() -> list[Row]:
    posteriors, z = _problem(COUNT)
    slopes = jnp.concatenate([posteriors.mean, posteriors.variance], axis=1)
    features = jnp.concatenate([z, z], axis=1)
    few = bounds.surgery.GaussianPosteriors(*(leaf[:FEW] for leaf in posteriors))

    @jax.jit
    def matmuls(slopes, features):
        tiles = slopes.reshape(-1, CHUNK, 2 * DIMS)

        def rows(part):  # the largest of each product: something has to be made of it
            return jax.lax.map(lambda tile: jnp.max(part @ tile.T), tiles)

        return jax.lax.map(rows, features.reshape(-1, POINTS, 2 * DIMS))

    seconds = interleaved(
        {
            "matmuls": lambda: matmuls(slopes, features),
            "fast": lambda: fast(z, posteriors),
            "safe": lambda: safe(z[:FEW], few),
        },
        rounds=ROUNDS,
    )
    flops = 2.0 * COUNT**2 * 2 * DIMS
    taken = {name: statistics.median(values) for name, values in seconds.items()}
    per_pair = {name: taken[name] / (FEW if name == "safe" else COUNT) ** 2 for name in taken}
    small, large = (_temporaries(count) for count in (1000, COUNT))
    return [
        Row(
            "surgery_rate: all pairs of 60,000 posteriors, 50 dimensions",
            taken["fast"],
            unit="s",
            detail=f"{COUNT**2 / taken['fast']:.2e} pairs a second",
        ),
        Row(
            "surgery_rate: fast form / its matmuls, in rate",
            ratio(seconds["matmuls"], seconds["fast"]),
            detail=f"{flops / taken['fast'] / 1e9:.0f} / {flops / taken['matmuls'] / 1e9:.0f} "
            "GFLOP/s",
        ),
        Row(
            "surgery_rate: safe form with marginals / fast form, a pair",
            per_pair["safe"] / per_pair["fast"],
            detail=f"{1e9 * per_pair['safe']:.2f} / {1e9 * per_pair['fast']:.2f} ns",
        ),
        Row(
            "surgery_rate: temporary memory 60,000 posteriors / 1,000",
            large / small,
            high=1.05,
            detail=f"{megabytes(large)} / {megabytes(small)}",
        ),
    ]


def _problem(count: int) -> tuple[bounds.surgery.GaussianPosteriors, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    mean = jax.random.normal(keys[0], (count, DIMS))
    variance = jnp.exp(jax.random.normal(keys[1], (count, DIMS)) - 2)
    z = mean + jnp.sqrt(variance) * jax.random.normal(keys[2], (count, DIMS))
    return bounds.surgery.GaussianPosteriors(mean, variance), z


@jax.jit
def fast(z, posteriors):
    def one(z):
        return bounds.surgery.fast_aggregated_log_prob(z, posteriors, chunk_size=CHUNK)

    return jnp.mean(jax.lax.map(one, z, batch_size=POINTS))


@jax.jit
def safe(z, posteriors):
    def one(z):
        found = bounds.surgery.aggregated_log_prob(z, posteriors, chunk_size=500)
        return found.joint + jnp.sum(found.marginals)

    return jnp.mean(jax.lax.map(one, z, batch_size=100))


def _temporaries(count: int) -> float:
    """Bytes beside the data, for 1,000 draws among `count` posteriors."""
    posteriors, z = jax.eval_shape(lambda: _problem(count))
    few = jax.ShapeDtypeStruct((1000, DIMS), z.dtype)
    compiled: Any = fast.lower(few, posteriors).compile()
    return compiled.memory_analysis().temp_size_in_bytes
