r"""Diffusion models of integers: trains, takes the bound apart and draws from them.

    python -m experiments.diffusion --config=configs/diffusion_digits.py \
        --workdir=runs/diffusion_digits

`config.models` names the models, each by what it changes in the rest of the config; every one is
trained with each of `config.seeds`, selected on validation images and scored on the test images:
the bound in bits/dim with its prior, diffusion and reconstruction terms, the KL of every step, and
how much estimates by a single time vary. Each has its folder of checkpoints in --workdir, with
samples.png, denoising.png and noising.png; results.json grows by one model at a time, and the same
command continues where it was stopped.
"""

from absl import flags

from experiments.runtime import cli, cluster

flags.adopt_module_key_flags(cli)
flags.declare_key_flag("checkpoint_dir")


def main(config, workdir: str) -> None:
    """Trains and scores what is missing, then prints the table over seeds."""
    from experiments.diffusion import report, study
    from experiments.runtime import results
    from experiments.studies import images, study
    from experiments.studies.points import run_missing

    cluster.refuse("experiments.diffusion")
    points = study.points(config)
    problem = images.make_problem(config)
    models = study.check(problem, config, points)
    record = results.open_record(workdir, "diffusion", config)

    def run(point, folder, checkpoint_dir):
        own = models[point.name]
        rows, params = study.run(problem, own, point, config, folder, checkpoint_dir)
        report.draw(problem, own, params[0], config, folder)
        return rows

    rows = run_missing(record, points, workdir, run)
    record["rows"] = rows + study.summarise(rows, config)
    results.save_record(workdir, record)
    report.show(problem, record["rows"], config, workdir)


if __name__ == "__main__":
    cli.run(main)
