"""`python -m benchmarks` shows and keeps each benchmark as it ends."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import signal, sys, time
from benchmarks import __main__ as program
from benchmarks.timing import Row

def last():
    if {interrupted}:
        print("waiting", flush=True)
        # A shell starts what it puts into the background with this signal ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)
    return [Row("second", 2.0, high=1.0)]

program.BENCHMARKS = {{"one": lambda: [Row("first", 1.0, low=0.5)], "two": last}}
sys.exit(program.main())
"""


@pytest.mark.parametrize("interrupted", [False, True])
def test_rows_come_as_each_benchmark_ends(tmp_path, interrupted):
    path = tmp_path / "rows.json"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(interrupted=interrupted), f"--json={path}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    names = ["first"] if interrupted else ["first", "second"]
    assert done.returncode == (130 if interrupted else 1), done.stderr
    assert "Traceback" not in done.stderr
    assert [r["name"] for r in json.loads(path.read_text())["rows"]] == names
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:] if line != "waiting"] == ["benchmark", *names]
    if interrupted:  # the first was printed before the second began
        assert lines.index("waiting") > next(n for n, v in enumerate(lines) if "first" in v)
        assert "1 of 2 benchmarks are done" in done.stderr
