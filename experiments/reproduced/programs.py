"""The programs in which published numbers are measured again, each with its door."""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from experiments import evaluate, reference
from experiments.compare import __main__ as compare
from experiments.compare.settings import Compare
from experiments.dalle import __main__ as dalle
from experiments.dalle.settings import Dalle
from experiments.dequantize import __main__ as dequantize
from experiments.dequantize.settings import Dequantize
from experiments.diffusion import __main__ as diffusion
from experiments.diffusion.settings import Diffusion
from experiments.reproduced.settings import Reproduced
from experiments.runtime import settings, subprograms
from experiments.runtime.errors import UserError
from experiments.runtime.settings import Section
from experiments.snr import __main__ as snr
from experiments.surgery import __main__ as surgery
from experiments.surgery.settings import Surgery
from experiments.vae.settings import Evaluate, Reference

Main = Callable[[Any, str], None]


def _door(main: Main, kind: type[Section]) -> tuple[Main, Callable[[Mapping[str, Any]], Section]]:
    return main, functools.partial(settings.parse, kind)


# Name -> main, and config -> settings.
PROGRAMS: dict[str, tuple[Main, Callable[[Mapping[str, Any]], Section]]] = {
    "snr": (snr.main, snr.parse),
    "evaluate": _door(evaluate.main, Evaluate),
    "reference": _door(reference.main, Reference),
    "surgery": _door(surgery.main, Surgery),
    "dequantize": _door(dequantize.main, Dequantize),
    "diffusion": _door(diffusion.main, Diffusion),
    "dalle": _door(dalle.main, Dalle),
    "compare": _door(compare.main, Compare),
}


class Job(NamedTuple):
    """A part that is ready to run: its program, what that is asked for, and the folder of both."""

    program: str
    main: Main
    asked: Section
    folder: str


def jobs(asked: Reproduced, workdir: str) -> dict[str, Job]:
    """The parts to run by name, all of them looked at before the first one runs.

    Raises:
      UserError: a program, a file or a field is wrong.
    """
    return settings.each(asked.order, lambda name: _job(asked, name, workdir), "--config.parts")


def _job(asked: Reproduced, name: str, workdir: str) -> Job:
    where, part = f"--config.parts.{name}", asked.parts[name]
    if part.program not in PROGRAMS:
        raise UserError(
            f"{where}.program must be one of {', '.join(PROGRAMS)}, got {part.program!r}."
        )
    main, parse = PROGRAMS[part.program]
    try:
        fields = subprograms.load_config(part.config, _filled(part.changes, workdir))
        if "data_dir" in fields:
            fields["data_dir"] = asked.data_dir
        return Job(part.program, main, parse(fields), os.path.join(workdir, name))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _filled(value: Any, workdir: str) -> Any:
    """Changes with the folder of the parts put in, see `Part`."""
    if isinstance(value, dict):
        return {name: _filled(v, workdir) for name, v in value.items()}
    return value.replace("{parts}", workdir) if isinstance(value, str) else value
