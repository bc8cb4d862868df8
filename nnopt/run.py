"""One point, from its configuration to the files of its results. Reads from top to bottom."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from nnopt.architecture.initializers import initial_arrays
from nnopt.backends import load_backend
from nnopt.compose import Point
from nnopt.console import RunConsole
from nnopt.errors import DivergedError, NnoptError
from nnopt.prepare import Prepared, prepare
from nnopt.results import environment
from nnopt.results.files import write_arrays, write_json, write_text
from nnopt.results.history import MetricsFile
from nnopt.results.metrics import confusion_matrix
from nnopt.schema import Config
from nnopt.training.evaluation import Evaluation, evaluate
from nnopt.training.loop import Loop, Training

log = logging.getLogger("nnopt")


def run(point: Point, directory: Path) -> dict[str, Any]:
    """Train one point and write its results into ``directory``, which exists and is empty.

    Returns what ``summary.json`` says. Whatever ends the run early is written there first, as
    status and error, then raised: NnoptError, KeyboardInterrupt, or a bug.
    """
    started = time.perf_counter()
    summary = _describe(point)
    with _logging_to(directory / "run.log"):
        log.info("point %s, overrides: %s", point.id, " ".join(point.overrides) or "none")
        try:
            write_text(directory / "config.yaml", _to_yaml(point.container))
            with np.errstate(all="ignore"), threadpool_limits(point.config.backend.threads):
                _recipe(point.config, directory, summary)
            summary["status"] = "done"
        except BaseException as error:
            summary["status"], summary["error"] = _status_of(error), _message_of(error)
            log.error("the run ended early", exc_info=error)
            raise
        finally:
            summary["total_seconds"] = time.perf_counter() - started
            summary["peak_memory_mb"] = environment.peak_memory_mb()
            write_json(directory / "summary.json", summary)
            log.info("status: %s, %.2f s in all", summary["status"], summary["total_seconds"])
    return summary


def _recipe(config: Config, directory: Path, summary: dict[str, Any]) -> None:
    """Load, build, train, evaluate, write, plot."""
    prepared = prepare(config)
    dataset, architecture = prepared.dataset, prepared.architecture
    summary["data"] = {"name": dataset.name, "sources": dataset.sources}
    summary["parameters"] = architecture.parameter_count
    summary["flops_per_sample"] = architecture.flops_per_sample

    backend = load_backend(config.backend.name)
    network = backend.build_network(architecture, config)
    initial = initial_arrays(architecture, config.initializer, config.seed)
    network.load(initial)
    summary["versions"], summary["threads"] = environment.versions(), environment.blas_info()

    train, validation, test = (
        None if part is None else backend.build_loader(part, dataset.normalization, config)
        for part in (dataset.train, dataset.validation, dataset.test)
    )
    training = _train(Loop(network, dataset, (train, validation), config), directory, summary)
    write_arrays(directory / "model_last.npz", training.last)
    write_arrays(directory / "model_best.npz", training.best)

    result = None
    if training.diverged_at is None:
        network.load(training.best if config.test_weights == "best" else training.last)
        labels = dataset.test.labels[dataset.test.rows]
        result = evaluate(network, test, labels, config.loss)
        summary["test_loss"], summary["test_accuracy"] = result.loss, result.accuracy
        log.info("test loss %.6g, test accuracy %.4f", result.loss, result.accuracy)
    if config.plots:
        _plot(config, prepared, directory / "plots", training, initial, network, result)
    if training.diverged_at is not None:
        raise DivergedError(
            f"training diverged at step {training.diverged_at}: the loss is not finite; rows and "
            f"weights up to epoch {len(training.history)} are kept in {directory}; lower "
            f"optimizer.lr = {config.optimizer.lr:g}, or set regularizer.grad_clip=1"
        )


def _train(loop: Loop, directory: Path, summary: dict[str, Any]) -> Training:
    """Run the loop, with its rows on the console and in the files as they come."""
    started, training, length = time.perf_counter(), loop.training, loop.length
    try:
        with (
            MetricsFile(directory / "metrics.csv") as metrics,
            RunConsole(length.epochs, length.steps_per_epoch) as console,
        ):
            loop.report_step = console.step
            for row, is_best in loop.run():
                metrics.append(row)
                console.epoch(row, is_best)
                log.info("epoch %d: %s", row.epoch, row)
    finally:
        summary["train_seconds"] = time.perf_counter() - started
        summary["epochs"] = len(training.history)
        summary["steps"] = training.history[-1].step if training.history else 0
        summary["stopped_early"] = training.stopped_early
        summary["best_epoch"] = training.best_epoch
        summary["best_validation_loss"] = training.best_validation_loss
        summary["best_validation_accuracy"] = training.best_validation_accuracy
        if training.history:
            last = training.history[-1]
            summary["final_train_loss"] = last.train_loss
            summary["final_train_accuracy"] = last.train_accuracy
    return training
