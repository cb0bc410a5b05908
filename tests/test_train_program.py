"""experiments.train and experiments.evaluate as their users meet them: files, messages, signals."""

import contextlib
import fcntl
import json
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import sys
import xml.etree.ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import flags
from absl.testing import flagsaver
from ml_collections import ConfigDict
from test_cli import finish, read, shared_folder

from configs import evaluate as evaluate_config
from configs import train_digits
from experiments import evaluate, train
from experiments.runtime import fit, results
from experiments.runtime.checkpoints import Checkpoints
from experiments.runtime.errors import UserError
from experiments.runtime.trainer import Stream
from experiments.training import build

ROOT = pathlib.Path(__file__).resolve().parent.parent
TINY = {
    "num_steps": 60, "log_every": 10, "save_every": 20, "keep_checkpoints": 3, "num_samples": 2,
    "latents": (4,), "hidden": ((8, 8),), "validation_samples": 4, "few_samples": 4,
    "test_samples": 50, "test_images": 20, "batch_size": 24,
}  # fmt: skip
EVALUATION = {
    "few_samples": 4, "num_samples": 50, "num_images": 20, "simulated_images": 4,
    "ais_temperatures": 8, "ais_chains": 2, "ais_leapfrog": 2, "ais_images_per_pass": 4,
}  # fmt: skip


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

    def start(program, *arguments, devices=1, before=None):
        # Compiling is what takes time here.
        xla_flags = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0 "
            f"--xla_force_host_platform_device_count={devices}"
        )
        return subprocess.Popen(
            [sys.executable, "-m", f"experiments.{program}", *map(str, arguments)],
            cwd=ROOT, env=os.environ | settings | {"XLA_FLAGS": xla_flags}, preexec_fn=before,
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
    with Checkpoints(
        str(workdir / "checkpoints"), config.to_dict(), read_only=True
    ) as checkpoints:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(checkpoints.restore(like, step))]


def metric_lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same_bits(a, b):
    assert [(x.dtype, x.shape, x.tobytes()) for x in a] == [
        (x.dtype, x.shape, x.tobytes()) for x in b
    ]


# A run that finishes.
