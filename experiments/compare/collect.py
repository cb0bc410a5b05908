"""Rows of the table, from the records of the programs: bits/dim, one look for all families."""

import math
from typing import Any

from experiments.compare import families
from experiments.compare.families import Family
from experiments.data import sets
from experiments.runtime.errors import UserError
from experiments.runtime.results import Row, row
from experiments.studies.study import UNIT

# A bound in nats from below is one in bits from above.
_OTHER_SIDE = {
    "lower_bound": "upper_bound", "upper_bound": "lower_bound",
    "exact": "exact", "estimate": "estimate",
}  # fmt: skip
# Of a joint density with captions, not of images: no bits of these.
_OF_CAPTIONS = ("log p(x, y)", "joint bound")
_OF_VAE = ("ELBO", "IWAE", "VR-IWAE", "AIS", "reverse AIS (BDMC)")
TOLERANCE = 3.0  # standard errors
ROUNDING = 1e-5  # bits/dim


def rows(family: Family) -> list[Row]:
    """What a family says about log P(x), in bits/dim.

    Each has `bound`, `over` (what its standard error is over), `parameters`, `training_seconds`
    and `seconds_per_image` (of the pass it came from; the rows of a pass share it).
    """
    found = _of_vae(family) if family.program == "train" else _of_study(family)
    if not found:
        raise UserError(f"{family.folder} has no bound on log P(x) of images in bits/dim.")
    return found


def _of_study(family: Family) -> list[Row]:
    found = families.load(family.folder)["rows"]
    out = []
    for model in dict.fromkeys(r["at"]["model"] for r in found if "point" in r):
        own = [r for r in found if r["at"].get("model") == model]
        seeds = {r["at"]["seed"] for r in own if "seed" in r["at"]}
        # Over seeds where there are several, else over the images of the one.
        used = [r for r in own if ("point" in r) == (len(seeds) == 1)]
        size = _mean(used, "parameters"), _mean(used, "training time")
        bounded = [r["at"] for r in used if r["kind"] == "upper_bound"]
        noises = {at["noise"] for at in bounded if "noise" in at}
        times = [r["seconds_per_image"] for r in own if "seconds_per_image" in r]
        for r in used:
            ours = r["unit"] == UNIT and r["kind"] != "estimate" and not r["name"].endswith(" gap")
            if not ours or r["name"] in _OF_CAPTIONS:
                continue
            at = {k: v for k, v in r["at"].items() if k not in ("seed", "model")}
            gap = next((g for g in used if (g["name"], g["at"], g["unit"]) ==
                        (f"{r['name']} gap", r["at"], UNIT)), {})  # fmt: skip
            out.append(
                row(
                    _named(r, noise=len(noises) > 1), {"family": family.name, "model": model, **at},
                    kind=r["kind"],
                    unit=UNIT, value=_number(r["value"]), standard_error=r["standard_error"],
                    n=r["n"], over="images" if len(seeds) == 1 else "seeds",
                    above_exact=gap.get("value"), above_exact_error=gap.get("standard_error"),
                    parameters=size[0], training_seconds=size[1],
                    seconds_per_image=r.get("seconds_per_image") or (max(times) if times else None),
                )
            )  # fmt: skip
    return out


def _of_vae(family: Family) -> list[Row]:
    """The evaluation of a VAE, from nats to bits."""
    assert family.evaluation is not None
    found = families.load(family.evaluation_folder)["rows"]
    dataset = sets.load(family.config.dataset, family.config.data_dir)
    scale = -1 / (math.prod(dataset.test.shape[1:]) * math.log(2))
    gap = next((r for r in found if r["name"] == "AIS gap"), None)
    size = _mean(found, "parameters"), _mean(found, "training time")
    out, seen = [], set()
    for r in found:
        simulated = r.get("data") == "simulated"
        name = _named(r)  # the same bound may come from two passes
        if r["name"] not in _OF_VAE or r["unit"] != "nats" or name in seen:
            continue
        seen.add(name)
        at = {k: v for k, v in r["at"].items() if k != "data"}
        model = family.config.objective
        model += f"-{family.config.num_samples}" if family.config.num_samples > 1 else ""
        out.append(
            row(
                name, {"family": family.name, "model": model, **at},
                kind=_OTHER_SIDE[r["kind"]], unit=UNIT, value=scale * _number(r["value"]),
                standard_error=abs(scale) * _number(r["standard_error"]), n=r["n"],
                over="images", data="simulated" if simulated else "test",
                above_exact=None, above_exact_error=None,
                **_paired(gap if r["name"] == "reverse AIS (BDMC)" else None, -scale),
                parameters=size[0], training_seconds=size[1],
                seconds_per_image=r["seconds"] / r["n"] if r.get("seconds") else None,
            )
        )  # fmt: skip
    # By bound and then by K: the passes came in another order.
    return sorted(out, key=lambda r: (r["data"] == "simulated", "AIS" in r["name"],
                                      r["at"].get("alpha", 0.0), r["at"].get("K", 0)))  # fmt: skip


def _paired(gap: Row | None, scale: float) -> dict[str, Any]:
    """How far AIS lies above reverse AIS in bits/dim, image by image."""
    if gap is None:
        return {}
    error = gap["standard_error"]
    return {"ais_above": scale * _number(gap["value"]),
            "ais_above_error": None if error is None else scale * error}  # fmt: skip


def _named(r: Row, *, noise: bool = False) -> str:
    """The bound with what belongs to it; the noise where a model is scored with several."""
    at, name = r["at"], r["name"]
    if "K" in at and name in ("IWAE", "VR-IWAE"):
        name = f"{name}-{at['K']}" if at["K"] > 1 else "ELBO"
        if "alpha" in at and at["K"] > 1:
            name += f", alpha = {at['alpha']:g}"
    if "T" in at and "AIS" in name:
        name += f", {at['T']} temperatures"
    if noise and "noise" in at and r["kind"] != "exact":
        name += f", {at['noise']} noise"
    if r.get("data") == "simulated":
        name += ", of simulated data"
    return name


def complain(rows: list[Row]) -> None:
    """Ends with an error where two rows of one model contradict each other.

    A bound may lie on the wrong side of an exact value, or of the opposite bound, by chance: up to
    `TOLERANCE` standard errors of their difference, image by image where that was measured.

    Raises:
      UserError: one lies farther.
    """
    for low, high, score in contradictions(rows)[:1]:
        raise UserError(
            f"{low['at']['family']} {low['at']['model']}: {low['name']} ({low['value']:.4f}) says "
            f"that bits/dim are at least what {high['name']} ({high['value']:.4f}) says they are "
            f"at most, {score:.1f} standard errors off; one of the two is wrong."
        )


def contradictions(rows: list[Row]) -> list[tuple[Row, Row, float]]:
    """(at least this, at most that, by how many standard errors the first is above)."""
    out = []
    for low, high in pairs(rows):
        excess, error = _excess(low, high)
        # Without a standard error nothing can be said; rounding is no contradiction.
        if error is not None and excess > TOLERANCE * error + ROUNDING:
            out.append((low, high, excess / error if error else math.inf))
    return out


def _excess(low: Row, high: Row) -> tuple[float, float | None]:
    """By how much the first is above the second, with its standard error."""
    if low["kind"] == "exact" and high.get("above_exact") is not None:
        return -high["above_exact"], high["above_exact_error"]
    if low.get("ais_above") is not None and high["name"].startswith("AIS"):
        return -low["ais_above"], low["ais_above_error"]
    errors = low["standard_error"], high["standard_error"]
    known = None if None in errors else math.hypot(*errors)
    return low["value"] - high["value"], known


def pairs(rows: list[Row]) -> list[tuple[Row, Row]]:
    """Rows of one model and the same data: one exact or a lower bound, one an upper bound."""
    return [
        (low, high) for low in rows for high in rows
        if low["kind"] in ("exact", "lower_bound") and high["kind"] == "upper_bound"
        and all(low["at"][k] == high["at"][k] for k in ("family", "model"))
        and low.get("data") == high.get("data")
        and low["value"] is not None and high["value"] is not None
    ]  # fmt: skip


def _mean(rows: list[Row], name: str) -> float | None:
    values = [r["value"] for r in rows if r["name"] == name and r["value"] is not None]
    if not values:
        return None
    mean = sum(values) / len(values)
    return int(mean) if name == "parameters" else mean


def _number(value: float | None) -> float:
    return math.nan if value is None else value
