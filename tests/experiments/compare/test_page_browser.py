"""The page of a comparison as a browser without a network shows it."""

import json
import pathlib

import matplotlib.image
import numpy as np
import pytest
from page_cases import CASES, COLUMNS, ROWS, TEXTS, Read, make

RECORD = """<script>
window.problems = [];
for (const kind of ["error", "unhandledrejection", "securitypolicyviolation"])
  addEventListener(kind, (event) => problems.push(`${kind} ${event.message}`), true);
</script>"""
CLICKS = ["value"] * 4 + ["bound"] * 3 + ["seconds"] * 3
FILTERS = ["IWAE", "  lower BOUND ", "iwae-64 family 2", "nothing like it", ""]
PROBE = """<script>
const heads = [...document.querySelectorAll("thead th")];
const names = () => [...document.querySelectorAll("tbody tr")].filter(
  (row) => row.checkVisibility()).map((row) => row.cells[1].textContent);
const report = { start: names(), clicks: [], filters: [] };
for (const i of CLICKED) {
  const button = heads[i].querySelector("button");
  button.focus();
  const focused = document.activeElement === button;
  button.click();
  report.clicks.push([names(), heads.map((head) => head.getAttribute("aria-sort")), focused]);
}
const input = document.querySelector("input");
for (const text of FILTERED) {
  input.value = text;
  input.dispatchEvent(new Event("input"));
  report.filters.push([names(), document.querySelector("output").value]);
}
report.problems = [...problems];
report.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
report.visible = input.checkVisibility();
document.body.dataset.report = JSON.stringify(report);
addEventListener("securitypolicyviolation", (event) => {
  document.body.dataset.blocked = event.effectiveDirective;
});
document.body.append(Object.assign(new Image(), { src: "https://example.org/a.png" }));
</script>"""


def observe(browser, folder: pathlib.Path, text: str) -> dict[str, str | None]:
    """The data attributes that the probe leaves in the body."""
    clicked = [[c.key for c in COLUMNS].index(key) for key in CLICKS]
    probe = PROBE.replace("CLICKED", json.dumps(clicked)).replace("FILTERED", json.dumps(FILTERS))
    # The recorder stands before the page's own script, the probe after it.
    text = text.replace("<title>", f"{RECORD}<title>", 1).replace("</body>", f"{probe}</body>")
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    return Read(browser(path, "--dump-dom")).body


def wanted_clicks() -> list[tuple[list[str], list[str | None]]]:
    """Order of rows and aria-sort after each click, from Python's own stable sort."""
    wanted = []
    pressed, times = None, 0
    for key in CLICKS:
        pressed, times = key, times + 1 if key == pressed else 1
        order = (None, "ascending", "descending")[times % 3]
        rank = TEXTS.index if key == "bound" else float
        empty = [r for r in ROWS if r[key] is None or r[key] != r[key]]
        filled = [r for r in ROWS if r not in empty]
        filled.sort(key=lambda r: rank(r[key]), reverse=order == "descending")
        rows = filled + empty if order else ROWS
        marks = [order if c.key == key else None for c in COLUMNS]
        wanted.append(([r["model"] for r in rows], marks))
    return wanted


def faults(body: dict[str, str | None]) -> list[str]:
    """What the page did otherwise than it should."""
    report = json.loads(body["data-report"] or "")
    found = [f"script: {problem}" for problem in report["problems"]]
    if report["start"] != [r["model"] for r in ROWS]:
        found.append(f"first order: {report['start']}")
    for i, (seen, (names, marks)) in enumerate(zip(report["clicks"], wanted_clicks(), strict=True)):
        if seen[0] != names:
            found.append(f"order after click {i} on {CLICKS[i]}: {seen[0]}, wanted {names}")
        if seen[1] != marks:
            found.append(f"aria-sort after click {i} on {CLICKS[i]}: {seen[1]}, wanted {marks}")
        if not seen[2]:
            found.append(f"no focus: {CLICKS[i]}")
    return found


@pytest.fixture(scope="module")
def observed(browser, tmp_path_factory):
    return observe(browser, tmp_path_factory.mktemp("right"), make())


def test_columns_sort_up_down_and_back(observed):
    assert faults(observed) == []


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ('head.classList.contains("number") ? asNumbers : asText', "asText", "on value"),
        ("isNone(a) - isNone(b) ||", "sign * (isNone(a) - isNone(b)) ||", "click 1 on value"),
        ("Array.from(original).sort(", "Array.from(original).reverse().sort(", "click 0 on value"),
        ("other.removeAttribute", "other.hasAttribute", "aria-sort after click 4"),
        ('const filter = document.getElementById("filter")', "const filter = null", "script: "),
    ],
    ids=["numbers as text", "missing first", "ties turned", "two marks", "error"],
)
def test_the_check_of_sorting_finds_what_is_wrong(browser, tmp_path, right, wrong, fault):
    text = make()
    assert text.count(right) == 1
    body = observe(browser, tmp_path, text.replace(right, wrong))
    assert any(fault in found for found in faults(body))


def test_filter_shows_the_rows_that_have_every_word(observed):
    report = json.loads(observed["data-report"])
    assert report["visible"]
    assert report["filters"] == [
        [["a", "d", "g", "i"], "4 of 9"],
        [["b", "f"], "2 of 9"],
        [["g"], "1 of 9"],
        [[], "0 of 9"],
        [[case[0] for case in CASES], ""],
    ]


def test_page_loads_nothing_and_its_policy_would_forbid_it(observed):
    assert json.loads(observed["data-report"])["loaded"] == []
    assert observed["data-blocked"] == "img-src"


@pytest.mark.parametrize(("width", "height"), [(1400, 1000), (500, 900)])
def test_page_is_seen_and_only_its_table_is_wider_than_a_phone(browser, tmp_path, width, height):
    path, picture = tmp_path / "page.html", tmp_path / "page.png"
    path.write_text(make("A comparison of bounds"), encoding="utf-8")
    browser(path, f"--window-size={width},{height}", f"--screenshot={picture}")
    pixels = matplotlib.image.imread(picture)[..., :3]
    assert pixels.shape[:2] == (height, width)
    inked = np.any(pixels < 0.9, axis=-1)
    assert 0.005 < inked.mean() < 0.5
    # Both halves show something, and the margin on the right is kept free.
    assert inked[: height // 2].any()
    assert inked[height // 2 :].any()
    assert not inked[:, -8:].any()
