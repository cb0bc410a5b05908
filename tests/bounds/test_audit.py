"""The audit names what is wrong, passes what is right, and says so where it cannot tell."""

import collections
import dataclasses
import functools
import math

import audit_cases
import jax
import jax.numpy as jnp
import joint_cases
import numpy as np
import pytest
from jax.scipy.stats import norm

import bounds
from bounds import _audit_gradients

KEY = jax.random.key(20)


@pytest.mark.parametrize("name", audit_cases.DEFECTS)
def test_a_defect_is_named_by_its_check(name):
    audit, check = audit_cases.DEFECTS[name]
    assert check in audit(KEY).violated


def _heavier_beta():
    """beta = 6.6 is a bound wherever y is discrete, however odd it looks."""
    case = audit_cases.dvae()

    def claimed(key, datum):
        terms = bounds.joint.terms(joint_cases.MODEL, case.params, key, datum)
        return bounds.joint.bound(terms, beta=6.6)

    draw = audit_cases.drawn_from(case)
    return [bounds.audit.claim(claimed, KEY, simulate=draw, traceable=True)]


@functools.cache
def _lighter_tails():
    """A q much narrower than the posterior: the weights have no variance, and the bound holds."""
    case = audit_cases.two_layers()
    narrow = case.params.phi._replace(
        lower=case.params.phi.lower._replace(log_scale=case.params.phi.lower.log_scale - 1.0)
    )
    case = dataclasses.replace(case, params=case.params._replace(phi=narrow))
    own = audit_cases.iwae_of(case, 8)
    return [
        bounds.audit.model(case.model, case.params, KEY, simulate=case.simulate),
        bounds.audit.claim(
            own, KEY, simulate=audit_cases.drawn_from(case), fewer=audit_cases.iwae_of(case, 1),
            batched=audit_cases.mean_over_batch(own), traceable=True,
        ),
    ]  # fmt: skip


def _one_sample():
    case = audit_cases.vae()
    own = audit_cases.iwae_of(case, 1)
    return [
        bounds.audit.model(
            case.model, case.params, KEY, simulate=case.simulate, num_samples=1
        ),
        bounds.audit.claim(
            own, KEY, simulate=audit_cases.drawn_from(case),
            batched=audit_cases.mean_over_batch(own), traceable=True,
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("audit", [_heavier_beta, _lighter_tails, _one_sample])
def test_what_is_right_but_odd_passes(audit):
    for report in audit():
        assert report.violated == ()


def test_heavy_tails_are_undecided():
    of_model, _ = _lighter_tails()
    (check,) = [c for c in of_model.checks if c.name == "mean weight is p(x)"]
    assert check.verdict == "undecided"
    assert "heavy tails" in check.why


def test_the_equality_is_exact_where_q_is_the_posterior():
    """With weights that do not vary every term is 1, and the audit says 1 +- 0."""
    case = audit_cases.two_layers()
    exact = audit_cases.two_layer_gaussian.exact_inference(case.params.theta)
    report = bounds.audit.model(
        case.model, bounds.Params(case.params.theta, exact), KEY, simulate=case.simulate,
        num_temperatures=6, num_gradients=0,
    )  # fmt: skip
    by_name = {c.name: c for c in report.checks}
    for name in ("mean weight is p(x)", "AIS against reverse AIS"):
        assert by_name[name].estimate == pytest.approx(1.0, abs=1e-5)
        assert by_name[name].verdict == "holds"
    assert report.violated == ()


def test_the_equality_of_a_table_summed_over_everything():
    """E[w_hat q / p] = 1 by enumeration, which is what the check draws."""
    params = joint_cases.params_of(3, scale=0.8)
    p_y, p_z, p_x, q = joint_cases.tables(params)
    joint = p_y[:, None, None] * p_z[:, :, None] * p_x  # [Y, Z, X]
    marginal = joint.sum(1)  # the mean of w_hat over draws of q
    total = np.einsum("yzx,yx,xz,yzx->", joint, marginal, q, 1 / joint)
    assert total == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda log_q: log_q - jnp.log(1.5), "q integrates to 1"),
        (lambda log_q: 1.3 * log_q, "q integrates to 1"),
    ],
)
def test_a_q_that_is_no_density_is_named(change, check):
    case = audit_cases.vae()

    def propose(phi, key, x):
        z, log_q = case.model.propose(phi, key, x)
        return z, change(log_q)

    wrong = bounds.LatentModel(
        propose, lambda phi, x, z: change(case.model.log_q(phi, x, z)), case.model.log_p
    )
    found = bounds.audit.model(
        wrong, case.params, KEY, simulate=case.simulate, num_gradients=0, num_data=2000
    )
    assert check in found.violated


@pytest.mark.parametrize("scale", [1e-1, 1e-4])
def test_log_q_by_the_noise_is_that_by_a_draw_that_is_rounded_coarsely(scale):
    """z = 3 + scale * noise in float32: log_q cannot find the noise again to 1024 units."""

    def propose(phi, key, x, stale=False):
        noise = jax.random.normal(key, (2,))
        counted = jax.random.normal(jax.random.fold_in(key, 0), (2,)) if stale else noise
        return 3 + phi * noise, jnp.sum(norm.logpdf(counted) - jnp.log(phi))

    def log_q(phi, x, z):
        return norm.logpdf(z, 3.0, phi).sum()

    def log_p(theta, x, z):
        return norm.logpdf(z, 3.0, scale).sum() + norm.logpdf(x)

    def simulate(theta, key):
        first, second = jax.random.split(key)
        return jax.random.normal(first), 3 + scale * jax.random.normal(second, (2,))

    for stale in (False, True):
        found = bounds.audit.model(
            bounds.LatentModel(functools.partial(propose, stale=stale), log_q, log_p),
            bounds.Params((), jnp.array(scale)), KEY, simulate=simulate, num_gradients=0,
            num_data=200,
        )  # fmt: skip
        assert ("log q at its own draw" in found.violated) == stale


@pytest.mark.parametrize("fixed", ["a sum", "an entry"])
def test_a_z_on_a_plane_has_no_density_beside_a_gaussian_and_is_undecided(fixed):
    """z = (s, 1 - s) or (s, 0) with logit(s) normal: q integrates to 1 over the first alone."""

    def draw(key, mean, scale):
        share = jax.nn.sigmoid(mean + scale * jax.random.normal(key))
        return jnp.stack([share, 1 - share if fixed == "a sum" else 0.0 * share])

    def log_prob(z, mean, scale):
        log, other = jnp.log(z[0]), jnp.log1p(-z[0])
        return norm.logpdf(log - other, mean, scale) - log - other

    def propose(phi, key, x):
        z = draw(key, 0.6 * x, phi)
        return z, log_prob(z, 0.6 * x, phi)

    def simulate(theta, key):
        first, second = jax.random.split(key)
        z = draw(first, 0.0, 1.0)
        return 4 * z[0] - 2 + jax.random.normal(second), z

    model = bounds.LatentModel(
        propose,
        lambda phi, x, z: log_prob(z, 0.6 * x, phi),
        lambda theta, x, z: log_prob(z, 0.0, 1.0) + norm.logpdf(x, 4 * z[0] - 2),
    )
    found = bounds.audit.model(
        model, bounds.Params((), jnp.array(0.7)), KEY, simulate=simulate, num_gradients=0
    )
    (check,) = [c for c in found.checks if c.name == "q integrates to 1"]
    assert (check.verdict, "fixed" in check.why) == ("undecided", True)
    assert found.violated == ()


def test_a_joint_that_is_not_simulated_is_named():
    case = audit_cases.vae()

    def log_p(theta, x, z):  # pixels averaged, in the model itself
        return audit_cases.vae_log_px(theta, x, z) / x.size + norm.logpdf(z).sum()

    found = bounds.audit.model(
        case.model._replace(log_p=log_p), case.params, KEY, simulate=case.simulate,
        num_gradients=0,
    )  # fmt: skip
    assert "posterior among draws of q" in found.violated


def test_stl_is_biased_in_phi_alone():
    case = audit_cases.vae()
    found = bounds.audit.model(
        case.model, case.params, KEY, simulate=case.simulate, num_samples=8,
        objective=bounds.stl(case.model, num_samples=8), num_gradients=2000,
    )  # fmt: skip
    assert "gradient in phi" in found.violated
    assert "gradient in theta" not in found.violated


def test_a_surrogate_in_the_place_of_a_bound_is_named():
    case = audit_cases.vae()

    def surrogate(params, key, x):
        log_w = bounds.log_weights(case.model, params, key, x, num_samples=8)
        return jnp.sum(jax.lax.stop_gradient(jax.nn.softmax(log_w)) * log_w)

    found = bounds.audit.model(
        case.model, case.params, KEY, simulate=case.simulate, num_samples=8, objective=surrogate
    )
    assert "value of the objective" in found.violated
    assert "gradient in theta" not in found.violated


def test_dead_and_infinite_gradients_are_named():
    case = audit_cases.vae()

    def dead(params, key, x):
        fixed = bounds.Params(params.theta, jax.lax.stop_gradient(params.phi))
        return bounds.pathwise(case.model, num_samples=4)(fixed, key, x)

    def infinite(params, key, x):
        zero = params.theta[0, 0] - jax.lax.stop_gradient(params.theta[0, 0])
        return bounds.dreg(case.model, num_samples=4)(params, key, x) + jnp.sqrt(zero)

    for objective, check in ((dead, "living gradients"), (infinite, "finite gradients")):
        found = bounds.audit.model(
            case.model, case.params, KEY, simulate=case.simulate, objective=objective,
            num_samples=4, num_gradients=100, num_data=100,
        )  # fmt: skip
        assert check in found.violated


def test_randomness_of_its_own_is_named():
    case, generator = audit_cases.vae(), np.random.default_rng(0)
    data = np.zeros((100, audit_cases.PIXELS), np.float32)

    def claimed(key, x):
        return -5.0 + 0.1 * generator.normal()

    assert bounds.audit.claim(claimed, KEY, x=data).violated == ("same key, same number",)

    def propose(phi, key, x):
        z = jnp.asarray(generator.normal(size=audit_cases.LATENTS), float)
        return z, audit_cases.vae_log_q(phi, x, z)

    found = bounds.audit.model(
        case.model._replace(propose=propose), case.params, KEY, simulate=case.simulate,
        num_data=100, num_gradients=0,
    )  # fmt: skip
    assert "same key, same draw" in found.violated


@pytest.mark.slow
@pytest.mark.parametrize("name", audit_cases.RIGHT)
def test_false_alarms_on_models_that_are_right(name, monkeypatch):
    """200 seeds, two reports each, of which at most 1% may say that anything is violated."""
    # Nothing changes between the reports, so one program serves all seeds.
    monkeypatch.setattr(_audit_gradients, "program", functools.cache(_audit_gradients.program))
    case, discrete = audit_cases.RIGHT[name](), name == "dVAE"
    make, plain = (bounds.vimco, bounds.reinforce) if discrete else (bounds.dreg, bounds.pathwise)
    objectives = make(case.model, num_samples=16), plain(case.model, num_samples=16)
    own, fewer = audit_cases.iwae_of(case, 16), audit_cases.iwae_of(case, 2)
    draw, batched = audit_cases.drawn_from(case), audit_cases.mean_over_batch(own)
    alarms, undecided = 0, collections.Counter()
    for seed in range(200):
        key = jax.random.key(seed)
        of_model = bounds.audit.model(
            case.model, case.params, key, simulate=case.simulate, objective=objectives[0],
            reference=objectives[1],
        )  # fmt: skip
        of_claim = bounds.audit.claim(
            own, key, simulate=draw, fewer=fewer, rescaled=own, batched=batched, traceable=True
        )
        for report in (of_model, of_claim):
            alarms += bool(report.violated)
            undecided.update(c.name for c in report.checks if c.verdict == "undecided")
    print(f"{name}: {alarms} of 400 reports; undecided of 200: {dict(undecided)}")
    assert alarms <= 0.01 * 400


# Bad input: a sentence each.


def _with(**changes):
    case = audit_cases.vae()
    arguments = {"simulate": case.simulate, "num_data": 100, "num_gradients": 0, **changes}
    return bounds.audit.model(arguments.pop("model", case.model), case.params, KEY, **arguments)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_data": 20}, "num_data must be at least 100, got 20"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"num_temperatures": 2}, "num_temperatures must be at least 3, got 2"),
        ({"false_alarm_rate": 0.0}, "false_alarm_rate must be between 0 and 1, got 0.0"),
        ({"simulate": lambda theta, key: jnp.zeros(8)}, r"simulate must return \(x, z\)"),
        (
            {"simulate": lambda theta, key: (jnp.zeros(8), jnp.zeros(3))},
            r"simulate's z must be like propose's, float\d+ of shape \(2,\), got float\d+ of shape",
        ),
        (
            {"simulate": lambda theta, key: (jnp.zeros(8), {"z": jnp.zeros(2)})},
            "simulate's z must have the tree of propose's",
        ),
        ({"model": audit_cases.vae().model._replace(log_q=None)}, "use bounds.audit.claim"),
    ],
)
def test_bad_input_of_model(changes, says):
    with pytest.raises(ValueError, match=says):
        _with(**changes)


@pytest.mark.parametrize("traceable", [False, True])
def test_a_claim_of_nan_is_refused(traceable):
    data = np.arange(100.0, dtype=np.float32)

    def claimed(key, x):
        return jnp.where(x == 7, jnp.nan, -1.0)

    with pytest.raises(ValueError, match="a claim is NaN, of datum 7; NaN bounds nothing"):
        bounds.audit.claim(claimed, KEY, x=data, traceable=traceable)


def test_bad_input_of_claim():
    data = np.zeros((100, 2), np.float32)
    with pytest.raises(ValueError, match="needs data: give simulate, x, or both"):
        bounds.audit.claim(lambda key, x: -1.0, KEY)
    with pytest.raises(ValueError, match="x must hold at least 100 data, got 9"):
        bounds.audit.claim(lambda key, x: -1.0, KEY, x=data[:9])
    with pytest.raises(ValueError, match=r"a claim must return one number .* got shape \(2,\)"):
        bounds.audit.claim(lambda key, x: x, KEY, x=data)
    for x in (1.0, {}, (data, data[:50])):
        with pytest.raises(ValueError, match="x must hold data along one leading axis"):
            bounds.audit.claim(lambda key, x: -1.0, KEY, x=x)
    for wrong in (data[0], (data[0], data[0]), (data[0], {"z": 0.0})):
        with pytest.raises(ValueError, match=r"simulate must return \(x, log r\(x\)\)"):
            bounds.audit.claim(lambda key, x: -1.0, KEY, simulate=lambda key, w=wrong: w)
    with pytest.raises(ValueError, match="ratio must be at least 2, got 1"):
        bounds.audit.claim(lambda key, x: -1.0, KEY, x=data, ratio=1)


def test_a_claim_of_minus_infinity_is_a_bound():
    def simulate(key):
        return jax.random.randint(key, (), 0, 4), jnp.asarray(-math.log(4.0))

    def claimed(key, x):
        return jnp.where(x == 0, -jnp.inf, -math.log(4.0))

    found = bounds.audit.claim(
        claimed, KEY, simulate=simulate, fewer=claimed, rescaled=claimed, traceable=True
    )
    assert found.violated == ()


def test_a_report_is_a_table():
    text = str(audit_cases.DEFECTS["+8 for +7"][0](KEY))
    lines = text.splitlines()
    assert lines[0].split()[0] == "check"
    assert any(line.startswith("same in another unit") and "violated" in line for line in lines)
    assert "such as 8 bits/dim for the 7 of data in [-1, 1]" in text
    assert lines[-1] == "False alarms: at most 0.001 for all checks together."
