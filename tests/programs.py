"""Programs started as their users start them, and what they leave."""

import fcntl
import json
import os
import pathlib
import socket
import subprocess
import sys

from repository import ROOT

from experiments.runtime import results

# Runs a command whose files cannot grow beyond so many bytes, which is how a full disk shows.
_SMALL_DISK = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


def shared_folder(tmp_path_factory) -> pathlib.Path:
    """One folder for the session, also where several workers run it."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def start(program, *arguments, **options):
    """Starts `python -m experiments.PROGRAM`; returns the process."""
    return start_python("-m", f"experiments.{program}", *arguments, **options)


def start_python(*arguments, cache, devices=1, largest_file=None, env=None):
    """Starts Python with arguments; returns the process.

    Compiling is what takes time, the same programs again and again: they are kept in `cache` unless
    the caller of the tests keeps them elsewhere.
    """
    device_flag = f"--xla_force_host_platform_device_count={devices}"
    changes = {
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache)),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # workers may share a GPU
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {device_flag}",
        **(env or {}),
    }
    command = [sys.executable, *map(str, arguments)]
    if largest_file is not None:
        command = [sys.executable, "-c", _SMALL_DISK, str(largest_file), *command]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | changes,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_together(program, *arguments, processes=2, of_each=lambda i: [], **options):
    """Starts the same command as several processes of one run; returns them, process 0 first.

    `of_each` of the number of a process gives what its command has besides.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    joined = (
        "--distributed", f"--coordinator_address=127.0.0.1:{port}", f"--num_processes={processes}",
    )  # fmt: skip
    return [
        start(program, *arguments, *joined, f"--process_id={i}", *of_each(i), **options)
        for i in range(processes)
    ]


def finish(process, timeout=500):
    """(exit code, stdout, stderr); leaves no process behind."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, out, err


def once(folder, start_there):
    """(folder, stdout) of a run there that nothing disturbs; one worker makes it for all."""
    printed = folder.with_suffix(".txt")
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            code, out, err = finish(start_there())
            assert code == 0, err
            printed.write_text(out)
    return folder, printed.read_text()


def read(workdir):
    """The record in a folder."""

    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads((workdir / results.FILE).read_text(), parse_constant=refuse)


def metric_lines(workdir):
    """The lines of metrics in a folder."""
    return [json.loads(line) for line in (workdir / results.METRICS).read_text().splitlines()]


def overrides(changes, prefix=""):
    """Sections and fields as flags."""
    flags = []
    for name, value in changes.items():
        if isinstance(value, dict):
            flags += overrides(value, f"{prefix}{name}.")
        else:
            flags.append(f"--config.{prefix}{name}={value}")
    return flags
