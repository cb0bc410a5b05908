"""What can be said of a paper: numbers and orders of numbers, each with where ours are."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Place(NamedTuple):
    """A row of a part: its name and what of its `at` tells it from others of that name."""

    part: str
    name: str
    at: Mapping[str, Any] = MappingProxyType({})


class Claim(NamedTuple):
    """A number of ours, beside the published one and its standard error where there are such."""

    of: str
    ours: Place
    value: float | None = None
    error: float | None = None


class Order(NamedTuple):
    """A published order: the one is above the other, by `size` without their signs.

    Where both of them are among the claims of its source, their difference was published as well.
    """

    of: str
    above: Place
    below: Place
    size: bool = False


class Source(NamedTuple):
    """A table or figure of a paper.

    Attributes:
      paper: with the place in it.
      differs: what is not as it was there.
      claims: numbers.
      orders: of numbers; they can agree where a shorter training leaves the numbers apart.
      trained: whether the numbers are of models that were trained, so that one seed says less than
        its error does.
    """

    paper: str
    differs: str
    claims: tuple[Claim, ...] = ()
    orders: tuple[Order, ...] = ()
    trained: bool = True

    def claim(self, ours: Place) -> Claim | None:
        """What it says of a place."""
        return next((c for c in self.claims if c.ours == ours), None)
