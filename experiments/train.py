r"""Trains a VAE under any of the bounds, and prints a held-out bound.

    python -m experiments.train --config=configs/train_digits.py --workdir=runs/train_digits

Writes metrics.jsonl and TensorBoard files as it goes, checkpoints, and at the end results.json,
figure.png (curves), samples.png and reconstructions.png. The same command resumes a run that was
stopped, to the same numbers bit for bit.
"""

import os

from absl import flags, logging

from experiments.runtime import cli, cluster

flags.adopt_module_key_flags(cli)
flags.adopt_module_key_flags(cluster)


def main(config, workdir: str) -> None:
    """Trains to the end, then evaluates and draws."""
    # Imported here so that --help and a mistaken flag do not wait for JAX.
    cluster.join()
    import jax

    from experiments.runtime import fit, results
    from experiments.runtime.checkpoints import Checkpoints
    from experiments.vae import build, report

    with cluster.together():
        fit.check_config(config)
        report.check_config(config)
        problem = build.make_problem(config)
        run = build.make_run(problem, config)
        record = results.open_record(workdir, "train", config, write=jax.process_index() == 0)
    directory = cluster.CHECKPOINT_DIR.value or os.path.join(workdir, "checkpoints")
    with Checkpoints(directory, record["config"], keep=config.keep_checkpoints) as checkpoints:
        state = fit.fit(run, config, workdir, checkpoints)
        best = checkpoints.best()
    params = fit.evaluated_params(state)
    logging.info("Trained to step %d; the best on validation is that of step %s.", state.step, best)
    report.write(problem, params, config, workdir, record, int(state.step))


if __name__ == "__main__":
    cli.run(main)
