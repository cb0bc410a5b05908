r"""The joint bound of DALL-E: a discrete VAE, then a prior of captions and tokens.

    python -m experiments.dalle --config=configs/dalle_digits.py --workdir=runs/dalle_digits

`config.models` names the models, each by what it changes in the rest of the config; every one is
trained in two stages with each of `config.seeds`. On the test images: the joint bound and its
parts, where codes can be summed over the exact log p(x, y) and every gap, relaxed against hard
values, use of the codebook, and captions found from tokens. Each model has its folder, with
checkpoints and samples.png, a row of images for every caption (or each of
`config.evaluation.captions`, in words of the data set); results.json grows by one model at a time,
and the same command continues where it was stopped.
"""

from absl import flags

from experiments.dalle.settings import Dalle
from experiments.runtime import cli

flags.adopt_module_key_flags(cli)


def main(settings: Dalle, workdir: str) -> None:
    """Trains and scores what is missing, then prints the table over seeds."""
    # Imported here so that --help and a mistaken flag do not wait for JAX.
    from experiments.dalle import family
    from experiments.studies import program

    program.main(family.PARTS, settings, workdir)


if __name__ == "__main__":
    cli.run(main, Dalle)
