r"""Densities of integers through dequantization: trains, evaluates and samples several models.

    python -m experiments.dequantize --config=configs/dequantize_digits.py \
        --workdir=runs/dequantize_digits

`config.models` names the models, each by what it changes in the rest of the config; every one is
trained with each of `config.seeds`, selected on validation images and scored on the test images in
bits/dim. Each has its folder of checkpoints in --workdir; results.json grows by one model at a
time, and the same command continues where it was stopped. Writes figure.png (IWAE-k curves) and
samples of every model beside it.
"""

from absl import flags

from experiments.runtime import cli, cluster

flags.adopt_module_key_flags(cli)
flags.declare_key_flag("checkpoint_dir")


def main(config, workdir: str) -> None:
    """Trains and scores what is missing, then prints the table over seeds."""
    from experiments.dequantize import evaluation, report, study
    from experiments.runtime import results
    from experiments.studies import images, study
    from experiments.studies.points import run_missing

    cluster.refuse("experiments.dequantize")
    points = study.points(config)
    problem = images.make_problem(config)
    models = study.check(problem, config, points)
    record = results.open_record(workdir, "dequantize", config)

    def run(point, folder, checkpoint_dir):
        own = models[point.name]
        rows, params = study.run(problem, own, point, config, folder, checkpoint_dir)
        return rows + report.draw_samples(
            problem, own.trained, params[0], point.name, config, folder
        )

    rows = run_missing(record, points, workdir, run)
    record["rows"] = rows + study.summarise(rows, config)
    results.save_record(workdir, record)
    report.show(problem, record["rows"], config, workdir)
    evaluation.complain(rows)


if __name__ == "__main__":
    cli.run(main)
