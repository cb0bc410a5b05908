"""Going on with a finished training: what may change, what may not, and what is told of it."""

import json

import jax
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict

import configs.train_digits
from experiments import train
from experiments.runtime import fit, results
from experiments.runtime.checkpoints import Checkpoints
from experiments.runtime.errors import UserError, differing_fields
from experiments.vae import build

TINY = {
    "num_steps": 20, "log_every": 10, "save_every": 10, "num_samples": 2, "batch_size": 20,
    "validation_samples": 4, "few_samples": 4, "test_samples": 8, "test_images": 10,
    "hidden": ((8,),), "latents": (2,),
}  # fmt: skip
STUDY = {
    "models": {"a": {"width": 3}}, "seeds": [0], "together": False, "optimizer": "adam",
    "num_steps": 20, "keep_checkpoints": 1, "evaluation_images": 0, "width": 2, "compare": [],
    "learning_rate": 0.1,
}  # fmt: skip


def config_of(**changes):
    config = configs.train_digits.get_config()
    config.update({**TINY, **changes})
    return config


def run(workdir, **changes):
    flags.FLAGS.mark_as_parsed()
    train.main(config_of(**changes), str(workdir))
    with open(workdir / results.FILE) as file:
        return json.load(file)


def last_state(workdir, **changes):
    config = config_of(**changes)
    like = fit.initial_state(build.make_run(build.make_problem(config), config), config)
    folder = str(workdir / "checkpoints")
    with Checkpoints(folder, config.to_dict(), read_only=True) as checkpoints:
        state = checkpoints.restore(like)
        step = max(checkpoints.steps())
        notes = checkpoints._notes(step)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)], notes


def differ(there, now):
    return differing_fields(there, now, of_the_model=True)


def test_more_steps_end_where_one_long_training_does(tmp_path):
    first = run(tmp_path / "a")
    longer = run(tmp_path / "a", num_steps=40)
    whole = run(tmp_path / "b", num_steps=40)
    bits, notes = last_state(tmp_path / "a", num_steps=40)
    assert bits == last_state(tmp_path / "b", num_steps=40)[0]
    assert [r["value"] for r in longer["rows"]] == [r["value"] for r in whole["rows"]]
    assert [r["value"] for r in longer["rows"]] != [r["value"] for r in first["rows"]]
    assert longer["config"] == whole["config"]
    assert longer["continued_from"] == [{"num_steps": 20}]
    assert notes["earlier"] == [{"to_step": 20, "num_steps": 20}]
    assert json.loads((tmp_path / "a" / results.CONFIG).read_text())["num_steps"] == 40
    # Back is no way to go: nothing is trained, and nothing changed.
    kept = (tmp_path / "a" / results.FILE).read_text()
    settings = (tmp_path / "a" / results.CONFIG).read_text()
    with pytest.raises(UserError, match="has come to step 40, beyond the number of steps now, 20"):
        run(tmp_path / "a")
    assert (tmp_path / "a" / results.FILE).read_text() == kept
    assert (tmp_path / "a" / results.CONFIG).read_text() == settings
    # Another evaluation is of the same model, and as a new one has it.
    changes = {"num_steps": 40, "test_images": 20, "log_every": 5, "keep_checkpoints": 5}
    again = run(tmp_path / "a", **changes)
    assert last_state(tmp_path / "a", **changes)[0] == bits
    assert {r["n"] for r in again["rows"]} == {20}
    assert again["continued_from"][1] == {"keep_checkpoints": 2, "log_every": 10, "test_images": 10}
    assert [r["value"] for r in again["rows"]] == [
        r["value"] for r in run(tmp_path / "b", num_steps=40, test_images=20)["rows"]
    ]


def test_a_schedule_that_ends_with_the_steps_is_another_training(tmp_path):
    there = {"optimizer": "adam_cosine", "num_steps": 20}
    assert "every step of adam_cosine depends" in differ(there, {**there, "num_steps": 40})
    for constant in ("adam", "adam_warmup", "sgd", "paper", "released_code"):
        there["optimizer"] = constant
        assert not differ(there, {**there, "num_steps": 40})
        assert "num_steps" in differing_fields(there, {**there, "num_steps": 40})


@pytest.mark.parametrize("field", ["prior_steps", "refit_noise", "trained_with"])
def test_what_a_second_training_was_made_from_stays(field):
    there = {"optimizer": "adam", "num_steps": 20, field: "x"}
    assert "a second training depends" in differ(there, {**there, "num_steps": 40})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": [0, 1]}, ""),
        ({"seeds": [1]}, "seeds"),
        ({"seeds": [0, 1], "together": True}, "seeds"),
        ({"models": {"a": {"width": 3}, "b": {"width": 4}}}, ""),
        ({"models": {"a": {"width": 4}}}, "models.a.width"),
        ({"models": {"a": {"width": 3, "num_steps": 9}}}, ""),
        ({"models": {"a": {"width": 3, "optimizer": "adam_cosine"}}, "num_steps": 40}, "num_steps"),
        ({"learning_rate": 0.2}, "learning_rate"),
        ({"width": 5}, "width"),
        ({"evaluation_images": 7, "keep_checkpoints": 3, "compare": [["a", "b"]]}, ""),
    ],
)
def test_a_study_may_have_more_models_and_another_evaluation(changes, said):
    found = differ(STUDY, {**STUDY, **changes})
    assert bool(found) == bool(said)
    assert said in found


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True), ({"keep_checkpoints": 2}, True), ({"seeds": [0, 1]}, True),
        ({"compare": [["a", "a"]]}, True), ({"evaluation_images": 5}, False),
        ({"num_steps": 40}, False),
    ],
)  # fmt: skip
def test_rows_of_another_evaluation_are_measured_anew(tmp_path, changes, kept):
    record = results.open_record(str(tmp_path), "study", ConfigDict(STUDY))
    record["rows"] = [{"point": "a_seed0"}]
    results.save_record(str(tmp_path), record)
    again = results.open_record(str(tmp_path), "study", ConfigDict({**STUDY, **changes}))
    assert again["rows"] == ([{"point": "a_seed0"}] if kept else [])
    assert again["config"] == {**STUDY, **changes}
    assert len(again.get("continued_from", [])) == bool(changes)


def test_what_trains_nothing_keeps_its_rows_or_is_refused(tmp_path):
    config = {"few_samples": 4}
    record = results.open_record(str(tmp_path), "evaluate", ConfigDict(config))
    results.save_record(str(tmp_path), record)
    with pytest.raises(UserError, match="another config, which differs in few_samples"):
        results.open_record(str(tmp_path), "evaluate", ConfigDict({"few_samples": 5}))
