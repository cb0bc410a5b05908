"""Files of image data sets: where they come from, where they lie, and whether they are right.

Checksums are of what is inside a file, so that a copy that was unpacked or packed again passes.
"""

import gzip
import hashlib
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.runtime import paths
from experiments.runtime.errors import UserError

# What reading raises on files that are damaged or of another kind.
_UNREADABLE = (
    OSError, EOFError, ValueError, LookupError, RuntimeError,
    zlib.error, zipfile.BadZipFile, tarfile.TarError,
)  # fmt: skip


class Source(NamedTuple):
    """A file as it is published, and what is inside.

    Attributes:
      file: its name where it is packed: .gz, .tar.gz or .npz.
      members: name -> checksum of what is inside, "md5:..." or "sha256:..."; of an .npz the bytes
        of each array, in C order. Members of the others may also lie unpacked beside the file, and
        either under names that other tools give them, see `_copies`.
      url: where to get it; without `checksum`, what it was made from.
      checksum: of the file at `url`; empty where there is no download.
      unpacks_to: the folder that unpacking makes.
    """

    file: str
    members: dict[str, str]
    url: str
    checksum: str = ""
    unpacks_to: str = ""

    @property
    def published_name(self) -> str:
        """The name of the file at the URL."""
        return os.path.basename(self.url) if self.checksum else self.file


def _packed(url: str, name: str, content: str, file: str) -> Source:
    return Source(f"{name}.gz", {name: content}, f"{url}{name}.gz", file)


def _bare(url: str, name: str, content: str) -> Source:
    return Source(f"{name}.gz", {name: content}, url + name, content)


_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_BINARIZED = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
_OMNIGLOT = "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/"
_CIFAR10 = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"

# The folder of a data set inside a data_dir.
FOLDERS = {
    "mnist": "mnist",
    "fashion_mnist": "fashion-mnist",
    "binarized_mnist": "binarized_mnist",
    "omniglot": "omniglot",
    "omniglot_rebuilt": "omniglot",
    "cifar10": "cifar10",
    "cifar10_first4000": "cifar10_subset",
    "emoji": "emoji_captions",
}
SOURCES: dict[str, tuple[Source, ...]] = {
    "mnist": (
        _packed(
            _MNIST, "train-images-idx3-ubyte",
            "md5:6bbc9ace898e44ae57da46a324031adb", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
        ),
        _packed(
            _MNIST, "t10k-images-idx3-ubyte",
            "md5:2646ac647ad5339dbf082846283269ea", "md5:9fb629c4189551a2d022fa330f9573f3",
        ),
    ),
    # Its makers publish the md5 of the .gz alone; those of the content were taken from files
    # that have them.
    "fashion_mnist": (
        _packed(
            _FASHION, "train-images-idx3-ubyte",
            "md5:f4a8712d7a061bf5bd6d2ca38dc4d50a", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        ),
        _packed(
            _FASHION, "t10k-images-idx3-ubyte",
            "md5:8181f5470baa50b63fa0f6fddb340f0a", "md5:bef4ecab320f06d8554ea6380940ec79",
        ),
    ),
    "binarized_mnist": (
        _bare(
            _BINARIZED, "binarized_mnist_train.amat",
            "sha256:ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
        ),
        _bare(
            _BINARIZED, "binarized_mnist_valid.amat",
            "sha256:1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
        ),
        _bare(
            _BINARIZED, "binarized_mnist_test.amat",
            "sha256:e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
        ),
    ),
    # This checksum comes from one third party; the authors published none.
    "omniglot": (_bare(_OMNIGLOT, "chardata.mat", "md5:21ecaf34373511aa7691cf2e0802aa3d"),),
    "omniglot_rebuilt": (
        Source(
            "omniglot28_rebuilt.npz",
            {
                "train_images":
                "sha256:5273d2abfcc1f4c36f8734236c0d9016dfed0775079b10c5ce127eac10965086",
                "test_images":
                "sha256:283e02eb1a975d21fdfd5bd8401486106c1b8b65cf1541fd876d898339e765ad",
            },
            "https://github.com/brendenlake/omniglot",
        ),
    ),
    "cifar10": (
        Source(
            "cifar-10-python.tar.gz",
            {
                "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
                "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
                "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
                "test_batch": "md5:40351d587109b95175f43aff81a1287e",
            },
            _CIFAR10,
            "md5:c58f30108f718f92721af3b95e74349a",
            unpacks_to="cifar-10-batches-py",
        ),
    ),
    "cifar10_first4000": (
        Source(
            "cifar10_train_first4000.npz",
            {"images": "sha256:bac45b45504ed1289a3f437be4bfbefece248abbc094a428a0b4dfab00e776ae"},
            _CIFAR10,
        ),
    ),
    "emoji": (
        Source(
            "emoji_twitter_64.npz",
            {
                "images": "sha256:46b45981a1563c0cda70cf41d8f87905c42e1a254678f875987c2f68ac5988e6",
                "group": "sha256:d744bfd1b3e8776bba099f69e5828ea7b4aa108f0c125c31e85e35ca4976a7fc",
            },
            "https://github.com/jdecked/twemoji",
        ),
    ),
}  # fmt: skip


def read(dataset: str, data_dir: str) -> list[bytes]:
    """Everything inside the files of a data set, checked, in the order of `SOURCES`.

    Args:
      dataset: a key of `SOURCES`.
      data_dir: folder that holds the files, or the data set's folder with them.

    Raises:
      UserError: a file is missing, unreadable or not the right one.
    """
    data_dir = check_folder(dataset, data_dir)
    return [c for source in SOURCES[dataset] for c in read_source(dataset, source, data_dir)]


def check_folder(dataset: str, data_dir: str) -> str:
    """The folder of a data_dir; refuses one that is not there.

    Raises:
      UserError: with the command that downloads the data set.
    """
    data_dir = paths.local("data_dir", data_dir)
    program = f"python -m experiments.download --dataset={dataset}"
    if not data_dir:
        raise UserError(
            f"the data set {dataset} needs files: set --config.data_dir to the folder that holds "
            f"them (where they can be downloaded, {program} --data_dir=FOLDER does it)."
        )
    if not os.path.isdir(data_dir):
        raise UserError(
            f"data_dir {data_dir} is not a folder; name the one that holds {dataset} "
            f"(where it can be downloaded, {program} --data_dir={data_dir} does it)."
        )
    return data_dir


def read_source(dataset: str, source: Source, data_dir: str) -> list[bytes]:
    """What is inside one file, from the first place where it is right.

    A wrong copy in one place does not hide a right one in the next; MNIST and Fashion-MNIST call
    their files by the same names.

    Raises:
      UserError: it is in no place, or right in none; then the message is about the first.
    """
    mistakes = []
    folders = paths.places(data_dir, FOLDERS[dataset])
    for folder in folders:
        for copy in _copies(dataset, source, folder):
            try:
                return _checked(source, copy)
            except UserError as error:
                mistakes.append(error)
    if mistakes:
        raise mistakes[0]
    program = f", or run: python -m experiments.download --dataset={dataset} --data_dir={data_dir}"
    other = [n for n in (*_names(source), f"{dataset}.npz") if n != source.published_name]
    also = f" (nor {' or '.join(other)})" if _is_idx(source) else ""
    raise UserError(
        f"{source.published_name} is not in {data_dir} or its folder {FOLDERS[dataset]}{also}; "
        f"{paths.seen(folders)}; {where_from(source)}{program if source.checksum else ''}"
    )


def where_from(source: Source, *, again: bool = False) -> str:
    """The end of a sentence that says where to get a file, with a checksum to compare."""
    if source.checksum:
        algorithm, value = source.checksum.split(":")
        return f"get it{' again' if again else ''} from {source.url} ({algorithm} {value})"
    sums = ", ".join(f"{s.replace(':', ' ')} of {name}" for name, s in source.members.items())
    return f"it has no download, it was made from {source.url} ({sums})"


def _is_idx(source: Source) -> bool:
    return "-idx" in source.file


def _names(source: Source) -> list[str]:
    """What the packed file may be called; a browser may leave the .tar of a .tar.gz."""
    if _is_idx(source):
        return [source.file, source.file.replace("-idx", ".idx")]
    if source.unpacks_to:
        return [source.file, f"{source.unpacks_to}.tar.gz", source.file.removesuffix(".gz")]
    return [source.file]


def _copies(dataset: str, source: Source, folder: str) -> list[list[str]]:
    """Copies that are in a folder: the paths of all members, or that of the packed file.

    An IDX file may have a dot for its first hyphen, and lie in a folder that has its own name; the
    arrays of all of them are together in the .npz of Keras. The folder that a tar makes may lie in
    another one of that name.
    """
    top = source.unpacks_to
    below = dict.fromkeys([os.path.join(folder, top), os.path.join(folder, top, top), folder])
    copies = [[os.path.join(place, name) for name in source.members] for place in below]
    packed = _names(source)
    if _is_idx(source):
        bare = [name.removesuffix(".gz") for name in packed]
        copies = [[os.path.join(folder, name)] for name in bare]
        copies += [[os.path.join(folder, outer, inner)] for outer in bare for inner in bare]
        packed = [*packed, f"{dataset}.npz"]
    copies += [[os.path.join(folder, name)] for name in packed]
    return [copy for copy in copies if any(map(os.path.isfile, copy))]


def _checked(source: Source, copy: Sequence[str]) -> list[bytes]:
    """Contents of the members from one copy; UserError unless each has its checksum."""
    packed = copy[0].endswith((".gz", ".npz", ".tar"))
    files = [copy[0]] * len(source.members) if packed else copy
    path = files[0]
    try:
        if packed:
            contents = _unpack(path, list(source.members))
        else:
            contents = []
            for path in files:
                with open(path, "rb") as file:
                    contents.append(file.read())
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"cannot read {path} ({reason}); {where_from(source, again=True)}"
        ) from None
    for path, (name, wanted), content in zip(files, source.members.items(), contents, strict=True):
        algorithm, value = wanted.split(":")
        found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
        if found != value:
            raise UserError(
                f"{path} is not the right file: {algorithm} of {name} is {found}, not {value}; "
                f"{where_from(source, again=True)}"
            )
    return contents


def _unpack(path: str, names: list[str]) -> list[bytes]:
    if path.endswith(".npz"):
        # Opened here: np.load leaves a file open that it cannot read.
        with open(path, "rb") as file, np.load(file) as arrays:
            return [
                arrays[name].tobytes() if name in arrays else _as_idx(arrays[_OF_KERAS[name]])
                for name in names
            ]
    if path.endswith((".tar.gz", ".tar")):
        return _unpack_tar(path, names)
    with gzip.open(path) as file:
        return [file.read()]


# What Keras calls the content of an IDX file in its .npz.
_OF_KERAS = {
    "train-images-idx3-ubyte": "x_train", "train-labels-idx1-ubyte": "y_train",
    "t10k-images-idx3-ubyte": "x_test", "t10k-labels-idx1-ubyte": "y_test",
}  # fmt: skip


def _as_idx(array: np.ndarray) -> bytes:
    """The IDX file of bytes: a magic number with their type and rank, the shape, the content."""
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def _unpack_tar(path: str, names: list[str]) -> list[bytes]:
    """Reads front to back: going back would decompress from the start again."""
    found = {}
    with tarfile.open(path, "r:*") as tar:
        for info in tar:
            name = os.path.basename(info.name)
            file = tar.extractfile(info) if name in names and info.isfile() else None
            if file is not None:
                found[name] = file.read()
    missing = [name for name in names if name not in found]
    if missing:
        raise LookupError(f"there is no {missing[0]} in it")
    return [found[name] for name in names]
