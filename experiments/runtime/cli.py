"""Command line shared by every program: flags, exit codes, one-line errors.

Exit codes: 0 finished; 2 the user can mend it (one line says how); 143 stopped by SIGTERM and
130 by Ctrl-C, with everything finished so far on disk.
"""

import logging as python_logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from experiments.runtime import paths, subprograms
from experiments.runtime.errors import UserError, another_program
from experiments.runtime.exits import fail, finish, one_line, parse, steady_streams

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, e.g. configs/snr_gaussian.py:near; override with --config.NAME=."
)
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


def run(main: Callable[[ConfigDict, str], None]) -> NoReturn:
    """Parses the flags, calls main(config, workdir) and exits with the code of its outcome."""

    def absl_main(argv: list[str]) -> None:
        del argv
        config = _checked_config()
        if not WORKDIR.value:
            fail("--workdir is missing; name a folder for the results.")
        signal.signal(signal.SIGTERM, _on_sigterm)
        try:
            workdir = os.path.abspath(paths.local("--workdir", WORKDIR.value))
            if "checkpoint_dir" in flags.FLAGS and flags.FLAGS.checkpoint_dir:
                given = paths.checkpoints("--checkpoint_dir", flags.FLAGS.checkpoint_dir)
                flags.FLAGS.checkpoint_dir = given
            check(config, main)
            main(config, workdir)
        except UserError as error:
            fail(str(error))
        except KeyboardInterrupt:
            print(f"Stopped. {_resume_hint()}", file=sys.stderr)
            _leave(130)
        except _Stopped:
            _leave(143)
        except Exception as error:
            reason = missing_field(error) or missing_device(error) or exhausted_memory(error)
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


def missing_field(error: Exception) -> str | None:
    """What to say where a program asked its config for a field that is not there."""
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, AttributeError | KeyError) or not frames:
        return None
    if os.path.basename(frames[-1].filename) != "config_dict.py":
        return None
    field = getattr(error, "name", None) or str(error.args[0] if error.args else error)
    return another_program(field.splitlines()[0])


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
        "the device has too little memory for this; lower images_per_pass, samples_per_pass, "
        "ais_images_per_pass or chunk_elements and repeat the command, or lower num_samples, "
        "batch_size or validation_samples in another --workdir."
    )


def _checked_config() -> ConfigDict:
    """The config; a file that could not be read shows only when it is touched."""
    if CONFIG.value is None:
        fail("--config is missing; name a config file, e.g. --config=configs/snr_gaussian.py:near")
    path, _ = paths.split_config(config_flags.get_config_filename(flags.FLAGS["config"]))
    if not os.path.exists(path):
        fail(f"config file {path} is not there.")
    try:
        CONFIG.value.to_dict()
    except Exception as error:
        fail(one_line(error))
    return CONFIG.value


def check(config: ConfigDict, main: Callable[[ConfigDict, str], None]) -> None:
    """Refuses fields of a kind that the program of this `main` takes in no config.

    Raises:
      UserError: a field is of another kind, not finite, or too large.
    """
    from experiments.runtime.subprograms import check_kinds

    spec = sys.modules[main.__module__].__spec__
    if spec is not None:
        check_kinds(config, spec.name.rpartition(".")[2])


class _Stopped(SystemExit):
    """By SIGTERM, outside of training."""


def _on_sigterm(signum, frame) -> NoReturn:
    del signum, frame
    print(f"Stopped by SIGTERM. {_resume_hint()}", file=sys.stderr)
    raise _Stopped(143)


def _leave(code: int) -> NoReturn:
    """Ends the process at once: threads of XLA that still compute would crash its shutdown."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _resume_hint() -> str:
    return f"What is finished is in {WORKDIR.value}; the same command continues from there."
