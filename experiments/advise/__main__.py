r"""Which gradient estimator, at which K, buys most per second: `bounds.advise` on six models.

    python -m experiments.advise --config=configs/advise.py --workdir=runs/advise
    python -m experiments.advise --config=configs/advise.py --config.run=runs/train_digits \
        --workdir=runs/train_digits/advice

The second line asks about a VAE of experiments.train. Behind the config, `:training` trains by the
plain estimator and by the one that is advised at equal seconds, and `:chains` has ELBO, IWAE, UHA
and AIS of the VAE at equal numbers of decoder gradients. Prints tables and the advice in sentences,
and writes results.json, model by model, and figure.png and figure.svg; the same command continues.
"""

from absl import flags

from experiments.advise.settings import Advise
from experiments.runtime import cli

flags.adopt_module_key_flags(cli)


def main(settings: Advise, workdir: str) -> None:
    """Asks about the models that the record lacks, then trains what the check lacks."""
    from experiments.advise import chains, check, report, rows, subjects
    from experiments.runtime import plots, progress, results

    made = subjects.of(settings)
    record = results.open_record(workdir, "advise", settings)

    def lacks(part, name):
        of_part = (r for r in record["rows"] if r["part"] == part)
        return name in made and all(r["at"]["model"] != name for r in of_part)

    def add(found):
        record["rows"] += found
        results.save_record(workdir, record)

    asked = [name for name in made if settings.advice.num_samples and lacks("advice", name)]
    for name in progress.track(asked, str, "model"):
        add(rows.of(name, made[name], settings))
    for name in check.NAMES:
        if settings.check.seeds and lacks("check", name):
            add(check.rows(name, record["rows"], settings))
    for name in ("VAE", subjects.OF_RUN):
        if settings.chains.gradients and lacks("chains", name):
            add(chains.rows(name, made[name](), settings))
    print(report.text(record["rows"]))
    paths = []
    if any(r["name"] == rows.SNR for r in record["rows"]):
        paths = plots.save(workdir, "figure", report.draw(record["rows"], settings))
    results.print_written(workdir, paths)


if __name__ == "__main__":
    cli.run(main, Advise)
