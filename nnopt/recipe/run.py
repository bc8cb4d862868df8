"""One point, from its configuration to the files of its results. Reads from top to bottom."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.backends import load_backend
from nnopt.backends.models import initial_arrays
from nnopt.backends.protocol import DeviceArray, Loader, Network
from nnopt.backends.thread_choice import threads_for
from nnopt.config.point import Point, to_yaml
from nnopt.data.dataset import Part
from nnopt.errors import NnoptError, OutputError, PrunedError, TimeLimitError, memory_shortage
from nnopt.io.atomic_files import write_arrays, write_text
from nnopt.io.own_files import LogFile
from nnopt.plots.run.draw import plot_inside, plot_test, plot_training
from nnopt.recipe.auto_lr import with_found_rate
from nnopt.recipe.prepare import Prepared, prepare
from nnopt.results import environment
from nnopt.results.collect import settings_of
from nnopt.results.cores import thread_pools
from nnopt.results.event_file import EventFile
from nnopt.results.layers_file import LayerRow
from nnopt.results.metrics import METRICS
from nnopt.results.metrics_file import EpochRow, MetricsFile
from nnopt.results.summary import file_checksums, write_summary
from nnopt.schema import Config, draws_plots
from nnopt.terminal.console import RunConsole, note
from nnopt.terminal.interruption import message_of
from nnopt.training.averaging import first_swa_epoch
from nnopt.training.chance import chance_level_warning
from nnopt.training.divergence import raise_if_diverged
from nnopt.training.evaluation import Evaluation, evaluate
from nnopt.training.layer_statistics import layer_rows, select_probe
from nnopt.training.loop import Length, Loop, TrainingState

log = logging.getLogger("nnopt")

LayerLook = Callable[[int], list[LayerRow]]
"""From the epoch just finished to a row for each layer."""

AfterEpoch = Callable[[EpochRow, bool], None]
"""A function of the row of an epoch, and of whether its weights are the best so far. An exception
that it raises ends the training as Ctrl-C does: the files are kept, the summary has the reason."""


def run(
    point: Point, directory: Path, after_epoch: Sequence[AfterEpoch] = (), quiet: bool = False
) -> dict[str, Any]:
    """Train one point and write its results into ``directory``, which exists and is empty.

    after_epoch: functions that are called, in this order, when an epoch is in the files. quiet:
    nothing is shown, as in a sweep, which has a line for each point. Returns the content of
    ``summary.json``. An exception that ends the run early is written there as status and error,
    and then raised: NnoptError, KeyboardInterrupt, or a bug.
    """
    started = time.perf_counter()
    config, summary = point.config, describe(point)
    events: EventFile | None = None
    with _logging_to(directory / "run.log"):
        log.info("point %s, overrides: %s", point.id, " ".join(point.overrides) or "none")
        try:
            write_text(directory / "config.yaml", to_yaml(point.container))
            with memory_shortage(config.batch_size, config.accumulation):
                prepared = prepare(config)  # imports PyTorch, if need be, with all its threads
                if config.tensorboard:
                    settings = settings_of(dict(point.container), point.overrides)
                    events = EventFile(directory, point.id, settings)
                    after_epoch = (events.epoch, *after_epoch)
                backend = load_backend(config.backend.name)
                threads = threads_for(prepared.architecture, config, backend.default_threads())
                summary["threads"] = threads.as_record()
                limit = thread_pools().limit(limits=threads.count)
                with np.errstate(all="ignore"), limit, backend.device_errors():
                    if config.optimizer.lr == "auto":
                        config = with_found_rate(config, prepared, directory, quiet)
                        summary["suggested_lr"] = config.optimizer.lr
                    _recipe(config, prepared, directory, summary, after_epoch, quiet)
            summary["status"] = "done"
        except PrunedError as error:
            summary["status"], summary["error"] = error.status, str(error)
            raise
        except BaseException as error:
            summary["status"], summary["error"] = _status_of(error), _message_of(error)
            log.error("the run ended early", exc_info=error)
            raise
        finally:
            summary["finished"] = environment.now()
            summary["total_seconds"] = time.perf_counter() - started
            summary["peak_memory_mb"] = environment.peak_memory_mb()
            if summary["machine"].get("accelerator"):  # a network was there
                device = config.backend.device
                summary["peak_device_memory_mb"] = environment.peak_device_memory_mb(device)
            summary["files"] = _checksums(directory)
            try:
                write_summary(directory, summary)
            except OutputError:
                if summary["status"] == "done":  # else the error that ended the run is raised
                    raise
            if events is not None:
                events.close(summary)
            log.info("status: %s, %.2f s in all", summary["status"], summary["total_seconds"])
    return summary


def _recipe(
    config: Config,
    prepared: Prepared,
    directory: Path,
    summary: dict[str, Any],
    after_epoch: Sequence[AfterEpoch],
    quiet: bool,
) -> None:
    """Build, train, evaluate, write, plot."""
    dataset, architecture = prepared.dataset, prepared.architecture
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    samples = {name: 0 if part is None else len(part) for name, part in parts.items()}
    summary["data"] = {"name": dataset.name, "sources": dataset.sources, "samples": samples}
    summary["parameters"] = architecture.parameter_count
    summary["flops_per_sample"] = architecture.flops_per_sample

    backend = load_backend(config.backend.name)
    network = backend.build_network(architecture, config)
    initial = initial_arrays(architecture, config.initializer, config.seed, dataset)
    network.load(initial)
    summary["versions"] = environment.versions()
    summary["threads"] |= environment.threads()
    summary["machine"]["accelerator"] = environment.accelerator(config.backend.device)

    def batches_of(part: Part) -> Loader:
        return backend.build_loader(part, dataset.normalization, config)

    train = batches_of(dataset.train)
    validation = None if dataset.validation is None else batches_of(dataset.validation)
    loop = Loop(network, dataset, (train, validation), config)
    training = loop.training
    look: LayerLook | None = None
    if config.layer_statistics:
        look = partial(layer_rows, network, architecture, batches_of(select_probe(dataset)))
    try:
        view = "none" if quiet else config.view
        console = RunConsole(loop.length.epochs, loop.length.steps_per_epoch, view=view)
        layers = _train(loop, look, console, directory, summary, after_epoch)
    finally:  # of an interrupted training, the weights after its last whole epoch
        write_arrays(directory / "model_last.npz", training.last)
        write_arrays(directory / "model_best.npz", training.best)

    result = None
    if training.diverged_at is None:
        labels = dataset.train.labels[dataset.train.rows]
        last, steps_per_epoch = training.history[-1], loop.length.steps_per_epoch
        _warn(chance_level_warning(config, labels, last, steps_per_epoch), quiet)
        if training.best_epoch == 0:
            log.warning("the validation metric was never finite: the last weights count as best")
        if config.regularizer.swa:
            summary["averaged_epochs"] = _averaged_epochs(config, training, loop.length, quiet)
        network.load(training.best if config.test_weights == "best" else training.last)
        labels = dataset.test.labels[dataset.test.rows]
        result = evaluate(network, batches_of(dataset.test), labels, config.loss)
        summary["test_loss"], summary["test_accuracy"] = result.loss, result.accuracy
        log.info("test loss %.6g, test accuracy %.4f", result.loss, result.accuracy)

    if draws_plots(config):
        plots = directory / "plots"
        plots.mkdir(exist_ok=True)  # the search for a learning rate may have made it
        steps_per_epoch = loop.length.steps_per_epoch
        plot_training(training, initial, layers, steps_per_epoch, config.name, plots)
        if result is not None:
            _plot_network(prepared, network, batches_of, result, config.name, plots)
    raise_if_diverged(config, training, result)


def _plot_network(
    prepared: Prepared,
    network: Network,
    batches_of: Callable[[Part], Loader],
    result: Evaluation,
    name: str,
    plots: Path,
) -> None:
    """Draw the predictions, the weights and the outputs of the tested network."""
    dataset = prepared.dataset

    def batches(points: np.ndarray) -> Iterator[DeviceArray]:
        part = Part(points, np.zeros(len(points), np.int64), np.arange(len(points)))
        return batches_of(part).evaluation_batches()

    def predict(points: np.ndarray) -> NDArray[np.floating]:
        return np.concatenate([network.predict(x) for x in batches(points)])

    def outputs(points: np.ndarray) -> dict[str, NDArray[np.floating]]:
        return network.layer_outputs(next(batches(points)))

    plot_test(dataset, result.logits, predict, name, plots)
    plot_inside(dataset, prepared.architecture, network.arrays(), outputs, plots)


def _averaged_epochs(config: Config, training: TrainingState, length: Length, quiet: bool) -> int:
    """Return the number of epochs that SWA averaged in the tested weights. Warn if it is 0."""
    is_best, swa = config.test_weights == "best", config.regularizer.swa
    averaged = training.best_averaged if is_best else training.last_averaged
    tested = training.best_epoch if is_best and training.best_epoch else len(training.history)
    if not averaged:
        warning = (
            f"regularizer.swa = {swa:g} averages from the end of epoch "
            f"{first_swa_epoch(swa, length.epochs)} on, but the {config.test_weights} weights, "
            f"which are tested, are from before that, of epoch {tested}: nothing is averaged in "
            "them"
        )
        _warn(warning, quiet)
    return averaged


def _warn(message: str | None, quiet: bool) -> None:
    """Write a warning, if there is one, to the log and to the console."""
    if message is not None:
        log.warning(message)
        if not quiet:
            note(f"note: {message}")


def _train(
    loop: Loop,
    look: LayerLook | None,
    console: RunConsole,
    directory: Path,
    summary: dict[str, Any],
    after_epoch: Sequence[AfterEpoch],
) -> list[LayerRow]:
    """Run the loop, and write each row to the console and the files. Return the rows of layers."""
    started, training = time.perf_counter(), loop.training
    layers: list[LayerRow] = []
    try:
        with ExitStack() as stack:
            metrics = stack.enter_context(MetricsFile(directory / "metrics.csv"))
            if look:
                statistics = stack.enter_context(MetricsFile(directory / "layers.csv", LayerRow))
            stack.enter_context(console)
            loop.report_step = console.step
            try:
                for row, is_best in loop.run():
                    metrics.append(row)
                    if look:
                        found = look(row.epoch)
                        statistics.append(*found)
                        layers += found
                    console.epoch(row, is_best)
                    log.info("epoch %d: %s", row.epoch, row)
                    for tell in after_epoch:
                        tell(row, is_best)
            except (KeyboardInterrupt, SystemExit, TimeLimitError):
                metrics.complete(training.history)  # it may have come between an epoch and its row
                raise
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
    return layers


def describe(point: Point) -> dict[str, Any]:
    """Return the summary of a run that has just begun. A run that ends early has the same keys,
    even if its process ended before it wrote any."""
    return {
        "status": "running",
        **dict.fromkeys(("error", *METRICS)),
        "started": environment.now(),
        "finished": None,
        "id": point.id,
        "name": point.config.name,
        "seed": point.config.seed,
        "overrides": list(point.overrides),
        "data": None,
        "versions": environment.versions(),
        "git": environment.code_state(),
        "machine": environment.machine(),
        "threads": None,
        "files": {},
        "config": point.container,
    }


def _checksums(directory: Path) -> dict[str, str]:
    with suppress(OSError):
        return file_checksums(directory, ("metrics.csv",))
    return {}


def _status_of(error: BaseException) -> str:
    if isinstance(error, NnoptError | TimeLimitError):
        return error.status
    return "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"


def _message_of(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return message_of(error)
    is_told = isinstance(error, NnoptError | TimeLimitError)
    return str(error) if is_told else f"{type(error).__name__}: {error}"


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Send nnopt's log to a file of the run, tracebacks included."""
    handler = LogFile(path)
    previous = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
        log.level, log.propagate = previous
