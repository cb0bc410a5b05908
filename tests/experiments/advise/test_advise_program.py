"""The program on few estimators of small models: rows, sentences, resume, refusals."""

import importlib.util

import pytest
import train_cases
from programs import read

from bounds import _advise
from configs import advise as config
from experiments import train
from experiments.advise import __main__ as program
from experiments.advise import rows, subjects
from experiments.advise.settings import Advise
from experiments.runtime import settings, subprograms
from experiments.runtime.errors import UserError

SMALL = {
    "models": ("Gaussian, near", "VAE", "NumPyro"),
    "training": {"num_steps": 2, "batch_size": 10},
    "advice": {"num_data": 3, "num_samples": (2,), "num_replicates": 40, "num_calls": 2},
    "check": {"num_samples": 2, "seconds": 1e-3, "test_samples": 25},
    "chains": {"num_bridges": 2, "num_steps": 2, "num_images": 3},
}


def asked(**changes):
    fields = settings.merged(config.get_config().to_dict(), settings.merged(SMALL, changes))
    return settings.parse(Advise, fields)


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    """Every estimator is compiled: three are enough, and so is a small VAE."""
    every = _advise.candidates
    names = ("dreg", "rloo", "stl")
    monkeypatch.setattr(
        _advise, "candidates", lambda *given: [c for c in every(*given) if c.name in names]
    )
    monkeypatch.setitem(subjects.SIZES, "VAE", {"latents": (2,), "hidden": ((4,),)})


def test_the_program_prints_saves_and_continues(tmp_path, capsys, monkeypatch):
    few = asked(check={"seeds": (0, 1)})
    program.main(few, str(tmp_path))
    shown = capsys.readouterr().out
    found = read(tmp_path)["rows"]
    for model in few.models:
        own = [r for r in found if r["at"]["model"] == model and r["part"] == "advice"]
        assert {r["name"] for r in own} >= {rows.SNR, rows.CHOICE, rows.SPENT}
        assert all(r["why"] in shown for r in own if r["name"] == rows.CHOICE)
        assert all(r["flops"] > 0 for r in own if r["name"] == rows.SNR)
    biased = [r for r in found if r["name"] == rows.BIAS]
    assert {(r["at"]["estimator"], r["at"]["of"]) for r in biased} == {("stl", "phi")}
    # z of the NumPyro model has a discrete site.
    refused = {
        r["at"]["estimator"] for r in found
        if r["name"] == rows.REFUSED and r["at"]["model"] == "NumPyro"
    }  # fmt: skip
    assert refused == {"dreg", "stl"}
    assert (tmp_path / "figure.png").exists()

    checked = {r["at"]["estimator"]: r for r in found if r["name"] == "test IWAE-25"}
    assert "pathwise" in checked
    assert checked["pathwise"]["n"] == 2
    assert checked["pathwise"]["standard_error"] > 0
    steps = [r["value"] for r in found if r["name"] == "steps"]
    assert len(steps) == len(checked)

    monkeypatch.setattr(_advise, "candidates", lambda *given: pytest.fail("measured again"))
    program.main(few, str(tmp_path))
    assert capsys.readouterr().out == shown


def test_what_needs_a_package_that_is_missing_says_so_and_the_others_go_on(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    program.main(asked(models=("NumPyro",)), str(tmp_path))
    assert "NumPyro is not installed: pip install numpyro." in capsys.readouterr().out
    (row,) = read(tmp_path)["rows"]
    assert row["value"] is None


def test_a_vae_of_a_run_and_values_at_equal_gradients(tmp_path, capsys):
    run = tmp_path / "run"
    subprograms.run("a VAE", train.main, train_cases.tiny(), str(run))
    few = asked(run=str(run), chains={"gradients": (4, 8)})
    program.main(few, str(tmp_path / "advice"))
    found = read(tmp_path / "advice")["rows"]
    assert {r["at"]["model"] for r in found} == {subjects.OF_RUN}
    values = {(r["name"], r["at"]["gradients"]): r for r in found if r["part"] == "chains"}
    four = {"ELBO", "IWAE", "UHA", "AIS"}
    assert {name for name, _ in values} == four | {f"{v} - IWAE" for v in four - {"IWAE"}}
    assert {r["kind"] for (name, _), r in values.items() if name in four} == {"lower_bound"}
    assert values["UHA - IWAE", 8]["kind"] == "estimate"
    assert values["UHA", 8]["at"]["chains"] == 4
    for gradients in (4, 8):  # of the same draws
        assert values["ELBO", gradients]["value"] < values["IWAE", gradients]["value"]
    assert "UHA" in capsys.readouterr().out


REFUSED = {
    r"betas must start at 0, increase and end at 1": {"advice": {"betas": (0.0, 0.5, 0.2, 1.0)}},
    r"num_replicates must be a multiple of 20, got 50": {"advice": {"num_replicates": 50}},
    r"a num_samples that is asked about, one of \(2,\), got 8": {
        "check": {"seeds": (0,), "num_samples": 8},
    },
    r"gradients must be multiples of num_bridges \(2\)": {"chains": {"gradients": (3,)}},
    r"must be at most \d+, the training images": {"advice": {"num_data": 10**6}},
    r"config\.json cannot be read; --config\.run must be": {"run": "nowhere"},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_mistakes_are_told_in_a_sentence(sentence, tmp_path):
    with pytest.raises(UserError, match=sentence) as error:
        program.main(asked(**REFUSED[sentence]), str(tmp_path / "out"))
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_studies_of_the_config():
    assert [config.get_config(s).to_dict()["models"] for s in ("training", "chains")] == [
        ("VAE", "dVAE"), ("VAE",),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="the study must be training or chains, got 'checks'"):
        config.get_config("checks")
