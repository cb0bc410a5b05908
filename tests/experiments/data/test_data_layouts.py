"""Data as other tools unpack, name and lay it out, and what is said where it is not there."""

import gzip
import os
import struct

import numpy as np
import pytest
from made_up_data import made_up, make_known, pack, packed_files, write_packed, write_unpacked

from experiments.data import captions, files, imagenet, sets
from experiments.runtime.errors import UserError


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def assert_loads(name, folder):
    train, test, _ = made_up(name)
    loaded = sets.load(name, str(folder))
    np.testing.assert_array_equal(np.concatenate([loaded.train, loaded.validation]), train)
    np.testing.assert_array_equal(loaded.test, test)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize(
    "layout",
    [
        "{set}/{dot}", "{set}/{dot}.gz", "{dot}", "{set}/{hyphen}/{hyphen}", "{hyphen}/{dot}",
        "{set}/{dot}/{dot}", "{torch}/raw/{hyphen}", "{torch}/raw/{hyphen}.gz", "raw/{hyphen}",
        "{set}/{set}/{hyphen}.gz", "{snake}/{hyphen}", "{set}/{torch}/raw/{hyphen}",
    ],
)  # fmt: skip
def test_idx_files_are_found(name, layout, monkeypatch, tmp_path):
    make_known(monkeypatch, name)
    names = {
        "mnist": {"set": "mnist", "torch": "MNIST", "snake": "Mnist"},
        "fashion_mnist": {
            "set": "fashion-mnist", "torch": "FashionMNIST", "snake": "fashion_mnist",
        },
    }[name]  # fmt: skip
    for member, content in made_up(name)[2].items():
        path = layout.format(hyphen=member, dot=member.replace("-idx", ".idx"), **names)
        put(tmp_path / path, gzip.compress(content) if path.endswith(".gz") else content)
    assert_loads(name, tmp_path)


def idx(array):
    """The format by its description: two zeros, 8 for bytes, the rank; the shape; the content."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">i", n) for n in array.shape)
    return head + array.tobytes()


def test_the_arrays_of_keras_are_the_same_files(monkeypatch, tmp_path):
    make_known(monkeypatch, "mnist")
    train, test, contents = made_up("mnist")
    assert list(contents.values()) == [idx(train), idx(test)]
    labels = [np.arange(n, dtype=np.uint8) % 10 for n in (len(train), len(test))]
    arrays = {"x_train": train, "x_test": test, "y_train": labels[0], "y_test": labels[1]}
    put(tmp_path / "mnist.npz", pack("mnist.npz", arrays))
    assert_loads("mnist", tmp_path)
    source = captions.SOURCES["mnist"][0]
    member = next(iter(source.members))
    with open(tmp_path / "mnist.npz", "rb") as file:
        assert files._unpack(file.name, [member]) == [idx(labels[0])]
    # Other arrays are no digits, and are not taken for them.
    put(tmp_path / "mnist.npz", pack("mnist.npz", {"x_train": train[::-1], "x_test": test}))
    with pytest.raises(UserError, match=r"mnist\.npz is not the right file"):
        sets.load("mnist", str(tmp_path))
    put(tmp_path / "mnist.npz", pack("mnist.npz", {"images": train}))
    with pytest.raises(UserError, match=r"cannot read .*mnist\.npz"):
        sets.load("mnist", str(tmp_path))


@pytest.mark.parametrize(
    "layout", ["cifar-10-batches-py/cifar-10-batches-py", "CIFAR10", "cifar-10/cifar-10-batches-py"]
)
def test_cifar10_is_found_unpacked(layout, monkeypatch, tmp_path):
    make_known(monkeypatch, "cifar10")
    write_unpacked("cifar10", tmp_path / layout)
    assert_loads("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["cifar-10-batches-py.tar.gz", "cifar-10-python.tar"])
def test_cifar10_is_found_packed_under_other_names(name, monkeypatch, tmp_path):
    make_known(monkeypatch, "cifar10")
    content = packed_files("cifar10")["cifar-10-python.tar.gz"]
    put(tmp_path / "cifar10" / name, content if name.endswith("gz") else gzip.decompress(content))
    assert_loads("cifar10", tmp_path)


@pytest.mark.parametrize("name", [n for n in files.SOURCES if n != "omniglot"])
def test_the_folder_may_be_written_otherwise_or_be_there_twice(name, monkeypatch, tmp_path):
    make_known(monkeypatch, name)
    folder = files.FOLDERS[name]
    other = folder.upper().replace("-", "_") if "-" in folder else folder.upper()
    write_packed(name, tmp_path / other / folder)
    loaded = sets.load(name, str(tmp_path))
    np.testing.assert_array_equal(loaded.test, made_up(name)[1])


@pytest.mark.parametrize("name", list(files.SOURCES))
def test_a_miss_says_what_is_there_and_what_was_looked_for(name, tmp_path):
    folder = tmp_path / files.FOLDERS[name]
    folder.mkdir()
    for i in range(9):
        (folder / f"file{i}").touch()
    (tmp_path / "zip.txt").touch()
    with pytest.raises(UserError) as caught:
        sets.load(name, str(tmp_path))
    said = str(caught.value)
    assert f"in {folder} there is file0, file1, file2, file3, file4, file5 and 3 more" in said
    assert f"in {tmp_path} there is {folder.name}, zip.txt;" in said
    assert files.SOURCES[name][0].published_name in said
    if name == "mnist":
        assert "train-images.idx3-ubyte.gz" in said
        assert "mnist.npz" in said
    assert len(said.splitlines()) == 1


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(UserError, match=f"in {tmp_path} there is nothing"):
        sets.load("mnist", str(tmp_path))
    (tmp_path / "ImageNet").mkdir()
    (tmp_path / "ImageNet" / "train.zip").touch()
    with pytest.raises(UserError, match=r"ImageNet there is train\.zip"):
        imagenet.read("valid", 32, str(tmp_path))


def test_home_is_found_and_an_address_is_refused(monkeypatch, tmp_path):
    make_known(monkeypatch, "mnist")
    monkeypatch.setenv("HOME", str(tmp_path))
    write_packed("mnist", tmp_path / "data" / "mnist")
    assert_loads("mnist", "~/data")
    for name in ("mnist", "imagenet32"):
        with pytest.raises(UserError, match="data_dir must be a folder"):
            sets.load(name, "gs://bucket/data")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_official_files_pass_as_other_tools_lay_them_out(name, tmp_path):
    """The real ones, with their checksums."""
    folder = os.environ.get("VB_DATA_DIR", "../shared/data")
    if not os.path.isdir(os.path.join(folder, files.FOLDERS[name])):
        pytest.skip("set VB_DATA_DIR to a folder with official files")
    torch = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]
    for source in (*files.SOURCES[name], *captions.SOURCES[name]):
        (content,) = files.read_source(name, source, folder)
        put(tmp_path / torch / "raw" / next(iter(source.members)), content)
    assert len(sets.load(name, str(tmp_path)).test) == 10_000
    assert len(captions.load(name, str(tmp_path)).test) == 10_000
