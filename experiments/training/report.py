"""What a finished training run shows: a held-out bound, curves and grids."""

import os
from typing import Any

import jax
from jaxtyping import PyTree

import bounds
from experiments.runtime import metrics, plots, results
from experiments.training import figures, held_out
from experiments.training.build import Problem, evaluation_key, prepared

COLUMNS = {
    "": "name", "K": "at.K", "kind": "kind", "unit": "unit", "value": "value",
    "standard error": "standard_error", "images": "n",
}  # fmt: skip


def write(
    problem: Problem, params: PyTree, config: Any, workdir: str, record: dict[str, Any]
) -> None:
    """Evaluates the last parameters on test images and writes all files; process 0 prints."""
    params = bounds.Params(*jax.tree.map(jax.numpy.asarray, params))
    images = prepared(problem, "test", config)
    if config.test_images:
        images = images[: config.test_images]
    rows = []
    if len(images):
        measured = held_out.per_image(
            problem.vae, params, images, evaluation_key(config),
            few=config.few_samples, many=config.test_samples,
        )  # fmt: skip
        rows = held_out.rows(measured, few=config.few_samples, many=config.test_samples)
    if jax.process_index() > 0:
        return
    weights = "average" if config.ema_decay > 0 else "last"
    record["rows"] = [{**r, "weights": weights} for r in rows]
    results.save_record(workdir, record)
    paths = [os.path.join(workdir, results.FILE), *draw(problem, params, config, workdir)]
    print(results.table(rows, COLUMNS))
    split = "test" if len(images) else "no test"
    print(
        f"\n{problem.dataset.name}, {len(images)} {split} images, {weights} weights; standard "
        "errors over images. IWAE and ELBO are lower bounds on log p(x), in expectation."
    )
    print("Written:", ", ".join(paths))


def draw(problem: Problem, params: bounds.Params, config: Any, workdir: str) -> list[str]:
    """Curves and grids."""
    sample_key, key = jax.random.split(jax.random.key(config.seed))
    source = "test" if len(problem.dataset.test) else "validation"
    samples = figures.sample_grid(problem, params, sample_key)
    pairs = figures.reconstruction_grid(problem, params, prepared(problem, source, config), key)
    figure = figures.curves(
        metrics.read(workdir),
        f"VAE on {problem.dataset.name}, seed {config.seed}",
        f"{config.objective}, K = {config.num_samples}",
        f"IWAE-{config.validation_samples}",
    )
    board = metrics.Writer(workdir, 2**62)
    for name, grid in (("samples", samples), ("reconstructions", pairs)):
        board.image(config.num_steps, name, grid)
    board.close()
    return [
        *plots.save(workdir, "figure", figure),
        plots.save_image(workdir, "samples", samples),
        plots.save_image(workdir, "reconstructions", pairs),
    ]
