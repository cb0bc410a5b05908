"""Mistakes in configs and data of experiments.dequantize, found before anything is trained."""

import os
import types

import jax.numpy as jnp
import numpy as np
import pytest
from dequantize_cases import constant_model, only, tiny
from ml_collections import ConfigDict

import bounds
from experiments.data import sets
from experiments.dequantize import build, evaluation, report, study
from experiments.runtime.errors import UserError
from experiments.studies import images, study


@pytest.fixture(scope="module")
def problem():
    return images.make_problem(tiny())


def made_up(images, levels=17):
    return sets.Dataset("made up", images, images[:2], images[:2], levels)


@pytest.mark.parametrize(
    ("images", "wanted"),
    [
        (np.full((4, 8, 8), 17, np.uint8), "0 .. 16"),
        (np.full((4, 8, 8), -1, np.int32), "0 .. 16"),
        (np.full((4, 8, 8), 0.5), "integers"),
    ],
    ids=["above the levels", "below 0", "floats"],
)
def test_images_that_are_no_integers_of_the_levels_are_refused(images, wanted):
    with pytest.raises(UserError, match=wanted):
        images.check_images(made_up(images))


def test_images_of_several_sizes_are_refused():
    images = np.zeros((4, 8, 8), np.uint8)
    with pytest.raises(UserError, match="one size"):
        images.check_images(made_up(images)._replace(test=np.zeros((2, 8, 6), np.uint8)))


@pytest.mark.parametrize(
    ("shape", "wanted"), [((8, 7, 1), "checkerboard"), ((7, 8, 1), "space_to_depth")]
)
def test_odd_sizes_are_refused(shape, wanted):
    blank = np.zeros((4, *shape), np.uint8)
    problem = images.Problem(made_up(blank), shape)
    own = study.settings(tiny(), "mixture_uniform", 0)
    with pytest.raises(UserError, match=wanted):
        build.make_model(problem, own)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"num_samples": 0}, "num_samples"),
        ({"noise": "gaussian"}, "config.noise"),
        ({"coupling": "spline"}, "config.coupling"),
        ({"density": "pixelcnn"}, "config.density"),
        ({"network": "mlp"}, "config.network"),
        ({"layout": ("checkers:2",)}, "squeeze"),
        ({"norm": "batch"}, "config.norm"),
        ({"width": 0}, "config.width"),
        ({"dropout": 1.0}, "config.dropout"),
        ({"objective": "exact"}, "no exact objective"),
        ({"objective": "eblo"}, "config.objective"),
        ({"num_steps": 0}, "config.num_steps"),
        ({"evaluation_samples": (4, 1)}, "evaluation_samples"),
        ({"evaluation_samples": (1, 4, 6)}, "evaluation_samples"),
        ({"warmup_steps": 4}, "warmup_steps"),
        ({"compare": (("mixture_uniform", "x"),)}, "config.compare"),
        ({"compare": (("mixture_uniform",),)}, "pairs"),
        ({"sample_grid": -1}, "sample_grid"),
        ({"layout": (1,)}, "config.layout"),
        ({"save_every": 3}, "save_every"),
        ({"objective": "rws", "sleep": True}, "config.sleep"),
    ],
    ids=str,
)
def test_mistakes_are_found_before_anything_is_trained(problem, changes, wanted):
    config = only(tiny(), "mixture_uniform")
    for name, value in changes.items():
        config[name] = value
    if "width" in changes:
        config.models.mixture_uniform.width = 0
    with pytest.raises(UserError, match=wanted):
        study.check(problem, config, study.points(config))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"widht": 3}, "widht"),
        ({"dataset": "mnist"}, "dataset, which is the same for all"),
        ({"evaluation_samples": (1,)}, "evaluation_samples, which is the same for all"),
        ({"seed": 3}, "seed, which is the same for all"),
        ({"ema_decay": 1.5}, "ema_decay"),
        ({"save_every": 3}, "save_every"),
        ({"width": "8"}, "width must be a whole number, got '8'"),
    ],
    ids=str,
)
def test_mistakes_of_one_model_are_found_before_anything_is_trained(problem, changes, wanted):
    config = only(tiny(), "mixture_uniform")
    config.models.mixture_uniform = ConfigDict(changes)
    with pytest.raises(UserError, match=wanted):
        study.check(problem, config, study.points(config))


@pytest.mark.parametrize("name", ["", "a/b", "a b"])
def test_names_that_are_no_folders_are_refused(name):
    config = only(tiny(), "mixture_uniform")
    config.models[name] = ConfigDict()
    with pytest.raises(UserError, match=r"config\.models has the name"):
        study.points(config)


def test_a_model_that_is_no_set_of_fields_is_refused(problem):
    config = types.SimpleNamespace(models={"x": 3}, to_dict=lambda: {"seed": 0})
    with pytest.raises(UserError, match=r"config\.models\.x must hold fields"):
        study.settings(config, "x", 0)


def test_integers_alone_cannot_be_dequantized(problem):
    config = only(tiny(), "autoregressive")
    config.models.autoregressive.objective = "elbo"
    with pytest.raises(UserError, match="its objective is exact"):
        study.check(problem, config, study.points(config))


def test_an_inverse_that_did_not_converge_is_said_and_not_drawn(problem, tmp_path):
    model = constant_model()
    lost = model.density._replace(
        simulate=lambda theta, key: jnp.full((2, 2, 1), jnp.nan),
        round_trip=lambda theta, y: jnp.where(y > 3, jnp.nan, y),
    )
    model, params = model._replace(density=lost), bounds.Params((), ())
    config = types.SimpleNamespace(evaluation_seed=0, sample_grid=5)
    rows = report.draw_samples(problem, model, params, "a", config, str(tmp_path))
    assert [(r["value"], r["not_converged"], r["n"]) for r in rows] == [(None, 5, 5)]
    assert not os.listdir(tmp_path)
    rows += evaluation.round_trip(problem, model, params, {"model": "a"}, config)
    with pytest.raises(UserError, match=r"a \(samples: 5 of 5 images\), a \(round-trip"):
        evaluation.complain(rows)
    evaluation.complain([evaluation.largest("samples", {"model": "a"}, np.zeros(3))])
