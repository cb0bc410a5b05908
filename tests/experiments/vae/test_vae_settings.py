"""Names that settings take are those that code has: settings stand alone, without JAX."""

from typing import get_args

import pytest

from experiments.data import sets
from experiments.runtime.optimizers import make_optimizer
from experiments.studies import objectives
from experiments.studies import settings as shared
from experiments.vae import build, grid
from experiments.vae.settings import Drawn, Model, Objective


def names(section, field):
    return set(get_args(section.model_fields[field].annotation))


def test_names_of_tables():
    assert set(get_args(shared.DatasetName)) == names(shared.Data, "name") == set(sets.DATASETS)
    assert names(Objective, "name") == set(objectives.OBJECTIVES)
    assert names(Model, "likelihood") == set(build.LIKELIHOODS)
    assert names(Drawn, "split") <= set(build.BITS)
    assert set(grid.GROUPED) <= set(objectives.OBJECTIVES)


def test_names_of_optimizers():
    sizes = {
        "learning_rate": 0.1, "warmup_steps": 1, "clip_norm": 0.0, "num_steps": 4,
        "batch_size": 2,
    }  # fmt: skip
    for name in get_args(shared.OptimizerName):
        assert make_optimizer(name, **sizes).init({})
    with pytest.raises(KeyError):
        make_optimizer("adm", **sizes)
