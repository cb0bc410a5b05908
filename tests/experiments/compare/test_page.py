"""The page of a comparison as text, without JavaScript."""

import re

import pytest
from page_cases import CASES, COLUMNS, ROWS, Read, figure, make, references

from experiments.compare.page import DASH, MINUS, THIN, TIMES, Column


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
