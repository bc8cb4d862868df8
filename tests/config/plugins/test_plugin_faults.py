"""Faulty components: each is computed once before training, and refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nnopt.config.compose import compose_config
from nnopt.config.plugins.load import deactivate
from nnopt.errors import ConfigError, DataError
from nnopt.recipe.prepare import prepare

HEADER = """
import numpy as np
from nnopt import DatasetConfig, Layer, OptimizerConfig, Samples, ScheduleConfig

class Keys(OptimizerConfig):
    lr: float = 0.1

class Data(DatasetConfig):
    pass

class Times(ScheduleConfig):
    pass

class Half(Layer):
    def output_shape(self, shape):
        return {shape}

    def parameters(self, shape):
        return {"weight": shape}

def module(shape):
    import torch
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            {inside}
    return Module()

X, Y = np.zeros((4, 2)), np.array([0, 1, 0, 1])

def register(registry):
    registry.{call}
"""

LAYERS = "architecture.layers=[{dense: 4}, mine, {dense: classes}]"
ACTIVATION = ("architecture.activation=mine", "architecture.hidden=[4]")
LAYER = ("architecture=layers", LAYERS)

FAULTS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "activation, forward": (
        "activation('mine', numpy=(lambda x: (x[:1], x), lambda g, s: g))",
        ACTIVATION,
        "activation 'mine' returns the shape (1, 4) from forward, expected (3, 4)",
    ),
    "activation, backward": (
        "activation('mine', numpy=(lambda x: (x, x), lambda g, s: g.sum()))",
        ACTIVATION,
        "activation 'mine' returns the shape () from backward, expected (3, 4)",
    ),
    "activation, no pair": (
        "activation('mine', numpy=(lambda x: x, lambda g, s: g))",
        ACTIVATION,
        "activation 'mine' returns no pair from forward; return (output, values that backward",
    ),
    "activation, exception": (
        "activation('mine', numpy=(lambda x: (x, x),\n lambda g, s: 1 / 0))",
        ACTIVATION,
        "activation 'mine' fails in NumPy: line 33: ZeroDivisionError: division by zero",
    ),
    "activation, torch": (
        "activation('mine', torch=lambda x: x.sum(1))",
        (*ACTIVATION, "backend=torch"),
        "activation 'mine' returns one number for each sample in mine1, but its rule for shapes",
    ),
    "activation, other backend": (
        "activation('mine', torch=lambda x: x)",
        ACTIVATION,
        "the activation 'mine' of mine.py has no part for backend.name = 'numpy'; set backend=",
    ),
    "layer, forward": (
        "layer('mine', Half, numpy=(lambda x, w: (x, w), lambda g, s: (g, s)))",
        LAYER,
        "layer 'mine' returns 4 for each sample in mine1, but its rule for shapes says 2",
    ),
    "layer, backward": (
        "layer('mine', Half, numpy=(lambda x, w: (x[:, :2], w), lambda g, s: g))",
        LAYER,
        "layer 'mine' returns 1 gradients from backward, expected 2: one of x and each parameter",
    ),
    "layer, torch": (
        "layer('mine', Half, torch=lambda x, w: x * w)",
        (*LAYER, "backend=torch"),
        "layer 'mine' returns 4 for each sample in mine1, but its rule for shapes says 2",
    ),
    "layer, module": (
        "layer('mine', Half, module=module)",
        (*LAYER, "backend=torch"),
        "layer 'mine' has the parameters {} in its module, but {'weight': (4,)} in its record",
    ),
    "loss, forward": (
        "loss('mine', numpy=(lambda z, y: (z.sum(1), z), lambda g, s: s))",
        ("loss=mine",),
        "loss 'mine' returns the shape (3,) from forward, expected ()",
    ),
    "loss, torch": (
        "loss('mine', torch=lambda z, y: z.sum(1))",
        ("loss=mine", "backend=torch"),
        "loss 'mine' returns the shape (3,), expected ()",
    ),
    "optimizer": (
        "optimizer('mine', Keys, numpy=lambda w, g, state, lr, step, config: lr)",
        ("optimizer=mine",),
        "optimizer 'mine' returns the shape () from the update, expected (5,)",
    ),
    "optimizer, torch": (
        "optimizer('mine', Keys, torch=lambda parameters, config: parameters)",
        ("optimizer=mine", "backend=torch"),
        "optimizer 'mine' returns no torch.optim.Optimizer, got <class 'list'>",
    ),
    "metric": (
        "metric('mine', lambda logits, labels: logits[0])",
        ("evaluation.metrics=[mine]",),
        "metric 'mine' returns the shape (3,), expected a number",
    ),
    "dataset, labels": (
        "dataset('mine', Data, lambda config, root: Samples('ab', (X, Y + 1), (X, Y)))",
        ("dataset=mine",),
        "dataset 'mine' has the train label 2, but 2 classes; allowed are 0 to 1",
    ),
    "dataset, shape": (
        "dataset('mine', Data, lambda config, root: Samples('ab', (X, Y), (X[:, :1], Y)))",
        ("dataset=mine",),
        "dataset 'mine' has training samples of the shape (2,), but test samples of the shape (1,)",
    ),
    "dataset, images": (
        "dataset('mine', Data, lambda *_: Samples('ab', *[(X[:, :, None, None], Y)] * 2))",
        ("dataset=mine",),
        "dataset 'mine' has train images of the type float64, expected uint8",
    ),
}


@pytest.fixture(autouse=True)
def without_plugins() -> Iterator[None]:
    yield
    deactivate()


@pytest.fixture
def write(workplace: Path) -> Callable[..., str]:
    """Return a function that writes a plug-in with one component, and returns an override."""

    def write(call: str, shape: str = "(shape[0] // 2,)", inside: str = "pass") -> str:
        code = HEADER.replace("{shape}", shape).replace("{call}", call).replace("{inside}", inside)
        Path("mine.py").write_text(code)
        return "plugins=[mine.py]"

    return write


@pytest.mark.parametrize("case", FAULTS)
def test_faulty_component_is_refused_before_training(write: Callable[..., str], case: str) -> None:
    call, overrides, message = FAULTS[case]
    with pytest.raises(ConfigError) as caught:
        prepare(compose_config([write(call), *overrides]))
    (problem,) = caught.value.problems
    assert "mine.py" in problem
    assert message in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("[2]", "layer 'mine' has a wrong rule for shapes: output_shape is [2], expected a tuple"),
        ("(2, 2)", "the output of a sample has the shape (2, 2), expected (D,) or (C, H, W)"),
        ("1 / 0", "fails in its rule for shapes: line 16: ZeroDivisionError: division by zero"),
    ],
)
def test_faulty_rule_for_shapes_is_refused(
    write: Callable[..., str], shape: str, message: str
) -> None:
    plugin = write("layer('mine', Half, torch=abs, numpy=(abs, abs))", shape)
    with pytest.raises(ConfigError) as caught:
        prepare(compose_config([plugin, *LAYER]))
    assert message in caught.value.problems[0]


def test_shape_that_a_layer_refuses_names_the_layer(write: Callable[..., str]) -> None:
    plugin = write("layer('mine', Half, numpy=(abs, abs))", "int('x')")
    with pytest.raises(ConfigError, match="layer mine1: does not accept an input of 4: invalid"):
        prepare(compose_config([plugin, *LAYER]))


def test_buffer_of_a_module_is_refused(write: Callable[..., str]) -> None:
    inside = "self.weight = torch.nn.Parameter(torch.ones(shape)); self.register_buffer('b', X)"
    inside = inside.replace("X)", "torch.ones(1))")
    plugin = write("layer('mine', Half, module=module)", inside=inside)
    with pytest.raises(ConfigError, match="has the buffer 'b' in its module"):
        prepare(compose_config([plugin, *LAYER, "backend=torch"]))


def test_missing_file_of_a_dataset_is_an_error_of_data(write: Callable[..., str]) -> None:
    plugin = write("dataset('mine', Data, lambda config, root: open(root / 'missing.csv'))")
    with pytest.raises(DataError, match=r"dataset 'mine' fails in load: line \d+: FileNotFound"):
        prepare(compose_config([plugin, "dataset=mine"]))


def test_loss_of_labels_refuses_smoothing_and_mixed_labels(write: Callable[..., str]) -> None:
    plugin = write("loss('mine', numpy=(abs, abs), torch=abs)")
    keys = ["regularizer.label_smoothing=0.1", "regularizer.augmentation.mixup=1"]
    with pytest.raises(ConfigError) as caught:
        compose_config([plugin, "loss=mine", *keys])
    assert ["label_smoothing" in x or "mixup" in x for x in caught.value.problems] == [True, True]


def test_schedule_with_a_negative_factor_is_refused(write: Callable[..., str]) -> None:
    from nnopt.training.schedules import build_schedule

    plugin = write("schedule('mine', Times, lambda config, step, steps, per_epoch: 1 - step)")
    config = compose_config([plugin, "schedule=mine"])
    rate = build_schedule(config.schedule, 0.1, 10, 20)
    assert rate(0) == pytest.approx(0.1)
    with pytest.raises(ConfigError, match=r"returns the factor -1.0 at step 2 of 20, expected"):
        rate(2)
