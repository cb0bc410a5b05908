r"""Gradient estimators, exactly: mean, bias, variance and SNR on four small models, K by K.

    python -m experiments.estimators --config=configs/estimators.py --workdir=runs/estimators

Nothing is sampled: every estimator of the library is summed over all outcomes of its draws, or over
Gauss-Hermite grids, in float64, for theta and for phi. Beside them are the expectations of the
values, each with its kind. Writes results.json model by model; the same command continues.
"""

from absl import flags

from experiments.estimators.settings import Estimators
from experiments.runtime import cli

flags.adopt_module_key_flags(cli)


def main(settings: Estimators, workdir: str) -> None:
    """Sums what the record lacks, and prints the tables."""
    import jax

    from experiments.estimators import exact, problems, report
    from experiments.runtime import progress, results

    record = results.open_record(workdir, "estimators", settings)
    with jax.enable_x64(True):
        for problem in progress.track(
            problems.problems(settings), lambda problem: problem.name, "model"
        ):
            if any(r["at"]["model"] == problem.name for r in record["rows"]):
                continue
            rows = exact.exact_rows(problem)
            most = settings.most_outcomes
            for count in settings.num_samples:
                known: exact.Gradients = {}
                for name in problem.estimators:
                    rows += exact.estimator_rows(problem, name, count, most, known)
                rows += exact.pair_rows(problem, count)
                rows += exact.value_rows(problem, count, settings.betas, most)
            record["rows"] += rows
            results.save_record(workdir, record)
    report.show(record["rows"])
    results.print_written(workdir)


if __name__ == "__main__":
    cli.run(main, Estimators)
