"""The run of one point: build, train and test a network, and write the results."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.backends import load_backend
from nnopt.backends.protocol import DeviceArray, Loader, Network
from nnopt.backends.thread_choice import threads_for
from nnopt.config.point import Point
from nnopt.data.dataset import Dataset, Part
from nnopt.errors import ResumeError, TrainingError, memory_shortage
from nnopt.io.atomic_files import shown
from nnopt.plots.run.draw import plot_convolutions, plot_pruning, plot_test, plot_training
from nnopt.pruning.schedule import ScheduleClock
from nnopt.pruning.structured import smaller_arrays
from nnopt.pruning.unit_pruner import UnitPruner
from nnopt.pruning.weight_pruner import WeightPruner
from nnopt.recipe.auto_lr import with_suggested_rate
from nnopt.recipe.checkpoints import CheckpointWriter
from nnopt.recipe.evaluation import input_batches, record_test, record_train
from nnopt.recipe.prepare import Prepared, prepare
from nnopt.recipe.pruning import (
    PRUNING_METRICS,
    build_pruner,
    is_compressed,
    pruning_results,
    write_pruning,
)
from nnopt.recipe.pruning_checks import trained_weights
from nnopt.recipe.pruning_speed import measured_speed
from nnopt.recipe.recorder import AfterEpoch, RunRecorder
from nnopt.recipe.start_weights import initial_weights
from nnopt.recipe.trained_model import write_model
from nnopt.results import environment
from nnopt.results.checkpoint_file import Checkpoint
from nnopt.results.cores import thread_pools
from nnopt.results.metrics_file import LayerRow
from nnopt.schema import Config, draws_plots
from nnopt.training.averaging import first_swa_epoch
from nnopt.training.chance import chance_level_warning
from nnopt.training.divergence import raise_if_diverged
from nnopt.training.evaluation import Evaluation, evaluate
from nnopt.training.layer_statistics import layer_rows, select_probe
from nnopt.training.length import Length
from nnopt.training.loop import Loop
from nnopt.training.schedules import schedule_notes
from nnopt.training.state import TrainingState

log = logging.getLogger("nnopt")


def run(
    point: Point,
    directory: Path,
    after_epoch: Sequence[AfterEpoch] = (),
    quiet: bool = False,
    resumed: Checkpoint | None = None,
) -> dict[str, Any]:
    """Train one point and write its results into a folder.

    Without a checkpoint, the folder must be empty. ``resumed`` is a checkpoint in this folder that
    ``check_checkpoint`` has accepted. The training continues from it, and the results are those of
    an uninterrupted run.

    If an exception ends the run, the status and the error are written to ``summary.json``, and the
    exception is raised again. This includes KeyboardInterrupt, SystemExit and unexpected errors.

    After the rows of an epoch are written, the functions ``after_epoch`` are called one after the
    other. With ``quiet``, nothing is printed; a sweep prints its own line for each point. Return
    the content of ``summary.json``.
    """
    config = point.config
    recorder = RunRecorder(point, directory, after_epoch, quiet, resumed)
    writer = CheckpointWriter(config, recorder, time.monotonic(), resumed)
    with recorder.recording(), memory_shortage(config.batch_size, config.accumulation_steps):
        prepared = prepare(config)  # may import PyTorch, whose threads are limited below
        if config.tensorboard:
            recorder.start_events()
        backend = load_backend(config.backend.name)
        threads = threads_for(prepared.architecture, config, backend.default_threads())
        recorder.summary["threads"] = threads.as_record()
        limit = thread_pools().limit(limits=threads.count)
        with np.errstate(all="ignore"), limit, backend.device_errors():
            if config.optimizer.lr == "auto":
                suggested = recorder.summary.get("suggested_lr")
                config = with_suggested_rate(config, prepared, directory, suggested, quiet)
                recorder.summary["suggested_lr"] = config.optimizer.lr
            model = build(config, prepared, recorder)
            if resumed is None:
                note_settings(config, prepared.length, recorder)
            with writer.after():
                trained, training = train(model, recorder, writer, resumed)
                result = test(trained, training, recorder)
                if result is not None and config.evaluation.train:
                    evaluate_training_part(trained, recorder, writer)
                draw(trained, training, result, recorder)
                if trained.prepared.architecture != model.prepared.architecture:
                    record_speed(model, trained, recorder)
                raise_if_diverged(config, training, result)
    return recorder.summary


def note_settings(config: Config, length: Length, recorder: RunRecorder) -> None:
    """Write notes about settings that have no effect, or not the usual one."""
    clock = ScheduleClock(config.pruning, length.epochs, length.steps_per_epoch)
    steps = clock.length(length.steps)
    for message in schedule_notes(config.schedule, length.steps_per_epoch, steps):
        recorder.warn(message)
    stopping = config.early_stopping
    if stopping.min_delta and stopping.patience is None:
        log.info("early_stopping.min_delta has no effect, because early_stopping.patience is null")


@dataclass(frozen=True)
class Model:
    """The network of a run.

    Attributes:
        config: The configuration.
        prepared: The data, the architecture and the length of the training.
        network: The network.
        initial: Full name -> initial parameter or running statistic.
        train_loader: The loader of the training part. It may hold the data on a device, so there is
            only one.
    """

    config: Config
    prepared: Prepared
    network: Network
    initial: Mapping[str, NDArray[np.floating]]
    train_loader: Loader

    def loader(self, part: Part) -> Loader:
        """Return a new loader of the batches of one part of the dataset."""
        return _loader(part, self.prepared.dataset, self.config)

    def predict(self, inputs: np.ndarray) -> NDArray[np.floating]:
        """Return the logits (N, K) of raw inputs (N, ...)."""
        return np.concatenate([self.network.predict(x) for x in self._batches(inputs)])

    def layer_outputs(self, inputs: np.ndarray) -> dict[str, NDArray[np.floating]]:
        """Return the outputs of every layer for the first batch of the raw inputs (N, ...)."""
        return self.network.layer_outputs(next(self._batches(inputs)))

    def _batches(self, inputs: np.ndarray) -> Iterator[DeviceArray]:
        return input_batches(inputs, self.prepared.dataset.normalization, self.config)


def _loader(part: Part, dataset: Dataset, config: Config) -> Loader:
    return load_backend(config.backend.name).build_loader(part, dataset.normalization, config)


def build(config: Config, prepared: Prepared, recorder: RunRecorder) -> Model:
    """Build the network with its initial weights. Add data, network and machine to the summary."""
    dataset, architecture = prepared.dataset, prepared.architecture
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    samples = {name: 0 if part is None else len(part) for name, part in parts.items()}
    summary = recorder.summary
    summary["data"] = {"name": dataset.name, "sources": dataset.sources, "samples": samples}
    summary["parameters"] = architecture.parameter_count
    summary["flops_per_sample"] = architecture.flops_per_sample
    summary["steps_per_epoch"] = prepared.length.steps_per_epoch
    network = load_backend(config.backend.name).build_network(architecture, config)
    initial = initial_weights(config, architecture, dataset)
    network.load(initial)
    summary["versions"] = environment.versions()
    summary["threads"] |= environment.threads()
    summary["machine"]["accelerator"] = environment.accelerator(config.backend.device)
    return Model(config, prepared, network, initial, _loader(dataset.train, dataset, config))


def train(
    model: Model, recorder: RunRecorder, writer: CheckpointWriter, resumed: Checkpoint | None
) -> tuple[Model, TrainingState]:
    """Train the network, and write the weights of the last and of the best epoch.

    Return the model after training, whose network is smaller if units have been removed.
    After an interruption, the weights are those of the last complete epoch.
    """
    config, dataset = model.config, model.prepared.dataset
    validation = None if dataset.validation is None else model.loader(dataset.validation)
    prepared = model.prepared
    pruner = build_pruner(config, prepared.architecture, dataset, model.network, prepared.length)
    loaders = model.train_loader, validation
    if resumed is None and (weights := trained_weights(config.pruning, prepared.architecture)):
        model.network.load(weights)  # the pruner has already copied the initial weights
    loop = Loop(model.network, dataset, loaders, config, pruner)
    probe = model.loader(select_probe(dataset)) if config.layer_statistics else None
    if resumed is not None:
        _restore(loop, model, resumed)
        recorder.start()
    try:
        with recorder.training(loop, with_layers=probe is not None), writer.during(loop):
            for row, is_best in loop.run():
                recorder.write_row(row)
                if probe is not None:
                    recorder.write_layers(_layer_rows(model, loop.training, probe))
                recorder.report_epoch(row, is_best)
    finally:
        trained = pruner if isinstance(pruner, UnitPruner) else prepared
        arrays = {"last": loop.training.last, "best": loop.training.best}
        compressed = is_compressed(pruner, loop.training.last)
        folder, summary = recorder.directory, recorder.summary
        write_model(folder, trained.architecture, dataset, arrays, compressed, summary)
        if pruner is not None:
            _record_pruning(pruner, model, loop.training, recorder)
    if isinstance(pruner, UnitPruner):
        model = _smaller(model, pruner)
        recorder.summary["parameters"] = pruner.architecture.parameter_count
        recorder.summary["flops_per_sample"] = pruner.architecture.flops_per_sample
    return model, loop.training


def _layer_rows(model: Model, training: TrainingState, probe: Loader) -> list[LayerRow]:
    """Return the rows of ``layers.csv`` for the latest epoch."""
    epoch, architecture = training.history[-1].epoch, model.prepared.architecture
    return layer_rows(training.network, architecture, probe, epoch, training.updates)


def _record_pruning(
    pruner: WeightPruner | UnitPruner, model: Model, training: TrainingState, recorder: RunRecorder
) -> None:
    """Write the masks or the smaller architecture, and add the results to the summary."""
    write_pruning(pruner, recorder.directory)
    results = pruning_results(
        pruner, model.config, model.prepared.architecture, training.best_validation_accuracy
    )
    recorder.summary["pruning"] = results
    recorder.summary |= {key: results[key] for key in PRUNING_METRICS}
    for layer in pruner.empty_layers:
        recorder.warn(
            f"pruning left no weight of {layer}, so its outputs do not depend on its inputs; set a "
            f"smaller pruning.sparsity, pruning.scope=layer or pruning.exclude=[{layer}]"
        )


def _smaller(model: Model, pruner: UnitPruner) -> Model:
    """Return the model with the network of a pruner, and the remaining initial weights."""
    return replace(
        model,
        prepared=replace(model.prepared, architecture=pruner.architecture),
        network=pruner.network,
        initial=smaller_arrays(model.prepared.architecture, pruner.kept, model.initial),
    )


def _restore(loop: Loop, model: Model, resumed: Checkpoint) -> None:
    """Restore a training. Raises ResumeError if the checkpoint does not fit the network."""
    layers = model.prepared.architecture.walk() if model.config.layer_statistics else ()
    names = [layer.name for layer in layers]
    try:
        loop.restore(resumed.training)
        rows = [(row.epoch, name) for row in loop.training.history for name in names]
        if [(row.epoch, row.layer) for row in resumed.layers] != rows:
            raise ValueError("its statistics are those of other layers or epochs")
    except (ValueError, OverflowError) as error:  # OverflowError: int(inf)
        message = f"{shown(resumed.path)} does not fit the network: {error}"
        raise ResumeError(message) from error
    log.info("continued after step %d, from %s", resumed.step, resumed.path.name)


def test(model: Model, training: TrainingState, recorder: RunRecorder) -> Evaluation | None:
    """Evaluate the best or last weights on the test set. Return None if the training diverged."""
    config, dataset, summary = model.config, model.prepared.dataset, recorder.summary
    if training.diverged_at is not None:
        return None
    length, last = model.prepared.length, training.history[-1]
    labels = dataset.train.labels[dataset.train.rows]
    if warning := chance_level_warning(config, labels, last, length.steps_per_epoch):
        recorder.warn(warning)
    if training.best_epoch == 0:
        log.warning("the validation metric was never finite: the last weights count as best")
    if config.regularizer.swa_start:
        is_best = config.test_weights == "best"
        averaged = training.best_averaged if is_best else training.last_averaged
        summary["averaged_epochs"] = averaged
        if not averaged:
            recorder.warn(_without_average(config, training, length))
    model.network.load(training.best if config.test_weights == "best" else training.last)
    labels = dataset.test.labels[dataset.test.rows]
    batches = model.loader(dataset.test).evaluation_batches()
    result = evaluate(model.network, batches, labels, config)
    record_test(result, dataset, config, recorder)
    return result


def evaluate_training_part(model: Model, recorder: RunRecorder, writer: CheckpointWriter) -> None:
    """Evaluate the tested weights, which are those of the network, on the training part."""
    dataset, config = model.prepared.dataset, model.config
    network, loader, summary = model.network, model.train_loader, recorder.summary
    record_train(network, loader, dataset, config, summary, writer.check_time)


def draw(
    model: Model, training: TrainingState, result: Evaluation | None, recorder: RunRecorder
) -> None:
    """Plot the training and, unless it diverged, the predictions and the weights."""
    config, prepared = model.config, model.prepared
    if not draws_plots(config):
        return
    plots = recorder.directory / "plots"
    plots.mkdir(exist_ok=True)  # the learning rate finder may have made this folder
    steps, name = prepared.length.steps_per_epoch, config.name
    plot_training(training, model.initial, recorder.layer_rows, steps, name, plots)
    if training.pruner is not None and training.pruner.records:
        plot_pruning(training.pruner, prepared.architecture, plots)
    if result is not None:
        dataset, arrays = prepared.dataset, model.network.arrays()
        plot_test(dataset, result.logits, model.predict, name, plots)
        plot_convolutions(dataset, prepared.architecture, arrays, model.layer_outputs, plots)


def record_speed(dense: Model, pruned: Model, recorder: RunRecorder) -> None:
    """Measure the network before and after pruning, and add the times to the summary."""
    before, after = ((x.prepared.architecture, x.initial) for x in (dense, pruned))
    summary = recorder.summary
    threads = summary["threads"]["used"]
    try:
        speed = measured_speed(dense.config, dense.prepared.dataset, before, after, threads)
    except (MemoryError, TrainingError) as error:
        recorder.warn(f"the speed-up was not measured: {str(error) or 'out of memory'}")
        return
    summary["pruning"]["speed"] = speed
    for name in ("step", "predict"):
        summary[f"measured_{name}_speedup"] = speed[-1][f"{name}_speedup"] if speed else None


def _without_average(config: Config, training: TrainingState, length: Length) -> str:
    """Return the warning that the tested weights are from an epoch before the SWA average."""
    is_best = config.test_weights == "best" and training.best_epoch
    tested = training.best_epoch if is_best else len(training.history)
    return (
        f"regularizer.swa_start = {config.regularizer.swa_start:g} averages from the end of epoch "
        f"{first_swa_epoch(config.regularizer.swa_start, length.epochs)} on, but the "
        f"{config.test_weights} weights, which are tested, are those of epoch {tested}, "
        "before any average"
    )
