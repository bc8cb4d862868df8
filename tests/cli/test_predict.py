"""``nnopt predict``: the predictions of a run, made again from a copy of its model."""

from __future__ import annotations

import csv
import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnopt.config.compose import compose_config
from nnopt.data import load

Nnopt = Callable[..., int]
Captured = pytest.CaptureFixture[str]

QUICK = ["epochs=2", "plots=false", "progress=none", "evaluation.predictions=true"]
SPIRAL = ["dataset.samples_per_class=20"]


def train(nnopt: Nnopt, *overrides: str) -> None:
    """Train in the folder ``run``, and copy the files of its model to the folder ``copy``."""
    assert nnopt("run", *QUICK, "hydra.run.dir=run", *overrides) == 0
    Path("copy").mkdir()
    for name in ("model.json", "model_best.npz"):
        shutil.copy(Path("run", name), "copy")


def write_table(path: str, rows: int, names: list[str], seed: int, largest: int = 0) -> None:
    """Write a CSV file with a label, and with features or, for ``largest`` above 0, pixels."""
    rng = np.random.default_rng(seed)
    shape = rows, len(names)
    values = rng.integers(0, largest, shape) if largest else rng.standard_normal(shape)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "kind"])
        writer.writerows([*x, "cat" if i % 3 else "dog"] for i, x in enumerate(values.tolist()))


def assert_same_predictions() -> None:
    """Compare ``new.csv`` with the predictions of the run, to the last digit."""
    with open("run/predictions.csv", newline="") as file:
        expected = [[row[0], *row[2:]] for row in csv.reader(file)]  # without the label
    with open("new.csv", newline="") as file:
        assert list(csv.reader(file)) == expected
    assert len(expected) > 2


LAYERS = "[{dense: 8}, {residual: [{dense: 8}, batch_norm, prelu]}, layer_norm, {dense: classes}]"
NETWORKS: dict[str, list[str]] = {
    "residual layers": ["architecture=layers", f"architecture.layers={LAYERS}"],
    "removed units": ["architecture.hidden=[12,8]", "pruning=structured"],
    "hinge loss": ["loss=hinge", "test_weights=last"],
    "automatic rate": ["optimizer.lr=auto", "dataset.samples_per_class=200"],
    "PyTorch": ["backend=torch", "regularizer.dropout=0.2", "optimizer=schedule_free_adamw"],
}


@pytest.mark.parametrize("overrides", NETWORKS.values(), ids=NETWORKS)
def test_copied_model_gives_the_predictions_of_the_run(nnopt: Nnopt, overrides: list[str]) -> None:
    train(nnopt, *SPIRAL, *overrides)
    shutil.copy("run/model_last.npz", "copy")
    config = compose_config([*SPIRAL, *overrides])
    test = load(config.dataset, config.data, config.seed).test
    np.save("x.npy", test.inputs[test.rows])
    assert nnopt("predict", "copy", "x.npy", "--out", "new.csv") == 0
    assert_same_predictions()


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_copied_model_predicts_reordered_columns_without_the_dataset(
    nnopt: Nnopt, backend: str
) -> None:
    for part, seed in (("train", 0), ("test", 1)):
        write_table(f"{part}.csv", 30, ["x", "y", "z"], seed)
    files = ["dataset=csv", "dataset.train=train.csv", "dataset.test=test.csv"]
    train(nnopt, *files, "dataset.label=kind", f"backend={backend}")
    rows = [line.split(",") for line in Path("test.csv").read_text().splitlines()]
    Path("new_inputs.csv").write_text("".join(f"{z},{x},{y}\n" for x, y, z, _ in rows))
    for name in ("train.csv", "test.csv", "cache"):
        if Path(name).exists():
            Path(name).unlink() if Path(name).is_file() else shutil.rmtree(name)
    assert nnopt("predict", "copy", "new_inputs.csv", "--out", "new.csv") == 0
    assert_same_predictions()


def test_convolutional_model_predicts_pixels_and_image_files(
    nnopt: Nnopt, capsys: Captured
) -> None:
    """The images of a folder have the same predictions as the same pixels in a CSV file."""
    names = [f"pixel{i}" for i in range(36)]
    for part, seed in (("train", 0), ("test", 1)):
        write_table(f"{part}.csv", 12, names, seed, 256)
    files = ["dataset=csv", "dataset.train=train.csv", "dataset.test=test.csv"]
    files += ["dataset.label=kind", "dataset.normalization=standard"]
    train(nnopt, *files, "architecture=vgg", "architecture.widths=[4]", "regularizer.norm=batch")
    assert nnopt("predict", "copy", "test.csv", "--out", "new.csv") == 0
    assert "note: test.csv: columns that the model does not use: 'kind'" in capsys.readouterr().out
    assert_same_predictions()

    with open("test.csv", newline="") as file:
        pixels = np.array([row[:36] for row in list(csv.reader(file))[1:]], np.uint8)
    Path("images").mkdir()
    for number, image in enumerate(pixels.reshape(-1, 6, 6)):
        Image.fromarray(image).save(f"images/{number:02}.png")
    with open("new.csv", newline="") as file:
        expected = list(csv.reader(file))
    assert nnopt("predict", "copy", "images", "--out", "of_images.csv") == 0
    with open("of_images.csv", newline="") as file:
        found = list(csv.reader(file))
    assert [row[1] for row in found] == ["file", *(f"{i:02}.png" for i in range(12))]
    assert [[row[0], *row[2:]] for row in found] == expected


def test_run_of_an_earlier_version_is_read_if_its_configuration_allows_it(
    nnopt: Nnopt, capsys: Captured
) -> None:
    train(nnopt, *SPIRAL, "pruning=structured", "architecture.hidden=[12,8]")
    config = compose_config(SPIRAL)
    test = load(config.dataset, config.data, config.seed).test
    np.save("x.npy", test.inputs[test.rows])
    Path("run/model.json").unlink()
    assert nnopt("predict", "run", "x.npy", "--out", "new.csv") == 0
    assert_same_predictions()

    write_table("train.csv", 30, ["x", "y"], 0)
    files = ["dataset=csv", "dataset.train=train.csv", "dataset.label=kind"]
    assert nnopt("run", *QUICK, "hydra.run.dir=table", *files) == 0
    Path("table/model.json").unlink()
    assert nnopt("predict", "table", "train.csv", "--out", "new.csv") == 0
    Path("train.csv").rename("in.csv")
    importlib.import_module("nnopt.data.load")._decode.cache_clear()
    assert nnopt("predict", "table", "in.csv", "--out", "new.csv") == 4
    error = capsys.readouterr().err.splitlines()[-1]
    assert "table has no model.json, because an earlier version wrote the run" in error
    assert "dataset.train=train.csv not found" in error


def changed(name: str, old: bytes, new: bytes) -> Callable[[], None]:
    def change() -> None:
        path = Path("copy", name)
        path.write_bytes(path.read_bytes().replace(old, new))

    return change


def with_value(key: str, change: Callable[[dict], object]) -> Callable[[], None]:  # type: ignore[type-arg]
    """Return a function that changes a value of ``model.json`` and corrects its checksum."""

    def write() -> None:
        from nnopt.results.summary import values_digest

        path = Path("copy/model.json")
        values = json.loads(path.read_text())
        change(values[key])
        path.write_text(json.dumps(values | {"sha256": values_digest(values)}))

    return write


DAMAGE: dict[str, tuple[Callable[[], object], str]] = {
    "no weights": (lambda: Path("copy/model_best.npz").unlink(), "model_best.npz does not exist"),
    "no model.json": (lambda: Path("copy/model.json").unlink(), "summary.json cannot be read"),
    "other weights": (
        lambda: shutil.copy("other/model_best.npz", "copy"),
        "copy/model_best.npz is damaged: its SHA-256 is",
    ),
    "a changed model.json": (changed("model.json", b"relu", b"tanh"), "checksum does not match"),
    "an unknown layer": (
        with_value("architecture", lambda x: x["layers"].insert(1, "relo")),
        "unknown layer 'relo'; did you mean 'relu'?",
    ),
    "a layer of another size": (
        with_value("architecture", lambda x: x["layers"][0]["dense"].update(units=5)),
        "does not fit the layers in copy/model.json: dense1.weight is (64, 2), expected (5, 2)",
    ),
    "an unknown key": (
        with_value("config", lambda x: x.update(new_key=1)),
        "has values that this nnopt refuses (it was written by nnopt 0.1.0): unknown key",
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two runs, and a copy of the model of one of them."""
    from nnopt.cli.main import run_verb

    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(lambda *x: run_verb(list(x)), *SPIRAL)
        seed = [*QUICK, *SPIRAL, "seed=1", "hydra.run.dir=other"]
        assert run_verb(["run", *seed]) == 0
    return folder


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_or_foreign_model_is_refused(
    nnopt: Nnopt,
    capsys: Captured,
    models: Path,
    damage: Callable[[], object],
    message: str,
) -> None:
    shutil.copytree(models, ".", dirs_exist_ok=True)
    np.save("x.npy", np.ones((1, 2)))
    damage()
    assert nnopt("predict", "copy", "x.npy", "--out", "new.csv") == 4
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("new.csv").exists()


USAGE: dict[str, tuple[list[str], int, str]] = {
    "no run": (["nowhere", "x.npy", "--out", "p.csv"], 2, "nowhere is not a folder"),
    "no input": (["copy", "y.npy", "--out", "p.csv"], 3, "y.npy does not exist"),
    "an empty folder": (["empty", "x.npy", "--out", "p.csv"], 2, "is not the folder of a run"),
    "no folder for the output": (["copy", "x.npy", "--out", "q/p.csv"], 2, "does not exist"),
    "the input": (["copy", "x.npy", "--out", "x.npy"], 2, "--out x.npy is the input"),
    "a file of the run": (
        ["run", "x.npy", "--out", "run/predictions.csv"],
        2,
        "is a file of the run",
    ),
    "another key": (
        ["copy", "x.npy", "seed=1", "--out", "p.csv"],
        2,
        "'seed=1': only these keys of the run can change: backend.device, backend.threads",
    ),
    "another device": (
        ["copy", "x.npy", "backend.device=cuda", "--out", "p.csv"],
        2,
        "backend.device = 'cuda'",
    ),
    "another shape": (["copy", "z.npy", "--out", "p.csv"], 3, "has the shape (1, 3)"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), USAGE.values(), ids=USAGE)
def test_wrong_usage_of_predict_command_is_refused(
    nnopt: Nnopt, capsys: Captured, models: Path, arguments: list[str], code: int, message: str
) -> None:
    shutil.copytree(models, ".", dirs_exist_ok=True)
    Path("empty").mkdir()
    np.save("x.npy", np.ones((1, 2)))
    np.save("z.npy", np.ones((1, 3)))
    assert nnopt("predict", *arguments) == code
    assert message in capsys.readouterr().err


def test_logits_that_are_not_finite_give_no_predictions(
    nnopt: Nnopt, capsys: Captured, models: Path
) -> None:
    np.save("x.npy", [[1, 1], [3e38, 3e38]])
    assert nnopt("predict", str(models / "copy"), "x.npy", "--out", "p.csv") == 5
    assert "the logits of sample 1 are not finite" in capsys.readouterr().err
    assert not Path("p.csv").exists()
