"""experiments.diffusion: its loss, its rows and its pictures."""

import json
import os

import diffusion_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusion_cases import DDPM, DRY, batch_of, made, tiny

import bounds
from experiments.diffusion import __main__ as diffusion
from experiments.diffusion import build, evaluation, report, training
from experiments.studies import images, program, study


@pytest.fixture(scope="module")
def problem():
    return diffusion_cases.digits()


FINE = {"evaluation_timesteps": 400}  # close to continuous time
LOSSES = {
    "continuous": {"chain": FINE},
    "discrete": {"chain": {"timesteps": 12}},
    "learned": {"chain": {"schedule": "vdm_learned", **FINE}},
    "ddpm": {"chain": DDPM},
    "variance": {"chain": {**DDPM, "variance": "learned"}},
    "uniform": {"chain": {**DDPM, "decoder": "logistic"}, "objective": {"times": "uniform"}},
}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(v, id=k, marks=[pytest.mark.slow] * (k in ("discrete", "variance", "uniform")))
        for k, v in LOSSES.items()
    ],
)
def test_loss_is_minus_the_bound_in_expectation(problem, changes):
    """Its mean over many steps' keys, against every term of the same images."""
    model, run = made(problem, tiny(network=DRY, **changes))
    params, batch = run.init(), batch_of(problem)
    keys = jax.random.split(jax.random.key(5), 400)
    losses = jax.jit(
        jax.vmap(lambda k: run.loss_fn(params, run.extra, batch, k, jnp.asarray(0))[0])
    )(keys)
    losses = np.asarray(losses, np.float64)
    terms = evaluation.terms(model, params, problem.dataset.train[:16], jax.random.key(6), 100)
    whole = terms.reconstruction - terms.prior - terms.diffusion.sum(-1)
    error = losses.std(ddof=1) / np.sqrt(len(losses))
    slack = 0.01 * abs(whole.mean()) + whole.std() / 4  # one draw of noise for each image
    assert abs(losses.mean() + whole.mean()) < 4.5 * error + slack
    assert losses.std() > 0


@pytest.mark.slow
def test_schedule_of_continuous_time_learns_from_the_variance_alone(problem):
    model, run = made(problem, tiny(chain={"schedule": "vdm_learned"}, network=DRY))
    params, batch = run.init(), batch_of(problem)
    key = jax.random.key(0)

    def loss(params, key):
        return run.loss_fn(params, (), batch, key, 0)[0]

    grads = jax.jit(jax.grad(loss))(params, key)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(grads["schedule"]))
    # The network's gradient is that of the bound with the schedule as it is.
    estimate = jax.vmap(bounds.diffusion.continuous_estimate, (None, None, 0, 0, 0))
    time_key, rest = jax.random.split(jax.random.clone(key))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(rest, batch["index"])
    keys = jax.vmap(lambda k: jax.random.split(k)[1])(keys)
    times = bounds.diffusion.low_discrepancy_times(time_key, 16)

    def by_hand(params):
        fixed = {**params, "schedule": jax.lax.stop_gradient(params["schedule"])}
        diffusion = model.make(fixed, None, 0).model
        return -jnp.mean(estimate(diffusion, fixed, keys, batch["x"], times).value)

    expected = jax.jit(jax.grad(by_hand))(params)["network"]
    for a, b in zip(jax.tree.leaves(grads["network"]), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)

    def mean_square(params):
        diffusion = model.make(params, None, 0).model
        found = estimate(diffusion, params, jax.random.clone(keys), batch["x"], times)
        return jnp.mean(jnp.square(found.term))

    square, slope = jax.jit(jax.value_and_grad(mean_square))(params)
    for a, b in zip(*map(jax.tree.leaves, (grads["schedule"], slope["schedule"])), strict=True):
        np.testing.assert_allclose(a, b / (np.sqrt(square) + 1), atol=1e-3, rtol=1e-3)
    assert run.extra == ()


@pytest.mark.slow
def test_importance_remembers_the_losses_of_the_steps_it_drew(problem):
    _, run = made(
        problem, tiny(chain={"timesteps": 5}, objective={"times": "importance"}, network=DRY)
    )
    params, extra = run.init(), run.extra
    assert extra.shape == (6,)
    for number in range(3):
        key = jax.random.key(number)
        _, (extra, _) = run.loss_fn(params, extra, batch_of(problem, 64), key, 0)
    assert np.all(np.asarray(extra) > 0)
    before = np.asarray(extra)
    drawn = training._remember(
        jnp.array([4.0, 1.0, 0.0]), jnp.array([1, 1, 3]), jnp.array([1.0, 3.0, 2.0])
    )
    np.testing.assert_allclose(drawn, [0.9 * 4 + 0.1 * 5, 1.0, 4.0])
    assert before.shape == (6,)


@pytest.mark.slow
def test_dropout_acts_in_training(problem):
    losses = []
    for dropout in (0.0, 0.5):
        _, run = made(problem, tiny(network={"dropout": dropout}))
        params = jax.tree.map(lambda leaf: leaf + 0.05, run.init())
        losses.append(run.loss_fn(params, (), batch_of(problem), jax.random.key(0), 0)[0])
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.slow
def test_samples_are_made_of_the_end_of_the_chain(problem):
    """A network that says every pixel is 5 draws nothing else."""
    model, run = made(problem, tiny(chain={"prediction": "x", "evaluation_timesteps": 6}))
    params = run.init()
    value = 5 / 8 - 1
    out = params["network"]["params"]["out"]
    out["bias"] = jnp.full_like(out["bias"], value)
    images, chains = evaluation.sampled(model, params, jax.random.key(0), 5)
    np.testing.assert_array_equal(images, 5)
    assert chains.shape == (5, 7, 8, 8, 1)
    np.testing.assert_allclose(chains[:, -1], value, atol=0.15)
    assert chains[:, 0].std() > 0.8


def test_simple_objective_is_the_mean_squared_error_of_the_noise(problem):
    _, run = made(problem, tiny(chain=DDPM, objective={"name": "simple"}, network=DRY))
    loss, (_, metrics) = run.loss_fn(run.init(), (), batch_of(problem), jax.random.key(0), 0)
    # A network that starts at zero predicts no noise at all: the mean square of a normal.
    assert abs(float(loss) - 1) < 6 * np.sqrt(2 / (16 * 64))
    assert metrics["squared_error"] == loss


def test_parts_of_the_bound_add_up_in_the_rows(problem):
    asked = tiny()
    model, run = made(problem, asked)
    params = run.init()
    rows = evaluation.rows(problem, model, params, {"model": "vdm"}, asked)
    bits = {r["name"]: r for r in rows if r["unit"] == "bits/dim"}
    total = sum(bits[name]["value"] for name in ("prior", "diffusion", "reconstruction"))
    np.testing.assert_allclose(bits["ELBO"]["value"], total, rtol=1e-6)
    assert bits["ELBO"]["kind"] == "upper_bound"
    assert bits["ELBO"]["standard_error"] > 0
    nats = next(r for r in rows if r["unit"] == "nats" and r["name"] == "ELBO")
    assert nats["kind"] == "lower_bound"
    np.testing.assert_allclose(-nats["value"] / (64 * np.log(2)), total, rtol=1e-6)
    limit = bits["ELBO, T = infinity"]
    assert limit["kind"] == "upper_bound"
    fine = build.make_model(problem, tiny(chain={"evaluation_timesteps": 1000}))
    terms = evaluation.terms(fine, params, problem.dataset.test[:6], jax.random.key(8), 100)
    whole = bounds.diffusion.bound(bounds.diffusion.Terms(*terms))
    error = np.hypot(0.02, limit["value"] * 0.02)  # of one draw for each of six images
    assert abs(problem.bits(whole).mean() - limit["value"]) < error
    steps = [r for r in rows if r["name"] == "KL of a step"]
    assert [r["at"]["t"] for r in steps] == list(range(1, 13))
    np.testing.assert_allclose(
        sum(r["value"] for r in steps) / (64 * np.log(2)), bits["diffusion"]["value"], rtol=1e-5
    )
    measured = evaluation.single_time(problem, model, params, {"model": "vdm"}, asked)
    *single, everything = measured
    assert [r["name"] for r in single] == [
        "one time, uniform",
        "one time, low_discrepancy",
        "one time, importance",
    ]
    for r in single:
        assert abs(r["value"] - everything["value"]) < 6 * r["standard_error"] + 0.02 * r["value"]
    by_seed = [
        {**r, "at": {**r["at"], "seed": seed}, "deviation": (1 + seed) * r["deviation"]}
        for r in single
        for seed in (0, 1)
    ]
    for r, summary in zip(single, study.summarize(by_seed, ()), strict=True):
        np.testing.assert_allclose(summary["deviation"], 1.5 * r["deviation"])


@pytest.mark.slow
def test_validation_never_looks_at_test_images_and_has_no_dropout(problem):
    wet, dry = tiny(network={"dropout": 0.9}), tiny(network=DRY)
    blank = problem.dataset._replace(test=np.zeros_like(problem.dataset.test))
    params = made(problem, wet)[1].init()
    params = jax.tree.map(lambda leaf: leaf + 0.02, params)
    values = []
    for data_set, asked in ((problem.dataset, wet), (blank, wet), (blank, dry)):
        seen = problem._replace(dataset=data_set)
        validate = training.validation(seen, build.make_model(problem, asked), asked, 0)
        assert validate is not None
        values.append(validate(params))
    np.testing.assert_allclose(values, values[0], rtol=1e-6)


def test_noising_strip_goes_from_the_image_to_noise(problem):
    model, run = made(problem, tiny())
    strip = evaluation.noised(model, run.init(), jax.random.key(0), problem.dataset.test[:3])
    assert strip.shape == (3, evaluation.KEPT, 8, 8, 1)
    x = images.as_images(problem.dataset.test[:3]) / 8 - 1
    np.testing.assert_allclose(strip[:, 0], x, atol=1e-6)
    like = [np.corrcoef(strip[:, k].ravel(), x.ravel())[0, 1] for k in range(evaluation.KEPT)]
    assert like[1] > 0.99
    assert abs(like[-1]) < 0.4


def test_program_trains_scores_draws_and_goes_on(tmp_path, capsys, monkeypatch):
    asked, workdir = tiny(), str(tmp_path)
    diffusion.main(asked, workdir)
    said = capsys.readouterr().out
    assert "upper_bound" in said
    assert "reconstruction" in said
    with open(os.path.join(workdir, "results.json")) as file:
        record = json.load(file)
    kinds = {r["kind"] for r in record["rows"]}
    assert kinds == {"upper_bound", "lower_bound", "estimate", "exact"}
    for seed in (0, 1):
        for name in ("samples", "denoising", "noising"):
            assert os.path.getsize(os.path.join(workdir, f"vdm_seed{seed}", f"{name}.png")) > 0
    assert os.path.exists(os.path.join(workdir, "figure.svg"))

    def fail(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(program, "train_members", fail)
    diffusion.main(asked, workdir)
    assert capsys.readouterr().out == said


def _bits_of(model, **values):
    at = {"model": model}
    rows = [{"name": n, "at": at, "unit": "bits/dim", "value": v} for n, v in values.items()]
    step = {"name": "KL of a step", "at": {**at, "t": 2, "T": 4}, "unit": "nats", "value": 1.0}
    return [*rows, step]


def test_figure_stacks_the_parts_of_bounds_and_takes_one_bound_apart(problem):
    one = _bits_of("a", prior=0.25, diffusion=1.0, reconstruction=0.5, ELBO=1.75)
    two = _bits_of("b", prior=0.25, diffusion=2.0, reconstruction=0.5, ELBO=2.75)

    def bars(rows):
        axes = report.figure(rows, problem, 1).axes[1]
        return [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches]

    assert bars(one) == [(0, 0.25), (0.25, 1.25), (1.25, 1.75), (0, 1.75)]
    assert bars(one + two) == [
        (0, 0.25),
        (0, 0.25),
        (0.25, 1.25),
        (0.25, 2.25),
        (1.25, 1.75),
        (2.25, 2.75),
    ]
