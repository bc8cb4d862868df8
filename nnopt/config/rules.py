"""Rules between the keys of a configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress

from nnopt.architecture.layers import Residual
from nnopt.architecture.parse import parse_layers
from nnopt.errors import ConfigError
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
"""A combination that makes no sense, though each value is in its range: yields a line for each."""


def cross_field_problems(config: Config, incomplete: bool = False) -> list[str]:
    """What the rules below find. In an incomplete configuration the values that were refused are
    None, and the rules that need them have nothing to say."""
    problems: list[str] = []
    for rule in RULES:
        with suppress(*(TypeError, AttributeError) if incomplete else ()):
            problems += rule(config)
    return problems


def _name(config: Config) -> Iterator[str]:
    if not re.fullmatch(r"[\w.-]+", config.name) or len(config.name.encode()) > 100:
        yield (
            f"name = {config.name!r}: needs letters, digits, '_', '-' or '.', at most 100 bytes, "
            "since it begins the name of the run's folder"
        )


def _data_folders(config: Config) -> Iterator[str]:
    for key in ("root", "cache"):
        folder = getattr(config.data, key)
        if folder is not None and (problem := path_problem(folder)):
            yield f"data.{key} = {folder!r}: {problem}"


def _layers(config: Config) -> Iterator[str]:
    if not isinstance(config.architecture, LayersConfig):
        return
    if not config.architecture.layers:
        yield "architecture.layers = []: needs at least one layer"
    try:
        parse_layers(config.architecture.layers)
    except ConfigError as error:
        yield from error.problems
    for key, off in (("dropout", 0), ("norm", "none")):
        value = getattr(config.regularizer, key)
        if value != off:
            yield (
                f"regularizer.{key} = {value!r} has no effect on architecture=layers; write the "
                "layer into architecture.layers"
            )


def _stochastic_depth(config: Config) -> Iterator[str]:
    architecture, rate = config.architecture, config.regularizer.stochastic_depth
    if not rate or isinstance(architecture, ResnetConfig):
        return
    if isinstance(architecture, LayersConfig):
        try:
            layers = parse_layers(architecture.layers)
        except ConfigError:  # which _layers reports
            return
        if any(isinstance(layer, Residual) for layer in layers):
            return
        lacking = "architecture.layers has none"
    elif isinstance(architecture, TorchvisionConfig):
        lacking = "architecture=torchvision has some models, but with rates of their own"
    else:
        lacking = f"architecture.name = {architecture.name!r} has none"
    yield (
        f"regularizer.stochastic_depth = {rate} skips residual layers, of which {lacking}; set "
        "architecture=resnet, or write residual layers into architecture.layers"
    )


def _torchvision(config: Config) -> Iterator[str]:
    if not isinstance(config.architecture, TorchvisionConfig):
        return
    if config.backend.name != "torch":
        yield (
            "architecture.name = 'torchvision' needs backend=torch, but backend.name = "
            f"{config.backend.name!r}"
        )
    regularizer, initializer = config.regularizer, config.initializer
    for key, value, off in (
        ("regularizer.dropout", regularizer.dropout, 0),
        ("regularizer.norm", regularizer.norm, "none"),
        ("initializer.hidden", initializer.hidden, "he_normal"),
        ("initializer.output", initializer.output, "lecun_normal"),
        ("initializer.input", initializer.input, None),
    ):
        if value != off:
            yield (
                f"{key} = {value!r} has no effect on architecture=torchvision, whose models have "
                "norms, dropout and first weights of their own"
            )


def _convolutions(config: Config) -> Iterator[str]:
    architecture = config.architecture
    if isinstance(architecture, VggConfig) and not architecture.widths:
        yield "architecture.widths = []: needs at least one block, or set architecture=mlp"
    if isinstance(architecture, ThreeLayerConvConfig) and architecture.kernel % 2 == 0:
        yield (
            f"architecture.kernel = {architecture.kernel}: needs an odd number, for the padding "
            "that keeps the size of the image to be the same on both sides"
        )


def _group_norm(config: Config) -> Iterator[str]:
    if isinstance(config.architecture, MlpConfig) and config.regularizer.norm == "group":
        yield (
            "regularizer.norm = 'group' normalizes groups of an image's channels, which "
            "architecture=mlp has not; set regularizer.norm=layer"
        )


def _optimizer(config: Config) -> Iterator[str]:
    optimizer, decay = config.optimizer, weight_decay(config)
    if optimizer.name == "nesterov" and optimizer.momentum == 0:
        yield (
            "optimizer.name = 'nesterov' needs optimizer.momentum above 0, got 0; without momentum "
            "it is optimizer=sgd"
        )
    if isinstance(optimizer, TorchOptimizer) and config.backend.name == "numpy":
        yield (
            f"optimizer.name = {optimizer.name!r} needs backend=torch, but backend.name = 'numpy'"
        )
    if optimizer.lr != "auto" and decay * optimizer.lr >= 1:
        yield (
            f"optimizer.lr = {optimizer.lr} times regularizer.weight_decay = {decay} has to be "
            "below 1: each step multiplies the weights by 1 minus it"
        )
    elif (
        isinstance(optimizer, MuonConfig)
        and optimizer.lr != "auto"
        and decay * optimizer.lr * optimizer.adam_lr_ratio >= 1
    ):
        yield (
            f"optimizer.lr = {optimizer.lr} times optimizer.adam_lr_ratio = "
            f"{optimizer.adam_lr_ratio} times regularizer.weight_decay = {decay} has to be "
            "below 1: each step multiplies the weights that Adam trains by 1 minus it"
        )


def _accumulation(config: Config) -> Iterator[str]:
    if config.accumulation_steps > config.batch_size:
        yield (
            f"accumulation_steps = {config.accumulation_steps} is more than batch_size = "
            f"{config.batch_size}, but each part of a batch needs a sample"
        )


def _validation(config: Config) -> Iterator[str]:
    dataset, stopping = config.dataset, config.early_stopping
    if dataset.validation.source == "own" and dataset.name != "cinic10":
        yield (
            "dataset.validation.source = 'own' needs dataset=cinic10, but dataset.name = "
            f"{dataset.name!r} has no validation part of its own"
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
    smoothing = config.regularizer.label_smoothing
    if config.loss == "hinge" and smoothing:
        yield (
            f"regularizer.label_smoothing = {smoothing} needs loss=cross_entropy, but loss = "
            "'hinge'"
        )
    for key in ("mixup", "cutmix"):
        alpha = getattr(config.regularizer.augmentation, key)
        if config.loss == "hinge" and alpha:
            yield (
                f"regularizer.augmentation.{key} = {alpha} needs loss=cross_entropy, but loss = "
                "'hinge', which has no mixed labels"
            )
        if alpha and config.batch_size == 1:
            yield (
                f"regularizer.augmentation.{key} = {alpha} needs a batch_size above 1, got 1: a "
                "sample is mixed with another of its batch"
            )


def made_for_images(config: Config) -> list[str]:
    """The keys, with their values, that are on and that features can do nothing with."""
    augmentation = config.regularizer.augmentation
    keys = ("crop", "flip", "policy", "cutout", "cutmix")
    found = {f"regularizer.augmentation.{key}": getattr(augmentation, key) for key in keys}
    found["regularizer.test_time_flip"] = config.regularizer.test_time_flip
    return [f"{key} = {value!r}" for key, value in found.items() if value not in (0, "none", None)]


def _images(config: Config) -> Iterator[str]:
    if not isinstance(config.dataset, ImageConfig | CsvConfig):
        for setting in made_for_images(config):
            yield f"{setting} needs images, but dataset.name = {config.dataset.name!r}"


def _policy(config: Config) -> Iterator[str]:
    augmentation = config.regularizer.augmentation
    policy = augmentation.policy
    if policy in ("rand_augment", "trivial_augment") and config.backend.name == "numpy":
        yield (
            f"regularizer.augmentation.policy = {policy!r} needs backend=torch, but backend.name = "
            "'numpy'"
        )
    for key, usual in (("num_ops", 2), ("magnitude", 9)):
        value = getattr(augmentation, key)
        if policy in ("none", "trivial_augment") and value not in (usual, None):
            yield (
                f"regularizer.augmentation.{key} = {value} has no effect on "
                f"regularizer.augmentation.policy = {policy!r}; set it to {usual}, or "
                "regularizer.augmentation.policy=rand_augment"
            )


def _averages(config: Config) -> Iterator[str]:
    ema, swa = config.regularizer.ema_decay, config.regularizer.swa_start
    if ema and swa:
        yield (
            f"regularizer.ema_decay = {ema:g} and regularizer.swa_start = {swa:g} are two "
            "averages, of which one can be evaluated in place of the weights; set the other to 0"
        )
    if not isinstance(config.optimizer, ScheduleFreeConfig):
        return
    for key, why in (
        ("ema_decay", "evaluates an average of the weights already"),
        ("swa_start", "evaluates an average of the weights already"),
        ("max_norm", "evaluates an average of weights that a bound would not reach"),
    ):
        if value := getattr(config.regularizer, key):
            yield (
                f"regularizer.{key} = {value:g} does not go with optimizer.name = "
                f"{config.optimizer.name!r}, which {why}; set it to 0"
            )


def _device(config: Config) -> Iterator[str]:
    if config.backend.name == "numpy" and config.backend.device != "cpu":
        yield (
            f"backend.device = {config.backend.device!r} needs backend=torch, but backend.name = "
            "'numpy', which computes on the cpu"
        )


def _precision(config: Config) -> Iterator[str]:
    backend = config.backend
    if not isinstance(backend, TorchConfig) or backend.precision == "full":
        return
    if backend.dtype != "float32":
        yield (
            f"backend.precision = {backend.precision!r} needs backend.dtype=float32, but "
            f"backend.dtype = {backend.dtype!r}"
        )
    if backend.precision == "fp16" and not backend.device.startswith("cuda"):
        yield (
            "backend.precision = 'fp16' needs backend.device=cuda, but backend.device = "
            f"{backend.device!r}; set backend.precision=bf16"
        )


def _deterministic(config: Config) -> Iterator[str]:
    backend = config.backend
    if not isinstance(backend, TorchConfig):
        return
    if backend.deterministic and backend.compile == "max-autotune":
        yield (
            "backend.deterministic = true: backend.compile = 'max-autotune' picks kernels by their "
            "time, which differs between runs; set backend.compile=default"
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
    _accumulation,
    _validation,
    _loss,
    _images,
    _policy,
    _averages,
    _device,
    _precision,
    _deterministic,
)
