"""The learning signal of VIMCO against the two bounds whose difference it is, in float64."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bounds._score_function import vimco_signal


def signal_by_brute_force(log_w, real: Any = np.float64):
    """L_K - L_K^(-k), each bound formed in `real`."""
    log_w = np.asarray(log_w, np.float64)
    size = real(np.log(len(log_w)))
    out = []
    for k in range(len(log_w)):
        replaced = log_w.copy()
        replaced[k] = np.mean(np.delete(log_w, k))
        whole, without = (real(np.logaddexp.reduce(v)) - size for v in (log_w, replaced))
        out.append(whole - (without if np.isfinite(without) else real(0)))
    return np.array(out)


def test_signal_of_vimco_by_brute_force():
    cases = ([1.0, -2.0, 0.5, 3.0], [90.0, 0.0, -90.0], [1.0, -np.inf, 0.5], [0.0, 2.0],
             [-500.0, 0.0, 1.0], [2.0, -np.inf], [1.0, 1.0, 1.0], [0.0, -1e-6, 1e-6])  # fmt: skip
    for log_w in cases:
        log_w = np.array(log_w, np.float32)
        live = np.isfinite(log_w)
        expected = signal_by_brute_force(log_w)
        found = np.asarray(vimco_signal(jnp.asarray(log_w)))
        np.testing.assert_allclose(found[live], expected[live], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("num_samples", [5, 50, 1000])
def test_signal_of_vimco_does_not_drown_in_log_p(num_samples):
    """At the -8192 nats of a colour image float32 has steps of .001, and a signal is of 1/K."""
    log_w = np.random.default_rng(0).normal(size=num_samples) - 8192.0
    log_w = log_w.astype(np.float32)
    exact = signal_by_brute_force(log_w)
    size = np.linalg.norm(exact)
    assert np.linalg.norm(vimco_signal(jnp.asarray(log_w)) - exact) < 1e-4 * size
    # Formed from the two bounds in float32 it fails the same test.
    assert np.linalg.norm(signal_by_brute_force(log_w, np.float32) - exact) > 1e-4 * size
