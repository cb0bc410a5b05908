"""Flows and noise for images: determinants, round trips, uniform starts, published sizes."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import bounds
from bounds import _dequantizers
from configs import dequantize_digits, dequantize_flowpp
from experiments.data import sets
from experiments.dequantize import build, training
from experiments.dequantize.settings import Dequantize
from experiments.runtime import fit, trainer
from experiments.runtime.settings import parse
from experiments.studies.images import Problem
from models import bijectors, conditioners, elementwise, flows, noise

LEVELS = 17
SHAPE = (4, 4, 1)


def network(kind, last_scale=0.1):
    if kind == "dense":
        return lambda index: conditioners.dense((16,), index=index, last_scale=last_scale)
    return lambda index: conditioners.convolutional(8, 1, index=index, last_scale=last_scale)


@functools.cache
def images(count=16):
    return jax.random.randint(jax.random.key(0), (count, *SHAPE), 0, LEVELS).astype(float)


@pytest.mark.parametrize(
    ("kind", "norm"),
    [
        ("dense", "channel"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (("dense", "pixel"), ("dense", "none"), ("convolutional", "pixel"))
        ),
    ],
)
def test_image_flow_has_the_determinant_of_its_jacobian_and_an_inverse(kind, norm):
    layout = ("checkerboard:2", "squeeze", "channels:2", "checkerboard:2")
    flow = flows.image_flow(
        LEVELS, elementwise.mixture(3), network(kind, 0.5), layout=layout, norm=norm
    )
    density = flows.density(flow)
    y = images() + jax.random.uniform(jax.random.key(1), images().shape)
    params = jax.jit(density.init)(jax.random.key(2), y)
    one = y[0]

    @jax.jit
    def parts(params, one):
        jacobian = jax.jacobian(lambda v: density.transform(params, v.reshape(SHAPE)).reshape(-1))(
            one.reshape(-1)
        )
        z = density.transform(params, one)
        return jacobian, z, density.log_density(params, one), density.generate(params, z)

    jacobian, z, log_density, back = parts(params, one)
    exact = np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
    base = -0.5 * np.sum(np.square(z) + math.log(2 * math.pi))
    np.testing.assert_allclose(log_density, base + exact, rtol=1e-4)
    np.testing.assert_allclose(back, one, atol=1e-3)
    assert z.shape == (2, 2, 4)


@pytest.mark.parametrize(
    "changes",
    [{"layout": ("squash",)}, {"layout": ("checkerboard",)}, {"norm": "batch"}],
    ids=str,
)
def test_unknown_layouts_are_refused(changes):
    with pytest.raises(ValueError, match="squeeze"):
        flows.image_flow(LEVELS, elementwise.affine(), network("dense"), **changes)


NOISES = {
    "logistic": lambda: noise.diagonal_noise(LEVELS, network("dense", 0.0)(0)),
    "autoregressive": lambda: noise.autoregressive_noise(LEVELS, (32,)),
    "flow": lambda: noise.image_noise(
        LEVELS, elementwise.mixture(3), network("dense", 0.0), num_couplings=2, feature_filters=0
    ),
    "flow++": lambda: noise.image_noise(
        LEVELS, elementwise.mixture(3), network("convolutional", 0.0), num_couplings=2,
        feature_filters=4, feature_blocks=1, norm=True, pointwise=True,
    ),
    "affine flow": lambda: noise.image_noise(
        LEVELS, elementwise.affine(), network("dense", 0.0), num_couplings=2, feature_filters=0
    ),
}  # fmt: skip


SLOW_NOISE = pytest.param("flow++", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [SLOW_NOISE if name == "flow++" else name for name in NOISES])
def test_noise_starts_uniform_and_knows_its_density_when_it_no_longer_is(name):
    made = NOISES[name]()
    x = images()[0]
    phi = made.init(jax.random.key(3), x)
    dequantizer = made.make(None)
    assert dequantizer.log_q is not None
    uniform = bounds.dequantization.uniform()
    assert uniform.log_q is not None

    @jax.jit
    def draw(phi, key, x):
        v, log_q = dequantizer.propose(phi, key, x)
        assert dequantizer.log_q is not None
        return v, log_q, dequantizer.log_q(phi, x, v)

    v, log_q, again = draw(phi, jax.random.key(4), x)
    np.testing.assert_allclose(log_q, uniform.log_q(None, x, v), rtol=1e-5)
    np.testing.assert_allclose(again, log_q, rtol=1e-4)

    moved = oracles.moved(phi, seed=5, scale=0.1)
    v, log_q, again = draw(moved, jax.random.key(6), x)
    np.testing.assert_allclose(again, log_q, rtol=1e-3)
    assert abs(log_q - uniform.log_q(None, x, v)) > 1e-2
    other = draw(moved, jax.random.key(6), images()[1])[1]
    assert abs(other - log_q) > 1e-3


@pytest.mark.parametrize("name", ["logistic", "flow", SLOW_NOISE])
def test_noise_has_the_density_of_its_draw(name):
    """By the Jacobian of base noise -> v, which a draw with another base gives."""
    made = NOISES[name]()
    x = images()[0]
    phi = oracles.moved(made.init(jax.random.key(3), x), seed=5, scale=0.1)
    key = jax.random.key(6)

    @jax.jit
    def parts(phi, epsilon):
        def v_of(flat):
            with pytest.MonkeyPatch.context() as patch:  # this draw of the base, differentiable
                patch.setattr(
                    _dequantizers, "_logistic_sample", lambda key, shape: flat.reshape(shape)
                )
                return made.make(None).propose(phi, key, x)

        jacobian = jax.jacobian(lambda flat: v_of(flat)[0].reshape(-1))(epsilon)
        return jacobian, v_of(epsilon)[1]

    epsilon = jax.random.logistic(jax.random.key(7), (16,))
    jacobian, log_q = parts(phi, epsilon)
    base = -np.sum(np.logaddexp(0, epsilon) + np.logaddexp(0, -epsilon))
    log_det = np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
    np.testing.assert_allclose(log_q, base - log_det, rtol=1e-3)
    assert abs(log_det) > 1e-2


def test_normal_noise_does_not_start_uniform():
    made = noise.diagonal_noise(LEVELS, network("dense", 0.0)(0), base="normal")
    x = images()[0]
    v, log_q = made.make(None).propose(made.init(jax.random.key(3), x), jax.random.key(4), x)
    uniform = bounds.dequantization.uniform()
    assert uniform.log_q is not None
    assert abs(log_q - uniform.log_q(None, x, v)) > 0.1


def test_dropout_is_one_mask_for_a_key_and_off_without_one():
    make = functools.partial(conditioners.dense, (32,), index=0, dropout=0.5)
    flow = bijectors.coupling(make(), elementwise.affine(), bijectors.checkerboard())
    params, _ = flow.init(jax.random.key(0), images(), conditioners.Context())
    x = images()[0]

    def log_det(key):
        return flow.forward(params, x, conditioners.Context(dropout=key))[1]

    key = jax.random.key(1)
    assert log_det(key) == log_det(jax.random.clone(key))
    assert log_det(jax.random.key(2)) != log_det(jax.random.clone(key))
    assert log_det(None) == log_det(None) != log_det(jax.random.clone(key))
    other = bijectors.coupling(
        conditioners.dense((32,), index=1, dropout=0.5),
        elementwise.affine(),
        bijectors.checkerboard(),
    )
    masked = other.forward(params, x, conditioners.Context(dropout=jax.random.clone(key)))[1]
    assert masked != log_det(jax.random.clone(key))


def test_turns_of_a_convolutional_network_differ_in_weights_and_in_dropout():
    net = conditioners.ConvNet(
        filters=8, num_blocks=3, dropout=0.0, attention=True, num_outputs=2, last_scale=0.1
    )
    variables = net.init(jax.random.key(0), images()[0], conditioners.Context())
    turns = variables["params"]["turns"]
    for kernel in (turns["conv"]["first"]["kernel"], turns["attention"]["out"]["kernel"]):
        assert len(kernel) == 3
        assert all(np.abs(a - b).max() > 0.01 for a, b in itertools.combinations(kernel, 2))


def test_turns_of_a_convolutional_network_drop_out_other_units():
    filters, x = 32, images()[0]
    net = conditioners.ConvNet(
        filters, num_blocks=2, dropout=0.5, attention=False, num_outputs=filters, last_scale=0.1
    )
    params = net.init(jax.random.key(0), x, conditioners.Context())["params"]
    zeros = jax.tree.map(jnp.zeros_like, params)
    # A turn adds its mask, whatever comes in: masks alike would leave two values in a pixel.
    turn = zeros["turns"]["conv"]
    turn["first"]["bias"] += 1
    kernel, first = turn["second"]["kernel"], jnp.arange(2 * filters) < filters
    turn["second"]["kernel"] = jnp.broadcast_to(jnp.diag(first * 1.0), kernel.shape)
    zeros["turns"]["conv_norm"] = params["turns"]["conv_norm"]
    zeros["outputs"]["kernel"] = zeros["outputs"]["kernel"].at[1, 1].set(jnp.eye(filters))
    context = conditioners.Context(dropout=jax.random.key(1))
    rngs = {"dropout": jax.random.key(2)}
    out = np.asarray(net.apply({"params": zeros}, x, context, rngs=rngs))
    assert len(np.unique(out[0, 0].round(3))) == 4


def count(config, name, shape, levels=256):
    blank = np.zeros((1, *shape), np.uint8)
    dataset = sets.Dataset("blank", blank, blank[:0], blank[:0], levels)
    problem = Problem(dataset, shape)
    model = build.make_model(problem, parse(Dequantize, config).of_model(name))
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


# Stated in the heads of the released code's run_cifar.py, abl_nodequant.py and abl_nomixlog.py.
PUBLISHED = {"flowpp": 31_443_440, "uniform": 32_324_408, "affine": 32_045_708}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n != "flowpp" else n for n in PUBLISHED]
)
def test_flowpp_has_the_published_number_of_parameters(name):
    config = dequantize_flowpp.get_config("ablation")
    assert count(config, name, (32, 32, 3)) == PUBLISHED[name]


@pytest.mark.slow
def test_the_cifar_model_of_flowpp_takes_a_training_step():
    config = dequantize_flowpp.get_config("cifar10")
    config.update({"training": {"batch_size": 1, "num_steps": 1}})
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), np.uint8)
    problem = Problem(sets.Dataset("noise", images, images, images, 256), (32, 32, 3))
    own = parse(Dequantize, config).of_model("flowpp")
    run = training.make_run(problem, build.make_model(problem, own), own, 0)
    state = fit.initial_state(run)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == PUBLISHED["flowpp"]
    metrics = []
    after = trainer.train(
        run.loss_fn,
        state,
        run.stream,
        run.optimizer,
        run.key,
        num_steps=1,
        steps_per_chunk=1,
        ema_decay=run.ema_decay,
        on_chunk=lambda _, m: metrics.append(m),
    )
    # Images of noise have 8 bits; it starts near a logistic of their average and deviation.
    assert 8 < problem.bits(metrics[0]["bound"]) < 10
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(after.params))


def test_models_of_the_digits_table_have_matched_parameters():
    config = dequantize_digits.get_config()
    counts = [count(config, name, (8, 8, 1), 17) for name in config.models]
    assert max(counts) / min(counts) < 1.01
