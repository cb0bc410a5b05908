"""docs/reproduced.json: the page is made of it, and the smallest parts come to it again."""

import json
import math

import pytest
from repository import ROOT

from experiments.reproduced import __main__ as program
from experiments.reproduced import published, report, table
from experiments.reproduced.claims import Claim
from experiments.reproduced.settings import Reproduced
from experiments.runtime import results, settings, subprograms

SMALLEST = ("toy", "vdm_schedules")  # minutes
FEW = 4.0  # standard errors


def kept():
    return json.loads((ROOT / "docs/reproduced.json").read_text())


def missing(found, page):
    """Chunks that the page lacks, and lines of tables that it has besides."""
    chunks = list(report.markdown(found["rows"], found["parts"]))
    ours = {line for chunk in chunks for line in chunk.splitlines()}
    measured = page.split("## The table", 1)[1].splitlines()
    besides = [line for line in measured if line.startswith("|") and line not in ours]
    return [chunk for chunk in chunks if chunk not in page] + besides


def test_the_page_has_the_rows_that_were_kept_and_no_others():
    page, found = (ROOT / "docs/reproduced.md").read_text(), kept()
    assert missing(found, page) == []
    other = json.loads(json.dumps(found))
    other["rows"][0]["value"] += 1.0
    assert missing(other, page)
    assert missing({**found, "rows": found["rows"][1:]}, page)


def test_every_part_was_run_and_is_told_of():
    parts = settings.parse(Reproduced, subprograms.load_config("configs/reproduced.py", {})).parts
    assert set(kept()["parts"]) == set(parts)
    page = (ROOT / "docs/reproduced.md").read_text().split("## The table", 1)[0]
    assert all(f"`{part}`" in page for part in parts)


def test_rows_that_were_kept_are_of_what_is_published():
    said = {(s.paper, x.of): (s, x) for s in published.SOURCES for x in (*s.claims, *s.orders)}
    for r in kept()["rows"]:
        source, found = said[r["at"]["paper"], r["name"]]
        assert r["differs"] == source.differs
        is_claim = isinstance(found, Claim)
        value = found.value if is_claim else table.published_difference(source, found)[0]
        assert r.get("published") == value
        assert r["part"] in kept()["parts"]


@pytest.mark.slow
@pytest.mark.parametrize("part", SMALLEST)
def test_the_smallest_parts_come_to_what_was_kept(part, tmp_path):
    wanted = {(r["at"]["paper"], r["name"]): r for r in kept()["rows"] if r["part"] == part}
    given = settings.parse(
        Reproduced, subprograms.load_config("configs/reproduced.py", {"order": (part,)})
    )
    program.main(given, str(tmp_path))
    found = results.load(str(tmp_path))["rows"]
    assert {(r["at"]["paper"], r["name"]) for r in found} == set(wanted)
    for r in found:
        there = wanted[r["at"]["paper"], r["name"]]
        error = math.hypot(r["standard_error"], there["standard_error"])
        assert abs(r["value"] - there["value"]) < FEW * error, r["name"]
    assert part in table.measured_on(str(tmp_path), (part,))
