"""How a program reads its flags, prints, and ends badly: one line on stderr and exit code 2."""

import ast
import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from absl import flags


def fail(message: str) -> NoReturn:
    """Prints one line and exits with 2: the user can mend it."""
    folder, name = os.path.split(sys.argv[0])
    name = os.path.basename(folder) if name == "__main__.py" else name
    print(f"{name}: {message}", file=sys.stderr)
    raise SystemExit(2)


class Printed:
    """A standard stream that outlives its reader: numbers are on disk, whatever becomes of prints.

    Attributes:
      error: why something could not be written; None where all was, or where its reader had enough
        (`| head -1`, a pager that was left).
    """

    def __init__(self, stream: Any):
        self._stream, self.error = stream, None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # no locale is to lose a line

    def write(self, text: str) -> int:
        """Writes what can be written."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flushes; a stream that fails goes to the null device from then on."""
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, act: Any, *arguments: Any) -> None:
        try:
            act(*arguments)
        except OSError as error:
            if error.errno != errno.EPIPE:
                self.error = error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


def steady_streams() -> None:
    """Makes stdout and stderr safe to print to, also where they are closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed (`>&-`): the next file that is opened would take its place
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if not isinstance(getattr(sys, name), Printed):
            stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115
            setattr(sys, name, Printed(stream))


def finish() -> NoReturn:
    """Ends a program that came to its end: exit code 0 if what it printed could be written."""
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if error is not None:
        fail(f"stdout cannot be written ({error.strerror}); what was computed is on disk.")
    raise SystemExit(0)


# What Python says of a variant of a config whose function takes none.
_NO_VARIANT = "get_config() takes 0 positional arguments"
_FIELD = re.compile(r"--?(no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)


def parse(argv: list[str]) -> list[str]:
    """Parses absl flags; a mistake in them is one line.

    Returns:
      The program's name, and those `--config.FIELD=VALUE` that the config has no place for: what is
      wrong with them is for the settings of the program to say, all at once.
    """
    unset: list[list[str]] = []
    try:
        given = _last_of_each(flags.FLAGS.read_flags_from_files(argv, force_gnu=False))
        try:
            rest = _parsed(given)
        except Exception:
            others = [words for words in given if not _FIELD.fullmatch(words[0])]
            unset = [w for w in given if w not in others and not _passes([*others, w])]
            rest = _parsed([words for words in given if words not in unset])
    except SystemExit:  # --help and its kin, for which absl exits with 1
        raise SystemExit(0) from None
    except flags.Error as error:
        if _NO_VARIANT in str(error):
            fail(one_line(TypeError(_NO_VARIANT)))
        lines = str(error).strip().splitlines()
        # A config's own error comes as a whole traceback, whose last line says it all.
        fail(f"{' '.join(dict.fromkeys([lines[0], lines[-1]]))} (see --help).")
    except Exception as error:  # a config's own code may raise anything
        fail(one_line(error))
    if len(rest) > 1:
        fail(f"unexpected argument {rest[1]!r}; every option has the form --name=value.")
    return [*rest, *map("=".join, unset)]


def fields_of(arguments: list[str]) -> Iterator[dict[str, Any]]:
    """Each `--config.FIELD=VALUE` as field -> value, nested where the name has dots."""
    for argument in arguments:
        found = _FIELD.fullmatch(argument)
        assert found is not None
        value: Any = found[3]
        if value is None:  # as of a bool
            value = not found[1]
        else:
            # What is no Python value stays a text.
            with contextlib.suppress(ValueError, SyntaxError, TypeError, RecursionError):
                value = ast.literal_eval(value)
        for name in reversed(found[2].split(".")):
            value = {name: value}
        yield value


def _parsed(given: list[list[str]]) -> list[str]:
    """What absl leaves of the arguments; raises what it raises."""
    for name in [n for n in flags.FLAGS if n.startswith("config.")]:
        delattr(flags.FLAGS, name)  # it sets a field of the config of an earlier try
    argv = [word for words in given for word in words]
    before, sys.argv = sys.argv, argv  # where ml_collections looks for fields
    try:
        return flags.FLAGS(argv)
    finally:
        sys.argv = before


def _passes(given: list[list[str]]) -> bool:
    try:
        _parsed(given)
    except Exception:
        return False
    return True


def _last_of_each(argv: list[str]) -> list[list[str]]:
    """The arguments without a field of the config that is given again later on.

    ml_collections joins tuples that are given twice, and replaces anything else. A field with its
    value behind it, `--config.FIELD VALUE`, is two words.
    """
    given: list[list[str]] = []
    for word in argv:
        last = _FIELD.fullmatch(given[-1][0]) if given else None
        if last and last[3] is None and len(given[-1]) == 1 and not re.match("--?[A-Za-z]", word):
            given[-1].append(word)
        else:
            given.append([word])
    kept: dict[Any, list[str]] = {}
    for place, words in enumerate(given):
        found = _FIELD.fullmatch(words[0])
        name = found[2] if found else place
        kept.pop(name, None)  # it takes the later place
        kept[name] = words
    return [*kept.values()]


def one_line(error: Exception) -> str:
    """An error in the config, with the flag that named it."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    # The str() of a KeyError is a repr; where nothing resembles what was looked for, a bare name.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = " ".join(str(text).split()).strip("'") or type(error).__name__
    if isinstance(error, KeyError) and text.isidentifier():
        text = f"there is no {text!r} in this config"
        text += "; its file names all fields, and a variant goes behind the file, as in FILE:far."
    if _NO_VARIANT in text:
        text = "this file has no variants; leave out what stands behind its colon."
    given = next((a for a in sys.argv if a.startswith("--config=")), "--config")
    return f"{given}: {text}"
