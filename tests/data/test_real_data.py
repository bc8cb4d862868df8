"""The published files in NNOPT_DATA_DIR."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from data_files import image_config

from nnopt.data import load
from nnopt.data.dataset import Dataset
from nnopt.data.load import locate_published
from nnopt.data.published import PUBLISHED
from nnopt.errors import DataError
from nnopt.schema import DataConfig, Validation

pytestmark = pytest.mark.data

# Mean and standard deviation per channel, divided by 255, as in many papers.
KNOWN = {
    "mnist": ([0.1307], [0.3081]),
    "fashion_mnist": ([0.2860], [0.3530]),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
}


def load_real(name: str, cache: Path, source: str) -> Dataset:
    root = os.environ.get("NNOPT_DATA_DIR")
    if not root:
        pytest.skip("NNOPT_DATA_DIR is not set: the published datasets are not here")
    try:
        locate_published(name, Path(root))
    except DataError as error:
        pytest.skip(f"{name} is not under NNOPT_DATA_DIR: {error}")
    rule = Validation(source, 0.1)  # type: ignore[arg-type]
    config = image_config(name, normalization="standard", validation=rule)
    return load(config, DataConfig(root, str(cache), False), seed=0)


@pytest.mark.parametrize("name", KNOWN)
def test_published_datasets_have_the_published_contents(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = load_real(name, tmp_path, "train")
    parts = PUBLISHED[name].parts
    assert dataset.input_shape == PUBLISHED[name].shape
    assert (len(dataset.train), len(dataset.test)) == (0.9 * parts["train"], parts["test"])
    assert not caplog.messages  # all files have the published checksums
    mean, std = KNOWN[name]
    assert -dataset.normalization.shift / dataset.normalization.scale / 255 == pytest.approx(
        mean, abs=1e-4
    )
    assert 1 / dataset.normalization.scale / 255 == pytest.approx(std, abs=1e-4)
    counts = np.bincount(dataset.test.labels)
    if name != "mnist":  # In MNIST, some digits are more frequent than others.
        assert counts.tolist() == [1000] * 10
    else:
        assert counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_first_images_of_cifar10_have_the_known_labels(tmp_path: Path) -> None:
    dataset = load_real("cifar10", tmp_path, "none")
    names = [dataset.classes[label] for label in dataset.train.labels[:3]]
    assert names == ["frog", "truck", "truck"]
    assert dataset.train.inputs[0, :, 0, 0].tolist() == [59, 62, 63]


def test_classes_of_cinic10_have_equal_numbers_of_images(tmp_path: Path) -> None:
    dataset = load_real("cinic10", tmp_path, "own")
    assert dataset.input_shape == (3, 32, 32)
    assert dataset.validation is not None
    for part in (dataset.train, dataset.validation, dataset.test):
        counts = np.bincount(part.labels[part.rows], minlength=10)
        assert counts.min() == counts.max()
