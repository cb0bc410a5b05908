r"""All families of bounds on the same integers: one table, one figure, one page for a lecture.

    python -m experiments.compare --config=configs/compare_digits.py --workdir=runs/compare_digits

Each of --config.families is a program of this project with its config and what to change in it: a
VAE, flows with dequantization, a diffusion model, a discrete VAE, an exact autoregressive model. It
trains and scores in a folder of --workdir what is missing there, or takes the finished run that
`run` names; the same command continues where it was stopped. Every number is in bits/dim, says
whether it is exact or a bound, and has a standard error. Writes results.json, figure.png,
figure.svg and index.html, which opens from disk without a network.
"""

from absl import flags, logging

from experiments.compare.settings import Compare
from experiments.runtime import cli

flags.adopt_module_key_flags(cli)


def main(settings: Compare, workdir: str) -> None:
    """Runs what is missing, collects, prints, draws and checks."""
    from experiments.compare import consistency, families, report
    from experiments.runtime import results
    from experiments.runtime.settings import dump

    chosen = families.check(settings, workdir)
    record = results.open_record(workdir, "compare", settings)
    record["config"] = dump(settings)  # what it is collected by now
    rows = []
    for number, (family, job) in enumerate(chosen, 1):
        logging.info("%d/%d  %s", number, len(chosen), job.name)
        family.run(job)
        rows += families.rows(family, job)
        # Rows of an earlier run stay in the record until their family is read again.
        later = {job.name for _, job in chosen[number:]}
        kept = [r for r in record["rows"] if r["at"]["family"] in later]
        record["rows"] = rows + kept
        results.save_record(workdir, record)
    report.show(record, settings.data.name, workdir)
    consistency.complain(rows)


if __name__ == "__main__":
    cli.run(main, Compare)
