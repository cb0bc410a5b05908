"""What `experiments.compare` runs: programs of this project, each with its config and folder."""

import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import evaluate, train
from experiments.compare import needs
from experiments.dalle import __main__ as dalle
from experiments.dequantize import __main__ as dequantize
from experiments.diffusion import __main__ as diffusion
from experiments.runtime import checks, cluster, paths, results, subprograms
from experiments.runtime.errors import UserError, differing_fields
from experiments.vae import build

# A program, what its record calls it, and whether its own table has bits/dim.
STUDIES: dict[str, Callable[[Any, str], None]] = {
    "dequantize": dequantize.main,
    "diffusion": diffusion.main,
    "dalle": dalle.main,
}
FIELDS = ("title", "program", "config", "changes", "evaluation", "evaluation_changes", "run")
EVALUATION = "evaluation"  # the folder of a VAE's evaluation


class Family(NamedTuple):
    """One entry of `config.families`; configs are ConfigDicts.

    Attributes:
      name: of its rows: `title`, or else the entry's own name.
      program: "train", or one of STUDIES.
      config: of the program; of a finished run, the config it had.
      folder: where it runs, or ran.
      finished: whether it is taken as it is.
      evaluation: config of `experiments.evaluate`, for a VAE.
      evaluation_folder: where that runs.
    """

    name: str
    program: str
    config: Any
    folder: str
    finished: bool
    evaluation: Any = None
    evaluation_folder: str = ""


def check(config: Any, workdir: str) -> list[Family]:
    """The families of a config, before anything is trained.

    Raises:
      UserError: a name, a file, a field or a run is wrong, or one is of other data.
    """
    if cluster.CHECKPOINT_DIR.value:
        raise UserError(
            "experiments.compare keeps checkpoints in --workdir; leave --checkpoint_dir out, or "
            "name finished runs in config.families.NAME.run."
        )
    checks.distinct(config, "order")
    for name in config.order:
        if name not in config.families:
            raise UserError(
                f"config.order names {name!r}, which is none of config.families: "
                f"{', '.join(config.families)}."
            )
    return [_family(name, config, workdir) for name in config.order]


def _family(name: str, config: Any, workdir: str) -> Family:
    where = f"config.families.{name}"
    if not isinstance(config.families[name], ConfigDict):
        raise UserError(f"{where} must hold {', '.join(FIELDS)}, got {config.families[name]!r}.")
    entry: dict[str, Any] = config.families[name].to_dict()
    if not name.isidentifier():
        raise UserError(
            f"config.families has the name {name!r}; it is that of a folder and of a flag as well, "
            "so use letters, digits and _ only, and `title` for another one in the table."
        )
    unknown = sorted(set(entry) - set(FIELDS))
    if unknown:
        raise UserError(f"{where} has {', '.join(unknown)}; it takes {', '.join(FIELDS)}.")
    program = entry.get("program", "")
    if program not in ("train", *STUDIES):
        raise UserError(
            f"{where}.program must be one of train, {', '.join(STUDIES)}, got {program!r}."
        )
    shared = {"dataset": config.dataset, "data_dir": config.data_dir}
    run = paths.local(f"{where}.run", entry.get("run", ""))
    if run:
        own, folder = _config_of(run, program, where), os.path.abspath(run)
    else:
        own = subprograms.load_config(
            entry.get("config", ""), {**shared, **entry.get("changes", {})}
        )
        folder = os.path.join(workdir, name)
    if own.get("dataset") != config.dataset:
        raise UserError(f"{where} is of {own.get('dataset')!r}, this comparison of "
                        f"{config.dataset!r}; compare on the same data.")  # fmt: skip
    needs.check(where, program, own)
    family = Family(entry.get("title") or name, program, own, folder, bool(run))
    if program == "train":
        changes = {"data_dir": config.data_dir, **entry.get("evaluation_changes", {})}
        changes["run"] = folder
        evaluation = subprograms.load_config(entry.get("evaluation", ""), changes)
        inside = os.path.join(workdir, name) if run else os.path.join(folder, EVALUATION)
        family = family._replace(evaluation=evaluation, evaluation_folder=inside)
    try:
        needs.check_settings(program, own if not run else None, family.evaluation)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return family


def _config_of(run: str, program: str, where: str) -> ConfigDict:
    """The config of a finished run.

    Raises:
      UserError: there is none, or it has not come to its end.
    """
    settings = build.config_of_run(f"{where}.run", run) if program == "train" else None
    try:
        record = load(run)
        experiment, rows = record["experiment"], [dict(r) for r in record["rows"]]
        settings = settings or ConfigDict(record["config"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{where}.run={run} has no readable results; name the --workdir of a finished run of "
            f"experiments.{program}, or leave run empty to train one."
        ) from None
    if experiment != program:
        raise UserError(f"{where}.run is of experiments.{experiment}, not {program}.")
    # Studies write their summary, and trainings their only rows, at the end.
    asked = json.loads(settings.to_json_best_effort())
    if all("point" in r for r in rows) or differing_fields(record.get("config", asked), asked):
        raise UserError(
            f"{where}.run={run} has not come to its end; run experiments.{program} there again, "
            "with the same command."
        )
    return settings


def load(folder: str) -> dict[str, Any]:
    """The record in a folder."""
    with open(os.path.join(folder, results.FILE)) as file:
        return json.load(file)


def run(family: Family, label: str) -> None:
    """Trains and scores what is missing."""
    if family.program == "train":
        if not family.finished:
            subprograms.run(f"{label}: training", train.main, family.config, family.folder)
        assert family.evaluation is not None
        subprograms.run(
            f"{label}: evaluation", evaluate.main, family.evaluation, family.evaluation_folder
        )
    elif not family.finished:
        subprograms.run(label, STUDIES[family.program], family.config, family.folder)
