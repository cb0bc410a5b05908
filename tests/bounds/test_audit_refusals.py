"""What an audit refuses, in a sentence each."""

import audit_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bounds

KEY = jax.random.key(20)


def _with(**changes):
    case = audit_cases.vae()
    arguments = {"simulate": case.simulate, "num_data": 100, "num_gradients": 0, **changes}
    return bounds.audit.model(arguments.pop("model", case.model), case.params, KEY, **arguments)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_data": 20}, "num_data must be at least 100, got 20"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"num_temperatures": 2}, "num_temperatures must be at least 3, got 2"),
        ({"false_alarm_rate": 0.0}, "false_alarm_rate must be between 0 and 1, got 0.0"),
        ({"simulate": lambda theta, key: jnp.zeros(8)}, r"simulate must return \(x, z\)"),
        (
            {"simulate": lambda theta, key: (jnp.zeros(8), jnp.zeros(3))},
            r"simulate's z must be like propose's, float\d+ of shape \(2,\), got float\d+ of shape",
        ),
        (
            {"simulate": lambda theta, key: (jnp.zeros(8), jnp.zeros(2, int))},
            r"simulate's z must be like propose's, .* got int\d+ of shape \(2,\)",
        ),
        (
            {"simulate": lambda theta, key: (jnp.zeros(8), {"z": jnp.zeros(2)})},
            "simulate's z must have the tree of propose's",
        ),
        ({"model": audit_cases.vae().model._replace(log_q=None)}, "use bounds.audit.claim"),
    ],
)
def test_bad_input_of_model(changes, says):
    with pytest.raises(ValueError, match=says):
        _with(**changes)


@pytest.mark.parametrize("traceable", [False, True])
def test_a_claim_of_nan_is_refused(traceable):
    data = np.arange(100.0, dtype=np.float32)

    def claimed(key, x):
        return jnp.where(x == 7, jnp.nan, -1.0)

    with pytest.raises(ValueError, match="a claim is NaN, of datum 7; NaN bounds nothing"):
        bounds.audit.claim(claimed, KEY, x=data, traceable=traceable)


def test_bad_input_of_claim():
    data = np.zeros((100, 2), np.float32)
    with pytest.raises(ValueError, match="needs data: give simulate, x, or both"):
        bounds.audit.claim(lambda key, x: -1.0, KEY)
    with pytest.raises(ValueError, match="x must hold at least 100 data, got 9"):
        bounds.audit.claim(lambda key, x: -1.0, KEY, x=data[:9])
    with pytest.raises(ValueError, match=r"a claim must return one number .* got shape \(2,\)"):
        bounds.audit.claim(lambda key, x: x, KEY, x=data)
    for x in (1.0, {}, (data, data[:50])):
        with pytest.raises(ValueError, match="x must hold data along one leading axis"):
            bounds.audit.claim(lambda key, x: -1.0, KEY, x=x)
    for wrong in (data[0], (data[0], data[0]), (data[0], {"z": 0.0})):
        with pytest.raises(ValueError, match=r"simulate must return \(x, log r\(x\)\)"):
            bounds.audit.claim(lambda key, x: -1.0, KEY, simulate=lambda key, w=wrong: w)
    with pytest.raises(ValueError, match="ratio must be at least 2, got 1"):
        bounds.audit.claim(lambda key, x: -1.0, KEY, x=data, ratio=1)


def test_a_claim_that_cannot_be_traced_is_told_what_to_do():
    data = np.zeros((100, 2), np.float32)
    with pytest.raises(TypeError, match=r"cannot be traced, .* leave traceable at False"):
        bounds.audit.claim(lambda key, x: -float(x.sum()), KEY, x=data, traceable=True)
