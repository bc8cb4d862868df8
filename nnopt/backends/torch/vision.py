"""Torchvision's classification models as networks.

This file imports torchvision. It is imported only if the configuration has a torchvision model.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import StochasticDepth

from nnopt.architecture.inference import Shape, format_shape
from nnopt.architecture.network import ModuleArchitecture
from nnopt.backends.torch.dropout import build_dropout
from nnopt.backends.torch.inspection import inspect
from nnopt.data.dataset_files import file_sha256
from nnopt.errors import ConfigError, DataError, suggest
from nnopt.random import generator
from nnopt.schema import Config, TorchvisionConfig

log = logging.getLogger("nnopt")

STEMS: dict[str, tuple[str, str | None]] = {
    **dict.fromkeys(("resnet", "resnext", "wide_resnet"), ("conv1", "maxpool")),
    "densenet": ("features.conv0", "features.pool0"),
    "shufflenet": ("conv1.0", "maxpool"),
    **dict.fromkeys(("mobilenet", "efficientnet"), ("features.0.0", None)),
    "mnasnet": ("layers.0", None),
    "regnet": ("stem.0", None),
}
"""Prefix of the names of models that ``small_images`` adapts -> the first convolution and the max
pooling after it, if any. Together they reduce an image of 32x32 to 8x8 or 16x16."""

MODEL_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
"""Model -> options that give the model a single output and torchvision's default initialization."""


def model_problems(config: TorchvisionConfig) -> list[str]:
    """Return the problems of the keys ``model`` and ``small_images``, one line each."""
    known = models.list_models(module=models)  # models for classification
    if config.model not in known:
        hint = suggest(config.model, known)
        return [f"architecture.model = {config.model!r}: torchvision has no such model; {hint}"]
    if config.small_images and _stem(config.model) is None:
        return [
            "architecture.small_images = true adapts only models whose names begin with "
            f"{', '.join(STEMS)}, but architecture.model = "
            f"{config.model!r}; set architecture.small_images=false"
        ]
    return []


def describe_model(
    config: TorchvisionConfig, input_shape: Shape, classes: int
) -> ModuleArchitecture:
    """Return the layers of the model for images (C, H, W), inspected on the meta device.

    Raises:
        ConfigError: There is no such model, or it cannot take such images.
    """
    if problems := model_problems(config):
        raise ConfigError(problems)
    if len(input_shape) != 3:
        raise ConfigError(
            "architecture=torchvision takes images (C, H, W), but the samples have the shape "
            f"{input_shape}; choose a dataset of images"
        )
    try:
        try:
            with torch.device("meta"):
                model = _create(config, input_shape, classes)
        except NotImplementedError:  # regnets compute their widths from values of tensors
            with torch.random.fork_rng(devices=[]):
                model = _create(config, input_shape, classes).to("meta")
        layers, own_parameters, flops = inspect(model, input_shape)
    except (RuntimeError, ValueError, AssertionError) as error:
        (reason, *_) = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(
            f"architecture.model = {config.model!r} cannot take images of "
            f"{format_shape(input_shape)}: {reason}; choose another model or larger images"
        ) from error
    return ModuleArchitecture(input_shape, classes, layers, config, own_parameters, flops)


def initial_arrays(architecture: ModuleArchitecture, seed: int) -> dict[str, NDArray[np.float64]]:
    """Return the initial value of every parameter and running statistic by full name.

    Torchvision's initialization draws the values from the seed. If the configuration sets
    ``pretrained``, published arrays replace the arrays of the same name and shape.

    Raises:
        DataError: The file of published weights is missing or damaged.
    """
    state = dict(_initialized_model(architecture, seed).state_dict())
    if architecture.model.pretrained:
        published = published_weights(architecture.model.model)
        taken = {
            name: tensor
            for name, tensor in published.items()
            if name in state and state[name].shape == tensor.shape
        }
        drawn = [name for name in state if name not in taken]
        state |= taken
        log.info("pretrained arrays: %d; drawn from the seed: %s", len(taken), ", ".join(drawn))
    return {name: tensor.numpy().astype(np.float64) for name, tensor in state.items()}


def build_model(architecture: ModuleArchitecture, config: Config) -> nn.Module:
    """Return the model on its device, with nnopt's dropout and stochastic depth.

    Their masks depend on seed, layer and step instead of PyTorch's global generator.
    """
    model = _initialized_model(architecture, config.seed)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Dropout):
            _replace(model, name, build_dropout(name, module.p, config))
        elif isinstance(module, StochasticDepth):  # drops whole samples, or the whole batch
            axes = 1 if module.mode == "row" else 0
            _replace(model, name, build_dropout(name, module.p, config, axes))
    return model.to(config.backend.device)


def published_weights(name: str, download: bool = False) -> Mapping[str, Tensor]:
    """Return torchvision's default weights of the model ``name``, by the full name of each array.

    Raises:
        DataError: The file is missing and not downloaded, or its hash is not the one in its name.
    """
    url = models.get_model_weights(name).DEFAULT.url
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rpartition("/")[2]
    (digest,) = re.findall(r"-([0-9a-f]{8,})\.", path.name)  # the hash, by torch.hub's convention
    if not path.exists():
        if not download:
            raise DataError(
                f"architecture.pretrained = true: {path} is missing; set data.download=true to "
                f"download it from {url}, or put the file there"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), digest)
        except (OSError, RuntimeError) as error:  # RuntimeError: wrong hash
            raise DataError(
                f"architecture.pretrained = true: {path} is missing, and {url} cannot be "
                f"downloaded ({error}); put the file there, or set architecture.pretrained=false"
            ) from error
    if not (actual := file_sha256(path)).startswith(digest):
        raise DataError(
            f"architecture.pretrained = true: {path} is damaged: its SHA-256 is {actual} but "
            f"should begin with {digest}; delete the file, and set data.download=true to "
            "download it again"
        )
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    # The files of DenseNet are older than the rule that the name of a module contains no dot.
    dotted = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.(\d)\.")
    return {dotted.sub(r"\1\2.", key): tensor for key, tensor in state.items()}


def _initialized_model(architecture: ModuleArchitecture, seed: int) -> nn.Module:
    """Return the model on the CPU, initialized from the seed. The global generator is restored."""
    first = int(generator(seed, "initial/torchvision").integers(2**63))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(first)
        return _create(architecture.model, architecture.input_shape, architecture.classes)


def _create(config: TorchvisionConfig, input_shape: Shape, classes: int) -> nn.Module:
    """Return the model with a first convolution for images of ``input_shape``.

    The model's ``state_dict`` contains only parameters and running statistics.
    """
    options = dict(MODEL_OPTIONS.get(config.model, {}))
    if options:  # published weights of these models need differently normalized images
        options["transform_input"] = config.pretrained and input_shape[0] == 3
    if config.model.startswith("vit"):
        options["image_size"] = input_shape[1]
    elif config.model.startswith("maxvit"):
        options["input_size"] = input_shape[1:]
    model: nn.Module = models.get_model(config.model, weights=None, num_classes=classes, **options)
    if config.small_images or input_shape[0] != 3:
        _replace_first_conv(model, config, input_shape[0])
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if name == "num_batches_tracked":
                module.num_batches_tracked = None  # type: ignore[assignment] # unused
            elif not name.startswith("running_"):
                module.register_buffer(name, buffer, persistent=False)
    return model


def _stem(model: str) -> tuple[str, str | None] | None:
    return next((stem for family, stem in STEMS.items() if model.startswith(family)), None)


@torch.no_grad()
def _replace_first_conv(model: nn.Module, config: TorchvisionConfig, channels: int) -> None:
    """Replace the first convolution by one for images with ``channels`` channels.

    For small images, the new convolution is 3x3 with stride 1, and no max pooling follows. A
    weight of a new shape is drawn from a normal distribution that preserves the outputs' variance.
    """
    if config.small_images and (stem := _stem(config.model)):
        path, pool = stem
        if pool:
            _replace(model, pool, nn.Identity())
    else:
        path = next(name for name, x in model.named_modules() if isinstance(x, nn.Conv2d))
    old = model.get_submodule(path)
    assert isinstance(old, nn.Conv2d)
    kernel, stride, padding = old.kernel_size, old.stride, old.padding
    if config.small_images:
        kernel, stride, padding = (3, 3), (1, 1), (1, 1)
    bias = old.bias is not None
    new = nn.Conv2d(channels, old.out_channels, kernel, stride, padding, bias=bias)  # type: ignore[arg-type]
    if new.weight.shape == old.weight.shape:
        new.weight.copy_(old.weight)
    else:
        ratio = old.weight[0].numel() / new.weight[0].numel()
        new.weight.normal_().mul_(old.weight.std() * math.sqrt(ratio))
    if new.bias is not None and old.bias is not None:
        new.bias.copy_(old.bias)
    _replace(model, path, new)


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
