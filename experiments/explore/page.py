"""The page as one file of HTML: a skeleton, its style and its scripts put together."""

import html
import json
import pathlib
import string
from collections.abc import Sequence
from typing import Any

from experiments.explore.measured import Measured

HERE = pathlib.Path(__file__).parent
SCRIPTS = ("exact.js", "chart.js", "page.js")  # each uses those before it
DIGITS = 7  # as many as float32 has


def page(runs: Sequence[Measured]) -> str:
    """The document; the same runs give the same text. Nothing is loaded from anywhere.

    Args:
      runs: measured points, each with a button; the page begins nearest to the optimum.
    """
    runs = sorted(runs, key=lambda run: run.settings.toy.perturbation)
    template = string.Template(_read("page.html"))
    return template.substitute(
        style=_read("page.css").rstrip(),
        script="\n".join(_read(name) for name in SCRIPTS).rstrip(),
        buttons="\n".join(_button(number, run) for number, run in enumerate(runs)),
        # As it stands in a script: `<` could end it.
        runs=json.dumps([_data(run) for run in runs], allow_nan=False).replace("<", r"\u003c"),
        environment="\n".join(_provenance(run) for run in runs),
    )


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _button(number: int, run: Measured) -> str:
    return (
        f'<button type="button" data-run="{number}" aria-pressed="false">'
        f"{html.escape(run.name)}, as measured</button>"
    )


def _data(run: Measured) -> dict[str, Any]:
    return {
        "delta": _rounded(run.delta.tolist()),
        "offset": _rounded(run.offset.tolist()),
        "variance": run.settings.toy.variance,
        "replicates": run.settings.replicates.number,
        "series": {name: [_rounded(p) for p in points] for name, points in run.series.items()},
    }


def _rounded(values: Any) -> list[Any]:
    return [float(f"{v:.{DIGITS}g}") if isinstance(v, float) else v for v in values]


def _provenance(run: Measured) -> str:
    toy, found = run.settings.toy, run.environment
    text = (
        f"experiments.snr, perturbation {toy.perturbation:g}, seed {run.settings.seed}, datum "
        f"{toy.datum}, {run.settings.replicates.number:,} gradients a point; "
        f"jax {found.get('jax')}, Python {found.get('python')}, {found.get('machine')}."
    )
    return f"<div><dt>{html.escape(run.name)}</dt> <dd>{html.escape(text)}</dd></div>"
