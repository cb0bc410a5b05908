"""The grid of `experiments.reference`: seeds trained together, and its table over seeds."""

import functools
import importlib
import json
import math

import jax
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict

from configs import evaluate as evaluate_config
from experiments import reference
from experiments.runtime import results, trainer
from experiments.runtime.errors import UserError
from experiments.runtime.results import row
from experiments.studies import held_out
from experiments.studies.ensemble import ensemble, member
from experiments.vae import build, evaluation, grid

CONFIGS = {
    "train_digits": [()],
    "train_mnist": [("short",), ("paper",), ("released_code",), ("paper,two_layers",)],
    "reference_mnist": [("short",), ("paper",), ("released_code",), ("paper,rainforth",)],
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

    whole = ensemble(runs())
    together, _ = trained(whole)
    each = [r.validate(member(together, i)) for i, r in enumerate(runs())]
    assert whole.validate(together) == pytest.approx(np.mean(each), rel=1e-5)
    assert np.std(each) > 1e-3
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


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"grid": ("iwae",)}, "'iwae'"),
        ({"grid": ("iwea:5",)}, "'iwea:5'"),
        ({"grid": ("iwae:0",)}, "'iwae:0'"),
        ({"grid": ("iwae:5:5",)}, "'iwae:5:5'"),
        ({"grid": ("piwae:8",)}, "OBJECTIVE:M:K like 'piwae:8:8'"),
        ({"grid": (1, 2)}, "got 1"),
        ({"grid": ("iwae:5", "iwae:5")}, "names something twice"),
        ({"grid": ()}, "must not be empty"),
        ({"seeds": ()}, "must not be empty"),
        ({"seeds": (0, 0)}, "names something twice"),
        ({"seeds": ("a",)}, "whole number"),
        ({"seeds": (2**32,)}, "4294967295"),
    ],
)
def test_grid_that_makes_no_sense_is_refused(changes, wanted):
    config = ConfigDict({"grid": ("iwae:5",), "seeds": (0,), "together": False})
    config.update(changes)
    with pytest.raises(UserError, match=wanted):
        grid.points(config)


def test_grid_takes_groups_where_an_objective_has_them():
    config = ConfigDict({"grid": ("iwae:64", "piwae:4:16"), "seeds": (3, 5), "together": True})
    points = grid.points(config)
    assert points == [grid.Point("iwae", 64, (3, 5)), grid.Point("piwae", 16, (3, 5), 4)]
    assert [p.label for p in points] == ["iwae_K64_seed3_5", "piwae_M4_K16_seed3_5"]
    long, other = (grid.Point("iwae", 1, tuple(range(n, 300))).label for n in (0, 1))
    assert len(long) < 80
    assert long != other


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"grid": ("iwae:5", "vimco:1")}, "vimco"),
        ({"evaluation_samples": 0}, "evaluation_samples"),
        ({"evaluation_images": -1}, "evaluation_images"),
        ({"images_per_pass": 0}, "images_per_pass"),
        ({"few_samples": 0}, "few_samples"),
        ({"validation_samples": 0}, "validation_samples"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"grid": ("elbo:1", "ciwae:5"), "beta": 2.0}, "beta"),
    ],
    ids=str,
)
def test_mistake_in_a_later_model_is_found_before_the_first_is_trained(tmp_path, changes, wanted):
    config = tiny()
    config.update(changes)
    flags.FLAGS.mark_as_parsed()
    with pytest.raises(UserError, match=wanted):
        reference.main(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def scores(values):
    """Rows as `grid.run` makes them: {(objective, K): one value a seed}."""
    return [
        row("IWAE-40", {"objective": o, "M": 1, "K": k, "seed": seed}, kind="lower_bound",
            unit="nats", value=value)
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

    def published(rows, variant="paper", **changes):
        config = importlib.import_module("configs.reference_mnist").get_config(variant)
        config.update(changes)
        return grid.summarise(rows, config)[0]["published"]

    assert published(rows) == published(rows, "released_code") == -85.54
    assert published(rows, "short") is None
    for change in (
        {"dataset": "fashion_mnist"}, {"latents": (100, 50)}, {"hidden": ((200, 100),)},
        {"num_steps": 100}, {"evaluation_images": 1000}, {"likelihood": "categorical"},
        {"batch_size": 100}, {"clip_norm": 1.0}, {"few_samples": 8}, {"evaluation_samples": 100},
    ):  # fmt: skip
        assert published(rows, **change) is None, change
    grouped = [{**r, "at": {**r["at"], "objective": "piwae", "M": 8, "K": 8}} for r in rows]
    assert published(grouped) == -84.46
    assert published([{**r, "name": "-KL"} for r in grouped]) == -1.28
    assert published([{**r, "name": "-KL"} for r in rows]) is None


def test_a_score_that_was_not_finite_leaves_the_mean_empty():
    rows = scores({("iwae", 5): [-85.0, math.inf, -84.0]})
    assert [rows[1]["value"], grid.summarise(rows, tiny())[0]["value"]] == [None, None]


def test_gap_is_the_small_bound_minus_the_large_one():
    """Rainforth et al. 2018 call it -KL: it is below 0, and above it no model can be."""
    config = tiny()
    problem = build.make_problem(config)
    params = build.init_params(problem, jax.random.key(0))
    rows = grid._score(problem, params, config, {"objective": "iwae"}, 1.0)
    value = {r["name"]: r["value"] for r in rows}
    assert value["-KL"] == pytest.approx(value["IWAE-4"] - value["IWAE-40"], abs=1e-5)
    assert value["-KL"] < -0.01
    images = build.prepared(problem, "test", config)[:12]
    key, _ = jax.random.split(build.evaluation_key(config))
    by_hand = held_out.per_image(problem.vae.model, params, images, key, few=4, many=40)
    assert value["ELBO"] == pytest.approx(by_hand.elbo.mean(), abs=1e-4)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.slow
def test_points_train_and_score_every_seed(tmp_path, together):
    config = tiny(together=together)
    config.grid, config.seeds = ("iwae:5",), (0, 1)
    problem = build.make_problem(config)
    points = grid.points(config)
    grid.check(problem, config, points)
    assert [p.seeds for p in points] == ([(0, 1)] if together else [(0,), (1,)])
    rows = [r for p in points for r in grid.run(problem, p, config, str(tmp_path / p.label))]
    names = {r["name"] for r in rows}
    assert {"IWAE-40", "IWAE-4", "ELBO", "-KL", "active units, layer 1"} <= names
    assert {r["at"]["seed"] for r in rows} == {0, 1}
    best = [r for r in rows if r["name"] == "IWAE-40"]
    assert all(r["n"] == 12 and r["standard_error"] > 0 and r["value"] < 0 for r in best)
    assert best[0]["value"] != best[1]["value"]

    # Each model can be evaluated by itself.
    last = points[-1]
    path = tmp_path / last.label / results.CONFIG
    trained = ConfigDict(json.loads(path.read_text()))
    wanted = evaluate_config.get_config()
    wanted.update(checkpoint="latest", member=1)
    params, source = evaluation.load_params(
        problem, trained, str(path.parent / "checkpoints"), wanted
    )
    assert source["step"] == 7
    wanted.member = 2
    with pytest.raises(UserError, match=r"config.member must be a seed of this run.*got 2"):
        evaluation.load_params(problem, trained, str(path.parent / "checkpoints"), wanted)
    # Another way of scoring goes on with the models that are there.
    config.update(evaluation_samples=60, images_per_pass=5)
    scored = grid.run(problem, last, config, str(path.parent))
    assert scored[0]["name"] == "IWAE-60"
    config.update(evaluation_samples=40, images_per_pass=20)
    again = grid._score(problem, params, config, {}, 0.0)[0]
    assert again["value"] == pytest.approx(best[-1]["value"], abs=1e-4)


def test_configs_of_training_have_the_same_fields():
    """What trains them reads the same names, so a field one lacks would be found late."""
    shared = None
    for name, variants in CONFIGS.items():
        for variant in variants:
            fields = set(importlib.import_module(f"configs.{name}").get_config(*variant))
            own = {"test_samples", "test_images"}
            # Of a grid each of `seeds` and of `grid` gives them.
            own |= {"seed", "objective", "num_samples", "num_groups"}
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
