"""What concerns several processes, where there is one: nothing waits, and folders find their place.

tests/experiments/test_several_hosts.py runs the programs on two.
"""

import pickle

import pytest
from absl.testing import flagsaver

from experiments.runtime import cli, cluster, results
from experiments.runtime.errors import UserError


@pytest.mark.parametrize(
    ("given", "folder", "wanted"),
    [
        (None, "/runs/a", "/runs/a/checkpoints"),
        (None, "/runs/a/model/dvae", "/runs/a/model/dvae/checkpoints"),
        ("gs://bucket/c", "/runs/a", "gs://bucket/c"),
        ("gs://bucket/c", "/runs/a/model/dvae", "gs://bucket/c/model/dvae"),
        # The run that an evaluation reads.
        ("/elsewhere", "/runs/b", "/elsewhere"),
        ("/elsewhere", "/runs", "/elsewhere"),
    ],
)
def test_checkpoints_lie_as_folders_do_under_the_workdir(given, folder, wanted):
    with flagsaver.flagsaver((cli.WORKDIR, "/runs/a"), (cluster.CHECKPOINT_DIR, given)):
        assert cluster.checkpoints_of(folder) == wanted


def test_one_process_does_it_all_itself():
    made = object()
    assert cluster.on_first(lambda: made) is made
    with cluster.together():
        assert cluster.size() == 1
    with pytest.raises(UserError, match="no"), cluster.together():
        raise UserError("no")
    cluster.stop_if_told()
    assert not cluster.is_lost(ValueError("Gloo AllGather failed"))


def test_what_other_processes_get_of_a_record_and_of_an_error():
    record = results.Record(rows=[{"at": {"K": (1, 2)}}])
    record.lock = None
    result, error = pickle.loads(cluster._packed(record, None))
    assert (type(result), result, error) == (results.Record, record, None)
    _, error = pickle.loads(cluster._packed(None, FileNotFoundError(2, "gone", "/x")))
    assert (type(error), error.filename) == (FileNotFoundError, "/x")

    class Local(Exception):
        """One that cannot be copied."""

    _, error = pickle.loads(cluster._packed(None, Local("why")))
    assert (type(error), str(error)) == (RuntimeError, "Local: why")
