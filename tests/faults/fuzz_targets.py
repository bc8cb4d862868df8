"""The files that ``fuzz.py`` damages, the commands that read them, and the correct results."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import shutil
import signal
import struct
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fuzz import Target, run_command

from nnopt.io.own_files import CHECKPOINTS
from nnopt.recipe import checkpoints
from nnopt.results.checkpoint_file import read_checkpoint
from nnopt.results.metrics_file import read_metrics
from nnopt.training.state import TrainingState

sys.path.append(str(Path(__file__).parent.parent / "data"))
from data_files import write_cinic, write_idx

TINY = ("epochs=2", "dataset.samples_per_class=20", "plots=false", "architecture.hidden=[4]")
UNFINISHED = (
    *("epochs=4", "batch_size=8", "dataset.samples_per_class=10", "architecture.hidden=[4]"),
    *("plots=false", "progress=none", "optimizer=adam", "layer_statistics=true"),
    *("regularizer.norm=batch", "regularizer.ema_decay=0.9", "checkpoint.interval=1e-9"),
)
DATA_RUN = (
    "run",
    "epochs=1",
    "max_steps=1",
    "plots=false",
    "progress=none",
    "architecture.hidden=[4]",
)
CIFAR_IMAGES = 4
"""Number of images in each of the small CIFAR-10 files."""


def build_workplace(folder: Path) -> None:
    """Write a sweep, an unfinished search, runs and datasets into the folder."""
    folder.mkdir()
    sweep = ("run", "-m", "seed=0,1", "optimizer.lr=0.1,0.01", *TINY, "hydra.sweep.dir=sweep")
    search = ("run", "-m", "hydra/sweeper=optuna", "hydra.sweeper.trials=3", *TINY)
    own = ("optimizer.lr=interval(0.01,0.1)", "hydra.sweep.dir=search")
    for overrides in (sweep, (*search, *own)):
        report = run_command(folder, overrides, lambda: None)
        if report.code != 0:
            raise RuntimeError(f"the workplace cannot be built: {report.err}")
    points = sorted(path for path in (folder / "sweep").iterdir() if path.is_dir())
    for name, point in zip(("done", "other"), points, strict=False):
        point.rename(folder / "sweep" / point.name)
        shutil.copytree(point, folder / name)
    shutil.rmtree(points[-1])  # so that `nnopt resume` has a point to run
    _write_datasets(folder)
    _write_unfinished(folder)
    experiment = folder / "conf" / "experiment" / "mine.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(
        "# @package _global_\nname: mine\nepochs: 7\noptimizer:\n  lr: 0.25\n  momentum: 0.5\n"
        "architecture:\n  hidden: [12, 8]\nregularizer:\n  dropout: 0.125\n"
    )


def _write_unfinished(folder: Path) -> None:
    """Write three runs that were interrupted at step 8 of 12, with two checkpoints each.

    In addition, write ``single``: a copy of the run ``unfinished`` with only the newer checkpoint.
    """
    add_step, cost = TrainingState.add_step, checkpoints.MAX_COST

    def interrupted(state: TrainingState, *arguments: Any) -> None:
        add_step(state, *arguments)
        if state.step == 8:
            signal.raise_signal(signal.SIGTERM)

    TrainingState.add_step, checkpoints.MAX_COST = interrupted, math.inf  # type: ignore[method-assign]
    try:
        runs = {"unfinished": [], "foreign": ["seed=1"], "wider": ["architecture.hidden=[5]"]}
        for name, own in runs.items():
            report = run_command(
                folder, ("run", *UNFINISHED, *own, f"hydra.run.dir={name}"), lambda: None
            )
            if report.code != 143 or not (folder / name / CHECKPOINTS[1]).exists():
                raise RuntimeError(f"the run was not interrupted: {report.err}")
    finally:
        TrainingState.add_step, checkpoints.MAX_COST = add_step, cost  # type: ignore[method-assign]
    shutil.copytree(folder / "unfinished", folder / "single")
    found = {name: read_checkpoint(folder / "single" / name).step for name in CHECKPOINTS}
    (folder / "single" / min(found, key=found.__getitem__)).unlink()


def _write_datasets(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f"{k % 3},{x:.3f},{y:.3f}" for k, (x, y) in enumerate(rng.normal(size=(30, 2)))]
    (folder / "table.csv").write_text("\n".join(["label,a,b", *rows]) + "\n")
    write_idx(folder / "data")
    write_cinic(folder / "data", each=1)
    batches = folder / "data" / "cifar-10-batches-bin"
    batches.mkdir()
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        records = rng.integers(0, 256, (CIFAR_IMAGES, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (batches / name).write_bytes(records.tobytes())


# Results, read in the child process after the command --------------------------------------------


def sweep_rows() -> Any:
    """Return a map from the id of each point of the sweep to values of the point's summary."""
    return _rows(Path("sweep"))


def resumed_run(folder: str) -> Any:
    """Return a run's results, metrics without times, and digests of weights and layers.csv."""
    run = Path(folder)
    metrics = read_metrics(run / "metrics.csv")
    files = ("model_best.npz", "model_last.npz", "layers.csv")
    return {
        "files": [hashlib.sha256((run / name).read_bytes()).hexdigest() for name in files],
        "metrics": [repr(replace(row, seconds=0.0)) for row in metrics],
        "summary": _rows(run.parent, run.name),
    }


def evaluated() -> Any:
    """Return nothing: a model with other, valid values has other metrics."""
    assert Path("new/evaluation.json").exists()


def search_rows() -> Any:
    return _rows(Path("search"))


def _rows(folder: Path, points: str = "*") -> dict[str, Any]:
    keys = ("status", "seed", "test_loss", "test_accuracy", "best_validation_accuracy")
    summaries = [
        json.loads(path.read_bytes()) for path in sorted(folder.glob(f"{points}/summary.json"))
    ]
    return {summary["id"]: [summary[key] for key in keys] for summary in summaries}


def table_file() -> Any:
    """Return the table that ``nnopt compare --out table.csv`` wrote."""
    return Path("table.csv").read_text()


def page_curves() -> Any:
    """Return the points' records and curves from the page that ``nnopt report`` wrote."""
    page = Path("page.html").read_text()
    records = json.loads(
        re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.S)[1]
    )
    return json.loads(json.dumps(records.get("points"), sort_keys=True))


def nothing() -> None:
    """Return None: only the exit code and the message of the command are checked."""


def printed_config() -> Any:
    """Compose the experiment, and return the values of the keys that its undamaged file sets."""
    from nnopt.config.compose import compose_config

    config = compose_config(["experiment=mine"])
    return [
        config.name, config.epochs, config.optimizer.lr, list(config.architecture.hidden),
        config.regularizer.dropout,
    ]  # fmt: skip


def loaded_data(*overrides: str) -> Any:
    """Return digests of the training and test samples, which are in the order of the files."""
    from nnopt.config.compose import compose_config
    from nnopt.data import load

    config = compose_config(overrides)
    dataset = load(config.dataset, config.data, config.seed)
    parts = {id(part.inputs): part for part in (dataset.train, dataset.test) if part is not None}
    return [
        digest(part.inputs, [dataset.classes[label] for label in part.labels])
        for part in parts.values()
    ]


def digest(inputs: np.ndarray, labels: list[str]) -> str:
    content = np.ascontiguousarray(inputs).tobytes() + "\n".join(labels).encode()
    return hashlib.sha256(content).hexdigest()


# Readers that are independent of nnopt -----------------------------------------------------------


def read_idx_folder(folder: Path) -> Any:
    """Return the correct result of ``loaded_data``; raise ValueError for wrong IDX files."""
    parts = []
    for part in ("train", "t10k"):
        images = _read_idx(folder / f"{part}-images-idx3-ubyte", 3)
        labels = _read_idx(folder / f"{part}-labels-idx1-ubyte", 1)
        if len(images) != len(labels) or labels.max(initial=0) > 9 or images.shape[1:] != (4, 4):
            raise ValueError("wrong number of labels, label or shape of images")
        parts.append(digest(images[:, None], [str(label) for label in labels]))
    return parts


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    data = path.read_bytes()
    start = 4 + 4 * dimensions
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) < start:
        raise ValueError("wrong header")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if int(np.prod([float(n) for n in shape])) != len(data) - start or 0 in shape:
        raise ValueError("wrong size")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_cifar_folder(folder: Path) -> Any:
    """Return the correct result of ``loaded_data``; raise ValueError for wrong CIFAR-10 files."""
    from nnopt.data.published import OBJECTS

    parts = []
    for names in ([f"data_batch_{k}.bin" for k in range(1, 6)], ["test_batch.bin"]):
        contents = [(folder / name).read_bytes() for name in names]
        if any(len(content) != CIFAR_IMAGES * 3073 for content in contents):
            raise ValueError("wrong size")
        records = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, 3073)
        if records[:, 0].max() > 9:
            raise ValueError("label out of range")
        labels = [OBJECTS[label] for label in records[:, 0]]
        parts.append(digest(records[:, 1:], labels))
    return parts


def read_yaml(path: Path) -> Any:
    """Return the correct result of ``printed_config``; raise ValueError for a wrong file.

    A missing key has nnopt's default value.
    """
    try:
        found = yaml.safe_load(path.read_text("utf-8-sig"))
        optimizer, architecture, regularizer = (
            found.get(group, {}) for group in ("optimizer", "architecture", "regularizer")
        )
        return [
            found.get("name", "spiral_mlp"), found.get("epochs", 60),
            float(optimizer.get("lr", 0.01)), architecture.get("hidden", [64]),
            float(regularizer.get("dropout", 0.0)),
        ]  # fmt: skip
    except Exception as error:
        raise ValueError(str(error)) from error


def small_cifar_files() -> None:
    """Let nnopt accept CIFAR-10 files of few images, because the complete files have 180 MB."""
    from nnopt.data import cifar10

    cifar10.IMAGES_PER_FILE = CIFAR_IMAGES


def loaded_table() -> Any:
    """Return the label and the rounded features of each row of the CSV file."""
    from nnopt.config.compose import compose_config
    from nnopt.data import load

    config = compose_config(CSV_WORDS)
    dataset = load(config.dataset, config.data, config.seed)
    rows = zip(dataset.train.labels, dataset.train.inputs, strict=True)
    return [[_label(dataset.classes[label]), *map(_rounded, features)] for label, features in rows]


def read_table(path: Path) -> Any:
    """Return the correct result of ``loaded_table``; raise ValueError for a wrong file."""
    text = path.read_bytes().decode("utf-8-sig")
    try:
        rows = [row for row in csv.reader(text.splitlines(), strict=True) if row]
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if not rows or sorted(rows[0]) != ["a", "b", "label"] or any(len(row) != 3 for row in rows):
        raise ValueError("no table of three columns")
    place = {name: index for index, name in enumerate(rows[0])}
    found = []
    for row in rows[1:]:
        features = [float(row[place[name]]) for name in ("a", "b")]
        if not np.isfinite(np.float32(features)).all() or not row[place["label"]].strip():
            raise ValueError("a cell is empty or not finite")
        found.append([_label(row[place["label"]]), *map(_rounded, features)])
    return found


def _label(text: str) -> str:
    """Return a label without outer spaces. The whole numbers 1, 01 and 1.0 are the label 1."""
    try:
        number = float(text)
        return str(int(number)) if number.is_integer() else text.strip()
    except (ValueError, OverflowError):
        return text.strip()


def _rounded(value: float) -> str:
    return f"{float(value):.4g}"


CSV_WORDS = ("dataset=csv", "dataset.train=table.csv", "data.root=.", "dataset.normalization=none")
DATA = ("data.root=data",)

SIGNED, CELLS = ("wrong type, signed sweep",), ("wrong cell",)

COMPARE = ("compare", "sweep", "--format", "csv", "--out", "table.csv")
REPORT = ("report", "sweep", "--out", "page.html")
DIFF = ("diff", "done", "other")
POINT = "sweep/*-s0-*"

TARGETS = [
    Target("sweep.json", "sweep/sweep.json", ("resume", "sweep"), sweep_rows, damages=SIGNED),
    Target("sweep.json", "sweep/sweep.json", COMPARE, table_file, damages=SIGNED),
    Target("sweep.json", "sweep/sweep.json", REPORT, page_curves, damages=SIGNED),
    Target("summary.json", f"{POINT}/summary.json", ("resume", "sweep"), sweep_rows),
    Target("summary.json", f"{POINT}/summary.json", COMPARE, table_file),
    Target("summary.json", f"{POINT}/summary.json", REPORT, page_curves),
    Target("summary.json", "done/summary.json", DIFF, nothing),
    Target("model_best.npz", "done/model_best.npz", DIFF, nothing),
    Target("model_last.npz", "done/model_last.npz", (*DIFF, "--weights", "last"), nothing),
    Target(
        "model.json", "done/model.json", ("evaluate", "done", "--out", "new"), evaluated,
        damages=("wrong type, signed model",),
    ),
    Target("metrics.csv", f"{POINT}/metrics.csv", REPORT, page_curves, damages=CELLS),
    Target("results.csv", "sweep/results.csv", ("resume", "sweep"), sweep_rows, damages=CELLS),
    Target("results.csv", "sweep/results.csv", COMPARE, table_file, damages=CELLS),
    Target("config.yaml", f"{POINT}/config.yaml", REPORT, page_curves),
    Target(
        "Optuna's journal", "search/search.journal", ("resume", "search", "hydra.sweeper.trials=4"),
        search_rows, damages=("wrong type, JSON line",),
    ),
    Target(
        "CSV", "table.csv", (*DATA_RUN, *CSV_WORDS, "hydra.run.dir=new"), loaded_table,
        read_table, damages=CELLS,
    ),
    Target(
        "IDX", "data/MNIST/raw/*-ubyte", (*DATA_RUN, *DATA, "dataset=mnist", "hydra.run.dir=new"),
        lambda: loaded_data("dataset=mnist", *DATA), lambda path: read_idx_folder(path.parent),
    ),
    Target(
        "CIFAR-10", "data/cifar-10-batches-bin/*.bin",
        (*DATA_RUN, *DATA, "dataset=cifar10", "hydra.run.dir=new"),
        lambda: loaded_data("dataset=cifar10", *DATA), lambda path: read_cifar_folder(path.parent),
    ),
    Target(
        "PNG", "data/CINIC-10/*/*/*.png",
        (*DATA_RUN, *DATA, "dataset=cinic10", "hydra.run.dir=new"), nothing,
    ),
    Target(
        "YAML", "conf/experiment/mine.yaml", ("run", "--cfg", "job", "experiment=mine"),
        printed_config, read_yaml,
    ),
    *(
        Target(
            "checkpoint", f"{run}/checkpoint_*.npz", ("resume", run), partial(resumed_run, run),
            damages=("another checkpoint", "wrong type, signed checkpoint"), is_exact=True,
        )
        for run in ("unfinished", "single")
    ),
]  # fmt: skip
