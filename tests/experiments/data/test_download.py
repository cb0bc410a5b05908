"""The program that fetches data sets, against a server on this machine."""

import gzip
import hashlib
import http.server
import subprocess
import sys
import threading

import pytest
from made_up_data import made_up, make_known, packed_files, write_packed, write_unpacked
from repository import ROOT

from experiments.data import captions, files
from experiments.download import download
from experiments.runtime.errors import UserError

FETCHED = ("mnist", "fashion_mnist", "binarized_mnist", "omniglot", "cifar10")


class Site:
    """Files served at 127.0.0.1, and the names that were asked for."""

    def __init__(self):
        self.files, self.asked = {}, []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.lstrip("/")
                site.asked.append(name)
                content = site.files.get(name)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def _images_alone(monkeypatch):
    for name in captions.SOURCES:
        monkeypatch.setitem(captions.SOURCES, name, ())


@pytest.fixture
def publish(site, monkeypatch):
    """publish(name): the made-up files of a data set are the official ones, and on the site."""

    def put(name):
        sources = []
        for source in make_known(monkeypatch, name):
            content = packed_files(name)[source.file]
            if source.published_name != source.file:  # published as it is
                content = made_up(name)[2][source.published_name]
            site.files[source.published_name] = content
            checksum = f"md5:{hashlib.md5(content).hexdigest()}"
            url = site.url + source.published_name
            sources.append(source._replace(url=url, checksum=checksum))
        monkeypatch.setitem(files.SOURCES, name, tuple(sources))
        return sources

    return put


def everything_in(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def complaint(*args):
    with pytest.raises(UserError) as caught:
        download(*args)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("name", FETCHED)
def test_files_are_fetched_once(name, site, publish, tmp_path):
    publish(name)
    said = download(name, str(tmp_path / "new"))
    folder = files.FOLDERS[name]
    wanted = {f"{folder}/{file}": content for file, content in site.files.items()}
    assert everything_in(tmp_path / "new") == wanted
    assert sorted(site.asked) == sorted(site.files)
    assert len(said.splitlines()) == 1
    assert download(name, str(tmp_path / "new")) == said
    assert len(site.asked) == len(site.files), "the second time nothing is asked for"
    assert all(path.stat().st_mode & 0o044 for path in (tmp_path / "new").rglob("*.*"))


def test_labels_are_fetched_with_the_images(site, publish, monkeypatch, tmp_path):
    publish("mnist")
    content = gzip.compress(b"labels")
    site.files["labels.gz"] = content
    sums = [f"md5:{hashlib.md5(c).hexdigest()}" for c in (b"labels", content)]
    source = files.Source("labels.gz", {"labels": sums[0]}, f"{site.url}labels.gz", sums[1])
    monkeypatch.setitem(captions.SOURCES, "mnist", (source,))
    download("mnist", str(tmp_path))
    assert (tmp_path / "mnist" / "labels.gz").read_bytes() == content


def test_last_line_says_what_is_there(publish, tmp_path):
    publish("mnist")
    assert download("mnist", str(tmp_path)) == (
        "MNIST: 3 training, 400 validation and 5 test images, 28x28, 256 levels"
    )


@pytest.mark.parametrize("name", FETCHED)
def test_right_files_are_left_alone_however_they_are_packed(name, site, publish, tmp_path):
    publish(name)
    write_unpacked(name, tmp_path)
    before = everything_in(tmp_path)
    download(name, str(tmp_path))
    assert everything_in(tmp_path) == before
    assert site.asked == []


def test_what_is_missing_is_fetched_beside_a_right_file_packed_again(site, publish, tmp_path):
    first, second = (source.file for source in publish("mnist"))
    (tmp_path / "mnist").mkdir()
    packed_again = gzip.compress(gzip.decompress(site.files[first]), mtime=1)
    assert packed_again != site.files[first]
    (tmp_path / "mnist" / first).write_bytes(packed_again)
    download("mnist", str(tmp_path))
    assert site.asked == [second]
    assert (tmp_path / "mnist" / first).read_bytes() == packed_again


def test_download_cut_short_before_is_replaced(site, publish, tmp_path):
    publish("mnist")
    path = write_packed("mnist", tmp_path / "mnist")[0]
    path.write_bytes(path.read_bytes()[:1000])
    download("mnist", str(tmp_path))
    assert path.read_bytes() == site.files[path.name]
    assert site.asked == [path.name]


def test_wrong_content_from_the_site_is_thrown_away(site, publish, tmp_path):
    first = publish("mnist")[0]
    site.files[first.file] = site.files[first.file][:-1]
    said = complaint("mnist", str(tmp_path))
    assert first.url in said
    assert "hash" in said
    assert everything_in(tmp_path) == {}


def test_absent_file_and_absent_site_are_answered_in_one_line(site, publish, tmp_path):
    first = publish("mnist")[0]
    del site.files[first.file]
    said = complaint("mnist", str(tmp_path))
    assert first.url in said
    assert "404" in said
    site.server.shutdown()
    site.server.server_close()
    assert first.url in complaint("mnist", str(tmp_path))
    assert everything_in(tmp_path) == {}


def test_folder_that_cannot_be_made_is_answered_in_one_line(publish, tmp_path):
    publish("mnist")
    (tmp_path / "file").write_text("kept")
    assert str(tmp_path / "file") in complaint("mnist", str(tmp_path / "file"))
    assert everything_in(tmp_path) == {"file": b"kept"}


@pytest.mark.parametrize("name", ["omniglot_rebuilt", "cifar10_first4000"])
def test_data_set_without_download_is_answered_with_its_origin(name, monkeypatch, tmp_path):
    said = complaint(name, str(tmp_path))
    assert "cannot be downloaded" in said
    assert "https://" in said
    make_known(monkeypatch, name)
    write_packed(name, tmp_path)
    assert "images" in download(name, str(tmp_path))


# The program as its users meet it.

START = (
    "import runpy, sys; sys.modules.update({}); sys.argv[0] = 'download.py'; "
    "runpy.run_module('experiments.download', run_name='__main__')"
)


def launch(*flags, without=()):
    """(exit code, stdout, stderr); `without` names modules that count as not installed."""
    code = START.format(dict.fromkeys(without))
    done = subprocess.run(
        [sys.executable, "-c", code, *flags], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--dataset=minst"], ["'minst'", "fashion_mnist", "cifar10"]),
        ([], ["--dataset", "--data_dir"]),
        (["--dataset=mnist"], ["pooch", "pip install -e '.[data]'"]),
        (["--dataset=mnist", "--datadir=x"], ["datadir", "data_dir"]),
        (["mnist"], ["'mnist'", "--name=value"]),
        (["--dataset=cifar10_first4000"], ["cifar10_train_first4000.npz", "cannot be downloaded"]),
    ],
    ids=["unknown", "no-data-set", "no-pooch", "unknown-flag", "stray-word", "no-download"],
)
def test_mistake_is_answered_in_one_line(flags, wanted, tmp_path):
    if flags[:1] != ["mnist"]:
        flags = [*flags, f"--data_dir={tmp_path}"]
    code, out, err = launch(*flags, without=["pooch"])
    assert len(err.splitlines()) == 1, err
    assert err.startswith("download.py: ")
    assert all(fragment in err for fragment in wanted)
    assert (code, out) == (2, "")


def test_digits_need_neither_download_nor_pooch():
    code, out, err = launch("--dataset=digits", without=["pooch"])
    assert out == "digits: 1,397 training, 100 validation and 300 test images, 8x8, 17 levels\n"
    assert (code, err) == (0, "")


def test_help_shows_the_flags():
    code, out, _ = launch("--help")
    assert "--dataset" in out
    assert "--data_dir" in out
    assert code == 0
