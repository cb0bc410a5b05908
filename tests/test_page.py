"""The page of a comparison: as text, and as a browser without a network shows it."""

import functools
import html.parser
import io
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from experiments.comparison.page import DASH, MINUS, THIN, TIMES, Column, page
from experiments.runtime import plots
from experiments.runtime.results import KINDS

COLUMNS = [
    Column("family", "family", "Of densities."),
    Column("model", "model", "What was trained."),
    Column("bound", "bound", "How it was evaluated."),
    Column("kind", "kind", "Of the number to the truth."),
    Column("value", "nats", "The number itself.", numeric=True, digits=2),
    Column("seconds", "time, s", "For one image.", numeric=True),
]
# model, bound, value, seconds: ties, signs, powers of ten, and values that are missing.
CASES = [
    ("a", "IWAE-5000", 10, 1e-3),
    ("b", "ELBO", 9, 250.0),
    ("c", None, None, None),
    ("d", "IWAE-64", -3.5, 3e-8),
    ("e", "ELBO", 9.0, 12345678.9),
    ("f", "AIS", math.nan, 0.0),
    ("g", "IWAE-64", -20, 2e-3),
    ("h", "chain rule", 1e-3, 7),
    ("i", "IWAE-8", 100, None),
]
ROWS = [
    {"family": f"family {i // 3}", "model": model, "bound": bound, "kind": KINDS[i % 4],
     "value": value, "seconds": seconds, "not shown": "anything"}
    for i, (model, bound, value, seconds) in enumerate(CASES)
]  # fmt: skip
TEXTS = ["AIS", "chain rule", "ELBO", "IWAE-8", "IWAE-64", "IWAE-5000"]


@functools.cache
def figure() -> str:
    axes: Any
    fig, axes = plots.new_figure(1, 1, (6, 3))
    axes.plot([0, 1], [1, 3], marker="o", label="a < b & c")
    axes.legend()
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None})
    plots.plt.close(fig)
    return buffer.getvalue()


def make(text="plain", **changes) -> str:
    """A page; `text` is in every place where an argument is text."""
    arguments = {
        "title": text, "lead": text, "columns": COLUMNS, "rows": ROWS, "figure_svg": figure(),
        "figure_alt": text, "notes": [text, "second"], "environment": {"jax": "0.10", text: text},
    }  # fmt: skip
    return page(**{**arguments, **changes})


class Read(html.parser.HTMLParser):
    """Elements, attributes and the cells of the table, as a reader without JavaScript has them."""

    VOID = frozenset({"meta", "input", "br", "link", "img"})

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, Any]] = []
        self.body: dict[str, str | None] = {}
        self.table: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "body":
            self.body = dict(attrs)
        elif tag == "tr":
            self.table.append([])
        elif tag in ("td", "th"):
            self.table[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.table[-1][-1] += data


def references(text: str) -> list[str]:
    """What a page would load or lead to outside itself."""
    loading = {"src", "srcset", "href", "xlink:href", "action", "data", "poster", "background"}
    found = [v for n, v in Read(text).attributes if n in loading and not v.startswith("#")]
    return found + re.findall(r"@import|url\((?!#)[^)]*|\bfetch\b|(?:https?:)?//[\w.]+\.\w+", text)


def test_page_is_closed_html_in_english_and_the_same_every_time():
    text = make()
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert Read(text).tags.count("table") == 1
    assert text == make()
    assert "$" not in text.replace("`${shown} of ${original.length}`", "")


@pytest.mark.parametrize("evil", ['<script>alert("x")</script>', "\"'><img src=x>", "&lt; $title"])
def test_text_stays_text_wherever_it_stands(evil):
    columns = [c._replace(heading=evil, explanation=evil) for c in COLUMNS]
    rows = [{**row, "family": evil, "model": evil, "bound": evil} for row in ROWS]
    plain_columns = [c._replace(heading="p", explanation="p") for c in COLUMNS]
    plain_rows = [{**row, "family": "p", "model": "p", "bound": "p"} for row in ROWS]
    read = Read(make(evil, columns=columns, rows=rows))
    plain = Read(make("p", columns=plain_columns, rows=plain_rows))
    assert read.tags == plain.tags
    assert [n for n, _ in read.attributes] == [n for n, _ in plain.attributes]
    assert read.table[0] == [evil] * len(COLUMNS)
    assert all(row[:3] == [evil] * 3 for row in read.table[1:])


def test_page_refers_to_nothing_outside_itself():
    text = make()
    assert references(text) == []
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize(
    "wrong",
    [
        '<script src="https://cdn.example.org/sort.js"></script>',
        '<link rel="stylesheet" href="style.css">',
        "<style>@import 'fonts.css';</style>",
        "<style>b { background: url(//example.org/a.png) }</style>",
        "<p>http://example.org</p>",
    ],
)
def test_the_check_of_references_finds_each_form(wrong):
    assert references(make().replace("</body>", f"{wrong}</body>"))


def test_every_row_and_column_is_there_without_javascript():
    head, *body = Read(make()).table
    assert head == [c.heading for c in COLUMNS]
    assert [row[1] for row in body] == [case[0] for case in CASES]
    assert all(len(row) == len(COLUMNS) for row in body)
    assert body[0] == ["family 0", "a", "IWAE-5000", "exact", "10", "0.00100"]
    assert body[2] == ["family 0", "c", DASH, "upper bound", DASH, DASH]
    assert body[5][4] == DASH  # not a number
    assert "anything" not in make()


def test_kinds_are_words_and_explained_where_they_occur():
    everywhere = make()
    for words in ("exact", "lower bound", "upper bound", "estimate"):
        assert everywhere.count(f">{words}</span>") > 1
    only = make(rows=[{**row, "kind": "exact"} for row in ROWS])
    assert ">upper bound</span>" not in only
    with pytest.raises(ValueError, match=r"kind must be one of exact, .* got 'bound'"):
        make(rows=[{**ROWS[0], "kind": "bound"}])


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (1.23456, 3, "1.235"),
        (-1.5, 1, "-1.5"),
        (0.00004, 3, "4.0 x 10-5"),  # a standard error that is not zero does not look so
        (0.0, 3, "0.000"),
        (1234567.0, 0, "1 234 567"),
        (-1234567, 3, "-1 234 567"),
        (0.012345, None, "0.0123"),
        (9.999, None, "10.0"),
        (1234.5, None, "1 234"),
        (3.2e-7, None, "3.20 x 10-7"),
        (-4e12, None, "-4.00 x 1012"),  # 12 is raised
        (-0.0, 1, "0.0"),
    ],
)
def test_numbers_are_written_for_readers(value, digits, shown):
    columns = [Column("model", "model", ""), Column("x", "x", "", numeric=True, digits=digits)]
    text = make(columns=columns, rows=[{**ROWS[0], "x": value}])
    signs = str.maketrans({" ": THIN, "-": MINUS, "x": TIMES})
    assert Read(text).table[1][1] == shown.translate(signs)
    assert f'data-value="{float(value)!r}"' in text


def test_text_in_a_numeric_column_is_refused():
    with pytest.raises(ValueError, match="'value' is numeric, got 'about 3'"):
        make(rows=[{**ROWS[0], "value": "about 3"}])


def test_figure_has_a_name_scales_and_keeps_its_ids_apart():
    clashing = figure().replace('id="figure_1"', 'id="results"')
    assert clashing != figure()
    text = make(figure_svg=clashing)
    svg = text[text.index("<svg") : text.index("</svg>")]
    opening = svg[: svg.index(">")]
    assert 'role="img"' in opening
    assert 'aria-label="plain"' in opening
    assert not re.search(r"\s(width|height)=", opening)
    assert "<metadata" not in text
    ids = [value for name, value in Read(text).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="|url\()#([^")]+)', svg)
    assert used
    assert set(used) <= set(ids)


@pytest.mark.parametrize(
    ("svg", "message"),
    [
        ("<svg", "not readable"),
        ("<p/>", "must be an <svg>, got <p>"),
        ("<svg width='3'/>", "viewBox"),
    ],
)
def test_figure_that_is_no_svg_is_refused(svg, message):
    with pytest.raises(ValueError, match=message):
        make(figure_svg=svg)


# The rest is what a browser does with it.
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Runs Chromium on a page, with no name of any host to be found; returns what it prints."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        message = f"no browser: none of {', '.join(names)} is on the path"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    profile = tmp_path_factory.mktemp("profile")

    def run(path: pathlib.Path, *flags: str) -> str:
        return subprocess.run(
            [
                program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-dev-shm-usage", "--disable-background-networking", "--hide-scrollbars",
                "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000",
                f"--user-data-dir={profile}", *flags, path.as_uri(),
            ],
            capture_output=True, encoding="utf-8", check=True, timeout=120,
        ).stdout  # fmt: skip

    return run


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
