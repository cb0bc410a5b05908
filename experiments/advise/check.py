"""Trainings that check the advice: the plain estimator and the advised one at equal seconds.

Seconds are those of the processor, of all threads of this process: what else a shared machine does
does not count. The rate of each estimator is measured first, in turns, and fixes its steps; so one
seed differs from another by its numbers alone.
"""

import math
import time
from collections.abc import Callable

import jax
import numpy as np

import bounds
from experiments.advise import rows as made
from experiments.advise import subjects
from experiments.advise.settings import Advise
from experiments.data import batches
from experiments.runtime.keys import Purpose, key_for
from experiments.runtime.results import Row, row
from experiments.studies import held_out

NAMES = ("VAE", "dVAE")
MAKE: dict[str, Callable[[bounds.LatentModel, int], bounds.Objective]] = {
    "dreg": lambda model, k: bounds.dreg(model, num_samples=k),
    "rloo": lambda model, k: bounds.rloo(model, num_samples=k, bound=bounds.iwae),
    "ovis": lambda model, k: bounds.ovis(model, num_samples=k),
    "vimco": lambda model, k: bounds.vimco(model, num_samples=k),
    "pathwise": lambda model, k: bounds.pathwise(model, num_samples=k),
    "reinforce": lambda model, k: bounds.reinforce(model, num_samples=k),
}
PLAIN = {"VAE": "pathwise", "dVAE": "vimco"}
_ROUNDS, _CHUNK = 5, 50


def rows(name: str, found: list[Row], asked: Advise) -> list[Row]:
    """Trains with each seed and scores the test images; both estimators are of IWAE-K."""
    check = asked.check
    choice = next(
        r for r in found
        if r["name"] == made.CHOICE
        and r["at"]["model"] == name
        and (r["at"]["bound"], r["at"]["K"], r["at"]["of"]) == ("iwae", check.num_samples, "phi")
    )  # fmt: skip
    advised = choice["at"]["estimator"].split(" at ")[0]
    names = list(dict.fromkeys([PLAIN[name], advised]))
    of_images = subjects.images(asked, name)
    objectives = {n: MAKE[n](of_images.model, check.num_samples) for n in names}
    steps = _steps(of_images, objectives, asked)
    test = batches.prepare_all(
        of_images.prepare, of_images.dataset.test, key_for(asked.seed, Purpose.ADVICE_TEST)
    )
    out: list[Row] = []
    values: dict[str, list[float]] = {n: [] for n in names}
    for n in names:
        for seed in check.seeds:
            params = subjects.fitted(of_images, objectives[n], asked.training, seed, steps[n])
            scored = held_out.per_image(
                of_images.model, params, test, key_for(asked.seed, Purpose.ADVICE_SCORES),
                few=check.num_samples, many=check.test_samples,
            )  # fmt: skip
            values[n].append(float(np.mean(scored.iwae_many)))
        at = {"model": name, "estimator": n, "K": check.num_samples}
        out += [
            _over_seeds(f"test IWAE-{check.test_samples}", at, values[n], "nats", "lower_bound"),
            row("steps", at, kind="exact", unit="steps", value=steps[n], n=1, part="check"),
        ]
    if len(names) > 1:
        at = {"model": name, "estimator": f"{advised} - {names[0]}", "K": check.num_samples}
        gain = np.subtract(values[advised], values[names[0]])
        out.append(_over_seeds("difference, paired by seed", at, gain, "nats", "estimate"))
    return out


def _steps(of_images: subjects.Images, objectives: dict, asked: Advise) -> dict[str, int]:
    """Steps of each that take the seconds asked for, of the processor."""
    spent: dict[str, list[float]] = {name: [] for name in objectives}
    for name, objective in objectives.items():
        last = [0.0]

        def on_chunk(state, metrics, name=name, last=last):
            del metrics
            jax.block_until_ready(state.params)
            now = time.process_time()
            spent[name].append((now - last[0]) / _CHUNK)
            last[0] = now

        last[0] = time.process_time()
        subjects.fitted(of_images, objective, asked.training, 0, _CHUNK * (_ROUNDS + 1), on_chunk)
    # The first chunk was compiled as well.
    return {
        name: max(_CHUNK, math.floor(asked.check.seconds / float(np.median(times[1:]))))
        for name, times in spent.items()
    }


def _over_seeds(name: str, at: dict, values, unit: str, kind) -> Row:
    values = np.asarray(values, float)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
    return row(
        name, at, kind=kind, unit=unit, value=float(values.mean()), standard_error=error,
        n=len(values), part="check", over="seeds",
    )  # fmt: skip
