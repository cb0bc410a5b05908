"""The one exception that means: the user can mend this."""

from typing import Any


class UserError(Exception):
    """A mistake in what the user gave; its message is one sentence that says what to do."""


# Where the data lie, and how much is in memory at once: they change from machine to machine, and
# no number but its last digit.
_OF_THE_MACHINE = {
    "data_dir", "images_per_pass", "samples_per_pass", "ais_images_per_pass", "chunk_elements",
    "posteriors_per_pass",
}  # fmt: skip


def differing_fields(there: dict[str, Any], now: dict[str, Any]) -> str:
    """The fields in which two configs differ in what they ask for, with both values.

    Empty where they agree.
    """
    names = sorted((set(there) | set(now)) - _OF_THE_MACHINE)
    return ", ".join(
        f"{n} ({there.get(n)} there, {now.get(n)} now)" for n in names if there.get(n) != now.get(n)
    )
