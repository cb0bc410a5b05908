"""Checks of a config's numbers, made before anything is computed or written."""

import math
import numbers
import re
import reprlib
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from experiments.runtime.errors import UserError

SEEDS = 2**32  # there are so many
COUNTS = 2**31  # JAX counts below it
FLOATS = 3.4e38  # of float32
# What no model has: more layers would be traced for hours, and XLA ends the process where the
# number of entries of an array overflows.
LAYERS, WIDTH, TIMES = 100, 2**16, 10**6


def whole(config: Any, least: int, *names: str, most: int | None = None) -> None:
    """Refuses fields that are not whole numbers of at least `least`, and of `most` at most."""
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    for name in names:
        value = config[name]
        if not is_whole(value) or value < least or (most is not None and value > most):
            raise UserError(f"config.{name} must be a whole number {bounds}, got {value!r}.")


def positive(config: Any, *names: str) -> None:
    """Refuses fields that are not finite numbers above 0."""
    for name in names:
        if not is_number(config[name]) or not 0 < config[name] < math.inf:
            raise UserError(f"config.{name} must be a finite number above 0, got {config[name]!r}.")


def seeds(name: str, values: Any) -> None:
    """Refuses what is no seed: JAX keeps 32 bits of one, so larger ones would repeat."""
    for value in values:
        if not is_whole(value) or not 0 <= value < SEEDS:
            raise UserError(
                f"config.{name} must be a whole number from 0 to {SEEDS - 1}, got {value!r}."
            )


def distinct(config: Any, *names: str) -> None:
    """Refuses sequences that are empty or name something twice."""
    for name in names:
        values = tuple(config[name])
        if not values:
            raise UserError(f"config.{name} must not be empty.")
        if len(set(values)) < len(values):
            raise UserError(f"config.{name} names something twice: {values}.")


def set_field(config: Any, field: str, value: Any, named: str) -> None:
    """Sets a field of a config; refuses a value of another kind, under the name `named`."""
    alike(named, value, [config[field]])
    config[field] = ConfigDict(value) if isinstance(config[field], ConfigDict) else value


def alike(name: str, value: Any, like: Iterable[Any]) -> None:
    """Refuses a value of another kind than all of `like`, down to the entries of sequences.

    Args:
      name: of the value in the message; a seed if it is called one.
      value: what is looked at.
      like: values that are right; an entry of theirs may be a mapping, whose fields are free.

    Raises:
      UserError: it is none of these kinds, not finite, or beyond what JAX counts to.
    """
    like, number = list(like), value
    wanted = list(dict.fromkeys(map(_kind, like)))
    shown = reprlib.repr(value.to_dict() if hasattr(value, "to_dict") else value)
    fits = {"a number": is_number, "a whole number": is_whole}
    if wanted and not any(fits.get(w, lambda v, w=w: _kind(v) == w)(value) for w in wanted):
        raise UserError(f"{name} must be {' or '.join(wanted)}, got {shown}.")
    if isinstance(value, numbers.Real) and not abs(number) <= FLOATS:
        raise UserError(f"{name} must be a finite number in float32, got {value}.")
    if is_whole(value):
        seed = re.search(r"(^|[._])seeds?(?![\w.])", name)
        least, most = (0, SEEDS - 1) if seed else (1 - COUNTS, COUNTS - 1)
        if not least <= number <= most:
            raise UserError(f"{name} must be a whole number from {least} to {most}, got {value}.")
    if isinstance(value, dict | ConfigDict):
        for field, entry in value.items():
            alike(f"{name}.{field}", entry, [])
    if isinstance(value, tuple | list):
        entries = [entry for other in like if isinstance(other, tuple | list) for entry in other]
        for place, entry in enumerate(value):
            alike(f"{name}[{place}]", entry, entries)


def is_number(value: Any) -> bool:
    """Whether it is a real number, and no truth value."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Whether it is an integer, and no truth value."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def known(config: Any, field: str, table: dict[str, Any]) -> Any:
    """What a field names in a table; refuses other names."""
    if config[field] not in table:
        raise UserError(f"config.{field} must be one of {', '.join(table)}, got {config[field]!r}.")
    return table[config[field]]


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "True or False"
    if is_whole(value):
        return "a whole number"
    if is_number(value):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, tuple | list):
        return "a tuple like (1, 2)"
    return "a dict" if isinstance(value, dict | ConfigDict) else type(value).__name__
