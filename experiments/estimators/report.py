"""Tables of `experiments.estimators`, made from its rows alone."""

from collections.abc import Iterable

from experiments.runtime.results import Row

NOTHING = 1e-5  # what is left of a bias of zero by the quadrature


def show(rows: list[Row]) -> None:
    """Prints everything: for each model its estimators, then its values."""
    for model in dict.fromkeys(r["at"]["model"] for r in rows):
        own = [r for r in rows if r["at"]["model"] == model]
        print(f"\n{model}\n{'=' * len(model)}")
        for of in ("theta", "phi"):
            print(f"\n{of}: SNR, variance; bias where there is one\n")
            print(_lines(estimator_table(own, of)))
        print("\nvalues in nats: expectations\n")
        print(_lines(value_table(own)))


def estimator_table(rows: list[Row], of: str) -> list[list[str]]:
    """A line for each estimator: SNR and variance at each K, and its biases."""
    own = [r for r in rows if r["at"].get("of") == of]
    counts = sorted({r["at"]["K"] for r in own})
    values = {(r["at"]["estimator"], r["name"], r["at"]["K"]): r["value"] for r in own}
    lines = [["estimator", *(f"SNR {k}" for k in counts), *(f"var {k}" for k in counts), "bias"]]
    for name in dict.fromkeys(r["at"]["estimator"] for r in own):
        bias = {k: values.get((name, "bias", k)) or 0.0 for k in counts}
        lines.append(
            [
                name,
                *(_number(values, (name, "SNR", k)) for k in counts),
                *(_number(values, (name, "variance", k)) for k in counts),
                ", ".join(f"{b:.2g} at {k}" for k, b in bias.items() if b > NOTHING) or "0",
            ]
        )
    return lines


def value_table(rows: list[Row]) -> list[list[str]]:
    """A line for each value: its kind, and its expectation at each K."""
    own = [r for r in rows if r["unit"] == "nats" and "estimator" not in r["at"]]
    counts = sorted({r["at"]["K"] for r in own if "K" in r["at"]})
    lines = [["value", "kind", *(f"K = {k}" for k in counts)]]
    for name in dict.fromkeys(r["name"] for r in own):
        found = {r["at"].get("K"): r for r in own if r["name"] == name}
        kind = next(iter(found.values()))["kind"].replace("_", " ")
        shown = [found[k] if k in found else found.get(None) for k in counts]
        lines.append([name, kind, *("" if r is None else f"{r['value']:.4f}" for r in shown)])
    return lines


def _number(values: dict, key: tuple) -> str:
    if key not in values:
        return ""
    value = values[key]
    return "inf" if value is None else f"{0.0 if abs(value) < NOTHING else value:.3g}"


def _lines(cells: Iterable[list[str]]) -> str:
    cells = list(cells)
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
