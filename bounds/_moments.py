"""Streaming moments of gradients over replicates, in memory that does not grow with them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from bounds._checks import at_least_float32, check_count
from bounds._sampling import sample_key
from bounds._types import Key
from bounds._values import finite_or_zero


class Moments(NamedTuple):
    r"""Mean and central moment sums of replicates of a pytree.

    .. math:: \bar g = \frac1R \sum_r g_r, \quad m_p = \sum_r (g_r - \bar g)^p

    Attributes:
      count: the number of replicates R, a scalar.
      mean: sample means, a pytree like one replicate.
      m2: sums of squares, a pytree like one replicate.
      m3: sums of cubes.
      m4: sums of fourth powers.
    """

    count: Float[Array, "..."] | Int[Array, "..."]
    mean: PyTree
    m2: PyTree
    m3: PyTree
    m4: PyTree


def gradient_moments(
    grad_fn: Callable[[Key], PyTree],
    key: Key,
    *,
    num_replicates: int,
    chunk_size: int,
    first_replicate: int | Int[Array, ""] = 0,
) -> Moments:
    r"""Mean and central moments of a random pytree over independent replicates.

    .. math:: \bar g = \frac1R \sum_r g_r, \quad m_p = \sum_r (g_r - \bar g)^p

    Replicate r uses `fold_in(key, r)`, so the result does not depend on `chunk_size`
    beyond rounding, and ranges of replicates computed apart, on other devices or after
    a restart, merge into the whole (`merge_moments`). Of a key that is not threefry's a
    threefry key is made first (see `log_weights`). Wrap the call in `jax.jit`.

    Args:
      grad_fn: key -> pytree of floating arrays, usually one gradient; it is vmapped.
      key: PRNG key.
      num_replicates: R.
      chunk_size: replicates in memory at once. It need not divide R.
      first_replicate: number of the first replicate; may be traced.

    Returns:
      `Moments`, in at least float32, which holds fourth moments of entries whose
      deviation lies between about 1e-9 and 1e9.

    Raises:
      TypeError: a count is not an integer, or `grad_fn` returns integers.
      ValueError: a count is below 1.

    Example:
      >>> import jax, bounds
      >>> moments = bounds.gradient_moments(
      ...     lambda key: 3.0 + jax.random.normal(key), jax.random.key(0),
      ...     num_replicates=1000, chunk_size=128)
      >>> bool(abs(moments.mean - 3.0) < 0.2)
      True

    Source: Pebay 2008 (SAND2008-6212) for the update formulas.
    """
    num_replicates = check_count("num_replicates", num_replicates)
    chunk_size = min(check_count("chunk_size", chunk_size), num_replicates)

    def chunk_values(first, size):
        keys = jax.vmap(sample_key, (None, 0))(key, first + jnp.arange(size))
        return jax.tree.map(_floating, jax.vmap(grad_fn)(keys))

    def moments_of(values, size) -> Moments:
        # About one of the replicates: a mean of the size of log p(x) would round the updates away.
        values = jax.tree.map(lambda v, c: v - c[None], values, center)
        mean = jax.tree.map(lambda v: jnp.mean(v, axis=0), values)
        deviation = jax.tree.map(lambda v, m: v - m[None], values, mean)

        def power_sum(power):
            return jax.tree.map(lambda d: jnp.sum(d**power, axis=0), deviation)

        return Moments(jnp.asarray(size, jnp.int32), mean, *map(power_sum, (2, 3, 4)))

    # The first chunk starts the scan: its carry then has the types a shard_map wants.
    num_chunks, rest = divmod(num_replicates, chunk_size)
    values = chunk_values(first_replicate, chunk_size)
    center = jax.tree.map(lambda v: finite_or_zero(v[0]), values)
    moments = moments_of(values, chunk_size)
    if num_chunks > 1:

        def body(moments, chunk):
            first = first_replicate + chunk * chunk_size
            chunk_moments = moments_of(chunk_values(first, chunk_size), chunk_size)
            return merge_moments(moments, chunk_moments), None

        moments, _ = jax.lax.scan(body, moments, jnp.arange(1, num_chunks))
    if rest:
        values = chunk_values(first_replicate + num_replicates - rest, rest)
        moments = merge_moments(moments, moments_of(values, rest))
    return moments._replace(mean=jax.tree.map(jnp.add, moments.mean, center))


def _floating(values: Array) -> Array:
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"grad_fn must return floating arrays, got dtype {values.dtype}.")
    # In half precision a sum over replicates would stop growing.
    return at_least_float32(values)


def merge_moments(a: Moments, b: Moments) -> Moments:
    r"""Moments of the union of two disjoint sets of replicates.

    .. math:: \bar g = \bar g_a + \frac{n_b}{n} \delta, \quad
       m_2 = m_{2a} + m_{2b} + \delta^2 \frac{n_a n_b}{n}, \quad
       \delta = \bar g_b - \bar g_a, \; n = n_a + n_b,

    and likewise for the third and fourth moments. Moments of count 0 change nothing.

    Args:
      a: moments of some replicates.
      b: moments of others, with the same tree and shapes.

    Returns:
      `Moments` of all of them.

    Raises:
      ValueError: the two trees or their shapes differ.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> def part(first, size):
      ...     return bounds.gradient_moments(
      ...         jax.random.normal, jax.random.key(0), num_replicates=size,
      ...         chunk_size=10, first_replicate=first)
      >>> merged = bounds.merge_moments(part(0, 30), part(30, 70))
      >>> bool(jnp.allclose(merged.m4, part(0, 100).m4, rtol=1e-4))
      True

    Source: Pebay 2008 (SAND2008-6212).
    """
    shapes_a, shapes_b = (jax.tree.map(jnp.shape, m.mean) for m in (a, b))
    if shapes_a != shapes_b:
        raise ValueError(f"the moments must be of one kind of tree, got {shapes_a} and {shapes_b}.")
    count = a.count + b.count

    def merge(mean_a, mean_b, a2, b2, a3, b3, a4, b4):
        na, nb = (jnp.asarray(c, mean_a.dtype) for c in (a.count, b.count))
        n = jnp.maximum(na + nb, 1)
        fa, fb = na / n, nb / n  # shares: products of counts would overflow
        delta = mean_b - mean_a
        mean = mean_a + fb * delta
        m2 = a2 + b2 + delta**2 * (na * fb)
        m3 = a3 + b3 + delta**3 * (na * fb * (fa - fb)) + 3 * delta * (fa * b2 - fb * a2)
        m4 = (
            a4
            + b4
            + delta**4 * (na * fb * (fa**2 - fa * fb + fb**2))
            + 6 * delta**2 * (fa**2 * b2 + fb**2 * a2)
            + 4 * delta * (fa * b3 - fb * a3)
        )
        return mean, m2, m3, m4

    merged = jax.tree.map(merge, a.mean, b.mean, a.m2, b.m2, a.m3, b.m3, a.m4, b.m4)
    outer = jax.tree.structure(a.mean)
    mean, m2, m3, m4 = jax.tree.transpose(outer, jax.tree.structure((0,) * 4), merged)
    return Moments(count, mean, m2, m3, m4)
