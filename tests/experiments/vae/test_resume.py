"""Runs of experiments.train that are cut short end where an uninterrupted one ends, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import train_cases
from programs import finish, metric_lines, shared_folder, start_together
from programs import start as start_program
from repository import ROOT
from train_cases import assert_same_bits, state_of, tiny

from experiments.runtime import settings

FIELDS = {
    "training": {"num_steps": 800, "batch_size": 20},
    "records": {"log_every": 20, "save_every": 40, "keep_checkpoints": 2},
}


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """(workdir, flags, changes ...) -> a process that trains, or two `together`."""
    cache = shared_folder(tmp_path_factory) / "jax"

    def begin(workdir, *flags, together=False, env=None, **changes):
        program, *arguments = train_cases.training(
            workdir, *flags, **settings.merged(FIELDS, changes)
        )
        if together:
            return start_together(program, *arguments, cache=cache, env=env, devices=2)
        return start_program(program, *arguments, cache=cache, env=env)

    return begin


def final_state(workdir, **changes):
    """The state of the last checkpoint, leaves as NumPy."""
    return state_of(tiny(**settings.merged(FIELDS, changes)), workdir)[0]


def final_state_in_float64(workdir, **changes):
    """Likewise, in a process of its own: Orbax's threads do not see a float64 that is local."""
    fields = settings.merged(FIELDS, changes)
    code = (
        "import pathlib, sys, numpy, train_cases as cases; "
        f"trained, folder = cases.tiny(**{fields!r}), pathlib.Path({str(workdir)!r}); "
        "numpy.savez(sys.argv[1], *cases.state_of(trained, folder)[0])"
    )
    path = workdir / "state.npz"
    env = {**os.environ, "JAX_ENABLE_X64": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, env=env, check=True)
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays.files]


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """An uninterrupted run: its folder, and the seconds from its first metrics to its end."""
    folder = tmp_path_factory.mktemp("whole")
    process = start(folder)
    wait_for(folder / "metrics.jsonl", process)
    begun = time.monotonic()
    code, _, err = finish(process)
    assert code == 0, err
    return folder, time.monotonic() - begun


def wait_for(path, process):
    deadline = time.monotonic() + 400
    while not path.exists() or not path.stat().st_size:
        assert process.poll() is None, finish(process)[2]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_run_killed_again_and_again_ends_with_the_same_bits(start, whole, tmp_path, kills):
    folder, seconds = whole
    moments = random.Random(kills)
    killed = 0
    while True:
        process = start(tmp_path)
        if killed < kills:
            # Anywhere: while JAX starts, between steps, in the middle of a checkpoint.
            wait_for(tmp_path / "metrics.jsonl", process)
            time.sleep(moments.random() * 0.6 * seconds / kills)
            process.kill()
        code, _, err = finish(process)
        if code == 0:
            break
        assert code == -signal.SIGKILL, err
        killed += 1
    print(f"killed {killed} times")
    assert killed == kills
    assert_same_bits(final_state(tmp_path), final_state(folder))
    steps = [entry["step"] for entry in metric_lines(tmp_path)]
    assert steps == list(range(20, 801, 20))
    bounds = [e["bound"] for e in metric_lines(tmp_path)]
    assert bounds == [e["bound"] for e in metric_lines(folder)]


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [
        (signal.SIGTERM, 143, "SIGTERM"),
        pytest.param(signal.SIGINT, 130, "Ctrl-C", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_stopped_run_saves_says_where_it_resumes_and_ends_with_the_same_bits(
    start, whole, tmp_path, number, code, name
):
    process = start(tmp_path)
    wait_for(tmp_path / "metrics.jsonl", process)
    time.sleep(0.3)
    process.send_signal(number)
    returned, _, err = finish(process)
    last = err.splitlines()[-1]
    assert returned == code, err
    assert "Traceback" not in err
    assert name in last
    assert str(tmp_path / "checkpoints") in last
    assert "continues from there" in last
    step = int(last.split("Saved step ")[1].split()[0])
    assert 0 < step <= 800
    returned, _, err = finish(start(tmp_path))
    assert returned == 0, err
    assert f"Resuming from the checkpoint of step {step}" in err
    assert_same_bits(final_state(tmp_path), final_state(whole[0]))


@pytest.mark.parametrize(
    ("optimizer", "steps", "rate", "x64", "tolerance"),
    [
        pytest.param("adam", 10, 1e-3, "0", 1e-5, id="adam-float32"),
        pytest.param("sgd", 100, 1e-3, "0", 1e-5, id="sgd-float32", marks=pytest.mark.slow),
        pytest.param("adam", 100, 1e-3, "1", 1e-9, id="adam-float64", marks=pytest.mark.slow),
    ],
)
def test_two_processes_of_two_devices_reach_what_one_device_reaches(
    start, tmp_path, optimizer, steps, rate, x64, tolerance
):
    changes = {
        "optimizer": {"name": optimizer, "learning_rate": rate},
        "training": {"num_steps": steps},
        "records": {"log_every": 5, "save_every": steps // 2},
    }  # fmt: skip
    env = {"JAX_ENABLE_X64": x64}
    alone = start(tmp_path / "one", env=env, **changes)
    code, _, err = finish(alone)
    assert code == 0, err
    for process in start(tmp_path / "two", together=True, env=env, **changes):
        code, _, err = finish(process)
        assert code == 0, err
        assert "4 device(s) of 2 process(es)" in err
    read = final_state_in_float64 if x64 == "1" else final_state
    a, b = (read(tmp_path / name, **changes) for name in ("one", "two"))
    assert {x.dtype.name for x in a if x.size > 1} == {"float64" if x64 == "1" else "float32"}
    worst = max(np.abs(x - y).max() for x, y in zip(a, b, strict=True))
    assert worst <= tolerance
    assert worst > 0  # the sums over devices are in another order


@pytest.mark.slow
def test_two_processes_stop_at_one_step_when_one_is_told_to_and_one_goes_on(start, tmp_path):
    changes = {
        "training": {"num_steps": 10**6}, "records": {"log_every": 5, "save_every": 10},
    }  # fmt: skip
    processes = start(tmp_path, together=True, **changes)
    wait_for(tmp_path / "metrics.jsonl", processes[0])
    time.sleep(0.5)
    processes[1].send_signal(signal.SIGTERM)
    saved = set()
    for process in processes:
        code, _, err = finish(process)
        assert code == 143, err
        saved.add(err.split("Saved step ")[1].split()[0])
    assert len(saved) == 1
    alone = start(tmp_path, **changes)
    deadline = time.monotonic() + 400
    while not any(e["step"] > int(next(iter(saved))) for e in metric_lines(tmp_path)):
        assert alone.poll() is None, finish(alone)[2]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    alone.send_signal(signal.SIGTERM)
    code, _, err = finish(alone)
    assert code == 143
    assert f"Resuming from the checkpoint of step {saved.pop()}" in err
