"""Unusual paths of data folders, and unusual layouts of image datasets."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command
from data_files import write_cifar, write_cinic, write_idx

from nnopt.backends.numpy import loader as numpy_loader
from nnopt.data import cache_entry, cifar10
from nnopt.data.dataset import Part
from nnopt.data.load import _decode

QUICK = ("epochs=1", "max_steps=1", "plots=false")
COUNT = 20


@pytest.mark.parametrize("value", ["", " "])
def test_empty_data_dir_variable_selects_the_default_folder(
    attempt: Command,
    workplace: Path,
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
) -> None:
    monkeypatch.setenv("NNOPT_DATA_DIR", value)
    write_idx(workplace / "data")
    attempt("run", "dataset=mnist", f"backend={backend}", *QUICK).is_done()
    attempt("data", "list").is_done(str(workplace / "data/MNIST/raw"))
    assert (workplace / "data/cache").is_dir()


WRONG_FOLDERS: dict[str, tuple[tuple[str, ...], str]] = {
    "root empty": (("run", "data.root="), "data.root = ''"),
    "root blank": (("run", "data.root=' '"), "data.root = ' '"),
    "cache empty": (("run", "data.cache=''"), "data.cache = ''"),
    "root of unknown user": (("run", "data.root='~no-such-user/x'"), "no user 'no-such-user'"),
    "root with null byte": (("run", "--config-dir=more", "experiment=null_byte"), "null byte"),
    "describe": (("describe", "dataset=mnist", "data.root="), "data.root = ''"),
    "lr-find": (("lr-find", "data.root="), "data.root = ''"),
    "gradcheck": (("gradcheck", "data.root="), "data.root = ''"),
    "sweep": (("run", "-m", "seed=0,1", "data.root="), "data.root = ''"),
    "data list": (("data", "list", "--root="), "--root = ''"),
    "data fetch": (("data", "fetch", "mnist", "--root= "), "--root = ' '"),
    "data verify": (("data", "verify", "--root=~no-such-user"), "no user 'no-such-user'"),
    "config dir empty": (("run", "--config-dir="), "--config-dir = ''"),
    "config dir is a file": (("run", "--config-dir=file"), "--config-dir = 'file'"),
}


@pytest.mark.parametrize(("overrides", "fragment"), WRONG_FOLDERS.values(), ids=WRONG_FOLDERS)
def test_folder_setting_with_wrong_path_is_refused(
    attempt: Command, workplace: Path, overrides: tuple[str, ...], fragment: str
) -> None:
    (workplace / "file").write_text("")
    (workplace / "more/experiment").mkdir(parents=True)
    text = '# @package _global_\ndata: {root: "a\\0b"}\n'
    (workplace / "more/experiment/null_byte.yaml").write_text(text)
    attempt(*overrides).is_refused(2, fragment)
    assert sorted(path.name for path in workplace.iterdir()) == ["file", "more"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "dataset=mnist", *QUICK),
        ("run", "-m", "dataset=mnist", "seed=0,1", "hydra/launcher=pool", *QUICK),
        ("gradcheck", "dataset=csv", "dataset.train=t.csv", "architecture.hidden=[2]"),
        ("describe", "dataset=csv", "dataset.train=t.csv"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_tilde_in_data_root_is_expanded(
    attempt: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HOME", str(workplace / "home"))
    write_idx(workplace / "home/x")
    (workplace / "home/x/t.csv").write_text("a,label\n" + "1,0\n2,1\n" * 10)
    attempt(*arguments, "data.root='~/x'").is_done()
    attempt("data", "list", "--root", "~/x").is_done(str(workplace / "home/x/MNIST/raw"))
    attempt("data", "verify", "mnist", "--root", "~/x").is_refused(3, "is not the published file")
    assert not (workplace / "~").exists()


@pytest.mark.parametrize("kind", ["file", "dangling link", "absent"])
def test_data_root_that_is_not_a_folder_is_refused(
    attempt: Command, workplace: Path, backend: str, kind: str
) -> None:
    if kind == "file":
        (workplace / "data").write_text("")
    if kind == "dangling link":
        (workplace / "data").symlink_to("nowhere")
    for name in ("mnist", "cifar10", "cinic10"):
        attempt("run", f"dataset={name}", f"backend={backend}").is_refused(3, name, "data")
    assert attempt("data", "list").out.count(" no ") >= 4
    attempt("data", "verify", "mnist").is_refused(3, "mnist")
    assert not (workplace / "nowhere").exists()


def test_cache_that_is_a_file_is_reported(attempt: Command, workplace: Path, backend: str) -> None:
    write_idx(workplace / "data")
    (workplace / "data/cache").write_text("mine")
    result = attempt("run", "dataset=mnist", f"backend={backend}", *QUICK)
    result.is_done(f"cannot write the cache {workplace / 'data/cache'} (")
    assert (workplace / "data/cache").read_text() == "mine"


@pytest.mark.parametrize("files", [0, 3])
def test_cifar10_python_version_is_read_if_binary_folder_is_incomplete(
    attempt: Command,
    workplace: Path,
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
    files: int,
) -> None:
    monkeypatch.setattr(cifar10, "IMAGES_PER_FILE", COUNT)
    binary = write_cifar(workplace / "data", COUNT)
    python = workplace / "data/cifar-10-batches-py"
    python.mkdir()
    for path in sorted(binary.iterdir()):
        content = np.frombuffer(path.read_bytes(), np.uint8).reshape(COUNT, 3073)
        values = {b"labels": content[:, 0].tolist(), b"data": content[:, 1:].copy()}
        (python / path.stem).write_bytes(pickle.dumps(values, protocol=2))
    for path in sorted(binary.iterdir())[files:]:
        path.unlink()
    attempt("run", "dataset=cifar10", f"backend={backend}", *QUICK).is_done()
    attempt("data", "list").is_done("cifar-10-batches-py")
    (python / "test_batch").unlink()
    _decode.cache_clear()
    missing = "cifar-10-batches-py/test_batch not found"
    attempt("run", "dataset=cifar10", *QUICK, "seed=1").is_refused(3, missing)


def test_fetch_command_with_incomplete_folder_is_refused(attempt: Command, workplace: Path) -> None:
    folder = write_cifar(workplace / "data", COUNT)
    (folder / "data_batch_2.bin").unlink()
    attempt("data", "fetch", "cifar10").is_refused(3, "incomplete", "data_batch_2.bin", "move it")


def _dotted(root: Path) -> None:
    write_idx(root)
    for path in (root / "MNIST/raw").iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))


LAYOUTS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "names with a dot": ("mnist", _dotted),
    "no raw": ("mnist", lambda root: write_idx(root, "MNIST")),
    "packed in root": ("mnist", lambda root: write_idx(root, ".", packed=True)),
    "fashion-mnist": ("fashion_mnist", lambda root: write_idx(root, "fashion-mnist")),
    "fashion_mnist/raw": ("fashion_mnist", lambda root: write_idx(root, "fashion_mnist/raw")),
    "cifar-10 in a folder": ("cifar10", lambda root: write_cifar(root / "cifar10", COUNT)),
    "cinic": (
        "cinic10",
        lambda root: (write_cinic(root), (root / "CINIC-10").rename(root / "cinic10")),
    ),
}


@pytest.mark.parametrize(("dataset", "write"), LAYOUTS.values(), ids=LAYOUTS)
def test_image_dataset_in_other_layout_is_found(
    attempt: Command,
    workplace: Path,
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
    dataset: str,
    write: Callable[[Path], Any],
) -> None:
    monkeypatch.setattr(cifar10, "IMAGES_PER_FILE", COUNT)
    write(workplace / "data")
    attempt("run", f"dataset={dataset}", f"backend={backend}", *QUICK).is_done()
    row = next(x for x in attempt("data", "list").out.splitlines() if x.startswith(dataset))
    assert " yes " in row


def test_searched_folders_are_in_the_message_about_a_missing_file(
    attempt: Command, workplace: Path
) -> None:
    write_idx(workplace / "data", "mnist")
    (workplace / "data/mnist/t10k-labels-idx1-ubyte").unlink()
    looked = f"not found in {workplace / 'data'} (searched: the folder itself, mnist)"
    attempt("run", "dataset=mnist").is_refused(3, "mnist/t10k-labels-idx1-ubyte", looked)


def test_known_keys_are_listed_in_a_stable_order(
    start_nnopt: Callable[..., Any], workplace: Path
) -> None:
    messages = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        process = start_nnopt("run", "zzz=1", "optimizer.qqq=1", "dataset=what", env=environment)
        messages.add(process.communicate(timeout=60)[1])
    (message,) = messages
    assert "unknown key 'zzz'; known here: name, seed, epochs, " in message
    assert "known here: optimizer.name, optimizer.lr, optimizer.momentum\n" in message


def results(run: Path) -> dict[str, Any]:
    """Return the test metrics of a run and the content of each of its weight files."""
    summary = json.loads((run / "summary.json").read_text())
    metrics = {key: summary[key] for key in ("test_loss", "test_accuracy")}
    return metrics | {path.name: path.read_bytes() for path in run.glob("model_*.npz")}


@pytest.mark.parametrize("damage", ["cut short", "replaced", "deleted"])
@pytest.mark.parametrize("is_mapped", [True, False])
def test_run_with_cache_file_changed_meanwhile_has_same_results_or_is_refused(
    attempt: Command,
    workplace: Path,
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
    is_mapped: bool,
) -> None:
    """Only a truncated memory-mapped file ends the run, with an error and not with SIGBUS."""
    write_idx(workplace / "data")
    if is_mapped:
        monkeypatch.setattr(cache_entry, "MAX_COPIED_BYTES", 0)
    overrides = "dataset=mnist", f"backend={backend}", "epochs=4", "batch_size=4", "plots=false"
    attempt("run", *overrides, "hydra.run.dir=expected").is_done()
    _decode.cache_clear()
    real, calls = Part.check_file, iter(range(1000))

    def check_file(part: Part) -> None:
        if next(calls) == 5:
            (path,) = (workplace / "data/cache").glob("mnist-*/train_inputs.npy")
            if damage == "cut short":
                os.truncate(path, 0)
            elif damage == "replaced":
                path.with_name("new").write_bytes(b"")
                path.with_name("new").replace(path)
            else:
                shutil.rmtree(path.parent)
        real(part)

    monkeypatch.setattr(Part, "check_file", check_file)
    monkeypatch.setattr(numpy_loader, "EVALUATION_BATCH_SIZE", 8)
    result = attempt("run", *overrides, "hydra.run.dir=out")
    if is_mapped and damage == "cut short":
        result.is_refused(3, "truncated to 0 bytes while it was in use")
        summary = json.loads((workplace / "out/summary.json").read_text())
        assert summary["status"] == "failed"
        assert (workplace / "out/model_last.npz").exists()
    else:
        result.is_done()
        assert results(workplace / "out") == results(workplace / "expected")


def test_data_list_command_escapes_names(attempt: Command, workplace: Path) -> None:
    root = workplace / "a\x1b[31mb\nc"
    write_idx(root)
    (root / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    out = attempt("data", "list", "--root", str(root)).out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 5
    refused = attempt("data", "verify", "mnist", "--root", str(root))
    refused.is_refused(3)
    assert len(re.findall("^nnopt: error: ", refused.err, re.M)) == 1


@pytest.mark.parametrize(
    ("dataset", "archive"),
    [("cifar10", "cifar-10-python.tar.gz"), ("fashion_mnist", "fashion-mnist.zip")],
)
def test_message_about_packed_archive_advises_to_unpack_it(
    attempt: Command, workplace: Path, dataset: str, archive: str
) -> None:
    (workplace / "data").mkdir()
    (workplace / "data" / archive).write_bytes(b"")
    attempt("run", f"dataset={dataset}").is_refused(
        3, f"unpack {archive} if it contains the dataset"
    )
    assert "unpack" not in attempt("run", "dataset=mnist").err
