"""The program of a study: models x seeds, trained and scored one after another, then compared."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import PyTree

from experiments.runtime import results, subprograms
from experiments.runtime.errors import UserError
from experiments.runtime.fit import Run
from experiments.runtime.results import Row
from experiments.studies import comparable
from experiments.studies.ensemble import train_members
from experiments.studies.family import Family, Job
from experiments.studies.points import run_missing
from experiments.studies.settings import Study
from experiments.studies.study import Point, Prepared, points, size_and_time, summarize
from experiments.studies.training import identity

Train = Callable[[Prepared, Point, str], tuple[list[PyTree], float]]
"""(prepared, point, its folder) -> (parameters of each seed, seconds of each)."""

Score = Callable[[Prepared, str, PyTree, dict[str, Any], str], list[Row]]
"""(prepared, name, parameters, what tells the model from others, folder) -> rows."""


class Parts(NamedTuple):
    """What a study is made of.

    Attributes:
      program: `experiments.PROGRAM`.
      settings: what its config is parsed into.
      check: settings -> prepared: data and models, all that may be refused before training.
      run: (prepared, point, its folder) -> rows; trains and scores one point, see `run_of`.
      show: (data, rows, settings, workdir): prints the tables and writes the figures.
      refuse: settings -> why its log-probabilities are not of the integers of the images; empty
        where they are.
    """

    program: str
    settings: type[Study]
    check: Callable[[Any], Prepared]
    run: Callable[[Prepared, Point, str], list[Row]]
    show: Callable[[Any, list[Row], Any, str], None]
    refuse: Callable[[Any], str] = lambda settings: ""


def run_of(train: Train, score: Score, draw: Callable[..., None]) -> Callable[..., list[Row]]:
    """The `run` that trains the models of a point, scores each and draws from the first.

    Args:
      train: see `Train` and `one_stage`.
      score: see `Score`.
      draw: (data, model, parameters, section of the evaluation, folder): writes pictures.
    """

    def run(prepared: Prepared, point: Point, folder: str) -> list[Row]:
        found, seconds = train(prepared, point, folder)
        rows = []
        for params, seed in zip(found, point.seeds, strict=True):
            at = {"model": point.name, "seed": seed}
            rows += score(prepared, point.name, params, at, folder)
            rows += size_and_time(params, at, seconds)
        model, wanted = prepared.models[point.name], prepared.settings.evaluation
        draw(prepared.data, model, found[0], wanted, folder)
        return rows

    return run


def one_stage(make_run: Callable[[Any, Any, Any, int], Run]) -> Train:
    """Training of all seeds of a point by make_run(data, model, what is trained, seed)."""

    def train(prepared: Prepared, point: Point, folder: str) -> tuple[list[PyTree], float]:
        own, asked = prepared.trained[point.name], prepared.settings
        model = prepared.models[point.name]
        runs = [make_run(prepared.data, model, own, seed) for seed in point.seeds]
        named = identity(own, asked.OF_MODEL, point.seeds)
        return train_members(runs, asked.records, folder, named, best=True)

    return train


def main(parts: Parts, settings: Study, workdir: str) -> None:
    """Trains and scores what is missing, then prints the table over seeds."""
    prepared = parts.check(settings)
    record = results.open_record(workdir, parts.program, settings)
    run = functools.partial(parts.run, prepared)
    rows = run_missing(record, points(settings), workdir, run)
    record["rows"] = rows + summarize(rows, settings.compare)
    results.save_record(workdir, record)
    parts.show(prepared.data, record["rows"], settings, workdir)


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
