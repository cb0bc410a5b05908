r"""Is its number a bound? Audits a trained model of any program here.

    python -m experiments.audit --config=configs/audit.py --config.run=runs/train_digits \
        --workdir=runs/train_digits/audit

--config.run is the --workdir of experiments.train, dequantize, diffusion, masked or dalle; of a
study, --config.model names the model. Simulates data from it, checks the identities of
docs/audit.md, prints a table and writes results.json; the same command continues where it was
stopped. Exits with 0 if nothing is violated, and with 3 if something is.
"""

import functools
import sys

from absl import flags, logging

from experiments.audit.settings import Audit
from experiments.runtime import cli

flags.adopt_module_key_flags(cli)
VIOLATED = 3  # the exit code


def main(settings: Audit, workdir: str) -> None:
    """Makes the reports that are missing and prints them."""
    # Imported here so that --help and a mistaken flag do not wait for JAX.
    from experiments.audit import reports, subject
    from experiments.runtime import cluster, results, signals
    from experiments.runtime.errors import UserError

    audited = subject.load(settings)
    record = results.open_record(workdir, "audit", settings)
    for found in record["rows"]:
        if any(found.get(name) != value for name, value in audited.source.items()):
            raise UserError(
                f"{workdir} holds an audit of step {found['step']} of a training that has another "
                "one there now; choose another --workdir."
            )
    for name, make in reports.of(audited, settings).items():
        if any(r["part"] == name for r in record["rows"]):
            logging.info("%s: there already.", name)
            continue
        cluster.stop_if_told()
        rows = signals.beside(functools.partial(reports.rows, make))
        record["rows"] += [{**r, "part": name, **audited.source} for r in rows]
        results.save_record(workdir, record)
    print(reports.text(audited, record["rows"], settings))
    results.print_written(workdir)
    if any(r["verdict"] == "violated" for r in record["rows"]):
        sys.stdout.flush()
        raise SystemExit(VIOLATED)


if __name__ == "__main__":
    cli.run(main, Audit)
