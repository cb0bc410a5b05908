"""experiments.masked: its losses, its rows and its pictures."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import bounds
from configs import masked_digits
from experiments.masked import __main__ as masked
from experiments.masked import build, evaluation, family, report, training
from experiments.masked.settings import Masked, Trained
from experiments.runtime.errors import UserError
from experiments.runtime.settings import merged, parse
from experiments.studies import images, program
from models import masked_tokens

TINY = {
    "seeds": (0,),
    "network": {"num_layers": 1, "width": 8, "num_heads": 2, "dropout": 0.0},
    "optimizer": {"warmup_steps": 1},
    "training": {"num_steps": 4, "validation_samples": 2},
    "records": {"log_every": 2, "save_every": 4},
    "evaluation": {
        "num_images": 6, "num_counts": 32, "steps": (1, 4), "num_orders": 3, "crop": (1, 2),
        "sample_grid": 4,
    },
}  # fmt: skip


def tiny(**changes):
    return parse(Masked, merged(merged(masked_digits.get_config().to_dict(), TINY), changes))


@pytest.fixture(scope="module")
def problem():
    return images.make_problem(tiny().data.name, "")


@pytest.fixture(scope="module")
def model(problem):
    return build.make_model(problem, tiny())


@pytest.fixture(scope="module")
def theta(model):
    """Away from its start, where it says the same of all tokens."""
    found = jax.jit(model.init)(jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf + 0.1 * jnp.sin(jnp.arange(leaf.size * 1.0)).reshape(
        leaf.shape), found)  # fmt: skip


def z_of(values, expected, error=0.0):
    return (values.mean() - expected) / np.hypot(values.std(ddof=1) / np.sqrt(values.size), error)


def test_losses_are_minus_the_bound_and_those_without_the_weight_are_not(problem, model, theta):
    x = problem.dataset.train[:16]
    batch = {"x": jnp.asarray(images.as_images(x)), "index": jnp.arange(16)}
    key = jax.random.key(1)
    many = jax.jit(jax.vmap(lambda k: jax.vmap(
        lambda x: bounds.masked.by_order(model.made(), theta, k, x).value
    )(jnp.asarray(build.tokens_of(x))).mean()))(jax.random.split(key, 100))  # fmt: skip
    many = np.asarray(many, np.float64)
    error = many.std(ddof=1) / 10
    for name, right in (("count", True), ("time", True), ("sum", False), ("mean", False)):
        loss = training.make_loss(model, tiny(objective={"name": name}))
        values = jax.jit(jax.vmap(lambda k: loss(theta, (), batch, k, 0)[0]))(  # noqa: B023
            jax.random.split(jax.random.key(2), 100)
        )
        z = abs(z_of(np.asarray(values, np.float64), -many.mean(), error))
        assert z < 4.5 if right else z > 20


def test_spread_counts_come_up_once_each():
    """In a batch as long as an image, and in as many estimates of one image."""
    model = masked_tokens.make_masked(levels=3, grid=(1, 2), layers=1, width=8, heads=2)
    theta = oracles.moved(model.init(jax.random.key(0)))
    x = jnp.asarray([2, 0])
    first, second, both = (
        float(jnp.sum(bounds.masked.token_log_probs(model.made(), theta, x, jnp.array(m))))
        for m in ((True, False), (False, True), (True, True))
    )
    assert abs(first - second) > 0.01
    loss = training.make_loss(model, tiny())
    batch = {"x": jnp.broadcast_to(x, (2, 2)), "index": jnp.arange(2)}
    for value in (
        lambda key: -loss(theta, (), batch, key, 0)[0],
        lambda key: training.elbo_by_counts(model.made(), theta, key, x, 2),
    ):
        found = jax.jit(jax.vmap(value))(jax.random.split(jax.random.key(1), 50))
        for one in np.asarray(found):
            assert min(abs(one - (v + both / 2)) for v in (first, second)) < 1e-4


def test_dropout_is_on_while_it_is_trained(problem, model, theta):
    x = problem.dataset.train[:2]
    batch = {"x": jnp.asarray(images.as_images(x)), "index": jnp.arange(2)}
    dropping = build.make_model(problem, tiny(network={"dropout": 0.5}))
    plain, dropped = (
        training.make_loss(of, tiny(network={"dropout": rate}))(
            theta, (), batch, jax.random.key(3), 0
        )[0]
        for of, rate in ((model, 0.0), (dropping, 0.5))
    )
    assert abs(plain - dropped) > 1e-3


def test_variances_of_a_crop_are_those_at_as_many_evaluations_as_it_has_pixels(
    problem, model, theta
):
    asked = tiny(evaluation={"crop": (1, 2)})
    x = build.tokens_of(problem.dataset.test[:3])
    rows = evaluation.crop_rows(problem, model, theta, x, {}, asked)
    found = {r["name"]: r["value"] for r in rows}
    expected = []
    for image in x:
        inside, of_crop = build.part_of(
            model, jnp.asarray(image), build.places_of_crop(problem, (1, 2))
        )
        own = of_crop(jnp.asarray(image))
        first, second, both = (
            np.asarray(bounds.masked.token_log_probs(inside, theta, own, jnp.array(m)), float)
            for m in ((True, False), (False, True), (True, True))
        )
        # Weights L/m of two masks of one pixel, each half as likely as that of both.
        one = np.var([2 * first[0], 2 * second[1], both.sum(), both.sum()])
        orders = np.var([both[0] + second[1], both[1] + first[0]])
        expected.append([one / 2, np.var([first[0], second[1]]), orders])
    names = ("count", "every count", "order")
    np.testing.assert_allclose(
        [found[f"variance by {name}"] for name in names], np.mean(expected, axis=0), rtol=2e-3
    )


def test_program_trains_scores_draws_and_goes_on(tmp_path, capsys, monkeypatch):
    asked, workdir = tiny(evaluation={"varied_images": 2}), str(tmp_path)
    monkeypatch.setattr(evaluation, "REPLICATES", 4)
    masked.main(asked, workdir)
    said = capsys.readouterr().out
    with open(os.path.join(workdir, "results.json")) as file:
        rows = json.load(file)["rows"]
    for name in ("samples", "infilling"):
        assert os.path.getsize(os.path.join(workdir, "masked_seed0", f"{name}.png")) > 0
    own = {(r["name"], r["at"].get("T"), r["unit"]): r for r in rows if r.get("point")}
    elbo = own["ELBO", None, "bits/dim"]
    nats = own["ELBO", None, "nats"]
    np.testing.assert_allclose(elbo["value"], -nats["value"] / (64 * np.log(2)), rtol=1e-5)
    assert (elbo["kind"], nats["kind"]) == ("upper_bound", "lower_bound")
    several = own["IWAE over orders", None, "bits/dim"]
    assert several["value"] < own["ELBO of these orders", None, "bits/dim"]["value"]
    gap = own["gap of a crop", None, "nats"]["value"]
    whole = own["log p of a crop", None, "nats"]["value"]
    np.testing.assert_allclose(whole - own["ELBO of a crop", None, "nats"]["value"], gap, rtol=1e-4)
    assert gap > 0
    # A barely trained network hardly looks at visible tokens: all forms see one bound.
    for form in evaluation.FORMS:
        found = own[f"by {form}", None, "bits/dim"]
        assert abs(found["value"] - elbo["value"]) < 0.15 * elbo["value"]
        assert found["deviation"] > 0
    assert "by every count" in said
    # Where none varies there is nothing to tell of it.
    without = [r for r in rows if not r["name"].startswith("by ")]
    problem = images.make_problem(asked.data.name, "")
    none = tiny(evaluation={"varied_images": 0})
    (tmp_path / "other").mkdir()
    report.show(problem, without, none, str(tmp_path / "other"))
    assert "By ...:" not in capsys.readouterr().out
    assert len(report.figure([r for r in without if "point" not in r], problem, 1).axes) == 1

    def fail(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(program, "train_members", fail)
    masked.main(asked, workdir)
    assert capsys.readouterr().out == said


def test_no_image_no_repeated_estimate(problem, model, theta):
    assert evaluation.varied(problem, model, theta, {}, tiny(evaluation={"varied_images": 0})) == []


def test_the_crop_is_the_middle_and_its_model_sees_the_rest(problem, model, theta):
    places = build.places_of_crop(problem, (2, 3))
    assert places.tolist() == [26, 27, 28, 34, 35, 36]
    x = jnp.asarray(build.tokens_of(problem.dataset.test[:1])[0])
    inside, of_crop = build.part_of(model, x, places)
    own = of_crop(x)
    np.testing.assert_array_equal(own, np.asarray(problem.dataset.test[0]).reshape(-1)[places])
    hidden = jnp.zeros(64, bool).at[places].set(True)
    whole = bounds.masked.token_log_probs(model.made(), theta, x, hidden)
    part = bounds.masked.token_log_probs(inside, theta, own, jnp.ones(6, bool))
    np.testing.assert_allclose(whole[places], part, rtol=1e-5)
    other, _ = build.part_of(model, (x + 1) % 17, places)
    elsewhere = bounds.masked.token_log_probs(other, theta, own, jnp.ones(6, bool))
    assert not np.allclose(part, elsewhere, rtol=1e-4)


def test_what_is_given_stays_in_the_pictures(problem, model, theta, tmp_path, monkeypatch):
    kept = {}
    monkeypatch.setattr(
        report.plots, "save_image", lambda folder, name, grid: kept.update({name: grid})
    )
    asked = tiny().evaluation
    report.draw(problem, model, theta, asked, str(tmp_path))
    strips = kept["infilling"]
    assert strips.shape[1] == 2 * (2 + report.FILLED) * 9
    first = strips[:8, :8]
    for number in range(2, 2 + report.FILLED):
        drawn = strips[:8, 9 * number : 9 * number + 8]
        np.testing.assert_array_equal(drawn[:4], first[:4])
        assert not np.array_equal(drawn[4:], first[4:])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": {"num_heads": 3}}, r"num_heads must divide width \(8\), got 3"),
        ({"objective": {"name": "elbo"}}, r"objective\.name must be 'count', 'time', 'sum' or"),
        ({"evaluation": {"crop": (4, 4)}}, "at most 12 pixels, whose subsets are all gone"),
        ({"evaluation": {"steps": (0,)}}, r"evaluation\.steps.0. must be at least 1, got 0"),
    ],
)
def test_mistaken_fields_are_named(changes, said):
    with pytest.raises(UserError, match=said):
        tiny(**changes)
    if "network" in changes:
        with pytest.raises(UserError, match=said):
            tiny(models={"masked": changes}).of_model("masked")


def test_images_that_do_not_fit_are_refused(problem):
    with pytest.raises(UserError, match="larger than an image of 8x8"):
        family.check(tiny(evaluation={"crop": (1, 9)}))
    coloured = problem._replace(shape=(8, 8, 3))
    with pytest.raises(UserError, match="has 3 channels; pixels are tokens"):
        build.make_model(
            coloured, parse(Trained, tiny().model_dump(include=set(Trained.model_fields)))
        )
