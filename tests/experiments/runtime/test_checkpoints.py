"""Checkpoints: what is kept, what is skipped, what is refused."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.runtime.checkpoints import Checkpoints
from experiments.runtime.errors import UserError
from experiments.runtime.trainer import init_state

CONFIG = {"seed": 0, "latents": (4,), "data_dir": "here"}


def state(value=0.0, step=0):
    params = {"w": jnp.arange(600.0).reshape(20, 30) + value, "b": jnp.full(3, -0.0)}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    fresh = init_state(params, optimizer, extra={"key": jax.random.key(7)})
    return fresh._replace(step=jnp.asarray(step))


def bits(tree):
    leaves = jax.tree.leaves(tree)
    keys = [jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves]
    return [
        np.asarray(jax.random.key_data(x) if k else x).tobytes()
        for x, k in zip(leaves, keys, strict=True)
    ]


def fill(folder, scores, keep=2):
    with Checkpoints(folder, CONFIG, keep=keep) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, state(step, step), score)


def folder_of(path):
    return str(path / "checkpoints")


def test_a_state_comes_back_bit_for_bit_and_in_its_own_types(tmp_path):
    fill(folder_of(tmp_path), {10: -1.0})
    with Checkpoints(folder_of(tmp_path), CONFIG) as checkpoints:
        got = checkpoints.restore(state())
    assert jax.tree.structure(got) == jax.tree.structure(state())
    assert bits(got) == bits(state(10, 10))


def test_nothing_to_restore_is_none(tmp_path):
    with Checkpoints(folder_of(tmp_path), CONFIG) as checkpoints:
        assert checkpoints.restore(state()) is None
        assert checkpoints.best() is None


@pytest.mark.parametrize("reopen", [False, True])
def test_latest_ones_and_the_best_are_kept(tmp_path, reopen):
    scores = {1: -5.0, 2: -1.0, 3: -3.0, 4: -4.0, 5: -2.0}
    if reopen:
        for step, score in scores.items():
            fill(folder_of(tmp_path), {step: score})
    else:
        fill(folder_of(tmp_path), scores)
    with Checkpoints(folder_of(tmp_path), CONFIG) as checkpoints:
        assert checkpoints.steps() == [2, 4, 5]
        assert checkpoints.best() == 2
        assert checkpoints.validation(4) == -4.0
        assert int(checkpoints.restore(state()).step) == 5
        assert int(checkpoints.restore(state(), 2).step) == 2


def test_without_validation_the_best_is_the_latest(tmp_path):
    fill(folder_of(tmp_path), {1: None, 2: None, 3: None})
    with Checkpoints(folder_of(tmp_path), CONFIG) as checkpoints:
        assert checkpoints.steps() == [2, 3]
        assert checkpoints.best() == 3


def half_written(folder):
    shutil.copytree(f"{folder}/3", f"{folder}/4.orbax-checkpoint-tmp")


def merely_a_name(folder):
    (folder / "4").mkdir()


def truncated(folder):
    shutil.copytree(folder / "3", folder / "4")
    biggest = max(
        (p for p in (folder / "4").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    biggest.write_bytes(biggest.read_bytes()[:50])


def without_a_file(folder):
    shutil.copytree(folder / "3", folder / "4")
    (folder / "4" / "state" / "manifest.ocdbt").unlink()


def flipped(folder):
    """One bit of the numbers, which Orbax itself would load without a word."""
    shutil.copytree(folder / "3", folder / "4")
    data = max((folder / "4").rglob("d/*"), key=lambda p: p.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage", [half_written, merely_a_name, truncated, without_a_file, flipped]
)
def test_damaged_checkpoint_is_skipped_never_loaded(tmp_path, capfd, damage):
    fill(folder_of(tmp_path), {2: -1.0, 3: -2.0})
    damage(tmp_path / "checkpoints")
    with Checkpoints(folder_of(tmp_path), CONFIG) as checkpoints:
        got = checkpoints.restore(state())
        assert bits(got) == bits(state(3, 3))
        checkpoints.save(4, state(4, 4), -0.5)
    with Checkpoints(folder_of(tmp_path), CONFIG) as checkpoints:
        assert bits(checkpoints.restore(state())) == bits(state(4, 4))
    assert "Traceback" not in capfd.readouterr().err


def test_where_none_can_be_read_training_does_not_start_over_in_silence(tmp_path):
    fill(folder_of(tmp_path), {3: -2.0})
    (tmp_path / "checkpoints" / "3" / "state" / "manifest.ocdbt").write_bytes(b"no")
    with (
        Checkpoints(folder_of(tmp_path), CONFIG) as checkpoints,
        pytest.raises(UserError, match=r"no checkpoint .* can be read"),
    ):
        checkpoints.restore(state())


def test_checkpoint_of_another_config_is_refused_with_the_fields_named(tmp_path):
    fill(folder_of(tmp_path), {3: -2.0})
    other = {**CONFIG, "latents": (5,), "data_dir": "elsewhere"}
    with (
        Checkpoints(folder_of(tmp_path), other) as checkpoints,
        pytest.raises(UserError, match=r"latents \(\[4\] there, \[5\] now\)") as caught,
    ):
        checkpoints.restore(state())
    assert "data_dir" not in str(caught.value)
    with Checkpoints(folder_of(tmp_path), {**CONFIG, "data_dir": "elsewhere"}) as checkpoints:
        assert checkpoints.restore(state()) is not None


def test_folder_to_read_from_must_be_there(tmp_path):
    with pytest.raises(UserError, match="train first"):
        Checkpoints(folder_of(tmp_path), CONFIG, read_only=True)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("name", ["run[1]", "back\\slash", "a*b", "a?b", "gs:", "a b", "é✓"])
def test_a_folder_is_taken_literally_whatever_its_name(tmp_path, name):
    folder = str(tmp_path / name / "checkpoints")
    for step in (1, 2, 3):
        fill(folder, {step: -float(step)}, keep=1)
    with Checkpoints(folder, CONFIG, read_only=True) as checkpoints:
        assert checkpoints.steps() == [1, 3]
        assert bits(checkpoints.restore(state())) == bits(state(3, 3))
        assert bits(checkpoints.restore(state(), 1)) == bits(state(1, 1))
    assert [path.name for path in tmp_path.iterdir()] == [name]
