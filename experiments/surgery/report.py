"""What a surgery shows: a table with a column for each model, and the figures."""

import math
from typing import Any

import numpy as np

from experiments.runtime import plots, results
from experiments.runtime.results import Row
from experiments.surgery import decomposition, pictures, two_dimensions
from experiments.surgery.models import Loaded
from experiments.surgery.settings import TWO_DIMENSIONS, Surgery
from experiments.vae import figures

_HIDDEN = (*decomposition.OF_DIMENSION, decomposition.VARIANCE_OF_MEAN)


def show(rows: list[Row], paths: list[str], workdir: str) -> None:
    """Prints the tables and the paths of the figures that were written."""
    of_models = [r for r in rows if r["at"]["model"] != TWO_DIMENSIONS]
    print(_table([r for r in of_models if r["name"] not in _HIDDEN and "step" not in r["at"]]))
    print("\n" + _dimensions(of_models))
    print(
        "\nbefore, after: of training, on the N training images, whose aggregated posterior is "
        "exact; standard errors\nover the draws of z alone. average KL = I + marginal KL; marginal "
        "KL = total correlation + dimension-wise KL.\n"
        f"{_ceilings(of_models)}\n"
        "Minibatch estimates: standard errors over batches. Test images and gaps: over images. "
        "q(z) as the prior is\nthat of the training images. gap = approximation gap + "
        "amortisation gap, with a lower bound in the place of log p(x)."
    )
    plane = [r for r in rows if r["at"]["model"] == TWO_DIMENSIONS]
    if plane:
        print("\nA VAE with two dimensions, one image, sums over a grid:\n")
        print(_table(plane))
    results.print_written(workdir, paths)


def _table(rows: list[Row]) -> str:
    """One line for each quantity, one column for each model."""
    models = list(dict.fromkeys(r["at"]["model"] for r in rows))
    lines: dict[tuple, dict[str, Any]] = {}
    for r in rows:
        where = {k: v for k, v in r["at"].items() if k not in ("model", "image")}
        text = ", ".join(str(v) if k in ("when", "data") else f"{k}={v}" for k, v in where.items())
        line = lines.setdefault(
            (r["name"], text),
            {"name": r["name"], "where": text, "kind": r["kind"], "unit": r["unit"], "at": {}},
        )
        line["at"][r["at"]["model"]] = _with_error(r)
    columns = {"": "name", "at": "where", "kind": "kind", "unit": "unit"}
    return results.table(list(lines.values()), {**columns, **{m: f"at.{m}" for m in models}})


def _dimensions(rows: list[Row]) -> str:
    """One line for each dimension after training, one column for each model."""
    lines: dict[int, dict[str, Any]] = {}
    names = (*decomposition.OF_DIMENSION, decomposition.VARIANCE_OF_MEAN)
    found = {
        (r["at"]["model"], r["at"]["dimension"], r["name"]): r
        for r in rows
        if r["name"] in names and r["at"].get("when") == "after"
    }
    for model, d, _ in found:
        average, information, kl, variance = (found[model, d, name] for name in names)
        line = lines.setdefault(d, {"name": f"dimension {d}", "at": {}})
        text = f"{average['value']:.3f} = {information['value']:.3f} + {kl['value']:.3f}"
        line["at"][model] = f"{text} {'*' if variance['active'] else ' '}"
    models = dict.fromkeys(model for model, *_ in found)
    table = results.table(list(lines.values()), {"": "name", **{m: f"at.{m}" for m in models}})
    largest = max((r["standard_error"] or 0.0 for r in found.values()), default=0.0)
    return (
        f"{table}\n\nafter training, nats: average KL = I + KL(q(z_d) || p(z_d)); standard errors "
        f"of the parts at most {largest:.1g}; * active"
    )


def _with_error(r: Row) -> str:
    """The value with as many digits as its standard error allows."""
    value, error = r["value"], r["standard_error"]
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    if not error:
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"
    digits = min(max(1 - math.floor(math.log10(error)), 0), 6)
    return f"{value:.{digits}f} ({error:.{digits}f})"


def _ceilings(rows: list[Row]) -> str:
    found = {
        r["at"]["model"]: (r["n"], r["log_n"])
        for r in rows
        if r["name"] == decomposition.INFORMATION
    }
    if len(set(found.values())) == 1:
        count, ceiling = next(iter(found.values()))
        return f"I is at most log N = log {count} = {ceiling:.3f}."
    each = (f"{name} log {count} = {ceiling:.3f}" for name, (count, ceiling) in found.items())
    return f"I is at most log N: {', '.join(each)}."


def draw(models: list[Loaded], rows: list[Row], settings: Surgery, workdir: str) -> list[str]:
    """Writes figure.png and figure.svg; returns their paths."""
    densities = {}
    for model in models:
        images = decomposition.training_images(model, settings)
        densities[model.name] = decomposition.aggregated(
            model, model.params, images, settings.memory
        )
    names = ", ".join(dict.fromkeys(m.problem.dataset.name for m in models))
    title = f"ELBO surgery on the training images of {names}: average KL = $I$ + marginal KL"
    return plots.save(workdir, "figure", pictures.surgery(rows, densities, title))


def draw_plane(
    model: Loaded, plane: two_dimensions.Plane, rows: list[Row], workdir: str
) -> list[str]:
    """Writes iwae_posterior.png and iwae_posterior.svg; returns their paths."""
    (picture,) = figures.as_images(model.problem, np.asarray(plane.x))
    if picture.ndim == 3 and picture.shape[-1] == 1:
        picture = picture[..., 0]
    title = (
        f"Two latent dimensions, test image {plane.image} of {model.problem.dataset.name}: what "
        "IWAE's weights make of the encoder's posterior"
    )
    return plots.save(workdir, "iwae_posterior", pictures.posteriors(plane, rows, picture, title))
