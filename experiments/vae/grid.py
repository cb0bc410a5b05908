"""A grid of objectives, K and seeds: what `experiments.reference` trains, scores and compares."""

import math
import time
from typing import Any, NamedTuple

import jax

import bounds
from experiments.runtime.optimizers import BURDA_EPOCHS
from experiments.runtime.results import Row, row
from experiments.studies import held_out
from experiments.studies.ensemble import train_members
from experiments.studies.objectives import make_objective
from experiments.studies.points import groups_of_seeds, seeds_label
from experiments.studies.training import identity
from experiments.vae.active_units import active_units
from experiments.vae.build import Problem, evaluation_key, make_run, prepared
from experiments.vae.settings import GROUPED, HeldOut, Model, Reference, Trained

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


def points(grid: Reference) -> list[Point]:
    """The grid seed by seed, so that a run cut short has whole comparisons."""
    groups = groups_of_seeds(grid.seeds, together=grid.together)
    return [Point(name, k, seeds, m) for seeds in groups for name, m, k in grid.entries()]


def check(problem: Problem, grid: Reference, models: list[Point]) -> None:
    """Refuses what only a later model would stumble over.

    Raises:
      UserError: an objective does not fit the model, or the batch is larger than the data.
    """
    for point in models:
        of = _of_point(grid, point)
        make_objective(problem.vae.model, of.objective, problem.vae.simulate)
    make_run(problem, _of_point(grid, models[0]), models[0].seeds[0])


def run(problem: Problem, point: Point, grid: Reference, folder: str) -> list[Row]:
    """Trains the models of a point and scores each on the same test images.

    Args:
      problem: data and model.
      point: what to train.
      grid: the settings.
      folder: for metrics and the model's config.
    """
    own = _of_point(grid, point)
    params, seconds = train_members(
        [make_run(problem, own, seed) for seed in point.seeds], grid.records, folder,
        identity(own, Trained, point.seeds, data_dir=grid.data_dir),
    )  # fmt: skip
    rows = []
    for seed, found in zip(point.seeds, params, strict=True):
        at = {"objective": point.objective, "M": point.num_groups, "K": point.num_samples}
        at["seed"] = seed
        rows += _score(problem, bounds.Params(*found), grid, at, seconds)
    return rows


def summarize(rows: list[Row], grid: Reference) -> list[Row]:
    """Means over seeds with their standard errors, and differences paired by seed."""
    out = []
    models = list(dict.fromkeys(map(_of, rows)))
    names = list(dict.fromkeys(r["name"] for r in rows))
    beside = PUBLISHED if _is_published_setting(grid) else {}
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
    score = f"IWAE-{grid.evaluation.num_samples}"
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


def notes(problem: Problem, grid: Reference, point: Point) -> list[str]:
    """What stands behind the table."""
    count = grid.evaluation.num_images or len(problem.dataset.test)
    run = make_run(problem, _of_point(grid, point), point.seeds[0])
    epochs = run.num_steps / run.stream.steps_per_epoch
    protocol = f"protocol {grid.optimizer.name}" if grid.optimizer.name != "adam" else (
        f"Adam at {grid.optimizer.learning_rate:g}"
    )  # fmt: skip
    return [
        f"{problem.dataset.name}: {run.num_steps:,} steps of {run.batch_size} images "
        f"({epochs:.1f} epochs; Burda et al. trained for {BURDA_EPOCHS:,}), {protocol}; "
        f"{len(grid.seeds)} seeds; the first {count:,} test images, binarised alike for all.",
        "Standard errors are over seeds; differences are paired by seed. IWAE with one sample is "
        "the ELBO, so elbo at K = 1 stands for both.",
    ]


def _of_point(grid: Reference, point: Point) -> Trained:
    """What is trained at a point of the grid."""
    return grid.at(point.objective, point.num_groups, point.num_samples)


def _is_published_setting(grid: Reference) -> bool:
    """Whether the published numbers are of what is trained and how it is scored."""
    return (
        grid.optimizer.name in ("paper", "released_code")
        and (grid.training.num_steps, grid.data.name) == (0, "mnist")
        and grid.model == Model(likelihood="bernoulli", latents=(50,), hidden=((200, 200),))
        and (grid.training.batch_size, grid.training.ema_decay) == (20, 0)
        and (grid.optimizer.clip_norm, grid.objective.beta) == (0, 0.5)
        and grid.evaluation == HeldOut(few_samples=64, num_samples=5000, num_images=0)
    )


def _score(
    problem: Problem, params: bounds.Params, grid: Reference, at: dict[str, Any], seconds: float
) -> list[Row]:
    images = prepared(problem, "test", grid.data.binarization_seed)
    images = images[: grid.evaluation.num_images or None]
    few, many = grid.evaluation.few_samples, grid.evaluation.num_samples
    key, unit_key = jax.random.split(evaluation_key(grid))
    start = time.perf_counter()
    measured = held_out.per_image(
        problem.vae.model, params, images, key,
        few=few, many=many,
        images_per_pass=grid.memory.images_per_pass, samples_per_pass=grid.memory.samples_per_pass,
    )  # fmt: skip
    spent = time.perf_counter() - start
    units = active_units(problem.vae, params, images, unit_key)
    gap = measured.iwae_few - measured.iwae_many
    return [
        held_out.mean_row(f"IWAE-{many}", at, measured.iwae_many, "lower_bound", seconds=spent),
        held_out.mean_row(f"IWAE-{few}", at, measured.iwae_few, "lower_bound"),
        held_out.mean_row("ELBO", at, measured.elbo, "lower_bound"),
        held_out.mean_row("-KL", at, gap, "estimate"),
        *(
            row(f"active units, layer {layer}", at, kind="estimate", unit="units", value=count,
                standard_error=error, n=len(images))
            for layer, (count, error) in enumerate(units, 1)
        ),
        row("training time", at, kind="estimate", unit="s", value=seconds),
    ]  # fmt: skip


def _of(row: Row) -> tuple[str, int, int]:
    return row["at"]["objective"], row["at"]["M"], row["at"]["K"]


def _by_seed(rows: list[Row], name: str, *model: Any) -> dict[int, float]:
    """seed -> value; one that was not finite, and null in the record, is NaN."""
    return {
        r["at"]["seed"]: math.nan if r["value"] is None else r["value"]
        for r in rows
        if (r["name"], *_of(r)) == (name, *model)
    }
