"""The step of every density and noise is a program of eight devices, which are not here."""

import jax
import jax.numpy as jnp
import pytest
from dequantize_cases import tiny
from jax.sharding import AbstractMesh, AxisType

from experiments.dequantize import build, training
from experiments.runtime import trainer
from experiments.studies.images import make_problem

MESH = AbstractMesh((8,), ("data",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize(
    "changes",
    [
        {"noise": {"name": "flow"}},
        {"noise": {"name": "flow", "coupling": "affine"}, "model": {"coupling": "affine"}},
        {"noise": {"name": "autoregressive"}},
        {"noise": {"name": "logistic"}, "model": {"density": "subset_flow"}},
        {"noise": {"name": "flow"}, "model": {"network": "convolutional", "pointwise": True}},
        # These evaluate the inverse of the noise.
        {"noise": {"name": "flow"}, "objective": {"name": "dreg", "num_samples": 2}},
        {"noise": {"name": "flow"}, "objective": {"name": "vimco", "num_samples": 2}},
    ],
)
def test_devices_share_a_batch(changes):
    problem = make_problem("digits", "")
    own = tiny("mixture_uniform", **changes).of_model("mixture_uniform")
    model = build.make_model(problem, own)
    params = jax.eval_shape(training.make_run(problem, model, own, 0).init)
    loss = trainer.from_objective(training.make_objective(model, own), MESH)
    batch = {
        "x": jax.ShapeDtypeStruct((20, *problem.shape), jnp.float32),
        "index": jax.ShapeDtypeStruct((20,), jnp.int32),
    }
    value, grads = jax.eval_shape(
        jax.value_and_grad(lambda p, b, k: loss(p, (), b, k, jnp.asarray(0))[0]),
        params, batch, jax.random.key(0),
    )  # fmt: skip
    assert value.shape == ()
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
