"""Hostile data folders: no command writes, deletes or executes a file outside of the folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from commands import Command
from data_files import data_config, image_config, write_cinic, write_idx

from nnopt.data import load, published
from nnopt.data.load import _decode
from nnopt.data.published import CIFAR10, MNIST, Download

ADDRESS = "http://127.0.0.1:9/nothing"


@dataclass(frozen=True)
class Received:
    """A data folder with a cache in it, and a private folder outside of it.

    entry: the folder of MNIST's arrays in the cache. index: the file that names the entry.
    """

    root: Path
    outside: Path
    entry: Path
    index: Path


@pytest.fixture
def received(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Received:
    """Return a data folder with a filled cache. The download addresses cannot be reached."""
    root, outside = workplace / "data", workplace / "outside"
    write_idx(root)
    outside.mkdir()
    (outside / "secret.txt").write_text("mine")
    (outside / "thesis").mkdir()
    (outside / "thesis/chapter.txt").write_text("mine too")
    for one in (MNIST, CIFAR10):
        downloads = tuple(replace(download, addresses=(ADDRESS,)) for download in one.downloads)
        monkeypatch.setitem(published.PUBLISHED, one.name, replace(one, downloads=downloads))
    load(image_config("mnist"), data_config(root), seed=0)
    _decode.cache_clear()
    (entry,) = (root / "cache").glob("mnist-*")
    (index,) = (root / "cache/index").glob("mnist-*.json")
    return Received(root, outside, entry, index)


def link(path: Path, target: Path) -> None:
    """Replace a file or folder by a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def forget(received: Received) -> None:
    """Remove the index of the cache, so that nnopt decodes the data and writes the cache again."""
    received.index.unlink()


def cache_link(received: Received) -> None:
    link(received.root / "cache", received.outside)


def cache_link_to_folder_that_is_absent(received: Received) -> None:
    link(received.root / "cache", received.outside / "new")


def index_folder_link(received: Received) -> None:
    link(received.root / "cache/index", received.outside)


def entry_link(received: Received) -> None:
    forget(received)
    link(received.entry, received.outside)


def entry_link_that_the_index_knows(received: Received) -> None:
    link(received.entry, received.outside / "thesis")


def entry_is_damaged_and_holds_links(received: Received) -> None:
    (received.entry / "contents.json").write_text("{")
    link(received.entry / "folder", received.outside)
    link(received.entry / "file", received.outside / "secret.txt")


def lock_link(received: Received) -> None:
    forget(received)
    link(received.index.with_suffix(".lock"), received.outside / "secret.txt")


def lock_link_to_file_that_is_absent(received: Received) -> None:
    forget(received)
    link(received.index.with_suffix(".lock"), received.outside / "new.txt")


def lock_fifo(received: Received) -> None:
    forget(received)
    fifo(received.index.with_suffix(".lock"))


def temporary_link(received: Received) -> None:
    forget(received)
    link(received.root / "cache" / f".{received.index.stem}.tmp", received.outside)


def temporary_holds_link(received: Received) -> None:
    forget(received)
    folder = received.root / "cache" / f".{received.index.stem}.tmp"
    link(folder / "train_inputs.npy", received.outside / "secret.txt")
    link(folder / "folder", received.outside)


def index_leads_out(received: Received) -> None:
    known = json.loads(received.index.read_text())
    received.index.write_text(json.dumps(known | {"entry": "../../outside"}))


def index_leads_to_parent(received: Received) -> None:
    known = json.loads(received.index.read_text())
    received.index.write_text(json.dumps(known | {"entry": ".."}))


def index_is_deep(received: Received) -> None:
    received.index.write_text("[" * 500_000)


def index_link(received: Received) -> None:
    link(received.index, received.outside / "secret.txt")


def index_fifo(received: Received) -> None:
    fifo(received.index)


def contents_link(received: Received) -> None:
    link(received.entry / "contents.json", received.outside / "secret.txt")


def contents_fifo(received: Received) -> None:
    fifo(received.entry / "contents.json")


def contents_name_a_file_outside(received: Received) -> None:
    path = received.entry / "contents.json"
    contents = json.loads(path.read_text())
    contents["arrays"]["../../../outside/secret"] = contents["arrays"].pop("train_inputs")
    path.write_text(json.dumps(contents))


def array_link(received: Received) -> None:
    link(received.entry / "train_inputs.npy", received.outside / "secret.txt")


def array_device(received: Received) -> None:
    link(received.entry / "train_inputs.npy", Path("/dev/zero"))


def array_fifo(received: Received) -> None:
    fifo(received.entry / "test_labels.npy")


def downloads_link(received: Received) -> None:
    link(received.root / "downloads", received.outside)


def downloads_lock_link(received: Received) -> None:
    for name in ("mnist", "cifar10"):
        link(received.root / "downloads" / f"{name}.lock", received.outside / "secret.txt")


def dataset_link(received: Received) -> None:
    link(received.root / "MNIST", received.outside)


def dataset_inner_link(received: Received) -> None:
    link(received.root / "MNIST/raw", received.outside / "thesis")


def archive_link(received: Received) -> None:
    link(received.root / "downloads/cifar-10-binary.tar.gz", received.outside / "secret.txt")


def unpacked_link(received: Received) -> None:
    link(received.root / "cifar-10-batches-bin", received.outside)


def unpacking_link(received: Received) -> None:
    """Create an archive with a correct checksum, and a link in place of the temporary folder."""
    archive = received.root / "downloads/cifar-10-binary.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"no archive")
    checksum = f"sha256:{hashlib.sha256(b'no archive').hexdigest()}"
    download = Download("downloads/cifar-10-binary.tar.gz", (ADDRESS,), checksum)
    published.PUBLISHED["cifar10"] = replace(CIFAR10, downloads=(download,))
    link(received.root / ".cifar-10-batches-bin.tmp", received.outside)


def names_with_escapes(received: Received) -> None:
    write_cinic(received.root)
    (received.root / "CINIC-10/train/\x1b]0;x\x07\x1b[2J\nnnopt: done").mkdir()


HOSTILE: list[Callable[[Received], None]] = [
    cache_link,
    cache_link_to_folder_that_is_absent,
    index_folder_link,
    entry_link,
    entry_link_that_the_index_knows,
    entry_is_damaged_and_holds_links,
    lock_link,
    lock_link_to_file_that_is_absent,
    lock_fifo,
    temporary_link,
    temporary_holds_link,
    index_leads_out,
    index_leads_to_parent,
    index_is_deep,
    index_link,
    index_fifo,
    contents_link,
    contents_fifo,
    contents_name_a_file_outside,
    array_link,
    array_device,
    array_fifo,
    downloads_link,
    downloads_lock_link,
    dataset_link,
    dataset_inner_link,
    archive_link,
    unpacked_link,
    unpacking_link,
    names_with_escapes,
]

COMMANDS = (
    ("run", "dataset=mnist", "epochs=1", "max_steps=1", "plots=false", "hydra.run.dir=out"),
    ("data", "list"),
    ("data", "verify"),
    ("data", "fetch", "mnist"),
    ("data", "fetch", "cifar10"),
)


def contents_of(folder: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield the name, modification time and content of every entry of a folder."""
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        yield str(path), path.stat().st_mtime_ns, content


@pytest.mark.parametrize("build", HOSTILE, ids=lambda build: str(build.__name__))
def test_commands_on_hostile_data_folder_do_not_change_private_files(
    attempt: Command, workplace: Path, received: Received, build: Callable[[Received], None]
) -> None:
    build(received)
    before = list(contents_of(received.outside))
    places = {path.name for path in workplace.iterdir()}
    for arguments in COMMANDS:
        result = attempt(*arguments)
        assert "\x1b" not in result.out + result.err
        if arguments[0] != "run" and result.code:
            assert all(line.startswith("nnopt: ") for line in result.err.splitlines())
    assert list(contents_of(received.outside)) == before
    assert {path.name for path in workplace.iterdir()} <= places | {"out"}


@pytest.mark.parametrize(
    "build", [cache_link, entry_link, temporary_link, array_fifo, index_leads_out]
)
def test_run_with_hostile_cache_succeeds(
    attempt: Command, received: Received, backend: str, build: Callable[[Received], None]
) -> None:
    build(received)
    overrides = "dataset=mnist", f"backend={backend}", "epochs=1", "max_steps=1", "plots=false"
    attempt("run", *overrides).is_done()


def test_cache_folder_that_the_user_linked_is_used(
    attempt: Command, workplace: Path, received: Received
) -> None:
    """nnopt follows a link that the user names on the command line."""
    (workplace / "scratch").mkdir()
    (workplace / "mycache").symlink_to("scratch")
    overrides = "dataset=mnist", "epochs=1", "max_steps=1", "plots=false", "data.cache=mycache"
    attempt("run", *overrides).is_done()
    assert list((workplace / "scratch").glob("mnist-*"))
