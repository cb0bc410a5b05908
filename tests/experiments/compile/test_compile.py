"""experiments.compile: what is counted, that every program compiles from shapes, and refusals."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest
from absl import flags

from configs import compile as config
from configs import train_mnist
from experiments.compile import analysis, hlo, report, stand_ins, steps, topologies
from experiments.compile.settings import Compile, Entry
from experiments.data import sets
from experiments.runtime import fit, mesh, settings, trainer
from experiments.runtime.errors import UserError
from experiments.vae import build
from experiments.vae.settings import Train

TINY_VAE = {"model": {"latents": (4,), "hidden": ((8,),)}, "objective": {"num_samples": 6}}
TINY_FLOW = {
    "model": {
        "num_components": 2, "num_layers": 1, "width": 8,
        "layout": ("checkerboard:1", "squeeze", "channels:1"),
    },
    "noise": {"width": 8, "num_layers": 1, "num_couplings": 1, "num_components": 2},
    "models": {"one": {}}, "compare": (),
}  # fmt: skip
TINY_DALLE = {
    "model": {"width": 4, "embedding": 4, "num_codes": 3},
    "prior": {"num_layers": 1, "width": 8, "num_heads": 2},
}
TINY_MASKED = {"network": {"num_layers": 1, "width": 8, "num_heads": 2}}
TINY = {
    "train": {"part": "train", "config": "configs/train_digits.py", "changes": TINY_VAE},
    "evaluate": {
        "part": "evaluate", "config": "configs/train_digits.py", "changes": TINY_VAE,
        "evaluation": "configs/evaluate.py",
    },
    "snr": {
        "part": "snr", "config": "configs/snr_gaussian.py:near",
        "changes": {"toy": {"num_data": 8, "num_dims": 2}, "num_samples": (2,)},
    },
    "dequantize": {
        "part": "dequantize", "config": "configs/dequantize_digits.py", "changes": TINY_FLOW,
    },
    "diffusion": {
        "part": "diffusion", "config": "configs/diffusion_digits.py",
        "changes": {"network": {"name": "mlp", "width": 8, "fourier": (1,)}},
    },
    "masked": {
        "part": "masked", "config": "configs/masked_digits.py", "changes": TINY_MASKED,
    },
    "masked_evaluate": {
        "part": "masked_evaluate", "config": "configs/masked_digits.py", "changes": TINY_MASKED,
    },
    "dalle": {"part": "dalle", "config": "configs/dalle_digits.py", "changes": TINY_DALLE},
    "dalle_prior": {
        "part": "dalle_prior", "config": "configs/dalle_digits.py", "changes": TINY_DALLE,
    },
}  # fmt: skip


@functools.cache
def step(name):
    with mesh.described(jax.devices()):
        return steps.make(name, settings.parse(Entry, TINY[name]))


# --- what is counted --------------------------------------------------------------------------


def test_analysis_counts_operations_and_bytes_of_a_matmul():
    a, b = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 32), (32, 16)))
    found = analysis.analyse(jax.jit(jnp.matmul).lower(a, b).compile())
    assert found.flops == pytest.approx(2 * 64 * 32 * 16, rel=0.02)
    assert found.arguments == 4 * (64 * 32 + 32 * 16)
    assert found.outputs == 4 * 64 * 16
    assert found.messages == {}
    assert found.traffic == (found.arguments + found.outputs, 0)
    assert found.memory >= found.arguments + found.outputs


class Stage:
    """Of which XLA says what overflowed and what is nothing."""

    def cost_analysis(self):
        return {"flops": 5.0, "optimal_seconds": -3.0, "bytes accessed": float("nan")}


def test_counts_that_overflowed_are_left_out():
    assert analysis.cost_of(Stage()) == {"flops": 5.0}


def test_the_slowest_part_of_a_chip_bounds_a_program():
    found = analysis.Analysis(
        2e9, 9e9, None, 1, 1, 1, 1, hlo.Traffic(4 * 10**6, 10**9), {"all-reduce": (2, 10**6)}
    )
    chip = topologies.Chip(flops=1e12, memory=1e9, bandwidth=1e9, network=1e9)
    assert analysis.least_seconds(found, chip) == pytest.approx(
        {"compute": 2e-3, "memory": 4e-3, "network": 1e-3}
    )
    rows = report.rows(
        steps.Step(None, (), 7, "a step"), found, {"topology": "t", "program": "p"}, chip=chip,
        num_devices=8, once=4e9, lowering=1.0, compilation=2.0,
    )  # fmt: skip
    values = {r["name"]: r["value"] for r in rows}
    assert values["repeated operations"] == pytest.approx(1 - 4 / (8 * 2))
    assert values["parameters"] == 7
    line = report.table(rows).splitlines()[-1]
    assert "memory" in line
    assert "2 all-reduce 1 MB" in line


def test_memory_that_xla_ran_out_of_is_told_in_its_words():
    said = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.10G of 15.75G hbm."
    assert analysis.exhausted(RuntimeError(said)) == "Used 20.10G of 15.75G hbm"
    said = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (54.51G) exceeds available HBM (31.24G). HLO module: jit_f."
    )
    assert analysis.exhausted(RuntimeError(said)) == (
        "memory required for HLO temporaries (54.51G) exceeds available HBM (31.24G)"
    )
    assert analysis.exhausted(RuntimeError("RESOURCE_EXHAUSTED")) == "XLA ran out of memory"


# --- programs from shapes ---------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_every_part_is_lowered_from_shapes_alone(name):
    made = step(name)
    with mesh.described(jax.devices()):
        lowered = made.lowered()
    leaves = jax.tree.leaves(made.arguments)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct | int) for leaf in leaves)
    assert made.parameters > 0
    assert analysis.cost_of(lowered)["flops"] > 0


def test_the_step_described_is_the_step_that_trains():
    """Compiled from shapes and run with arrays, it ends where `trainer.train` does."""
    changes = TINY_VAE | {"data": {"name": "digits"}}
    asked = settings.parse(
        Train, settings.merged(train_mnist.get_config("short").to_dict(), changes)
    )
    run = build.make_run(build.make_problem(asked, ""), asked, asked.seed)
    problem = build.problem_of(stand_ins.dataset("digits"), asked)
    with mesh.described(jax.devices()):
        of_shapes, arguments = fit.described(build.make_run(problem, asked, asked.seed), 2)
        compiled = of_shapes.lower(*arguments).compile()
    state, data = fit.initial_state(run), run.stream.window(0, 2)
    same = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype,
                        (state, data), arguments[:2])  # fmt: skip
    assert all(jax.tree.leaves(same))
    found, _, finite = compiled(state, data)
    trained = trainer.train(
        run.loss_fn, state, run.stream, run.optimizer, run.key, num_steps=2, steps_per_chunk=2
    )
    assert finite
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(trained), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["digits", "digits_shuffled"])
def test_stand_ins_have_the_shapes_of_the_data(name):
    real, made = sets.load(name, ""), stand_ins.dataset(name)
    assert made.train.shape == real.train.shape
    assert (made.train.dtype, made.levels) == (real.train.dtype, real.levels)
    assert made.train.strides[0] == 0  # of no memory


def test_published_sizes_parse():
    asked = settings.parse(Compile, config.get_config())
    assert set(asked.order) == asked.programs.keys()
    for entry in asked.programs.values():
        assert entry.part in steps.PARTS.keys() | steps.RUNS.keys()


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "v5e", "v5e:", "v5e:2x", "8", "there", "v5e:2x4x2x2", "h300:8", "h200"]
)
def test_what_is_no_topology_is_refused(name):
    with pytest.raises(UserError, match="--topology must be here, or such as v5e:2x4"):
        topologies.make(name)


def test_a_missing_compiler_is_told(monkeypatch):
    monkeypatch.setattr(topologies, "installed", lambda *names: None)
    with pytest.raises(UserError, match=r"v5e:2x4 needs libtpu, .* brings it"):
        topologies.make("v5e:2x4")
    with pytest.raises(UserError, match=r"h200:8 needs jax-cuda13-plugin, .* brings it"):
        topologies.make("h200:8")


def test_other_mistakes_name_the_program():
    wrong = {
        "data": ({"changes": {"data": {"name": "imagenet32"}}}, "data.name must be one of"),
        "field": ({"changes": {"model": {"depth": 1}}}, "depth"),
        "file": ({"config": "configs/nothing.py"}, "is not there"),
        "scores": ({"part": "evaluate"}, "evaluation is empty"),
        "model": (TINY["dequantize"] | {"model": "two"}, "model must be one of one, got 'two'"),
        "words": (
            TINY["dalle"] | {"changes": {"data": {"name": "cifar10"}}}, "must be one of .*emoji",
        ),
    }  # fmt: skip
    for name, (changes, said) in wrong.items():
        entry = settings.parse(Entry, TINY["train"] | changes)
        with pytest.raises(UserError, match=rf"^--config.programs.{name}: .*{said}"):
            steps.make(name, entry)


CONFIG = """
import json
from ml_collections import ConfigDict
def get_config():
    return ConfigDict(json.loads({!r}))
"""


def compile_on(devices, folder, parts, *flags, topology="here"):
    """(exit code, stdout, stderr) of the program, for forced devices of the CPU."""
    path = folder / "config.py"
    entries = {name: TINY[name] | changes for name, changes in parts.items()}
    path.write_text(CONFIG.format(json.dumps({"order": list(parts), "programs": entries})))
    process = programs.start(
        "compile", f"--config={path}", f"--workdir={folder / 'out'}", f"--topology={topology}",
        *flags, cache=folder / "cache", devices=devices,
    )  # fmt: skip
    return programs.finish(process)


TWENTY = {"changes": TINY_VAE | {"training": {"batch_size": 20}}}


def values_of(folder):
    """{name: value} of the only program of a record."""
    return {r["name"]: r["value"] for r in programs.read(folder / "out")["rows"]}


def test_eight_devices_share_a_batch_of_twenty_by_one_message(tmp_path):
    changes = {"model": {"latents": (8,), "hidden": ((64,),)}, "objective": {"num_samples": 200}}
    parts = {"train": {"changes": {**changes, "training": {"batch_size": 20}}}}
    code, out, err = compile_on(8, tmp_path, parts)
    assert code == 0, err
    assert "here: 8 of cpu, hosts: 1" in out
    rows = programs.read(tmp_path / "out")["rows"]
    # Three images of 24 on each, where an eighth would be 2.5; at most 1.3 times an eighth.
    (share,) = [r["value"] for r in rows if r["name"] == "repeated operations"]
    assert 0.1 < share < 1 - 1 / 1.3
    messages = {r["name"]: r["n"] for r in rows if r.get("part_of") == "messages"}
    assert messages.keys() == {"all-reduce"}
    assert messages["all-reduce"] <= 2
    # Again, nothing is compiled.
    code, _, err = compile_on(8, tmp_path, parts)
    assert (code, "1 programs are there already" in err) == (0, True)
    assert programs.read(tmp_path / "out")["rows"] == rows


@pytest.mark.parametrize(
    ("batch", "devices", "shared", "most"),
    [(20, 8, True, 0), (20, 20, True, 0), (4, 8, True, 4), (20, 8, False, 5), (16, 8, False, 0)],
)
def test_a_batch_that_does_not_fit_the_chips_is_refused(batch, devices, shared, most):
    if not most:
        steps.check_batch(batch, devices, shared=shared)
        return
    said = (
        rf"batch of {batch} does not fit {devices} chips.* choose {most} chips at most.*{devices}"
    )
    with pytest.raises(UserError, match=said):
        steps.check_batch(batch, devices, shared=shared)


def test_a_program_too_large_for_a_chip_is_told_at_the_end(tmp_path, monkeypatch, capsys):
    from experiments.compile import __main__ as program

    monkeypatch.setitem(topologies.CHIPS, "cpu", topologies.Chip(1e12, 1000.0, 1e9, 1e9))
    monkeypatch.setattr(flags.FLAGS["topology"], "value", ["here"])
    asked = settings.parse(Compile, {"order": ["snr"], "programs": {"snr": TINY["snr"]}})
    with pytest.raises(UserError, match=r"^snr does not fit here .* GB a chip\): choose more"):
        program.main(asked, str(tmp_path / "out"))
    assert capsys.readouterr().out == ""


# --- with the compiler for TPUs ---------------------------------------------------------------

needs_libtpu = pytest.mark.skipif(
    topologies.installed("libtpu") is None, reason="libtpu, the compiler for TPUs, is not installed"
)


@needs_libtpu
@pytest.mark.parametrize("topology", ["v99:2x4", "v5e:3x3"])
def test_a_topology_that_does_not_exist_is_one_line(tmp_path, topology):
    code, _, err = compile_on(1, tmp_path, {"train": TWENTY}, topology=topology)
    assert code == 2
    assert f"--topology={topology} does not exist" in err


@needs_libtpu
def test_a_step_compiles_for_a_pod_of_several_hosts(tmp_path):
    code, out, err = compile_on(1, tmp_path, {"train": TWENTY}, topology="v5e:4x4")
    assert code == 0, err
    assert "v5e:4x4: 16 of TPU v5 lite, hosts: 4" in out
    values = values_of(tmp_path)
    assert values["memory of a chip"] == 16 * 2**30
    assert values["operations"] > 0


@needs_libtpu
def test_a_model_too_large_for_a_chip_is_one_line(tmp_path):
    changes = {"model": {"latents": (4,), "hidden": ((65_536, 65_536),)}}
    code, _, err = compile_on(1, tmp_path, {"train": {"changes": changes}}, topology="v5e:1x1")
    assert code == 2
    assert "train does not fit v5e:1x1" in err


@pytest.mark.skipif(
    topologies.installed("jax-cuda13-plugin") is None,
    reason="jax-cuda13-plugin, the compiler for NVIDIA's GPUs, is not installed",
)
def test_a_step_compiles_for_gpus_of_two_hosts(tmp_path):
    code, out, err = compile_on(1, tmp_path, {"train": TWENTY}, topology="h200:2x4")
    assert code == 0, err
    assert "h200:2x4: 8 of NVIDIA H200, hosts: 2" in out
    assert values_of(tmp_path)["all-reduce"] > 0
