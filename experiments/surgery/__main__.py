r"""ELBO surgery of trained VAEs: the average KL, the prior and the gap, each taken apart.

    python -m experiments.surgery --config=configs/surgery_digits.py \
        --workdir=runs/surgery_digits

--config.models names models, each by what it changes in the config of a training; those that are
missing are trained, each in its folder of --workdir. --config.runs names finished runs of
experiments.train besides. Of every one, before and after training: average KL = I + marginal KL on
the training images with their exact aggregated posterior, and estimates of I by minibatches; I over
training; the ELBO under the optimal prior, on training and test images; the gap of the ELBO as
approximation plus amortisation. figure.png shows them; iwae_posterior.png shows what IWAE's weights
make of the posterior of a VAE with two dimensions. results.json grows by one part at a time, and
the same command continues where it was stopped.
"""

from absl import flags

from experiments.runtime import cli
from experiments.surgery.settings import Surgery

flags.adopt_module_key_flags(cli)


def main(settings: Surgery, workdir: str) -> None:
    """Trains and measures what is missing, draws, and prints the table."""
    from experiments.runtime import results
    from experiments.surgery import models, report, study

    asked = models.models(settings, workdir)
    flat = models.plane_model(settings, workdir)
    record = results.open_record(workdir, "surgery", settings)
    for model in asked:
        models.train(model)
    loaded = models.load(asked, checkpoint=settings.checkpoint, member=settings.member)
    for model in loaded:
        study.measure(model, record, settings, workdir)
    paths = report.draw(loaded, record["rows"], settings, workdir)
    if flat is not None:
        models.train(flat)
        (plane,) = models.load([flat], checkpoint="best", member=-1)
        paths += study.measure_plane(plane, record, settings, workdir)
    report.show(record["rows"], paths, workdir)


if __name__ == "__main__":
    cli.run(main, Surgery)
