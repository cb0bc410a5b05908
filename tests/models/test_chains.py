"""Links in a loop are the same links in a row: parameters, values, gradients and inverses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.runtime.checkpoints import Checkpoints
from experiments.runtime.errors import UserError
from models import bijectors, chains, conditioners, elementwise, flows

SHAPE = (4, 4, 2)
LEVELS = 17
FIRST = 3


def parts(index):
    """A norm, maps of the channels and a coupling over halves in turns, with dropout."""
    split, each = bijectors.checkerboard(), bijectors.invertible_1x1(noise=0.3)
    network = conditioners.dense((16,), index=index, dropout=0.5, last_scale=0.5)
    turned = bijectors.swapped(split, index % 2 == 1)
    return [
        bijectors.activation_norm(),
        bijectors.halves(each, each, split),
        bijectors.coupling(network, elementwise.mixture(3), turned),
    ]


LOOP, UNROLLED = (
    chains.chain([bijectors.activation_norm(), chains.Repeated(parts, 3, FIRST, unroll=unroll)])
    for unroll in (False, True)
)
ROW = chains.chain([
    bijectors.activation_norm(),
    *(part for i in range(FIRST, FIRST + 3) for part in parts(i)),
])  # fmt: skip


def stacked(row):
    """Parameters of `ROW` as those of `LOOP`."""
    first, *rest = row
    turns = [tuple(rest[i : i + 3]) for i in range(0, 9, 3)]
    return first, jax.tree.map(lambda *leaves: jnp.stack(leaves), *turns)


def started(chain, key):
    z = 2 * jax.random.normal(jax.random.key(0), (8, *SHAPE)) + 1
    return jax.jit(chain.init)(jax.random.key(key), z, conditioners.Context())


def close(a, b, rtol=2e-5, atol=1e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


@pytest.fixture(scope="module")
def starts():
    return started(LOOP, 1), started(ROW, 1)


def test_parameters_start_as_those_of_links_in_a_row(starts):
    (loop, y), (row, same) = starts
    close(loop, stacked(row))
    close(y, same)
    kernels = loop[1][2]["params"]["hidden_0"]["kernel"]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


def outcome(chain, params, z, key):
    """(y, log det), and the gradient of a number that depends on both."""
    context = conditioners.Context(dropout=key)

    def number(params, z):
        y, log_det = chain.forward(params, z, context)
        return jnp.sum(jnp.sin(y)) + log_det, (y, log_det)

    (_, out), grads = jax.jit(jax.value_and_grad(number, (0, 1), has_aux=True))(params, z)
    return out, grads


@pytest.mark.parametrize(("chain", "dropout"), [(LOOP, False), (LOOP, True), (UNROLLED, True)])
def test_values_and_gradients_are_those_of_links_in_a_row(starts, chain, dropout):
    (loop, _), (row, _) = starts
    z = jax.random.normal(jax.random.key(2), SHAPE)
    key = jax.random.key(3) if dropout else None
    out, (by_params, by_z) = outcome(chain, loop, z, key)
    same, (by_row, by_same) = outcome(ROW, row, z, None if key is None else jax.random.clone(key))
    close(out, same)
    close(by_z, by_same, rtol=1e-3, atol=1e-4)
    close(by_params, stacked(by_row), rtol=1e-3, atol=1e-3)


def unturned(index):
    """The defect of a loop whose links do not know their index."""
    return parts(FIRST + 0 * index)


def test_a_loop_that_loses_its_index_is_found_out(starts):
    wrong = chains.chain([bijectors.activation_norm(), chains.Repeated(unturned, 3, FIRST)])
    (loop, _), (row, _) = starts
    z = jax.random.normal(jax.random.key(2), SHAPE)
    for key in (None, jax.random.key(3)):
        same = ROW.forward(row, z, conditioners.Context(dropout=key))
        own = None if key is None else jax.random.clone(key)
        with pytest.raises(AssertionError):
            close(wrong.forward(loop, z, conditioners.Context(dropout=own)), same)


def test_the_inverse_undoes_the_loop_from_its_end(starts):
    (params, y), _ = starts
    z, log_det = jax.jit(LOOP.inverse)(params, y[0], conditioners.Context())
    again, same = jax.jit(LOOP.forward)(params, z, conditioners.Context())
    close((again, same), (y[0], log_det), rtol=1e-3, atol=1e-3)
    wanted = 2 * jax.random.normal(jax.random.key(0), (8, *SHAPE)) + 1
    close(z, wanted[0], rtol=1e-3, atol=1e-3)


def test_no_repetition_is_the_identity():
    flow = flows.image_flow(
        LEVELS, elementwise.affine(), lambda index: conditioners.dense((4,), index=index),
        layout=("checkerboard:0", "channels:1"),
    )  # fmt: skip
    y = jax.random.uniform(jax.random.key(4), (8, *SHAPE), maxval=LEVELS)
    params, z = flow.init(jax.random.key(5), y, conditioners.Context())
    assert z.shape == y.shape
    assert jax.tree.leaves(params[1])[0].shape[0] == 0


def test_a_datum_of_fewer_bits_takes_the_type_of_the_parameters(starts):
    (params, _), _ = starts
    z = jax.random.normal(jax.random.key(6), SHAPE).astype(jnp.bfloat16)
    y, log_det = LOOP.forward(params, z, conditioners.Context())
    assert y.dtype == log_det.dtype == jnp.float32


def test_a_checkpoint_of_links_in_a_row_is_refused_in_one_line(starts, tmp_path):
    """As those of earlier versions are."""
    (loop, _), (row, _) = starts
    with Checkpoints(str(tmp_path), {}) as checkpoints:
        checkpoints.save(1, row, None)
    with (
        Checkpoints(str(tmp_path), {}) as checkpoints,
        pytest.raises(UserError, match=r"no checkpoint .* can be read .* start anew") as caught,
    ):
        checkpoints.restore(loop)
    assert "\n" not in str(caught.value)
