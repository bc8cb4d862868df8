"""The PyTorch backend's memory format, precision, compilation and out-of-memory errors."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor, nn

from nnopt.backends import torch as pytorch
from nnopt.backends.torch import device as device_module
from nnopt.backends.torch.loader import TorchLoader
from nnopt.backends.torch.network import TorchNetwork
from nnopt.backends.torch.precision import Precision
from nnopt.errors import TrainingError
from nnopt.schema import Activation, Config, TorchConfig

MakeNetwork = Callable[..., TorchNetwork]
MakeConfig = Callable[..., Config]

CONV = [{"conv2d": 8}, "batch_norm", "relu", "max_pool2d", "flatten", {"dense": "classes"}]
MLP = [{"dense": 32}, "relu", {"dense": "classes"}]
IMAGE = (3, 6, 6)
SINGLE = {"backend.dtype": "float32"}


def images(count: int = 16) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((count, *IMAGE), np.float32)
    return torch.tensor(x), torch.tensor(rng.integers(0, 4, count))


def output_dtypes(network: TorchNetwork, x: Tensor) -> dict[str, torch.dtype]:
    """Train for one step, and return the dtype of each layer's output."""
    seen: dict[str, torch.dtype] = {}
    for name, module in network.module.named_children():
        module.register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output.dtype})
        )
    network.train_step(x, torch.zeros(len(x), dtype=torch.int64), 0.1, 0)
    return seen


def trained(network: TorchNetwork, steps: int = 5) -> dict[str, np.ndarray]:
    x, y = images()
    for step in range(steps):
        network.train_step(x, y, 0.05, step)
    return network.arrays()


def test_convolution_outputs_are_channels_last(make_network: MakeNetwork) -> None:
    network = make_network("torch", CONV, IMAGE, **SINGLE)
    seen: list[bool] = []

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen.append(output.is_contiguous(memory_format=torch.channels_last))

    for name in ("conv2d1", "batch_norm1", "relu1", "max_pool2d1"):
        network.module.get_submodule(name).register_forward_hook(note)
    before = network.arrays()
    x, y = images()
    network.train_step(x, y, 0.1, 0)
    network.predict(x)
    assert seen == [True] * 8
    for arrays in (before, network.arrays(), network.gradient_arrays(), network.layer_outputs(x)):
        assert all(array.flags.c_contiguous for array in arrays.values())


def test_memory_format_changes_no_result(make_network: MakeNetwork) -> None:
    in_memory_format = make_network("torch", CONV, IMAGE, **SINGLE)
    plain = make_network("torch", CONV, IMAGE, **SINGLE)
    plain.module.to(memory_format=torch.contiguous_format)
    plain._memory_format = None
    expected = trained(plain)
    for name, array in trained(in_memory_format).items():
        assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5)


def test_bf16_training_computes_only_products_in_16_bits(make_network: MakeNetwork) -> None:
    network = make_network("torch", CONV, IMAGE, **SINGLE, **{"backend.precision": "bf16"})
    x, _ = images()
    seen = output_dtypes(network, x)
    assert seen["conv2d1"] == seen["dense1"] == torch.bfloat16
    assert {p.dtype for p in network.module.parameters()} == {torch.float32}
    assert {array.dtype for array in network.gradient_arrays().values()} == {np.dtype("float32")}
    assert network.predict(x).dtype == np.float32
    assert network.read_steps().losses.dtype == np.float64


def test_network_in_full_precision_computes_in_float32(make_network: MakeNetwork) -> None:
    network = make_network("torch", CONV, IMAGE, **SINGLE)
    assert set(output_dtypes(network, images()[0]).values()) == {torch.float32}


def test_layer_outputs_have_the_precision_of_predictions(make_network: MakeNetwork) -> None:
    network = make_network("torch", CONV, IMAGE, **SINGLE, **{"backend.precision": "bf16"})
    x = images()[0]
    *_, logits = network.layer_outputs(x).values()
    assert_array_equal(logits, network.predict(x))


def test_bf16_training_ends_near_float32(make_network: MakeNetwork) -> None:
    full = trained(make_network("torch", CONV, IMAGE, **SINGLE))
    narrow = trained(make_network("torch", CONV, IMAGE, **SINGLE, **{"backend.precision": "bf16"}))
    assert any(not np.array_equal(full[name], narrow[name]) for name in full)
    for name, array in full.items():
        assert_allclose(narrow[name], array, rtol=0.1, atol=0.02)


def fp16_precision(make_config: MakeConfig) -> Precision:
    """Return a ``Precision`` that scales the loss for fp16. Loss scaling works on any device."""
    backend = make_config(backend="torch").backend
    assert isinstance(backend, TorchConfig)
    return Precision(replace(backend, precision="fp16"))


def test_fp16_scales_the_loss_up_and_the_gradients_back(make_config: MakeConfig) -> None:
    precision, w = fp16_precision(make_config), nn.Parameter(torch.tensor([3.0]))
    optimizer = torch.optim.SGD([w], 0.5)
    precision.backward((2 * w).sum())
    assert w.grad is not None
    assert w.grad.item() == 2 * 2**16
    precision.unscale(optimizer)
    assert w.grad.item() == 2
    precision.step(optimizer)
    assert w.item() == 2


def test_fp16_overflow_skips_step_and_reduces_scale(make_config: MakeConfig) -> None:
    precision, w = fp16_precision(make_config), nn.Parameter(torch.tensor([3.0]))
    optimizer = torch.optim.SGD([w], 0.5)
    precision.backward((w * 1e38).sum())
    precision.unscale(optimizer)
    precision.step(optimizer)
    assert w.item() == 3
    w.grad = None
    precision.backward((2 * w).sum())
    assert w.grad is not None
    assert w.grad.item() == 2 * 2**15


@pytest.mark.parametrize("optimizer", ["nesterov", "adam", "rmsprop", "muon", "schedule_free_sgd"])
def test_fp16_step_skipped_after_overflow_changes_no_state(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """A skipped step keeps weights and optimizer state, even with weight decay and max-norm.

    The loss scale of the first network starts at 2^120, so one step overflows and is skipped. This
    multiplies the scale by 2^-104, which gives 2^16, as in the second network.
    """
    overrides = {
        "backend.precision": "fp16",
        "optimizer": optimizer,
        "regularizer.weight_decay": 0.1,
        "regularizer.l2": 1e-3,
        "regularizer.grad_clip": 1.0,
        "regularizer.max_norm": 0.0 if optimizer == "schedule_free_sgd" else 0.9,
    }
    layers = [{"dense": 8}, "relu", {"dense": 8}, "relu", {"dense": "classes"}]
    x, y = images()
    x = x.flatten(1)
    outcomes = []
    make_scaler = torch.amp.GradScaler
    for scale in (2.0**120, 2.0**16):
        scaler = make_scaler("cpu", init_scale=scale, backoff_factor=2.0**-104)
        monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled, scaler=scaler: scaler)
        network = make_network("torch", layers, (x.shape[1],), **SINGLE, **overrides)
        before = network.arrays()
        if scale > 2**16:
            network.train_step(x, y, 0.05, 0)
            for name, array in network.arrays().items():
                assert_array_equal(array, before[name], err_msg=name)
        for step in (1, 2, 3):
            network.train_step(x, y, 0.05, step)
        outcomes.append(network.arrays())
        assert scaler.get_scale() == 2**16
        assert any(not np.array_equal(array, before[name]) for name, array in outcomes[-1].items())
    for name, array in outcomes[1].items():
        assert_array_equal(outcomes[0][name], array, err_msg=name)


@pytest.mark.parametrize("precision", ["full", "fp16"])
def test_fp16_scaling_does_not_affect_weight_decay_and_max_norm(
    make_network: MakeNetwork, precision: str
) -> None:
    """The hinge loss is zero, so only weight decay and max-norm change the weights."""
    overrides = {"regularizer.weight_decay": 10.0, "regularizer.max_norm": 0.5, "optimizer": "sgd"}
    overrides |= {"backend.precision": precision, "loss": "hinge"}
    network = make_network("torch", MLP, **SINGLE, **overrides)
    before = network.arrays()
    arrays = before | {"dense2.bias": np.array([9, 0, 0, 0], np.float32)}
    network.load(arrays)
    network.train_step(torch.zeros(1, 6), torch.tensor([0]), 0.05, 0)
    for name, array in network.arrays().items():
        expected = arrays[name]
        if expected.ndim > 1:
            expected = expected * np.float32(1 - 0.05 * 10)
            norms = np.linalg.norm(expected, axis=1, keepdims=True)
            expected = expected / np.maximum(norms / 0.5, 1)
        assert_allclose(array, expected, rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_compiled_step_equals_plain_step_and_is_compiled_once(make_network: MakeNetwork) -> None:
    """A second network that differs only in the seed reuses the compiled code."""
    layers = [*CONV[:-1], {"dropout": 0.3}, CONV[-1]]
    torch.compiler.reset()
    for seed in (0, 1):
        plain = trained(make_network("torch", layers, IMAGE, seed=seed, **SINGLE))
        with torch._dynamo.config.patch(error_on_recompile=True):
            compiled = {"backend.compile": "default"}
            fast = trained(make_network("torch", layers, IMAGE, seed=seed, **SINGLE, **compiled))
        for name, array in plain.items():
            assert_allclose(fast[name], array, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_bf16_step_with_accumulation_equals_plain_step(
    make_network: MakeNetwork,
) -> None:
    """The configuration has dropout, accumulation, mixed labels and bf16, as is usual on a GPU."""
    layers = [*CONV[:-1], {"dropout": 0.3}, CONV[-1]]
    overrides = {"backend.precision": "bf16", "batch_size": 16, "accumulation_steps": 2}
    x, labels = images()
    y = 0.7 * nn.functional.one_hot(labels, 4).float() + 0.075
    ends = []
    for compile_ in ("off", "default"):
        choice = {"backend.compile": compile_}
        network = make_network("torch", layers, IMAGE, **SINGLE, **overrides, **choice)
        for step in range(5):
            network.train_step(x, y, 0.05, step)
        assert network.read_steps().count == 80
        ends.append(network.arrays())
    for name, array in ends[0].items():
        assert_allclose(ends[1][name], array, rtol=0.05, atol=0.01, err_msg=name)


def test_compiled_code_of_too_many_networks_is_deleted(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "_compiled_keys", [])
    monkeypatch.setattr(pytorch, "_missing_for_compilation", lambda device: None)
    forgotten: list[bool] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: forgotten.append(True))
    counts = []
    kinds = (31, 8, 0), (31, 8, 0.1), (33, 8, 0.1), (33, 9, 0.1), (31, 8, 0), (35, 8, 0), (31, 8, 0)
    for width, batch_size, l2 in kinds:
        layers = [{"dense": width}, "relu", {"dense": "classes"}]
        overrides = {"batch_size": batch_size, "regularizer.l2": l2, "seed": len(counts)}
        make_network("torch", layers, **overrides, **{"backend.compile": "default"})
        counts.append(len(forgotten))
    assert counts == [0, 0, 0, 0, 0, 1, 1]


def test_network_without_references_frees_its_memory(make_network: MakeNetwork) -> None:
    network = make_network("torch", CONV, IMAGE, **SINGLE)
    x, y = images()
    weight = weakref.ref(network.module.get_submodule("dense1"))
    gc.disable()
    try:
        network.train_step(x, y, 0.1, 0)
        del network
        assert weight() is None
    finally:
        gc.enable()


def test_compilation_uses_the_configured_mode_and_copies_results(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    results: list[Tensor] = []

    def compile_(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        asked.update(options)

        def call(*inputs: Tensor) -> Any:
            logits, loss = function(*inputs)
            results.append(logits)
            return logits, loss

        return call

    monkeypatch.setattr(torch, "compile", compile_)
    network = make_network("torch", MLP, **SINGLE, **{"backend.compile": "max-autotune"})
    x = torch.zeros(4, 6)
    network.train_step(x, torch.zeros(4, dtype=torch.int64), 0.1, 0)
    assert asked == {"mode": "max-autotune", "dynamic": False}
    kept, _ = network._steps._pending[0]
    assert_array_equal(kept.numpy(), results[0].detach().numpy())
    assert kept.data_ptr() != results[0].data_ptr()


@pytest.mark.parametrize(
    ("device", "triton", "lacking"),
    [
        ("cpu", True, "a C++ compiler, but neither $CXX nor g++ nor clang++ was found"),
        ("cuda", True, "a C compiler, but neither $CC nor gcc nor clang was found"),
        ("cuda", False, "Triton"),
    ],
)
def test_compilation_without_compiler_is_refused(
    make_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    triton: bool,
    lacking: str,
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    monkeypatch.setattr(pytorch.shutil, "which", lambda name: None)
    spec = object() if triton else None
    monkeypatch.setattr(pytorch.importlib.util, "find_spec", lambda name: spec)
    overrides = {"backend.device": device}
    config = make_config(backend="torch", **overrides, **{"backend.compile": "default"})
    (problem,) = pytorch.check_backend(config)
    assert f"backend.compile = 'default' on {device} needs {lacking}" in problem
    assert pytorch.check_backend(make_config(backend="torch", **overrides)) == []


def test_deterministic_key_applies_only_to_its_network(make_network: MakeNetwork) -> None:
    make_network("torch", MLP, **{"backend.deterministic": True})
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    make_network("torch", MLP)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark


class Greedy(nn.Module):
    """A layer that requests more memory than the machine has."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.empty(2**58)


@pytest.mark.parametrize("verb", ["train_step", "predict"])
def test_out_of_memory_error_contains_the_name_of_the_layer(
    make_network: MakeNetwork, verb: str
) -> None:
    network = make_network("torch", MLP)
    greedy = network.module.get_submodule("relu1")
    greedy.forward = Greedy().forward  # type: ignore[method-assign]
    x = torch.zeros(4, 6, dtype=torch.float64)
    more = () if verb == "predict" else (torch.zeros(4, dtype=torch.int64), 0.1, 0)
    message = f"^{2**60} bytes more memory was needed in layer relu1$"
    with pytest.raises(MemoryError, match=message):
        getattr(network, verb)(x, *more)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 1 GiB",
            "20.00 MiB more memory was needed",
        ),
        (
            "CUDA out of memory. Tried to allocate more than 1EB memory.",
            "1EB more memory was needed",
        ),
        (
            "MPS backend out of memory (MPS allocated: 3.00 GB). Tried to allocate 1.50 GB on "
            "private pool.",
            "1.50 GB more memory was needed",
        ),
        ("CUDA error: out of memory", "more memory was needed"),
        (
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`",
            "more memory was needed",
        ),
        (
            "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
            "more memory was needed",
        ),
    ],
)
def test_out_of_memory_message_of_any_kind_is_recognized(said: str, message: str) -> None:
    with pytest.raises(MemoryError) as caught, pytorch.device_errors():
        raise RuntimeError(said)
    assert str(caught.value) == message


def test_error_about_missing_deterministic_kernel_contains_the_key() -> None:
    said = (
        "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you "
        "set 'torch.use_deterministic_algorithms(True)'."
    )
    with pytest.raises(TrainingError) as caught, pytorch.device_errors():
        raise RuntimeError(said)
    assert str(caught.value).startswith("backend.deterministic = true: ")
    assert "no deterministic adaptive_avg_pool2d_backward_cuda on this device" in str(caught.value)


def test_evaluation_chunk_is_limited_by_memory(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each sample, the largest layers (8 channels, 6x6 pixels) read 288 and write 288 numbers.

    The limit is 5 · 576 numbers, so a chunk has at most 5 of the 13 samples.
    """
    plain = make_network("torch", CONV, IMAGE, **{"regularizer.test_time_flip": True})
    monkeypatch.setattr(device_module, "CPU_EVALUATION_ELEMENTS", 5 * 2 * 8 * 36)
    network = make_network("torch", CONV, IMAGE, **{"regularizer.test_time_flip": True})
    seen: list[int] = []
    layer = network.module.get_submodule("conv2d1")
    layer.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    x = images(13)[0].double()
    assert_allclose(network.predict(x), plain.predict(x), rtol=1e-12)
    assert seen == [5, 5, 3] * 2


def test_error_unrelated_to_the_device_is_raised_unchanged(make_network: MakeNetwork) -> None:
    network = make_network("torch", MLP)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        network.predict(torch.zeros(4, 5, dtype=torch.float64))


@pytest.mark.parametrize("place", [(TorchNetwork, "_backward"), (TorchLoader, "_normalize")])
def test_run_without_enough_memory_exits_with_code_5_and_saves_weights(
    place: tuple[type, str],
    nnopt: Callable[..., int],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    owner, verb = place
    do = getattr(owner, verb)
    calls = 0

    def greedy(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return do(*arguments) if calls < 20 else torch.empty(2**58)

    monkeypatch.setattr(owner, verb, greedy)
    assert nnopt("run", "backend=torch", "batch_size=64", "epochs=9", "hydra.run.dir=out") == 5
    stderr = capsys.readouterr().err
    assert "out of memory with batch_size = 64" in stderr
    assert "try batch_size=32, or accumulation_steps=2" in stderr
    summary = json.loads((workplace / "out" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["epochs"] >= 1
    assert (workplace / "out" / "model_last.npz").exists()


CURVED = [{"dense": 16}, "gelu", "layer_norm", {"dense": 16}, "sigmoid", {"dense": 16}, "tanh"]


@pytest.mark.parametrize("name", get_args(Activation))
def test_training_with_activation_in_bf16_ends_near_float32(
    make_network: MakeNetwork, name: str
) -> None:
    check_bf16(make_network, [{"dense": 16}, name, {"dense": 4}], "off")


@pytest.mark.parametrize("compile_", ["off", pytest.param("default", marks=pytest.mark.slow)])
def test_training_with_smooth_activations_in_bf16_ends_near_float32(
    make_network: MakeNetwork, compile_: str
) -> None:
    torch.compiler.reset()
    check_bf16(make_network, [*CURVED, {"dense": 4}], compile_)


def check_bf16(make_network: MakeNetwork, layers: list[Any], compile_: str) -> None:
    """Train with full precision and with bf16, and compare the weights."""
    x, labels = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 4
    ends = []
    for overrides in ({}, {"backend.precision": "bf16"}):
        choice = {"backend.compile": compile_ if overrides else "off"}
        network = make_network("torch", layers, **SINGLE, **overrides, **choice)
        for step in range(5):
            network.train_step(x, labels, 0.05, step)
        ends.append(network.arrays())
    for name, array in ends[0].items():
        assert_allclose(ends[1][name], array, rtol=0.05, atol=0.01, err_msg=name)
