r"""Masked diffusion of pixels as tokens: trains, bounds in every form, and fills in images.

    python -m experiments.masked --config=configs/masked_digits.py --workdir=runs/masked_digits

`config.models` names the models, each by what it changes in the rest of the config; every one is
trained with each of `config.seeds`, selected on validation images and scored on the test images:
the ELBO in bits/dim, the bounds of fewer steps, IWAE over orders, how much estimates of the three
forms vary at equal evaluations of the network, and all orders of a crop exactly. Each has its
folder of checkpoints in --workdir, with samples.png and infilling.png; results.json grows by one
model at a time, and the same command continues where it was stopped.
"""

from absl import flags

from experiments.masked.settings import Masked
from experiments.runtime import cli

flags.adopt_module_key_flags(cli)


def main(settings: Masked, workdir: str) -> None:
    """Trains and scores what is missing, then prints the table over seeds."""
    # Imported here so that --help and a mistaken flag do not wait for JAX.
    from experiments.masked import family
    from experiments.studies import program

    program.main(family.PARTS, settings, workdir)


if __name__ == "__main__":
    cli.run(main, Masked)
