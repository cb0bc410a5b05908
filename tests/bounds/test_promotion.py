"""Every public function under JAX's strict promotion of types, where int + float raises.

What runs is the example in its docstring, so that a new function is held to it as well, and then
gradients and chunks, which examples need not show. Ranks are not promoted in any test.
"""

import doctest
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interface import public_names
from jax.scipy.stats import norm

import bounds


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


NAMES = public_names()


def failures(name):
    """(examples tried, what went wrong with them) of a public name."""
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(verbose=False)
    report = []
    # Without globals of its own: an example imports what it uses.
    for test in finder.find(NAMES[name], name, module=False, globs={}):
        runner.run(test, out=report.append)
    return runner.tries, "".join(report)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_every_public_name(name):
    tries, report = failures(name)
    assert not report, report
    # Tuples of results are made by the functions; all else has an example.
    assert tries > 0 or inspect.isclass(NAMES[name])


def test_the_check_sees_a_mixture_of_types():
    with pytest.raises(Exception, match="promotion"):
        _ = jnp.arange(3) + jnp.ones(3)


def propose(phi, key, x):
    z = phi + jax.random.normal(key)
    return z, norm.logpdf(z, phi)


MODEL = bounds.LatentModel(
    propose,
    lambda phi, x, z: norm.logpdf(z, phi),
    lambda theta, x, z: norm.logpdf(z, theta) + norm.logpdf(x, z),
)
PARAMS, X = bounds.Params(0.3, 0.5), 1.0
PATH = bounds.annealing_schedule(4)


def chains(params, key, x):
    objective = bounds.dreg(bounds.annealed(MODEL, num_bridges=2), num_samples=3, chunk_size=2)
    return objective(bounds.Params(bounds.Annealing(params, 0.1, PATH, 0.5), params.phi), key, x)


OBJECTIVES = {
    "pathwise, ciwae": lambda: bounds.pathwise(
        MODEL, num_samples=5, chunk_size=2, bound=lambda log_w: bounds.ciwae(log_w, 0.5)
    ),
    "stl": lambda: bounds.stl(MODEL, num_samples=5, chunk_size=2),
    "dreg": lambda: bounds.dreg(MODEL, num_samples=5, chunk_size=2),
    "dreg, alpha": lambda: bounds.dreg(MODEL, num_samples=5, alpha=0.5),
    "reinforce": lambda: bounds.reinforce(MODEL, num_samples=5, baseline=lambda x: x),
    "vimco": lambda: bounds.vimco(MODEL, num_samples=5, chunk_size=2),
    "rws": lambda: bounds.rws(MODEL, num_samples=5),
    "rloo": lambda: bounds.rloo(MODEL, num_samples=5, chunk_size=2),
    "rloo, iwae": lambda: bounds.rloo(MODEL, num_samples=5, bound=bounds.iwae),
    "ovis": lambda: bounds.ovis(MODEL, num_samples=5, gamma=0.5),
    "tvo": lambda: bounds.tvo(MODEL, num_samples=5, betas=[0.0, 0.5, 1.0]),
    "annealed": lambda: chains,
    "miwae": lambda: bounds.miwae(MODEL, num_groups=2, num_samples=3),
    "piwae": lambda: bounds.piwae(MODEL, num_groups=2, num_samples=3, chunk_size=2),
    "elbo_analytic_entropy": lambda: bounds.elbo_analytic_entropy(
        MODEL, num_samples=5, entropy=lambda phi, x: bounds.densities.gaussian_entropy(jnp.ones(1))
    ),
}


@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
def test_gradients(make):
    value, grads = jax.value_and_grad(make())(PARAMS, jax.random.key(0), X)
    assert np.isfinite([value, *jax.tree.leaves(grads)]).all()


def test_chunks_and_moments():
    _, diagnostics = bounds.log_likelihood(
        MODEL, PARAMS, jax.random.key(0), X, num_samples=50, chunk_size=7
    )
    assert np.isfinite(diagnostics.k_hat)
    moments = bounds.gradient_moments(
        lambda key: jax.random.normal(key, (3,)), jax.random.key(1), num_replicates=20, chunk_size=6
    )
    assert np.isfinite(bounds.snr(moments)).all()
    assert np.isfinite(bounds.snr_interval(moments)).all()
    log_w, _ = bounds.reverse_ais(
        MODEL, PARAMS, jax.random.key(2), X, 0.5, betas=bounds.annealing_schedule(4), step_sizes=0.3
    )
    assert np.isfinite(log_w)
