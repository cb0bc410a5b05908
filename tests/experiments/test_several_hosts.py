"""Every program on two processes: the numbers of one, and an end in good order when one goes.

What a program leaves as two processes of two devices each is compared with what it leaves alone,
row by row and file by file.
"""

import functools
import signal
import time

import pytest
from programs import finish, read, shared_folder, start, start_together

from configs import (
    advise,
    audit,
    compare_digits,
    dalle_digits,
    dequantize_digits,
    diffusion_digits,
    estimators,
    evaluate,
    masked_digits,
    reference_mnist,
    snr_gaussian,
    snr_phase,
    snr_vae,
    surgery_digits,
    train_digits,
)  # fmt: skip
from experiments.runtime import results
from experiments.runtime.settings import merged

TRAINED = {
    "model": {"latents": (3,), "hidden": ((6,),)},
    "objective": {"name": "iwae", "num_samples": 2},
    "training": {"num_steps": 4, "batch_size": 20, "validation_samples": 2},
    "records": {"log_every": 2, "save_every": 2, "keep_checkpoints": 3},
    "evaluation": {"few_samples": 2, "num_samples": 4, "num_images": 6},
}
SHORT = {
    "training": {"num_steps": 4, "batch_size": 24}, "records": {"log_every": 2, "save_every": 4},
}  # fmt: skip
ANNEALING = {
    "test_images": 5, "simulated_images": 3, "temperatures": 5, "chains": 2, "leapfrog": 1,
}  # fmt: skip
REPLICATES = {"replicates": {"number": 30, "num_blocks": 5}}  # four devices do not divide 5 blocks
SMALL_FLOW = {
    "model": {"width": 8, "num_components": 2, "num_layers": 1},
    "noise": {"width": 8, "num_layers": 1},
}  # fmt: skip


def _evaluated(run):
    return merged(evaluate.get_config().to_dict(), {
        "run": run, "annealing": ANNEALING, "memory": {"ais_images_per_pass": 2},
        "evaluation": {
            "num_images": 6, "few_samples": 2, "num_samples": 8, "curve_samples": (1, 4),
        },
    })  # fmt: skip


def _audited(run):
    return merged(audit.get_config().to_dict(), {
        "run": run, "memory": {"data_per_pass": 50},
        "checks": {"num_data": 100, "num_samples": 8, "num_gradients": 100, "num_draws": 4},
    })  # fmt: skip


OF_A_RUN = {"evaluate": _evaluated, "audit": _audited}


def _compared():
    config = compare_digits.get_config().to_dict()
    config["order"] = ("VAE", "Exact")
    of_flow = config["families"]["Exact"]["changes"]
    del of_flow["models"]["autoregressive"]
    of_vae = merged(TRAINED, {"model": {"latents": (2,)}, "objective": {"name": "elbo"}})
    return merged(config, {"families": {
        "VAE": {
            "changes": of_vae,
            "evaluation_changes": {
                "annealing": ANNEALING,
                "evaluation": {
                    "num_images": 6, "num_samples": 8, "few_samples": 2, "curve_samples": (1, 4),
                },
            },
        },
        "Exact": {"changes": merged(SHORT, {
            "refit": {"num_steps": 2}, "models": {"subset_flow": SMALL_FLOW},
            "evaluation": {"num_images": 6, "num_samples": (1, 4)},
        })},
    }})  # fmt: skip


def _surgery():
    config = surgery_digits.get_config().to_dict()
    config["models"] = {"VAE": merged(TRAINED, {"objective": {"name": "elbo"}})}
    plane = merged(TRAINED, {"model": {"latents": (2,)}})
    return merged(config, {
        "decomposition": {
            "num_images": 13, "num_draws": 2, "curve_draws": 2, "batch_size": 4, "num_batches": 3,
        },
        "prior": {"num_images": 5},
        "gap": {
            "num_images": 3, "num_steps": 5, "step_samples": 4, "num_draws": 4, "num_samples": 20,
        },
        "picture": {
            "model": plane, "num_sets": 2, "num_nodes": 24, "num_samples": (2,), "num_draws": 10,
        },
        "memory": {"samples_per_pass": 20, "posteriors_per_pass": 10},
    })  # fmt: skip


def without_models(module):
    """The fields of a config file, whose models are others."""
    return {**module.get_config().to_dict(), "models": {}}


def _dequantized(variant, *names, **changes):
    config = dequantize_digits.get_config(variant).to_dict()
    config["models"] = {name: merged(config["models"][name], SMALL_FLOW) for name in names}
    return merged(config, merged(SHORT, {
        "compare": (), "seeds": (0, 1),
        "model": {"layout": ("checkerboard:2", "squeeze", "channels:1")},
        "noise": {"num_couplings": 2, "num_components": 2}, "refit": {"num_steps": 2},
        "evaluation": {"num_images": 6, "num_samples": (1, 4), "sample_grid": 4},
        "training": {"validation_samples": 1}, **changes,
    }))  # fmt: skip


CONFIGS = {
    "snr": lambda: merged(snr_gaussian.get_config("near").to_dict(), {
        **REPLICATES, "num_samples": (1, 4), "toy": {"num_dims": 2, "num_data": 16},
        "estimators": ("pathwise", "dreg"), "elbo": False,
    }),
    "snr of a VAE": lambda: merged(snr_vae.get_config().to_dict(), {
        **REPLICATES, "num_samples": (1, 4), "batch_size": 4, "training": {"num_steps": 20},
        "model": {"latents": (3,), "hidden": ((8,),)},
    }),
    "snr over alpha": lambda: merged(snr_phase.get_config().to_dict(), {
        **REPLICATES, "num_samples": (64, 128), "num_dims": (2,), "alphas": (0.0, 0.5),
        "toy": {"num_data": 16},
    }),
    "train": lambda: merged(train_digits.get_config().to_dict(), TRAINED),
    "evaluate": lambda: _evaluated(""),
    "audit": lambda: _audited(""),
    "reference": lambda: merged(reference_mnist.get_config("short").to_dict(), {
        **TRAINED, "objective": {}, "data_dir": "", "data": {"name": "digits"},
        "grid": ("iwae:2",), "seeds": (0, 1),
    }),
    "dequantize": lambda: _dequantized("couplings", "affine_flow", "autoregressive"),
    "dequantize, exact": lambda: _dequantized("exact", "variational", together=False),
    "diffusion": lambda: merged(diffusion_digits.get_config().to_dict(), merged(SHORT, {
        "seeds": (0, 1), "chain": {"evaluation_timesteps": 12}, "optimizer": {"warmup_steps": 1},
        "network": {"name": "mlp", "width": 16, "fourier": (1,)},
        "training": {"validation_samples": 2}, "evaluation": {"num_images": 6, "sample_grid": 4},
    })),
    "dalle": lambda: merged(without_models(dalle_digits), merged(SHORT, {
        "seeds": (0,), "model": {"width": 4, "embedding": 4, "num_codes": 3},
        "models": {"beta1": {"objective": {"beta": 1.0}}}, "compare": (),
        "objective": {"beta_steps": 2, "temperature_steps": 2}, "optimizer": {"warmup_steps": 1},
        "prior": {"num_layers": 1, "width": 8, "num_heads": 2, "num_steps": 4},
        "evaluation": {"num_images": 6, "num_draws": 4, "sample_grid": 2},
    })),
    "masked": lambda: merged(masked_digits.get_config().to_dict(), merged(SHORT, {
        "seeds": (0,), "optimizer": {"warmup_steps": 1},
        "network": {"num_layers": 1, "width": 8, "num_heads": 2},
        "training": {"validation_samples": 2},
        "evaluation": {
            "num_images": 6, "num_counts": 4, "steps": (4,), "num_orders": 2, "crop": (1, 2),
            "sample_grid": 4,
        },
    })),
    "surgery": _surgery,
    "advise": lambda: merged(advise.get_config().to_dict(), {
        "models": ("Gaussian, near",),
        "advice": {
            "num_data": 2, "num_samples": (2,), "num_replicates": 40, "num_calls": 1,
            "cost": "flops",  # seconds are other ones each time
        },
    }),
    "estimators": lambda: merged(
        estimators.get_config().to_dict(), {"num_samples": (1,), "most_outcomes": 70}
    ),
    "compare": _compared,
}  # fmt: skip
# Numbers of the clock, and of the machine that a run was on.
TIMES = {"seconds", "compile_seconds", "seconds_per_image", "training_seconds"}
QUICK = ("snr",)


@pytest.fixture(scope="session")
def launch(tmp_path_factory):
    """(program, config, folder, ...) -> a process, or two of one run with `together`."""
    cache, folder = shared_folder(tmp_path_factory) / "jax", tmp_path_factory.mktemp("configs")

    def begin(name, workdir, *flags, together=False, config=None, **options):
        path = folder / f"{name.replace(' ', '_')}_{workdir.name}.py"
        fields = CONFIGS[name]() if config is None else config
        path.write_text(
            "from ml_collections import ConfigDict\n\n\n"
            f"def get_config():\n    return ConfigDict({fields!r})\n"
        )
        arguments = (name.split()[0].strip(","), f"--config={path}", f"--workdir={workdir}", *flags)
        if together:
            return start_together(*arguments, cache=cache, devices=2, **options)
        return start(*arguments, cache=cache, **options)

    return begin


def succeed(*processes):
    """What the processes printed, on stdout and on stderr."""
    ends = [finish(process, timeout=1800) for process in processes]
    for code, _, err in ends:
        assert code == 0, err
    return [(out, err) for _, out, err in ends]


def of_row(row):
    return row["name"], row["at"], row["unit"], row["kind"], row.get("point"), row.get("part")


def assert_same_rows(rows, others, tolerance=1e-5):
    """Numbers to float32's rounding, of those above 1 relative to them."""
    assert [*map(of_row, rows)] == [*map(of_row, others)]
    for row, other in zip(rows, others, strict=True):
        if row["unit"] == "s":
            continue
        for name in row.keys() - TIMES - {"at", "checksum"}:
            if isinstance(row[name], float):
                bound = tolerance * max(1.0, abs(row[name]))
                assert abs(row[name] - other[name]) <= bound, (of_row(row), name)
            else:
                assert row[name] == other[name], (of_row(row), name)


def files_of(folder):
    """All but those of checkpoints, which depend on how many wrote them, and of TensorBoard."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(f) for f in found if not {"checkpoints", "tensorboard"} & set(f.parts)}


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS]
)
def test_two_processes_of_two_devices_have_the_numbers_of_one(name, launch, tmp_path):
    config, one, two = CONFIGS[name](), tmp_path / "one", tmp_path / "two"
    if name in OF_A_RUN:
        succeed(launch("train", tmp_path / "run"))
        config = OF_A_RUN[name](str(tmp_path / "run"))
    succeed(launch(name, one, config=config))
    (printed, _), (nothing, _) = succeed(*launch(name, two, config=config, together=True))
    assert "Written:" in printed
    assert "Written:" not in nothing
    assert_same_rows(read(one)["rows"], read(two)["rows"])
    assert files_of(one) == files_of(two)
    assert read(two)["environment"]["num_processes"] == 2


# So many points, or steps, that a run is met in the middle of them.
LONG = {
    "snr": lambda: merged(CONFIGS["snr"](), {
        "num_samples": (1, 2, 3, 4), "estimators": ("pathwise",),
    }),
    "diffusion": lambda: merged(CONFIGS["diffusion"](), {
        "training": {"num_steps": 400}, "records": {"log_every": 5, "save_every": 10},
    }),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(launch, tmp_path_factory):
    """name -> rows of two processes that nothing disturbed."""

    @functools.cache
    def of(name):
        workdir = tmp_path_factory.mktemp("whole") / "run"
        succeed(*launch(name, workdir, config=LONG[name](), together=True))
        return read(workdir)["rows"]

    return of


def started(launch, name, workdir):
    """Two processes that have something on disk, and more to do."""
    processes = launch(name, workdir, config=LONG[name](), together=True)
    deadline = time.monotonic() + 400
    while not begun(workdir, name):
        assert time.monotonic() < deadline
        for process in processes:
            assert process.poll() is None, finish(process)[2]
        time.sleep(0.05)
    return processes


def begun(workdir, name):
    if name == "snr":
        return (workdir / results.FILE).exists()
    saved = [p for p in workdir.glob("*/checkpoints/*") if p.name.isdecimal()]
    return len(saved) > 0


def bits(rows):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows if row["unit"] != "s"]


@pytest.mark.parametrize("name", ["snr", pytest.param("diffusion", marks=pytest.mark.slow)])
@pytest.mark.parametrize("told", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_all_stop_where_one_is_told_to_and_the_same_command_ends_with_the_same_bits(
    name, told, launch, whole, tmp_path
):
    processes = started(launch, name, tmp_path)
    processes[told].send_signal(signal.SIGTERM)
    for process in processes:
        code, _, err = finish(process)
        assert code == 143, err
        assert "Stopped by SIGTERM" in err
        assert "continues from there" in err.splitlines()[-1]
        assert "Traceback" not in err
    succeed(*launch(name, tmp_path, config=LONG[name](), together=True))
    assert bits(read(tmp_path)["rows"]) == bits(whole(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["snr", "diffusion"])
@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_ends_the_other_and_nothing_is_lost(
    name, killed, launch, whole, tmp_path
):
    processes = started(launch, name, tmp_path)
    processes[killed].kill()
    at = time.monotonic()
    code, _, err = finish(processes[1 - killed], timeout=120)
    print(f"{name}: {time.monotonic() - at:.1f} s after process {killed} was killed")
    assert code == 143, err
    assert "Another process of this run is gone" in err
    assert "Traceback" not in err
    assert finish(processes[killed])[0] == -signal.SIGKILL
    succeed(*launch(name, tmp_path, config=LONG[name](), together=True))
    assert bits(read(tmp_path)["rows"]) == bits(whole(name))


@pytest.mark.slow
def test_what_one_process_is_refused_all_are(launch, tmp_path):
    """Where one cannot keep checkpoints, the other does not wait for it."""
    folders = tmp_path / "checkpoints", tmp_path / "file"
    folders[1].touch()
    ends = [
        finish(process, timeout=120)
        for process in launch(
            "train", tmp_path / "run", together=True,
            of_each=lambda i: [f"--checkpoint_dir={folders[i]}"],
        )
    ]  # fmt: skip
    assert [code for code, _, _ in ends] == [2, 2]
    assert "another process of this run was refused" in ends[0][2]
    assert "for checkpoints: File exists" in ends[1][2]
