"""The one exception that means: the user can mend this."""

from typing import Any


class UserError(Exception):
    """A mistake in what the user gave; its message is one sentence that says what to do."""


def another_program(field: str) -> str:
    """What to say of a config that lacks a field its program cannot do without."""
    return (
        f"the config given by --config is of another program: it lacks {field!r}; "
        "the first lines of each file in configs/ name the program it is for."
    )


# Where data and runs lie, and how much is in memory at once: they change from machine to machine,
# and no number but its last digit; a run is known by its checkpoint's checksum. `order` is that of
# a comparison, which collects its rows anew.
_OF_THE_MACHINE = {
    "data_dir", "images_per_pass", "samples_per_pass", "ais_images_per_pass", "chunk_elements",
    "posteriors_per_pass", "run", "order",
}  # fmt: skip


def differing_fields(there: dict[str, Any], now: dict[str, Any]) -> str:
    """The fields in which two configs differ in what they ask for, with both values.

    Empty where they agree.
    """
    there, now = _leaves(there), _leaves(now)
    names = sorted(n for n in set(there) | set(now) if n.split(".")[-1] not in _OF_THE_MACHINE)
    return ", ".join(
        f"{n} ({there.get(n)} there, {now.get(n)} now)" for n in names if there.get(n) != now.get(n)
    )


def _leaves(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields of fields by their names with dots between."""
    out = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            out |= _leaves(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out
