"""Measured signal-to-noise ratios, pooled over parameters, with intervals from replicates.

The ratio of a group of P parameters is the root mean square over its entries,

    SNR = sqrt(mean_p SNR_p^2),

from the estimates of SNR_p^2 whose bias is removed (they may be negative). The entries share
their samples, so the spread over them says nothing of the error: replicates come in blocks, and
the standard error is the jackknife's over blocks.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PyTree
from scipy import stats

import bounds
from experiments.runtime import mesh as meshes
from experiments.runtime.results import Row, row
from experiments.snr.blocks import block_moments

LEVEL = 0.95


class Measurement(NamedTuple):
    """Moments of one estimator's gradient, by parameter group, with and without each block.

    Attributes:
      count: replicates, shape [1 + B]: all, then all but each block.
      mean: by group, float64 [1 + B, P].
      variance: by group, float64 [1 + B, P].
      seconds: run time.
      compile_seconds: compile time, not part of `seconds`.
    """

    count: np.ndarray
    mean: dict[str, np.ndarray]
    variance: dict[str, np.ndarray]
    seconds: float
    compile_seconds: float


class Value(NamedTuple):
    """An estimate, its standard error and its confidence interval."""

    value: float
    standard_error: float
    low: float
    high: float


def measure(
    objective: bounds.Objective,
    params: bounds.Params,
    key: Array,
    x: PyTree,
    *,
    num_replicates: int,
    num_blocks: int,
    chunk_size: int,
    groups: Callable[[bounds.Params], dict[str, PyTree]] = bounds.Params._asdict,
) -> Measurement:
    """Measures the gradient of an objective at one x (or a batch the objective takes).

    Args:
      objective: what to differentiate in params.
      params: where.
      key: PRNG key; replicate r uses fold_in(key, r).
      x: the datum.
      num_replicates: R.
      num_blocks: B, a divisor of R.
      chunk_size: replicates in memory at once on each device.
      groups: gradient -> named parts that are pooled.

    Returns:
      A `Measurement`.
    """
    run = program(
        objective, num_replicates=num_replicates, num_blocks=num_blocks, chunk_size=chunk_size,
        groups=groups,
    )  # fmt: skip
    start = time.perf_counter()
    params, key, x = meshes.replicate((params, key, x), meshes.device_mesh())
    compiled = run.lower(params, key, x).compile()
    compiled_at = time.perf_counter()
    found = jax.block_until_ready(compiled(params, key, x))
    count, mean, m2 = jax.tree.map(meshes.to_host, found)
    seconds = time.perf_counter() - compiled_at
    return from_blocks(count, mean, m2, seconds, compiled_at - start)


def program(
    objective: bounds.Objective,
    *,
    num_replicates: int,
    num_blocks: int,
    chunk_size: int,
    groups: Callable[[bounds.Params], dict[str, PyTree]] = bounds.Params._asdict,
) -> Any:
    """(params, key, x) -> (count, mean, m2) of all blocks, under jit; arguments as of `measure`."""
    mesh = meshes.device_mesh()

    @jax.jit
    def run(params, key, x):
        moments = block_moments(
            lambda p, k: groups(jax.grad(lambda q: objective(q, k, p[1]))(p[0])),
            (params, x),
            key,
            num_replicates=num_replicates,
            num_blocks=num_blocks,
            chunk_size=chunk_size,
            mesh=mesh,
        )
        return meshes.gather((moments.count, moments.mean, moments.m2), mesh)

    return run


def from_blocks(
    count: np.ndarray,
    mean: dict[str, PyTree],
    m2: dict[str, PyTree],
    seconds: float = 0.0,
    compile_seconds: float = 0.0,
) -> Measurement:
    """A `Measurement` from the moments of blocks, each leaf [B, ...]."""
    count = np.asarray(count, np.float64)
    left = np.append(0.0, count)  # how many replicates each variant leaves out
    means, variances = {}, {}
    for name in mean:
        block_mean, block_m2 = _flat(mean[name], len(count)), _flat(m2[name], len(count))
        means[name], variances[name] = _without_each(count, block_mean, block_m2)
    return Measurement(count.sum() - left, means, variances, seconds, compile_seconds)


def _flat(tree: PyTree, num_blocks: int) -> np.ndarray:
    leaves = [
        np.asarray(leaf, np.float64).reshape(num_blocks, -1) for leaf in jax.tree.leaves(tree)
    ]
    return np.concatenate(leaves, axis=1)


def _without_each(count: np.ndarray, mean: np.ndarray, m2: np.ndarray):
    """Means and variances of all replicates, then of all but each block."""
    keep = 1.0 - np.vstack([np.zeros(len(count)), np.eye(len(count))])
    total = keep @ count
    center = np.average(mean, axis=0, weights=count)
    shift = mean - center  # sums are taken about the common mean: no cancellation
    first = keep @ (count[:, None] * shift) / total[:, None]
    second = keep @ (m2 + count[:, None] * shift**2)
    return center + first, (second - total[:, None] * first**2) / (total[:, None] - 1)


def snr_squared(measured: Measurement, group: str) -> Value:
    """Pooled squared ratio of one estimator."""
    return _jackknife(_ratio(measured, measured, group))


def snr_squared_of(numerator: Measurement, noise: Measurement, group: str) -> Value:
    """Pooled squared ratio of one estimator's mean over another's standard deviation.

    For two unbiased estimators of one gradient this is the ratio of `noise`, with the mean taken
    from the less noisy `numerator`.
    """
    return _jackknife(_ratio(numerator, noise, group))


def mean_squared(measured: Measurement, group: str) -> Value:
    """Mean over entries of the squared mean gradient, its bias removed."""
    return _jackknife(np.mean(_signal(measured, group), axis=1))


def variance(measured: Measurement, group: str) -> Value:
    """Mean over entries of the variance of the gradient."""
    return _jackknife(np.mean(measured.variance[group], axis=1))


def snr_squared_ratio(
    above: Measurement, group_above: str, below: Measurement, group: str
) -> Value:
    """Squared ratio of two pooled ratios."""
    return _jackknife(_ratio(above, above, group_above) / _ratio(below, below, group))


def root(squared: Value) -> Value:
    """The square root of a squared ratio, with its errors; a negative square becomes 0."""
    value, low, high = (np.sqrt(max(v, 0.0)) for v in (squared.value, squared.low, squared.high))
    error = squared.standard_error / (2 * value) if value > 0 else np.nan
    return Value(float(value), float(error), float(low), float(high))


def _signal(measured: Measurement, group: str) -> np.ndarray:
    """Squared means without bias, [1 + B, P]."""
    mean, variance = measured.mean[group], measured.variance[group]
    return mean**2 - variance / measured.count[:, None]


def _ratio(numerator: Measurement, noise: Measurement, group: str) -> np.ndarray:
    # Entries that never vary (the weights of a pixel that is always dark) have no ratio.
    varies = np.all(noise.variance[group] > 0, axis=0)
    signal = _signal(numerator, group)[:, varies]
    return np.mean(signal / noise.variance[group][:, varies], axis=1)


def _jackknife(values: np.ndarray) -> Value:
    """Estimate and t interval from the value of all blocks and those without each."""
    num_blocks = len(values) - 1
    spread = np.sum((values[1:] - values[1:].mean()) ** 2)
    error = np.sqrt((num_blocks - 1) / num_blocks * spread)
    half = stats.t.ppf(0.5 * (1 + LEVEL), num_blocks - 1) * error
    return Value(*(float(v) for v in (values[0], error, values[0] - half, values[0] + half)))


def projection(means: np.ndarray, expected: np.ndarray) -> Value:
    """How long the mean gradient is along an expected one, in units of the latter.

    Args:
      means: mean gradients of all blocks and without each, [1 + B, P].
      expected: the expected gradient, [P].

    Returns:
      1 where the two agree.
    """
    return _jackknife(means @ expected / np.sum(expected**2))


def with_errors(rows: list[Row]) -> list[Row]:
    """Rows a slope can be fitted to: what leaves the range of float32 has no value or no error."""
    return [r for r in rows if r["squared"] is not None and r["squared_standard_error"]]


def slope_of_rows(rows: list[Row], axis: str) -> tuple[float, float, float]:
    """Exponent of the value of rows in `at[axis]`, (slope, low, high).

    Fitted to the squares, which are unbiased and may be negative; half the exponent and its
    interval are those of the value itself.
    """
    x = [r["at"][axis] for r in rows]
    squares = [r["squared"] for r in rows]
    errors = [r["squared_standard_error"] for r in rows]
    slope, low, high = bounds.power_law(x, squares, errors, level=LEVEL)
    return slope / 2, low / 2, high / 2


def ratio_row(name: str, at: dict[str, Any], squared: Value, **extra: Any) -> Row:
    """A row of the root of a squared ratio, with the square that slopes are fitted to."""
    return row(
        name,
        at,
        kind="estimate",
        unit="ratio",
        **root(squared)._asdict(),
        squared=squared.value,
        squared_standard_error=squared.standard_error,
        level=LEVEL,
        **extra,
    )


def slope_row(name: str, at: dict[str, Any], rows: list[Row], axis: str, **extra: Any) -> Row:
    """A row of the exponent of these rows in `at[axis]`, see `slope_of_rows`."""
    slope, low, high = slope_of_rows(rows, axis)
    return row(
        f"slope of {name}",
        at,
        kind="estimate",
        unit="exponent",
        value=slope,
        low=low,
        high=high,
        n=len(rows),
        level=LEVEL,
        **extra,
    )
