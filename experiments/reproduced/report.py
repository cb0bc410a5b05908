"""The table of published numbers and ours, as text and as Markdown, and the curves of training."""

import glob
import json
import os
from collections.abc import Iterator

from experiments.runtime import plots, results
from experiments.runtime.results import Row

TABLE = "table.md"
HEADINGS = (
    "what", "published", "ours", "unit", "error over", "difference in standard errors", "verdict",
    "part",
)  # fmt: skip


def show(rows: list[Row], workdir: str) -> None:
    """Prints the table, and writes it with the curves beside the record."""
    text = "\n\n".join(markdown(rows)) + "\n"
    path = os.path.join(workdir, TABLE)
    results.write_atomically(path, text.encode())
    print(text)
    written = [path]
    curves = {name: points for name, points in _curves(workdir) if len(points) > 1}
    if curves:
        written += plots.save(workdir, "figure", draw(curves))
    results.print_written(workdir, written)


def markdown(rows: list[Row]) -> Iterator[str]:
    """A heading, what differs, and a table for each paper."""
    for paper in dict.fromkeys(r["at"]["paper"] for r in rows):
        own = [r for r in rows if r["at"]["paper"] == paper]
        lines = [_line(HEADINGS), _line(["---"] * len(HEADINGS))]
        lines += [_line(_cells(r)) for r in own]
        yield f"**{paper}.** What differs: {own[0].get('differs', '')}."
        yield "\n".join(lines)


def _cells(r: Row) -> list[str]:
    published = r.get("published")
    beside = "" if published is None else _number(published, r.get("published_error"))
    score = r.get("z_score")
    over = [r.get("over", ""), *([] if r["n"] is None else [str(r["n"])])]
    return [
        r["name"], beside, _number(r["value"], r["standard_error"]), r["unit"],
        ", ".join(over), "" if score is None else f"{score:+.1f}",
        r.get("verdict") or "", r.get("part", ""),
    ]  # fmt: skip


def _number(value: float, error: float | None) -> str:
    return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g}"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _curves(workdir: str) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """The validation bounds of every model that a part has trained by `reference`."""
    for path in sorted(
        glob.glob(os.path.join(glob.escape(workdir), "burda*", "*", results.METRICS))
    ):
        with open(path) as file:
            entries = [json.loads(line) for line in file if line.strip()]
        points = [(e["step"], e["validation"]) for e in entries if "validation" in e]
        yield os.path.basename(os.path.dirname(path)), points


def draw(curves: dict[str, list[tuple[int, float]]]):
    """Validation bounds over steps."""
    figure, grid = plots.new_figure(1, 1, (7.5, 4.5), squeeze=False)
    axes = grid[0, 0]
    for number, (name, points) in enumerate(curves.items()):
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, label=name.replace("_", " "), color=f"C{number % 10}", lw=1.2)
    axes.set(xscale="log", xlabel="step of 20 images", ylabel="validation, IWAE-64 in nats")
    axes.legend(fontsize=7, ncol=2)
    return figure
