"""`python -m benchmarks [NAME ...] [--json=PATH]`: runs benchmarks, prints one table of ratios.

Each benchmark is a module with `run() -> list[Row]`; without names all of them run. Its rows are
printed, and written where --json says so, as soon as it ends: a run that is interrupted keeps what
is done. Exit status 1 means that a limit is missed, 2 a wrong command line, 130 an interrupt.

A ratio compares two things timed in turns in one process, so it travels between machines better
than a time does; run it on an otherwise idle machine all the same. Everything runs on the CPU
unless JAX_PLATFORMS names something else.
"""

import argparse
import json
import os
import pathlib
import sys
import time

# Before JAX is imported. The peers run on the CPU, so that is where the comparison is fair.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from benchmarks import (
    coupling_rate,
    denoising_rate,
    dreg_cost,
    enumeration_rate,
    evaluation_rate,
    interval_coverage,
    iwae_gradient,
    log_likelihood_memory,
    snr_cost,
    start_up,
    surgery_rate,
    training_rate,
)
from benchmarks.timing import as_json, environment, print_heading, print_rows, verdict

BENCHMARKS = {
    "snr_cost": snr_cost.run,
    "dreg_cost": dreg_cost.run,
    "iwae_gradient": iwae_gradient.run,
    "log_likelihood_memory": log_likelihood_memory.run,
    "training_rate": training_rate.run,
    "evaluation_rate": evaluation_rate.run,
    "coupling_rate": coupling_rate.run,
    "denoising_rate": denoising_rate.run,
    "enumeration_rate": enumeration_rate.run,
    "surgery_rate": surgery_rate.run,
    "start_up": start_up.run,
    "interval_coverage": interval_coverage.run,
}


def _path(text: str) -> pathlib.Path:
    return pathlib.Path(text).expanduser()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", metavar="PATH", type=_path, help="also write the rows")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if args.json and not args.json.parent.is_dir():
        parser.error(f"--json: there is no directory {args.json.parent}")
    if args.json and args.json.is_dir():
        parser.error(f"--json: {args.json} is a directory; name a file")

    names, rows, about = args.names or list(BENCHMARKS), [], environment()
    print_heading(about)
    for number, name in enumerate(names):
        start = time.perf_counter()
        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        try:
            found = BENCHMARKS[name]()
        except KeyboardInterrupt:
            print(f"interrupted: {number} of {len(names)} benchmarks are done", file=sys.stderr)
            return 130
        print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        print_rows(found)
        rows += found
        if args.json:
            args.json.write_text(json.dumps(as_json(rows, about), indent=2) + "\n")
    return int(any(verdict(row) == "MISSED" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
