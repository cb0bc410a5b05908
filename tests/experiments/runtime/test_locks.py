"""A folder belongs to one process at a time, and to none once that has ended, however it did."""

import errno
import fcntl
import gc
import subprocess
import sys

import pytest
from repository import ROOT

from experiments.runtime import locks, results
from experiments.runtime.checkpoints import Checkpoints
from experiments.runtime.errors import UserError
from experiments.runtime.settings import Section


class Settings(Section):
    seed: int = 0


HOLD = """
import sys, time
from experiments.runtime import locks
from experiments.runtime.errors import UserError
try:
    lock = locks.hold(sys.argv[1], "--workdir")
except UserError:
    print("refused", flush=True)
    raise SystemExit(2)
print("held", flush=True)
sys.stdin.read()
"""


def other(folder):
    """Another process that holds the folder, or is refused; and what it says."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(process, how="terminate"):
    getattr(process, how)()
    process.communicate()


def test_a_folder_in_use_is_refused_until_its_process_is_gone(tmp_path):
    process, said = other(tmp_path)
    assert said == "held"
    before = list(tmp_path.iterdir())
    for name in (str(tmp_path), f"{tmp_path}/../{tmp_path.name}"):
        with pytest.raises(UserError, match="in use by another process"):
            locks.hold(name, "--workdir")
    with pytest.raises(UserError, match="choose another --workdir"):
        results.open_record(str(tmp_path), "snr", Settings())
    with pytest.raises(UserError, match="choose another --checkpoint_dir"):
        Checkpoints(str(tmp_path), {"seed": 0})
    assert list(tmp_path.iterdir()) == before == []
    Checkpoints(str(tmp_path), {"seed": 0}, read_only=True)
    assert process.poll() is None
    end(process, "kill")
    locks.hold(str(tmp_path), "--workdir")


def test_within_a_process_the_lock_is_shared_and_ends_with_its_last_holder(tmp_path):
    first = locks.hold(str(tmp_path), "--workdir")
    second = locks.hold(str(tmp_path), "--workdir")
    del first
    gc.collect()
    process, said = other(tmp_path)
    assert said == "refused"
    end(process)
    del second
    gc.collect()
    process, said = other(tmp_path)
    assert said == "held"
    end(process)


def test_a_record_holds_its_folder_as_long_as_it_is_there(tmp_path):
    config = Settings()
    for _ in range(2):  # a new one, and one that goes on
        record = results.open_record(str(tmp_path), "snr", config)
        results.save_record(str(tmp_path), record)
        process, said = other(tmp_path)
        assert said == "refused"
        end(process)
        del record
    process, said = other(tmp_path)
    assert said == "held"
    end(process)
    assert [path.name for path in tmp_path.iterdir()] == [results.FILE]


def test_checkpoints_hold_their_folder_until_they_are_closed(tmp_path):
    folder = tmp_path / "checkpoints"
    with Checkpoints(str(folder), {"seed": 0}):
        process, said = other(folder)
        assert said == "refused"
        end(process)
    process, said = other(folder)
    assert said == "held"
    end(process)


def only_files(flock):
    """As NFS does it: a lock of bytes, of what is open for writing."""

    def refuse(descriptor, operation):
        if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & 0o2:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(descriptor, operation)

    return refuse


def test_where_folders_cannot_be_locked_a_file_in_them_is(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", only_files(fcntl.flock))
    lock = locks.hold(str(tmp_path), "--workdir")
    with open(tmp_path / ".lock", "r+") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    del lock
    gc.collect()
    with open(tmp_path / ".lock", "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(UserError, match="in use"):
            locks.hold(str(tmp_path), "--workdir")


def test_a_file_system_without_locks_is_told_once_and_used(tmp_path, monkeypatch, caplog):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level("WARNING"):
        first = locks.hold(str(tmp_path), "--workdir")
        second = locks.hold(str(tmp_path), "--workdir")
    assert first is second
    assert caplog.text.count("cannot be locked (Operation not supported)") == 1
