"""The program on a tiny run of every other program: tables, rows, exit codes and refusals."""

import shutil

import dalle_cases
import dequantize_cases
import diffusion_cases
import jax
import pytest
import train_cases
from programs import read

from experiments import train
from experiments.audit import __main__ as program
from experiments.audit import reports, subject
from experiments.audit.settings import Audit
from experiments.dalle import family as dalle
from experiments.dequantize import family as dequantize
from experiments.diffusion import family as diffusion
from experiments.masked import family as masked
from experiments.masked.settings import Masked
from experiments.runtime import settings, subprograms
from experiments.runtime.errors import UserError
from experiments.studies import program as studies

SMALL = {
    "checks": {"num_data": 100, "num_samples": 8, "num_gradients": 100, "num_draws": 4},
    "memory": {"data_per_pass": 50},
}


def asked(run, **changes):
    fields = subprograms.load_config(
        "configs/audit.py", settings.merged({**SMALL, "run": str(run)}, changes)
    )
    return settings.parse(Audit, fields)


def _dequantized(name, **more):
    return dequantize_cases.tiny(name, seeds=(0,), **more)


def _masked():
    changes = {
        "seeds": (0,), "network": {"num_layers": 1, "width": 8, "num_heads": 2},
        "optimizer": {"warmup_steps": 1}, "training": {"num_steps": 4, "validation_samples": 2},
        "records": {"log_every": 2, "save_every": 4},
        "evaluation": {
            "num_images": 6, "num_counts": 4, "steps": (4,), "num_orders": 2, "crop": (1, 2),
            "sample_grid": 0,
        },
    }  # fmt: skip
    return settings.parse(Masked, subprograms.load_config("configs/masked_digits.py", changes))


STUDIES = {
    "flow": lambda: (dequantize.PARTS, _dequantized("mixture_flow")),
    "subset flow": lambda: (dequantize.PARTS, _dequantized("exact", variant="exact")),
    "diffusion": lambda: (diffusion.PARTS, diffusion_cases.tiny()),
    "masked": lambda: (masked.PARTS, _masked()),
    "dalle": lambda: (dalle.PARTS, dalle_cases.tiny(models={"one": {}})),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """name -> the --workdir of a tiny run, made when it is asked for."""
    base, made = tmp_path_factory.mktemp("runs"), {}

    def run(name):
        if name not in made:
            made[name] = base / name.replace(" ", "_")
            if name == "VAE":
                subprograms.run(name, train.main, train_cases.tiny(), str(made[name]))
            else:
                parts, wanted = STUDIES[name]()
                subprograms.run(
                    name, lambda s, w: studies.main(parts, s, w), wanted, str(made[name])
                )
        return made[name]

    return run


# Compiling them takes a minute each.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in STUDIES]


@pytest.mark.parametrize("name", ["VAE", *SLOW])
def test_nothing_is_violated_by_a_model_of_any_program(
    name, trained, tmp_path, capsys, monkeypatch
):
    program.main(asked(trained(name)), str(tmp_path))
    rows = read(tmp_path)["rows"]
    assert [r for r in rows if r["verdict"] == "violated"] == []
    parts = {r["part"] for r in rows}
    assert ("model" in parts) == (name != "subset flow")
    checked = {r["name"] for r in rows if r["verdict"] == "holds"}
    assert {"same key, same number", "below the upper bound"} <= checked
    told = capsys.readouterr().out
    assert "probabilities sum to at most 1" in told

    def never(make):
        raise AssertionError

    # What is finished is told again, and not made.
    monkeypatch.setattr(reports, "rows", never)
    program.main(asked(trained(name)), str(tmp_path))
    assert capsys.readouterr().out == told


def test_a_violation_ends_with_3_and_says_what_it_means(trained, tmp_path, capsys, monkeypatch):
    found = subject.load(asked(trained("VAE")))

    def propose(phi, key, x):
        first, second = jax.random.split(key)
        return found.model.propose(phi, first, x)[0], found.model.propose(phi, second, x)[1]

    stale = found._replace(model=found.model._replace(propose=propose))
    monkeypatch.setattr(subject, "load", lambda asked: stale)
    with pytest.raises(SystemExit) as left:
        program.main(asked(trained("VAE")), str(tmp_path))
    assert left.value.code == 3
    assert "log q at its own draw: propose returns another log q" in capsys.readouterr().out
    assert read(tmp_path)["rows"]


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("VAE", {"model": "one"}, "is a name in a study"),
        ("VAE", {"member": 7}, "must be a seed of this run"),
        ("VAE", {"checkpoint": "3"}, "must be best, latest or one of the steps"),
    ],
)
def test_what_is_not_there_is_refused(name, changes, says, trained, tmp_path):
    with pytest.raises(UserError, match=says):
        program.main(asked(trained(name), **changes), str(tmp_path))


def _flipped(checkpoints):
    for path in checkpoints.rglob("*"):
        if path.is_file() and path.stat().st_size > 1000 and "METADATA" not in path.name:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 0xFF
            path.write_bytes(content)


def _renamed(checkpoints):
    for path in checkpoints.glob("*/_CHECKPOINT_METADATA"):
        path.write_text(path.read_text().replace('"latents"', '"of_another_version"'))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_flipped, r"cannot be read \(step \d+: .*; choose another one"),
        (_renamed, r"is of another config, which differs in .*of_another_version"),
        (shutil.rmtree, "there is no folder .*; train first"),
    ],
)
def test_a_checkpoint_that_is_damaged_or_of_another_version_is_refused(
    damage, says, trained, tmp_path
):
    shutil.copytree(trained("VAE"), tmp_path / "run")
    damage(tmp_path / "run/checkpoints")
    with pytest.raises(UserError, match=says) as error:
        program.main(asked(tmp_path / "run"), str(tmp_path / "audit"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "audit").exists()


@pytest.mark.slow
def test_what_is_not_in_a_study_is_refused(trained, tmp_path):
    with pytest.raises(UserError, match="must be one of mixture_flow, got two"):
        program.main(asked(trained("flow"), model="two"), str(tmp_path))
    with pytest.raises(UserError, match="must be a seed of this run"):
        program.main(asked(trained("flow"), member=7), str(tmp_path))


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"run is empty"):
        program.main(asked(""), str(tmp_path))
    with pytest.raises(UserError, match=r"holds no run of experiments\.train, dequantize or"):
        program.main(asked(tmp_path), str(tmp_path))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("num_samples", 12, "a multiple of 8, got 12"),
        ("num_temperatures", 2, "0 .none. or at least 3, got 2"),
        ("num_data", 50, "at least 100, got 50"),
        ("false_alarm_rate", 0.0, "above 0|greater than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(field, value, says):
    with pytest.raises(UserError, match=says):
        asked("runs/one", checks={field: value})
