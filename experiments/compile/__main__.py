r"""Compiles every program for TPUs that need not be here, and prints what XLA says of it.

    python -m experiments.compile --config=configs/compile.py --workdir=runs/compile \
        --topology=v5e:2x4,v6e:2x4,v5e:4x4

With the extra `tpu` on Linux: libtpu holds the compiler, and no TPU is needed; for h100:8 and
h200:8 the extra `cuda`, and no GPU. `here` is a topology too, of the devices that JAX finds. What
runs on the devices, a training step or a pass of an evaluation, is compiled from the functions that
the programs run and from shapes, so that no data are read. Writes results.json after every program;
the same command continues, and another --topology adds to it. Exits with 2 if something does not
fit the chips.
"""

import os

from absl import flags, logging

from experiments.compile import settings as own
from experiments.runtime import cli

flags.adopt_module_key_flags(cli)
TOPOLOGY = flags.DEFINE_list(
    "topology", ["v5e:2x4"], "Chips to compile for: v5e:2x4, h200:8, here ...; several with commas."
)


def main(settings: own.Compile, workdir: str) -> None:
    """Compiles what is missing and prints a table for each topology."""
    names = list(dict.fromkeys(TOPOLOGY.value))
    if "here" not in names:  # libtpu looks for a TPU otherwise, and for itself in other processes
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # Imported here so that --help and a mistaken flag do not wait for JAX.
    from experiments.compile import measure, report, steps, topologies
    from experiments.runtime import mesh, results
    from experiments.runtime.errors import UserError
    from experiments.runtime.progress import track

    found = {name: topologies.make(name) for name in names}
    record = results.open_record(workdir, "compile", settings)
    finished = {r["point"] for r in record["rows"]}
    todo = {}
    for topology in names:
        for program in settings.order:
            label = f"{topology} {program}"
            if label not in finished:
                with mesh.described(found[topology].devices):
                    todo[label] = topology, program, steps.make(program, settings.programs[program])
    if finished:
        logging.info("%d programs are there already.", len(finished))

    refused = []
    for label in track(list(todo), label=str, unit="program"):
        topology, program, step = todo.pop(label)
        at = {"topology": topology, "program": program}
        try:
            rows = measure.measured(step, settings.programs[program], found[topology], at)
        except measure.DoesNotFit as error:
            refused.append(f"{program} does not fit {topology} ({error})")
            continue
        record["rows"] += [{**r, "point": label} for r in rows]
        results.save_record(workdir, record)

    for name, topology in found.items():
        rows = [r for r in record["rows"] if r["at"]["topology"] == name]
        if rows:
            print(f"{name}: {topology.described}; numbers are of one\n{report.table(rows)}\n")
    if record["rows"]:
        results.print_written(workdir)
    if refused:
        raise UserError(
            f"{'; '.join(refused)}: choose more chips, or a smaller training.batch_size in changes."
        )


if __name__ == "__main__":
    cli.run(main, own.Compile)
