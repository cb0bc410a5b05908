"""One network under several schedules: one bound between the same ends, and who varies how much."""

import diffusion_cases
import jax
import numpy as np
import pytest
from diffusion_cases import DDPM, DRY, made, tiny

from experiments.diffusion import schedules
from experiments.runtime.errors import UserError

LIMIT = 4.5  # standard errors; one right program in 100,000 is beyond


@pytest.fixture(scope="module")
def measured():
    """(rows, the same with one schedule of another end) of a network that is far from trained."""
    problem = diffusion_cases.digits()
    asked = tiny(
        chain={"schedule": "vdm_learned"}, network=DRY,
        evaluation={"num_images": 100, "num_times": 16, "schedules": ("straight",)},
    )  # fmt: skip
    _, run = made(problem, asked)
    leaves, structure = jax.tree.flatten(run.init())
    rng = np.random.default_rng(0)
    leaves = [leaf + 0.3 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    params, trained = jax.tree.unflatten(structure, leaves), asked.of_model("vdm")
    under = schedules.under

    def shifted(problem, trained, schedule):
        if schedule == "straight":
            chain = trained.chain.model_copy(update={"gamma_min": -4.0})
            trained = trained.model_copy(update={"chain": chain})
        return under(problem, trained, schedule)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedules, "REPLICATES", 200)
        right = schedules.rows(problem, trained, params, {}, asked)
        patch.setattr(schedules, "under", shifted)
        patch.setattr(schedules, "SPREADS", ())
        return right, schedules.rows(problem, trained, params, {}, asked)


def of(rows, name, schedule):
    (found,) = (r for r in rows if (r["name"], r["at"]["schedule"]) == (name, schedule))
    return found


def z_of(rows):
    found = of(rows, schedules.DIFFERENCE, "straight")
    return found["value"] / found["standard_error"]


def test_the_bound_depends_on_the_ends_of_a_schedule_alone(measured):
    right, wrong = measured
    assert abs(z_of(right)) < LIMIT
    assert abs(z_of(wrong)) > LIMIT
    own, other = (of(right, schedules.BOUND, s)["value"] for s in ("vdm_learned", "straight"))
    difference = of(right, schedules.DIFFERENCE, "straight")["value"]
    assert other - own == pytest.approx(difference, abs=1e-6)
    assert not [r for r in right if r["name"] == schedules.DIFFERENCE and r["at"] == {
        "schedule": "vdm_learned"}]  # fmt: skip


def test_times_of_low_discrepancy_vary_less(measured):
    for schedule in ("vdm_learned", "straight"):
        wide, narrow = (
            of(measured[0], f"deviation by one time, {times}", schedule)
            for times in ("uniform", "low_discrepancy")
        )
        error = np.hypot(wide["standard_error"], narrow["standard_error"])
        assert wide["value"] - narrow["value"] > LIMIT * error


def test_the_error_of_a_deviation_is_that_of_normal_values():
    values = np.random.default_rng(0).normal(scale=3.0, size=100_000)
    found = schedules._deviation("uniform", {}, values)
    assert found["standard_error"] == pytest.approx(3 / np.sqrt(2 * 100_000), rel=0.02)
    assert abs(found["value"] - 3) < LIMIT * found["standard_error"]


def test_schedules_of_a_model_of_discrete_time_are_refused():
    with pytest.raises(UserError, match=r"schedules is of continuous time.*'vdm', cosine, is not"):
        tiny(chain=DDPM, evaluation={"schedules": ("straight",)})
