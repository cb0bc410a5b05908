"""experiments.accelerator: what its parts compute, and the whole of it at tiny size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import finish, read, shared_folder, start

import bounds
from configs import accelerator as config
from experiments.accelerator import numerics, operations, part, pictures, vaes
from experiments.accelerator.settings import Visit
from experiments.compile import steps
from experiments.runtime import mesh as meshes
from experiments.runtime import settings, trainer
from experiments.vae import build
from experiments.vae.settings import Train

ASKED = settings.parse(Visit, config.get_config("tiny"))


def counted(function, *arguments):
    return operations.count(jax.make_jaxpr(function)(*arguments))


def test_operations_of_products_and_loops():
    a, b = jnp.ones((4, 8)), jnp.ones((8, 8))
    assert counted(jnp.matmul, a, b) == 2 * 4 * 8 * 8
    each = jnp.ones((3, 4, 8))
    assert counted(jax.vmap(lambda x: x @ b), each) == 3 * 2 * 4 * 8 * 8

    def looped(a):
        return jax.lax.scan(lambda x, _: (jnp.sin(jax.jit(jnp.matmul)(x, b)), None), a, length=5)[0]

    assert counted(looped, a) == 5 * 2 * 4 * 8 * 8
    # One more product backwards, as b is constant, and what is computed again counts again.
    for times, function in ((2, looped), (3, jax.checkpoint(looped))):
        backwards = jax.grad(lambda a, function=function: jnp.sum(function(a)))
        assert counted(backwards, a) == times * counted(looped, a)


def test_operations_of_a_convolution():
    x, kernel = jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 3, 5))
    convolved = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    by_hand = 2 * (2 * 6 * 6 * 5) * (3 * 3 * 3)
    assert counted(convolved, x, kernel) == by_hand


def test_of_branches_the_longest_counts():
    a = jnp.ones((4, 4))

    def chosen(a):
        return jax.lax.cond(a[0, 0] > 0, lambda a: a @ a, lambda a: a @ a @ a, a)

    assert counted(chosen, a) == 2 * 2 * 4 * 4 * 4


def test_rounded_inputs_are_found_wrong_and_full_precision_is_not():
    rows = [r for found in numerics.part(ASKED) for r in found]
    verdicts = {(r["name"], r["at"].get("of")): r["verdict"] for r in rows}
    assert "FAILED" not in verdicts.values()
    wrong = {key for key, verdict in verdicts.items() if verdict == "found wrong, as it is"}
    assert {of for _, of in wrong} == {"another seed", "bfloat16 inputs"}
    assert len(wrong) == 6


@pytest.mark.parametrize(
    ("value", "wrong", "verdict"),
    [
        (1e-7, False, "ok"), (1e-3, False, "FAILED"), (np.nan, False, "FAILED"),
        (1e-3, True, "found wrong, as it is"), (1e-7, True, "FAILED"), (np.nan, True, "FAILED"),
        (1e-3, None, None),
    ],
)  # fmt: skip
def test_verdicts(value, wrong, verdict):
    found = numerics._judged("product", "relative error", value, 1e-5, of="this", wrong=wrong)
    assert found["verdict"] == verdict


def problem():
    entry = ASKED.burda.program
    trained = steps.parsed(Train, entry.config, entry.changes)
    return trained, build.problem_of(pictures.dataset("digits"), trained)


def test_masked_iwae_is_iwae_of_the_first_samples():
    _, made = problem()
    model, params = made.vae.model, build.init_params(made, jax.random.key(0))
    key, x = jax.random.key(1), jnp.ones(64)

    def plain(params):
        return bounds.iwae(bounds.log_weights(model, params, key, x, num_samples=3))

    def masked(params):
        return vaes.masked_iwae(model, params, key, x, jnp.asarray(3), 8)

    for a, b in zip(
        jax.tree.leaves(jax.value_and_grad(plain)(params)),
        jax.tree.leaves(jax.value_and_grad(masked)(params)), strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_models_trained_as_one_are_those_trained_alone():
    trained, made = problem()
    alone = build.make_run(made, trained, 0)
    chosen = {}
    for members in ([(1, 0), (5, 1)], [(5, 1)]):
        run = vaes.together(alone, made, members)
        state = trainer.init_state(run.init(), run.optimizer)
        state = trainer.train(
            run.loss_fn, state, run.stream, run.optimizer, jax.random.clone(run.key), num_steps=3,
            steps_per_chunk=3, mesh=meshes.device_mesh(meshes.DATA),
        )  # fmt: skip
        chosen[len(members)] = [leaf[-1] for leaf in jax.tree.leaves(state.params)]
    for a, b in zip(chosen[1], chosen[2], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_pictures_have_the_shape_of_the_data_and_are_not_black():
    made = pictures.dataset("cifar10")
    assert made.train.shape == (45_000, 32, 32, 3)
    assert 30 < made.test.std() < 100
    # Neighbors are alike: unlike noise, a picture has something to denoise by.
    differences = np.diff(made.test.astype(float), axis=1).std()
    assert differences < 0.8 * made.test.std()


def test_every_part_of_the_order_is_there():
    assert {*config.ORDER, "device"} == part.PARTS.keys()


@pytest.mark.slow
def test_the_whole_visit_at_tiny_size(tmp_path, tmp_path_factory):
    process = start(
        "accelerator", "--config=configs/accelerator.py:tiny", f"--workdir={tmp_path}",
        cache=shared_folder(tmp_path_factory) / "jax",
    )  # fmt: skip
    code, out, err = finish(process)
    assert code == 0, err
    rows = read(tmp_path)["rows"]
    assert tuple(dict.fromkeys(r["part"] for r in rows)) == config.ORDER
    assert (tmp_path / "table.txt").read_text() in out
    (difference,) = [r for r in rows if r["at"].get("of") == "bfloat16 - float32"]
    assert 0 < abs(difference["value"]) < 0.01
    assert difference["standard_error"] > 0
