"""experiments.diffusion: its loss, its rows, its pictures and what it refuses."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

import bounds
from configs import diffusion_digits, diffusion_images
from experiments.data import sets
from experiments.diffusion import build, evaluation, study, training
from experiments.runtime.errors import UserError
from experiments.studies import images, study


def tiny(**changes):
    config = diffusion_digits.get_config()
    config.network, config.width, config.fourier = "mlp", 16, (1,)
    config.seeds, config.num_steps, config.warmup_steps = (0, 1), 4, 1
    config.log_every, config.save_every, config.validation_samples = 2, 4, 2
    config.evaluation_images, config.evaluation_timesteps, config.sample_grid = 6, 12, 4
    for name, value in changes.items():
        config[name] = value
    return config


@pytest.fixture(scope="module")
def problem():
    return images.make_problem(tiny())


def made(problem, config, seed=0):
    own = study.settings(config, "vdm", seed)
    model = build.make_model(problem, own)
    return own, model, training.make_run(problem, model, own)


def batch_of(problem, count=16):
    return {"x": jnp.asarray(images.as_images(problem.dataset.train[:count])),
            "index": jnp.arange(count)}  # fmt: skip


DDPM = {"schedule": "cosine", "timesteps": 12, "evaluation_timesteps": 0, "prediction": "eps"}
FINE = {"evaluation_timesteps": 400}  # close to continuous time
LOSSES = {
    "continuous": FINE, "discrete": {"timesteps": 12},
    "learned": {"schedule": "vdm_learned", **FINE},
    "ddpm": DDPM, "variance": {**DDPM, "variance": "learned"},
    "uniform": {**DDPM, "times": "uniform", "decoder": "logistic"},
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [pytest.param(v, id=k, marks=[pytest.mark.slow] * (k in ("discrete", "variance", "uniform")))
     for k, v in LOSSES.items()],
)  # fmt: skip
def test_loss_is_minus_the_bound_in_expectation(problem, changes):
    """Its mean over many steps' keys, against every term of the same images."""
    config = tiny(dropout=0.0, **changes)
    _, model, run = made(problem, config)
    params, batch = run.init(), batch_of(problem)
    keys = jax.random.split(jax.random.key(5), 400)
    losses = jax.jit(
        jax.vmap(lambda k: run.loss_fn(params, run.extra, batch, k, jnp.asarray(0))[0])
    )(keys)
    losses = np.asarray(losses, np.float64)
    terms = evaluation.terms(model, params, problem.dataset.train[:16], jax.random.key(6), config)
    whole = terms.reconstruction - terms.prior - terms.diffusion.sum(-1)
    error = losses.std(ddof=1) / np.sqrt(len(losses))
    slack = 0.01 * abs(whole.mean()) + whole.std() / 4  # one draw of noise for each image
    assert abs(losses.mean() + whole.mean()) < 4.5 * error + slack
    assert losses.std() > 0


@pytest.mark.slow
def test_schedule_of_continuous_time_learns_from_the_variance_alone(problem):
    config = tiny(schedule="vdm_learned", dropout=0.0)
    _, _, run = made(problem, config)
    params, batch = run.init(), batch_of(problem)
    plain = tiny(dropout=0.0)
    _, _, plain_run = made(problem, plain)
    key = jax.random.key(0)

    def loss(params, key):
        return run.loss_fn(params, (), batch, key, 0)[0]

    grads = jax.jit(jax.grad(loss))(params, key)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(grads["schedule"]))
    # The network's gradient is that of the bound with the schedule as it is.
    estimate = jax.vmap(bounds.continuous_estimate, (None, None, 0, 0, 0))
    time_key, rest = jax.random.split(jax.random.clone(key))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(rest, batch["index"])
    keys = jax.vmap(lambda k: jax.random.split(k)[1])(keys)
    times = bounds.low_discrepancy_times(time_key, 16)
    made_model = build.make_model(problem, study.settings(config, "vdm", 0))

    def by_hand(params):
        fixed = {**params, "schedule": jax.lax.stop_gradient(params["schedule"])}
        diffusion = made_model.make(fixed, None, 0).model
        return -jnp.mean(estimate(diffusion, fixed, keys, batch["x"], times).value)

    expected = jax.jit(jax.grad(by_hand))(params)["network"]
    for a, b in zip(jax.tree.leaves(grads["network"]), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)

    def mean_square(params):
        diffusion = made_model.make(params, None, 0).model
        found = estimate(diffusion, params, jax.random.clone(keys), batch["x"], times)
        return jnp.mean(jnp.square(found.term))

    square, slope = jax.jit(jax.value_and_grad(mean_square))(params)
    for a, b in zip(*map(jax.tree.leaves, (grads["schedule"], slope["schedule"])), strict=True):
        np.testing.assert_allclose(a, b / (np.sqrt(square) + 1), atol=1e-3, rtol=1e-3)
    assert plain_run.extra == ()


@pytest.mark.slow
def test_importance_remembers_the_losses_of_the_steps_it_drew(problem):
    config = tiny(timesteps=5, times="importance", dropout=0.0)
    _, _, run = made(problem, config)
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
        _, _, run = made(problem, tiny(dropout=dropout))
        params = jax.tree.map(lambda leaf: leaf + 0.05, run.init())
        losses.append(run.loss_fn(params, (), batch_of(problem), jax.random.key(0), 0)[0])
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.slow
def test_samples_are_made_of_the_end_of_the_chain(problem):
    """A network that says every pixel is 5 draws nothing else."""
    config = tiny(prediction="x", evaluation_timesteps=6)
    _, model, run = made(problem, config)
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
    config = tiny(**DDPM, objective="simple", dropout=0.0)
    _, _, run = made(problem, config)
    loss, (_, metrics) = run.loss_fn(run.init(), (), batch_of(problem), jax.random.key(0), 0)
    # A network that starts at zero predicts no noise at all: the mean square of a normal.
    assert abs(float(loss) - 1) < 6 * np.sqrt(2 / (16 * 64))
    assert metrics["squared_error"] == loss


def test_parts_of_the_bound_add_up_in_the_rows(problem):
    config = tiny()
    _, model, run = made(problem, config)
    params = run.init()
    rows = evaluation.rows(problem, model, params, {"model": "vdm"}, config)
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
    fine = tiny(evaluation_timesteps=1000)
    fine_model = made(problem, fine)[1]
    images = problem.dataset.test[:6]
    whole = bounds.diffusion_bound(
        bounds.DiffusionTerms(
            *evaluation.terms(fine_model, params, images, jax.random.key(8), fine)
        )
    )
    error = np.hypot(0.02, limit["value"] * 0.02)  # of one draw for each of six images
    assert abs(problem.bits(whole).mean() - limit["value"]) < error
    steps = [r for r in rows if r["name"] == "KL of a step"]
    assert [r["at"]["t"] for r in steps] == list(range(1, 13))
    np.testing.assert_allclose(
        sum(r["value"] for r in steps) / (64 * np.log(2)), bits["diffusion"]["value"], rtol=1e-5
    )
    measured = evaluation.single_time(problem, model, params, {"model": "vdm"}, config)
    *single, everything = measured
    assert [r["name"] for r in single] == [
        "one time, uniform", "one time, low_discrepancy", "one time, importance"
    ]  # fmt: skip
    for r in single:
        assert abs(r["value"] - everything["value"]) < 6 * r["standard_error"] + 0.02 * r["value"]


@pytest.mark.slow
def test_validation_never_looks_at_test_images_and_has_no_dropout(problem):
    wet, dry = tiny(dropout=0.9), tiny(dropout=0.0)
    blank = problem.dataset._replace(test=np.zeros_like(problem.dataset.test))
    params = made(problem, wet)[2].init()
    params = jax.tree.map(lambda leaf: leaf + 0.02, params)
    values = []
    for data_set, config in ((problem.dataset, wet), (blank, wet), (blank, dry)):
        seen = problem._replace(dataset=data_set)
        own, model, _ = made(problem, config)
        validate = training.validation(seen, model, own)
        assert validate is not None
        values.append(validate(params))
    np.testing.assert_allclose(values, values[0], rtol=1e-6)


def test_noising_strip_goes_from_the_image_to_noise(problem):
    _, model, run = made(problem, tiny())
    strip = evaluation.noised(model, run.init(), jax.random.key(0), problem.dataset.test[:3])
    assert strip.shape == (3, evaluation.KEPT, 8, 8, 1)
    x = images.as_images(problem.dataset.test[:3]) / 8 - 1
    np.testing.assert_allclose(strip[:, 0], x, atol=1e-6)
    like = [np.corrcoef(strip[:, k].ravel(), x.ravel())[0, 1] for k in range(evaluation.KEPT)]
    assert like[1] > 0.99
    assert abs(like[-1]) < 0.4


def test_program_trains_scores_draws_and_goes_on(tmp_path, capsys, monkeypatch):
    from experiments.diffusion import __main__ as diffusion

    flags.FLAGS.mark_as_parsed()
    config = tiny()
    workdir = str(tmp_path)
    diffusion.main(config, workdir)
    said = capsys.readouterr().out
    assert "upper_bound" in said
    assert "reconstruction" in said
    with open(os.path.join(workdir, "results.json")) as file:
        record = json.load(file)
    assert {r["kind"] for r in record["rows"]} == {
        "upper_bound",
        "lower_bound",
        "estimate",
        "exact",
    }
    for seed in (0, 1):
        for name in ("samples", "denoising", "noising"):
            assert os.path.getsize(os.path.join(workdir, f"vdm_seed{seed}", f"{name}.png")) > 0
    assert os.path.exists(os.path.join(workdir, "figure.svg"))

    def fail(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(study, "train_members", fail)
    diffusion.main(config, workdir)
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schedule": "sigmoid"}, "config.schedule must be one of"),
        ({"network": "resnet"}, "config.network must be one of"),
        ({"prediction": "score"}, "prediction must be one of"),
        ({"gamma_min": 5.0, "gamma_max": -5.0}, "gamma_min must be below gamma_max"),
        ({"evaluation_timesteps": 0}, "at least 1 where config.timesteps is 0"),
        ({"variance": "learned"}, "must be fixed_small with a schedule of continuous time"),
        ({"schedule": "cosine"}, "config.timesteps must be at least 2"),
        ({"schedule": "linear", "timesteps": 10, "evaluation_timesteps": 0}, "take more steps"),
        ({**DDPM, "evaluation_timesteps": 7}, "another number of steps"),
        ({**DDPM, "variance": "small"}, "fixed_small, fixed_large, learned"),
        ({"timesteps": -1}, "config.timesteps must be a whole number"),
        ({"objective": "simple"}, "needs steps"),
        ({**DDPM, "objective": "simple", "variance": "learned"}, "trains neither a variance"),
        ({"attention": ("a",)}, "config.attention must hold whole numbers"),
        ({"fourier": (3.5,)}, "config.fourier must hold whole numbers"),
        ({"decoder": "tanh"}, "config.decoder must be one of"),
        ({"objective": "elbow"}, "config.objective must be one of"),
        ({"times": "importance"}, "config.times=importance needs steps"),
        ({"times": "often"}, "config.times must be one of"),
        ({"dropout": 1.0}, "config.dropout must be in"),
        ({"network": "unet", "width": 12}, "multiple of 8"),
        ({"network": "unet", "width": 8, "multipliers": ()}, "config.multipliers"),
        ({"network": "unet", "width": 8, "attention": (2,)}, "config.attention"),
        ({"batch_size": 0}, "config.batch_size"),
        ({"images_per_pass": 0}, "config.images_per_pass"),
    ],
)
def test_wrong_settings_are_one_sentence(problem, changes, said):
    config = tiny()
    for name, value in changes.items():
        config[name] = value
    with pytest.raises(UserError, match=said):
        study.check(problem, config, study.points(config))


def test_pixels_outside_the_levels_are_refused():
    images = np.full((4, 2, 2), 9, np.uint8)
    with pytest.raises(UserError, match=r"pixels must be 0 \.\. 3"):
        images.check_images(sets.Dataset("wild", images, images, images, 4))


@pytest.mark.slow
@pytest.mark.parametrize("name", diffusion_images.VARIANTS)
def test_configs_of_larger_images_make_their_models(name):
    config = diffusion_images.get_config(name)
    shape = (32, 32, 3) if name.startswith("cifar") else (28, 28, 1)
    images = np.zeros((130, *shape), np.uint8)
    problem = images.Problem(sets.Dataset(name, images, images, images, 256), shape)
    models = study.check(problem, config, study.points(config))
    assert models
