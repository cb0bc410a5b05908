"""Settings: the config of a program, parsed once at its door into frozen, typed sections.

A config file makes an `ml_collections.ConfigDict` of sections (data, model, objective ...), each a
`Section` below the door. Sections are pydantic models in strict mode: no value is converted, no
field is ignored, ranges and choices stand in the types, and all mistakes are told at once. Nothing
here imports JAX, so that a mistaken flag is answered at once.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_args

from ml_collections import ConfigDict
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic import ConfigDict as PydanticConfig

from experiments.runtime.errors import UserError

_GREATEST = 2**31 - 1  # what a 32-bit integer of a device holds

Count = Annotated[int, Field(ge=1, le=_GREATEST)]
"""A whole number of at least 1."""
CountFrom0 = Annotated[int, Field(ge=0, le=_GREATEST)]
"""A whole number of at least 0."""
# Deeper and wider networks, and longer chains, are no mistake of a digit: tracing them would hang.
Width = Annotated[int, Field(ge=1, le=2**16)]
"""Units of a layer, filters, components or codes."""
Depth = Annotated[int, Field(ge=1, le=100)]
"""Layers or blocks."""
DepthFrom0 = Annotated[int, Field(ge=0, le=100)]
"""Layers or blocks, of which there may be none."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""JAX keeps 32 bits of a seed, so larger ones would repeat."""
Positive = Annotated[float, Field(gt=0)]
"""A finite number above 0."""
AtLeast0 = Annotated[float, Field(ge=0)]
"""A finite number of at least 0."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1."""
BelowOne = Annotated[float, Field(ge=0, lt=1)]
"""A number from 0 to below 1."""


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"must not name anything twice, got {values}")
    return values


NotEmpty = Field(min_length=1)
Distinct = AfterValidator(_distinct)


class Section(BaseModel):
    """Fields of a config that belong together."""

    model_config = PydanticConfig(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


S = TypeVar("S", bound=Section)


def parse(kind: type[S], config: ConfigDict | Mapping[str, Any], where: str = "--config") -> S:
    """A config as sections.

    Args:
      kind: what the program takes.
      config: what the user gave.
      where: what its fields are called in messages.

    Raises:
      UserError: fields are missing, unknown, of a wrong kind or out of range; all are named.
    """
    plain = config.to_dict() if isinstance(config, ConfigDict) else config
    try:
        # By way of JSON, in which a config comes back from a file: tuples may be lists there.
        return kind.model_validate_json(json.dumps(plain, default=repr))
    except ValidationError as error:
        raise UserError(" ".join(_told(kind, plain, error, where))) from None


def merged(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of fields, with changes of changes in their places."""
    out = dict(fields)
    for name, value in changes.items():
        inner = isinstance(value, Mapping) and isinstance(out.get(name), Mapping)
        out[name] = merged(out[name], value) if inner else value
    return out


def dump(settings: Section, kind: type[Section] | None = None) -> dict[str, Any]:
    """As it comes back from a file; only the fields of `kind` where it is given."""
    return settings.model_dump(mode="json", include=set(kind.model_fields) if kind else None)


_KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "bool_type": "True or False",
    "tuple_type": "a tuple such as (1, 2)",
    "dict_type": "fields with values",
    "model_type": "a section of fields",
    "too_short": "filled; it is empty",
}


def _told(
    kind: type[Section], given: Mapping[str, Any], error: ValidationError, where: str
) -> Iterator[str]:
    """A sentence for each mistake."""
    found = error.errors(include_url=False)
    # A tuple with a wrong entry counts as too short as well.
    inside = {e["loc"][:n] for e in found for n in range(len(e["loc"]))}
    found = [e for e in found if e["type"] != "too_short" or e["loc"] not in inside]
    missing = [".".join(map(str, e["loc"])) for e in found if e["type"] == "missing"]
    if missing:
        yield (
            f"{where} lacks {', '.join(missing)}; the first lines of each file in configs/ name "
            "the program it is for."
        )
    for e in found:
        place = f"{where}.{'.'.join(map(str, e['loc']))}" if e["loc"] else where
        if e["type"] == "extra_forbidden":
            yield f"{place} is no field of this program{_instead(kind, e['loc'], where)}."
        elif e["type"] == "value_error":
            yield f"{place}: {str(e.get('ctx', {}).get('error')).rstrip('.')}."
        elif e["type"] != "missing":
            wanted = _KINDS.get(e["type"]) or e["msg"].removeprefix("Input should be ")
            got = _at(given, e["loc"])
            yield f"{place} must be {wanted}, got {got!r}."


def _at(given: Any, place: tuple[int | str, ...]) -> Any:
    """What the user gave there: a tuple, and not the list that JSON made of it."""
    for name in place:
        given = given[name]
    return given


def _instead(kind: type[Section], place: tuple[int | str, ...], where: str) -> str:
    """The field that may have been meant: of the nearest name, in the same section if there is."""
    section, name = ".".join(map(str, place[:-1])), str(place[-1])
    known = list(_fields(kind))
    own = [f for f in known if f.rpartition(".")[0] == section]
    for fields in (own, known):
        ends = {f.rpartition(".")[2]: f for f in reversed(fields)}
        for near in difflib.get_close_matches(name, ends, n=1, cutoff=0.7):
            return f"; did you mean {where}.{ends[near]}?".rstrip("?")
    return f"; it has {', '.join(f.rpartition('.')[2] for f in own)}" if own else ""


def _fields(kind: type[Section], prefix: str = "") -> Iterator[str]:
    """Names of all fields, with dots between."""
    for name, field in kind.model_fields.items():
        yield prefix + name
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, Section):
                yield from _fields(inner, f"{prefix}{name}.")
