"""The verb ``gradcheck``: the NumPy backend's gradients against central differences.

For each parameter array and for the input, in float64:

- entries: (L(w + h eᵢ) - L(w - h eᵢ)) / 2h for single entries i: for each of a small array, for
  random ones of a large array, so many that the whole network stays within a budget;
- directions: (L(w + h v) - L(w - h v)) / 2h against v·∇L for random unit vectors v. All entries of
  the array take part, so with probability one no wrong entry escapes.

Where stochastic depth, dropout or ReLU lets nothing of an array through, gradient and differences
are zero whatever the backward pass does, and the array is said to be not reached.
"""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from nnopt.architecture.initializers import initial_arrays
from nnopt.architecture.network import Architecture
from nnopt.backends.numpy.loader import NumpyLoader
from nnopt.backends.numpy.network import NumpyNetwork
from nnopt.backends.numpy.tape import Variable
from nnopt.config.compose import compose_config, words_parser
from nnopt.data.batches import PLAIN, epoch_order
from nnopt.data.dataset import Dataset
from nnopt.errors import ConfigError, TrainingError
from nnopt.random import DropoutMasks, generator
from nnopt.recipe.prepare import Prepared, prepare
from nnopt.schema import Config, NumpyConfig, SgdConfig, TorchvisionConfig
from nnopt.terminal.console import note
from nnopt.terminal.live_display import LiveDisplay
from nnopt.terminal.safe_stream import aligned
from nnopt.training.finite_differences import TOLERANCE, Floats, relative_error

SAMPLES, IMAGES = 16, 2
"""Images have positions besides; and the more ReLUs and pooling windows, the more kinks nearby."""

LARGEST_COMPLETE = 200
DIRECTIONS = 5
COMPARISONS = 1400
"""About so many in a whole network, entries and directions together: two forward passes each if
the first h agrees."""

MASKS = 1000
"""So many steps' masks of stochastic depth are drawn, to check with the ones that skip least."""


@dataclass(frozen=True)
class Check:
    """The outcome for one array: its size, how many entries were tried one by one, the norm of its
    gradient, and the two relative errors."""

    name: str
    size: int
    tried: int
    norm: float
    entry_error: float
    direction_error: float

    @property
    def passed(self) -> bool:
        """Are both errors within the tolerance? One that is not a number is not."""
        return self.entry_error <= TOLERANCE and self.direction_error <= TOLERANCE

    @property
    def reached(self) -> bool:
        """Does anything depend on the array? Zeros that agree with zeros are no evidence."""
        return any((self.norm, self.entry_error, self.direction_error))

    @property
    def verdict(self) -> str:
        """One word or two, for the table."""
        if not self.passed:
            return "WRONG"
        return "ok" if self.reached else "not reached"


HEADER = ("array", "entries", "tried", "|gradient|", "error", "along directions", "")


def main(arguments: list[str]) -> int:
    """Check the configured network and print a table, each row as soon as it is known.

    Raises ConfigError or DataError; TrainingError (exit code 5) if a gradient is wrong.
    """
    parser = words_parser("gradcheck", "Compare gradients with central differences.")
    meaning = f"try N entries of each array one by one (default: {LARGEST_COMPLETE}, fewer in a"
    meaning += " large network); all entries take part in the random directions"
    parser.add_argument("--entries", type=_positive, metavar="N", help=meaning)
    options = parser.parse_intermixed_args(arguments)
    config = compose_config(options.overrides, options.config_dir)
    if isinstance(config.architecture, TorchvisionConfig):
        raise ConfigError(
            "gradcheck checks the NumPy backend's gradients, which architecture.name = "
            "'torchvision' has none of; choose another architecture"
        )
    prepared = prepare(config, trains=False)
    sizes = array_sizes(prepared)
    most = options.entries or entries_each(list(sizes.values()))
    plan = [Check(name, size, min(size, most), 0.0, 0.0, 0.0) for name, size in sizes.items()]
    tried = sum(check.tried for check in plan)
    total = tried + DIRECTIONS * len(plan)
    checks = []
    columns = zip(HEADER, *map(_row, plan), strict=True)
    widths = [max(map(len, column)) for column in columns]
    with LiveDisplay(total=total) as display:
        display.print_line(aligned(HEADER, widths, "lrrrrrl"))
        for check in check_gradients(config, prepared, most, display.advance):
            checks.append(check)
            display.print_line(aligned(_row(check), widths, "lrrrrrl"))
    note(
        f"checked {tried:,} of {sum(sizes.values()):,} entries one by one, "
        f"and all of them along {DIRECTIONS} random directions in each array"
    )
    wrong = [check.name for check in checks if not check.passed]
    if wrong:
        raise TrainingError(
            f"gradients differ from central differences by more than {TOLERANCE:g} "
            f"(relative, float64) for: {', '.join(wrong)}"
        )
    missed = [check.name for check in checks if not check.reached]
    agree = f"{len(checks) - len(missed)} of {len(checks)}" if missed else f"all {len(checks)}"
    note(f"{agree} gradients agree with central differences to {TOLERANCE:g}")
    if missed:
        note(f"the loss does not depend on these here, which tells nothing: {', '.join(missed)}")
    return 0


def _positive(word: str) -> int:
    if not word.isdecimal() or not int(word):
        raise ArgumentTypeError(f"{word!r}: needs a whole number, at least 1")
    return int(word)


def _row(check: Check) -> Sequence[str]:
    return (
        check.name,
        f"{check.size:,}",
        f"{check.tried:,}",
        f"{check.norm:.2e}",
        f"{check.entry_error:.1e}",
        f"{check.direction_error:.1e}",
        check.verdict,
    )


def array_sizes(prepared: Prepared) -> dict[str, int]:
    """The number of entries of everything that is checked: the parameters, and the input, of all
    samples of the batch."""
    architecture = prepared.architecture
    shapes = architecture.parameter_shapes()
    shapes["input"] = (_batch_size(prepared.dataset), *architecture.input_shape)
    return {name: math.prod(shape) for name, shape in shapes.items()}


def entries_each(sizes: Sequence[int]) -> int:
    """How many entries to try in each array, of those that have more: as many as leave the network
    within ``COMPARISONS``, at least one and at most ``LARGEST_COMPLETE``."""
    most = LARGEST_COMPLETE
    while most > 1 and sum(min(size, most) + DIRECTIONS for size in sizes) > COMPARISONS:
        most -= 1
    return most


def check_gradients(
    config: Config,
    prepared: Prepared,
    entries: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[Check]:
    """Compare the gradients of every parameter and of the input, on a small batch of the training
    data, with dropout masks held fixed.

    entries: so many of each array are tried one by one; None is ``entries_each``. advance: called
    after each comparison.
    """
    most = entries or entries_each(list(array_sizes(prepared).values()))
    conv = config.backend.conv if isinstance(config.backend, NumpyConfig) else "auto"
    backend = NumpyConfig("numpy", "float64", "cpu", config.backend.threads, False, conv)
    # No step is taken, so an optimizer of PyTorch alone has none to stand in the way.
    config = replace(config, backend=backend, optimizer=SgdConfig("sgd", lr=0.0))
    dataset = prepared.dataset
    network = NumpyNetwork(prepared.architecture, config)
    network.load(initial_arrays(prepared.architecture, config.initializer, config.seed, dataset))
    order = epoch_order(config.seed, 1, len(dataset.train))[: _batch_size(dataset)]  # all classes
    loader = NumpyLoader(dataset.train, dataset.normalization, config)
    inputs, labels = next(iter(loader.train_batches(order, len(order), PLAIN)))
    x = Variable(inputs.copy(), requires_grad=True)
    # Biases start at zero and batch norm's scale at one; a general place tells more.
    shake = generator(config.seed, "gradcheck")
    for parameter in network.parameters.values():
        parameter.value += 0.05 * shake.standard_normal(parameter.value.shape)
    if dataset.is_image:  # whose even background ties in all pooling windows: a kink for every h
        x.value += 0.05 * shake.standard_normal(x.value.shape)
    step = _step_of_masks(prepared.architecture, config.seed, len(labels))
    gradients = network.gradients(network.forward(x, labels, step)[1])
    gradients = {name: gradient.copy() for name, gradient in gradients.items()}
    gradients["input"] = np.array(x.gradient)
    values = {name: p.value for name, p in network.parameters.items()} | {"input": x.value}
    taken = network.layer_inputs(x.value, step)
    places = {layer.name: i for i, layer in enumerate(prepared.architecture.layers)}

    def loss(first: int) -> float:
        """Nothing moves in front of the layer whose array is checked, so the pass begins there."""
        given = Variable(taken[first])
        return float(network.forward(given, labels, step, first)[1].value)

    for name, gradient in gradients.items():
        first = 0 if name == "input" else places[name.partition(".")[0]]
        yield _check(name, values[name], gradient, most, partial(loss, first), shake, advance)


def _step_of_masks(architecture: Architecture, seed: int, samples: int) -> int:
    """Of ``MASKS`` steps the first at which stochastic depth has the fewest residual branches
    skipped by every sample: none, if that ever happens."""
    masks = [
        DropoutMasks(seed, layer.name, layer.skipped)
        for layer in architecture.walk()
        if layer.skipped
    ]
    if not masks:
        return 0
    return max(range(MASKS), key=lambda step: sum(x.draw(step, (samples,)).any() for x in masks))


def _batch_size(dataset: Dataset) -> int:
    return min(IMAGES if dataset.is_image else SAMPLES, len(dataset.train))


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
    directions = [rng.standard_normal(value.shape) for _ in range(DIRECTIONS)]
    for direction in directions:
        direction /= np.linalg.norm(direction)
    before = value.copy()

    def move_entry(index: int, amount: float) -> None:
        value.flat[index] = before.flat[index] + amount

    def move_along(direction: Floats, amount: float) -> None:
        np.add(before, amount * direction, out=value)

    return Check(
        name,
        value.size,
        len(tried),
        float(np.linalg.norm(gradient)),
        relative_error(
            [partial(move_entry, index) for index in tried.tolist()],
            gradient.flat[tried],
            loss,
            advance,
        ),
        relative_error(
            [partial(move_along, direction) for direction in directions],
            np.array([np.vdot(direction, gradient) for direction in directions]),
            loss,
            advance,
        ),
    )
