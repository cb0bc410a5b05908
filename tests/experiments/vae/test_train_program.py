"""experiments.train and experiments.evaluate as their users meet them: files, messages, signals."""

import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
import xml.etree.ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from test_cli import finish, read, shared_folder

from configs import train_digits
from experiments.runtime import fit, results
from experiments.runtime.checkpoints import Checkpoints
from experiments.vae import build

TINY = {
    "num_steps": 60, "log_every": 10, "save_every": 20, "keep_checkpoints": 3, "num_samples": 2,
    "latents": (4,), "hidden": ((8, 8),), "validation_samples": 4, "few_samples": 4,
    "test_samples": 50, "test_images": 20, "batch_size": 24,
}  # fmt: skip
EVALUATION = {
    "few_samples": 4, "num_samples": 50, "num_images": 20, "simulated_images": 4,
    "ais_temperatures": 8, "ais_chains": 2, "ais_leapfrog": 2, "ais_images_per_pass": 4,
}  # fmt: skip

# Runs a command whose files cannot grow beyond so many bytes, which is how a full disk shows.
SMALL_DISK = """
import os, resource, sys
from repository import ROOT
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


def tiny_config(**changes) -> ConfigDict:
    config = train_digits.get_config()
    config.update({**TINY, **changes})
    return config


def overrides(fields):
    return [f"--config.{name}={value}" for name, value in fields.items()]


def training(workdir, *more, **changes):
    """Arguments of a tiny run of experiments.train."""
    fields = overrides({**TINY, **changes})
    return ["train", "--config=configs/train_digits.py", *fields, f"--workdir={workdir}", *more]


def evaluation(run, workdir, **changes):
    fields = overrides({**EVALUATION, "run": run, **changes})
    return ["evaluate", "--config=configs/evaluate.py", *fields, f"--workdir={workdir}"]


@pytest.fixture(scope="session")
def launch(tmp_path_factory):
    """Starts a program; returns the process."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    settings = {
        "JAX_COMPILATION_CACHE_DIR": cache or str(shared_folder(tmp_path_factory) / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }

    def start(program, *arguments, devices=1, largest_file=None):
        device_flag = f"--xla_force_host_platform_device_count={devices}"
        xla_flags = f"{os.environ['XLA_FLAGS']} {device_flag}"
        command = [sys.executable, "-m", f"experiments.{program}", *map(str, arguments)]
        if largest_file is not None:
            command = [sys.executable, "-c", SMALL_DISK, str(largest_file), *command]
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | settings | {"XLA_FLAGS": xla_flags},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return start


@pytest.fixture(scope="session")
def finished(launch, tmp_path_factory):
    """Workdir and stdout of a run that nothing disturbed; one worker makes it for all."""
    folder = shared_folder(tmp_path_factory) / "trained"
    printed = folder.with_suffix(".txt")
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            code, out, err = finish(launch(*training(folder)))
            assert code == 0, err
            printed.write_text(out)
    return folder, printed.read_text()


def stopped_after(finished, steps, workdir):
    """A copy of the finished run as it was after some steps."""
    shutil.copytree(finished[0], workdir)
    for path in (workdir / "checkpoints").iterdir():
        if int(path.name) > steps:
            shutil.rmtree(path)
    for name in (results.FILE, "figure.png", "figure.svg", "samples.png", "reconstructions.png"):
        (workdir / name).unlink()
    return workdir


def saved(workdir, step=None, **changes):
    """Leaves of a checkpoint of a tiny run, the last one by default."""
    config = tiny_config(**changes)
    like = fit.initial_state(build.make_run(build.make_problem(config), config), config)
    with Checkpoints(str(workdir / "checkpoints"), config.to_dict(), read_only=True) as checkpoints:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(checkpoints.restore(like, step))]


def metric_lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same_bits(a, b):
    assert [(x.dtype, x.shape, x.tobytes()) for x in a] == [
        (x.dtype, x.shape, x.tobytes()) for x in b
    ]


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
    wanted = json.loads(tiny_config().to_json_best_effort())
    assert json.loads((folder / "config.json").read_text()) == wanted
    assert read(folder)["config"] == wanted


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


OBJECTIVES = [*build.OBJECTIVES, "rws with sleep"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains(name, tmp_path):
    changes = {"objective": name.split()[0], "sleep": name.endswith("sleep"), "num_groups": 2}
    config = tiny_config(
        num_steps=4, log_every=2, save_every=4, latents=(3,), hidden=((5,),), **changes
    )
    problem = build.make_problem(config)
    run = build.make_run(problem, config)._replace(validate=None)
    start = build.make_run(problem, config).init()
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)  # compiling is what takes time
    try:
        with Checkpoints(str(tmp_path / "checkpoints"), config.to_dict()) as checkpoints:
            state = fit.fit(run, config, str(tmp_path), checkpoints)
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
