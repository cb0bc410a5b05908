"""Published numbers beside ours: the difference in standard errors, and orders with theirs."""

import math
from typing import Any, NamedTuple

from scipy import stats

from experiments.reproduced import spent
from experiments.reproduced.claims import Claim, Order, Place, Source
from experiments.reproduced.published import SOURCES
from experiments.runtime import results
from experiments.runtime.errors import UserError
from experiments.runtime.results import Row, row
from experiments.studies.held_out import mean_row

# Standard errors by which an order is confirmed or refuted; of seeds it is more, by Student's t.
CERTAIN = 2.0


class _Found(NamedTuple):
    """A number of ours, its standard error, what that is over, and the row of each seed."""

    value: float  # NaN where training or the measurement came to no number
    error: float | None
    over: str
    kind: results.Kind
    unit: str
    n: int | None
    points: dict[int, Row]


def rows(workdir: str, parts: tuple[str, ...]) -> list[Row]:
    """What the folders of parts have of what was published, in the order of `SOURCES`."""
    there = {name: _rows_of(f"{workdir}/{name}") for name in parts}
    out: list[Row] = []
    for source in SOURCES:
        out += [r for c in source.claims if (r := _of_claim(source, c, there)) is not None]
        out += [r for o in source.orders if (r := _of_order(source, o, there)) is not None]
    return out


def measured_on(workdir: str, parts: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Part -> how long its runs took, and on what, of the parts that are there."""
    out = {}
    for name in parts:
        record = _record_of(f"{workdir}/{name}")
        if record["rows"]:
            on = {k: record["environment"].get(k) for k in ("machine", "device", "python", "jax")}
            out[name] = {**spent.of(f"{workdir}/{name}"), **on}
    return out


def _rows_of(folder: str) -> list[Row]:
    return _record_of(folder)["rows"]


def _record_of(folder: str) -> dict[str, Any]:
    try:
        record = results.load(folder)
        return {"rows": record["rows"], "environment": record["environment"]}
    except FileNotFoundError:
        return {"rows": [], "environment": {}}
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder}/{results.FILE} is damaged; move {folder} away, and run its part again."
        ) from None


def _of_claim(source: Source, claim: Claim, there: dict[str, list[Row]]) -> Row | None:
    found = _find(claim.ours, there)
    if found is None:
        return None
    away = math.nan if claim.value is None else found.value - claim.value
    return row(
        claim.of, {"paper": source.paper}, kind=found.kind, unit=found.unit, value=found.value,
        standard_error=found.error, n=found.n, over=found.over, part=claim.ours.part,
        published=claim.value, published_error=claim.error,
        z_score=_z_score(away, found.error, claim.error), differs=source.differs,
    )  # fmt: skip


def _z_score(away: float, ours: float | None, published: float | None) -> float:
    """How many standard errors of a difference it is from 0; NaN where ours has no error."""
    whole = math.inf if ours is None else math.hypot(ours, published or 0.0)
    return away / whole if 0 < whole < math.inf else math.nan


def published_difference(source: Source, order: Order) -> tuple[float | None, float | None]:
    """Of both models of an order, and its standard error; None where there was none."""
    claims = [source.claim(place) for place in (order.above, order.below)]
    above, below = (None if c is None else c.value for c in claims)
    if above is None or below is None:
        return None, None
    errors = [c.error for c in claims if c is not None and c.error is not None]
    return above - below, math.hypot(*errors) if errors else None


def _of_order(source: Source, order: Order, there: dict[str, list[Row]]) -> Row | None:
    above, below = (_find(place, there) for place in (order.above, order.below))
    if above is None or below is None:
        return None
    common = sorted(above.points.keys() & below.points.keys())
    if len(common) > 1:
        gaps = [_value(above.points[s]) - _value(below.points[s]) for s in common]
        value = sum(gaps) / len(gaps)
        error = math.sqrt(sum((g - value) ** 2 for g in gaps) / (len(gaps) - 1) / len(gaps))
        over, n = "seeds, paired", len(common)
        certain = float(stats.t.ppf(stats.norm.cdf(CERTAIN), n - 1))
        if math.isclose(error, 0, abs_tol=1e-9):  # such as of two counts
            error = math.inf
    else:
        if common:  # what other seeds say of one of them alone would be mixed with their spread
            above, below = (_of_seed(found, common[0]) for found in (above, below))
        sizes = [abs(found.value) if order.size else found.value for found in (above, below)]
        value, certain = sizes[0] - sizes[1], CERTAIN
        errors = [math.inf if found.error is None else found.error for found in (above, below)]
        # Two numbers of one model may err in opposite ways.
        error = sum(errors) if order.above.at == order.below.at else math.hypot(*errors)
        over = " and ".join(dict.fromkeys((above.over, below.over)))
        n = above.n if above.n == below.n else None
    verdict = "undecided"
    if abs(value) > certain * error:
        verdict = "confirmed" if value > 0 else "refuted"
        verdict += ", one seed" if len(common) < 2 and source.trained else ""
    said, said_error = published_difference(source, order)
    return row(
        order.of, {"paper": source.paper}, kind="estimate", unit=above.unit, value=value,
        standard_error=error, n=n, over=over, part=order.above.part, verdict=verdict,
        published=said, published_error=said_error,
        z_score=_z_score(value - (said or 0), error, said_error), differs=source.differs,
    )  # fmt: skip


def _find(place: Place, there: dict[str, list[Row]]) -> _Found | None:
    """A row of a part; one of a single seed has the standard error over its images."""
    whole = there.get(place.part, [])
    own = [
        r for r in whole
        if r["name"] == place.name and all(r["at"].get(k) == v for k, v in place.at.items())
    ]  # fmt: skip
    of_points = [r for r in own if "point" in r]
    points = {r["at"]["seed"]: r for r in of_points if "seed" in r["at"]}
    if len(of_points) == 1:
        return _found(of_points[0], "images", points)
    summary = [r for r in own if "point" not in r]
    if of_points and not summary:  # a part that others of its models are left of
        values, like = [_value(r) for r in of_points], of_points[0]
        summary = [mean_row(place.name, {}, values, like["kind"], unit=like["unit"])]
    if not summary:
        return None
    several = any("point" in r for r in whole)  # models of a study
    return _found(summary[0], "seeds" if several else "images", points)


def _of_seed(found: _Found, seed: int) -> _Found:
    """What one of its seeds says."""
    return _found(found.points[seed], "images", {seed: found.points[seed]})


def _found(chosen: Row, over: str, points: dict[int, Row]) -> _Found:
    """What a row says; `over` is what its error is over, unless it tells."""
    error, n = chosen["standard_error"], chosen["n"]
    over = chosen.get("error") or chosen.get("over") or over
    if "level" in chosen:
        over = "replicates"
    if error is None and chosen["low"] is not None:
        # An interval at 95%, by the standard error of a normal distribution.
        error = (chosen["high"] - chosen["low"]) / (2 * 1.96)
        n = None  # points of a fit
    if not error or ("point" in chosen and chosen["unit"] == "units"):
        # Seeds that agree by chance have no error. Other images hardly change a count of units.
        error, over, n = None, "", None
    return _Found(_value(chosen), error, over, chosen["kind"], chosen["unit"], n, points)


def _value(r: Row) -> float:
    return math.nan if r["value"] is None else r["value"]
