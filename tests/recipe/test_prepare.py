"""Configurations that are refused because of the shape or the number of the samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nnopt import schema
from nnopt.errors import ConfigError, DataError
from nnopt.recipe.prepare import planned_length, prepare, prepare_without_data
from nnopt.schema import Config
from nnopt.training.length import Length

MakeConfig = Callable[..., Config]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_steps": 10_000}, ["max_steps = 10000", "epochs = 60"]),
        (
            {"max_steps": 5, "schedule": schema.ConstantConfig("constant", 2.0)},
            ["warmup_epochs = 2", "5 steps"],
        ),
        (
            {"schedule": schema.ConstantConfig("constant", 61.0)},
            ["warmup_epochs = 61", "480 steps"],
        ),
        (
            {"schedule": schema.MultistepConfig("multistep", 0.0, (60.0, 90.0), 0.1)},
            ["schedule.milestones = [60, 90]", ": none has an effect", "lasts 60 epochs"],
        ),
        (
            {"schedule": schema.MultistepConfig("multistep", 0.0, (59.9,), 0.1)},
            ["schedule.milestones = [59.9]", "lasts 60 epochs"],
        ),
        (
            {"schedule": schema.MultistepConfig("multistep", 5.0, (55.0, 56.0), 0.1)},
            ["schedule.milestones", ": none has an effect", "lasts 55 epochs after the warm-up"],
        ),
        (
            {"schedule": schema.CosineRestartsConfig("cosine_restarts", 1.0, 59.5, 2.0, 0.0)},
            ["schedule.first_period = 59.5", "lasts 59 epochs after the warm-up"],
        ),
        (
            {"schedule": schema.CosineRestartsConfig("cosine_restarts", 0.0, 0.1, 2.0, 0.0)},
            ["schedule.first_period = 0.1", "shorter than a step", "at least 0.125"],
        ),
        ({"regularizer.swa_start": 0.99}, ["regularizer.swa_start = 0.99", "60 epochs"]),
        (
            {"regularizer.swa_start": 0.75, "max_steps": 20},
            ["regularizer.swa_start = 0.75", "3 epochs"],
        ),
        ({"batch_size": 5000, "drop_last": True}, ["batch_size = 5000", "drop_last = True"]),
        ({"batch_size": 239, "regularizer.norm": "batch"}, ["batch of 1", "batch_norm1"]),
        ({"batch_size": 1, "regularizer.norm": "batch"}, ["batch of 1", "set a larger batch_size"]),
        (
            {"backend": "torch", "optimizer": "muon", "optimizer.input_layer": "adam"},
            ["optimizer.name = 'muon'", "dense1 and dense2", "optimizer.input_layer=muon"],
        ),
        (
            {"backend": "torch", "optimizer": "muon", "architecture.hidden": ()},
            ["optimizer.name = 'muon'", "of dense1,", "add a hidden layer"],
        ),
        (
            {"batch_size": 9, "accumulation_steps": 5, "regularizer.norm": "batch"},
            ["accumulation_steps = 5", "batch_size = 9", "a batch of 9", "batch_norm1"],
        ),
        (
            {"batch_size": 4, "accumulation_steps": 4, "regularizer.norm": "batch"},
            ["accumulation_steps = 4", "a batch of 4", "a smaller accumulation_steps"],
        ),
    ],
)
def test_error_about_sizes_contains_the_conflicting_settings(
    make_config: MakeConfig, changes: dict[str, Any], expected: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(make_config(**changes))
    (problem,) = caught.value.problems
    assert all(text in problem for text in expected), problem


def with_image_shape(config: Config, folder: Path, shape: tuple[int, ...] | None) -> Config:
    """Return ``config`` with a CSV file of ten samples as its dataset.

    The samples are images of ``shape``, or six features if ``shape`` is None.
    """
    lines = [f"{i % 2}," + ",".join(str(i + j) for j in range(6)) for i in range(10)]
    (folder / "six.csv").write_text("label,a,b,c,d,e,f\n" + "\n".join(lines) + "\n", "utf-8")
    validation = schema.Validation("train", 0.2)
    csv = schema.CsvConfig(
        "csv",
        None,
        "none",
        validation,
        None,
        "six.csv",
        None,
        0.2,
        "label",
        (),
        True,
        None,
        "point",
        shape,
        "chw",
    )
    return replace(config, dataset=csv, data=schema.DataConfig(str(folder), str(folder), False))


def test_cutout_larger_than_image_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    def chosen(cutout: int) -> Config:
        changed = make_config(**with_cutout(cutout))
        return with_image_shape(changed, tmp_path, (1, 2, 3))

    prepare(chosen(2))
    with pytest.raises(ConfigError, match=r"cutout = 3 .* 2 pixels; set at most 2"):
        prepare(chosen(3))


@pytest.mark.parametrize(
    ("key", "value"),
    [("crop", 1), ("flip", True), ("policy", "rand_augment"), ("cutout", 1), ("cutmix", 1.0)],
)
def test_augmentations_other_than_mixup_are_refused_for_features(
    make_config: MakeConfig, tmp_path: Path, key: str, value: Any
) -> None:
    config = make_config(**{f"regularizer.augmentation.{key}": value})
    with pytest.raises(ConfigError, match=r"needs images, .* shape \(6,\)"):
        prepare(with_image_shape(config, tmp_path, None))
    config = make_config(**{"regularizer.augmentation.mixup": 0.4})
    prepare(with_image_shape(config, tmp_path, None))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_augmentation_policy_needs_one_or_three_channels(
    make_config: MakeConfig, tmp_path: Path, channels: int
) -> None:
    chosen = {"regularizer.augmentation.policy": "trivial_augment"}
    config = make_config(backend="torch", **chosen)
    config = with_image_shape(config, tmp_path, (channels, 6 // channels, 1))
    if channels == 2:
        with pytest.raises(ConfigError, match=r"policy = 'trivial_augment' .* 1 channel .* have 2"):
            prepare(config)
    else:
        prepare(config)


def test_test_time_flip_of_features_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(**{"regularizer.test_time_flip": True})
    with pytest.raises(
        ConfigError, match=r"regularizer.test_time_flip = True needs images, .* \(6,\)"
    ):
        prepare(with_image_shape(config, tmp_path, None))
    prepare(with_image_shape(config, tmp_path, (1, 2, 3)))


@pytest.mark.parametrize("pooled", [False, True])
def test_batch_norm_of_one_value_per_channel_is_refused(
    make_config: MakeConfig, tmp_path: Path, pooled: bool
) -> None:
    pool: list[Any] = ["global_avg_pool"] if pooled else []
    layers = ({"conv2d": 2}, *pool, "batch_norm", *["flatten"][pooled:], {"dense": "classes"})
    architecture = schema.LayersConfig("layers", layers)
    config = make_config(architecture=architecture, batch_size=1, drop_last=True)
    config = with_image_shape(config, tmp_path, (1, 2, 3))
    if pooled:
        with pytest.raises(ConfigError, match=r"batch of 1; batch normalization \(batch_norm1\)"):
            prepare(config)
    else:
        prepare(config)


def mnist(**changes: Any) -> schema.ImageConfig:
    validation = schema.Validation("train", 0.1)
    return replace(schema.ImageConfig("mnist", None, "standard", validation, None), **changes)


def with_cutout(cutout: int) -> dict[str, Any]:
    return {"regularizer.augmentation.cutout": cutout}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (with_cutout(29), ["cutout = 29", "mnist", "at most 28"]),
        ({"max_steps": 101_281}, ["max_steps = 101281", "the 101280 steps"]),
        ({"batch_size": 53_999, "regularizer.norm": "batch"}, ["batch of 1", "54000 training"]),
        ({"dataset": mnist(subset=54_001)}, ["subset=54001", "54,000 samples"]),
        (
            {"dataset": mnist(subset=300, classes=(1, 2)), "batch_size": 301, "drop_last": True},
            ["batch_size = 301", "300 training"],
        ),
        ({"dataset": mnist(validation=schema.Validation("own", 0.1))}, ["no validation part"]),
        (
            {
                "backend": schema.TorchConfig(
                    "torch", "float32", "cuda:99", None, False, "full", "off", False
                )
            },
            ["cuda:99"],
        ),
    ],
)
def test_wrong_sizes_for_published_dataset_are_refused_without_its_files(
    make_config: MakeConfig, changes: dict[str, Any], expected: list[str]
) -> None:
    """Published MNIST has 60,000 training images. Validation uses a tenth of them."""
    config = make_config(**{"dataset": mnist(), "batch_size": 32} | changes)
    with pytest.raises(ConfigError) as caught:
        prepare_without_data(config)
    (problem,) = caught.value.problems
    assert all(text in problem for text in expected), problem


@pytest.mark.parametrize(
    "changes",
    [
        with_cutout(28),
        {"max_steps": 101_280},
        {"batch_size": 53_998, "regularizer.norm": "batch"},
        {"dataset": mnist(subset=54_000)},
        {"dataset": mnist(classes=(1, 2)), "batch_size": 100_000, "drop_last": True},
    ],
)
def test_input_shape_of_published_dataset_is_known_without_its_files(
    make_config: MakeConfig, changes: dict[str, Any]
) -> None:
    config = make_config(**{"dataset": mnist(), "batch_size": 32} | changes)
    planned = prepare_without_data(config)
    assert planned is not None
    assert planned.architecture.input_shape == (1, 28, 28)


# without data -------------------------------------------------------------------------------------


GENERATED = (
    schema.SpiralConfig(
        *("spiral", None, "none", schema.Validation("train", 0.15)),
        classes=5,
        samples_per_class=33,
        noise=0.2,
        seed=0,
    ),
    schema.SpiralConfig(
        *("spiral", 40, "none", schema.Validation("test", 0.5)),
        classes=2,
        samples_per_class=31,
        noise=0.2,
        seed=0,
    ),
    schema.TwoClassConfig(
        *("circles", None, "none", schema.Validation("none", 0.5)),
        samples_per_class=7,
        noise=0.1,
        seed=0,
    ),
)


@pytest.mark.parametrize("dataset", GENERATED)
@pytest.mark.parametrize("drop_last", [False, True])
def test_shape_and_length_of_generated_dataset_are_known_without_generating_it(
    make_config: MakeConfig, dataset: schema.DatasetVariant, drop_last: bool
) -> None:
    config = make_config(dataset=dataset, batch_size=8, drop_last=drop_last)
    prepared, planned = prepare(config), prepare_without_data(config)
    assert planned is not None
    assert planned.architecture == prepared.architecture
    assert planned.length == prepared.length == planned_length(config)
    assert planned.shape.classes == len(prepared.dataset.classes)


def test_generating_no_data_is_refused_for_the_same_reasons(make_config: MakeConfig) -> None:
    for changes in (
        {"max_steps": 10_000},
        {"batch_size": 5000, "drop_last": True},
        {"batch_size": 239, "regularizer.norm": "batch"},
        {"dataset.subset": 241},
        {"dataset.validation.source": "own"},
    ):
        config = make_config(**changes)
        errors = []
        for function in (prepare, prepare_without_data):
            with pytest.raises(ConfigError) as caught:
                function(config)
            errors.append(caught.value.problems)
        assert errors[0] == errors[1]


def test_split_without_samples_is_refused_without_data(make_config: MakeConfig) -> None:
    config = make_config(**{"dataset.validation.fraction": 1e-9})
    for function in (prepare, prepare_without_data, planned_length):
        with pytest.raises(DataError, match="takes 0 and leaves 300"):
            function(config)


def test_length_of_csv_training_follows_from_subset_or_steps(make_config: MakeConfig) -> None:
    csv = schema.CsvConfig(
        *("csv", None, "unit", schema.Validation("train", 0.1)),
        classes=None,
        train="absent.csv",
        test=None,
        test_fraction=0.2,
        label=-1,
        drop_columns=(),
        header=True,
        separator=None,
        decimal="point",
        shape=None,
        shape_order="chw",
    )
    config = make_config(dataset=csv, batch_size=10, epochs=3)
    assert prepare_without_data(config) is None
    assert planned_length(config) is None
    assert planned_length(config, 7) == Length(7, 21, 3)
    assert planned_length(replace(config, dataset=replace(csv, subset=95))) == Length(10, 30, 3)
    with pytest.raises(ConfigError, match="max_steps = 22 is more than the 21 steps"):
        planned_length(replace(config, max_steps=22), 7)
