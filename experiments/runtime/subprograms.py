"""Programs that run others: a config file with changes, and a run with its table in a file."""

import contextlib
import importlib.util
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from experiments.runtime import checks, paths
from experiments.runtime.errors import UserError, another_program
from experiments.runtime.results import write_atomically

OUTPUT = "output.txt"  # what the program printed
_ROOT = pathlib.Path(__file__).parents[2]  # of the checkout, where configs/ lies


def load_config(spec: str, changes: Mapping[str, Any]) -> ConfigDict:
    """The config of a file such as configs/train_digits.py, or FILE:VARIANT, with changes.

    Args:
      spec: a path, from the working directory or from the checkout.
      changes: field -> value in its place; a ConfigDict takes the place of the whole field.

    Returns:
      The config.

    Raises:
      UserError: the file is not there or fails, or has no such field, or one of another kind.
    """
    if not spec:
        raise UserError("a config file must be named, e.g. configs/train_digits.py.")
    name, variant = paths.split_config(paths.local("the config file", spec))
    path = next((p for p in (pathlib.Path(name), _ROOT / name) if p.is_file()), None)
    if path is None:
        raise UserError(f"config file {name} is not there.")
    try:
        config = config_of(path, variant)
    except Exception as error:
        raise UserError(f"{spec}: {' '.join(str(error).split())}") from None
    changes = changes.to_dict() if isinstance(changes, ConfigDict) else changes
    for field, value in changes.items():
        if field not in config:
            raise UserError(f"{spec} has no field {field!r}.")
        checks.set_field(config, field, value, f"{field} of {spec}")
    return config


def config_of(path: str | os.PathLike[str], variant: str | None) -> ConfigDict:
    """What the `get_config` of a file returns; raises whatever the file does."""
    found = importlib.util.spec_from_file_location("config_of_a_file", path)
    if found is None or found.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.get_config(variant) if variant else module.get_config()


def check_kinds(config: ConfigDict, program: str) -> None:
    """Refuses fields of another kind than in the program's own files, and numbers beyond JAX's.

    Args:
      config: of the program; values may be of any kind.
      program: its name, as of `experiments.snr`.

    Raises:
      UserError: a field is of another kind, not finite, or too large.
    """
    files = sorted((_ROOT / "configs").glob(f"{program}*.py"))
    shipped = [load_config(str(path), {}) for path in files]
    # The fields of experiments.snr mean different things in different problems.
    same = [c for c in shipped if c.get("problem") == config.get("problem")] or shipped
    if same and all(2 * len(set(c) & set(config)) < len(c) for c in same):
        raise UserError(another_program(next(name for name in same[0] if name not in config)))
    for name, value in config.items():
        like = [c[name] for c in same if name in c]
        checks.alike(f"config.{name}", value, like)


def run(name: str, main: Callable[[Any, str], None], config: ConfigDict, workdir: str) -> None:
    """Runs the `main` of a program; what it prints goes to a file in its folder.

    Progress and logs stay on stderr. The program continues from what its folder holds.
    """
    logging.info("%s: in %s", name, workdir)
    os.makedirs(workdir, exist_ok=True)
    path = os.path.join(workdir, OUTPUT)
    with open(path + ".part", "w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        main(config, workdir)
    with open(path + ".part", "rb") as file:
        write_atomically(path, file.read())
    os.unlink(path + ".part")
