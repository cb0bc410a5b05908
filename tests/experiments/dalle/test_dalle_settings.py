"""experiments.dalle: the settings it takes, and what it refuses before anything is written."""

from typing import get_args

import dalle_cases
import pytest
from dalle_cases import tiny

from experiments.dalle import __main__ as dalle
from experiments.dalle import build, family, training
from experiments.dalle.settings import Model, Objective
from experiments.runtime.errors import UserError

MISTAKES = {
    "beta": ({"objective": {"beta": -1.0}}, r"objective\.beta must be at least 0, got -1\.0"),
    "temperature": ({"objective": {"temperature_end": 0.0}}, r"temperature_end must be .* than 0"),
    "negative temperature": ({"objective": {"temperature_start": -1.0}}, "temperature_start must"),
    "context": ({"data": {"text_length": 0}}, r"data\.text_length must be at least 1, got 0"),
    "objective": ({"objective": {"name": "gumbel"}}, "must be 'relaxed', .*, got 'gumbel'"),
    "vimco": ({"objective": {"name": "vimco", "beta": 0.0}}, "vimco needs beta above 0"),
    "one sample": ({"objective": {"name": "vimco", "num_samples": 1}}, "num_samples of at least 2"),
    "tokens": ({"prior": {"tokens": "best"}}, r"prior\.tokens must be 'sampled' or 'argmax'"),
    "weights": ({"prior": {"text_weight": 0.0, "image_weight": 0.0}}, "both 0"),
    "heads": ({"prior": {"num_heads": 3}}, r"prior\.num_heads must divide width \(.*, got 3"),
    "length": (
        {"optimizer": {"name": "adam_cosine", "warmup_steps": 2}, "prior": {"num_steps": 2}},
        r"optimizer\.warmup_steps must be below prior\.num_steps \(2\), got 2",
    ),
    "weight": ({"prior": {"image_weight": -1.0}}, r"prior\.image_weight must be"),
    "codes": ({"model": {"num_codes": 1}}, r"model\.num_codes must be at least 2, got 1"),
    "infinite": ({"evaluation": {"temperatures": (1.0, float("inf"))}}, "a finite number, got inf"),
    "temperatures": ({"evaluation": {"temperatures": (1.0, 0.0)}}, r"temperatures\[1\] must"),
    "steps": ({"prior": {"num_steps": 0}}, r"prior\.num_steps must be at least 1, got 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistaken_fields_are_named(name):
    changes, message = MISTAKES[name]
    with pytest.raises(UserError, match=message):
        tiny(**changes)
    # What a model changes is held to the same.
    if changes.keys() <= {"objective", "model", "prior"}:
        with pytest.raises(UserError, match=message) as told:
            tiny(models={"own": changes}).of_model("own")
        assert "--config.models.own." in str(told.value)


MISFITS = {
    "grid": ({"model": {"grid": 3}}, r"config\.model\.grid=3 does not divide an image of 8x8"),
    "enumerated": (
        {"objective": {"name": "enumerated"}, "model": {"grid": 4, "num_codes": 16}},
        "would decode 16\\^16 sequences",
    ),
    "likelihood": ({"model": {"likelihood": "bernoulli"}}, "is of 2 levels"),
    "width": ({"model": {"width": 6}}, "multiple of 4"),
    "no captions": ({"data": {"name": "cifar10_first4000"}}, "must have captions"),
    "word": ({"evaluation": {"captions": ("eleven",)}}, "has the unknown word 'eleven'"),
    "words": ({"evaluation": {"captions": ("one two",)}}, "more than the context of 1"),
    "of a model": ({"models": {"own": {"prior": {"tokens": "best"}}}}, r"models\.own\.prior"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_models_that_do_not_fit_are_refused_before_anything_is_written(name, tmp_path, monkeypatch):
    changes, message = MISFITS[name]
    if name == "no captions":
        problem = dalle_cases.data().problem
        monkeypatch.setattr(build, "make_problem", lambda *_: problem)
    with pytest.raises(UserError, match=message):
        dalle.main(tiny(**{"models": {"own": {}}, **changes}), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_choices_of_the_settings_are_those_of_the_code():
    for section, field, table in (
        (Model, "likelihood", build.LIKELIHOODS),
        (Objective, "name", training.OBJECTIVES),
    ):
        assert set(get_args(section.model_fields[field].annotation)) == set(table)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"data": {"enlarge": 2}}, "set data.enlarge to 1"),
        ({"model": {"likelihood": "logit_laplace"}}, "set model.likelihood to discretized_"),
        ({"models": {"a": {}, "b": {"model": {"likelihood": "logit_laplace"}}}}, "real numbers"),
    ],
)
def test_comparison_takes_probabilities_of_the_images_as_they_are(changes, said):
    reason = family.refuse(tiny(**changes))
    assert (said in reason) if said else not reason
