r"""Diffusion models of integers: trains, takes the bound apart and draws from them.

    python -m experiments.diffusion --config=configs/diffusion_digits.py \
        --workdir=runs/diffusion_digits

`config.models` names the models, each by what it changes in the rest of the config; every one is
trained with each of `config.seeds`, selected on validation images and scored on the test images:
the bound in bits/dim with its prior, diffusion and reconstruction terms, the KL of every step, and
how much estimates by a single time vary. Each has its folder of checkpoints in --workdir, with
samples.png, denoising.png and noising.png; results.json grows by one model at a time, and the same
command continues where it was stopped.
"""

from absl import flags

from experiments.diffusion.settings import Diffusion
from experiments.runtime import cli

flags.adopt_module_key_flags(cli)


def main(settings: Diffusion, workdir: str) -> None:
    """Trains and scores what is missing, then prints the table over seeds."""
    # Imported here so that --help and a mistaken flag do not wait for JAX.
    from experiments.diffusion import family
    from experiments.studies import program

    program.main(family.PARTS, settings, workdir)


if __name__ == "__main__":
    cli.run(main, Diffusion)
