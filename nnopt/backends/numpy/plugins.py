"""Components of plug-ins as operations and update rules of the NumPy backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnopt.architecture.inference import InferredLayer, format_shape
from nnopt.architecture.network import Architecture
from nnopt.architecture.plugins import used_components
from nnopt.backends.numpy.modules import ACTIVATIONS, LOSSES
from nnopt.backends.numpy.ops import Array, Buffer, Op, Shape, new
from nnopt.backends.numpy.ops.losses import smoothed_targets
from nnopt.backends.numpy.update_rules import OPTIMIZERS, Rule, Update
from nnopt.random import generator
from nnopt.schema import Config
from nnopt.schema.tables import Component

SAMPLES = 3
"""Number of samples with which a component is tried before training."""

Forward = Callable[..., tuple[Array, Any]]
Backward = Callable[[Array, Any], Any]


def activation_operation(component: Component, forward: Forward, backward: Backward) -> Op:
    """Return the operation of an activation, whose functions do not depend on the layout."""

    def apply(x: Array, *, buffer: Buffer = new, **options: Any) -> tuple[Array, Any]:
        y, saved = _pair(component, forward(x, **options))
        return _copied(component, "forward", y, x.shape, buffer("y", x.shape, x.dtype)), saved

    def differentiate(g: Array, saved: Any, *, buffer: Buffer = new) -> tuple[Array]:
        (d_x,) = _gradients(component, backward(g, saved), 1)
        return (_copied(component, "backward", d_x, g.shape, g),)

    return Op(apply, differentiate, ("x",))


def layer_operation(component: Component, forward: Forward, backward: Backward) -> Op:
    """Return the operation of a layer. Its functions get images as (N, C, H, W)."""

    def apply(
        x: Array, *parameters: Array, buffer: Buffer = new, **options: Any
    ) -> tuple[Array, Any]:
        y, saved = _pair(component, forward(_images(x), *parameters, **options))
        inner = _images(np.asarray(y))
        copied = _copied(
            component, "forward", inner, inner.shape, buffer("y", inner.shape, x.dtype)
        )
        return copied, (saved, x.shape, [parameter.shape for parameter in parameters])

    def differentiate(g: Array, saved: Any, *, buffer: Buffer = new) -> tuple[Array, ...]:
        inside, shape, shapes = saved
        d_x, *others = _gradients(component, backward(_images(g), inside), 1 + len(shapes))
        for other, expected in zip(others, shapes, strict=True):
            _check_shape(component, "backward", other, expected)
        own = buffer("d_x", shape, g.dtype)
        return _copied(component, "backward", _images(np.asarray(d_x)), shape, own), *others

    return Op(apply, differentiate, ("x",))


def loss_operation(
    component: Component, forward: Forward, backward: Backward, takes_targets: bool
) -> Op:
    """Return the operation of a loss, which gets labels (N,) or, on request, targets (N, K)."""

    def apply(
        logits: Array, *, labels: Array, label_smoothing: float = 0.0, buffer: Buffer = new
    ) -> tuple[Array, Any]:
        if takes_targets:
            labels = smoothed_targets(labels, logits.shape[1], label_smoothing).astype(logits.dtype)
        value, saved = _pair(component, forward(logits, labels))
        _check_shape(component, "forward", value, ())
        return logits.dtype.type(value), (saved, logits.shape)

    def differentiate(g: Array, saved: Any, *, buffer: Buffer = new) -> tuple[Array]:
        inside, shape = saved
        (d_logits,) = _gradients(component, backward(g, inside), 1)
        own = buffer("d_logits", shape, g.dtype)
        return (_copied(component, "backward", d_logits, shape, own),)

    return Op(apply, differentiate, ("logits",))


def evaluation_loss(op: Op) -> Callable[[Config, Any, Any], float]:
    """Return the function of the mean loss in float64, without label smoothing."""

    def evaluate(config: Config, logits: Any, labels: Any) -> float:
        value, _ = op.forward(np.array(logits, dtype=np.float64), labels=labels)
        return float(value)

    return evaluate


def update_rule(component: Component, update: Callable[..., Array], vectors: Sequence[str]) -> Rule:
    """Return the update rule of an optimizer with state vectors of these names."""

    def apply(u: Update, lr: float, t: int) -> None:
        state = dict(zip(vectors, u.state, strict=True))
        change = update(u.w, u.g, state, lr, t, u.config)
        _copied(component, "the update", change, u.w.shape, u.change)

    return Rule(apply, tuple(vectors))


def try_components(architecture: Architecture, config: Config) -> None:
    """Compute each configured component of a plug-in once. Raises ConfigError if one is faulty."""
    for component in used_components(config):
        kind, name, random = component.kind, component.name, generator(0, "gradcheck")
        with component.running("NumPy"):
            if kind == "optimizer":
                _try_rule(OPTIMIZERS[name], config)
            elif kind == "loss":
                _try_loss(LOSSES[name], architecture.classes, random)
            elif kind in ("activation", "layer"):
                for layer in architecture.walk():
                    if layer.record.kind == name:
                        _try_layer(component, layer, random)


def _try_rule(rule: Rule, config: Config) -> None:
    vectors = [np.zeros(5) for _ in rule.vectors_for(config.optimizer)]
    w, g, change, scratch = (np.full(5, value) for value in (0.5, 0.25, 0.0, 0.0))
    rule.update(Update(config.optimizer, w, g, vectors, change, scratch, None), 0.1, 1)


def _try_loss(op: Op, classes: int, random: np.random.Generator) -> None:
    logits, labels = random.standard_normal((SAMPLES, classes)), np.arange(SAMPLES) % classes
    _, saved = op.forward(logits, labels=labels)
    op.backward(np.float64(1), saved)


def _try_layer(component: Component, layer: InferredLayer, random: np.random.Generator) -> None:
    """Compute a layer once, and compare the shape of its output with that of the record."""
    op = ACTIVATIONS[type(layer.record)]
    x = _images(random.standard_normal((SAMPLES, *layer.input_shape)))
    parameters = [random.standard_normal(shape) for shape in layer.parameters.values()]
    y, saved = op.forward(np.ascontiguousarray(x), *parameters, **vars(layer.record))
    found, expected = _images(y).shape[1:], layer.output_shape
    if found != expected:
        raise component.error(
            f"returns {format_shape(found) or 'one number'} for each sample in {layer.name}, but "
            f"its rule for shapes says {format_shape(expected)}"
        )
    op.backward(np.ascontiguousarray(y), saved)


def _pair(component: Component, result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise component.error(
            "returns no pair from forward; return (output, values that backward needs)"
        )
    return result


def _gradients(component: Component, result: Any, count: int) -> tuple[Any, ...]:
    gradients = result if isinstance(result, tuple | list) else (result,)
    if len(gradients) != count:
        inputs = "x and each parameter" if count > 1 else "its input"
        raise component.error(
            f"returns {len(gradients)} gradients from backward, expected {count}: one of {inputs}"
        )
    return tuple(gradients)


def _check_shape(component: Component, part: str, found: Any, expected: Shape) -> None:
    shape = np.shape(found)
    if shape != expected:
        raise component.error(f"returns the shape {shape} from {part}, expected {expected}")


def _copied(component: Component, part: str, source: Any, shape: Shape, target: Array) -> Array:
    """Copy an array into memory of nnopt, after a check of its shape."""
    _check_shape(component, part, source, shape)
    np.copyto(target, source, casting="same_kind")
    return target


def _images(x: Array) -> Array:
    """Return images (H, W, N, C) as a view (N, C, H, W), or the reverse. (N, D) is unchanged."""
    return x.transpose(2, 3, 0, 1) if x.ndim == 4 else x
