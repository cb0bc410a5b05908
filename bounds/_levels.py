"""The integers 0 .. L-1: which numbers they are, and the unit in which diffusion adds its noise."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from bounds._checks import check_count, is_known, nan_unless


def scale_levels(x: ArrayLike, *, levels: int) -> Float[Array, "..."]:
    r"""Integers 0 .. levels-1 as numbers from -1 to 1, the unit in which diffusion adds its noise.

    .. math:: \frac{2 x}{L - 1} - 1

    The cells of the levels reach half a step further, and fill (-L / (L - 1), L / (L - 1)): that is
    the `data_range` of `bits_per_dim` for a density of data in this unit, not (-1, 1).

    Args:
      x: of any shape and dtype.
      levels: L.

    Returns:
      The numbers, shaped as x; NaN where a traced x is no whole number from 0 to levels - 1.

    Raises:
      TypeError: `levels` is not an integer.
      ValueError: it is below 2, or a known x is no whole number from 0 to levels - 1.

    Example:
      >>> import jax.numpy as jnp, bounds
      >>> bounds.densities.scale_levels(jnp.array([0, 1, 2]), levels=3).tolist()
      [-1.0, 0.0, 1.0]
    """
    x, levels = check_levels(x, levels)
    return x * (2 / (levels - 1)) - 1 + nan_unless(whole_levels(x, levels))


def unscale_levels(value: ArrayLike, *, levels: int) -> Float[Array, "..."]:
    r"""What `scale_levels` scaled, back in the unit of the levels; not rounded.

    .. math:: (v + 1) \, \frac{L - 1}{2}

    Args:
      value: v, of any shape.
      levels: L.

    Returns:
      The numbers, shaped as `value`.

    Raises:
      TypeError: `levels` is not an integer.
      ValueError: it is below 2.

    Example:
      >>> import bounds
      >>> float(bounds.densities.unscale_levels(0.0, levels=17))
      8.0
    """
    levels = check_count("levels", levels, 2)
    return (jnp.asarray(value, float) + 1) * ((levels - 1) / 2)


def check_levels(x: ArrayLike, levels: int) -> tuple[Array, int]:
    levels = check_count("levels", levels, 2)
    array = jnp.asarray(x, float)
    if is_known(x):
        known = np.asarray(x)
        if not np.all((known >= 0) & (known <= levels - 1) & (known == np.round(known))):
            raise ValueError(
                f"x must be whole numbers from 0 to {levels - 1} at levels={levels}; got numbers "
                f"from {known.min():g} to {known.max():g}. Are the levels those of the data?"
            )
    return array, levels


def whole_levels(x: Array, levels: int) -> Array:
    """Which of them are whole numbers from 0 to levels - 1."""
    return (x >= 0) & (x <= levels - 1) & (x == jnp.round(x))
