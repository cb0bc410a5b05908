"""What a finished training run shows: a held-out bound, curves and grids."""

import os
from typing import Any

import jax
from jaxtyping import PyTree

import bounds
from experiments.runtime import checks, metrics, plots, results
from experiments.runtime import mesh as meshes
from experiments.studies import held_out
from experiments.vae import figures
from experiments.vae.build import Problem, evaluation_key, prepared

COLUMNS = {
    "": "name", "K": "at.K", "kind": "kind", "unit": "unit", "value": "value",
    "standard error": "standard_error", "images": "n",
}  # fmt: skip


def check_config(config: Any) -> None:
    """Refuses sizes that make no sense, before training rather than after it."""
    checks.whole(config, 1, "test_samples", "few_samples")
    checks.whole(config, 0, "test_images")


def write(
    problem: Problem,
    params: PyTree,
    config: Any,
    workdir: str,
    record: dict[str, Any],
    step: int,
) -> None:
    """Evaluates the last parameters on test images and writes all files; process 0 prints."""
    # To the host first: what follows computes with arrays of this process alone.
    params = bounds.Params(*jax.tree.map(lambda v: jax.numpy.asarray(meshes.to_host(v)), params))
    images = prepared(problem, "test", config)
    if config.test_images:
        images = images[: config.test_images]
    rows = []
    if len(images):
        measured = held_out.per_image(
            problem.vae.model, params, images, evaluation_key(config),
            few=config.few_samples, many=config.test_samples,
        )  # fmt: skip
        rows = held_out.rows(measured, few=config.few_samples, many=config.test_samples)
    if jax.process_index() > 0:
        return
    weights = "average" if config.ema_decay > 0 else "last"
    record["rows"] = [{**r, "weights": weights} for r in rows]
    results.save_record(workdir, record)
    paths = [os.path.join(workdir, results.FILE), *draw(problem, params, config, workdir, step)]
    print(results.table(rows, COLUMNS))
    split = "test" if len(images) else "no test"
    print(
        f"\n{problem.dataset.name}, {len(images)} {split} images, {weights} weights; standard "
        "errors over images. IWAE and ELBO are lower bounds on log p(x), in expectation."
    )
    print("Written:", ", ".join(paths))


def draw(
    problem: Problem, params: bounds.Params, config: Any, workdir: str, step: int
) -> list[str]:
    """Curves and grids."""
    # Counted from the far end: training splits the same seed.
    root = jax.random.fold_in(jax.random.key(config.seed), 2**32 - 6)
    sample_key, key = jax.random.split(root)
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
        board.image(step, name, grid)
    board.close()
    return [
        *plots.save(workdir, "figure", figure),
        plots.save_image(workdir, "samples", samples),
        plots.save_image(workdir, "reconstructions", pairs),
    ]
