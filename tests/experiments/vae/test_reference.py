"""The grid of `experiments.reference`: seeds trained together, and its table over seeds."""

import functools
import math

import jax
import numpy as np
import pytest
from train_cases import problem_of, reference

from experiments import reference as program
from experiments.runtime import settings, subprograms, trainer
from experiments.runtime.errors import UserError
from experiments.runtime.results import row
from experiments.studies import held_out
from experiments.studies.ensemble import ensemble, member
from experiments.vae import build, evaluation, grid
from experiments.vae.settings import Reference, Train

TINY = {
    "data_dir": "",
    "data": {"name": "digits"},
    "model": {"latents": (3,), "hidden": ((8, 8),)},
    "training": {"num_steps": 7, "validation_samples": 2},
    "records": {"log_every": 3, "save_every": 6},
    "evaluation": {"num_images": 12, "num_samples": 40, "few_samples": 4},
    "grid": ("elbo:1", "iwae:5"),
    "seeds": (0, 1, 2),
}


def tiny(**changes):
    return reference(**settings.merged(TINY, changes))


@pytest.mark.parametrize(
    "optimizer", ["adam", pytest.param("released_code", marks=pytest.mark.slow)]
)
def test_a_seed_trained_with_others_ends_where_it_ends_alone(optimizer):
    """Adam's first steps have the size of the learning rate whatever the rounding of a gradient."""
    wanted = tiny(optimizer={"name": optimizer})
    problem = problem_of(wanted)
    point = grid.Point("iwae", 5, (0, 1, 2))

    def runs():
        own = grid._of_point(wanted, point)
        return [build.make_run(problem, own, seed) for seed in point.seeds]

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
        ({"grid": (1, 2)}, r"grid\[0\] must be a text, got 1"),
        ({"grid": ("iwae:5", "iwae:5")}, "must not name anything twice"),
        ({"grid": ()}, "grid must be filled"),
        ({"seeds": ()}, "seeds must be filled"),
        ({"seeds": (0, 0)}, "must not name anything twice"),
        ({"seeds": ("a",)}, r"seeds\[0\] must be a whole number, got 'a'"),
        ({"seeds": (2**32,)}, "less than 4294967296, got 4294967296"),
        ({"evaluation": {"num_samples": 0}}, r"evaluation.num_samples must be .*, got 0"),
        ({"evaluation": {"num_images": -1}}, r"evaluation.num_images must be .*, got -1"),
        ({"evaluation": {"few_samples": 0}}, r"evaluation.few_samples must be .*, got 0"),
        ({"memory": {"images_per_pass": 0}}, r"memory.images_per_pass must be .*, got 0"),
        ({"training": {"validation_samples": 0}}, r"validation_samples must be .*, got 0"),
        ({"optimizer": {"learning_rate": -1.0}}, r"learning_rate must be .*, got -1"),
        ({"objective": {"beta": 2.0}}, r"objective.beta must be .*, got 2"),
    ],
    ids=str,
)
def test_grid_that_makes_no_sense_is_refused(changes, wanted):
    with pytest.raises(UserError, match=wanted):
        grid.points(tiny(**changes))


def test_grid_takes_groups_where_an_objective_has_them():
    points = grid.points(tiny(grid=("iwae:64", "piwae:4:16"), seeds=(3, 5), together=True))
    assert points == [grid.Point("iwae", 64, (3, 5)), grid.Point("piwae", 16, (3, 5), 4)]
    assert [p.label for p in points] == ["iwae_K64_seed3_5", "piwae_M4_K16_seed3_5"]
    long, other = (grid.Point("iwae", 1, tuple(range(n, 300))).label for n in (0, 1))
    assert len(long) < 80
    assert long != other


def test_mistake_in_a_later_model_is_found_before_the_first_is_trained(tmp_path):
    with pytest.raises(UserError, match=r"config\.grid\.vimco:1.*num_samples must be at least 2"):
        program.main(tiny(grid=("iwae:5", "vimco:1")), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def scores(values):
    """Rows as `grid.run` makes them: {(objective, K): one value a seed}."""
    return [
        row(
            "IWAE-40",
            {"objective": o, "M": 1, "K": k, "seed": seed},
            kind="lower_bound",
            unit="nats",
            value=value,
        )
        for (o, k), seeds in values.items()
        for seed, value in enumerate(seeds)
    ]


def test_table_is_over_seeds_and_its_differences_are_paired():
    vae, iwae = [-90.0, -92.0, -91.0], [-88.0, -89.5, -89.0]
    found = grid.summarize(scores({("elbo", 1): vae, ("iwae", 5): iwae}), tiny())
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
        return grid.summarize(rows, reference(variant, **changes))[0]["published"]

    assert published(rows) == published(rows, "released_code") == -85.54
    assert published(rows, "short") is None
    for change in (
        {"data": {"name": "fashion_mnist"}},
        {"training": {"num_steps": 100}},
        {"model": {"latents": (100, 50), "hidden": ((200, 200), (100, 100))}},
        {"model": {"hidden": ((200, 100),)}},
        {"model": {"likelihood": "categorical"}},
        {"training": {"batch_size": 100}},
        {"optimizer": {"clip_norm": 1.0}},
        {"evaluation": {"num_images": 1000}},
        {"evaluation": {"few_samples": 8}},
        {"evaluation": {"num_samples": 100}},
    ):
        assert published(rows, **change) is None, change
    grouped = [{**r, "at": {**r["at"], "objective": "piwae", "M": 8, "K": 8}} for r in rows]
    assert published(grouped) == -84.46
    assert published([{**r, "name": "-KL"} for r in grouped]) == -1.28
    assert published([{**r, "name": "-KL"} for r in rows]) is None


def test_a_score_that_was_not_finite_leaves_the_mean_empty():
    rows = scores({("iwae", 5): [-85.0, math.inf, -84.0]})
    assert [rows[1]["value"], grid.summarize(rows, tiny())[0]["value"]] == [None, None]


def test_gap_is_the_small_bound_minus_the_large_one():
    """Rainforth et al. 2018 call it -KL: it is below 0, and above it no model can be."""
    wanted = tiny()
    problem = problem_of(wanted)
    params = build.init_params(problem, jax.random.key(0))
    rows = grid._score(problem, params, wanted, {"objective": "iwae"}, 1.0)
    value = {r["name"]: r["value"] for r in rows}
    assert value["-KL"] == pytest.approx(value["IWAE-4"] - value["IWAE-40"], abs=1e-5)
    assert value["-KL"] < -0.01
    images = build.prepared(problem, "test", 0)[:12]
    key, _ = jax.random.split(build.evaluation_key(wanted))
    by_hand = held_out.per_image(problem.vae.model, params, images, key, few=4, many=40)
    assert value["ELBO"] == pytest.approx(by_hand.elbo.mean(), abs=1e-4)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.slow
def test_points_train_and_score_every_seed(tmp_path, together):
    fields = {"together": together, "grid": ("iwae:5",), "seeds": (0, 1)}
    wanted = tiny(**fields)
    problem = problem_of(wanted)
    points = grid.points(wanted)
    grid.check(problem, wanted, points)
    assert [p.seeds for p in points] == ([(0, 1)] if together else [(0,), (1,)])
    rows = [r for p in points for r in grid.run(problem, p, wanted, str(tmp_path / p.label))]
    names = {r["name"] for r in rows}
    assert {"IWAE-40", "IWAE-4", "ELBO", "-KL", "active units, layer 1"} <= names
    assert {r["at"]["seed"] for r in rows} == {0, 1}
    best = [r for r in rows if r["name"] == "IWAE-40"]
    assert all(r["n"] == 12 and r["standard_error"] > 0 and r["value"] < 0 for r in best)
    assert best[0]["value"] != best[1]["value"]

    # Each model can be evaluated by itself.
    last = points[-1]
    folder = tmp_path / last.label
    trained = build.run_of("--config.run", str(folder))
    load = functools.partial(
        evaluation.load_params, problem, trained, str(folder / "checkpoints"), checkpoint="latest"
    )
    params, source = load(member=1)
    assert source["step"] == 7
    with pytest.raises(UserError, match=r"config.member must be a seed of this run.*got 2"):
        load(member=2)
    # Another way of scoring goes on with the models that are there.
    other = tiny(**fields, evaluation={"num_samples": 60}, memory={"images_per_pass": 5})
    assert grid.run(problem, last, other, str(folder))[0]["name"] == "IWAE-60"
    again = grid._score(problem, params, wanted, {}, 0.0)[0]
    assert again["value"] == pytest.approx(best[-1]["value"], abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        (Train, "train_digits.py"),
        *((Train, f"train_mnist.py:{v}") for v in ("short", "paper", "released_code,two_layers")),
        *((Reference, f"reference_mnist.py:{v}") for v in ("paper", "released_code,rainforth")),
    ],
)
def test_variants_of_configs_have_the_fields_of_their_program(kind, spec):
    parsed = settings.parse(kind, subprograms.load_config(f"configs/{spec}", {}))
    if kind is Reference:
        assert grid.points(parsed)


@pytest.mark.parametrize("name", ["train_mnist", "reference_mnist"])
def test_unknown_variant_names_the_known_ones(name):
    with pytest.raises(UserError, match=r"released_code.*'long'"):
        subprograms.load_config(f"configs/{name}.py:long", {})
