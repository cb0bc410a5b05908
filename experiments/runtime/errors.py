"""The one exception that means: the user can mend this."""

from typing import Any


class UserError(Exception):
    """A mistake in what the user gave; its message is one sentence that says what to do."""


def differing_fields(there: dict[str, Any], now: dict[str, Any], *, ignore: tuple = ()) -> str:
    """The fields in which two configs differ, with both values; empty where they agree."""
    names = sorted((set(there) | set(now)) - set(ignore))
    return ", ".join(
        f"{n} ({there.get(n)} there, {now.get(n)} now)" for n in names if there.get(n) != now.get(n)
    )
