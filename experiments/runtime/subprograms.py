"""Programs that run others: a config file with changes, and a run with its table in a file."""

import contextlib
import importlib.util
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from experiments.runtime import cluster, paths, settings
from experiments.runtime.errors import UserError
from experiments.runtime.results import write_atomically
from experiments.runtime.settings import Section

OUTPUT = "output.txt"  # what the program printed
_ROOT = pathlib.Path(__file__).parents[2]  # of the checkout, where configs/ lies


# Fields of which a change takes the place of all that was there.
WHOLE = (("models",), ("picture", "model"))


def load_config(spec: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a file such as configs/train_digits.py, or FILE:VARIANT, with changes.

    Args:
      spec: a path, from the working directory or from the checkout.
      changes: field -> value, or section -> field -> value.

    Returns:
      The fields, not looked at.

    Raises:
      UserError: the file is not there or fails.
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
    fields = config.to_dict()
    for *sections, name in WHOLE:
        inner, change = fields, changes
        for section in sections:
            inner, change = inner.get(section, {}), change.get(section, {})
        if name in inner and name in change:
            inner[name] = {}
    return settings.merged(fields, changes)


def config_of(path: str | os.PathLike[str], variant: str | None) -> ConfigDict:
    """What the `get_config` of a file returns; raises whatever the file does."""
    found = importlib.util.spec_from_file_location("config_of_a_file", path)
    if found is None or found.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.get_config(variant) if variant else module.get_config()


def run(name: str, main: Callable[[Any, str], None], asked: Section, workdir: str) -> None:
    """Runs the `main` of a program; what it prints goes to a file in its folder.

    Progress and logs stay on stderr. The program continues from what its folder holds.
    """
    logging.info("%s: in %s", name, workdir)
    cluster.on_first(lambda: os.makedirs(workdir, exist_ok=True))
    path = os.path.join(workdir, OUTPUT)
    part = path + ".part" if cluster.is_first() else os.devnull
    with open(part, "w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        main(asked, workdir)

    def keep() -> None:
        with open(part, "rb") as file:
            write_atomically(path, file.read())
        os.unlink(part)

    cluster.on_first(keep)
