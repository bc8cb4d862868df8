"""Loading of datasets: splits, selections, normalization and the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    csv_config,
    data_config,
    image_config,
    spiral_config,
    write_cinic,
    write_idx,
)

from nnopt.data import cache_entry, load
from nnopt.data.dataset import Dataset, Part
from nnopt.data.load import _decode, split
from nnopt.errors import ConfigError, DataError
from nnopt.schema import DataConfig, Validation

NO_DATA = DataConfig("nowhere", "nowhere/cache", False)


def rows(part: Part | None) -> set[int]:
    assert part is not None
    assert part.rows.dtype == np.int64
    assert np.all(np.diff(part.rows) > 0)
    return set(part.rows.tolist())


def seen(dataset: Dataset, part: Part) -> np.ndarray:
    """Return the normalized inputs of a part, (N, C, ...)."""
    values = part.inputs[part.rows].astype(np.float64)
    if values.ndim == 2:
        return dataset.normalization.of_features(values)
    ends = (1,) * (values.ndim - 2)
    scale, shift = dataset.normalization.scale, dataset.normalization.shift
    return values * scale.reshape(-1, *ends) + shift.reshape(-1, *ends)


def write_csv(root: Path, count: int = 40, classes: int = 4) -> None:
    lines = [f"{k % classes},{k},{k * k % 7},5" for k in range(count)]
    (root / "train.csv").write_text("\n".join(["label,a,b,constant", *lines]) + "\n")


def test_loading_generated_data_imports_no_heavy_package() -> None:
    code = (
        "import sys, nnopt.data\n"
        "from nnopt.schema import *\n"
        "rule = Validation('train', .2)\n"
        "config = SpiralConfig('spiral', None, 'standard', rule, 3, 20, .1, 0)\n"
        "nnopt.data.load(config, DataConfig('x', 'x/cache', False), 0)\n"
        "print([m for m in ('torch', 'pandas', 'PIL', 'pooch', 'scipy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_validation_part_is_split_off_the_training_part() -> None:
    dataset = load(spiral_config(), NO_DATA, seed=0)
    assert (len(dataset.train), len(dataset.test)) == (120, 150)
    assert rows(dataset.train) | rows(dataset.validation) == set(range(150))
    assert not rows(dataset.train) & rows(dataset.validation)
    assert dataset.validation is not None
    assert dataset.validation.inputs is dataset.train.inputs
    assert np.bincount(dataset.validation.labels[dataset.validation.rows]).tolist() == [10] * 3
    assert dataset.input_shape == (2,)
    assert not dataset.is_image
    assert dataset.sources == {}


def test_validation_part_is_split_off_the_test_part() -> None:
    dataset = load(spiral_config(validation=Validation("test", 0.4)), NO_DATA, seed=0)
    assert len(dataset.train) == 150
    assert rows(dataset.test) | rows(dataset.validation) == set(range(150))
    assert not rows(dataset.test) & rows(dataset.validation)
    assert dataset.validation is not None
    assert len(dataset.validation) == 60
    assert dataset.validation.inputs is dataset.test.inputs


def test_validation_source_none_gives_no_validation_part() -> None:
    dataset = load(spiral_config(validation=Validation("none", 0.4)), NO_DATA, seed=0)
    assert dataset.validation is None
    assert (len(dataset.train), len(dataset.test)) == (150, 150)


def test_split_depends_on_run_seed_and_points_depend_on_dataset_seed() -> None:
    one, again, other, points = (
        load(spiral_config(seed=points), NO_DATA, seed)
        for seed, points in ((0, 0), (0, 0), (1, 0), (0, 1))
    )
    assert again.train.inputs is one.train.inputs  # not decoded again
    assert other.train.inputs is one.train.inputs
    assert rows(one.train) != rows(other.train)
    assert not np.array_equal(one.train.inputs, points.train.inputs)


def test_loaded_arrays_are_read_only(tmp_path: Path) -> None:
    write_idx(tmp_path)
    for dataset in (
        load(spiral_config(), NO_DATA, 0),
        load(image_config("mnist"), data_config(tmp_path), 0),
    ):
        for array in (dataset.train.inputs, dataset.test.labels, dataset.train.rows):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_loaded_images_are_uint8(tmp_path: Path, name: str) -> None:
    write_idx(tmp_path, "MNIST/raw" if name == "mnist" else "FashionMNIST/raw")
    dataset = load(image_config(name), data_config(tmp_path), seed=0)
    assert dataset.train.inputs.dtype == np.uint8
    assert dataset.is_image
    assert (len(dataset.train), len(dataset.test)) == (32, 20)
    assert len(dataset.sources) == 4
    assert seen(dataset, dataset.train).max() <= 1


def test_dataset_in_the_cache_is_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("decoded a second time")

    write_idx(tmp_path)
    first = load(image_config("mnist"), data_config(tmp_path), seed=0)
    monkeypatch.setattr("nnopt.data.idx._decode", fail)
    _decode.cache_clear()
    second = load(image_config("mnist"), data_config(tmp_path), seed=0)
    assert np.array_equal(second.train.inputs, first.train.inputs)


def test_selected_classes_are_renumbered(tmp_path: Path) -> None:
    arrays = write_idx(tmp_path)
    config = image_config("mnist", classes=(7, "3"), validation=Validation("none", 0.1))
    dataset = load(config, data_config(tmp_path), seed=0)
    assert dataset.classes == ("7", "3")
    labels = arrays["train-labels-idx1-ubyte"]
    assert rows(dataset.train) == set(np.flatnonzero((labels == 7) | (labels == 3)).tolist())
    assert np.array_equal(
        dataset.train.labels, np.where(labels == 7, 0, np.where(labels == 3, 1, -1))
    )
    assert len(dataset.train.inputs) == 40  # all images: the selected ones are not copied


def test_subset_changes_only_training_rows(tmp_path: Path) -> None:
    write_idx(tmp_path)
    whole = load(image_config("mnist"), data_config(tmp_path), seed=3)
    part = load(image_config("mnist", subset=20), data_config(tmp_path), seed=3)
    assert rows(part.train) < rows(whole.train)
    assert len(part.train) == 20
    assert rows(part.validation) == rows(whole.validation)
    assert rows(part.test) == rows(whole.test)
    with pytest.raises(ConfigError, match=r"dataset\.subset=33: the training part has 32"):
        load(image_config("mnist", subset=33), data_config(tmp_path), seed=3)


def test_validation_part_of_cinic10_is_used(tmp_path: Path) -> None:
    arrays = write_cinic(tmp_path)
    own = Validation("own", 0.1)
    dataset = load(image_config("cinic10", validation=own), data_config(tmp_path), seed=0)
    assert dataset.validation is not None
    assert rows(dataset.validation) == set(range(20))
    assert np.array_equal(dataset.validation.inputs, arrays["valid"].transpose(0, 3, 1, 2))
    write_idx(tmp_path)
    with pytest.raises(ConfigError, match=r"validation\.source=own: mnist has no"):
        load(image_config("mnist", validation=own), data_config(tmp_path), seed=0)


def test_standard_normalization_of_images_uses_all_training_images(tmp_path: Path) -> None:
    write_cinic(tmp_path)
    config = image_config(
        "cinic10", normalization="standard", validation=Validation("none", 0.1), subset=None
    )
    dataset = load(config, data_config(tmp_path), seed=0)
    values = seen(dataset, dataset.train)
    assert np.abs(values.mean(axis=(0, 2, 3))).max() < 1e-12
    assert np.abs(values.var(axis=(0, 2, 3)) - 1).max() < 1e-12
    # The statistics cover all training images: subset and classes do not change them.
    small = load(replace(config, subset=3, classes=(0, 1)), data_config(tmp_path), seed=0)
    assert np.array_equal(small.normalization.scale, dataset.normalization.scale)


def test_normalization_of_features_uses_training_rows(tmp_path: Path) -> None:
    write_csv(tmp_path)
    config = csv_config("train.csv", normalization="standard")
    dataset = load(config, data_config(tmp_path), seed=0)
    values = seen(dataset, dataset.train)
    assert np.abs(values.mean(axis=0)).max() < 1e-12
    assert np.abs(values[:, :2].var(axis=0) - 1).max() < 1e-12
    assert not values[:, 2].any()  # a constant feature becomes zero
    values = seen(
        load(replace(config, normalization="unit"), data_config(tmp_path), 0), dataset.train
    )
    assert values[:, :2].min(axis=0) == pytest.approx([0, 0])
    assert values[:, :2].max(axis=0) == pytest.approx([1, 1])
    values = seen(
        load(replace(config, normalization="none"), data_config(tmp_path), 0), dataset.train
    )
    assert np.array_equal(values, dataset.train.inputs[dataset.train.rows])


def test_single_csv_file_is_split(tmp_path: Path) -> None:
    write_csv(tmp_path)
    config = csv_config("train.csv", validation=Validation("train", 0.2))
    one, other = (load(config, data_config(tmp_path), seed) for seed in (0, 1))
    assert [len(rows(part)) for part in (one.train, one.validation, one.test)] == [24, 6, 10]
    assert rows(one.train) | rows(one.validation) | rows(one.test) == set(range(40))
    assert rows(one.test) != rows(other.test)
    assert len(list((tmp_path / "cache").glob("csv-*"))) == 1  # all seeds share one entry


def test_pixel_normalization_excludes_test_rows(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, 40)
    lines = [f"{k % 2},{value}" for k, value in enumerate(values)]
    (tmp_path / "train.csv").write_text("\n".join(["label,pixel1", *lines]))
    config = csv_config("train.csv", normalization="standard")
    dataset = load(config, data_config(tmp_path), seed=0)
    assert dataset.input_shape == (1, 1, 1)
    assert np.abs(seen(dataset, dataset.train).mean()) < 1e-12


def test_relative_path_starts_at_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = csv_config("train.csv")
    for name, count in (("one", 20), ("two", 28)):
        (tmp_path / name).mkdir()
        write_csv(tmp_path / name, count)
        monkeypatch.chdir(tmp_path / name)
        dataset = load(config, DataConfig("data", "data/cache", False), seed=0)
        assert len(dataset.train.inputs) == count


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"validation": Validation("train", 0.01)},
            DataError,
            "fraction=0.01 of 30 samples takes 0",
        ),
        (
            {"validation": Validation("test", 0.99)},
            DataError,
            "of 10 samples takes 10 and leaves 0",
        ),
        ({"test_fraction": 0.001}, DataError, "test_fraction=0.001 of 40 samples takes 0"),
        ({"subset": 3}, DataError, r"3 training sample\(s\) for 4 classes"),
        ({"classes": ("x",)}, ConfigError, "no class 'x'"),
    ],
)
def test_too_few_samples_are_refused(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    write_csv(tmp_path)
    with pytest.raises(error, match=message):
        load(csv_config("train.csv", **changes), data_config(tmp_path), seed=0)


def test_part_without_selected_class_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (tmp_path / "test.csv").write_text("label,a,b,constant\n0,1,2,3\n")
    config = csv_config("train.csv", test="test.csv", classes=("1", "2"))
    with pytest.raises(DataError, match="csv: 0 samples in the test part"):
        load(config, data_config(tmp_path), seed=0)


@pytest.mark.parametrize("name", ["with space", "ünïcode", "a=b,c", "new\nline", "x" * 200])
def test_data_at_unusual_paths_are_read(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    with pytest.raises(DataError) as caught:
        load(image_config("mnist"), data_config(root), seed=0)
    assert "\n" not in str(caught.value)
    write_idx(root)
    assert len(load(image_config("mnist"), data_config(root), seed=0).train) == 32


def test_data_at_path_that_is_not_utf8_are_read(tmp_path: Path) -> None:
    root = tmp_path / "\udcff"
    root.mkdir()
    write_csv(root)
    dataset = load(csv_config("train.csv"), data_config(root), seed=0)
    assert len(dataset.train) == 30


# a memory-mapped file that is truncated -----------------------------------------------------------


@pytest.mark.parametrize("normalization", ["standard", "unit", "none"])
@pytest.mark.parametrize("name", ["x", "pixel1"])
def test_split_that_reads_truncated_mapped_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, normalization: str
) -> None:
    monkeypatch.setattr(cache_entry, "MAX_COPIED_BYTES", 0)
    lines = [f"{k % 2},{k % 200}" for k in range(5_000)]
    (tmp_path / "train.csv").write_text("\n".join([f"label,{name}", *lines]) + "\n")
    config = csv_config("train.csv", normalization=normalization)
    decoded = _decode(config, data_config(tmp_path), str(tmp_path))
    (path,) = (tmp_path / "cache").glob("csv-*/train_inputs.npy")
    os.truncate(path, 300)
    if name == "pixel1" and normalization != "standard":
        split(decoded, config, seed=0)  # reads no image
    else:
        with pytest.raises(DataError, match="truncated to 300 bytes"):
            split(decoded, config, seed=0)
