"""Layer records as ``torch.nn`` modules.

A child is called what its record is called in the architecture, so that a module's ``state_dict``
has the architecture's names: "dense1.weight", "residual1.batch_norm1.running_mean".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nnopt.architecture import layers as records
from nnopt.architecture.network import PlacedLayer
from nnopt.random import KeepMasks, generator
from nnopt.schema import Config

WITHOUT_OPTIONS: dict[type, type[nn.Module]] = {
    records.ReLU: nn.ReLU,
    records.GELU: nn.GELU,  # exact unless told otherwise
    records.Tanh: nn.Tanh,
    records.Sigmoid: nn.Sigmoid,
    records.SiLU: nn.SiLU,
    records.Flatten: nn.Flatten,
}


class Residual(nn.Sequential):
    """x + branch(x), the branch being the children one after another."""

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return x + branch


class DeviceMasks:
    """Dropout masks drawn on the device, as a pure function of (seed, layer, step).

    ``torch.nn.Dropout`` draws from the process's one generator: two networks would disturb each
    other, and a resumed run would need its state. It also takes a whole random number for each
    unit; here 16 bits decide, as in ``nnopt.random.KeepMasks``, at a third of the time.
    """

    def __init__(self, seed: int, layer: str, rate: float, device: torch.device) -> None:
        self._generator = torch.Generator(device)
        self._first = int(generator(seed, f"dropout/torch/{layer}").integers(2**62))
        kept = min(max(round((1 - rate) * 65536), 1), 65535)
        self._threshold = kept - 32768  # the 16 bits are read as a number from -32768 to 32767
        self.scale = 65536 / kept

    def draw(self, step: int, shape: torch.Size) -> Tensor:
        """True where a unit is kept, in a tensor of ``shape``."""
        self._generator.manual_seed(self._first + step)
        count = shape.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64, device=self._generator.device)
        words.random_(-(2**63), None, generator=self._generator)
        return words.view(torch.int16)[:count].view(shape) < self._threshold


class Dropout(nn.Module):
    """x · keep · scale in training, x in evaluation. Whoever trains sets ``step`` before."""

    def __init__(self, masks: KeepMasks | DeviceMasks) -> None:
        super().__init__()
        self.step = 0
        self._masks = masks

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = torch.as_tensor(self._masks.draw(self.step, x.shape), device=x.device)
        return x * keep.to(x.dtype).mul_(self._masks.scale)


def sequence(
    layers: Iterable[PlacedLayer], config: Config, kind: type[nn.Sequential] = nn.Sequential
) -> nn.Sequential:
    """The layers one after another. Their parameters hold arbitrary numbers until they are loaded;
    PyTorch's own initialization, and its global generator, are not touched."""
    children = OrderedDict((x.name.rpartition(".")[2], _module(x, config)) for x in layers)
    return kind(children)


def _module(layer: PlacedLayer, config: Config) -> nn.Module:
    size = layer.input_shape[0]
    match layer.record:
        case records.Dense(_, bias):
            return nn.Linear(size, layer.output_shape[0], bias, device="meta")
        case records.BatchNorm(momentum, epsilon):
            norm = nn.BatchNorm1d(size, epsilon, momentum, device="meta")
            norm.num_batches_tracked = None  # counts steps, which nothing here reads
            return norm
        case records.LayerNorm(epsilon):
            return nn.LayerNorm(size, epsilon, device="meta")
        case records.LeakyReLU(slope):
            return nn.LeakyReLU(slope)
        case records.Dropout(0):
            return nn.Identity()
        case records.Dropout(rate):
            if config.backend.shared_masks:
                return Dropout(KeepMasks(config.seed, layer.name, rate))
            device = torch.device(config.backend.device)
            return Dropout(DeviceMasks(config.seed, layer.name, rate, device))
        case records.Residual():
            return sequence(layer.inner, config, Residual)
    return WITHOUT_OPTIONS[type(layer.record)]()
