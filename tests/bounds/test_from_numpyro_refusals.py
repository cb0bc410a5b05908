"""What `from_numpyro` refuses, each in one sentence."""

import sys

import jax
import jax.numpy as jnp
import numpyro
import pytest
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints, transforms
from numpyro.infer import autoguide
from numpyro.primitives import mutable
from numpyro_cases import CASES

import bounds

CASE = CASES["hierarchical"]


def normal(name, **options):
    return numpyro.sample(name, dist.Normal(0.0, 1.0), **options)


def simple(x):
    numpyro.sample("x", dist.Normal(normal("z"), 1.0), obs=x)


def only_z(x):
    normal("z")


def subsampled(x):
    with numpyro.plate("data", 100, subsample_size=10):
        normal("z")


def data_set(x):
    with numpyro.plate("data", 5):
        z = normal("z")
        with numpyro.plate("pixels", 3):
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x + jnp.zeros((3, 5)))


def only_z_of_data(x):
    with numpyro.plate("data", 5):
        normal("z")


def with_state(x):
    mutable("statistics", {"mean": 0.0})
    simple(x)


def improper(x):
    z = numpyro.sample("z", dist.ImproperUniform(constraints.real, (), ()))
    numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def shifted_improper(x):
    flat = dist.ImproperUniform(constraints.positive, (), ())
    numpyro.sample("z", dist.TransformedDistribution(flat, transforms.AffineTransform(1.0, 1.0)))


def partly_observed(x):
    z, known = normal("z"), jnp.array([True, False])
    with numpyro.plate("entries", 2):
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=known)


def unobserved_in_full(x):
    only_z(x)
    with numpyro.plate("entries", 2):
        normal("x_unobserved")


def shared(x):
    numpyro.param("weight", 1.0)
    simple(x)


def shared_guide(x):
    numpyro.sample("z", dist.Normal(numpyro.param("weight", 1.0), 1.0))


REFUSED = {
    "no latent site": (lambda x: normal("x", obs=x), lambda x: None, "no latent site"),
    "a constant": (lambda x: (simple(x), normal("y", obs=0.5)), only_z, "observes y whatever x is"),
    "data closed over": (lambda x: simple(2.0), only_z, "observes x whatever x is"),
    "a site too few": (simple, lambda x: None, r"latent sites \['z'\], and z has \[\]"),
    "another name": (simple, lambda x: normal("w"), r"\['z'\], and z has \['w'\]"),
    "a site too many": (simple, lambda x: (only_z(x), normal("w")), r"z has \['w', 'z'\]"),
    "another shape": (
        simple,
        lambda x: numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1)),
        r"z\['z'\] has shape \(2,\)",
    ),
    "an improper prior": (improper, only_z, "improper prior"),
    "an improper prior, shifted": (shifted_improper, only_z, "improper prior"),
    # The entry that is observed has a q and no prior: log p(x) would be infinite.
    "a mask that the guide lacks": (
        partly_observed,
        unobserved_in_full,
        "a mask is on x_unobserved in the model or in the guide alone",
    ),
    "a discrete site of the guide": (
        simple,
        lambda x: numpyro.sample("z", dist.Bernoulli(0.5)),
        "z is discrete in the model or in the guide alone",
    ),
    "a mask that the model lacks": (simple, handlers.mask(only_z, False), "a mask is on z"),
    "a plate that subsamples": (subsampled, only_z, "subsamples 10 of 100"),
    "the guide's plate": (simple, subsampled, "subsamples 10 of 100"),
    "a plate over data": (
        data_set,
        only_z_of_data,
        r"every site of the model is in the plate 'data' of 5.*jax\.vmap over data.*to_event",
    ),
    "state": (with_state, only_z, "keeps state"),
    "dropout in the guide": (
        simple,
        lambda x: (numpyro.prng_key(), only_z(x)),
        "noise that is no site",
    ),
    "dropout in the model": (lambda x: (numpyro.prng_key(), simple(x)), only_z, "no site, as"),
    "a latent marked auxiliary": (
        lambda x: (simple(x), normal("u", infer={"is_auxiliary": True})),
        only_z,
        r"latent sites \['u', 'z'\]",
    ),
    "a shared parameter": (shared, shared_guide, r"share the param sites \['weight'\]"),
    "a point mass": (
        simple,
        lambda x: numpyro.sample("z", dist.Delta(numpyro.param("point", 0.0))),
        "a Delta",
    ),
    "an auxiliary site": (
        simple,
        lambda x: (normal("u", infer={"is_auxiliary": True}), only_z(x)),
        r"auxiliary sites \(u\)",
    ),
}


@pytest.mark.parametrize(("model", "guide", "message"), REFUSED.values(), ids=REFUSED)
def test_init_refuses(model, guide, message):
    with pytest.raises(ValueError, match=message) as error:
        bounds.adapters.from_numpyro(model, guide).init(jax.random.key(0), 1.0)
    assert "\n" not in str(error.value)


def test_objectives_refuse_without_init():
    made = bounds.adapters.from_numpyro(subsampled, subsampled)
    with pytest.raises(ValueError, match="subsamples 10 of 100"):
        bounds.pathwise(made.model, num_samples=2)(bounds.Params({}, {}), jax.random.key(0), 1.0)
    made = bounds.adapters.from_numpyro(CASE.model, CASE.guide)
    with pytest.raises(ValueError, match=r"have no site 'spread'.*init"):
        made.model.propose({}, jax.random.key(0), 1.0)


@pytest.mark.parametrize(
    "kind", [autoguide.AutoDelta, autoguide.AutoLaplaceApproximation, autoguide.AutoDAIS]
)
def test_auto_guides_without_a_density_are_refused(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__} has no density"):
        bounds.adapters.from_numpyro(CASE.model, kind(CASE.model))


def test_auto_guides_of_a_discrete_model_are_refused():
    model = CASES["mixture"].model
    made = bounds.adapters.from_numpyro(model, autoguide.AutoNormal(model))
    with pytest.raises(ValueError, match="AutoNormal draws continuous sites alone, and component"):
        made.init(jax.random.key(0), 1.0)


def test_auto_guides_are_set_up_outside_of_jit():
    made = bounds.adapters.from_numpyro(CASE.model, autoguide.AutoNormal(CASE.model))
    with pytest.raises(ValueError, match="has not seen a datum"):
        made.model.propose({}, jax.random.key(0), CASE.x)
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(made.init)(jax.random.key(0), CASE.x)
    with pytest.raises(ValueError, match="got None"):
        made.init(jax.random.key(0), None)


def factored(x):
    simple(x)
    numpyro.factor("more", 1.0)


def from_shape(x):
    z = normal("z")
    with numpyro.plate("entries", len(x)):
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


NOT_SIMULATED = {
    "a factor": (factored, "simulate cannot draw more"),
    "a scale": (handlers.scale(simple, 2.0), "simulate cannot draw z, x"),
    "a mask": (handlers.mask(simple, False), "simulate cannot draw z, x"),
    "a constant": (lambda x: (simple(x), normal("y", obs=0.5)), "simulate cannot draw y"),
    "a shape of the data": (from_shape, "None in place of its data.*TypeError"),
    "a mask among the data": (
        lambda x, known: handlers.mask(simple, known)(x),
        "None in place of its data.*ValueError",
    ),
    "a plate that subsamples": (subsampled, "^the plate 'data' subsamples"),
    "data that are changed": (lambda x: normal("x", obs=None if x is None else x + 1), "which"),
}


@pytest.mark.parametrize(("model", "message"), NOT_SIMULATED.values(), ids=NOT_SIMULATED)
def test_simulate_refuses_what_it_would_draw_wrongly(model, message):
    made = bounds.adapters.from_numpyro(model, only_z)
    with pytest.raises(ValueError, match=message):
        made.simulate({}, jax.random.key(0))


def test_a_simulated_z_has_to_fit_the_guide():
    made = bounds.adapters.from_numpyro(CASE.model, CASE.guide)
    params = made.init(jax.random.key(0), CASE.x)
    for z, message in (
        ({"z": jnp.array(0.0)}, r"the guide has the latent sites \['scale', 'z'\]"),
        ({"scale": jnp.ones(2), "z": jnp.array(0.0)}, r"z\['scale'\] has shape \(2,\)"),
    ):
        objective = bounds.rws(made.model, num_samples=2, simulate=lambda t, k, z=z: (CASE.x, z))
        with pytest.raises(ValueError, match=message):
            objective(params, jax.random.key(0), CASE.x)


def test_a_missing_numpyro_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpyro", None)
    monkeypatch.delitem(sys.modules, "bounds._numpyro_sites", raising=False)
    monkeypatch.delattr(bounds, "_numpyro_sites", raising=False)
    with pytest.raises(ImportError, match="pip install numpyro"):
        bounds.adapters.from_numpyro(simple, only_z)
