"""A grid of objectives, K and seeds: what `experiments.reference` trains, scores and compares."""

import math
import time
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

import bounds
from experiments.runtime import checks, fit
from experiments.runtime.errors import UserError
from experiments.runtime.optimizers import BURDA_EPOCHS
from experiments.runtime.results import Row, row
from experiments.studies import held_out
from experiments.studies.ensemble import train_members
from experiments.studies.points import groups_of_seeds, seeds_label
from experiments.vae.build import (
    OBJECTIVES,
    Problem,
    evaluation_key,
    make_objective,
    make_run,
    prepared,
)

# MNIST, one layer, by (objective, M, K).
PUBLISHED = {
    # Burda et al. 2015 (arXiv 1509.00519), Table 1.
    **{
        (name, 1, k): {"IWAE-5000": value}
        for name, values in {"elbo": (-86.76, -86.47, -86.35), "iwae": (-86.76, -85.54, -84.78)}
        .items() for k, value in zip((1, 5, 50), values, strict=True)
    },
    # Rainforth et al. 2018 (arXiv 1802.04537), Table 1.
    ("iwae", 1, 64): {"IWAE-64": -86.11, "IWAE-5000": -84.52, "-KL": -1.59},
    ("piwae", 8, 8): {"IWAE-64": -85.74, "IWAE-5000": -84.46, "-KL": -1.28},
    ("miwae", 8, 8): {"IWAE-64": -85.69, "IWAE-5000": -84.97, "-KL": -0.72},
    ("ciwae", 1, 64): {"IWAE-64": -86.08, "IWAE-5000": -85.24, "-KL": -0.84},
    ("elbo", 1, 64): {"IWAE-64": -86.69, "IWAE-5000": -86.21, "-KL": -0.47},
}  # fmt: skip
_OF_SCORING = (
    "evaluation_images", "evaluation_samples", "few_samples", "images_per_pass",
    "samples_per_pass",
)  # fmt: skip
GROUPED = ("miwae", "piwae")


class Point(NamedTuple):
    """Models that are trained in one go."""

    objective: str
    num_samples: int
    seeds: tuple[int, ...]
    num_groups: int = 1

    @property
    def label(self) -> str:
        """Its name in records and its folder."""
        groups = f"_M{self.num_groups}" if self.objective in GROUPED else ""
        return f"{self.objective}{groups}_K{self.num_samples}_{seeds_label(self.seeds)}"


def points(config: Any) -> list[Point]:
    """The grid of a config: seed by seed, so that a run cut short has whole comparisons.

    Raises:
      UserError: the grid or the seeds make no sense.
    """
    checks.distinct(config, "grid")
    models = [_model(entry) for entry in config.grid]
    groups = groups_of_seeds(config)
    return [Point(name, k, seeds, m) for seeds in groups for name, m, k in models]


def _model(entry: Any) -> tuple[str, int, int]:
    """(objective, M, K) of an entry of the grid."""
    objective, *counts = str(entry).split(":")
    grouped = objective in GROUPED
    good = objective in OBJECTIVES and all(c.isdecimal() and int(c) > 0 for c in counts)
    if not good or len(counts) != (2 if grouped else 1):
        raise UserError(
            "config.grid has entries OBJECTIVE:K like 'iwae:5', or OBJECTIVE:M:K like 'piwae:8:8' "
            f"for {' and '.join(GROUPED)}, with one of {', '.join(OBJECTIVES)}, got {entry!r}."
        )
    return objective, int(counts[0]) if grouped else 1, int(counts[-1])


def check(problem: Problem, config: Any, models: list[Point]) -> None:
    """Refuses what only a later model would stumble over.

    Raises:
      UserError: a setting of any model, of training or of its evaluation, is wrong.
    """
    fit.check_config(config)
    held_out.check_passes(config)
    checks.whole(config, 1, "evaluation_samples", "few_samples")
    checks.whole(config, 0, "evaluation_images")
    for point in models:
        own = _settings(config, point, point.seeds[0])
        make_objective(problem.vae.model, own, problem.vae.simulate)
    make_run(problem, _settings(config, models[0], models[0].seeds[0]))


def run(
    problem: Problem, point: Point, config: Any, folder: str, checkpoint_dir: str | None = None
) -> list[Row]:
    """Trains the models of a point and scores each on the same test images.

    Args:
      problem: data and model.
      point: what to train.
      config: of the grid.
      folder: for metrics and the model's config.
      checkpoint_dir: None for a folder in `folder`.
    """
    settings = [_settings(config, point, seed) for seed in point.seeds]
    runs = [make_run(problem, s) for s in settings]
    # A model's own config: another grid, or another evaluation, may go on with the same folders.
    named = {k: v for k, v in settings[0].to_dict().items() if k not in _OF_SCORING}
    if len(runs) > 1:
        named["seed"] = list(point.seeds)
    params, seconds = train_members(runs, settings[0], folder, named, checkpoint_dir)
    rows = []
    for seed, own in zip(point.seeds, params, strict=True):
        at = {"objective": point.objective, "M": point.num_groups, "K": point.num_samples}
        at["seed"] = seed
        rows += _score(problem, bounds.Params(*own), config, at, seconds)
    return rows


def summarise(rows: list[Row], config: Any) -> list[Row]:
    """Means over seeds with their standard errors, and differences paired by seed."""
    out = []
    models = list(dict.fromkeys(map(_of, rows)))
    names = list(dict.fromkeys(r["name"] for r in rows))
    beside = PUBLISHED if _is_published_setting(config) else {}
    for name in names:
        for model in models:
            values = list(_by_seed(rows, name, *model).values())
            like = next(r for r in rows if r["name"] == name)
            out.append(
                held_out.mean_row(
                    name, dict(zip(("objective", "M", "K"), model, strict=True)), values,
                    like["kind"], unit=like["unit"], published=beside.get(model, {}).get(name),
                )
            )  # fmt: skip
    score = f"IWAE-{config.evaluation_samples}"
    for a, b in [
        (("iwae", 5), ("elbo", 1)), (("iwae", 5), ("elbo", 5)), (("iwae", 50), ("iwae", 5)),
        (("dreg", 5), ("iwae", 5)), (("dreg", 50), ("iwae", 50)),
    ]:  # fmt: skip
        first, second = (_by_seed(rows, score, name, 1, k) for name, k in (a, b))
        common = sorted(first.keys() & second.keys())
        if common:
            out.append(
                held_out.mean_row(
                    f"{score} of {a[0]} minus {b[0]}",
                    {"objective": a[0], "M": 1, "K": f"{a[1]}-{b[1]}"},
                    [first[s] - second[s] for s in common], "estimate",
                )
            )  # fmt: skip
    return out


def notes(problem: Problem, config: Any, point: Point) -> list[str]:
    """What stands behind the table."""
    count = config.evaluation_images or len(problem.dataset.test)
    run = make_run(problem, _settings(config, point, point.seeds[0]))
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
    own.num_groups = point.num_groups
    return own


def _is_published_setting(config: Any) -> bool:
    """Whether the published numbers are of what the config trains and how it scores."""
    return (
        config.optimizer in ("paper", "released_code")
        and config.num_steps == 0
        and config.dataset == "mnist"
        and config.likelihood == "bernoulli"
        and (tuple(config.latents), tuple(map(tuple, config.hidden))) == ((50,), ((200, 200),))
        and (config.batch_size, config.clip_norm, config.ema_decay) == (20, 0, 0)
        and config.beta == 0.5
        and (config.evaluation_images, config.evaluation_samples) == (0, 5000)
        and config.few_samples == 64
    )


def _score(
    problem: Problem, params: bounds.Params, config: Any, at: dict[str, Any], seconds: float
) -> list[Row]:
    images = prepared(problem, "test", config)[: config.evaluation_images or None]
    few, many = config.few_samples, config.evaluation_samples
    key, unit_key = jax.random.split(evaluation_key(config))
    start = time.perf_counter()
    measured = held_out.per_image(
        problem.vae.model, params, images, key,
        few=few, many=many,
        images_per_pass=config.images_per_pass, samples_per_pass=config.samples_per_pass,
    )  # fmt: skip
    spent = time.perf_counter() - start
    units = held_out.active_units(problem.vae, params, images, unit_key)
    gap = measured.iwae_few - measured.iwae_many
    return [
        held_out.mean_row(f"IWAE-{many}", at, measured.iwae_many, "lower_bound", seconds=spent),
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


def _of(row: Row) -> tuple[str, int, int]:
    return row["at"]["objective"], row["at"]["M"], row["at"]["K"]


def _by_seed(rows: list[Row], name: str, *model: Any) -> dict[int, float]:
    """seed -> value; one that was not finite, and null in the record, is NaN."""
    return {
        r["at"]["seed"]: math.nan if r["value"] is None else r["value"]
        for r in rows
        if (r["name"], *_of(r)) == (name, *model)
    }
