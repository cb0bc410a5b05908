"""Image data sets: splits, file formats, and what is said about files that are not right."""

import functools
import gzip
import hashlib
import os
import pathlib
import pickle

import numpy as np
import pytest
from made_up_data import as_bytes, chardata, made_up, make_known, pack, write_packed, write_unpacked
from repository import ROOT

from experiments.data import files, sets
from experiments.runtime.errors import UserError

WITH_FILES = list(files.SOURCES)
# .npz: nothing to unpack, no download
ARRAYS = ("omniglot_rebuilt", "cifar10_first4000", "emoji")


@pytest.fixture
def known(monkeypatch):
    return functools.partial(make_known, monkeypatch)


def assert_is_the_made_up_one(name, loaded):
    train, test, _ = made_up(name)
    if name.startswith("omniglot"):  # sorted in the file, shuffled by the released code's seed
        train = train[np.random.RandomState(123).permutation(len(train))]
    np.testing.assert_array_equal(np.concatenate([loaded.train, loaded.validation]), train)
    np.testing.assert_array_equal(loaded.test, test)
    assert loaded.levels == (2 if name == "binarized_mnist" else 256)
    for images in loaded[1:4]:
        assert images.dtype == np.uint8
        assert images.max() < loaded.levels


def complaint(call, *args):
    """The one line that a call is refused with."""
    with pytest.raises(UserError) as caught:
        call(*args)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# Right files.

NUM_VALIDATION = {
    "mnist": 400, "fashion_mnist": 400, "binarized_mnist": 2, "omniglot": 1345,
    "omniglot_rebuilt": 1345, "cifar10": 5000, "cifar10_first4000": 400, "emoji": 4,
}  # fmt: skip


def test_every_data_set_is_listed_with_its_files():
    assert set(sets.DATASETS) == {
        "digits",
        "digits_shuffled",
        "imagenet32",
        "imagenet64",
        *WITH_FILES,
    }
    assert set(files.FOLDERS) == set(WITH_FILES) == set(NUM_VALIDATION)


@pytest.mark.parametrize("name", WITH_FILES)
@pytest.mark.parametrize("below", [True, False], ids=["in-its-folder", "in-data-dir"])
def test_packed_files_load(name, below, known, tmp_path):
    known(name)
    write_packed(name, tmp_path / files.FOLDERS[name] if below else tmp_path)
    loaded = sets.load(name, str(tmp_path))
    assert_is_the_made_up_one(name, loaded)
    assert len(loaded.validation) == NUM_VALIDATION[name]


@pytest.mark.parametrize("name", [n for n in WITH_FILES if n not in ARRAYS])
def test_unpacked_files_load(name, known, tmp_path):
    known(name)
    write_unpacked(name, tmp_path / files.FOLDERS[name])
    assert_is_the_made_up_one(name, sets.load(name, str(tmp_path)))


@pytest.mark.parametrize("below", ["cifar10/cifar-10-batches-py", "cifar-10-batches-py"])
def test_cifar10_loads_from_the_folder_its_tar_makes(below, known, tmp_path):
    known("cifar10")
    write_unpacked("cifar10", tmp_path / below)
    assert_is_the_made_up_one("cifar10", sets.load("cifar10", str(tmp_path)))
    assert_is_the_made_up_one("cifar10", sets.load("cifar10", str(tmp_path / below)))


def test_omniglot_stands_upright(known, tmp_path, monkeypatch):
    """An L: its stroke goes down the left side, its foot along the bottom."""
    letter = np.zeros((28, 28))
    letter[4:24, 6] = 255
    letter[23, 6:16] = 127.6  # the file's intensities need not be 256 levels
    monkeypatch.setitem(
        made_up("omniglot")[2], "chardata.mat", chardata([letter] * 1346, [letter] * 2)
    )
    known("omniglot")
    write_unpacked("omniglot", tmp_path)
    loaded = sets.load("omniglot", str(tmp_path))
    np.testing.assert_array_equal(loaded.train, [letter.round()])
    np.testing.assert_array_equal(loaded.test, [letter.round()] * 2)


def test_bundled_digits_need_no_files():
    digits = sets.load("digits", "")
    assert [len(part) for part in digits[1:4]] == [1397, 100, 300]
    assert digits.train.shape[1:] == (8, 8)
    assert digits.train.dtype == np.uint8
    assert (digits.name, digits.levels, digits.train.max()) == ("digits", 17, 16)
    from sklearn.datasets import load_digits

    in_order = np.concatenate(digits[1:4]).reshape(-1, 64)
    np.testing.assert_array_equal(in_order, load_digits().data)


def test_right_copy_is_found_behind_wrong_ones(known, tmp_path):
    """As where MNIST lies beside Fashion-MNIST under the same names."""
    known("fashion_mnist")
    for source in files.SOURCES["fashion_mnist"]:
        (tmp_path / source.file).write_bytes(gzip.compress(b"of MNIST"))
        (tmp_path / "fashion-mnist").mkdir(exist_ok=True)
        (tmp_path / "fashion-mnist" / source.file.removesuffix(".gz")).write_bytes(b"cut short")
    write_packed("fashion_mnist", tmp_path / "fashion-mnist")
    assert_is_the_made_up_one("fashion_mnist", sets.load("fashion_mnist", str(tmp_path)))


REAL = {  # name: (images in each part, size, mean of all pixels of the first two parts)
    "mnist": ((59_600, 400, 10_000), (28, 28), 33.318),
    "fashion_mnist": ((59_600, 400, 10_000), (28, 28), 72.940),
    "binarized_mnist": ((50_000, 10_000, 10_000), (28, 28), None),
    "omniglot": ((23_000, 1345, 8070), (28, 28), None),
    "omniglot_rebuilt": ((23_000, 1345, 8115), (28, 28), None),
    "cifar10": ((45_000, 5000, 10_000), (32, 32, 3), 120.708),
    "cifar10_first4000": ((3200, 400, 400), (32, 32, 3), None),
    "emoji": ((3028, 391, 367), (64, 64, 3), None),
}


@pytest.mark.parametrize("name", WITH_FILES)
def test_real_files(name):
    folder = os.environ.get("VB_DATA_DIR") or str(ROOT.parent / "shared/data")
    if not os.path.isdir(folder):
        pytest.skip("set VB_DATA_DIR to a folder with official files")
    try:
        loaded = sets.load(name, folder)
    except UserError as error:
        if "is not in" in str(error):
            pytest.skip(str(error))
        raise
    counts, size, mean = REAL[name]
    assert tuple(map(len, loaded[1:4])) == counts
    for images in loaded[1:4]:
        assert images.shape[1:] == size
        assert images.dtype == np.uint8
        assert (images.min(), images.max()) == (0, loaded.levels - 1)
    if mean is not None:
        first, second = loaded.train.mean(), loaded.validation.mean()
        weight = counts[0] / (counts[0] + counts[1])
        assert weight * first + (1 - weight) * second == pytest.approx(mean, abs=0.002)


# Files that are not right.


def test_unknown_name_is_answered_with_the_known_ones(tmp_path):
    said = complaint(sets.load, "minst", str(tmp_path))
    assert "'minst'" in said
    assert all(name in said for name in sets.DATASETS)


@pytest.mark.parametrize("name", WITH_FILES)
def test_missing_folder_is_answered_with_what_to_set(name, tmp_path):
    said = complaint(sets.load, name, "")
    assert "--config.data_dir" in said
    assert f"python -m experiments.download --dataset={name}" in said
    said = complaint(sets.load, name, str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in said
    assert "not a folder" in said


@pytest.mark.parametrize("name", WITH_FILES)
def test_missing_file_is_answered_with_where_to_get_it(name, known, tmp_path):
    last = known(name)[-1]
    write_packed(name, tmp_path)[-1].unlink()
    said = complaint(sets.load, name, str(tmp_path))
    assert f"{last.published_name} is not in {tmp_path}" in said
    assert files.FOLDERS[name] in said
    assert last.url in said
    if name in ARRAYS:
        assert "no download" in said
        assert all(s.split(":")[1] in said for s in last.members.values())
    else:
        assert last.checksum.split(":")[1] in said
        assert f"experiments.download --dataset={name} --data_dir={tmp_path}" in said


def assert_names_file_and_source(said, path, source):
    assert str(path) in said
    assert source.url in said
    sums = [source.checksum] if source.checksum else source.members.values()
    assert all(s.split(":")[1] in said for s in sums)


@pytest.mark.parametrize("name", WITH_FILES)
def test_file_with_another_content_is_refused(name, tmp_path):
    """Whole, readable files, but not the official ones."""
    first = write_packed(name, tmp_path)[0]
    said = complaint(sets.load, name, str(tmp_path))
    source = files.SOURCES[name][0]
    assert_names_file_and_source(said, first, source)
    member, wanted = next(iter(source.members.items()))
    algorithm, value = wanted.split(":")
    found = hashlib.new(algorithm, as_bytes(made_up(name)[2][member])).hexdigest()
    assert f"not the right file: {algorithm} of {member} is {found}, not {value}" in said


@pytest.mark.parametrize("name", WITH_FILES)
@pytest.mark.parametrize("size", [0.0, 0.1, 0.5, 0.999])
def test_truncated_file_is_refused(name, size, known, tmp_path):
    last = known(name)[-1]
    path = write_packed(name, tmp_path)[-1]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(size * len(whole))])
    said = complaint(sets.load, name, str(tmp_path))
    assert_names_file_and_source(said, path, last)
    if size > 0:
        assert "cannot read" in said


@pytest.mark.parametrize("name", WITH_FILES)
@pytest.mark.parametrize("where", [0.0, 0.3, 0.5])
def test_damaged_file_is_refused(name, where, known, tmp_path):
    last = known(name)[-1]
    path = write_packed(name, tmp_path)[-1]
    content = bytearray(path.read_bytes())
    start = int(where * len(content))
    content[start : start + 40] = bytes(b ^ 0x55 for b in content[start : start + 40])
    path.write_bytes(content)
    assert_names_file_and_source(complaint(sets.load, name, str(tmp_path)), path, last)


@pytest.mark.parametrize("name", [n for n in WITH_FILES if n not in ARRAYS])
def test_truncated_unpacked_file_is_refused(name, known, tmp_path):
    last = known(name)[-1]
    write_unpacked(name, tmp_path)
    path = tmp_path / list(last.members)[-1]
    path.write_bytes(path.read_bytes()[:-1])
    said = complaint(sets.load, name, str(tmp_path))
    assert_names_file_and_source(said, path, last)
    assert "not the right file" in said


def test_archive_without_all_its_members_is_refused(known, tmp_path):
    known("cifar10")
    batches = dict(list(made_up("cifar10")[2].items())[:-1])
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(pack(path.name, batches))
    said = complaint(sets.load, "cifar10", str(tmp_path))
    assert "there is no test_batch in it" in said
    assert "https://" in said
    path.unlink()
    write_unpacked("cifar10", tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py/data_batch_4").unlink()
    assert "data_batch_4" in complaint(sets.load, "cifar10", str(tmp_path))


def test_nothing_is_unpickled_before_its_checksum_is_right(known, tmp_path):
    class Trap:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "sprung",))

    known("cifar10")
    write_unpacked("cifar10", tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Trap()}))
    assert "not the right file" in complaint(sets.load, "cifar10", str(tmp_path))
    assert not (tmp_path / "sprung").exists()
