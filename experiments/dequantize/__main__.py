r"""Densities of integers through dequantization: trains, evaluates and samples several models.

    python -m experiments.dequantize --config=configs/dequantize_digits.py \
        --workdir=runs/dequantize_digits

`models` of the config names the models, each by what it changes in the sections of the rest; every
one is trained with each of `seeds`, selected on validation images and scored on the test images in
bits/dim. Each has its folder of checkpoints in --workdir; results.json grows by one model at a
time, and the same command continues where it was stopped. Writes figure.png (IWAE-k curves) and
samples of every model beside it.
"""

from absl import flags

from experiments.dequantize.settings import Dequantize
from experiments.runtime import cli

flags.adopt_module_key_flags(cli)


def main(settings: Dequantize, workdir: str) -> None:
    """Trains and scores what is missing, then prints the table over seeds."""
    # Imported here so that --help and a mistaken flag do not wait for JAX.
    from experiments.dequantize import family
    from experiments.studies import program

    program.main(family.PARTS, settings, workdir)


if __name__ == "__main__":
    cli.run(main, Dequantize)
