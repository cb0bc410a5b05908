"""Command line shared by every program: flags, exit codes, one-line errors.

Exit codes: 0 finished; 2 the user can mend it (one line says how); 143 stopped by SIGTERM, or by
the loss of another process of the run, and 130 by Ctrl-C, with everything finished so far on disk.
"""

import logging as python_logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar, cast

from absl import app, flags, logging
from ml_collections import config_flags

from experiments.runtime import cluster, guard, paths, settings, signals, subprograms
from experiments.runtime.errors import UserError
from experiments.runtime.exits import fail, fields_of, finish, one_line, parse, steady_streams

S = TypeVar("S", bound=settings.Section)
Fields = Mapping[str, Any]
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, e.g. configs/snr_gaussian.py:near; override with --config.NAME=."
)
flags.adopt_module_key_flags(cluster)
_load = flags.FLAGS["config"].parser.parse


def _load_config(argument: str) -> Any:
    """Loads FILE or FILE:VARIANT, also where ml_collections would cut the file's own path."""
    path, variant = paths.split_config(argument)
    if ":" in path and os.path.isfile(path):
        return subprograms.config_of(path, variant).lock()
    return _load(path if variant is None else f"{path}:{variant}")


flags.FLAGS["config"].parser.parse = _load_config
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for results; a run stopped midway continues from what it holds."
)


def run(main: Callable[[S, str], None], kind: type[S] | Callable[[Fields], S]) -> NoReturn:
    """Parses flags and config, calls main(settings, workdir), exits with the code of its outcome.

    Args:
      main: of the program.
      kind: the settings it takes, or what parses them where a config is of one of several kinds.
    """

    def absl_main(argv: list[str]) -> None:
        try:
            of_main(argv)
        except SystemExit as left:
            guard.leaving(left.code if isinstance(left.code, int) else 1)
            raise
        except Exception:
            guard.leaving(1)
            raise

    def of_main(argv: list[str]) -> None:
        config = _checked_config()
        for argument, fields in zip(argv[1:], fields_of(argv[1:]), strict=True):
            _check_name(config, argument)
            config = settings.merged(config, fields)
        if not WORKDIR.value:
            fail("--workdir is missing; name a folder for the results.")
        signal.signal(signal.SIGTERM, _on_sigterm)
        try:
            workdir = os.path.abspath(paths.local("--workdir", WORKDIR.value))
            if flags.FLAGS.checkpoint_dir:
                given = paths.checkpoints("--checkpoint_dir", flags.FLAGS.checkpoint_dir)
                flags.FLAGS.checkpoint_dir = given
            asked = _parsed(config, kind)
            cluster.join()
            main(asked, workdir)
        except UserError as error:
            fail(str(error))
        except KeyboardInterrupt:
            print(f"Stopped. {_resume_hint()}", file=sys.stderr)
            _leave(130)
        except _Stopped:
            _leave(143)
        except signals.Stopped as stop:
            reason = "SIGTERM" if stop.code == 143 else "Ctrl-C"
            print(f"Stopped by {reason}. {_resume_hint()}", file=sys.stderr)
            raise
        except Exception as error:
            if cluster.is_lost(error):
                print(guard.LOST, file=sys.stderr)
                _leave(143)
            reason = missing_device(error) or exhausted_memory(error)
            if reason is None:
                raise
            fail(reason)
        finish()

    steady_streams()
    os.environ["MPLBACKEND"] = "Agg"  # figures are files; a notebook's backend may not be here
    logging.use_absl_handler()
    logging.get_absl_handler().python_handler.setStream(sys.stderr)
    logging.get_absl_handler().setFormatter(None)  # plain lines: the messages say it all
    logging.set_verbosity(logging.INFO)
    for library in ("jax", "matplotlib"):
        python_logging.getLogger(library).setLevel(python_logging.WARNING)
    # Orbax logs through absl, whole tracebacks at times; what failed is raised as well.
    logging.get_absl_handler().addFilter(lambda record: "orbax" not in record.pathname)
    app.run(absl_main, flags_parser=parse)
    raise SystemExit(0)


def _parsed(config: Fields, kind: type[S] | Callable[[Fields], S]) -> S:
    if isinstance(kind, type):
        return settings.parse(cast(type[S], kind), config)
    return kind(config)


def missing_device(error: Exception) -> str | None:
    """What to say where JAX does not find the kind of device that the environment names."""
    named, jax = os.environ.get("JAX_PLATFORMS"), sys.modules.get("jax")
    # A RuntimeError, or a failed assertion of its own: asking again tells whether it is this one.
    if not named or jax is None or not isinstance(error, RuntimeError | AssertionError):
        return None
    try:
        jax.devices()
    except Exception:
        return (
            f"JAX_PLATFORMS={named} names a kind of device that JAX does not find here; unset it, "
            "or set it to cpu."
        )
    return None


def exhausted_memory(error: Exception) -> str | None:
    """What to say where the device has too little memory."""
    if "RESOURCE_EXHAUSTED" not in str(error) and not isinstance(error, MemoryError):
        return None
    return (
        "the device has too little memory for this; lower the fields of --config.memory and repeat "
        "the command, or lower counts of samples or the batch_size in another --workdir."
    )


def _checked_config() -> Fields:
    """The fields of the config; a file that could not be read shows only when it is touched."""
    if CONFIG.value is None:
        fail("--config is missing; name a config file, e.g. --config=configs/snr_gaussian.py:near")
    path, _ = paths.split_config(config_flags.get_config_filename(flags.FLAGS["config"]))
    if not os.path.exists(path):
        fail(f"config file {path} is not there.")
    try:
        return CONFIG.value.to_dict()
    except Exception as error:
        fail(one_line(error))


def _check_name(config: Fields, argument: str) -> None:
    """Refuses a field of what has no such name, e.g. of a model: the name may be mistyped."""
    of, *path = argument.split("=")[0].partition("config.")[2].split(".")
    there = config.get(of)
    if of not in settings.NAMED_BY_USERS or len(path) < 2 or not isinstance(there, Mapping):
        return
    if path[0] not in there:
        fail(
            f"--config.{of}.{path[0]} is not there; {of} has {', '.join(map(str, there))}. "
            f"A new one is given whole, as in --config.{of}.{path[0]}={{'{path[1]}': ...}}."
        )


class _Stopped(SystemExit):
    """By SIGTERM, at once."""


def _on_sigterm(signum, frame) -> NoReturn:
    del signum, frame
    print(f"Stopped by SIGTERM. {_resume_hint()}", file=sys.stderr)
    raise _Stopped(143)


def _leave(code: int) -> NoReturn:
    """Ends the process at once: threads of XLA that still compute would crash its shutdown."""
    guard.leaving(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _resume_hint() -> str:
    return f"What is finished is in {WORKDIR.value}; the same command continues from there."
