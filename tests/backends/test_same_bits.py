"""The NumPy backend gives the same bits with any number of threads; see docs/backends.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from threadpoolctl import threadpool_limits

from nnopt.backends.numpy import threads, tuning, update_rules
from nnopt.backends.numpy.average import Average
from nnopt.backends.numpy.gradients import norm
from nnopt.backends.numpy.network import NumpyNetwork
from nnopt.backends.numpy.threads import ThreadPool

MakeNetwork = Callable[..., NumpyNetwork]

NETWORKS: dict[str, tuple[list[Any], tuple[int, ...]]] = {
    "dense": ([{"dense": 24}, "relu", "layer_norm", {"dense": "classes"}], (12,)),
    "flat batch norm": ([{"dense": 24}, "batch_norm", "gelu", {"dense": "classes"}], (12,)),
    "im2col, max pooling": (
        [{"conv2d": 8}, "relu", {"max_pool2d": 2}, "flatten", {"dense": 16}, {"dense": "classes"}],
        (3, 12, 12),
    ),
    "winograd, batch norm": (
        [
            *({"conv2d": 16}, "batch_norm", "relu", {"conv2d": 18}, "batch_norm", "relu"),
            *("global_avg_pool", {"dense": "classes"}),
        ],
        (3, 12, 12),
    ),
    "instance norm, other activations": (
        [
            *({"conv2d": 16}, "instance_norm", "leaky_relu", {"conv2d": 8}, "tanh"),
            *("global_avg_pool", {"dense": 8}, "sigmoid", {"dense": "classes"}),
        ],
        (3, 12, 12),
    ),
    "prelu, gates": (
        [
            *({"conv2d": 16}, {"prelu": {"per_channel": True}}, "mish", {"conv2d": 8}, "prelu"),
            *("gelu_tanh", "elu", "hard_swish", "softplus", "selu", "flatten"),
            *({"dense": 8}, "prelu", {"dense": "classes"}),
        ],
        (3, 12, 12),
    ),
    "group norm, average pooling": (
        [
            {"conv2d": 16},
            {"group_norm": 4},
            "silu",
            {"avg_pool2d": 2},
            "flatten",
            {"dense": "classes"},
        ],
        (3, 12, 12),
    ),
}


@pytest.fixture
def cut_finely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide the work of small networks into many chunks, and use threads for every chunk."""
    monkeypatch.setattr(tuning, "IMAGE_CHUNK_ELEMENTS", 200)
    monkeypatch.setattr(tuning, "IMAGE_CHUNK_LANES", 70)
    monkeypatch.setattr(tuning, "THREADING_MIN_ELEMENTS", 1)
    monkeypatch.setattr(tuning, "POOLING_CHUNK_ELEMENTS", 200)
    monkeypatch.setattr(tuning, "UPDATE_CHUNK_ELEMENTS", 64)
    monkeypatch.setattr(tuning, "UPDATE_THREADING_MIN_ELEMENTS", 1)
    monkeypatch.setattr(tuning, "PARALLEL_SUM_MIN_ELEMENTS", 1)
    monkeypatch.setattr(tuning, "IM2COL_CHUNK_ELEMENTS", 2000)


def train(make_network: MakeNetwork, name: str, count: int, **settings: Any) -> dict[str, Any]:
    """Return weights, averages, losses and logits of a short training with ``count`` threads."""
    layers, shape = NETWORKS[name]
    found: dict[str, Any] = {}
    with threadpool_limits(count, user_api="blas"):
        network = make_network("numpy", layers, shape, **settings, **{"backend.threads": count})
        rng = np.random.default_rng(0)
        for step in range(3):
            x = rng.standard_normal((33, *shape)).astype(network.dtype)
            network.train_step(x, rng.integers(0, 4, 33), 0.1, step)
            network.average(0.5)
        record = network.read_steps()
        found |= network.arrays()
        found |= {"losses": record.losses, "norm": record.gradient_norm}
        found["logits"] = network.predict(x)
        network.swap_average()
        found |= {f"average of {name}": array for name, array in network.arrays().items()}
    return found


@pytest.mark.usefixtures("cut_finely")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_bits_do_not_depend_on_number_of_threads(
    make_network: MakeNetwork, name: str, dtype: str
) -> None:
    settings = {
        "backend.dtype": dtype,
        "optimizer": "adam",
        "regularizer.grad_clip": 0.1,
        "regularizer.l2": 0.01,
        "regularizer.weight_decay": 0.01,
        "regularizer.max_norm": 3,
    }
    check_threads_agree(make_network, name, **settings)


@pytest.mark.usefixtures("cut_finely")
@pytest.mark.parametrize("optimizer", update_rules.OPTIMIZERS)
def test_optimizer_bits_do_not_depend_on_number_of_threads(
    make_network: MakeNetwork, optimizer: str
) -> None:
    check_threads_agree(make_network, "dense", optimizer=optimizer, loss="hinge")


@pytest.mark.usefixtures("cut_finely")
@pytest.mark.parametrize("algorithm", ["naive", "im2col", "winograd"])
def test_convolution_bits_do_not_depend_on_number_of_threads(
    make_network: MakeNetwork, algorithm: str
) -> None:
    check_threads_agree(
        make_network, "winograd, batch norm", **{"backend.conv_algorithm": algorithm}
    )


def check_threads_agree(make_network: MakeNetwork, name: str, **settings: Any) -> None:
    """Train with 1, 2 and 4 threads, and compare all bits."""
    alone = train(make_network, name, 1, **settings)
    for count in (2, 4):
        together = train(make_network, name, count, **settings)
        for key, value in alone.items():
            assert_array_equal(together[key], value, err_msg=key)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradient_norm_bits_do_not_depend_on_threads(dtype: type) -> None:
    vector = np.random.default_rng(0).standard_normal(1_000_003).astype(dtype)
    norms = set()
    for count in (1, 2, 4):
        with threadpool_limits(count, user_api="blas"):
            norms |= {norm(vector), norm(vector * dtype(1e-30))}
    assert len(norms) == 2


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_partial_sums_do_not_depend_on_number_of_threads(count: int) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((36, 90, 90)).astype(np.float32) for _ in range(5)]
    expected = arrays[0] + arrays[1] + arrays[2] + arrays[3] + arrays[4]
    threads.sum_into_first(arrays, ThreadPool(count))
    assert_array_equal(arrays[0], expected)


@pytest.mark.parametrize(
    ("pieces", "numbers", "expected"),
    [(1, 10, 1), (3, 10, 3), (50, 10, 8), (50, 2**22, 4), (50, 2**26, 2), (1, 2**26, 1)],
)
def test_number_of_partial_sums_is_bounded_by_chunks_and_memory(
    pieces: int, numbers: int, expected: int
) -> None:
    assert threads.partial_sum_count(pieces, numbers) == expected


def test_average_bits_do_not_depend_on_number_of_threads() -> None:
    ends = []
    for count in (1, 2, 4):
        w = np.random.default_rng(0).standard_normal(2**20 + 5).astype(np.float32)
        average = Average([w], ThreadPool(count))
        for _ in range(3):
            average.move(0.3)
            w *= 1.5
        average.swap()
        ends.append(w)
    assert_array_equal(ends[1], ends[0])
    assert_array_equal(ends[2], ends[0])
