"""``nnopt data show``: counts of classes, drawn samples, augmented samples, and files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import write_idx

from nnopt.cli.data_show import to_bytes
from nnopt.data import published
from nnopt.data.dataset import Normalization
from nnopt.data.dataset_files import sha256

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]
Grids = list[tuple[str, np.ndarray, list[tuple[str, ...]]]]

NO_VALIDATION = ("dataset.validation.source=none", "test_weights=last")


@pytest.fixture
def mnist(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, np.ndarray]:
    """Write a small MNIST with 4 training and 2 test images of each class."""
    root = tmp_path / "data"
    arrays = write_idx(root)
    known = {
        name: sha256((root / "MNIST/raw" / name).read_bytes()) for name in published.MNIST.sha256
    }
    monkeypatch.setitem(published.PUBLISHED, "mnist", replace(published.MNIST, sha256=known))
    monkeypatch.setenv("NNOPT_DATA_DIR", str(root))
    return arrays


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch) -> Grids:
    """Return a list that receives the drawn images: caption, images (N, C, H, W), classes."""
    drawn: Grids = []

    def keep(found: Grids, title: str, path: Path) -> None:
        drawn.extend(found)

    monkeypatch.setattr("nnopt.plots.data.plot_images", keep)
    return drawn


def table(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()]


def test_shown_counts_are_those_of_the_files(
    nnopt: Run, mnist: dict[str, np.ndarray], grids: Grids, capsys: Captured
) -> None:
    assert nnopt("data", "show", "mnist", *NO_VALIDATION, "dataset.classes=[7]") == 0
    assert capsys.readouterr().out.splitlines()[3] == "mnist: images of 1x4x4, 1 class"
    assert nnopt("data", "show", "mnist", *NO_VALIDATION, "dataset.classes=[7,2]") == 0
    assert table(capsys.readouterr().out)[:4] == [
        ["class", "training", "test"],
        ["7", "4", "2"],
        ["2", "4", "2"],
        ["total", "8", "4"],
    ]


def test_shown_counts_of_generated_points_include_the_validation_part(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    small = ("dataset.classes=2", "dataset.samples_per_class=10", "dataset.validation.fraction=0.2")
    assert nnopt("data", "show", "spiral", *small) == 0
    lines = table(capsys.readouterr().out)
    assert lines[0] == ["class", "training", "validation", "test"]
    assert lines[1] == ["arm", "1", "8", "2", "10"]
    assert lines[3] == ["total", "16", "4", "20"]
    assert (workplace / "data_spiral.png").read_bytes()[:4] == b"\x89PNG"


def test_shown_images_are_training_images_with_their_classes(
    nnopt: Run, mnist: dict[str, np.ndarray], grids: Grids
) -> None:
    assert nnopt("data", "show", "mnist", *NO_VALIDATION) == 0
    ((_, images, names),) = grids
    assert images.shape == (16, 1, 4, 4)
    pixels, labels = mnist["train-images-idx3-ubyte"], mnist["train-labels-idx1-ubyte"]
    found = [np.flatnonzero((pixels == image[0]).all(axis=(1, 2))) for image in images]
    assert all(len(rows) == 1 for rows in found)
    assert len({int(rows[0]) for rows in found}) == 16
    assert names == [(str(labels[rows[0]]),) for rows in found]


@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_augmented_images_are_the_same_images_flipped(
    nnopt: Run, mnist: dict[str, np.ndarray], grids: Grids, batch_size: int
) -> None:
    flips = ("regularizer.augmentation.flip=true", f"batch_size={batch_size}", "seed=3")
    assert nnopt("data", "show", "mnist", *NO_VALIDATION, *flips) == 0
    (_, images, names), (_, augmented, same_names) = grids
    assert same_names == names
    assert augmented.shape == images.shape
    are_flipped = [
        bool((a == image[..., ::-1]).all()) for a, image in zip(augmented, images, strict=True)
    ]
    are_equal = [bool((a == image).all()) for a, image in zip(augmented, images, strict=True)]
    assert [a != b for a, b in zip(are_flipped, are_equal, strict=True)] == [True] * 16
    assert 0 < sum(are_flipped) < 16


def test_mixed_images_have_the_fractions_of_both_classes(
    nnopt: Run, mnist: dict[str, np.ndarray], grids: Grids
) -> None:
    mixup = "regularizer.augmentation.mixup=1"
    assert nnopt("data", "show", "mnist", *NO_VALIDATION, mixup, "batch_size=40") == 0
    (_, images, names), (_, mixed, labels) = grids
    means = {
        digit: mnist["train-images-idx3-ubyte"][mnist["train-labels-idx1-ubyte"] == int(digit)]
        for digit in "0123456789"
    }
    assert any(len(texts) == 2 for texts in labels)
    for image, (name,), mixture, texts in zip(images, names, mixed, labels, strict=True):
        fractions = [float(text.split()[0]) for text in texts if " " in text]
        assert fractions == sorted(fractions, reverse=True)
        parts = {text.split()[1]: float(text.split()[0]) for text in texts if " " in text}
        if not parts:
            assert texts == (name,)
            continue
        assert sum(parts.values()) == pytest.approx(1)
        (other,) = parts.keys() - {name}
        candidates = parts[name] * image[0] + parts[other] * means[other]
        # Fractions with two decimals change a pixel by at most 0.005 * 255.
        assert np.abs(candidates - mixture[0]).max(axis=(1, 2)).min() < 0.005 * 255 + 0.6


@pytest.mark.parametrize(
    "setting", ["crop=1", "flip=true", "cutout=2", "mixup=1", "cutmix=1", "cutout=2 drop_last=true"]
)
def test_images_of_every_augmentation_are_drawn(
    nnopt: Run, mnist: dict[str, np.ndarray], grids: Grids, setting: str
) -> None:
    """With drop_last, a training on 40 images would have no batch of 64."""
    word, *others = setting.split()
    words = (f"regularizer.augmentation.{word}", "batch_size=64", *others)
    assert nnopt("data", "show", "mnist", *NO_VALIDATION, *words) == 0
    (_, images, _), (_, augmented, _) = grids
    assert augmented.shape == images.shape
    assert (augmented != images).any()


@pytest.mark.slow
def test_augmentation_policy_is_shown_with_pytorch(
    nnopt: Run, mnist: dict[str, np.ndarray], grids: Grids
) -> None:
    chosen = ("backend=torch", "regularizer.augmentation.policy=trivial_augment")
    assert nnopt("data", "show", "mnist", *NO_VALIDATION, *chosen) == 0
    (_, images, names), (_, augmented, same_names) = grids
    assert same_names == names
    assert augmented.shape == images.shape
    assert (augmented != images).any()


def test_pixels_are_recovered_from_normalized_images() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3).transpose(2, 0, 1)[None]
    scale = np.array([1 / 61.3, 1 / 255, 1.0], dtype=np.float32)
    shift = np.array([-120.7 / 61.3, 0.5, 0.0], dtype=np.float32)
    normalization = Normalization(scale, shift)
    x = pixels.astype(np.float32) * scale.reshape(3, 1, 1) + shift.reshape(3, 1, 1)
    np.testing.assert_array_equal(to_bytes(x, normalization), pixels)


def test_default_picture_never_replaces_a_file(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    for name in ("data_moons.png", "data_moons-2.png"):
        assert nnopt("data", "show", "moons") == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"wrote {name}"
    assert {x.name for x in workplace.iterdir()} == {"data_moons.png", "data_moons-2.png"}
    assert nnopt("data", "show", "moons", "--out", "a.svg") == 0
    capsys.readouterr()
    assert nnopt("data", "show", "moons", "--out", "a.svg") == 0
    assert capsys.readouterr().out.endswith("wrote a.svg, which replaces an earlier file\n")
    assert (workplace / "a.svg").read_text("utf-8").startswith("<?xml")


def test_features_of_csv_file_have_the_names_of_their_columns(
    nnopt: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{n},{n * n},{n % 7},{'ab'[n % 2]}" for n in range(40)]
    (workplace / "t.csv").write_text("\n".join(["length,width,height,label", *rows]))
    drawn: list[Any] = []
    monkeypatch.setattr("nnopt.plots.data.plot_features", lambda *x: drawn.extend(x))
    assert nnopt("data", "show", "csv", "dataset.train=t.csv", *NO_VALIDATION) == 0
    (features, labels), classes, names, dataset, _ = drawn
    assert (tuple(names), tuple(classes), dataset) == (
        ("length", "width", "height"),
        ("a", "b"),
        "csv",
    )
    np.testing.assert_array_equal(features[:, 1], features[:, 0] ** 2)
    np.testing.assert_array_equal(labels, features[:, 0] % 2)


def write_csv(path: Path, rows: list[str], header: str = "length,width,label") -> None:
    path.write_text("\n".join([header, *rows]))


def test_class_without_test_samples_has_the_count_0(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    write_csv(workplace / "t.csv", [f"{n},{n % 7},{'ab'[n % 2]}" for n in range(20)])
    write_csv(workplace / "test.csv", [f"{n + 30},{n % 7},a" for n in range(5)])
    files = ("dataset.train=t.csv", "dataset.test=test.csv")
    assert nnopt("data", "show", "csv", *files, *NO_VALIDATION) == 0
    assert table(capsys.readouterr().out)[1:3] == [["a", "10", "5"], ["b", "10", "0"]]


@pytest.mark.parametrize("most", [2, 3])
def test_counts_of_many_classes_are_listed_in_part(
    nnopt: Run,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    most: int,
) -> None:
    monkeypatch.setattr("nnopt.cli.data_show.MAX_CLASSES", most)
    assert nnopt("data", "show", "spiral", "dataset.samples_per_class=10") == 0
    output = capsys.readouterr().out
    assert [line.split()[:2] for line in output.splitlines()[1 : 1 + most]] == [
        ["arm", str(n)] for n in range(1, 1 + most)
    ]
    assert output.splitlines()[1 + most].startswith("total")
    notes = [line for line in output.splitlines() if line.endswith("listed")]
    assert notes == (["1 more class is not listed"] if most == 2 else [])


def test_single_feature_is_drawn_as_a_histogram(
    nnopt: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(workplace / "t.csv", [f"{n % 9},{'ab'[n % 2]}" for n in range(20)], "length,label")
    drawn: list[Any] = []
    monkeypatch.setattr("nnopt.plots.data.plot_features", lambda *x: drawn.extend(x))
    assert nnopt("data", "show", "csv", "dataset.train=t.csv", *NO_VALIDATION) == 0
    assert drawn[0][0].shape[1] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "required: NAME;"),
        (("nothing",), 2, "dataset = 'nothing': allowed: cifar10"),
        (("epochs=3",), 2, "NAME = 'epochs=3': needs the name of a dataset"),
        (("moons", "dataset=spiral"), 2, "dataset=spiral chooses a dataset, but NAME = 'moons'"),
        (("moons", "regularizer=augmentation"), 2, "regularizer.augmentation.flip = True needs"),
        (("moons", "dataset.noise=-1", "epochs=0"), 2, "epochs = 0"),
        (("moons", "--out", "a.jpg"), 2, "--out = 'a.jpg': needs a file name that ends with .png"),
        (("moons", "--out", "no/a.png"), 6, "the folder no does not exist"),
        (("mnist",), 3, "nnopt data fetch mnist"),
    ],
)
def test_wrong_command_is_reported_before_a_file_is_written(
    nnopt: Run, workplace: Path, capsys: Captured, arguments: tuple[str, ...], code: int, text: str
) -> None:
    assert nnopt("data", "show", *arguments) == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.out == ""
    assert list(workplace.iterdir()) == []
