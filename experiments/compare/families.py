"""What `experiments.compare` runs: families of bounds, each with its settings and its folder."""

import os
from collections.abc import Mapping
from typing import Any

from experiments.compare.settings import Compare, Entry
from experiments.dalle.family import FAMILY as DALLE
from experiments.dequantize.family import FAMILY as DEQUANTIZE
from experiments.diffusion.family import FAMILY as DIFFUSION
from experiments.masked.family import FAMILY as MASKED
from experiments.runtime import cluster, paths, results, settings, subprograms
from experiments.runtime.changes import refuse_flat
from experiments.runtime.errors import UserError
from experiments.runtime.results import Row
from experiments.runtime.settings import Section
from experiments.studies.family import Family, Job
from experiments.vae.family import FAMILY as VAE

FAMILIES: dict[str, Family] = {f.program: f for f in (VAE, DEQUANTIZE, DIFFUSION, DALLE, MASKED)}
EVALUATION = "evaluation"  # the folder of a model that another program scores


def check(compare: Compare, workdir: str) -> list[tuple[Family, Job]]:
    """The families of a comparison, in its order, before anything is trained.

    Raises:
      UserError: a name, a file, a field or a run is wrong, or one is of other data.
    """
    finished = [name for name in compare.order if compare.families[name].run]
    if cluster.CHECKPOINT_DIR.value and finished:
        raise UserError(
            f"--config.families.{finished[0]}.run names a finished run, whose checkpoints lie in "
            "its folder; leave --checkpoint_dir out."
        )
    found = settings.each(
        compare.order, lambda name: _checked(name, compare, workdir), "--config.families"
    )
    return [*found.values()]


def _checked(name: str, compare: Compare, workdir: str) -> tuple[Family, Job]:
    where, entry = f"--config.families.{name}", compare.families[name]
    family = FAMILIES.get(entry.program)
    if family is None:
        raise UserError(
            f"{where}.program must be one of {', '.join(FAMILIES)}, got {entry.program!r}."
        )
    run = paths.local(f"{where}.run", entry.run)
    asked: Any
    if run:
        asked, folder = _of_run(run, family, where), os.path.abspath(run)
    else:
        shared = {"data": {"name": compare.data.name}, "data_dir": compare.data_dir}
        fields = _load(f"{where}.config", entry.config, settings.merged(shared, entry.changes))
        asked = settings.parse(family.settings, fields, f"{where}.changes")
        folder = os.path.join(workdir, name)
    if asked.data.name != compare.data.name:
        raise UserError(
            f"{where} is of {asked.data.name!r}, this comparison of {compare.data.name!r}; compare "
            "on the same data."
        )
    if family.scoring is None and (entry.evaluation or entry.evaluation_changes):
        raise UserError(
            f"{where}.evaluation and evaluation_changes must be left empty: experiments."
            f"{family.program} scores itself; its evaluation is a section of its config."
        )
    job = Job(entry.title or name, asked, folder, bool(run))
    if family.scoring is not None:
        inside = os.path.join(workdir, name) if run else os.path.join(folder, EVALUATION)
        job = job._replace(
            scoring=_scoring(family.scoring, entry, compare, folder, where), scoring_folder=inside
        )
    family.check(job)
    return family, job


def _scoring(
    kind: type[Section], entry: Entry, compare: Compare, folder: str, where: str
) -> Section:
    changes = {"data_dir": compare.data_dir, **entry.evaluation_changes, "run": folder}
    fields = _load(f"{where}.evaluation", entry.evaluation, changes)
    return settings.parse(kind, fields, f"{where}.evaluation_changes")


def _load(flag: str, spec: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a file with changes; a mistake is told with the flag that named the file."""
    try:
        return subprograms.load_config(spec, changes)
    except UserError as error:
        raise UserError(f"{flag}: {error}") from None


def _of_run(run: str, family: Family, where: str) -> Any:
    """The settings of a finished run.

    Raises:
      UserError: there is none, or it has not come to its end.
    """
    try:
        record = results.load(run)
        experiment, rows = record["experiment"], [dict(r) for r in record["rows"]]
        fields = dict(record["config"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{where}.run={run} has no readable results; name the --workdir of a finished run of "
            f"experiments.{family.program}, or leave run empty to train one."
        ) from None
    if experiment != family.program:
        raise UserError(f"{where}.run is of experiments.{experiment}, not {family.program}.")
    refuse_flat(f"{where}.run={run}", fields, {name: {} for name in family.settings.model_fields})
    # Studies write their summary, and trainings their only rows, at the end.
    if all("point" in r for r in rows):
        raise UserError(
            f"{where}.run={run} has not come to its end; run experiments.{family.program} there "
            "again, with the same command."
        )
    return settings.parse(family.settings, fields, f"{where}.run={run}: its config")


def rows(family: Family, job: Job) -> list[Row]:
    """What a family says about log P(x), in bits/dim."""
    found = family.rows(job)
    if not found:
        raise UserError(f"{job.folder} has no bound on log P(x) of images in bits/dim.")
    return [{**r, "at": {"family": job.name, **r["at"]}} for r in found]
