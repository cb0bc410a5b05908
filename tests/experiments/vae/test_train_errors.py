"""What experiments.train and experiments.evaluate refuse, in one sentence each; evaluations."""

import json
import shutil

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from programs import finish, metric_lines, read
from train_cases import (
    evaluation,
    finished,
    launch,
    stopped_after,
    tiny,
    tiny_evaluation,
    training,
)

from experiments import evaluate, train
from experiments.runtime import cli, cluster, results, settings, subprograms
from experiments.runtime.errors import UserError
from experiments.vae.settings import Train

__all__ = ["finished", "launch"]  # fixtures


@pytest.fixture(autouse=True)
def default_flags():
    with flagsaver.flagsaver():
        yield


def refusal(call, *arguments, **changes):
    """The one line that a call is refused with."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **changes)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def of(section, **changes):
    return {section: changes}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (of("objective", name="iwea"), ["objective.name", "'elbo', 'iwae'", "'iwea'"]),
        (of("data", name="digit"), ["data.name", "'digits', 'digits_shuffled'", "'digit'"]),
        (of("model", likelihood="gauss"), ["model.likelihood", "'bernoulli', 'cat", "'gauss'"]),
        (of("optimizer", name="adm"), ["optimizer.name", "'adam', 'adam_warmup'", "'adm'"]),
        (of("objective", name="vimco", num_samples=1), ["vimco", "num_samples", "at least 2"]),
        (of("objective", num_samples=0), ["objective.num_samples", "at least 1, got 0"]),
        (of("objective", beta=2.0), ["objective.beta", "at most 1, got 2.0"]),
        (of("objective", beta=float("nan")), ["objective.beta", "a finite number, got nan"]),
        (of("model", latents=(4, 3)), ["config.model", "hidden", "latents", "(4, 3)"]),
        (of("model", latents=(0,)), ["model.latents[0]", "at least 1, got 0"]),
        (of("model", latents=(4.5,)), ["model.latents[0]", "a whole number, got 4.5"]),
        (of("model", hidden=(16,)), ["model.hidden[0]", "a tuple such as (1, 2), got 16"]),
        ({"seed": -1}, ["config.seed", "-1"]),
        ({"seed": 2**40}, ["config.seed", "4294967296", str(2**40)]),
        (of("data", binarization_seed=2**32), ["data.binarization_seed", "4294967296"]),
        (of("training", num_steps=0), ["config", "training.num_steps", "at least 1", "got 0"]),
        (of("training", validation_samples=0), ["training.validation_samples", "got 0"]),
        (of("training", batch_size=0), ["training.batch_size", "at least 1, got 0"]),
        (of("training", ema_decay=1.0), ["training.ema_decay", "less than 1, got 1.0"]),
        (of("evaluation", few_samples=0), ["evaluation.few_samples", "got 0"]),
        (of("evaluation", num_samples=0), ["evaluation.num_samples", "got 0"]),
        (of("evaluation", num_images=-1), ["evaluation.num_images", "got -1"]),
        (of("optimizer", learning_rate=-1.0), ["optimizer.learning_rate", "got -1.0"]),
        (of("optimizer", learning_rate=float("nan")), ["optimizer.learning_rate", "got nan"]),
        (of("optimizer", clip_norm=float("nan")), ["optimizer.clip_norm", "got nan"]),
        (of("optimizer", clip_norm=-1.0), ["optimizer.clip_norm", "got -1.0"]),
        (of("optimizer", name="adam_cosine", warmup_steps=60), ["warmup_steps", "(60)", "60"]),
        (of("records", log_every=0), ["records.log_every", "got 0"]),
        (of("records", save_every=25), ["config.records", "multiple of log_every (10)", "25"]),
        (of("records", keep_checkpoints=0), ["records.keep_checkpoints", "got 0"]),
        (of("training", num_step=5), ["training.num_step is no field", "training.num_steps"]),
    ],
    ids=str,
)
def test_impossible_setting_is_refused(changes, wanted):
    message = refusal(tiny, **changes)
    for fragment in wanted:
        assert fragment in message


def test_batch_larger_than_the_data_is_refused_before_anything_is_written(tmp_path):
    wanted = tiny(training={"batch_size": 1398})
    message = refusal(train.main, wanted, str(tmp_path / "run"))
    assert "--config.training.batch_size must be between 1 and 1397, got 1398" in message
    assert not (tmp_path / "run").exists()


def test_config_of_another_program_is_named():
    fields = subprograms.load_config("configs/snr_gaussian.py:near", {})
    message = refusal(settings.parse, Train, fields)
    assert "name the program it is for" in message


def test_memory_that_does_not_suffice_is_said_in_one_line():
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes.")
    flags.FLAGS.workdir = "somewhere"
    assert "too little memory" in (cli.exhausted_memory(error) or "")
    assert cli.exhausted_memory(ValueError("RESOURCE")) is None


def test_config_that_never_took_a_step_does_not_block_the_corrected_one(tmp_path):
    results.save_config(str(tmp_path), {"seed": 0})
    results.save_config(str(tmp_path), {"seed": 1})
    (tmp_path / "metrics.jsonl").touch()
    results.save_config(str(tmp_path), {"seed": 1})
    (tmp_path / "metrics.jsonl").write_text('{"step": 10}\n')
    with pytest.raises(UserError, match=r"seed \(1 there, 0 now\)"):
        results.save_config(str(tmp_path), {"seed": 0})


def test_data_that_are_missing_or_broken_are_named(tmp_path):
    wanted = tiny(data={"name": "mnist"}, data_dir=str(tmp_path / "data"))
    message = refusal(train.main, wanted, str(tmp_path / "run"))
    assert str(tmp_path / "data") in message
    assert "experiments.download --dataset=mnist" in message
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-images-idx3-ubyte").write_bytes(b"\0" * 100)
    message = refusal(train.main, wanted, str(tmp_path / "run"))
    assert "train-images-idx3-ubyte" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("steps", [20, 60], ids=["under-way", "finished"])
def test_folder_of_another_config_is_refused_with_the_fields_named(finished, tmp_path, steps):
    folder = tmp_path / "run"
    if steps == 20:
        stopped_after(finished, 20, folder)
    else:
        shutil.copytree(finished[0], folder)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    message = refusal(train.main, tiny(seed=7, model={"latents": (5,)}), str(folder))
    assert "model.latents ([4] there, [5] now)" in message
    assert "seed (0 there, 7 now)" in message
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before


def test_checkpoints_of_another_model_are_refused_with_the_fields_named(finished, tmp_path):
    flags.FLAGS.checkpoint_dir = str(finished[0] / "checkpoints")
    message = refusal(train.main, tiny(model={"latents": (5,)}), str(tmp_path / "run"))
    assert "model.latents ([4] there, [5] now)" in message
    assert str(finished[0] / "checkpoints") in message


def test_checkpoint_dir_that_is_no_folder_is_refused(finished, tmp_path):
    flags.FLAGS.checkpoint_dir = str(finished[0] / "config.json")
    message = refusal(train.main, tiny(), str(tmp_path / "run"))
    assert str(finished[0] / "config.json") in message


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"num_processes": 2}, "need --distributed"),
        ({"distributed": True, "coordinator_address": "127.0.0.1:1"}, "give all three"),
        ({"distributed": True, "num_processes": 2, "process_id": 0}, "give all three"),
    ],
)
def test_flags_of_several_processes_that_do_not_fit_together_are_refused(given, wanted):
    for name, value in given.items():
        setattr(flags.FLAGS, name, value)
    assert wanted in refusal(cluster.join)


# Through the program: exit 2, and one line beside those of progress.


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (of("training", num_step=5), ["num_step", "did you mean --config.training.num_steps?"]),
        (of("objective", name="iwea", beta="nan"), ["objective.name", "'iwea'", "beta", "nan"]),
        (of("optimizer", learning_rate=1e9), ["not finite at step ", "checkpoints are kept"]),
    ],
    ids=["typo", "objective", "learning-rate"],
)
def test_mistake_exits_2_with_one_line(launch, tmp_path, changes, wanted):
    code, out, err = finish(launch(*training(tmp_path / "run", **changes)))
    lines = [x for x in err.splitlines() if not x.startswith(("Training on", "step "))]
    assert code == 2, err
    assert len(lines) == 1, err
    assert lines[0].startswith("train.py: ")
    for fragment in wanted:
        assert fragment in lines[0]
    assert out == ""


# Evaluation.


@pytest.fixture(scope="module")
def evaluated(finished, launch, tmp_path_factory):
    """Folder and stdout of an evaluation."""
    folder = tmp_path_factory.mktemp("evaluated")
    code, out, err = finish(launch(*evaluation(finished[0], folder)))
    assert code == 0, err
    return folder, out


def test_evaluation_says_what_each_number_is(evaluated, finished):
    rows = read(evaluated[0])["rows"]
    kinds = {}
    for row in rows:
        kinds.setdefault(row["name"], set()).add(row["kind"])
        assert row["unit"]
        if row["part"] != "size":
            assert row["standard_error"] is not None
            assert row["standard_error"] >= 0
        assert (row["step"], row["weights"]) == (best_step(finished[0]), "last")
        assert row["name"] in evaluated[1]
    assert kinds["ELBO"] == kinds["IWAE"] == kinds["AIS"] == {"lower_bound"}
    assert kinds["reverse AIS (BDMC)"] == {"upper_bound"}
    assert kinds["-KL"] == {"estimate"}
    assert kinds["parameters"] == {"exact"}
    assert kinds["VR-IWAE"] == {"lower_bound"}
    assert str(evaluated[0] / results.FILE) in evaluated[1]


def best_step(folder):
    return max((e["validation"], e["step"]) for e in metric_lines(folder) if "validation" in e)[1]


def test_evaluation_goes_on_part_by_part(evaluated, finished, tmp_path, capsys):
    shutil.copytree(evaluated[0], tmp_path / "again")
    whole = read(evaluated[0])
    part = {**whole, "rows": [r for r in whole["rows"] if r["part"] != "active units"]}
    (tmp_path / "again" / results.FILE).write_text(json.dumps(part))
    evaluate.main(tiny_evaluation(finished[0]), str(tmp_path / "again"))
    assert "active units" in capsys.readouterr().out
    rows = read(tmp_path / "again")["rows"]
    assert rows[: len(part["rows"])] == part["rows"]
    new = rows[len(part["rows"]) :]
    assert [r["name"] for r in new] == [
        r["name"] for r in whole["rows"] if r["part"] == "active units"
    ]
    np.testing.assert_allclose(
        [r["value"] for r in new],
        [r["value"] for r in whole["rows"] if r["part"] == "active units"],
        atol=1,
    )


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"run": ""}, ["config.run", "experiments.train"]),
        ({"run": "/nowhere"}, ["/nowhere", "config.run"]),
        ({"member": 3}, ["config.member", "one of 0", "got 3"]),
        ({"checkpoint": "30"}, ["config.checkpoint", "20, 40, 60", "'30'"]),
    ],
    ids=str,
)
def test_impossible_evaluation_is_refused(finished, tmp_path, changes, wanted):
    asked = tiny_evaluation(finished[0], **changes)
    message = refusal(evaluate.main, asked, str(tmp_path / "out"))
    for fragment in wanted:
        assert fragment in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (of("data", split="train"), ["data.split", "'test' or 'validation'", "'train'"]),
        (of("evaluation", num_samples=0), ["evaluation.num_samples", "got 0"]),
        (of("evaluation", num_images=-1), ["evaluation.num_images", "got -1"]),
        (of("evaluation", curve_samples=(1, 3, 8)), ["evaluation", "curve_samples", "(1, 3, 8)"]),
        (of("memory", samples_per_pass=0), ["memory.samples_per_pass", "got 0"]),
        (of("annealing", simulated_images=0), ["annealing.simulated_images", "got 0"]),
        (of("annealing", temperatures=1), ["annealing.temperatures", "at least 2, got 1"]),
        ({"seed": 2**32}, ["config.seed", "4294967296"]),
        ({"checkpoint": "bset"}, ["config.checkpoint", "best, latest or a step", "'bset'"]),
        ({"checkpoint": "²"}, ["config.checkpoint", "'²'"]),
    ],
    ids=str,
)
def test_settings_of_no_evaluation_are_refused(changes, wanted):
    message = refusal(tiny_evaluation, "run", **changes)
    for fragment in wanted:
        assert fragment in message


@pytest.mark.parametrize("content", ["[]", "{}", '{"seed": 0}', "no"])
def test_folder_that_is_no_run_of_training_is_refused(tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / results.CONFIG).write_text(content)
    message = refusal(evaluate.main, tiny_evaluation(tmp_path / "run"), str(tmp_path / "out"))
    assert str(tmp_path / "run" / results.CONFIG) in message


def test_evaluation_of_another_checkpoint_keeps_what_is_there(evaluated, finished, tmp_path):
    shutil.copytree(evaluated[0], tmp_path / "again")
    before = (tmp_path / "again" / results.FILE).read_bytes()
    config = tiny_evaluation(finished[0], checkpoint="20")
    message = refusal(evaluate.main, config, str(tmp_path / "again"))
    assert "checkpoint (best there, 20 now)" in message
    assert (tmp_path / "again" / results.FILE).read_bytes() == before


def test_evaluation_of_what_was_the_best_before_is_not_called_the_best_now(
    evaluated, finished, tmp_path
):
    folder = tmp_path / "again"
    shutil.copytree(evaluated[0], folder)
    record = read(folder)
    best = record["rows"][0]["step"]
    other = {20: 40, 40: 60, 60: 20}[best]
    record["rows"] = [{**r, "step": other} for r in record["rows"][:3]]
    (folder / results.FILE).write_text(json.dumps(record))
    before = (folder / results.FILE).read_bytes()
    message = refusal(evaluate.main, tiny_evaluation(finished[0]), str(folder))
    assert f"of step {other} of a training, and checkpoint=best is step {best}" in message
    assert (folder / results.FILE).read_bytes() == before


def test_evaluation_into_the_folder_of_the_run_is_refused(finished, tmp_path):
    folder = stopped_after(finished, 20, tmp_path / "run")
    message = refusal(evaluate.main, tiny_evaluation(finished[0]), str(folder))
    assert "holds a run of training" in message
    assert not (folder / results.FILE).exists()
