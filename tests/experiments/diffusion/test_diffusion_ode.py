"""experiments.diffusion: rows of the probability-flow ODE, its noise, flow matching."""

import json
import math
import os

import diffusion_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusion_cases import DRY, batch_of, made, tiny

import bounds
from experiments.diffusion import __main__ as diffusion
from experiments.diffusion import build, noise, ode
from experiments.diffusion.settings import Diffusion
from experiments.runtime.errors import UserError
from experiments.runtime.settings import dump, parse
from experiments.studies import comparable

ODE = {
    "noises": ("uniform", "truncated_normal", "learned"), "num_samples": (1, 4), "num_images": 3,
    "path": "vp", "num_steps": 4, "largest_error": 1.0, "trace": "exact", "noise_steps": 2,
}  # fmt: skip
STRAIGHT = {
    "chain": {"schedule": "straight", "prediction": "velocity"},
    "objective": {"name": "flow_matching"},
}


@pytest.fixture(scope="module")
def problem():
    return diffusion_cases.digits()


def asking(**changes):
    return tiny(evaluation={"ode": {**ODE, **changes}}, network=DRY)


def test_rows_of_a_network_that_predicts_nothing_are_known(problem, tmp_path):
    """v_hat = 0 leaves z where it is, and p(z_0) standard normal: the bound by uniform noise."""
    wanted = {"noises": ("uniform", "truncated_normal"), "num_samples": (1, 32)}
    asked = asking(**wanted)
    model, run = made(problem, asked)
    trained, at = asked.of_model("vdm"), {"model": "vdm", "seed": 0}
    rows = ode.rows(problem, model, trained, run.init(), at, asked, str(tmp_path))
    found = {(r["at"]["noise"], r["at"]["k"]): r for r in rows if r["name"] == "ODE"}
    assert len(found) == 4
    x = problem.dataset.test[:3].reshape(3, -1).astype(np.float64) / 8 - 1
    alpha, sigma = (math.sqrt(1 / (1 + math.exp(s * -8.0))) for s in (1, -1))
    width = 1 / 8

    def bound(variance, entropy):
        """Of noise of that variance, in levels, and that entropy, per pixel in nats."""
        squares = alpha**2 * (x**2 + width**2 * variance)
        log_p = -0.5 * (squares + math.log(2 * math.pi)) + math.log(alpha * width)
        return problem.bits((log_p + entropy).sum(-1)).mean()

    one = found["uniform", 1]
    np.testing.assert_allclose(one["value"], bound(1 / 12, 0.0), atol=2e-3)
    scale = sigma / alpha / width  # the cell cuts off 6e-4 of it
    entropy = 0.5 * math.log(2 * math.pi * math.e * scale**2)
    wide = found["truncated_normal", 1]
    np.testing.assert_allclose(wide["value"], bound(scale**2, entropy), atol=2e-2)
    for name in wanted["noises"]:
        assert found[name, 32]["value"] < found[name, 1]["value"]
    for r in found.values():
        assert (r["kind"], r["unit"], r["evaluations"]) == ("upper_bound", "bits/dim", 16)
        assert r["solver_error"] < 1e-4
        assert r["not_converged"] == 0


def test_the_learned_noise_starts_uniform_and_nears_the_posterior(problem):
    """Against a score that says z_0 is the datum with the noise of gamma(0)."""
    asked = asking()
    model, trained = build.make_model(problem, asked.of_model("vdm")), asked.of_model("vdm")
    learned = noise.make_noise("learned", problem.levels, trained.chain.gamma_min).make(None)
    run = noise.make_run(
        problem, model, trained, asked.evaluation.ode, made(problem, asked)[1].init(), 0
    )
    phi, x = run.init(), batch_of(problem)["x"][0]
    v, log_q = learned.propose(phi, jax.random.key(0), x)
    slope = jnp.sum(jax.nn.log_sigmoid(v) + jax.nn.log_sigmoid(-v))
    np.testing.assert_allclose(log_q, slope, rtol=1e-5)
    loss, _ = run.loss_fn(phi, (), batch_of(problem), jax.random.key(1), 0)
    assert np.isfinite(loss)


def test_flow_matching_trains_the_velocity(problem):
    """A network that says 0 has the mean square of eps - x as its loss."""
    asked = tiny(network=DRY, **STRAIGHT)
    _, run = made(problem, asked)
    batch = batch_of(problem, 64)
    losses = [run.loss_fn(run.init(), (), batch, jax.random.key(seed), 0)[0] for seed in range(8)]
    x = np.asarray(batch["x"]) / 8 - 1
    assert np.mean(losses) == pytest.approx(1 + np.mean(x**2), rel=0.02)


def test_program_prints_the_ode_beside_the_bound(tmp_path, capsys):
    asked = tiny(
        seeds=(0,), models={"flow": STRAIGHT}, network=DRY,
        evaluation={"ode": {**ODE, "noises": ("uniform", "learned"), "num_images": 2}},
    )  # fmt: skip
    workdir = str(tmp_path)
    diffusion.main(asked, workdir)
    said = capsys.readouterr().out
    assert "another model than the ELBO's" in said
    with open(os.path.join(workdir, "results.json")) as file:
        rows = json.load(file)["rows"]
    shown = {(r["at"]["model"], r["name"]) for r in comparable.rows(rows)}
    assert os.path.getsize(os.path.join(workdir, "flow_seed0", "ode_samples.png")) > 0
    assert {("flow", "ODE, uniform noise"), ("flow", "ODE, learned noise")} <= shown
    assert ("flow", "ODE - ELBO, T = infinity") not in shown


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_steps": 5}, r"ode.*num_steps must be even"),
        ({"num_samples": (2, 8)}, "must rise from 1"),
        ({"trace": "hutchinson"}, r"num_samples must be \(1,\) with trace=hutchinson"),
        ({"noises": ("normal",)}, r"noises\[0\] must be 'uniform', 'truncated_normal' or"),
        ({"noises": ()}, "noises"),
        ({"largest_error": 0.0}, "largest_error must be greater than 0"),
        ({"path": "subvp"}, "path must be 'vp' or 'straight'"),
        ({"noise_steps": 1}, r"warmup_steps must be below evaluation\.ode\.num_steps"),
    ],
)
def test_mistaken_fields_of_the_ode_are_named(changes, said):
    with pytest.raises(UserError, match=said):
        asking(**changes)


def test_a_model_of_discrete_time_has_no_ode():
    with pytest.raises(UserError, match="continuous time"):
        tiny(chain=diffusion_cases.DDPM, evaluation={"ode": ODE})


def test_a_run_without_the_section_is_the_run_it_was():
    asked = tiny()
    before = dump(asked)
    del before["evaluation"]["ode"]
    assert parse(Diffusion, before).evaluation == asked.evaluation
    assert bounds.diffusion.OdeLogProb.__doc__
