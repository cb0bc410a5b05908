"""What a gradient costs and what it buys: seconds, FLOPs, and the square of its SNR as a whole.

The ratio of a part of the parameters is that of its gradient as one vector,

    SNR^2 = ||E g||^2 / tr Cov(g),

since the mean over R gradients has a relative squared error of 1 / (R SNR^2). Its entries share
their draws, so intervals of single entries (`snr_interval`) do not add up to one of the whole:
replicates come in blocks, of whose moments the jackknife makes the interval.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from numpy.typing import NDArray

from bounds._audit_gradients import arrays_of
from bounds._moments import Moments, merge_moments
from bounds._sampling import sample_key
from bounds._types import Key, Objective, Params

NUM_BLOCKS = 20
_LEAST_SECONDS = 2e-3  # what is shorter is called several times between two looks at the clock
Numbers = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate with the ends of its interval of confidence."""

    value: float
    low: float
    high: float


class Blocks(NamedTuple):
    """The gradient of a part of the parameters, in blocks of replicates.

    Attributes:
      mean: over each block, [B, P].
      variance: within each block, summed over entries, [B].
    """

    mean: Numbers
    variance: Numbers


class Gradient(NamedTuple):
    """A compiled gradient of the mean over a batch.

    Attributes:
      run: key -> floating arrays of the gradient, of each part of the parameters that has some.
      flops: of one, as the compiler counts them; NaN where it does not.
    """

    run: Callable[[Key], dict[str, list[Array]]]
    flops: float


def traced(objective: Objective, params: Params, key: Key, x: PyTree) -> Callable[[], Gradient]:
    """What compiles the gradient of an objective, for the clock and for the moments.

    Raises:
      TypeError, ValueError: the objective refuses the model.
    """
    parts = {name: arrays_of(part) for name, part in params._asdict().items()}
    arrays = {name: found for name, (found, _) in parts.items() if found}

    def gradient(arrays, key, x):
        def value(arrays):
            own = Params(*(put(arrays.get(name, [])) for name, (_, put) in parts.items()))
            keys = jax.vmap(sample_key, (None, 0))(key, jnp.arange(len(jax.tree.leaves(x)[0])))
            return jnp.mean(jax.vmap(lambda k, datum: objective(own, k, datum))(keys, x))

        return jax.grad(value)(arrays)

    lowered = jax.jit(gradient).lower(arrays, key, x)

    def compiled():
        one = lowered.compile()
        counted: Any = one.cost_analysis()
        flops = float(counted.get("flops", math.nan)) if counted else math.nan
        return Gradient(lambda key: one(arrays, key, x), flops)

    return compiled


def blocks_of(run: Callable[[Key], Any], keys: Sequence[Key]) -> dict[str, Blocks]:
    """Moments of a gradient in NUM_BLOCKS blocks of as many keys."""
    size = len(keys) // NUM_BLOCKS
    found = []
    for first in range(0, size * NUM_BLOCKS, size):
        moments = _alone(run(keys[first]))
        for key in keys[first + 1 : first + size]:
            moments = _with_one(moments, run(key))
        found.append(jax.device_get(_summed(moments)))
    return {
        name: Blocks(
            np.array([mean[name] for mean, _ in found], np.float64),
            np.array([variance[name] for _, variance in found], np.float64),
        )
        for name in found[0][0]
    }


def _alone(gradient: PyTree) -> Moments:
    nothing = jax.tree.map(jnp.zeros_like, gradient)
    return Moments(jnp.ones((), jnp.int32), gradient, nothing, nothing, nothing)


# Compiled once for all estimators, where `gradient_moments` would be for each: compiling is most
# of what advice costs.
@jax.jit
def _with_one(moments: Moments, gradient: PyTree) -> Moments:
    return merge_moments(moments, _alone(gradient))


@jax.jit
def _summed(moments: Moments) -> tuple[dict[str, Array], dict[str, Array]]:
    """The mean of each part as one vector, and its variance summed over entries."""
    mean = {n: jnp.concatenate([jnp.ravel(v) for v in vs]) for n, vs in moments.mean.items()}
    squares = {n: sum((jnp.sum(v) for v in vs), jnp.zeros(())) for n, vs in moments.m2.items()}
    return mean, {n: v / jnp.asarray(moments.count - 1, v.dtype) for n, v in squares.items()}


def squared_length(mean: Numbers) -> Numbers:
    """||E g||^2 from the products of different blocks; of all of them, then without each."""
    gram = mean @ mean.T
    own, count = np.diag(gram), len(gram)
    pairs = gram.sum() - own.sum()
    without = pairs - 2 * (gram.sum(axis=1) - own)
    return np.append(pairs / (count * (count - 1)), without / ((count - 1) * (count - 2)))


def mean_of(values: Numbers) -> Numbers:
    """The mean over blocks; of all of them, then without each."""
    return np.append(values.mean(), (values.sum() - values) / (len(values) - 1))


def interval(values: Numbers, level: float) -> Interval:
    """By the jackknife, from a value of all blocks and those without each."""
    count = len(values) - 1
    with np.errstate(invalid="ignore"):
        spread = np.sum((values[1:] - values[1:].mean()) ** 2)
    half = _t_quantile(level, count - 1) * math.sqrt((count - 1) / count * spread)
    return Interval(float(values[0]), float(values[0] - half), float(values[0] + half))


def root(squared: Interval) -> Interval:
    """Of a squared ratio or length; what is negative becomes 0."""
    return Interval(*(math.sqrt(max(v, 0.0)) for v in squared))


def seconds(calls: Sequence[Callable[[], Any]], rounds: int) -> Numbers:
    """Of each call in each round, [calls, rounds], in turns after a first call to warm up.

    Whatever else the machine does then falls on all of them. The fastest of three tries makes a
    round, or the scheduler of a busy machine would. Each round has an order of its own, or what a
    call gains by its place would pass for its speed.
    """

    def timed(call, times):
        tries = []
        for _ in range(3):
            start = time.perf_counter()
            for _ in range(times):
                jax.block_until_ready(call())
            tries.append((time.perf_counter() - start) / times)
        return min(tries)

    times = [max(1, math.ceil(_LEAST_SECONDS / timed(call, 1))) for call in calls]
    found, orders = np.zeros((len(calls), rounds)), np.random.default_rng(0)
    for r in range(rounds):
        for i in orders.permutation(len(calls)):
            found[i, r] = timed(calls[i], times[i])
    return found


def median(values: Numbers, level: float) -> Interval:
    """The median of positive values, between order statistics.

    Of so few that not even the extremes hold it at that level nothing is known.
    """
    count, cut, tail = len(values), 0, 0
    while tail + math.comb(count, cut) <= 0.5 * (1 - level) * 2**count:
        tail, cut = tail + math.comb(count, cut), cut + 1
    middle, ordered = float(np.median(values)), np.sort(values)
    if cut == 0:
        return Interval(middle, 0.0, math.inf)
    return Interval(middle, float(ordered[cut - 1]), float(ordered[count - cut]))


def _t_quantile(level: float, freedom: int) -> float:
    """Half-width of the central interval of Student's t, to second order in 1 / freedom."""
    z = statistics.NormalDist().inv_cdf(0.5 * (1 + level))
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2
