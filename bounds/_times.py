"""Draws of a time of diffusion for every example of a batch, and of steps by their probability."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bounds._checks import check_count, is_known, nan_unless
from bounds._types import Key


def uniform_times(key: Key, num_examples: int) -> Float[Array, "N"]:
    r"""Independent times of a batch, uniform in [0, 1).

    .. math:: t_i \sim \mathrm{Uniform}[0, 1), \quad i = 1, \dots, N

    Args:
      key: PRNG key of the step.
      num_examples: N, of the whole batch, whatever devices share it.

    Returns:
      Times [N].

    Raises:
      TypeError: `num_examples` is not an integer.
      ValueError: it is below 1.

    Example:
      >>> import jax, bounds
      >>> bounds.diffusion.uniform_times(jax.random.key(0), 4).shape
      (4,)
    """
    return jax.random.uniform(key, (check_count("num_examples", num_examples),))


def low_discrepancy_times(key: Key, num_examples: int) -> Float[Array, "N"]:
    r"""Times of a batch that share one draw and are spread evenly.

    .. math:: t_i = (u + i / N) \bmod 1, \quad u \sim \mathrm{Uniform}[0, 1)

    Each is uniform in [0, 1), so that the mean over the batch of a single-time estimate keeps its
    expectation, and that of a smooth loss loses most of its variance.

    Args:
      key: PRNG key of the step.
      num_examples: N, of the WHOLE batch: stratified within each device the times would depend
        on how many there are.

    Returns:
      Times [N], of example i of the batch in place i.

    Raises:
      TypeError: `num_examples` is not an integer.
      ValueError: it is below 1.

    Example:
      >>> import jax, bounds
      >>> times = bounds.diffusion.low_discrepancy_times(jax.random.key(0), 4)
      >>> sorted(int(4 * t) for t in times)
      [0, 1, 2, 3]

    Source: Kingma et al. 2021 (arXiv 2107.00630), appendix I.1.
    """
    num_examples = check_count("num_examples", num_examples)
    return _below_one((jax.random.uniform(key) + jnp.arange(num_examples) / num_examples) % 1.0)


def discrete_times(
    times: Float[Array, "*batch"], probabilities: Float[Array, "T"]
) -> tuple[Int[Array, "*batch"], Float[Array, "*batch"]]:
    r"""Steps t in 1 .. T by inversion of their distribution function.

    .. math:: t = \min\Bigl\{s : u < \sum_{r \le s} p_r\Bigr\}

    Args:
      times: u, uniform in [0, 1), of `uniform_times` or `low_discrepancy_times`.
      probabilities: p_t [T], positive and of sum 1: 1 / T each, or those of
        `importance_probabilities`.

    Returns:
      (t, p_t), each shaped as `times`, for `discrete_estimate`; p_t is NaN where a traced time is
      not in [0, 1].

    Raises:
      ValueError: `probabilities` is not an array [T], or known not to be probabilities, or a known
        time is not in [0, 1].

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> t, p = bounds.diffusion.discrete_times(jnp.array([0.1, 0.9]), jnp.array([0.75, 0.25]))
      >>> t.tolist(), p.tolist()
      ([1, 2], [0.75, 0.25])
    """
    shape = jnp.shape(probabilities)
    if len(shape) != 1 or not shape[0]:
        raise ValueError(f"probabilities must have shape [T], got {shape}.")
    if is_known(probabilities):
        known = np.asarray(probabilities, np.float64)
        if not (np.all(known >= 0) and abs(known.sum() - 1) < 1e-3):
            raise ValueError(
                "probabilities must not be negative and must sum to 1, got "
                f"{np.array2string(known, threshold=6)} of sum {known.sum():g}."
            )
    if is_known(times):
        known = np.asarray(times, np.float64)
        if not np.all((known >= 0) & (known <= 1)):
            raise ValueError(
                f"times must lie in [0, 1], got numbers from {known.min():g} to {known.max():g}."
            )
    probabilities = jnp.asarray(probabilities, float)
    edges = jnp.cumsum(probabilities)
    # The last edge is 1 up to rounding: every time below 1 must find its step, and p_t is what it
    # was drawn with.
    place = jnp.searchsorted(edges / edges[-1], times, side="right")
    place = jnp.minimum(place, probabilities.size - 1)
    wrong = nan_unless((times >= 0) & (times <= 1))
    return place + 1, probabilities[place] / edges[-1] + wrong


def importance_probabilities(
    mean_squares: Float[Array, "T"], *, uniform_share: float = 0.001
) -> Float[Array, "T"]:
    r"""Probabilities of the steps that make single-time estimates vary least.

    .. math:: p_t = (1 - u) \frac{\sqrt{\mathbb E[L_t^2]}}{\sum_s \sqrt{\mathbb E[L_s^2]}}
       + \frac uT

    Args:
      mean_squares: running means of L_t^2 [T], not negative; of the last ten values in the source.
      uniform_share: u, of the uniform distribution, in (0, 1]: without it a step whose loss was
        small once would not be drawn again.

    Returns:
      p_t [T]; uniform where all `mean_squares` are 0.

    Raises:
      ValueError: `uniform_share` is out of range, or `mean_squares` is not an array [T].

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> p = bounds.diffusion.importance_probabilities(jnp.array([1.0, 9.0]), uniform_share=0.2)
      >>> [round(float(v), 3) for v in p]
      [0.3, 0.7]

    Source: Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 18.
    """
    if not 0 < uniform_share <= 1:
        raise ValueError(f"uniform_share must be in (0, 1], got {uniform_share}.")
    root = jnp.sqrt(jnp.asarray(mean_squares, float))
    if root.ndim != 1:
        raise ValueError(f"mean_squares must have shape [T], got {root.shape}.")
    total = jnp.sum(root)
    shares = jnp.where(total > 0, root / jnp.where(total > 0, total, 1.0), 1.0 / root.size)
    return (1 - uniform_share) * shares + uniform_share / root.size


def _below_one(times: Array) -> Array:
    """u + i / N may round up to 1."""
    return jnp.where(times >= 1, 0.0, times)
