"""A page with ties, signs, powers of ten and values that are missing, and readers of pages."""

import functools
import html.parser
import io
import math
import re
from typing import Any

from experiments.compare.page import Column, page
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
    {
        "family": f"family {i // 3}",
        "model": model,
        "bound": bound,
        "kind": KINDS[i % 4],
        "value": value,
        "seconds": seconds,
        "not shown": "anything",
    }
    for i, (model, bound, value, seconds) in enumerate(CASES)
]
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
        "title": text,
        "lead": text,
        "columns": COLUMNS,
        "rows": ROWS,
        "figure_svg": figure(),
        "figure_alt": text,
        "notes": [text, "second"],
        "environment": {"jax": "0.10", text: text},
    }
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
