"""The audit of a claimed number: a bound on log p(x) that somebody else's code computes."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from bounds._audit_gradients import compiled
from bounds._checks import check_count, check_scalar
from bounds._sampling import is_number, over_samples, sample_key
from bounds._types import Key
from bounds._verdicts import (
    HOLDS,
    LEAST_DATA,
    ROUNDING,
    UNDECIDED,
    Check,
    Report,
    Test,
    certain,
    check_rate,
    mean_one,
    mean_zero,
    report,
)

Claimed = Callable[[Any, PyTree], Any]
"""(key, x) -> [], what is claimed to bound log p(x) from below, in nats."""

MEANINGS = {
    "same key, same number": (
        "the claim takes randomness from elsewhere than its key, so it cannot be repeated."
    ),
    "probabilities sum to at most 1": (
        "exp of the claims adds up to more than 1 over all x, so they bound no log p(x): a term is "
        "missing (a KL, an entropy, log K, the levels of the data), has the wrong sign, or is "
        "averaged where it is to be summed."
    ),
    "below the upper bound": (
        "on data whose latent is known the claim lies above an upper bound on log p(x)."
    ),
    "rises with K": (
        "more samples lower the claim: it is a logsumexp of negative log-probabilities, or no "
        "bound that tightens."
    ),
    "no more than the best of fewer": (
        "more samples raise the claim beyond the best of as many claims by fewer: - log K is "
        "missing after a logsumexp."
    ),
    "same in another unit": (
        "the claim on the same data depends on their unit: the width of a cell is missing, or is "
        "that of other data, such as 8 bits/dim for the 7 of data in [-1, 1]."
    ),
    "batch is the mean of its data": (
        "the claim of a batch is not the mean of those of its data: log-weights are summed over "
        "data (a plate) before the logsumexp, or samples are shared in one."
    ),
}
_LEAST_DRAWS = 4
_NOISE = 1.0  # nats^2: the variance of the mean of a datum's claims beyond which exp says nothing
_BATCH = 4
_UNTRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def claim(
    claimed: Claimed,
    key: Key,
    *,
    simulate: Callable[[Any], tuple[PyTree, Any]] | None = None,
    x: PyTree = None,
    fewer: Claimed | None = None,
    ratio: int = 8,
    rescaled: Claimed | None = None,
    batched: Claimed | None = None,
    num_data: int = 256,
    num_draws: int = 8,
    traceable: bool = False,
    chunk_size: int | None = None,
    false_alarm_rate: float = 1e-3,
) -> Report:
    r"""Whether numbers that are claimed to bound log p(x) from below can do so.

    .. math:: L(x) \le \log P(x) \;\Rightarrow\; \sum_x e^{L(x)} \le 1
       \;\Rightarrow\; \mathbb E_{x \sim r}\left[\frac{e^{L(x)}}{r(x)}\right] \le 1

    Kraft's inequality, an integral for densities, and by Jensen's inequality
    :math:`\mathbb E_r[L(x) - \log r(x)] \le 0`. The x may come from any r that is known, or from
    a model with a latent, where 1 / w* of `simulated` stands for 1 / r. A claim is anything that
    maps a key and a datum to a number: another library, a loss with its sign turned, bits per
    dimension times - D log 2. The checks, by name:

    * same key, same number.
    * probabilities sum to at most 1: the sum above, with L the mean of `num_draws` claims less
      its squared standard error, which is more than exp of a noisy mean exaggerates.
    * below the upper bound: :math:`\mathbb E[L(x) - \log w^*] \le 0`.
    * rises with K, no more than the best of fewer: claims by K samples lie between the mean and the
      greatest of `ratio` claims by K / ratio samples. That holds of the ELBO, IWAE, VR-IWAE with
      alpha in [0, 1], CIWAE and MIWAE, and needs no model.
    * same in another unit: the claim on the same data, computed by way of data in another unit.
    * batch is the mean of its data: of four data each.

    Args:
      claimed: (key, x) -> a number, in nats, to be audited. It is called for one datum at a time.
      key: PRNG key.
      simulate: key -> (x, log r(x)) or (x, log w*), as `simulated` makes it; None for neither of
        the checks that need it. It is traced.
      x: data, with a leading axis, for the other checks; None for simulated data.
      fewer: the same claim by K / ratio samples, or None.
      ratio: an integer above 1.
      rescaled: the same claim by way of another unit of the data, or None.
      batched: (key, x with a leading axis) -> the claim of a batch, or None.
      num_data: data that are looked at, at least 100; of `x` no more than there are.
      num_draws: claims for each datum, at least 4.
      traceable: whether claims can be traced, and are then compiled and mapped over data.
      chunk_size: data in memory at once, of what is traced; None for all.
      false_alarm_rate: the probability that any check says "violated" of what is right; each of
        them gets an equal share.

    Returns:
      `Report`. What cannot be told is "undecided", with the reason.

    Raises:
      TypeError: a count is not an integer, a claim is no number, or one that is said to be
        traceable is not.
      ValueError: a count is too small, there are no data or not along one axis, simulate does not
        return (x, log r(x)), a claim is NaN, or the rate is not between 0 and 1.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> log_prob = jnp.log(jnp.array([0.5, 0.3, 0.2]))  # of a claim that forgets a term
      >>> def simulate(key):
      ...     return jax.random.randint(key, (), 0, 3), -jnp.log(3.0)
      >>> found = bounds.audit.claim(
      ...     lambda key, x: log_prob[x] + 0.7, jax.random.key(0), simulate=simulate)
      >>> found.violated
      ('probabilities sum to at most 1', 'below the upper bound')

    Source: McMillan 1956 (IRE Transactions on Information Theory 2) for Kraft's inequality.
    """
    num_draws = check_count("num_draws", num_draws, minimum=_LEAST_DRAWS)
    num_data = check_count("num_data", num_data, minimum=LEAST_DATA)
    ratio = check_count("ratio", ratio, minimum=2)
    check_rate(false_alarm_rate)
    if simulate is None and x is None:
        raise ValueError("audit.claim needs data: give simulate, x, or both.")
    tests, log_w, known = [], None, None
    if simulate is not None:
        fixed = simulate, num_data, chunk_size
        known, log_w = compiled(_simulated, fixed, sample_key(key, 0))
    data = known if x is None else x
    size = min(num_data, _length(data))
    if size < LEAST_DATA:
        raise ValueError(f"x must hold at least {LEAST_DATA} data, got {size}.")

    def claims(fn: Claimed, data: PyTree, size: int, purpose: int, draws: int) -> np.ndarray:
        """[size, draws]."""
        return _claims(fn, data, size, sample_key(key, purpose), draws, traceable, chunk_size)

    first = jax.tree.map(lambda leaf: leaf[0], data)
    twice = [_number(claimed(sample_key(key, 1), first), 0) for _ in range(2)]
    wrong = 0.0 if twice[0] == twice[1] else abs(twice[0] - twice[1])
    tests.append(certain("same key, same number", wrong, 0.0, "nats between two calls"))
    if log_w is not None:
        drawn = claims(claimed, known, num_data, 2, num_draws)
        tests += _against(drawn, np.asarray(log_w, np.float64))
    own = claims(claimed, data, size, 3, 1)[:, 0]
    eps = float(jnp.finfo(jnp.result_type(float)).eps)
    rounding = ROUNDING * eps * (1 + float(np.abs(np.where(np.isfinite(own), own, 0.0)).mean()))
    if fewer is not None:
        few = claims(fewer, data, size, 4, ratio)
        above = _less(own, few.mean(1))
        tests.append(mean_zero("rises with K", above, side=1, tolerance=rounding))
        name = "no more than the best of fewer"
        tests.append(mean_zero(name, _less(few.max(1), own), side=1, tolerance=rounding))
    if rescaled is not None:
        # With the same keys; what changes its noise with the unit has the same mean yet.
        difference = _less(claims(rescaled, data, size, 3, 1)[:, 0], own)
        tests.append(mean_zero("same in another unit", difference, tolerance=16 * rounding))
    if batched is not None:
        members = (np.arange(size)[:, None] + np.arange(_BATCH)) % size
        groups = jax.tree.map(lambda leaf: leaf[members], data)
        # Every datum is in four batches, beside each of which stands a claim of its own.
        alone = claims(claimed, data, size, 5, _BATCH)[members, np.arange(_BATCH)].mean(1)
        difference = _less(claims(batched, groups, size, 6, 1)[:, 0], alone)
        name = "batch is the mean of its data"
        tests.append(mean_zero(name, difference, tolerance=rounding))
    return report(tests, MEANINGS, false_alarm_rate)


def _less(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # both may be claims of -inf
        return a - b


def _against(drawn: np.ndarray, log_w: np.ndarray) -> list[Test]:
    """What claims [N, draws] add up to beside the log-weights [N] of the exact latents."""
    count = drawn.shape[1]
    mean = drawn.mean(1)
    with np.errstate(invalid="ignore"):  # of a claim of -inf
        noise = np.where(np.isfinite(mean), drawn.var(1, ddof=1) / count, 0.0)
    name = "probabilities sum to at most 1"
    kraft = mean_one(name, mean - noise - log_w, at_most=True)

    def test(level: float) -> Check:
        check = kraft(level)
        v, half = noise.mean(), (count - 1) / 2
        # Up to here the mean of exp(- squared error) makes up for exp(v / 2), if claims are normal.
        covered = half * math.log1p(v / half) >= v / 2
        if v > _NOISE and (check.verdict == HOLDS or not covered):
            why = f"a mean of {count} claims has variance {v:.1g}; raise num_draws"
            check = check._replace(verdict=UNDECIDED, why=why)
        return check

    return [test, mean_zero("below the upper bound", mean - log_w, side=-1)]


def _claims(
    fn: Claimed,
    data: PyTree,
    size: int,
    key: Key,
    draws: int,
    traceable: bool,
    chunk_size: int | None,
) -> np.ndarray:
    """Claims [size, draws] of the first data; each has a key of its own."""
    data = jax.tree.map(lambda leaf: leaf[:size], data)
    if traceable:
        fixed = fn, size, draws, chunk_size
        try:
            found = np.asarray(compiled(_traced, fixed, data, key), np.float64)
        except _UNTRACEABLE as error:
            raise TypeError(
                "a claim cannot be traced, as it turns its numbers into those of Python or NumPy; "
                "leave traceable at False, or compute it in JAX alone."
            ) from error
        for number in np.flatnonzero(np.isnan(found))[:1]:
            _number(np.nan, int(number) // draws)
    else:
        data = jax.tree.map(np.asarray, data)
        found = np.empty(size * draws)
        for number in range(size * draws):
            x = jax.tree.map(lambda leaf, i=number // draws: leaf[i], data)
            found[number] = _number(fn(sample_key(key, number), x), number // draws)
    return found.reshape(size, draws)


def _simulated(
    simulate: Callable, size: int, chunk_size: int | None, key: Key
) -> tuple[PyTree, Array]:
    def one(i):
        drawn = simulate(sample_key(key, i))
        pair = isinstance(drawn, tuple) and len(drawn) == 2
        if not pair or not is_number(drawn[1]) or jnp.shape(drawn[1]):
            raise ValueError(
                "simulate must return (x, log r(x)) with log r(x) one number, which "
                "bounds.audit.simulated makes of a simulate with z."
            )
        return drawn

    return over_samples(one, jnp.arange(size), chunk_size)


def _length(data: PyTree) -> int:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(data)]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or lengths == {()}:
        raise ValueError(f"x must hold data along one leading axis, got arrays of {shapes[:4]}.")
    return shapes[0][0]


def _traced(
    fn: Claimed, size: int, draws: int, chunk_size: int | None, data: PyTree, key: Key
) -> Array:
    def one(number):
        x = jax.tree.map(lambda leaf: leaf[number // draws], data)
        return check_scalar("a claim", fn(sample_key(key, number), x))

    return over_samples(one, jnp.arange(size * draws), chunk_size)


def _number(value: Any, datum: int) -> float:
    """A claim as a number; raises on what is none."""
    number = float(check_scalar("a claim", value))
    if number != number:
        raise ValueError(
            f"a claim is NaN, of datum {datum}; NaN bounds nothing, so mend that first."
        )
    return number
