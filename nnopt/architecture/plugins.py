"""Layers of plug-ins, and the components of plug-ins that a configuration uses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from nnopt.architecture.inference import InferredLayer, Layer, Shape, format_shape
from nnopt.architecture.layers import Residual
from nnopt.architecture.parse import parse_layers
from nnopt.errors import ConfigError
from nnopt.schema import Config, LayersConfig
from nnopt.schema.tables import COMPONENTS, Component


class PluginLayer(Layer):
    """The base class of the layers of plug-ins. The annotated fields are the arguments in YAML.

    Subclasses define the methods below. Only ``output_shape`` is required. Shapes are those of one
    sample, (D,) or (C, H, W). A method raises ValueError to refuse a shape.
    """

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the output for an input of ``shape``."""
        raise NotImplementedError

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        """Return name -> shape of each trained array.

        An initializer draws arrays with two or more axes whose names end with "weight", which need
        the layout (outputs, inputs, ...).
        """
        return {}

    def flops(self, shape: Shape) -> int:
        """Return the number of FLOPs for one sample; by default, two for each parameter."""
        return 2 * sum(math.prod(x) for x in self.parameters(shape).values())

    def _infer(self, name: str, shape: Shape, classes: int) -> InferredLayer:
        component = COMPONENTS["layer", self.kind]
        try:
            output, parameters, flops = self.output_shape(shape), self.parameters(shape), 0
            flops = self.flops(shape)
        except ValueError as error:
            message = f"layer {name}: does not accept an input of {format_shape(shape)}: {error}"
            raise ConfigError(message) from error
        except Exception as error:
            with component.running("its rule for shapes"):
                raise error
        for method, found in (("output_shape", output), *parameters.items()):
            if not _is_shape(found):
                raise component.error(
                    f"has a wrong rule for shapes: {method} is {found!r}, expected a tuple of "
                    "whole numbers above 0"
                )
        if len(output) not in (1, 3):
            raise component.error(
                f"has a wrong rule for shapes: the output of a sample has the shape {output}, "
                "expected (D,) or (C, H, W)"
            )
        return InferredLayer(name, self, shape, output, flops, parameters)


def _is_shape(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(type(n) is int and n > 0 for n in value)


def used_components(config: Config) -> list[Component]:
    """Return the components of active plug-ins that a configuration uses."""
    if not COMPONENTS:
        return []
    names = [(kind, getattr(config, kind).name) for kind in ("dataset", "optimizer", "schedule")]
    names += [("loss", config.loss), *(("metric", name) for name in config.evaluation.metrics)]
    architecture = config.architecture
    if isinstance(architecture, LayersConfig):
        kinds = {record.kind for record in _walk(parse_layers(architecture.layers))}
        names += [(kind, name) for name in sorted(kinds) for kind in ("activation", "layer")]
    else:
        names.append(("activation", getattr(architecture, "activation", "")))
    return [COMPONENTS[key] for key in names if key in COMPONENTS]


def _walk(layers: Sequence[Layer]) -> Iterator[Layer]:
    for layer in layers:
        yield layer
        if isinstance(layer, Residual):
            yield from _walk((*layer.layers, *layer.shortcut))
