"""Whether bounds contradict exact values, or opposite bounds, of the same model."""

import math

from experiments.runtime.errors import UserError
from experiments.runtime.results import Row

TOLERANCE = 3.0  # standard errors
ROUNDING = 1e-5  # bits/dim


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
        (low, high)
        for low in rows
        for high in rows
        if low["kind"] in ("exact", "lower_bound")
        and high["kind"] == "upper_bound"
        and all(low["at"][k] == high["at"][k] for k in ("family", "model"))
        and low.get("data") == high.get("data")
        and low["value"] is not None
        and high["value"] is not None
    ]
