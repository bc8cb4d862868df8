"""The keys of ``conf/regularizer/``."""

from dataclasses import dataclass
from typing import Annotated, Literal

from nnopt.schema.range import Range


@dataclass(frozen=True)
class AugmentationConfig:
    """The augmentation of training samples. Zero, False and "none" switch a method off."""

    crop: Annotated[int, Range(minimum=0, maximum=64)]  # pixels
    flip: bool
    policy: Literal["none", "rand_augment", "trivial_augment"]
    num_ops: Annotated[int, Range(minimum=1, maximum=100)]  # of RandAugment
    magnitude: Annotated[int, Range(minimum=0, maximum=30)]  # of RandAugment
    cutout: Annotated[int, Range(minimum=0, maximum=1024)]  # pixels
    mixup: Annotated[float, Range(minimum=0, maximum=1000)]  # α of the Beta distribution
    cutmix: Annotated[float, Range(minimum=0, maximum=1000)]  # α of the Beta distribution


@dataclass(frozen=True)
class RegularizerConfig:
    """The regularizers. Zero, False, None and "none" switch a regularizer off."""

    l1: Annotated[float, Range(minimum=0)]
    l2: Annotated[float, Range(minimum=0)]
    weight_decay: Annotated[float | None, Range(minimum=0)]
    dropout: Annotated[float, Range(minimum=0, below=1)]
    stochastic_depth: Annotated[float, Range(minimum=0, below=1)]
    norm: Literal["none", "batch", "layer", "group"]
    label_smoothing: Annotated[float, Range(minimum=0, below=1)]
    grad_clip: Annotated[float, Range(minimum=0)]
    max_norm: Annotated[float, Range(minimum=0)]
    decay_norm_and_bias: bool
    ema_decay: Annotated[float, Range(minimum=0, below=1)]
    swa_start: Annotated[float, Range(minimum=0, below=1)]
    test_time_flip: bool
    augmentation: AugmentationConfig
