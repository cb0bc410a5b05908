"""Published numbers beside ours: the difference in standard errors, and orders with theirs."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from scipy import stats

from experiments.reproduced.claims import Claim, Order, Place, Source
from experiments.reproduced.published import SOURCES
from experiments.runtime import cluster, results
from experiments.runtime.results import Row, row
from experiments.studies.held_out import mean_row

# Standard errors by which an order is confirmed or refuted; of seeds it is more, by Student's t.
CERTAIN = 2.0
TAKEN = "taken.json"  # in the folder of a part


class _Found(NamedTuple):
    """A number of ours: its standard error, what that is over, and the values of seeds."""

    value: float
    error: float | None
    over: str
    kind: results.Kind
    unit: str
    n: int | None
    seeds: dict[int, float]


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
            out[name] = {**_taken(f"{workdir}/{name}"), **on}
    return out


@contextlib.contextmanager
def timed(folder: str) -> Iterator[None]:
    """Adds to the time that runs of a part took, also where one is stopped."""
    start, start_cpu = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        taken = _taken(folder)
        spent = {
            "minutes": (time.perf_counter() - start) / 60,
            "cpu_minutes": (time.process_time() - start_cpu) / 60,  # of all cores
        }
        if cluster.is_first() and os.path.isdir(folder):
            whole = {name: taken.get(name, 0.0) + value for name, value in spent.items()}
            results.write_atomically(os.path.join(folder, TAKEN), json.dumps(whole).encode())


def _taken(folder: str) -> dict[str, float]:
    """What `timed` has added up; nothing of a folder that it never saw."""
    try:
        with open(os.path.join(folder, TAKEN)) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def _rows_of(folder: str) -> list[Row]:
    return _record_of(folder)["rows"]


def _record_of(folder: str) -> dict[str, Any]:
    try:
        return results.load(folder)
    except FileNotFoundError:
        return {"rows": [], "environment": {}}


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


def _z_score(away: float, *errors: float | None) -> float:
    """How many standard errors of a difference it is from 0; NaN where there is no error."""
    whole = math.hypot(*(e for e in errors if e is not None))
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
    common = sorted(above.seeds.keys() & below.seeds.keys())
    if len(common) > 1:
        gaps = [above.seeds[s] - below.seeds[s] for s in common]
        value = sum(gaps) / len(gaps)
        error = math.sqrt(sum((g - value) ** 2 for g in gaps) / (len(gaps) - 1) / len(gaps))
        over, n = "seeds, paired", len(common)
        certain = float(stats.t.ppf(stats.norm.cdf(CERTAIN), n - 1))
        if math.isclose(error, 0, abs_tol=1e-9):  # such as of two counts
            error = math.inf
    else:
        sizes = [abs(found.value) if order.size else found.value for found in (above, below)]
        value, certain = sizes[0] - sizes[1], CERTAIN
        errors = [math.inf if found.error is None else found.error for found in (above, below)]
        error = sum(errors) if order.size else math.hypot(*errors)  # sizes of one number
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
        and r["value"] is not None
    ]  # fmt: skip
    points = [r for r in own if "point" in r]
    summary = [r for r in own if "point" not in r]
    if len(points) > 1 and not summary:  # a part that others of its models are left of
        values = [r["value"] for r in points]
        summary = [mean_row(place.name, {}, values, points[0]["kind"], unit=points[0]["unit"])]
    if not summary + points:
        return None
    chosen = points[0] if len(points) == 1 else summary[0]
    several = len(points) != 1 and any("point" in r for r in whole)  # models of a study
    over = chosen.get("error") or chosen.get("over") or ("seeds" if several else "images")
    error = chosen["standard_error"] or None  # a count of one seed has none, and decides nothing
    if "level" in chosen:
        over = "replicates"
    if error is None and chosen["low"] is not None:
        # An interval at 95%, by the standard error of a normal distribution.
        error = (chosen["high"] - chosen["low"]) / (2 * 1.96)
        chosen = {**chosen, "n": None}  # points of a fit
    seeds: dict[int, Any] = {r["at"]["seed"]: r["value"] for r in points if "seed" in r["at"]}
    return _Found(chosen["value"], error, over, chosen["kind"], chosen["unit"], chosen["n"], seeds)
