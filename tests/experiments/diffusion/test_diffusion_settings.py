"""experiments.diffusion: the settings it takes, and what it refuses before any model trains."""

from typing import get_args

import numpy as np
import pytest
from diffusion_cases import DDPM, tiny

from bounds import _checks, _diffusion_step
from configs import diffusion_images
from experiments.data import sets
from experiments.diffusion import build, family, training
from experiments.diffusion.settings import GREATEST_GAMMA, Chain, Diffusion, Objective, Trained
from experiments.runtime.errors import UserError
from experiments.runtime.settings import parse
from experiments.studies import images
from models.diffusion import DECODERS


@pytest.mark.parametrize(
    ("section", "changes", "said"),
    [
        ("chain", {"schedule": "sigmoid"}, r"chain\.schedule must be 'linear', .*, got 'sigmoid'"),
        ("network", {"name": "resnet"}, "must be 'unet', 'mlp' or 'gated_mlp', got 'resnet'"),
        ("chain", {"prediction": "score"}, r"chain\.prediction must be 'eps', 'x', .*, got"),
        ("chain", {"gamma_min": 5.0, "gamma_max": -5.0}, "gamma_min must be below gamma_max"),
        ("chain", {"gamma_min": -61.0}, r"chain\.gamma_min must be .* -60, got -61"),
        ("chain", {"evaluation_timesteps": 0}, "at least 1 where timesteps is 0"),
        ("chain", {"variance": "learned"}, "must be fixed_small with a schedule of continuous"),
        ("chain", {"schedule": "cosine"}, "timesteps must be at least 2"),
        ("chain", {**DDPM, "evaluation_timesteps": 7}, "another number of steps"),
        ("chain", {**DDPM, "variance": "small"}, "'fixed_small', 'fixed_large' or 'learned'"),
        ("chain", {"timesteps": -1}, r"chain\.timesteps must be at least 0, got -1"),
        ("chain", {"decoder": "tanh"}, r"chain\.decoder must be 'gaussian' or 'logistic', got"),
        ("objective", {"name": "simple"}, "needs steps"),
        ("objective", {"name": "elbow"}, r"objective\.name must be 'bound', 'simple' or .*, got"),
        ("objective", {"times": "importance"}, r"objective\.times=importance needs steps"),
        ("objective", {"times": "often"}, r"objective\.times must be 'uniform', .*, got 'often'"),
        ("network", {"attention": ("a",)}, r"network\.attention\[0\] must be a whole number, got"),
        ("network", {"fourier": (3.5,)}, r"network\.fourier\[0\] must be a whole number, got 3\.5"),
        ("network", {"dropout": 1.0}, r"network\.dropout must be less than 1, got 1\.0"),
        ("network", {"dtype": "float16"}, r"network\.dtype must be 'float32' or 'bfloat16', got"),
        ("network", {"name": "unet", "width": 12}, "multiple of 8"),
        ("network", {"name": "unet", "width": 8, "multipliers": ()}, "multipliers must hold"),
        ("network", {"name": "unet", "width": 8, "attention": (2,)}, "attention must name"),
        ("training", {"batch_size": 0}, r"training\.batch_size must be at least 1, got 0"),
        ("memory", {"images_per_pass": 0}, r"memory\.images_per_pass must be at least 1, got 0"),
    ],
)
def test_mistaken_fields_are_named(section, changes, said):
    with pytest.raises(UserError, match=said) as told:
        tiny(**{section: changes})
    assert str(told.value).startswith("--config")
    if section in Trained.model_fields:  # what a model changes is held to the same
        with pytest.raises(UserError, match=said) as told:
            tiny(models={"vdm": {section: changes}}).of_model("vdm")
        assert str(told.value).startswith("--config.models.vdm")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"chain": {**DDPM, "variance": "learned"}, "objective": {"name": "simple"}},
            "trains neither a variance",
        ),
        (
            {"chain": {"schedule": "vdm_learned", "timesteps": 5}, "objective": {"name": "simple"}},
            "trains neither a variance nor a schedule",
        ),
        (
            {"chain": DDPM, "objective": {"name": "simple", "times": "importance"}},
            "importance needs",
        ),
        ({"objective": {"name": "flow_matching"}}, "evenly along a straight path"),
        (
            {
                "chain": {"schedule": "straight", "timesteps": 4},
                "objective": {"name": "flow_matching"},
            },
            "evenly along a straight path",
        ),
    ],
)
def test_sections_that_do_not_fit_each_other_are_named(changes, said):
    with pytest.raises(UserError, match=said):
        tiny(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"chain": {"schedule": "linear", "timesteps": 10, "evaluation_timesteps": 0}},
            "take more steps",
        ),
        (
            {"chain": DDPM, "objective": {"times": "importance"}, "together": True},
            "needs --config.together=False",
        ),
        (
            {"training": {"batch_size": 2000}},
            r"training\.batch_size must be between 1 and 1197, got 2",
        ),
    ],
)
def test_models_that_do_not_fit_are_refused_before_any_trains(changes, said):
    with pytest.raises(UserError, match=said):
        family.check(tiny(**changes))


def test_choices_of_the_settings_are_those_of_the_code():
    chain, objective = Chain.model_fields, Objective.model_fields
    for field, table in (
        (chain["schedule"], {*build.DISCRETE, "vdm_linear", "vdm_learned", "straight"}),
        (chain["decoder"], set(DECODERS)),
        (chain["prediction"], set(_diffusion_step.PREDICTIONS)),
        (chain["variance"], set(_diffusion_step.VARIANCES)),
        (objective["times"], set(training.TIMES)),
    ):
        assert set(get_args(field.annotation)) == table
    assert GREATEST_GAMMA == _checks.GREATEST_GAMMA


def test_pixels_outside_the_levels_are_refused():
    wild = np.full((4, 2, 2), 9, np.uint8)
    with pytest.raises(UserError, match=r"pixels must be 0 \.\. 3"):
        images.check_images(sets.Dataset("wild", wild, wild, wild, 4))


@pytest.mark.slow
@pytest.mark.parametrize("name", diffusion_images.VARIANTS)
def test_configs_of_larger_images_make_their_models(name, monkeypatch):
    shape = (32, 32, 3) if name.startswith("cifar") else (28, 28, 1)
    blank = np.zeros((130, *shape), np.uint8)
    made_up = images.Problem(sets.Dataset(name, blank, blank, blank, 256), shape)
    monkeypatch.setattr(images, "make_problem", lambda name, data_dir: made_up)
    asked = parse(Diffusion, diffusion_images.get_config(name))
    assert family.check(asked).models.keys() == asked.models.keys()
