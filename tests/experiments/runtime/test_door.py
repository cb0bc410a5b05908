"""What a program does before its main: streams, flags, devices; `test_settings` has the fields."""

import os
import subprocess
import sys

import pytest
from repository import ROOT

from experiments.runtime import subprograms
from experiments.runtime.errors import UserError

CONFIGS = (
    "snr_gaussian", "snr_phase", "snr_vae", "train_digits", "evaluate", "reference_mnist",
    "dequantize_digits", "dequantize_exact", "diffusion_digits", "dalle_digits", "surgery_digits",
    "compare_digits", "accelerator", "estimators",
)  # fmt: skip
# A program as small as they come: it prints, and writes a file when it has printed all.
PROGRAM = """
import os, sys
from experiments.runtime import cli
from experiments.vae.settings import Train

def main(settings, workdir):
    {before}
    for i in range(2000):
        print(f"line {{i}}: 1.25 \u00b1 0.5 \u2192 {{settings.model.latents}}")
    print("progress", file=sys.stderr)
    os.makedirs(workdir)
    open(os.path.join(workdir, "done"), "w").close()

if __name__ == "__main__":
    cli.run(main, Train)
"""


@pytest.fixture
def start(tmp_path):
    """Runs the program above; (exit code, stdout, stderr, whether it came to its end)."""

    def run(*flags, before="pass", shell="", **changes):
        (tmp_path / "program.py").write_text(PROGRAM.format(before=before), encoding="utf-8")
        workdir = tmp_path / "out"
        command = [
            sys.executable,
            str(tmp_path / "program.py"),
            "--config=configs/train_digits.py",
            f"--workdir={workdir}",
            *flags,
        ]
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | changes
        environment = {k: v for k, v in environment.items() if v is not None}
        if shell:
            command = ["bash", "-c", f'"$@" {shell}', "bash", *command]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr.decode(), (workdir / "done").exists()

    return run


# Streams.


@pytest.mark.parametrize(
    "shell",
    [
        "| head -1; exit ${PIPESTATUS[0]}",
        "2>&1 | head -1; exit ${PIPESTATUS[0]}",
        ">&-",
        "2>&-",
        "<&- >&- 2>&-",
    ],
)
def test_reader_that_is_gone_or_was_never_there_takes_nothing_away(start, shell):
    code, _, err, ended = start(shell=shell)
    assert err in ("", "progress\n")
    assert ended
    assert code == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_stdout_that_cannot_hold_the_numbers_is_said_in_one_line_after_the_end(start):
    code, _, err, ended = start(shell="> /dev/full")
    assert err.splitlines()[0] == "progress"
    assert err.splitlines()[1:] == [
        "program.py: stdout cannot be written (No space left on device); what was computed is on "
        "disk."
    ]
    assert ended
    assert code == 2


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=str,
)
def test_no_locale_takes_a_number_away(start, environment):
    code, out, err, ended = start(**environment)
    assert err == "progress\n"
    lines = out.splitlines()
    assert len(lines) == 2000
    assert lines[7].startswith(b"line 7: 1.25 ")
    assert ended
    assert code == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"HOME": None},
        {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere"},
        {"TERM": "dumb", "COLUMNS": "1", "NO_COLOR": "1", "DISPLAY": ":99"},
        {"MPLBACKEND": "module://a_backend_that_is_not_here"},
        {"MPLBACKEND": "TkAgg", "DISPLAY": None},
    ],
    ids=str,
)
def test_figures_are_files_whatever_the_environment_says(start, environment):
    before = (
        "from matplotlib import colormaps; from experiments.runtime import plots; "
        "assert plots.matplotlib.get_backend().lower() == 'agg'; "
        "plots.new_figure(1, 1, (1, 1))[0].savefig(os.devnull, format='svg')"
    )
    code, out, err, ended = start(before=before, **environment)
    assert "Traceback" not in err
    assert len(out.splitlines()) == 2000
    assert ended
    assert code == 0


def test_platform_that_is_not_there_is_said_in_one_line(start):
    code, out, err, ended = start(before="import jax; jax.devices()", JAX_PLATFORMS="nonsense")
    assert err.splitlines() == [
        "program.py: JAX_PLATFORMS=nonsense names a kind of device that JAX does not find here; "
        "unset it, or set it to cpu."
    ]
    assert out == b""
    assert not ended
    assert code == 2


# Flags.


@pytest.mark.parametrize(
    "flags",
    [
        ["--config.model.latents=(2,)", "--config.model.latents=(3,)"],
        ["--config.model.latents", "(2,)", "--config.model.latents", "(3,)"],
        [
            "--config.model.latents=(2,)",
            "--config.objective.num_samples=5",
            "-config.model.latents=3",
        ],
        ["--config.model.latents=(2, 2)", "--flagfile=FILE"],
    ],
    ids=str,
)
def test_tuple_given_twice_is_replaced_as_a_number_is(start, tmp_path, flags):
    (tmp_path / "flags").write_text("--config.model.latents=(3,)\n")
    flags = [flag.replace("FILE", str(tmp_path / "flags")) for flag in flags]
    code, out, err, _ = start(*flags)
    assert code == 0, err
    assert out.splitlines()[0].endswith(b"(3,)")


@pytest.mark.parametrize(
    ("flag", "wanted"),
    [
        ("--config.foo=5", "--config.foo is no field"),
        ("--config.foo.bar=5", "--config.foo is no field"),
        ("--config.latent=3", "did you mean --config.model.latents?"),
    ],
)
def test_field_that_is_not_there_is_named_in_a_sentence(start, flag, wanted):
    code, _, err, ended = start(flag)
    (line,) = err.splitlines()
    assert wanted in line
    assert not ended
    assert code == 2


def test_variant_is_no_field_that_could_be_set_alone():
    """`case` was one; all that is left to set is what the case consists of."""
    near, far = (
        subprograms.load_config(f"configs/snr_gaussian.py:{c}", {}) for c in ("near", "far")
    )
    assert {n for n in near if near[n] != far[n]} == {"toy", "fit"}
    assert {n for n in near["toy"] if near["toy"][n] != far["toy"][n]} == {"perturbation"}
    for name in CONFIGS:
        config = subprograms.load_config(f"configs/{name}.py", {})
        assert not {"case", "variant", "study", "protocol"} & set(config)
        assert not ("seed" in config and "seeds" in config)


@pytest.mark.parametrize("name", ["dalle_digits", "compare_images", "train_mnist", "snr_gaussian"])
def test_variant_that_is_not_there_is_answered_with_those_that_are(name):
    with pytest.raises(UserError, match=r"must be .*'foo'"):
        subprograms.load_config(f"configs/{name}.py:foo", {})
