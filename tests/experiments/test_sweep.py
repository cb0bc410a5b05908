"""Bad values in every field of every program: a sentence each, no traceback, and nothing hangs."""

import os
import subprocess
import sys

import pytest
import sweep
from repository import ROOT


@pytest.mark.parametrize("case", ["dequantize_exact", "snr_phase"])
def test_bad_values_of_a_program_that_is_quick_to_ask(case):
    found = list(sweep.sweep(case))
    assert len(found) > 200
    assert [f for f in found if f[2] == "error"] == []
    # What no program takes is refused whatever the field.
    never = {"nan", "inf", "-inf", "None", "1e+308", "{'a': 1}", "(4294967296,)", "(nan,)"}
    assert [f for f in found if repr(f[1]) in never and f[2] != "refused"] == []


@pytest.mark.slow
@pytest.mark.parametrize("case", sweep.CASES)
def test_bad_values_of_every_program(case):
    # In a process of its own, where no shapes are checked on the way but by the program.
    done = subprocess.run(
        [sys.executable, "tests/sweep.py", case],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert f"COUNTS {case}" in done.stdout
