"""Checks of a config's numbers, made before anything is computed or written."""

import math
import numbers
from typing import Any

from ml_collections import ConfigDict

from experiments.runtime.errors import UserError


def whole(config: Any, least: int, *names: str) -> None:
    """Refuses fields that are not whole numbers of at least `least`."""
    for name in names:
        if not is_whole(config[name]) or config[name] < least:
            raise UserError(
                f"config.{name} must be a whole number of at least {least}, got {config[name]!r}."
            )


def positive(config: Any, *names: str) -> None:
    """Refuses fields that are not finite numbers above 0."""
    for name in names:
        if not is_number(config[name]) or not 0 < config[name] < math.inf:
            raise UserError(f"config.{name} must be a finite number above 0, got {config[name]!r}.")


def seeds(name: str, values: Any) -> None:
    """Refuses what is no seed: JAX keeps 32 bits of one, so larger ones would repeat."""
    for value in values:
        if not is_whole(value) or not 0 <= value < 2**32:
            raise UserError(
                f"config.{name} must be a whole number from 0 to {2**32 - 1}, got {value!r}."
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
    whole = isinstance(config[field], ConfigDict)
    try:
        if whole and not isinstance(value, dict):
            raise TypeError
        config[field] = ConfigDict(value) if whole else value
    except TypeError:
        kind = "a dict" if whole else f"of the kind of {config[field]!r}"
        raise UserError(f"{named} must be {kind}, got {value!r}.") from None


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
