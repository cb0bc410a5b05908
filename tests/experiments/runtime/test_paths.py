"""Paths as users write them: taken for what they say to the end, or refused at once."""

import shutil
import subprocess
import sys

import pytest
from absl import flags
from repository import ROOT

from experiments.runtime import cli, paths, subprograms
from experiments.runtime.errors import UserError

ODD = ["a[1]", "a*b", "a?b", "b\\s", "a b", "a'b", 'a"b', "é✓", "a%20b", "-x", "a{b}", "a:b", "gs:"]


@pytest.mark.parametrize("name", [*ODD, "./gs:/x", "../up", "/abs", ""])
def test_a_path_on_this_machine_is_taken_as_it_is(name):
    assert paths.local("--workdir", name) == name
    if name:
        assert paths.checkpoints("--checkpoint_dir", name) == name


def test_home_is_where_it_says(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.local("--workdir", "~/runs") == "/home/me/runs"
    with pytest.raises(UserError, match=r"\./~nobody-here/runs"):
        paths.local("--workdir", "~nobody-here/runs")


@pytest.mark.parametrize("value", ["gs://b/r", "s3://b/r", "hdfs://h:1/r", "file:///r", "gs:/b/r"])
def test_an_address_is_no_folder(value):
    with pytest.raises(UserError, match="--workdir must be a folder or a file on this machine"):
        paths.local("--workdir", value)
    if value.startswith("gs://"):
        assert paths.checkpoints("--checkpoint_dir", value) == value
    else:
        with pytest.raises(UserError, match="gs://BUCKET/FOLDER"):
            paths.checkpoints("--checkpoint_dir", value)


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "a\x1b[0m", "a\udc80b"])
def test_what_cannot_be_printed_in_a_line_is_refused_in_one(value):
    for refuse in (paths.local, paths.checkpoints):
        with pytest.raises(UserError, match="printable") as caught:
            refuse("--workdir", value)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a[1]", "a*b", "a?b", "b\\s", "a\nb"])
def test_a_bucket_must_not_look_like_a_pattern(name):
    with pytest.raises(UserError, match="--checkpoint_dir must have none"):
        paths.checkpoints("--checkpoint_dir", f"gs://bucket/{name}")


def test_a_variant_is_what_follows_the_file(tmp_path, monkeypatch):
    folder = tmp_path / "a:b"
    folder.mkdir()
    (folder / "c.py").touch()
    monkeypatch.chdir(tmp_path)
    assert paths.split_config("a:b/c.py") == ("a:b/c.py", None)
    assert paths.split_config("a:b/c.py:near") == ("a:b/c.py", "near")
    assert paths.split_config("a:b/c.py:x=a/b.c:d") == ("a:b/c.py", "x=a/b.c:d")
    # Of what is not there, the message names the file.
    assert paths.split_config("a:b/d.py:near") == ("a:b/d.py", "near")
    assert paths.split_config("a:b/d.py") == ("a:b/d.py", None)
    assert paths.split_config("configs/d.py:near") == ("configs/d.py", "near")


def test_a_config_is_found_in_a_folder_with_a_colon(tmp_path):
    folder = tmp_path / "a:b"
    shutil.copytree(ROOT / "configs", folder)
    parser = flags.FLAGS["config"].parser
    for spec, wanted in {"snr_gaussian.py:near": "near", "train_digits.py": None}.items():
        config = parser.parse(f"{folder}/{spec}")
        plain = parser.parse(f"{ROOT}/configs/{spec}")
        assert config.to_dict() == plain.to_dict(), wanted
        assert config.is_locked
        own = subprograms.load_config(f"{folder}/{spec}", {})
        assert own == plain.to_dict()
    assert cli.CONFIG is not None


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--workdir=gs://bucket/run", "--workdir must be a folder or a file on this machine"),
        ("--checkpoint_dir=s3://bucket/run", "--checkpoint_dir must be a folder on this machine"),
        ("--config=a:b/none.py", "config file a:b/none.py is not there."),
    ],
)
def test_a_program_refuses_in_one_line_and_writes_nothing(tmp_path, flag, said):
    given = {"--config": f"{ROOT}/configs/train_digits.py", "--workdir": "run"}
    given |= dict([flag.split("=", 1)])
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", *(f"{k}={v}" for k, v in given.items())],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/bin"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
