"""Rules that the schema cannot express, mostly for combinations of values."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from operator import attrgetter

from nnopt.architecture.layers import Residual
from nnopt.architecture.parse import parse_layers
from nnopt.config.plugin_rules import LABELS_ONLY, backends, plugins
from nnopt.config.training_rules import (
    constant_schedules,
    improvements,
    initializer,
    milestones,
    target,
)
from nnopt.errors import ConfigError, refused_value
from nnopt.io.paths import path_problem
from nnopt.schema import (
    Config,
    LayersConfig,
    MuonConfig,
    NoPruningConfig,
    ResnetConfig,
    ScheduleFreeConfig,
    SpiralConfig,
    ThreeLayerConvConfig,
    TorchOptimizer,
    TorchvisionConfig,
    TwoClassConfig,
    VggConfig,
    weight_decay,
)

Rule = Callable[[Config], Iterator[str]]
"""Yields one line for each problem of a configuration."""


def cross_field_problems(
    config: Config, incomplete: bool = False, refused: Collection[str] = ()
) -> list[str]:
    """Return the problems that ``VALUE_RULES`` and ``RULES`` find, one line each.

    In an ``incomplete`` configuration, refused values are None. Rules that need them are skipped.
    ``refused`` are the keys of these values.
    """
    problems: list[str] = []
    for rule in (*VALUE_RULES, *RULES):
        if rule is target and any(key.startswith("target.") for key in refused):
            continue  # null is an allowed value of these keys
        with suppress(*(TypeError, AttributeError) if incomplete else ()):
            for message in rule(config):
                problems.append(message if rule in VALUE_RULES else _filled(message, config))
    return problems


def _filled(message: str, config: Config) -> str:
    """Replace each ``{KEY}`` in a message by ``KEY = VALUE``."""
    return re.sub(r"{(.*?)}", lambda key: _setting(config, key[1]), message)


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


def _checkpoints(config: Config) -> Iterator[str]:
    if config.checkpoint.keep and config.checkpoint.interval is None:
        yield (
            "checkpoint.keep = True has no effect with checkpoint.interval = null; set "
            "checkpoint.keep=false, or checkpoint.interval to a number of seconds"
        )


def _layers(config: Config) -> Iterator[str]:
    if not isinstance(config.architecture, LayersConfig):
        return
    if not config.architecture.layers:
        yield refused_value("architecture.layers", [], "needs at least one layer")
    try:
        parse_layers(config.architecture.layers)
    except ConfigError as error:
        yield from error.problems


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


def _architecture(config: Config) -> Iterator[str]:
    if config.architecture.name == "mlp" and config.regularizer.norm == "group":
        yield (
            "{regularizer.norm} normalizes groups of channels, but architecture=mlp has no "
            "channels; set regularizer.norm=layer"
        )
    defaults: dict[str, object] = {"regularizer.dropout": 0, "regularizer.norm": "none"}
    if isinstance(config.architecture, LayersConfig):
        reason = "architecture=layers, whose layers are those in architecture.layers"
    elif isinstance(config.architecture, TorchvisionConfig):
        reason = "architecture=torchvision, whose models have their own norms, dropout and weights"
        defaults |= {
            "initializer.hidden": "he_normal",
            "initializer.output": "lecun_normal",
            "initializer.input": None,
            "initializer.scale": 1,
        }
    else:
        return
    for key, default in defaults.items():
        if attrgetter(key)(config) != default:
            named = "null" if default is None else default
            yield f"{_setting(config, key)} has no effect on {reason}; set {key}={named}"


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
        reason = "{architecture.name} has none"
    yield (
        "{regularizer.stochastic_depth} skips residual layers, but "
        f"{reason}; set regularizer.stochastic_depth=0 or architecture=resnet"
    )


def _optimizer(config: Config) -> Iterator[str]:
    optimizer, decay = config.optimizer, weight_decay(config)
    if optimizer.name == "nesterov" and optimizer.momentum == 0:
        yield (
            "{optimizer.name} needs optimizer.momentum above 0, got 0; set optimizer=sgd to "
            "train without momentum"
        )
    if optimizer.lr == "auto":
        if not isinstance(config.pruning, NoPruningConfig) and config.pruning.from_ is not None:
            yield (
                "{optimizer.lr} tries learning rates with new initial weights, but pruning.from "
                "starts with the weights of a run; set a number"
            )
        return
    factors, weights = "{optimizer.lr}", "the weights"
    factor = decay * optimizer.lr
    if factor < 1 and isinstance(optimizer, MuonConfig):
        factors += " times {optimizer.adam_lr_ratio}"
        factor, weights = factor * optimizer.adam_lr_ratio, "the weights that Adam trains"
    if factor >= 1:
        yield (
            f"{factors} times regularizer.weight_decay = {decay} must be below 1: each step "
            f"multiplies {weights} by 1 minus the product"
        )


def _validation(config: Config) -> Iterator[str]:
    dataset, stopping = config.dataset, config.early_stopping
    if dataset.validation.source == "own" and dataset.name != "cinic10":
        yield (
            "{dataset.validation.source} needs dataset=cinic10, but {dataset.name} has no "
            "validation set; set dataset.validation.source=train"
        )
    if dataset.validation.source != "none":
        return
    missing = "needs validation data, but {dataset.validation.source}; set"
    source = "dataset.validation.source=train"
    if stopping.patience is not None:
        yield f"early_stopping.patience {missing} {source}, or early_stopping.patience=null"
    if stopping.validate_every is not None:
        yield f"early_stopping.validate_every {missing} {source}, or leave validate_every out"
    if config.schedule.name == "plateau":
        yield f"{{schedule.name}} {missing} {source}, or another schedule"
    if config.test_weights == "best":
        yield f"{{test_weights}} {missing} test_weights=last, or {source}"


def _batch_and_loss(config: Config) -> Iterator[str]:
    if config.loss in LABELS_ONLY and config.regularizer.label_smoothing:
        yield "{regularizer.label_smoothing} needs loss=cross_entropy, mse or focal, but {loss}"
    if config.loss not in ("focal", None) and config.focal_gamma not in (2.0, None):
        yield "{focal_gamma} has no effect on {loss}; set focal_gamma=2, or loss=focal"
    for key in ("regularizer.augmentation.mixup", "regularizer.augmentation.cutmix"):
        if not attrgetter(key)(config):
            continue
        setting = _setting(config, key)
        if config.loss in LABELS_ONLY:
            yield (
                f"{setting} needs loss=cross_entropy, mse or focal, but {{loss}}, which has no "
                "mixed labels"
            )
        if config.batch_size == 1:
            yield (
                f"{setting} needs a batch_size above 1, got 1: each sample is mixed with another "
                "sample of its batch"
            )
    if config.accumulation_steps > config.batch_size:
        yield (
            "{accumulation_steps} is more than {batch_size}, but each part of a batch needs a "
            "sample"
        )


def made_for_images(config: Config) -> list[str]:
    """Return the enabled settings that only apply to images, as ``KEY = VALUE``."""
    names = ("crop", "flip", "policy", "cutout", "cutmix")
    keys = [*(f"regularizer.augmentation.{x}" for x in names), "regularizer.test_time_flip"]
    return [_setting(config, x) for x in keys if attrgetter(x)(config) not in (0, "none", None)]


def _images(config: Config) -> Iterator[str]:
    if isinstance(config.dataset, SpiralConfig | TwoClassConfig):
        for setting in made_for_images(config):
            yield f"{setting} needs images, but {_setting(config, 'dataset.name')}"


def _policy(config: Config) -> Iterator[str]:
    augmentation = config.regularizer.augmentation
    if augmentation.policy not in ("none", "trivial_augment"):
        return
    for name, default in (("num_ops", 2), ("magnitude", 9)):
        if getattr(augmentation, name) not in (default, None):
            yield (
                f"{{regularizer.augmentation.{name}}} has no effect on "
                f"{{regularizer.augmentation.policy}}; set {name} to {default}, or "
                "regularizer.augmentation.policy=rand_augment"
            )


def _averages(config: Config) -> Iterator[str]:
    if config.regularizer.ema_decay and config.regularizer.swa_start:
        yield (
            "{regularizer.ema_decay} and {regularizer.swa_start}: only one average of the weights "
            "can be tested; set one of them to 0"
        )
    if not isinstance(config.optimizer, ScheduleFreeConfig):
        return
    for key, reason in (
        ("ema_decay", "already evaluates an average of the weights"),
        ("swa_start", "already evaluates an average of the weights"),
        ("max_norm", "evaluates an average of the weights that the bound does not apply to"),
    ):
        if getattr(config.regularizer, key):
            yield (
                f"{{regularizer.{key}}} cannot be combined with {{optimizer.name}}, which {reason};"
                f" set regularizer.{key}=0"
            )


def _backend(config: Config) -> Iterator[str]:
    backend = config.backend
    if backend.name == "numpy":
        if backend.device != "cpu":
            yield "{backend.device} needs backend=torch, but {backend.name}, which runs on the CPU"
        if isinstance(config.optimizer, TorchOptimizer):
            yield "{optimizer.name} needs backend=torch, but {backend.name}"
        if config.regularizer.augmentation.policy in ("rand_augment", "trivial_augment"):
            yield "{regularizer.augmentation.policy} needs backend=torch, but {backend.name}"
        if config.architecture.name == "torchvision":
            yield "{architecture.name} needs backend=torch, but {backend.name}"
        return
    if backend.precision != "full" and backend.dtype != "float32":
        yield "{backend.precision} needs backend.dtype=float32, but {backend.dtype}"
    if backend.precision == "fp16" and not backend.device.startswith("cuda"):
        yield (
            "{backend.precision} needs backend.device=cuda, but {backend.device}; set "
            "backend.precision=bf16"
        )
    if backend.deterministic and backend.compile == "max-autotune":
        yield (
            "backend.deterministic = true: {backend.compile} selects kernels by their time, which "
            "differs between runs; set backend.compile=default"
        )


VALUE_RULES: tuple[Rule, ...] = (_name, _data_folders, _layers, _convolutions, milestones)
"""Rules that ``Range`` cannot express, each for a single key. Their messages contain the values."""

RULES: tuple[Rule, ...] = (
    _architecture,
    initializer,
    _checkpoints,
    _stochastic_depth,
    _optimizer,
    _validation,
    constant_schedules,
    improvements,
    target,
    _batch_and_loss,
    _images,
    _policy,
    _averages,
    _backend,
    plugins,
    backends,
)
"""Rules for combinations of keys. In a message, ``{KEY}`` is replaced by ``KEY = VALUE``."""
