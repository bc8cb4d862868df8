"""Compare pruned networks with the dense network: steps with masks, and smaller networks.

    python benchmarks/pruning.py [--turns 60]

The network is 784-300-100-10 with Adam, in NumPy, in float32. The dense network and a pruned one
take turns. Masks are applied at a sparsity of 90 %. Half of the units of each hidden layer are
removed.

The last rows compare a product of a sparse weight (SciPy's CSR format) with the dense product of
NumPy, at several sparsities.

Prints the median milliseconds of both and the median ratio over the turns. Exits with 1 if a masked
step takes more than 1.15 times as long as the dense one, or if the network with half of the units
is not at least 1.8 times as fast. The sparse product has no target.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.sparse import csr_array
from timing import Table, machine_line, paired_ratio, take_turns
from workloads import build_architecture, numpy_step

from nnopt.architecture.network import Architecture, infer_shapes
from nnopt.backends.models import initial_arrays
from nnopt.backends.numpy.network import NumpyNetwork
from nnopt.config.compose import make_plan
from nnopt.pruning.criteria import magnitude_scores
from nnopt.pruning.masks import global_masks
from nnopt.pruning.structured import smaller_arrays, smaller_layers
from nnopt.pruning.units import highest_units, kept_units, removable_units, unit_scores
from nnopt.results.cores import thread_pools
from nnopt.schema import Config

BATCHES, SPARSITY = (60, 1024), 0.9
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
MAX_MASKED, MIN_SPEEDUP = 1.15, 1.8
TURN_SECONDS = 0.15


def main() -> int:
    """Run the benchmark, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=60, help="turns of each network")
    turns = parser.parse_args().turns
    print(machine_line())
    thread_pools().limit(limits=1)
    table = Table("batch, threads", "dense ms", "other ms", "ratio", label_width=34)
    for batch in BATCHES:
        overrides = ["architecture.hidden=[300,100]", "optimizer=adam", f"batch_size={batch}"]
        config = make_plan([*overrides, "backend.threads=1"]).points[0].config
        rng = np.random.default_rng(0)
        x = rng.standard_normal((batch, 784)).astype(np.float32)
        y = rng.integers(0, 10, batch)
        dense = build_architecture(config, (784,))
        step = numpy_step(config, dense, x, y, 1e-3)
        seconds, ratio = compare(step, masked_step(config, dense, x, y), turns)
        report(table, f"step with masks, batch {batch}", seconds, ratio, at_most=MAX_MASKED)
        small, arrays = half(config, dense)
        seconds, ratio = compare(step, numpy_step(config, small, x, y, 1e-3), turns)
        label = f"step, half of the units, batch {batch}"
        report(table, label, seconds, ratio, at_most=1 / MIN_SPEEDUP)
        networks = [network(config, each, a) for each, a in ((dense, None), (small, arrays))]
        predict = [partial(each.predict, x) for each in networks]
        seconds, ratio = compare(*predict, turns)
        label = f"predict, half of the units, batch {batch}"
        report(table, label, seconds, ratio, at_most=1 / MIN_SPEEDUP)
    for sparsity in SPARSITIES:
        seconds, ratio = compare(*products(sparsity), turns)
        report(table, f"product, {100 * sparsity:g} % zeros, batch {BATCHES[0]}", seconds, ratio)
    return int(table.missed)


def masked_step(
    config: Config, architecture: Architecture, x: np.ndarray, y: np.ndarray
) -> Callable[[], None]:
    """Return a step of a network whose smallest weights are masked."""
    trained = network(config, architecture)
    weights = {name: x for name, x in trained.arrays().items() if x.ndim > 1}
    everything = {name: np.ones(x.shape, bool) for name, x in weights.items()}
    trained.set_masks(global_masks(magnitude_scores(weights), everything, SPARSITY))
    count = 0

    def step() -> None:
        nonlocal count
        trained.train_step(x, y, 1e-3, count)
        count += 1
        if count % 100 == 0:
            trained.read_steps()

    return step


def products(sparsity: float) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return the dense and the sparse product of a weight (300, 784) and a batch (784, 60)."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((300, 784)).astype(np.float32)
    weight[rng.random(weight.shape) < sparsity] = 0
    sparse, x = csr_array(weight), rng.standard_normal((784, BATCHES[0])).astype(np.float32)
    return partial(np.matmul, weight, x), partial(sparse.__matmul__, x)


def half(config: Config, dense: Architecture) -> tuple[Architecture, dict[str, np.ndarray]]:
    """Return the architecture and the weights with half of the units of each hidden layer."""
    arrays = initial_arrays(dense, config.initializer, 0)
    kept = {
        units.layers[0]: highest_units(
            unit_scores(units, arrays, "l2", 0), kept_units(units.count, 0.5)
        )
        for units in removable_units(dense)[0]
    }
    small = infer_shapes(smaller_layers(dense, kept), dense.input_shape, dense.classes)
    return small, smaller_arrays(dense, kept, arrays)


def network(
    config: Config, architecture: Architecture, arrays: dict[str, np.ndarray] | None = None
) -> NumpyNetwork:
    """Return a network with the given or with initial weights."""
    built = NumpyNetwork(architecture, config)
    built.load(arrays or initial_arrays(architecture, config.initializer, 0))
    return built


def compare(
    dense: Callable[[], object], other: Callable[[], object], turns: int
) -> tuple[tuple[float, float], float]:
    """Return the median seconds of two functions, and the median over turns of their ratio."""
    measured = take_turns(dense, other, turns=turns, turn_seconds=TURN_SECONDS)
    first, second = ([statistics.median(turn) for turn in each] for each in measured)
    return (statistics.median(first), statistics.median(second)), paired_ratio(second, first)


def report(
    table: Table, label: str, seconds: tuple[float, float], ratio: float, **target: float
) -> None:
    """Print a row."""
    cells = [f"{1000 * each:.3f}" for each in seconds]
    table.row(label, *cells, f"{ratio:.2f}", value=ratio, **target)


if __name__ == "__main__":
    sys.exit(main())
