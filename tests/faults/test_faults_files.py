"""Damaged, hostile and missing data files, and folders, pipes and devices in their place."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command
from data_files import idx_bytes, png_bytes, write_cifar, write_cinic, write_idx

from nnopt.data import cifar10, published
from nnopt.data.load import _decode
from nnopt.data.published import CIFAR10, MNIST, Download

QUICK = ("epochs=1", "max_steps=1", "plots=false", "hydra.run.dir=out")
IMAGES, LABELS = "MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-labels-idx1-ubyte"
BATCH = "cifar-10-batches-bin/data_batch_3.bin"
PNG = "CINIC-10/test/frog/image-012.png"
COUNT = 20

WRITERS: dict[str, Callable[[Path], Any]] = {
    "mnist": write_idx,
    "cifar10": lambda root: write_cifar(root, COUNT),
    "cinic10": write_cinic,
}


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "IMAGES_PER_FILE", COUNT)


def cut(size: float) -> Callable[[Path], Any]:
    """Return a function that truncates a file.

    size: the new size in bytes, or as a fraction of the old size. A negative size is the number of
    bytes to remove from the end.
    """

    def damage(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(size * len(content)) if 0 < size < 1 else int(size)])

    return damage


def put(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


def replaced(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Return a function that deletes a file and calls ``make`` with its path."""

    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def packed(change: Callable[[bytearray], bytes]) -> Callable[[Path], Any]:
    """Return a function that compresses a file with gzip and applies ``change`` to the result."""

    def damage(path: Path) -> None:
        content = gzip.compress(path.read_bytes())
        path.unlink()
        path.with_name(f"{path.name}.gz").write_bytes(change(bytearray(content)))

    return damage


def with_wrong_crc(content: bytearray) -> bytes:
    content[-8] ^= 1
    return bytes(content)


def png(width: int, height: int, depth: int = 8, kind: int = 2, repeat: bool = False) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    header = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    body = png_bytes(np.zeros((32, 32, 3), np.uint8))[8:]
    return b"\x89PNG\r\n\x1a\n" + header + (body if repeat else body[25:])


BLACK = np.zeros((32, 32, 3), np.uint8)
ZEROS = np.zeros((40, 4, 4))
GIANT = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 2**11, 2**11)  # 8 PiB
LARGE = bytes([0, 0, 8, 3]) + struct.pack(">3I", 20, 2**15, 2**15)  # 20 GiB

Damage = tuple[str, str, Callable[[Path], Any], list[str]]

DAMAGED: dict[str, Damage] = {
    "idx of 0 bytes": ("mnist", IMAGES, cut(0), [IMAGES, "0 bytes"]),
    "idx of 10 bytes": ("mnist", IMAGES, cut(10), [IMAGES, "10 bytes"]),
    "idx cut to half": ("mnist", IMAGES, cut(0.5), ["328 bytes", "656"]),
    "idx without last byte": ("mnist", LABELS, cut(-1), [LABELS, "47 bytes", "48"]),
    "gz of 0 bytes": ("mnist", IMAGES, packed(lambda x: b""), [f"{IMAGES}.gz", "0 bytes"]),
    "gz of 10 bytes": ("mnist", IMAGES, packed(lambda x: bytes(x[:10])), ["is damaged"]),
    "gz cut to half": ("mnist", IMAGES, packed(lambda x: bytes(x[:300])), ["is damaged"]),
    "gz without last byte": ("mnist", IMAGES, packed(lambda x: bytes(x[:-1])), ["is damaged"]),
    "batch of 0 bytes": ("cifar10", BATCH, cut(0), [BATCH, "0 bytes", "61,460"]),
    "batch cut to half": ("cifar10", BATCH, cut(0.5), [BATCH, "30,730 bytes"]),
    "batch without last byte": ("cifar10", BATCH, cut(-1), [BATCH, "61,459 bytes"]),
    "batch with one more byte": ("cifar10", BATCH, put(bytes(61_461)), ["is too long"]),
    "png of 0 bytes": ("cinic10", PNG, cut(0), [PNG, "0 bytes"]),
    "png of 10 bytes": ("cinic10", PNG, cut(10), [PNG, "truncated PNG"]),
    "png cut to half": ("cinic10", PNG, cut(0.5), [PNG, "truncated PNG"]),
    "png without last byte": ("cinic10", PNG, cut(-1), [PNG, "truncated PNG"]),
    "HTML page as idx": ("mnist", IMAGES, put(b"<!DOCTYPE html>"), [IMAGES, "fetch it again"]),
    "HTML page as gz": ("mnist", IMAGES, packed(lambda x: b"<html>"), ["Not a gzipped file"]),
    "wrong CRC of gz": ("mnist", IMAGES, packed(with_wrong_crc), ["CRC check failed"]),
    "HTML page as png": ("cinic10", PNG, put(b"<html>"), [PNG, "is not a PNG"]),
    "labels as images": ("mnist", IMAGES, put(idx_bytes(ZEROS[:, 0, 0])), ["00 00 08 01"]),
    "fewer labels than images": (
        "mnist",
        LABELS,
        put(idx_bytes(ZEROS[:39, 0, 0])),
        ["40 images", "39"],
    ),
    "idx with one more byte": ("mnist", IMAGES, put(idx_bytes(ZEROS) + b"a"), ["657", "656"]),
    "idx of floats": ("mnist", IMAGES, put(b"\0\0\x0d\x03" + bytes(12)), ["00 00 0d 03"]),
    "idx of 8 PiB": ("mnist", IMAGES, put(GIANT), ["16 bytes", "9,007,199,254,741,008"]),
    "idx of 20 GiB": ("mnist", IMAGES, put(LARGE), ["16 bytes", "21,474,836,496"]),
    "png of 4 GiB": ("cinic10", PNG, put(png(2**15, 2**15)), ["32768x32768", "32x32"]),
    "png with two headers": ("cinic10", PNG, put(png(32, 32, repeat=True)), ["second header"]),
    "folder": ("mnist", IMAGES, replaced(Path.mkdir), [IMAGES, "is a folder"]),
    "FIFO": ("mnist", IMAGES, replaced(os.mkfifo), [IMAGES, "FIFO"]),
    "dangling link": (
        "mnist",
        IMAGES,
        replaced(lambda path: path.symlink_to("nowhere")),
        [IMAGES, "is a dangling link"],
    ),
    "device": (
        "mnist",
        IMAGES,
        replaced(lambda path: path.symlink_to("/dev/zero")),
        [IMAGES, "is a device"],
    ),
    "FIFO as batch": ("cifar10", BATCH, replaced(os.mkfifo), [BATCH, "FIFO"]),
    "FIFO as png": ("cinic10", PNG, replaced(os.mkfifo), [PNG, "FIFO"]),
    "jpeg named png": ("cinic10", PNG, put(b"\xff\xd8\xff\xe0" + bytes(99)), ["is not a PNG"]),
    "another file": (
        "cinic10",
        PNG,
        lambda path: path.with_name("a\x1b[2J.txt").write_text(""),
        [r"a\x1b[2J.txt", "is no .png"],
    ),
    "class missing": (
        "cinic10",
        PNG,
        lambda path: shutil.rmtree(path.parent),
        ["CINIC-10/test lacks the class folder(s) frog"],
    ),
    "eleventh class": (
        "cinic10",
        PNG,
        lambda path: (path.parents[1] / "zebra").mkdir(),
        ["CINIC-10/test/zebra is not a class"],
    ),
    "31x32": ("cinic10", PNG, put(png_bytes(BLACK[:31])), [PNG, "32x31", "32x32"]),
    "16 bit": ("cinic10", PNG, put(png(32, 32, 16)), [PNG, "16 bits per channel"]),
}


@pytest.mark.parametrize(("dataset", "file", "damage", "fragments"), DAMAGED.values(), ids=DAMAGED)
def test_run_with_damaged_file_is_refused(
    attempt: Command,
    workplace: Path,
    backend: str,
    dataset: str,
    file: str,
    damage: Callable[[Path], Any],
    fragments: list[str],
) -> None:
    WRITERS[dataset](workplace / "data")
    damage(workplace / "data" / file)
    overrides = f"backend={backend}", f"dataset={dataset}", *QUICK
    attempt("run", *overrides).is_refused(3, *fragments)
    assert not (workplace / "out").exists()


ACCEPTED: dict[str, Callable[[Path], Any]] = {
    "hidden files": lambda path: (path.parent / ".DS_Store").write_text("x"),
    "Thumbs.db": lambda path: (path.parent / "Thumbs.db").write_text("x"),
    "gray": lambda path: path.write_bytes(png_bytes(BLACK, "L")),
    "RGBA": lambda path: path.write_bytes(png_bytes(BLACK, "RGBA")),
    "palette": lambda path: path.write_bytes(png_bytes(BLACK, "P")),
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_run_with_unusual_files_is_done(
    attempt: Command, workplace: Path, backend: str, change: Callable[[Path], Any]
) -> None:
    write_cinic(workplace / "data")
    change(workplace / "data" / PNG)
    attempt("run", f"backend={backend}", "dataset=cinic10", *QUICK).is_done()


def test_verify_command_on_file_with_other_checksum_is_refused(
    attempt: Command, workplace: Path
) -> None:
    """The message contains the expected and the actual checksum."""
    write_idx(workplace / "data")
    found = hashlib.sha256((workplace / "data" / IMAGES).read_bytes()).hexdigest()
    known = MNIST.sha256[Path(IMAGES).name]
    attempt("data", "verify", "mnist", "--root", "data").is_refused(3, found, known)


class Hostile:
    def __reduce__(self) -> Any:
        return os.mkdir, ("marker",)


PICKLES: dict[str, tuple[Any, str]] = {
    "hostile global": ({b"data": Hostile()}, "mkdir, which is not allowed"),
    "missing key": ({b"labels": [1]}, "no key 'data'"),
    "wrong shape": ({b"data": np.zeros((2, 2), np.uint8), b"labels": []}, "(2, 2)"),
    "wrong type": ({b"data": np.zeros((20, 3072)), b"labels": []}, "'f8'"),
    "giant label": (
        {b"data": np.zeros((20, 3072), np.uint8), b"labels": [1 << 1_000] * 20},
        "of more than 18 digits",
    ),
}


@pytest.mark.parametrize(("value", "fragment"), PICKLES.values(), ids=PICKLES)
def test_run_with_hostile_pickle_is_refused(
    attempt: Command, workplace: Path, backend: str, value: Any, fragment: str
) -> None:
    folder = workplace / "data/cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (name.removesuffix(".bin") for name in CIFAR10.sha256):
        (folder / name).write_bytes(pickle.dumps(value, protocol=2))
    overrides = f"backend={backend}", "dataset=cifar10", *QUICK
    attempt("run", *overrides).is_refused(3, "cifar-10-batches-py/data_batch_1", fragment)
    assert not (workplace / "marker").exists()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> bytes:
    """Return the bytes of a new .tar.gz archive with one member."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, target, size
        tar.addfile(info, io.BytesIO(bytes(size)))
    return file.getvalue()


ARCHIVES = {
    "name outside of the folder": member("../../outside", size=3),
    "absolute name": member("/outside", size=3),
    "symbolic link": member("link", tarfile.SYMTYPE, "../../outside"),
    "hard link": member("link", tarfile.LNKTYPE, "../../outside"),
    "device": member("device", tarfile.CHRTYPE),
    "FIFO": member("fifo", tarfile.FIFOTYPE),
    "zeros": member("zeros", size=2**21),
    "truncated": member("file", size=10_000)[:-20],
    "HTML page": b"<html>404</html>",
}


@pytest.mark.parametrize("content", ARCHIVES.values(), ids=ARCHIVES)
def test_fetch_command_on_hostile_archive_is_refused(
    attempt: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """The archive has the expected checksum, so only the code that unpacks it can refuse it."""
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    download = Download("downloads/a.tar.gz", ("http://127.0.0.1:9/a",), checksum)
    cifar = replace(CIFAR10, downloads=(download,))
    monkeypatch.setitem(published.PUBLISHED, "cifar10", cifar)
    monkeypatch.setattr("nnopt.data.download.MAX_BYTES", 2**20)
    (workplace / "data/downloads").mkdir(parents=True)
    (workplace / "data/downloads/a.tar.gz").write_bytes(content)
    (workplace / "outside").write_text("mine")
    attempt("data", "fetch", "cifar10").is_refused(3, "a.tar.gz")
    assert (workplace / "outside").read_text() == "mine"
    assert sorted(x.name for x in workplace.iterdir()) == ["data", "outside"]
    assert [x.name for x in (workplace / "data").iterdir()] == ["downloads"]


def test_run_without_data_and_network_is_refused(
    attempt: Command, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message contains the address, the target folder and the checksum of the download."""
    address = "http://127.0.0.1:9/x.gz"
    downloads = tuple(replace(one, addresses=(address,)) for one in MNIST.downloads)
    monkeypatch.setitem(published.PUBLISHED, "mnist", replace(MNIST, downloads=downloads))
    arguments = "run", f"backend={backend}", "dataset=mnist", *QUICK
    attempt(*arguments).is_refused(3, address, "nnopt data fetch mnist", "not found")
    checksum = downloads[0].checksum
    attempt(*arguments, "data.download=true").is_refused(3, address, "data/MNIST/raw", checksum)


FOLDERS = ["a b", "größe", "new\nline", "a=b,c", "50%", "[x]{y}", "'quoted\"", "x" * 200, "$HOME"]


@pytest.mark.parametrize("name", [*FOLDERS, os.fsdecode(b"latin-\xe4")], ids=ascii)
def test_data_folder_of_any_name_is_found(
    attempt: Command,
    workplace: Path,
    backend: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folder is named by an environment variable, and then by a quoted override."""
    write_idx(workplace / name)
    monkeypatch.setenv("NNOPT_DATA_DIR", name)
    attempt("data", "list").is_done("mnist")
    arguments = "run", f"backend={backend}", "dataset=mnist", *QUICK[:-1]
    attempt(*arguments).is_done()
    if "$" not in name and "\n" not in name:
        monkeypatch.delenv("NNOPT_DATA_DIR")
        quoted = name.replace("'", r"\'")
        attempt(*arguments, f"data.root='{quoted}'", "seed=1").is_done()


def test_data_folder_with_umlaut_is_found_in_c_locale(
    start_nnopt: Callable[..., Any], workplace: Path
) -> None:
    """Programs in minimal containers run in the C locale."""
    write_idx(workplace / "größe")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["NNOPT_DATA_DIR"] = "größe"
    process = start_nnopt("run", "dataset=mnist", *QUICK, env=environment)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "Traceback" not in out + err
    process = start_nnopt("data", "list", env=environment)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0


def test_resume_command_refuses_changed_data(
    attempt: Command, workplace: Path, backend: str
) -> None:
    """One pixel changes between the sweep and its resumption."""
    write_idx(workplace / "data")
    arguments = "-m", "dataset=mnist", f"backend={backend}", "seed=0", "epochs=1", "max_steps=1"
    attempt("run", *arguments, "plots=false", "hydra.sweep.dir=s").is_done()
    content = bytearray((workplace / "data" / IMAGES).read_bytes())
    content[20] ^= 1
    (workplace / "data" / IMAGES).write_bytes(content)
    _decode.cache_clear()
    attempt("resume", "s", "seed=0,1").is_refused(4, IMAGES, "changed since")
