"""``nnopt gradcheck``: compares the NumPy backend's gradients with central differences.

In float64, (L(w + h v) - L(w - h v)) / 2h with a small h is compared with v·∇L, for the loss L,
each array w (a parameter or the input) and two kinds of unit vectors v:

- single entries: all entries of a small array, and random entries of a large array;
- random directions, which involve all entries and detect a wrong entry with probability one.

If stochastic depth, dropout or ReLU makes the loss independent of an array, both numbers are zero.
Two zeros are no evidence of a correct gradient, so the array is reported as not reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from nnopt.architecture.network import Architecture
from nnopt.architecture.plugins import used_components
from nnopt.backends.numpy.loader import NumpyLoader
from nnopt.backends.numpy.network import NumpyNetwork
from nnopt.backends.numpy.tape import Variable
from nnopt.cli.parsers import overrides_parser, positive_number
from nnopt.config.compose import compose_config
from nnopt.data.batches import PLAIN, epoch_order
from nnopt.data.dataset import Dataset
from nnopt.data.load import split
from nnopt.data.source import Decoded, channel_statistics
from nnopt.errors import ConfigError, TrainingError
from nnopt.random import DropoutMasks, generator
from nnopt.recipe.prepare import DataShape, Prepared, prepare, prepare_without_data
from nnopt.recipe.start_weights import initial_weights
from nnopt.schema import (
    Config,
    ImageConfig,
    NumpyConfig,
    SgdConfig,
    TorchvisionConfig,
    Validation,
)
from nnopt.terminal.console import note
from nnopt.terminal.live_display import LiveDisplay
from nnopt.terminal.safe_stream import aligned
from nnopt.training.finite_differences import TOLERANCE, Floats, relative_error
from nnopt.training.length import Length

BATCH_SAMPLES, BATCH_IMAGES = 16, 2
"""Batch sizes. With more images, more ReLUs and pooling windows would be close to a kink."""

RANDOM_IMAGES = 200
"""Number of random images. With ``initializer.input=whitening``, filters are computed from them."""

MAX_ENTRIES_PER_ARRAY = 200
DIRECTIONS_PER_ARRAY = 5
MAX_COMPARISONS = 1400
"""Default maximum of checked entries plus directions. Each takes two or more forward passes."""

MASK_STEPS = 1000
"""Number of steps whose masks are drawn, to find the step that skips the fewest branches."""


@dataclass(frozen=True)
class Check:
    """The result for one array: a parameter, or the input."""

    name: str
    size: int  # the number of entries
    tried: int  # the number of entries that were checked one by one
    norm: float  # the Euclidean norm of the gradient
    entry_error: float  # the relative error of the checked entries
    direction_error: float  # the relative error along the random directions

    @property
    def passed(self) -> bool:
        """Return whether both errors are within the tolerance. A NaN does not pass."""
        return self.entry_error <= TOLERANCE and self.direction_error <= TOLERANCE

    @property
    def reached(self) -> bool:
        """Return whether the loss depends on the array."""
        return any((self.norm, self.entry_error, self.direction_error))

    @property
    def verdict(self) -> str:
        """Return the text in the last column of the table."""
        if not self.passed:
            return "WRONG"
        return "ok" if self.reached else "not reached"


HEADER = ("array", "entries", "tried", "|gradient|", "error", "along directions", "")


def main(arguments: list[str]) -> int:
    """Check the configured network, and print a table with a row for each checked array."""
    parser = overrides_parser("gradcheck", "Compare gradients with central finite differences.")
    parser.add_argument(
        "--entries",
        type=positive_number,
        metavar="N",
        help=f"check N entries of each array one by one (default: {MAX_ENTRIES_PER_ARRAY}, fewer "
        "in a large network); the random directions involve all entries",
    )
    options = parser.parse_intermixed_args(arguments)
    config = compose_config(options.overrides, options.config_dir)
    if isinstance(config.architecture, TorchvisionConfig):
        raise ConfigError(
            "gradcheck checks the gradients of the NumPy backend, which does not support "
            "architecture.name = 'torchvision'; choose another architecture"
        )
    for component in used_components(config):
        if "numpy" not in component.backends and component.kind != "optimizer":
            raise component.error("has no part for NumPy, whose gradients gradcheck checks")
    prepared = prepare_check(config)
    sizes = array_sizes(prepared)
    most = options.entries or entries_each(list(sizes.values()))
    plan = [Check(name, size, min(size, most), 0.0, 0.0, 0.0) for name, size in sizes.items()]
    tried = sum(check.tried for check in plan)
    total = tried + DIRECTIONS_PER_ARRAY * len(plan)
    checks = []
    widths = [max(map(len, column)) for column in zip(HEADER, *map(_row, plan), strict=True)]
    with LiveDisplay(total=total) as display:
        display.print_line(aligned(HEADER, widths, "lrrrrrl"))
        for check in check_gradients(config, prepared, most, display.advance):
            checks.append(check)
            display.print_line(aligned(_row(check), widths, "lrrrrrl"))
    note(
        f"checked {tried:,} of {sum(sizes.values()):,} entries one by one, "
        f"and all of them along {DIRECTIONS_PER_ARRAY} random directions in each array"
    )
    if wrong := [check.name for check in checks if not check.passed]:
        raise TrainingError(
            f"gradients differ from central differences by more than {TOLERANCE:g} "
            f"(relative, float64) for: {', '.join(wrong)}"
        )
    unreached = [check.name for check in checks if not check.reached]
    reached = len(checks) - len(unreached)
    agree = f"{reached} of {len(checks)}" if unreached else f"all {len(checks)}"
    if reached:
        note(f"{agree} gradients agree with central differences to {TOLERANCE:g}")
    if unreached:
        note(f"not checked, because the loss does not depend on them: {', '.join(unreached)}")
    return 0


def prepare_check(config: Config) -> Prepared:
    """Return samples and architecture for a check.

    The samples of a published dataset are random images of its shape and classes, so that its files
    are not needed, and so that their presence does not change the result. Raises ConfigError, and
    DataError if the file of a CSV dataset is missing or damaged.
    """
    if not isinstance(config.dataset, ImageConfig):
        return prepare(config, trains=False)
    planned = prepare_without_data(config, trains=False)
    assert planned is not None, "the shape of a published dataset is known"
    dataset = _random_images(config, config.dataset, planned.shape)
    return Prepared(dataset, planned.architecture, Length.of(config, len(dataset.train)))


def _random_images(config: Config, dataset: ImageConfig, shape: DataShape) -> Dataset:
    """Return random images of every class, normalized as configured."""
    random = generator(config.seed, "gradcheck", 1)
    count = max(RANDOM_IMAGES, shape.classes)
    pixels = random.integers(0, 256, (count, *shape.input_shape), dtype=np.uint8)
    images = pixels, np.arange(count) % shape.classes
    mean, std = channel_statistics(pixels)
    names = tuple(map(str, range(shape.classes)))
    decoded = Decoded(names, {"train": images, "test": images}, {}, mean, std)
    whole = replace(dataset, subset=None, classes=None, validation=Validation("none", 0.5))
    return split(decoded, whole, config.seed)


def _row(check: Check) -> Sequence[str]:
    errors = (f"{error:.1e}" for error in (check.entry_error, check.direction_error))
    counts = (f"{count:,}" for count in (check.size, check.tried))
    return (check.name, *counts, f"{check.norm:.2e}", *errors, check.verdict)


def array_sizes(prepared: Prepared) -> dict[str, int]:
    """Return the number of entries of each parameter, and of the input batch."""
    architecture = prepared.architecture
    shapes = architecture.parameter_shapes()
    shapes["input"] = (_batch_size(prepared.dataset), *architecture.input_shape)
    return {name: math.prod(shape) for name, shape in shapes.items()}


def entries_each(sizes: Sequence[int]) -> int:
    """Return the maximum number of entries to check per array, given ``MAX_COMPARISONS``."""
    entries = MAX_COMPARISONS - DIRECTIONS_PER_ARRAY * len(sizes)
    for most in range(MAX_ENTRIES_PER_ARRAY, 1, -1):
        if sum(min(size, most) for size in sizes) <= entries:
            return most
    return 1


def check_gradients(
    config: Config,
    prepared: Prepared,
    entries: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[Check]:
    """Compare the gradients of every parameter and of the input with central differences.

    The NumPy backend computes the loss of a small batch of training samples in float64, with fixed
    dropout masks. Each array is compared along random directions, and in at most ``entries`` single
    entries, by default the number from ``entries_each``. ``advance`` is called after a comparison.
    """
    most = entries or entries_each(list(array_sizes(prepared).values()))
    conv = config.backend.conv_algorithm if isinstance(config.backend, NumpyConfig) else "auto"
    backend = NumpyConfig("numpy", "float64", "cpu", config.backend.threads, False, conv)
    # No optimizer step is taken, so SGD can replace an optimizer that only PyTorch has.
    config = replace(config, backend=backend, optimizer=SgdConfig("sgd", lr=0.0))
    dataset = prepared.dataset
    network = NumpyNetwork(prepared.architecture, config)
    network.load(initial_weights(config, prepared.architecture, dataset))
    order = epoch_order(config.seed, 1, len(dataset.train))[: _batch_size(dataset)]
    loader = NumpyLoader(dataset.train, dataset.normalization, config)
    inputs, labels = next(iter(loader.train_batches(order, len(order), PLAIN)))
    x = Variable(inputs.copy(), requires_grad=True)
    # Noise is added, because biases of 0 and batch norm scales of 1 would hide errors.
    noise = generator(config.seed, "gradcheck")
    for parameter in network.parameters.values():
        parameter.value += 0.05 * noise.standard_normal(parameter.value.shape)
    if dataset.is_image:  # in a constant background, pooling windows have ties, and ties are kinks
        x.value += 0.05 * noise.standard_normal(x.value.shape)
    step = _step_with_fewest_skips(prepared.architecture, config.seed, len(labels))
    gradients = network.gradients(network.forward(x, labels, step)[1])
    gradients = {name: gradient.copy() for name, gradient in gradients.items()}
    gradients["input"] = np.array(x.gradient)
    values = {name: p.value for name, p in network.parameters.items()} | {"input": x.value}
    inputs_of = network.layer_inputs(x.value, step)
    layer_index = {layer.name: i for i, layer in enumerate(prepared.architecture.layers)}

    def loss(first: int) -> float:
        """Return the loss, with a forward pass that starts at the layer with index ``first``."""
        return float(network.forward(Variable(inputs_of[first]), labels, step, first)[1].value)

    for name, gradient in gradients.items():
        first = 0 if name == "input" else layer_index[name.partition(".")[0]]
        yield _check(name, values[name], gradient, most, partial(loss, first), noise, advance)


def _step_with_fewest_skips(architecture: Architecture, seed: int, samples: int) -> int:
    """Return the first step that minimizes the number of branches that all samples skip."""
    masks = [
        DropoutMasks(seed, layer.name, layer.skip_probability)
        for layer in architecture.walk()
        if layer.skip_probability
    ]
    if not masks:
        return 0

    def kept_branches(step: int) -> int:
        return sum(bool(x.draw(step, (samples,)).any()) for x in masks)

    return max(range(MASK_STEPS), key=kept_branches)


def _batch_size(dataset: Dataset) -> int:
    return min(BATCH_IMAGES if dataset.is_image else BATCH_SAMPLES, len(dataset.train))


def _check(
    name: str,
    value: Floats,
    gradient: Floats,
    most: int,
    loss: Callable[[], float],
    rng: np.random.Generator,
    advance: Callable[[], None],
) -> Check:
    tried = np.arange(value.size)
    if value.size > most:
        tried = np.sort(rng.choice(value.size, most, replace=False))
    directions = [rng.standard_normal(value.shape) for _ in range(DIRECTIONS_PER_ARRAY)]
    for direction in directions:
        direction /= np.linalg.norm(direction)
    before = value.copy()

    def move_entry(index: int, amount: float) -> None:
        value.flat[index] = before.flat[index] + amount

    def move_along(direction: Floats, amount: float) -> None:
        np.add(before, amount * direction, out=value)

    moves = [partial(move_entry, index) for index in tried.tolist()]
    entry_error = relative_error(moves, gradient.flat[tried], loss, advance)
    moves = [partial(move_along, direction) for direction in directions]
    slopes = np.array([np.vdot(direction, gradient) for direction in directions])
    direction_error = relative_error(moves, slopes, loss, advance)
    norm = float(np.linalg.norm(gradient))
    return Check(name, value.size, len(tried), norm, entry_error, direction_error)
