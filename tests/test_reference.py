"""The grid of `experiments.reference`: seeds trained together, and its table over seeds."""

import functools
import importlib
import math
import types

import jax
import numpy as np
import pytest

from experiments.runtime import trainer
from experiments.runtime.errors import UserError
from experiments.runtime.results import row
from experiments.training import build, grid
from experiments.training.ensemble import ensemble, member

CONFIGS = {
    "train_digits": [()],
    "train_mnist": [("short",), ("paper",), ("released_code",), ("paper,two_layers",)],
    "reference_mnist": [("short",), ("paper",), ("released_code",)],
}


def tiny(**changes):
    config = importlib.import_module("configs.reference_mnist").get_config("short")
    config.update(
        dataset="digits", latents=(3,), hidden=((8, 8),), num_steps=7, log_every=3, save_every=6,
        validation_samples=2, evaluation_images=12, evaluation_samples=40, few_samples=4,
        grid=("elbo:1", "iwae:5"), seeds=(0, 1, 2), **changes,
    )  # fmt: skip
    return config


@pytest.mark.parametrize(
    "optimizer", ["adam", pytest.param("released_code", marks=pytest.mark.slow)]
)
def test_a_seed_trained_with_others_ends_where_it_ends_alone(optimizer):
    """Adam's first steps have the size of the learning rate whatever the rounding of a gradient."""
    config = tiny(optimizer=optimizer)
    problem = build.make_problem(config)
    point = grid.Point("iwae", 5, (0, 1, 2))

    def runs():
        return [build.make_run(problem, grid._settings(config, point, s)) for s in point.seeds]

    def trained(run):
        start = run.init()
        state = trainer.init_state(start, run.optimizer)
        params = trainer.train(
            run.loss_fn, state, run.stream, run.optimizer, run.key, num_steps=7, steps_per_chunk=7
        ).params
        return params, jax.tree.map(lambda a, b: np.abs(a - b).max(), params, start)

    together, _ = trained(ensemble(runs(), config))
    for index, run in enumerate(runs()):
        jax.tree.map(
            lambda a, b, moved: np.testing.assert_allclose(a, b, atol=1e-3 * moved + 1e-6),
            member(together, index),
            *trained(run),
        )
    kernels = [
        p.phi[0]["params"]["hidden_0"]["kernel"]
        for p in map(functools.partial(member, together), range(3))
    ]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1


def test_clipping_is_refused_where_it_would_couple_seeds():
    config = tiny(clip_norm=1.0)
    problem = build.make_problem(config)
    run = build.make_run(problem, grid._settings(config, grid.Point("iwae", 5, (0,)), 0))
    with pytest.raises(UserError, match="clip_norm"):
        ensemble([run, run], config)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"grid": ("iwae",)}, "'iwae'"),
        ({"grid": ("iwea:5",)}, "'iwea:5'"),
        ({"grid": ("iwae:0",)}, "'iwae:0'"),
        ({"grid": ()}, "must not be empty"),
        ({"seeds": ()}, "must not be empty"),
    ],
)
def test_grid_that_makes_no_sense_is_refused(changes, wanted):
    config = types.SimpleNamespace(**{"grid": ("iwae:5",), "seeds": (0,), **changes})
    config.together = False
    with pytest.raises(UserError, match=wanted):
        grid.points(config)


def scores(values):
    """Rows as `grid.run` makes them: {(objective, K): one value a seed}."""
    return [
        row("IWAE-40", {"objective": o, "K": k, "seed": seed}, kind="lower_bound", unit="nats",
            value=value)
        for (o, k), seeds in values.items()
        for seed, value in enumerate(seeds)
    ]  # fmt: skip


def test_table_is_over_seeds_and_its_differences_are_paired():
    vae, iwae = [-90.0, -92.0, -91.0], [-88.0, -89.5, -89.0]
    found = grid.summarise(scores({("elbo", 1): vae, ("iwae", 5): iwae}), tiny())
    by_name = {(r["name"], r["at"]["objective"]): r for r in found}
    mean = by_name["IWAE-40", "iwae"]
    assert mean["value"] == pytest.approx(np.mean(iwae))
    assert mean["standard_error"] == pytest.approx(np.std(iwae, ddof=1) / math.sqrt(3))
    assert (mean["n"], mean["kind"], mean["published"]) == (3, "lower_bound", None)
    gain = by_name["IWAE-40 of iwae minus elbo", "iwae"]
    each = np.subtract(iwae, vae)
    assert gain["value"] == pytest.approx(each.mean())
    assert gain["standard_error"] == pytest.approx(each.std(ddof=1) / math.sqrt(3))
    assert gain["kind"] == "estimate"


def test_published_numbers_stand_beside_the_published_protocol_alone():
    rows = [{**r, "name": "IWAE-5000"} for r in scores({("iwae", 5): [-85.0, -85.2]})]
    paper = types.SimpleNamespace(optimizer="paper", dataset="mnist", evaluation_samples=5000)
    short = types.SimpleNamespace(optimizer="adam", dataset="mnist", evaluation_samples=5000)
    other = types.SimpleNamespace(optimizer="paper", dataset="digits", evaluation_samples=5000)
    assert [grid.summarise(rows, c)[0]["published"] for c in (paper, short, other)] == [
        -85.54, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.slow
def test_points_train_and_score_every_seed(tmp_path, together):
    config = tiny(together=together)
    config.grid, config.seeds = ("iwae:5",), (0, 1)
    problem = build.make_problem(config)
    points = grid.points(config)
    assert [p.seeds for p in points] == ([(0, 1)] if together else [(0,), (1,)])
    rows = [r for p in points for r in grid.run(problem, p, config, str(tmp_path / p.label))]
    names = {r["name"] for r in rows}
    assert {"IWAE-40", "IWAE-4", "ELBO", "-KL", "active units, layer 1"} <= names
    assert {r["at"]["seed"] for r in rows} == {0, 1}
    best = [r for r in rows if r["name"] == "IWAE-40"]
    assert all(r["n"] == 12 and r["standard_error"] > 0 and r["value"] < 0 for r in best)
    assert best[0]["value"] != best[1]["value"]


def test_configs_of_training_have_the_same_fields():
    """What trains them reads the same names, so a field one lacks would be found late."""
    shared = None
    for name, variants in CONFIGS.items():
        for variant in variants:
            fields = set(importlib.import_module(f"configs.{name}").get_config(*variant))
            own = {"test_samples", "test_images"}
            fields -= own | {
                "grid", "seeds", "together", "evaluation_images", "evaluation_samples",
                "images_per_pass", "samples_per_pass",
            }  # fmt: skip
            shared = shared or fields
            assert fields == shared, name


@pytest.mark.parametrize("name", ["train_mnist", "reference_mnist"])
def test_unknown_variant_names_the_known_ones(name):
    with pytest.raises(ValueError, match=r"released_code.*'long'"):
        importlib.import_module(f"configs.{name}").get_config("long")
