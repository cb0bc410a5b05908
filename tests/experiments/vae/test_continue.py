"""Going on with a finished training: what may change, what may not, and what is told of it."""

import json

import pytest
from train_cases import problem_of, state_of, tiny, tiny_evaluation

from experiments import train
from experiments.dequantize.settings import Dequantize
from experiments.runtime import results, settings, subprograms
from experiments.runtime.changes import differing_fields
from experiments.runtime.errors import UserError
from experiments.vae import build

TINY = {
    "model": {"latents": (2,), "hidden": ((8,),)},
    "training": {"num_steps": 20, "batch_size": 20},
    "records": {"save_every": 10, "keep_checkpoints": 2},
    "evaluation": {"num_samples": 8, "num_images": 10},
}
ADAM = {"optimizer": {"name": "adam"}}


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch):
    """What a data set and a model compile is the same in every run of this file."""
    monkeypatch.setattr(build, "make_problem", problem_of)


def settings_of(**changes):
    return tiny(**settings.merged(TINY, changes))


def run(workdir, **changes):
    train.main(settings_of(**changes), str(workdir))
    with open(workdir / results.FILE) as file:
        return json.load(file)


def last_state(workdir, **changes):
    leaves, notes = state_of(settings_of(**changes), workdir)
    return [leaf.tobytes() for leaf in leaves], notes


def study(**changes):
    """Settings of a study of one model."""
    fields = {"models": {"a": {"model": {"width": 3}}}, "compare": (), "seeds": (0,),
              "together": False, **ADAM}  # fmt: skip
    wanted = settings.merged({k: v for k, v in fields.items() if k not in changes}, changes)
    loaded = subprograms.load_config("configs/dequantize_digits.py", wanted)
    return settings.parse(Dequantize, loaded)


def differ(there, now):
    return differing_fields(there, now, of_the_model=True)


def test_more_steps_end_where_one_long_training_does(tmp_path):
    first = run(tmp_path / "a")
    more = {"training": {"num_steps": 40}}
    longer = run(tmp_path / "a", **more)
    whole = run(tmp_path / "b", **more)
    bits, notes = last_state(tmp_path / "a", **more)
    assert bits == last_state(tmp_path / "b", **more)[0]
    assert [r["value"] for r in longer["rows"]] == [r["value"] for r in whole["rows"]]
    assert [r["value"] for r in longer["rows"]] != [r["value"] for r in first["rows"]]
    assert longer["config"] == whole["config"]
    assert longer["continued_from"] == [{"training.num_steps": 20}]
    assert notes["earlier"] == [{"to_step": 20, "training.num_steps": 20}]
    config = tmp_path / "a" / results.CONFIG
    assert json.loads(config.read_text())["training"]["num_steps"] == 40
    # Back is no way to go: nothing is trained, and nothing changed.
    kept = (tmp_path / "a" / results.FILE).read_text()
    kept_config = config.read_text()
    with pytest.raises(UserError, match="has come to step 40, beyond the number of steps now, 20"):
        run(tmp_path / "a")
    assert (tmp_path / "a" / results.FILE).read_text() == kept
    assert config.read_text() == kept_config
    # Another evaluation is of the same model, and as a new one has it.
    scored = {**more, "evaluation": {"num_images": 20}}
    changes = {**scored, "records": {"log_every": 5, "keep_checkpoints": 5}}
    again = run(tmp_path / "a", **changes)
    assert last_state(tmp_path / "a", **changes)[0] == bits
    assert {r["n"] for r in again["rows"]} == {20}
    assert again["continued_from"][1] == {
        "records.keep_checkpoints": 2,
        "records.log_every": 10,
        "evaluation.num_images": 10,
    }
    assert [r["value"] for r in again["rows"]] == [
        r["value"] for r in run(tmp_path / "b", **scored)["rows"]
    ]


def test_a_schedule_that_ends_with_the_steps_is_another_training():
    there, now = ({"training": {"num_steps": n}} for n in (20, 40))
    for name in ("adam_cosine", "paper", "released_code"):
        there["optimizer"] = now["optimizer"] = {"name": name}
        assert f"every step of {name} depends" in differ(there, now)
    for constant in ("adam", "adam_warmup", "sgd"):
        there["optimizer"] = now["optimizer"] = {"name": constant}
        assert not differ(there, now)
        assert "training.num_steps" in differing_fields(there, now)


@pytest.mark.parametrize(
    "more",
    [{"prior": {"num_steps": 5}}, {"refit": {"noise": "x"}}, {"trained_with": {"seed": 0}}],
    ids=str,
)
def test_what_a_second_training_was_made_from_stays(more):
    there, now = ({**ADAM, **more, "training": {"num_steps": n}} for n in (20, 40))
    assert "a second training depends" in differ(there, now)


A = {"model": {"width": 3}}
LONGER = {"training": {"num_steps": 4000}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": (0, 1)}, ""),
        ({"seeds": (1,)}, "seeds"),
        ({"seeds": (0, 1), "together": True}, "seeds"),
        ({"models": {"a": A, "b": {"model": {"width": 4}}}}, ""),
        ({"models": {"a": {"model": {"width": 4}}}}, "models.a.model.width"),
        ({"models": {"a": {**A, "training": {"num_steps": 9}}}}, ""),
        (
            {"models": {"a": {**A, "optimizer": {"name": "adam_cosine"}}}, **LONGER},
            "training.num_steps",
        ),
        ({"optimizer": {"name": "adam", "learning_rate": 0.2}}, "optimizer.learning_rate"),
        ({"model": {"width": 5}}, "model.width"),
        (
            {
                "evaluation": {"num_images": 7}, "records": {"keep_checkpoints": 3},
                "memory": {"images_per_pass": 3}, "compare": (("a", "a"),),
            },
            "",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_a_study_may_have_more_models_and_another_evaluation(changes, said):
    found = differ(settings.dump(study()), settings.dump(study(**changes)))
    assert bool(found) == bool(said)
    assert said in found


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True), ({"records": {"keep_checkpoints": 2}}, True), ({"seeds": (0, 1)}, True),
        ({"compare": (("a", "a"),)}, True), ({"evaluation": {"num_images": 5}}, False),
        (LONGER, False),
    ],
    ids=str,
)  # fmt: skip
def test_rows_of_another_evaluation_are_measured_anew(tmp_path, changes, kept):
    record = results.open_record(str(tmp_path), "study", study())
    record["rows"] = [{"point": "a_seed0"}]
    results.save_record(str(tmp_path), record)
    again = results.open_record(str(tmp_path), "study", study(**changes))
    assert again["rows"] == ([{"point": "a_seed0"}] if kept else [])
    assert again["config"] == settings.dump(study(**changes))
    assert len(again.get("continued_from", [])) == bool(changes)


def test_what_trains_nothing_keeps_its_rows_or_is_refused(tmp_path):
    record = results.open_record(str(tmp_path), "evaluate", tiny_evaluation("run"))
    results.save_record(str(tmp_path), record)
    other = tiny_evaluation("run", evaluation={"few_samples": 5})
    with pytest.raises(UserError, match=r"another config, which differs in evaluation.few_samples"):
        results.open_record(str(tmp_path), "evaluate", other)
