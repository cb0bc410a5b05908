r"""Published numbers, measured again: published, ours, the difference, and what differs.

    python -m experiments.reproduced --config=configs/reproduced.py --workdir=runs/reproduced \
        --config.data_dir=data

Each of --config.parts is a program of this project with a config. It runs in a folder of --workdir,
or continues there; the same command goes on where it was stopped, and '--config.order=("toy",)' is
one part alone. The table, in results.json and table.md, has every part that is there, its misses
too; figure.png has the curves of training. expected.json has the same rows with the command of each
part: docs/reproduced.json is a copy of one.
"""

from absl import flags, logging

from experiments.reproduced.settings import Reproduced
from experiments.runtime import cli
from experiments.runtime.errors import UserError

flags.adopt_module_key_flags(cli)


def main(settings: Reproduced, workdir: str) -> None:
    """Runs the parts one after another, and sets what is there beside what was published.

    Raises:
      UserError: a part ended with one. The others ran, and the table has what is there.
    """
    from experiments.reproduced import programs, report, spent, table
    from experiments.runtime import results, subprograms

    jobs = programs.jobs(settings, workdir)
    # Each part's own folder knows what it was asked for: others may join, or be other ones.
    whole = settings.model_copy(update={"order": (), "parts": {}})
    record = results.open_record(workdir, "reproduced", whole)
    failed: dict[str, UserError] = {}
    for number, (name, job) in enumerate(jobs.items(), 1):
        logging.info("%d/%d  %s", number, len(jobs), name)
        try:
            with spent.timed(job.folder):
                subprograms.run(job.program, job.main, job.asked, job.folder)
        except UserError as error:
            logging.error("%s: %s", name, error)
            failed[name] = error
        record["rows"] = table.rows(workdir, tuple(settings.parts))
        results.save_record(workdir, record)
    report.show(record["rows"], table.measured_on(workdir, tuple(settings.parts)), workdir)
    if failed:
        raise UserError("; ".join(f"{name}: {error}" for name, error in failed.items()))


if __name__ == "__main__":
    cli.run(main, Reproduced)
