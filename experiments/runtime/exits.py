"""How a program ends badly: one line on stderr and exit code 2."""

import os
import sys
from typing import NoReturn

from absl import flags


def fail(message: str) -> NoReturn:
    """Prints one line and exits with 2: the user can mend it."""
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
    raise SystemExit(2)


def parse(argv: list[str]) -> list[str]:
    """Parses absl flags; a mistake in them is one line."""
    try:
        rest = flags.FLAGS(argv)
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


def one_line(error: Exception) -> str:
    """An error in the config, with the flag that named it."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = error.args[0] if isinstance(error, KeyError) else error  # its str() is a repr
    given = next((a for a in sys.argv if a.startswith("--config=")), "--config")
    return f"{given}: {' '.join(str(text).split())}"
