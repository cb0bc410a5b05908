"""Folders and files as users name them: what is no place on this machine is refused at once."""

import os
import re
import unicodedata
from collections.abc import Sequence

from experiments.runtime.errors import UserError

# Also with one slash, which is what is left of two once a path has been tidied.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_GLOB = re.compile(r"[][*?\\]")


def local(name: str, value: str) -> str:
    """A path on this machine, with the home folder in the place of `~`.

    Args:
      name: what the user calls it, for the message.
      value: what was given; empty stays empty.

    Raises:
      UserError: it is a remote address, names no home, or cannot be printed in one line.
    """
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise UserError(
            f"{name} must be a path of printable characters, got {value!r} with a line break, a "
            "control character or bytes that are no text; rename the folder."
        )
    if _ADDRESS.match(value):
        raise UserError(
            f"{name} must be a folder or a file on this machine, got the address {value}; mount "
            "it, and give the path (./ in front if it is one)."
        )
    path = os.path.expanduser(value)
    if path.startswith("~"):
        raise UserError(
            f"{name}={value}: there is no such home folder; write ./{value} for a path of that "
            "name."
        )
    return path


def checkpoints(name: str, value: str) -> str:
    """The same, or a folder in a bucket, gs://...

    Raises:
      UserError: see `local`; or the address has characters that Orbax takes for a pattern.
    """
    if not value.startswith("gs://"):
        try:
            return local(name, value)
        except UserError as error:
            if not _ADDRESS.match(value):
                raise
            raise UserError(
                f"{name} must be a folder on this machine or gs://BUCKET/FOLDER, got {value}."
            ) from error
    if _GLOB.search(value) or not value.isprintable():
        raise UserError(
            f"{name} must have none of [ ] * ? \\ and no control character in the name of a "
            f"bucket or its folders, got {value!r}."
        )
    return value


def is_taken_literally(path: str) -> bool:
    """Whether Orbax takes an absolute path for what it says.

    It searches the whole path of a folder for patterns, reads a colon at the end of a name as that
    of an address, and some folders at the root as buckets.
    """
    odd = _GLOB.search(path) or re.search(r":(/|$)", path)
    return not odd and not re.match(r"/(gs|s3|az|hf)(/|$)", path)


def split_config(spec: str) -> tuple[str, str | None]:
    """(file, variant or None) of FILE or FILE:VARIANT; a folder may have colons in its name."""
    parts = spec.split(":")
    for count in range(1, len(parts) + 1):
        path = os.path.expanduser(":".join(parts[:count]))
        if os.path.isfile(path):
            return path, ":".join(parts[count:]) if count < len(parts) else None
    found = re.fullmatch(r"(.*?\.py):(.*)", spec)  # not there: for the message
    return (found[1], found[2]) if found else (spec, None)


def places(data_dir: str, folder: str) -> list[str]:
    """Where files may lie, in the order in which they are looked for.

    In the folder of a data set inside `data_dir`, however its name is written (fashion-mnist,
    FashionMNIST), in one of the same name inside that, or in `data_dir`; and in a folder raw of
    each, as torchvision has it.
    """

    def alike(parent: str) -> list[str]:
        return [os.path.join(parent, n) for n in _listed(parent) if _plain(n) == _plain(folder)]

    inside = alike(data_dir)
    nested = [path for parent in inside for path in alike(parent)]
    bases = dict.fromkeys([os.path.join(data_dir, folder), *inside, *nested, data_dir])
    return [path for base in bases for path in (base, os.path.join(base, "raw"))]


def seen(folders: Sequence[str], *, most: int = 6) -> str:
    """What is in folders, in the words that end a sentence on what is not."""
    there = [folder for folder in dict.fromkeys(folders) if os.path.isdir(folder)]
    parts = []
    for folder in there:
        names = _listed(folder)
        more = f" and {len(names) - most} more" if len(names) > most else ""
        parts.append(f"in {folder} there is {', '.join(names[:most]) or 'nothing'}{more}")
    return ", ".join(parts) or "no such folder is there"


def _listed(folder: str) -> list[str]:
    """Names in a folder, sorted; none where it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())
