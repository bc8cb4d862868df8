"""The verb ``gradcheck``: the NumPy backend's gradients against central differences.

For each parameter array and for the input, in float64:

- entries: (L(w + h eᵢ) - L(w - h eᵢ)) / 2h for each entry i, or for 200 random ones of a larger
  array;
- directions: (L(w + h v) - L(w - h v)) / 2h against v·∇L for random unit vectors v, which no entry
  escapes.

The error of an array is the norm of the difference over the sum of the norms. Where L has a kink
(ReLU, hinge) between the two points the difference is wrong, not the gradient; so h shrinks, and
the best h of each comparison counts. A wrong gradient is wrong for every h.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.initializers import initial_arrays
from nnopt.backends.numpy_scratch.loader import NumpyLoader
from nnopt.backends.numpy_scratch.network import NumpyNetwork
from nnopt.backends.numpy_scratch.tape import Variable
from nnopt.compose import compose_words
from nnopt.console import note, print_table
from nnopt.data.batches import PLAIN, epoch_order
from nnopt.errors import TrainingError
from nnopt.prepare import Prepared, prepare
from nnopt.random import generator
from nnopt.schema import Config, NumpyConfig

Floats = NDArray[np.float64]

TOLERANCE = 1e-6
SAMPLES, IMAGES = 16, 2
"""Images have positions besides; and the more ReLUs and pooling windows, the more kinks nearby."""

LARGEST_COMPLETE = 200
DIRECTIONS = 5
STEPS = (1e-4, 1e-5, 1e-6, 1e-7)


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
        """Are both errors within the tolerance?"""
        return max(self.entry_error, self.direction_error) <= TOLERANCE


def main(arguments: list[str]) -> int:
    """Check the configured network and print a table.

    Raises ConfigError or DataError; TrainingError (exit code 5) if a gradient is wrong.
    """
    config = compose_words("gradcheck", "Compare gradients with central differences.", arguments)
    checks = check_gradients(config, prepare(config))
    header = ("array", "entries", "tried", "|gradient|", "error", "along directions", "")
    rows = [
        (
            check.name,
            f"{check.size:,}",
            f"{check.tried:,}",
            f"{check.norm:.2e}",
            f"{check.entry_error:.1e}",
            f"{check.direction_error:.1e}",
            "ok" if check.passed else "WRONG",
        )
        for check in checks
    ]
    print_table(header, rows, "lrrrrrl")
    wrong = [check.name for check in checks if not check.passed]
    if wrong:
        raise TrainingError(
            f"gradients differ from central differences by more than {TOLERANCE:g} "
            f"(relative, float64) for: {', '.join(wrong)}"
        )
    note(f"all {len(checks)} gradients agree with central differences to {TOLERANCE:g}")
    return 0


def check_gradients(config: Config, prepared: Prepared) -> list[Check]:
    """Compare the gradients of every parameter and of the input, on a small batch of the training
    data, with dropout masks held fixed."""
    conv = config.backend.conv if isinstance(config.backend, NumpyConfig) else "auto"
    backend = NumpyConfig("numpy", "float64", "cpu", config.backend.threads, False, conv)
    config = replace(config, backend=backend)
    dataset = prepared.dataset
    network = NumpyNetwork(prepared.architecture, config)
    network.load(initial_arrays(prepared.architecture, config.initializer, config.seed))
    order = epoch_order(config.seed, 1, len(dataset.train))  # of all classes
    order = order[: IMAGES if dataset.is_image else SAMPLES]
    loader = NumpyLoader(dataset.train, dataset.normalization, config)
    inputs, labels = next(iter(loader.train_batches(order, len(order), PLAIN)))
    x = Variable(inputs.copy(), wanted=True)
    # Biases start at zero and batch norm's scale at one; a general place tells more.
    shake = generator(config.seed, "gradcheck")
    for parameter in network.parameters.values():
        parameter.value += 0.05 * shake.standard_normal(parameter.value.shape)
    if dataset.is_image:  # whose even background ties in all pooling windows: a kink for every h
        x.value += 0.05 * shake.standard_normal(x.value.shape)

    def loss() -> float:
        return float(network.forward(Variable(x.value), labels, step=0)[1].value)

    gradients = network.gradients(network.forward(x, labels, step=0)[1])
    gradients = {name: gradient.copy() for name, gradient in gradients.items()}
    gradients["input"] = np.array(x.gradient)
    values = {name: p.value for name, p in network.parameters.items()} | {"input": x.value}
    return [_check(name, values[name], gradients[name], loss, shake) for name in gradients]


def _check(
    name: str, value: Floats, gradient: Floats, loss: Callable[[], float], rng: np.random.Generator
) -> Check:
    tried = np.arange(value.size)
    if value.size > LARGEST_COMPLETE:
        tried = np.sort(rng.choice(value.size, LARGEST_COMPLETE, replace=False))
    before, entries, along = value.copy(), [], []
    for index in tried.tolist():

        def move_entry(amount: float, index: int = index) -> None:
            value.flat[index] = before.flat[index] + amount

        entries.append(_compare(move_entry, float(gradient.flat[index]), loss))
        move_entry(0)
    for _ in range(DIRECTIONS):
        direction = rng.standard_normal(value.shape)
        direction /= np.linalg.norm(direction)

        def move_along(amount: float, direction: Floats = direction) -> None:
            np.add(before, amount * direction, out=value)

        along.append(_compare(move_along, float(np.vdot(direction, gradient)), loss))
        move_along(0)
    rounding = 1e-8 * max(1.0, abs(loss()))
    return Check(
        name,
        value.size,
        len(tried),
        float(np.linalg.norm(gradient)),
        _relative_error(entries, rounding),
        _relative_error(along, rounding),
    )


def _compare(
    move: Callable[[float], None], derivative: float, loss: Callable[[], float]
) -> tuple[float, float]:
    """(central difference, derivative), for the h at which the two are closest."""
    differences = []
    for h in STEPS:
        move(h)
        above = loss()
        move(-h)
        differences.append((above - loss()) / (2 * h))
    return min(differences, key=lambda d: abs(d - derivative)), derivative


def _relative_error(pairs: list[tuple[float, float]], rounding: float) -> float:
    """‖numeric - analytic‖ / (‖numeric‖ + ‖analytic‖ + rounding), over pairs of the two; the last
    term is what the rounding of L makes of a gradient that is zero."""
    numeric, analytic = np.array(pairs).T
    scale = np.linalg.norm(numeric) + np.linalg.norm(analytic) + rounding
    return float(np.linalg.norm(numeric - analytic) / scale)
