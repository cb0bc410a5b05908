"""A study: models x seeds, each model by what it changes in the config they share."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from experiments.runtime import settings
from experiments.runtime.results import Row, row
from experiments.studies.held_out import mean_row
from experiments.studies.points import groups_of_seeds, seeds_label
from experiments.studies.settings import Study

UNIT = "bits/dim"


class Point(NamedTuple):
    """Models that are trained in one go: one of a study's with some seeds."""

    name: str
    seeds: tuple[int, ...]

    @property
    def label(self) -> str:
        """Its name in records and its folder."""
        return f"{self.name}_{seeds_label(self.seeds)}"


class Prepared(NamedTuple):
    """What a study works with.

    Attributes:
      settings: those of the study.
      data: what models are of, as the family reads it.
      trained: name -> what is trained, an `OF_MODEL` of the settings.
      models: name -> the family's model.
    """

    settings: Any
    data: Any
    trained: dict[str, Any]
    models: dict[str, Any]


def prepare(asked: Study, data: Any, make: Callable[[Any], Any]) -> Prepared:
    """Makes the models of all names, so that none is refused after another has trained.

    Args:
      asked: settings of the study.
      data: what models are of.
      make: what is trained -> the model; it refuses by a UserError.
    """
    trained = {name: asked.of_model(name) for name in asked.models}
    models = settings.each(trained, lambda name: make(trained[name]), "--config.models")
    return Prepared(asked, data, trained, models)


def points(study: Study) -> list[Point]:
    """Seed by seed, so that a run cut short has whole comparisons."""
    groups = groups_of_seeds(study.seeds, together=study.together)
    return [Point(name, seeds) for seeds in groups for name in study.models]


def count_parameters(params: PyTree) -> int:
    """How many numbers are trained."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def size_and_time(params: PyTree, at: dict[str, Any], seconds: float) -> list[Row]:
    """How large a model is, and how long it trained."""
    return [
        row("parameters", at, kind="exact", unit="count", value=count_parameters(params)),
        row("training time", at, kind="estimate", unit="s", value=seconds),
    ]


def summarize(rows: list[Row], compare: Sequence[tuple[str, ...]]) -> list[Row]:
    """Means over seeds with their standard errors, and differences of pairs, paired by seed."""
    out, groups = [], {}
    for r in rows:
        groups.setdefault((r["name"], r["unit"], *_without_seed(r).items()), []).append(r)
    for group in groups.values():
        first = group[0]
        values = [float("nan") if r["value"] is None else r["value"] for r in group]
        extra = {k: first[k] for k in ("gap_of", "part_of") if k in first}
        # Of one model each: neither falls with the number of seeds.
        for field in ("monte_carlo_error", "deviation"):
            if field in first:
                extra[field] = sum(r[field] for r in group) / len(group)
        out.append(
            mean_row(
                first["name"],
                _without_seed(first),
                values,
                first["kind"],
                unit=first["unit"],
                **extra,
            )
        )
    names = [r["name"] for r in out if r["unit"] == UNIT and r["kind"] != "estimate"]
    for first, second in compare:
        for name in dict.fromkeys(names):
            a, b = (_by_seed(rows, name, model) for model in (first, second))
            common = sorted(a.keys() & b.keys())
            if common:
                at = {"model": f"{first} - {second}", **_where(rows, name)}
                values = [a[s] - b[s] for s in common]
                out.append(mean_row(f"{name} difference", at, values, "estimate", unit=UNIT))
    return out


def _where(rows: list[Row], name: str) -> dict[str, Any]:
    at = next(r["at"] for r in rows if r["name"] == name)
    return {"k": at["k"]} if "k" in at else {}


def _without_seed(r: Row) -> dict[str, Any]:
    return {k: v for k, v in r["at"].items() if k != "seed"}


def _by_seed(rows: list[Row], name: str, model: str) -> dict[int, float]:
    """Seed -> value by the first noise of a model: the refitted one, else that of training."""
    found = {}
    for r in rows:
        if (r["name"], r["unit"], r["at"]["model"]) == (name, UNIT, model):
            found.setdefault(r["at"]["seed"], r["value"])
    return {seed: value for seed, value in found.items() if value is not None}
