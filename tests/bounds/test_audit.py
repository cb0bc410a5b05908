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


class Closure:
    """A function like a method of a module with arrays: it has state, and no hash."""

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __init__(self, function):
        self.function, self.state = function, 1.0

    def __eq__(self, other):
        return False

    def __call__(self, *arguments):
        return self.function(self.state, *arguments)


def test_each_report_is_of_what_functions_close_over_by_then():
    case = audit_cases.vae()

    @Closure
    def log_p(count, theta, x, z):
        return audit_cases.vae_log_px(theta, x, z) / count + norm.logpdf(z).sum()

    @Closure
    def claimed(offset, key, x):
        return audit_cases.iwae_of(case, 2)(key, x) + offset - 1

    model, draw = case.model._replace(log_p=log_p), audit_cases.drawn_from(case)
    found = []
    for log_p.state, claimed.state in ((1.0, 1.0), (8.0, 4.0)):
        of_model = bounds.audit.model(
            model, case.params, KEY, simulate=case.simulate, num_gradients=0
        )
        of_claim = bounds.audit.claim(claimed, KEY, simulate=draw, traceable=True)
        found.append((of_model.violated, of_claim.violated))
    assert found[0] == ((), ())
    assert "posterior among draws of q" in found[1][0]
    assert "below the upper bound" in found[1][1]


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


def test_noise_of_many_parameters_is_no_bias():
    """The mean difference lies along itself, so its direction has to come from other draws."""

    def log_q(phi, x, z):
        return norm.logpdf(z, phi).sum()

    def propose(phi, key, x):
        z = phi + jax.random.normal(key, phi.shape)
        return z, log_q(phi, x, z)

    def simulate(theta, key):
        z, noise = jax.random.normal(key, (2, 64))
        return theta + z + noise, theta + z

    model = bounds.LatentModel(
        propose, log_q, lambda theta, x, z: log_q(theta, x, z) + log_q(z, None, x)
    )
    reference = bounds.pathwise(model, num_samples=1)
    found = bounds.audit.model(
        model, bounds.Params(jnp.zeros(64), jnp.zeros(64)), KEY, simulate=simulate, num_samples=1,
        objective=lambda params, key, x: reference(params, jax.random.fold_in(key, 1), x),
        reference=reference, num_data=100,
    )  # fmt: skip
    assert found.violated == ()


def test_the_same_claim_in_another_unit_has_the_same_noise_and_so_have_chunks():
    own = audit_cases.iwae_of(audit_cases.vae(), 2)
    data = np.zeros((100, audit_cases.PIXELS), np.float32)
    for chunk_size in (None, 30):
        found = bounds.audit.claim(
            own, KEY, x=data, rescaled=own, traceable=True, chunk_size=chunk_size
        )
        (check,) = [c for c in found.checks if c.name == "same in another unit"]
        assert (check.estimate, check.standard_error) == (0.0, 0.0)


def test_dead_and_infinite_gradients_are_named():
    case = audit_cases.vae()

    def dead(params, key, x):
        fixed = bounds.Params(params.theta, jax.lax.stop_gradient(params.phi))
        return bounds.pathwise(case.model, num_samples=4)(fixed, key, x)

    def infinite(params, key, x):
        zero = params.theta[0, 0] - jax.lax.stop_gradient(params.theta[0, 0])
        return bounds.dreg(case.model, num_samples=4)(params, key, x) + jnp.sqrt(zero)

    def partly(params, key, x):
        fixed = {**params.phi, "weight": jax.lax.stop_gradient(params.phi["weight"])}
        return bounds.pathwise(case.model, num_samples=4)(params._replace(phi=fixed), key, x)

    def looked_up(params, key, x):
        return bounds.dreg(case.model, num_samples=4)(params, key, jax.lax.stop_gradient(x))

    for objective, check, verdict, says in (
        (looked_up, "living gradients", "undecided", "none reaches x, others have one"),
        (dead, "living gradients", "violated", "all of phi"),
        (infinite, "finite gradients", "violated", "of theta first"),
        (partly, "living gradients", "undecided", "none reaches phi['weight'], others have one"),
    ):
        found = bounds.audit.model(
            case.model, case.params, KEY, simulate=case.simulate, objective=objective,
            num_samples=4, num_gradients=100, num_data=100,
        )  # fmt: skip
        (found,) = [c for c in found.checks if c.name == check]
        assert (found.verdict, says in found.why) == (verdict, True)


def test_a_log_q_that_is_nan_is_told_as_such():
    case = audit_cases.vae()
    params = case.params._replace(phi=jax.tree.map(lambda a: a * jnp.nan, case.params.phi))
    found = bounds.audit.model(
        case.model, params, KEY, simulate=case.simulate, num_data=100, num_gradients=0
    )
    why = {c.name: c.why for c in found.checks}
    assert why["log q at its own draw"] == "log q is no finite number at 100 of 100 draws"
    assert why["posterior among draws of q"] == "100 of its 100 terms are NaN"


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
