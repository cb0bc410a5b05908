"""A grid of objectives, K and seeds: what `experiments.reference` trains, scores and compares."""

import math
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

import bounds
from experiments.runtime import fit
from experiments.runtime.checkpoints import Checkpoints
from experiments.runtime.errors import UserError
from experiments.runtime.optimizers import BURDA_EPOCHS
from experiments.runtime.results import Row, row
from experiments.training import held_out
from experiments.training.build import OBJECTIVES, Problem, evaluation_key, make_run, prepared
from experiments.training.ensemble import ensemble, member

# Burda et al. 2015 (arXiv 1509.00519), Table 1: MNIST, one layer, log p(x) by IWAE-5000.
PUBLISHED = {
    ("elbo", 1): -86.76, ("elbo", 5): -86.47, ("elbo", 50): -86.35,
    ("iwae", 1): -86.76, ("iwae", 5): -85.54, ("iwae", 50): -84.78,
}  # fmt: skip


class Point(NamedTuple):
    """Models that are trained in one go."""

    objective: str
    num_samples: int
    seeds: tuple[int, ...]

    @property
    def label(self) -> str:
        """Its name in records and its folder."""
        seeds = "_".join(map(str, self.seeds))
        return f"{self.objective}_K{self.num_samples}_seed{seeds}"


def points(config: Any) -> list[Point]:
    """The grid of a config: seed by seed, so that a run cut short has whole comparisons.

    Raises:
      UserError: the grid or the seeds make no sense.
    """
    if not config.seeds or not config.grid:
        raise UserError("config.seeds and config.grid must not be empty.")
    pairs = []
    for entry in config.grid:
        objective, _, samples = entry.partition(":")
        if objective not in OBJECTIVES or not samples.isdigit() or int(samples) < 1:
            raise UserError(
                f"config.grid has entries like 'iwae:5', with one of {', '.join(OBJECTIVES)}, "
                f"got {entry!r}."
            )
        pairs.append((objective, int(samples)))
    if config.together:
        return [Point(name, k, tuple(config.seeds)) for name, k in pairs]
    return [Point(name, k, (seed,)) for seed in config.seeds for name, k in pairs]


def run(problem: Problem, point: Point, config: Any, folder: str) -> list[Row]:
    """Trains the models of a point and scores each on the same test images."""
    settings = [_settings(config, point, seed) for seed in point.seeds]
    runs = [make_run(problem, s) for s in settings]
    whole = runs[0] if len(runs) == 1 else ensemble(runs, config)
    start = time.perf_counter()
    # A member's config and its seeds: another grid may go on with the same folders.
    named = {**settings[0].to_dict(), "seed": list(point.seeds)}
    with Checkpoints(f"{folder}/checkpoints", named, keep=config.keep_checkpoints) as checkpoints:
        state = fit.fit(whole, settings[0], folder, checkpoints)
    seconds = (time.perf_counter() - start) / len(runs)
    params = fit.evaluated_params(state)
    rows = []
    for index, seed in enumerate(point.seeds):
        own = params if len(runs) == 1 else member(params, index)
        at = {"objective": point.objective, "K": point.num_samples, "seed": seed}
        rows += _score(problem, bounds.Params(*own), config, at, seconds)
    return rows


def summarise(rows: list[Row], config: Any) -> list[Row]:
    """Means over seeds with their standard errors, and differences paired by seed."""
    out = []
    pairs = list(dict.fromkeys((r["at"]["objective"], r["at"]["K"]) for r in rows))
    names = list(dict.fromkeys(r["name"] for r in rows))
    protocol = config.optimizer in ("paper", "released_code") and config.dataset == "mnist"
    for name in names:
        for objective, samples in pairs:
            values = list(_by_seed(rows, name, objective, samples).values())
            like = next(r for r in rows if r["name"] == name)
            published = PUBLISHED.get((objective, samples)) if protocol else None
            out.append(
                _over_seeds(
                    name, {"objective": objective, "K": samples}, values, like["kind"],
                    like["unit"], published=published if name.startswith("IWAE-5000") else None,
                )
            )  # fmt: skip
    score = f"IWAE-{config.evaluation_samples}"
    for a, b in [
        (("iwae", 5), ("elbo", 1)), (("iwae", 5), ("elbo", 5)), (("iwae", 50), ("iwae", 5)),
        (("dreg", 5), ("iwae", 5)), (("dreg", 50), ("iwae", 50)),
    ]:  # fmt: skip
        first, second = _by_seed(rows, score, *a), _by_seed(rows, score, *b)
        common = sorted(first.keys() & second.keys())
        if common:
            out.append(
                _over_seeds(
                    f"{score} of {a[0]} minus {b[0]}", {"objective": a[0], "K": f"{a[1]}-{b[1]}"},
                    [first[s] - second[s] for s in common], "estimate", "nats",
                )
            )  # fmt: skip
    return out


def notes(problem: Problem, config: Any) -> list[str]:
    """What stands behind the table."""
    count = config.evaluation_images or len(problem.dataset.test)
    run = make_run(problem, config)
    epochs = run.num_steps / run.stream.steps_per_epoch
    protocol = f"protocol {config.optimizer}" if config.optimizer != "adam" else (
        f"Adam at {config.learning_rate:g}"
    )  # fmt: skip
    return [
        f"{problem.dataset.name}: {run.num_steps:,} steps of {config.batch_size} images "
        f"({epochs:.1f} epochs; Burda et al. trained for {BURDA_EPOCHS:,}), {protocol}; "
        f"{len(config.seeds)} seeds; the first {count:,} test images, binarised alike for all.",
        "Standard errors are over seeds; differences are paired by seed. IWAE with one sample is "
        "the ELBO, so elbo at K = 1 stands for both.",
    ]


def _settings(config: Any, point: Point, seed: int) -> ConfigDict:
    own = ConfigDict(config.to_dict())
    for name in ("grid", "seeds", "together"):
        del own[name]
    own.objective, own.num_samples, own.seed = point.objective, point.num_samples, seed
    return own


def _score(
    problem: Problem, params: bounds.Params, config: Any, at: dict[str, Any], seconds: float
) -> list[Row]:
    images = prepared(problem, "test", config)[: config.evaluation_images or None]
    few, many = config.few_samples, config.evaluation_samples
    key, unit_key = jax.random.split(evaluation_key(config))
    measured = held_out.per_image(
        problem.vae, params, images, key,
        few=few, many=many,
        images_per_pass=config.images_per_pass, samples_per_pass=config.samples_per_pass,
    )  # fmt: skip
    units = held_out.active_units(problem.vae, params, images, unit_key)
    gap = measured.iwae_few - measured.iwae_many
    return [
        held_out.mean_row(f"IWAE-{many}", at, measured.iwae_many, "lower_bound", seconds=seconds),
        held_out.mean_row(f"IWAE-{few}", at, measured.iwae_few, "lower_bound"),
        held_out.mean_row("ELBO", at, measured.elbo, "lower_bound"),
        held_out.mean_row("-KL", at, gap, "estimate"),
        *(
            row(
                f"active units, layer {layer}",
                at,
                kind="estimate",
                unit="units",
                value=count,
                standard_error=error,
                n=len(images),
            )
            for layer, (count, error) in enumerate(units, 1)
        ),
        row("training time", at, kind="estimate", unit="s", value=seconds),
    ]


def _by_seed(rows: list[Row], name: str, objective: str, samples: int) -> dict[int, float]:
    return {
        r["at"]["seed"]: r["value"]
        for r in rows
        if (r["name"], r["at"]["objective"], r["at"]["K"]) == (name, objective, samples)
    }


def _over_seeds(
    name: str, at: dict[str, Any], values: list[float], kind: str, unit: str, **extra: Any
) -> Row:
    count = len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else None
    return row(
        name, at, kind=kind, unit=unit, value=float(np.mean(values)), standard_error=error,
        n=count, **extra,
    )  # fmt: skip
