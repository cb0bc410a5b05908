"""Chains of bijectors; links that are alike are compiled once, and run in a loop."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from models.bijectors import Bijector


class Repeated(NamedTuple):
    """Links of a chain that are alike, one repetition after the other.

    Attributes:
      make: the index of a repetition -> its bijectors. The index is traced: shapes are those of
        every repetition, and the datum keeps its own.
      number: of repetitions.
      first: the index of the first one.
      unroll: whether their programs stand in a row after all. Each is compiled then; on a CPU that
        is no slower where they are small, and a loop of small ones is.
    """

    make: Callable[[Any], Sequence[Bijector]]
    number: int
    first: int = 0
    unroll: bool = False


def chain(links: Sequence[Bijector | Repeated]) -> Bijector:
    """One after the other.

    Parameters are a tuple with those of each link. Those of a `Repeated` are a tuple for its
    bijectors in turn, whose leaves have the repetition as leading axis. They start as they would
    if all bijectors stood in the chain by themselves.
    """
    row = _row([_loop(link) if isinstance(link, Repeated) else link for link in links])
    counts = [len(v.make(v.first)) * v.number if isinstance(v, Repeated) else 1 for v in links]
    ends = np.cumsum(counts).tolist()

    def init(key, z, context):
        keys = jax.random.split(key, ends[-1])
        own: Any = [
            keys[end - count : end] if isinstance(link, Repeated) else keys[end - 1]
            for link, count, end in zip(links, counts, ends, strict=True)
        ]
        return row.init(own, z, context)

    return row._replace(init=init)


def _row(bijectors: Sequence[Bijector]) -> Bijector:
    """Its `init` takes what that of each bijector does: a key, or several."""

    def init(keys, z, context):
        params = []
        for bijector, key in zip(bijectors, keys, strict=True):
            own, z = bijector.init(key, z, context)
            params.append(own)
        return tuple(params), z

    def forward(params, z, context):
        total = jnp.zeros(())
        for bijector, own in zip(bijectors, params, strict=True):
            z, log_det = bijector.forward(own, z, context)
            total += log_det
        return z, total

    def inverse(params, y, context):
        total = jnp.zeros(())
        for bijector, own in zip(reversed(bijectors), reversed(params), strict=True):
            y, log_det = bijector.inverse(own, y, context)
            total += log_det
        return y, total

    return Bijector(init, forward, inverse)


def _loop(link: Repeated) -> Bijector:
    """Its `init` takes a key for each bijector of each repetition."""
    indices = link.first + np.arange(link.number)

    def init(keys, z, context):
        def body(z, at):
            index, own = at
            params, z = _row(link.make(index)).init(own, z, context)
            return z, params

        each = len(link.make(link.first))
        z, params = jax.lax.scan(body, _promoted(z), (indices, keys.reshape(link.number, each)))
        return params, z

    def run(apply, params, z, context, *, reverse: bool):
        def body(z, at):
            index, own = at
            return apply(_row(link.make(index)))(own, z, context)

        start, at = _promoted(z, *jax.tree.leaves(params)), (indices, params)
        z, log_dets = jax.lax.scan(body, start, at, reverse=reverse, unroll=link.unroll)
        # Not added up on the way: a constant to start from is of no device, and they may be of one.
        return z, jnp.sum(log_dets)

    def forward(params, z, context):
        return run(lambda bijector: bijector.forward, params, z, context, reverse=False)

    def inverse(params, y, context):
        return run(lambda bijector: bijector.inverse, params, y, context, reverse=True)

    return Bijector(init, forward, inverse)


def _promoted(z: Array, *params: PyTree) -> Array:
    """As the type that these parameters, or new ones, would give it: a loop keeps its types."""
    return z.astype(jnp.result_type(z, *(params or (jnp.zeros(()),))))
