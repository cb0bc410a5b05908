"""A NumPyro model and guide as a latent-variable model of one datum.

Sites are told apart by what NumPyro records of them, and densities are those of its own
distributions; what is added is that log q is evaluated at a given z, AutoGuides included, which
estimators that stop phi in it need.
"""

import contextlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from bounds._checks import is_known
from bounds._types import Key, LatentModel, Params

_NUMBERS = (jax.Array, np.ndarray, np.generic, bool, int, float)


class FromNumPyro(NamedTuple):
    """What `from_numpyro` makes.

    Attributes:
      model: the `LatentModel`. z is a dict of the model's latent sites by name, in the
        constrained space that its priors are written in.
      init: (key, x) -> `Params`: the model's param sites as theta and the guide's as phi, dicts by
        name of unconstrained values, those that SVI trains. Networks registered by
        `numpyro.contrib.module` are param sites too, each a pytree. It also checks that model and
        guide fit each other, and sets an AutoGuide up.
      simulate: (theta, key) -> (x, z), a draw from the joint, for the sleep phase of `rws` and for
        checks by simulated data. x is what the model takes as its x, in the types of its
        observed sites: the value of the one that is passed its argument, or a tuple of them.
    """

    model: LatentModel
    init: Callable[[Key, PyTree], Params]
    simulate: Callable[[PyTree, Key], tuple[PyTree, dict[str, Any]]]


def from_numpyro(model: Callable[..., Any], guide: Callable[..., Any]) -> FromNumPyro:
    r"""A NumPyro model p(x, z) with its guide q(z | x), for every bound and estimator.

    .. math:: \log w = \sum_{s \in \mathrm{model}} \log p_s - \sum_{s \in \mathrm{guide}} \log q_s

    The sums run over the sample sites, with factors, masks and scales as NumPyro counts them. x is
    the model's single argument, or the tuple of its arguments, and belongs to ONE datum: no plate
    over data, but `jax.vmap` over x. A plate that all sites of the model are in makes its elements
    independent data and is refused, as is one that subsamples. Any other plate is part of the
    datum and summed over: where a latent outside of it is shared by all observations, the data set
    is the datum, and log w that of p(all of it). The guide gets the same arguments. Covariates that
    are not to be drawn are closed over, as in
    `functools.partial(model, covariates)`.

    Latents may be discrete, and may have constraints: log_p is -inf, with finite derivatives,
    where a z is outside of the support of the prior, and log_q where it is outside of that of the
    guide. Draws that NumPyro does not call reparameterised (`has_rsample`) carry no gradient, so
    that `pathwise` and its kin refuse them. AutoGuides have a log q at a given z, but for
    AutoBNAFNormal, which has no inverse: its `log_q` is None. They depend on no x, one posterior
    for all data, and have to be set up by `init`, outside of jit, before anything else. A parameter
    that model and guide share is refused.

    `simulate` calls the model with None for each argument without default or with the default
    None, and draws its observed sites then. Which site belongs to which argument is found by names
    and by trial, and checked: an argument must reach `obs` as it is.

    Args:
      model: a NumPyro model of one datum.
      guide: its guide, a function or an AutoGuide.

    Returns:
      `FromNumPyro`: the model, `init` and `simulate`.

    Raises:
      ImportError: NumPyro is not installed.
      ValueError: the guide is an AutoGuide without a density (AutoDelta, AutoLaplaceApproximation,
        those by annealing). When called: the model has no latent site or an improper prior, a
        plate subsamples or holds all of the model, a site keeps state, noise is drawn that is no
        site (dropout), an observed site depends on no x, the sites of model, guide and z differ by
        name or shape, or a site is discrete or masked in one of model and guide alone, an AutoGuide
        meets a discrete site, the guide draws a point mass or, for `log_q`, auxiliary sites;
        `simulate` also where a factor, mask or scale makes the density another one than that of the
        draws, or where it cannot tell which sites the model observes.

    Example:
      >>> import jax, numpyro, bounds
      >>> from numpyro.distributions import Normal, constraints
      >>> def model(x):
      ...     z = numpyro.sample("z", Normal(numpyro.param("mean", 0.0), 1.0))
      ...     numpyro.sample("x", Normal(z, 1.0), obs=x)
      >>> def guide(x):
      ...     scale = numpyro.param("scale", 1.0, constraint=constraints.positive)
      ...     numpyro.sample("z", Normal(numpyro.param("weight", 0.5) * x, scale))
      >>> adapted = bounds.adapters.from_numpyro(model, guide)
      >>> params = adapted.init(jax.random.key(0), 1.0)
      >>> objective = bounds.dreg(adapted.model, num_samples=8)
      >>> sorted(jax.grad(objective)(params, jax.random.key(1), 1.0).phi)
      ['scale', 'weight']

    Source: Phan et al. 2019 (arXiv 1912.11554) for NumPyro.
    """
    try:
        from bounds import _numpyro_sites as sites
    except ModuleNotFoundError as error:
        if error.name != "numpyro":
            raise
        raise ImportError(
            "bounds.adapters.from_numpyro needs NumPyro, which is missing: pip install numpyro."
        ) from error
    auto_guides = sites.auto_guides(guide)

    def run_guide(phi, key, x, z=None):
        if any(part.prototype_trace is None for part in auto_guides):
            raise ValueError(
                "this AutoGuide has not seen a datum yet: call init(key, x) once, outside of jit."
            )
        return sites.run(guide, _arguments(x), key, phi, z)

    def propose(phi, key, x):
        trace = run_guide(phi, key, x)
        points = sites.point_masses(trace)
        if points:
            raise ValueError(
                f"the guide draws {', '.join(points)} from a Delta, which has no density; "
                "give it another distribution."
            )
        return sites.latents(trace), sites.total_log_prob(trace)

    def log_q(phi, x, z):
        given, fns = dict(z), {}
        for part, own in sites.vector_guides(auto_guides, z):
            fns |= own
            given = {name: value for name, value in given.items() if name not in own}
            given |= sites.vector_behind(part, own, z)
        trace = run_guide(phi, jax.random.key(0), x, given)
        _check_names("guide", sites.latents(trace), z)
        hidden = sites.auxiliary(trace).keys() - given.keys()
        if hidden:
            raise ValueError(
                f"the guide draws auxiliary sites ({', '.join(hidden)}), so that log q(z | x) at a "
                "given z is not known; use bounds.pathwise, or a guide without them."
            )
        return total(trace, z, fns)

    def log_p(theta, x, z):
        trace = sites.run(model, _arguments(x), jax.random.key(0), theta, z)
        found = sites.latents(trace) | sites.auxiliary(trace)
        if not found:
            raise ValueError("the model has no latent site: log p(x) is known without a bound.")
        _check_names("model", found, z)
        sites.check_one_datum(trace)
        return total(trace, z, {})

    def total(trace, z, fns):
        fns = {name: trace[name]["fn"] for name in z} | fns
        return jnp.where(sites.inside(fns, z), sites.total_log_prob(trace), -jnp.inf)

    has_log_q = sites.have_inverses(auto_guides)

    def init(key, x):
        if x is None:
            raise ValueError("init takes a datum x, got None, under which nothing is observed.")
        if auto_guides and not is_known((key, x)):
            raise ValueError(
                "init sets an AutoGuide up with numbers that it keeps; call it outside of jit, "
                "vmap and grad."
            )
        model_key, guide_key, key = jax.random.split(key, 3)
        of_model = sites.run(model, _arguments(x), model_key)
        discrete = sorted(sites.discrete(of_model))
        if discrete and len(auto_guides) == 1:
            raise ValueError(
                f"{type(guide).__name__} draws continuous sites alone, and {', '.join(discrete)} "
                "of the model is discrete; write the guide as a function."
            )
        of_guide = sites.run(guide, _arguments(x), guide_key)
        theta, phi = sites.unconstrained(of_model), sites.unconstrained(of_guide)
        shared = theta.keys() & phi.keys()
        if shared:
            raise ValueError(
                f"model and guide share the param sites {sorted(shared)}, which cannot be in theta "
                "and in phi; give each its own."
            )

        def check():
            z, _ = propose(phi, key, x)
            return log_p(theta, x, z), log_q(phi, x, z) if has_log_q else ()

        jax.eval_shape(check)
        sites.check_alike(of_model, of_guide)
        _check_observed(x, lambda x: sites.observed(sites.run(model, _arguments(x), key, theta)))
        return Params(theta, phi)

    adapted = LatentModel(propose, log_q if has_log_q else None, log_p)
    return FromNumPyro(adapted, init, lambda theta, key: _simulate(sites, model, theta, key))


def _arguments(x: Any) -> tuple:
    """x as the arguments of the model and of the guide; a NamedTuple is one argument."""
    return x if type(x) is tuple else (x,)


def _check_names(program: str, found: dict[str, Any], z: dict[str, Any]) -> None:
    if found.keys() != z.keys():
        raise ValueError(
            f"the {program} has the latent sites {sorted(found)}, and z has {sorted(z)}; "
            "model and guide need sites of the same names, each drawn by both."
        )


def _check_observed(x: PyTree, observe: Callable[[PyTree], dict[str, Any]]) -> None:
    """Raises where the model observes what is no part of x."""
    leaves, structure = jax.tree.flatten(x)
    numbers = [i for i, leaf in enumerate(leaves) if isinstance(leaf, _NUMBERS)]

    def program(values):
        given = list(leaves)
        for i, value in zip(numbers, values, strict=True):
            given[i] = value
        return observe(jax.tree.unflatten(structure, given))

    try:
        jaxpr, found = jax.make_jaxpr(program, return_shape=True)([leaves[i] for i in numbers])
    except (TypeError, jax.errors.JAXTypeError):
        return  # a number of x is a size or a choice of the program
    reached = set(jaxpr.jaxpr.invars)
    for equation in jaxpr.jaxpr.eqns:
        if any(v in reached for v in equation.invars if not hasattr(v, "val")):
            reached.update(equation.outvars)
    outputs = zip(sorted(found), jaxpr.jaxpr.outvars, strict=True)
    constant = [name for name, v in outputs if hasattr(v, "val") or v not in reached]
    if constant:
        raise ValueError(
            f"the model observes {', '.join(constant)} whatever x is; pass the data as its "
            "argument, or use numpyro.factor for a term that belongs to no datum."
        )


def _simulate(sites: Any, model: Callable, theta: PyTree, key: Any) -> tuple[PyTree, dict]:
    names = _data_arguments(model)
    try:
        trace = sites.run(model, (None,) * len(names), key, theta)
    except sites.Refused:
        raise
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            "simulate calls the model with None in place of its data, and the model raised "
            f"{type(error).__name__}: {error}; take no shapes from data, and close over covariates."
        ) from error
    others = [*sites.reweighted(trace), *sites.observed(trace)]
    if others:
        raise ValueError(
            f"simulate cannot draw {', '.join(others)}: a factor, mask, scale or an observation "
            "without data makes the density another one than that of the draws."
        )
    drawn = sites.latents(trace) | sites.auxiliary(trace)
    all_sites = ", ".join(drawn)

    def observed_by(values):
        """The sites that observe these arguments as they are; [] where others are observed too."""

        def program(values, z):
            arguments = tuple(values.get(name) for name in names)
            seen = sites.observed(sites.run(model, arguments, jax.random.key(0), theta, z))
            own = [n for n, v in seen.items() if any(v is value for value in values.values())]
            if len(own) == len(seen) == len(values):
                found.extend(own)

        found: list[str] = []
        with contextlib.suppress(Exception):  # a wrong guess may break the model anywhere
            jax.eval_shape(program, values, drawn)
        return found

    x: dict[str, Any] = {}
    for name in names:
        # Of its own site a value has the right shape, and any such value shows where it goes.
        guesses = sorted(drawn, key=lambda site: site != name)
        tries = (observed_by({name: drawn[site]}) for site in guesses)
        place = next((found[0] for found in tries if found), None)
        if place is None:
            break
        x[name] = drawn.pop(place)
    if not x or not observed_by(x):
        raise ValueError(
            f"simulate cannot tell which of the sites {all_sites} the model observes by its "
            "arguments; pass each to obs as it is."
        )
    return tuple(x.values()) if len(x) > 1 else x.popitem()[1], drawn


def _data_arguments(model: Callable) -> list[str]:
    """Names of the leading arguments whose default is None, or that have none."""
    found = []
    for name, parameter in inspect.signature(model).parameters.items():
        positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if not positional or parameter.default not in (parameter.empty, None):
            break
        found.append(name)
    return found
