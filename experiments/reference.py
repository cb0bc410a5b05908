r"""Trains a grid of objectives, K and seeds, and scores all models by the same evaluator.

    python -m experiments.reference --config=configs/reference_mnist.py:short \
        --workdir=runs/reference_mnist --config.data_dir=data

Each model has its folder of checkpoints in --workdir; results.json grows by one model at a time,
and the same command continues where it was stopped. Standard errors are over seeds: two seeds
differ by more than the images of one test set can tell.
"""

from absl import flags

from experiments.runtime import cli
from experiments.vae.settings import Reference

flags.adopt_module_key_flags(cli)


def main(settings: Reference, workdir: str) -> None:
    """Trains and scores what is missing, then prints the table over seeds."""
    from experiments.runtime import results
    from experiments.studies.points import run_missing
    from experiments.vae import build, grid

    points = grid.points(settings)
    problem = build.make_problem(settings, settings.data_dir)
    grid.check(problem, settings, points)
    record = results.open_record(workdir, "reference", settings)
    rows = run_missing(
        record, points, workdir,
        lambda point, folder: grid.run(problem, point, settings, folder),
    )  # fmt: skip
    summary = grid.summarize(rows, settings)
    record["rows"] = rows + summary
    results.save_record(workdir, record)
    columns = {
        "": "name", "objective": "at.objective", "M": "at.M", "K": "at.K", "unit": "unit",
        "value": "value", "standard error": "standard_error", "seeds": "n",
        "published": "published",
    }  # fmt: skip
    print(results.table(summary, columns))
    print()
    for note in grid.notes(problem, settings, points[0]):
        print(note)
    results.print_written(workdir)


if __name__ == "__main__":
    cli.run(main, Reference)
