r"""Trains a VAE under any of the bounds, and prints a held-out bound.

    python -m experiments.train --config=configs/train_digits.py --workdir=runs/train_digits

Writes metrics.jsonl and TensorBoard files as it goes, checkpoints, and at the end results.json,
figure.png (curves), samples.png and reconstructions.png. The same command resumes a run that was
stopped, to the same numbers bit for bit.
"""

from absl import flags, logging

from experiments.runtime import cli, cluster
from experiments.vae.settings import Train

flags.adopt_module_key_flags(cli)


def main(settings: Train, workdir: str) -> None:
    """Trains to the end, then evaluates and draws."""
    # Imported here so that --help and a mistaken flag do not wait for JAX.
    from experiments.runtime import fit, results
    from experiments.runtime.checkpoints import Checkpoints
    from experiments.vae import build, report

    with cluster.together():
        problem = build.make_problem(settings, settings.data_dir)
        run = build.make_run(problem, settings, settings.seed)
        record = results.open_record(workdir, "train", settings, one_training=True)
    directory, kept = cluster.checkpoints_of(workdir), settings.records.keep_checkpoints
    with Checkpoints(directory, build.named(settings), keep=kept) as checkpoints:
        state = fit.fit(run, settings.records, workdir, checkpoints)
        best = checkpoints.best()
    params = fit.evaluated_params(state)
    logging.info("Trained to step %d; the best on validation is that of step %s.", state.step, best)
    report.write(problem, params, settings, workdir, record, int(state.step))


if __name__ == "__main__":
    cli.run(main, Train)
