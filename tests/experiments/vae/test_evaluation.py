"""Evaluation on a VAE whose log p(x) is known: two latent dimensions, integrated on a grid.

Each z-test fails a right program once in 100,000 seeds; a known-wrong result must fail it.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gauss_hermite, z_limit
from scipy import stats
from train_cases import problem_of, tiny, tiny_evaluation

import bounds
from experiments.runtime.keys import Purpose, key_for
from experiments.studies import held_out
from experiments.vae import evaluation, sandwich
from experiments.vae.active_units import active_units
from experiments.vae.settings import Annealing
from models.vae import make_vae

PIXELS, LATENTS = 12, 2
MODEL = make_vae(PIXELS, latents=(LATENTS,), hidden=((8,),))


@functools.cache
def params():
    """Rough enough for q to miss the posterior; q is wide, so that weights have moments."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), np.ones(PIXELS, np.float32))
    drawn = jax.tree.map(lambda p: (0.7 * rng.normal(size=p.shape)).astype(np.float32), shapes)
    encoder = drawn.phi[0]["params"]
    encoder["mean"]["kernel"] *= 0.3
    encoder["log_scale"] = {"kernel": np.zeros((8, LATENTS), np.float32),
                            "bias": np.full(LATENTS, 0.1, np.float32)}  # fmt: skip
    return drawn


@functools.cache
def exact_program(num_nodes):
    z, mass = gauss_hermite(num_nodes, LATENTS)

    def log_p_x(theta, x):
        log_joint = jax.vmap(lambda z: MODEL.model.log_p(theta, x, (z,)))(z)
        log_prior = -0.5 * jnp.sum(jnp.square(z) + jnp.log(2 * jnp.pi), axis=1)
        return jax.nn.logsumexp(log_joint - log_prior + jnp.log(mass))

    return jax.jit(jax.vmap(log_p_x, (None, 0)))


@functools.cache
def simulated():
    """(images, latents, exact log p(x)) of draws from the model."""
    images, latents = sandwich.simulated(MODEL, params(), jax.random.key(0), 600)
    exact = np.asarray(exact_program(40)(params().theta, images), np.float64)
    np.testing.assert_allclose(exact, exact_program(60)(params().theta, images), atol=1e-4)
    return images, latents, exact


def z_score(values, expected=0.0):
    values = np.asarray(values, np.float64) - expected
    return values.mean() / (values.std(ddof=1) / np.sqrt(len(values)))


@functools.cache
def measured():
    return held_out.per_image(
        MODEL.model, params(), simulated()[0][:300], jax.random.key(1), few=4, many=2000,
        images_per_pass=50, samples_per_pass=500,
    )  # fmt: skip


# --- bounds per image -------------------------------------------------------------------------


def test_iwae_is_the_exact_answer_within_the_errors_it_states():
    """Chi-square of 300 images; wrong by log 2, or with half the stated error, it fails."""
    exact = simulated()[2][:300]
    assert measured().reliable.mean() > 0.9

    def p_values(value, error):
        standardized = (value.astype(np.float64) - exact) / error
        total = np.sum(standardized**2)
        return stats.chi2.cdf(total, 300), stats.chi2.sf(total, 300)

    def honest(value, error):
        return min(p_values(value, error)) > 5e-6

    value, error = measured().iwae_many, measured().monte_carlo_error
    assert honest(value, error)
    assert not honest(value, error / 2)
    assert not honest(value, error * 2)
    assert not honest(value - np.log(2), error)
    # The mean too; its bias -variance / 2 is far below its error.
    combined = np.linalg.norm(error.astype(np.float64)) / 300
    assert abs(np.mean(value - exact)) < z_limit(1) * combined


def test_bounds_are_in_order():
    """Of the same samples, always; against more of them, and the truth, on average."""
    assert np.all(measured().elbo <= measured().iwae_few + 1e-5)
    exact, limit = simulated()[2][:300], z_limit(1)
    assert z_score(measured().iwae_few - measured().elbo) > limit
    assert z_score(exact - measured().iwae_few) > limit
    # E[estimate / p(x)] = 1, of 4 samples as of any number.
    ratio = np.exp(measured().iwae_few - exact)
    assert abs(z_score(ratio, 1.0)) < limit
    assert abs(z_score(2 * ratio, 1.0)) > limit


def test_passes_change_nothing():
    """Passes of 3 leave one image for the last, which is padded; 30 does not divide K = 100."""
    images = simulated()[0][[0, 1, 2, 3, 4, 5, 0]]
    run = functools.partial(
        held_out.per_image, MODEL.model, params(), images, jax.random.key(1), few=8, many=100
    )
    got = run(images_per_pass=3, samples_per_pass=30)
    expected = run(images_per_pass=20, samples_per_pass=100)
    for name in held_out.PerImage._fields:
        value = getattr(got, name)
        assert value.shape == (7,)
        np.testing.assert_allclose(value, getattr(expected, name), rtol=2e-4, err_msg=name)
    # Each image has draws of its own: the last is the first again.
    assert got.iwae_many[0] != got.iwae_many[6]
    assert got.elbo[0] != got.elbo[6]


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_samples():
    vae = make_vae(200, latents=(20,), hidden=((100,),))
    shapes = jax.eval_shape(vae.init, jax.random.key(0), np.ones(200, np.float32))
    key = jax.eval_shape(lambda: jax.random.key(0))
    batch = (jax.ShapeDtypeStruct((10, 200), jnp.float32), jax.ShapeDtypeStruct((10,), jnp.int32))

    def temporary_bytes(many, samples_per_pass=250):
        program = held_out.evaluator(vae.model, 64, many, samples_per_pass)
        memory = program.lower(shapes, key, *batch).compile().memory_analysis()
        return memory.temp_size_in_bytes

    few = temporary_bytes(500)
    assert temporary_bytes(50_000) < 1.02 * few
    assert temporary_bytes(50_000, 2500) > 1.5 * few  # what does grow is seen


# --- rows -------------------------------------------------------------------------------------


def per_image_by_hand():
    elbo, few = np.array([-4.0, -6.0, -5.0, -9.0]), np.array([-3.0, -5.5, -4.5, -7.0])
    many = np.array([-2.5, -5.0, -4.0, -6.0])
    return held_out.PerImage(
        elbo, few, many, np.array([0.3, 0.4, 0.0, 1.2]), np.array([10.0, 20, 30, 40]),
        np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, True, True, False]),
    )  # fmt: skip


def test_rows_are_means_over_images_with_errors_over_images():
    values = per_image_by_hand()
    rows = {(r["name"], r["at"]["K"]): r for r in held_out.rows(values, few=64, many=5000)}
    assert [(*k, r["kind"], r["unit"]) for k, r in rows.items()] == [
        ("ELBO", 1, "lower_bound", "nats"),
        ("IWAE", 64, "lower_bound", "nats"),
        ("IWAE", 5000, "lower_bound", "nats"),
        ("-KL", 64, "estimate", "nats"),
        ("ESS", 5000, "estimate", "samples"),
        ("k-hat", 5000, "estimate", "shape"),
        ("reliable images", 5000, "estimate", "share"),
    ]
    assert all(r["n"] == 4 for r in rows.values())
    gap = rows["-KL", 64]
    # Paired: -0.5, -0.5, -0.5, -1; unpaired the error would be 1.1.
    np.testing.assert_allclose(gap["value"], -0.625)
    np.testing.assert_allclose(gap["standard_error"], 0.25 / 2)
    np.testing.assert_allclose(rows["ELBO", 1]["value"], -6.0)
    np.testing.assert_allclose(rows["ELBO", 1]["standard_error"], np.sqrt(14 / 3 / 4))
    np.testing.assert_allclose(rows["IWAE", 5000]["monte_carlo_error"], 1.3 / 4)
    np.testing.assert_allclose(rows["reliable images", 5000]["value"], 0.75)
    np.testing.assert_allclose(rows["reliable images", 5000]["standard_error"], 0.25)


def test_what_is_not_known_is_null():
    """One image has no error over images; nor has a value that is not finite."""
    one = held_out.PerImage(*(v[:1] for v in per_image_by_hand()))
    assert all(r["standard_error"] is None for r in held_out.rows(one, few=64, many=5000))
    hidden = per_image_by_hand()._replace(
        iwae_many=np.array([-1.0, -2, -3, -np.inf]), k_hat=np.full(4, np.nan),
        monte_carlo_error=np.array([0.1, 0.1, 0.1, np.nan]),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = {(r["name"], r["at"]["K"]): r for r in held_out.rows(hidden, few=64, many=5000)}
    iwae = rows["IWAE", 5000]
    assert (iwae["value"], iwae["standard_error"], iwae["monte_carlo_error"]) == (None,) * 3
    assert rows["k-hat", 5000]["value"] is None


# --- active units -----------------------------------------------------------------------------


def test_active_units_of_two_layers_by_hand():
    """Half the images are white. Means vary by gain * tanh(1), so the threshold is at 0.2626."""
    vae = make_vae(1, latents=(4, 3), hidden=((1,), (1,)))
    shapes = jax.eval_shape(vae.init, jax.random.key(0), np.ones(1, np.float32))
    phi = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes.phi)
    for layer, gains in zip(phi, ([0.0, 0.26, 0.27, -2.0], [0.1, 5.0, 0.0]), strict=True):
        weights = layer["params"]
        weights["hidden_0"]["kernel"][0] = 1.0
        weights["mean"]["kernel"][0] = gains
        weights["mean"]["bias"][:] = 30.0  # the mean over images does not count
        weights["log_scale"]["bias"][:] = -20.0  # nor, here, the draws
    # The second layer sees z1[0], 30 in every image, and is dead until it looks at z1[3].
    images = np.array([[0.0], [1.0]] * 30, np.float32)
    key = jax.random.key(0)
    threshold = 0.2 / np.tanh(1.0)
    assert 0.26 < threshold < 0.27
    found = active_units(vae, bounds.Params((), phi), images, key)
    assert [count for count, _ in found] == [2, 0]
    # 0.27 is so near that some sets of 60 images would put it on the other side.
    assert 0.2 < found[0][1] < 0.6
    assert found[1][1] == 0.0
    second = phi[1]["params"]["hidden_0"]
    second["kernel"][:] = [[0.0], [0.0], [0.0], [-1.0]]
    second["bias"][:] = 30.0  # tanh of 0 or 2 tanh(1)
    found = active_units(vae, bounds.Params((), phi), images, jax.random.clone(key))
    # Variances 0.0022 (gain 0.1) and 5.5: of 0.9095 times the gain, a quarter of the square.
    assert [count for count, _ in found] == [2, 1]


# --- the sandwich -----------------------------------------------------------------------------


def annealing(temperatures, chains, leapfrog=2, start="encoder"):
    return Annealing(
        test_images=0, simulated_images=1, temperatures=temperatures, chains=chains,
        leapfrog=leapfrog, start=start,
    )  # fmt: skip


def between(num_temperatures, images, latents, seed, start="encoder"):
    return sandwich.sandwich(
        MODEL, params(), images, latents, jax.random.key(seed),
        annealing(num_temperatures, 2, start=start), images_per_pass=150,
    )  # fmt: skip


def encoder_draws(images):
    keys = jax.random.split(jax.random.key(4), len(images))
    draw = jax.jit(jax.vmap(lambda key, x: MODEL.model.propose(params().phi, key, x)[0]))
    return draw(keys, images)


@pytest.mark.slow
def test_the_sandwich_holds_the_exact_answer():
    """Weights and their inverses are unbiased, so both sides are bounds."""
    images, latents, exact = simulated()
    limit = z_limit(1)
    coarse, fine = between(3, images, latents, 2), between(12, images, latents, 3)
    for found in (coarse, fine):
        assert found.lower.shape == found.upper.shape == (600,)
        assert abs(z_score(np.exp(found.lower - exact), 1.0)) < limit
        assert abs(z_score(np.exp(exact - found.upper), 1.0)) < limit
    assert z_score(exact - coarse.lower) > limit
    assert z_score(coarse.upper - exact) > limit
    shrinks = (coarse.upper - coarse.lower) - (fine.upper - fine.lower)
    assert z_score(shrinks) > limit
    assert np.all((fine.acceptance > 0.2) & (fine.acceptance <= 1))
    # Known to be wrong: a forward bound on the other side; reverse chains from a draw of q.
    assert z_score(coarse.lower - exact) < limit
    wrong = between(3, images, encoder_draws(images), 5)
    assert z_score(wrong.upper - exact) < limit


def test_weights_from_the_prior_are_unbiased_for_the_same_probability():
    """As those from the encoder are; with the encoder's density for the prior's draws, not."""
    images, _, exact = simulated()

    def z_of(model):
        draw = functools.partial(bounds.log_weights, model, params(), num_samples=100)
        keys = jax.random.split(jax.random.key(7), len(images))
        log_w = jax.jit(jax.vmap(draw))(keys, images)
        ratio = np.exp(np.asarray(jax.vmap(bounds.iwae)(log_w), np.float64) - exact)
        return z_score(ratio, 1.0)

    model = sandwich.from_prior(MODEL.model)

    def wrong(phi, key, x):
        z, _ = model.propose(phi, key, x)
        return z, MODEL.model.log_q(phi, x, z)

    assert abs(z_of(model)) < z_limit(1)
    assert abs(z_of(model._replace(propose=wrong))) > z_limit(1)


@pytest.mark.slow
def test_the_sandwich_from_the_prior_holds_the_exact_answer():
    images, latents, exact = simulated()
    limit, found = z_limit(1), between(12, images, latents, 3, start="prior")
    assert abs(z_score(np.exp(found.lower - exact), 1.0)) < limit
    assert abs(z_score(np.exp(exact - found.upper), 1.0)) < limit
    assert np.any(found.lower != between(12, images, latents, 3).lower)


def test_rows_of_the_sandwich():
    found = sandwich.Sandwich(np.array([-3.0, -5.0]), np.array([-2.0, -4.5]), np.array([0.5, 0.7]))
    rows = sandwich.rows(found, annealing(10, 4))
    assert [(r["name"], r["kind"], r["unit"]) for r in rows] == [
        ("AIS", "lower_bound", "nats"),
        ("reverse AIS (BDMC)", "upper_bound", "nats"),
        ("AIS gap", "estimate", "nats"),
        ("AIS acceptance", "estimate", "share"),
    ]
    assert all("start" not in r["at"] for r in rows)
    of_prior = sandwich.rows(found, annealing(10, 4, start="prior"))
    assert all(r["at"]["start"] == "prior" for r in of_prior)
    np.testing.assert_allclose([r["value"] for r in rows], [-4.0, -3.25, 0.75, 0.6])
    # Paired: the halves of 1 - 0.5, sqrt(2) / 2 of the difference over sqrt(2).
    np.testing.assert_allclose([r["standard_error"] for r in rows], [1.0, 1.25, 0.25, 0.1])


# --- the parts of the program -----------------------------------------------------------------


def test_every_row_has_a_kind_a_unit_and_a_standard_error():
    trained = tiny(model={"latents": (2,), "hidden": ((5,),)})
    problem = problem_of(trained)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(problem.vae.init, jax.random.key(0), np.ones(64, np.float32))
    drawn = jax.tree.map(lambda s: (0.3 * rng.normal(size=s.shape)).astype(np.float32), shapes)
    settings = tiny_evaluation(
        "nowhere",
        evaluation={"num_samples": 30},
        annealing={
            "test_images": 100, "simulated_images": 10, "temperatures": 4, "chains": 2,
            "leapfrog": 1,
        },
        memory={"images_per_pass": 10, "samples_per_pass": 30},
    )  # fmt: skip
    parts = {name: part(problem, drawn, settings) for name, part in evaluation.PARTS.items()}
    (parameters, _) = parts.pop("size")
    assert (parameters["value"], parameters["kind"]) == (64 * 5 + 5 + 4 * 6 + 15 + 64 * 6, "exact")
    rows = [r for part in parts.values() for r in part]
    assert all(r["kind"] in ("lower_bound", "upper_bound", "estimate") for r in rows)
    assert all(r["unit"] and np.isfinite(r["value"]) for r in rows)
    assert all(r["standard_error"] is not None and r["standard_error"] >= 0 for r in rows)
    by_data = {r["name"]: (r["n"], r.get("data", r["at"].get("data"))) for r in rows}
    assert by_data["-KL"] == (20, "test")
    assert by_data["active units, layer 1"] == (20, "test")
    assert by_data["AIS"] == by_data["IWAE"] == (10, "simulated")
    assert {r["n"] for r in parts["annealed"]} == {20}
    # Of the samples that IWAE of the same images is of.
    of_test = {r["name"]: r["value"] for r in parts["annealed"] + parts["images"]}
    assert of_test["AIS above IWAE"] == pytest.approx(of_test["AIS"] - of_test["IWAE"], abs=1e-4)
    of_curve = {(r["name"], r["at"]["K"]): r["value"] for r in parts["curves"]}
    assert of_curve["VR-IWAE", 1] == of_curve["IWAE", 1] < of_curve["VR-IWAE", 4]
    assert of_curve["VR-IWAE", 4] < of_curve["IWAE", 4]  # alpha = 0.5 is the looser
    assert {r["at"].get("alpha") for r in parts["curves"] if r["name"] == "VR-IWAE"} == {0.5}


def test_time_of_training_is_found_under_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "seconds": 3.5}\n')
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    _, spent = evaluation.size(None, params(), tiny_evaluation(f"~/{tmp_path.name}"))
    assert spent["value"] == 3.5


def test_curves_and_annealing_stand_on_the_right_side_of_the_exact_answer():
    images, _, exact = simulated()
    images, exact = images[:100], exact[:100]
    evaluate_curves = evaluation._curves(MODEL.model, (1, 8, 512), (0.0, 0.5), 512)
    values, _ = held_out.over_images(
        evaluate_curves, params(), images, jax.random.key(3), images_per_pass=50
    )
    gaps = (exact[:, None, None] - values).mean(axis=0)  # [alpha, K]
    assert gaps.min() > -1e-3
    assert np.all(np.diff(gaps, axis=1) < 0)  # closer with K
    np.testing.assert_allclose(gaps[0, 0], gaps[1, 0], atol=1e-5)  # K = 1: the ELBO
    assert np.all(gaps[1, 1:] > gaps[0, 1:])  # VR-IWAE is the looser
    lower, acceptance = sandwich.forward(
        MODEL, params(), images, jax.random.key(4), annealing(40, 4, leapfrog=10),
        images_per_pass=100,
    )  # fmt: skip
    score = (lower - exact).mean() / ((lower - exact).std(ddof=1) / np.sqrt(100))
    assert score < z_limit(1)
    assert gaps[0, 0] > 2 * (exact - lower).mean()  # far tighter than the ELBO
    assert 0.3 < acceptance.mean() <= 1


@pytest.mark.parametrize("whose", sorted({p.value[0] for p in Purpose}))
def test_no_two_purposes_share_a_key(whose):
    """Nor, of an evaluation, with the numbers that images fold into the same seed."""
    keys = [key_for(0, p) for p in Purpose if p.value[0] == whose]
    if whose in ("evaluation", "evaluation of a VAE", "surgery"):
        keys += [jax.random.fold_in(jax.random.key(0), i) for i in range(10)]
    data = np.array([jax.random.key_data(k) for k in keys])
    assert len(np.unique(data, axis=0)) == len(data)
