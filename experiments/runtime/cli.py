"""Command line shared by every program: flags, exit codes, one-line errors.

Exit codes: 0 finished; 2 the user can mend it (one line says how); 143 stopped by SIGTERM and
130 by Ctrl-C, with everything finished so far on disk.
"""

import logging as python_logging
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from experiments.runtime.errors import UserError

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, e.g. configs/snr_gaussian.py:near; override with --config.NAME=."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for results; a run stopped midway continues from what it holds."
)


def run(main: Callable[[ConfigDict, str], None]) -> NoReturn:
    """Parses the flags, calls main(config, workdir) and exits with the code of its outcome."""

    def absl_main(argv: list[str]) -> None:
        if len(argv) > 1:
            _fail(f"unexpected argument {argv[1]!r}; every option has the form --name=value.")
        config = _checked_config()
        if not WORKDIR.value:
            _fail("--workdir is missing; name a folder for the results.")
        signal.signal(signal.SIGTERM, _on_sigterm)
        try:
            main(config, os.path.abspath(WORKDIR.value))
        except UserError as error:
            _fail(str(error))
        except KeyboardInterrupt:
            print(f"Stopped. {_resume_hint()}", file=sys.stderr)
            raise SystemExit(130) from None

    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(None)  # plain lines: the messages say it all
    logging.set_verbosity(logging.INFO)
    for library in ("jax", "orbax", "matplotlib"):
        python_logging.getLogger(library).setLevel(python_logging.WARNING)
    app.run(absl_main, flags_parser=_parse)
    raise SystemExit(0)


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except SystemExit:  # --help and its kin, for which absl exits with 1
        raise SystemExit(0) from None
    except flags.Error as error:
        lines = str(error).strip().splitlines()
        # A config's own error comes as a whole traceback, whose last line says it all.
        _fail(f"{' '.join(dict.fromkeys([lines[0], lines[-1]]))} (see --help).")
    except Exception as error:  # a config's own code may raise anything
        _fail(_one_line(error))


def _checked_config() -> ConfigDict:
    """The config; a file that could not be read shows only when it is touched."""
    if CONFIG.value is None:
        _fail("--config is missing; name a config file, e.g. --config=configs/snr_gaussian.py:near")
    path = config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0]
    if not os.path.exists(path):
        _fail(f"config file {path} is not there.")
    try:
        CONFIG.value.to_dict()
    except Exception as error:
        _fail(_one_line(error))
    return CONFIG.value


def _one_line(error: Exception) -> str:
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = error.args[0] if isinstance(error, KeyError) else error  # its str() is a repr
    given = next((a for a in sys.argv if a.startswith("--config=")), "--config")
    return f"{given}: {' '.join(str(text).split())}"


def _on_sigterm(signum, frame) -> NoReturn:
    del signum, frame
    print(f"Stopped by SIGTERM. {_resume_hint()}", file=sys.stderr)
    raise SystemExit(143)


def _resume_hint() -> str:
    return f"Finished points are in {WORKDIR.value}; the same command continues from there."


def _fail(message: str) -> NoReturn:
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
    raise SystemExit(2)
