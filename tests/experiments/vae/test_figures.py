"""Grids of images and curves of a run, by hand."""

import types
import warnings

import matplotlib.pyplot as plt
import numpy as np

from experiments.runtime import plots
from experiments.vae import figures
from models import pixels


def fake_problem(shape, levels):
    dataset = types.SimpleNamespace(train=np.zeros((1, *shape), np.uint8))
    vae = types.SimpleNamespace(likelihood=pixels.categorical(levels))
    return types.SimpleNamespace(dataset=dataset, vae=vae)


def test_tiles_by_hand():
    """Three grey images of 1 x 2 in two columns: read along rows, white where one is missing."""
    flat = np.array([[0, 1], [2, 3], [3, -9]])
    got = plots.tile(figures.as_images(fake_problem((1, 2), 4), flat), 2)
    expected = [
        [0, 1 / 3, 1, 2 / 3, 1, 1],
        [1, 1, 1, 1, 1, 1],
        [1, 0, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1],
    ]
    np.testing.assert_allclose(got, expected)


def test_tiles_keep_colors():
    flat = np.arange(12.0).reshape(2, 6)  # two images of 2 x 1, three channels
    got = plots.tile(figures.as_images(fake_problem((2, 1, 3), 12), flat), 2)
    assert got.shape == (3, 4, 3)
    np.testing.assert_allclose(got[:2, 0] * 11, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_allclose(got[:2, 2] * 11, [[6, 7, 8], [9, 10, 11]])
    np.testing.assert_array_equal(got[2], 1)
    np.testing.assert_array_equal(got[:, 1::2], 1)


def test_curves_without_validation_or_range():
    lines = [
        ([{"step": 1, "bound": -5.0}, {"step": 2, "bound": -4.0}], 1),
        ([{"step": 1, "bound": -5.0}, {"step": 1, "validation": -6.0}], 2),
        ([{"step": 1, "bound": -5.0, "validation": None}], 1),
        ([{"step": 1, "bound": None}], 0),
        ([], 0),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for entries, count in lines:
            figure = figures.curves(entries, "title", "iwae, K = 5", "IWAE-64")
            assert len(figure.axes[0].lines) == count
            figure.canvas.draw()
            plt.close(figure)
