"""Advice: intervals against exact ratios, and choices that are made where they can be."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import flat, gauss_hermite
from scipy import stats

import bounds
from bounds import _advise
from bounds import _advise_catalogue as catalogue
from bounds import _advise_choices as choices
from bounds import _advise_measured as measured
from models.exact import enumerable, every_draw, linear_gaussian

GAUSSIAN = linear_gaussian.make_model()
THETA, X = jnp.array([0.3]), jnp.array([[1.5]])
PARAMS = bounds.Params(THETA, linear_gaussian.Inference(jnp.array([[0.5]]), THETA / 2 + 0.1))
KEY = jax.random.key(0)
K = 2
ESTIMATORS = {
    "dreg": bounds.dreg, "stl": bounds.stl, "pathwise": bounds.pathwise,
    "rloo": functools.partial(bounds.rloo, bound=bounds.iwae),
}  # fmt: skip


def exact(name):
    """Mean [P] and summed variance of the gradient in phi, by Gauss-Hermite quadrature."""
    nodes, mass = gauss_hermite(48, 1)
    pairs = jnp.stack(jnp.meshgrid(jnp.arange(48), jnp.arange(48)), -1).reshape(-1, K)

    def sample(phi, x, draw):
        return phi.weight @ x + phi.bias + jnp.sqrt(linear_gaussian.PAPER_VARIANCE) * draw

    grads = every_draw.gradients(
        lambda m: ESTIMATORS[name](m, num_samples=K), GAUSSIAN, sample, PARAMS, X[0], nodes[pairs]
    ).phi
    found = every_draw.moments(grads, mass[pairs[:, 0]] * mass[pairs[:, 1]])
    return flat(found.mean), flat(found.variance).sum()


def gradients(name, keys):
    """Of each key, that in phi, [..., P]."""
    objective = ESTIMATORS[name](GAUSSIAN, num_samples=K)

    def one(key):
        grads = jax.grad(objective)(PARAMS, jax.random.fold_in(key, 0), X[0]).phi
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(grads)])

    return np.asarray(jax.jit(jax.vmap(one))(keys), np.float64)


def blocks(grads):
    """Replicates [R, P] in blocks, by hand."""
    own = grads.reshape(measured.NUM_BLOCKS, -1, grads.shape[-1])
    return measured.Blocks(own.mean(1), own.var(1, ddof=1).sum(-1))


@pytest.fixture(scope="module")
def drawn():
    """Blocks of the gradient in phi of each estimator, 200 times, with the same draws."""
    keys = jax.random.split(jax.random.key(1), 200 * 400)
    return {name: [blocks(g) for g in gradients(name, keys).reshape(200, 400, -1)]
            for name in ESTIMATORS}  # fmt: skip


def test_blocks_are_those_of_the_gradients_key_by_key():
    keys = jax.random.split(jax.random.key(2), 60)
    gradient = measured.traced(bounds.dreg(GAUSSIAN, num_samples=K), PARAMS, KEY, X)()
    got, wanted = measured.blocks_of(gradient.run, list(keys)), blocks(gradients("dreg", keys))
    np.testing.assert_allclose(got["phi"].mean, wanted.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["phi"].variance, wanted.variance, rtol=1e-3)
    assert got["theta"].mean.shape == (measured.NUM_BLOCKS, 1)


def misses(intervals, truth):
    return sum(not low <= truth <= high for _, low, high in intervals)


# An interval that misses in 8% instead of 5% of all cases may be; this many of 200 say more.
MOST = stats.binom.isf(1e-5, 200, 0.08)


def snr_of(own, reference, biased):
    row, _ = choices.measured("phi", "iwae", "", K, biased, own, reference, 1.0, 0.95)
    return row.snr


@pytest.mark.parametrize("name", ESTIMATORS)
def test_intervals_of_the_ratio_hold_the_exact_one(drawn, name):
    mean, variance = exact(name)
    truth, biased = np.linalg.norm(mean) / np.sqrt(variance), name == "stl"
    pairs = zip(drawn[name], drawn["dreg"], strict=True)
    assert misses([snr_of(*pair, biased) for pair in pairs], truth) < MOST


def test_a_biased_estimator_with_the_length_of_another_fails_the_same_test(drawn):
    mean, variance = exact("stl")
    truth = np.linalg.norm(mean) / np.sqrt(variance)
    wrong = [snr_of(*pair, False) for pair in zip(drawn["stl"], drawn["dreg"], strict=True)]
    assert misses(wrong, truth) > MOST


def test_intervals_of_the_bias_hold_the_exact_one(drawn):
    """And are far from what they would be of unpaired draws: `pathwise` is not called biased."""
    truth = np.linalg.norm(exact("stl")[0] - exact("dreg")[0])

    def bias(name):
        rows = [
            choices.measured("phi", "iwae", "", K, True, own, reference, 1.0, 0.95)[0]
            for own, reference in zip(drawn[name], drawn["dreg"], strict=True)
        ]
        return [row.bias for row in rows]

    assert misses(bias("stl"), truth) < MOST
    assert misses(bias("pathwise"), 0.0) < MOST
    assert misses(bias("stl"), 0.0) > MOST


def test_intervals_of_a_ratio_of_two_hold_the_exact_one(drawn):
    """Paired draws; within one bound it is the ratio of variances, and tells where SNRs do not."""
    truth = exact("pathwise")[1] / exact("dreg")[1]

    def entry(name, i):
        row, squared = choices.measured(
            "phi", "iwae", name, K, False, drawn[name][i], drawn["dreg"][i], 1.0, 0.95
        )
        return choices.Entry(row, squared, np.ones(1))

    gains = [choices.ratio_of(entry("dreg", i), entry("pathwise", i), 0.95) for i in range(200)]
    assert misses(gains, truth) < MOST
    assert misses(gains, np.sqrt(truth)) > MOST  # of ratios that are not squared


def test_the_median_lies_between_order_statistics():
    values = np.arange(15.0)
    assert measured.median(values, 0.95) == (7.0, 3.0, 11.0)
    assert stats.binom.cdf(3, 15, 0.5) < 0.025 < stats.binom.cdf(4, 15, 0.5)
    # Of six the extremes miss with 2 / 64; of five with 2 / 32, so nothing is known at 95%.
    assert measured.median(values[:6], 0.95) == (2.5, 0.0, 5.0)
    assert measured.median(values[:5], 0.95) == (2.0, 0.0, np.inf)
    assert measured.median(values[:5], 0.9) == (2.0, 0.0, 4.0)


@pytest.mark.parametrize("level", [0.95, 0.999])
def test_quantiles_are_those_of_student(level):
    np.testing.assert_allclose(
        measured._t_quantile(level, 19), stats.t.ppf(0.5 * (1 + level), 19), rtol=3e-3
    )


def made_up(name, count, length, variance, spent=1.0):
    """An entry of 20 blocks with such a squared length and variance, and 2% noise in each."""
    noise = 1 + 0.02 * np.random.default_rng(0).standard_normal(20)
    squared = np.append(length, length * noise) / np.append(variance, variance * noise**2)
    row = choices.Measured(
        "phi", "iwae", name, count, *[measured.Interval(1.0, 1.0, 1.0)] * 3, False, 1.0,
        *[choices.UNKNOWN] * 3,
    )  # fmt: skip
    return choices.timed(row, squared, spent * np.ones(15), "seconds", 0.95)


def test_each_rival_takes_its_share_of_what_a_choice_may_be_wrong():
    """Clocks that tell two apart at 95% do not tell one from thirty."""
    best, spent = made_up("best", K, 1.0, 1.0), 1 + 0.1 * (np.arange(15.0) - 2.5)
    near = made_up("near", K, 1.0, 1.0, spent)
    far = [made_up(f"far {i}", K, 1.0, 9.0) for i in range(29)]
    (alone,) = choices.choices([best, near], "seconds", 0.95)
    assert alone.best == (("best", K),)
    (among,) = choices.choices([best, near, *far], "seconds", 0.95)
    assert among.best == (("best", K), ("near", K))


def test_what_drowns_in_noise_is_named_last_and_no_sentence_has_a_nan():
    drowned = [made_up("dreg", 2, -0.1, 1.0), made_up("pathwise", 2, -0.1, 3.0)]
    clear = [made_up("dreg", 8, 0.5, 1.0), made_up("pathwise", 8, 0.5, 4.0)]
    for entries in (drowned + clear, clear + drowned):
        over = list(choices.choices(entries, "seconds", 0.95))[-1]
        assert over.best[0] == ("dreg", 8)
    none = [made_up("dreg", 2, -0.1, 1.0), made_up("dreg", 8, -0.2, 1.0)]
    over = list(choices.choices(none, "seconds", 0.95))[-1]
    assert len(over.best) == 2
    assert "gives an unknown multiple of the squared SNR" in over.reason
    assert "nan" not in over.reason


def test_few_rounds_of_the_clock_leave_no_choice():
    """However far two estimators are apart; FLOPs have no noise, and need no rounds."""
    two = [made_up("best", K, 1.0, 1.0), made_up("far", K, 1.0, 9.0)]
    few = [e._replace(cost=np.ones(3)) for e in two]
    exact = [e._replace(cost=np.ones(1)) for e in two]
    (choice,) = choices.choices(few, "seconds", 0.95)
    assert len(choice.best) == 2
    (choice,) = choices.choices(exact, "flops", 0.95)
    assert choice.best == (("best", K),)


def test_biased_are_those_that_the_exact_table_says():
    biased = {
        (bound, c.name) for bound in catalogue.BOUNDS
        for c in catalogue.candidates(bound, (0.0, 1.0), None) if c.biased
    }  # fmt: skip
    of_iwae = {("iwae", name) for name in ("stl", "piwae", "ovis, gamma 1", "rws")}
    assert biased == {*of_iwae, ("thermodynamic", "tvo")}


def advised(model=GAUSSIAN, params=PARAMS, x=X, **options):
    options = {"num_samples": [K], "num_replicates": 800, "bound": "iwae", **options}
    return bounds.advise(model, params, KEY, x, **options)


def only(monkeypatch, *names):
    """Of all estimators these alone are tried: every one is compiled."""
    every = _advise.candidates
    monkeypatch.setattr(
        _advise, "candidates", lambda *options: [c for c in every(*options) if c.name in names]
    )


def fixed_seconds(monkeypatch, of_call):
    """Each call takes what the function says of its number, in every round."""
    monkeypatch.setattr(
        _advise,
        "seconds",
        lambda calls, rounds: np.array([[of_call(i)] * rounds for i in range(len(calls))]),
    )


def chosen(advice, of):
    return next(c for c in advice.choices if c.of == of and c.num_samples == K)


def test_what_costs_the_same_is_chosen_by_its_variance_and_no_bias_is_bought(monkeypatch):
    fixed_seconds(monkeypatch, lambda i: 1.0)
    advice = advised()
    phi, theta = chosen(advice, "phi"), chosen(advice, "theta")
    assert phi.best == (("dreg", K),)
    assert phi.ratio.low > 1
    assert "dreg gives" in phi.reason
    # All of them have the same theta gradient on the same draws: no choice, and it says so.
    assert {name for name, _ in theta.best} == {r.estimator for r in advice.rows}
    assert theta.ratio.value == pytest.approx(1)
    assert "no choice between" in theta.reason
    stl = next(r for r in advice.rows if (r.estimator, r.of) == ("stl", "phi"))
    dreg = next(r for r in advice.rows if (r.estimator, r.of) == ("dreg", "phi"))
    assert stl.per_second.value > dreg.per_second.value
    assert stl.biased
    assert stl.bias.low > 0
    assert "dreg" in str(advice)
    assert "disarm" not in advice.refused  # it is of the ELBO


def test_a_bias_is_bought_where_it_is_allowed_and_is_told(monkeypatch):
    only(monkeypatch, "dreg", "stl")
    choice = chosen(advised(allow_biased=True, cost="flops"), "phi")
    assert choice.best == (("stl", K),)
    assert "It is biased, by" in choice.reason


def test_seconds_decide_where_they_differ_and_flops_where_they_are_asked_for(monkeypatch):
    only(monkeypatch, "dreg", "rloo", "pathwise")
    fixed_seconds(monkeypatch, lambda i: 100.0 if i == 0 else 1.0)  # dreg comes first
    assert chosen(advised(), "phi").best == (("rloo", K),)
    assert chosen(advised(cost="flops"), "phi").best == (("dreg", K),)


def test_seconds_that_vary_more_than_they_differ_leave_no_choice(monkeypatch):
    only(monkeypatch, "dreg", "rloo")
    noise = np.exp(np.random.default_rng(0).normal(0, 1, (2, 15)))
    monkeypatch.setattr(_advise, "seconds", lambda calls, rounds: noise)
    choice = chosen(advised(), "phi")
    assert len(choice.best) > 1
    assert choice.ratio.low < 1 < choice.ratio.high


def test_over_several_k_the_elbo_is_one_bound_and_iwae_is_not(monkeypatch):
    only(monkeypatch, "stl", "pathwise", "dreg")
    fixed_seconds(monkeypatch, lambda i: 1.0)
    advice = advised(num_samples=[1, K], bound="elbo", params=PARAMS)
    over = [c for c in advice.choices if c.num_samples is None and c.of == "phi"]
    assert over[0].best == (("stl", K),)
    assert "another bound" not in over[0].reason
    # Two samples have twice the squared ratio of one.
    by = {(r.estimator, r.num_samples): r for r in advice.rows if r.of == "theta"}
    ratio = by["stl", K].per_second.value / by["stl", 1].per_second.value
    assert 1.6 < ratio < 2.5
    assert by["stl", K].flops > by["stl", 1].flops > 0
    over = [c for c in advised(num_samples=[K, 3]).choices if c.num_samples is None]
    assert "Each K is another bound" in over[0].reason


DISCRETE = enumerable.make_model()
DISCRETE_PARAMS = enumerable.init(jax.random.key(3), 4, 2)


def test_what_is_illegal_is_not_tried_and_says_why_in_a_sentence(monkeypatch):
    only(monkeypatch, "dreg", "pathwise", "stl", "rloo", "rws")
    advice = advised(DISCRETE, DISCRETE_PARAMS, jnp.array([1, 0]), cost="flops")
    assert {r.estimator for r in advice.rows} == {"rloo", "rws"}
    assert advice.refused.keys() == {"dreg", "pathwise", "stl"}
    assert all("differentiates through z" in why for why in advice.refused.values())
    assert "not tried: dreg" in str(advice)

    without = advised(GAUSSIAN._replace(log_q=None), num_replicates=40, cost="flops")
    assert {r.estimator for r in without.rows} == {"pathwise"}
    assert "log_q=None" in without.refused["dreg"]
    assert "the only one" in without.choices[0].reason
    with pytest.raises(ValueError, match=r"no estimator to try for this model: .*log_q=None"):
        advised(DISCRETE._replace(log_q=None), DISCRETE_PARAMS, jnp.array([1, 0]))


def test_disarm_is_tried_where_there_are_logits(monkeypatch):
    only(monkeypatch, "disarm", "rloo")

    def log_prob(logits, z):
        return jnp.sum(bounds.densities.bernoulli_log_prob(logits, z))

    def propose(phi, key, x):
        z = jax.random.bernoulli(key, jax.nn.sigmoid(phi)).astype(jnp.int32)
        return z, log_prob(phi, z)

    model = bounds.LatentModel(
        propose,
        lambda phi, x, z: log_prob(phi, z),
        lambda theta, x, z: log_prob(theta, z) + log_prob(z.sum() - 1.0, x),
    )
    params, x = bounds.Params(jnp.zeros(2), jnp.array([0.4, -0.3])), jnp.array([1, 0, 1])
    options = {"bound": "elbo", "num_replicates": 40, "cost": "flops"}
    advice = advised(model, params, x, logits=lambda phi, x: phi, **options)
    assert "disarm" in {r.estimator for r in advice.rows}
    advice = advised(model, params, x, **options)
    assert "logits=" in advice.refused["disarm"]
    # Of a categorical z there are none: the estimator's own sentence.
    advice = advised(
        DISCRETE, DISCRETE_PARAMS, jnp.array([1, 0]), logits=lambda phi, x: phi[x], **options
    )
    assert "independent Bernoulli z" in advice.refused["disarm"]


def test_parameters_may_have_other_leaves_or_none():
    def propose(phi, key, x):
        z = phi["name"](phi["mean"]) * x + jax.random.normal(key)
        return z, bounds.densities.gaussian_log_prob(z, phi["name"](phi["mean"]) * x, 1.0)

    model = bounds.LatentModel(
        propose, None, lambda theta, x, z: bounds.densities.gaussian_log_prob(x, z, 1.0)
    )
    params = bounds.Params((), {"name": jnp.tanh, "mean": jnp.array([0.3])})
    advice = advised(model, params, jnp.ones((3, 1)), num_replicates=40, cost="flops")
    assert {r.of for r in advice.rows} == {"phi"}


BAD = {
    "at least one K": {"num_samples": []},
    "num_samples must be at least 1": {"num_samples": [0]},
    "num_calls must be at least 2": {"num_calls": 1},
    "not empty, got shapes": {"x": jnp.zeros((0, 1))},
    "num_replicates must be a multiple of 20, got 50": {"num_replicates": 50},
    "num_replicates must be at least 40": {"num_replicates": 20},
    "bound must be one of None, elbo, iwae, thermodynamic, got 'vae'": {"bound": "vae"},
    "cost must be one of seconds, flops, got 'euros'": {"cost": "euros"},
    "level must lie strictly between 0 and 1": {"level": 95.0},
    "betas must start at 0, increase strictly and end at 1": {"betas": [0.0, 0.5, 0.2, 1.0]},
    "x must be a batch": {"x": jnp.array(1.0)},
    "no estimator to try for this model: none takes K = 1": {"num_samples": [1]},
}


@pytest.mark.parametrize("sentence", BAD)
def test_bad_input_is_one_sentence(sentence):
    with pytest.raises((TypeError, ValueError), match=sentence) as error:
        advised(**BAD[sentence])
    assert len(str(error.value).splitlines()) == 1
