r"""Compiles every program for TPUs that need not be here, and prints what XLA says of it.

    python -m experiments.compile --config=configs/compile.py --workdir=runs/compile \
        --topology=v5e:2x4,v6e:2x4,v5e:4x4

With the extra `tpu` on Linux: libtpu holds the compiler, and no TPU is needed. `here` is a topology
too, of the devices that JAX finds. What runs on the devices, a training step or a pass of an
evaluation, is compiled from the functions that the programs run and from shapes, so that no data
are read. Writes results.json after every program; the same command continues, and another
--topology adds to it. Exits with 2 if something does not fit the chips.
"""

import os
import time

from absl import flags, logging

from experiments.compile import settings as own
from experiments.runtime import cli

flags.adopt_module_key_flags(cli)
TOPOLOGY = flags.DEFINE_list(
    "topology", ["v5e:2x4"], "Chips to compile for, such as v5e:2x4, or here; several with commas."
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
    import jax

    from experiments.compile import analysis, report, steps, topologies
    from experiments.runtime import mesh, results
    from experiments.runtime.errors import UserError
    from experiments.runtime.progress import track

    devices = {name: topologies.devices(name) for name in names}
    record = results.open_record(workdir, "compile", settings)
    finished = {r["point"] for r in record["rows"]}
    todo = {}
    for topology in names:
        for program in settings.order:
            label = f"{topology} {program}"
            if label not in finished:
                with mesh.described(devices[topology]):
                    todo[label] = topology, program, steps.make(program, settings.programs[program])
    if finished:
        logging.info("%d programs are there already.", len(finished))

    refused = []
    for label in track(list(todo), label=str, unit="program"):
        topology, program, step = todo[label]
        start = time.perf_counter()
        with mesh.described(devices[topology]):
            lowered = step.lowered()
        lowered_at = time.perf_counter()
        chip = topologies.CHIPS.get(devices[topology][0].device_kind)
        try:
            found = analysis.analyse(lowered.compile(), in_loop=step.in_loop)
            compiled_at = time.perf_counter()
        except Exception as error:  # XLA's own error types are not public
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            refused.append(f"{program} does not fit {topology} ({analysis.exhausted(error)})")
            continue
        if chip and found.memory > chip.memory:
            sizes = f"{found.memory / 1e9:.2f} GB of {chip.memory / 1e9:.2f} GB"
            refused.append(f"{program} does not fit {topology} ({sizes} a chip)")
        once = None
        if len(devices[topology]) > 1:
            with mesh.described(jax.devices()[:1]):
                alone = steps.make(program, settings.programs[program]).lowered()
            once = analysis.cost_of(alone).get("flops")
        rows = report.rows(
            step, found, {"topology": topology, "program": program}, chip=chip,
            num_devices=len(devices[topology]), once=once, lowering=lowered_at - start,
            compilation=compiled_at - lowered_at, point=label,
            compiler=topologies.compiler() if topology != topologies.HERE else None,
        )  # fmt: skip
        record["rows"] += rows
        results.save_record(workdir, record)

    for topology, found in devices.items():
        rows = [r for r in record["rows"] if r["at"]["topology"] == topology]
        hosts = len({device.process_index for device in found})
        print(f"{topology}: {len(found)} chips of {found[0].device_kind}, {hosts} hosts; of a chip")
        print(report.table(rows) + "\n")
    results.print_written(workdir)
    if refused:
        raise UserError(
            f"{'; '.join(refused)}: choose more chips, or a smaller training.batch_size in changes."
        )


if __name__ == "__main__":
    cli.run(main, own.Compile)
