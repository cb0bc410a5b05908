r"""Evaluates a trained model: bounds, their gap, diagnostics, active units and a sandwich by AIS.

    python -m experiments.evaluate --config=configs/evaluate.py --config.run=runs/train_digits \
        --workdir=runs/train_digits/evaluation

Reads the config of the run from its config.json, and the checkpoint from its folder, or from
--checkpoint_dir. Writes results.json, in which each number carries its kind, unit and standard
error; the same command continues where it was stopped.
"""

from absl import flags, logging

from experiments.runtime import cli, cluster
from experiments.vae.settings import Evaluate

flags.adopt_module_key_flags(cli)


def main(settings: Evaluate, workdir: str) -> None:
    """Measures what is missing, part by part, and prints the table."""
    from experiments.runtime import paths, results
    from experiments.runtime.errors import UserError
    from experiments.vae import build, evaluation, report

    if not settings.run:
        raise UserError("--config.run is empty; name the --workdir of a run of experiments.train.")
    folder = paths.local("--config.run", settings.run)
    trained = build.run_of("--config.run", folder)
    evaluation.check_start(settings, trained)
    problem = build.make_problem(trained, settings.data_dir or trained.data_dir)
    directory = cluster.checkpoints_of(folder)
    params, source = evaluation.load_params(
        problem, trained, directory, checkpoint=settings.checkpoint, member=settings.member
    )
    step, weights = source["step"], source["weights"]
    logging.info("Evaluating the %s weights of step %d in %s.", weights, step, directory)
    record = results.open_record(workdir, "evaluate", settings)
    for found in record["rows"]:
        if {name: found.get(name) for name in source} != source:
            raise UserError(
                f"{workdir} holds an evaluation of step {found['step']} of a training, and "
                f"checkpoint={settings.checkpoint} is step {step} of it or of another one now; "
                "choose another --workdir."
            )
    for name, part in evaluation.PARTS.items():
        if any(r["part"] == name for r in record["rows"]):
            logging.info("%s: there already.", name)
            continue
        cluster.stop_if_told()
        rows = part(problem, params, settings)
        record["rows"] += [{**r, "part": name, **source} for r in rows]
        results.save_record(workdir, record)
    columns = {**report.COLUMNS, "data": "data", "s": "seconds"}
    columns = {"": "name", "K": "at.K", "alpha": "at.alpha", **columns}
    print(results.table(record["rows"], columns))
    print(
        f"\n{problem.dataset.name}, {settings.data.split} images, {weights} weights of step "
        f"{step}; standard errors over images.\nOn data simulated from the model AIS runs both "
        "ways, and log p(x) lies between; IWAE beside it is of the same data."
    )
    results.print_written(workdir)


if __name__ == "__main__":
    cli.run(main, Evaluate)
