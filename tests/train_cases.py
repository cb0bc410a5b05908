"""Tiny runs of `experiments.train` and `experiments.evaluate`: settings, commands, states."""

import functools
import shutil

import jax
import numpy as np
import pytest
from programs import once, overrides, shared_folder, start

from experiments.runtime import fit, results, settings, subprograms
from experiments.runtime.checkpoints import Checkpoints
from experiments.vae import build
from experiments.vae.build import make_problem
from experiments.vae.settings import Evaluate, Reference, Train

TINY = {
    "model": {"latents": (4,), "hidden": ((8, 8),)},
    "objective": {"num_samples": 2},
    "training": {"num_steps": 60, "batch_size": 24, "validation_samples": 4},
    "records": {"log_every": 10, "save_every": 20, "keep_checkpoints": 3},
    "evaluation": {"few_samples": 4, "num_samples": 50, "num_images": 20},
}
EVALUATION = {
    "evaluation": {
        "few_samples": 4, "num_samples": 50, "num_images": 20, "curve_samples": (1, 4),
    },
    "annealing": {
        "test_images": 4, "simulated_images": 4, "temperatures": 8, "chains": 2, "leapfrog": 2,
    },
    "memory": {"ais_images_per_pass": 4},
}  # fmt: skip


def tiny(**changes) -> Train:
    """Settings of a tiny training with other sections or fields."""
    fields = subprograms.load_config("configs/train_digits.py", settings.merged(TINY, changes))
    return settings.parse(Train, fields)


def tiny_evaluation(run, /, **changes) -> Evaluate:
    """Likewise of an evaluation."""
    wanted = settings.merged({**EVALUATION, "run": str(run)}, changes)
    return settings.parse(Evaluate, subprograms.load_config("configs/evaluate.py", wanted))


def reference(variant="short", **changes) -> Reference:
    """Likewise of a grid, of its own size."""
    fields = subprograms.load_config(f"configs/reference_mnist.py:{variant}", changes)
    return settings.parse(Reference, fields)


@functools.cache
def _problem(data, model, data_dir):
    trained = tiny(data=settings.dump(data), model=settings.dump(model))
    return make_problem(trained, data_dir)


def problem_of(trained, data_dir="") -> build.Problem:
    """Data and model, the same object for the same settings: what it compiles is compiled once."""
    return _problem(trained.data, trained.model, data_dir)


def training(workdir, *more, **changes):
    """Arguments of a tiny run of experiments.train."""
    fields = overrides(settings.merged(TINY, changes))
    return ["train", "--config=configs/train_digits.py", *fields, f"--workdir={workdir}", *more]


def evaluation(run, workdir, **changes):
    """Arguments of a tiny run of experiments.evaluate."""
    fields = overrides(settings.merged({**EVALUATION, "run": run}, changes))
    return ["evaluate", "--config=configs/evaluate.py", *fields, f"--workdir={workdir}"]


@pytest.fixture(scope="session")
def launch(tmp_path_factory):
    """Starts a program; returns the process."""
    return functools.partial(start, cache=shared_folder(tmp_path_factory) / "jax")


@pytest.fixture(scope="session")
def finished(launch, tmp_path_factory):
    """Workdir and stdout of a run that nothing disturbed; one worker makes it for all."""
    folder = shared_folder(tmp_path_factory) / "trained"
    return once(folder, lambda: launch(*training(folder)))


def stopped_after(finished, steps, workdir):
    """A copy of the finished run as it was after some steps."""
    shutil.copytree(finished[0], workdir)
    for path in (workdir / "checkpoints").iterdir():
        if int(path.name) > steps:
            shutil.rmtree(path)
    for name in (results.FILE, "figure.png", "figure.svg", "samples.png", "reconstructions.png"):
        (workdir / name).unlink()
    return workdir


def state_of(trained: Train, workdir, step=None):
    """Leaves of a checkpoint, the last one by default, and what is noted beside it."""
    run = build.make_run(problem_of(trained), trained, trained.seed)
    folder = str(workdir / "checkpoints")
    with Checkpoints(folder, build.named(trained), read_only=True) as checkpoints:
        state = checkpoints.restore(fit.initial_state(run), step)
        notes = checkpoints._notes(step or max(checkpoints.steps()))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)], notes


def saved(workdir, step=None):
    """Leaves of a checkpoint of a tiny run."""
    return state_of(tiny(), workdir, step)[0]


def assert_same_bits(a, b):
    assert [(x.dtype, x.shape, x.tobytes()) for x in a] == [
        (x.dtype, x.shape, x.tobytes()) for x in b
    ]
