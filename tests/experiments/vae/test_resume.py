"""Runs of experiments.train that are cut short end where an uninterrupted one ends, bit for bit."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from repository import ROOT

from experiments.runtime import fit
from experiments.runtime.checkpoints import Checkpoints
from experiments.vae import build

FIELDS = {
    "num_steps": 800, "log_every": 20, "save_every": 40, "num_samples": 2, "latents": (4,),
    "hidden": ((8, 8),), "validation_samples": 4, "few_samples": 4, "test_samples": 50,
    "test_images": 20, "batch_size": 20,
}  # fmt: skip


def command(workdir, *flags, **changes):
    fields = {**FIELDS, **changes}
    return [
        sys.executable, "-m", "experiments.train", "--config=configs/train_digits.py",
        f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in fields.items()), *flags,
    ]  # fmt: skip


def start(workdir, *flags, env=None, devices=1, **changes):
    # Compiling is what takes time here, the same programs again and again.
    env = {
        **os.environ,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        **(env or {}),
    }
    return subprocess.Popen(
        command(workdir, *flags, **changes), cwd=ROOT, env=env,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process, timeout=500):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def final_state(workdir, **changes):
    """The state of the last checkpoint, leaves as NumPy."""
    config = build_config(**changes)
    problem = build.make_problem(config)
    like = fit.initial_state(build.make_run(problem, config), config)
    with Checkpoints(f"{workdir}/checkpoints", config.to_dict(), read_only=True) as checkpoints:
        state = checkpoints.restore(like)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def final_state_in_float64(workdir, **changes):
    """Likewise, in a process of its own: Orbax's threads do not see a float64 that is local."""
    code = (
        "import sys, numpy, test_resume; "
        f"numpy.savez(sys.argv[1], *test_resume.final_state({str(workdir)!r}, **{changes!r}))"
    )
    path = workdir / "state.npz"
    env = {**os.environ, "JAX_ENABLE_X64": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, env=env, check=True)
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays.files]


def build_config(**changes):
    import configs.train_digits as module

    config = module.get_config()
    config.update({**FIELDS, **changes})
    return config


def assert_same_bits(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        assert x.tobytes() == y.tobytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
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


def lines(workdir):
    import json

    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_run_killed_again_and_again_ends_with_the_same_bits(whole, tmp_path, kills):
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
    steps = [entry["step"] for entry in lines(tmp_path)]
    assert steps == list(range(20, 801, 20))
    bounds = [e["bound"] for e in lines(tmp_path)]
    assert bounds == [e["bound"] for e in lines(folder)]


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [
        (signal.SIGTERM, 143, "SIGTERM"),
        pytest.param(signal.SIGINT, 130, "Ctrl-C", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_stopped_run_saves_says_where_it_resumes_and_ends_with_the_same_bits(
    whole, tmp_path, number, code, name
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


def two_processes(workdir, **changes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        start(
            workdir, "--distributed", f"--coordinator_address=127.0.0.1:{port}",
            "--num_processes=2", f"--process_id={i}", devices=2, **changes,
        )
        for i in range(2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("optimizer", "steps", "rate", "x64", "tolerance"),
    [
        pytest.param("adam", 10, 1e-3, "0", 1e-5, id="adam-float32"),
        pytest.param("sgd", 100, 1e-3, "0", 1e-5, id="sgd-float32", marks=pytest.mark.slow),
        pytest.param("adam", 100, 1e-3, "1", 1e-9, id="adam-float64", marks=pytest.mark.slow),
    ],
)
def test_two_processes_of_two_devices_reach_what_one_device_reaches(
    tmp_path, optimizer, steps, rate, x64, tolerance
):
    changes = {
        "optimizer": optimizer, "num_steps": steps, "log_every": 5, "save_every": steps // 2,
        "learning_rate": rate,
    }  # fmt: skip
    env = {"JAX_ENABLE_X64": x64}
    alone = start(tmp_path / "one", env=env, **changes)
    code, _, err = finish(alone)
    assert code == 0, err
    for process in two_processes(tmp_path / "two", env=env, **changes):
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
def test_two_processes_stop_at_one_step_when_one_is_told_to_and_one_goes_on(tmp_path):
    changes = {"num_steps": 10**6, "log_every": 5, "save_every": 10}
    processes = two_processes(tmp_path, **changes)
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
    while not any(e["step"] > int(next(iter(saved))) for e in lines(tmp_path)):
        assert alone.poll() is None, finish(alone)[2]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    alone.send_signal(signal.SIGTERM)
    code, _, err = finish(alone)
    assert code == 143
    assert f"Resuming from the checkpoint of step {saved.pop()}" in err
