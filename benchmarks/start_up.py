"""How long one waits before the first number.

`python -m experiments.train --help` and `import bounds` are fresh processes; the import stands
beside `import jax`, in turns. The seconds of a step are those of tracing and compiling what each
program runs on its devices, from the table of `experiments.compile`, at the sizes of its config
for digits; nothing is cached, and nothing is run.
"""

import statistics
import subprocess
import sys
import time

import jax

from benchmarks.timing import Row, interleaved, ratio
from configs import compile as compile_config
from experiments.compile import steps
from experiments.compile.settings import Compile, Entry
from experiments.runtime import mesh, settings

ROUNDS = 7
PROGRAMS = ("train", "evaluate", "snr", "dequantize_digits", "dalle_digits", "dalle_digits_prior")
DIFFUSION = Entry(part="diffusion", config="configs/diffusion_digits.py")


def run() -> list[Row]:
    return [*process_rows(), *compile_rows()]


def process_rows() -> list[Row]:
    def process(*arguments):
        return lambda: subprocess.run(
            [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL
        )

    seconds = interleaved(
        {
            "help": process("-m", "experiments.train", "--help"),
            "bounds": process("-c", "import bounds"),
            "jax": process("-c", "import jax"),
        },
        rounds=ROUNDS,
    )
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    return [
        Row(
            "start_up: python -m experiments.train --help",
            median["help"],
            high=1.0,
            unit="s",
            detail=f"{min(seconds['help']):.2f} to {max(seconds['help']):.2f} s",
        ),
        Row(
            "start_up: import bounds / import jax",
            ratio(seconds["bounds"], seconds["jax"]),
            high=1.15,
            detail=f"{median['bounds']:.2f} / {median['jax']:.2f} s",
        ),
    ]


def compile_rows() -> list[Row]:
    entries = settings.parse(Compile, compile_config.get_config()).programs
    wanted = {name: entries[name] for name in PROGRAMS} | {"diffusion_digits": DIFFUSION}
    rows = []
    for name, entry in wanted.items():
        with mesh.described(jax.devices()):
            step = steps.make(name, entry)
            start = time.perf_counter()
            lowered = step.lowered()
            traced = time.perf_counter()
            lowered.compile()
            done = time.perf_counter()
        rows.append(
            Row(
                f"start_up: {name}, tracing and compiling",
                done - start,
                unit="s",
                detail=f"{traced - start:.1f} + {done - traced:.1f} s",
            )
        )
    return rows
