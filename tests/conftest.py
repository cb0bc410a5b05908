"""JAX at its strictest, and shapes checked against their annotations."""

import contextlib
import ctypes
import gc
import importlib.metadata
import os

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

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture(autouse=True, scope="module")
def _released():
    """A module leaves JAX as it came: settings unchanged, and gigabytes of programs released."""
    before = dict(jax.config.values)
    yield
    assert dict(jax.config.values) == before
    jax.clear_caches()
    gc.collect()
    # What is freed stays with the process, a gigabyte after some modules, unless glibc is asked.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
