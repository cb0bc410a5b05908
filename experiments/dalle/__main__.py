r"""The joint bound of DALL-E: a discrete VAE, then a prior of captions and tokens.

    python -m experiments.dalle --config=configs/dalle_digits.py --workdir=runs/dalle_digits

`config.models` names the models, each by what it changes in the rest of the config; every one is
trained in two stages with each of `config.seeds`. On the test images: the joint bound and its
parts, where codes can be summed over the exact log p(x, y) and every gap, relaxed against hard
values, use of the codebook, and captions found from tokens. Each model has its folder, with
checkpoints and samples.png, a row of images for every caption (or each of `config.captions`, in
words of the data set); results.json grows by one model at a time, and the same command continues
where it was stopped.
"""

from absl import flags

from experiments.runtime import cli, cluster

flags.adopt_module_key_flags(cli)
flags.declare_key_flag("checkpoint_dir")


def main(config, workdir: str) -> None:
    """Trains and scores what is missing, then prints the table over seeds."""
    from experiments.dalle import build, report, study
    from experiments.runtime import results
    from experiments.studies import study
    from experiments.studies.points import run_missing

    cluster.refuse("experiments.dalle")
    points = study.points(config)
    data = build.make_data(config)
    report.drawn(data, config)
    models = study.check(data, config, points)
    record = results.open_record(workdir, "dalle", config)

    def run(point, folder, checkpoint_dir):
        model = models[point.name]
        rows, params = study.run(data, model, point, config, folder, checkpoint_dir)
        report.draw(data, model, params[0], config, folder)
        return rows

    rows = run_missing(record, points, workdir, run)
    record["rows"] = rows + study.summarise(rows, config)
    results.save_record(workdir, record)
    report.show(data, record["rows"], config, workdir)


if __name__ == "__main__":
    cli.run(main)
