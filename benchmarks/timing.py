"""What the benchmarks share: rows, interleaved timing, peak memory of a subprocess, the table.

`python -m benchmarks.timing MODULE FUNCTION ARGUMENT` is the subprocess: it calls the function
with the integer and prints the peak resident memory of its own process in bytes.
"""

import functools
import importlib
import importlib.metadata
import math
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import jax

# A cached executable would make compile times meaningless, and its memory analysis is not
# that of a compilation.
jax.config.update("jax_enable_compilation_cache", False)

NO_TORCH = "not installed: pip install -e '.[benchmark]'"
Name = TypeVar("Name", bound=Hashable)


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      name: what is measured.
      measured: the number; None where it could not be measured (`detail` says why).
      low: the smallest value allowed, or None.
      high: the largest value allowed, or None.
      unit: the unit of all three.
      detail: what stands behind the number.
    """

    name: str
    measured: float | None
    low: float | None = None
    high: float | None = None
    unit: str = "x"
    detail: str = ""


def verdict(row: Row) -> str:
    """`ok`, `MISSED`, `not run`, or nothing for a row without limits."""
    if row.measured is None:
        return "not run"
    if row.low is None and row.high is None:
        return ""
    low = -math.inf if row.low is None else row.low
    high = math.inf if row.high is None else row.high
    return "ok" if low <= row.measured <= high else "MISSED"  # NaN misses


def in_turns(
    contestants: dict[Name, Callable[[], float]], *, rounds: int
) -> dict[Name, list[float]]:
    """Seconds that each contestant says it took in each round, run in turns: A, B, A, B, ...

    Whatever else the machine does then falls on all of them. One round before the first warms up.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in contestants}
    for round_number in range(rounds + 1):
        for name, contest in contestants.items():
            # Thread pools spin for some milliseconds after their work: let the last one go quiet.
            time.sleep(0.05)
            spent = contest()
            if round_number > 0:
                seconds[name].append(spent)
    return seconds


def interleaved(
    contestants: dict[Name, Callable[[], Any]], *, rounds: int
) -> dict[Name, list[float]]:
    """Seconds of calls in each round, see `in_turns`."""

    def timed(call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - start

    timers = {name: functools.partial(timed, call) for name, call in contestants.items()}
    return in_turns(timers, rounds=rounds)


def ratio(above: list[float], below: list[float]) -> float:
    """Median over rounds of the ratio within a round, which slow drifts of the machine leave."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def fastest(candidates: dict[Name, Callable[[], Any]], *, rounds: int = 5) -> Name:
    """The candidate of the smallest median time."""
    seconds = interleaved(candidates, rounds=rounds)
    return min(seconds, key=lambda name: statistics.median(seconds[name]))


def compile_seconds(fn: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """(the compiled function, seconds that tracing and compiling took)."""
    start = time.perf_counter()
    compiled = jax.jit(fn).lower(*args).compile()
    return compiled, time.perf_counter() - start


def peak_memory(function: Callable[[int], None], argument: int, *, repeats: int = 2) -> float:
    """Peak resident bytes of a fresh process that calls a module's function with an integer.

    The least of some runs. One arena for all threads, or how glibc spreads the compiler's memory
    over arenas makes the peak vary by 4% instead of 1%.
    """
    command = [sys.executable, "-m", "benchmarks.timing"]
    command += [function.__module__, function.__name__, str(argument)]
    root = pathlib.Path(__file__).parents[1]
    env = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    return min(
        float(subprocess.run(command, cwd=root, env=env, check=True, stdout=subprocess.PIPE).stdout)
        for _ in range(repeats)
    )


def own_peak_memory() -> int:
    """Peak resident bytes of this process."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        # ru_maxrss would not do here: on Linux a child starts from its parent's peak.
        line = next(v for v in status.read_text().splitlines() if v.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.1f} MB"


def environment() -> dict[str, Any]:
    """What the numbers depend on."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "machine": models[0] if models else platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib", "flax", "torch", "numpyro")},
    }


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def as_json(rows: list[Row], about: dict[str, Any]) -> dict[str, Any]:
    return {"environment": about, "rows": [{**r._asdict(), "verdict": verdict(r)} for r in rows]}


def print_heading(about: dict[str, Any]) -> None:
    """Prints the environment and the names of the columns."""
    print("  ".join(f"{key}: {value}" for key, value in about.items()), end="\n\n")
    _print_line("benchmark", "measured", "limit", "verdict", "unit", "detail")


def print_rows(rows: list[Row]) -> None:
    """Prints the rows of a benchmark under the heading."""
    for r in rows:
        _print_line(r.name, _number(r.measured), _limit(r), verdict(r), r.unit, r.detail)


def _print_line(name: str, measured: str, *rest: str) -> None:
    # Of fixed widths: rows are printed before the next ones are known.
    cells = [name.ljust(62), measured.rjust(8)]
    cells += [cell.ljust(width) for cell, width in zip(rest, (14, 7, 9, 0), strict=True)]
    print("  ".join(cells).rstrip(), flush=True)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    small = value != 0 and abs(value) < 0.01
    return f"{value:.1e}" if small else f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def _limit(row: Row) -> str:
    if row.low is not None and row.high is not None:
        return f"{row.low:g} to {row.high:g}"
    if row.high is not None:
        return f"<= {row.high:g}"
    return "" if row.low is None else f">= {row.low:g}"


if __name__ == "__main__":
    _, module, function_name, argument_text = sys.argv
    getattr(importlib.import_module(module), function_name)(int(argument_text))
    print(own_peak_memory())
