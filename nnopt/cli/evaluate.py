"""``nnopt evaluate``: the metrics of a trained network on a part of a dataset."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nnopt import data
from nnopt.analysis.number_format import MISSING
from nnopt.cli.model_parsers import evaluate_parser
from nnopt.cli.result_folder import OUTPUTS, check_empty
from nnopt.config.plugin_source import without_plugins
from nnopt.config.resolve import StoredConfig
from nnopt.data.dataset import Dataset, Part
from nnopt.errors import ConfigError, TrainingError
from nnopt.io.atomic_files import fresh_folder, json_text, output_error, shown, write_json
from nnopt.io.own_files import EVALUATION
from nnopt.io.paths import given_path
from nnopt.recipe.evaluation import ClassResults, classify, write_tables
from nnopt.recipe.model_data import fitted_part
from nnopt.recipe.stored_config import OF_BACKEND, changed_point, with_local_data
from nnopt.recipe.trained_model import TrainedModel, load_model
from nnopt.results import environment
from nnopt.schema import Config
from nnopt.terminal import console
from nnopt.terminal.safe_stream import standard_output
from nnopt.training.evaluation import Evaluation

CHANGEABLE = ("dataset", "data", *OF_BACKEND)
"""Keys that can differ from those of the run."""

MAX_PRINTED_CLASSES = 25

NAMES = {
    "accuracy": "accuracy",
    "loss": "loss",
    "top5_accuracy": "top-5 accuracy",
    "macro_f1": "macro F1",
    "calibration_error": "calibration error",
}
"""Metric of nnopt -> its name in the printed summary."""


def main(arguments: list[str]) -> int:
    """Evaluate the network of a run, write the results to a new folder, and print them."""
    options = evaluate_parser().parse_intermixed_args(arguments)
    options.overrides = without_plugins(options.overrides)
    given = None if options.out is None else given_path(options.out, "--out")
    if given is not None:
        check_empty(given)
    model = load_model(given_path(options.run, "RUN"), options.weights)
    config = _config(model, options.overrides)
    backend = config.backend
    if options.overrides:
        model = model.on(backend)
    dataset = data.load(config.dataset, config.data, config.seed, backend.dtype)
    part = fitted_part(model, dataset, _part(dataset, options.part))
    result = model.evaluate(part)
    labels = part.labels[part.rows]
    found = classify(result.logits, labels, model.config)
    document = _document(model, options, dataset, result, found)
    folder = _folder(given, f"{model.config.name}_{options.part}")
    write_json(folder / EVALUATION, document)
    if found is None:
        raise TrainingError(
            f"some logits are not finite with the {model.epoch} weights of {shown(model.folder)}; "
            f"{shown(folder / EVALUATION)} has the other metrics"
        )
    classes, with_predictions = model.classes, options.predictions
    write_tables(folder, found, result.logits, labels, classes, model.config, with_predictions)
    if options.format == "json":
        standard_output().write(json_text(document))
    else:
        _print(model, document, folder)
    return 0


def _config(model: TrainedModel, overrides: Sequence[str]) -> Config:
    """Return the configuration of the run with the overrides. Raises ConfigError."""
    stored = with_local_data(StoredConfig(model.container, ()), overrides)
    return changed_point(stored, overrides, CHANGEABLE).config


def _part(dataset: Dataset, name: str) -> Part:
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    part = parts[name]
    if part is None:
        raise ConfigError(
            "--part = 'validation': the run has no validation part (dataset.validation.source = "
            "'none'); choose train or test"
        )
    return part


def _folder(given: Path | None, stem: str) -> Path:
    """Make the folder of the results. Raises OutputError."""
    if given is None:
        return fresh_folder(OUTPUTS / "evaluate", f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{stem}")
    try:
        given.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error("make the folder", given, error) from error
    return given


def _document(
    model: TrainedModel,
    options: Any,
    dataset: Dataset,
    result: Evaluation,
    found: ClassResults | None,
) -> dict[str, Any]:
    """Return the content of ``evaluation.json``."""
    others = dict.fromkeys(list(NAMES)[2:]) if found is None else found.metrics
    record = model.record
    return {
        "run": str(model.folder),
        "weights": {"epoch": model.epoch, "sha256": None if record is None else record.sha256},
        "part": options.part,
        "samples": len(result.logits),
        "data": {"name": dataset.name, "sources": dataset.sources},
        "overrides": list(options.overrides),
        "metrics": {"accuracy": result.accuracy, "loss": result.loss, **others},
        "classes": [] if found is None else _class_rows(model.classes, found),
        "evaluated": environment.now(),
        "versions": environment.versions(),
    }


def _class_rows(classes: Sequence[str], found: ClassResults) -> list[dict[str, Any]]:
    columns = {key: value.tolist() for key, value in asdict(found.scores).items()}
    return [
        {"class": name, **{key: column[index] for key, column in columns.items()}}
        for index, name in enumerate(classes)
    ]


def _print(model: TrainedModel, document: Mapping[str, Any], folder: Path) -> None:
    """Print the metrics, the metrics of each class, and the paths of the files."""
    rows = [
        (
            row["class"],
            f"{row['support']:,}",
            *(_text(row[key]) for key in ("recall", "precision", "f1")),
        )
        for row in document["classes"][:MAX_PRINTED_CLASSES]
    ]
    console.print_table(("class", "samples", "recall", "precision", "F1"), rows, "lrrrr")
    if (more := len(document["classes"]) - len(rows)) > 0:
        console.note(f"{more:,} more classes are in classes.csv")
    metrics = document["metrics"]
    results = {
        NAMES.get(key, key): f"{value:z.4f}" for key, value in metrics.items() if value is not None
    }
    results |= {"samples": f"{document['samples']:,}", "weights": f"of the {model.epoch} epoch"}
    title = f"{console.short(model.folder)}: {document['part']} part of {document['data']['name']}"
    is_same = model.data.get("sources", {}) == document["data"]["sources"]
    if not (document["overrides"] or is_same):
        console.note("note: the files of the dataset differ from those of the run")
    console.summary(title, results, {"folder": folder, "metrics": folder / EVALUATION})


def _text(value: float) -> str:
    return MISSING if np.isnan(value) else f"{value:.4f}"
