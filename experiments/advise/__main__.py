r"""Which gradient estimator, at which K, buys most per second: `bounds.advise` on six models.

    python -m experiments.advise --config=configs/advise.py --workdir=runs/advise
    python -m experiments.advise --config=configs/advise.py --config.run=runs/train_digits \
        --workdir=runs/train_digits/advice

The second line asks about a VAE of experiments.train. Prints tables and the advice in sentences,
and writes results.json, model by model, and figure.png and figure.svg; the same command continues.
"""

from absl import flags

from experiments.advise.settings import Advise
from experiments.runtime import cli

flags.adopt_module_key_flags(cli)


def main(settings: Advise, workdir: str) -> None:
    """Asks about the models that the record lacks, then trains what the check lacks."""
    from experiments.advise import check, report, rows, subjects
    from experiments.runtime import plots, progress, results

    made = subjects.of(settings)
    record = results.open_record(workdir, "advise", settings)

    def add(found):
        record["rows"] += found
        results.save_record(workdir, record)

    there = {r["at"]["model"] for r in record["rows"] if r["part"] == "advice"}
    missing = [name for name in made if name not in there]
    for name in progress.track(missing, str, "model"):
        add(rows.of(name, made[name], settings))
    for name in check.NAMES if settings.check.seeds else ():
        if name in made and not any(
            r["part"] == "check" and r["at"]["model"] == name for r in record["rows"]
        ):
            add(check.rows(name, record["rows"], settings))
    print(report.text(record["rows"]))
    paths = plots.save(workdir, "figure", report.draw(record["rows"], settings))
    results.print_written(workdir, paths)


if __name__ == "__main__":
    cli.run(main, Advise)
