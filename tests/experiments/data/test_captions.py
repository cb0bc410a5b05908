"""Captions of data sets: words as tokens, and in the order of the images."""

import hashlib
import os
import struct

import numpy as np
import pytest
from made_up_data import make_known, write_packed, write_unpacked
from repository import ROOT

from experiments.data import captions, sets
from experiments.runtime.errors import UserError


def test_digits_are_shuffled_with_their_images():
    plain, shuffled = captions.load("digits", ""), captions.load("digits_shuffled", "")
    images = [np.concatenate(sets.load(n, "")[1:4]) for n in ("digits", "digits_shuffled")]
    words = [sum(part, ()) for part in (plain, shuffled)]
    of_image = {image.tobytes(): word for image, word in zip(images[0], words[0], strict=True)}
    assert [of_image[image.tobytes()] for image in images[1]] == list(words[1])
    for name, part in (("digits", plain), ("digits_shuffled", shuffled)):
        assert [len(p) for p in part] == [len(i) for i in sets.load(name, "")[1:4]]
    assert words[0][:4] == ("zero", "one", "two", "three")


def idx_labels(labels):
    return struct.pack(">II", 2049, len(labels)) + np.asarray(labels, np.uint8).tobytes()


def test_labels_of_idx_files_become_the_words_of_their_classes(tmp_path, monkeypatch):
    make_known(monkeypatch, "fashion_mnist")
    write_packed("fashion_mnist", tmp_path)
    parts = [np.arange(403) % 10, np.array([9, 8, 7, 0, 1])]
    sources = []
    for source, labels in zip(captions.SOURCES["fashion_mnist"], parts, strict=True):
        (name,) = source.members
        (tmp_path / name).write_bytes(idx_labels(labels))
        md5 = hashlib.md5(idx_labels(labels)).hexdigest()
        sources.append(source._replace(members={name: f"md5:{md5}"}))
    monkeypatch.setitem(captions.SOURCES, "fashion_mnist", tuple(sources))
    found = captions.load("fashion_mnist", str(tmp_path))
    assert found.train == ("t-shirt", "trouser", "pullover")
    assert len(found.validation) == 400
    assert found.validation[0] == "dress"
    assert found.test == ("ankle boot", "bag", "sneaker", "t-shirt", "trouser")


def test_missing_and_wrong_labels_are_refused(tmp_path, monkeypatch):
    make_known(monkeypatch, "mnist")
    write_unpacked("mnist", tmp_path)
    with pytest.raises(UserError, match=r"labels-idx1-ubyte\.gz is not in"):
        captions.load("mnist", str(tmp_path))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_labels([1, 2, 3]))
    with pytest.raises(UserError, match="is not the right file"):
        captions.load("mnist", str(tmp_path))
    with pytest.raises(UserError, match="must have captions: digits"):
        captions.load("cifar10", str(tmp_path))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "emoji"])
def test_real_captions(name):
    folder = os.environ.get("VB_DATA_DIR") or str(ROOT.parent / "shared/data")
    if not os.path.isdir(folder):
        pytest.skip("set VB_DATA_DIR to a folder with official files")
    found, images = captions.load(name, folder), sets.load(name, folder)
    assert [len(part) for part in found] == [len(part) for part in images[1:4]]
    words = np.array(found.test)
    if name == "emoji":
        assert len(set(found.train) & set(found.test)) == 0
        return
    assert len(set(found.test)) == 10
    if name == "fashion_mnist":  # boots have their pixels where trousers have none
        means = {w: images.test[words == w].mean(axis=0) for w in ("trouser", "ankle boot")}
        assert means["trouser"][:8].mean() > 1.5 * means["ankle boot"][:8].mean()


def test_words_signs_and_padding():
    found = captions.Captions(("Woman: Curly hair, dark", "hair (dark)"), ("woman",), ("dark",))
    words = captions.vocabulary(found, 6)
    assert words.words == ("(", ")", ",", ":", "curly", "dark", "hair", "woman")
    assert words.tokens("woman: curly hair, dark").tolist() == [7, 3, 4, 6, 2, 5]
    assert words.tokens("DARK").tolist() == [5, 8, 8, 8, 8, 8]
    assert words.all_tokens(["dark", "hair", "dark"]).tolist() == [
        [5, 8, 8, 8, 8, 8],
        [6, 8, 8, 8, 8, 8],
        [5, 8, 8, 8, 8, 8],
    ]


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("eleven", "'eleven' has the unknown word 'eleven'"),
        ("one two", "has 2 words and signs, more than the context of 1"),
        ("  ", "is empty; it must hold words"),
    ],
)
def test_captions_that_cannot_be_read_are_named(caption, message):
    words = captions.vocabulary(captions.load("digits", ""), 1)
    with pytest.raises(UserError, match=message):
        words.tokens(caption)
