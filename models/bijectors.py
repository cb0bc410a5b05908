r"""Invertible maps with exact log-determinants, as pure functions of ONE datum.

A flow is a chain of them, by `models.chains`. `forward` takes data to noise in a density and noise
to v in a dequantizer; `inverse` undoes it. Both return the log |det| of FORWARD at the point in
question, so that log-densities add it in either direction.

Everything is computed in log space and in float32 safe up to |z| = 30; nothing is clipped on the
way, because a map whose returned log-determinant is not its own makes every bound invalid in
silence.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from models import elementwise
from models.elementwise import Elementwise


class Bijector(NamedTuple):
    """An invertible map.

    Attributes:
      init: (key, z, context) -> (params, y): parameters, which may depend on a batch z
        [N, ...] with its context [N, ...] (data-dependent initialisation), and what forward
        makes of that batch.
      forward: (params, z, context) -> (y, log |det dy/dz|), of one datum.
      inverse: (params, y, context) -> (z, log |det dy/dz|) at that z; NaN where a solver inside
        did not converge.
    """

    init: Callable[[Array, Array, PyTree], tuple[PyTree, Array]]
    forward: Callable[[PyTree, Array, PyTree], tuple[Array, Array]]
    inverse: Callable[[PyTree, Array, PyTree], tuple[Array, Array]]


def inverted(bijector: Bijector, init: Callable | None = None) -> Bijector:
    """The inverse map; give `init` where that of the map cannot run on a batch of its outputs."""

    def forward(params, z, context):
        y, log_det = bijector.inverse(params, z, context)
        return y, -log_det

    def inverse(params, y, context):
        z, log_det = bijector.forward(params, y, context)
        return z, -log_det

    def init_forwards(key, z, context):
        params, _ = bijector.init(key, z, context)
        return params, jax.vmap(forward, (None, 0, 0))(params, z, context)[0]

    return Bijector(init or init_forwards, forward, inverse)


# --- splits -------------------------------------------------------------------------------------


class Split(NamedTuple):
    """Two halves of a datum and back: take (z) -> (a, b), join (a, b) -> z."""

    take: Callable[[Array], tuple[Array, Array]]
    join: Callable[[Array, Array], Array]


def checkerboard() -> Split:
    """Pixels of an image [H, W, C] by the parity of row + column, each half [H, W/2, C].

    Raises (when called): ValueError for an odd width.
    """

    def even_first(height):
        return (jnp.arange(height) % 2 == 0)[:, None, None]

    def take(z):
        _check_even("checkerboard", z.shape, (1,))
        left, right = z[:, 0::2], z[:, 1::2]
        even = even_first(z.shape[0])
        return jnp.where(even, left, right), jnp.where(even, right, left)

    def join(a, b):
        even = even_first(a.shape[0])
        left, right = jnp.where(even, a, b), jnp.where(even, b, a)
        return jnp.stack([left, right], axis=2).reshape(a.shape[0], -1, a.shape[2])

    return Split(take, join)


def channels() -> Split:
    """The first and the second half of the last axis; ValueError where it is odd."""

    def take(z):
        _check_even("channels", z.shape, (-1,))
        half = z.shape[-1] // 2
        return z[..., :half], z[..., half:]

    return Split(take, lambda a, b: jnp.concatenate([a, b], axis=-1))


def swapped(split: Split, when: bool | Array = True) -> Split:
    """The same halves, the other one first; with `when`, which may be traced, only where it is so.

    The halves must have the same shape then.
    """

    def swap(a, b):
        if when is True:
            return b, a
        return jnp.where(when, b, a), jnp.where(when, a, b)

    return Split(lambda z: swap(*split.take(z)), lambda a, b: split.join(*swap(a, b)))


def halves(first: Bijector, second: Bijector, split: Split) -> Bijector:
    """Each half of a `Split` through a map of its own."""

    def init(key, z, context):
        parts = jax.vmap(split.take)(z)
        own, done = zip(
            *(
                bijector.init(k, part, context)
                for bijector, k, part in zip(
                    (first, second), jax.random.split(key), parts, strict=True
                )
            ),
            strict=True,
        )
        return own, jax.vmap(split.join)(*done)

    def both(params, halves, context, apply):
        (a, log_det_a), (b, log_det_b) = (
            apply(bijector)(own, half, context)
            for bijector, own, half in zip((first, second), params, halves, strict=True)
        )
        return split.join(a, b), log_det_a + log_det_b

    def forward(params, z, context):
        return both(params, split.take(z), context, lambda bijector: bijector.forward)

    def inverse(params, y, context):
        return both(params, split.take(y), context, lambda bijector: bijector.inverse)

    return Bijector(init, forward, inverse)


# --- couplings ----------------------------------------------------------------------------------


class Conditioner(NamedTuple):
    """A network of a coupling.

    Attributes:
      init: (key, a, context, num_outputs) -> params, from one datum of a.
      apply: (params, a, context, num_outputs) -> [*a.shape, num_outputs].
    """

    init: Callable[[Array, Array, PyTree, int], PyTree]
    apply: Callable[[PyTree, Array, PyTree, int], Array]


def coupling(conditioner: Conditioner, transform: Elementwise, split: Split) -> Bijector:
    """(a, b) -> (a, f(b; network(a, context))) with the halves of a `Split`."""
    count = transform.num_outputs

    def init(key, z, context):
        first = jax.tree.map(lambda leaf: leaf[0], (z, context))
        a, _ = split.take(first[0])
        params = conditioner.init(key, a, first[1], count)
        return params, jax.vmap(forward, (None, 0, 0))(params, z, context)[0]

    def forward(params, z, context):
        a, b = split.take(z)
        y, log_slope = transform.forward(conditioner.apply(params, a, context, count), b)
        return split.join(a, y), jnp.sum(log_slope)

    def inverse(params, y, context):
        a, b = split.take(y)
        z, log_slope = transform.inverse(conditioner.apply(params, a, context, count), b)
        return split.join(a, z), jnp.sum(log_slope)

    return Bijector(init, forward, inverse)


# --- what needs no network ----------------------------------------------------------------------


class Norm(NamedTuple):
    """y = (z - mean) e^{-log_sd}, each entry of a datum by itself or shared."""

    mean: Array
    log_sd: Array


def activation_norm(*, share: tuple[int, ...] = (), identity: bool = False) -> Bijector:
    """Entries standardised by the statistics of the first batch, and learned from there on.

    Args:
      share: axes of a datum over which statistics are shared: (0, 1) of an image for one number
        a channel (Glow), none for one each entry (Flow++).
      identity: whether it starts as the identity instead, whatever the first batch is.
    """

    def init(key, z, context):
        del key
        axes = (0, *(axis + 1 for axis in share))
        mean, variance = jnp.mean(z, axes, keepdims=True), jnp.var(z, axes, keepdims=True)
        params = Norm(mean[0], 0.5 * jnp.log(jnp.maximum(variance[0], 1e-8)))
        if identity:
            params = jax.tree.map(jnp.zeros_like, params)
        return params, jax.vmap(forward, (None, 0, 0))(params, z, context)[0]

    def log_det(params, z):
        return -jnp.sum(jnp.broadcast_to(params.log_sd, z.shape))

    def forward(params, z, context):
        del context
        return (z - params.mean) * jnp.exp(-params.log_sd), log_det(params, z)

    def inverse(params, y, context):
        del context
        return y * jnp.exp(params.log_sd) + params.mean, log_det(params, y)

    return Bijector(init, forward, inverse)


def invertible_1x1(*, noise: float = 1e-3) -> Bijector:
    """A matrix W over the channels (last axis), the same at every pixel, near the identity.

    The matrix is kept whole: log |det W| of as many channels as an image has costs nothing.
    Source: Kingma & Dhariwal 2018 (arXiv 1807.03039); start from I + `noise` N as in Flow++.
    """

    def init(key, z, context):
        count = z.shape[-1]
        weight = jnp.eye(count) + noise * jax.random.normal(key, (count, count))
        return weight, jax.vmap(forward, (None, 0, 0))(weight, z, context)[0]

    def log_det(weight, z):
        pixels = math.prod(z.shape[:-1])
        return pixels * jnp.linalg.slogdet(weight)[1]

    def forward(weight, z, context):
        del context
        return z @ weight, log_det(weight, z)

    def inverse(weight, y, context):
        del context
        flat = jnp.linalg.solve(weight.T, y.reshape(-1, y.shape[-1]).T).T
        return flat.reshape(y.shape), log_det(weight, y)

    return Bijector(init, forward, inverse)


def fixed(
    forward: Callable[[Array], tuple[Array, Array]],
    inverse: Callable[[Array], tuple[Array, Array]],
) -> Bijector:
    """A map without parameters, from functions datum -> (datum, log |det| of forward)."""

    def init(key, z, context):
        del key, context
        return (), jax.vmap(lambda datum: forward(datum)[0])(z)

    return Bijector(
        init, lambda params, z, context: forward(z), lambda params, y, context: inverse(y)
    )


def space_to_depth() -> Bijector:
    """[H, W, C] -> [H/2, W/2, 4C]; ValueError for odd sizes."""

    def forward(z):
        _check_even("space_to_depth", z.shape, (0, 1))
        height, width, count = z.shape
        blocks = z.reshape(height // 2, 2, width // 2, 2, count)
        return blocks.transpose(0, 2, 1, 3, 4).reshape(height // 2, width // 2, -1), jnp.zeros(())

    def inverse(y):
        height, width, count = y.shape
        blocks = y.reshape(height, width, 2, 2, count // 4)
        return blocks.transpose(0, 2, 1, 3, 4).reshape(2 * height, 2 * width, -1), jnp.zeros(())

    return fixed(forward, inverse)


def flatten(shape: Sequence[int]) -> Bijector:
    """An image of `shape` as a vector."""
    return fixed(
        lambda z: (z.reshape(-1), jnp.zeros(())), lambda y: (y.reshape(shape), jnp.zeros(()))
    )


def logit_preprocess(levels: int, *, margin: float = 0.05) -> Bijector:
    r"""Data in (0, levels) -> the real line: logit of margin + (1 - 2 margin) y / levels.

    .. math:: \log|\det| = D \log\frac{1 - 2m}{levels} - \sum_d [\log v_d + \log(1 - v_d)]

    Source: Dinh et al. 2017 (arXiv 1605.08803), section 4.1; margin 0.05 as in Flow++.
    """
    scale = (1.0 - 2.0 * margin) / levels

    def forward(z):
        y, log_slope = elementwise.logit(margin + scale * z)
        return y, jnp.sum(log_slope) + z.size * math.log(scale)

    def inverse(y):
        v, log_slope = elementwise.sigmoid(y)
        return (v - margin) / scale, -jnp.sum(log_slope) + y.size * math.log(scale)

    return fixed(forward, inverse)


def _check_even(name: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    if any(shape[axis] % 2 for axis in axes):
        raise ValueError(f"{name} needs even sizes, got a datum of shape {shape}.")
