"""A run on the host's side: signals and bad numbers while other things go on."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.runtime import fit
from experiments.runtime.checkpoints import Checkpoints
from experiments.runtime.errors import UserError
from experiments.runtime.trainer import Stream
from experiments.studies.settings import Records


class Interrupted(Checkpoints):
    """Sends this process a signal while a checkpoint is being written."""

    def __init__(self, *arguments, at, number):
        super().__init__(*arguments)
        self._at, self._number = at, number

    def save(self, step, state, validation):
        super().save(step, state, validation)
        if step == self._at:
            os.kill(os.getpid(), self._number)


def small_run(validate):
    """A run that needs no data; its steps depend on their number."""

    def loss(params, extra, batch, key, step):
        noise = jax.random.normal(key, params.shape)
        return jnp.mean((params - batch["x"] - noise) ** 2), (extra, {})

    stream = Stream(lambda *_: jnp.arange(6.0), lambda d, k, s: {"x": d[s % 6] + s // 6}, 6)
    return fit.Run(
        loss,
        lambda: jnp.zeros(3),
        stream,
        optax.adam(0.1),
        jax.random.key(1),
        30,
        validate,
        1,
        ema_decay=0.9,
    )


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


SMALL = Records(log_every=5, save_every=10, keep_checkpoints=1)


@pytest.mark.parametrize(
    ("number", "moment", "at"),
    [
        (signal.SIGTERM, "validation", 10),
        (signal.SIGTERM, "writing", 10),
        (signal.SIGTERM, "validation", 30),
        (signal.SIGINT, "writing", 30),
    ],
    ids=lambda v: v.name if isinstance(v, signal.Signals) else str(v),
)
def test_signal_while_something_else_goes_on_is_not_lost(tmp_path, capfd, number, moment, at):
    """Steps 10 and 30, the last, are validated and saved; 15 is the next to look for a signal."""
    calls = []

    def validate(params):
        calls.append(10 * (len(calls) + 1))
        if moment == "validation" and calls[-1] == at:
            os.kill(os.getpid(), number)
        return -1.0

    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    folder = str(tmp_path / "checkpoints")
    with (
        pytest.raises(SystemExit) as caught,
        Interrupted(
            folder, {}, at=at if moment == "writing" else None, number=number
        ) as checkpoints,
    ):
        fit.fit(small_run(validate), SMALL, str(tmp_path), checkpoints)
    assert caught.value.code == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert handlers == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    stopped = {10: 15, 30: 30}[at]
    last = capfd.readouterr().err.splitlines()[-1]
    assert f"Saved step {stopped} in {folder}" in last
    assert "continues from there" in last

    (tmp_path / "whole").mkdir()
    with Checkpoints(folder, {}) as checkpoints, Checkpoints(f"{folder}-whole", {}) as whole:
        again = fit.fit(small_run(None), SMALL, str(tmp_path), checkpoints)
        alone = fit.fit(small_run(None), SMALL, str(tmp_path / "whole"), whole)
    assert bits(again) == bits(alone)


def test_the_average_is_validated_and_the_last_step_saved(tmp_path):
    """Step 13 is a multiple of neither `log_every` nor `save_every`."""
    seen = []
    run = small_run(lambda params: seen.append(np.asarray(params)) or -1.0)._replace(num_steps=13)
    with Checkpoints(str(tmp_path / "checkpoints"), {}) as checkpoints:
        state = fit.fit(run, SMALL, str(tmp_path), checkpoints)
        assert checkpoints.steps() == [10, 13]
    np.testing.assert_array_equal(seen[-1], state.ema)
    assert np.any(state.ema != state.params)


@pytest.mark.parametrize("decay", [0.9, 0.458, 0.457, 0.2511, 0.0])
def test_an_average_that_still_holds_the_start_is_told(tmp_path, caplog, decay):
    run = small_run(None)._replace(num_steps=5, ema_decay=decay)
    with Checkpoints(str(tmp_path / "checkpoints"), {}) as checkpoints:
        fit.fit(run, SMALL, str(tmp_path), checkpoints)
        told = {0.9: "59.0", 0.458: "2.0"}.get(decay)
        said = f"weight of {told}% after 5 steps; in another folder, train longer or lower "
        assert (said in caplog.text) == (told is not None)
        assert ("0.2511 makes it 0.1%" in caplog.text) == (told is not None)
        assert ("of the start" in caplog.text) == (told is not None)
        caplog.clear()
        # It cannot be changed there any more.
        longer = small_run(None)._replace(num_steps=6, ema_decay=decay)
        fit.fit(longer, SMALL, str(tmp_path), checkpoints)
        assert "of the start" not in caplog.text


def test_nan_stops_a_run_and_leaves_its_checkpoints(tmp_path):
    run = small_run(None)
    bad = run.stream._replace(batch=lambda d, k, s: {"x": jnp.where(s == 27, jnp.nan, d[s % 6])})
    folder = str(tmp_path / "checkpoints")
    with (
        pytest.raises(UserError, match="loss is not finite at step 27;"),
        Checkpoints(folder, {}) as checkpoints,
    ):
        fit.fit(run._replace(stream=bad), SMALL, str(tmp_path), checkpoints)
    with Checkpoints(folder, {}) as checkpoints:
        assert checkpoints.steps() == [10, 20]
        state = checkpoints.restore(fit.initial_state(run))
    assert int(state.step) == 20
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
