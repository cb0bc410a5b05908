"""NumPyro programs run at given parameters and latents; no other file imports NumPyro.

It is imported when `bounds.adapters.from_numpyro` is called.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.infer import autoguide
from numpyro.primitives import Messenger

_WRAPPERS = (
    dist.ExpandedDistribution,
    dist.Independent,
    dist.MaskedDistribution,
    dist.TransformedDistribution,
)
_NO_DENSITY = (
    autoguide.AutoDAIS,
    autoguide.AutoDelta,
    autoguide.AutoLaplaceApproximation,
    autoguide.AutoSemiDAIS,
)

_ROUNDING = 1024.0  # units in the last place

Trace = dict[str, Any]
"""Name of a site -> what NumPyro recorded of it, in the order of the program."""


class Refused(ValueError):
    """Why a program is no model of one datum."""


class _Draws(Messenger):
    """Cuts off draws whose derivative NumPyro does not vouch for, as its own ELBO does."""

    def postprocess_message(self, msg):
        if is_latent(msg) and not msg["fn"].has_rsample:
            msg["value"] = jax.lax.stop_gradient(msg["value"])
            msg["intermediates"] = []


class _NoOtherKeys(Messenger):
    """Refuses noise that is no site: densities would not be functions of z and x."""

    def process_message(self, msg):
        if msg["type"] == "prng_key":
            raise Refused(
                "the program draws noise that is no site, as dropout does, so that it has no "
                "density of z and x; close over one mask."
            )


def run(
    program: Any,
    args: tuple,
    key: Any,
    params: dict[str, PyTree] | None = None,
    z: dict[str, Any] | None = None,
) -> Trace:
    """The trace of a program.

    Args:
      program: the model or the guide.
      args: its arguments.
      key: of what is drawn.
      params: unconstrained values of all its param sites; None for the program's own ones.
      z: values of its latent sites; the others are drawn. Those outside of their support are moved
        inside, since a density may be NaN there, and its derivatives even where not selected.
    """

    def given(site):
        kind, name = site["type"], site["name"]
        _refuse(site)
        if kind == "param" and params is not None:
            if name not in params:
                raise Refused(
                    f"the parameters have no site {name!r}, but {sorted(params)}; "
                    "start from init(key, x)."
                )
            constraint = site["kwargs"].get("constraint")
            return params[name] if constraint is None else biject_to(constraint)(params[name])
        if is_latent(site) and z is not None and name in z:
            _check_shape(site, z[name])
            return _moved_inside(site["fn"], z[name])
        return None

    traced = handlers.trace(handlers.substitute(handlers.seed(program, key), substitute_fn=given))
    # Networks and AutoGuides that are set up, without parameters yet, may ask for keys.
    keys = contextlib.nullcontext() if params is None else _NoOtherKeys()
    draws = _Draws() if z is None else contextlib.nullcontext()
    with keys, draws:
        return traced.get_trace(*args)


def is_latent(site: Any) -> bool:
    """Whether a site is a draw of the program."""
    return site["type"] == "sample" and not site["is_observed"]


def is_auxiliary(site: Any) -> bool:
    """A factor, or a draw of a guide that is no site of the model."""
    return bool(site["infer"].get("is_auxiliary"))


def auxiliary(trace: Trace) -> dict[str, Any]:
    """The draws of a guide that are no sites of the model, by name."""
    return {n: s["value"] for n, s in trace.items() if is_latent(s) and is_auxiliary(s)}


def latents(trace: Trace) -> dict[str, Any]:
    """The draws of a program by name, without the auxiliary ones."""
    return {n: s["value"] for n, s in trace.items() if is_latent(s) and not is_auxiliary(s)}


def observed(trace: Trace) -> dict[str, Any]:
    """What a program observes by name, without its factors."""
    sites = ((n, s) for n, s in trace.items() if s["type"] == "sample" and s["is_observed"])
    return {name: site["value"] for name, site in sites if not is_auxiliary(site)}


def unconstrained(trace: Trace) -> dict[str, PyTree]:
    """The param sites by name, each in unconstrained space; of a module, a pytree."""
    found = {}
    for name, site in trace.items():
        if site["type"] == "param":
            constraint = site["kwargs"].get("constraint")
            value = site["value"]
            value = value if constraint is None else biject_to(constraint).inv(value)
            # A Python number would stay weakly typed, and change its type with the first step.
            found[name] = jax.tree.map(
                lambda leaf: jax.lax.convert_element_type(leaf, jnp.result_type(leaf)), value
            )
    return found


def total_log_prob(trace: Trace) -> Any:
    """Log-density of all sites in nats, factors, masks and scales included."""

    def log_prob(site):
        # Of a flow: the values on its way, which spare it the inverse.
        between = (site["intermediates"],) if site["intermediates"] else ()
        value = site["fn"].log_prob(site["value"], *between)
        return jnp.sum(value if site["scale"] is None else site["scale"] * value)

    return sum((log_prob(site) for site in trace.values() if site["type"] == "sample"), start=0.0)


def inside(fns: dict[str, Any], z: dict[str, Any]) -> Array:
    """Whether every value lies in the support of its distribution."""
    found = jnp.asarray(True)
    for name, fn in fns.items():
        within = _within(fn, jnp.asarray(z[name]))
        if within is not None:
            found = found & jnp.all(within)
    return found


def reweighted(trace: Trace) -> list[str]:
    """Sites that count in the density otherwise than they are drawn."""
    return [
        name
        for name, site in trace.items()
        if site["type"] == "sample"
        and (isinstance(site["fn"], dist.Unit) or site["scale"] is not None or _is_masked(site))
    ]


def discrete(trace: Trace) -> set[str]:
    """The latent sites that are no floating-point numbers."""
    types = ((name, jnp.result_type(value)) for name, value in latents(trace).items())
    return {name for name, dtype in types if not jnp.issubdtype(dtype, jnp.floating)}


def check_alike(model: Trace, guide: Trace) -> None:
    """Raises where log p - log q of a site would be of densities of two kinds."""
    uneven = sorted(discrete(model) ^ discrete(guide))
    if uneven:
        raise Refused(
            f"{', '.join(uneven)} is discrete in the model or in the guide alone, so that p over q "
            "is no weight; draw whole numbers in both, or in neither."
        )
    masked = [{n for n, s in t.items() if is_latent(s) and _is_masked(s)} for t in (model, guide)]
    uneven = sorted(masked[0] ^ masked[1])
    if uneven:
        raise Refused(
            f"a mask is on {', '.join(uneven)} in the model or in the guide alone, so that one of "
            "the two does not integrate to 1; mask both, or, for data that are missing, put "
            "handlers.mask around the observed site in place of obs_mask."
        )


def check_one_datum(model: Trace) -> None:
    """Raises where a model is several of one datum each: all of it is in a plate."""
    frames = [set(s["cond_indep_stack"]) for s in model.values() if s["type"] == "sample"]
    for plate in set.intersection(*frames):
        if plate.size > 1:
            raise Refused(
                f"every site of the model is in the plate {plate.name!r} of {plate.size}, so that "
                "its elements are independent data, of which one bound on all is not the sum of "
                "theirs; write the model of one and jax.vmap over data, or, if they are the "
                "entries of one datum, use to_event in place of the plate."
            )


def point_masses(trace: Trace) -> list[str]:
    """Floating draws of a guide that are fixed values, which have no density."""
    if auxiliary(trace):
        return []  # values of auxiliary draws, which bring the density along
    return [
        name
        for name, site in trace.items()
        if is_latent(site)
        and any(isinstance(layer, dist.Delta) for layer in _layers(site["fn"]))
        and jnp.issubdtype(jnp.result_type(site["value"]), jnp.floating)
    ]


def auto_guides(guide: Any) -> list[Any]:
    """The AutoGuides that a guide is or has, or none; one without a density is refused."""
    if isinstance(guide, _NO_DENSITY):
        raise Refused(
            f"{type(guide).__name__} has no density q(z | x) of the latent sites; "
            "use AutoNormal, AutoMultivariateNormal or AutoIAFNormal."
        )
    if isinstance(guide, autoguide.AutoGuideList):
        return [guide, *(part for member in guide for part in auto_guides(member))]
    return [guide] if isinstance(guide, autoguide.AutoGuide) else []


def have_inverses(guides: list[Any]) -> bool:
    """Whether the vector behind a z can be found again."""
    return not any(isinstance(guide, autoguide.AutoBNAFNormal) for guide in guides)


def vector_guides(guides: list[Any], z: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    """The guides that draw all their sites as one vector, with the distributions of these sites."""
    found = []
    for guide in guides:
        if isinstance(guide, autoguide.AutoContinuous) and guide.prototype_trace is not None:
            fns = {n: s["fn"] for n, s in guide.prototype_trace.items() if is_latent(s)}
            if fns.keys() <= z.keys():  # or the names are told to differ
                found.append((guide, fns))
    return found


def vector_behind(guide: Any, fns: dict[str, Any], z: dict[str, Any]) -> dict[str, Any]:
    """The unconstrained vector of such a guide under its name, at a z.

    Given the vector, the guide computes its sites and their density, Jacobians included.
    """
    free = {}
    for name, fn in fns.items():
        _check_shape(guide.prototype_trace[name], z[name])
        free[name] = jnp.ravel(biject_to(fn.support).inv(_moved_inside(fn, z[name])))
    # In the order in which the guide takes the vector apart.
    order = guide._unpack_latent(jnp.zeros(guide.latent_dim))
    return {f"_{guide.prefix}_latent": jnp.concatenate([free[name] for name in order])}


def _is_masked(site: Any) -> bool:
    return any(isinstance(layer, dist.MaskedDistribution) for layer in _layers(site["fn"]))


def _layers(fn: Any) -> Iterator[Any]:
    """A distribution and those that it wraps."""
    yield fn
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
        yield fn


def _within(fn: Any, value: Array) -> Any:
    """Where a value lies in the support of its distribution; None where that is not asked."""
    support = fn.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if constraints.is_dependent(support) or support is constraints.real:
        return None
    if not support.event_dim:
        return support(value)
    try:
        transform = biject_to(support)
    except NotImplementedError:
        return None  # whole numbers, and spheres
    # A draw satisfies what vectors and matrices have to, such as a sum of 1, up to rounding alone.
    error = jnp.abs(transform(transform.inv(value)) - value)
    axes = tuple(range(-support.event_dim, 0))
    size = jnp.max(jnp.abs(value), axes, keepdims=True)
    return jnp.all(error <= _ROUNDING * jnp.finfo(value.dtype).eps * size, axes, keepdims=True)


def _moved_inside(fn: Any, value: Any) -> Any:
    value = jnp.asarray(value)
    within = _within(fn, value)
    if within is None:
        return value
    return jnp.where(within, value, fn.support.feasible_like(value).astype(value.dtype))


def _refuse(site: Any) -> None:
    name = site["name"]
    if site["type"] == "plate":
        size, subsample_size = site["args"][:2]
        if subsample_size is not None and subsample_size < size:
            raise Refused(
                f"the plate {name!r} subsamples {subsample_size} of {size}, and its scale makes no "
                "log-weight of a datum; write the model of one datum and jax.vmap over data."
            )
    elif site["type"] == "mutable":
        raise Refused(
            f"the site {name!r} keeps state between calls, and a log-density must not; "
            "use a network without mutable collections, such as batch statistics."
        )
    elif is_latent(site) and any(isinstance(f, dist.ImproperUniform) for f in _layers(site["fn"])):
        raise Refused(
            f"the site {name!r} has an improper prior, under which log p(x) has no value; "
            "give it a prior that integrates to 1."
        )


def _check_shape(site: Any, value: Any) -> None:
    shape, wanted = jnp.shape(value), tuple(site["fn"].shape(site["kwargs"]["sample_shape"]))
    # Within a scan the site is one step's, and the value that of all steps.
    own = shape[1:] if "_scan_current_index" in site["infer"] else shape
    if own != wanted:
        raise Refused(
            f"z[{site['name']!r}] has shape {shape}, and the site of that name {wanted}; "
            "the model and the guide must agree."
        )
