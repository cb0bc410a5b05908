"""Programs as their users meet them: files, exit codes, messages, and runs cut short."""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree

import pytest
from programs import finish, once, read, shared_folder
from repository import ROOT

from experiments.runtime import results

NEAR = "--config=configs/snr_gaussian.py:near"
SIZES = {
    "replicates.number": 80,
    "replicates.num_blocks": 8,
    "num_samples": (1, 2),
    "toy.num_dims": 2,
    "toy.num_data": 16,
    "estimators": ("pathwise", "dreg"),
}
TINY = [NEAR, *(f"--config.{name}={value}" for name, value in SIZES.items())]
POINTS = ["K=1", "K=2", "M=1", "M=2"]


@pytest.fixture(scope="session")
def launch(tmp_path_factory):
    """Starts `python -m experiments.snr` with flags; returns the process."""
    cache = str(shared_folder(tmp_path_factory) / "jax")
    environment = {
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # workers may share a GPU
    }

    def start(*flags, python=(), **changes):
        return subprocess.Popen(
            [sys.executable, *python, "-m", "experiments.snr", *map(str, flags)],
            cwd=ROOT,
            env={k: v for k, v in (os.environ | environment | changes).items() if v is not None},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def labels(record):
    """Points that were measured, in order."""
    return list(dict.fromkeys(r["point"] for r in record["rows"] if "point" in r))


@pytest.fixture(scope="session")
def finished(launch, tmp_path_factory):
    """Workdir and stdout of a run that nothing disturbed; one worker makes it for all."""
    folder = shared_folder(tmp_path_factory) / "finished"
    return once(folder, lambda: launch(*TINY, f"--workdir={folder}"))


# A run that finishes.


def test_run_writes_a_record_with_its_settings_and_environment(finished):
    record = read(finished[0])
    assert record["experiment"] == "snr"
    assert record["seed"] == record["config"]["seed"] == 0
    for name, value in SIZES.items():
        found = functools.reduce(lambda fields, n: fields[n], name.split("."), record["config"])
        assert found == (list(value) if isinstance(value, tuple) else value)
    assert {"python", "jax", "numpy", "bounds", "device", "num_devices", "machine"} <= set(
        record["environment"]
    )
    assert "continued_on" not in record


def test_rows_have_every_field_of_the_schema(finished):
    rows = read(finished[0])["rows"]
    assert labels({"rows": rows}) == POINTS
    for row in rows:
        assert isinstance(row["name"], str)
        assert row["name"]
        assert isinstance(row["at"], dict)
        assert row["kind"] in ("exact", "lower_bound", "upper_bound", "estimate")
        assert isinstance(row["unit"], str)
        assert row["unit"]
        for field in ("value", "standard_error", "low", "high", "seconds"):
            assert row[field] is None or isinstance(row[field], float)
        assert isinstance(row["value"], float)
        if None not in (row["low"], row["high"]):
            assert row["low"] <= row["value"] <= row["high"]
        assert isinstance(row["n"], int)
        assert row["n"] >= 1


def test_measured_ratio_has_interval_and_cost_beside_it(finished):
    rows = [r for r in read(finished[0])["rows"] if r["name"] == "theta pathwise"]
    assert [r["at"] for r in rows] == [{"K": 1}, {"K": 2}]
    for row in rows:
        assert row["n"] == 80
        assert row["unit"] == "ratio"
        assert row["seconds"] > 0
        assert row["standard_error"] > 0
        assert row["low"] < row["value"] < row["high"]


def test_slope_that_the_data_do_not_bound_has_an_open_end_and_is_reported(finished):
    folder, printed = finished
    slopes = [r for r in read(folder)["rows"] if r["unit"] == "exponent"]
    assert any(None in (r["low"], r["high"]) for r in slopes)
    assert all(r["name"] in printed for r in slopes)


def test_run_draws_its_figure_twice(finished):
    folder, _ = finished
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (folder / "figure.png").stat().st_size > 10_000
    root = xml.etree.ElementTree.parse(folder / "figure.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_run_prints_its_table_and_where_the_files_are(finished):
    folder, printed = finished
    lines = [line for line in printed.splitlines() if line.startswith("theta pathwise ")]
    assert len(lines) == 2
    for name in (results.FILE, "figure.png", "figure.svg"):
        assert str(folder / name) in printed


def test_run_leaves_nothing_else(finished):
    files = {path.name for path in finished[0].iterdir()}
    assert files == {results.FILE, "figure.png", "figure.svg"}


def test_running_again_measures_nothing_and_changes_no_row(finished, launch, tmp_path):
    shutil.copytree(finished[0], tmp_path / "again")
    code, _, err = finish(launch(*TINY, f"--workdir={tmp_path / 'again'}"))
    assert code == 0, err
    assert read(tmp_path / "again") == read(finished[0])


# Help.


def test_help_shows_the_flags_at_once_without_jax(launch):
    code, out, err = finish(launch("--help", python=("-X", "importtime")))
    assert "--config" in out
    assert "--workdir" in out
    assert "configs/snr_gaussian.py:near" in out
    modules = set(re.findall(r"^import time:.*\| +(\S+)$", err, re.MULTILINE))
    assert {"absl.flags", "experiments.runtime.cli"} <= modules
    assert not {"jax", "numpy", "matplotlib"} & modules
    assert code == 0


# What the user can mend: one line, exit 2.


def assert_one_line(outcome, *wanted):
    """One line on stderr, from the program, with all that is wanted in it."""
    code, out, err = outcome
    assert "Traceback" not in err
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("snr: ")
    assert "\\n" not in lines[0]
    for fragment in wanted:
        assert fragment in lines[0]
    assert out == ""
    assert code == 2


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (
            [NEAR, "--config.replicates.numbr=5"],
            ["config.replicates.numbr", "did you mean --config.replicates.number?"],
        ),
        ([NEAR, "--config.replicates.number=many"], ["config.replicates.number", "many"]),
        (["--config=configs/snr_gaussian.py:middle"], ["near or far", "'middle'"]),
        (["--config=configs/absent.py"], ["configs/absent.py", "config"]),
        (["--config=configs"], ["config", "configs", "directory"]),
        ([], ["--config is missing", "--config=configs/"]),
        ([NEAR, "--wrkdir=x"], ["wrkdir", "workdir"]),
        ([NEAR, "more"], ["'more'", "--name=value"]),
    ],
    ids=[
        "config-typo",
        "config-type",
        "config-case",
        "config-file",
        "config-folder",
        "no-config",
        "unknown-flag",
        "stray-word",
    ],
)
def test_mistaken_flag_is_answered_in_one_line(launch, tmp_path, flags, wanted):
    assert_one_line(finish(launch(*flags, f"--workdir={tmp_path / 'out'}")), *wanted)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [[], ["--workdir="]], ids=["absent", "empty"])
def test_missing_workdir_is_answered_in_one_line(launch, flags):
    assert_one_line(finish(launch(NEAR, *flags)), "--workdir is missing", "folder")


def test_config_file_that_fails_is_answered_in_one_line(launch, tmp_path):
    (tmp_path / "broken.py").write_text("def get_config():\n    return 1 / 0\n")
    flags = [f"--config={tmp_path / 'broken.py'}", f"--workdir={tmp_path / 'out'}"]
    assert_one_line(finish(launch(*flags)), "broken.py", "division by zero")


def test_unknown_estimator_is_answered_in_one_line(launch, tmp_path):
    flags = [*TINY, "--config.estimators=('pathways',)", f"--workdir={tmp_path}"]
    # Where the user has not chosen a platform, JAX looks for a TPU: that is no news to them.
    outcome = finish(launch(*flags, JAX_PLATFORMS=None))
    assert_one_line(outcome, "'pathways'", "config.estimators", "pathwise", "dreg")


def test_workdir_that_cannot_be_written_is_answered_in_one_line(launch, tmp_path):
    (tmp_path / "file").write_text("kept")
    outcome = finish(launch(*TINY, f"--workdir={tmp_path / 'file' / 'below'}"))
    assert_one_line(outcome, "--workdir", str(tmp_path / "file"), "Not a directory")
    assert (tmp_path / "file").read_text() == "kept"


def test_results_of_another_config_are_kept(finished, launch, tmp_path):
    shutil.copytree(finished[0], tmp_path / "other")
    before = (tmp_path / "other" / results.FILE).read_bytes()
    flags = [*TINY, "--config.seed=7", f"--workdir={tmp_path / 'other'}"]
    assert_one_line(finish(launch(*flags)), "seed (0 there, 7 now)", "another --workdir")
    assert (tmp_path / "other" / results.FILE).read_bytes() == before


def test_unreadable_results_are_kept(finished, launch, tmp_path):
    whole = (finished[0] / results.FILE).read_bytes()
    (tmp_path / results.FILE).write_bytes(whole[: len(whole) // 2])
    outcome = finish(launch(*TINY, f"--workdir={tmp_path}"))
    assert_one_line(outcome, str(tmp_path / results.FILE), "move it away")
    assert (tmp_path / results.FILE).read_bytes() == whole[: len(whole) // 2]


# Runs cut short.


def stop_after_the_first_point(launch, workdir, number):
    """Starts a run and sends it a signal once a point is on disk; returns its outcome."""
    process = launch(*TINY, f"--workdir={workdir}")
    deadline = time.monotonic() + 120
    while not (workdir / results.FILE).exists():
        assert process.poll() is None, finish(process)[2]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    return finish(process)


def same(a, b):
    """Equality up to rounding of numbers that are no times."""
    if isinstance(a, dict) and isinstance(b, dict):
        timeless = [{k: v for k, v in d.items() if not k.endswith("seconds")} for d in (a, b)]
        return timeless[0].keys() == timeless[1].keys() and all(
            same(v, timeless[1][k]) for k, v in timeless[0].items()
        )
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a == pytest.approx(b, rel=1e-5, abs=1e-9)
    return a == b


def test_killed_run_continues_where_it_was(finished, launch, tmp_path):
    code, _, _ = stop_after_the_first_point(launch, tmp_path, signal.SIGKILL)
    assert code == -signal.SIGKILL
    early = read(tmp_path)
    done = labels(early)
    assert done == POINTS[: len(done)]
    assert len(done) < len(POINTS)

    code, _, err = finish(launch(*TINY, f"--workdir={tmp_path}"))
    assert code == 0, err
    assert f"{len(done)} of {len(POINTS)} points" in err
    final, whole = read(tmp_path), read(finished[0])
    assert [r for r in final["rows"] if r.get("point") in done] == early["rows"]
    assert same(final["rows"], whole["rows"])
    assert (tmp_path / "figure.png").exists()


def test_comparison_of_rows_ignores_times_alone(finished):
    rows = read(finished[0])["rows"]
    later = [{**r, "seconds": 1e9, "compile_seconds": 1e9} for r in rows if "seconds" in r]
    assert same(later, [{"compile_seconds": 0.0, **r} for r in rows])
    for change in ({"value": 1.001 * rows[0]["value"]}, {"at": {"K": 3}}, {"low": None}):
        assert not same([{**rows[0], **change}], rows[:1])
    assert not same(rows[1:], rows)


def test_terminated_run_exits_143_and_says_where_it_continues(launch, tmp_path, finished):
    code, out, err = stop_after_the_first_point(launch, tmp_path, signal.SIGTERM)
    last = err.splitlines()[-1]
    assert "SIGTERM" in last
    assert str(tmp_path) in last
    assert "continues" in last
    assert "Traceback" not in err
    assert out == ""
    assert code == 143
    assert 1 <= len(labels(read(tmp_path))) < len(POINTS)
    assert [p.name for p in tmp_path.iterdir()] == [results.FILE]
