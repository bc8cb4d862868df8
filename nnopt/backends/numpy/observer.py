"""A look inside a network: the same layers, each noting what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnopt.architecture.inference import InferredLayer
from nnopt.backends.numpy.modules import Binder, Module
from nnopt.backends.numpy.ops import Array
from nnopt.backends.numpy.tape import Tape, Variable
from nnopt.backends.numpy.threads import ThreadPool
from nnopt.schema import Config


class Observer(Binder):
    """Binds layers as ``Binder`` does. What each gives, those inside residual ones too, stands in
    ``outputs`` under its name, in PyTorch's layout, copied: some layers give their input back, or a
    view of it."""

    def __init__(
        self,
        config: Config,
        parameters: Mapping[str, Variable],
        statistics: Mapping[str, Array],
        workers: ThreadPool,
    ) -> None:
        super().__init__(config, parameters, statistics, workers)
        self.outputs: dict[str, Array] = {}

    def modules(self, layers: Sequence[InferredLayer]) -> list[Module]:
        """Every layer for itself, as each has an output to note."""
        return [self.module(layer) for layer in layers]

    def module(self, layer: InferredLayer, relu: bool = False) -> Module:
        """The layer with what it needs."""
        bound = super().module(layer, relu)

        def apply(tape: Tape, x: Variable, step: int | None) -> Variable:
            y = bound(tape, x, step)
            is_image = y.value.ndim == 4  # (H, W, N, C) inside
            self.outputs[layer.name] = (
                y.value.transpose(2, 3, 0, 1) if is_image else y.value
            ).copy()
            return y

        return apply
