"""How often the 95% interval of `bounds.snr_interval` holds the true signal-to-noise ratio.

Replicates are the true ratio plus noise of mean 0 and variance 1 whose law is known: Gaussian,
lognormal (skewed) or Student t with 5 degrees of freedom (heavy tails). One "gradient" has an
entry for each repetition and each true ratio, so a single `gradient_moments` makes thousands of
independent intervals from R = 10,000 replicates each. The ratios share their noise: rows of one
law are not independent of each other.

The lognormal of sigma 1 has no limit: the interval's width rests on a kurtosis, which for it is
114, and which 10,000 replicates underestimate; away from zero the interval is then too short.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

import bounds
from benchmarks.timing import Row

TRUE_RATIOS = (0.0, 0.01, 1.0, 25.0)
REPETITIONS = 4_000
NUM_REPLICATES = 10_000
CHUNK_SIZE = 50
LEVEL = 0.95
LIMITS = (0.93, 0.97)


def gaussian(key, shape):
    return jax.random.normal(key, shape)


def lognormal(sigma):
    mean = math.exp(sigma**2 / 2)
    scale = mean * math.sqrt(math.expm1(sigma**2))
    return lambda key, shape: (jnp.exp(sigma * jax.random.normal(key, shape)) - mean) / scale


def student_t5(key, shape):
    # From normals: jax.random.t samples gamma variates by rejection, which is far slower.
    normals = jax.random.normal(key, (6, *shape))
    chi_squared = jnp.sum(jnp.square(normals[1:]), axis=0)
    return normals[0] * jnp.sqrt(5.0 / chi_squared) / math.sqrt(5.0 / 3.0)


NOISE = {
    "Gaussian": gaussian,
    "lognormal sigma=0.5": lognormal(0.5),
    "Student t5": student_t5,
    "lognormal sigma=1": lognormal(1.0),
}
LIMITATIONS = ("lognormal sigma=1",)


def run() -> list[Row]:
    rows = []
    for index, (name, noise) in enumerate(NOISE.items()):
        low_limit, high_limit = (None, None) if name in LIMITATIONS else LIMITS
        covered = coverage(noise, jax.random.fold_in(jax.random.key(0), index))
        for true_ratio, share in zip(TRUE_RATIOS, covered, strict=True):
            error = math.sqrt(share * (1 - share) / REPETITIONS)
            rows.append(
                Row(
                    f"interval_coverage: {name}, SNR={true_ratio:g}",
                    100 * share,
                    low=low_limit and 100 * low_limit,
                    high=high_limit and 100 * high_limit,
                    unit="%",
                    detail=f"+- {100 * error:.2f}, {REPETITIONS} intervals, R={NUM_REPLICATES}"
                    + (", a stated limitation" if name in LIMITATIONS else ""),
                )
            )
    return rows


def coverage(noise, key) -> list[float]:
    """Share of the intervals that hold each of TRUE_RATIOS."""
    ratios = jnp.asarray(TRUE_RATIOS)[:, None]

    @jax.jit
    def hits(key):
        moments = bounds.gradient_moments(
            lambda k: ratios + noise(k, (REPETITIONS,)),
            key,
            num_replicates=NUM_REPLICATES,
            chunk_size=CHUNK_SIZE,
        )
        low, high = bounds.snr_interval(moments, level=LEVEL)
        return (low <= ratios) & (ratios <= high)

    return np.asarray(hits(key)).mean(axis=1).tolist()
