"""Bits per dimension, from log-probabilities or from densities in any unit."""

import math

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from bounds._checks import check_count


def bits_per_dim(
    log_prob: ArrayLike,
    *,
    num_dims: int,
    levels: int,
    data_range: tuple[float | int, float | int] | None,
    dequantized: bool,
) -> Float[Array, "..."]:
    r"""Bits per dimension of integers, from a log-probability or from a bound by a density.

    .. math:: -\frac{1}{\ln 2}\left[\frac{\log p}{D}
       + \log \frac{\mathrm{high} - \mathrm{low}}{\mathrm{levels}}\right]

    without the last term where `data_range` is None. A density depends on the unit of the data:
    where the `levels` cells fill [0, 1] the bracket has - log levels, in [-1, 1]
    - log(levels / 2), in [0, levels] nothing. Data of `scale_levels` has its levels, not the
    edges of their cells, at -1 and 1: its `data_range` is
    (-levels / (levels - 1), levels / (levels - 1)), log2(256 / 255) bits wider at 256 levels.

    Args:
      log_prob: in nats, of any shape: log P(x), or a bound on it, or of a density of noisy data.
      num_dims: D, the number of pixels times channels.
      levels: how many values each of them takes.
      data_range: (low, high), the interval that the cells of all `levels` fill in the unit of
        the density; None where `log_prob` is of the integers themselves.
      dequantized: whether noise that fills the cells was added before the density was
        evaluated; it must be stated, and True for a density.

    Returns:
      Bits per dimension, shaped as `log_prob`.

    Raises:
      TypeError: `num_dims` or `levels` is not an integer.
      ValueError: a density of data that were not dequantized, which bounds nothing and can be
        made arbitrarily good by narrow peaks; an empty `data_range`; counts that are too small.

    Example:
      >>> import math, bounds
      >>> uniform = -3072 * math.log(256)  # of 8-bit data, in nats
      >>> float(bounds.dequantization.bits_per_dim(
      ...     uniform, num_dims=3072, levels=256, data_range=None, dequantized=False))
      8.0
      >>> float(bounds.dequantization.bits_per_dim(  # the same as a density on [0, 1]
      ...     0.0, num_dims=3072, levels=256, data_range=(0, 1), dequantized=True))
      8.0

    Source: Theis et al. 2016 (arXiv 1511.01844), section 3.1.
    """
    num_dims = check_count("num_dims", num_dims)
    levels = check_count("levels", levels, 2)
    per_dim = jnp.asarray(log_prob, float) / num_dims
    if data_range is not None:
        low, high = data_range
        if not (low < high and math.isfinite(low) and math.isfinite(high)):
            raise ValueError(
                f"data_range must be (low, high), finite and low < high, got {data_range}."
            )
        if not dequantized:
            raise ValueError(
                "a density evaluated at the integers themselves bounds no probability; add noise "
                "(bounds.dequantization.dequantized), or pass data_range=None for "
                "log-probabilities of integers."
            )
        per_dim = per_dim + math.log((high - low) / levels)
    return -per_dim / math.log(2)
