"""results.json: whole or not at all, of one config and one program."""

import json
import os

import numpy as np
import pytest

from experiments.runtime import results
from experiments.runtime.errors import UserError
from experiments.runtime.settings import Section


class Small(Section):
    """A config."""

    seed: int
    sizes: tuple[int, ...] = ()


def test_record_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    config = Small(seed=3, sizes=(1, 2))
    record = results.open_record(str(tmp_path), "snr", config)
    record["rows"].append(
        results.row("a", {"K": 1}, kind="estimate", unit="nats", value=float("nan"), high=np.inf)
    )
    results.save_record(str(tmp_path), record)
    text = (tmp_path / results.FILE).read_text()
    assert json.loads(text)["rows"][0]["value"] is None, "strict JSON has no NaN"
    assert json.loads(text)["rows"][0]["high"] is None
    assert results.open_record(str(tmp_path), "snr", config)["rows"] == record["rows"]

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match="No space left"):
        results.save_record(str(tmp_path), {**record, "rows": []})
    assert (tmp_path / results.FILE).read_text() == text
    assert os.listdir(tmp_path) == [results.FILE], "no half-written file is left behind"


def test_record_of_another_config_or_program_is_not_touched(tmp_path):
    config = Small(seed=3)
    results.save_record(str(tmp_path), results.open_record(str(tmp_path), "snr", config))
    with pytest.raises(UserError, match=r"seed \(3 there, 4 now\)"):
        results.open_record(str(tmp_path), "snr", Small(seed=4))
    with pytest.raises(UserError, match="results of snr"):
        results.open_record(str(tmp_path), "train", config)


def test_kind_is_one_of_four():
    with pytest.raises(ValueError, match="kind must be one of exact"):
        results.row("a", {}, kind="bound", unit="nats", value=1.0)
