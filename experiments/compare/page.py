"""A comparison as one HTML page: opened from disk, offline, with or without JavaScript."""

import html
import math
import pathlib
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

from experiments.runtime.plots import COLORS
from experiments.runtime.results import KINDS

TEMPLATE = pathlib.Path(__file__).with_name("page.html")
DASH = "\N{EN DASH}"  # where there is no value
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
THIN = "\N{NARROW NO-BREAK SPACE}"  # between thousands


class Column(NamedTuple):
    """What one column of the table shows.

    Attributes:
      key: of the value in a row. "family" groups the rows, "kind" is shown as a badge.
      heading: above the column.
      explanation: one sentence; a tooltip of the heading, and a line of the legend.
      numeric: whether all values are numbers; they sort as numbers and stand on the right.
      digits: decimals of floats; None writes three significant digits. A value that its decimals
        would make zero is written as a power of ten. Whole numbers (int) are always whole.
    """

    key: str
    heading: str
    explanation: str
    numeric: bool = False
    digits: int | None = None


class _Kind(NamedTuple):
    words: str
    sign: str  # how the true value relates to the number shown
    color: str
    meaning: str


_KINDS = {
    "exact": _Kind("exact", "=", "green", "the truth itself"),
    "lower_bound": _Kind("lower bound", "≥", "blue", "the truth is at least this"),
    "upper_bound": _Kind("upper bound", "≤", "red", "the truth is at most this"),
    "estimate": _Kind("estimate", "≈", "gray", "either side of the truth"),
}


def page(
    *,
    title: str,
    lead: str,
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, Any]],
    figure_svg: str,
    figure_alt: str,
    notes: Sequence[str],
    environment: Mapping[str, str],
) -> str:
    """The page as text of HTML; the same arguments give the same text.

    Nothing is loaded from anywhere, and the page's own policy forbids it. Texts are plain, not
    HTML. The first column of text other than the family names its row.

    Args:
      title: of the page.
      lead: the paragraph under it.
      columns: from left to right.
      rows: in their first order, where rows of one family stand together; each has "family" and
        "kind" (one of `results.KINDS`). A key that is missing, None and a number that is not
        finite are shown as a dash, which sorts last in both directions.
      figure_svg: an SVG file as text; shown above the table as wide as the page.
      figure_alt: what the figure shows, for those who do not see it.
      notes: below the table, one item each.
      environment: versions and machine, as in results.json.

    Returns:
      The document.

    Raises:
      ValueError: an unknown kind, text in a numeric column, or a figure that is not an SVG with a
        viewBox.
    """
    for row in rows:
        if row["kind"] not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {row['kind']!r}.")
    naming = next((c for c in columns if not c.numeric and c.key not in ("family", "kind")), None)
    template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    present = {row["kind"]: _KINDS[row["kind"]] for row in rows}
    return template.substitute(
        title=_text(title),
        lead=_text(lead),
        figure=_figure(figure_svg, figure_alt),
        kind_colors="\n".join(
            f".{name} {{ --color: {COLORS[kind.color]} }}" for name, kind in _KINDS.items()
        ),
        kinds="\n".join(
            f"<li>{_badge(name)} {_text(present[name].meaning)}</li>"
            for name in _KINDS
            if name in present
        ),
        head="\n".join(
            f'<th scope="col"{_class(_classes(c, naming))} title="{_text(c.explanation)}">'
            f"{_text(c.heading)}</th>"
            for c in columns
        ),
        body="\n".join(_rows(columns, rows, naming)),
        legend="\n".join(
            f"<div><dt>{_text(c.heading)}</dt> <dd>{_text(c.explanation)}</dd></div>"
            for c in columns
        ),
        notes=_notes(notes),
        environment="\n".join(
            f"<div><dt>{_text(name)}</dt> <dd>{_text(value)}</dd></div>"
            for name, value in environment.items()
        ),
    )


def _text(value: Any) -> str:
    return html.escape(str(value))


def _class(names: Iterable[str]) -> str:
    joined = " ".join(names)
    return f' class="{joined}"' if joined else ""


def _classes(column: Column, naming: Column | None) -> list[str]:
    """CSS classes of a column's heading and cells."""
    names = {"number": column.numeric, "family": column.key == "family", "name": column is naming}
    return [name for name, holds in names.items() if holds]


def _badge(kind: str) -> str:
    words, sign, *_ = _KINDS[kind]
    return f'<span class="kind {kind}" data-sign="{sign}">{words}</span>'


def _rows(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], naming: Column | None
) -> Iterable[str]:
    family = None
    for i, row in enumerate(rows):
        first = ["first"] if i == 0 or row["family"] != family else []
        family = row["family"]
        # A line for each cell: the filter must not see a word across two of them.
        cells = "\n".join(_cell(c, row.get(c.key), naming) for c in columns)
        yield f"<tr{_class(first)}>\n{cells}\n</tr>"


def _cell(column: Column, value: Any, naming: Column | None) -> str:
    classes = _classes(column, naming)
    data = ""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        classes.append("none")
        inner = DASH
    elif column.numeric:
        if not isinstance(value, (int, float)):
            raise ValueError(f"column {column.key!r} is numeric, got {value!r}.")
        data = f' data-value="{float(value)!r}"'
        inner = _number(value, column.digits)
    elif column.key == "kind":
        inner = _badge(str(value))
    else:
        inner = _text(value)
    tag, scope = ("th", ' scope="row"') if column is naming else ("td", "")
    return f"<{tag}{scope}{_class(classes)}{data}>{inner}</{tag}>"


def _number(value: float, digits: int | None) -> str:
    """A number as HTML."""
    if isinstance(value, int):
        return f"{value:,}".replace(",", THIN).replace("-", MINUS)
    decimals, precision = digits, 1
    if digits is None:
        exponent = int(f"{value:.2e}".split("e")[1])
        decimals, precision = max(0, 2 - exponent), 2
        power = value != 0 and not -3 <= exponent < 7
    else:
        power = value != 0 and float(f"{value:.{digits}f}") == 0
    if power:
        mantissa, exponent = f"{value:.{precision}e}".split("e")
        shown = f"{mantissa}{THIN}{TIMES}{THIN}10<sup>{int(exponent)}</sup>"
    else:
        shown = f"{value:z,.{decimals}f}".replace(",", THIN)
    return shown.replace("-", MINUS)


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "\n".join(f"<li>{_text(note)}</li>" for note in notes)
    return f'<section>\n<h2>Notes</h2>\n<ul class="notes">\n{items}\n</ul>\n</section>'


def _figure(svg: str, alt: str) -> str:
    """The SVG as an element of HTML: no prolog, namespaces or metadata, ids of its own."""
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise ValueError(f"the figure is not readable as SVG: {error}.") from None
    for parent in root.iter():
        for child in [c for c in parent if _local(c.tag) == "metadata"]:
            parent.remove(child)
    for element in root.iter():
        # HTML knows the elements of SVG by their bare names.
        element.tag = _local(element.tag)
        attributes = {_local(name): value for name, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({name: _own(name, value) for name, value in attributes.items()})
    if root.tag != "svg":
        raise ValueError(f"the figure must be an <svg>, got <{root.tag}>.")
    if "viewBox" not in root.attrib:
        raise ValueError("the figure needs a viewBox, which scales it to the page.")
    for size in ("width", "height"):  # the style sheet sets them
        root.attrib.pop(size, None)
    root.attrib.update({"role": "img", "aria-label": alt})
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _own(name: str, value: str) -> str:
    """An attribute whose ids, defined or referred to, are those of the figure."""
    if name == "id":
        return f"figure-{value}"
    if name == "href" and value.startswith("#"):
        return f"#figure-{value[1:]}"
    return value.replace("url(#", "url(#figure-")
