"""What may change between two runs in one folder, and which change makes another run."""

import copy
import json

import pytest

from experiments.dequantize.settings import Dequantize
from experiments.runtime import results, settings, subprograms
from experiments.runtime.changes import changed_fields, differing_fields, refuse_other
from experiments.runtime.checkpoints import Checkpoints
from experiments.runtime.errors import UserError
from experiments.snr.settings import parse
from experiments.vae.settings import Evaluate, Reference, Train

TRAIN = settings.dump(settings.parse(Train, subprograms.load_config("configs/train_digits.py", {})))
STUDY = settings.dump(
    settings.parse(
        Dequantize, subprograms.load_config("configs/dequantize_digits.py", {"together": False})
    )
)
REFERENCE = settings.dump(
    settings.parse(Reference, subprograms.load_config("configs/reference_mnist.py", {}))
)
EVALUATE = settings.dump(
    settings.parse(Evaluate, subprograms.load_config("configs/evaluate.py", {"run": "x"}))
)


def both(config, changes):
    """(what tells results apart, what tells trained models apart)."""
    now = settings.merged(copy.deepcopy(config), changes)
    return tuple(differing_fields(config, now, of_the_model=m) for m in (False, True))


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (TRAIN, {"data_dir": "elsewhere"}),
        (REFERENCE, {"memory": {"images_per_pass": 1, "samples_per_pass": 7}}),
        (EVALUATE, {"run": "moved", "memory": {"ais_images_per_pass": 3}}),
    ],
)
def test_the_machine_changes_no_run(config, changes):
    assert both(config, changes) == ("", "")
    assert changed_fields(config, settings.merged(config, changes)) == {}


@pytest.mark.parametrize(
    ("config", "changes", "said"),
    [
        (TRAIN, {"records": {"log_every": 1}}, "records.log_every (100 there, 1 now)"),
        (TRAIN, {"evaluation": {"num_images": 7}}, "evaluation.num_images (0 there, 7 now)"),
        (STUDY, {"compare": []}, "compare ("),
        (TRAIN, {"training": {"num_steps": 9999}}, "training.num_steps ("),
        (STUDY, {"seeds": [*STUDY["seeds"], 99]}, "seeds ("),
        (REFERENCE, {"grid": [*REFERENCE["grid"], "stl:7"]}, "grid ("),
        (STUDY, {"models": {"new": {"model": {"width": 3}}}}, "models.new.model.width (None"),
    ],
)  # fmt: skip
def test_what_is_asked_of_a_model_makes_other_rows_and_no_other_model(config, changes, said):
    of_results, of_the_model = both(config, changes)
    assert of_results.startswith(said)
    assert of_the_model == ""


@pytest.mark.parametrize(
    ("config", "changes", "said"),
    [
        (TRAIN, {"seed": 7}, "seed (0 there, 7 now)"),
        (TRAIN, {"data": {"binarization_seed": 7}}, "data.binarization_seed (0 there, 7 now)"),
        (TRAIN, {"model": {"latents": [3]}}, "model.latents ([20] there, [3] now)"),
        (TRAIN, {"objective": {"name": "stl"}}, "objective.name (iwae there, stl now)"),
        (TRAIN, {"optimizer": {"learning_rate": 1.0}}, "optimizer.learning_rate ("),
        (TRAIN, {"training": {"batch_size": 3}}, "training.batch_size ("),
        (STUDY, {"seeds": [99]}, "seeds ("),
        (STUDY, {"noise": {"name": "logistic"}}, "noise.name ("),
    ],
)
def test_what_is_trained_makes_another_model(config, changes, said):
    for found in both(config, changes):
        assert found.startswith(said)


def test_more_steps_continue_where_no_step_depends_on_their_number():
    for name, why in {
        "adam": "",
        "sgd": "",
        "adam_cosine": ", on which every step of adam_cosine depends",
    }.items():
        there = settings.merged(TRAIN, {"optimizer": {"name": name}})
        now = settings.merged(there, {"training": {"num_steps": 9999}})
        steps = there["training"]["num_steps"]
        wanted = f"training.num_steps ({steps} there, 9999 now{why})" if why else ""
        assert differing_fields(there, now, of_the_model=True) == wanted


def test_more_seeds_are_another_model_where_all_are_trained_as_one():
    there = STUDY | {"together": True}
    now = there | {"seeds": [*there["seeds"], 99]}
    assert differing_fields(there, now, of_the_model=True).startswith("seeds (")


def test_name_of_a_model_may_be_that_of_a_section():
    there = STUDY | {"models": {"memory": {"model": {"width": 8}}}}
    now = STUDY | {"models": {"memory": {"model": {"width": 9}}}}
    assert differing_fields(there, now) == "models.memory.model.width (8 there, 9 now)"


def test_problem_with_other_sections_is_of_this_version():
    there, now = (
        settings.dump(parse(subprograms.load_config(f"configs/snr_{name}.py", {})))
        for name in ("gaussian", "vae")
    )
    assert "problem (gaussian there, vae now)" in differing_fields(there, now)
    assert EARLIER not in differing_fields(there, now)


def test_a_field_that_an_earlier_version_had_not_is_none_to_set_back(tmp_path):
    there = copy.deepcopy(TRAIN)
    del there["data"]["binarization_seed"]
    (tmp_path / results.CONFIG).write_text(json.dumps(there))
    (tmp_path / results.METRICS).write_text("{}\n")
    said = (
        "of an earlier version of this program, which had no data.binarization_seed yet; choose "
        "another --workdir."
    )
    with pytest.raises(UserError, match=said):
        results.save_config(str(tmp_path), TRAIN)
    with pytest.raises(UserError, match=r"differs in .*seed \(0 there, 1 now\); .* set the field"):
        results.save_config(str(tmp_path), TRAIN | {"seed": 1})
    # What a user has added can be left out again.
    with pytest.raises(UserError, match=r"differs in models.one .* set the field back"):
        refuse_other(
            "x holds results", STUDY | {"models": {"one": {}}},
            STUDY | {"models": {"one": {"model": {"width": 9}}}}, "--workdir",
        )  # fmt: skip


# As version 0.1 wrote it, whose configs had no sections.
FLAT = {
    "dataset": "digits", "data_dir": "", "objective": "iwae", "num_samples": 5, "latents": [50],
    "hidden": [[200, 200]], "optimizer": "adam", "learning_rate": 1e-3, "num_steps": 4, "seed": 0,
}  # fmt: skip
EARLIER = "was written by an earlier version of this program"


def test_results_of_version_0_1_are_refused_and_kept(tmp_path):
    record = {
        "experiment": "train", "config": FLAT, "seed": 0, "environment": {}, "rows": [],
    }  # fmt: skip
    path = tmp_path / results.FILE
    path.write_text(json.dumps(record))
    given = settings.parse(Train, TRAIN)
    with pytest.raises(UserError, match=EARLIER) as caught:
        results.open_record(str(tmp_path), "train", given)
    assert len(str(caught.value).splitlines()) == 1
    assert "choose another folder" in str(caught.value)
    assert json.loads(path.read_text()) == record


def test_run_of_version_0_1_is_refused_and_kept(tmp_path):
    (tmp_path / results.CONFIG).write_text(json.dumps(FLAT))
    (tmp_path / results.METRICS).write_text("{}\n")
    with pytest.raises(UserError, match=EARLIER) as caught:
        results.save_config(str(tmp_path), TRAIN)
    assert len(str(caught.value).splitlines()) == 1
    assert json.loads((tmp_path / results.CONFIG).read_text()) == FLAT


def test_checkpoint_of_version_0_1_is_refused_and_kept(tmp_path):
    import jax.numpy as jnp

    folder = str(tmp_path / "checkpoints")
    with Checkpoints(folder, FLAT) as checkpoints:
        checkpoints.save(4, {"w": jnp.zeros(2)}, None)
    with (
        Checkpoints(folder, TRAIN) as checkpoints,
        pytest.raises(UserError, match=EARLIER) as caught,
    ):
        checkpoints.restore({"w": jnp.zeros(2)})
    assert len(str(caught.value).splitlines()) == 1
    with Checkpoints(folder, FLAT, read_only=True) as checkpoints:
        assert checkpoints.steps() == [4]
