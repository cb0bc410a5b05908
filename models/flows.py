r"""Continuous densities of images: the flow of Flow++, at any size.

Preprocessing by a logit, couplings over a checkerboard, space to depth, couplings over channels and
over a checkerboard again, and a standard normal base.

Source: Ho et al. 2019 (arXiv 1902.00275) and the code its authors released.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from models import bijectors
from models.bijectors import Bijector, Conditioner
from models.chains import Repeated, chain
from models.conditioners import Context
from models.elementwise import Elementwise

MakeConditioner = Callable[[Any], Conditioner]
"""index of a coupling, which may be traced -> its network: of one shape for couplings in a loop."""


NORMS: dict[str, Callable[[], list[Bijector]]] = {
    "pixel": lambda: [bijectors.activation_norm()],
    "channel": lambda: [bijectors.activation_norm(share=(0, 1))],
    "none": list,
}


class Density(NamedTuple):
    """A continuous density of one datum in units of integers.

    Attributes:
      init: (key, y [N, ...]) -> params, from a batch of dequantized data.
      log_density: (params, y, dropout key or None) -> log p(y) in nats.
      transform: (params, y) -> the noise z of a datum.
      generate: (params, z) -> y; NaN where an inverse did not converge.
    """

    init: Callable[[Array, Array], PyTree]
    log_density: Callable[[PyTree, Array, Any], Array]
    transform: Callable[[PyTree, Array], Array]
    generate: Callable[[PyTree, Array], Array]


def density(bijector: Bijector) -> Density:
    """The density of data that a bijector takes to standard normal noise."""

    def init(key, y):
        empty = Context()
        return bijector.init(key, y, empty)[0]

    def log_density(params, y, dropout=None):
        z, log_det = bijector.forward(params, y, Context(dropout=dropout))
        return jnp.sum(-0.5 * (jnp.square(z) + math.log(2 * math.pi))) + log_det

    def transform(params, y):
        return bijector.forward(params, y, Context())[0]

    def generate(params, z):
        return bijector.inverse(params, z, Context())[0]

    return Density(init, log_density, transform, generate)


FLOWPP = ("checkerboard:4", "squeeze", "channels:2", "checkerboard:3")
SPLITS: dict[str, Callable[[], bijectors.Split]] = {
    "checkerboard": bijectors.checkerboard,
    "channels": bijectors.channels,
}


def image_flow(
    levels: int,
    transform: Elementwise,
    conditioner: MakeConditioner,
    *,
    layout: Sequence[str] = FLOWPP,
    pointwise: bool = True,
    norm: str = "pixel",
    unroll: bool = False,
) -> Bijector:
    """Images [H, W, C] in (0, levels) to noise [H / 2^s, W / 2^s, 4^s C] after s squeezes.

    Args:
      levels: of the data.
      transform: of the couplings.
      conditioner: index -> network.
      layout: in order, "checkerboard:N" or "channels:N" for N couplings over halves of that kind
        in turns, which run in a loop, and "squeeze" for space to depth.
      pointwise: whether invertible 1x1 maps, one of each half, stand between couplings.
      norm: which activation norms stand between couplings: "pixel" has numbers for each entry as
        in Flow++, "channel" shares them over an image as in Glow, so that a pixel that is blank
        in the images that start them is no trap; "none" has none.
      unroll: of the loops, as in `chains.Repeated`.

    Raises:
      ValueError: `layout` or `norm` is none of these.
    """

    def step(split, first, index):
        parts = NORMS[norm]()
        if pointwise:
            each = bijectors.invertible_1x1()
            parts.append(bijectors.halves(each, each, split))
        own = bijectors.swapped(split, (index - first) % 2 == 1)
        return [*parts, bijectors.coupling(conditioner(index), transform, own)]

    links: list[Bijector | Repeated] = [bijectors.logit_preprocess(levels)]
    done = 0
    for stage in layout:
        kind, _, count = stage.partition(":")
        if stage == "squeeze":
            links.append(bijectors.space_to_depth())
            continue
        if kind not in SPLITS or not count.isdecimal() or norm not in NORMS:
            raise ValueError(
                f"a layout holds squeeze and {' or '.join(f'{k}:N' for k in SPLITS)}, and norm is "
                f"one of {', '.join(NORMS)}; got {stage!r} and {norm!r}."
            )
        own = functools.partial(step, SPLITS[kind](), done)
        links.append(Repeated(own, int(count), done, unroll))
        done += int(count)
    return chain(links)
