r"""A visit to a GPU or TPU of ten minutes: what only a device can fail, and how fast it is.

    python -m experiments.accelerator --config=configs/accelerator.py --workdir=runs/accelerator

Parts run one after another, the most important first, each for two minutes at most. Writes
results.json after every part, and at the end table.txt; the same command goes on with what is
missing or failed. Exits with 2 if something failed.
"""

from absl import flags

from experiments.accelerator.settings import Visit
from experiments.runtime import cli, cluster

flags.adopt_module_key_flags(cli)


def main(settings: Visit, workdir: str) -> None:
    """Runs the parts, which alone start JAX: a TPU has one owner at a time."""
    from experiments.accelerator import visit
    from experiments.runtime.errors import UserError

    if cluster.DISTRIBUTED.value:
        raise UserError("--distributed: a visit is to the devices of one machine; leave it out.")
    limits = settings.seconds
    visit.visit(settings, settings.order, limits.visit, limits.part, workdir)


if __name__ == "__main__":
    cli.run(main, Visit)
