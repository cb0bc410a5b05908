r"""All families of bounds on the same integers: one table, one figure, one page for a lecture.

    python -m experiments.compare --config=configs/compare_digits.py --workdir=runs/compare_digits

Each of `config.families` is a program of this project with its config and what to change in it: a
VAE, flows with dequantization, a diffusion model, a discrete VAE, an exact autoregressive model. It
trains and scores in a folder of --workdir what is missing there, or takes the finished run that
`run` names; the same command continues where it was stopped. Every number is in bits/dim, says
whether it is exact or a bound, and has a standard error. Writes results.json, figure.png,
figure.svg and index.html, which opens from disk without a network.
"""

import json

from absl import flags

from experiments.runtime import cli, cluster

flags.adopt_module_key_flags(cli)


def main(config, workdir: str) -> None:
    """Runs what is missing, collects, prints, draws and checks."""
    from experiments.compare import collect, families, report
    from experiments.runtime import results

    cluster.refuse("experiments.compare")
    chosen = families.check(config, workdir)
    record = results.open_record(workdir, "compare", config)
    record["config"] = json.loads(config.to_json_best_effort())  # what it is collected by now
    rows = []
    for number, family in enumerate(chosen, 1):
        families.run(family, f"{number}/{len(chosen)}  {family.name}")
        rows += collect.rows(family)
        # What an earlier run has of later families stays until they are read again.
        kept = [r for r in record["rows"] if r["at"]["family"] in [f.name for f in chosen[number:]]]
        record["rows"] = rows + kept
        results.save_record(workdir, record)
    report.show(record, config, workdir)
    collect.complain(rows)


if __name__ == "__main__":
    cli.run(main)
