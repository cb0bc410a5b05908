"""What a program checks before its main: flags, kinds of fields, seeds, streams, devices."""

import os
import subprocess
import sys

import pytest

from experiments.runtime import checks, optimizers, subprograms
from experiments.runtime.errors import UserError
from experiments.vae import build

NEAR = "--config=configs/snr_gaussian.py:near"
PROGRAMS = {
    "train": "train_digits", "evaluate": "evaluate", "reference": "reference_mnist",
    "dequantize": "dequantize_digits", "dequantize_exact": "dequantize_exact",
    "diffusion": "diffusion_digits", "dalle": "dalle_digits", "surgery": "surgery_digits",
    "compare": "compare_digits",
}  # fmt: skip
CONFIGS = [("snr", f"snr_{name}") for name in ("gaussian", "phase", "vae")] + [*PROGRAMS.items()]
# A program as small as they come: it prints, and writes a file when it has printed all.
PROGRAM = """
import os, sys
from experiments.runtime import cli
from repository import ROOT

def main(config, workdir):
    {before}
    for i in range(2000):
        print(f"line {{i}}: 1.25 \u00b1 0.5 \u2192 {{config.latents}}")
    print("progress", file=sys.stderr)
    os.makedirs(workdir)
    open(os.path.join(workdir, "done"), "w").close()

if __name__ == "__main__":
    cli.run(main)
"""


@pytest.fixture
def start(tmp_path):
    """Runs the program above; (exit code, stdout, stderr, whether it came to its end)."""

    def run(*flags, before="pass", shell="", **changes):
        (tmp_path / "program.py").write_text(PROGRAM.format(before=before), encoding="utf-8")
        workdir = tmp_path / "out"
        command = [
            sys.executable, str(tmp_path / "program.py"), "--config=configs/train_digits.py",
            f"--workdir={workdir}", *flags,
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | changes
        environment = {k: v for k, v in environment.items() if v is not None}
        if shell:
            command = ["bash", "-c", f'"$@" {shell}', "bash", *command]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=120, check=False,
        )  # fmt: skip
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
        ["--config.latents=(2,)", "--config.latents=(3,)"],
        ["--config.latents", "(2,)", "--config.latents", "(3,)"],
        ["--config.latents=(2,)", "--config.num_samples=5", "-config.latents=3"],
        ["--config.latents=(2, 2)", "--flagfile=FILE"],
    ],
    ids=str,
)
def test_tuple_given_twice_is_replaced_as_a_number_is(start, tmp_path, flags):
    (tmp_path / "flags").write_text("--config.latents=(3,)\n")
    flags = [flag.replace("FILE", str(tmp_path / "flags")) for flag in flags]
    code, out, err, _ = start(*flags)
    assert code == 0, err
    assert out.splitlines()[0].endswith(b"(3,)")


@pytest.mark.parametrize(
    ("flag", "wanted"),
    [
        ("--config.foo=5", "'foo'"),
        ("--config.foo.bar=5", "'foo'"),
        ("--config.latent=3", "latents"),
    ],
)
def test_field_that_is_not_there_is_named_in_a_sentence(start, flag, wanted):
    code, _, err, ended = start(flag)
    (line,) = err.splitlines()
    assert wanted in line
    assert "there is no" in line or "Did you mean" in line
    assert not ended
    assert code == 2


def test_variant_is_no_field_that_could_be_set_alone():
    """`case` was one; all that is left to set is what the case consists of."""
    near, far = (
        subprograms.load_config(f"configs/snr_gaussian.py:{c}", {}) for c in ("near", "far")
    )
    assert {n for n in near if near[n] != far[n]} == {"perturbation", "fit"}
    for _, name in CONFIGS:
        config = subprograms.load_config(f"configs/{name}.py", {})
        assert not {"case", "variant", "study", "protocol", "data"} & set(config)
        assert not ("seed" in config and "seeds" in config)


@pytest.mark.parametrize("name", ["dalle_digits", "compare_images", "train_mnist", "snr_gaussian"])
def test_variant_that_is_not_there_is_answered_with_those_that_are(name):
    with pytest.raises(UserError, match=r"must be .*'foo'"):
        subprograms.load_config(f"configs/{name}.py:foo", {})


# Kinds.


@pytest.mark.parametrize(("program", "name"), CONFIGS)
def test_shipped_configs_pass_and_seeds_beyond_32_bits_do_not(program, name):
    config = subprograms.load_config(f"configs/{name}.py", {})
    subprograms.check_kinds(config, program)
    seeds = [n for n in config if n.endswith(("seed", "seeds"))]
    assert seeds or program == "compare"
    for field in seeds:
        for value in (-1, 2**32, 2**70):
            wrong = config.copy_and_resolve_references()
            wrong[field] = value if field.endswith("seed") else (0, value)
            with pytest.raises(UserError, match=rf"config\.{field}.* 4294967295, got {value}"):
                subprograms.check_kinds(wrong, program)
        right = config.copy_and_resolve_references()
        right[field] = 2**32 - 1 if field.endswith("seed") else (2**32 - 1,)
        subprograms.check_kinds(right, program)


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("num_samples", "5", "a whole number, got '5'"),
        ("num_samples", True, "a whole number, got True"),
        ("num_samples", 2.5, "a whole number, got 2.5"),
        ("num_samples", 2**31, "from -2147483647 to 2147483647"),
        ("learning_rate", "fast", "a number, got 'fast'"),
        ("learning_rate", float("nan"), "finite number"),
        ("learning_rate", 1e39, "finite number in float32"),
        ("latents", (2, float("nan")), r"latents\[1\] must be a whole number, got nan"),
        ("latents", 2, "a tuple"),
        ("hidden", (2,), r"hidden\[0\] must be a tuple"),
        ("sleep", 1, "True or False, got 1"),
        ("objective", None, "a text, got None"),
        ("dataset", {"a": 1}, "a text, got {'a': 1}"),
    ],
)
def test_field_of_another_kind_is_refused_by_its_name(field, value, wanted):
    config = subprograms.load_config("configs/train_digits.py", {})
    with config.ignore_type():
        config[field] = value
    with pytest.raises(UserError, match=wanted) as caught:
        subprograms.check_kinds(config, "train")
    assert str(caught.value).startswith(f"config.{field}")
    assert len(str(caught.value).splitlines()) == 1


def test_whole_numbers_are_numbers_and_lists_are_tuples():
    config = subprograms.load_config("configs/train_digits.py", {})
    config.learning_rate, config.latents = 1, [3]
    subprograms.check_kinds(config, "train")
    checks.alike("x", (1, 2), [(0.5,)])


# What the configs offer.


@pytest.mark.parametrize("name", ["train_digits", "train_mnist", "reference_mnist"])
@pytest.mark.parametrize(
    "optimizer", ["adam", "adam_warmup", "adam_cosine", "sgd", "paper", "released_code"]
)
def test_every_optimizer_can_be_named_and_set(name, optimizer):
    config = subprograms.load_config(f"configs/{name}.py", {"optimizer": optimizer})
    optimizers.make_optimizer(config, 10)
    config.warmup_steps = 5
    optimizers.make_optimizer(config, 10)


@pytest.mark.parametrize(
    ("objective", "field", "wrong", "right"),
    [
        ("renyi", "alpha", (-3.0, -1e-6, float("nan"), float("inf"), "1"), (0.0, 0.5, 1, 2.0)),
        ("ciwae", "beta", (-1.0, 1.5, float("nan"), "1"), (0.0, 0.5, 1)),
    ],
)
def test_orders_and_shares_that_give_no_bound_are_refused(objective, field, wrong, right):
    config = subprograms.load_config("configs/train_digits.py", {"objective": objective})
    model = build.make_problem(config).vae.model
    for value in right:
        config[field] = value
        build.make_objective(model, config)
    for value in wrong:
        with config.ignore_type():
            config[field] = value
        with pytest.raises(UserError, match=rf"config\.{field}"):
            build.make_objective(model, config)
