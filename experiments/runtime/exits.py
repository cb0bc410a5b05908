"""How a program reads its flags, prints, and ends badly: one line on stderr and exit code 2."""

import errno
import os
import re
import sys
from typing import Any, NoReturn

from absl import flags


def fail(message: str) -> NoReturn:
    """Prints one line and exits with 2: the user can mend it."""
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
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


def parse(argv: list[str]) -> list[str]:
    """Parses absl flags; a mistake in them is one line."""
    try:
        rest = flags.FLAGS(_last_of_each(flags.FLAGS.read_flags_from_files(argv, force_gnu=False)))
    except SystemExit:  # --help and its kin, for which absl exits with 1
        raise SystemExit(0) from None
    except flags.Error as error:
        lines = str(error).strip().splitlines()
        # A config's own error comes as a whole traceback, whose last line says it all.
        fail(f"{' '.join(dict.fromkeys([lines[0], lines[-1]]))} (see --help).")
    except Exception as error:  # a config's own code may raise anything
        fail(one_line(error))
    if len(rest) > 1:
        fail(f"unexpected argument {rest[1]!r}; every option has the form --name=value.")
    return rest


def _last_of_each(argv: list[str]) -> list[str]:
    """The arguments without a field of the config that is given again later on.

    ml_collections joins tuples that are given twice, and replaces anything else.
    """
    kept, given = [], set()
    for place in reversed(range(len(argv))):
        found = re.match(r"--?(config\.[^=]+)(=?)", argv[place])
        if found and found[1] in given:
            # `--config.FIELD VALUE` goes with its value.
            if not found[2] and kept and not kept[-1].startswith("-"):
                kept.pop()
            continue
        if found:
            given.add(found[1])
        kept.append(argv[place])
    return kept[::-1]


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
    given = next((a for a in sys.argv if a.startswith("--config=")), "--config")
    return f"{given}: {text}"
