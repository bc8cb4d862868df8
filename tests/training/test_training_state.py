"""A training that is saved and restored ends with the same bits as an uninterrupted training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pruning_cases import UNIT_PRUNING, WEIGHT_PRUNING

from nnopt import schema
from nnopt.architecture.network import infer_shapes
from nnopt.architecture.parse import parse_layers
from nnopt.backends import load_backend
from nnopt.backends.models import initial_arrays
from nnopt.data.dataset import Dataset, Normalization, Part
from nnopt.recipe.pruning import build_pruner
from nnopt.results.checkpoint_file import Content
from nnopt.schema import Config
from nnopt.training.length import Length
from nnopt.training.loop import Loop

MakeConfig = Callable[..., Config]

LAYERS = ({"dense": 5}, "batch_norm", "relu", {"dropout": 0.2}, {"dense": "classes"})

STOPPING = {"patience": None, "unit": "epochs", "validate_every": None, "min_delta": 0.0}
STOPPING["min_delta_mode"] = "absolute"


CASES: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam"},
    "without validation": {"dataset.validation": schema.Validation("none", 0.2)},
    "plateau": {
        "epochs": 5,
        "schedule": schema.PlateauConfig("plateau", 0, 1, 0.5, 5.0, "absolute"),
    },
    "max_steps": {"max_steps": 8, "schedule": schema.CosineConfig("cosine", 1, 0.0)},
    "stopped by epochs": {"epochs": 9, "early_stopping": {"patience": 2, "min_delta": 5.0}},
    "stopped by small improvements": {
        "epochs": 9,
        "early_stopping": {"patience": 3, "min_delta": 0.1, "min_delta_mode": "relative"},
    },
    "stopped by steps": {
        "epochs": 9,
        "early_stopping": {"patience": 5, "unit": "steps", "validate_every": 2, "min_delta": 5.0},
    },
    "EMA, validated within epochs": {
        "regularizer.ema_decay": 0.9,
        "early_stopping": {"validate_every": 1},
    },
    "SWA, validated within epochs": {
        "epochs": 4,
        "regularizer.swa_start": 0.5,
        "early_stopping": {"validate_every": 2},
    },
    "accumulation, mixup": {
        "batch_size": 8,
        "accumulation_steps": 2,
        "regularizer.augmentation.mixup": 0.4,
        "regularizer.l2": 0.01,
        "drop_last": True,
    },
    "diverged": {"optimizer": schema.SgdConfig("sgd", lr=1e25), "epochs": 6},
    "diverged in float32": {
        "optimizer": schema.SgdConfig("sgd", lr=1e8),
        "backend.dtype": "float32",
        "regularizer.l2": 0.5,
        "epochs": 6,
    },
    "pruned gradually, EMA": {
        "pruning": replace(
            WEIGHT_PRUNING, sparsity=0.6, schedule="gradual", start=0.5, end=2, interval=0.4
        ),
        "regularizer.ema_decay": 0.9,
    },
    "pruned by gradients, SWA": {
        "epochs": 4,
        "pruning": replace(
            WEIGHT_PRUNING, name="gradient", sparsity=0.6, start=1, gradient_batches=2
        ),
        "regularizer.swa_start": 0.4,
        "early_stopping": {"validate_every": 2, "patience": 2},
    },
    "pruned and rewound": {
        "epochs": 6,
        "optimizer": "adam",
        "schedule": schema.CosineConfig("cosine", 0.5, 0.0),
        "pruning": replace(
            WEIGHT_PRUNING,
            sparsity=0.6,
            schedule="iterative",
            start=2,
            interval=1.5,
            rewind=1,
            rewind_schedule=True,
        ),
    },
    "smaller, rewound, EMA": {
        "epochs": 4,
        "pruning": replace(UNIT_PRUNING, sparsity=0.4, start=1.5, rewind=1, rewind_schedule=True),
        "regularizer.ema_decay": 0.9,
        "early_stopping": {"validate_every": 2, "patience": 2},
    },
    "smaller, new weights": {
        "pruning": replace(
            UNIT_PRUNING, sparsity=0.4, criterion="random", start=1, control="new_weights"
        ),
    },
    "target in epochs, layer statistics": {
        "target": schema.TargetConfig("train_accuracy", 0.01),
        "layer_statistics": True,
        "max_steps": 8,
    },
    "target within epochs, layer statistics": {
        "epochs": 9,
        "target": schema.TargetConfig("validation_loss", 100.0),
        "layer_statistics": True,
        "early_stopping": {"patience": 5, "unit": "steps", "validate_every": 2, "min_delta": 5.0},
    },
    "clipping": {"regularizer.grad_clip": 0.5, "optimizer": "rmsprop"},
}

TORCH_CASES = {
    "schedule-free": {
        "epochs": 2,
        "optimizer": "schedule_free_adamw",
        "early_stopping": {"validate_every": 2},
    },
    "fp16": {"backend.precision": "fp16", "backend.dtype": "float32"},
    "muon, SWA": {"optimizer": "muon", "regularizer.swa_start": 0.3},
}


class Stop(BaseException):
    """An exception that interrupts a training."""


def make_dataset(config: Config) -> Dataset:
    def part(count: int) -> Part:
        rng = np.random.default_rng(count)
        inputs = rng.standard_normal((count, 3)).astype(np.float32)
        return Part(inputs, rng.integers(0, 3, count), np.arange(count))

    held = None if config.dataset.validation.source == "none" else part(12)
    scaling = Normalization(np.ones(3), np.zeros(3))
    return Dataset("test", ("a", "b", "c"), part(18), held, part(3), scaling, {})


def make_loop(config: Config) -> Loop:
    dataset, backend = make_dataset(config), load_backend(config.backend.name)
    architecture = infer_shapes(parse_layers(LAYERS), (3,), 3, 0.0)
    network = backend.build_network(architecture, config)
    network.load(initial_arrays(architecture, config.initializer, 0, dataset))
    train, held = (
        None if part is None else backend.build_loader(part, dataset.normalization, config)
        for part in (dataset.train, dataset.validation)
    )
    assert train is not None
    length = Length.of(config, len(dataset.train))
    pruner = build_pruner(config, architecture, dataset, network, length)
    return Loop(network, dataset, (train, held), config, pruner)


def run_all(loop: Loop) -> list[bool]:
    """Run a loop to its end; return for each epoch whether its weights were the best."""
    with np.errstate(all="ignore"):
        return [is_best for _, is_best in loop.run()]


def stop_at(loop: Loop, call: int, within_epoch_only: bool = False) -> bool:
    """Interrupt a loop at a call of its hooks; return False if the loop ends before this call.

    ``call`` is the number of the call, counted from 1. The hooks are ``between_steps`` and, unless
    ``within_epoch_only`` is true, ``between_batches``.
    """
    calls = iter(range(1, 10_000))

    def count() -> None:
        if next(calls) == call:
            raise Stop

    loop.between_steps = count
    if not within_epoch_only:
        loop.between_batches = count
    try:
        run_all(loop)
    except Stop:
        return True
    return False


def saved(loop: Loop) -> Content:
    """Return the state of a loop as read from a checkpoint, with values of JSON's types."""
    content = loop.save()
    return Content(json.loads(json.dumps(content.values)), content.arrays)


def results(loop: Loop) -> dict[str, Any]:
    """Return the saved state of a loop, except measured times."""
    content = saved(loop)
    values = content.values
    values["epoch"]["seconds"] = 0.0
    values["history"] = [[*row[:-2], row[-1]] for row in values["history"]]
    values["target"].pop("seconds")
    values["updates"] = dict(loop.training.updates)
    arrays = {x: (str(array.dtype), array.tobytes()) for x, array in content.arrays.items()}
    return values | arrays


def positions(config: Config) -> Iterator[tuple[int, Loop]]:
    """Yield the number of each call of a hook, and a loop that was interrupted at this call."""
    call = 1
    while stop_at(loop := make_loop(config), call):
        yield call, loop
        call += 1


@pytest.fixture
def make(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Return a function that makes a configuration whose evaluations have several batches."""
    monkeypatch.setattr("nnopt.backends.numpy.loader.EVALUATION_BATCH_SIZE", 5)

    def configured(backend: str, options: dict[str, Any]) -> Config:
        config = make_config(backend=backend, **{"epochs": 3, "batch_size": 6} | options)
        if not isinstance(config.early_stopping, dict):
            return config
        values = STOPPING | {"monitor": "loss"} | config.early_stopping
        return replace(config, early_stopping=schema.EarlyStoppingConfig(**values))

    return configured


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        *(pytest.param("numpy", options, id=name) for name, options in CASES.items()),
        *(pytest.param("torch", options, id=name) for name, options in TORCH_CASES.items()),
    ],
)
def test_training_stopped_at_any_position_continues_with_equal_bits(
    make: Callable[..., Config], backend: str, options: dict[str, Any]
) -> None:
    config = make(backend, options)
    whole = make_loop(config)
    rows, expected, tried = run_all(whole), results(whole), 0
    for call, stopped in positions(config):
        resumed, before = make_loop(config), len(stopped.training.history)
        resumed.restore(saved(stopped))
        assert run_all(resumed) == rows[before:], call
        assert results(resumed) == expected, call
        tried += 1
    assert tried >= whole.training.step


def test_training_cases_end_as_named(make: Callable[..., Config]) -> None:
    """For example, early stopping must end the case ``stopped by epochs``."""
    ended = {name: make_loop(make("numpy", options)) for name, options in CASES.items()}
    for loop in ended.values():
        run_all(loop)
    found = {name: loop.training for name, loop in ended.items()}
    assert found["plateau"].plateau.factor < 1
    assert found["max_steps"].step == 8
    for name in ("stopped by epochs", "stopped by steps"):
        assert found[name].stopped_early
    assert found["stopped by steps"].step % 3
    assert found["SWA, validated within epochs"].last_averaged == 3
    assert found["target in epochs, layer statistics"].target.step == 3
    assert found["target within epochs, layer statistics"].target.step == 2
    assert found["target within epochs, layer statistics"].stopped_early
    assert set(found["target in epochs, layer statistics"].updates) == {
        *("batch_norm1.weight", "dense1.weight", "dense2.weight")
    }
    assert found["diverged"].diverged_at is not None
    assert found["diverged in float32"].diverged_at is not None


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_training_stopped_after_every_step_continues_with_equal_bits(
    make: Callable[..., Config], backend: str
) -> None:
    config = make(backend, {"optimizer": "adam", "regularizer.ema_decay": 0.9})
    whole = make_loop(config)
    run_all(whole)
    loop, count = make_loop(config), 0
    while stop_at(loop, 2, within_epoch_only=True):
        content, loop, count = saved(loop), make_loop(config), count + 1
        loop.restore(content)
    assert results(loop) == results(whole)
    assert count == whole.training.step - 1


def test_training_saved_after_every_step_is_unchanged(make: Callable[..., Config]) -> None:
    """Saving reads the records of the steps. The metrics of the epoch must not change."""
    config = make("numpy", {"regularizer.grad_clip": 0.5})
    whole, observed = make_loop(config), make_loop(config)
    run_all(whole)
    observed.between_steps = lambda: saved(observed) and None
    run_all(observed)
    assert results(observed) == results(whole)


def test_finished_training_continued_for_more_epochs_equals_longer_training(
    make: Callable[..., Config],
) -> None:
    """A finished training of two epochs continues to four epochs."""
    short, long = (make("numpy", {"epochs": epochs, "optimizer": "adam"}) for epochs in (2, 4))
    first, whole, resumed = make_loop(short), make_loop(long), make_loop(long)
    run_all(first)
    run_all(whole)
    resumed.restore(saved(first))
    assert [row.epoch for row, _ in resumed.run()] == [3, 4]
    assert results(resumed) == results(whole)


def test_continuation_stops_at_once_if_patience_ran_out_in_the_last_epoch(
    make: Callable[..., Config],
) -> None:
    """A training whose patience runs out in its last epoch is continued with more epochs."""
    stopping = {"early_stopping": {"patience": 2, "min_delta": 100.0}}
    short, long = (make("numpy", {"epochs": epochs, **stopping}) for epochs in (3, 5))
    first, whole, resumed = make_loop(short), make_loop(long), make_loop(long)
    run_all(first)
    run_all(whole)
    assert not first.training.stopped_early
    resumed.restore(saved(first))
    assert run_all(resumed) == []
    assert results(resumed) == results(whole)
    assert resumed.training.stopped_early


REFUSED = "expected |has |is |a row|contradict|missing|unexpected"
"""Pattern that matches each message about an invalid state."""


def changed(values: dict[str, Any], group: str, key: str, value: Any) -> dict[str, Any]:
    return values | {group: {**values[group], key: value}}


WRONG_VALUES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "no history": lambda x: {k: v for k, v in x.items() if k != "history"},
    "history is a map": lambda x: x | {"history": {}},
    "a row is a number": lambda x: x | {"history": [3]},
    "a row is too short": lambda x: x | {"history": [[1, 2]]},
    "a row has a text": lambda x: x | {"history": [["x", *x["history"][0][1:]]]},
    "a row is missing": lambda x: x | {"history": []},
    "a row is repeated": lambda x: x | {"history": 2 * x["history"]},
    "a row has another step": lambda x: x | {"history": [[1, 2, *x["history"][0][2:]]]},
    "an epoch is a text": lambda x: changed(x, "numbers", "best_epoch", "1"),
    "an epoch is a truth value": lambda x: changed(x, "numbers", "best_epoch", True),
    "a loss is a list": lambda x: changed(x, "numbers", "best_validation_loss", []),
    "the plateau is a list": lambda x: x | {"plateau": []},
    "a factor is missing": lambda x: x | {"plateau": {"best": 1.0, "waited": 0}},
    "the average is null": lambda x: x | {"averaging": None},
    "the best value is a text": lambda x: changed(x, "stopping", "best", "low"),
    "the reference is null": lambda x: changed(x, "stopping", "reference", None),
    "a target without seconds": lambda x: changed(x, "target", "step", 3),
    "a target is a text": lambda x: changed(x, "target", "step", "3"),
    "an update is a text": lambda x: changed(x, "updates", "dense1.weight", "1"),
    "seconds are null": lambda x: changed(x, "epoch", "seconds", None),
}

WRONG_ARRAYS: dict[str, dict[str, Any]] = {
    "no learning rates": {"learning_rates": None},
    "a learning rate": {"learning_rates": np.array(0.1)},
    "more learning rates than steps": {"learning_rates": np.full(100, 0.1)},
    "fewer learning rates": {"learning_rates": np.full(2, 0.1)},
    "losses in float32": {"losses": np.zeros(1, np.float32)},
    "fewer losses than sizes": {"losses": np.zeros(0)},
    "more sizes than batches": {"sizes": np.full(4, 6), "losses": np.zeros(4)},
    "a negative size": {"sizes": np.array([-6])},
    "a matrix of sizes": {"sizes": np.ones((1, 1), np.int64)},
    "no weights": {"last/dense1.weight": None},
    "weights of another shape": {"last/dense1.weight": np.zeros((9, 9), np.float32)},
    "network of another shape": {"network/weights/dense1.weight": np.zeros((9, 9), np.float32)},
    "a best array of another network": {"best/other": np.zeros(1)},
}


@pytest.mark.parametrize("change", WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_restoration_refuses_wrong_value(make: Callable[..., Config], change: Any) -> None:
    loop = make_loop(config := make("numpy", {}))
    assert stop_at(loop, 8)
    content = saved(loop)
    assert (len(loop.training.history), len(loop.training.epoch.sizes)) == (1, 1)
    make_loop(config).restore(content)
    with pytest.raises(ValueError, match=REFUSED):
        make_loop(config).restore(Content(change(content.values), content.arrays))


@pytest.mark.parametrize("change", WRONG_ARRAYS.values(), ids=WRONG_ARRAYS)
def test_restoration_refuses_wrong_array(
    make: Callable[..., Config], change: dict[str, Any]
) -> None:
    loop = make_loop(config := make("numpy", {}))
    assert stop_at(loop, 8)
    content = saved(loop)
    arrays = {k: v for k, v in (content.arrays | change).items() if v is not None}
    with pytest.raises(ValueError, match=REFUSED):
        make_loop(config).restore(Content(content.values, arrays))
