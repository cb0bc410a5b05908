"""VAEs of Burda et al.: log p(x) of many images, and the protocol with all models as one."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import bounds
from experiments.accelerator import operations, pictures
from experiments.accelerator.rates import compiled, share_of_peak
from experiments.accelerator.settings import LogP, Visit
from experiments.compile import steps
from experiments.data import sets
from experiments.runtime import keys
from experiments.runtime import mesh as meshes
from experiments.runtime.fit import Run
from experiments.runtime.results import Row, row
from experiments.studies import held_out
from experiments.vae import build
from experiments.vae.grid import PUBLISHED
from experiments.vae.settings import Train


def log_p(settings: Visit) -> Iterator[list[Row]]:
    """Images a second by IWAE with many samples, of images drawn from the model itself."""
    asked, limit = settings.log_p, settings.seconds.loop
    trained = steps.parsed(Train, asked.program.config, asked.program.changes)
    problem = build.problem_of(pictures.dataset(trained.data.name), trained)
    vae, few, many = problem.vae, asked.few_samples, asked.num_samples
    start_key, image_key, key = jax.random.split(jax.random.key(0), 3)
    params = build.init_params(problem, start_key)
    simulate = jax.jit(jax.vmap(lambda k: vae.simulate(params.theta, k)[0]))

    def block(number: int) -> tuple[np.ndarray, float]:
        keys = jax.random.split(jax.random.fold_in(image_key, number), asked.images_per_block)
        images = np.asarray(simulate(keys))
        start = time.perf_counter()
        measured = held_out.per_image(
            vae.model, params, images, jax.random.fold_in(key, number), few=few, many=many,
            images_per_pass=asked.memory.images_per_pass,
            samples_per_pass=asked.memory.samples_per_pass,
        )  # fmt: skip
        return measured.iwae_many, time.perf_counter() - start

    _, compilation = block(asked.num_blocks)  # its images are none of those below
    values, times, started = [], [], time.perf_counter()
    while len(times) < asked.num_blocks and time.perf_counter() - started < limit:
        found, spent = block(len(times))
        values.append(found)
        times.append(spent)
    rate = asked.images_per_block / np.asarray(times)
    image, _ = vae.simulate(params.theta, image_key)
    work = _operations_of_an_image(vae.model, params, image, asked)
    at = {"of": f"IWAE-{many}"}
    yield [
        held_out.mean_row("log p(x) at the start", at, np.concatenate(values), "lower_bound"),
        held_out.mean_row(
            "log p(x)", at, rate, "estimate", unit="images/s", seconds=sum(times),
            share_of_peak=share_of_peak(work * float(rate.mean())),
        ),
        row("images evaluated", at, kind="exact", unit="images",
            value=len(times) * asked.images_per_block, seconds=sum(times)),
        row("compilation, first block included", at, kind="estimate", unit="s", value=compilation),
    ]  # fmt: skip


def _operations_of_an_image(model: bounds.LatentModel, params: Any, x: Array, asked: LogP) -> float:
    with meshes.described(jax.devices()):
        function: Any = held_out.evaluator(
            model, asked.few_samples, asked.num_samples, asked.memory.samples_per_pass
        )
        arguments = held_out.described(
            params, jax.ShapeDtypeStruct(x.shape, x.dtype),
            images_per_pass=asked.memory.images_per_pass,
        )  # fmt: skip
        return operations.count(function.trace(*arguments).jaxpr) / len(arguments[2])


def burda(settings: Visit) -> Iterator[list[Row]]:
    """Trains until the time is out, and scores all models on the first test images."""
    asked, entry = settings.burda, settings.burda.program
    trained = steps.parsed(Train, entry.config, entry.changes)
    problem = build.problem_of(sets.load(trained.data.name, asked.data_dir), trained)
    members = [(k, seed) for k in asked.num_samples for seed in asked.seeds]
    run = together(build.make_run(problem, trained, asked.seeds[0]), problem, members)
    length = run.stream.steps_per_epoch
    state, call, _ = compiled(run, length)
    epochs, started = 0, time.perf_counter()
    while epochs == 0 or time.perf_counter() - started < settings.seconds.training:
        state = call(state, epochs)
        epochs += 1
    spent = time.perf_counter() - started
    of, at = {"of": f"{len(members)} models as one"}, {"steps": epochs * length}
    yield [
        row("epochs", {**of, **at}, kind="exact", unit="epochs", value=epochs, seconds=spent),
        row("training", {**of, **at}, kind="estimate", unit="steps/s", value=at["steps"] / spent),
    ]
    images = build.prepared(problem, "test", trained.data.binarization_seed)
    images = images[: asked.evaluation.num_images or None]
    values: dict[int, list[float]] = {}
    for place, (k, _) in enumerate(members):
        params = jax.tree.map(lambda leaf, i=place: leaf[i], state.params)
        measured = held_out.per_image(
            problem.vae.model, params, images, build.evaluation_key(trained),
            few=asked.evaluation.few_samples, many=asked.evaluation.num_samples,
            images_per_pass=asked.memory.images_per_pass,
            samples_per_pass=asked.memory.samples_per_pass,
        )  # fmt: skip
        values.setdefault(k, []).append(float(np.mean(measured.iwae_many, dtype=np.float64)))
    score = f"IWAE-{asked.evaluation.num_samples}"
    yield [
        held_out.mean_row(
            f"{score} of {len(images):,} test images", {"of": f"trained with K={k}", **at}, found,
            "lower_bound", published=PUBLISHED.get(("iwae", 1, k), {}).get(score),
        )
        for k, found in values.items()
    ]  # fmt: skip


def together(run: Run, problem: build.Problem, members: Sequence[tuple[int, int]]) -> Run:
    r"""Trainings by IWAE-K as one, whose parameters have a leading axis of (K, seed).

    Everyone draws as many samples as the largest K takes, and those beyond its own get no weight:

    .. math:: \mathrm{IWAE}_K = \log \frac1K \sum_{k \le K} w_k

    They share batches; the start and the draws are each seed's own.

    Args:
      run: of one of them.
      problem: data and model.
      members: (K, seed) of each.
    """
    most = max(k for k, _ in members)
    counts = jnp.asarray([k for k, _ in members])
    seeds = jnp.asarray([seed for _, seed in members], jnp.uint32)

    def loss_fn(params, extra, batch, key, step):
        del step

        def of_member(params, count, seed):
            own = jax.random.fold_in(key, seed)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(own, batch["index"])

            def of_one(key, x):
                return masked_iwae(problem.vae.model, params, key, x, count, most)

            return jnp.mean(jax.vmap(of_one)(keys, batch["x"]))

        values = jax.vmap(of_member)(params, counts, seeds)
        return -jnp.sum(values), (extra, {"bound": jnp.mean(values)})

    def init():
        starts = [build.init_params(problem, keys.of_training(seed)[0]) for _, seed in members]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)

    size = run.batch_size * len(members)
    return run._replace(loss_fn=loss_fn, init=init, batch_size=size, ema_decay=0.0)


def masked_iwae(
    model: bounds.LatentModel, params: Any, key: Array, x: Array, count: Array, most: int
) -> Array:
    """IWAE by the first `count` of `most` samples, where `count` may be traced."""
    log_w = bounds.log_weights(model, params, key, x, num_samples=most)
    kept = jnp.where(jnp.arange(most) < count, log_w, -jnp.inf)
    return bounds.iwae(kept) + jnp.log(most / count)
