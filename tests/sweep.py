"""Bad values in every field of every program's config: who refuses what, and in how many lines.

    python tests/sweep.py [CASE ...]

Every field, those of fields included, gets values of another kind, out of range, not finite, huge,
empty, or of a name that nobody knows, as a config file could hold them. The program's own door and
main run up to where the record is opened: nothing before it computes. A value may be refused, by
one sentence that names it, or pass; anything else is an error. `PASSED` lists what passed.
"""

import contextlib
import copy
import faulthandler
import functools
import importlib
import json
import math
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

VALUES: tuple[Any, ...] = (
    None, "", "no such name", True, 0, 1, -1, 0.5, -0.5, 1000, 10**6, 2**31 - 1, 2**31, 2**32,
    1e30, 1e308, math.nan, math.inf, -math.inf, (), (0,), (-1,), (1, 1), (2**31 - 1,), (2**32,),
    (0.5,), (math.nan,), (True,), ("a",), (None,), ((),), ((0,),), ((1, 1),), {}, {"a": 1},
)  # fmt: skip
SECONDS = 30.0  # of all processors, for one value
_ONE_FLOW = {"models": {"one": {"width": 8}}, "compare": (), "noise_width": 8}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "snr_gaussian": ("snr", "configs/snr_gaussian.py:near", {"num_data": 16, "num_dims": 2}),
    "snr_phase": ("snr", "configs/snr_phase.py", {}),
    "snr_vae": ("snr", "configs/snr_vae.py", {"latents": (2,), "hidden": ((4,),)}),
    "train": ("train", "configs/train_digits.py", {}),
    "evaluate": ("evaluate", "configs/evaluate.py", {}),
    "reference": ("reference", "configs/reference_mnist.py", {"dataset": "digits", "data_dir": ""}),
    "dequantize": ("dequantize", "configs/dequantize_digits.py", _ONE_FLOW),
    "dequantize_refit": ("dequantize", "configs/dequantize_digits.py", {
        **_ONE_FLOW, "density": "subset_flow", "noise": "logistic", "refit_noise": "logistic",
        "network": "convolutional",
    }),
    "dequantize_exact": ("dequantize_exact", "configs/dequantize_exact.py", {}),
    "diffusion": ("diffusion", "configs/diffusion_digits.py", {"width": 8}),
    "diffusion_ddpm": ("diffusion", "configs/diffusion_digits.py", {
        "network": "mlp", "width": 8, "schedule": "cosine", "timesteps": 10,
        "evaluation_timesteps": 0, "prediction": "eps", "variance": "learned",
    }),
    "dalle": ("dalle", "configs/dalle_digits.py", {"models": {"one": {}}, "compare": ()}),
    "surgery": ("surgery", "configs/surgery_digits.py", {"models": {"one": {"save_every": 500}}}),
    "compare": ("compare", "configs/compare_digits.py", {}),
}  # fmt: skip


class _Passed(BaseException):
    """The record is about to be opened: every check is behind."""


class _Slow(BaseException):
    """The time for a value is up."""


def fields(config: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all fields, those that hold others first."""
    for name in config:
        yield (*prefix, name)
        if isinstance(config[name], ConfigDict):
            yield from fields(config[name], (*prefix, name))


def with_value(config: ConfigDict, path: tuple[str, ...], value: Any) -> ConfigDict:
    """A copy with another value in one field, whatever its kind."""
    changed = config.copy_and_resolve_references()
    holder: Any = changed
    for name in path[:-1]:
        holder = holder[name]
    with holder.ignore_type():
        holder[path[-1]] = ConfigDict(value) if isinstance(value, dict) else copy.deepcopy(value)
    return changed


def outcome(program: Any, config: ConfigDict, workdir: str) -> tuple[str, str]:
    """("refused", sentence), ("passed", ""), or ("error", what was raised, or that it hung)."""
    from experiments.runtime import cli
    from experiments.runtime.errors import UserError

    def too_slow(signum, frame):
        raise _Slow("".join(traceback.format_stack(frame)[-3:]))

    signal.signal(signal.SIGPROF, too_slow)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    faulthandler.dump_traceback_later(20 * SECONDS, exit=True)  # where no signal gets through
    try:
        cli.check(config, program.main)
        program.main(config, workdir)
    except UserError as error:
        return ("refused" if len(str(error).splitlines()) == 1 else "error"), str(error)
    except _Passed:
        return "passed", ""
    except _Slow as slow:
        return "error", f"hangs at {slow}"
    except Exception as error:
        if cli.missing_field(error):
            return "refused", "a field is missing"
        where = traceback.extract_tb(error.__traceback__)
        ours = [f for f in where if "site-packages" not in f.filename][-1]
        place = f"{os.path.relpath(ours.filename)}:{ours.lineno}"
        return "error", f"{type(error).__name__} at {place}: {str(error)[:120]!r}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
    return "error", "came to its end without a record"


@contextlib.contextmanager
def stopped_before_computing() -> Iterator[None]:
    """Within it a program ends where it would open its record, and reads data once."""
    from experiments.data import sets
    from experiments.runtime import results

    def stop(*arguments, **more):
        raise _Passed

    read = sets.load
    cached = functools.cache(read)

    def load(*arguments):
        try:
            return cached(*arguments)
        except TypeError:  # what cannot be looked up in a cache
            return read(*arguments)

    before, results.open_record, sets.load = results.open_record, stop, load
    try:
        yield
    finally:
        results.open_record, sets.load = before, read


def base(case: str, folder: str) -> tuple[Any, ConfigDict]:
    """(the program, a config it takes)."""
    from experiments.runtime import subprograms

    name, spec, changes = CASES[case]
    config = subprograms.load_config(spec, {})
    for field, value in changes.items():
        config[field] = ConfigDict(value) if isinstance(value, dict) else value
    if name == "evaluate":
        config.run = trained(folder)
    return importlib.import_module(f"experiments.{name}"), config


def trained(folder: str) -> str:
    """A small finished run of experiments.train."""
    from experiments import train
    from experiments.runtime import subprograms

    changes = {
        "num_steps": 4, "log_every": 2, "save_every": 2, "num_samples": 2, "batch_size": 4,
        "validation_samples": 2, "few_samples": 2, "test_samples": 25, "test_images": 10,
        "hidden": ((8,),), "latents": (2,),
    }  # fmt: skip
    config = subprograms.load_config("configs/train_digits.py", changes)
    subprograms.run("a run to evaluate", train.main, config, os.path.join(folder, "run"))
    return os.path.join(folder, "run")


def sweep(case: str, values: tuple[Any, ...] = VALUES) -> Iterator[tuple[str, Any, str, str]]:
    """(field, value, outcome, why) of everything that is tried."""
    with tempfile.TemporaryDirectory() as folder:
        program, config = base(case, folder)
        workdir = os.path.join(folder, "out")
        with stopped_before_computing():
            found = outcome(program, config.copy_and_resolve_references(), workdir)
            assert found == ("passed", ""), found
            for path in fields(config):
                for value in values:
                    found = outcome(program, with_value(config, path, value), workdir)
                    assert not os.path.exists(workdir), "something was written"
                    yield ".".join(path), value, *found


def main(cases: list[str]) -> int:
    """Prints every error and everything that passed, as JSON lines; how many errors there are."""
    from absl import flags

    from experiments.runtime import cluster

    del cluster  # its flags
    flags.FLAGS(["sweep"])
    limit = 24 * 2**30  # what is huge must not take the machine down
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    wrong = 0
    for case in cases or CASES:
        counts: dict[str, int] = {}
        passed: dict[str, list[str]] = {}
        for field, value, kind, why in sweep(case):
            counts[kind] = counts.get(kind, 0) + 1
            if kind == "error":
                print(json.dumps([case, field, repr(value), why]), flush=True)
            elif kind == "passed":
                passed.setdefault(field, []).append(repr(value))
        for field, found in passed.items():
            print("PASSED", case, field, " ".join(found))
        print("COUNTS", case, json.dumps(counts), flush=True)
        wrong += counts.get("error", 0)
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
