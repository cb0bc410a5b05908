"""experiments.accelerator: parts in order, their ends good and bad, and what is taken up again."""

import json
import sys
import time

import pytest
from programs import read

from configs import accelerator as config
from experiments.accelerator import visit
from experiments.accelerator.settings import Visit
from experiments.runtime import settings
from experiments.runtime.errors import UserError

# A part that needs no JAX: it counts its starts, writes one row and ends as its name says.
PART = """
import json, os, sys, time
workdir, name, device = sys.argv[1:]
with open(os.path.join(workdir, "started"), "a") as file:
    print(name, file=file)
row = {"name": "a number", "at": {}, "kind": "exact", "unit": "", "value": 1.0}
about = {"device": device, "num_devices": 1, "jax": "0", "python": "3", "machine": "none"}
with open(os.path.join(workdir, name + ".json"), "w") as file:
    json.dump({"environment": about, "rows": [] if name == "device" else [row]}, file)
if os.path.exists(os.path.join(workdir, "broken")):
    if name == "snr":
        time.sleep(60)
    if name == "iwae50":
        print("UserError: out of memory", file=sys.stderr)
        sys.exit(1)
    if name == "flowpp":
        os.abort()
"""
ORDER = ("numerics", "snr", "iwae50", "flowpp", "log_p")
ASKED = settings.parse(Visit, config.get_config("tiny"))


@pytest.fixture
def go(monkeypatch, tmp_path):
    """Runs a visit of the parts above; (exit in one line or "", what was started)."""

    def run(*, device="chip", whole=60.0, each=2.0, order=ORDER):
        def command(workdir, name):
            return [sys.executable, "-c", PART, workdir, name, device]

        monkeypatch.setattr(visit, "command", command)
        said = ""
        try:
            visit.visit(ASKED, order, whole, each, str(tmp_path))
        except UserError as error:
            said = str(error)
        started = (tmp_path / "started").read_text().split()
        (tmp_path / "started").unlink()
        return said, started

    return run


def test_a_part_that_hangs_fails_or_dies_leaves_the_others_alone(go, tmp_path, capsys):
    (tmp_path / "broken").touch()
    start = time.monotonic()
    said, started = go()
    assert time.monotonic() - start < 30  # the hanging part would have slept for a minute
    assert started == ["device", *ORDER]
    failures = {r["part"]: r["failure"] for r in read(tmp_path)["rows"] if "failure" in r}
    assert failures.keys() == {"snr", "iwae50", "flowpp"}
    assert failures["snr"] == "ended after 2 s"
    assert failures["iwae50"] == "UserError: out of memory"
    assert failures["flowpp"].startswith("ended with code -6")
    # What a part had written before its end is kept, and the last line has all that failed.
    assert [r["part"] for r in read(tmp_path)["rows"] if r["value"] == 1.0] == list(ORDER)
    assert "snr: ended after 2 s; iwae50: UserError: out of memory; flowpp: ended" in said
    printed = capsys.readouterr().out
    assert (tmp_path / "table.txt").read_text() in printed
    assert "1 of chip, jax 0" in printed

    (tmp_path / "broken").unlink()
    said, started = go()
    assert (said, started) == ("", ["device", "snr", "iwae50", "flowpp"])
    assert [r["part"] for r in read(tmp_path)["rows"]].count("snr") == 1
    assert go() == ("", ["device"])


def test_results_are_there_after_each_part(go, tmp_path, monkeypatch):
    save, found = visit.results.save_record, []

    def saved(workdir, record):
        save(workdir, record)
        found.append([r["part"] for r in read(tmp_path)["rows"]])

    monkeypatch.setattr(visit.results, "save_record", saved)
    go()
    assert found == [list(ORDER[:count]) for count in range(1, len(ORDER) + 1)]


def test_no_part_starts_when_the_visit_is_over(go, tmp_path):
    said, started = go(whole=0.01)
    assert started == ["device"]
    assert "numerics: not started: the 0 s of the visit are over" in said
    assert go()[1] == ["device", *ORDER]


def test_numbers_of_two_devices_do_not_mix(go):
    go()
    said, started = go(device="another")
    assert "holds numbers of chip, and this is another; choose another --workdir" in said
    assert started == ["device"]


def test_a_wrong_number_makes_the_end_a_bad_one(go, tmp_path):
    go()
    record = read(tmp_path)
    record["rows"][0]["verdict"] = visit.FAILED
    (tmp_path / "results.json").write_text(json.dumps(record))
    assert go()[0].startswith("numerics: a number. ")


def test_both_variants_parse_and_have_every_part():
    for variant in config.VARIANTS:
        asked = settings.parse(Visit, config.get_config(variant))
        assert asked.order == config.ORDER
