"""Rules for combinations of values that are allowed separately, but not together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import attrgetter

from nnopt.architecture.layers import Residual
from nnopt.architecture.parse import parse_layers
from nnopt.errors import ConfigError, refused_value
from nnopt.io.paths import path_problem
from nnopt.schema import (
    Config,
    CsvConfig,
    ImageConfig,
    LayersConfig,
    MlpConfig,
    MuonConfig,
    ResnetConfig,
    ScheduleFreeConfig,
    ThreeLayerConvConfig,
    TorchConfig,
    TorchOptimizer,
    TorchvisionConfig,
    VggConfig,
    weight_decay,
)

Rule = Callable[[Config], Iterator[str]]
"""Yields one line for each problem of a configuration."""


def cross_field_problems(config: Config, incomplete: bool = False) -> list[str]:
    """Return the problems of combinations of values, one line each.

    In an ``incomplete`` configuration, refused values are None. Rules that need a refused value are
    skipped.
    """
    problems: list[str] = []
    for rule in RULES:
        with suppress(*(TypeError, AttributeError) if incomplete else ()):
            problems += rule(config)
    return problems


def _setting(config: Config, key: str) -> str:
    """Return a dotted key and its value as ``KEY = VALUE``, for messages."""
    return f"{key} = {attrgetter(key)(config)!r}"


def _name(config: Config) -> Iterator[str]:
    if not re.fullmatch(r"[\w.-]+", config.name) or len(config.name.encode()) > 100:
        reason = (
            "needs letters, digits, '_', '-' or '.', at most 100 bytes, because it is part of the "
            "name of the run's folder"
        )
        yield refused_value("name", config.name, reason)


def _data_folders(config: Config) -> Iterator[str]:
    for key in ("data.root", "data.cache"):
        folder = attrgetter(key)(config)
        if folder is not None and (problem := path_problem(folder)):
            yield refused_value(key, folder, problem)


def _without_effect(config: Config, defaults: dict[str, object], reason: str) -> Iterator[str]:
    """Yield a problem for each key without effect whose value differs from its default."""
    for key, default in defaults.items():
        if attrgetter(key)(config) != default:
            yield f"{_setting(config, key)} has no effect on {reason}"


def _layers(config: Config) -> Iterator[str]:
    if not isinstance(config.architecture, LayersConfig):
        return
    if not config.architecture.layers:
        yield refused_value("architecture.layers", [], "needs at least one layer")
    try:
        parse_layers(config.architecture.layers)
    except ConfigError as error:
        yield from error.problems
    defaults = {"regularizer.dropout": 0, "regularizer.norm": "none"}
    reason = "architecture=layers; add the layer to architecture.layers"
    yield from _without_effect(config, defaults, reason)


def _stochastic_depth(config: Config) -> Iterator[str]:
    architecture = config.architecture
    if not config.regularizer.stochastic_depth or isinstance(architecture, ResnetConfig):
        return
    if isinstance(architecture, LayersConfig):
        try:
            layers = parse_layers(architecture.layers)
        except ConfigError:  # reported by _layers
            return
        if any(isinstance(layer, Residual) for layer in layers):
            return
        reason = "architecture.layers has none"
    elif isinstance(architecture, TorchvisionConfig):
        reason = "the models of architecture=torchvision have rates of their own"
    else:
        reason = f"architecture.name = {architecture.name!r} has none"
    yield (
        f"{_setting(config, 'regularizer.stochastic_depth')} skips residual layers, but {reason}; "
        "set architecture=resnet, or add residual layers to architecture.layers"
    )


def _torchvision(config: Config) -> Iterator[str]:
    if not isinstance(config.architecture, TorchvisionConfig):
        return
    if config.backend.name != "torch":
        yield (
            "architecture.name = 'torchvision' needs backend=torch, but "
            f"{_setting(config, 'backend.name')}"
        )
    defaults = {
        "regularizer.dropout": 0,
        "regularizer.norm": "none",
        "initializer.hidden": "he_normal",
        "initializer.output": "lecun_normal",
        "initializer.input": None,
    }
    reason = "architecture=torchvision, whose models have their own norms, dropout and weights"
    yield from _without_effect(config, defaults, reason)


def _convolutions(config: Config) -> Iterator[str]:
    architecture = config.architecture
    if isinstance(architecture, VggConfig) and not architecture.widths:
        reason = "needs at least one block, or set architecture=mlp"
        yield refused_value("architecture.widths", [], reason)
    if isinstance(architecture, ThreeLayerConvConfig) and architecture.kernel % 2 == 0:
        reason = (
            "needs an odd number, so that the padding that preserves the size of the image is the "
            "same on both sides"
        )
        yield refused_value("architecture.kernel", architecture.kernel, reason)


def _group_norm(config: Config) -> Iterator[str]:
    if isinstance(config.architecture, MlpConfig) and config.regularizer.norm == "group":
        yield (
            "regularizer.norm = 'group' normalizes groups of channels, but architecture=mlp has "
            "no channels; set regularizer.norm=layer"
        )


def _optimizer(config: Config) -> Iterator[str]:
    optimizer, decay = config.optimizer, weight_decay(config)
    if optimizer.name == "nesterov" and optimizer.momentum == 0:
        yield (
            "optimizer.name = 'nesterov' needs optimizer.momentum above 0, got 0; without momentum "
            "it is optimizer=sgd"
        )
    if isinstance(optimizer, TorchOptimizer) and config.backend.name == "numpy":
        name = _setting(config, "optimizer.name")
        yield f"{name} needs backend=torch, but backend.name = 'numpy'"
    if optimizer.lr == "auto":
        return
    factors, weights = ["optimizer.lr"], "the weights"
    factor = decay * optimizer.lr
    if factor < 1 and isinstance(optimizer, MuonConfig):
        factors, weights = [*factors, "optimizer.adam_lr_ratio"], "the weights that Adam trains"
        factor *= optimizer.adam_lr_ratio
    if factor >= 1:
        product = " times ".join(_setting(config, key) for key in factors)
        yield (
            f"{product} times regularizer.weight_decay = {decay} must be below 1: each step "
            f"multiplies {weights} by 1 minus the product"
        )


def _accumulation_steps(config: Config) -> Iterator[str]:
    if config.accumulation_steps > config.batch_size:
        yield (
            f"{_setting(config, 'accumulation_steps')} is more than "
            f"{_setting(config, 'batch_size')}, but each part of a batch needs a sample"
        )


def _validation(config: Config) -> Iterator[str]:
    dataset, stopping = config.dataset, config.early_stopping
    if dataset.validation.source == "own" and dataset.name != "cinic10":
        yield (
            "dataset.validation.source = 'own' needs dataset=cinic10, but "
            f"{_setting(config, 'dataset.name')} has no validation set"
        )
    if dataset.validation.source != "none":
        return
    missing = "needs validation data, but dataset.validation.source = 'none'"
    if stopping.patience is not None:
        yield f"early_stopping.patience {missing}"
    if stopping.validate_every is not None:
        yield f"early_stopping.validate_every {missing}"
    if config.schedule.name == "plateau":
        yield f"schedule.name = 'plateau' {missing}"
    if config.test_weights == "best":
        yield f"test_weights = 'best' {missing}; set test_weights=last"


def _loss(config: Config) -> Iterator[str]:
    needs = "needs loss=cross_entropy, but loss = 'hinge'"
    if config.loss == "hinge" and config.regularizer.label_smoothing:
        yield f"{_setting(config, 'regularizer.label_smoothing')} {needs}"
    for key in ("regularizer.augmentation.mixup", "regularizer.augmentation.cutmix"):
        if not attrgetter(key)(config):
            continue
        if config.loss == "hinge":
            yield f"{_setting(config, key)} {needs}, which has no mixed labels"
        if config.batch_size == 1:
            yield (
                f"{_setting(config, key)} needs a batch_size above 1, got 1: each sample is mixed "
                "with another sample of its batch"
            )


def made_for_images(config: Config) -> list[str]:
    """Return the enabled settings that only apply to images, as ``KEY = VALUE``."""
    keys = [f"augmentation.{key}" for key in ("crop", "flip", "policy", "cutout", "cutmix")]
    keys = [f"regularizer.{key}" for key in (*keys, "test_time_flip")]
    return [
        _setting(config, key) for key in keys if attrgetter(key)(config) not in (0, "none", None)
    ]


def _images(config: Config) -> Iterator[str]:
    if not isinstance(config.dataset, ImageConfig | CsvConfig):
        for setting in made_for_images(config):
            yield f"{setting} needs images, but {_setting(config, 'dataset.name')}"


def _policy(config: Config) -> Iterator[str]:
    augmentation = config.regularizer.augmentation
    policy = _setting(config, "regularizer.augmentation.policy")
    if augmentation.policy in ("rand_augment", "trivial_augment") and (
        config.backend.name == "numpy"
    ):
        yield f"{policy} needs backend=torch, but backend.name = 'numpy'"
    if augmentation.policy not in ("none", "trivial_augment"):
        return
    for name, default in (("num_ops", 2), ("magnitude", 9)):
        if getattr(augmentation, name) not in (default, None):
            yield (
                f"{_setting(config, f'regularizer.augmentation.{name}')} has no effect on "
                f"{policy}; set it to {default}, or regularizer.augmentation.policy=rand_augment"
            )


def _averages(config: Config) -> Iterator[str]:
    ema, swa = (_setting(config, f"regularizer.{key}") for key in ("ema_decay", "swa_start"))
    if config.regularizer.ema_decay and config.regularizer.swa_start:
        yield f"{ema} and {swa}: only one average of the weights can be tested; set the other to 0"
    if not isinstance(config.optimizer, ScheduleFreeConfig):
        return
    for key, reason in (
        ("ema_decay", "already evaluates an average of the weights"),
        ("swa_start", "already evaluates an average of the weights"),
        ("max_norm", "evaluates an average of the weights that the bound does not apply to"),
    ):
        if getattr(config.regularizer, key):
            yield (
                f"{_setting(config, f'regularizer.{key}')} cannot be combined with "
                f"{_setting(config, 'optimizer.name')}, which {reason}; set it to 0"
            )


def _device(config: Config) -> Iterator[str]:
    if config.backend.name == "numpy" and config.backend.device != "cpu":
        yield (
            f"{_setting(config, 'backend.device')} needs backend=torch, but backend.name = "
            "'numpy', which runs on the CPU"
        )


def _precision(config: Config) -> Iterator[str]:
    backend = config.backend
    if not isinstance(backend, TorchConfig) or backend.precision == "full":
        return
    precision = _setting(config, "backend.precision")
    if backend.dtype != "float32":
        yield f"{precision} needs backend.dtype=float32, but {_setting(config, 'backend.dtype')}"
    if backend.precision == "fp16" and not backend.device.startswith("cuda"):
        yield (
            f"{precision} needs backend.device=cuda, but {_setting(config, 'backend.device')}; set "
            "backend.precision=bf16"
        )


def _deterministic(config: Config) -> Iterator[str]:
    backend = config.backend
    if not isinstance(backend, TorchConfig):
        return
    if backend.deterministic and backend.compile == "max-autotune":
        yield (
            "backend.deterministic = true: backend.compile = 'max-autotune' selects kernels by "
            "their time, which differs between runs; set backend.compile=default"
        )


RULES: tuple[Rule, ...] = (
    _name,
    _data_folders,
    _layers,
    _stochastic_depth,
    _torchvision,
    _convolutions,
    _group_norm,
    _optimizer,
    _accumulation_steps,
    _validation,
    _loss,
    _images,
    _policy,
    _averages,
    _device,
    _precision,
    _deterministic,
)
