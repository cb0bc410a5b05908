"""Annealed chains on a linear-Gaussian model: the log-weight is a quadratic form in the noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import TIGHT, X64, close, expected_gradient, flat, gauss_hermite

import bounds
from models.exact import enumerable, linear_gaussian

pytestmark = pytest.mark.x64
VARIANCE = 2 / 3
MODEL = linear_gaussian.make_model(VARIANCE)
X = jnp.array([1.5, -0.4])
PARAMS = bounds.Params(
    jnp.array([0.3, -0.2]),
    linear_gaussian.Inference(jnp.array([[0.8, 0.1], [0.0, 0.4]]), jnp.array([0.3, 0.1])),
)
PATH = {
    "step_sizes": jnp.array([0.3, 0.5, 0.2]),
    "betas": jnp.array([0.0, 0.2, 0.5, 0.8, 1.0]),
    "damping": jnp.array(0.6),
}


def quadratic(params, path, num_leapfrog, x):
    """(c, l, Q) of log w = c + l y - y Q y / 2, y standard normal: by products of matrices."""
    dims, bridges = len(x), len(path["step_sizes"])
    eye = jnp.eye(dims)

    def affine(offset, *blocks):
        """An affine function of y, [dims, 1 + size]: constant, then what each block adds."""
        return jnp.concatenate([offset[:, None], *blocks], axis=1)

    zeros = [jnp.zeros((dims, dims))] * (1 + bridges)

    def noise(number):
        return affine(jnp.zeros(dims), *(eye if i == number else b for i, b in enumerate(zeros)))

    def constant(offset):
        return affine(offset, *zeros)

    mean = constant(params.phi.weight @ x + params.phi.bias)
    theta = params.theta
    z = mean + jnp.sqrt(VARIANCE) * noise(0)

    def slope(z, beta):
        return beta * (constant(theta + x) - 2 * z) + (1 - beta) * (mean - z) / VARIANCE

    def half_square(a):
        return 0.5 * a.T @ a

    # Energies as [1 + size, 1 + size] forms of (1, y).
    total = half_square(noise(0))  # - log q(z_0), but for its constant
    momentum = constant(jnp.zeros(dims))
    for t in range(bridges):
        share = path["damping"] if t else 0.0
        momentum = share * momentum + jnp.sqrt(1 - share**2) * noise(1 + t)
        total = total + half_square(momentum)
        beta, step = path["betas"][1 + t], path["step_sizes"][t]
        for _ in range(num_leapfrog):
            momentum = momentum + step / 2 * slope(z, beta)
            z = z + step * momentum
            momentum = momentum + step / 2 * slope(z, beta)
        total = total - half_square(momentum)
    total = total - half_square(z - constant(theta)) - half_square(z - constant(x))
    constants = -dims * np.log(2 * np.pi) + dims / 2 * np.log(2 * np.pi * VARIANCE)
    return total[0, 0] + constants, total[0, 1:] + total[1:, 0], -2 * total[1:, 1:]


def mean_log_w(params, path, num_leapfrog=1):
    c, _, form = quadratic(params, path, num_leapfrog, X)
    return c - jnp.trace(form) / 2


def log_mean_w(params, path, num_leapfrog=1):
    c, line, form = quadratic(params, path, num_leapfrog, X)
    inner = jnp.eye(len(line)) + (form + form.T) / 2
    return c + line @ jnp.linalg.solve(inner, line) / 2 - jnp.linalg.slogdet(inner)[1] / 2


def tied(params, path):
    return bounds.Params(bounds.Annealing(params, **path), params.phi)


CHAINS = bounds.annealed(MODEL, num_bridges=3)


def sample(phi, x, noise):
    """A chain from standard normal noise [1 + T, D]."""
    from bounds._annealed import Chain

    start = phi.weight @ x + phi.bias + jnp.sqrt(VARIANCE) * noise[0]
    return Chain(start, noise[1:])


@pytest.mark.parametrize("num_leapfrog", [1, 2])
def test_log_w_is_the_quadratic_form(num_leapfrog):
    chains = bounds.annealed(MODEL, num_bridges=3, num_leapfrog=num_leapfrog)
    c, line, form = quadratic(PARAMS, PATH, num_leapfrog, X)
    theta, phi = tied(PARAMS, PATH)
    y = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4, 2)), float)
    z = jax.vmap(lambda e: sample(phi, X, e))(y)
    log_q = jax.vmap(lambda z: chains.log_q(phi, X, z))(z)
    log_w = jax.jit(jax.vmap(lambda z: chains.log_p(theta, X, z)))(z) - log_q
    flat_y = y.reshape(5, -1)
    expected = c + flat_y @ line - jnp.sum((flat_y @ form) * flat_y, 1) / 2
    np.testing.assert_allclose(log_w, expected, rtol=10 * TIGHT, atol=10 * TIGHT)


def test_the_mean_weight_is_the_likelihood_for_any_path():
    exact = linear_gaussian.log_likelihood(PARAMS.theta, X)
    for path in (PATH, PATH | {"damping": jnp.array(0.0)}, PATH | {"betas": PATH["betas"][::-1]}):
        np.testing.assert_allclose(log_mean_w(PARAMS, path), exact, rtol=10 * TIGHT)
    elbo = linear_gaussian.expected_elbo(PARAMS, X, VARIANCE)
    assert elbo < mean_log_w(PARAMS, PATH) - 0.02, "the path is worth its steps"
    assert mean_log_w(PARAMS, PATH) < exact


def elbo_expectation(factory):
    """Expected gradient of one chain with two bridges in one dimension, by quadrature."""
    draws, mass = gauss_hermite(5, 3)  # exact for polynomials of degree 9
    params = bounds.Params(
        PARAMS.theta[:1], linear_gaussian.Inference(jnp.array([[0.8]]), jnp.array([0.3]))
    )
    path = {"step_sizes": jnp.array([0.3, 0.5]), "betas": jnp.array([0.0, 0.3, 0.7, 1.0]),
            "damping": jnp.array(0.6)}  # fmt: skip
    chains = bounds.annealed(MODEL, num_bridges=2)
    grads = expected_gradient(
        factory, chains, sample, tied(params, path), X[:1], draws.reshape(-1, 1, 3, 1), mass
    )

    def exact(params, path):
        c, _, form = quadratic(params, path, 1, X[:1])
        return c - jnp.trace(form) / 2

    return grads, jax.grad(exact, argnums=(0, 1))(params, path)


ONE_CHAIN = {
    "pathwise": lambda m: bounds.pathwise(m, num_samples=1),
    "stl": lambda m: bounds.stl(m, num_samples=1),
    "dreg": lambda m: bounds.dreg(m, num_samples=1),
}


@pytest.mark.parametrize("factory", ONE_CHAIN.values(), ids=ONE_CHAIN)
def test_gradients_are_those_of_the_matrices(factory):
    """In theta, phi, step sizes, betas and damping; phi acts by the start and by the path."""
    grads, (of_params, of_path) = elbo_expectation(factory)
    found = grads.theta
    total_phi = jax.tree.map(jnp.add, found.params.phi, grads.phi)
    assert close(found.params.theta, of_params.theta)
    assert close(total_phi, of_params.phi)
    for name, value in of_path.items():
        assert close(getattr(found, name), value), name
    assert not close(grads.phi, of_params.phi), "phi acts by the path too"


def chains_expectation(factory):
    """IWAE of two chains with one bridge: four noises."""
    draws, mass = gauss_hermite(22 if X64 else 16, 4)
    params = bounds.Params(
        PARAMS.theta[:1], linear_gaussian.Inference(jnp.array([[0.6]]), jnp.array([0.2]))
    )
    path = {"step_sizes": jnp.array([0.4]), "betas": jnp.array([0.0, 0.5, 1.0])}
    chains = bounds.annealed(MODEL, num_bridges=1)
    return expected_gradient(
        factory, chains, sample, tied(params, path), X[:1], draws.reshape(-1, 2, 2, 1), mass
    )


def test_dreg_is_unbiased_over_chains_and_squared_weights_for_the_path_are_not():
    def squared_for_all(model):
        """Wrong: what phi and theta do in the path is weighted by the squares as well."""

        def objective(params, key, x):
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(2))
            z, _ = jax.vmap(lambda k: model.propose(params.phi, k, x))(keys)
            phi = jax.lax.stop_gradient(params.phi)
            log_w = jax.vmap(lambda z: model.log_p(params.theta, x, z) - model.log_q(phi, x, z))(z)
            return jnp.sum(jax.lax.stop_gradient(bounds.normalized_weights(log_w)) ** 2 * log_w)

        return objective

    exact = chains_expectation(lambda m: bounds.pathwise(m, num_samples=2))
    right = chains_expectation(lambda m: bounds.dreg(m, num_samples=2))
    tolerance = 1e-6 if X64 else 1e-4  # what is left is the error of the nodes
    np.testing.assert_allclose(flat(right), flat(exact), rtol=tolerance, atol=tolerance)
    wrong = chains_expectation(squared_for_all)
    assert not np.allclose(flat(wrong.theta), flat(exact.theta), rtol=1e-2, atol=1e-3)


def test_without_bridges_it_is_the_model_bit_for_bit():
    plain = bounds.annealed(MODEL, num_bridges=0)
    theta = bounds.Annealing(PARAMS, jnp.zeros(0), jnp.array([0.0, 1.0]))
    key, others = jax.random.key(3), {"num_samples": 7, "chunk_size": 3}
    own = bounds.log_weights(plain, bounds.Params(theta, PARAMS.phi), key, X, **others)
    np.testing.assert_array_equal(own, bounds.log_weights(MODEL, PARAMS, key, X, **others))


def test_iwae_over_chains_and_log_likelihood_apply():
    params = tied(PARAMS, PATH)
    value, diagnostics = jax.jit(
        lambda key: bounds.log_likelihood(
            CHAINS, params, key, X, num_samples=4000, chunk_size=1000
        )
    )(jax.random.key(0))  # fmt: skip
    exact = linear_gaussian.log_likelihood(PARAMS.theta, X)
    assert abs(value - exact) < 5 * diagnostics.standard_error
    plain = bounds.log_likelihood(
        MODEL, PARAMS, jax.random.key(0), X, num_samples=4000, chunk_size=1000
    )[1]
    assert diagnostics.ess > plain.ess
    values = jax.vmap(bounds.dreg(CHAINS, num_samples=3), (None, 0, None))(
        params, jax.random.split(jax.random.key(1), 2), X
    )
    assert values.shape == (2,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"betas": jnp.array([0.0, 0.5, 0.2, 0.8, 1.0])}, "increase strictly"),
        ({"betas": jnp.array([0.0, 0.5, 1.0])}, "5 numbers, got 3"),
        ({"damping": jnp.array(1.0)}, "damping must be one number from 0"),
        ({"step_sizes": jnp.array([0.1, 0.2])}, r"step_sizes must be one number or have shape"),
        ({"step_sizes": jnp.array(-0.1)}, "step_sizes must be positive"),
    ],
)
def test_a_wrong_path_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        bounds.log_weights(CHAINS, tied(PARAMS, PATH | change), jax.random.key(0), X, num_samples=1)


def test_models_that_cannot_be_annealed_are_refused():
    with pytest.raises(ValueError, match="log_q=None; use the model as it is"):
        bounds.annealed(MODEL._replace(log_q=None), num_bridges=3)
    discrete = bounds.annealed(enumerable.make_model(), num_bridges=3)
    params = enumerable.init(jax.random.key(0), 4, 3)
    with pytest.raises(TypeError, match="moves z along gradients"):
        discrete.propose(params.phi, jax.random.key(0), jnp.array(1))
