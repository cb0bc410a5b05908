"""The table of published numbers and ours, as Markdown and JSON, and the curves of training."""

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from experiments.runtime import plots, results
from experiments.runtime.results import Row

TABLE, EXPECTED = "table.md", "expected.json"
COMMAND = (
    "python -m experiments.reproduced --config=configs/reproduced.py --workdir=runs/reproduced "
    "--config.data_dir=data '--config.order=(\"{part}\",)'"
)
HEADINGS = (
    "what", "published", "ours", "unit", "error over", "difference in standard errors", "verdict",
    "part",
)  # fmt: skip


Parts = Mapping[str, Mapping[str, Any]]
"""Of `table.measured_on`."""


def show(rows: list[Row], parts: Parts, workdir: str) -> None:
    """Prints the table, and writes it with the curves beside the record."""
    text = "\n\n".join(markdown(rows, parts)) + "\n"
    kept = json.dumps(expected(rows, parts), indent=1) + "\n"
    written = [os.path.join(workdir, name) for name in (TABLE, EXPECTED)]
    for path, content in zip(written, (text, kept), strict=True):
        results.write_atomically(path, content.encode())
    print(text)
    curves = {name: points for name, points in _curves(workdir) if len(points) > 1}
    if curves:
        written += plots.save(workdir, "figure", draw(curves))
    results.print_written(workdir, written)


def expected(rows: list[Row], parts: Parts) -> dict[str, Any]:
    """What another run of the parts is held against: rows, and the command of each part."""
    commands = {name: {"command": COMMAND.format(part=name), **on} for name, on in parts.items()}
    kept = [{name: value for name, value in r.items() if value is not None} for r in rows]
    return {"parts": commands, "rows": kept}


def markdown(rows: list[Row], parts: Parts) -> Iterator[str]:
    """A heading, what differs, and a table for each paper; then what parts took."""
    for paper in dict.fromkeys(r["at"]["paper"] for r in rows):
        own = [r for r in rows if r["at"]["paper"] == paper]
        lines = [_line(HEADINGS), _line(["---"] * len(HEADINGS))]
        lines += [_line(_cells(r)) for r in own]
        yield f"**{paper}.** What differs: {own[0].get('differs', '')}."
        yield "\n".join(lines)
    headings = ("part", "minutes", "CPU minutes", "machine", "Python", "jax")
    lines = [_line(headings), _line(["---"] * len(headings))]
    for name, on in parts.items():
        took = (on.get(key) for key in ("minutes", "cpu_minutes"))
        machine = (str(on[key]) for key in ("machine", "python", "jax"))
        told = ("" if minutes is None else f"{minutes:.3g}" for minutes in took)
        lines.append(_line([f"`{name}`", *told, *machine]))
    yield "\n".join(lines)


def _cells(r: Row) -> list[str]:
    published = r.get("published")
    beside = "" if published is None else _number(published, r.get("published_error"))
    score = r.get("z_score")
    over = [r.get("over", ""), *([] if r.get("n") is None else [str(r["n"])])]
    return [
        r["name"], beside, _number(r["value"], r.get("standard_error")), r["unit"],
        ", ".join(over), "" if score is None else _score(score),
        r.get("verdict") or "", r.get("part", ""),
    ]  # fmt: skip


def _score(z: float) -> str:
    return f"{z:+.1f}" if abs(z) < 1000 else f"{z:+.0e}"


def _number(value: float | None, error: float | None) -> str:
    if value is None:
        return "not finite"
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
    """Validation bounds over steps: a colour for each K, a kind of line for each objective.

    They begin where all of them have: one that was stopped early on was validated there as well.
    """
    start = max((points[0][0] for points in curves.values() if points), default=0)
    figure, grid = plots.new_figure(1, 1, (7.5, 4.5), squeeze=False)
    axes = grid[0, 0]
    # Folders are called OBJECTIVE_K5_seed0.
    models = {name: tuple(name.rsplit("_seed", 1)[0].rsplit("_K", 1)) for name in curves}
    lines = {m: ("-", "--", ":", "-.")[i % 4] for i, m in enumerate(_first(models.values(), 0))}
    colours = {k: f"C{i % 10}" for i, k in enumerate(sorted(_first(models.values(), 1), key=int))}
    for name, points in curves.items():
        objective, k = models[name]
        label = f"{objective}, K = {k}"
        seen = label in axes.get_legend_handles_labels()[1]
        axes.plot(
            *zip(*(p for p in points if p[0] >= start), strict=True), lw=1.2,
            label=None if seen else label, ls=lines[objective], color=colours[k],
        )  # fmt: skip
    axes.set(xscale="log", xlabel="step of 20 images", ylabel="validation, IWAE-64 in nats")
    axes.legend(fontsize=7, ncol=2)
    return figure


def _first(models: Iterable[tuple[str, ...]], place: int) -> list[str]:
    """What models have at a place, each once."""
    return list(dict.fromkeys(m[place] for m in models))
