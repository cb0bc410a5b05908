"""Impossible settings and unreadable records: a UserError each, which `cli` prints as one line."""

import os

import jax
import pytest
from ml_collections import ConfigDict
from test_cli import SIZES

from configs import snr_gaussian
from experiments.runtime import results
from experiments.runtime.errors import UserError


def tiny_config(**changes) -> ConfigDict:
    config = snr_gaussian.get_config("near")
    config.update(SIZES)
    config.update(changes)
    return config


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"problem": "gauss"}, ["problem", "gaussian", "'gauss'"]),
        ({"estimators": ("elbo", "vimco")}, ["estimators", "'vimco'", "pathwise"]),
        ({"num_replicates": 81}, ["num_replicates", "multiple of num_blocks=8", "81"]),
        ({"num_replicates": 0}, ["num_replicates", "at least 16", "0"]),
        ({"num_replicates": -8}, ["num_replicates", "at least 16", "-8"]),
        ({"num_blocks": 1}, ["num_blocks", "at least 2", "1"]),
        ({"num_samples": (0, 1)}, ["num_samples", ">= 1", "0"]),
        ({"num_samples": (1, -2)}, ["num_samples", ">= 1", "-2"]),
        ({"num_samples": (1, 1)}, ["num_samples", "twice"]),
        ({"num_samples": ()}, ["num_samples", "empty"]),
        ({"num_dims": 0}, ["num_dims", "0"]),
        ({"num_data": 0}, ["num_data", "0"]),
        ({"datum": 16}, ["datum", "16"]),
        ({"variance": -1.0}, ["variance", "-1"]),
        ({"variance": 0.0}, ["variance", "0"]),
    ],
    ids=lambda v: " ".join(f"{n}={x}" for n, x in v.items()) if isinstance(v, dict) else " ",
)
def test_impossible_setting_is_a_user_error_that_names_it(change, wanted, tmp_path):
    from experiments.snr import __main__ as snr

    precision = jax.config.jax_default_matmul_precision
    try:
        with pytest.raises(UserError) as caught:
            snr.main(tiny_config(**change), str(tmp_path / "out"))
    finally:
        jax.config.update("jax_default_matmul_precision", precision)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for fragment in wanted:
        assert fragment in message
    assert not (tmp_path / "out" / results.FILE).exists()


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
    config = tiny_config()
    content = content.replace(b"CONFIG", config.to_json_best_effort().encode())
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
