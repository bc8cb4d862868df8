"""The initial weights of a training: new ones, or those of a trained run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.network import Architecture
from nnopt.backends.models import initial_arrays
from nnopt.data.dataset import Dataset
from nnopt.errors import ConfigError, ModelError, suggest
from nnopt.recipe.trained_model import read_arrays, shape_problems, shapes_of
from nnopt.results.model_file import weights_sha256
from nnopt.results.run_folder import check_run
from nnopt.results.weights import Arrays
from nnopt.schema import Config

Value = TypeVar("Value")


def initial_weights(
    config: Config, architecture: Architecture, dataset: Dataset
) -> dict[str, NDArray[np.float64]]:
    """Return the initial value of every parameter and running statistic by full name.

    With ``initializer.from``, they are the best weights of a run, except in the layers of
    ``initializer.skip``. Raises the errors of ``start_weights`` and of ``initial_arrays``.
    """
    arrays = initial_arrays(architecture, config.initializer, config.seed, dataset)
    trained = start_weights(config, architecture)
    return arrays | {name: array.astype(np.float64) for name, array in trained.items()}


def start_weights(config: Config, architecture: Architecture) -> Arrays:
    """Return the weights that ``initializer.from`` gives to a network; {} if the key is null.

    Raises:
        ConfigError: The folder is not that of a run, a name in ``initializer.skip`` is unknown, or
            the weights have other shapes.
        ModelError: The weights or their description are damaged, or have changed.
    """
    chosen = config.initializer
    if chosen.from_ is None:
        return {}
    folder, given = Path(chosen.from_), f"initializer.from = {chosen.from_!r}"
    check_run(folder, given)
    if chosen.from_sha256 not in (None, weights_sha256(folder)):
        raise ModelError(
            f"{given}: its best weights are not those with the SHA-256 {chosen.from_sha256}, with "
            "which the training starts; restore them, or start a new run"
        )
    arrays = read_arrays(folder)
    shapes = shapes_of(architecture)
    _check_skip(chosen.skip, [*shapes, *arrays])
    found, expected = _without(arrays, chosen.skip), _without(shapes, chosen.skip)
    if problems := shape_problems(found, expected):
        layers = list(dict.fromkeys(map(_layer, problems)))
        remedy = ""
        if len(layers) < len(set(map(_layer, expected))):
            names = ",".join([*chosen.skip, *layers])
            remedy = f"; initializer.skip=[{names}] starts these layers with new weights"
        raise ConfigError(f"{given} has another network: {'; '.join(problems.values())}{remedy}")
    if not expected:
        raise ConfigError(
            f"{given} has no effect, because initializer.skip contains all layers; set "
            "initializer.from=null"
        )
    return found


def _layer(name: str) -> str:
    """Return the layer of an array, such as ``dense1`` of ``dense1.weight``."""
    return name.rpartition(".")[0] or name


def _check_skip(skip: Sequence[str], arrays: Iterable[str]) -> None:
    """Raise ConfigError for a name in ``initializer.skip`` that is no layer of either network."""
    layers: dict[str, None] = {}
    for layer in map(_layer, arrays):
        parts = layer.split(".")
        layers |= dict.fromkeys(".".join(parts[: n + 1]) for n in range(len(parts)))
    if problems := [
        f"initializer.skip contains the unknown layer {name!r}; {suggest(name, layers)}"
        for name in skip
        if name not in layers
    ]:
        raise ConfigError(problems)


def _without(named: Mapping[str, Value], skip: Sequence[str]) -> dict[str, Value]:
    """Return the entries outside of some layers and of the layers inside them."""
    prefixes = tuple(f"{layer}." for layer in skip)
    return {k: x for k, x in named.items() if k not in skip and not k.startswith(prefixes)}
