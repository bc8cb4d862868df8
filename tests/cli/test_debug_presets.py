"""The presets ``debug=tiny`` and ``debug=overfit_batch``, with every kind of dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import write_cifar, write_cinic, write_idx

from nnopt.config.compose import compose_config
from nnopt.data import cifar10
from nnopt.results.metrics_file import read_metrics

Run = Callable[..., int]

DATASETS = ("spiral", "moons", "circles", "mnist", "fashion_mnist", "cifar10", "cinic10", "csv")
BACKENDS = ("numpy", "torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small version of every dataset that is read from files; return the data folder."""
    root = tmp_path_factory.mktemp("data")
    write_idx(root)
    write_idx(root, "FashionMNIST/raw")
    write_cifar(root, 10)
    write_cinic(root, each=5)
    random = np.random.default_rng(0)
    rows = [
        f"{x:.3f},{y:.3f},{'ab'[n % 2]}" for n, (x, y) in enumerate(random.normal(size=(80, 2)))
    ]
    (root / "table.csv").write_text("x,y,label\n" + "\n".join(rows) + "\n")
    return root


@pytest.fixture
def data(folder: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use the small datasets, and return their folder."""
    monkeypatch.setattr(cifar10, "IMAGES_PER_FILE", 10)
    monkeypatch.setenv("NNOPT_DATA_DIR", str(folder))
    return folder


def arguments(dataset: str, backend: str, preset: str) -> list[str]:
    file = ["dataset.train=table.csv"] if dataset == "csv" else []
    folder = "hydra.run.dir=run"
    return [f"dataset={dataset}", *file, f"backend={backend}", f"debug={preset}", folder]


def summary() -> dict[str, Any]:
    return dict(json.loads(Path("run/summary.json").read_text()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.usefixtures("data")
def test_tiny_preset_trains_two_steps_without_plots(nnopt: Run, dataset: str, backend: str) -> None:
    assert nnopt("run", *arguments(dataset, backend, "tiny")) == 0
    result = summary()
    assert result["status"] == "done"
    assert (result["epochs"], result["steps"]) == (1, 2)
    assert result["data"]["samples"]["train"] == 32
    assert not Path("run/plots").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "backend"), [*((dataset, "numpy") for dataset in DATASETS), ("mnist", "torch")]
)
@pytest.mark.usefixtures("data")
def test_overfit_batch_preset_makes_loss_near_zero(nnopt: Run, dataset: str, backend: str) -> None:
    assert nnopt("run", *arguments(dataset, backend, "overfit_batch"), "plots=false") == 0
    result = summary()
    assert result["steps"] == result["epochs"] == 500
    assert result["data"]["samples"]["train"] == 16
    assert result["final_train_loss"] < 0.05
    assert result["final_train_accuracy"] == 1.0
    assert result["best_validation_loss"] is None


def test_overfit_batch_preset_cannot_learn_contradictory_labels(
    nnopt: Run, workplace: Path
) -> None:
    """A network cannot learn different labels of equal inputs."""
    rows = "\n".join(f"0,{n % 4 // 2},{'ab'[n % 2]}" for n in range(80))
    (workplace / "data").mkdir()
    (workplace / "data" / "table.csv").write_text(f"x,y,label\n{rows}\n")
    assert nnopt("run", *arguments("csv", "numpy", "overfit_batch")) == 0
    assert summary()["final_train_loss"] == pytest.approx(np.log(2), abs=0.01)


@pytest.mark.parametrize("experiment", ["mnist_mlp", "cifar10_fast", "spiral_regularized"])
def test_overfit_batch_preset_disables_regularization_of_experiment(experiment: str) -> None:
    config = compose_config([f"experiment={experiment}", "debug=overfit_batch"])
    regularizer = config.regularizer
    plain = compose_config().regularizer
    assert regularizer.augmentation == plain.augmentation
    norm, original = regularizer.norm, compose_config([f"experiment={experiment}"]).regularizer.norm
    assert norm == original
    assert (regularizer.dropout, regularizer.label_smoothing, regularizer.weight_decay) == (0, 0, 0)
    assert (config.schedule.name, config.optimizer.name) == ("constant", "adam")
    assert config.dataset.subset == config.batch_size == 16
    assert config.dataset.validation.source == "none"


def test_preset_is_overridden_by_command_line() -> None:
    config = compose_config(["debug=overfit_batch", "optimizer=momentum", "batch_size=8"])
    assert (config.optimizer.name, config.optimizer.lr) == ("momentum", 0.01)
    assert config.dataset.subset == 8


def test_tiny_preset_shortens_every_point_of_ablation(nnopt: Run) -> None:
    assert nnopt("run", "ablation=l2_spiral", "debug=tiny", "seed=0", "hydra.sweep.dir=sweep") == 0
    folders = [path.parent for path in Path("sweep").glob("*/metrics.csv")]
    assert len(folders) > 1
    assert {len(read_metrics(folder / "metrics.csv")) for folder in folders} == {1}
