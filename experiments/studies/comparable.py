"""Rows of a study as they stand beside those of other families: bounds on log P(x) in bits/dim."""

import math

from experiments.runtime.results import Row, row
from experiments.studies.study import UNIT

# Of a joint density with captions, not of images: no bits of these.
_OF_CAPTIONS = ("log p(x, y)", "joint bound")


def rows(found: list[Row]) -> list[Row]:
    """The bounds of each model, over seeds where there are several, else over images.

    Each has `over` (what its standard error is over), `parameters`, `training_seconds` and
    `seconds_per_image` (of the pass it came from; the rows of a pass share it).
    """
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
            gap = next((g for g in used if (g.get("gap_of"), g["at"], g["unit"]) ==
                        (r["name"], r["at"], UNIT)), {})  # fmt: skip
            named = len(noises) > 1 and "noise" in at and r["kind"] != "exact"
            out.append(
                row(
                    f"{r['name']}, {at['noise']} noise" if named else r["name"],
                    {"model": model, **at},
                    kind=r["kind"], unit=UNIT, value=number(r["value"]),
                    standard_error=r["standard_error"], n=r["n"],
                    over="images" if len(seeds) == 1 else "seeds",
                    above_exact=gap.get("value"), above_exact_error=gap.get("standard_error"),
                    parameters=size[0], training_seconds=size[1],
                    seconds_per_image=r.get("seconds_per_image") or (max(times) if times else None),
                )
            )  # fmt: skip
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
