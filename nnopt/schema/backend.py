"""The keys of ``conf/backend/``."""

from dataclasses import dataclass
from typing import Annotated, Literal

from nnopt.schema.range import Range

ConvAlgorithm = Literal["auto", "naive", "im2col", "winograd"]


@dataclass(frozen=True)
class NumpyConfig:
    """The NumPy backend. ``conv_algorithm=auto`` selects an algorithm by the shapes of arrays."""

    name: Literal["numpy"]
    dtype: Literal["float32", "float64"]
    device: str
    threads: Annotated[int | None, Range(minimum=1, maximum=1024)]
    shared_masks: bool
    conv_algorithm: ConvAlgorithm


@dataclass(frozen=True)
class TorchConfig:
    """The PyTorch backend."""

    name: Literal["torch"]
    dtype: Literal["float32", "float64"]
    device: str
    threads: Annotated[int | None, Range(minimum=1, maximum=1024)]
    shared_masks: bool
    precision: Literal["full", "bf16", "fp16"]  # for matrix products and convolutions
    compile: Literal["off", "default", "max-autotune"]
    deterministic: bool


BackendVariant = NumpyConfig | TorchConfig
