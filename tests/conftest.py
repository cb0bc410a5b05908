"""JAX at its strictest, and shapes checked against their annotations."""

import contextlib
import ctypes
import gc
import importlib.metadata
import os
import pathlib
import subprocess

# Before JAX starts: quiet, and compiled programs kept between runs where the caller says where.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time is LLVM's, on programs that run once: the same HLO, optimised less.
FLAGS = "--xla_backend_optimization_level=0"
# The older emitters take a quarter less of it; XLA refuses flags that it does not know.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FLAGS)

from jaxtyping import install_import_hook

install_import_hook(["bounds", "models"], "beartype.beartype")

import browser as chromium
import jax
import pytest
from absl import flags

jax.config.update("jax_numpy_rank_promotion", "raise")
# Programs that tests call in this process find their flags at the defaults.
flags.FLAGS.mark_as_parsed()


_MOST_MEMORY = 1.5 * 2**30  # bytes of a worker beyond which it gives back what it can


@pytest.fixture(autouse=True, scope="module")
def _unchanged(request):
    """A module leaves JAX's settings as it found them, and its compiled programs to nobody.

    Looking for keys that are used twice takes a third of the time of what runs op by op. So it is
    for programs, whose steps are compiled, and for the 64-bit leg, which has every estimator.
    """
    looks = jax.config.jax_enable_x64 or "experiments" in request.path.parts
    jax.config.update("jax_debug_key_reuse", looks)
    before = dict(jax.config.values)
    yield
    assert dict(jax.config.values) == before
    _release()


class _Memory:
    """Compiled programs of hundreds of tests, and of examples in docstrings, come to gigabytes."""

    def pytest_runtest_logfinish(self):
        if _resident() > _MOST_MEMORY:
            _release()


def pytest_configure(config):
    # A plugin, since fixtures of this folder do not reach examples in docstrings.
    config.pluginmanager.register(_Memory(), "memory")


def pytest_generate_tests(metafunc):
    # The order of a set differs from process to process: then workers disagree about the tests.
    for mark in metafunc.definition.iter_markers("parametrize"):
        if isinstance(mark.args[1], set | frozenset):
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: sort its set of parameters.")


def _release() -> None:
    jax.clear_caches()
    gc.collect()
    # What is freed stays with the process unless glibc is asked.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _resident() -> int:
    """Bytes in memory; 0 where there is no /proc to ask."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Runs Chromium on a page, with no name of any host to be found; returns what it prints."""
    program, profile = chromium.program(), tmp_path_factory.mktemp("profile")

    def run(path: pathlib.Path, *flags: str, query: str = "") -> str:
        return subprocess.run(
            [
                program,
                *chromium.FLAGS,
                "--virtual-time-budget=5000",
                f"--user-data-dir={profile}",
                *flags,
                path.as_uri() + query,
            ],
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=chromium.SECONDS,
        ).stdout

    return run
