"""``nnopt predict``: the predictions of a trained network for new samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnopt.cli.model_parsers import predict_parser
from nnopt.config.plugin_source import without_plugins
from nnopt.config.resolve import StoredConfig
from nnopt.data.inputs import read_inputs
from nnopt.errors import ConfigError, TrainingError
from nnopt.io.atomic_files import shown
from nnopt.io.own_files import RUN_FILES
from nnopt.io.paths import given_path
from nnopt.recipe.evaluation import class_values
from nnopt.recipe.stored_config import OF_BACKEND, changed_point
from nnopt.recipe.trained_model import TrainedModel, load_model
from nnopt.results.prediction_files import write_new_predictions
from nnopt.schema import Config, CsvConfig
from nnopt.terminal import console

OF_CSV = ("dataset.separator", "dataset.decimal")
"""Keys that can also differ from those of the run, if it was trained on a CSV file."""

MAX_LISTED_CLASSES = 10


def main(arguments: list[str]) -> int:
    """Predict the classes of samples, and write them to a CSV file."""
    options = predict_parser().parse_intermixed_args(arguments)
    options.overrides = without_plugins(options.overrides)
    run, source = given_path(options.run, "RUN"), given_path(options.input, "INPUT")
    out = given_path(options.out, "--out")
    _check_out(out, run, source)
    model = load_model(run, options.weights)
    config = model.config
    if options.overrides:
        config = _changed(model, options.overrides)
        model = model.on(config.backend)
    inputs = read_inputs(source, model.inputs, config.dataset, options.resize)
    for text in inputs.notes:
        console.note(f"note: {text}")
    logits = model.logits(inputs.values)
    if not (finite := np.isfinite(logits).all(axis=1)).all():
        row = int(np.argmin(finite))
        raise TrainingError(
            f"the logits of sample {row:,} are not finite with the {model.epoch} weights of "
            f"{shown(run)}; no predictions are written"
        )
    values, kind = class_values(logits, model.config)
    predictions = logits.argmax(axis=1)
    write_new_predictions(out, predictions, values, kind, model.classes, inputs.files)
    counts = Counter(model.classes[number] for number in predictions)
    shown_counts = [f"{name}: {count:,}" for name, count in counts.most_common(MAX_LISTED_CLASSES)]
    more = len(counts) - len(shown_counts)
    results = {
        "samples": f"{len(logits):,}",
        "predicted": ", ".join(shown_counts) + (f" and {more} more classes" if more else ""),
        "weights": f"of the {model.epoch} epoch of {console.short(run)}",
    }
    console.summary("predictions", results, {"file": out})
    return 0


def _check_out(out: Path, run: Path, source: Path) -> None:
    """Raise ConfigError if the file of the results cannot be written, or is an input."""
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {shown(out)}: its folder does not exist")
    if out.is_dir():
        raise ConfigError(f"--out {shown(out)} is a folder; name a file")
    place = out.resolve()
    if place == source.resolve() or (place.parent == run.resolve() and place.name in RUN_FILES):
        owner = "the input" if place == source.resolve() else "a file of the run"
        raise ConfigError(f"--out {shown(out)} is {owner}; name another file")


def _changed(model: TrainedModel, overrides: Sequence[str]) -> Config:
    """Return the configuration of the run with overrides. Raises ConfigError."""
    allowed = (*OF_BACKEND, *(OF_CSV if isinstance(model.config.dataset, CsvConfig) else ()))
    return changed_point(StoredConfig(model.container, ()), overrides, allowed).config
