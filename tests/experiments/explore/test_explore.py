"""The program of the lecture hall's page: what it reads, what it refuses, and what it wrote."""

import json
import re

import numpy as np
import pytest
from page_cases import Read, references
from repository import ROOT
from scipy import stats

from experiments.explore import __main__ as program
from experiments.explore import measured, page
from experiments.explore.settings import Explore
from experiments.runtime import results, settings, subprograms
from experiments.runtime.errors import UserError
from experiments.snr.settings import Gaussian
from models.exact import linear_gaussian
from models.exact.linear_gaussian_finite import finite

PAGE = ROOT / "docs/explore.html"
S = linear_gaussian.POSTERIOR_VARIANCE
COUNTS = (1, 4)


def record_of(perturbation=0.1, *, without=(), experiment="snr", config=None):
    """A finished run of experiments.snr with made-up points."""
    fields = subprograms.load_config("configs/snr_gaussian.py:near", {
        "num_samples": COUNTS, "toy": {"num_dims": 2, "num_data": 4, "perturbation": perturbation},
    })  # fmt: skip
    rows = [
        results.row(
            name, {"K": k}, kind="estimate", unit="ratio", value=1.5 * k, low=1.0, high=2.0 * k
        )
        for name in measured.SERIES.values()
        for k in COUNTS
        if (name, k) not in without
    ]
    return {
        "experiment": experiment,
        "config": config or settings.dump(settings.parse(Gaussian, fields)),
        "seed": 0,
        "environment": {"jax": "0.10", "python": "3.11", "machine": "</script><b>"},
        "rows": rows,
    }


def written(folder, record):
    folder.mkdir()
    (folder / results.FILE).write_text(json.dumps(record))
    return str(folder)


def embedded(text):
    """The runs in a page."""
    return json.loads(re.search(r'id="runs">(.*?)</script>', text)[1])


def test_the_program_puts_runs_into_one_file(tmp_path, capsys):
    runs = {
        "a far one": written(tmp_path / "far", record_of(0.5)),
        "<near>": written(tmp_path / "near", record_of(0.01)),
    }
    workdir = tmp_path / "made"
    program.main(settings.parse(Explore, {"runs": runs}), str(workdir))
    path = workdir / "explore.html"
    assert capsys.readouterr().out == f"Written: {path}\n"
    text = path.read_text()
    assert references(text) == []
    read = Read(text)  # closed, whatever the texts are
    assert read.tags.count("script") == 2
    assert "&lt;near&gt;, as measured" in text
    assert text.index("&lt;near&gt;, as measured") < text.index("a far one, as measured")
    near, far = embedded(text)
    assert near["series"]["phi"] == [[1, 1.5, 1.0, 2.0], [4, 6.0, 1.0, 8.0]]
    assert np.linalg.norm(far["delta"]) > np.linalg.norm(near["delta"])
    assert (len(near["offset"]), near["replicates"]) == (2, 10_000)


REFUSED = {
    "nothing there": (lambda folder: str(folder), "has no readable results"),
    "of another program": (
        lambda folder: written(folder, record_of(experiment="vae")), "results of something else"
    ),
    "of another problem": (
        lambda folder: written(folder, record_of(config={"problem": "phase"})),
        "results of something else",
    ),
    "not at its end": (
        lambda folder: written(folder, record_of(without=[("theta pathwise", 4)])), "lacks points"
    ),
    "an address": (lambda folder: "gs://bucket/run", "got the address"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_runs_that_give_no_points_are_refused_in_one_sentence(make, message, tmp_path):
    asked = settings.parse(Explore, {"runs": {"mine": make(tmp_path / "run")}})
    with pytest.raises(UserError, match=message) as refused:
        program.main(asked, str(tmp_path / "made"))
    assert str(refused.value).startswith("--config.runs.mine")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "made").exists()


def test_no_run_and_no_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="runs"):
        settings.parse(Explore, {"runs": {}})
    (tmp_path / "file").write_text("")
    asked = settings.parse(Explore, {"runs": {"mine": written(tmp_path / "run", record_of())}})
    with pytest.raises(UserError, match="cannot write to --workdir="):
        program.main(asked, str(tmp_path / "file"))


# --- the page in docs/ --------------------------------------------------------------------------


def test_the_page_in_docs_is_made_of_the_scripts_of_today():
    text = PAGE.read_text(encoding="utf-8")
    for name in (*page.SCRIPTS, "page.css"):
        assert (page.HERE / name).read_text(encoding="utf-8").strip() in text, "run make explore"
    skeleton = re.split(r"\$\w+", (page.HERE / "page.html").read_text(encoding="utf-8"))
    assert all(part in text for part in skeleton), "run make explore"
    assert len(text.encode()) < 300_000
    assert references(text) == []


def test_measured_points_are_on_the_exact_curves():
    """10,000 gradients of the library at each K, near the optimum and far from it."""
    limit = stats.t.isf(1e-5 / 24 / 2, 39)  # of a jackknife over 40 blocks; 24 points
    half = stats.t.ppf(0.975, 39)
    z, z_of_wrong = [], []
    for run in embedded(PAGE.read_text(encoding="utf-8")):
        delta, offset = np.array(run["delta"]), np.array(run["offset"])
        points = {name: {p[0]: p[1:] for p in points} for name, points in run["series"].items()}
        for k in (1, 8, 64, 1000):
            exact = finite(delta, k, run["variance"])
            ratios = {
                "theta": (offset / 2 - S * exact.mean) / (S * exact.pathwise),
                "phi": exact.mean / exact.pathwise,
                "dreg": exact.mean / exact.dreg,
            }
            for name, ratio in ratios.items():
                value, low, high = np.square(points[name][k])
                wanted, error = np.mean(ratio**2), (high - low) / (2 * half)
                z.append((value - wanted) / error)
                z_of_wrong.append((value - 1.05**2 * wanted) / error)
    assert len(z) == 24
    assert np.max(np.abs(z)) < limit
    assert np.mean(np.abs(z_of_wrong) > limit) > 0.5
