"""One part of a visit in a process of its own.

`python -m experiments.accelerator.part WORKDIR PART` reads what the visit left in WORKDIR, writes
PART.json there whenever it has more rows, and says in its last line what went wrong.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator

os.environ["MPLBACKEND"] = "Agg"  # figures are files

from experiments.accelerator import numerics, rates, vaes, visit
from experiments.accelerator.settings import Visit
from experiments.runtime import results, settings, subprograms
from experiments.runtime.results import Row
from experiments.snr import __main__ as snr_program


def snr(asked: Visit, workdir: str) -> Iterator[list[Row]]:
    """The program itself, in a folder of its own; the slopes of its figure."""
    fields = subprograms.load_config(asked.snr.config, asked.snr.changes)
    folder = os.path.join(workdir, "snr")
    subprograms.run("snr", snr_program.main, snr_program.parse(fields), folder)
    rows: list[Row] = [r for r in results.load(folder)["rows"] if "point" not in r]
    yield [{**r, "at": {"of": f"{r['at']['axis']} from {r['at']['from']}"}} for r in rows]


PARTS: dict[str, Callable[[Visit, str], Iterator[list[Row]]]] = {
    visit.DEVICE: lambda asked, workdir: iter([[]]),
    "numerics": lambda asked, workdir: numerics.part(asked),
    "snr": snr,
    "iwae50": lambda asked, workdir: rates.alone(asked.iwae50, asked.seconds.loop),
    "flowpp": lambda asked, workdir: rates.alone(asked.flowpp, asked.seconds.loop),
    "unet_float32": lambda asked, workdir: rates.alone(asked.unet_float32, asked.seconds.loop),
    "unet_bfloat16": lambda asked, workdir: rates.with_bound(asked),
    "log_p": lambda asked, workdir: vaes.log_p(asked),
    "burda": lambda asked, workdir: vaes.burda(asked),
}


def main(workdir: str, name: str) -> None:
    """Runs a part, and writes what it has after each of its rows."""
    with open(os.path.join(workdir, visit.ASKED)) as file:
        asked = settings.parse(Visit, json.load(file))
    found = {"environment": results.environment(), "rows": []}
    for rows in PARTS[name](asked, workdir):
        found["rows"] += rows
        text = json.dumps(found, allow_nan=False)
        results.write_atomically(os.path.join(workdir, f"{name}.json"), text.encode())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    try:
        main(*sys.argv[1:])
    except Exception as error:
        logging.exception("%s", sys.argv[2])
        text = " ".join(str(error).split())[:300]
        print(f"{type(error).__name__}: {text}", file=sys.stderr)
        sys.exit(1)
