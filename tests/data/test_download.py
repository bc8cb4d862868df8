"""Downloads of datasets from a local server, and the unpacking of archives."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from data_files import data_config, idx_bytes, image_config, png_bytes, write_idx

from nnopt.data import cifar10, load, published
from nnopt.data import download as fetch
from nnopt.data.download import fetch as fetch_dataset
from nnopt.data.download import unpack
from nnopt.data.published import CIFAR10, CINIC10, MNIST, Download, Published
from nnopt.errors import DataError, OutputError

FILE = "train-images-idx3-ubyte"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Yield a folder, and the local address at which its files are served."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            if "stall" in self.path:
                time.sleep(3)
            elif "cut" in self.path:  # announces more bytes than it sends
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"x" * 10)
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def small_mnist(folder: Path, base: str, tmp_path: Path) -> Published:
    """Write the four files of ``write_idx`` to a served folder; return MNIST with these downloads.

    The addresses of the downloads begin with ``base``.
    """
    downloads, known = [], {}
    for name, array in write_idx(tmp_path / "original").items():
        packed = gzip.compress(idx_bytes(array))
        (folder / f"{name}.gz").write_bytes(packed)
        known[name] = sha256(idx_bytes(array))
        address = f"{base}{name}.gz"
        downloads.append(Download(f"MNIST/raw/{name}.gz", (address,), f"sha256:{sha256(packed)}"))
    return replace(MNIST, sha256=known, downloads=tuple(downloads))


def archive(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def test_second_fetch_only_verifies_the_files(tmp_path: Path, served: tuple[Path, str]) -> None:
    mnist = small_mnist(*served, tmp_path)
    reports: list[str] = []
    fetch_dataset(mnist, tmp_path / "root", reports.append)
    folder = tmp_path / "root/MNIST/raw"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}.gz" for name in mnist.sha256
    )
    assert sum("fetching" in line for line in reports) == 4
    again: list[str] = []
    fetch_dataset(mnist, tmp_path / "root", again.append)
    assert all("verified" in line for line in again)


def test_dataset_is_downloaded_only_if_allowed(
    tmp_path: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(published.PUBLISHED, "mnist", small_mnist(*served, tmp_path))
    root = tmp_path / "root"
    with pytest.raises(DataError, match=r"not found.*fetch the dataset with: nnopt data fetch"):
        load(image_config("mnist"), data_config(root), seed=0)
    assert not root.exists()
    dataset = load(image_config("mnist"), data_config(root, download=True), seed=0)
    assert len(dataset.train) == 32


def test_next_address_is_tried_after_a_failed_download(
    tmp_path: Path, served: tuple[Path, str]
) -> None:
    mnist = small_mnist(*served, tmp_path)
    first = replace(
        mnist.downloads[0], addresses=(served[1] + "nothing.gz", *mnist.downloads[0].addresses)
    )
    fetch_dataset(
        replace(mnist, downloads=(first, *mnist.downloads[1:])), tmp_path / "root", lambda _: None
    )
    assert (tmp_path / f"root/MNIST/raw/{FILE}.gz").exists()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("wrong.gz", "hash of downloaded file"),
        ("nothing.gz", "404"),
        ("cut.gz", "(?i)IncompleteRead|broken|hash of downloaded"),
        ("stall.gz", "(?i)timed out"),
    ],
)
def test_failed_download_leaves_no_file(
    tmp_path: Path,
    served: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    message: str,
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.3)
    mnist = small_mnist(*served, tmp_path)
    (served[0] / "wrong.gz").write_bytes(b"<html>try later</html>")
    bad = replace(mnist.downloads[0], addresses=(served[1] + address,))
    with pytest.raises(DataError, match=message) as caught:
        fetch_dataset(replace(mnist, downloads=(bad,)), tmp_path / "root", lambda _: None)
    message = str(caught.value)
    assert served[1] + address in message
    assert mnist.downloads[0].checksum in message
    assert "\n" not in message
    assert not list((tmp_path / "root/MNIST").rglob("*.*"))


def test_unreachable_server_is_reported(tmp_path: Path) -> None:
    nobody = Download(f"MNIST/raw/{FILE}.gz", ("http://127.0.0.1:9/x.gz",), f"sha256:{'0' * 64}")
    with pytest.raises(DataError, match=r"cannot fetch train-images.*127\.0\.0\.1:9.*refused"):
        fetch_dataset(replace(MNIST, downloads=(nobody,)), tmp_path, lambda _: None)


def test_existing_file_is_not_overwritten(tmp_path: Path, served: tuple[Path, str]) -> None:
    mnist = small_mnist(*served, tmp_path)
    path = tmp_path / "root/MNIST/raw" / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"not the published file.*delete it"):
        fetch_dataset(mnist, tmp_path / "root", lambda _: None)
    assert path.read_bytes() == b"mine"


def test_download_into_root_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write below"):
        fetch_dataset(MNIST, tmp_path / "file/root", lambda _: None)


def test_three_threads_download_each_file_once(tmp_path: Path, served: tuple[Path, str]) -> None:
    mnist = small_mnist(*served, tmp_path)
    reports: list[str] = []
    threads = [
        threading.Thread(target=fetch_dataset, args=(mnist, tmp_path / "root", reports.append))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("fetching" in line for line in reports) == 4
    assert sum("verified" in line for line in reports) == 12


def small_cifar10(
    folder: Path, base: str, monkeypatch: pytest.MonkeyPatch, contents: bytes | None = None
) -> Published:
    monkeypatch.setattr(cifar10, "IMAGES_PER_FILE", 2)
    files = {name: bytes([k]) * 2 * 3073 for k, name in enumerate(CIFAR10.sha256)}
    packed = contents or archive({f"cifar-10-batches-bin/{n}": c for n, c in files.items()})
    (folder / "cifar.tar.gz").write_bytes(packed)
    download = Download(
        "downloads/cifar.tar.gz", (base + "cifar.tar.gz",), f"sha256:{sha256(packed)}"
    )
    known = {name: sha256(content) for name, content in files.items()}
    return replace(CIFAR10, sha256=known, downloads=(download,))


def test_archive_is_unpacked_verified_and_removed(
    tmp_path: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = small_cifar10(*served, monkeypatch)
    root = tmp_path / "root"
    fetch_dataset(dataset, root, lambda _: None)
    assert sorted(path.name for path in root.iterdir()) == ["cifar-10-batches-bin", "downloads"]
    assert [path.suffix for path in (root / "downloads").iterdir()] == [".lock"]
    assert cifar10.locate(CIFAR10, root).decode().parts["test"][1].tolist() == [5, 5]
    reports: list[str] = []
    fetch_dataset(dataset, root, reports.append)
    assert "already present" in reports[0]


def test_archive_without_top_folder_is_unpacked(tmp_path: Path, served: tuple[Path, str]) -> None:
    import numpy as np

    image = png_bytes(np.zeros((32, 32, 3), np.uint8))
    packed = archive(
        {f"./{part}/{name}/a.png": image for part in CINIC10.parts for name in CINIC10.classes}
    )
    (served[0] / "cinic.tar.gz").write_bytes(packed)
    download = Download(
        "downloads/cinic.tar.gz",
        (served[1] + "cinic.tar.gz",),
        f"md5:{hashlib.md5(packed).hexdigest()}",
    )
    fetch_dataset(replace(CINIC10, downloads=(download,)), tmp_path / "root", lambda _: None)
    assert (tmp_path / "root/CINIC-10/valid/truck/a.png").read_bytes() == image


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (archive({"cifar-10-batches-bin/readme": b"?"}), "has no file data_batch_1.bin"),
        (archive({f"cifar-10-batches-bin/{n}": b"?" for n in CIFAR10.sha256}), "has SHA-256"),
        (archive({"a": b"?"})[:60], "damaged or hostile"),
        (b"<html></html>", "damaged or hostile"),
    ],
    ids=["incomplete", "changed", "truncated", "no archive"],
)
def test_wrong_archive_leaves_no_file(
    tmp_path: Path,
    served: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    contents: bytes,
    message: str,
) -> None:
    dataset = small_cifar10(*served, monkeypatch, contents)
    with pytest.raises(DataError, match=message):
        fetch_dataset(dataset, tmp_path / "root", lambda _: None)
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["downloads"]


def linking(name: str, target: str, kind: bytes) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)

    return add


def plain(name: str) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))

    return add


@pytest.mark.parametrize(
    "add",
    [
        plain("../outside"),
        plain("a/../../outside"),
        linking("link", "/etc/passwd", tarfile.SYMTYPE),
        linking("link", "../outside", tarfile.SYMTYPE),
        linking("link", "../outside", tarfile.LNKTYPE),
        linking("device", "", tarfile.CHRTYPE),
        linking("pipe", "", tarfile.FIFOTYPE),
    ],
)
def test_hostile_entry_of_an_archive_is_refused(
    tmp_path: Path, add: Callable[[tarfile.TarFile], None]
) -> None:
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        add(tar)
    (tmp_path / "inside").mkdir()
    with pytest.raises(DataError, match="damaged or hostile"):
        unpack(path, tmp_path / "inside")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["evil.tar.gz", "inside"]


def test_file_with_absolute_name_is_unpacked_inside_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        plain("/tmp/nnopt-absolute-name")(tar)
    unpack(path, tmp_path / "inside")
    assert (tmp_path / "inside/tmp/nnopt-absolute-name").exists()
    assert not Path("/tmp/nnopt-absolute-name").exists()


def test_size_and_number_of_unpacked_files_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(archive({"zeros": bytes(2**20), **{f"f{k}": b"" for k in range(50)}}))
    for limit, value in (("MAX_BYTES", 2**19), ("MAX_FILES", 10)):
        with monkeypatch.context() as patched:
            patched.setattr(fetch, limit, value)
            with pytest.raises(DataError, match="unpacks to more than"):
                unpack(path, tmp_path / limit)
    assert not (tmp_path / "MAX_BYTES/zeros").exists()
