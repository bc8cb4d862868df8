"""The number of threads that a training uses."""

from __future__ import annotations

import pytest

from nnopt.architecture.builders import build
from nnopt.backends.thread_choice import (
    FLOPS_PER_THREAD,
    ThreadChoice,
    choose_threads,
    flops_on_processor,
    threads_for,
)
from nnopt.config.compose import compose_config

MNIST_MLP = 128 * 2 * 784 * 256  # FLOPs of the largest layer of experiment=mnist_mlp for a batch


@pytest.mark.parametrize(
    ("flops", "cores", "library", "expected"),
    [
        (0, 64, 64, ThreadChoice(1, "work")),
        (1, 64, 64, ThreadChoice(1, "work")),
        (MNIST_MLP, 2, 2, ThreadChoice(1, "work")),
        (MNIST_MLP, 128, 128, ThreadChoice(1, "work")),
        (FLOPS_PER_THREAD, 8, 8, ThreadChoice(1, "work")),
        (FLOPS_PER_THREAD + 1, 8, 8, ThreadChoice(2, "work")),
        (5 * FLOPS_PER_THREAD, 8, 8, ThreadChoice(5, "work")),
        (5 * FLOPS_PER_THREAD, 4, 8, ThreadChoice(4, "cores")),
        (5 * FLOPS_PER_THREAD, 4, 4, ThreadChoice(4, "cores")),
        (5 * FLOPS_PER_THREAD, 8, 3, ThreadChoice(3, "library")),
        (5 * FLOPS_PER_THREAD, 1, 1, ThreadChoice(1, "cores")),
    ],
)
def test_chosen_number_of_threads_depends_on_work_cores_and_library(
    flops: int, cores: int, library: int, expected: ThreadChoice
) -> None:
    assert choose_threads(None, flops, cores, library) == expected


@pytest.mark.parametrize("requested", [1, 2, 8])
@pytest.mark.parametrize("flops", [0, 100 * FLOPS_PER_THREAD])
def test_requested_number_of_threads_is_chosen(requested: int, flops: int) -> None:
    assert choose_threads(requested, flops, 2, 2) == ThreadChoice(requested, "backend.threads")


@pytest.mark.parametrize(
    ("overrides", "flops"),
    [
        ((), MNIST_MLP),
        (("accumulation_steps=4",), MNIST_MLP // 4),
        (("accumulation_steps=3",), 43 * 2 * 784 * 256),  # at most 43 samples in a micro-batch
        (("backend=torch",), MNIST_MLP),
        (("backend=torch", "backend.device=cuda"), 0),
    ],
)
def test_flops_on_processor_are_flops_of_largest_layer_for_largest_micro_batch(
    overrides: tuple[str, ...], flops: int
) -> None:
    config = compose_config(["experiment=mnist_mlp", *overrides])
    architecture = build(config.architecture, config.regularizer, (1, 28, 28), 10)
    found = flops_on_processor(architecture, config)
    assert found == pytest.approx(flops, rel=0.01)  # the biases add a few FLOPs


def test_flops_on_processor_include_inner_layers_but_no_residual_layer() -> None:
    config = compose_config(["dataset=cifar10", "architecture=resnet", "batch_size=1"])
    architecture = build(config.architecture, config.regularizer, (3, 32, 32), 10)
    residual = max(layer.flops for layer in architecture.walk() if layer.inner)
    assert flops_on_processor(architecture, config) < 0.6 * residual


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_number_of_threads_for_a_network_is_the_same_in_both_backends(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnopt.backends.thread_choice.usable_cores", lambda: 16)
    overrides = ["experiment=mnist_mlp", f"backend={backend}"]
    config = compose_config([*overrides, "architecture.hidden=[1024,256]"])
    architecture = build(config.architecture, config.regularizer, (1, 28, 28), 10)
    assert threads_for(architecture, config, 16) == ThreadChoice(4, "work")
    assert threads_for(architecture, config, 2) == ThreadChoice(2, "library")
    config = compose_config(overrides)
    architecture = build(config.architecture, config.regularizer, (1, 28, 28), 10)
    assert threads_for(architecture, config, 16) == ThreadChoice(1, "work")
