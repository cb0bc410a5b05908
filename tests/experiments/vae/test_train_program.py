"""experiments.train and experiments.evaluate as their users meet them: files, messages, signals."""

import json
import os
import struct
import xml.etree.ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import finish, metric_lines, read
from train_cases import (
    assert_same_bits,
    finished,
    launch,
    problem_of,
    saved,
    stopped_after,
    tiny,
    training,
)

from experiments.runtime import fit, results, settings
from experiments.runtime.checkpoints import Checkpoints
from experiments.studies.objectives import OBJECTIVES
from experiments.vae import build

__all__ = ["finished", "launch"]  # fixtures

# A run that finishes.


def test_run_prints_its_table_and_writes_every_file(finished):
    folder, printed = finished
    names = {r["name"] for r in read(folder)["rows"]}
    assert {"ELBO", "IWAE", "-KL", "ESS", "k-hat"} <= names
    assert all(any(line.startswith(name) for line in printed.splitlines()) for name in names)
    for name in (results.FILE, "figure.png", "figure.svg", "samples.png", "reconstructions.png"):
        assert str(folder / name) in printed
        assert (folder / name).stat().st_size > 100
        if name.endswith(".png"):
            assert (folder / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    xml.etree.ElementTree.parse(folder / "figure.svg")
    assert json.loads((folder / "config.json").read_text()) == build.named(tiny())
    assert read(folder)["config"] == settings.dump(tiny())


def test_every_number_has_its_kind_unit_and_standard_error(finished):
    rows = read(finished[0])["rows"]
    for row in rows:
        assert row["kind"] in ("exact", "lower_bound", "upper_bound", "estimate")
        assert row["unit"]
        assert np.isfinite(row["value"])
        assert row["standard_error"] > 0
        assert row["n"] == 20
        assert row["weights"] == "last"
    kinds = {(r["name"], r["at"]["K"]): r["kind"] for r in rows}
    assert kinds["ELBO", 1] == kinds["IWAE", 4] == kinds["IWAE", 50] == "lower_bound"


def test_curves_have_one_line_for_each_step_logged(finished):
    lines = metric_lines(finished[0])
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50, 60]
    assert [line["step"] for line in lines if "validation" in line] == [20, 40, 60]
    assert lines[-1]["bound"] > lines[0]["bound"]
    assert all(line["examples_per_second"] > 0 for line in lines)


def test_tensorboard_finds_the_same_curves_and_the_grids(finished):
    from tensorboardX.proto import event_pb2

    found = {}
    for path in sorted((finished[0] / "tensorboard").iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("Q", content, at)
            event = event_pb2.Event.FromString(content[at + 12 : at + 12 + size])
            at += size + 16
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value
    for name in ("bound", "validation"):
        expected = {e["step"]: e[name] for e in metric_lines(finished[0]) if name in e}
        got = {step: value.simple_value for step, value in found[name].items()}
        assert got == pytest.approx(expected, rel=1e-6)
    for name in ("samples", "reconstructions"):
        assert found[name][60].image.height > 50


@pytest.mark.parametrize("name", [*OBJECTIVES, "rws with sleep"])
def test_every_objective_trains(name, tmp_path):
    trained = tiny(
        objective={"name": name.split()[0], "sleep": name.endswith("sleep"), "num_groups": 2},
        training={"num_steps": 4},
        records={"log_every": 2, "save_every": 4},
        model={"latents": (3,), "hidden": ((5,),)},
    )
    run = build.make_run(problem_of(trained), trained, 0)._replace(validate=None)
    start = build.make_run(problem_of(trained), trained, 0).init()
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)  # compiling is what takes time
    try:
        with Checkpoints(str(tmp_path / "checkpoints"), build.named(trained)) as checkpoints:
            state = fit.fit(run, trained.records, str(tmp_path), checkpoints)
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.params, start)
    assert all(jax.tree.leaves(moved))
    assert [line["step"] for line in metric_lines(tmp_path)] == [2, 4]
    assert all(-100 < line["bound"] < 0 for line in metric_lines(tmp_path))


# Stopped and gone on with.


def test_damaged_checkpoint_is_passed_over_without_noise(finished, launch, tmp_path):
    folder = stopped_after(finished, 60, tmp_path / "run")
    files = [p for p in (folder / "checkpoints" / "60").rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    code, _, err = finish(launch(*training(folder)))
    assert code == 0, err
    assert err.splitlines()[:2] == [
        "The checkpoint of step 60 is damaged.",
        f"Resuming from the checkpoint of step 40 in {folder / 'checkpoints'}.",
    ]
    assert all(line.startswith(QUIET) for line in err.splitlines()[2:]), err
    assert_same_bits(saved(folder), saved(finished[0]))
    assert [line["step"] for line in metric_lines(folder)] == [10, 20, 30, 40, 50, 60]
    assert (folder / results.FILE).exists()


QUIET = ("Training on ", "step ", "Trained to ")  # what a run says of its progress


def test_checkpoint_of_one_device_goes_on_on_eight_and_back(finished, launch, tmp_path):
    folder = stopped_after(finished, 20, tmp_path / "run")
    code, _, err = finish(launch(*training(folder), devices=8))
    assert code == 0, err
    assert "Resuming from the checkpoint of step 20" in err
    assert "Training on 8 device(s)" in err
    for step in (40, 60):  # written on eight devices, read on those of this process
        for a, b in zip(saved(folder, step), saved(finished[0], step), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("limit", [700, pytest.param(9000, marks=pytest.mark.slow)])
def test_full_disk_is_answered_in_one_line_and_earlier_checkpoints_stay(
    finished, launch, tmp_path, limit
):
    folder = stopped_after(finished, 20, tmp_path / "run")

    code, out, err = finish(launch(*training(folder), largest_file=limit))
    assert code == 2, err
    *progress, last = err.splitlines()
    assert all(line.startswith((*QUIET, "Resuming from")) for line in progress), err
    assert last.startswith("train.py: cannot write ")
    assert str(folder) in last
    assert "File too large" in last or last.endswith("earlier checkpoints are kept.")
    assert out == ""
    assert_same_bits(saved(folder), saved(finished[0], 20))
