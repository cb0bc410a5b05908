"""Mistakes in configs and data of experiments.dequantize, found before anything is trained."""

import os
import re
from typing import get_args

import jax.numpy as jnp
import numpy as np
import pytest
from dequantize_cases import constant_model, tiny

import bounds
from experiments.data import sets
from experiments.dequantize import build, evaluation, family, report, settings
from experiments.runtime.errors import UserError
from experiments.studies import images
from models import flows


def made_up(pixels, levels=17):
    return sets.Dataset("made up", pixels, pixels[:2], pixels[:2], levels)


@pytest.mark.parametrize(
    ("pixels", "wanted"),
    [
        (np.full((4, 8, 8), 17, np.uint8), "0 .. 16"),
        (np.full((4, 8, 8), -1, np.int32), "0 .. 16"),
        (np.full((4, 8, 8), 0.5), "integers"),
    ],
    ids=["above the levels", "below 0", "floats"],
)
def test_images_that_are_no_integers_of_the_levels_are_refused(pixels, wanted):
    with pytest.raises(UserError, match=wanted):
        images.check_images(made_up(pixels))


def test_images_of_several_sizes_are_refused():
    pixels = np.zeros((4, 8, 8), np.uint8)
    with pytest.raises(UserError, match="one size"):
        images.check_images(made_up(pixels)._replace(test=np.zeros((2, 8, 6), np.uint8)))


@pytest.mark.parametrize(
    ("shape", "wanted"), [((8, 7, 1), "checkerboard"), ((7, 8, 1), "space_to_depth")]
)
def test_odd_sizes_are_refused(shape, wanted):
    blank = np.zeros((4, *shape), np.uint8)
    problem = images.Problem(made_up(blank), shape)
    with pytest.raises(UserError, match=wanted):
        build.make_model(problem, tiny().of_model("mixture_uniform"))


@pytest.mark.parametrize(
    ("choices", "table"),
    [
        (settings.Model.model_fields["density"].annotation, build.DENSITIES),
        (settings.Model.model_fields["norm"].annotation, flows.NORMS),
        (settings.COUPLINGS, build.COUPLINGS),
        (settings.NOISES, build.NOISES),
    ],
    ids=["density", "norm", "coupling", "noise"],
)
def test_a_config_may_name_what_can_be_made(choices, table):
    assert sorted(get_args(choices)) == sorted(table)


@pytest.mark.parametrize(
    ("section", "changes", "words"),
    [
        ("objective", {"num_samples": 0}, ["at least 1", "got 0"]),
        ("objective", {"name": "eblo"}, ["elbo", "exact", "got 'eblo'"]),
        ("noise", {"name": "gaussian"}, ["uniform", "autoregressive", "got 'gaussian'"]),
        ("noise", {"coupling": "spline"}, ["affine", "mixture", "got 'spline'"]),
        ("model", {"coupling": "spline"}, ["affine", "mixture", "got 'spline'"]),
        ("model", {"density": "pixelcnn"}, ["flow", "subset_flow", "discretized", "'pixelcnn'"]),
        ("model", {"network": "mlp"}, ["dense", "convolutional", "got 'mlp'"]),
        ("model", {"layout": ("checkers:2",)}, ["squeeze", "checkerboard", "got 'checkers:2'"]),
        ("model", {"layout": (1,)}, ["a text", "got 1"]),
        ("model", {"layout": ("checkerboard:100",)}, ["1 to 99", "got 'checkerboard:100'"]),
        ("model", {"layout": ()}, ["empty"]),
        ("model", {"norm": "batch"}, ["pixel", "channel", "none", "got 'batch'"]),
        ("model", {"width": 0}, ["at least 1", "got 0"]),
        ("model", {"dropout": 1.0}, ["below 1|less than 1", "got 1.0"]),
        ("refit", {"noise": "gaussian"}, ["logistic", "got 'gaussian'"]),
        ("training", {"num_steps": 0}, ["at least 1", "got 0"]),
        ("optimizer", {"warmup_steps": 4}, [r"below training\.num_steps \(4\)", "got 4"]),
        ("evaluation", {"num_samples": (4, 1)}, ["must rise", r"got \(4, 1\)"]),
        ("evaluation", {"num_samples": (1, 4, 6)}, ["must rise", r"got \(1, 4, 6\)"]),
        ("evaluation", {"sample_grid": -1}, ["at least 0", "got -1"]),
        ("records", {"save_every": 3}, [r"log_every \(2\)", "got 3"]),
    ],
    ids=str,
)
def test_mistakes_in_the_config_are_named(section, changes, words):
    with pytest.raises(UserError) as caught:
        tiny(**{section: changes})
    (name,) = changes
    for wanted in ("^--config", section, name, *words):
        assert re.search(wanted, str(caught.value)), caught.value


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ((("mixture_uniform", "x"),), "'x', which is none of models"),
        ((("mixture_uniform",),), r"pair of names of models, got \('mixture_uniform',\)"),
        ((("a", "b", "c"),), r"pair of names of models, got \('a', 'b', 'c'\)"),
    ],
    ids=str,
)
def test_what_is_compared_is_pairs_of_models(pairs, wanted):
    with pytest.raises(UserError, match=rf"^--config.*compare.*{wanted}"):
        tiny(compare=pairs)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"model": {"widht": 3}}, r"model\.widht is no field.*did you mean .*model\.width"),
        ({"data": {"name": "mnist"}}, "data: all models of a study are of the same data"),
        ({"evaluation": {"num_samples": (1,)}}, "evaluation is no field"),
        ({"seeds": (3,)}, "seeds is no field"),
        ({"records": {"save_every": 3}}, "records is no field"),
        ({"training": {"ema_decay": 1.5}}, r"training\.ema_decay must be .*1, got 1\.5"),
        ({"model": {"width": "8"}}, r"model\.width must be a whole number, got '8'"),
    ],
    ids=str,
)
def test_mistakes_of_one_model_are_named(changes, wanted):
    where = re.escape("--config.models.mixture_uniform.")
    with pytest.raises(UserError, match=f"^{where}{wanted}"):
        tiny("mixture_uniform", models={"mixture_uniform": changes})


def test_mistakes_of_all_models_are_told_at_once():
    changes = {"a": {"model": {"width": 0}}, "b": {"noise": {"nmae": "flow"}}, "c": {}}
    wanted = r"models\.a\.model\.width must be .*, got 0\. .*models\.b\.noise\.nmae is no field"
    with pytest.raises(UserError, match=wanted):
        tiny(models=changes)


@pytest.mark.parametrize("name", ["", "a/b", "a b"])
def test_names_that_are_no_folders_are_refused(name):
    with pytest.raises(UserError, match=rf"^--config\.models\.{name}.*names a folder"):
        tiny(models={name: {}})


def test_a_model_that_is_no_set_of_fields_is_refused():
    with pytest.raises(UserError, match=r"^--config\.models\.x must be fields .*got 3"):
        tiny(models={"x": 3})


@pytest.mark.parametrize(
    ("name", "objective", "wanted"),
    [
        ("mixture_uniform", {"name": "exact"}, "a flow has no exact objective; choose elbo"),
        ("mixture_uniform", {"name": "rws", "sleep": True}, "no sleep phase"),
        ("autoregressive", {"name": "elbo"}, "a discretized density is of integers; choose exact"),
    ],
    ids=str,
)
def test_objectives_that_a_model_does_not_have_are_refused(name, objective, wanted):
    with pytest.raises(UserError, match=rf"^--config\.models\.{name}.*objective\.\w+.*{wanted}"):
        family.check(tiny(name, models={name: {"objective": objective}}))


def test_an_inverse_that_did_not_converge_is_said_and_not_drawn(tmp_path):
    model = constant_model()
    lost = model.density._replace(
        simulate=lambda theta, key: jnp.full((2, 2, 1), jnp.nan),
        round_trip=lambda theta, y: jnp.where(y > 3, jnp.nan, y),
    )
    model, params = model._replace(density=lost), bounds.Params((), ())
    study = tiny(evaluation={"sample_grid": 5})
    problem = images.make_problem(study.data.name, study.data_dir)
    rows = report.draw_samples(problem, model, params, "a", study.evaluation, str(tmp_path))
    assert [(r["value"], r["not_converged"], r["n"]) for r in rows] == [(None, 5, 5)]
    assert not os.listdir(tmp_path)
    rows += evaluation.round_trip(problem, model, params, {"model": "a"}, seed=0)
    with pytest.raises(UserError, match=r"a \(samples: 5 of 5 images\), a \(round-trip"):
        evaluation.complain(rows)
    evaluation.complain([evaluation.largest("samples", {"model": "a"}, np.zeros(3))])
