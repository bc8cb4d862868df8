"""Errors about values of a configuration: the key, the refused and the allowed values."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from nnopt.config.compose import make_plan
from nnopt.config.validate import read_config
from nnopt.errors import ConfigError
from nnopt.schema import Config

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    """Return the configuration of ``nnopt run`` without overrides."""
    return dict(make_plan([]).points[0].container)


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of ``base`` with new values of dotted keys.

    The key ``@group`` replaces a group by the content of its file, whose name is the value.
    """
    container = copy.deepcopy(base)
    for key, value in changes.items():
        if key.startswith("@"):
            loaded = OmegaConf.load(CONF / key[1:] / f"{value}.yaml")
            container[key[1:]] = OmegaConf.to_container(loaded)
            continue
        *path, last = key.split(".")
        target = container
        for part in path:
            target = target[part]
        target[last] = value
    return container


def read(base: dict[str, Any], **changes: Any) -> Config:
    return read_config(changed(base, changes))


def problems(base: dict[str, Any], changes: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_config(changed(base, changes))
    assert caught.value.exit_code == 2
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


ADAM, MNIST, TORCH = {"@optimizer": "adam"}, {"@dataset": "mnist"}, {"@backend": "torch"}

NUMBERS: list[tuple[dict[str, Any], str, Any, str]] = [
    ({}, "optimizer.lr", math.nan, "needs a finite number, at least 0"),
    ({}, "optimizer.lr", math.inf, "needs a finite number, at least 0"),
    ({}, "optimizer.lr", -math.inf, "needs a finite number, at least 0"),
    ({}, "optimizer.lr", -0.1, "needs to be at least 0"),
    ({}, "optimizer.lr", "aut", "needs a number or auto"),
    ({}, "optimizer.momentum", "auto", "needs a number"),
    ({}, "optimizer.lr", None, "needs a number"),
    ({}, "optimizer.lr", True, "needs a number"),
    ({}, "optimizer.lr", [0.1], "needs a number"),
    ({}, "optimizer.lr", {"a": 1}, "needs a number"),
    ({}, "optimizer.momentum", 1, "needs to be at least 0 and below 1"),
    ({}, "optimizer.momentum", -0.1, "needs to be at least 0 and below 1"),
    (ADAM, "optimizer.beta1", 1.0, "needs to be at least 0 and below 1"),
    (ADAM, "optimizer.beta2", 1, "needs to be at least 0 and below 1"),
    (ADAM, "optimizer.epsilon", 0, "needs to be above 0"),
    ({"@optimizer": "rmsprop"}, "optimizer.rho", 1, "needs to be at least 0 and below 1"),
    ({"@optimizer": "adagrad"}, "optimizer.epsilon", -1, "needs to be above 0"),
    ({**TORCH, "@optimizer": "muon"}, "optimizer.newton_schulz_steps", 0, "at least 1 and at most"),
    ({**TORCH, "@optimizer": "muon"}, "optimizer.adam_lr_ratio", -1, "needs to be at least 0"),
    ({**TORCH, "@optimizer": "muon"}, "optimizer.input_layer", "sgd", "allowed: muon, adam"),
    (
        {**TORCH, "@optimizer": "schedule_free_sgd"},
        "optimizer.momentum",
        0,
        "needs to be above 0 and below 1",
    ),
    ({}, "epochs", -3, "needs to be at least 1"),
    ({}, "epochs", 0, "needs to be at least 1"),
    ({}, "epochs", 10**23, "at most 10000000"),
    ({}, "epochs", 1.5, "needs a whole number"),
    ({}, "epochs", 1.0, "needs a whole number; write 1"),
    ({}, "epochs", True, "needs a whole number"),
    ({}, "epochs", "ten", "needs a whole number"),
    ({}, "max_steps", 0, "needs to be at least 1"),
    ({}, "max_steps", "all", "needs a whole number or null"),
    ({}, "batch_size", 0, "needs to be at least 1"),
    ({}, "batch_size", 32.0, "needs a whole number; write 32"),
    ({}, "batch_size", None, "needs a whole number"),
    ({}, "accumulation_steps", 0, "needs to be at least 1"),
    ({}, "accumulation_steps", 1.5, "needs a whole number"),
    ({}, "seed", -1, "needs to be at least 0"),
    ({}, "seed", 2**64, "at most 9223372036854775807"),
    ({}, "plots", "maybe", "needs true or false"),
    ({}, "plots", "no", "needs true or false"),
    ({}, "plots", 1, "needs true or false"),
    ({}, "name", 5, "needs a text"),
    ({}, "name", "", "needs letters"),
    ({}, "name", "a/b", "needs letters"),
    ({}, "name", "../up", "needs letters"),
    ({}, "name", "two\nlines", "needs letters"),
    ({}, "name", "x" * 101, "needs letters"),
    ({}, "regularizer.l1", -1e-9, "needs to be at least 0"),
    ({}, "regularizer.l2", math.nan, "needs a finite number"),
    ({}, "regularizer.weight_decay", -1, "needs to be at least 0"),
    ({}, "regularizer.dropout", 1.5, "needs to be at least 0 and below 1"),
    ({}, "regularizer.dropout", 1, "needs to be at least 0 and below 1"),
    ({}, "regularizer.stochastic_depth", 1, "needs to be at least 0 and below 1"),
    ({}, "regularizer.label_smoothing", -1, "needs to be at least 0 and below 1"),
    ({}, "regularizer.label_smoothing", 1, "needs to be at least 0 and below 1"),
    ({}, "regularizer.grad_clip", -1, "needs to be at least 0"),
    ({}, "regularizer.max_norm", -1, "needs to be at least 0"),
    ({}, "regularizer.decay_norm_and_bias", "yes", "needs true or false"),
    (MNIST, "regularizer.augmentation.crop", -1, "needs to be at least 0 and at most 64"),
    (MNIST, "regularizer.augmentation.crop", 1.5, "needs a whole number"),
    (MNIST, "regularizer.augmentation.flip", "maybe", "needs true or false"),
    (MNIST, "regularizer.augmentation.cutout", -1, "needs to be at least 0 and at most 1024"),
    (MNIST, "regularizer.augmentation.policy", "randaugment", "did you mean 'rand_augment'?"),
    (MNIST, "regularizer.augmentation.num_ops", 0, "at least 1 and at most 100"),
    (MNIST, "regularizer.augmentation.magnitude", 31, "at least 0 and at most 30"),
    (MNIST, "regularizer.augmentation.mixup", -0.1, "needs to be at least 0 and at most 1000"),
    (MNIST, "regularizer.augmentation.mixup", math.inf, "needs a finite number"),
    (MNIST, "regularizer.augmentation.cutmix", -1, "needs to be at least 0 and at most 1000"),
    ({}, "schedule.warmup_epochs", -1, "needs to be at least 0"),
    ({}, "regularizer.ema_decay", 1.0, "at least 0 and below 1"),
    ({}, "regularizer.swa_start", 1.0, "at least 0 and below 1"),
    (MNIST, "regularizer.test_time_flip", 1, "needs true or false"),
    ({"@schedule": "step"}, "schedule.step_size", 0, "needs to be above 0"),
    ({"@schedule": "step"}, "schedule.gamma", 2, "needs to be above 0 and at most 1"),
    ({"@schedule": "exponential"}, "schedule.gamma", 0, "needs to be above 0 and at most 1"),
    ({"@schedule": "inverse_time"}, "schedule.decay_rate", -1, "needs to be at least 0"),
    ({"@schedule": "cosine"}, "schedule.final_factor", 1.1, "needs to be at least 0 and at most 1"),
    ({"@schedule": "one_cycle"}, "schedule.pct_start", 1, "needs to be above 0 and below 1"),
    ({"@schedule": "one_cycle"}, "schedule.initial_factor", 0, "needs to be above 0 and at most 1"),
    ({"@schedule": "plateau"}, "schedule.gamma", 1, "needs to be above 0 and below 1"),
    ({"@schedule": "plateau"}, "schedule.patience", -1, "needs to be at least 0"),
    ({"@schedule": "plateau"}, "schedule.min_delta_mode", "rel", "allowed: absolute, relative"),
    ({"@schedule": "multistep"}, "schedule.milestones", 30, "needs a list, such as [30]"),
    ({"@schedule": "multistep"}, "schedule.milestones", None, "needs a list"),
    ({"@schedule": "multistep"}, "schedule.milestones", [], "needs at least one epoch"),
    ({"@schedule": "multistep"}, "schedule.milestones", [30, 30], "needs increasing epochs"),
    ({"@schedule": "multistep"}, "schedule.milestones", [45, 30.5], "needs increasing epochs"),
    ({"@schedule": "multistep"}, "schedule.gamma", 0, "needs to be above 0 and at most 1"),
    ({"@schedule": "polynomial"}, "schedule.power", 0, "needs to be above 0 and at most 100"),
    ({"@schedule": "cosine_restarts"}, "schedule.first_period", 0, "needs to be above 0"),
    ({"@schedule": "cosine_restarts"}, "schedule.period_factor", 0.9, "at least 1 and at most"),
    ({"@schedule": "cosine_restarts"}, "schedule.final_factor", 2, "at least 0 and at most 1"),
    ({}, "early_stopping.min_delta_mode", "rel", "allowed: absolute, relative"),
    ({}, "initializer.scale", 0, "needs to be above 0 and at most 1000000"),
    ({}, "initializer.scale", -2, "needs to be above 0 and at most 1000000"),
    ({}, "initializer.scale", "big", "needs a number"),
    ({"initializer.hidden": "normal"}, "initializer.std", 0, "needs to be above 0 and at most"),
    ({"initializer.hidden": "uniform"}, "initializer.low", -1e7, "at least -1000000 and at most"),
    ({}, "early_stopping.patience", 0, "needs to be at least 1"),
    ({}, "early_stopping.validate_every", 0, "needs to be at least 1"),
    ({}, "early_stopping.min_delta", -1, "needs to be at least 0"),
    ({}, "dataset.validation.fraction", 1, "needs to be above 0 and below 1"),
    ({}, "dataset.validation.fraction", 0, "needs to be above 0 and below 1"),
    ({}, "dataset.validation.fraction", 1e400, "needs a finite number"),
    ({}, "dataset.samples_per_class", 1, "needs to be at least 2 and at most 1000000"),
    ({}, "dataset.samples_per_class", 10**9, "needs to be at least 2 and at most 1000000"),
    ({}, "dataset.classes", 1, "needs to be at least 2 and at most 100"),
    ({}, "dataset.noise", -0.5, "needs to be at least 0"),
    ({}, "dataset.subset", 0, "needs to be at least 1"),
    (MNIST, "dataset.classes", 5, "needs a list, such as [5]"),
    (MNIST, "dataset.classes", "cat", "needs a list, such as [cat]"),
    ({}, "backend.threads", 0, "needs to be at least 1"),
    ({}, "backend.threads", 1.0, "needs a whole number or null; write 1"),
    ({}, "architecture.hidden", 64, "needs a list, such as [64]"),
    ({}, "data.root", 5, "needs a text"),
    ({}, "data.download", "no", "needs true or false"),
]


@pytest.mark.parametrize(("setting", "key", "value", "allowed"), NUMBERS, ids=lambda x: str(x)[:30])
def test_wrong_value_is_reported_with_allowed_values(
    base: dict[str, Any], setting: dict[str, Any], key: str, value: Any, allowed: str
) -> None:
    messages = problems(base, {**setting, key: value})
    assert len(messages) == 1
    # a whole number for a float key is shown as a float
    assert messages[0].startswith((f"{key} = {value!r}: ", f"{key} = {value}.0: "))
    assert allowed in messages[0]
    assert "\n" not in messages[0]


@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["large", "small"])
@pytest.mark.parametrize("key", ["epochs", "optimizer.lr", "dataset.noise", "seed"])
def test_number_that_is_too_large_is_refused(base: dict[str, Any], key: str, value: int) -> None:
    messages = problems(base, {key: value})
    assert len(messages) == 1
    assert messages[0].startswith(f"{key} = ")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([64, "a"], "architecture.hidden[1] = 'a': needs a whole number"),
        ([64, 0], "architecture.hidden[1] = 0: needs to be at least 1 and at most 1000000"),
        ([10**9], "architecture.hidden[0] = 1000000000: needs to be at least 1 and at most"),
        ([1.5], "architecture.hidden[0] = 1.5: needs a whole number"),
        ([[3]], "architecture.hidden[0] = [3]: needs a whole number"),
    ],
)
def test_wrong_list_item_is_reported_with_index(
    base: dict[str, Any], value: Any, expected: str
) -> None:
    (message,) = problems(base, {"architecture.hidden": value})
    assert message.startswith(expected)


CHOICES: list[tuple[dict[str, Any], str, Any, str]] = [
    (
        {},
        "architecture.activation",
        "rellu",
        "did you mean 'relu'? allowed: relu, leaky_relu, prelu",
    ),
    ({}, "architecture.activation", "xyz", "allowed: relu, leaky_relu, prelu, elu, selu,"),
    ({}, "architecture.activation", "hardswish", "did you mean 'hard_swish'?"),
    ({}, "architecture.activation", True, "allowed: relu"),
    ({}, "architecture.activation", None, "allowed: relu"),
    ({}, "backend.dtype", "float16", "? allowed: float32, float64"),
    ({}, "regularizer.norm", "bach", "did you mean 'batch'? allowed: none, batch, layer, group"),
    ({}, "regularizer.norm", None, "allowed: none, batch, layer, group"),
    ({}, "initializer.input", "whitenin", "did you mean 'whitening'? allowed: whitening, null"),
    (
        {},
        "backend.conv_algorithm",
        "winnograd",
        "did you mean 'winograd'? allowed: auto, naive, im2col,",
    ),
    ({"@architecture": "resnet"}, "architecture.depth", 19, "allowed: 9, 18, 20"),
    ({"@architecture": "resnet"}, "architecture.depth", "18", "allowed: 9, 18, 20"),
    ({"@architecture": "resnet"}, "architecture.depth", 18.0, "allowed: 9, 18, 20"),
    ({"@architecture": "resnet"}, "architecture.depth", None, "allowed: 9, 18, 20"),
    ({}, "loss", "mae", "allowed: cross_entropy, hinge, mse, focal"),
    ({"focal_gamma": 1.0}, "loss", "focl", "did you mean 'focal'?"),
    ({}, "drop_last", "pad", "needs true or false"),
    ({}, "test_weights", "first", "allowed: best, last"),
    ({}, "early_stopping.unit", "batches", "allowed: epochs, steps"),
    ({}, "early_stopping.monitor", "f1", "allowed: loss, accuracy"),
    ({}, "dataset.validation.source", "training", "allowed: train, test, own, none"),
    ({}, "dataset.normalization", "minmax", "allowed: unit, standard, none"),
    ({}, "initializer.hidden", "he", "allowed: he_normal"),
    ({}, "initializer.output", "kaiming", "allowed: he_normal"),
]


@pytest.mark.parametrize(("setting", "key", "value", "allowed"), CHOICES, ids=lambda x: str(x)[:30])
def test_wrong_choice_is_reported_with_allowed_choices(
    base: dict[str, Any], setting: dict[str, Any], key: str, value: Any, allowed: str
) -> None:
    (message,) = problems(base, {**setting, key: value})
    assert message.startswith(f"{key} = {value!r}: ")
    assert allowed in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("typo", 1, "unknown key 'typo'; known here: name, seed, epochs,"),
        ("epoch", 1, "unknown key 'epoch'; did you mean 'epochs'?"),
        ("optimizer.lrr", 1, "unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?"),
        ("optimizer._target_", "os.system", "unknown key 'optimizer._target_'; "),
        ("_target_", "os.system", "unknown key '_target_'; "),
        (
            "regularizer.augmentation.flop",
            True,
            "unknown key 'regularizer.augmentation.flop'; did you mean "
            "'regularizer.augmentation.flip'?",
        ),
        (
            "dataset.validation.fration",
            0.1,
            "unknown key 'dataset.validation.fration'; did you mean 'dataset.validation.fraction'?",
        ),
    ],
)
def test_unknown_key_is_reported_with_nearest_key(
    base: dict[str, Any], key: str, value: Any, expected: str
) -> None:
    (message,) = problems(base, {key: value})
    assert message.startswith(expected)


def test_key_of_other_variant_is_reported_with_that_variant(base: dict[str, Any]) -> None:
    (message,) = problems(base, {"@optimizer": "sgd", "optimizer.momentum": 0.9})
    expected = "unknown key 'optimizer.momentum' here; it belongs to optimizer=momentum,"
    others = ("nesterov", "rmsprop", "muon", "schedule_free_sgd")
    assert message == f"{expected} {', '.join(f'optimizer={name}' for name in others)}"


@pytest.mark.parametrize("key", ["seed", "optimizer.lr", "dataset.validation", "regularizer.l1"])
def test_missing_key_is_reported(base: dict[str, Any], key: str) -> None:
    container = copy.deepcopy(base)
    *path, last = key.split(".")
    target = container
    for part in path:
        target = target[part]
    del target[last]
    with pytest.raises(ConfigError) as caught:
        read_config(container)
    assert caught.value.problems == [f"the key {key!r} is missing; set it with {key}=..."]
    (message,) = problems(base, {key: "???"})  # OmegaConf's marker of a missing value
    assert message.startswith(f"the key {key!r} is missing")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"optimizer": "adm"},
            "optimizer.name = 'adm': did you mean 'adam'? allowed: sgd, momentum",
        ),
        ({"optimizer.name": "adm"}, "optimizer.name = 'adm': did you mean 'adam'?"),
        ({"backend.name": "jax"}, "backend.name = 'jax': allowed: numpy, torch"),
        ({"backend": None}, "backend.name = None: allowed: numpy, torch"),
        ({"dataset": 5}, "dataset.name = 5: "),
        ({"regularizer": None}, "regularizer = None: needs a group of keys, such as l1, l2"),
        ({"early_stopping": 10}, "early_stopping = 10: needs a group of keys, such as patience"),
        ({"dataset.validation": 0.2}, "dataset.validation = 0.2: needs a group of keys, such as"),
    ],
)
def test_group_that_is_not_a_map_is_reported(
    base: dict[str, Any], changes: dict[str, Any], expected: str
) -> None:
    (message,) = problems(base, changes)
    assert message.startswith(expected)


NO_VALIDATION = {"dataset.validation.source": "none", "test_weights": "last"}
CROSS: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"@optimizer": "nesterov", "optimizer.momentum": 0},
        ["optimizer.name = 'nesterov'", "optimizer.momentum"],
    ),
    *(
        (
            {"@optimizer": name},
            [f"optimizer.name = {name!r}", "backend=torch", "backend.name = 'numpy'"],
        )
        for name in ("lion", "muon", "schedule_free_sgd", "schedule_free_adamw")
    ),
    (
        {"regularizer.test_time_flip": True},
        ["regularizer.test_time_flip", "needs images", "'spiral'"],
    ),
    (
        {"regularizer.ema_decay": 0.9, "regularizer.swa_start": 0.5},
        ["regularizer.ema_decay = 0.9", "regularizer.swa_start = 0.5", "set one of them to 0"],
    ),
    *(
        (
            {**TORCH, "@optimizer": "schedule_free_sgd", f"regularizer.{key}": 0.5},
            [f"regularizer.{key} = 0.5", "optimizer.name = 'schedule_free_sgd'"],
        )
        for key in ("ema_decay", "swa_start", "max_norm")
    ),
    (
        {**NO_VALIDATION, "early_stopping.patience": 3},
        ["early_stopping.patience", "dataset.validation.source = 'none'"],
    ),
    (
        {**NO_VALIDATION, "early_stopping.validate_every": 3},
        ["early_stopping.validate_every", "dataset.validation.source = 'none'"],
    ),
    *(
        (
            {f"initializer.{key}": 0.5},
            [f"initializer.{key} = 0.5", "no effect", "'he_normal'", f"initializer={name}"],
        )
        for key, name in (("std", "normal"), ("low", "uniform"), ("high", "uniform"))
    ),
    (
        {"initializer.hidden": "zeros", "initializer.output": "zeros", "initializer.scale": 2.0},
        ["initializer.scale = 2.0", "no effect", "set initializer.scale=1"],
    ),
    (
        {"initializer.hidden": "uniform", "initializer.low": 1.0},
        ["initializer.low = 1.0", "must be below initializer.high = 1.0"],
    ),
    (
        {"initializer.output": "uniform", "initializer.high": -0.5},
        ["initializer.low = 0.0", "must be below initializer.high = -0.5"],
    ),
    (
        {"early_stopping.min_delta": 1.0, "early_stopping.min_delta_mode": "relative"},
        ["early_stopping.min_delta = 1.0", "'relative'", "must be below 1", "0.01 for 1 %"],
    ),
    (
        {"early_stopping.min_delta_mode": "relative"},
        ["early_stopping.min_delta_mode = 'relative'", "no effect", "min_delta = 0.0"],
    ),
    (
        {"@schedule": "plateau", "schedule.min_delta_mode": "relative"},
        ["schedule.min_delta_mode = 'relative'", "no effect", "min_delta = 0.0"],
    ),
    *(
        ({"@schedule": name, f"schedule.{key}": 1.0}, [f"schedule.{key} = 1.0", "constant"])
        for name, key in (
            ("polynomial", "final_factor"),
            ("cosine_restarts", "final_factor"),
            ("multistep", "gamma"),
        )
    ),
    (
        {"architecture.hidden": [], "initializer.hidden": "normal", "initializer.std": 0.5},
        ["initializer.std = 0.5", "no effect on initializer.output = 'lecun_normal'; set"],
    ),
    (
        {
            "@architecture": "layers",
            "architecture.layers": ["tanh", {"dense": "classes"}],
            "initializer.hidden": "uniform",
            "initializer.low": 0.5,
        },
        ["initializer.low = 0.5", "no effect on initializer.output = 'lecun_normal'; set"],
    ),
    (
        {"@pruning": "magnitude", "pruning.from": "run", "initializer.scale": 2.0},
        ["initializer.scale = 2.0", "no effect", "pruning.from"],
    ),
    (
        {
            "@schedule": "plateau",
            "schedule.min_delta": 2.0,
            "schedule.min_delta_mode": "relative",
        },
        ["schedule.min_delta = 2.0", "'relative'", "must be below 1"],
    ),
    (
        {**NO_VALIDATION, "@schedule": "plateau"},
        ["schedule.name = 'plateau'", "dataset.validation.source = 'none'"],
    ),
    (
        {"dataset.validation.source": "none"},
        ["test_weights = 'best'", "dataset.validation.source = 'none'", "test_weights=last"],
    ),
    (
        {"dataset.validation.source": "own"},
        ["dataset.validation.source = 'own'", "dataset.name = 'spiral'"],
    ),
    (
        {"loss": "hinge", "regularizer.label_smoothing": 0.1},
        ["regularizer.label_smoothing = 0.1", "loss = 'hinge'"],
    ),
    (
        {"loss": "hinge", "regularizer.augmentation.mixup": 0.2},
        ["regularizer.augmentation.mixup = 0.2", "loss = 'hinge'"],
    ),
    ({"focal_gamma": 1.0}, ["focal_gamma = 1.0", "loss = 'cross_entropy'", "set focal_gamma=2"]),
    ({"focal_gamma": 0.0, "loss": "mse"}, ["focal_gamma = 0.0", "loss = 'mse'"]),
    ({"batch_size": 4, "accumulation_steps": 5}, ["accumulation_steps = 5", "batch_size = 4"]),
    (
        {"batch_size": 1, "regularizer.augmentation.mixup": 0.2},
        ["regularizer.augmentation.mixup = 0.2", "batch_size above 1"],
    ),
    (
        {**MNIST, "loss": "hinge", "regularizer.augmentation.cutmix": 1.0},
        ["regularizer.augmentation.cutmix = 1.0", "loss = 'hinge'"],
    ),
    (
        {**MNIST, "batch_size": 1, "regularizer.augmentation.cutmix": 1.0},
        ["regularizer.augmentation.cutmix = 1.0", "batch_size above 1"],
    ),
    (
        {"regularizer.augmentation.cutmix": 1.0},
        ["regularizer.augmentation.cutmix", "dataset.name = 'spiral'"],
    ),
    (
        {"regularizer.augmentation.cutout": 2},
        ["regularizer.augmentation.cutout", "dataset.name = 'spiral'"],
    ),
    (
        {"regularizer.augmentation.crop": 2},
        ["regularizer.augmentation.crop", "dataset.name = 'spiral'"],
    ),
    (
        {"@backend": "torch", "regularizer.augmentation.policy": "rand_augment"},
        ["regularizer.augmentation.policy = 'rand_augment'", "dataset.name = 'spiral'"],
    ),
    (
        {**MNIST, "regularizer.augmentation.policy": "trivial_augment"},
        ["regularizer.augmentation.policy = 'trivial_augment'", "backend.name = 'numpy'"],
    ),
    (
        {"regularizer.augmentation.magnitude": 5},
        ["magnitude = 5 has no effect on", "policy = 'none'", "policy=rand_augment"],
    ),
    (
        {
            **MNIST,
            "@backend": "torch",
            "regularizer.augmentation.policy": "trivial_augment",
            "regularizer.augmentation.num_ops": 3,
        },
        ["num_ops = 3 has no effect on", "policy = 'trivial_augment'"],
    ),
    (
        {"regularizer.augmentation.flip": True, "@dataset": "moons"},
        ["regularizer.augmentation.flip", "dataset.name = 'moons'"],
    ),
    (
        {"@architecture": "layers", "regularizer.dropout": 0.3},
        ["regularizer.dropout = 0.3", "architecture.layers"],
    ),
    (
        {"regularizer.stochastic_depth": 0.5},
        ["regularizer.stochastic_depth = 0.5", "architecture.name = 'mlp'", "architecture=resnet"],
    ),
    (
        {"@architecture": "layers", "regularizer.stochastic_depth": 0.5},
        ["regularizer.stochastic_depth = 0.5", "architecture.layers has none"],
    ),
    (
        {"regularizer.norm": "group"},
        ["regularizer.norm = 'group'", "architecture=mlp", "regularizer.norm=layer"],
    ),
    (
        {"@architecture": "layers", "regularizer.norm": "batch"},
        ["regularizer.norm = 'batch'", "architecture.layers"],
    ),
    (
        {"@architecture": "layers", "architecture.layers": []},
        ["architecture.layers = []", "at least one layer"],
    ),
    (
        {"@architecture": "vgg", "architecture.widths": []},
        ["architecture.widths = []", "at least one block"],
    ),
    (
        {"@architecture": "three_layer_conv", "architecture.kernel": 4},
        ["architecture.kernel = 4", "odd"],
    ),
    (
        {"regularizer.weight_decay": 10, "optimizer.lr": 0.1},
        ["optimizer.lr = 0.1", "regularizer.weight_decay = 10"],
    ),
    ({"backend.device": "cuda"}, ["backend.device = 'cuda'", "backend=torch"]),
    ({"backend.device": "cuda"}, ["backend.device = 'cuda'", "backend=torch", "backend.name"]),
]


@pytest.mark.parametrize(("changes", "named"), CROSS, ids=lambda x: str(x)[:60])
def test_wrong_combination_is_reported_with_both_keys(
    base: dict[str, Any], changes: dict[str, Any], named: list[str]
) -> None:
    (message,) = problems(base, changes)
    assert all(text in message for text in named), message


def test_default_or_edge_of_range_is_accepted(base: dict[str, Any]) -> None:
    assert isinstance(read_config(base), Config)
    config = read(
        base,
        **{
            "seed": 2**63 - 1,
            "epochs": 1,
            "max_steps": 1,
            "batch_size": 1,
            "optimizer.lr": 0,
            "optimizer.momentum": 0,
            "regularizer.dropout": 0,
            "architecture.hidden": [],
            "schedule.warmup_epochs": 1,
        },
    )
    assert config.optimizer.lr == 0.0
    assert isinstance(config.optimizer.lr, float)
    assert config.architecture.name == "mlp"
    assert config.architecture.hidden == ()


def test_allowed_word_instead_of_number_is_accepted(base: dict[str, Any]) -> None:
    assert read(base, **{"optimizer.lr": "auto"}).optimizer.lr == "auto"
    # The rule on lr times weight decay applies only to numbers.
    assert read(base, **{"optimizer.lr": "auto", "regularizer.weight_decay": 1e9})


def test_experiment_as_key_of_configuration_is_unknown(base: dict[str, Any]) -> None:
    (message,) = problems(base, {"experiment": {"epochs": 3}})
    assert message.startswith("unknown key 'experiment'")


def test_choice_off_read_by_yaml_as_false_is_accepted(base: dict[str, Any]) -> None:
    assert read(base, **TORCH, **{"backend.compile": False}).backend == read(base, **TORCH).backend
    (message,) = problems(base, TORCH | {"backend.compile": True})
    assert message.startswith("backend.compile = True: allowed: off")


@pytest.mark.parametrize(
    ("group", "key", "value", "messages"),
    [
        ({}, "regularizer.norm", False, ["; write none"]),
        ({}, "regularizer.augmentation.policy", False, ["; write none"]),
        ({}, "regularizer.norm", True, ["allowed: none, batch"]),
        ({}, "architecture.activation", False, ["allowed: relu"]),
        ({}, "name", True, ["needs a text; quote the word"]),
        ({}, "optimizer.lr", True, ["needs a number or auto"]),
        ({}, "optimizer.name", False, ["allowed: sgd"]),
        (MNIST, "dataset.classes", ["cat", False], ["classes[1] = False", "; quote the word"]),
    ],
)
def test_truth_value_instead_of_word_is_refused_with_remedy(
    base: dict[str, Any], group: dict[str, Any], key: str, value: Any, messages: list[str]
) -> None:
    (message,) = problems(base, group | {key: value})
    assert all(part in message for part in (key, *messages))
    assert "YAML" not in message  # the value comes from no file


def test_config_error_contains_all_problems(base: dict[str, Any]) -> None:
    messages = problems(
        base,
        {
            "epochs": 0,
            "optimizer.lr": -1,
            "optimizer.nesterov": True,
            "dataset.noise": "x",
            "dataset.validation.fraction": 2,
            "regularizer.norm": "weight",
            "backend.name": "jax",
        },
    )
    keys = ("epochs", "dataset.noise", "dataset.validation", "backend", "regularizer", "optimizer")
    assert len(messages) == 7
    assert all(any(key in line for line in messages) for key in keys)


def test_config_error_contains_all_wrong_combinations(base: dict[str, Any]) -> None:
    messages = problems(
        base,
        {
            "accumulation_steps": 10**6,
            "dataset.validation.source": "none",
            "early_stopping.patience": 3,
            "backend.device": "cuda",
        },
    )
    assert len(messages) == 4
