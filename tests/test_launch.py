"""Launch files and their guide name programs, flags, configs and extras that exist."""

import ast
import functools
import os
import re
import runpy
import subprocess
import sys

import pytest
import yaml
from repository import ROOT

GUIDE = ROOT / "docs/cloud-tpu.md"
FILES = ("tpu", "gpu")
# Fields of SkyPilot's task schema that these files use.
FIELDS = {"name", "workdir", "num_nodes", "resources", "envs", "file_mounts", "setup", "run"}
RESOURCES = {"infra", "accelerators", "use_spot", "job_recovery"}
GIVEN = {  # what SkyPilot sets for `run`, here for the second of two machines
    "RUN_BUCKET": "a-bucket",
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_RANK": "1",
}


def task(name: str) -> dict:
    return yaml.safe_load((ROOT / f"launch/{name}.yaml").read_text())


def environment(name: str) -> dict[str, str]:
    defaults = {k: str(v) for k, v in task(name)["envs"].items() if v is not None}
    return {**defaults, **GIVEN}


def blocks_of_guide() -> str:
    """The commands of the guide, one a line."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", GUIDE.read_text(), re.S | re.M)
    assert blocks, "the guide has no commands: the test looks in the wrong place"
    return re.sub(r"\\\n\s*", " ", "\n".join(blocks))


def script(source: str) -> str:
    """All commands of a launch file, variables filled in, or of the guide, one a line."""
    if source == "guide":
        return blocks_of_guide()
    text = re.sub(r"\\\n\s*", " ", task(source)["setup"] + task(source)["run"])
    values = environment(source)
    return re.sub(r"\$\{(\w+)\}", lambda m: values.get(m[1], m[0]), text)


def calls(source: str) -> list[tuple[str, list[str]]]:
    """(program, flags) of every `python -m experiments.NAME --flag ...`."""
    found = re.findall(r"python -m experiments\.(\w+)((?:\s+--[^\s\"&]+)*)", script(source))
    assert found, f"{source} starts no program: the test looks in the wrong place"
    return [(program, arguments.split()) for program, arguments in found]


@functools.cache
def flags_of(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{program}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = set(re.findall(r"^\s+(?:-\w,)?--(?:\[no\])?(\w+):", done.stdout, re.M))
    assert done.returncode == 0, done.stderr
    assert found, f"no flags in the help of {program}"
    return found


@pytest.mark.parametrize("name", FILES)
def test_launch_file_has_known_fields_only(name):
    assert set(task(name)) <= FIELDS
    assert set(task(name)["resources"]) <= RESOURCES


@pytest.mark.parametrize("source", [*FILES, "guide"])
def test_programs_take_the_flags_they_are_given(source):
    for program, arguments in calls(source):
        alone, folder = ROOT / f"experiments/{program}.py", ROOT / f"experiments/{program}"
        assert alone.exists() or (folder / "__main__.py").exists(), program
        for argument in arguments:
            flag = re.fullmatch(r"--(\w+)(?:\.[\w.]+)?(?:=.*)?", argument)
            assert flag, argument
            assert flag[1] in flags_of(program), f"experiments.{program} has no {argument}"


@pytest.mark.parametrize("source", [*FILES, "guide"])
def test_configs_and_the_fields_set_in_them_exist(source):
    for _, arguments in calls(source):
        settings = dict(a[2:].split("=", 1) for a in arguments if "=" in a)
        if "config" not in settings:
            continue
        path, _, variant = settings["config"].partition(":")
        get_config = runpy.run_path(str(ROOT / path))["get_config"]
        config = get_config(variant) if variant else get_config()
        for name in settings:
            if name.startswith("config."):
                owner, _, field = name.removeprefix("config.").rpartition(".")
                parent = functools.reduce(lambda c, n: c[n], filter(None, owner.split(".")), config)
                assert field in parent, f"{path} has no {name}"


@pytest.mark.parametrize("source", [*FILES, "guide"])
def test_extras_exist(source):
    tree = ast.parse((ROOT / "setup.py").read_text())
    extras = next(
        {key.value for key in keyword.value.keys}
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "extras_require"
    )
    wanted = re.findall(r"'\.\[([\w,]+)\]'", script(source))
    assert wanted
    assert {extra for group in wanted for extra in group.split(",")} <= extras


@pytest.mark.parametrize("name", FILES)
def test_preempted_run_starts_again_and_a_mistake_ends_the_job(name):
    recovery = task(name)["resources"]["job_recovery"]
    assert recovery == {"recover_on_exit_codes": [143]}  # no max_restarts_on_errors: 2 is final


@pytest.mark.parametrize("name", FILES)
def test_run_passes_on_the_exit_code_and_uploads_follow(name, tmp_path):
    (tmp_path / "bounds-venv/bin").mkdir(parents=True)
    (tmp_path / "bounds-venv/bin/activate").write_text(
        'python() { printf "%s\\n" "$@" "JAX_PLATFORMS=$JAX_PLATFORMS"; return 143; }\n'
    )
    # SkyPilot appends the wait for uploads of MOUNT_CACHED folders in this way.
    command = task(name)["run"] + '\ncode=$?\necho "uploads, then exit $code"\nexit $code\n'
    done = subprocess.run(
        ["bash", "-c", command],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **environment(name)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 143, done.stderr
    said = done.stdout.splitlines()
    assert said[-1] == "uploads, then exit 143"
    assert "--workdir=/bucket/mnist-paper" in said
    assert "--checkpoint_dir=gs://a-bucket/mnist-paper/checkpoints" in said
    assert "--distributed" in said
    if name == "gpu":
        assert "JAX_PLATFORMS=cuda,cpu" in said
        assert said[said.index("--distributed") + 1 :][:3] == [
            "--coordinator_address=10.0.0.1:8476",
            "--num_processes=2",
            "--process_id=1",
        ]
    else:  # a slice finds out by itself
        assert "JAX_PLATFORMS=tpu,cpu" in said
        assert not [a for a in said if a.startswith(("--coordinator", "--num_proc", "--process"))]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", ["setup", "run"])
def test_commands_are_valid_bash(name, part):
    done = subprocess.run(["bash", "-n"], input=task(name)[part], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FILES)
def test_guide_and_files_agree_on_variables(name):
    envs = task(name)["envs"]
    assert envs["RUN_BUCKET"] is None  # so that a launch without a bucket is refused
    used = set(re.findall(r"\$\{(RUN_\w+)\}", (ROOT / f"launch/{name}.yaml").read_text()))
    assert used == set(envs)
    launches = [line for line in blocks_of_guide().splitlines() if f"launch/{name}.yaml" in line]
    assert launches
    for line in launches:
        given = set(re.findall(r"--env (\w+)=", line))
        assert "RUN_BUCKET" in given
        assert given <= set(envs)


@pytest.mark.parametrize("path", ["launch/tpu.yaml", "launch/gpu.yaml", "docs/cloud-tpu.md"])
def test_no_secret_project_or_bucket_is_written_down(path):
    text = (ROOT / path).read_text()
    assert not [b for b in re.findall(r"gs://(\S+)", text) if not b.startswith(("$", "BUCKET/"))]
    assert not re.findall(r"--project[= ](?!\$)\S+|projects/\S+", text)
    assert not re.findall(r"\b[\w-]+@[\w.-]+\b", text)  # accounts
    assert not re.findall(r"\b(?:AKIA|AIza|ya29|gh[pousr]_|hf_)\w+|PRIVATE KEY", text)
    assert not re.findall(r"(?i)\b\w*(?:token|secret|password|api_?key)\w*\s*[:=]", text)
