"""NumPyro programs run at given parameters and latents; no other file imports NumPyro.

It is imported when `bounds.adapters.from_numpyro` is called.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, PyTree
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.infer import autoguide

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

Trace = dict[str, Any]
"""Name of a site -> what NumPyro recorded of it, in the order of the program."""


class _StopOthers(numpyro.primitives.Messenger):
    """Cuts off draws whose derivative NumPyro does not vouch for, as its own ELBO does."""

    def postprocess_message(self, msg):
        if is_latent(msg) and not msg["fn"].has_rsample:
            msg["value"] = jax.lax.stop_gradient(msg["value"])
            msg["intermediates"] = []


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
      z: values of its latent sites; the others are drawn.
    """

    def given(site):
        kind, name = site["type"], site["name"]
        _refuse(site)
        if kind == "param" and params is not None:
            if name not in params:
                raise ValueError(
                    f"the parameters have no site {name!r}, but {sorted(params)}; "
                    "start from init(key, x)."
                )
            constraint = site["kwargs"].get("constraint")
            return params[name] if constraint is None else biject_to(constraint)(params[name])
        if is_latent(site) and z is not None and name in z:
            _check_shape(site, z[name])
            return z[name]
        return None

    seeded = handlers.seed(program, key)
    with _StopOthers():
        return handlers.trace(handlers.substitute(seeded, substitute_fn=given)).get_trace(*args)


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


def moved_inside(trace: Trace, z: dict[str, Any]) -> tuple[dict[str, Any], Array] | None:
    """z with what is outside of an interval moved inside, and whether nothing was.

    None where every latent may be any number. Supports of vectors and matrices are left out: a
    draw satisfies them up to rounding alone.
    """
    safe, inside, bounded = dict(z), jnp.asarray(True), False
    for name, value in z.items():
        support = trace[name]["fn"].support
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        if constraints.is_dependent(support) or support.event_dim or support is constraints.real:
            continue
        value, bounded = jnp.asarray(value), True
        fits = support(value)
        safe[name] = jnp.where(fits, value, support.feasible_like(value).astype(value.dtype))
        inside = inside & jnp.all(fits)
    return (safe, inside) if bounded else None


def reweighted(trace: Trace) -> list[str]:
    """Sites that count in the density otherwise than they are drawn."""
    return [
        name
        for name, site in trace.items()
        if site["type"] == "sample"
        and (
            isinstance(site["fn"], dist.Unit)
            or site["scale"] is not None
            or any(isinstance(layer, dist.MaskedDistribution) for layer in _layers(site["fn"]))
        )
    ]


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
        raise ValueError(
            f"{type(guide).__name__} has no density q(z | x) of the latent sites; "
            "use AutoNormal, AutoMultivariateNormal or AutoIAFNormal."
        )
    if isinstance(guide, autoguide.AutoGuideList):
        return [guide, *(part for member in guide for part in auto_guides(member))]
    return [guide] if isinstance(guide, autoguide.AutoGuide) else []


def have_inverses(guides: list[Any]) -> bool:
    """Whether the vector behind a z can be found again."""
    return not any(isinstance(guide, autoguide.AutoBNAFNormal) for guide in guides)


def vectors_behind(guides: list[Any], z: dict[str, Any]) -> dict[str, Any]:
    """z, with the one auxiliary vector of each AutoContinuous guide in place of its sites.

    Such a guide draws all its sites as one unconstrained vector and maps it to them; given the
    vector, it computes the sites and their density, Jacobians included.
    """
    given = dict(z)
    for guide in guides:
        if isinstance(guide, autoguide.AutoContinuous) and guide.prototype_trace is not None:
            own = {name: s for name, s in guide.prototype_trace.items() if is_latent(s)}
            if own.keys() <= z.keys():  # or names are told to differ
                for name, site in own.items():
                    _check_shape(site, z[name])
                free = {n: biject_to(s["fn"].support).inv(given.pop(n)) for n, s in own.items()}
                given[f"_{guide.prefix}_latent"] = guide._unpack_latent.inv(free)
    return given


def _layers(fn: Any) -> Iterator[Any]:
    """A distribution and those that it wraps."""
    yield fn
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
        yield fn


def _refuse(site: Any) -> None:
    name = site["name"]
    if site["type"] == "plate":
        size, subsample_size = site["args"][:2]
        if subsample_size is not None and subsample_size < size:
            raise ValueError(
                f"the plate {name!r} subsamples {subsample_size} of {size}, and its scale makes no "
                "log-weight of a datum; write the model of one datum and jax.vmap over data."
            )
    elif site["type"] == "mutable":
        raise ValueError(
            f"the site {name!r} keeps state between calls, and a log-density must not; "
            "use a network without mutable collections, such as batch statistics."
        )
    elif is_latent(site) and any(isinstance(f, dist.ImproperUniform) for f in _layers(site["fn"])):
        raise ValueError(
            f"the site {name!r} has an improper prior, under which log p(x) has no value; "
            "give it a prior that integrates to 1."
        )


def _check_shape(site: Any, value: Any) -> None:
    shape, wanted = jnp.shape(value), tuple(site["fn"].shape())
    # Within a scan the site is one step's, and the value that of all steps.
    own = shape[1:] if "_scan_current_index" in site["infer"] else shape
    if own != wanted:
        raise ValueError(
            f"z[{site['name']!r}] has shape {shape}, and the site of that name {wanted}; "
            "the model and the guide must agree."
        )
