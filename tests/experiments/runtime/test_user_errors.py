"""Impossible settings and unreadable records: a UserError each, which `cli` prints as one line."""

import json
import os

import pytest

from experiments.runtime import results, settings, subprograms
from experiments.runtime.errors import UserError
from experiments.snr.settings import parse

SIZES = {
    "replicates": {"number": 80, "num_blocks": 8},
    "num_samples": (1, 2),
    "toy": {"num_dims": 2, "num_data": 16},
    "estimators": ("pathwise", "dreg"),
}


def tiny_config(**changes):
    config = subprograms.load_config("configs/snr_gaussian.py:near", SIZES)
    return settings.merged(config, changes)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"problem": "gauss"}, ["problem", "gaussian", "'gauss'"]),
        ({"problem": {"a": 1}}, ["problem", "gaussian", "{'a': 1}"]),
        ({"estimators": ("elbo", "vimco")}, ["estimators[1]", "'vimco'", "pathwise"]),
        ({"replicates": {"number": 81}}, ["replicates.number", "multiple of num_blocks (8)", "81"]),
        ({"replicates": {"number": 8}}, ["replicates.number", "at least 16", "got 8"]),
        ({"replicates": {"number": 0}}, ["replicates.number", "at least 1", "got 0"]),
        ({"replicates": {"number": -8}}, ["replicates.number", "at least 1", "-8"]),
        ({"replicates": {"num_blocks": 1}}, ["replicates.num_blocks", "at least 2", "1"]),
        ({"num_samples": (0, 1)}, ["num_samples[0]", "at least 1", "0"]),
        ({"num_samples": (1, -2)}, ["num_samples[1]", "at least 1", "-2"]),
        ({"num_samples": (1, 1)}, ["num_samples", "twice"]),
        ({"num_samples": ()}, ["num_samples", "empty"]),
        ({"toy": {"num_dims": 0}}, ["toy.num_dims", "at least 1", "0"]),
        ({"toy": {"num_data": 0}}, ["toy.num_data", "at least 1", "0"]),
        ({"toy": {"datum": 16}}, ["toy.datum", "below num_data (16)", "got 16"]),
        ({"toy": {"variance": -1.0}}, ["toy.variance", "greater than 0", "-1"]),
        ({"toy": {"variance": 0.0}}, ["toy.variance", "greater than 0", "0"]),
    ],
    ids=str,
)
def test_impossible_setting_is_a_user_error_that_names_it(change, wanted):
    with pytest.raises(UserError) as caught:
        parse(tiny_config(**change))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for fragment in wanted:
        assert fragment in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe\x00",
        b'{"experiment": "snr", "config": [], "environment": {}, "rows": []}',
        b'{"experiment": "snr", "config": CONFIG, "environment": {}, "rows": null}',
        b'{"experiment": "snr", "config": CONFIG, "environment": {}, "rows": [1]}',
    ],
    ids=["empty", "null", "list", "no-field", "binary", "config", "no-rows", "rows"],
)
def test_content_that_is_no_record_is_a_user_error_and_kept(content, tmp_path):
    config = parse(tiny_config())
    content = content.replace(b"CONFIG", json.dumps(settings.dump(config)).encode())
    (tmp_path / results.FILE).write_bytes(content)
    with pytest.raises(UserError, match="not a readable record"):
        results.open_record(str(tmp_path), "snr", config)
    assert (tmp_path / results.FILE).read_bytes() == content


@pytest.mark.parametrize("moment", ["before", "after"])
def test_signal_while_a_file_is_moved_stops_the_program_with_its_own_code(
    tmp_path, monkeypatch, moment
):
    path, move = tmp_path / "results.json", os.replace
    path.write_bytes(b"old")

    def interrupted(source, target):
        if moment == "after":
            move(source, target)
        raise SystemExit(143)  # what the handler of SIGTERM raises

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(SystemExit) as caught:
        results.write_atomically(str(path), b"new")
    assert caught.value.code == 143
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
    assert path.read_bytes() == {"before": b"old", "after": b"new"}[moment]
