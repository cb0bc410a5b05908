"""A VAE in the comparison: trained by `experiments.train`, scored by `experiments.evaluate`."""

import math
from typing import Any

from experiments import evaluate, train
from experiments.runtime import results, subprograms
from experiments.runtime.errors import UserError
from experiments.runtime.results import Kind, Row
from experiments.studies.comparable import bound, mean, number
from experiments.studies.family import Family, Job
from experiments.vae import build, evaluation
from experiments.vae.settings import Evaluate, Train

# A bound in nats from below is one in bits from above.
_OTHER_SIDE: dict[Kind, Kind] = {
    "lower_bound": "upper_bound", "upper_bound": "lower_bound",
    "exact": "exact", "estimate": "estimate",
}  # fmt: skip
_BOUNDS = ("ELBO", "IWAE", "VR-IWAE", "AIS", "reverse AIS (BDMC)")


def check(job: Job) -> None:
    """Refuses what `train` or `evaluate` would, bits in the place of integers, and other images."""
    if job.settings.model.likelihood == "bernoulli":
        raise UserError(
            "it models binarised pixels, the other families integers; set model.likelihood to "
            "discretized_logistic or categorical."
        )
    if job.scoring.data.split != "test":
        raise UserError(f"a comparison is of test images, not of split={job.scoring.data.split}.")
    evaluation.check_start(job.scoring, job.settings)
    problem = build.make_problem(job.settings, job.settings.data_dir)
    if job.finished:
        if not build.finished(job.folder, build.run_of("run", job.folder)):
            raise UserError(
                f"{job.folder} has not come to its end: its training goes on; run "
                "experiments.train there again, with the same command."
            )
    else:
        build.make_run(problem, job.settings, job.settings.seed)


def run(job: Job) -> None:
    """Trains and evaluates what is missing."""
    if not job.finished:
        subprograms.run(f"{job.name}: training", train.main, job.settings, job.folder)
    subprograms.run(f"{job.name}: evaluation", evaluate.main, job.scoring, job.scoring_folder)


def rows(job: Job) -> list[Row]:
    """The rows of the evaluation, from nats to bits."""
    found = results.load(job.scoring_folder)["rows"]
    dataset = build.make_problem(job.settings, job.settings.data_dir).dataset
    scale = -1 / (math.prod(dataset.test.shape[1:]) * math.log(2))
    gap = next((r for r in found if r["name"] == "AIS gap"), None)
    size = mean(found, "parameters"), mean(found, "training time")
    objective = job.settings.objective
    model = objective.name + (f"-{objective.num_samples}" if objective.num_samples > 1 else "")
    out, seen = [], set()
    for r in found:
        simulated = r.get("data") == "simulated"
        name = _named(r)  # the same bound may come from two passes
        if r["name"] not in _BOUNDS or r["unit"] != "nats" or name in seen:
            continue
        seen.add(name)
        at = {k: v for k, v in r["at"].items() if k != "data"}
        out.append(
            bound(
                name,
                {"model": model, **at},
                kind=_OTHER_SIDE[r["kind"]],
                value=scale * number(r["value"]),
                standard_error=abs(scale) * number(r["standard_error"]),
                n=r["n"],
                data="simulated" if simulated else "test",
                **_paired(gap if r["name"] == "reverse AIS (BDMC)" else None, -scale),
                parameters=size[0],
                training_seconds=size[1],
                seconds_per_image=r["seconds"] / r["n"] if r.get("seconds") else None,
            )
        )
    # Sorted by bound and then by K, which is not the order in which they were measured.
    return sorted(
        out,
        key=lambda r: (
            r["data"] == "simulated",
            "AIS" in r["name"],
            r["at"].get("alpha", 0.0),
            r["at"].get("K", 0),
        ),
    )


def _paired(gap: Row | None, scale: float) -> dict[str, Any]:
    """How far AIS lies above reverse AIS in bits/dim, image by image."""
    if gap is None:
        return {}
    error = gap["standard_error"]
    return {
        "ais_above": scale * number(gap["value"]),
        "ais_above_error": None if error is None else scale * error,
    }


def _named(r: Row) -> str:
    """The name of a bound with its order alpha or number of temperatures, which tell it apart."""
    at, name = r["at"], r["name"]
    if "K" in at and name in ("IWAE", "VR-IWAE"):
        name = f"{name}-{at['K']}" if at["K"] > 1 else "ELBO"
        if "alpha" in at and at["K"] > 1:
            name += f", alpha = {at['alpha']:g}"
    if "T" in at and "AIS" in name:
        name += f", {at['T']} temperatures"
        name += f" from the {at['start']}" if "start" in at else ""
    return f"{name}, of simulated data" if r.get("data") == "simulated" else name


FAMILY = Family("train", Train, Evaluate, check, run, rows)
