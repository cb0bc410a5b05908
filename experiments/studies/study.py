"""A study: models x seeds, each model by what it changes in the config they share."""

import re
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from experiments.runtime import checks
from experiments.runtime.errors import UserError
from experiments.runtime.results import Row, row
from experiments.studies.held_out import mean_row
from experiments.studies.points import groups_of_seeds, seeds_label

UNIT = "bits/dim"
_OF_STUDY = ("models", "seeds", "together", "compare")
# What a model may not change: a study compares models on the same data, scored alike.
_SHARED = ("seed", "dataset", "data_dir")


class Point(NamedTuple):
    """Models that are trained in one go: one of `config.models` with some seeds."""

    name: str
    seeds: tuple[int, ...]

    @property
    def label(self) -> str:
        """Its name in records and its folder."""
        return f"{self.name}_{seeds_label(self.seeds)}"


def points(config: Any) -> list[Point]:
    """Seed by seed, so that a run cut short has whole comparisons.

    Raises:
      UserError: names of models, or seeds, make no sense.
    """
    if not config.models:
        raise UserError("config.models is empty; name at least one model.")
    for name in config.models:
        if not re.fullmatch(r"[\w+-]+", name):
            raise UserError(
                f"config.models has the name {name!r}; it is that of a folder as well, so use "
                "letters, digits, _, + and - only."
            )
    return [Point(name, seeds) for seeds in groups_of_seeds(config) for name in config.models]


def settings(config: Any, name: str, seed: int, *, scoring: tuple[str, ...]) -> ConfigDict:
    """The config of one model: that of the study with what `config.models` says of it.

    Args:
      config: of the study.
      name: of the model.
      seed: takes the place of `config.seeds`.
      scoring: fields of the evaluation, which is the same for all models.

    Raises:
      UserError: the model sets a field that the study does not have.
    """
    own = ConfigDict({k: v for k, v in config.to_dict().items() if k not in _OF_STUDY})
    changes = config.models[name]
    if not isinstance(changes, ConfigDict):
        raise UserError(f"config.models.{name} must hold fields of the config, got {changes!r}.")
    for field, value in changes.to_dict().items():
        if field in (*_OF_STUDY, *_SHARED, *scoring):
            raise UserError(f"config.models.{name} sets {field}, which is the same for all models.")
        if field not in own:
            raise UserError(f"config.models.{name} sets {field}, which is no field of the config.")
        checks.set_field(own, field, value, f"config.models.{name}.{field}")
    own.seed = seed
    return own


def check_compare(config: Any) -> None:
    """Refuses comparisons with what is no model of the study."""
    for pair in config.compare:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserError(f"config.compare must hold pairs of names, got {pair!r}.")
        for name in pair:
            if name not in config.models:
                raise UserError(f"config.compare names {name!r}, which is none of config.models.")


def count_parameters(params: PyTree) -> int:
    """How many numbers are trained."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def size_and_time(params: PyTree, at: dict[str, Any], seconds: float) -> list[Row]:
    """How large a model is, and how long it trained."""
    return [
        row("parameters", at, kind="exact", unit="count", value=count_parameters(params)),
        row("training time", at, kind="estimate", unit="s", value=seconds),
    ]


def summarise(rows: list[Row], config: Any) -> list[Row]:
    """Means over seeds with their standard errors, and differences paired by seed."""
    out, groups = [], {}
    for r in rows:
        groups.setdefault((r["name"], r["unit"], *_without_seed(r).items()), []).append(r)
    for group in groups.values():
        first = group[0]
        values = [float("nan") if r["value"] is None else r["value"] for r in group]
        extra = {}
        if "monte_carlo_error" in first:  # the same noise for every seed: it does not average out
            extra["monte_carlo_error"] = sum(r["monte_carlo_error"] for r in group) / len(group)
        out.append(
            mean_row(
                first["name"], _without_seed(first), values, first["kind"], unit=first["unit"],
                **extra,
            )
        )  # fmt: skip
    names = [r["name"] for r in out if r["unit"] == UNIT and r["kind"] != "estimate"]
    for first, second in config.compare:
        for name in dict.fromkeys(names):
            a, b = (_by_seed(rows, name, model) for model in (first, second))
            common = sorted(a.keys() & b.keys())
            if common:
                at = {"model": f"{first} - {second}", **_where(rows, name)}
                values = [a[s] - b[s] for s in common]
                out.append(mean_row(f"{name} difference", at, values, "estimate",
                                    unit=UNIT))  # fmt: skip
    return out


def _where(rows: list[Row], name: str) -> dict[str, Any]:
    at = next(r["at"] for r in rows if r["name"] == name)
    return {"k": at["k"]} if "k" in at else {}


def _without_seed(r: Row) -> dict[str, Any]:
    return {k: v for k, v in r["at"].items() if k != "seed"}


def _by_seed(rows: list[Row], name: str, model: str) -> dict[int, float]:
    """seed -> the value with the noise that was trained with it, or fitted after."""
    found = {}
    for r in rows:
        if (r["name"], r["unit"], r["at"]["model"]) == (name, UNIT, model):
            found.setdefault(r["at"]["seed"], r["value"])
    return {seed: value for seed, value in found.items() if value is not None}
