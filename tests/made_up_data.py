"""Small image data sets in the formats of the official files, in place of which they are put."""

import functools
import gzip
import hashlib
import io
import struct
import tarfile

import numpy as np
import scipy.io

from experiments.data import files


def pixels(*shape, levels=256):
    return np.random.default_rng(len(shape)).integers(0, levels, shape, np.uint8)


def idx(images):
    return struct.pack(">IIII", 2051, *images.shape) + images.tobytes()


def amat(images):
    return "".join(" ".join(map(str, i.ravel())) + "\n" for i in images).encode()


def chardata(train, test):
    """Burda's layout: intensities, an image a column, read down its own columns first."""
    columns = [np.array([i.ravel(order="F") / 255 for i in part]).T for part in (train, test)]
    file = io.BytesIO()
    scipy.io.savemat(file, dict(zip(("data", "testdata"), columns, strict=True)))
    return file.getvalue()


def python2_pickle(rows):
    """The bytes that Python 2 made of {"data": rows}, opcode by opcode; `pickle` cannot."""
    count, width = rows.shape
    return (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85U\x01b\x87R(K\x01M"
        + struct.pack("<H", count)
        + b"M"
        + struct.pack("<H", width)
        + b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff"
        b"\xffK\x00tb\x89T" + struct.pack("<i", rows.size) + rows.tobytes() + b"tbu."
    )


def cifar_batch(images):
    return python2_pickle(images.transpose(0, 3, 1, 2).reshape(len(images), -1))


@functools.cache
def made_up(name):
    """(images [train and validation], test images, contents by member) of a small data set."""
    if name in ("mnist", "fashion_mnist"):
        train, test = pixels(403, 28, 28), pixels(5, 28, 28)[::-1]
        contents = [idx(train), idx(test)]
    elif name == "binarized_mnist":
        train, test = pixels(6, 28, 28, levels=2), pixels(2, 28, 28, levels=2)
        contents = [amat(part) for part in (train[:4], train[4:], test)]
    elif name == "omniglot":
        train, test = pixels(1348, 28, 28), pixels(4, 28, 28)
        contents = [chardata(train, test)]
    elif name == "omniglot_rebuilt":
        train, test = pixels(1348, 28, 28), pixels(4, 28, 28)
        contents = [train, test]
    elif name == "cifar10":
        train, test = np.zeros((5005, 32, 32, 3), np.uint8), pixels(300, 32, 32, 3)
        train[:, 3:5, 8:10] = pixels(5005, 2, 2, 3)
        contents = [cifar_batch(part) for part in (*np.split(train, 5), test)]
    elif name == "emoji":
        images, groups = pixels(40, 64, 64, 3), np.arange(40, dtype=np.int32) // 2
        order = np.random.RandomState(123).permutation(20)
        train, validation, test = (
            images[np.isin(groups, part)] for part in np.split(order, (16, 18))
        )
        train, contents = np.concatenate([train, validation]), [images, groups]
    else:
        images = pixels(803, 32, 32, 3)
        train, test, contents = images[:-400], images[-400:], [images]
    members = [m for source in files.SOURCES[name] for m in source.members]
    return train, test, dict(zip(members, contents, strict=True))


def as_bytes(content):
    return content if isinstance(content, bytes) else content.tobytes()


def pack(file, members):
    """A file of the kind its name says."""
    made = io.BytesIO()
    if file.endswith(".npz"):
        np.savez_compressed(made, **members, more=np.arange(3))
    elif file.endswith(".tar.gz"):
        with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1) as tar:
            for name, content in {"readme.html": b"more", **members}.items():
                info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    else:
        made.write(gzip.compress(*members.values(), compresslevel=1))
    return made.getvalue()


@functools.cache
def packed_files(name):
    contents = made_up(name)[2]
    return {
        source.file: pack(source.file, {m: contents[m] for m in source.members})
        for source in files.SOURCES[name]
    }


def make_known(monkeypatch, name):
    """From now on the made-up files of a data set are the official ones; returns their sources."""
    contents = made_up(name)[2]
    sums = {m: hashlib.md5(as_bytes(c)).hexdigest() for m, c in contents.items()}
    sources = tuple(
        source._replace(members={m: f"md5:{sums[m]}" for m in source.members})
        for source in files.SOURCES[name]
    )
    monkeypatch.setitem(files.SOURCES, name, sources)
    return sources


def write_packed(name, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in packed_files(name).items():
        (folder / file).write_bytes(content)
    return [folder / file for file in packed_files(name)]


def write_unpacked(name, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for member, content in made_up(name)[2].items():
        (folder / member).write_bytes(content)
