"""The program of a study: models x seeds, trained and scored one after another, then compared."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.runtime import results, subprograms
from experiments.runtime.errors import UserError
from experiments.runtime.results import Row
from experiments.studies import comparable
from experiments.studies.family import Family, Job
from experiments.studies.points import run_missing
from experiments.studies.settings import Study
from experiments.studies.study import Point, points, summarize


class Parts(NamedTuple):
    """What a study is made of; `prepared` is whatever `check` returns.

    Attributes:
      program: `experiments.PROGRAM`.
      settings: what its config is parsed into.
      check: settings -> prepared: data and models, all that may be refused before training.
      run: (prepared, point, its folder) -> rows; trains and scores one point.
      show: (prepared, rows, workdir): prints the tables and writes the figures.
      refuse: settings -> why its log-probabilities are not of the integers of the images; empty
        where they are.
    """

    program: str
    settings: type[Study]
    check: Callable[[Any], Any]
    run: Callable[[Any, Point, str], list[Row]]
    show: Callable[[Any, list[Row], str], None]
    refuse: Callable[[Any], str] = lambda settings: ""


def main(parts: Parts, settings: Study, workdir: str) -> None:
    """Trains and scores what is missing, then prints the table over seeds."""
    prepared = parts.check(settings)
    record = results.open_record(workdir, parts.program, settings)
    run = functools.partial(parts.run, prepared)
    rows = run_missing(record, points(settings), workdir, run)
    record["rows"] = rows + summarize(rows, settings.compare)
    results.save_record(workdir, record)
    parts.show(prepared, record["rows"], workdir)


def family(parts: Parts) -> Family:
    """The study as a family of the comparison."""

    def check(job: Job) -> None:
        reason = parts.refuse(job.settings)
        if reason:
            raise UserError(reason)
        if not job.finished:
            parts.check(job.settings)

    def run(job: Job) -> None:
        if not job.finished:
            subprograms.run(job.name, functools.partial(main, parts), job.settings, job.folder)

    def rows(job: Job) -> list[Row]:
        return comparable.rows(results.load(job.folder)["rows"])

    return Family(parts.program, parts.settings, None, check, run, rows)
