"""Rows as they stand beside those of other families: bounds on log P(x) in bits/dim."""

import math
from typing import Any, Unpack

from experiments.runtime.results import Extra, Kind, Row, row
from experiments.studies.study import UNIT

# Bounds on the joint log p(x, y) of images and captions, which are not bits/dim of images.
_OF_CAPTIONS = ("log p(x, y)", "joint bound")
_UNLESS_GIVEN: Extra = {
    "over": "images", "above_exact": None, "above_exact_error": None, "parameters": None,
    "training_seconds": None, "seconds_per_image": None,
}  # fmt: skip


def bound(
    name: str,
    at: dict[str, Any],
    *,
    kind: Kind,
    value: float | None,
    standard_error: float | None,
    n: int | None,
    **extra: Unpack[Extra],
) -> Row:
    """A row of the table of all families.

    Args:
      name: of the bound.
      at: "model", and what else tells the row from others of its model: K or k draws, a noise.
      kind: of bits/dim: a lower bound on log P(x) is an upper bound here.
      value: bits/dim; None where it is not finite.
      standard_error: of the value.
      n: how many test images, or seeds, it is the mean of.
      **extra: other fields of `Row`, which has those of a comparison.
    """
    return row(
        name,
        at,
        kind=kind,
        unit=UNIT,
        value=math.nan if value is None else value,
        standard_error=standard_error,
        n=n,
        **(_UNLESS_GIVEN | extra),
    )


def rows(found: list[Row]) -> list[Row]:
    """The bounds of each model of a study, over seeds where there are several, else over images."""
    out = []
    for model in dict.fromkeys(r["at"]["model"] for r in found if "point" in r):
        own = [r for r in found if r["at"].get("model") == model]
        seeds = {r["at"]["seed"] for r in own if "seed" in r["at"]}
        used = [r for r in own if ("point" in r) == (len(seeds) == 1)]
        size = mean(used, "parameters"), mean(used, "training time")
        bounded = [r["at"] for r in used if r["kind"] == "upper_bound"]
        noises = {at["noise"] for at in bounded if "noise" in at}
        times = [r["seconds_per_image"] for r in own if "seconds_per_image" in r]
        for r in used:
            bounding = r["kind"] != "estimate" and "gap_of" not in r
            if r["unit"] != UNIT or not bounding or r["name"] in _OF_CAPTIONS:
                continue
            at = {k: v for k, v in r["at"].items() if k not in ("seed", "model")}
            gap = next(
                (
                    g
                    for g in used
                    if (g.get("gap_of"), g["at"], g["unit"]) == (r["name"], r["at"], UNIT)
                ),
                {},
            )
            named = len(noises) > 1 and "noise" in at and r["kind"] != "exact"
            out.append(
                bound(
                    f"{r['name']}, {at['noise']} noise" if named else r["name"],
                    {"model": model, **at},
                    kind=r["kind"],
                    value=r["value"],
                    standard_error=r["standard_error"],
                    n=r["n"],
                    over="images" if len(seeds) == 1 else "seeds",
                    above_exact=gap.get("value"),
                    above_exact_error=gap.get("standard_error"),
                    parameters=size[0],
                    training_seconds=size[1],
                    seconds_per_image=r.get("seconds_per_image") or (max(times) if times else None),
                )
            )
    return out


def mean(rows: list[Row], name: str) -> float | None:
    """The mean of the rows of a name; None where there are none."""
    values = [r["value"] for r in rows if r["name"] == name and r["value"] is not None]
    if not values:
        return None
    value = sum(values) / len(values)
    return int(value) if name == "parameters" else value


def number(value: float | None) -> float:
    """A value as it comes back from a record, where NaN is null."""
    return math.nan if value is None else value
