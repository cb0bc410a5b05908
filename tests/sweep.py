"""Bad values in every field of every program's config: who refuses what, and in how many lines.

    python tests/sweep.py [CASE ...]

Every field, those of fields included, gets values of another kind, out of range, not finite, huge,
empty, or of a name that nobody knows, as a config file could hold them. The program's own door and
main run up to where the record is opened: nothing before it computes. A value may be refused, by
one sentence that names it, or pass; anything else is an error. `PASSED` lists what passed.
"""

import contextlib
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
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from repository import ROOT

VALUES: tuple[Any, ...] = (
    None, "", "no such name", True, 0, 1, -1, 0.5, -0.5, 1000, 10**6, 2**31 - 1, 2**31, 2**32,
    1e30, 1e308, math.nan, math.inf, -math.inf, (), (0,), (-1,), (1, 1), (2**31 - 1,), (2**32,),
    (0.5,), (math.nan,), (True,), ("a",), (None,), ((),), ((0,),), ((1, 1),), {}, {"a": 1},
)  # fmt: skip
SECONDS = 30.0  # of all processors, for one value
_ONE_FLOW = {
    "models": {"one": {"model": {"width": 8}}}, "compare": (), "noise": {"width": 8},
}  # fmt: skip
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "snr_gaussian": (
        "snr", "configs/snr_gaussian.py:near", {"toy": {"num_data": 16, "num_dims": 2}},
    ),
    "snr_phase": ("snr", "configs/snr_phase.py", {}),
    "snr_vae": ("snr", "configs/snr_vae.py", {"model": {"latents": (2,), "hidden": ((4,),)}}),
    "train": ("train", "configs/train_digits.py", {}),
    "evaluate": ("evaluate", "configs/evaluate.py", {}),
    "reference": (
        "reference", "configs/reference_mnist.py", {"data": {"name": "digits"}, "data_dir": ""},
    ),
    "dequantize": ("dequantize", "configs/dequantize_digits.py", _ONE_FLOW),
    "dequantize_refit": ("dequantize", "configs/dequantize_digits.py", {
        "models": {"one": {"model": {"width": 8}}}, "compare": (),
        "model": {"density": "subset_flow", "network": "convolutional"},
        "noise": {"name": "logistic", "width": 8}, "refit": {"noise": "logistic"},
    }),
    "dequantize_exact": ("dequantize_exact", "configs/dequantize_exact.py", {}),
    "estimators": ("estimators", "configs/estimators.py", {}),
    "advise": ("advise", "configs/advise.py", {}),
    "reproduced": ("reproduced", "configs/reproduced.py", {}),
    "diffusion": ("diffusion", "configs/diffusion_digits.py", {"network": {"width": 8}}),
    "diffusion_ddpm": ("diffusion", "configs/diffusion_digits.py", {
        "network": {"name": "mlp", "width": 8},
        "chain": {
            "schedule": "cosine", "timesteps": 10, "evaluation_timesteps": 0, "prediction": "eps",
            "variance": "learned",
        },
    }),
    "diffusion_ode": ("diffusion", "configs/diffusion_ode.py", {
        "models": {"one": {}}, "compare": (), "network": {"width": 8},
    }),
    "dalle": ("dalle", "configs/dalle_digits.py", {"models": {"one": {}}, "compare": ()}),
    "masked": ("masked", "configs/masked_digits.py", {"network": {"width": 8}}),
    "surgery": ("surgery", "configs/surgery_digits.py", {
        "models": {"one": {"records": {"save_every": 500}}},
    }),
    "compare": ("compare", "configs/compare_digits.py", {}),
    "audit": ("audit", "configs/audit.py", {}),
    "compile": ("compile", "configs/compile.py", {"order": ("train",)}),
    "accelerator": ("accelerator", "configs/accelerator.py", {"order": ("numerics",)}),
}  # fmt: skip


class Program(NamedTuple):
    """config -> settings, and (settings, workdir) -> nothing."""

    parse: Callable[[dict[str, Any]], Any]
    main: Callable[[Any, str], None]


class _Passed(BaseException):
    """The record is about to be opened: every check is behind."""


class _Slow(BaseException):
    """The time for a value is up."""


def fields(config: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all fields, those that hold others first."""
    for name in config:
        yield (*prefix, name)
        if isinstance(config[name], dict):
            yield from fields(config[name], (*prefix, name))


def with_value(config: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy with another value in one field, whatever its kind."""
    first, *rest = path
    return {**config, first: with_value(config[first], tuple(rest), value) if rest else value}


def outcome(program: Program, config: dict[str, Any], workdir: str) -> tuple[str, str]:
    """("refused", sentence), ("passed", ""), or ("error", what was raised, or that it hung)."""
    from experiments.runtime.errors import UserError

    def too_slow(signum, frame):
        raise _Slow("".join(traceback.format_stack(frame)[-3:]))

    signal.signal(signal.SIGPROF, too_slow)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    faulthandler.dump_traceback_later(20 * SECONDS, exit=True)  # where no signal gets through
    try:
        program.main(program.parse(config), workdir)
    except UserError as error:
        return ("refused" if len(str(error).splitlines()) == 1 else "error"), str(error)
    except _Passed:
        return "passed", ""
    except _Slow as slow:
        return "error", f"hangs at {slow}"
    except Exception as error:
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


def base(case: str, folder: str) -> tuple[Program, dict[str, Any]]:
    """(the program, a config it takes)."""
    from experiments.runtime import subprograms

    name, spec, changes = CASES[case]
    config = subprograms.load_config(spec, changes)
    if name in ("evaluate", "audit"):
        config["run"] = trained(folder)
    return program_of(name), config


def program_of(name: str) -> Program:
    """What `experiments.NAME` hands to `cli.run`."""
    from experiments.accelerator.settings import Visit
    from experiments.advise.settings import Advise
    from experiments.audit.settings import Audit
    from experiments.compare.settings import Compare
    from experiments.compile.settings import Compile
    from experiments.dalle.settings import Dalle
    from experiments.dequantize.settings import Dequantize, DequantizeExact
    from experiments.diffusion.settings import Diffusion
    from experiments.estimators.settings import Estimators
    from experiments.explore.settings import Explore
    from experiments.masked.settings import Masked
    from experiments.reproduced.settings import Reproduced
    from experiments.runtime import settings
    from experiments.snr.settings import parse
    from experiments.surgery.settings import Surgery
    from experiments.vae.settings import Evaluate, Reference, Train

    kinds: dict[str, Any] = {
        "train": Train, "evaluate": Evaluate, "reference": Reference, "dequantize": Dequantize,
        "dequantize_exact": DequantizeExact, "diffusion": Diffusion, "dalle": Dalle,
        "surgery": Surgery, "compare": Compare, "compile": Compile, "audit": Audit,
        "accelerator": Visit, "explore": Explore, "estimators": Estimators, "advise": Advise,
        "masked": Masked, "reproduced": Reproduced,
    }  # fmt: skip
    parsed = parse if name == "snr" else functools.partial(settings.parse, kinds[name])

    def main(*arguments: Any) -> None:
        alone = (ROOT / f"experiments/{name}.py").exists()
        module = f"experiments.{name}" if alone else f"experiments.{name}.__main__"
        importlib.import_module(module).main(*arguments)

    return Program(parsed, main)


def trained(folder: str) -> str:
    """A small finished run of experiments.train."""
    from experiments.runtime import subprograms

    changes = {
        "training": {"num_steps": 4, "batch_size": 4, "validation_samples": 2},
        "records": {"log_every": 2, "save_every": 2},
        "objective": {"num_samples": 2},
        "evaluation": {"few_samples": 2, "num_samples": 25, "num_images": 10},
        "model": {"hidden": ((8,),), "latents": (2,)},
    }
    program, config = (
        program_of("train"),
        subprograms.load_config("configs/train_digits.py", changes),
    )
    run = os.path.join(folder, "run")
    subprograms.run("a run to evaluate", program.main, program.parse(config), run)
    return run


def sweep(case: str, values: tuple[Any, ...] = VALUES) -> Iterator[tuple[str, Any, str, str]]:
    """(field, value, outcome, why) of everything that is tried."""
    with tempfile.TemporaryDirectory() as folder:
        program, config = base(case, folder)
        workdir = os.path.join(folder, "out")
        with stopped_before_computing():
            found = outcome(program, config, workdir)
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
