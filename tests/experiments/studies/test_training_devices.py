"""Training on eight devices and on one ends with the same parameters.

Run as a program, this file trains on all devices there are and saves the parameters.
"""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from diffusion_cases import digits, made
from diffusion_cases import tiny as tiny_diffusion
from repository import ROOT

import bounds
from configs import train_digits
from experiments.runtime import mesh as meshes
from experiments.runtime import settings, trainer
from experiments.vae import build
from experiments.vae.settings import Train

BATCH_SIZES = (20, 24)  # eight devices divide 24 and not 20


def trained(batch_size, at_once=0):
    """Leaves of the parameters after ten steps."""
    changes = {
        "model": {"latents": (4,), "hidden": ((8, 8),)},
        "objective": {"num_samples": 2, "images_at_once": at_once},
        "training": {"batch_size": batch_size, "num_steps": 10, "validation_samples": 4},
    }  # fmt: skip
    own = settings.parse(Train, settings.merged(train_digits.get_config().to_dict(), changes))
    return after_ten_steps(build.make_run(build.make_problem(own, ""), own, own.seed))


def after_ten_steps(run):
    state = trainer.train(
        run.loss_fn,
        trainer.init_state(run.init(), run.optimizer),
        run.stream,
        run.optimizer,
        run.key,
        num_steps=10,
    )
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]


def diffused():
    """The same of a diffusion model, and times of a batch that the devices share."""
    _, run = made(digits(), tiny_diffusion(training={"batch_size": 24, "num_steps": 10}))
    leaves = after_ten_steps(run)
    mesh = meshes.device_mesh(meshes.DATA)

    @jax.jit
    def times(key):
        return meshes.split(bounds.diffusion.low_discrepancy_times(key, 64), mesh)

    found = times(jax.random.key(0))
    assert len(found.addressable_shards) == jax.device_count()
    return [np.asarray(found), *leaves]


@pytest.fixture(scope="module")
def on_eight(tmp_path_factory):
    path = tmp_path_factory.mktemp("eight") / "parameters.npz"
    settings = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, __file__, str(path)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    with np.load(path) as file:
        return dict(file)


def test_eight_devices_reach_what_one_reaches(on_eight):
    alone = {batch_size: trained(batch_size) for batch_size in BATCH_SIZES}
    for batch_size, leaves in alone.items():
        for number, leaf in enumerate(leaves):
            np.testing.assert_allclose(on_eight[f"{batch_size} {number}"], leaf, atol=1e-5)
    # Each has three images of twenty, and takes two of them at once.
    for number, leaf in enumerate(alone[20]):
        np.testing.assert_allclose(on_eight[f"in parts {number}"], leaf, atol=1e-5)
    # Another batch ends elsewhere.
    pairs = zip(*alone.values(), strict=True)
    assert max(np.abs(a - b).max() for a, b in pairs) > 1e-4


def test_eight_devices_draw_the_times_of_one_and_train_alike(on_eight):
    times, *leaves = diffused()
    np.testing.assert_array_equal(on_eight["diffusion 0"], times)
    for number, leaf in enumerate(leaves, 1):
        np.testing.assert_allclose(on_eight[f"diffusion {number}"], leaf, atol=1e-5)


def main():
    assert jax.device_count() == 8
    leaves = {f"{b} {n}": leaf for b in BATCH_SIZES for n, leaf in enumerate(trained(b))}
    leaves |= {f"in parts {n}": leaf for n, leaf in enumerate(trained(20, at_once=2))}
    leaves |= {f"diffusion {n}": leaf for n, leaf in enumerate(diffused())}
    np.savez(sys.argv[1], **leaves)


if __name__ == "__main__":
    main()
