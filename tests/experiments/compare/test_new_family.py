"""A family that is new to the comparison: its settings, its program and one entry in FAMILIES."""

import numpy as np
from scipy import stats

from experiments.compare import families, report
from experiments.compare.__main__ import Compare, main
from experiments.runtime import results, settings
from experiments.studies import comparable, held_out, images
from experiments.studies.family import Family, Job
from experiments.studies.settings import Data

CONFIG = """from ml_collections import ConfigDict
get_config = lambda: ConfigDict({"data_dir": "", "data": {"name": "digits"}, "added": 0.5})"""


class Histogram(settings.Section):
    data_dir: str
    data: Data
    added: settings.Positive  # to the count of each value of a pixel


def check(job: Job):
    images.make_problem(job.settings.data.name, job.settings.data_dir)


def run(job: Job):
    record = results.open_record(job.folder, "histogram", job.settings)
    problem = images.make_problem(job.settings.data.name, job.settings.data_dir)
    counts = np.bincount(problem.dataset.train.ravel(), minlength=problem.levels)
    shares = (counts + job.settings.added) / np.sum(counts + job.settings.added)
    log_p = np.log(shares)[problem.dataset.test].sum(axis=(1, 2))
    record["rows"] = [held_out.mean_row("exact", {}, problem.bits(log_p), "exact")]
    results.save_record(job.folder, record)


def rows(job: Job):
    (found,) = results.load(job.folder)["rows"]
    known = {name: found[name] for name in ("kind", "value", "standard_error", "n")}
    return [comparable.bound("counts", {"model": "pixels"}, **known)]


def test_a_new_family_stands_in_the_record_and_on_the_page(tmp_path, monkeypatch):
    config = tmp_path / "histogram.py"
    config.write_text(CONFIG)
    family = Family("histogram", Histogram, None, check, run, rows)
    monkeypatch.setitem(families.FAMILIES, "histogram", family)
    entry = {"program": "histogram", "config": str(config)}
    shared = {"data_dir": "", "data": {"name": "digits_shuffled"}, "order": ("New",)}
    main(settings.parse(Compare, {**shared, "families": {"New": entry}}), str(tmp_path / "out"))
    (row,) = results.load(str(tmp_path / "out"))["rows"]
    assert (row["at"], row["kind"]) == ({"family": "New", "model": "pixels"}, "exact")
    data = images.make_problem("digits_shuffled", "").dataset
    shares = (np.bincount(data.train.ravel(), minlength=17) + 0.5) / (data.train.size + 8.5)
    bits = -stats.rv_discrete(values=(np.arange(17), shares)).logpmf(data.test) / np.log(2)
    np.testing.assert_allclose(row["value"], bits.mean(), rtol=1e-6)
    assert f"{bits.mean():.4f}</td>" in (tmp_path / "out" / report.PAGE).read_text()
