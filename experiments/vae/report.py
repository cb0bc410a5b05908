"""What a finished training run shows: a held-out bound, curves and grids."""

from typing import Any

import jax
from jaxtyping import PyTree

import bounds
from experiments.runtime import cluster, keys, metrics, plots, results
from experiments.runtime import mesh as meshes
from experiments.runtime.keys import Purpose
from experiments.studies import held_out
from experiments.vae import figures
from experiments.vae.build import Problem, evaluation_key, prepared
from experiments.vae.settings import Train

COLUMNS = {
    "": "name", "K": "at.K", "kind": "kind", "unit": "unit", "value": "value",
    "standard error": "standard_error", "images": "n",
}  # fmt: skip


def write(
    problem: Problem,
    params: PyTree,
    run: Train,
    workdir: str,
    record: dict[str, Any],
    step: int,
) -> None:
    """Evaluates the last parameters on test images and writes all files; process 0 prints."""
    # To the host first: what follows computes with arrays of this process alone.
    params = bounds.Params(*jax.tree.map(lambda v: jax.numpy.asarray(meshes.to_host(v)), params))
    few, many = run.evaluation.few_samples, run.evaluation.num_samples
    images = prepared(problem, "test", run.data.binarization_seed)
    images = images[: run.evaluation.num_images or None]
    rows = []
    if len(images):
        measured = held_out.per_image(
            problem.vae.model, params, images, evaluation_key(run), few=few, many=many
        )
        rows = held_out.rows(measured, few=few, many=many)
    weights = "average" if run.training.ema_decay > 0 else "last"
    record["rows"] = [{**r, "weights": weights} for r in rows]
    results.save_record(workdir, record)
    paths = draw(problem, params, run, workdir, step)
    print(results.table(rows, COLUMNS))
    split = "test" if len(images) else "no test"
    print(
        f"\n{problem.dataset.name}, {len(images)} {split} images, {weights} weights; standard "
        "errors over images. IWAE and ELBO are lower bounds on log p(x), in expectation."
    )
    results.print_written(workdir, paths)


@cluster.by_first
def draw(problem: Problem, params: bounds.Params, run: Train, workdir: str, step: int) -> list[str]:
    """Draws training curves, samples and reconstructions; returns the paths of the files."""
    sample_key, key = jax.random.split(keys.key_for(run.seed, Purpose.PICTURES))
    source = "test" if len(problem.dataset.test) else "validation"
    samples = figures.sample_grid(problem, params, sample_key)
    pairs = figures.reconstruction_grid(
        problem, params, prepared(problem, source, run.data.binarization_seed), key
    )
    figure = figures.curves(
        metrics.read(workdir),
        f"VAE on {problem.dataset.name}, seed {run.seed}",
        f"{run.objective.name}, K = {run.objective.num_samples}",
        f"IWAE-{run.training.validation_samples}",
    )
    board = metrics.Writer(workdir, 2**62)
    for name, grid in (("samples", samples), ("reconstructions", pairs)):
        board.image(step, name, grid)
    board.close()
    return [
        *plots.save(workdir, "figure", figure),
        plots.save_image(workdir, "samples", samples),
        plots.save_image(workdir, "reconstructions", pairs),
    ]
