"""Settings: the config of a program, parsed once at its door into frozen, typed sections.

A config file makes an `ml_collections.ConfigDict` of sections (data, model, objective ...), each a
`Section` below the door. Sections are pydantic models in strict mode: no value is converted, no
field is ignored, ranges and choices stand in the types, and all mistakes are told at once. Nothing
here imports JAX, so that a mistaken flag is answered at once.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_args

from ml_collections import ConfigDict
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic import ConfigDict as PydanticConfig

from experiments.runtime.errors import UserError

# Fields whose fields have names by the user: such a name may be that of a section.
NAMED_BY_USERS = {"models", "families", "runs"}
_GREATEST = 2**31 - 1  # what a 32-bit integer of a device holds


def _in_float32(value: float) -> float:
    if value > 3.4e38:
        raise ValueError(f"must be at most 3.4e+38, got {value}")
    return value


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
Positive = Annotated[float, Field(gt=0), AfterValidator(_in_float32)]
"""A finite number above 0."""
AtLeast0 = Annotated[float, Field(ge=0), AfterValidator(_in_float32)]
"""A finite number of at least 0."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1."""
BelowOne = Annotated[float, Field(ge=0, lt=1)]
"""A number from 0 to below 1."""


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"must not name anything twice, got {values}")
    return values


def matching(pattern: str, words: str) -> AfterValidator:
    """A text that is a pattern from its beginning to its end; `words` say so to the user."""

    def matched(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be {words}, got {text!r}")
        return text

    return AfterValidator(matched)


NotEmpty = Field(min_length=1)
Distinct = AfterValidator(_distinct)


class Section(BaseModel):
    """Fields of a config that belong together."""

    model_config = PydanticConfig(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )

    def complete(self, where: str) -> None:
        """Parses what needs all fields to be right, e.g. what models of a study change.

        Raises:
          UserError: something in it is wrong; `where` is what its fields are called in messages.
        """


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
    given = config.to_dict() if isinstance(config, ConfigDict) else config
    try:
        # By way of JSON, in which a config comes back from a file: tuples may be lists there.
        parsed = kind.model_validate_json(json.dumps(_plain(given)))
    except ValidationError as error:
        raise UserError(" ".join(_told(kind, given, error, where))) from None
    parsed.complete(where)
    return parsed


def each(names: Iterable[str], make: Callable[[str], Any], where: str) -> dict[str, Any]:
    """Makes something for each of the names that a user gave, e.g. of models.

    Args:
      names: the names.
      make: name -> what is made; may raise a UserError.
      where: what the names are fields of, in messages.

    Returns:
      name -> what was made.

    Raises:
      UserError: all mistakes, each with its name; one that all have is told once.
    """
    made, told = {}, {}
    for name in names:
        try:
            made[name] = make(name)
        except UserError as error:
            told[name] = str(error)
    if len(told) > 1 and not made and len(set(told.values())) == 1:
        raise UserError(next(iter(told.values())))
    if told:
        places = {name: f"{where}.{name}" for name in told}
        raise UserError(
            " ".join(
                message if message.startswith(places[name]) else f"{places[name]}: {message}"
                for name, message in told.items()
            )
        )
    return made


def _plain(value: Any) -> Any:
    """What JSON can hold of a value; a repr, which no type takes, of what it cannot."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):  # bytes that are no text have no place in JSON
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return _shown(value)
    return value if value is None or isinstance(value, bool | int | float) else repr(value)


def merged(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested fields, with the values of `changes`, which are nested alike, in their places."""
    out = dict(fields)
    for name, value in changes.items():
        inner = isinstance(value, Mapping) and isinstance(out.get(name), Mapping)
        out[name] = merged(out[name], value) if inner else value
    return out


def dump(settings: Section, kind: type[Section] | None = None) -> dict[str, Any]:
    """Settings as they come back from a file; only the fields of `kind` where it is given."""
    return settings.model_dump(mode="json", include=set(kind.model_fields) if kind else None)


_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "bool_type": "True or False",
    "tuple_type": "a tuple such as (1, 2)",
    "too_long": "a tuple of another length",
    "dict_type": "fields with values",
    "model_type": "a section of fields",
}
_WORDS = {
    "Input should be ": "",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}
_FEW = 3  # unknown fields that are told one by one
_MOST_BITS = 1000  # Python makes no decimals of much longer numbers


def _told(
    kind: type[Section], given: Mapping[str, Any], error: ValidationError, where: str
) -> Iterator[str]:
    """A sentence for each mistake."""
    found = [
        # An entry that a tuple lacks is a mistake of the tuple.
        {**e, "type": "too_long", "loc": e["loc"][:-1]}
        if e["type"] == "missing" and isinstance(e["loc"][-1], int)
        else {**e}
        for e in error.errors(include_url=False)
    ]
    missing = [_place("", e["loc"]) for e in found if e["type"] == "missing"]
    unknown = [e["loc"] for e in found if e["type"] == "extra_forbidden"]
    if missing:
        yield (
            f"{where} lacks {', '.join(missing)}; the first lines of each file in configs/ name "
            "the program it is for."
        )
    if len(unknown) > _FEW:
        yield f"{where} has {', '.join(_place('', loc) for loc in unknown)}, which are no fields."
    else:
        for loc in unknown:
            yield f"{_place(where, loc)} is no field{_instead(kind, loc, where)}"
    told = [_told_of_value(given, e, where) for e in found]
    yield from dict.fromkeys(filter(None, told))


def _told_of_value(given: Mapping[str, Any], e: dict[str, Any], where: str) -> str:
    """A sentence on a value that is not taken; empty where another one tells it."""
    if e["type"] in ("missing", "extra_forbidden"):
        return ""
    place, got = _place(where, e["loc"]), _at(given, e["loc"])
    if e["type"] == "value_error":
        return _of_validator(place, got, str(e["ctx"]["error"]).rstrip("."))
    if e["type"] == "too_short":  # also said of a tuple whose entries are wrong
        return "" if got else f"{place} must be filled; it is empty."
    wanted = str(_WANTED.get(e["type"], e["msg"]))
    for theirs, ours in _WORDS.items():
        wanted = wanted.replace(theirs, ours)
    return f"{place} must be {wanted}, got {_shown(got)}."


def _place(where: str, loc: tuple[int | str, ...]) -> str:
    """What a user calls a field, or an entry of it."""
    names = [f"[{n}]" if isinstance(n, int) else f".{n}" for n in loc if n != "[key]"]
    return (where + "".join(names)).removeprefix("." if not where else "")


def _of_validator(place: str, got: Any, said: str) -> str:
    """What a validator says of a field, or of a section, whose fields it names first."""
    first = re.split(r"\W", said)[0]
    if isinstance(got, Mapping) and first in got:
        return f"{place}.{said}."
    return f"{place} {said}." if said.startswith("must ") else f"{place}: {said}."


def _at(given: Any, loc: tuple[int | str, ...]) -> Any:
    """What the user gave there: a tuple, and not the list that JSON made of it."""
    for name in loc:
        if isinstance(given, Mapping):  # whose names JSON has made texts of
            given = {str(n): value for n, value in given.items()}.get(str(name))
        elif isinstance(given, tuple | list) and isinstance(name, int):
            given = given[name]
    return given


def _shown(value: Any, most: int = 200) -> str:
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _instead(kind: type[Section], loc: tuple[int | str, ...], where: str) -> str:
    """The end of a sentence on an unknown field: which may have been meant.

    That of the nearest name in the same section if there is one, else anywhere.
    """
    own, name = _section_at(kind, loc[:-1]), str(loc[-1])
    inside = {n: _place(where, (*loc[:-1], n)) for n in own.model_fields}
    anywhere = {f.rpartition(".")[2]: f"{where}.{f}" for f in reversed([*_fields(kind)])}
    for names in (inside, anywhere):
        for near in difflib.get_close_matches(name, names, n=1, cutoff=0.7):
            return f"; did you mean {names[near]}?"
    return f"; {_place(where, loc[:-1])} has {', '.join(inside)}."


def _section_at(kind: type[Section], loc: tuple[int | str, ...]) -> type[Section]:
    """The section that a place is in; what users have named is passed over."""
    for name in loc:
        field = kind.model_fields.get(str(name))
        kind = next(_sections(field.annotation), kind) if field else kind
    return kind


def _sections(annotation: Any) -> Iterator[type[Section]]:
    for inner in (annotation, *get_args(annotation)):
        if isinstance(inner, type) and issubclass(inner, Section):
            yield inner


def _fields(kind: type[Section], prefix: str = "") -> Iterator[str]:
    """Names of all fields, with dots between; none of what has a name by a user before it."""
    for name, field in kind.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type):
            for inner in _sections(field.annotation):
                yield from _fields(inner, f"{prefix}{name}.")
