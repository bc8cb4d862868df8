"""The registry that a plug-in receives: one method for each kind of component."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from nnopt.architecture import builders
from nnopt.architecture.activations import Elementwise
from nnopt.architecture.inference import Layer
from nnopt.architecture.layers import LAYERS
from nnopt.architecture.plugins import PluginLayer
from nnopt.config.plugins.parts import (
    Entry,
    Functions,
    check_defaults,
    checked_factor,
    layer_parts,
    lazy_evaluation,
    lazy_loss,
)
from nnopt.data.plugins import Samples, decoder
from nnopt.results.metrics import METRICS
from nnopt.schema.dataset import DatasetConfig
from nnopt.schema.optimizer import OptimizerConfig
from nnopt.schema.schedule import ScheduleConfig
from nnopt.schema.tables import Component

assert builders.ACTIVATIONS, "the tables must contain nnopt's own names"


@dataclass(frozen=True)
class Registration:
    """A component, and its entries in the tables."""

    component: Component
    entries: tuple[Entry, ...]


class Registry:
    """The components of one plug-in. A faulty component raises ConfigError.

    Attributes:
        registrations: The registered components.
    """

    def __init__(self, source: str, file: str) -> None:
        self._source = source
        self._file = file
        self.registrations: list[Registration] = []

    def activation(
        self,
        name: str,
        *,
        numpy: Functions | None = None,
        torch: Callable[..., Any] | None = None,
        record: type[Elementwise] | None = None,
    ) -> None:
        """Register an activation, a function that is applied to each number.

        Args:
            name: The name in YAML.
            numpy: ``forward(x, **options) -> (y, saved)`` and ``backward(g, saved) -> dL/dx``, with
                the gradient g = dL/dy. All arrays have the shape of x.
            torch: ``function(x, **options) -> y``, which autograd derives.
            record: The class of the options, a subclass of ``Activation``. Without options, the
                class can be omitted.
        """
        component = self._component("activation", name, numpy, torch)
        if record is None:
            record = type(name, (Elementwise,), {"__doc__": f"The activation {name}."})
        self._check_record(component, record, Elementwise)
        for field in fields(record):
            if field.default is MISSING:
                raise component.error(f"needs a default for its option {field.name!r}")
        entries = [("layer", name, record), ("activation", name, record())]
        self._add(component, [*entries, *layer_parts(component, record, numpy, torch, None)])

    def layer(
        self,
        name: str,
        record: type[PluginLayer],
        *,
        numpy: Functions | None = None,
        torch: Callable[..., Any] | None = None,
        module: Callable[..., Any] | None = None,
    ) -> None:
        """Register a layer.

        Args:
            name: The name in YAML.
            record: A subclass of ``Layer``: the options and the rule for shapes.
            numpy: ``forward(x, *parameters, **options) -> (y, saved)`` and ``backward(g, saved)``,
                which returns dL/dx and the gradient of each parameter. Samples are (N, D) or
                (N, C, H, W).
            torch: ``function(x, *parameters, **options) -> y``, which autograd derives.
            module: Instead of ``torch``: ``factory(input_shape, **options) -> torch.nn.Module``
                with the parameters of the record.
        """
        component = self._component("layer", name, numpy, torch or module)
        if torch is not None and module is not None:
            raise component.error("has both torch and module; leave one of them out")
        self._check_record(component, record, PluginLayer)
        if record.output_shape is PluginLayer.output_shape:
            raise component.error(f"is incomplete: {record.__name__} defines no output_shape")
        parts = layer_parts(component, record, numpy, torch, module)
        self._add(component, [("layer", name, record), *parts])

    def optimizer(
        self,
        name: str,
        config: type[OptimizerConfig],
        *,
        numpy: Callable[..., Any] | None = None,
        state: Sequence[str] = (),
        torch: Callable[..., Any] | None = None,
    ) -> None:
        """Register an optimizer.

        Args:
            name: The name in YAML.
            config: A subclass of ``OptimizerConfig`` with the keys and their ranges.
            numpy: ``update(w, g, state, lr, step, config) -> change``, and nnopt computes
                w ← w - change. The arrays are parts of a flat vector of all parameters, so the
                elements must not depend on each other. ``state`` maps names to arrays that are 0 at
                first and are changed in place. ``step`` is counted from 1.
            state: The names of these arrays.
            torch: ``factory(parameters, config) -> torch.optim.Optimizer``. nnopt sets the learning
                rate of each group before each step.
        """
        component = self._component("optimizer", name, numpy, torch)
        entries: list[Entry] = [
            ("optimizer", name, self._checked_config(component, config, OptimizerConfig))
        ]
        if isinstance(state, str) or not all(isinstance(x, str) for x in state):
            raise component.error(f"needs a list of names as its state, got {state!r}")
        if numpy is not None:
            from nnopt.backends.numpy.plugins import update_rule

            entries.append(("optimizer/numpy", name, update_rule(component, numpy, state)))
        if torch is not None:
            entries.append(("optimizer/torch", name, torch))
        self._add(component, entries)

    def loss(
        self,
        name: str,
        *,
        numpy: Functions | None = None,
        torch: Callable[..., Any] | None = None,
        takes_targets: bool = False,
    ) -> None:
        """Register a loss, the mean over the samples of a batch.

        Args:
            name: The name in YAML.
            numpy: ``forward(logits, labels) -> (loss, saved)`` and
                ``backward(g, saved) -> dL/dlogits``, with logits (N, K) and g = 1.
            torch: ``function(logits, labels) -> loss``, which autograd derives.
            takes_targets: False: the labels are classes (N,). True: they are the fractions (N, K)
                of the classes, so that the loss supports label smoothing, mixup and cutmix.
        """
        component = self._component("loss", name, numpy, torch)
        entries: list[Entry] = [("loss", name, component)]
        if not takes_targets:
            entries.append(("loss/labels_only", name, component))
        if torch is not None:
            entries.append(("loss/torch", name, lazy_loss(component, torch, takes_targets)))
        if numpy is not None:
            from nnopt.backends.numpy.plugins import evaluation_loss, loss_operation

            op = loss_operation(component, *numpy, takes_targets)
            entries.append(("loss/numpy", name, op))
            entries.append(("loss/evaluation", name, evaluation_loss(op)))
        else:
            assert torch is not None
            entries.append(("loss/evaluation", name, lazy_evaluation(torch, takes_targets)))
        self._add(component, entries)

    def dataset(
        self, name: str, config: type[DatasetConfig], load: Callable[[Any, Path], Samples]
    ) -> None:
        """Register a dataset.

        Args:
            name: The name in YAML.
            config: A subclass of ``DatasetConfig`` with the keys and their ranges.
            load: ``load(config, root) -> Samples``. ``root`` is the folder of the key
                ``data.root``.
        """
        component = self._component("dataset", name, None, None, load)
        record = self._checked_config(component, config, DatasetConfig)
        loader = decoder(component, load)
        self._add(component, [("dataset", name, record), ("dataset/decoder", name, loader)])

    def schedule(
        self, name: str, config: type[ScheduleConfig], factor: Callable[..., float]
    ) -> None:
        """Register a schedule of the learning rate.

        Args:
            name: The name in YAML.
            config: A subclass of ``ScheduleConfig`` with the keys and their ranges.
            factor: ``factor(config, step, steps, steps_per_epoch)`` returns the number by which
                ``optimizer.lr`` is multiplied at a step after the warm-up, counted from 0.
                ``steps`` is the number of steps after the warm-up.
        """
        component = self._component("schedule", name, None, None, factor)
        record = self._checked_config(component, config, ScheduleConfig)
        entries = [("schedule", name, record)]
        self._add(
            component, [*entries, ("schedule/factor", name, checked_factor(component, factor))]
        )

    def metric(self, name: str, function: Callable[..., float]) -> None:
        """Register a metric, which ``evaluation.metrics`` selects.

        Args:
            name: The name in YAML. The results are ``test_NAME`` and ``train_NAME``.
            function: ``function(logits, labels) -> number`` for logits (N, K) and labels (N,) of
                all samples of a part, as NumPy arrays. It is called after training.
        """
        component = self._component("metric", name, None, None, function)
        if taken := [x for x in METRICS if x in (f"test_{name}", f"train_{name}")]:
            raise component.error(f"has the name of a metric of nnopt, {taken[0]}; rename it")

        def checked(logits: Any, labels: Any) -> float:
            with component.running("its function"):
                value = function(logits, labels)
            if np.shape(value) != ():
                raise component.error(f"returns the shape {np.shape(value)}, expected a number")
            with component.running("its function"):
                return float(value)

        self._add(component, [("metric", name, checked)])

    def _add(self, component: Component, entries: Sequence[Entry]) -> None:
        if any(each.component[:2] == component[:2] for each in self.registrations):
            raise component.error("is registered twice")
        self.registrations.append(Registration(component, tuple(entries)))

    def _component(
        self, kind: str, name: Any, numpy: Any, torch: Any, function: Any = None
    ) -> Component:
        """Return a component, after a check of its name and of its functions."""
        if function is None:
            backends = [("numpy", numpy), ("torch", torch)]
            present = tuple(backend for backend, part in backends if part is not None)
        else:
            present = ("numpy", "torch")
        component = Component(kind, str(name), self._source, self._file, present)
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise component.error(
                "needs a name of small letters, digits and '_' that starts with a letter"
            )
        if not present:
            raise component.error("is incomplete: it has neither a NumPy nor a torch part")
        is_pair = isinstance(numpy, tuple | list) and len(numpy) == 2 and all(map(callable, numpy))
        if numpy is not None and kind != "optimizer" and not is_pair:
            raise component.error("is incomplete: numpy needs two functions, (forward, backward)")
        single = [numpy] if kind == "optimizer" and numpy is not None else []
        for part in (*single, *(x for x in (torch, function) if x is not None)):
            if not callable(part):
                raise component.error(f"needs a function, got {part!r}")
        return component

    def _check_record(self, component: Component, record: Any, base: type[Layer]) -> None:
        """Check the class of the options of a layer, and set its name."""
        public = "Activation" if base is Elementwise else "Layer"
        if not (isinstance(record, type) and issubclass(record, base) and record is not base):
            raise component.error(f"needs a subclass of nnopt.{public}, got {record!r}")
        if any(own in record.__mro__ for own in LAYERS.values()):
            raise component.error(f"must derive from nnopt.{public} itself")
        if record.kind not in ("", component.name):
            raise component.error(f"has the same class as {record.kind!r}; define a class for each")
        record.kind = component.name
        check_defaults(component, record)

    def _checked_config(self, component: Component, config: Any, base: type) -> type:
        """Return the dataclass of the keys, after a check of the types and defaults."""
        if not (isinstance(config, type) and issubclass(config, base)):
            raise component.error(f"needs a subclass of nnopt.{base.__name__}")
        with component.running(config.__name__):
            if "__dataclass_params__" not in vars(config):
                dataclass(frozen=True)(config)
        check_defaults(component, config)
        return config
