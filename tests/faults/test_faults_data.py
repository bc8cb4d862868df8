"""Readable files with data that are unsuitable for training.

``test_cases_csv.py`` tests CSV files.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import Command
from data_files import idx_bytes, write_idx

from nnopt.data import idx, published
from nnopt.data.published import FASHION_MNIST

QUICK = ("dataset=mnist", "epochs=1", "max_steps=1", "plots=false", "hydra.run.dir=out")
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def write_part(root: Path, part: str, labels: list[int], side: int = 4) -> None:
    """Write random images with these labels."""
    folder = root / "MNIST/raw"
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    arrays = random.integers(0, 256, (len(labels), side, side)), np.array(labels)
    for file, array in zip(FILES[part], arrays, strict=True):
        (folder / file).write_bytes(idx_bytes(array))


TEN = list(range(10))

REFUSED: dict[str, tuple[list[int], list[int], list[str], list[str]]] = {
    "label 10": ([*TEN, 10], TEN, [], ["label 10 at index 10", "allowed are 0 to 9"]),
    "labels 1 to 10": (TEN, [*range(1, 11)], [], ["t10k-labels", "label 10 at index 9"]),
    "label 255": ([255, *TEN], TEN, [], ["label 255 at index 0"]),
    "no sample": ([], TEN, [], ["has no images"]),
    "no test sample": (TEN, [], [], ["0 samples in the test part"]),
    "one sample": (
        [3],
        TEN,
        ["dataset.validation.source=none", "test_weights=last"],
        ["1 training sample(s) for 10 classes"],
    ),
    "fewer than classes": (TEN * 2, TEN, ["dataset.subset=9"], ["9 training sample(s) for 10"]),
    "no validation sample": (
        TEN,
        TEN,
        ["dataset.validation.fraction=0.01"],
        ["dataset.validation.fraction"],
    ),
}


@pytest.mark.parametrize(("train", "test", "overrides", "fragments"), REFUSED.values(), ids=REFUSED)
def test_run_with_impossible_data_is_refused(
    attempt: Command,
    workplace: Path,
    backend: str,
    train: list[int],
    test: list[int],
    overrides: list[str],
    fragments: list[str],
) -> None:
    write_part(workplace / "data", "train", train)
    write_part(workplace / "data", "test", test)
    result = attempt("run", f"backend={backend}", *QUICK, *overrides)
    result.is_refused(3, *fragments)
    assert not (workplace / "out").exists()


WARNED: dict[str, tuple[list[int], list[int], list[str], str]] = {
    "class without training sample": (TEN[1:] * 4, TEN, [], "no training sample of class 0"),
    "class without test sample": (TEN * 4, TEN[:9], [], "no test sample of class 9"),
    "one class": (TEN * 40, TEN, ["dataset.classes=[3]"], "3 is the only class"),
}


@pytest.mark.parametrize(("train", "test", "overrides", "message"), WARNED.values(), ids=WARNED)
def test_run_without_samples_of_a_class_reports_the_class(
    attempt: Command,
    workplace: Path,
    backend: str,
    caplog: pytest.LogCaptureFixture,
    train: list[int],
    test: list[int],
    overrides: list[str],
    message: str,
) -> None:
    write_part(workplace / "data", "train", train)
    write_part(workplace / "data", "test", test)
    with caplog.at_level(logging.WARNING, "nnopt"):
        attempt("run", f"backend={backend}", *QUICK[:-2], *QUICK[-1:], *overrides).is_done()
    assert message in caplog.text
    summary = json.loads((workplace / "out/summary.json").read_text())
    assert summary["test_loss"] is not None


def test_run_with_images_of_different_shapes_is_refused(
    attempt: Command, workplace: Path, backend: str
) -> None:
    """The message names both shapes."""
    write_part(workplace / "data", "train", TEN)
    write_part(workplace / "data", "test", TEN, side=5)
    result = attempt("run", f"backend={backend}", *QUICK)
    result.is_refused(3, "(1, 4, 4)", "(1, 5, 5)")


def test_run_with_images_too_small_for_network_is_refused(
    attempt: Command, workplace: Path
) -> None:
    """The images are too small for the pooling layers of the network."""
    write_idx(workplace / "data")
    attempt("run", *QUICK, "architecture=vgg").is_refused(2, "max_pool2d3", "use larger images")


def test_run_with_permuted_labels_reports_accuracy_at_chance_level(
    attempt: Command, workplace: Path, backend: str
) -> None:
    """Only a training accuracy at chance level reveals permuted labels."""
    labels = np.random.default_rng(1).permutation(np.arange(400) % 2).tolist()
    write_part(workplace / "data", "train", labels)
    write_part(workplace / "data", "test", TEN)
    overrides = "dataset=mnist", "dataset.classes=[0,1]", "architecture.hidden=[]", "epochs=20"
    quick = "plots=false", "optimizer=sgd", "optimizer.lr=1e-4", "dataset.normalization=unit"
    attempt("run", f"backend={backend}", *overrides, *quick, "hydra.run.dir=out").is_done(
        "is not above chance", "inputs and labels are in the same order", "optimizer.lr than 0.0001"
    )
    assert "is not above chance" in (workplace / "out/run.log").read_text()


def test_run_that_learns_gives_no_warning(attempt: Command, backend: str) -> None:
    """A run of one step, which cannot learn, gives no warning either."""
    for overrides in (["epochs=20"], ["epochs=1", "max_steps=1"]):
        result = attempt("run", f"backend={backend}", *overrides, "plots=false")
        result.is_done("test accuracy")
        assert "above chance" not in result.out + result.err


@pytest.mark.parametrize("folder", ["MNIST/raw", "mnist", "."])
def test_run_with_files_of_other_dataset_is_refused(
    attempt: Command,
    workplace: Path,
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
) -> None:
    """The files of MNIST and Fashion-MNIST have the same names and shapes, but other content."""
    write_idx(workplace / "data", folder)
    content = (workplace / "data" / folder / FILES["train"][1]).read_bytes()
    known = {**FASHION_MNIST.sha256, FILES["train"][1]: idx.sha256(content)}
    changed = replace(FASHION_MNIST, sha256=known)
    monkeypatch.setitem(published.PUBLISHED, "fashion_mnist", changed)
    attempt("run", f"backend={backend}", *QUICK).is_refused(
        3, "is train-labels-idx1-ubyte of fashion_mnist", "set dataset=fashion_mnist"
    )
