"""The library in other people's code: Equinox, Flax NNX and the README's plain JAX."""

import ast
import re
import subprocess
import sys

import equinox as eqx
import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from repository import ROOT

import bounds

PIXELS, LATENTS, HIDDEN, SAMPLES, BATCH = 6, 2, 5, 3, 4


def gaussian(values):
    """Outputs of an encoder -> mean and variance."""
    mean, log_scale = jnp.split(values, 2)
    return mean, jnp.exp(2 * log_scale)


def latent_model(encode, decode) -> bounds.LatentModel:
    """A VAE with Bernoulli pixels; encode (phi, x) -> [2 LATENTS], decode (theta, z) -> logits."""

    def propose(phi, key, x):
        mean, variance = gaussian(encode(phi, x))
        z = mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape)
        return z, bounds.densities.gaussian_log_prob(z, mean, variance)

    def log_q(phi, x, z):
        return bounds.densities.gaussian_log_prob(z, *gaussian(encode(phi, x)))

    def log_p(theta, x, z):
        pixels = bounds.densities.bernoulli_log_prob(decode(theta, z), x)
        return bounds.densities.gaussian_log_prob(z, 0.0, 1.0) + jnp.sum(pixels)

    return bounds.LatentModel(propose, log_q, log_p)


def iwae_by_hand(encoder, decoder, noise, x):
    """IWAE from noise [K, LATENTS], with nothing of ours in it."""

    def log_weight(noise):
        mean, log_scale = jnp.split(encoder(x), 2)
        z = mean + jnp.exp(log_scale) * noise
        logits = decoder(z)
        log_px = jnp.sum(x * jax.nn.log_sigmoid(logits) + (1 - x) * jax.nn.log_sigmoid(-logits))
        log_q = jnp.sum(norm.logpdf(z, mean, jnp.exp(log_scale)))
        return log_px + jnp.sum(norm.logpdf(z)) - log_q

    log_w = jax.vmap(log_weight)(noise)
    return jax.nn.logsumexp(log_w) - jnp.log(float(len(noise)))


def data():
    x = jax.random.bernoulli(jax.random.key(1), 0.4, (BATCH, PIXELS)).astype(jnp.float32)
    return jax.random.split(jax.random.key(2), BATCH), x


def noise_of(key):
    """The draws of an objective called with `key`: sample k uses fold_in(key, k)."""
    keys = [jax.random.fold_in(jax.random.clone(key), k) for k in range(SAMPLES)]
    return jnp.stack([jax.random.normal(k, (LATENTS,)) for k in keys])


def per_datum(objective, params):
    keys, x = data()
    return jax.jit(jax.vmap(jax.grad(objective), (None, 0, 0)))(params, keys, x)


def assert_close(actual, expected):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)


def check_estimators(model, params):
    """Over a batch under jit: finite gradients that reach every parameter, right theta part."""
    grads = {
        name: per_datum(factory(model, num_samples=SAMPLES), params)
        for name, factory in (("pathwise", bounds.pathwise), ("dreg", bounds.dreg))
    }
    for grad in grads.values():
        assert jax.tree.structure(grad) == jax.tree.structure(params)
        for leaf, parameter in zip(jax.tree.leaves(grad), jax.tree.leaves(params), strict=True):
            assert leaf.shape == (BATCH, *parameter.shape)
            assert np.all(np.isfinite(leaf))
            assert np.any(leaf != 0)
    assert_close(jax.tree.leaves(grads["dreg"].theta), jax.tree.leaves(grads["pathwise"].theta))
    phi = [np.asarray(jax.tree.leaves(g.phi)[0]) for g in grads.values()]
    assert np.max(np.abs(phi[0] - phi[1])) > 1e-3  # two estimators, not one twice
    return grads["pathwise"]


class EquinoxVAE(eqx.Module):
    encoder: eqx.nn.MLP
    decoder: eqx.nn.MLP

    def __init__(self, key):
        keys = jax.random.split(key)
        self.encoder = eqx.nn.MLP(PIXELS, 2 * LATENTS, HIDDEN, 1, jnp.tanh, key=keys[0])
        self.decoder = eqx.nn.MLP(LATENTS, PIXELS, HIDDEN, 1, jnp.tanh, key=keys[1])


def test_equinox_model_gets_the_gradient_written_by_hand_in_equinox():
    vae = EquinoxVAE(jax.random.key(0))
    phi, encoder = eqx.partition(vae.encoder, eqx.is_array)
    theta, decoder = eqx.partition(vae.decoder, eqx.is_array)
    model = latent_model(
        lambda phi, x: eqx.combine(phi, encoder)(x),
        lambda theta, z: eqx.combine(theta, decoder)(z),
    )
    grads = check_estimators(model, bounds.Params(theta, phi))

    @eqx.filter_jit
    @eqx.filter_grad
    def by_hand(vae, noise, x):
        return iwae_by_hand(vae.encoder, vae.decoder, noise, x)

    for i, (key, x) in enumerate(zip(*data(), strict=True)):
        expected = by_hand(vae, noise_of(key), x)
        own = jax.tree.map(lambda g, i=i: g[i], grads)
        assert_close(jax.tree.leaves(own.theta), jax.tree.leaves(expected.decoder))
        assert_close(jax.tree.leaves(own.phi), jax.tree.leaves(expected.encoder))


def import_nnx():
    # flax 0.12.8 and 0.12.9 have an NNX that does not import on jax 0.11.
    known = jax.__version__.startswith("0.11.") and flax.__version__ in ("0.12.8", "0.12.9")
    try:
        from flax import nnx
    except Exception as error:
        if not known:
            raise
        pytest.skip(f"NNX of flax {flax.__version__} on jax {jax.__version__}: {error}")
    return nnx


def test_flax_nnx_model_gets_the_gradient_written_by_hand_in_nnx():
    nnx = import_nnx()

    class MLP(nnx.Module):
        def __init__(self, inputs, outputs, rngs):
            self.hidden = nnx.Linear(inputs, HIDDEN, rngs=rngs)
            self.out = nnx.Linear(HIDDEN, outputs, rngs=rngs)

        def __call__(self, value):
            return self.out(jnp.tanh(self.hidden(value)))

    class NNXVAE(nnx.Module):
        def __init__(self, rngs):
            self.encoder = MLP(PIXELS, 2 * LATENTS, rngs)
            self.decoder = MLP(LATENTS, PIXELS, rngs)

    vae = NNXVAE(nnx.Rngs(0))
    encoder, phi = nnx.split(vae.encoder)
    decoder, theta = nnx.split(vae.decoder)
    model = latent_model(
        lambda phi, x: nnx.merge(encoder, phi)(x),
        lambda theta, z: nnx.merge(decoder, theta)(z),
    )
    grads = check_estimators(model, bounds.Params(theta, phi))

    @nnx.jit
    @nnx.grad
    def by_hand(vae, noise, x):
        return iwae_by_hand(vae.encoder, vae.decoder, noise, x)

    for i, (key, x) in enumerate(zip(*data(), strict=True)):
        expected = by_hand(vae, noise_of(key), x)
        own = jax.tree.map(lambda g, i=i: g[i], grads)
        assert_close(jax.tree.leaves(own.theta), jax.tree.leaves(expected["decoder"]))
        assert_close(jax.tree.leaves(own.phi), jax.tree.leaves(expected["encoder"]))


MARK = "<!-- example -->"


def readme_example() -> str:
    """The code of the README, and that of the library's page, which goes on where it ends."""
    found = []
    for page in ("README.md", "docs/library.md"):
        text = (ROOT / page).read_text()
        blocks = re.findall(rf"{re.escape(MARK)}\s*^```python\n(.*?)^```$", text, re.M | re.S)
        assert text.count(MARK) == len(blocks) == 1, f"{page}: a python block follows one {MARK}"
        found += blocks
    return "\n".join(found)


def test_readme_example_needs_only_jax_and_bounds():
    tree = ast.parse(readme_example())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    names = {name.split(".")[0] for name in names}
    assert "bounds" in names
    assert names <= {"bounds", "jax", "numpy"} | set(sys.stdlib_module_names)


def test_readme_example_runs_without_a_warning(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{readme_example()}"
    run = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert "Warning" not in run.stderr
